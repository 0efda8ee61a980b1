"""createCampaign: one code of a pool for each of up to 5,000 recipients, all or none."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry
from strawberry.types import get_object_definition

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons import stock_levels
from app.coupons.claims import (
    PoolBacksReward,
    PoolExhausted,
    PoolNotActive,
    exhausted,
    not_active,
    refuse_if_for_points,
)
from app.coupons.rows import FIND_CAMPAIGN, IS_OPEN, REWARD_OF_POOL
from app.coupons.types import Campaign, PoolStatus
from app.storage import events
from app.storage.database import Row, Tx, database, transaction
from app.storage.wallet_versions import CHANGE_COLUMNS, raise_wallets, ring_wallet

RECIPIENTS_MAX: Final = 5000
NAME_LENGTH_MAX: Final = 200
ATTEMPTS_MAX: Final = 20


@strawberry.input(description="Who a campaign goes to: a member or an address.")
class CampaignRecipientInput:
    """Exactly one of the two."""

    member_id: strawberry.ID | None = strawberry.field(default=None, description="A member.")
    email: str | None = strawberry.field(
        default=None, description="An address; its code waits for the member that turns out to own it."
    )


# The general way works out both fields' types for each of 5,000 recipients: a third of the whole call.
get_object_definition(CampaignRecipientInput, strict=True).from_input = lambda recipient, given, _context: recipient(
    member_id=given.get("memberId"), email=given.get("email")
)


@strawberry.input(description="A campaign to send. Larger lists are several calls.")
class CreateCampaignInput:
    """What to call it, which pool, to whom, and the caller's key for a retry."""

    name: str = strawberry.field(description="Its name, at most 200 characters.")
    pool_id: strawberry.ID = strawberry.field(description="The pool; it must issue codes now.")
    recipients: list[CampaignRecipientInput] = strawberry.field(
        description="1 to 5,000 members or addresses; who is listed twice gets one code."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same key again returns the same campaign; at most 200 characters."
    )


@strawberry.type(description="Every recipient has its code.")
class CreateCampaignSuccess:
    """The campaign."""

    campaign: Campaign = strawberry.field(description="The campaign; its deliveries are what the mailer reads.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


CreateCampaignResult = Annotated[
    CreateCampaignSuccess
    | InvalidInput
    | NotFound
    | PoolNotActive
    | PoolBacksReward
    | PoolExhausted
    | IdempotencyKeyReused,
    strawberry.union("CreateCampaignResult", description="The campaign, or why there is none."),
]

FIND_BY_KEY: Final = "SELECT id, request_hash FROM campaign WHERE merchant_id = $1 AND idempotency_key = $2"
INSERT: Final = f"""
INSERT INTO campaign (merchant_id, id, pool_id, name, recipient_count, allocated_count, idempotency_key, request_hash,
                      created_at)
VALUES ($1, $2, $3, $4, 0, 0, $5, $6, now()) ON CONFLICT DO NOTHING
RETURNING {REWARD_OF_POOL.format("$3")} AS reward_id
"""
#: Campaigns of one pool go one after another; its status, and rewards that it is to back, wait for them. Claims don't.
#: What was waited for is seen by the next statement, INSERT.
HOLD_POOL: Final = f"""
SELECT p.status, p.code_lifetime_days, p.claims_per_member, {IS_OPEN} AS is_open
FROM pool p WHERE p.merchant_id = $1 AND p.id = $2 FOR NO KEY UPDATE
"""
FIND_MEMBERS: Final = """
SELECT id AS member_id, CASE WHEN email_verified THEN email_index END AS email_index
FROM member WHERE merchant_id = $1 AND id = ANY($2::uuid[])
"""
FIND_ADDRESSES: Final = """
SELECT email_index, member_id FROM address
WHERE merchant_id = $1 AND email_index = ANY($2::bytea[]) AND member_id IS NOT NULL
"""
FIND_CLAIMS: Final = """
SELECT member_id, email_index, count(*) AS claims, max(slot) AS slot,
    (array_agg(code_id ORDER BY slot DESC))[1] AS code_id
FROM (
    SELECT member_id, NULL::bytea AS email_index, slot, code_id FROM claim
    WHERE merchant_id = $1 AND pool_id = $2 AND member_id = ANY($3::uuid[])
    UNION ALL
    SELECT NULL::uuid, email_index, slot, code_id FROM claim
    WHERE merchant_id = $1 AND pool_id = $2 AND email_index = ANY($4::bytea[])
) claims GROUP BY member_id, email_index
"""
FIND_LIVE: Final = """
SELECT id FROM code
WHERE merchant_id = $1 AND id = ANY($2::uuid[]) AND state = 'ALLOCATED' AND (expires_at IS NULL OR expires_at > now())
"""
# The first codes in stock. Waits for claims that are taking one of them; nothing that they wait for is held yet.
PICK: Final = """
SELECT id FROM code WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' ORDER BY id LIMIT $3 FOR UPDATE
"""
IN_STOCK: Final = """
SELECT coalesce(sum(available), 0) AS available FROM stock_change WHERE merchant_id = $1 AND pool_id = $2
"""
# In order, so that two campaigns to the same people don't wait for each other in a circle.
ADDRESS: Final = """
INSERT INTO address (merchant_id, email_index) SELECT $1, each FROM unnest($2::bytea[]) AS each ORDER BY each
ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
RETURNING email_index, member_id
"""
# Waits for recipients that claim at this moment. Where such a claim was first, none is made here; it is counted again.
CLAIM: Final = """
INSERT INTO claim (merchant_id, code_id, pool_id, member_id, email_index, slot, claimed_at)
SELECT $1, code_id, $2, member_id, email_index, slot, now()
FROM unnest($3::uuid[], $4::uuid[], $5::bytea[], $6::int[]) AS t (code_id, member_id, email_index, slot)
ON CONFLICT DO NOTHING RETURNING code_id
"""
# Raises wallets, so it comes after the claims: the other way round a recipient that claims at this moment would hold
# its claim and wait for its wallet, while the campaign holds the wallet and waits for the claim.
ALLOCATE: Final = f"""
WITH asked AS (
    SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::bytea[], $6::uuid[]) AS t (code_id, member_id, sent_to, event_id)
), c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = asked.member_id, email_index = asked.sent_to,
        matched_by = 'CAMPAIGN_RECIPIENT', allocated_at = now(), expires_at = now() + make_interval(days => $8)
    FROM asked WHERE code.merchant_id = $1 AND code.id = ANY($3::uuid[]) AND code.id = asked.code_id
    RETURNING code.id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, $2, gen_random_uuid(), -count(*), count(*), 0, 0, 0 FROM asked
), changed AS (
    SELECT event_id, code_id AS subject_id, member_id, NULL::bytea AS reason FROM asked
), {raise_wallets("code.sent", actor="$7")}
SELECT {CHANGE_COLUMNS} FROM recorded ev WHERE ev.member_id IS NOT NULL
"""
COUNT: Final = """
UPDATE campaign SET recipient_count = $3, allocated_count = $4 WHERE merchant_id = $1 AND id = $2
"""
DELIVERY_COLUMNS: Final = ["merchant_id", "campaign_id", "code_id", "recipient"]


@dataclass(frozen=True, slots=True)
class Recipients:
    """Checked recipients, each once: members, and addresses by their index."""

    members: list[UUID]
    addresses: dict[bytes, str]

    def hash(self, name: str, pool_id: UUID) -> bytes:
        """Return what tells this request from another one, whatever the order of the recipients."""
        digest = hashlib.sha256(pool_id.bytes + len(name.encode()).to_bytes(4) + name.encode())
        for part in (*sorted(member.bytes for member in self.members), *sorted(self.addresses)):
            digest.update(part)
        return digest.digest()


@dataclass(slots=True)
class Person:
    """A recipient: a member, an address, or an address that is known to be a member's; and what it has of the pool.

    `sent_to` is the address that was asked for, `email_index` also the verified one of a member that was.
    """

    member_id: UUID | None
    sent_to: bytes | None
    email_index: bytes | None
    claims: int = 0
    slot: int = 0
    latest_code_id: UUID | None = None


class _ChangedMeanwhile(Exception):  # noqa: N818  (a reason to begin again)
    """A recipient's address became a member's since it was looked at, or it claimed again and again."""


def recipients(problems: Problems, viewer: Viewer, asked: Sequence[CampaignRecipientInput]) -> Recipients:
    """Check the recipients; about 10 µs each. Raises Refused with InvalidInput or NotFound."""
    if not 1 <= len(asked) <= RECIPIENTS_MAX:
        problems.add("recipients", f"must be 1 to {RECIPIENTS_MAX} members or addresses")
        problems.refuse_if_any()
    members: dict[UUID, None] = {}
    addresses: dict[bytes, str] = {}
    missing = None
    for position, recipient in enumerate(asked):
        if (recipient.member_id is None) == (recipient.email is None):
            problems.add(f"recipients.{position}", "must name a member or an address, and not both")
        elif recipient.email is not None:
            address = problems.email(f"recipients.{position}.email", recipient.email)
            addresses[viewer.tenant.keys.email_index(address)] = address
        elif recipient.member_id is not None:
            member_id = ids.decode("member", recipient.member_id)
            if member_id is None:
                missing = missing or recipient.member_id
            else:
                members[member_id] = None
    problems.refuse_if_any()
    if missing is not None:
        raise not_found("member", missing)
    return Recipients(list(members), addresses)


@mutation(description="Send one code of a pool to each of up to 5,000 members or addresses, all or none. ADMIN only.")
async def create_campaign(
    info: Info, input: Annotated[CreateCampaignInput, strawberry.argument(description="The campaign to send.")]
) -> CreateCampaignResult:
    """Check off the event loop, then do everything in one transaction, again when an address became a member's."""
    viewer = info.context.viewer
    problems = Problems()
    name = problems.text("name", input.name, length_max=NAME_LENGTH_MAX)
    key = problems.idempotency_key(input.idempotency_key)
    asked = await asyncio.to_thread(recipients, problems, viewer, input.recipients)
    pool_id = node_id("pool", "pool", input.pool_id)
    request_hash = asked.hash(name, pool_id)
    for _ in range(ATTEMPTS_MAX):
        earlier = await _earlier(viewer, key, request_hash)
        if earlier is not None:
            return earlier
        campaign_id = ids.new()
        try:
            async with transaction() as tx:
                arguments = (viewer.merchant_id, campaign_id, pool_id, name, key, request_hash)
                pool = await tx.row(HOLD_POOL, viewer.merchant_id, pool_id)
                if pool is None:
                    raise not_found("pool", input.pool_id)
                inserted = await tx.row(INSERT, *arguments)
                if inserted is None:
                    continue
                if not pool["is_open"]:
                    raise Refused(not_active(PoolStatus(pool["status"])))
                refuse_if_for_points(inserted["reward_id"])
                await _send(tx, viewer, pool_id, pool, campaign_id, asked)
        except _ChangedMeanwhile:
            continue
        return CreateCampaignSuccess(campaign=Campaign.of(await _campaign(viewer, campaign_id)), replayed=False)
    raise RuntimeError("recipients kept changing while they were sent a campaign")


async def _earlier(viewer: Viewer, key: str | None, request_hash: bytes) -> CreateCampaignSuccess | None:
    """Return the campaign that this key made before. Raises Refused when it was another request."""
    earlier = await database().row(FIND_BY_KEY, viewer.merchant_id, key) if key is not None else None
    if earlier is None:
        return None
    if earlier["request_hash"] != request_hash:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another campaign."))
    return CreateCampaignSuccess(campaign=Campaign.of(await _campaign(viewer, earlier["id"])), replayed=True)


async def _send(tx: Tx, viewer: Viewer, pool_id: UUID, pool: Row, campaign_id: UUID, asked: Recipients) -> None:
    """Allocate a code to each recipient and write the deliveries. The order of locks is that of a claim.

    A recipient that has had all its codes of the pool gets none; if its latest is live, that one is delivered again.
    """
    limit = pool["claims_per_member"]
    people = await _resolve(tx, viewer, asked)
    await _count_claims(tx, viewer, pool_id, people)
    codes = await _pick(tx, viewer, pool_id, sum(person.claims < limit for person in people))
    await _hold_addresses(tx, viewer, people)
    served = await _claim(tx, viewer, pool_id, limit, people, codes)
    if served:
        columns: tuple[list[Any], ...] = (
            [code_id for _, code_id in served],
            [person.member_id for person, _ in served],
            [person.sent_to for person, _ in served],
            [ids.new() for _ in served],
        )
        arguments = (viewer.merchant_id, pool_id, *columns, viewer.actor, pool["code_lifetime_days"])
        for change in await tx.many(ALLOCATE, *arguments):
            ring_wallet(tx, viewer.merchant_id, change)
    had = {person.latest_code_id: person for person in people if person.claims >= limit}
    live = [row["id"] for row in await tx.many(FIND_LIVE, viewer.merchant_id, list(had))] if had else []
    sent = [*served, *((had[code_id], code_id) for code_id in live)]
    deliveries = await asyncio.to_thread(_deliveries, viewer, campaign_id, sent, asked)
    await tx.copy("delivery", DELIVERY_COLUMNS, deliveries)
    await tx.row(COUNT, viewer.merchant_id, campaign_id, len(people), len(served))
    await events.record(tx, viewer.merchant_id, "campaign.created", campaign_id, viewer.actor)
    await stock_levels.check(tx, viewer.merchant_id, pool_id, viewer.actor)


async def _resolve(tx: Tx, viewer: Viewer, asked: Recipients) -> list[Person]:
    """Return each person once, member or address. Raises Refused(NotFound) for a member that doesn't exist."""
    members = await tx.many(FIND_MEMBERS, viewer.merchant_id, asked.members)
    if len(members) < len(asked.members):
        found = {row["member_id"] for row in members}
        raise not_found("member", ids.encode("member", next(each for each in asked.members if each not in found)))
    owned = await tx.many(FIND_ADDRESSES, viewer.merchant_id, list(asked.addresses))
    owners = {row["email_index"]: row["member_id"] for row in owned}
    people: dict[UUID | bytes, Person] = {
        row["member_id"]: Person(row["member_id"], None, row["email_index"]) for row in members
    }
    for index in asked.addresses:
        owner = owners.get(index)
        # Asked for by id and by address, a member is sent to at that address.
        people[owner or index] = Person(owner, index, index)
    return list(people.values())


async def _count_claims(tx: Tx, viewer: Viewer, pool_id: UUID, people: Sequence[Person]) -> None:
    """Note what each person has of the pool now."""
    members = {person.member_id: person for person in people if person.member_id is not None}
    strangers = {person.sent_to: person for person in people if person.member_id is None}
    rows = await tx.many(FIND_CLAIMS, viewer.merchant_id, pool_id, list(members), list(strangers))
    for row in rows:
        person = strangers[row["email_index"]] if row["member_id"] is None else members[row["member_id"]]
        person.claims, person.slot, person.latest_code_id = row["claims"], row["slot"], row["code_id"]


async def _pick(tx: Tx, viewer: Viewer, pool_id: UUID, count: int) -> list[UUID]:
    """Lock the codes to send. Raises Refused(PoolExhausted) when there are too few."""
    codes: list[UUID] = []
    while count:
        codes = [row["id"] for row in await tx.rows(PICK, viewer.merchant_id, pool_id, count)]
        if len(codes) == count:
            break
        # Claims that it waited for took some; as long as the stock has enough, others are left.
        stock = await tx.row(IN_STOCK, viewer.merchant_id, pool_id)
        if stock is None or stock["available"] < count:
            raise Refused(exhausted([pool_id], "The pool has too few codes left for these recipients."))
    return codes


async def _hold_addresses(tx: Tx, viewer: Viewer, people: Sequence[Person]) -> None:
    """Lock the addresses among the recipients, so that who owns them stays as it was resolved."""
    resolved = {person.sent_to: person.member_id for person in people if person.sent_to is not None}
    if not resolved:
        return
    for row in await tx.many(ADDRESS, viewer.merchant_id, list(resolved)):
        if row["member_id"] != resolved[row["email_index"]]:
            raise _ChangedMeanwhile


async def _claim(
    tx: Tx, viewer: Viewer, pool_id: UUID, limit: int, people: Sequence[Person], codes: Sequence[UUID]
) -> list[tuple[Person, UUID]]:
    """Claim one of the locked codes for each person below the limit. Returns who got which; the rest stay in stock."""
    served: list[tuple[Person, UUID]] = []
    for _ in range(ATTEMPTS_MAX):
        # Nobody gets below the limit again, so there are codes enough.
        asking = list(zip((person for person in people if person.claims < limit), codes, strict=False))
        if not asking:
            return served
        columns: tuple[list[Any], ...] = (
            [code_id for _, code_id in asking],
            [person.member_id for person, _ in asking],
            [person.email_index for person, _ in asking],
            [person.slot + 1 for person, _ in asking],
        )
        claimed = {row["code_id"] for row in await tx.many(CLAIM, viewer.merchant_id, pool_id, *columns)}
        served += [(person, code_id) for person, code_id in asking if code_id in claimed]
        codes = [code_id for _, code_id in asking if code_id not in claimed]
        people = [person for person, code_id in asking if code_id not in claimed]
        await _count_claims(tx, viewer, pool_id, people)
    raise _ChangedMeanwhile


def _deliveries(
    viewer: Viewer, campaign_id: UUID, sent: Sequence[tuple[Person, UUID]], asked: Recipients
) -> list[tuple[object, ...]]:
    """Return the rows (DELIVERY_COLUMNS) of what is sent: a member's address is read when the mailer asks."""
    rows: list[tuple[object, ...]] = []
    for person, code_id in sent:
        recipient = None
        if person.sent_to is not None:
            recipient = viewer.tenant.keys.encrypt(code_id, "recipient", asked.addresses[person.sent_to])
        rows.append((viewer.merchant_id, campaign_id, code_id, recipient))
    return rows


async def _campaign(viewer: Viewer, campaign_id: UUID) -> Row:
    row = await database().row(FIND_CAMPAIGN, viewer.merchant_id, campaign_id)
    if row is None:
        raise RuntimeError("a committed campaign can't be read")
    return row
