"""What provokes each refusal of each mutation: the worlds, or an errand here. `make check` fails when nothing does.

Errands run once in each full run, under the same chaos as everything else: one that didn't see its refusal at the end
fails the run.
"""

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type

from app import ids
from app.schema import schema
from app.stress.clients import Client
from app.stress.verbs import VERBS
from tests.factories import usd
from tests.refusals import NEVER, refusals

REPLAYED: Final = "replayed"
BAD_EMAIL: Final = "no address"
#: Where nobody listens.
NOWHERE: Final = "http://127.0.0.1:9/"
#: Known addresses of which a member may be told in a day, and one more.
STRANGERS: Final = 201
DELIVERY_TRIES: Final = 100


def nobody(kind: ids.Kind) -> str:
    """Return an id that names nothing."""
    return ids.encode(kind, ids.new())


class Errands:
    """A merchant of its own, on which errands are run: whatever they need is made, however often that takes."""

    def __init__(self, client: Client, as_member: Callable[[str], Client], own_key: str, name: str) -> None:
        """`own_key` is the id of the merchant's only ADMIN key."""
        self._client = client
        self._own_key = own_key
        self._as_member = as_member
        self._name = name
        self._numbers = itertools.count(1)

    def word(self) -> str:
        """Return a word that is new."""
        return f"{self._name}-{next(self._numbers)}"

    def email(self) -> str:
        """Return an address that is new."""
        return f"{self.word()}@example.com"

    async def do(self, mutation: str, fields: str = "", *, client: Client | None = None, **input: Any) -> Any:
        """Call a mutation until it is answered, and return the answer."""
        sent = document(mutation, fields)
        return await (client or self._client).patiently(sent, input, is_query="$input" not in sent)

    async def member(self, **input: Any) -> str:
        """Enrol a member."""
        fields = "... on EnrollMemberSuccess { member { id } } ... on MemberAlreadyExists { existing { id } }"
        answer = await self.do("enrollMember", fields, source="STORE", externalId=self.word(), **input)
        member: str = (answer.get("member") or answer["existing"])["id"]
        return member

    async def draft(self, **terms: Any) -> str:
        """Create a pool."""
        terms = {"name": self.word(), "kind": "PERCENT", "percentOff": 10.0, **terms}
        pool: str = (await self.do("createPool", "... on CreatePoolSuccess { pool { id } }", **terms))["pool"]["id"]
        return pool

    async def pool(self, codes: int = 1, **terms: Any) -> str:
        """Create a pool with codes and open it."""
        pool = await self.draft(**terms)
        await self.do("generateCodes", poolId=pool, count=codes, idempotencyKey=pool)
        await self.do("activatePool", poolId=pool)
        return pool

    async def reward(self, pool: str | None = None) -> str:
        """Create a reward."""
        terms: dict[str, Any] = {"name": self.word(), "cost": 10, "poolId": pool}
        answer = await self.do("createReward", "... on CreateRewardSuccess { reward { id } }", **terms)
        reward: str = answer["reward"]["id"]
        return reward

    async def used(self) -> str:
        """Let a new member redeem a reward and spend its code, and return the redemption of the reward."""
        member, reward = await self.member(), await self.reward(await self.pool())
        await self.do("grantPoints", memberId=member, amount=10, reference="r", idempotencyKey=member)
        fields = "... on RedeemRewardSuccess { redemption { id code { text } } }"
        answer = await self.do("redeemReward", fields, rewardId=reward, memberId=member, idempotencyKey=member)
        code: str = answer["redemption"]["code"]["text"]
        await self.do("redeemCodes", codes=[code], orderId=self.word(), orderAmount=usd(1000), memberId=member)
        redemption: str = answer["redemption"]["id"]
        return redemption

    async def order(self, *, cancelled: bool = False) -> dict[str, Any]:
        """Let a new member spend a code on an order, call that off where it is to be, and return what names both."""
        member = await self.member()
        fields = "... on ClaimCodeSuccess { code { text } }"
        claimed = await self.do("claimCode", fields, poolId=await self.pool(), memberId=member)
        code: str = claimed["code"]["text"]
        order: dict[str, Any] = {
            "orderId": self.word(), "memberId": member, "codes": [code], "orderAmount": usd(1000)
        }  # fmt: skip
        await self.do("redeemCodes", **order)
        if cancelled:
            await self.do("cancelOrder", orderId=order["orderId"], reason="tried")
        return order

    async def member_client(self) -> Client:
        """Return the client of a new member."""
        fields = "... on IssueMemberTokenSuccess { token }"
        return self._as_member((await self.do("issueMemberToken", fields, memberId=await self.member()))["token"])

    async def invite(self, email: str) -> str:
        """Let a member invite an address, and return the invite's token.

        Raises LookupError when the answer that had it was lost.
        """
        fields = "... on InviteMembersSuccess { invites { token } }"
        sender = await self.member_client()
        answer = await self.do("inviteMembers", fields, client=sender, emails=[email])
        await sender.close()
        if not answer["invites"]:
            raise LookupError("the answer that had the token was lost")
        token: str = answer["invites"][0]["token"]
        return token

    async def webhook(self) -> str:
        """Create a webhook where nobody listens; one that there is, where there may be no more."""
        fields = "... on CreateWebhookSuccess { webhook { id } }"
        answer = await self.do("createWebhook", fields, url=NOWHERE)
        if "webhook" in answer:
            webhook: str = answer["webhook"]["id"]
            return webhook
        found = await self._read("{ answer: webhooks(first: 100) { edges { node { id } } } }")
        newest: str = found["edges"][0]["node"]["id"]
        return newest

    async def _read(self, query: str, **variables: Any) -> Any:
        return await self._client.patiently(query, variables, is_query=True)

    # What single errands need.

    async def held(self) -> str:
        """Return a referral that is held for review."""
        email = self.email()
        token = await self.invite(email)
        await self.do("acceptInvite", token=token, email=email, emailVerified=True)
        found = await self._read("{ answer: heldReferrals(first: 1) { edges { node { id } } } }")
        referral: str = found["edges"][0]["node"]["id"]
        return referral

    async def declined(self) -> str:
        """Return a referral that was declined."""
        referral = await self.held()
        await self.do("declineReferral", referralId=referral, reason="tried")
        return referral

    async def brought(self) -> dict[str, str]:
        """Return who brought whom by a referral that was released, as what a merging of both takes."""
        document = """query ($id: ID!) {
            answer: node(id: $id) { ... on Referral { referrer { id } referee { id } } }
        }"""
        found = await self._read(document, id=await self.released())
        return {"keptId": found["referrer"]["id"], "mergedId": found["referee"]["id"]}

    async def released(self) -> str:
        """Return a referral that was released."""
        referral = await self.held()
        await self.do("releaseReferral", referralId=referral)
        return referral

    async def stranger_list(self) -> tuple[Client, list[str]]:
        """Return a member's client, and more addresses that others invited than it may be told of."""
        emails = [self.email() for _ in range(STRANGERS)]
        await self.do("inviteMembers", memberId=await self.member(), emails=emails)
        return await self.member_client(), emails

    async def own_key(self) -> str:
        """Return the id of the merchant's only ADMIN key."""
        return self._own_key

    async def delivery(self) -> tuple[str, str]:
        """Return a webhook and a delivery to it."""
        webhook = await self.webhook()
        await self.do("enableWebhook", webhookId=webhook)
        query = "query ($id: ID!) { answer: webhookDeliveries(webhookId: $id, first: 1) { edges { node { id } } } }"
        for _ in range(DELIVERY_TRIES):
            await self.member()
            if found := (await self._read(query, id=webhook))["edges"]:
                return webhook, found[0]["node"]["id"]
            await asyncio.sleep(0.5)
        raise LookupError("the workers made no delivery")


def document(mutation: str, fields: str) -> str:
    """Return the document of any mutation."""
    root = schema._schema.mutation_type
    assert isinstance(root, GraphQLObjectType)
    arguments = root.fields[mutation].args
    if "input" not in arguments:
        ((name, argument),) = arguments.items()
        return (
            f"mutation (${name}: {argument.type}) "
            f"{{ answer: {mutation}({name}: ${name}) {{ __typename {fields} ... on Refusal {{ message }} }} }}"
        )
    sent = get_named_type(arguments["input"].type)
    assert isinstance(sent, GraphQLInputObjectType)
    return (
        f"mutation ($input: {sent.name}!) "
        f"{{ answer: {mutation}(input: $input) {{ __typename {fields} ... on Refusal {{ message }} }} }}"
    )


Needs = Callable[[Errands], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Errand:
    """A call that must be refused, or replayed where it says so: a fixed input, or what makes one."""

    mutation: str
    outcome: str
    input: dict[str, Any] | Needs

    @property
    def name(self) -> str:
        """How the table of what happened calls it."""
        return f"{self.mutation}: {self.outcome}"

    async def run(self, errands: Errands) -> bool:
        """Call it, and return whether the outcome was the one that it is about."""
        found = self.input if isinstance(self.input, dict) else await self.input(errands)
        sent = {name: value for name, value in found.items() if name != "as"}
        fields = f"... on {self.mutation[0].upper()}{self.mutation[1:]}Success {{ replayed }}"
        replays = self.outcome == REPLAYED
        answer = await errands.do(self.mutation, fields if replays else "", client=found.get("as"), **sent)
        return answer.get("replayed") is True if replays else answer["__typename"] == self.outcome


def _missing(*ways: tuple[str, ids.Kind, dict[str, Any]]) -> list[Errand]:
    """Return errands for ids that name nothing; the id is the first part of the input."""
    return [
        Errand(mutation, "NotFound", {f"{_ID.get(kind, kind)}Id": nobody(kind), **more})
        for mutation, kind, more in ways
    ]


_ID: Final[dict[ids.Kind, str]] = {"apikey": "apiKey", "rewardredemption": "redemption", "webhookdelivery": "delivery"}
_BLANK: Final = {"reason": " "}
_WHY: Final = {"reason": "tried"}


def _invalid(**inputs: dict[str, Any]) -> list[Errand]:
    """Return errands for inputs that can't be."""
    return [Errand(mutation, "InvalidInput", sent) for mutation, sent in inputs.items()]


async def _used_token(errands: Errands) -> dict[str, Any]:
    return {"token": "nobody", "email": errands.email()}


async def _members_address(errands: Errands) -> dict[str, Any]:
    email = errands.email()
    token = await errands.invite(email)
    await errands.member(email=email, emailVerified=True)
    return {"token": token, "email": email}


async def _nobodys_acceptance(errands: Errands) -> dict[str, Any]:
    email = errands.email()
    return {"token": await errands.invite(email), "email": email, "memberId": nobody("member")}


async def _dearer(errands: Errands) -> dict[str, Any]:
    key = errands.word()
    return {
        "rewardId": await errands.reward(), "memberId": await errands.member(), "expectedCost": 9, "idempotencyKey": key
    }  # fmt: skip


async def _known_member(errands: Errands) -> dict[str, Any]:
    return {"source": "STORE", "email": await _proved_address(errands)}


async def _anothers_proof(errands: Errands) -> dict[str, Any]:
    return {"memberId": await errands.member(), "email": await _proved_address(errands)}


async def _proved_address(errands: Errands) -> str:
    email = errands.email()
    await errands.member(email=email, emailVerified=True)
    return email


async def _merging_of_one(errands: Errands) -> dict[str, Any]:
    member = await errands.member()
    return {"keptId": member, "mergedId": member, **_WHY}


async def _merging_of_a_pair(errands: Errands) -> dict[str, Any]:
    return await errands.brought() | _WHY


async def _merged(errands: Errands) -> dict[str, Any]:
    merging: dict[str, Any] = {"keptId": await errands.member(), "mergedId": await errands.member(), **_WHY}
    await errands.do("mergeMembers", **merging)
    return merging


async def _archived(errands: Errands) -> dict[str, Any]:
    pool = await errands.pool()
    await errands.do("archivePool", poolId=pool)
    return {"poolId": pool}


async def _over(errands: Errands) -> dict[str, Any]:
    pool = await errands.draft(endsAt="2020-01-01T00:00:00Z")
    await errands.do("generateCodes", poolId=pool, count=1, idempotencyKey=pool)
    return {"poolId": pool}


async def _campaign(errands: Errands, pool: str, key: str | None = None) -> dict[str, Any]:
    recipients = [{"email": errands.email()}, {"email": errands.email()}]
    return {"name": "tried", "poolId": pool, "recipients": recipients, "idempotencyKey": key or errands.word()}


async def _sent(errands: Errands) -> dict[str, Any]:
    campaign = await _campaign(errands, await errands.pool(codes=9))
    await errands.do("createCampaign", **campaign)
    return campaign


async def _generated(errands: Errands) -> dict[str, Any]:
    batch: dict[str, Any] = {"poolId": await errands.draft(), "count": 1, "idempotencyKey": errands.word()}
    await errands.do("generateCodes", **batch)
    return batch


async def _filling(errands: Errands) -> dict[str, Any]:
    asked: dict[str, Any] = {"poolId": await errands.draft(), "available": 1, "idempotencyKey": errands.word()}
    await errands.do("fillPool", **asked)
    return asked


async def _leaked(errands: Errands) -> dict[str, Any]:
    return {"poolId": await errands.pool(), "expectedCount": 1, "idempotencyKey": errands.word(), **_WHY}


async def _revoked_all(errands: Errands) -> dict[str, Any]:
    asked = await _leaked(errands)
    await errands.do("revokeCodes", **asked)
    return asked


async def _issued(errands: Errands) -> dict[str, Any]:
    pool = await errands.pool(codes=3, transferable=True)
    batch: dict[str, Any] = {"poolId": pool, "count": 1, "reason": "print", "idempotencyKey": errands.word()}
    await errands.do("issueCodes", **batch)
    return batch


def _to_import(pool: Callable[[Errands], Awaitable[str]]) -> Any:
    async def made(errands: Errands) -> dict[str, Any]:
        codes = [{"text": f"IMPORTED{errands.word()}"}]
        return {"poolId": await pool(errands), "codes": codes, "idempotencyKey": errands.word()}

    return made


async def _imported(errands: Errands) -> dict[str, Any]:
    batch: dict[str, Any] = await _to_import(Errands.draft)(errands)
    await errands.do("importCodes", **batch)
    return batch


async def _claimed(errands: Errands, codes: int) -> tuple[str, str]:
    pool = await errands.pool(codes=codes)
    asked: dict[str, Any] = {"poolId": pool, "memberId": await errands.member()}
    return pool, (await errands.do("claimCode", "... on ClaimCodeSuccess { code { id } }", **asked))["code"]["id"]


async def _alive(errands: Errands) -> dict[str, Any]:
    return {"codeId": (await _claimed(errands, 2))[1], **_WHY}


async def _dead(errands: Errands) -> dict[str, Any]:
    return (await _died(errands, 1))[1]


async def _died(errands: Errands, codes: int) -> tuple[str, dict[str, Any]]:
    pool, code = await _claimed(errands, codes)
    dead: dict[str, Any] = {"codeId": code, **_WHY}
    await errands.do("revokeCode", recycle=False, **dead)
    return pool, dead


async def _paused_dead(errands: Errands) -> dict[str, Any]:
    pool, dead = await _died(errands, 2)
    await errands.do("pausePool", poolId=pool)
    return dead


async def _reissued(errands: Errands) -> dict[str, Any]:
    _, dead = await _died(errands, 2)
    await errands.do("reissueCode", **dead)
    return dead


def _to_issue(pool: Callable[[Errands], Awaitable[str]]) -> Any:
    async def made(errands: Errands) -> dict[str, Any]:
        return {"poolId": await pool(errands), "count": 1, "reason": "print", "idempotencyKey": errands.word()}

    return made


async def _backing(errands: Errands) -> str:
    pool = await errands.pool(codes=9)
    await errands.reward(pool)
    return pool


async def _spent(errands: Errands) -> str:
    """Return a pool whose budget one order has spent."""
    pool = await errands.pool(codes=2, maximumDiscount=usd(100), maximumTotalDiscount=usd(100))
    member = await errands.member()
    claimed = await errands.do("claimCode", "... on ClaimCodeSuccess { code { text } }", poolId=pool, memberId=member)
    codes = [claimed["code"]["text"]]
    await errands.do("redeemCodes", codes=codes, orderId=errands.word(), orderAmount=usd(1000), memberId=member)
    return pool


async def _for_others(errands: Errands) -> dict[str, Any]:
    """Return the claim of a member from a pool that isn't for it."""
    return {"poolId": await errands.pool(audience=["LAPSED"]), "memberId": await errands.member()}


async def _reward_for_others(errands: Errands) -> dict[str, Any]:
    claim = await _for_others(errands)
    return {"rewardId": await errands.reward(claim["poolId"]), "memberId": claim["memberId"],
            "idempotencyKey": errands.word()}  # fmt: skip


async def _as_many_webhooks(errands: Errands) -> str:
    """Return a disabled webhook of a merchant that has as many enabled ones as it may."""
    webhook = await errands.webhook()
    await errands.do("disableWebhook", webhookId=webhook)
    while (await errands.do("createWebhook", url=NOWHERE))["__typename"] != "WebhookLimitReached":
        pass
    return webhook


async def _one_webhook_more(errands: Errands) -> dict[str, Any]:
    await _as_many_webhooks(errands)
    return {"url": NOWHERE}


async def _disabled(errands: Errands) -> tuple[str, str]:
    webhook, delivery = await errands.delivery()
    await errands.do("disableWebhook", webhookId=webhook)
    return webhook, delivery


async def _told_too_much(errands: Errands) -> dict[str, Any]:
    client, emails = await errands.stranger_list()
    return {"emails": emails, "as": client}


async def _amendable(errands: Errands) -> dict[str, Any]:
    return await errands.order() | _WHY | {"idempotencyKey": errands.word()}


async def _amended(errands: Errands) -> dict[str, Any]:
    amendment = await _amendable(errands)
    await errands.do("amendOrder", **amendment)
    return amendment


async def _called_off(errands: Errands) -> dict[str, Any]:
    order = await errands.order(cancelled=True)
    return {"orderId": order["orderId"]} | _WHY


async def _off(errands: Errands) -> dict[str, Any]:
    return await errands.order(cancelled=True)


async def _off_to_amend(errands: Errands) -> dict[str, Any]:
    return await _off(errands) | _WHY | {"idempotencyKey": errands.word()}


async def _cart(errands: Errands) -> dict[str, Any]:
    member = await errands.member()
    fields = "... on ClaimCodeSuccess { code { text } }"
    claimed = await errands.do("claimCode", fields, poolId=await errands.pool(), memberId=member)
    return {
        "orderId": errands.word(), "memberId": member, "codes": [claimed["code"]["text"]], "orderAmount": usd(1000)
    }  # fmt: skip


async def held_cart(errands: Errands) -> tuple[dict[str, Any], str]:
    """Let a new member's order hold a code, and return what was asked and the hold."""
    cart = await _cart(errands)
    answer = await errands.do("holdCheckout", "... on HoldCheckoutSuccess { hold { id } }", **cart)
    return cart, answer["hold"]["id"]


async def _captured_cart(errands: Errands) -> dict[str, Any]:
    cart, hold = await held_cart(errands)
    await errands.do("captureHold", holdId=hold)
    return cart


async def _captured_hold(errands: Errands) -> str:
    _, hold = await held_cart(errands)
    await errands.do("captureHold", holdId=hold)
    return hold


async def _poor_cart(errands: Errands) -> dict[str, Any]:
    return {"orderId": errands.word(), "memberId": await errands.member(), "orderAmount": usd(1000), "points": 10}


async def _late_cart(errands: Errands) -> dict[str, Any]:
    reward = await errands.reward()
    await errands.do("retireReward", rewardId=reward)
    return {
        "orderId": errands.word(), "memberId": await errands.member(), "orderAmount": usd(1000), "rewardIds": [reward]
    }  # fmt: skip


async def _paid_hold(errands: Errands) -> str:
    cart = await _poor_cart(errands)
    member = cart["memberId"]
    await errands.do("grantPoints", memberId=member, amount=10, reference="r", idempotencyKey=member)
    answer = await errands.do("holdCheckout", "... on HoldCheckoutSuccess { hold { id } }", **cart)
    hold: str = answer["hold"]["id"]
    await errands.do("captureHold", holdId=hold, points=5)
    return hold


async def _released_hold(errands: Errands) -> str:
    _, hold = await held_cart(errands)
    await errands.do("releaseHold", holdId=hold)
    return hold


async def _off_to_record(errands: Errands) -> dict[str, Any]:
    order = await _off(errands)
    return {"memberId": order["memberId"], "source": "STORE", "orderId": order["orderId"], "amount": usd(1000)}


def _with(**values: Callable[[Errands], Awaitable[Any]]) -> Needs:
    async def made(errands: Errands) -> dict[str, Any]:
        return {name: await value(errands) for name, value in values.items()}

    return made


def _then(make: Callable[[Errands], Awaitable[dict[str, Any]]], **more: Any) -> Needs:
    async def made(errands: Errands) -> dict[str, Any]:
        return await make(errands) | more

    return made


def _campaign_of(make: Callable[[Errands], Awaitable[str]]) -> Needs:
    async def made(errands: Errands) -> dict[str, Any]:
        return await _campaign(errands, await make(errands))

    return made


async def _nobodys_refund(errands: Errands) -> dict[str, Any]:
    return _refund(errands.word(), 1)


async def _used_refund(errands: Errands) -> dict[str, Any]:
    order = errands.word()
    member = await errands.member()
    await errands.do("recordPurchase", memberId=member, source="STORE", orderId=order, amount=usd(100))
    await errands.do("refundPurchase", **_refund(order, 1))
    return _refund(order, 2)


def _refund(order: str, amount: int) -> dict[str, Any]:
    return {"source": "STORE", "orderId": order, "refundId": "r", "amount": usd(amount), "reason": "tried"}


ERRANDS: Final = (
    *_invalid(
        acceptInvite={"token": "nobody", "email": BAD_EMAIL},
        amendOrder={"orderId": " ", "codes": [], "orderAmount": usd(1), "idempotencyKey": "k", **_WHY},
        cancelOrder={"orderId": "nobody", **_BLANK},
        captureHold={"holdId": nobody("hold"), "points": -1},
        claimCode={"poolId": nobody("pool")},
        configureMerchant={"pointsPerUnit": -1.0},
        configureReferralProgram={
            "referrerPoints": 0, "refereePoints": 0, "invitesPerBatch": 0, "invitesPerDay": 0, "invitesLifetime": 0,
            "inviteLifetimeDays": 0, "convertsOn": "JOIN",
        },
        createApiKey={"label": " ", "role": "ADMIN"},
        createCampaign={"name": " ", "poolId": nobody("pool"), "recipients": []},
        createPool={"name": " ", "kind": "PERCENT"},
        createReward={"name": " ", "cost": 0},
        createWebhook={"url": "nowhere"},
        declineReferral={"referralId": nobody("referral"), **_BLANK},
        editReward={"rewardId": nobody("reward"), "cost": 0},
        editMember={"memberId": nobody("member"), "email": BAD_EMAIL},
        enrollMember={"source": "STORE", "email": BAD_EMAIL},
        extendHold={"holdId": nobody("hold"), "lifetimeSeconds": 0},
        fillPool={"poolId": nobody("pool"), "available": 0, "idempotencyKey": "k"},
        generateCodes={"poolId": nobody("pool"), "count": 0},
        holdCheckout={"orderId": "o", "orderAmount": usd(1)},
        importCodes={"poolId": nobody("pool"), "codes": []},
        issueCodes={"poolId": nobody("pool"), "count": 0, "reason": "r", "idempotencyKey": "k"},
        grantPoints={"memberId": nobody("member"), "amount": 0, "reference": "r", "idempotencyKey": "k"},
        inviteMembers={"memberId": nobody("member"), "emails": []},
        recordPurchase={"memberId": nobody("member"), "source": "STORE", "orderId": " ", "amount": usd(1)},
        redeemCodes={"codes": [], "orderId": "o", "orderAmount": usd(1)},
        redeemReward={"rewardId": nobody("reward"), "idempotencyKey": " "},
        eraseMember={"ground": "SHOP"},
        refundPurchase={"source": "STORE", "orderId": "o", "refundId": "r", "amount": usd(0), "reason": "tried"},
        revealCode={"codeId": nobody("code"), **_BLANK},
        reversePurchase={"reason": "tried"},
        reverseRedemption={"redemptionId": nobody("redemption"), **_BLANK},
        reverseRewardRedemption={"redemptionId": nobody("rewardredemption"), **_BLANK},
        revokeCode={"codeId": nobody("code"), **_BLANK},
        revokeCodes={"poolId": nobody("pool"), "expectedCount": -1, "idempotencyKey": "k", **_WHY},
        rotateWebhookSecret={"webhookId": nobody("webhook"), "overlapHours": -1},
    ),
    *_missing(
        ("activatePool", "pool", {}), ("archivePool", "pool", {}), ("discardPool", "pool", {}),
        ("pausePool", "pool", {}),
        ("captureHold", "hold", {}), ("extendHold", "hold", {"lifetimeSeconds": 60}), ("releaseHold", "hold", {}),
        ("holdCheckout", "member", {"orderId": "nobody", "orderAmount": usd(1), "codes": ["nobody"]}),
        ("cancelInvite", "invite", {}), ("claimCode", "pool", {"memberId": nobody("member")}),
        ("createCampaign", "pool", {"name": "n", "recipients": [{"email": "a@example.com"}]}),
        ("createReward", "pool", {"name": "n", "cost": 1}), ("declineReferral", "referral", _WHY),
        ("disableWebhook", "webhook", {}), ("editPool", "pool", {"name": "n"}), ("editReward", "reward", {"name": "n"}),
        ("enableWebhook", "webhook", {}), ("generateCodes", "pool", {"count": 1}),
        ("cancelJob", "job", {}), ("fillPool", "pool", {"available": 1, "idempotencyKey": "nobody"}),
        ("importCodes", "pool", {"codes": [{"text": "SUMMER-2019-AB"}]}),
        ("issueCodes", "pool", {"count": 1, "reason": "r", "idempotencyKey": "nobody"}),
        ("grantPoints", "member", {"amount": 1, "reference": "r", "idempotencyKey": "nobody"}),
        ("inviteMembers", "member", {"emails": ["a@example.com"]}), ("issueMemberToken", "member", {}),
        ("recordPurchase", "member", {"source": "STORE", "orderId": "nobody", "amount": usd(1)}),
        ("redeemReward", "reward", {"memberId": nobody("member"), "idempotencyKey": "nobody"}),
        ("redeliver", "webhookdelivery", {}), ("redeliverDead", "webhook", {}), ("releaseReferral", "referral", {}),
        ("retireReward", "reward", {}), ("revealCode", "code", _WHY),
        ("reissueCode", "code", _WHY), ("reversePurchase", "purchase", _WHY),
        ("reverseRedemption", "redemption", _WHY), ("reverseRewardRedemption", "rewardredemption", _WHY),
        ("revokeApiKey", "apikey", {}), ("revokeCode", "code", _WHY),
        ("revokeCodes", "pool", {"expectedCount": 1, "idempotencyKey": "nobody", **_WHY}),
        ("eraseMember", "member", {"ground": "SHOP"}),
        ("revokeMemberTokens", "member", {}), ("rotateWebhookSecret", "webhook", {}),
        ("verifyMemberEmail", "member", {}), ("editMember", "member", {"displayName": "n"}),
    ),
    Errand("mergeMembers", "InvalidInput", _merging_of_one),
    Errand("mergeMembers", "NotFound", {"keptId": nobody("member"), "mergedId": nobody("member")[:-1] + "0", **_WHY}),
    Errand("mergeMembers", "MembersNotMergeable", _merging_of_a_pair),
    Errand("mergeMembers", REPLAYED, _merged),
    Errand("acceptInvite", "InviteNotUsable", _used_token),
    Errand("acceptInvite", "MemberAlreadyExists", _members_address),
    Errand("acceptInvite", "NotFound", _nobodys_acceptance),
    Errand("activatePool", "PoolHasNoCodes", _with(poolId=Errands.draft)),
    Errand("activatePool", "PoolEnded", _over),
    Errand("amendOrder", "NotFound",
           {"orderId": "nobody", "codes": [], "orderAmount": usd(1), "idempotencyKey": "nobody", **_WHY}),
    Errand("amendOrder", "OrderNotOpen", _off_to_amend),
    Errand("amendOrder", "CodesRejected", _then(_amendable, orderAmount=usd(1))),
    Errand("amendOrder", "InsufficientPoints", _then(_amendable, points=1)),
    Errand("amendOrder", "IdempotencyKeyReused", _then(_amended, codes=[])),
    Errand("amendOrder", REPLAYED, _amended),
    Errand("archivePool", "PoolTransitionRejected", _archived),
    Errand("cancelOrder", "NotFound", {"orderId": "nobody", **_WHY}),
    Errand("cancelOrder", REPLAYED, _called_off),
    Errand("captureHold", "HoldNotOpen", _with(holdId=_released_hold)),
    Errand("captureHold", "IdempotencyKeyReused", _then(_with(holdId=_paid_hold), points=4)),
    Errand("captureHold", REPLAYED, _with(holdId=_captured_hold)),
    Errand("extendHold", "HoldNotOpen", _then(_with(holdId=_released_hold), lifetimeSeconds=60)),
    Errand("holdCheckout", "OrderNotOpen", _off),
    Errand("holdCheckout", "HoldNotOpen", _captured_cart),
    Errand("holdCheckout", "InsufficientPoints", _poor_cart),
    Errand("holdCheckout", "RewardOutOfStock", _late_cart),
    Errand("holdCheckout", "CodesRejected", _then(_cart, memberId=None)),
    Errand("releaseHold", "HoldNotOpen", _with(holdId=_captured_hold)),
    Errand("releaseHold", REPLAYED, _with(holdId=_released_hold)),
    Errand("claimCode", "NotEligible", _for_others),
    Errand("createCampaign", "PoolNotActive", _campaign_of(Errands.draft)),
    Errand("createCampaign", "PoolBacksReward", _campaign_of(_backing)),
    Errand("createCampaign", "PoolExhausted", _campaign_of(Errands.pool)),
    Errand("createCampaign", "NotEligible", _campaign_of(_spent)),
    Errand("createCampaign", "IdempotencyKeyReused", _then(_sent, name="another")),
    Errand("createCampaign", REPLAYED, _sent),
    Errand("createWebhook", "WebhookLimitReached", _one_webhook_more),
    Errand("declineReferral", "ReferralNotDeclinable", _then(_with(referralId=Errands.released), **_WHY)),
    Errand("releaseReferral", "ReferralNotReleasable", _with(referralId=Errands.declined)),
    Errand("discardPool", "PoolNotEditable", _with(poolId=Errands.pool)),
    Errand("editPool", "InvalidInput", _then(_with(poolId=Errands.draft), name=" ")),
    Errand("editPool", "PoolNotEditable", _then(_with(poolId=Errands.pool), stacking="STACKABLE")),
    Errand("enableWebhook", "WebhookLimitReached", _with(webhookId=_as_many_webhooks)),
    Errand("enrollMember", "MemberAlreadyExists", _known_member),
    Errand("fillPool", "PoolNotEditable", _then(_archived, available=1, idempotencyKey="never")),
    Errand("fillPool", "IdempotencyKeyReused", _then(_filling, available=2)),
    Errand("fillPool", REPLAYED, _filling),
    Errand("generateCodes", "PoolNotEditable", _then(_with(poolId=Errands.pool), count=1)),
    Errand("generateCodes", "IdempotencyKeyReused", _then(_generated, count=2)),
    Errand("generateCodes", REPLAYED, _generated),
    Errand("importCodes", "PoolNotEditable", _to_import(Errands.pool)),
    Errand("importCodes", "IdempotencyKeyReused", _then(_imported, inCirculation=True)),
    Errand("importCodes", REPLAYED, _imported),
    Errand("inviteMembers", "TooManyInviteAttempts", _told_too_much),
    Errand("reissueCode", "InvalidInput", _then(_dead, reason=" ")),
    Errand("reissueCode", "PoolNotActive", _paused_dead),
    Errand("reissueCode", "CodeNotReissuable", _alive),
    Errand("reissueCode", "PoolExhausted", _dead),
    Errand("reissueCode", REPLAYED, _reissued),
    Errand("issueCodes", "PoolNotActive", _to_issue(Errands.draft)),
    Errand("issueCodes", "PoolBacksReward", _to_issue(_backing)),
    Errand("issueCodes", "PoolNotTransferable", _to_issue(Errands.pool)),
    Errand("issueCodes", "PoolExhausted", _then(_issued, count=5000, idempotencyKey="too many")),
    Errand("issueCodes", "IdempotencyKeyReused", _then(_issued, count=2)),
    Errand("issueCodes", REPLAYED, _issued),
    Errand("issueMemberToken", "InvalidInput", _then(_with(memberId=Errands.member), lifetimeSeconds=0)),
    Errand("recordPurchase", "OrderNotOpen", _off_to_record),
    Errand("redeemCodes", "OrderNotOpen", _off),
    Errand("redeliver", "WebhookDisabled", _with(deliveryId=lambda errands: _second(_disabled(errands)))),
    Errand("redeliverDead", "WebhookDisabled", _with(webhookId=lambda errands: _first(_disabled(errands)))),
    Errand("redeemReward", "RewardCostChanged", _dearer),
    Errand("redeemReward", "NotEligible", _reward_for_others),
    Errand("refundPurchase", "NotFound", _nobodys_refund),
    Errand("refundPurchase", "IdempotencyKeyReused", _used_refund),
    Errand("reverseRewardRedemption", "RewardNotReversible", _then(_with(redemptionId=Errands.used), **_WHY)),
    Errand("revokeApiKey", "LastAdminKey", _with(apiKeyId=Errands.own_key)),
    Errand("revokeCodes", "CountDiffers", _then(_leaked, expectedCount=0)),
    Errand("revokeCodes", "IdempotencyKeyReused", _then(_revoked_all, recycle=True)),
    Errand("revokeCodes", REPLAYED, _revoked_all),
    Errand("verifyMemberEmail", "InvalidInput", _with(memberId=Errands.member)),
    Errand("verifyMemberEmail", "MemberAlreadyExists", _anothers_proof),
    Errand("editMember", "MemberAlreadyExists", _anothers_proof),
)  # fmt: skip


async def _first(pair: Awaitable[tuple[str, str]]) -> str:
    return (await pair)[0]


async def _second(pair: Awaitable[tuple[str, str]]) -> str:
    return (await pair)[1]


def replays() -> set[str]:
    """Return the mutations whose success tells whether it is a replay."""
    types = schema._schema.type_map
    found = set()
    for mutation in schema._schema.mutation_type.fields if schema._schema.mutation_type else ():
        success = types.get(f"{mutation[0].upper()}{mutation[1:]}Success")
        if isinstance(success, GraphQLObjectType) and REPLAYED in success.fields:
            found.add(mutation)
    return found


def wanted() -> set[str]:
    """Return every refusal and replay of the schema, as the table of what happened calls them."""
    refused = {f"{mutation}: {refusal}" for mutation, refusal in refusals() - NEVER.keys()}
    return refused | {f"{mutation}: {REPLAYED}" for mutation in replays()}


def declared() -> set[str]:
    """Return what the worlds and the errands provoke."""
    worlds = {f"{verb.name}: {refusal}" for verb in VERBS.values() for refusal in verb.refusals}
    again = {f"{verb.name}: {REPLAYED}" for verb in VERBS.values() if verb.repeats}
    return worlds | (again & wanted()) | {errand.name for errand in ERRANDS}


def main() -> int:
    """Print what nothing provokes, and what is provoked although the schema doesn't have it. Returns 1 for either."""
    missing, gone = sorted(wanted() - declared()), sorted(declared() - wanted())
    for name in missing:
        print(
            f"Nothing provokes {name}: declare a verb (app/stress/verbs.py) or an errand (tests/histories/provoked.py)."
        )
    for name in gone:
        print(f"The schema has no {name}, which something provokes.")
    return 1 if missing or gone else 0


if __name__ == "__main__":
    sys.exit(main())
