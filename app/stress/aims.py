"""Whom codes are for and what they may cost: budgets, first orders and audiences, as far as orders say.

What an order has of a budget, and whose order it is, is worked out whenever the order changes.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from app.stress.order import Order, discounts

#: Whom an audience takes, the fewest first: who has bought, all members, and everybody.
AUDIENCES: Final = (("ACTIVE",), ("ACTIVE", "NEW"), ())


class Share(NamedTuple):
    """What a code has of its pool's budget, by its order, or by a place among that one's holds."""

    order: str
    place: int | None
    code: str
    amount: int


class Budget(NamedTuple):
    """A pool's budget and who has what of it; what holds have whose time has passed is free once that is written down.

    When that is, nobody is told.
    """

    limit: int
    shares: tuple[Share, ...] = ()
    late: tuple[Share, ...] = ()

    @property
    def left(self) -> int:
        return self.limit - sum(each.amount for each in (*self.shares, *self.late))

    def left_for(self, order: str, codes: Iterable[str]) -> int:
        """Return what is left for codes on an order, with what these and the order have already."""
        own = {*codes}
        every = (*self.shares, *self.late)
        return self.left + sum(each.amount for each in every if each.order == order or each.code in own)

    @property
    def perhaps(self) -> "Iterator[Budget]":
        """What it may have become by itself: of the holds that are late, the end of any may be written down."""
        holds = sorted({(each.order, each.place or 0) for each in self.late})
        for count in range(len(holds) + 1):
            for ended in itertools.combinations(holds, count):
                yield self._replace(late=tuple(each for each in self.late if (each.order, each.place) not in ended))

    @property
    def fits(self) -> "list[Budget]":
        """What it can be, where no more than all of it is given and held."""
        return [each for each in self.perhaps if each.left >= 0][:1] if self.left < 0 else [self]


class Standing(NamedTuple):
    """An order of somebody's that stands: by what was bought, redeemed or held, with which codes.

    `takes_turns` is one whose codes were for a first order: of two such orders at once one is the first.
    """

    order: str
    by: str
    codes: tuple[str, ...] = ()
    takes_turns: bool = False


def derived(name: str) -> bool:
    """Whether a thing is worked out from orders."""
    return name.startswith(("budget:", "person:"))


def follow_order(order_id: str, order: Order, state: Mapping[str, Any], unknown: object) -> Mapping[str, Any]:
    """Return the state of all things once an order has become something else."""
    changed: dict[str, Any] = {}
    for name, found in state.items():
        kind, _, of = name.partition(":")
        if found == unknown or not derived(name):
            continue
        if kind == "budget":
            changed[name] = _spent(found, order_id, order, of)
        else:
            others = (each for each in found if each.order != order_id)
            changed[name] = tuple(sorted((*others, *_standing(order_id, order, of))))
    return {**state, **changed} if changed else state


def _spent(budget: Budget, order_id: str, order: Order, pool: str) -> Budget:
    shares = [each for each in budget.shares if each.order != order_id]
    late = [each for each in budget.late if each.order != order_id or order.holds[each.place or 0].status == "EXPIRED"]
    for each, amount in zip(order.codes, order.discounts, strict=True):
        shares += [Share(order_id, None, each.code, amount)] if each.pool == pool else []
    if order.live is not None:
        shares += shares_of_hold(order_id, order, order.live, pool)
    return Budget(budget.limit, tuple(sorted(shares, key=str)), tuple(late))


def shares_of_hold(order_id: str, order: Order, place: int, pool: str) -> list[Share]:
    """Return what a hold's codes take of the budget of a pool."""
    hold = order.holds[place]
    taken = discounts(hold.amount, [each.percent for each in hold.codes])
    return [
        Share(order_id, place, each.code, amount)
        for each, amount in zip(hold.codes, taken, strict=True) if each.pool == pool
    ]  # fmt: skip


def _standing(order_id: str, order: Order, person: str) -> Iterator[Standing]:
    if order.bought is not None and order.bought.member == person and not order.bought.is_reversed:
        yield Standing(order_id, "bought")
    if not order.for_whom or order.for_whom[-1] != person:
        return
    # Whoever comes to an order later takes no turn for the codes that it has, nor does a hold that is paid.
    takes_turns = len(order.for_whom) == 1
    if order.codes:
        was_held = any(hold.status == "CAPTURED" for hold in order.holds)
        codes = tuple(each.code for each in order.codes)
        firsts = any(each.is_first for each in order.codes)
        yield Standing(order_id, "redeemed", codes, takes_turns and firsts and not was_held)
    if order.live is not None:
        held = order.holds[order.live].codes
        firsts = any(each.is_first for each in held)
        yield Standing(order_id, "held", tuple(each.code for each in held), takes_turns and firsts)


def has_another(person: Iterable[Standing], order: str, codes: Iterable[str]) -> bool:
    """Whether somebody has another order that stands; a hold of the very codes that are presented is none."""
    own = {*codes}
    return any(
        each.order != order and not (each.by == "held" and own & {*each.codes}) for each in person
    )  # fmt: skip
