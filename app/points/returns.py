"""Where points go that come back: a pure rule, without the database.

To the lot that they came from. Where that was taken back meanwhile, they fill what its take-backs lack, or go to the
lots that paid in its place. Then they fill what else is lacking since after they were spent or credited: what was
credited before pays whenever it is there, so that it doesn't matter which of several things goes back first. What is
past its date then expires.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Part:
    """Points of a lot that come back, and since when they were spent or held."""

    lot_id: UUID
    amount: int
    spent_at: datetime


@dataclass(frozen=True, slots=True)
class Cover:
    """What a lot has paid for a take-back of another one."""

    lot_id: UUID
    return_id: UUID
    returned_lot_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class Short:
    """A take-back of a lot that lacks points since it began."""

    return_id: UUID
    lot_id: UUID
    amount: int
    since: datetime


@dataclass(slots=True)
class Plan:
    """What comes back to lots, what of that is taken for take-backs that lack it, and how covers change."""

    given: defaultdict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    filling: defaultdict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    filled: defaultdict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    #: By (lot, take-back): what lots pay from now on, and what they get back of what they paid.
    covers: defaultdict[tuple[UUID, UUID], int] = field(default_factory=lambda: defaultdict(int))
    uncovers: defaultdict[tuple[UUID, UUID], int] = field(default_factory=lambda: defaultdict(int))
    #: What stays in lots, by when it was spent.
    staying: defaultdict[tuple[UUID, datetime], int] = field(default_factory=lambda: defaultdict(int))

    @property
    def kept(self) -> dict[UUID, int]:
        """Return what stays in each lot."""
        kept: defaultdict[UUID, int] = defaultdict(int)
        for (lot_id, _), amount in self.staying.items():
            kept[lot_id] += amount
        return {lot_id: amount for lot_id, amount in kept.items() if amount}


def plan(
    parts: Sequence[Part],
    covers: Sequence[Cover],
    shorts: Sequence[Short],
    spending: Callable[[UUID], tuple[datetime, datetime]],
) -> Plan:
    """Return where points go that were spent or held.

    `covers` of each lot come in the order in which it is paid back, `shorts` in the order in which they are filled.
    `spending` says when a lot ends and when it was credited: the order in which lots are spent, and in which they fill.
    """
    plan: Final = Plan()
    lacking = {short.return_id: short.amount for short in shorts}
    paid = {(cover.lot_id, cover.return_id): cover.amount for cover in covers}

    def give(lot_id: UUID, amount: int, spent_at: datetime) -> None:
        """Return points to a lot, or to those that stand in for it."""
        for short in [each for each in shorts if each.lot_id == lot_id]:
            if own := min(amount, lacking[short.return_id]):
                plan.given[lot_id] += own
                plan.filling[lot_id] += own
                plan.filled[short.return_id] += own
                lacking[short.return_id] -= own
                amount -= own
        for cover in [each for each in covers if each.returned_lot_id == lot_id]:
            key = (cover.lot_id, cover.return_id)
            if back := min(amount, paid[key]):
                paid[key] -= back
                amount -= back
                plan.uncovers[key] += back
                give(cover.lot_id, back, spent_at)
        if amount:
            plan.given[lot_id] += amount
            plan.staying[lot_id, spent_at] += amount

    for part in parts:
        give(part.lot_id, part.amount, part.spent_at)
    for short in shorts:
        for lot_id, spent_at in sorted(plan.staying, key=lambda each: spending(each[0])):
            _, created_at = spending(lot_id)
            if short.since > min(spent_at, created_at):
                _fill(plan, lot_id, spent_at, short.return_id, lacking)
    return plan


def _fill(plan: Plan, lot_id: UUID, spent_at: datetime, return_id: UUID, lacking: dict[UUID, int]) -> None:
    """Let what stays in a lot pay for a take-back of another one, as far as it goes."""
    fill = min(plan.staying[lot_id, spent_at], lacking[return_id])
    if fill:
        plan.staying[lot_id, spent_at] -= fill
        plan.filling[lot_id] += fill
        plan.filled[return_id] += fill
        plan.covers[lot_id, return_id] += fill
        lacking[return_id] -= fill
