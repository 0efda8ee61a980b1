"""A demo merchant for development, made through GraphQL: keys, members, codes, points, referrals and a past."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app import ids
from app.api.context import Context, Role, Viewer
from app.config import settings
from app.merchants.create_merchant import create_merchant
from app.operate.embedded import DataDirectory
from app.schema import schema
from app.storage.database import connected
from app.web.authentication import authenticate

#: Members without names, who bought something in the past.
HISTORY_MEMBERS: Final = 12
NAMES: Final = ("Ada Lovelace", "Grace Hopper", "Alan Turing")
#: Who invites whom, by first name. All who are invited join and buy, except UNANSWERED.
INVITES: Final = (
    ("Ada", ("Katherine Johnson", "Annie Easley", "Edsger Dijkstra")),
    ("Katherine", ("Dorothy Vaughan",)),
    ("Grace", ("Barbara Liskov",)),
)
UNANSWERED: Final = "Barbara Liskov"

CREATE_KEY: Final = """
mutation ($input: CreateApiKeyInput!) { answer: createApiKey(input: $input) { ... on CreateApiKeySuccess { secret } } }
"""
ENROL: Final = """
mutation ($input: EnrollMemberInput!) {
  answer: enrollMember(input: $input) { ... on EnrollMemberSuccess { member { id } } }
}
"""
EDIT: Final = """
mutation ($input: EditMemberInput!) { answer: editMember(input: $input) { ... on EditMemberSuccess { member { id } } } }
"""
CREATE_POOL: Final = """
mutation ($input: CreatePoolInput!) { answer: createPool(input: $input) { ... on CreatePoolSuccess { pool { id } } } }
"""
GENERATE: Final = """
mutation ($input: GenerateCodesInput!) {
  answer: generateCodes(input: $input) { ... on GenerateCodesSuccess { batch { size } } }
}
"""
ACTIVATE: Final = """
mutation ($input: PoolIdInput!) {
  answer: activatePool(input: $input) { ... on ChangePoolStatusSuccess { pool { status } } }
}
"""
CREATE_REWARD: Final = """
mutation ($input: CreateRewardInput!) {
  answer: createReward(input: $input) { ... on CreateRewardSuccess { reward { id } } }
}
"""
CLAIM: Final = """
mutation ($input: ClaimCodeInput!) { answer: claimCode(input: $input) { ... on ClaimCodeSuccess { code { text } } } }
"""
REDEEM: Final = """
mutation ($input: RedeemCodesInput!) {
  answer: redeemCodes(input: $input) { ... on RedeemCodesSuccess { totalDiscount { amountMinor } } }
}
"""
GRANT: Final = """
mutation ($input: GrantPointsInput!) { answer: grantPoints(input: $input) { ... on GrantPointsSuccess { replayed } } }
"""
CONFIGURE_PROGRAM: Final = """
mutation ($input: ConfigureReferralProgramInput!) {
  answer: configureReferralProgram(input: $input) {
    ... on ConfigureReferralProgramSuccess { program { convertsOn } }
  }
}
"""
ISSUE: Final = """
mutation ($input: IssueMemberTokenInput!) {
  answer: issueMemberToken(input: $input) { ... on IssueMemberTokenSuccess { token } }
}
"""
INVITE: Final = """
mutation ($input: InviteMembersInput!) {
  answer: inviteMembers(input: $input) { ... on InviteMembersSuccess { invites { token } } }
}
"""
ACCEPT: Final = """
mutation ($input: AcceptInviteInput!) {
  answer: acceptInvite(input: $input) { ... on AcceptInviteSuccess { member { id } } }
}
"""
RECORD: Final = """
mutation ($input: RecordPurchaseInput!) {
  answer: recordPurchase(input: $input) { ... on RecordPurchaseSuccess { referral { id } } }
}
"""
TAKE_SNAPSHOT: Final = """
mutation { answer: takeGraphSnapshot { ... on TakeGraphSnapshotSuccess { jobId } } }
"""


@dataclass(frozen=True)
class Demo:
    """What a newcomer needs: secrets by role, and ids to use."""

    merchant_id: str
    admin: str
    checkout: str
    support: str
    analyst: str
    pool_id: str
    member_id: str


async def ensure_demo(data: DataDirectory) -> None:
    """Make the demo merchant of this data directory, unless it exists and its key works."""
    async with connected(settings()):
        kept = _kept(data)
        if kept is None or await authenticate(f"Bearer {kept.admin}") is None:
            data.create()
            data.write_secret(data.demo, json.dumps(asdict(await _make()), indent=2) + "\n")


def _kept(data: DataDirectory) -> Demo | None:
    try:
        return Demo(**json.loads(data.demo.read_text()))
    except (OSError, ValueError, TypeError):
        return None


async def _make() -> Demo:
    merchant = await create_merchant("Demo store", "USD")
    viewer = await authenticate(f"Bearer {merchant.api_key}")
    if viewer is None:
        raise RuntimeError("a new key isn't accepted")
    keys = {
        role: await _do(viewer, CREATE_KEY, label=f"demo {role.value.lower()}", role=role.value)
        for role in (Role.CHECKOUT, Role.SUPPORT, Role.ANALYST)
    }
    members = [
        await _do(
            viewer,
            ENROL,
            externalId=f"demo-{number}",
            displayName=name,
            email=_address(name),
            emailVerified=True,
            source="STORE",
        )
        for number, name in enumerate(NAMES, start=1)
    ]
    # Grace is known to the web shop, too, and has moved: her new address waits for a proof.
    await _do(
        viewer,
        EDIT,
        memberId=members[1]["member"]["id"],
        externalId="web-7",
        externalSource="SHOPIFY",
        email="grace.hopper@example.org",
    )
    pool_id = await _pool(viewer, 500, name="Welcome: 10 % off", kind="PERCENT", percentOff=10.0)
    of_rewards = await _pool(
        viewer, 100, name="$5 for points", kind="AMOUNT", amountOff=_dollars(5), claimsPerMember=10
    )
    await _do(viewer, CREATE_REWARD, name="$5 off", cost=400, poolId=of_rewards)
    await _do(viewer, CREATE_REWARD, name="Tote bag", cost=900, stock=20)
    await _do(
        viewer,
        GRANT,
        memberId=members[0]["member"]["id"],
        amount=1000,
        reference="welcome",
        idempotencyKey="demo",
    )
    await _do(
        viewer,
        GRANT,
        memberId=members[0]["member"]["id"],
        amount=50,
        reference="birthday",
        idempotencyKey="demo birthday",
        expiresAt=(datetime.now(UTC) + timedelta(days=30)).isoformat(),
    )
    await _refer(viewer, {name.split()[0]: made["member"]["id"] for name, made in zip(NAMES, members, strict=True)})
    await _history(viewer, pool_id)
    return Demo(
        merchant_id=ids.encode("merchant", merchant.id),
        admin=merchant.api_key,
        checkout=keys[Role.CHECKOUT]["secret"],
        support=keys[Role.SUPPORT]["secret"],
        analyst=keys[Role.ANALYST]["secret"],
        pool_id=pool_id,
        member_id=members[0]["member"]["id"],
    )


async def _refer(viewer: Viewer, members: dict[str, str]) -> None:
    """Let members, by first name, refer others, and add those to the dictionary; then ask for a snapshot."""
    await _do(
        viewer, CONFIGURE_PROGRAM,
        referrerPoints=100, refereePoints=50, invitesPerBatch=10, invitesPerDay=20, invitesLifetime=100,
        inviteLifetimeDays=30, convertsOn="FIRST_PURCHASE",
    )  # fmt: skip
    for referrer, names in INVITES:
        # Only the sender of an invite can read its token.
        token = (await _do(viewer, ISSUE, memberId=members[referrer]))["token"]
        sender = await authenticate(f"Bearer {token}")
        if sender is None:
            raise RuntimeError("a new token isn't accepted")
        sent = await _do(sender, INVITE, emails=[_address(name) for name in names])
        for name, invite in zip(names, sent["invites"], strict=True):
            if name != UNANSWERED:
                joined = await _do(
                    viewer, ACCEPT, token=invite["token"], email=_address(name), emailVerified=True, displayName=name
                )
                members[name.split()[0]] = joined["member"]["id"]
                amount = {"amountMinor": 2500, "currency": "USD"}
                await _do(
                    viewer, RECORD, memberId=joined["member"]["id"], source="STORE", orderId=f"demo {name}",
                    amount=amount,
                )  # fmt: skip
    await _do(viewer, TAKE_SNAPSHOT)


def _address(name: str) -> str:
    return f"{name.split(maxsplit=1)[0].lower()}@example.com"


async def _history(viewer: Viewer, welcome: str) -> None:
    """Let other members buy and redeem, so that the portfolio has something to show."""
    coffee = await _pool(viewer, 40, name="A coffee on us", kind="GIFT", giftSku="coffee")
    autumn = await _pool(
        viewer, 60, name="Autumn: $8 off from $60", kind="AMOUNT", amountOff=_dollars(8), minimumSpend=_dollars(60)
    )
    await _pool(viewer, 25, name="Weekend: 12 % off", kind="PERCENT", percentOff=12.0)
    now = datetime.now(UTC)
    for number in range(HISTORY_MEMBERS):
        enrolled = await _do(viewer, ENROL, externalId=f"demo-guest-{number}", source="STORE")
        member_id = enrolled["member"]["id"]
        # Some come every month, some came once.
        for turn in range(1 + number % 4):
            await _do(
                viewer,
                RECORD,
                memberId=member_id,
                source="STORE",
                orderId=f"demo-{number}-{turn}",
                amount=_dollars(24 + 7 * number + 11 * turn),
                occurredAt=(now - timedelta(days=30 * turn + 97 * (number % 3))).isoformat(),
            )
        for pool, every in ((welcome, 1), (autumn, 2), (coffee, 5)):
            if number % every == 0:
                claimed = await _do(viewer, CLAIM, poolId=pool, memberId=member_id)
                if (number + every) % 3:
                    await _do(
                        viewer,
                        REDEEM,
                        codes=[claimed["code"]["text"]],
                        orderId=f"demo-{number}-{pool}",
                        orderAmount=_dollars(60 + number),
                        memberId=member_id,
                    )


def _dollars(units: int) -> dict[str, object]:
    return {"amountMinor": 100 * units, "currency": "USD"}


async def _pool(viewer: Viewer, count: int, **terms: object) -> str:
    """Return the id of a new active pool with codes."""
    made: str = (await _do(viewer, CREATE_POOL, **terms))["pool"]["id"]
    await _do(viewer, GENERATE, poolId=made, count=count)
    await _do(viewer, ACTIVATE, poolId=made)
    return made


async def _do(viewer: Viewer, document: str, **values: object) -> Any:
    """Return the answer of a mutation. Raises RuntimeError unless it succeeds."""
    variables = {"input": values} if values else {}
    result = await schema.execute(document, variables, context_value=Context(viewer))
    if result.errors or not result.data or not result.data["answer"]:
        raise RuntimeError(f"the demo merchant can't be made: {result.errors or result.data}")
    return result.data["answer"]
