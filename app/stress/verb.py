"""What a verb declares to be tried under load: what it needs, how it is called, and what its answers mean.

An answer tells stories (things.py); a refusal tells why, and moves nothing. An operation that nobody was told of may
have moved nothing, or done what a success would tell. The declarations are in claims.py and its neighbours, and listed
in verbs.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.stress.operations import PASSED, READ, Answer, Operation
from app.stress.things import Story

if TYPE_CHECKING:
    from app.stress.worlds import World

#: What is sent, and what the client knows of the things in it.
Asked = tuple[dict[str, Any], dict[str, Any]]
#: What never changes in a world: limits, fallbacks, costs, quotas; and `codes`, those that were ever seen, by pool.
Facts = dict[str, Any]

NOTHING: Final[Story] = ()


@dataclass(frozen=True)
class Call:
    """An operation and an answer to it. Where nobody was told, the answer lacks all values but `replayed`."""

    input: dict[str, Any]
    about: dict[str, Any]
    answer: Answer
    facts: Facts
    number: int = 0


#: The stories that an answer can tell.
Says = Callable[[Call], Sequence[Story]]


@dataclass(frozen=True)
class Verb:
    """A declaration: its name and document, what it asks for in a world, and what each type of answer says.

    `ask` returns None while the world lacks what the verb needs. `learns` keeps what a success tells, for verbs that
    need it. `repeats` says that the same input again is the same operation, and `once` that it can't have its effect
    again after that was undone; `reads`, that nothing is changed; `as_member`, that the member `about["as"]` calls it;
    and `weight`, how often it is called beside others. `looks` returns what a success had looked at before it had its
    effect, with what that is, if it doesn't look again; `later` is the verb of what somebody does for it afterwards.
    """

    name: str
    document: str
    ask: Callable[["World"], Asked | None]
    says: dict[str, Says]
    learns: Callable[["World", Operation, Answer], None] | None = None
    notes: Callable[[Operation, Answer], Iterable[str]] | None = None
    looks: Callable[["World", Operation, Answer], dict[str, Any] | None] | None = None
    later: str | None = None
    repeats: bool = False
    once: bool = True
    reads: bool = False
    as_member: bool = False
    weight: float = 1

    @property
    def done(self) -> Says | None:
        """What a success says; None for a verb that only reads."""
        if self.reads:
            return None
        return next((says for kind, says in self.says.items() if _is_success(kind)), None)

    @property
    def refusals(self) -> list[str]:
        """The refusals that it is declared to provoke."""
        return [] if self.reads or not self.document else [kind for kind in self.says if not _is_success(kind)]

    def variables(self, input: dict[str, Any]) -> dict[str, Any]:
        """Return the variables of the document."""
        return {"input": input} if "$input" in self.document else input

    def stories(self, operation: Operation, facts: Facts) -> Sequence[Story]:
        """Return the stories that can be true of an operation; none for an answer that isn't declared."""
        if operation.answer is not None:
            says = self.says.get(operation.answer["__typename"])
            return () if says is None else says(self._call(operation, operation.answer, facts))
        if self.done is None:
            return (NOTHING,)
        known = operation.settled
        if known is None or "replayed" not in known:
            return (NOTHING, *self.done(self._call(operation, {"replayed": False}, facts)))
        if not known["replayed"]:
            # Another call had the effect, so this one had none.
            return (NOTHING,)
        effect = {**known, "replayed": False, "was_replayed": True}
        return (NOTHING, *self.done(self._call(operation, effect, facts)))

    @staticmethod
    def _call(operation: Operation, answer: Answer, facts: Facts) -> Call:
        return Call(operation.input, operation.about, answer, facts, operation.number)


def _is_success(kind: str) -> bool:
    return kind.endswith("Success") or kind == PASSED


def mutation(name: str, input: str, fields: str) -> str:
    """Return the document of a mutation, which tells the type of the answer and some of its fields."""
    return f"""
mutation ($input: {input}!) {{
  answer: {name}(input: $input) {{ __typename {fields} ... on Refusal {{ message }} }}
}}
"""


def named(who: str) -> dict[str, Any]:
    """Return the part of an input that names a member by its id, or whoever has an address by it."""
    return {"email" if "@" in who else "memberId": who}


def who(input: dict[str, Any]) -> str:
    """Return whom an input names so."""
    name: str = input["email"] if "email" in input else input["memberId"]
    return name


def reading(name: str, fields: str, ask: Callable[["World"], Asked | None], says: Says) -> Verb:
    """Return the declaration of a verb that reads something by its id."""
    return Verb(name, f"query ($id: ID!) {{ answer: {fields} }}", ask, {READ: says}, reads=True, weight=2)


def ask_member(world: "World") -> Asked:
    """Ask about any member."""
    return {"id": world.member()}, {}
