"""The steps of the replay, each of which takes effect once however often it is played.

No state is kept here. A second run is a replay because the external ids, the pools' names, the idempotency keys and the
order ids are all made from the data's own numbers.
"""

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.config import settings
from app.operate.embedded import DataDirectory
from app.replay.closing import told_insights, told_integrity
from app.replay.documents import (
    ACCEPT,
    ACTIVATE,
    CLAIM,
    CONFIGURE,
    CREATE_POOL,
    CREATE_REWARD,
    ENROL,
    GENERATE,
    INVITE,
    ISSUE,
    PAUSE,
    PENDING,
    POINTS,
    POOLS,
    REDEEM,
    REDEEM_REWARD,
    REFERRED_BY,
    REFUND,
    REWARDS,
    SEND,
    VIEWER,
    WALLET,
    record_purchases,
)
from app.replay.engine import IN_FLIGHT, CannotGoOn, Engine, Fault
from app.replay.journey import (
    REFEREE_POINTS,
    REFERRER_POINTS,
    REWARD_COST,
    Basket,
    Campaign,
    Invitation,
    Journey,
    Prize,
    Receipt,
    Return,
    Spending,
    address,
    external_id,
    is_late,
    read_journey,
)
from app.replay.report import Tally, tell_mapping, tell_outcome, tell_points

T = TypeVar("T")

BATCH_SIZE_MAX: Final = 5000
#: Baskets per document. The engine accepts 30 aliases, and most of a small request is HTTP.
BASKETS_PER_DOCUMENT: Final = 20
CURRENCY: Final = "USD"
#: How long requests under way may take to end after Ctrl-C.
STOP_SECONDS_MAX: Final = 2.0
STOPPED: Final = 130

#: The program that the rule needs. The baskets are of 2017, so invites convert by joining.
REFERRALS: Final = {
    "referrerPoints": REFERRER_POINTS, "refereePoints": REFEREE_POINTS, "invitesPerBatch": 100, "invitesPerDay": 100,
    "invitesLifetime": 100, "inviteLifetimeDays": 30, "convertsOn": "JOIN",
}  # fmt: skip
PROGRAM: Final = f"query {{ referralProgram {{ {' '.join(REFERRALS)} }} }}"
REWARD_NAME: Final = "Complete Journey: thank you"


async def perform(url: str, key: str | None, households: int | None, stop: asyncio.Event) -> int:
    """Play the journey until it ends or is stopped. Returns the exit status."""
    playing = asyncio.create_task(_play(url, key, households, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not playing.done():
        # Requests under way may end, so that their outcome is known.
        await asyncio.wait({playing}, timeout=STOP_SECONDS_MAX)
        playing.cancel()
    stopping.cancel()
    (ended,) = await asyncio.gather(playing, return_exceptions=True)
    if stop.is_set():
        print("flash: Stopped. Run it again to go on; nothing happens twice.", file=sys.stderr)
        return STOPPED
    if isinstance(ended, CannotGoOn):
        print(f"flash: {ended}", file=sys.stderr)
        return 1
    if isinstance(ended, Fault):
        print(f"flash: The server failed ({ended}); its log says why.", file=sys.stderr)
        return 1
    if isinstance(ended, BaseException):
        raise ended
    return 0 if ended else 1


async def _play(url: str, key: str | None, households: int | None, stop: asyncio.Event) -> bool:
    """Play everything. Returns whether nothing was refused."""
    begun = time.monotonic()
    secret, key_from = (key, "--key or FLASH_KEY") if key else _demo_key()
    async with Engine(url, secret, key_from) as engine:
        await _refuse_other_merchants(engine)
        journey = await asyncio.to_thread(read_journey, households)
        console = Console()
        tell_mapping(console, journey)
        columns = (TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            performance = Performance(engine, journey, stop, progress)
            await performance.run()
        if stop.is_set():
            return False
        tell_outcome(console, performance.tallies, performance.reopened, time.monotonic() - begun)
        clean = all(tally.clean for tally in performance.tallies.values())
        if clean:
            clean = tell_points(console, journey.points, await performance.points())
        # Only the whole year has the whole network.
        if households is None and not await told_insights(engine, console):
            clean = False
        return await told_integrity(engine, console) and clean


def _demo_key() -> tuple[str, str]:
    """Return the demo merchant's ADMIN key, and the file it is from."""
    path = DataDirectory(settings().data).demo
    try:
        return str(json.loads(path.read_text())["admin"]), str(path)
    except (OSError, ValueError, KeyError, TypeError):
        raise CannotGoOn(
            f"There is no demo merchant in {path.parent}; name its directory by --data, or a key by --key."
        ) from None


async def _refuse_other_merchants(engine: Engine) -> None:
    viewer = (await engine.ask(VIEWER, {}))["viewer"]
    merchant = viewer["merchant"]
    if viewer["role"] != "ADMIN":
        raise CannotGoOn(f"The replay needs an ADMIN key, and the role of this one is {viewer['role']}.")
    if merchant["currency"] != CURRENCY:
        raise CannotGoOn(
            f"The replay's orders are in {CURRENCY}, and the currency of {merchant['name']} is {merchant['currency']}; "
            f"make a merchant in {CURRENCY}: flash merchant create --name Replay --currency {CURRENCY}."
        )


class Performance:
    """A run: the ids that the server gave, and the tallies."""

    def __init__(self, engine: Engine, journey: Journey, stop: asyncio.Event, progress: Progress) -> None:
        self._engine = engine
        self._journey = journey
        self._stop = stop
        self._progress = progress
        self._member_ids: dict[int, str] = {}
        self._pools: dict[int, dict[str, str]] = {}
        self._made: set[int] = set()
        self._sent: set[int] = set()
        self._late = [household for household in journey.households if is_late(household)]
        brought = journey.brought
        self._unbrought = [household for household in self._late if household not in brought]
        self._late_receipts = defaultdict[int, list[Receipt]](list)
        for receipt in journey.receipts:
            if is_late(receipt.household):
                self._late_receipts[receipt.household].append(receipt)
        self._reward_id: str | None = None
        self.reopened = 0
        self.tallies = {
            "members": Tally(len(journey.households) - len(self._late)),
            "pools": Tally(len(journey.campaigns)),
            "codes": Tally(sum(campaign.codes for campaign in journey.campaigns)),
            "sent": Tally(len(journey.receipts)),
            "referrals": Tally(len(brought)),
            "latecomers": Tally(len(self._unbrought)),
            "found": Tally(sum(map(len, self._late_receipts.values()))),
            "redemptions": Tally(len(journey.spendings)),
            "purchases": Tally(len(journey.baskets)),
            "rewards": Tally(len(journey.prizes)),
            "returns": Tally(len(journey.returns)),
        }

    async def run(self) -> None:
        """Play the steps in order, until they are done or `stop` is set."""
        journey = self._journey
        steps: list[tuple[str, list[Any], Callable[[Any], Awaitable[None]]]] = [
            ("members", [each for each in journey.households if not is_late(each)], self._enrol),
            ("pools", journey.campaigns, self._open),
            ("sent", journey.campaigns, self._send),
            ("referrals", journey.invitations, self._bring),
            ("latecomers", self._unbrought, self._enrol),
            ("found", list(self._late_receipts.items()), self._find),
            ("redemptions", journey.spendings, self._redeem),
            ("purchases", _chunks(journey.baskets, BASKETS_PER_DOCUMENT), self._buy),
            ("rewards", journey.prizes, self._have),
            ("returns", journey.returns, self._go_back),
        ]
        for name, items, work in steps:
            if self._stop.is_set():
                return
            begun = time.monotonic()
            tally = self.tallies[name]
            bar = self._progress.add_task(name, total=tally.wanted)
            if name == "pools":
                await self._make_pools()
            if name == "referrals" and items:
                await self._open_program()
            if name == "rewards" and items:
                await self._make_reward()
            await self._each(items, work, partial(self._show, bar, tally))
            tally.seconds = time.monotonic() - begun
        self.tallies["codes"].seconds = self.tallies["pools"].seconds

    def _show(self, bar: TaskID, tally: Tally) -> None:
        self._progress.update(bar, completed=tally.ended)

    async def _each(
        self, items: Iterable[T], work: Callable[[T], Awaitable[None]], show: Callable[[], None] = lambda: None
    ) -> None:
        """Do the work for each item, IN_FLIGHT at a time, until `stop` is set."""
        waiting = iter(items)

        async def go_on() -> None:
            for item in waiting:
                if self._stop.is_set():
                    return
                await work(item)
                show()

        workers = [asyncio.create_task(go_on()) for _ in range(IN_FLIGHT)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(
        self,
        document: str,
        input: dict[str, Any],
        took_effect: Callable[[], Awaitable[Any]] | None = None,
    ) -> dict[str, Any]:
        """Return a mutation's answer. A fault becomes a refusal of a type of its own."""
        try:
            data = await self._engine.ask(document, {"input": input}, took_effect=took_effect)
        except Fault as fault:
            return {"__typename": str(fault), "message": "the server failed; its log says why"}
        answer: dict[str, Any] = data["answer"]
        return answer

    async def _enrol(self, household: int) -> None:
        tally = self.tallies["latecomers" if is_late(household) else "members"]
        answer = await self._answer(ENROL, {**_person(household), "source": "IMPORT"})
        # The address may belong to another member, which isn't ours.
        member = answer.get("member") or answer.get("existing") or {}
        if member.get("externalId") != external_id(household):
            tally.refuse(_reason(answer))
            return
        self._member_ids[household] = member["id"]
        tally.count(replayed=answer["__typename"] == "MemberAlreadyExists")

    async def _open_program(self) -> None:
        """Configure the merchant's referral program, unless it is as the referrals need it."""
        if (await self._engine.ask(PROGRAM, {}))["referralProgram"] != REFERRALS:
            await self._answer(CONFIGURE, REFERRALS)

    async def _bring(self, invitation: Invitation) -> None:
        """Send a household's invites, and let its latecomers accept them."""
        tally = self.tallies["referrals"]
        referrer_id = self._member_ids.get(invitation.referrer)
        if referrer_id is None:
            tally.untried += len(invitation.latecomers)
            return
        emails = [address(each) for each in invitation.latecomers]
        invited = await self._answer(INVITE, {"memberId": referrer_id, "emails": emails})
        if invited["__typename"] != "InviteMembersSuccess":
            tally.refuse(_reason(invited), len(emails))
            return
        joined = {each["email"] for each in invited["skipped"] if each["reason"] == "ALREADY_MEMBER"}
        secrets: list[str] = []
        if joined != set(emails):
            # Only the sender can read the tokens of its invites. An earlier run may have sent some of them.
            issued = await self._answer(ISSUE, {"memberId": referrer_id})
            if "token" not in issued:
                tally.refuse(_reason(issued), len(emails))
                return
            secrets = await self._open_invites(issued["token"])
        for latecomer in invitation.latecomers:
            await self._join(latecomer, referrer_id, [] if address(latecomer) in joined else secrets)

    async def _open_invites(self, token: str) -> list[str]:
        """Return the tokens of the invites that a member has sent and nobody has accepted, oldest first."""
        found: list[str] = []
        page: dict[str, Any] = {"hasNextPage": True, "endCursor": None}
        while page["hasNextPage"]:
            invites = (await self._engine.ask(PENDING, {"after": page["endCursor"]}, token=token))["invites"]
            found += [edge["node"]["token"] for edge in invites["edges"] if edge["node"]["acceptedAt"] is None]
            page = invites["pageInfo"]
        return found[::-1]

    async def _join(self, latecomer: int, referrer_id: str, secrets: list[str]) -> None:
        """Accept one of the referrer's invites, by a token of `secrets`; or find the household as a member already."""
        tally = self.tallies["referrals"]
        for secret in secrets:
            answer = await self._answer(ACCEPT, {**_person(latecomer), "token": secret})
            if answer["__typename"] == "AcceptInviteSuccess":
                self._member_ids[latecomer] = answer["member"]["id"]
                tally.count(replayed=False)
                return
            if answer["__typename"] not in {"InvalidInput", "InviteNotUsable", "MemberAlreadyExists"}:
                tally.refuse(_reason(answer))
                return
        answer = await self._answer(ENROL, {**_person(latecomer), "source": "IMPORT"})
        member = answer.get("member") or answer.get("existing") or {}
        if member.get("externalId") != external_id(latecomer):
            tally.refuse(_reason(answer))
            return
        self._member_ids[latecomer] = member["id"]
        brought = (await self._engine.ask(REFERRED_BY, {"id": member["id"]}))["member"]["referredBy"]
        if brought == {"referrer": {"id": referrer_id}}:
            tally.count(replayed=True)
        else:
            tally.refuse("the household is a member, but not by this invite")

    async def _standing_pools(self) -> dict[int, dict[str, str]]:
        """Return the campaigns' pools by the campaign's number.

        createPool has no idempotency key, so two replays at the same time can make two pools of one name. The one that
        has left DRAFT counts, or else the oldest: the batch's idempotency key lets only one of them have codes.
        """
        numbers = {campaign.pool_name: campaign.number for campaign in self._journey.campaigns}
        found: dict[int, dict[str, str]] = {}
        after = None
        while True:
            page = (await self._engine.ask(POOLS, {"after": after}))["pools"]
            for pool in (edge["node"] for edge in page["edges"]):
                number = numbers.get(pool["name"])
                if number is None or (number in found and pool["status"] == "DRAFT" != found[number]["status"]):
                    continue
                found[number] = pool
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    async def _make_pools(self) -> None:
        self._pools = await self._standing_pools()
        missing = [campaign for campaign in self._journey.campaigns if campaign.number not in self._pools]
        if missing:
            await self._each(missing, self._create)
            self._pools = await self._standing_pools()

    async def _create(self, campaign: Campaign) -> None:
        async def took_effect() -> dict[str, Any] | None:
            stands = campaign.number in await self._standing_pools()
            return {"answer": {"__typename": "CreatePoolSuccess"}} if stands else None

        terms = {"name": campaign.pool_name, "kind": "PERCENT", "percentOff": campaign.percent_off}
        answer = await self._answer(CREATE_POOL, terms, took_effect)
        if answer["__typename"] == "CreatePoolSuccess":
            self._made.add(campaign.number)
        else:
            self.tallies["pools"].refuse(_reason(answer))

    async def _open(self, campaign: Campaign) -> None:
        """Generate the pool's codes and activate it, whatever its status is."""
        pool = self._pools.get(campaign.number)
        if pool is None:
            self.tallies["codes"].untried += campaign.codes
            return
        self.reopened += pool["status"] == "PAUSED"
        for first in range(1, campaign.codes + 1, BATCH_SIZE_MAX):
            size = min(BATCH_SIZE_MAX, campaign.codes + 1 - first)
            await self._generate(pool, size, f"replay/campaign-{campaign.number}/codes-from-{first}")
        if pool["status"] in {"DRAFT", "PAUSED"}:
            answer = await self._answer(ACTIVATE, {"poolId": pool["id"]})
            # Another replay may have been first.
            if answer["__typename"] != "ChangePoolStatusSuccess" and answer.get("from") != "ACTIVE":
                self.tallies["pools"].refuse(_reason(answer))
                return
        self.tallies["pools"].count(replayed=campaign.number not in self._made)

    async def _generate(self, pool: dict[str, str], size: int, key: str) -> None:
        """Generate a batch. An active pool that lacks it is paused first, and `_open` activates it again."""
        tally = self.tallies["codes"]
        batch = {"poolId": pool["id"], "count": size, "idempotencyKey": key}
        answer = await self._answer(GENERATE, batch)
        if answer["__typename"] == "PoolNotEditable" and pool["status"] == "ACTIVE":
            await self._answer(PAUSE, {"poolId": pool["id"]})
            pool["status"] = "PAUSED"
            answer = await self._answer(GENERATE, batch)
        if answer["__typename"] == "GenerateCodesSuccess":
            tally.count(size, replayed=answer["replayed"])
        else:
            tally.refuse(_reason(answer), size)

    async def _send(self, campaign: Campaign) -> None:
        """Send a campaign's codes to members, and to the addresses of latecomers."""
        tally = self.tallies["sent"]
        households = [receipt.household for receipt in self._journey.receipts if receipt.campaign == campaign.number]
        missing = [each for each in households if not is_late(each) and each not in self._member_ids]
        pool = self._pools.get(campaign.number)
        if pool is None or missing:
            tally.untried += len(households)
            return
        for first in range(0, len(households), BATCH_SIZE_MAX):
            part = households[first : first + BATCH_SIZE_MAX]
            # A run with more households is another campaign. Whoever has a code from an earlier one gets no second.
            key = f"replay/campaign-{campaign.number}/{len(households)}-households-from-{first}"
            answer = await self._answer(
                SEND,
                {
                    "name": campaign.pool_name,
                    "poolId": pool["id"],
                    "recipients": [self._recipient(household) for household in part],
                    "idempotencyKey": key,
                },
            )
            if answer["__typename"] != "CreateCampaignSuccess":
                tally.refuse(_reason(answer), len(part))
                return
            allocated = 0 if answer["replayed"] else answer["campaign"]["allocatedCount"]
            tally.count(allocated, replayed=False)
            tally.count(len(part) - allocated, replayed=True)
        self._sent.add(campaign.number)

    def _recipient(self, household: int) -> dict[str, str]:
        if is_late(household):
            return {"email": address(household)}
        return {"memberId": self._member_ids[household]}

    async def _find(self, late: tuple[int, list[Receipt]]) -> None:
        """Look in a latecomer's wallet for the codes that were sent to its address."""
        tally = self.tallies["found"]
        household, receipts = late
        expected = [receipt for receipt in receipts if receipt.campaign in self._sent]
        tally.untried += len(receipts) - len(expected)
        member_id = self._member_ids.get(household)
        if member_id is None:
            tally.untried += len(expected)
            return
        held: set[str] = set()
        page: dict[str, Any] = {"hasNextPage": True, "endCursor": None}
        while page["hasNextPage"]:
            found = await self._engine.ask(WALLET, {"id": member_id, "after": page["endCursor"]})
            codes = found["member"]["wallet"]["codes"]
            held |= {edge["node"]["pool"]["id"] for edge in codes["edges"]}
            page = codes["pageInfo"]
        for receipt in expected:
            if self._pools[receipt.campaign]["id"] in held:
                tally.count(replayed=False)
            else:
                tally.refuse("the wallet lacks a code that was sent to its member's address")

    async def _redeem(self, spending: Spending) -> None:
        tally = self.tallies["redemptions"]
        member_id = self._member_ids.get(spending.receipt.household)
        if member_id is None or spending.receipt.campaign not in self._sent:
            tally.untried += 1
            return
        # Claiming again returns the code that the campaign sent.
        claim = {"poolId": self._pools[spending.receipt.campaign]["id"], "memberId": member_id}
        claimed = await self._answer(CLAIM, claim)
        if not claimed.get("replayed"):
            tally.refuse("the household wasn't sent this code" if "code" in claimed else _reason(claimed))
            return
        order = {
            "codes": [claimed["code"]["text"]],
            "source": "IMPORT",
            "orderId": spending.order_id,
            "orderAmount": {"amountMinor": spending.amount, "currency": CURRENCY},
            "memberId": member_id,
        }
        answer = await self._answer(REDEEM, order)
        if answer["__typename"] == "RedeemCodesSuccess":
            tally.count(replayed=answer["replayed"])
        else:
            tally.refuse(_reason(answer))

    async def _buy(self, baskets: list[Basket]) -> None:
        tally = self.tallies["purchases"]
        purchases = [
            {
                "memberId": self._member_ids[basket.household],
                "source": "IMPORT",
                "orderId": basket.order_id,
                "amount": {"amountMinor": basket.amount, "currency": CURRENCY},
                "occurredAt": basket.occurred_at.isoformat(),
            }
            for basket in baskets
            if basket.household in self._member_ids
        ]
        tally.untried += len(baskets) - len(purchases)
        for answer in await self._recorded(purchases):
            if answer["__typename"] == "RecordPurchaseSuccess":
                tally.count(replayed=answer["replayed"])
            elif answer["__typename"] == "PurchaseAlreadyReversed":
                # An earlier run recorded it, and took it back whole.
                tally.count(replayed=True)
            else:
                tally.refuse(_reason(answer))

    async def _recorded(self, purchases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers for purchases that are recorded by one document."""
        if not purchases:
            return []
        variables = {f"p{number}": purchase for number, purchase in enumerate(purchases)}
        try:
            data = await self._engine.ask(record_purchases(len(purchases)), variables)
        except Fault as fault:
            if len(purchases) == 1:
                return [{"__typename": str(fault), "message": "the server failed; its log says why"}]
            # A fault takes the others' answers with it. They are idempotent, so each is sent again.
            return [answer for each in purchases for answer in await self._recorded([each])]
        return [data[name] for name in variables]

    async def _make_reward(self) -> None:
        """Find the reward, or create it. If replays at the same time made several, the oldest counts."""
        self._reward_id = await self._standing_reward()
        if self._reward_id is None:

            async def took_effect() -> dict[str, Any] | None:
                stands = await self._standing_reward()
                return {"answer": {"__typename": "CreateRewardSuccess"}} if stands else None

            await self._answer(CREATE_REWARD, {"name": REWARD_NAME, "cost": REWARD_COST}, took_effect)
            self._reward_id = await self._standing_reward()

    async def _standing_reward(self) -> str | None:
        found, after = None, None
        while True:
            page = (await self._engine.ask(REWARDS, {"after": after}))["rewards"]
            for reward in (edge["node"] for edge in page["edges"]):
                if reward["name"] == REWARD_NAME and reward["active"]:
                    found = reward["id"]
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    async def _have(self, prize: Prize) -> None:
        tally = self.tallies["rewards"]
        member_id = self._member_ids.get(prize.household)
        if member_id is None or self._reward_id is None:
            tally.untried += 1
            return
        wanted = {"rewardId": self._reward_id, "memberId": member_id, "idempotencyKey": prize.key}
        answer = await self._answer(REDEEM_REWARD, wanted)
        if answer["__typename"] == "RedeemRewardSuccess":
            tally.count(replayed=answer["replayed"])
        else:
            tally.refuse(_reason(answer))

    async def _go_back(self, returned: Return) -> None:
        tally = self.tallies["returns"]
        if returned.basket.household not in self._member_ids:
            tally.untried += 1
            return
        refund = {
            "source": "IMPORT",
            "orderId": returned.basket.order_id,
            "refundId": "return",
            "amount": {"amountMinor": returned.amount, "currency": CURRENCY},
            "reason": "Goes back",
        }
        answer = await self._answer(REFUND, refund)
        if answer["__typename"] == "RefundPurchaseSuccess":
            tally.count(replayed=answer["replayed"])
        else:
            tally.refuse(_reason(answer))

    async def points(self) -> Counter[int]:
        """Return what each household has by its wallet, below 0 where it lacks something."""
        points: Counter[int] = Counter()

        async def look(household: int) -> None:
            member = (await self._engine.ask(POINTS, {"id": self._member_ids[household]}))["member"]
            points[household] = member["wallet"]["points"] - member["wallet"]["shortfall"]

        await self._each(list(self._member_ids), look)
        return points


def _chunks(items: list[T], size: int) -> list[list[T]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def _person(household: int) -> dict[str, Any]:
    """Return the input of a household that becomes a member."""
    return {
        "externalId": external_id(household),
        "email": address(household),
        "emailVerified": True,
        "displayName": f"Household {household}",
    }


def _reason(answer: dict[str, Any]) -> str:
    rejections = answer.get("rejections")
    return f"{answer['__typename']}: {rejections[0]['reason'] if rejections else answer['message']}"
