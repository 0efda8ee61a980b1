"""A wallet as its owner knows it: points in lots, and the steps that change them, each to a new wallet.

Nothing here is pending or expires. Versions date everything: an entry raises the version by one, a shortfall too.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
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


#: What names a take-back: the first version that it made, and its lot, negative: of one instant the newest lot's is
#: the first.
Arising = tuple[int, int]


class Return(NamedTuple):
    """That points of a lot were taken back: the first version that it made, and what it lacks."""

    since: int
    lot: int
    shortfall: int

    @property
    def arising(self) -> Arising:
        return self.since, -self.lot


class Cover(NamedTuple):
    """What a lot has paid for a take-back of another one."""

    payer: int
    covered: Arising
    amount: int


class Spent(NamedTuple):
    """What was spent under a name, in which version, and how much of it from which lots."""

    name: str
    since: int
    parts: tuple[tuple[int, int], ...]


class Held(NamedTuple):
    """Points that a hold has, by its order and place: how many of which lots, and since which version."""

    hold: tuple[str, int]
    parts: tuple[tuple[int, int, int], ...]

    @property
    def points(self) -> int:
        return sum(amount for _, amount, _ in self.parts)


class Ending(NamedTuple):
    """A hold whose time has passed, by its order and place, and the codes that still say that it has them.

    That it has ended is written down at some time, which is a change of the wallet while there are any, or points.
    """

    hold: tuple[str, int]
    codes: tuple[str, ...]


class Told(NamedTuple):
    """What an entry tells: how many points it moved, the balance after it; and what a return lacked."""

    amount: int
    balance: int
    shortfall: int = 0


class Wallet(NamedTuple):
    """A member's wallet: its version, its lots in the order in which they are spent, and what may be given back.

    `returns` are the take-backs that lack something or that others pay for, as they arose. Where nobody follows how
    often it changed, it isn't dated any more: its version says only what comes after what.
    """

    version: int = 0
    lots: tuple[Lot, ...] = ()
    returns: tuple[Return, ...] = ()
    covers: tuple[Cover, ...] = ()
    spent: tuple[Spent, ...] = ()
    endings: tuple[Ending, ...] = ()
    held: tuple[Held, ...] = ()
    is_dated: bool = True

    def __str__(self) -> str:
        return f"Wallet(points={self.points}, version={self.version})"

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots)

    @property
    def spendable(self) -> int:
        """How many points a debit may take now: what is late is free."""
        late = {each.hold for each in self.endings}
        return self.points - sum(each.points for each in self.held if each.hold not in late)

    @property
    def free(self) -> int:
        """How many points a debit may take while nobody can write down what is late."""
        return self.points - sum(each.points for each in self.held)

    @property
    def shortfall(self) -> int:
        return sum(each.shortfall for each in self.returns)

    def is_of(self, version: int | None) -> bool:
        """Whether the wallet may be of a version, as far as it was told."""
        return version is None or not self.is_dated or version == self.version

    def changed(self) -> "Wallet":
        """Return the wallet after one change that isn't about points."""
        return self._replace(version=self.version + 1)

    def overdue(self, hold: tuple[str, int], codes: tuple[str, ...]) -> "Wallet":
        """Return the wallet when the time of a hold of its codes has passed, which nobody has written down."""
        is_told = codes or self.points_of(hold)
        return self._replace(endings=(*self.endings, Ending(hold, codes))) if is_told else self

    def unnamed(self, codes: Collection[str]) -> "Wallet":
        """Return the wallet when codes don't say any more which hold had them."""
        left = [Ending(hold, tuple(code for code in named if code not in codes)) for hold, named in self.endings]
        return self._replace(endings=tuple(each for each in left if each.codes or self.points_of(each.hold)))

    def ended(self, hold: tuple[str, int]) -> "Wallet":
        """Return the wallet once it is written down that a hold whose time has passed has ended."""
        others = tuple(each for each in self.endings if each.hold != hold)
        return self if others == self.endings else self.given_up(hold)._replace(endings=others)

    def points_of(self, hold: tuple[str, int]) -> int:
        """Return how many points a hold has."""
        return sum(each.points for each in self.held if each.hold == hold)

    def given_up(self, hold: tuple[str, int]) -> "Wallet":
        """Return the wallet after a hold has ended: its points are free, and go where they would if they came back."""
        draft = _Draft(self)
        draft.version += 1
        draft.come_free(draft.let_go(hold, 0))
        return draft.wallet

    def holds(self, hold: tuple[str, int], points: int) -> "Wallet | None":
        """Return the wallet after a hold has so many points, None if too few are free.

        What it has stays as far as it goes; of what it has too many those come free that would be spent last.
        """
        draft, more = _Draft(self), points - self.points_of(hold)
        if more > self.free:
            return None
        draft.version += more != 0
        if more > 0:
            draft.set_aside(hold, more)
        elif more < 0:
            draft.come_free(draft.let_go(hold, points))
        return draft.wallet

    def paid(
        self, hold: tuple[str, int], points: int, name: str, costs: Sequence[tuple[int, str]] = ()
    ) -> "Wallet | None":
        """Return the wallet after points of a hold were paid under a name, None if it has none and too few are free.

        Before that, its rewards are had for what they `costs` under names of their own: they have what would be spent
        first. Points that it has too many come free with that.
        """
        if not self.points_of(hold):
            wallet: Wallet | None = self
            for cost, reward in costs:
                wallet = wallet and wallet.debited(cost, reward)
            return wallet.debited(points, name) if wallet is not None and points else wallet
        draft, has = _Draft(self), self.points_of(hold)
        for cost, reward in costs:
            draft.version += 1
            draft.capture(hold, cost, reward)
            has -= cost
        if has:
            draft.version += 1
            if points:
                draft.capture(hold, points, name)
            draft.come_free(draft.let_go(hold, 0))
        left = tuple(each for each in self.endings if each.hold != hold)
        return draft.wallet._replace(endings=left)

    @property
    def perhaps(self) -> "Iterator[Wallet]":
        """What the wallet may have become by itself: of what is to be written down, anything may have been."""
        found = [self]
        for ending in self.endings:
            found = [after for wallet in found for after in wallet._perhaps_without(ending)]
        yield from found

    def _perhaps_without(self, ending: Ending) -> "Iterator[Wallet]":
        """What the wallet may be after a hold whose time has passed.

        Whoever needs its points lets them come free, while its codes go on saying that it has them.
        """
        yield self
        yield self.ended(ending.hold)
        if ending.codes and self.points_of(ending.hold):
            yield self.given_up(ending.hold)

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
                draft.pay(payer, short.arising, part)
                draft.lack(short.arising, -part)
                paid += part
        draft.version += paid > 0
        return draft.wallet

    def debited(self, amount: int, name: str | None = None) -> "Wallet | None":
        """Return the wallet after a debit, None if there is too little. One with a name may be given back."""
        draft = _Draft(self)
        if self.free < amount:
            return None
        parts = draft.pick(amount, [lot.since for lot in self.lots])
        draft.version += 1
        for since, part in parts.items():
            draft.change(since, remaining=-part)
        if name is not None:
            draft.spent = (*self.spent, Spent(name, draft.version, tuple(parts.items())))
        return draft.wallet

    def kept(self, order: str) -> int:
        """Return how many points an order has earned that weren't taken back."""
        return sum(lot.amount - lot.returned for lot in self.lots if lot.order == order)

    def followed(self, order: str, points: int, *, recovers: bool) -> "tuple[Wallet, Told]":
        """Return the wallet once an order has earned so many points, and what was told of it."""
        more = points - self.kept(order)
        return self.taken_back(order, -more) if more < 0 else self._earned_more(order, more, recovers=recovers)

    def _earned_more(self, order: str, points: int, *, recovers: bool) -> "tuple[Wallet, Told]":
        """Return the wallet after an order earned more: first it fills what its own take-backs lack, the newest first.

        The rest is a new lot.
        """
        draft = _Draft(self)
        own = [each for each in self.returns if draft.lots[each.lot].order == order]
        left = points
        for short in sorted(own, key=lambda each: (-each.since, -each.lot)):
            filled = min(left, short.shortfall)
            lot = draft.lots[short.lot]
            draft.lots[short.lot] = lot._replace(returned=lot.returned - filled)
            draft.lack(short.arising, -filled)
            left -= filled
        draft.version += left < points
        if not left:
            return draft.wallet, Told(0, self.points)
        credited = draft.wallet.credited(left, order)
        return credited.made_good() if recovers else credited, Told(left, credited.points)

    def taken_back(self, order: str, points: int) -> "tuple[Wallet, Told]":
        """Return the wallet after points that an order earned were taken back, and what was told.

        Of each of its lots, the newest first: what is left, then what it had paid for others, which is taken again for
        those, from older lots. What is lacking comes from other lots.
        """
        draft, left = _Draft(self), points
        again: dict[Arising, int] = {}
        shares: list[_Share] = []
        for lot in [lot for lot in reversed(self.lots) if lot.order == order]:
            share = _Share(lot, own=min(draft.free(lot.since), left))
            left -= share.own
            for each in reversed(self.returns):
                paid = draft.covers.get((lot.since, each.arising), 0)
                if part := min(paid, left):
                    draft.covers[lot.since, each.arising] = paid - part
                    again[each.arising] = again.get(each.arising, 0) + part
                    share.paid += part
                    left -= part
            shares.append(share)
        lots = {share.lot.since for share in shares}
        others = draft.pick(left, [since for since in draft.lots if since not in lots])
        got = sum(share.own for share in shares) + sum(others.values())
        draft.version += got > 0
        since = draft.version if got else draft.version + 1
        lacking = 0
        for share in shares:
            lacking += draft.take(share, since, left, others)
            left -= share.others
        draft.version += lacking > 0
        told = Told(-got, draft.points, lacking)
        for arising in sorted(again):
            draft.take_again(arising, again[arising])
        return draft.wallet, told

    def given_back(self, name: str) -> "tuple[Wallet, Told] | None":
        """Return the wallet after what was spent under a name came back, and what was told; None if nothing was."""
        spent = next((spent for spent in self.spent if spent.name == name), None)
        return None if spent is None else self._given_back(spent, sum(part for _, part in spent.parts))

    def given_back_some(self, names: Collection[str], points: int) -> "Wallet | None":
        """Return the wallet after so many points that were spent under names came back, the last spent first."""
        wallet = self
        for spent in reversed([each for each in self.spent if each.name in names]):
            if part := min(points, sum(part for _, part in spent.parts)):
                wallet, _ = wallet._given_back(spent, part)
                points -= part
        return None if points else wallet

    def _given_back(self, spent: Spent, points: int) -> "tuple[Wallet, Told]":
        """Let so many points come back that were spent, the last spent first.

        First to their lots, or to those that paid in their place; then they fill what is lacking since they were spent
        or credited.
        """
        draft = _Draft(self)
        left, back = list(spent.parts), []
        amount = points
        while amount:
            since, part = left.pop()
            taken = min(part, amount)
            amount -= taken
            back.append((since, taken))
            if taken < part:
                left.append((since, part - taken))
        rest = (spent._replace(parts=tuple(left)),) if left else ()
        place = self.spent.index(spent)
        draft.spent = (*self.spent[:place], *rest, *self.spent[place + 1 :])
        kept: dict[int, int] = {}
        for since, part in back:
            draft.give(since, part, kept)
        told = Told(points, self.points + points)
        for short in sorted(draft.returns):
            draft.fill(short, kept, spent.since)
        draft.version += 1 + (draft.points < told.balance)
        return draft.wallet, told


@dataclass
class _Share:
    """What is taken back of a lot: its own points, what it had paid for others, and what is lacking then."""

    lot: Lot
    own: int
    paid: int = 0
    others: int = 0


class _Draft:
    """A wallet that is being changed."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet
        self.version = wallet.version
        self.lots = {lot.since: lot for lot in wallet.lots}
        self.returns = {each.arising: each for each in wallet.returns}
        self.covers = {(cover.payer, cover.covered): cover.amount for cover in wallet.covers}
        self.spent = wallet.spent
        self.held = {each.hold: each.parts for each in wallet.held}

    @property
    def wallet(self) -> Wallet:
        covers = tuple(Cover(*pair, amount) for pair, amount in sorted(self.covers.items()) if amount)
        covered = {cover.covered for cover in covers}
        returns = tuple(each for arising, each in sorted(self.returns.items()) if each.shortfall or arising in covered)
        return self._wallet._replace(
            version=self.version, lots=tuple(self.lots.values()), returns=returns, covers=covers, spent=self.spent,
            held=tuple(Held(hold, parts) for hold, parts in self.held.items() if parts),
        )  # fmt: skip

    @property
    def points(self) -> int:
        return sum(lot.remaining for lot in self.lots.values())

    def free(self, since: int) -> int:
        """Return what isn't held of a lot."""
        held = sum(amount for parts in self.held.values() for lot, amount, _ in parts if lot == since)
        return self.lots[since].remaining - held

    def set_aside(self, hold: tuple[str, int], amount: int) -> None:
        """Let a hold have more points, in the order of spending."""
        parts = {since: (has, held) for since, has, held in self.held.get(hold, ())}
        for since, more in self.pick(amount, list(self.lots)).items():
            has, held = parts.get(since, (0, self.version))
            parts[since] = has + more, held
        self.held[hold] = tuple((since, *parts[since]) for since in self.lots if since in parts)

    def let_go(self, hold: tuple[str, int], keep: int) -> list[tuple[int, int, int]]:
        """Let a hold have no more than so many points, those that would be spent first; returns what is free then."""
        kept, gone = [], []
        for since, amount, held in self.held.get(hold, ()):
            stays = min(amount, keep)
            keep -= stays
            kept += [(since, stays, held)] if stays else []
            gone += [(since, amount - stays, held)] if amount > stays else []
        self.held[hold] = tuple(kept)
        return gone

    def capture(self, hold: tuple[str, int], points: int, name: str) -> None:
        """Spend points of a hold under a name, those that would be spent first."""
        taken, left = [], []
        for since, amount, held in self.held[hold]:
            part = min(amount, points)
            points -= part
            if part:
                taken.append((since, part, held))
                self.change(since, -part)
            if part < amount:
                left.append((since, amount - part, held))
        self.held[hold] = tuple(left)
        parts = tuple((since, part) for since, part, _ in taken)
        self.spent = (*self.spent, Spent(name, min(held for _, _, held in taken), parts))

    def come_free(self, parts: list[tuple[int, int, int]]) -> None:
        """Let points that were held go where they would if they had been spent and came back; entries say what moves.

        They never left the balance: one entry is for what lots lose by it, and one for what others get.
        """
        before = {since: lot.remaining for since, lot in self.lots.items()}
        kept: dict[int, dict[int, int]] = {}
        for since, amount, _ in parts:
            self.change(since, -amount)
        for since, amount, held in parts:
            self.give(since, amount, kept.setdefault(held, {}))
        for short in sorted(self.returns):
            for held, of_lots in kept.items():
                self.fill(short, of_lots, held)
        moved = [lot.remaining - before[since] for since, lot in self.lots.items()]
        self.version += any(amount < 0 for amount in moved)
        self.version += any(amount > 0 for amount in moved)

    def change(self, since: int, remaining: int) -> None:
        """Add to what is left of a lot."""
        lot = self.lots[since]
        self.lots[since] = lot._replace(remaining=lot.remaining + remaining)

    def lack(self, short: Arising, shortfall: int) -> None:
        """Add to what a take-back lacks."""
        each = self.returns[short]
        self.returns[short] = each._replace(shortfall=each.shortfall + shortfall)

    def pay(self, payer: int, covered: Arising, amount: int) -> None:
        """Let a lot pay for a take-back of another one."""
        self.change(payer, -amount)
        self.covers[payer, covered] = self.covers.get((payer, covered), 0) + amount

    def pick(self, amount: int, among: list[int]) -> dict[int, int]:
        """Return how much is taken from which lots, in the order of spending."""
        parts: dict[int, int] = {}
        for since in among:
            if part := min(self.free(since), amount):
                parts[since] = part
                amount -= part
        return parts

    def take(self, share: _Share, since: int, lacking: int, others: dict[int, int]) -> int:
        """Take back of a lot: its own points, and of what is lacking as much as its credit goes, from `others`.

        Returns how much of that is a shortfall.
        """
        lot = share.lot
        share.others = room = min(lot.amount - lot.returned - share.own - share.paid, lacking)
        if not share.own + share.paid + room:
            return 0
        short = Return(since, lot.since, 0)
        self.returns[short.arising] = short
        returned = lot.returned + share.own + share.paid + room
        self.lots[lot.since] = lot._replace(remaining=lot.remaining - share.own, returned=returned)
        for payer in list(others):
            if part := min(others[payer], room):
                self.pay(payer, short.arising, part)
                others[payer] -= part
                room -= part
        self.lack(short.arising, room)
        return room

    def take_again(self, short: Arising, amount: int) -> None:
        """Take for a take-back what a lot doesn't pay any more, from lots that are older than it."""
        own = self.returns[short].lot
        parts = self.pick(amount, [since for since in self.lots if since < short[0] and since != own])
        self.version += bool(parts)
        for payer, part in parts.items():
            self.pay(payer, short, part)
        if lacking := amount - sum(parts.values()):
            self.lack(short, lacking)
            self.version += 1

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

    def fill(self, short: Arising, kept: dict[int, int], spent: int) -> None:
        """Let what came back to lots fill what a take-back lacks since after they were credited, or spent."""
        for since in sorted(kept):
            if min(since, spent) >= short[0]:
                continue
            if part := min(kept[since], self.returns[short].shortfall):
                kept[since] -= part
                self.pay(since, short, part)
                self.lack(short, -part)
