"""Where points go that come back: a pure rule, without the database.

To the lot that they came from. Where that was taken back meanwhile, they fill what it lacks, or go to the lots that
paid in its place. Then they fill what else is lacking since after they were spent or credited: what was credited before
pays whenever it is there, so that it doesn't matter which of several things goes back first. What is past its date then
expires.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Part:
    """Points of a lot that come back."""

    lot_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class Cover:
    """What a lot has paid in place of another one."""

    lot_id: UUID
    covered_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class Short:
    """A lot that lacks points since its credit was taken back."""

    lot_id: UUID
    amount: int
    since: datetime


@dataclass(slots=True)
class Plan:
    """What comes back to lots, what of that is taken for lots that lack it, and how covers change."""

    given: defaultdict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    filling: defaultdict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    filled: defaultdict[UUID, int] = field(default_factory=lambda: defaultdict(int))
    #: By (lot, covered lot): what lots pay from now on, and what they get back of what they paid.
    covers: defaultdict[tuple[UUID, UUID], int] = field(default_factory=lambda: defaultdict(int))
    uncovers: defaultdict[tuple[UUID, UUID], int] = field(default_factory=lambda: defaultdict(int))

    @property
    def kept(self) -> dict[UUID, int]:
        """Return what stays in each lot."""
        kept = {lot_id: amount - self.filling[lot_id] for lot_id, amount in self.given.items()}
        return {lot_id: amount for lot_id, amount in kept.items() if amount}


def plan(
    parts: Sequence[Part],
    covers: Sequence[Cover],
    shorts: Sequence[Short],
    spent_at: datetime,
    spending: Callable[[UUID], tuple[datetime, datetime]],
) -> Plan:
    """Return where points go that were spent at an instant.

    `covers` of each lot come in the order in which it is paid back, `shorts` in the order in which they are filled.
    `spending` says when a lot ends and when it was credited: the order in which lots are spent, and in which they fill.
    """
    plan: Final = Plan()
    lacking = {short.lot_id: short.amount for short in shorts}
    paid = {(cover.lot_id, cover.covered_id): cover.amount for cover in covers}

    def give(lot_id: UUID, amount: int) -> None:
        """Return points to a lot, or to those that stand in for it."""
        own = min(amount, lacking.get(lot_id, 0))
        if own:
            plan.given[lot_id] += own
            plan.filling[lot_id] += own
            plan.filled[lot_id] += own
            lacking[lot_id] -= own
            amount -= own
        for cover in covers:
            if cover.covered_id == lot_id and amount:
                key = (cover.lot_id, lot_id)
                back = min(amount, paid[key])
                paid[key] -= back
                amount -= back
                if back:
                    plan.uncovers[key] += back
                    give(cover.lot_id, back)
        if amount:
            plan.given[lot_id] += amount

    for part in parts:
        give(part.lot_id, part.amount)
    for short in shorts:
        for lot_id in sorted(plan.kept, key=spending):
            _, created_at = spending(lot_id)
            if short.since <= min(spent_at, created_at):
                continue
            fill = min(plan.kept[lot_id], lacking[short.lot_id])
            if fill:
                plan.filling[lot_id] += fill
                plan.filled[short.lot_id] += fill
                plan.covers[lot_id, short.lot_id] += fill
                lacking[short.lot_id] -= fill
    return plan
