"""A wallet as its owner knows it: points in lots, and the steps that change them, each to a new wallet.

Nothing here is pending or expires. Versions date everything: an entry raises the version by one, a shortfall too.
"""

from typing import NamedTuple

#: A take-back among others as they arose: its first version, and its lot below 0, so that the newest comes first.
Key = tuple[int, int]


class Lot(NamedTuple):
    """A credit: the version that it made, what is left of it, and of which order it is if a purchase earned it.

    `returned` is how much of it was taken back. An order that was amended may have several.
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

    @property
    def key(self) -> Key:
        """Name and sort it among others."""
        return self.since, -self.lot


class Cover(NamedTuple):
    """What a lot has paid for a take-back of another one."""

    payer: int
    covered: Key
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
                draft.pay(payer, short.key, part)
                draft.lack(short.key, -part)
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

    def earned_more(self, order: str, points: int) -> "tuple[Wallet, bool]":
        """Return the wallet after an order earned more, and whether that made a lot, which may then make good.

        First it fills what its own take-backs lack, the latest first.
        """
        draft, own, left = _Draft(self), {lot.since for lot in self.lots if lot.order == order}, points
        for short in sorted(self.returns, reverse=True):
            if short.lot in own and (part := min(short.shortfall, left)):
                draft.lack(short.key, -part)
                draft.return_(short.lot, -part)
                left -= part
        draft.version += left < points
        return (draft.wallet.credited(left, order), True) if left else (draft.wallet, False)

    def taken_back(self, order: str, points: int | None = None) -> "tuple[Wallet, Told] | None":
        """Return the wallet after points that an order earned were taken back, as many as stand unless told.

        With what was told; None if it earned nothing. Of its lots the newest goes first. What they had paid for others
        counts as taken, and is taken again for those, from older lots.
        """
        lots = sorted((lot for lot in self.lots if lot.order == order), reverse=True)
        if not lots:
            return None
        draft = _Draft(self)
        left = sum(lot.amount - lot.returned for lot in lots) if points is None else points
        own: dict[int, int] = {}
        again: dict[Key, int] = {}
        for lot in lots:
            own[lot.since] = min(lot.remaining, left)
            left -= own[lot.since]
            for each in reversed(self.returns):
                part = min(draft.covers.get((lot.since, each.key), 0), left)
                if part:
                    draft.covers[lot.since, each.key] -= part
                    draft.return_(lot.since, part)
                    again[each.key] = again.get(each.key, 0) + part
                    left -= part
        told = draft.take(own, left)
        for key in sorted(again):
            draft.take_again(key, again[key])
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
        for key in sorted(draft.returns):
            draft.fill(key, kept, spent.since)
        draft.version += 1 + (draft.points < told.balance)
        return draft.wallet, told


class _Draft:
    """A wallet that is being changed."""

    def __init__(self, wallet: Wallet) -> None:
        self.version = wallet.version
        self.lots = {lot.since: lot for lot in wallet.lots}
        self.returns = {each.key: each for each in wallet.returns}
        self.covers = {(cover.payer, cover.covered): cover.amount for cover in wallet.covers}
        self.spent = wallet.spent

    @property
    def wallet(self) -> Wallet:
        covers = tuple(Cover(*pair, amount) for pair, amount in sorted(self.covers.items()) if amount)
        covered = {cover.covered for cover in covers}
        returns = tuple(
            each for key, each in sorted(self.returns.items()) if each.shortfall or key in covered
        )  # fmt: skip
        return Wallet(self.version, tuple(self.lots.values()), returns, covers, self.spent)

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots.values())

    def change(self, since: int, remaining: int) -> None:
        """Add to what is left of a lot."""
        lot = self.lots[since]
        self.lots[since] = lot._replace(remaining=lot.remaining + remaining)

    def return_(self, since: int, points: int) -> None:
        """Add to what was taken back of a lot."""
        lot = self.lots[since]
        self.lots[since] = lot._replace(returned=lot.returned + points)

    def lack(self, key: Key, shortfall: int) -> None:
        """Add to what a take-back lacks."""
        short = self.returns[key]
        self.returns[key] = short._replace(shortfall=short.shortfall + shortfall)

    def pay(self, payer: int, covered: Key, amount: int) -> None:
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

    def take(self, own: dict[int, int], others: int) -> Told:
        """Take points back of lots, the newest first: their `own` ones, then those of others as far as they go.

        What others pay, and what is lacking, is that of the first lots, as far as their credit goes.
        """
        parts = self.pick(others, [since for since in self.lots if since not in own])
        got, lacking = sum(own.values()) + sum(parts.values()), others - sum(parts.values())
        for since, part in own.items():
            self.change(since, -part)
            self.return_(since, part)
        for payer, part in parts.items():
            self.change(payer, -part)
        told = Told(-got, self.points, lacking)
        self.version += got > 0
        first = self.version if got else self.version + 1
        for since in own:
            room = min(self.lots[since].amount - self.lots[since].returned, others)
            self.return_(since, room)
            others -= room
            short = Return(first, since, 0)
            for payer in parts:
                part = min(parts[payer], room)
                parts[payer] -= part
                room -= part
                self.covers[payer, short.key] = part
            self.returns[short.key] = short._replace(shortfall=room)
        self.version += lacking > 0
        return told

    def take_again(self, key: Key, amount: int) -> None:
        """Take for a take-back what a lot doesn't pay any more, from lots that are older."""
        since, lot = key[0], -key[1]
        parts = self.pick(amount, [each for each in self.lots if each < since and each != lot])
        for payer, part in parts.items():
            self.pay(payer, key, part)
        lacking = amount - sum(parts.values())
        self.lack(key, lacking)
        self.version += (lacking < amount) + (lacking > 0)

    def give(self, since: int, amount: int, kept: dict[int, int]) -> None:
        """Return points to a lot, or to those that paid in its place. What it lacks is filled first."""
        own = [key for key, found in sorted(self.returns.items()) if found.lot == since]
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

    def fill(self, key: Key, kept: dict[int, int], spent: int) -> None:
        """Let what came back to lots fill what a take-back lacks since after they were credited, or spent."""
        for since in sorted(kept):
            if min(since, spent) >= key[0]:
                continue
            if part := min(kept[since], self.returns[key].shortfall):
                kept[since] -= part
                self.pay(since, key, part)
                self.lack(key, -part)
