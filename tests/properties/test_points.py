"""The ledger against a model of lots. Without these a point could be spent twice, expire twice, or vanish.

Each step is a call to the API, and every balance, shortfall and end of points is compared. The second member was
referred by the first one, and what both earned by it falls and comes back with the second one's purchases.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.points.freeing import HoldEvent
from app.points.types import PointsReason
from tests.conftest import Api
from tests.factories import Shop, open_shop
from tests.points.documents import (
    CONFIGURE,
    LIABILITY,
    REVERSE,
    REVERSE_REWARD,
    broken,
    check_refund,
    days_later,
    entries,
    grant,
    purchase,
    redeem,
    refund,
    reward,
    wallet,
)
from tests.points.holds import captured, freed, held
from tests.points.ledger import amended, given_back, put_back_again, taken_back
from tests.points.model import ModelDebit, ModelHold, ModelLot, ModelWallet
from tests.referrals.documents import accepted, program
from tests.referrals.documents import broken as broken_referrals
from tests.sizes import FULL, size

T = TypeVar("T")
COST = 30
WHO = st.integers(0, 1)
REFEREE = 1
#: What the referrer and the referee earn, and why.
REFERRAL = ((100, "REFERRAL_REFERRER"), (50, "REFERRAL_REFEREE"))


@dataclass
class Bought:
    """A purchase as the rules say it: its amount in hundredths of a unit, what went back, and its rate."""

    who: int
    order: str
    amount: int
    rate: int
    pending: float
    #: Whether a referral can stand by it.
    counts: bool
    refunded: int = 0
    is_reversed: bool = False
    lots: list[ModelLot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recorded = self.amount

    def earns(self, amount: int) -> int:
        return amount * self.rate // 100

    @property
    def points(self) -> int:
        """Return what it has earned after its refunds."""
        return self.earns(self.amount - self.refunded)


class Ledger(RuleBasedStateMachine):
    """Earn, grant, hold, spend, take and give back, let pending end and points expire, in any order."""

    loop: asyncio.AbstractEventLoop
    url: str

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the tests' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @initialize()
    def open(self) -> None:
        self.closing = open_shop(self.url)
        self.shop: Shop = self.do(self.closing.__aenter__())
        referrer = self.do(self.shop.member())
        self.do(program(self.shop, convertsOn="FIRST_PURCHASE"))
        referee = self.do(accepted(self.shop, referrer))["member"]
        self.wallets = [ModelWallet(referrer), ModelWallet(referee)]
        self.credits: list[ModelLot] = []
        self.stands_by: Bought | None = None
        self.mug = self.do(reward(self.shop, cost=COST))
        self.lifetime: int | None = None
        self.pending = 0
        self.rate = 1
        self.set_lifetime(5)
        self.purchases: list[Bought] = []
        self.refunds: list[tuple[Bought, str, int, Any]] = []
        self.mugs: list[tuple[int, str, ModelDebit]] = []
        self.holds: list[tuple[int, UUID, ModelHold]] = []
        self.spent: list[tuple[int, UUID, ModelDebit]] = []
        self.grants: list[tuple[int, str, ModelLot]] = []
        self.answered: list[tuple[Any, Any]] = []
        self.numbers = 0
        self.set_terms(3, 1, recovers=True)
        self.buy(REFEREE, 1, 0)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            assert self.do(broken(self.shop)) == self.do(broken_referrals(self.shop)) == []
            assert self.do(self.shop.broken_promises()) == []
            self.do(self.closing.__aexit__(None, None, None))

    def number(self) -> str:
        self.numbers += 1
        return f"n-{self.numbers}"

    @rule(days=st.sampled_from([None, 5, 30]))
    def set_lifetime(self, days: int | None) -> None:
        self.do(self.shop.do(CONFIGURE, pointsLifetimeDays=days))
        self.lifetime = days

    @rule(days=st.sampled_from([0, 3]), rate=st.sampled_from([1, 2]), recovers=st.booleans())
    def set_terms(self, days: int, rate: int, recovers: bool) -> None:
        self.do(self.shop.do(CONFIGURE, pointsPendingDays=days, pointsPerUnit=float(rate), recoverShortfalls=recovers))
        self.pending, self.rate = days, rate
        for each in self.wallets:
            each.recovers = recovers

    @rule(who=WHO, units=st.integers(0, 40), days_ago=st.sampled_from([0, 2]))
    def buy(self, who: int, units: int, days_ago: int) -> None:
        model, order = self.wallets[who], self.number()
        at = None if days_ago == 0 else (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
        answer = self.do(purchase(self.shop, model.member, order, units * 100 + 99, occurredAt=at))
        assert answer["replayed"] is False
        # 99 hundredths of a unit are a point when a unit is two.
        points = units * self.rate + (self.rate - 1)
        assert answer["purchase"]["points"] == points
        bought = Bought(
            who, order, units * 100 + 99, self.rate, self.pending - days_ago if self.pending else 0,
            counts=who == REFEREE and days_ago == 0,
        )  # fmt: skip
        self.raised(bought)
        if points:
            bought.lots.append(model.earn(points, lifetime=self.lifetime, pending=bought.pending))
        assert answer["purchase"]["member"]["wallet"]["points"] == model.points
        self.purchases.append(bought)

    def raised(self, bought: Bought) -> None:
        """Convert the invite by a purchase, or bring its referral back, before the purchase earns."""
        if not bought.counts or bought.amount == bought.refunded or self.stands_by is not None:
            return
        self.stands_by = bought
        if not self.credits:
            self.credits = [
                model.credit(points, reason, lifetime=self.lifetime, pending=bought.pending)
                for model, (points, reason) in zip(self.wallets, REFERRAL, strict=True)
            ]
            return
        for model, lot, (_, reason) in zip(self.wallets, self.credits, REFERRAL, strict=True):
            model.put_back(lot, reason)

    def lowered(self, bought: Bought) -> bool:
        """Let another purchase take the place of one of which nothing stands, or the referral fall. Returns whether."""
        if self.stands_by is not bought or bought.amount > bought.refunded:
            return False
        self.stands_by = next((each for each in self.purchases if each.counts and each.amount > each.refunded), None)
        if self.stands_by is not None:
            return False
        for model, lot in zip(self.wallets, self.credits, strict=True):
            model.take_back([lot])
        return True

    @rule(who=WHO, amount=st.integers(-60, 60).filter(bool), days=st.sampled_from([None, 1, 7]))
    def adjust(self, who: int, amount: int, days: int | None) -> None:
        model, key = self.wallets[who], self.number()
        how = {}
        if days is not None and amount > 0:
            how["expiresAt"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
        answer = self.do(grant(self.shop, model.member, amount, key, **how))
        if model.spendable + amount < 0:
            assert (answer["__typename"], answer["balance"], answer["required"]) == (
                "InsufficientPoints", model.spendable, -amount
            )  # fmt: skip
            return
        if amount > 0:
            lot = model.credit(amount, "ADJUSTMENT", lifetime=self.lifetime, ends_in=days if how else None)
            self.grants.append((who, key, lot))
        else:
            model.debit(-amount, "ADJUSTMENT")
        assert answer["entry"]["balanceAfter"] == model.points
        self.answered.append((lambda: grant(self.shop, model.member, amount, key, **how), answer["entry"]["id"]))

    @rule(who=WHO)
    def have(self, who: int) -> None:
        model, key = self.wallets[who], self.number()
        answer = self.do(redeem(self.shop, self.mug, model.member, key))
        if model.spendable < COST:
            assert (answer["balance"], answer["required"]) == (model.spendable, COST)
            return
        spent = model.debit(COST, "REWARD")
        entry = answer["redemption"]["entry"]
        assert entry["balanceAfter"] == model.points
        self.mugs.append((who, answer["redemption"]["id"], spent))
        self.answered.append((lambda: redeem(self.shop, self.mug, model.member, key), entry["id"]))

    @rule(who=WHO, amounts=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(any))
    def hold(self, who: int, amounts: list[int]) -> None:
        """At the ledger: an order holds points to pay with, and others for rewards."""
        kept = ModelHold()
        hold_id = self.set_aside(who, kept, amounts, None)
        if kept.parts:
            self.holds.append((who, hold_id, kept))

    @precondition(lambda self: bool(getattr(self, "holds", None)))
    @rule(data=st.data(), amounts=st.lists(st.integers(0, 40), min_size=1, max_size=3))
    def hold_otherwise(self, data: st.DataObject, amounts: list[int]) -> None:
        who, hold_id, kept = data.draw(st.sampled_from(self.holds))
        self.set_aside(who, kept, amounts, hold_id)

    def set_aside(self, who: int, kept: ModelHold, amounts: list[int], hold_id: UUID | None) -> UUID:
        model = self.wallets[who]
        spendable, same = model.spendable + kept.points, sum(amounts) == kept.points
        hold_id, holding = self.do(
            held(
                self.shop, model.member, *amounts, hold_id=hold_id,
                event_type="hold.changed" if hold_id else "hold.placed",
            )
        )  # fmt: skip
        assert (holding.is_held, holding.spendable) == (model.hold(kept, amounts), spendable)
        assert (holding.change is None) == (same or not holding.is_held)
        return hold_id

    @precondition(lambda self: bool(getattr(self, "holds", None)))
    @rule(data=st.data())
    def capture(self, data: st.DataObject) -> None:
        """At the ledger: the rewards of a hold whole, and as much of its payment as is wanted."""
        who, hold_id, kept = each = data.draw(st.sampled_from(self.holds))
        model = self.wallets[who]
        to_pay, *costs = kept.amounts or [0]
        for position, cost in enumerate(costs, start=1):
            if cost:
                taken = self.do(captured(self.shop, model.member, hold_id, cost, position, PointsReason.REWARD))
                self.spent.append((who, taken.entry["entry_id"], model.capture(kept, position, cost, "REWARD")))
        if points := data.draw(st.integers(0, to_pay)):
            taken = self.do(captured(self.shop, model.member, hold_id, points))
            self.spent.append((who, taken.entry["entry_id"], model.capture(kept, 0, points, "REWARD")))
            assert taken.latest["event_wallet_points"] == model.points
        self.end(each, "hold.captured")

    @precondition(lambda self: bool(getattr(self, "holds", None)))
    @rule(data=st.data(), event_type=st.sampled_from(["hold.released", "hold.expired"]))
    def let_go(self, data: st.DataObject, event_type: HoldEvent) -> None:
        self.end(data.draw(st.sampled_from(self.holds)), event_type)

    def end(self, each: tuple[int, UUID, ModelHold], event_type: HoldEvent) -> None:
        """End a hold with what it still has."""
        who, hold_id, kept = each
        model = self.wallets[who]
        ended = self.do(freed(self.shop, model.member, hold_id, event_type))
        points = model.free(kept)
        assert (0 if ended is None else ended.points) == points
        assert ended is None or ended.latest["event_wallet_points"] == model.points
        self.holds.remove(each)

    @precondition(lambda self: bool(getattr(self, "spent", None)))
    @rule(data=st.data())
    def refund_a_payment(self, data: st.DataObject) -> None:
        """At the ledger: what a hold had and was captured comes back."""
        who, entry_id, debit = each = data.draw(st.sampled_from(self.spent))
        model = self.wallets[who]
        back = self.do(given_back(self.shop, model.member, entry_id, self.number()))
        assert back is not None
        assert back.entry["entry_amount"] == model.give_back(debit)
        self.spent.remove(each)

    @precondition(lambda self: bool(getattr(self, "mugs", None)))
    @rule(data=st.data())
    def send_a_mug_back(self, data: st.DataObject) -> None:
        who, redemption_id, spent = data.draw(st.sampled_from(self.mugs))
        answer = self.do(self.shop.do(REVERSE_REWARD, redemptionId=redemption_id, reason="broken"))
        assert answer["entry"]["amount"] == COST
        if answer["replayed"]:
            assert not spent.parts
            return
        assert self.wallets[who].give_back(spent) == COST
        spent.parts = []

    @precondition(lambda self: bool(getattr(self, "purchases", None)))
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        bought = data.draw(st.sampled_from(self.purchases))
        model = self.wallets[bought.who]
        answer = self.do(self.shop.do(REVERSE, source="STORE", orderId=bought.order, reason="returned"))
        if bought.is_reversed:
            assert answer["__typename"] == "PurchaseAlreadyReversed"
            return
        bought.refunded, bought.is_reversed = bought.amount, True
        self.lowered(bought)
        got, lacking = model.take_back(bought.lots)
        assert answer["shortfall"] == lacking
        assert -(answer["entry"] or {"amount": 0})["amount"] == got
        assert answer["purchase"]["member"]["wallet"]["points"] == model.points

    @precondition(lambda self: bool(getattr(self, "purchases", None)))
    @rule(data=st.data(), part=st.sampled_from([1, 33, 50, 100, 250, 777, 2000]))
    def bring_some_back(self, data: st.DataObject, part: int) -> None:
        bought = data.draw(st.sampled_from(self.purchases))
        model, name = self.wallets[bought.who], self.number()
        checked = self.do(check_refund(self.shop, bought.order, name, part))
        answer = self.do(refund(self.shop, bought.order, name, part))
        stands = bought.amount - bought.refunded
        if bought.is_reversed:
            assert answer["__typename"] == checked["__typename"] == "PurchaseAlreadyReversed"
            return
        if part > stands:
            assert answer["refundable"]["amountMinor"] == checked["refundable"]["amountMinor"] == stands
            return
        owed = bought.points - bought.earns(stands - part)
        bought.refunded += part
        bought.is_reversed = part == stands
        assert self.lowered(bought) is checked["endsReferral"]
        before = model.points
        got, lacking = model.take_back(bought.lots, owed)
        assert (sum(-each["amount"] for each in answer["entries"][:1]) if got else 0, answer["shortfall"]) == (
            got, lacking
        )  # fmt: skip
        assert sum(-each["amount"] for each in answer["entries"]) == before - model.points == checked["points"]
        assert checked["shortfall"] == lacking
        assert (answer["purchase"]["keptPoints"], answer["purchase"]["member"]["wallet"]["points"]) == (
            bought.points, model.points
        )  # fmt: skip
        self.refunds.append((bought, name, part, answer))

    @precondition(lambda self: bool(getattr(self, "refunds", None)))
    @rule(data=st.data())
    def refund_again(self, data: st.DataObject) -> None:
        bought, name, part, told = data.draw(st.sampled_from(self.refunds))
        answer = self.do(refund(self.shop, bought.order, name, part))
        assert answer["replayed"] is True
        assert (answer["shortfall"], answer["moneyReturned"]) == (told["shortfall"], told["moneyReturned"])
        assert [each["id"] for each in answer["entries"]] == [each["id"] for each in told["entries"]]

    @precondition(lambda self: bool(getattr(self, "purchases", None)))
    @rule(data=st.data(), amount=st.sampled_from([0, 99, 500, 1099, 3000, 5050]))
    def amend(self, data: st.DataObject, amount: int) -> None:
        """At the ledger: the order of a purchase is worth another amount."""
        bought = data.draw(st.sampled_from(self.purchases))
        if amount < bought.refunded:
            return
        followed = self.do(amended(self.shop, bought.order, amount, self.number()))
        if bought.is_reversed:
            return
        model, before = self.wallets[bought.who], bought.points
        is_less = amount < bought.amount
        bought.amount = amount
        if is_less:
            self.lowered(bought)
        else:
            self.raised(bought)
        if bought.points < before:
            assert followed.shortfall == model.take_back(bought.lots, before - bought.points)[1]
        elif bought.points > before:
            _, lot = model.earn_more(
                bought.lots, bought.points - before, lifetime=self.lifetime, pending=bought.pending
            )
            bought.lots += [lot] if lot else []

    @precondition(lambda self: bool(getattr(self, "grants", None)))
    @rule(data=st.data())
    def call_off_and_on(self, data: st.DataObject) -> None:
        """At the ledger: a credit falls, and stands again after that, as a referral's may."""
        who, key, lot = data.draw(st.sampled_from(self.grants))
        model, origin = self.wallets[who], f"grant/{key}"
        if lot.standing:
            taken = self.do(taken_back(self.shop, model.member, PointsReason.ADJUSTMENT, [origin], self.number()))
            got, lacking = model.take_back([lot])
            assert (-(taken.entry["entry_amount"] if taken.entry else 0), taken.shortfall) == (got, lacking)
        else:
            back = self.do(put_back_again(self.shop, model.member, PointsReason.ADJUSTMENT, origin, self.number()))
            assert (back.entry["entry_amount"] if back else 0) == model.put_back(lot, "ADJUSTMENT")

    @rule(who=WHO, days=st.sampled_from([1, 5, 30]))
    def wait(self, who: int, days: int) -> None:
        self.do(days_later(self.shop, self.wallets[who].member, days))
        self.wallets[who].age(days)
        for bought in self.purchases:
            bought.pending -= days if bought.who == who else 0

    @precondition(lambda self: bool(getattr(self, "purchases", None)))
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """As it was recorded first, whatever became of it."""
        bought = data.draw(st.sampled_from(self.purchases))
        answer = self.do(purchase(self.shop, self.wallets[bought.who].member, bought.order, bought.recorded))
        if bought.is_reversed:
            assert answer["__typename"] == "PurchaseAlreadyReversed"
            return
        assert answer["replayed"] is True
        assert (answer["entry"] or {"amount": 0})["amount"] == (bought.lots[0].amount if bought.lots else 0)

    @precondition(lambda self: bool(getattr(self, "answered", None)))
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        ask, entry_id = data.draw(st.sampled_from(self.answered))
        answer = self.do(ask())
        assert answer["replayed"] is True
        assert (answer.get("redemption") or answer)["entry"]["id"] == entry_id

    @invariant()
    def wallets_are_the_models(self) -> None:
        if not hasattr(self, "shop"):
            return
        for model in self.wallets:
            shown = self.do(wallet(self.shop, model.member))
            assert (
                shown["points"], shown["heldPoints"], shown["pendingPoints"], shown["spendablePoints"],
                shown["shortfall"],
            ) == (model.points, model.held, model.pending, model.spendable, model.shortfall)  # fmt: skip
            assert self.do(entries(self.shop, model.member))[-100:] == model.history[-100:]
            _same_expiry(shown["nextExpiry"], model.next_expiry)
        found = self.do(self.shop.data(LIABILITY))["pointsLiability"]
        assert found["outstandingPoints"] == sum(model.points for model in self.wallets)


def _same_expiry(shown: Any, expected: tuple[int, float] | None) -> None:
    """Compare what ends next. The model doesn't see the time that a step takes, so two ends of one day are alike."""
    if expected is None:
        assert shown is None
        return
    points, days = expected
    left = datetime.fromisoformat(shown["expiresAt"]) - datetime.now(UTC)
    assert abs(left - timedelta(days=days)) < timedelta(hours=1)
    assert shown["points"] <= points


async def test_any_walk_keeps_the_ledger_exact(api: Api, shop: Shop) -> None:
    class OnThisLoop(Ledger):
        loop = asyncio.get_running_loop()
        url = f"{api.url}/graphql"

    how = settings(
        deadline=None,
        max_examples=size(3, 30),
        stateful_step_count=30,
        derandomize=not FULL,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, OnThisLoop, settings=how)
