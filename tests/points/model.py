"""Points as their rules say it, in plain Python and without a database: what the ledger is compared with.

It keeps every single point: where it came from, and what became of it.
"""

from dataclasses import dataclass, field, replace
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
    held: int = 0
    expired: int = 0
    returns: "list[ModelReturn]" = field(default_factory=list)
    #: What it has paid for take-backs of other lots.
    covers: "dict[ModelReturn, int]" = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Return what is left and isn't held."""
        return self.remaining - self.held

    @property
    def spending(self) -> tuple[float, int]:
        """Sort as lots are spent."""
        return self.ends_in, self.number

    @property
    def standing(self) -> int:
        """Return how much of the credit wasn't taken back."""
        return self.amount - sum(each.amount for each in self.returns)

    @property
    def shortfall(self) -> int:
        return sum(each.shortfall for each in self.returns)

    @property
    def uncounted(self) -> int:
        """Return how much of it expired that no take-back has counted."""
        return self.expired - sum(each.expired for each in self.returns)


@dataclass(eq=False)
class ModelReturn:
    """That points of a lot were taken back: since when, how many, how many of them had expired or are lacking."""

    lot: ModelLot
    number: int
    amount: int = 0
    expired: int = 0
    shortfall: int = 0

    @property
    def arising(self) -> tuple[int, int]:
        """Sort as they arose; those of one instant by their lots, the newest first."""
        return self.number, -self.lot.number


@dataclass(frozen=True)
class ModelPart:
    """Points of a lot that were spent or held, and since when; None if only since when they were credited counts."""

    lot: ModelLot
    amount: int
    since: int | None


@dataclass(eq=False)
class ModelDebit:
    """What was spent, and from which lots."""

    parts: list[ModelPart]


@dataclass(eq=False)
class ModelHold:
    """What is held for each position: to pay with, then for rewards."""

    parts: dict[int, list[ModelPart]] = field(default_factory=dict)

    @property
    def points(self) -> int:
        return sum(part.amount for parts in self.parts.values() for part in parts)

    @property
    def amounts(self) -> list[int]:
        """Return how many points are held for each position."""
        return [sum(part.amount for part in self.parts[position]) for position in sorted(self.parts)]


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
    def held(self) -> int:
        return sum(lot.held for lot in self.lots)

    @property
    def spendable(self) -> int:
        return self.points - self.pending - self.held

    @property
    def shortfall(self) -> int:
        return sum(lot.shortfall for lot in self.lots)

    @property
    def returns(self) -> list[ModelReturn]:
        """Return all take-backs as they arose."""
        return sorted((each for lot in self.lots for each in lot.returns), key=lambda each: each.arising)

    @property
    def next_expiry(self) -> tuple[int, float] | None:
        """Return how many points end next, without those that are held, and in how many days."""
        ends = [lot.ends_in for lot in self.lots if lot.free and lot.ends_in < ENDLESS]
        if not ends:
            return None
        return sum(lot.free for lot in self.lots if lot.ends_in == min(ends)), min(ends)

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
        return ModelDebit([ModelPart(lot, taken, number) for lot, taken in parts.items()])

    def _take(self, lots: list[ModelLot], amount: int) -> dict[ModelLot, int]:
        parts: dict[ModelLot, int] = {}
        for lot in sorted(lots, key=lambda lot: (lot.is_pending, lot.spending)):
            taken = min(lot.free, amount - sum(parts.values()))
            if taken:
                lot.remaining -= taken
                parts[lot] = taken
        return parts

    def earn(self, amount: int, *, lifetime: float | None, pending: float) -> ModelLot:
        """Add a purchase's lot, and let it pay for what is lacking."""
        lot = self.credit(amount, "PURCHASE", lifetime=lifetime, pending=pending)
        paid = 0
        for short in self.returns if self.recovers else []:
            part = min(short.shortfall, lot.remaining)
            if part:
                self._pay(lot, short, part)
                short.shortfall -= part
                paid += part
        self._wrote(-paid, "REVERSAL")
        return lot

    def _pay(self, payer: ModelLot, short: ModelReturn, amount: int) -> None:
        payer.remaining -= amount
        payer.covers[short] = payer.covers.get(short, 0) + amount

    def earn_more(
        self, lots: list[ModelLot], amount: int, *, lifetime: float | None, pending: float
    ) -> tuple[int, ModelLot | None]:
        """Let a purchase earn more: it fills what its own take-backs lack, the newest first, and earns the rest now.

        Returns how much it filled, and the lot that it added.
        """
        filled = 0
        latest = sorted(
            (each for lot in lots for each in lot.returns),
            key=lambda each: (each.number, each.lot.number),
            reverse=True,
        )
        for short in latest:
            part = min(short.shortfall, amount - filled)
            short.shortfall -= part
            short.amount -= part
            filled += part
        self.changes += filled > 0
        return filled, self.earn(amount - filled, lifetime=lifetime, pending=pending) if amount > filled else None

    def take_back(self, lots: list[ModelLot], points: int | None = None) -> tuple[int, int]:
        """Take points of a credit back, as many as stand unless told. Returns how many were got, and how many not.

        Of each lot, the newest first: what is left, what has expired, what it had paid for other take-backs.
        """
        newest = sorted(lots, key=lambda lot: lot.number, reverse=True)
        left = sum(lot.standing for lot in newest) if points is None else points
        if left == 0:
            return 0, 0
        begun = [ModelReturn(lot, self._next()) for lot in newest]
        for each in begun:
            each.number = begun[0].number
        again: dict[ModelReturn, int] = {}
        got = 0
        for each in begun:
            own = min(each.lot.free, left)
            each.expired = min(each.lot.uncounted, left - own)
            each.amount = own + each.expired
            each.lot.remaining -= own
            got += own
            for other in sorted(each.lot.covers, key=lambda other: other.arising, reverse=True):
                back = min(each.lot.covers[other], left - each.amount)
                each.lot.covers[other] -= back
                each.amount += back
                again[other] = again.get(other, 0) + back
            left -= each.amount
        parts = self._take([lot for lot in self.lots if lot not in lots], left)
        got += sum(parts.values())
        lacking = left - sum(parts.values())
        for each in begun:
            room = min(each.lot.standing - each.amount, left)
            left -= room
            each.amount += room
            for payer in list(parts):
                part = min(parts[payer], room)
                parts[payer] -= part
                room -= part
                payer.covers[each] = payer.covers.get(each, 0) + part
            each.shortfall = room
            each.lot.returns.append(each)
        assert left == 0
        self._wrote(-got, "REVERSAL")
        for other in sorted(again, key=lambda other: other.arising):
            self._take_again(other, again[other])
        return got, lacking

    def _take_again(self, short: ModelReturn, amount: int) -> None:
        """Take for a take-back what a lot doesn't pay any more, from lots that are older."""
        self._next()
        parts = self._take([lot for lot in self.lots if lot.number < short.number and lot is not short.lot], amount)
        for payer, part in parts.items():
            payer.covers[short] = payer.covers.get(short, 0) + part
        short.shortfall += amount - sum(parts.values())
        self._wrote(-sum(parts.values()), "REVERSAL")

    def give_back(self, debit: ModelDebit) -> int:
        """Give back what was spent. Returns how many points came back."""
        return self._come_back(sorted(debit.parts, key=lambda part: part.lot.spending, reverse=True), "REFUND")

    def give_back_some(self, debits: list[ModelDebit], points: int) -> int:
        """Give back so many points of debits, the last spent first. Returns how many expired."""
        entered = len(self.history)
        for debit in reversed(debits):
            back = ModelDebit([])
            for part in sorted(debit.parts, key=lambda part: part.lot.spending, reverse=True):
                if taken := min(points, part.amount):
                    points -= taken
                    back.parts.append(replace(part, amount=taken))
                    debit.parts[debit.parts.index(part)] = replace(part, amount=part.amount - taken)
            if back.parts:
                self.give_back(back)
        assert points == 0
        return -sum(amount for amount, _, reason in self.history[entered:] if reason == "EXPIRY")

    def put_back(self, lot: ModelLot, reason: str) -> int:
        """Let a credit stand again that was taken back: what was really taken goes to where it came from.

        Returns how many points came back.
        """
        own, parts = 0, list[ModelPart]()
        for ended in lot.returns:
            own += ended.amount - ended.expired - ended.shortfall
            for payer in sorted(self.lots, key=lambda each: each.number, reverse=True):
                if paid := payer.covers.pop(ended, 0):
                    parts.append(ModelPart(payer, paid, None))
                    own -= paid
        lot.returns = []
        self._next()
        return self._come_back([ModelPart(lot, own, None), *parts], reason)

    def hold(self, hold: ModelHold, amounts: list[int]) -> bool:
        """Let a hold have so many points for each position, what it has included. Returns whether there are enough.

        What it has too many comes free, what would be spent last first.
        """
        more = sum(amounts) - hold.points
        if more > self.spendable:
            return False
        number = self._next()
        has = [part for parts in hold.parts.values() for part in parts]
        for lot, amount in self._take([lot for lot in self.lots if not lot.is_pending], max(more, 0)).items():
            lot.remaining += amount
            lot.held += amount
            has.append(ModelPart(lot, amount, number))
        has.sort(key=lambda part: part.lot.spending)
        hold.parts = {}
        for position in [*range(1, len(amounts)), 0]:
            hold.parts[position], has = self._split(has, amounts[position])
        self._come_free(has)
        return True

    @staticmethod
    def _split(parts: list[ModelPart], amount: int) -> tuple[list[ModelPart], list[ModelPart]]:
        """Return the first `amount` of points, and the others."""
        first: list[ModelPart] = []
        rest: list[ModelPart] = []
        for part in parts:
            taken = min(part.amount, amount)
            amount -= taken
            if taken:
                first.append(ModelPart(part.lot, taken, part.since))
            if taken < part.amount:
                rest.append(ModelPart(part.lot, part.amount - taken, part.since))
        assert amount == 0
        return first, rest

    def capture(self, hold: ModelHold, position: int, points: int, reason: str) -> ModelDebit:
        """Take points of what is held for a position; the rest comes free."""
        self._next()
        taken, rest = self._split(hold.parts.pop(position), points)
        for part in taken:
            part.lot.held -= part.amount
            part.lot.remaining -= part.amount
        self._wrote(-points, reason)
        self._come_free(rest)
        return ModelDebit(taken)

    def free(self, hold: ModelHold) -> int:
        """Free all that a hold has. Returns how many points."""
        points = hold.points
        parts = [part for parts in hold.parts.values() for part in parts]
        hold.parts = {}
        self._come_free(parts)
        return points

    def _come_free(self, parts: list[ModelPart]) -> None:
        """Let held points go where they would if they came back: only what goes elsewhere changes a lot."""
        for part in parts:
            part.lot.held -= part.amount
        given, staying, filling = self._give(sorted(parts, key=lambda part: part.lot.spending, reverse=True))
        self._fill(staying, filling)
        moved = {lot: amount - filling.get(lot, 0) for lot, amount in given.items()}
        for part in parts:
            moved[part.lot] = moved.get(part.lot, 0) - part.amount
        for sign, reason in ((-1, "REVERSAL"), (1, "REFUND")):
            changes = {lot: amount for lot, amount in moved.items() if amount * sign > 0}
            for lot, amount in changes.items():
                lot.remaining += amount
            self._wrote(sum(changes.values()), reason)
        self._expire([lot for (lot, _), amount in staying.items() if amount])
        self._next()

    def _come_back(self, parts: list[ModelPart], reason: str) -> int:
        """Return points to lots, or to those that paid in their place; then they fill, and what is past expires."""
        given, staying, filling = self._give(parts)
        total = sum(given.values())
        for lot, amount in given.items():
            lot.remaining += amount
        self._wrote(total, reason)
        self._fill(staying, filling)
        for lot, amount in filling.items():
            lot.remaining -= amount
        self._wrote(-sum(filling.values()), "REVERSAL")
        self._expire([lot for (lot, _), amount in staying.items() if amount])
        self._next()
        return total

    def _give(
        self, parts: list[ModelPart]
    ) -> tuple[dict[ModelLot, int], dict[tuple[ModelLot, int | None], int], dict[ModelLot, int]]:
        """Return what each lot gets, what of that stays by since when it was spent, and what fills its own returns."""
        given: dict[ModelLot, int] = {}
        staying: dict[tuple[ModelLot, int | None], int] = {}
        filling: dict[ModelLot, int] = {}

        def give(lot: ModelLot, amount: int, since: int | None) -> None:
            for short in sorted(lot.returns, key=lambda each: each.arising):
                own = min(amount, short.shortfall)
                short.shortfall -= own
                filling[lot] = filling.get(lot, 0) + own
                given[lot] = given.get(lot, 0) + own
                amount -= own
            for payer in sorted(self.lots, key=lambda each: -each.number):
                for short in sorted(lot.returns, key=lambda each: each.arising, reverse=True):
                    back = min(amount, payer.covers.get(short, 0))
                    if back:
                        payer.covers[short] -= back
                        amount -= back
                        give(payer, back, since)
            given[lot] = given.get(lot, 0) + amount
            staying[lot, since] = staying.get((lot, since), 0) + amount

        for part in parts:
            give(part.lot, part.amount, part.since)
        return given, staying, filling

    def _fill(self, staying: dict[tuple[ModelLot, int | None], int], filling: dict[ModelLot, int]) -> None:
        """Let what came to lots fill what others lack since after it was spent or credited."""
        for short in self.returns:
            for lot, since in sorted(staying, key=lambda each: each[0].spending):
                if lot.number < short.number or (since is not None and since < short.number):
                    part = min(staying[lot, since], short.shortfall)
                    staying[lot, since] -= part
                    filling[lot] = filling.get(lot, 0) + part
                    short.shortfall -= part
                    lot.covers[short] = lot.covers.get(short, 0) + part

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
                gone += lot.free
                lot.expired += lot.free
                lot.remaining = lot.held
        self._wrote(-gone, "EXPIRY")
