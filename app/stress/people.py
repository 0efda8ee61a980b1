"""Who stands for whom: what merging, erasing and adopting do to all that a world has.

Whoever names a record that was merged means the member that was kept, and whoever names a proven address the member
that has proved it. So an operation is read with those that stand in the place of those that it names.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from app.stress.operations import UNSEEN, Operation
from app.stress.wallet import Wallet

#: The name of the thing that knows who stands for whom.
PEOPLE: Final = "people"
#: What each member of a world about people has at first: more than is ever spent, so that nothing else is touched.
GIFT: Final = 2000
#: The state of an address that is a member's.
JOINED: Final = "JOINED"

State = Mapping[str, Any]
#: A claim of a pool: whose, and which of that one's.
Claim = tuple[str, int]


class Edge(NamedTuple):
    """That somebody brought somebody by an invite, and whom by what name that pays."""

    invite: str
    referrer: str
    referee: str


class People(NamedTuple):
    """Who stands for records that were merged and addresses that were proved, who was erased, and who brought whom.

    `holder` has written down the one address of a world that waits for a proof. `untold` are the owners of codes that
    nobody was told of and that no claim is of any more, one for each.
    """

    holder: str | None = None
    is_proven: bool = False
    kept: tuple[tuple[str, str], ...] = ()
    erased: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    untold: tuple[str, ...] = ()
    mergings: int = 0

    def __str__(self) -> str:
        """Say what isn't as it is where everybody stands for itself."""
        unknown = People()._asdict()
        told = (f"{name}={value}" for name, value in self._asdict().items() if value != unknown[name])
        return f"People({', '.join(told)})"

    def standing(self, named: str) -> str:
        """Return who stands for whoever is named."""
        return dict(self.kept).get(named, named)

    def is_gone(self, member: str) -> bool:
        """Whether a member was merged or erased."""
        return self.standing(member) != member or member in self.erased

    def was_brought_by(self, invite: str) -> str | None:
        """Return who came by an invite."""
        return next((each.referee for each in self.edges if each.invite == invite), None)

    def above(self, member: str) -> Iterator[str]:
        """Return who brought a member, who brought that one, and so on."""
        found = {each.referee: each.referrer for each in self.edges}
        while member in found:
            member = found[member]
            yield member

    def impossible(self, one: str, other: str) -> list[Edge]:
        """Return what one person can't have of what brought both: by itself, in a circle, and the later of two."""
        own: list[Edge] = []
        rest: list[Edge] = []
        for each in self.edges:
            if each.referee in {one, other}:
                rival = other if each.referee == one else one
                is_above = rival == each.referrer or rival in self.above(each.referrer)
                (own if is_above else rest).append(each)
        return own + rest[1:]


def renamed(value: Any, old: str, new: str) -> Any:
    """Return the state of a thing with one name in the place of another."""
    if isinstance(value, str):
        return new if value == old else value
    if not isinstance(value, tuple) or isinstance(value, Wallet):
        return value
    found = [renamed(each, old, new) for each in value]
    make = getattr(value, "_make", tuple)
    return make(found) if any(a is not b for a, b in zip(found, value, strict=True)) else value


def as_standing(operation: Operation, people: People) -> Operation:
    """Return an operation with those that stand in the place of those that it names."""
    kept = dict(people.kept)

    def read(value: Any) -> Any:
        match value:
            case str():
                return kept.get(value, value)
            case dict():
                return {name: read(each) for name, each in value.items()}
            case list():
                return [read(each) for each in value]
        return value

    return replace(
        operation, input=read(operation.input), about=read(operation.about), answer=read(operation.answer),
        settled=read(operation.settled),
    )  # fmt: skip


def spread(names: Iterable[str], people: Iterable[str]) -> list[str]:
    """Return names of things with those of the same things of all others, who may come to stand for each other."""
    found = dict.fromkeys(names)
    everybody = list(people)
    for name in list(found):
        kind, _, rest = name.partition(":")
        pool, slash, of = rest.rpartition("/")
        if of in everybody and kind in {"wallet", "claims", "quota", "brought"}:
            found |= {f"{kind}:{pool}{slash}{each}": None for each in everybody}
    return list(found)


@dataclass
class Claims:
    """Claims of one pool, once those of somebody are another's: by place before, and the codes that are too many."""

    claims: tuple[str, ...]
    places: dict[Claim, int]
    surplus: list[str] = field(default_factory=list)


def is_known(state: State, names: Iterable[str], unknown: object) -> bool:
    """Whether what all these things are is followed."""
    return all(state.get(name, unknown) != unknown for name in names)


def is_key_of(name: str, kept: Any, claims: Collection[str]) -> bool:
    """Whether a thing is a key under which one of these claims was made."""
    return name.startswith("key:claim/") and kept is not None and kept[0] in claims


class Change:
    """A change of all things of a world at once, on the way to its end."""

    def __init__(self, state: State, facts: Mapping[str, Any], unknown: object) -> None:
        """`unknown` is the state of a thing of which nobody follows any more what it is."""
        self.state = dict(state)
        self.facts = facts
        self.unknown = unknown

    def copy(self) -> "Change":
        """Return the same, to go on from here in another way."""
        return Change(self.state, self.facts, self.unknown)

    @property
    def people(self) -> People:
        found: People = self.state[PEOPLE]
        return found

    def get(self, name: str) -> Any:
        """Return the state of a thing; unknown if it is left out."""
        return self.state.get(name, self.unknown)

    def put(self, name: str, value: Any) -> None:
        """Let a thing be something, unless it is left out."""
        if name in self.state:
            self.state[name] = value

    def forget(self, *names: str) -> None:
        """Follow things no more."""
        for name in names:
            self.put(name, self.unknown)

    def of_kind(self, kind: str) -> list[tuple[str, Any]]:
        """Return the things of a kind that are followed, by their names."""
        prefix = f"{kind}:"
        return [
            (name, found) for name, found in self.state.items() if name.startswith(prefix) and found != self.unknown
        ]

    def codes_of(self, owner: str) -> int:
        """Return how many codes are somebody's, whatever became of them."""
        told: int = sum(code.owner == owner for _, code in self.of_kind("code"))
        return told + self.untold(owner) + self.people.untold.count(owner)

    def untold(self, owner: str, *pools: str) -> int:
        """Return how many codes nobody was told of that somebody has claimed, of some pools or of all."""
        claims = [self.get(f"claims:{pool}/{owner}") for pool in pools or self.facts["limits"]]
        return sum(code == UNSEEN for codes in claims if codes != self.unknown for code in codes)

    def counts_codes(self, *owners: str, pools: Iterable[str]) -> bool:
        """Whether all is followed that decides how many codes of some pools some people have."""
        claims = [f"claims:{pool}/{owner}" for pool in pools for owner in owners]
        codes = [f"code:{code}" for pool in pools for code in self.facts["codes"].get(pool, ())]
        return is_known(self.state, (*claims, *codes), self.unknown)

    def knows_claims(self, pool: str, *owners: str) -> bool:
        """Whether it is followed what some people have claimed of a pool, and what became of that."""
        if not is_known(self.state, [f"claims:{pool}/{owner}" for owner in owners], self.unknown):
            return False
        codes = [f"code:{code}" for owner in owners for code in self.claims(pool, owner) if code != UNSEEN]
        return is_known(self.state, codes, self.unknown)

    def rename(self, old: str, new: str) -> None:
        """Let all that names somebody name another one, wallets, claims and quotas apart."""
        for name, found in self.state.items():
            if name != PEOPLE and found != self.unknown:
                self.state[name] = renamed(found, old, new)
        people = self.people
        self.put(
            PEOPLE,
            people._replace(
                kept=(*((each, new if stands == old else stands) for each, stands in people.kept), (old, new)),
                edges=renamed(people.edges, old, new),
                untold=renamed(people.untold, old, new),
                holder=renamed(people.holder, old, new),
            ),
        )

    def pass_claims(self, pool: str, found: Claims, old: str, new: str) -> None:
        """Let claims be another's: surplus codes are revoked and replaced, and keys of theirs are free again."""
        names = {f"claims:{pool}/{old}", f"claims:{pool}/{new}"}
        for name, kept in self.of_kind("key"):
            if is_key_of(name, kept, names):
                place = found.places.get((kept[0].rpartition("/")[2], kept[1]))
                self.put(name, None if place is None else (f"claims:{pool}/{new}", place))
        self.put(f"claims:{pool}/{old}", ())
        self.put(f"claims:{pool}/{new}", found.claims)
        for code in found.surplus:
            if code == UNSEEN:
                people = self.people
                self.put(PEOPLE, people._replace(untold=(*people.untold, old)))
            else:
                self.put(f"code:{code}", self.get(f"code:{code}")._replace(revoked=True))
        self.move_stock(pool, available=len(found.surplus), revoked=len(found.surplus))

    def move_stock(self, pool: str, *, available: int = 0, revoked: int) -> None:
        """Revoke so many codes of a pool that were somebody's, of which so many are replaced."""
        stock = self.get(f"stock:{pool}")
        if stock != self.unknown:
            self.put(
                f"stock:{pool}",
                stock._replace(
                    available=stock.available + available,
                    allocated=stock.allocated - revoked,
                    revoked=stock.revoked + revoked,
                ),
            )

    def can_go(self, pool: str, code: str) -> bool:
        """Whether a claimed code can be taken back: it is alive, nobody holds it, and it wasn't paid for."""
        if pool in self.facts["backing"]:
            return False
        return code == UNSEEN or (self.is_live(code) and self.get(f"code:{code}").hold is None)

    def knows_orders(self) -> bool:
        """Whether all orders are followed."""
        orders = [name for name in (*self.state, *self.facts["left_out"]) if name.startswith("order:")]
        return is_known(self.state, orders, self.unknown)

    def claims(self, pool: str, owner: str) -> tuple[str, ...]:
        """Return the codes that somebody has claimed of a pool."""
        found: tuple[str, ...] = self.get(f"claims:{pool}/{owner}")
        return found

    def claimed(self, pool: str, claim: Claim) -> str:
        """Return the code of a claim."""
        owner, place = claim
        return self.claims(pool, owner)[place]

    def is_earlier(self, pool: str, one: Claim, other: Claim) -> bool:
        """Whether one claim was answered before another one was made."""
        first, second = (self.facts["claimed"].get(self.claimed(pool, each)) for each in (one, other))
        return bool(first and second and first[1] < second[0])

    def is_alive_of(self, code: str, owners: Collection[str]) -> bool:
        """Whether a code is followed, is one of these people's, and can be spent."""
        found = self.get(f"code:{code}")
        return found != self.unknown and found.owner in owners and self.is_live(code)

    def is_live(self, code: str) -> bool:
        """Whether a code can be spent."""
        found = self.get(f"code:{code}")
        return not (found.order or found.revoked or found.expired)


def paid_for(invite: str) -> str:
    """Return what names the points that an invite paid."""
    return f"invite/{invite}"


def forfeited(state: State, unknown: object) -> State:
    """Return what a world is once codes that live again are those of somebody who was erased: they are revoked."""
    erased = state[PEOPLE].erased
    found = dict(state)
    for name, code in state.items():
        if name.startswith("code:") and code != unknown and code.owner in erased:
            if code.order or code.revoked or code.expired:
                continue
            found[name] = code._replace(revoked=True, hold=None)
    return found
