"""The ledger against a model of lots. Without these a point could be spent twice, expire twice, or vanish."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

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

from tests.conftest import Api
from tests.factories import Shop, open_shop
from tests.points.documents import (
    CONFIGURE,
    LIABILITY,
    REVERSE,
    broken,
    days_later,
    entries,
    grant,
    points,
    purchase,
    redeem,
    reward,
)
from tests.sizes import FULL, size

T = TypeVar("T")
COST = 30
WHO = st.integers(0, 1)


@dataclass
class Lot:
    """What is left of a credit, and in how many days it ends."""

    left: int
    ends_in: int | None
    expired: int = 0


@dataclass
class Holder:
    """A member as the model sees it: lots in the order in which they came."""

    member: Any
    lots: list[Lot] = field(default_factory=list)
    history: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def balance(self) -> int:
        return sum(lot.left for lot in self.lots)

    def credit(self, amount: int, lifetime: int | None, reason: str) -> Lot:
        """Add a lot; it ends no sooner than an older one that isn't used up and ends at all."""
        older = [lot.ends_in for lot in self.lots if lot.left and lot.ends_in is not None]
        ends_in = None if lifetime is None else max([lifetime, *older])
        self.lots.append(Lot(amount, ends_in))
        self.history.append((amount, self.balance, reason))
        return self.lots[-1]

    def debit(self, amount: int, reason: str) -> None:
        """Take from lots that end before those that don't, the oldest first."""
        rest = amount
        for lot in sorted(self.lots, key=lambda lot: lot.ends_in is None):
            taken = min(lot.left, rest)
            lot.left -= taken
            rest -= taken
        assert rest == 0
        self.history.append((-amount, self.balance, reason))

    def age(self, days: int) -> None:
        """Let days pass, and end what is due."""
        gone = 0
        for lot in self.lots:
            if lot.ends_in is None:
                continue
            lot.ends_in -= days
            if lot.ends_in <= 0:
                gone += lot.left
                lot.expired += lot.left
                lot.left = 0
        if gone:
            self.history.append((-gone, self.balance, "EXPIRY"))


class Ledger(RuleBasedStateMachine):
    """Earn, spend, take back, expire and replay in any order; each step is a call to the API."""

    loop: asyncio.AbstractEventLoop
    url: str

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the tests' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @initialize()
    def open(self) -> None:
        self.closing = open_shop(self.url)
        self.shop: Shop = self.do(self.closing.__aenter__())
        self.holders = [Holder(self.do(self.shop.member())) for _ in range(2)]
        self.mug = self.do(reward(self.shop, cost=COST))
        self.lifetime: int | None = None
        self.set_lifetime(5)
        self.purchases: list[tuple[int, str, int, Lot | None]] = []
        self.reversed: set[str] = set()
        self.answered: list[tuple[Any, Any]] = []
        self.numbers = 0

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            assert self.do(broken(self.shop)) == []
            assert self.do(self.shop.broken_promises()) == []
            self.do(self.closing.__aexit__(None, None, None))

    def number(self) -> str:
        self.numbers += 1
        return f"n-{self.numbers}"

    @rule(days=st.sampled_from([None, 5, 30]))
    def set_lifetime(self, days: int | None) -> None:
        self.do(self.shop.do(CONFIGURE, pointsLifetimeDays=days))
        self.lifetime = days

    @rule(who=WHO, points=st.integers(0, 60))
    def buy(self, who: int, points: int) -> None:
        holder, order = self.holders[who], self.number()
        answer = self.do(purchase(self.shop, holder.member, order, points * 100 + 99))
        assert answer["replayed"] is False
        lot = holder.credit(points, self.lifetime, "PURCHASE") if points else None
        assert (answer["entry"] or {"balanceAfter": holder.balance})["balanceAfter"] == holder.balance
        self.purchases.append((who, order, points, lot))

    @rule(who=WHO, amount=st.integers(-60, 60).filter(bool))
    def adjust(self, who: int, amount: int) -> None:
        holder, key = self.holders[who], self.number()
        answer = self.do(grant(self.shop, holder.member, amount, key))
        if holder.balance + amount < 0:
            assert (answer["__typename"], answer["balance"], answer["required"]) == (
                "InsufficientPoints", holder.balance, -amount
            )  # fmt: skip
            return
        if amount > 0:
            holder.credit(amount, self.lifetime, "ADJUSTMENT")
        else:
            holder.debit(-amount, "ADJUSTMENT")
        assert answer["entry"]["balanceAfter"] == holder.balance
        self.answered.append((lambda: grant(self.shop, holder.member, amount, key), answer["entry"]["id"]))

    @rule(who=WHO)
    def have(self, who: int) -> None:
        holder, key = self.holders[who], self.number()
        answer = self.do(redeem(self.shop, self.mug, holder.member, key))
        if holder.balance < COST:
            assert (answer["balance"], answer["required"]) == (holder.balance, COST)
            return
        holder.debit(COST, "REWARD")
        entry = answer["redemption"]["entry"]
        assert entry["balanceAfter"] == holder.balance
        self.answered.append((lambda: redeem(self.shop, self.mug, holder.member, key), entry["id"]))

    @precondition(lambda self: bool(getattr(self, "purchases", None)))
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        who, order, earned, lot = data.draw(st.sampled_from(self.purchases))
        holder = self.holders[who]
        answer = self.do(self.shop.do(REVERSE, source="STORE", orderId=order, reason="returned"))
        if order in self.reversed:
            assert answer["__typename"] == "PurchaseAlreadyReversed"
            return
        self.reversed.add(order)
        owed = earned - (lot.expired if lot else 0)
        taken = min(owed, holder.balance)
        assert answer["shortfall"] == owed - taken
        assert -(answer["entry"] or {"amount": 0})["amount"] == taken
        if taken:
            holder.debit(taken, "REVERSAL")

    @rule(who=WHO, days=st.sampled_from([1, 5, 30]))
    def wait(self, who: int, days: int) -> None:
        self.do(days_later(self.shop, self.holders[who].member, days))
        self.holders[who].age(days)

    @precondition(lambda self: bool(getattr(self, "purchases", None)))
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        who, order, earned, _ = data.draw(st.sampled_from(self.purchases))
        answer = self.do(purchase(self.shop, self.holders[who].member, order, earned * 100 + 99))
        assert answer["replayed"] is True
        assert (answer["entry"] or {"amount": 0})["amount"] == earned

    @precondition(lambda self: bool(getattr(self, "answered", None)))
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        ask, entry_id = data.draw(st.sampled_from(self.answered))
        answer = self.do(ask())
        assert answer["replayed"] is True
        assert (answer.get("redemption") or answer)["entry"]["id"] == entry_id

    @invariant()
    def balances_are_the_models(self) -> None:
        if not hasattr(self, "shop"):
            return
        for holder in self.holders:
            assert self.do(points(self.shop, holder.member)) == holder.balance
            assert self.do(entries(self.shop, holder.member)) == holder.history
        found = self.do(self.shop.data(LIABILITY))["pointsLiability"]
        assert found["outstandingPoints"] == sum(holder.balance for holder in self.holders)


async def test_any_walk_keeps_the_ledger_exact(api: Api, shop: Shop) -> None:
    class OnThisLoop(Ledger):
        loop = asyncio.get_running_loop()
        url = f"{api.url}/graphql"

    how = settings(
        deadline=None,
        max_examples=size(4, 40),
        stateful_step_count=30,
        derandomize=not FULL,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, OnThisLoop, settings=how)
