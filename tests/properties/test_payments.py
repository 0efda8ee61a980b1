"""Points as money against their rules. Without these parts of an order could add up to a point or a cent more or less.

The machine pays for orders, records, refunds, amends and calls them off in any order, beside the model of the ledger.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any, TypeVar, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.orders.rows import PurchaseRow
from app.orders.rules import NOTHING, Paid, come_back, kept_points, money_part, paid_with, points_of
from tests.conftest import Api
from tests.factories import Shop, open_shop
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation
from tests.points.documents import (
    CONFIGURE,
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
from tests.points.model import ModelDebit, ModelLot, ModelWallet
from tests.sizes import FULL, size

T = TypeVar("T")
VALUES = st.decimals(min_value=Decimal("0.000001"), max_value=10_000, places=6)
RATES = st.decimals(min_value=0, max_value=10_000, places=4)
MINOR_UNITS = st.sampled_from([1, 100, 1000])
AMOUNTS = st.integers(0, 10**7)


@settings(max_examples=size(200, 5_000), deadline=None, derandomize=not FULL)
@given(AMOUNTS, AMOUNTS, VALUES)
def test_the_fewest_points_pay_and_never_more_than_is_needed(ceiling: int, need: int, value: Decimal) -> None:
    paid = paid_with(ceiling, need, value)

    exact = Fraction(value)
    assert paid.points <= ceiling
    assert paid.value == min(floor(paid.points * exact), need)
    if paid.points:
        assert paid.value > 0
        # One less would not cover it.
        assert floor((paid.points - 1) * exact) < need
    assert paid == NOTHING or paid.points == min(ceiling, ceil(need / exact))
    assert paid_with(ceiling, need, value) == paid_with(paid.points, need, value)


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Return refunds and amendments: shares, in thousandths, of what stands, and points to pay with."""
    step = st.tuples(st.sampled_from(["refund", "refund", "amend"]), st.integers(0, 1_000), st.integers(0, 3_000))
    return draw(st.lists(step, min_size=1, max_size=9))


@settings(max_examples=size(200, 5_000), deadline=None, derandomize=not FULL)
@given(st.integers(1, 10**6), st.integers(0, 10**4), VALUES, RATES, MINOR_UNITS, changes())
def test_after_any_refunds_exactly_the_money_part_has_earned(
    amount: int, ceiling: int, value: Decimal, rate: Decimal, minor_units: int, steps: list[tuple[str, int, int]]
) -> None:
    paid = paid_with(ceiling, amount, value)
    row: dict[str, Any] = {
        "purchase_amount": amount, "purchase_refunded": 0, "purchase_points_per_unit": rate,
        "purchase_minor_units": minor_units, "purchase_paid_points": paid.points, "purchase_paid_value": paid.value,
        "purchase_returned_points": 0, "purchase_returned_value": 0, "purchase_shares_from": 0,
        "purchase_shares_points": 0, "purchase_shares_value": 0,
    }  # fmt: skip
    bought = cast("PurchaseRow", row)
    money = paid_out = 0

    def give_up(part: int) -> int:
        before = money_part(bought)
        back = come_back(bought, row["purchase_refunded"] + part)
        returned = Paid(back.points - row["purchase_returned_points"], back.value - row["purchase_returned_value"])
        assert min(returned) >= 0
        assert part - returned.value >= 0
        row["purchase_refunded"] += part
        row["purchase_returned_points"], row["purchase_returned_value"] = back
        assert 0 <= money_part(bought) == before - (part - returned.value)
        return part - returned.value

    for what, share, points in steps:
        stands = row["purchase_amount"] - row["purchase_refunded"]
        if what == "refund":
            paid_out += give_up(stands * share // 1_000)
            continue
        came_back = Paid(row["purchase_returned_points"], row["purchase_returned_value"])
        stands = stands * share // 500
        paid = paid_with(points, stands, value, came_back)
        assert came_back.points <= paid.points <= max(points, came_back.points)
        row |= {
            "purchase_amount": row["purchase_refunded"] + stands,
            "purchase_paid_points": paid.points, "purchase_paid_value": paid.value,
            "purchase_shares_from": row["purchase_refunded"], "purchase_shares_points": came_back.points,
            "purchase_shares_value": came_back.value,
        }  # fmt: skip
        # The same again changes nothing.
        assert paid_with(points, stands, value, came_back) == paid_with(paid.points, stands, value, came_back) == paid
        assert money_part(bought) >= 0
    money = money_part(bought)
    assert kept_points(bought) == points_of(money, rate, minor_units)

    assert give_up(row["purchase_amount"] - row["purchase_refunded"]) == money
    assert (row["purchase_returned_points"], row["purchase_returned_value"]) == (
        row["purchase_paid_points"], row["purchase_paid_value"]
    )  # fmt: skip
    assert (money_part(bought), kept_points(bought)) == (0, 0)


COST = 30
VALUE = 3
#: Of the order less nothing: its code is a gift's, which takes nothing off.
ORDERS = st.sampled_from(["one", "two"])


@dataclass
class Ordered:
    """An order as the rules say it, in hundredths of a unit; `paid` and `amount` are before refunds."""

    name: str
    code: Any
    amount: int
    paid: Paid = NOTHING
    is_recorded: bool = False
    is_off: bool = False
    is_reversed: bool = False
    recorded: int = 0
    refunded: int = 0
    back: Paid = NOTHING
    shares: tuple[int, Paid] = (0, NOTHING)
    refunds: int = 0
    lots: list[ModelLot] = field(default_factory=list)
    debits: list[ModelDebit] = field(default_factory=list)

    @property
    def stands(self) -> int:
        return self.recorded - self.refunded

    @property
    def earned(self) -> int:
        """Return the points that it has earned: one for each unit that stands and wasn't paid with points."""
        return (self.stands - self.paid.value + self.back.value) // 100 if self.is_recorded else 0

    def returned(self, refunded: int) -> Paid:
        """Return what has come back when so much is refunded."""
        since, back = self.shares
        if refunded == since:
            return back
        share = Fraction(refunded - since, self.recorded - since)
        return Paid(
            back.points + floor((self.paid.points - back.points) * share),
            back.value + floor((self.paid.value - back.value) * share),
        )


class Payments(RuleBasedStateMachine):
    """Two orders of one member."""

    loop: asyncio.AbstractEventLoop
    url: str

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the tests' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @initialize(lifetime=st.sampled_from([None, 5]))
    def open(self, lifetime: int | None) -> None:
        self.closing = open_shop(self.url)
        self.shop: Shop = self.do(self.closing.__aenter__())
        self.do(self.shop.do(CONFIGURE, pointValue=VALUE, pointsLifetimeDays=lifetime))
        self.lifetime = lifetime
        self.model = ModelWallet(self.do(self.shop.member()))
        self.mug = self.do(reward(self.shop, cost=COST))
        self.numbers = 0
        self.orders: dict[str, Ordered] = {}
        gifts = self.do(self.shop.pool(kind="GIFT", giftSku="MUG-1", claimsPerMember=2))
        for name in ("one", "two"):
            code = self.do(self.shop.claim(gifts, self.model.member, idempotencyKey=name))
            self.do(self.shop.redeem([code["text"]], self.model.member, order=name, amount=1_000))
            self.orders[name] = Ordered(name, code, 1_000)
        self.give(100)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            assert self.do(broken(self.shop)) == self.do(self.shop.broken_promises()) == []
            self.do(self.closing.__aexit__(None, None, None))

    def number(self) -> str:
        self.numbers += 1
        return f"n-{self.numbers}"

    @rule(amount=st.sampled_from([40, 100]))
    def give(self, amount: int) -> None:
        self.do(grant(self.shop, self.model.member, amount, self.number()))
        self.model.credit(amount, "ADJUSTMENT", lifetime=self.lifetime)

    @rule()
    def have(self) -> None:
        answer = self.do(redeem(self.shop, self.mug, self.model.member, self.number()))
        if self.model.spendable < COST:
            assert answer["__typename"] == "InsufficientPoints"
            return
        self.model.debit(COST, "REWARD")

    @rule(days=st.sampled_from([1, 5]))
    def wait(self, days: int) -> None:
        self.do(days_later(self.shop, self.model.member, days))
        self.model.age(days)

    @rule(name=ORDERS, amount=st.sampled_from([90, 1_000, 1_001]))
    def record(self, name: str, amount: int) -> None:
        order = self.orders[name]
        answer = self.do(purchase(self.shop, self.model.member, name, amount))
        if order.is_off or order.is_recorded:
            assert answer["__typename"] != "RecordPurchaseSuccess" or answer["replayed"]
            return
        if amount < order.paid.value:
            assert answer["__typename"] == "InvalidInput"
            return
        order.is_recorded, order.recorded = True, amount
        if order.earned:
            order.lots.append(self.model.earn(order.earned, lifetime=self.lifetime, pending=0))
        assert (answer["purchase"]["keptPoints"], answer["purchase"]["paidPoints"]) == (order.earned, order.paid.points)

    @rule(
        name=ORDERS, points=st.sampled_from([None, 0, 7, 50, 333, 334]), amount=st.sampled_from([0, 100, 1_000, 1_337])
    )
    def amend(self, name: str, points: int | None, amount: int) -> None:
        order = self.orders[name]
        asked = amendment([order.code], self.model.member, amount, orderId=name, points=points)
        answer = self.do(self.shop.do(AMEND, **asked))
        if order.is_off:
            assert answer["__typename"] == "OrderNotOpen"
            return
        recorded = order.recorded + amount - order.amount
        if order.is_recorded and not order.is_reversed and amount != order.amount and recorded < order.refunded:
            assert answer["__typename"] == "InvalidInput"
            return
        if not order.is_recorded or order.is_reversed:
            recorded = order.recorded
        need = max(0, min(amount, recorded) - order.refunded) if order.is_recorded else amount
        paid = order.paid
        if points is not None or paid.value - order.back.value > need:
            paid = paid_with(paid.points if points is None else points, need, Decimal(VALUE), order.back)
        more = paid.points - order.paid.points
        if more > self.model.spendable:
            assert (answer["balance"], answer["required"]) == (self.model.spendable, more)
            return
        before = order.earned
        if more > 0:
            order.debits.append(self.model.debit(more, "PAYMENT"))
        self.model.give_back_some(order.debits, max(-more, 0))
        is_changed = (recorded, paid) != (order.recorded, order.paid)
        order.amount, order.recorded, order.paid = amount, recorded, paid
        if is_changed:
            order.shares = order.refunded, order.back
        lacking = 0
        if order.earned < before:
            _, lacking = self.model.take_back(order.lots, before - order.earned)
        elif order.earned > before:
            _, lot = self.model.earn_more(order.lots, order.earned - before, lifetime=self.lifetime, pending=0)
            order.lots += [lot] if lot else []
        assert (answer["pointsReturned"], answer["shortfall"]) == (max(-more, 0), lacking)
        assert answer["amountDue"]["amountMinor"] == max(0, amount - paid.value)

    @rule(name=ORDERS, part=st.sampled_from([1, 99, 333, 500, 1_000]))
    def return_some(self, name: str, part: int) -> None:
        order, key = self.orders[name], self.number()
        checked = self.do(check_refund(self.shop, name, key, part))
        answer = self.do(refund(self.shop, name, key, part))
        if not order.is_recorded or part > order.stands:
            assert answer["__typename"] == checked["__typename"] != "RefundPurchaseSuccess"
            return
        points, expired, money, got, lacking = self.returned(order, part)
        assert (answer["pointsReturned"], answer["pointsExpired"], answer["moneyReturned"]["amountMinor"]) == (
            points, expired, money
        )  # fmt: skip
        assert (checked["pointsReturned"], checked["moneyReturned"]["amountMinor"]) == (points, money)
        assert answer["shortfall"] == checked["shortfall"] == lacking
        assert sum(-each["amount"] for each in answer["entries"][:1]) in {got, 0}
        assert answer["purchase"]["keptPoints"] == order.earned
        assert answer["purchase"]["member"]["wallet"]["points"] == self.model.points

    def returned(self, order: Ordered, part: int) -> tuple[int, int, int, int, int]:
        """Let a part go back. Returns points that came back, those that expired, money, what was taken and lacking."""
        before, back = order.earned, order.returned(order.refunded + part)
        points, money = back.points - order.back.points, part - (back.value - order.back.value)
        expired = self.model.give_back_some(order.debits, points)
        order.refunded += part
        order.back = back
        order.is_reversed = order.stands == 0
        got, lacking = self.model.take_back(order.lots, before - order.earned)
        return points, expired, money, got, lacking

    @rule(name=ORDERS)
    def call_off(self, name: str) -> None:
        order = self.orders[name]
        answer = self.do(self.shop.do(CANCEL, **cancellation(orderId=name)))
        assert answer["replayed"] is order.is_off
        if order.is_off:
            return
        points, expired, money, lacking = order.paid.points - order.back.points, 0, 0, 0
        if order.is_recorded and not order.is_reversed:
            points, expired, money, _, lacking = self.returned(order, order.stands)
        else:
            expired = self.model.give_back_some(order.debits, points)
        order.is_off = True
        assert (answer["pointsReturned"], answer["pointsExpired"], answer["shortfall"]) == (points, expired, lacking)
        assert answer["moneyReturned"]["amountMinor"] == money

    @invariant()
    def the_wallet_is_the_models(self) -> None:
        if not hasattr(self, "orders"):
            return
        shown = self.do(wallet(self.shop, self.model.member))
        assert (shown["points"], shown["spendablePoints"], shown["shortfall"]) == (
            self.model.points, self.model.spendable, self.model.shortfall
        )  # fmt: skip
        assert self.do(entries(self.shop, self.model.member))[-100:] == self.model.history[-100:]


async def test_any_walk_keeps_orders_and_points_exact(api: Api, shop: Shop) -> None:
    class OnThisLoop(Payments):
        loop = asyncio.get_running_loop()
        url = f"{api.url}/graphql"

    how = settings(
        deadline=None,
        max_examples=size(5, 60),
        stateful_step_count=25,
        derandomize=not FULL,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, OnThisLoop, settings=how)
