"""A wallet as its owner knows it: points in lots, and the steps that change them, each to a new wallet.

Nothing here is pending or expires. Versions date everything: an entry raises the version by one, a shortfall too.
"""

from typing import NamedTuple


class Lot(NamedTuple):
    """A credit: the version that it made, what is left of it, and of which order it is if a purchase earned it.

    `returned` is how much of it was taken back.
    """

    since: int
    amount: int
    remaining: int
    order: str | None = None
    returned: int = 0


class Return(NamedTuple):
    """That points of a lot were taken back: the first version that it made, and what it lacks."""

    since: int
    lot: int
    shortfall: int


class Cover(NamedTuple):
    """What a lot has paid for a take-back of another one, by its version."""

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
    """A member's wallet: its version, its lots in the order in which they are spent, and what may be given back.

    `returns` are the take-backs that lack something or that others pay for, as they arose.
    """

    version: int = 0
    lots: tuple[Lot, ...] = ()
    returns: tuple[Return, ...] = ()
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
        return sum(each.shortfall for each in self.returns)

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
        for short in self.returns:
            if part := min(draft.lots[payer].remaining, short.shortfall):
                draft.pay(payer, short.since, part)
                draft.lack(short.since, -part)
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

    def taken_back(self, order: str, points: int | None = None) -> "tuple[Wallet, Told] | None":
        """Return the wallet after points that an order earned were taken back, as many as stand unless told.

        With what was told; None if it earned nothing. What its lot had paid for others counts as taken, and is taken
        again for those, from older lots.
        """
        lot = next((lot for lot in self.lots if lot.order == order), None)
        if lot is None:
            return None
        draft = _Draft(self)
        owed = lot.amount - lot.returned if points is None else points
        draft.lots[lot.since] = lot._replace(returned=lot.returned + owed)
        own = min(lot.remaining, owed)
        again: list[tuple[Return, int]] = []
        for each in reversed(self.returns):
            paid = draft.covers.get((lot.since, each.since), 0)
            if part := min(paid, owed - own - sum(part for _, part in again)):
                draft.covers[lot.since, each.since] = paid - part
                again.append((each, part))
        owed -= sum(part for _, part in again)
        got = draft.take(None, lot.since, own, owed - own, list(draft.lots))
        told = Told(-got, draft.points, owed - got)
        for each, part in reversed(again):
            draft.take(each.since, each.lot, 0, part, [since for since in draft.lots if since < each.since])
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
        for short in sorted(draft.returns):
            draft.fill(short, kept, spent.since)
        draft.version += 1 + (draft.points < told.balance)
        return draft.wallet, told


class _Draft:
    """A wallet that is being changed."""

    def __init__(self, wallet: Wallet) -> None:
        self.version = wallet.version
        self.lots = {lot.since: lot for lot in wallet.lots}
        self.returns = {each.since: each for each in wallet.returns}
        self.covers = {(cover.payer, cover.covered): cover.amount for cover in wallet.covers}
        self.spent = wallet.spent

    @property
    def wallet(self) -> Wallet:
        covers = tuple(Cover(*pair, amount) for pair, amount in sorted(self.covers.items()) if amount)
        covered = {cover.covered for cover in covers}
        returns = tuple(
            each for since, each in sorted(self.returns.items()) if each.shortfall or since in covered
        )  # fmt: skip
        return Wallet(self.version, tuple(self.lots.values()), returns, covers, self.spent)

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots.values())

    def change(self, since: int, remaining: int) -> None:
        """Add to what is left of a lot."""
        lot = self.lots[since]
        self.lots[since] = lot._replace(remaining=lot.remaining + remaining)

    def lack(self, since: int, shortfall: int) -> None:
        """Add to what a take-back lacks."""
        short = self.returns[since]
        self.returns[since] = short._replace(shortfall=short.shortfall + shortfall)

    def pay(self, payer: int, covered: int, amount: int) -> None:
        """Let a lot pay for a take-back of another one."""
        self.change(payer, -amount)
        self.covers[payer, covered] = self.covers.get((payer, covered), 0) + amount

    def pick(self, amount: int, among: list[int]) -> dict[int, int]:
        """Return how much is taken from which lots, in the order of spending."""
        parts: dict[int, int] = {}
        for since in among:
            if part := min(self.lots[since].remaining, amount):
                parts[since] = part
                amount -= part
        return parts

    def take(self, short: int | None, lot: int, own: int, others: int, among: list[int]) -> int:
        """Take for a take-back of a lot, a new one unless named: its own points, then those of others.

        Returns how much that got; the rest is a shortfall.
        """
        parts = self.pick(others, [each for each in among if each != lot])
        got = own + sum(parts.values())
        self.version += got > 0
        if short is None:
            short = self.version if got else self.version + 1
            if got or others:
                self.returns[short] = Return(short, lot, 0)
        self.change(lot, -own)
        for payer, part in parts.items():
            self.pay(payer, short, part)
        if lacking := own + others - got:
            self.lack(short, lacking)
            self.version += 1
        return got

    def give(self, since: int, amount: int, kept: dict[int, int]) -> None:
        """Return points to a lot, or to those that paid in its place. What it lacks is filled first."""
        own = [each for each, found in sorted(self.returns.items()) if found.lot == since]
        for each in own:
            lacking = min(amount, self.returns[each].shortfall)
            self.lack(each, -lacking)
            amount -= lacking
        for payer in sorted(self.lots, reverse=True):
            for each in reversed(own):
                if back := min(amount, self.covers.get((payer, each), 0)):
                    self.covers[payer, each] -= back
                    amount -= back
                    self.give(payer, back, kept)
        if amount:
            self.change(since, amount)
            kept[since] = kept.get(since, 0) + amount

    def fill(self, short: int, kept: dict[int, int], spent: int) -> None:
        """Let what came back to lots fill what a take-back lacks since after they were credited, or spent."""
        for since in sorted(kept):
            if min(since, spent) >= short:
                continue
            if part := min(kept[since], self.returns[short].shortfall):
                kept[since] -= part
                self.pay(since, short, part)
                self.lack(short, -part)
