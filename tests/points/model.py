"""Points as their rules say it, in plain Python and without a database: what the ledger is compared with.

It keeps every single point: where it came from, and what became of it.
"""

from dataclasses import dataclass, field
from typing import Any

#: Days; nothing ends later.
ENDLESS = 10**9


@dataclass(eq=False)
class ModelLot:
    """A credit: what is left of it, in how many days it can be spent and ends, and what was taken back of it."""

    number: int
    amount: int
    remaining: int
    spendable_in: float
    ends_in: float
    is_pending: bool = False
    expired: int = 0
    shortfall: int = 0
    taken_back: int | None = None
    #: What it has paid in place of other lots.
    covers: "dict[ModelLot, int]" = field(default_factory=dict)

    @property
    def spending(self) -> tuple[float, int]:
        """Sort as lots are spent."""
        return self.ends_in, self.number


@dataclass(eq=False)
class ModelDebit:
    """What was spent, when, and from which lots."""

    number: int
    parts: dict[ModelLot, int]


@dataclass
class ModelWallet:
    """A member's points, and every change of them."""

    member: Any
    lots: list[ModelLot] = field(default_factory=list)
    history: list[tuple[int, int, str]] = field(default_factory=list)
    changes: int = 0
    recovers: bool = True

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots)

    @property
    def pending(self) -> int:
        return sum(lot.remaining for lot in self.lots if lot.is_pending)

    @property
    def spendable(self) -> int:
        return self.points - self.pending

    @property
    def shortfall(self) -> int:
        return sum(lot.shortfall for lot in self.lots)

    @property
    def next_expiry(self) -> tuple[int, float] | None:
        """Return how many points end next, and in how many days."""
        ends = [lot.ends_in for lot in self.lots if lot.remaining and lot.ends_in < ENDLESS]
        if not ends:
            return None
        return sum(lot.remaining for lot in self.lots if lot.ends_in == min(ends)), min(ends)

    def _next(self) -> int:
        self.changes += 1
        return self.changes

    def _wrote(self, amount: int, reason: str) -> None:
        if amount:
            self.history.append((amount, self.points, reason))

    def credit(
        self, amount: int, reason: str, *, lifetime: float | None, pending: float = 0, ends_in: float | None = None
    ) -> ModelLot:
        """Add a lot; a lifetime begins when the points can be spent."""
        if ends_in is None:
            ends_in = ENDLESS if lifetime is None else max(pending, 0) + lifetime
        lot = ModelLot(self._next(), amount, amount, max(pending, 0), ends_in, is_pending=pending > 0)
        self.lots.append(lot)
        self._wrote(amount, reason)
        return lot

    def debit(self, amount: int, reason: str) -> ModelDebit:
        """Take from what can be spent: what ends first, then the oldest."""
        number = self._next()
        parts = self._take([lot for lot in self.lots if not lot.is_pending], amount)
        assert sum(parts.values()) == amount
        self._wrote(-amount, reason)
        return ModelDebit(number, parts)

    def _take(self, lots: list[ModelLot], amount: int) -> dict[ModelLot, int]:
        parts: dict[ModelLot, int] = {}
        for lot in sorted(lots, key=lambda lot: (lot.is_pending, lot.spending)):
            taken = min(lot.remaining, amount - sum(parts.values()))
            if taken:
                lot.remaining -= taken
                parts[lot] = taken
        return parts

    def earn(self, amount: int, *, lifetime: float | None, pending: float) -> ModelLot:
        """Add a purchase's lot, and let it pay for what is lacking."""
        lot = self.credit(amount, "PURCHASE", lifetime=lifetime, pending=pending)
        paid = 0
        for short in sorted(self.lots, key=lambda lot: lot.taken_back or 0):
            if self.recovers and short.shortfall and lot.remaining:
                part = min(short.shortfall, lot.remaining)
                lot.remaining -= part
                short.shortfall -= part
                lot.covers[short] = lot.covers.get(short, 0) + part
                paid += part
        self._wrote(-paid, "REVERSAL")
        return lot

    def take_back(self, lot: ModelLot) -> tuple[int, int]:
        """Take a lot's credit back. Returns how many of its points were got, and how many were not."""
        covered = dict(lot.covers)
        lot.covers.clear()
        got = self._take_for(lot, lot.amount - lot.expired - sum(covered.values()), [*self.lots])
        lacking = lot.amount - lot.expired - sum(covered.values()) - got
        for other, amount in sorted(covered.items(), key=lambda item: item[0].taken_back or 0):
            if amount:
                assert other.taken_back is not None
                self._take_for(other, amount, [each for each in self.lots if each.number < other.taken_back])
        return got, lacking

    def _take_for(self, lot: ModelLot, amount: int, lots: list[ModelLot]) -> int:
        number = self._next()
        own = min(lot.remaining, amount)
        lot.remaining -= own
        parts = self._take([each for each in lots if each is not lot], amount - own)
        for payer, part in parts.items():
            payer.covers[lot] = payer.covers.get(lot, 0) + part
        got = own + sum(parts.values())
        if amount:
            lot.taken_back = lot.taken_back or number
        lot.shortfall += amount - got
        self._wrote(-got, "REVERSAL")
        return got

    def give_back(self, debit: ModelDebit) -> int:
        """Give back what was spent. Returns how many points came back."""
        given: dict[ModelLot, int] = {}
        filling: dict[ModelLot, int] = {}

        def give(lot: ModelLot, amount: int) -> None:
            own = min(amount, lot.shortfall)
            lot.shortfall -= own
            filling[lot] = filling.get(lot, 0) + own
            given[lot] = given.get(lot, 0) + own
            amount -= own
            for payer in sorted(self.lots, key=lambda each: -each.number):
                back = min(amount, payer.covers.get(lot, 0))
                if back:
                    payer.covers[lot] -= back
                    amount -= back
                    give(payer, back)
            given[lot] = given.get(lot, 0) + amount

        for lot, amount in sorted(debit.parts.items(), key=lambda item: item[0].spending, reverse=True):
            give(lot, amount)
        total = sum(given.values())
        for lot, amount in given.items():
            lot.remaining += amount
        self._wrote(total, "REFUND")
        for short in sorted(self.lots, key=lambda lot: lot.taken_back or 0):
            for lot in sorted(given, key=lambda lot: lot.spending):
                if short.taken_back is not None and min(debit.number, lot.number) < short.taken_back:
                    part = min(given[lot] - filling.get(lot, 0), short.shortfall)
                    if part:
                        filling[lot] = filling.get(lot, 0) + part
                        short.shortfall -= part
                        lot.covers[short] = lot.covers.get(short, 0) + part
        for lot, amount in filling.items():
            lot.remaining -= amount
        self._wrote(-sum(filling.values()), "REVERSAL")
        self._expire([lot for lot in given if given[lot] - filling.get(lot, 0)])
        self._next()
        return total

    def age(self, days: float) -> None:
        """Let days pass, and end what is due: first pending, then points."""
        for lot in self.lots:
            lot.spendable_in -= days
            if lot.ends_in < ENDLESS:
                lot.ends_in -= days
            lot.is_pending = lot.is_pending and lot.spendable_in > 0
        self._expire(self.lots)

    def _expire(self, lots: list[ModelLot]) -> None:
        gone = 0
        for lot in lots:
            if lot.ends_in <= 0:
                gone += lot.remaining
                lot.expired += lot.remaining
                lot.remaining = 0
        self._wrote(-gone, "EXPIRY")
