"""Small worlds: a few members, pools, rewards and orders of their own, that a few clients use all at once.

A world is small so that every order of its operations can be tried, and soon over: another takes its place.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from iso4217 import Currency

from app.stress.aims import AUDIENCES
from app.stress.claims import LOOKED
from app.stress.clients import Client, Fault, Unanswered, Unsent
from app.stress.gone import BESIDE, BRING, JUDGED, told_of
from app.stress.holds import LAPSE
from app.stress.operations import PASSED, READ, UNAUTHENTICATED, Answer, History, Operation, Recorder
from app.stress.people import GIFT as SAVINGS
from app.stress.people import PEOPLE
from app.stress.pools import BEGIN, BUDGETS
from app.stress.races import CANCEL, CHANGE, CREATE_POOL, ENROL, GENERATE
from app.stress.things import BEARER, PERCENTS, Pool, Stock
from app.stress.verb import Verb
from app.stress.verbs import VERBS

MEMBERS: Final = 2
PEOPLE_MEMBERS: Final = 4
#: For how many of them something is held from the beginning.
HOLDERS: Final = 2
#: A larger quota of invites isn't used up by a world, and one call sends up to so many.
QUOTA_MAX: Final = 20
INVITES_AT_ONCE: Final = 3
#: How many operations a world has, and how many of them nobody may have been told of: each can be anywhere.
OPERATIONS_MAX: Final = 60
PEOPLES_OPERATIONS_MAX: Final = 90
OPEN_MAX: Final = 5
#: For a world whose server never comes back.
SECONDS_MAX: Final = 180.0
#: How often a client sends what was sent before, or another thing under its key, and gives up what wasn't answered.
REPEATED, SPOILED, GIVEN_UP = 0.25, 0.08, 0.3
#: Where another member would be another thing, and no other one under the key of the first.
UNSPOILED: Final = frozenset({"redeemCodes", "bringBalance"})
#: How often a client crashes before it has noted the answer to what it may send again.
CRASHES: Final = 0.02
#: What each member of a world that is about holds can pay with at first.
GIFT: Final = 40
#: When a pool begins, and how long after that what began before may still be under way.
BEGINS_AFTER_SECONDS: Final = (0.5, 5.0)
BEGUN_WITHIN_SECONDS: Final = 15.0
#: Nanoseconds between two looks at two clocks.
CLOCKS_APART: Final = 10_000_000

CREATE_REWARD: Final = """
mutation ($input: CreateRewardInput!) {
  answer: createReward(input: $input) {
    __typename ... on CreateRewardSuccess { reward { id } } ... on Refusal { message }
  }
}
"""
MERCHANT: Final = """
{
  answer: viewer { merchant { currency settings { pointsPerUnit pointValue pointsPendingDays recoverShortfalls } } }
}
"""
PROGRAM: Final = """
{
  answer: referralProgram {
    invitesPerBatch invitesPerDay invitesLifetime convertsOn referrerPoints refereePoints safeguards { reviewPolicy }
  }
}
"""
ISSUE: Final = """
mutation ($input: IssueMemberTokenInput!) {
  answer: issueMemberToken(input: $input) {
    __typename ... on IssueMemberTokenSuccess { token } ... on Refusal { message }
  }
}
"""
ARCHIVE: Final = CHANGE % "archivePool"
RETIRE: Final = """
mutation ($input: RetireRewardInput!) { answer: retireReward(input: $input) { __typename ... on Refusal { message } } }
"""


#: The verbs by which members go, and what names them.
GOING: Final = {"mergeMembers": ("keptId", "mergedId"), "eraseMember": ("memberId",)}
#: The verbs that look at what became of those that went.
AFTERWARDS: Final = ("readWallet", "readCodes")
#: Lets the time of a hold pass that is HELD; returns whether it did.
Lapse = Callable[[str], Awaitable[bool]]
#: Brings in a file of balances with this text; returns the exit status of that, and what was said. Raises Unanswered.
Bring = Callable[[str], Awaitable[tuple[int, str]]]
#: How often verbs are called in a world that is about holds.
HOLDING: Final = {
    "holdCheckout": 8, "captureHold": 4, "releaseHold": 1.5, "extendHold": 1.5, "readHold": 2, "readHeldCodes": 1,
    "lapse": 4, "redeemCodes": 3, "checkCodes": 1, "amendOrder": 1.5, "cancelOrder": 1, "reverseRedemption": 1,
    "revokeCode": 0.3, "recordPurchase": 1.5, "refundPurchase": 1, "reversePurchase": 0.3, "grantPoints": 1.5,
    "redeemReward": 1, "reverseRewardRedemption": 0.5, "claimCode": 1, "issueCodes": 1.5, "readWallet": 2,
    "readCodes": 2, "readOrder": 1, "readPurchase": 0.5, "readStock": 0.5, "pausePool": 0.3, "activatePool": 0.6,
    "editPool": 0.3,
}  # fmt: skip
#: In one where terms and codes change under what is held.
CHANGING: Final = {
    "holdCheckout": 5, "captureHold": 2.5, "releaseHold": 1, "lapse": 1.5, "redeemCodes": 3, "checkCodes": 1,
    "amendOrder": 1.5, "cancelOrder": 0.7, "reverseRedemption": 1, "claimCode": 2, "editPool": 2, "pausePool": 1.5,
    "activatePool": 2.5, "generateCodes": 0.7, "importCodes": 2, "issueCodes": 1.5, "revokeCode": 2, "reissueCode": 2.5,
    "revokeCodes": 0.7, "readJob": 1.5, "cancelJob": 0.3,
    "readCodes": 2, "readWallet": 1, "readHeldCodes": 1, "readStock": 1, "readOrder": 0.5,
}  # fmt: skip
#: In one of budgets, first orders and audiences.
AIMING: Final = {
    "holdCheckout": 4, "captureHold": 2, "releaseHold": 1, "lapse": 1.5, "redeemCodes": 5, "checkCodes": 1.5,
    "amendOrder": 1.5, "cancelOrder": 1, "reverseRedemption": 1.5, "recordPurchase": 1.5, "refundPurchase": 0.7,
    "reversePurchase": 1, "claimCode": 5, "editPool": 1.2, "pausePool": 0.3, "activatePool": 0.6, "revokeCode": 0.3,
    "readCodes": 1.5, "readWallet": 1, "readHold": 0.5, "readStock": 1.5, "readOrder": 3, "revokeCodes": 1,
    "fillPool": 0.7, "cancelJob": 0.7, "readJob": 3,
}  # fmt: skip


#: In one where people turn out to be one, are forgotten, and prove an address.
PEOPLES: Final = {
    "mergeMembers": 3, "checkMerge": 1.5, "eraseMember": 1, "verifyMemberEmail": 1.5, "bringBalance": 0.7,
    "claimCode": 5, "redeemCodes": 3, "checkCodes": 0.5, "holdCheckout": 5, "captureHold": 2.5, "releaseHold": 1,
    "extendHold": 0.5, "readHold": 1, "grantPoints": 2.5, "redeemReward": 1.5, "recordPurchase": 2,
    "refundPurchase": 1.5, "inviteMembers": 3, "acceptInvite": 3, "cancelInvite": 0.7, "revokeCode": 0.3,
    "reverseRedemption": 0.5, "readWallet": 3, "readCodes": 3, "readStock": 1, "readPurchase": 0.5,
}  # fmt: skip


class About(Enum):
    """What a world is about: which verbs are called in it, and how often."""

    ANYTHING = "anything"
    HOLDS = "holds"
    TERMS = "terms"
    AIMS = "aims"
    PEOPLE = "people"


_WEIGHTS: Final = {About.HOLDS: HOLDING, About.TERMS: CHANGING, About.AIMS: AIMING, About.PEOPLE: PEOPLES}


@dataclass(frozen=True)
class Terms:
    """What a merchant has set: its currency, what a unit of it earns, how many invites a member has, what they bring.

    Purchases make good what returns lack, where it `recovers` that. Without a rate nobody buys: what purchases earn is
    pending. Without a quota nobody invites: the program is closed, or its limits, reviews or conversions aren't those
    of worlds.
    """

    currency: str
    points_per_unit: str | None
    quota: int | None
    referral: tuple[int, int]
    recovers: bool = True
    point_value: str | None = "1"

    @classmethod
    async def of(cls, client: Client) -> "Terms":
        """Read them."""
        merchant = (await client.patiently(MERCHANT, {}, is_query=True))["merchant"]
        program = await client.patiently(PROGRAM, {}, is_query=True)
        first = min(program["invitesPerBatch"], program["invitesPerDay"])
        quota = program["invitesLifetime"]
        bounded = 0 < quota <= QUOTA_MAX and first >= max(quota, INVITES_AT_ONCE)
        plain = program["convertsOn"] == "JOIN" and program["safeguards"]["reviewPolicy"] == "NONE"
        brings = (program["referrerPoints"], program["refereePoints"])
        settings = merchant["settings"]
        rate = None if settings["pointsPendingDays"] else str(settings["pointsPerUnit"])
        recovers = settings["recoverShortfalls"]
        value = str(settings["pointValue"]) if settings["pointValue"] else None
        return cls(merchant["currency"], rate, quota if bounded and plain else None, brings, recovers, value)


@dataclass(frozen=True)
class Seen:
    """A code that somebody was told of."""

    id: str
    text: str
    masked: str
    pool: str
    owner: str


class World:
    """What a world has, what its clients learned, and the history of what they did."""

    def __init__(
        self, name: str, terms: Terms, rolls: random.Random, lapse: Lapse | None = None,
        about: About = About.ANYTHING, bring: Bring | None = None,
    ) -> None:  # fmt: skip
        """`lapse` lets the time of holds pass, and `bring` moves balances in."""
        self.name = name
        self.lapse = lapse
        self.bring = bring
        #: What isn't asked of the engine by a client.
        self._others = {LAPSE.name: self._let_pass, BRING.name: self._bring_in}
        self._about = about
        chosen = _WEIGHTS.get(about)
        self._weights = {verb.name: chosen.get(verb.name, 0) if chosen else verb.weight for verb in VERBS.values()}
        self.currency = terms.currency
        self.rolls = rolls
        self.members: list[str] = []
        #: Of the members that are there from the beginning.
        self.tokens: dict[str, str] = {}
        self.pools: list[str] = []
        self.codes: dict[str, Seen] = {}
        #: Pools that somebody was told to be paused, the last time.
        self.paused: set[str] = set()
        #: Codes that somebody was told to be revoked.
        self.dead: set[str] = set()
        self.redemptions: dict[str, dict[str, Any]] = {}
        #: The codes on each order that somebody was told of, as they were told last.
        self.orders: dict[str, list[str]] = {}
        self.redeemed: list[str] = []
        self.purchases: list[dict[str, Any]] = []
        self.exchanges: list[dict[str, Any]] = []
        self.invites: list[dict[str, Any]] = []
        self.holds: list[dict[str, str]] = []
        #: Those whose time was let pass, and the codes that any has had.
        self.late: list[dict[str, str]] = []
        self.held: dict[str, list[str]] = {}
        self.jobs: list[dict[str, str]] = []
        #: Who joined by whose invite in a world about people, and who is gone, with whoever is told to stand for it.
        self.joined: dict[str, str] = {}
        self.gone: dict[str, str | None] = {}
        #: Pairs that somebody was told not to be one person as they are; and who is being merged or erased now.
        self.refused_pairs: dict[tuple[str, str], bool] = {}
        self.meeting: tuple[str, ...] = ()
        self.going = ""
        #: Whom the last of that was about: what became of them is looked at.
        self.changed: tuple[str, ...] = ()
        #: What is to be done for a call by somebody else, by the key of the call, until it is told to be over.
        self._later: dict[str, Operation] = {}
        self.facts: dict[str, Any] = {
            "limits": {}, "fallbacks": {}, "rewards": {}, "backing": [], "transferable": [], "initial": {},
            "budgets": [], "first": [], "audiences": [], "ends": [], "members": self.members,
            "quota": terms.quota, "referral": list(terms.referral), "recovers": terms.recovers,
            "point_value": terms.point_value, "points_per_unit": terms.points_per_unit,
            "minor_units": 10 ** (Currency(terms.currency).exponent or 0), "address": None, "holder": None,
        }  # fmt: skip
        self.history = History(name, self.facts)
        self.recorder = Recorder(self.history)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._ends = time.monotonic() + SECONDS_MAX
        self._numbers = itertools.count(1)
        self._orders: list[str] = []

    # What verbs ask for.

    def member(self) -> str:
        """Return any member, often one that is being merged or erased, or was the last."""
        lately = self.meeting or self.changed
        if lately and self.rolls.random() < 0.6:
            return self.rolls.choice(lately)
        return self.rolls.choice(self.members)

    def claimant(self) -> str:
        """Return any member, or now and then the address of nobody, or of whoever proves it."""
        return self.member() if self.rolls.random() < 0.8 else f"{self.name}@example.com"

    def standing(self) -> list[str]:
        """Return the members from the beginning that nobody was told to be gone."""
        return [member for member in self.members if member not in self.gone]

    def holders(self) -> list[str]:
        """Return members for whom something was held lately, which nobody was told to have ended."""
        told = [each for each in self.history.operations if each.outcome == "ok"]
        ended = {each.input["holdId"] for each in told if each.verb in {"captureHold", "releaseHold"}}
        held = [each for each in told[-30:] if each.verb == "holdCheckout"]
        return [each.input["memberId"] for each in held if each.answer and each.answer["hold"]["id"] not in ended]

    def pair(self) -> tuple[str, str] | None:
        """Return two records that may be one person's: mostly members that stand, some that joined, some that went."""
        refused = [pair for pair in self.refused_pairs if not set(pair) & self.gone.keys()]
        if refused and self.rolls.random() < 0.9:
            return self.rolls.choice(refused)
        brought = [pair for pair in self.joined.items() if not set(pair) & self.gone.keys()]
        if brought and self.rolls.random() < 0.5:
            return self.rolls.choice(brought)
        among = self.standing()
        if self.joined and self.rolls.random() < 0.5:
            among = [*among, *(member for member in self.joined if member not in self.gone)]
        if len(among) <= 1 or self.rolls.random() < 0.2:
            among = [*self.members, *self.joined]
        holders = [member for member in self.holders() if member in among]
        if holders and self.rolls.random() < 0.6:
            # What is held of a record is the kept member's with all the rest.
            one = self.rolls.choice(holders)
            other = self.rolls.choice([member for member in among if member != one])
            return (one, other) if self.rolls.random() < 0.5 else (other, one)
        kept, merged = self.rolls.sample(among, k=2)
        return kept, merged

    def key(self) -> str:
        """Return a key that is new."""
        return f"{self.name}-{next(self._numbers)}"

    def order(self, new: float = 0.15) -> str:
        """Return one of the few orders of the moment; now and then one is new."""
        if not self._orders or self.rolls.random() < new:
            self._orders.append(self.key())
        return self.rolls.choice(self._orders[-2:])

    def order_of(self, known: list[str]) -> str:
        """Return mostly one of those of which something is known, the last ones."""
        return self.rolls.choice(known[-2:]) if known and self.rolls.random() < 0.8 else self.order()

    def presented(self) -> list[Seen]:
        """Return one or a few codes that a member may present together, mostly codes of one owner.

        What a hold had whose time has passed is often presented once more.
        """
        late = [code for hold in self.late for code in self.held[hold["id"]] if code in self.codes]
        if late and self.rolls.random() < 0.4:
            return [self.codes[self.rolls.choice(late)]]
        owner = self.claimant()
        own = [code for code in self.codes.values() if code.owner == owner]
        among = own if own and self.rolls.random() < 0.9 else list(self.codes.values())
        return self.rolls.sample(among, k=min(len(among), self.rolls.choice((1, 2))))

    def presenter(self, code: Seen) -> str:
        """Return who presents a code: mostly its owner, if it has one."""
        return code.owner if code.owner != BEARER and self.rolls.random() < 0.9 else self.claimant()

    def some(self, things: list[Any], *, most: int) -> list[Any]:
        """Return one or a few of them; mostly one."""
        count = min(len(things), 1 if self.rolls.random() < 0.7 else most)
        return self.rolls.sample(things, k=count)

    def learn_code(self, code: dict[str, Any], pool: str, owner: str) -> None:
        """Keep a code that somebody was told of."""
        self.codes[code["id"]] = Seen(code["id"], code["text"], code["masked"], pool, owner)

    def learn_order(self, order: str, redemptions: list[dict[str, Any]]) -> None:
        """Keep the redemptions of an order that somebody was told of."""
        if redemptions and order not in self.redeemed:
            self.redeemed.append(order)
        self.orders[order] = [each["code"]["id"] for each in redemptions]
        for each in redemptions:
            self.redemptions[each["id"]] = {"id": each["id"], "order": order, "code": each["code"]["id"]}

    def learn_exchange(self, exchange: dict[str, Any]) -> None:
        """Keep a redemption of a reward that somebody was told of."""
        if exchange not in self.exchanges:
            self.exchanges.append(exchange)

    def learn_hold(self, order: str, hold: dict[str, Any]) -> None:
        """Keep a hold that somebody was told of."""
        self.orders.setdefault(order, [])
        known = {"id": hold["id"], "order": order}
        self.held[hold["id"]] = [each["code"]["id"] for each in hold["codes"]]
        if known not in self.holds:
            self.holds.append(known)

    def learn_member(self, member: str, sender: str) -> None:
        """Keep a member that joined by an invite."""
        if self._about is About.PEOPLE:
            self.joined[member] = sender
        else:
            self.members.append(member)

    def learn_gone(self, member: str, kept: str | None) -> None:
        """Keep that a member was merged or erased."""
        self.gone.setdefault(member, kept)

    def learn_job(self, job: dict[str, Any], key: str) -> None:
        """Keep a job that somebody was told of. One that is DONE was done by now, one that is CANCELLED never."""
        known = {"id": job["id"], "key": key}
        if known not in self.jobs:
            self.jobs.append(known)
        carried_out = self._later.get(key)
        if carried_out is None or carried_out.answer is not None:
            return
        if job["status"] == "DONE":
            self.recorder.answered(carried_out, {"__typename": PASSED}, time.monotonic_ns())
        elif job["status"] == "CANCELLED":
            self.recorder.unsent(carried_out)
            carried_out.answer = {"__typename": PASSED}

    # What happens in it.

    async def prepare(self, client: Client) -> None:
        """Make what the world has, however often that takes. Only what is in the history moves anything later."""
        for number in range(PEOPLE_MEMBERS if self._about is About.PEOPLE else MEMBERS):
            asked = {"externalId": f"{self.name}-{number}", "source": "IMPORT"}
            if self._about is About.PEOPLE and number == 0:
                asked["email"] = f"{self.name}@example.com"
            made = await client.patiently(ENROL, asked)
            member = (made.get("member") or made["existing"])["id"]
            self.members.append(member)
            self.tokens[member] = (await client.patiently(ISSUE, {"memberId": member}))["token"]
        await {About.AIMS: self._aimed_pools, About.PEOPLE: self._peoples_pools}.get(self._about, self._plain_pools)(
            client
        )
        for pool in self.pools:
            await self._until_answered(client, VERBS["activatePool"], {"poolId": pool})
        for member, pool in itertools.product(self.members, self.pools[:2]):
            claim = {"poolId": pool, "idempotencyKey": self.key(), "memberId": member}
            await self._until_answered(client, VERBS["claimCode"], claim)
        gifts = {About.HOLDS: GIFT, About.PEOPLE: SAVINGS}
        for member in self.members if self._about in gifts else ():
            key = self.key()
            gift = {"memberId": member, "amount": gifts[self._about], "reference": key, "idempotencyKey": key}
            await self._until_answered(client, VERBS["grantPoints"], gift)
        if self._about is About.PEOPLE and self.facts["point_value"] is not None:
            for member in self.rolls.sample(self.members, k=HOLDERS):
                await self._hold_points(client, member)

    async def _hold_points(self, client: Client, member: str) -> None:
        """Hold points of a member, so that it doesn't go without them."""
        money = {"amountMinor": 1000, "currency": self.currency}
        asked: dict[str, Any] = {
            "orderId": self.key(), "orderAmount": money, "codes": [], "points": 20, "memberId": member,
            "lifetimeSeconds": 3600, "idempotencyKey": self.key(),
        }  # fmt: skip
        await self._until_answered(client, VERBS["holdCheckout"], asked, {"codes": []})

    async def _aimed_pools(self, client: Client) -> None:
        money = {"amountMinor": BUDGETS[0], "currency": self.currency}
        budget = await self.make_pool(client, codes=7, limit=3, maximumTotalDiscount=money)
        self.facts["budgets"].append(budget)
        self.facts["initial"][f"budget:{budget}"] = [BUDGETS[0]]
        self.facts["first"].append(await self.make_pool(client, codes=4, limit=2, firstOrderOnly=True))
        self.facts["audiences"].append(await self.make_pool(client, codes=3, limit=1, audience=list(AUDIENCES[0])))

    async def _peoples_pools(self, client: Client) -> None:
        """Make what people have of: pools of which each may have one, two, and one for points."""
        self.facts["address"], self.facts["holder"] = f"{self.name}@example.com", self.members[0]
        self.facts["initial"][PEOPLE] = [self.members[0]]
        for codes, limit in ((6, 1), (9, 2)):
            await self.make_pool(client, codes=codes, limit=limit, oneClaimPerMailbox=False)
        backing = await self.make_pool(client, codes=6, limit=1, oneClaimPerMailbox=False)
        await self._reward(client, cost=20, stock=9, pool=backing)

    async def _plain_pools(self, client: Client) -> None:
        spare = await self.make_pool(client, codes=3, limit=2)
        await self.make_pool(client, codes=2, limit=2, fallbackPoolId=spare)
        backing = await self.make_pool(client, codes=2, limit=1)
        await self._reward(client, cost=20, stock=3, pool=None)
        await self._reward(client, cost=10, stock=9, pool=backing)
        await self._beginning_pool(client)
        self.facts["transferable"].append(await self.make_pool(client, codes=3, limit=1, transferable=True))

    async def _until_answered(
        self, client: Client, verb: Verb, asked: dict[str, Any], about: dict[str, Any] | None = None
    ) -> None:
        while time.monotonic() < self._ends:
            if await self.call(client, verb, asked, about or {}) is not None:
                return
            await asyncio.sleep(self.rolls.uniform(0.05, 0.2))
        raise Unanswered("the server never came back")

    async def _beginning_pool(self, client: Client) -> None:
        """Make a pool that begins soon, as the clock of this machine says, which is the engine's."""
        seconds = self.rolls.uniform(*BEGINS_AFTER_SECONDS)
        begins, now = datetime.now(UTC) + timedelta(seconds=seconds), time.monotonic_ns()
        pool = await self.make_pool(client, codes=2, limit=1, startsAt=begins.isoformat())
        self.facts["initial"][f"pool:{pool}"] = list(Pool(has_begun=False))
        at = now + int(seconds * 1e9) - CLOCKS_APART
        self.recorder.passes(BEGIN.name, {"poolId": pool}, at, within_seconds=BEGUN_WITHIN_SECONDS)

    async def make_pool(self, client: Client, *, codes: int, limit: int, **terms: Any) -> str:
        pool: str = (
            await client.patiently(
                CREATE_POOL, {"name": self.name, "kind": "PERCENT", "percentOff": PERCENTS[0], "claimsPerMember": limit,
                              "stacking": "STACKABLE", **terms},
            )
        )["pool"]["id"]  # fmt: skip
        await client.patiently(GENERATE, {"poolId": pool, "count": codes, "idempotencyKey": pool})
        self.pools.append(pool)
        self.facts["limits"][pool] = limit
        if "fallbackPoolId" in terms:
            self.facts["fallbacks"][pool] = [terms["fallbackPoolId"]]
        self.facts["initial"][f"stock:{pool}"] = list(Stock(available=codes))
        return pool

    async def _reward(self, client: Client, *, cost: int, stock: int, pool: str | None) -> None:
        terms = {"name": self.name, "cost": cost, "stock": stock, "poolId": pool}
        reward = (await client.patiently(CREATE_REWARD, terms))["reward"]["id"]
        self.facts["rewards"][reward] = {"cost": cost, "pool": pool}
        self.facts["initial"][f"reward:{reward}"] = [stock]
        if pool is not None:
            self.facts["backing"].append(pool)

    @property
    def is_over(self) -> bool:
        """Whether it has all the operations that it can have."""
        most = PEOPLES_OPERATIONS_MAX if self._about is About.PEOPLE else OPERATIONS_MAX
        full = len(self.history.operations) >= most or self.recorder.open >= OPEN_MAX
        return full or bool(self.faults) or time.monotonic() > self._ends

    async def play(self, client: Client) -> None:
        """Call one verb after the other as a client, until the world is over; mostly again what wasn't answered."""
        while not self.is_over:
            verb, asked, about = self._next(client)
            while await self.call(client, verb, asked, about) is None and not self.is_over:
                await asyncio.sleep(self.rolls.uniform(0, 0.2))
                if not verb.repeats or self.rolls.random() < GIVEN_UP:
                    break

    async def tidy_up(self, client: Client) -> None:
        """Archive its pools, retire its rewards and cancel its invites, which nobody writes down any more."""
        for pool in self.pools:
            await client.patiently(ARCHIVE, {"poolId": pool})
        for reward in self.facts["rewards"]:
            await client.patiently(RETIRE, {"rewardId": reward})
        for invite in self.invites:
            await client.patiently(CANCEL, {"inviteId": invite["id"]})

    def _next(self, client: Client) -> tuple[Verb, dict[str, Any], dict[str, Any]]:
        """Return what to call: something new, what was called before, or another thing under a key of before."""
        roll = self.rolls.random()
        if roll < REPEATED:
            before = [
                each for each in self.history.operations
                if VERBS[each.verb].repeats and (client.takes_tokens or not VERBS[each.verb].as_member)
            ]  # fmt: skip
            if before:
                again = self.rolls.choice(before[-8:])
                same = dict(again.input)
                if roll < SPOILED and "memberId" in same and again.verb not in UNSPOILED:
                    same["memberId"] = self.member()
                elif roll < SPOILED and "refundId" in same:
                    same["amount"] = {**same["amount"], "amountMinor": 700}
                elif roll < SPOILED and "count" in same:
                    same["count"] += 1
                return VERBS[again.verb], same, again.about
        while True:
            verb = self._verb()
            asked = verb.ask(self) if client.takes_tokens or not verb.as_member else None
            if asked is not None and not (self._about is About.PEOPLE and not _is_plain(asked[0])):
                return verb, *asked

    def _verb(self) -> Verb:
        """Return a verb: while members go, mostly one of those that are to meet that, each as often as the others.

        Afterwards some of the time one that looks at what became of them.
        """
        if self.meeting and self.rolls.random() < 0.6:
            return VERBS[self.rolls.choice(BESIDE[self.going])]
        if self.changed and self.rolls.random() < 0.15:
            return VERBS[self.rolls.choice(AFTERWARDS)]
        (verb,) = self.rolls.choices(list(VERBS.values()), list(self._weights.values()))
        return verb

    async def call(self, client: Client, verb: Verb, input: dict[str, Any], about: dict[str, Any]) -> Answer | None:
        """Call a verb and write down what came of it. Returns the answer, None when there was none."""
        if verb.name in self._others:
            return await self._others[verb.name](verb, input, about)
        if verb.name in GOING:
            self.meeting, self.going = _going(verb, input), verb.name
        operation = self.recorder.call(client.name, verb.name, input, about, time.monotonic_ns())
        try:
            answer = await client.ask(verb.document, verb.variables(input), self._token(verb, about))
        except Unsent:
            self.recorder.unsent(operation)
            self.counts["connection refused"] += 1
            return None
        except Unanswered as lost:
            self._unanswered(operation, verb, str(lost))
            return None
        except Fault as fault:
            if str(fault) != "UNAUTHENTICATED" or not verb.as_member or self._about is not About.PEOPLE:
                self.faults.append(f"{self.name}: {verb.name} of {input} failed with {fault}")
                return None
            answer = {"__typename": UNAUTHENTICATED}
        return self._answered(operation, verb, answer)

    def _answered(self, operation: Operation, verb: Verb, answer: Answer) -> Answer | None:
        """Write down what a client was told. Returns None where the client crashes before it has."""
        if verb.repeats and self.rolls.random() < CRASHES:
            self._unanswered(operation, verb, "a client crashed")
            return None
        answer = {"__typename": READ, **answer}
        self.recorder.answered(operation, answer, time.monotonic_ns(), once=self._once(verb))
        self._count(operation, answer)
        if verb.name in GOING:
            self.meeting, self.changed = (), _going(verb, operation.input)
        if answer["__typename"] == "MembersNotMergeable":
            self.refused_pairs[operation.input["keptId"], operation.input["mergedId"]] = True
        self._note_what_follows(verb, operation)
        if operation.outcome == "ok" and verb.learns is not None:
            verb.learns(self, operation, answer)
        if operation.outcome == "ok" and verb.looks is not None:
            self._note_look(verb.looks(self, operation, answer), operation)
        return answer

    def _unanswered(self, operation: Operation, verb: Verb, why: str) -> None:
        self.recorder.unanswered(operation, time.monotonic_ns(), once=self._once(verb))
        self.counts[why] += 1
        self._note_what_follows(verb, operation)

    def _note_what_follows(self, verb: Verb, operation: Operation) -> None:
        """Note what somebody does for a call that had an effect, or may have had one: once, whenever that may be."""
        if verb.later is None or operation.outcome == "refused" or operation.input["idempotencyKey"] in self._later:
            return
        key, asked = operation.input["idempotencyKey"], operation.input
        same = [each.called for each in self.history.operations if (each.verb, each.input) == (verb.name, asked)]
        self._later[key] = self.recorder.call("time", verb.later, asked, {}, min(same))

    def _note_look(self, found: dict[str, Any] | None, operation: Operation) -> None:
        """Note that an operation looked at something at some moment before it was answered."""
        if found is not None and operation.returned is not None:
            seconds = (operation.returned - operation.called) / 1e9
            about = {"number": operation.number, **found}
            self.recorder.passes(LOOKED.name, about, operation.called, within_seconds=seconds)

    async def _let_pass(self, verb: Verb, input: dict[str, Any], about: dict[str, Any]) -> Answer | None:
        """Let the time of a hold pass. Returns None where it wasn't HELD, and where nobody knows."""
        if self.lapse is None:
            return None
        operation = self.recorder.call("time", verb.name, input, about, time.monotonic_ns())
        try:
            passed = await self.lapse(input["holdId"])
        except Unanswered:
            self.recorder.unanswered(operation, time.monotonic_ns(), once=False)
            return None
        if not passed:
            self.recorder.unsent(operation)
            return None
        answer = {"__typename": PASSED}
        self.recorder.answered(operation, answer, time.monotonic_ns(), once=False)
        self.late.append({"id": input["holdId"], "order": about["order"]})
        return answer

    def _once(self, verb: Verb) -> bool:
        """Whether a verb can't have its effect again; the key of a claim is free once merging has taken that back."""
        return verb.once and not (self._about is About.PEOPLE and verb.name == "claimCode")

    async def _bring_in(self, verb: Verb, input: dict[str, Any], about: dict[str, Any]) -> Answer | None:
        """Bring a balance in. Returns None where another import was under way, and where nobody knows."""
        if self.bring is None:
            return None
        operation = self.recorder.call("import", verb.name, input, about, time.monotonic_ns())
        number = self.members.index(input["memberId"])
        try:
            status, said = await self.bring(
                f"externalId,externalSource,points\n{self.name}-{number},IMPORT,{input['points']}\n"
            )
        except Unanswered as lost:
            self._unanswered(operation, verb, str(lost))
            return None
        answer = told_of(status, said)
        if answer is None:
            self.recorder.unsent(operation)
            if "Another import" not in said:
                self.faults.append(f"{self.name}: an import of {input} ended with {status}: {said}")
            return None
        self.recorder.answered(operation, answer, time.monotonic_ns())
        self._count(operation, answer)
        if answer.get("replayed") is False and operation.returned is not None:
            seconds = (operation.returned - operation.called) / 1e9
            judged = {"number": operation.number, "memberId": input["memberId"]}
            self.recorder.passes(JUDGED.name, judged, operation.called, within_seconds=seconds)
        return answer

    def _token(self, verb: Verb, about: dict[str, Any]) -> str | None:
        return self.tokens[about["as"]] if verb.as_member else None

    def _count(self, operation: Operation, answer: Answer) -> None:
        verb = VERBS[operation.verb]
        if verb.reads:
            self.counts.update(() if verb.notes is None else verb.notes(operation, answer))
            return
        if operation.outcome == "refused":
            self.counts[f"{operation.verb}: {answer['__typename']}"] += 1
        if answer.get("replayed"):
            self.counts[f"{operation.verb}: replayed"] += 1
        if "rejections" in answer:
            self.counts.update({f"{operation.verb}: {each['reason']}" for each in answer["rejections"]})
        if answer.get("replayed") and self.recorder.was_lost(operation):
            self.counts[f"{operation.verb}: told again after its answer was lost"] += 1
        self.counts.update(() if verb.notes is None else verb.notes(operation, answer))
        if "servedBy" in answer and answer["servedBy"]["id"] != operation.input["poolId"]:
            self.counts["claimCode: served by a fallback"] += 1


def _going(verb: Verb, input: dict[str, Any]) -> tuple[str, ...]:
    """Return the members that a verb by which members go is about."""
    return tuple(input[name] for name in GOING[verb.name])


def _is_plain(asked: dict[str, Any]) -> bool:
    """Whether a hold, in a world about people, is a member's, and of codes and points alone."""
    return "lifetimeSeconds" not in asked or ("email" not in asked and not asked.get("rewardIds"))


async def play(world: World, clients: list[Client]) -> None:
    """Make a world, and let the clients use it until it is over. Raises Fault and Unanswered if it can't be made."""
    await world.prepare(clients[0])
    await asyncio.gather(*(world.play(client) for client in clients))
