"""What goes back of a credit's lots when points of it are taken back: a pure rule, without the database.

Of each of its lots, the newest first: what is left in it and isn't held, then what expired of it and wasn't counted
yet, then what it had paid in place of other take-backs. What is lacking then comes from other lots, and the rest is a
shortfall.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class OwnLot:
    """A lot of the credit: what is free of it, what expired uncounted, and how much of its credit stands.

    `paid` is what it has paid in place of other take-backs, by their ids, the latest one first.
    """

    lot_id: UUID
    free: int
    uncounted: int
    standing: int
    paid: dict[UUID, int] = field(default_factory=dict)


@dataclass(slots=True)
class Share:
    """What goes back of one lot's credit: its own points, what had expired, what it had paid for other take-backs.

    `covers` is what other lots pay in its place, `shortfall` what nobody does.
    """

    lot_id: UUID
    own: int = 0
    expired: int = 0
    uncovers: dict[UUID, int] = field(default_factory=dict)
    covers: dict[UUID, int] = field(default_factory=dict)
    shortfall: int = 0

    @property
    def amount(self) -> int:
        """Return how much of the credit goes back."""
        paid = sum(self.uncovers.values()) + sum(self.covers.values())
        return self.own + self.expired + paid + self.shortfall


def own_shares(lots: Sequence[OwnLot], points: int) -> tuple[list[Share], int]:
    """Return what goes back of `lots` themselves, the newest first, and how many points are lacking then."""
    shares = []
    for lot in lots:
        share = Share(lot.lot_id)
        share.own = min(points, lot.free)
        points -= share.own
        share.expired = min(points, lot.uncounted)
        points -= share.expired
        for return_id, paid in lot.paid.items():
            if back := min(points, paid):
                share.uncovers[return_id] = back
                points -= back
        shares.append(share)
    return shares, points


def attribute(
    shares: Sequence[Share], lots: Sequence[OwnLot], others: Sequence[tuple[UUID, int]], lacking: int
) -> None:
    """Share out what is lacking among the lots as far as their credit goes: what `others` pay, then the shortfall."""
    payers = list(others)
    for share, lot in zip(shares, lots, strict=True):
        room = min(lot.standing - share.amount, lacking)
        lacking -= room
        while room and payers:
            lot_id, amount = payers.pop(0)
            paid = min(amount, room)
            share.covers[lot_id] = paid
            room -= paid
            if paid < amount:
                payers.insert(0, (lot_id, amount - paid))
        share.shortfall = room
    if lacking:
        raise RuntimeError("more is taken back than was credited")
