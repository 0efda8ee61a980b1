"""What the engine's things are to those who use it: a code, a quota, a pool's stock, a wallet, each with its moves.

An answer tells a story: for each thing that it is about, a move from its state to the next. An answer is possible when
one of its stories is: then all its moves happen at once. A story that leaves things out says nothing about them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from app.stress.aims import Budget, derived, follow_order
from app.stress.order import Order
from app.stress.people import PEOPLE, People
from app.stress.wallet import Told, Wallet

#: From the state of a thing to those that it can be in afterwards; none when it can't have been so.
Move = Callable[[Any], Iterable[Any]]
#: The moves of things by their names (`wallet:mbr_…`), in order.
Story = tuple[tuple[str, Move], ...]

#: The state of a thing of which nobody follows any more what it is.
ANYTHING: Final = "anything"


class Then(NamedTuple):
    """A state, and what happens to other things with it."""

    state: Any
    story: Story


class Leads:
    """A move that says what happens to other things, too, as the state of its own is: it leads to `Then`.

    `touches` are the names that those may have.
    """

    def __init__(self, move: Callable[[Any], Iterable[Then]], touches: Iterable[str]) -> None:
        self._move = move
        self.touches = frozenset(touches)

    def __call__(self, state: Any) -> Iterable[Then]:
        return self._move(state)


class Whole:
    """A move of everything that a world has: from the states of all things to those that they can have together."""

    def __init__(self, move: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]) -> None:
        self._move = move

    def __call__(self, state: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        return self._move(state)


def had(amount: int) -> Move:
    """A reward's stock falls by so many, or rises."""
    return lambda shelf: (shelf._replace(stock=shelf.stock - amount),) if shelf.stock >= amount else ()


def forgets(_: Any) -> Iterable[Any]:
    """Nobody follows any more what the thing is."""
    return (ANYTHING,)


def touched(step: tuple[str, Move]) -> frozenset[str]:
    """Return the names of the things that a step may be about."""
    name, move = step
    return frozenset({name}) | (move.touches if isinstance(move, Leads) else frozenset())


class Stock(NamedTuple):
    """How many codes of a pool are in each state."""

    available: int = 0
    allocated: int = 0
    redeemed: int = 0
    revoked: int = 0
    expired: int = 0


class Shelf(NamedTuple):
    """How often a reward can be had, and which holds have it, each by its order and place."""

    stock: int = 0
    holders: tuple[tuple[str, int], ...] = ()


#: Whose a code is that belongs to whoever holds it.
BEARER: Final = "bearer"


class Code(NamedTuple):
    """A code: whose it is, on which order it was spent, what took its place, and which hold has it.

    Without an owner it is in stock. A hold is named by its order and its place there.
    """

    owner: str | None = None
    order: str | None = None
    revoked: bool = False
    expired: bool = False
    reissued_as: str | None = None
    hold: tuple[str, int] | None = None


class Pool(NamedTuple):
    """A pool's status, whether it has begun, what its pause stops, and whether that was answered.

    Until then what had found it open before may still come.
    """

    status: str = "DRAFT"
    has_begun: bool = True
    pause_scope: str | None = None
    is_closing: bool = False

    @property
    def is_over(self) -> bool:
        """Whether what comes back to it is dead."""
        return self.status == "ARCHIVED"

    @property
    def is_open(self) -> bool:
        """Whether it issues codes, to whoever looks now."""
        return self.status == "ACTIVE" and self.has_begun

    @property
    def honours(self) -> bool:
        """Whether it honours codes, to whoever looks now."""
        return self.has_begun and (self.status == "ACTIVE" or self.pause_scope == "ISSUING")


#: What a pool takes off in the course of a world, in percent: at first the least.
PERCENTS: Final = (10.0, 11.0, 12.0)
#: What things are before anything happens to them, by the first word of their names; facts of a world replace it.
INITIAL: Final[Mapping[str, Any]] = {
    "wallet": Wallet(), "code": Code(), "claims": (), "stock": Stock(), "pool": Pool(), "percent": PERCENTS[0],
    "quota": 0,
    "budget": None, "person": (), "audience": 0, "end": 0, "look": None, "job": None, "meant": None,
    PEOPLE: People(), "brought": None,
    "address": None, "invite": None, "order": Order(), "reward": Shelf(), "key": None, "member": None, "back": None,
}  # fmt: skip


def unnamed(*codes: str) -> Move:
    """A wallet changes once; its codes don't say any more which hold had them."""
    return lambda wallet: (wallet.changed().unnamed(codes),)


def ended(hold: tuple[str, int]) -> Move:
    """It is written down that a hold of a wallet's codes has ended, if it wasn't before."""
    return lambda wallet: (wallet.ended(hold),)


def given_up(hold: tuple[str, int], *codes: str) -> Move:
    """A wallet changes by the end of a hold, which has its points no more."""
    return lambda wallet: (wallet.given_up(hold).unnamed(codes),)


def if_ended(holds: Callable[[Wallet], bool]) -> Move:
    """Something would be true of a wallet if some of what is late were written down, which a refusal takes back."""
    return where(lambda wallet: any(holds(each) for each in wallet.perhaps))


def changed(amount: int = 0, *, points: int | None = None, version: int | None = None, of: str | None = None) -> Move:
    """A wallet changes once by so many points; the balance and version that it then has, as far as they were told.

    `of` names what they come from, by which they may be taken back.
    """

    def move(wallet: Wallet) -> Iterable[Wallet]:
        after = wallet.debited(-amount) if amount < 0 else wallet.credited(amount, of) if amount else wallet.changed()
        if after is not None and points in {None, after.points} and after.is_of(version):
            yield after

    return move


def earned(amount: int, order: str, *, recovers: bool, points: int | None = None, version: int | None = None) -> Move:
    """A wallet earns points with an order; where the merchant recovers shortfalls, they make good what returns lack.

    The balance before they did, and the version after it, as far as they were told.
    """

    def move(wallet: Wallet) -> Iterable[Wallet]:
        credited = wallet.credited(amount, order)
        after = credited.made_good() if recovers else credited
        if points in {None, credited.points} and after.is_of(version):
            yield after

    return move


def spent(cost: int, name: str, *, points: int | None = None, version: int | None = None) -> Move:
    """A wallet spends points under a name, by which they may come back."""

    def move(wallet: Wallet) -> Iterable[Wallet]:
        after = wallet.debited(cost, name)
        if after is not None and points in {None, after.points} and after.is_of(version):
            yield after

    return move


def follows(order: str, points: int, *, recovers: bool, told: Told | None = None) -> Move:
    """An order has earned so many points from now on: a wallet gives some back or earns more, and is told of that."""

    def move(wallet: Wallet) -> Iterable[Wallet]:
        after, found = wallet.followed(order, points, recovers=recovers)
        if told is None or _tells(told, found):
            yield after

    return move


def _tells(told: Told, found: Told) -> bool:
    """Nothing that was got has no entry, and no balance."""
    return told == (found if found.amount else found._replace(balance=told.balance))


def given_back(name: str, told: Told | None) -> Move:
    """A wallet gets back what was spent under a name, and is told of that."""

    def move(wallet: Wallet) -> Iterable[Wallet]:
        found = wallet.given_back(name)
        if found is not None and told in {None, found[1]}:
            yield found[0]

    return move


def given_back_some(names: Collection[str], points: int) -> Move:
    """A wallet gets back so many points of what was spent under names."""

    def move(wallet: Wallet) -> Iterable[Wallet]:
        found = wallet.given_back_some(names, points)
        return () if found is None else (found,)

    return move


def stocked(available: int = 0, allocated: int = 0, redeemed: int = 0, revoked: int = 0, expired: int = 0) -> Move:
    """Codes of a pool change their state; none of the numbers falls below 0."""

    def move(stock: Stock) -> Iterable[Stock]:
        steps = zip(stock, (available, allocated, redeemed, revoked, expired), strict=True)
        after = Stock(*(number + step for number, step in steps))
        if min(after) >= 0:
            yield after

    return move


def is_(state: Any) -> Move:
    """The thing is in this state, and stays in it."""
    return where(lambda found: found == state)


def where(holds: Callable[[Any], bool]) -> Move:
    """Something is true of the thing, which stays as it is."""
    return lambda state: (state,) if holds(state) else ()


def becomes(before: Any, after: Any) -> Move:
    """The thing goes from one state to another."""
    return lambda state: (after,) if state == before else ()


def every(*moves: Move) -> Move:
    """Make several moves of one thing, one after the other."""

    def move(state: Any) -> Iterable[Any]:
        states = [state]
        for each in moves:
            states = [after for before in states for after in each(before)]
        return states

    return move


def follow(story: Story, state: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return the states of all things after a story; none when it is impossible. One without a state is left out."""
    states = [state]
    for step in story:
        states = [after for each in states for after in _step(step, each)]
    return states


def _step(step: tuple[str, Move], state: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    name, move = step
    if name not in state:
        yield state
    elif isinstance(move, Whole):
        yield from move(state)
    elif state[name] == ANYTHING:
        names = {*touched(step), *(each for each in state if name.startswith("order:") and derived(each))}
        yield {**state, **dict.fromkeys(names & state.keys(), ANYTHING)}
    else:
        for before in state[name].perhaps if isinstance(state[name], Wallet | Budget) else (state[name],):
            for after in move(before):
                if isinstance(after, Then):
                    yield from follow(after.story, _becomes(name, after.state, state))
                else:
                    yield _becomes(name, after, state)


def _becomes(name: str, after: Any, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of all things once one has changed, with what follows from it."""
    found = {**state, name: after}
    if isinstance(after, Order) and after != state[name]:
        return follow_order(name.partition(":")[2], after, found, ANYTHING)
    return found


def within_budgets(state: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Return the state if no pool's codes take off more than they may: some of what is late must have been free."""
    states = [state]
    for name, found in state.items():
        if isinstance(found, Budget) and found.left < 0:
            states = [{**each, name: fit} for each in states for fit in found.fits]
    return states
