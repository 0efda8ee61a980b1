"""A wallet as its owner knows it: points in lots, and the steps that change them, each to a new wallet.

Nothing here is pending or expires. Versions date everything: an entry raises the version by one, a shortfall too.
"""

from typing import NamedTuple


class Lot(NamedTuple):
    """A credit: the version that it made, what is left of it, and of which order it is if a purchase earned it.

    `shortfall` is what it lacks since its credit was taken back, first in the version `taken_back`.
    """

    since: int
    amount: int
    remaining: int
    order: str | None = None
    shortfall: int = 0
    taken_back: int | None = None

    @property
    def lacks_since(self) -> int:
        """Sort as lots are made good: the first that was taken back first."""
        return self.taken_back or 0


class Cover(NamedTuple):
    """What a lot has paid in place of another one."""

    payer: int
    covered: int
    amount: int


class Spent(NamedTuple):
    """What was spent under a name, in which version, and how much of it from which lots."""

    name: str
    since: int
    parts: tuple[tuple[int, int], ...]


class Told(NamedTuple):
    """What an entry tells: how many points it moved, the balance after it; and what a return lacked."""

    amount: int
    balance: int
    shortfall: int = 0


class Wallet(NamedTuple):
    """A member's wallet: its version, its lots in the order in which they are spent, and what may be given back."""

    version: int = 0
    lots: tuple[Lot, ...] = ()
    covers: tuple[Cover, ...] = ()
    spent: tuple[Spent, ...] = ()

    def __str__(self) -> str:
        return f"Wallet(points={self.points}, version={self.version})"

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots)

    @property
    def spendable(self) -> int:
        """How many points a debit may take now."""
        return self.points

    @property
    def shortfall(self) -> int:
        return sum(lot.shortfall for lot in self.lots)

    def changed(self) -> "Wallet":
        """Return the wallet after one change that isn't about points."""
        return self._replace(version=self.version + 1)

    def credited(self, amount: int, order: str | None = None) -> "Wallet":
        """Return the wallet with one more lot."""
        lot = Lot(self.version + 1, amount, amount, order)
        return self._replace(version=lot.since, lots=(*self.lots, lot))

    def made_good(self) -> "Wallet":
        """Return the wallet after its newest lot has paid for what returns lack."""
        draft, payer = _Draft(self), self.lots[-1].since
        paid = 0
        for short in sorted(self.lots, key=lambda lot: lot.lacks_since):
            if part := min(draft.lots[payer].remaining, short.shortfall):
                draft.pay(payer, short.since, part)
                draft.change(short.since, shortfall=-part)
                paid += part
        draft.version += paid > 0
        return draft.wallet

    def debited(self, amount: int, name: str | None = None) -> "Wallet | None":
        """Return the wallet after a debit, None if there is too little. One with a name may be given back."""
        if self.spendable < amount:
            return None
        draft = _Draft(self)
        parts = draft.pick(amount, [lot.since for lot in self.lots])
        draft.version += 1
        for since, part in parts.items():
            draft.change(since, remaining=-part)
        if name is not None:
            draft.spent = (*self.spent, Spent(name, draft.version, tuple(parts.items())))
        return draft.wallet

    def taken_back(self, order: str) -> "tuple[Wallet, Told] | None":
        """Return the wallet after what an order earned was taken back, and what was told; None if it earned nothing.

        What its lot had paid in place of others counts as taken, and is taken again for those, from older lots.
        """
        lot = next((lot for lot in self.lots if lot.order == order), None)
        if lot is None:
            return None
        draft = _Draft(self)
        covered = [draft.lots[cover.covered] for cover in self.covers if cover.payer == lot.since]
        again = [(each, draft.covers.pop((lot.since, each.since))) for each in covered]
        owed = lot.amount - sum(part for _, part in again)
        got = draft.take(lot.since, owed, list(draft.lots))
        told = Told(-got, draft.points, owed - got)
        for each, part in sorted(again, key=lambda pair: pair[0].lacks_since):
            draft.take(each.since, part, [since for since in draft.lots if since < each.lacks_since])
        return draft.wallet, told

    def given_back(self, name: str) -> "tuple[Wallet, Told] | None":
        """Return the wallet after what was spent under a name came back, and what was told; None if nothing was.

        First to its lots, or to those that paid in their place; then it fills what is lacking since it was spent or
        credited.
        """
        spent = next((spent for spent in self.spent if spent.name == name), None)
        if spent is None:
            return None
        draft = _Draft(self)
        draft.spent = tuple(other for other in self.spent if other != spent)
        kept: dict[int, int] = {}
        for since, part in spent.parts:
            draft.give(since, part, kept)
        amount = sum(part for _, part in spent.parts)
        told = Told(amount, self.points + amount)
        for short in sorted(draft.lots.values(), key=lambda lot: lot.lacks_since):
            draft.fill(short.since, kept, spent.since)
        draft.version += 1 + (draft.points < told.balance)
        return draft.wallet, told


class _Draft:
    """A wallet that is being changed."""

    def __init__(self, wallet: Wallet) -> None:
        self.version = wallet.version
        self.lots = {lot.since: lot for lot in wallet.lots}
        self.covers = {(cover.payer, cover.covered): cover.amount for cover in wallet.covers}
        self.spent = wallet.spent

    @property
    def wallet(self) -> Wallet:
        covers = tuple(Cover(*pair, amount) for pair, amount in sorted(self.covers.items()) if amount)
        return Wallet(self.version, tuple(self.lots.values()), covers, self.spent)

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots.values())

    def change(self, since: int, remaining: int = 0, shortfall: int = 0) -> None:
        """Add to what is left of a lot, and to what it lacks."""
        lot = self.lots[since]
        self.lots[since] = lot._replace(remaining=lot.remaining + remaining, shortfall=lot.shortfall + shortfall)

    def pay(self, payer: int, covered: int, amount: int) -> None:
        """Let a lot pay in place of another one."""
        self.change(payer, remaining=-amount)
        self.covers[payer, covered] = self.covers.get((payer, covered), 0) + amount

    def pick(self, amount: int, among: list[int]) -> dict[int, int]:
        """Return how much is taken from which lots, in the order of spending."""
        parts: dict[int, int] = {}
        for since in among:
            if part := min(self.lots[since].remaining, amount):
                parts[since] = part
                amount -= part
        return parts

    def take(self, since: int, amount: int, among: list[int]) -> int:
        """Take a credit back from its own lot, then from others. Returns how much that got; the rest is a shortfall."""
        own = min(self.lots[since].remaining, amount)
        parts = self.pick(amount - own, [each for each in among if each != since])
        got = own + sum(parts.values())
        self.version += got > 0
        first = self.version if got else self.version + 1
        self.change(since, remaining=-own, shortfall=amount - got)
        for payer, part in parts.items():
            self.pay(payer, since, part)
        if amount and self.lots[since].taken_back is None:
            self.lots[since] = self.lots[since]._replace(taken_back=first)
        self.version += got < amount
        return got

    def give(self, since: int, amount: int, kept: dict[int, int]) -> None:
        """Return points to a lot, or to those that paid in its place. What it lacks is filled first."""
        lacking = min(amount, self.lots[since].shortfall)
        self.change(since, shortfall=-lacking)
        amount -= lacking
        for payer in sorted(self.lots, reverse=True):
            if back := min(amount, self.covers.get((payer, since), 0)):
                self.covers[payer, since] -= back
                amount -= back
                self.give(payer, back, kept)
        if amount:
            self.change(since, remaining=amount)
            kept[since] = kept.get(since, 0) + amount

    def fill(self, short: int, kept: dict[int, int], spent: int) -> None:
        """Let what came back to lots fill what another one lacks since after they were credited, or spent."""
        for since in sorted(kept):
            if min(since, spent) >= self.lots[short].lacks_since:
                continue
            if part := min(kept[since], self.lots[short].shortfall):
                kept[since] -= part
                self.pay(since, short, part)
                self.change(short, shortfall=-part)
