"""Operations as their clients saw them: what was sent, when, and what was told."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TextIO

Answer = dict[str, Any]

#: The type of an answer to a query.
READ: Final = "Read"
#: The type of what nobody asks for and nobody is told: something ends because its time has come.
PASSED: Final = "Passed"
#: The type of an answer to a token that has ended: its member was merged or erased.
UNAUTHENTICATED: Final = "Unauthenticated"
#: What nobody has seen: the id of a code, an invite or a redemption that was never told.
UNSEEN: Final = "unseen"
#: That an operation has an effect at some time, or never: nobody was told.
NEVER: Final = None


@dataclass
class Operation:
    """One call of a verb. `returned` is null when no answer came: it may have an effect at any time, or none.

    `input` is what was sent, and `about` what its client knew of the things that it names. Times are nanoseconds of one
    clock. `settled` is what a later call with the same key was told: the effect of this one, if it had one, and it had
    it by `settled_by`.
    """

    number: int
    client: str
    verb: str
    input: dict[str, Any]
    about: dict[str, Any]
    called: int
    returned: int | None = NEVER
    answer: Answer | None = None
    settled: Answer | None = None
    settled_by: int | None = NEVER

    @property
    def outcome(self) -> str:
        """`ok`, `refused` or `unknown`."""
        if self.answer is None:
            return "unknown"
        kind = self.answer["__typename"]
        return "ok" if kind.endswith("Success") or kind in {READ, PASSED} else "refused"

    @property
    def over(self) -> int | None:
        """When it was over at the latest; None if never."""
        return self.returned if self.answer is not None else self.settled_by


@dataclass
class History:
    """What the clients of a small world saw, and the facts of the world that never change."""

    name: str
    facts: dict[str, Any]
    operations: list[Operation] = field(default_factory=list)

    def write(self, file: TextIO) -> None:
        """Write it as a line of JSON."""
        json.dump(asdict(self), file, separators=(",", ":"))
        file.write("\n")


def read(lines: Iterable[str]) -> Iterator[History]:
    """Return the histories that `write` wrote."""
    for line in lines:
        read = json.loads(line)
        yield History(read["name"], read["facts"], [Operation(**each) for each in read["operations"]])


def _tells_once(operation: Operation) -> bool:
    """Whether another call of the same has no effect any more: its answer says so, or its key."""
    return "replayed" in (operation.answer or {}) or operation.input.get("idempotencyKey") is not None


class Recorder:
    """Writes down the operations of a world in the order in which they were called."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._numbers = itertools.count(1)
        self._lost: set[int] = set()

    def call(self, client: str, verb: str, input: dict[str, Any], about: dict[str, Any], now: int) -> Operation:
        """Note that a client sends something."""
        operation = Operation(next(self._numbers), client, verb, input, about, now)
        self.history.operations.append(operation)
        return operation

    def passes(self, verb: str, input: dict[str, Any], at: int, *, within_seconds: float) -> None:
        """Note what happens by itself, from an instant on."""
        over = at + int(within_seconds * 1e9)
        operation = Operation(next(self._numbers), "time", verb, input, {}, at, over, {"__typename": PASSED})
        self.history.operations.append(operation)

    def answered(self, operation: Operation, answer: Answer, now: int, *, once: bool = True) -> None:
        """Note what a client was told. Earlier calls of the same input had their effect by now, if it comes once."""
        operation.answer, operation.returned = answer, now
        if once and operation.outcome == "ok" and _tells_once(operation):
            for other in self._same(operation):
                if other.answer is None and other.settled is None:
                    other.settled, other.settled_by = answer, now

    def unanswered(self, operation: Operation, now: int, *, once: bool = True) -> None:
        """Note that a client gave up waiting. What comes once and had been done before has no effect any more."""
        self._lost.add(operation.number)
        for other in self._same(operation) if once else ():
            if other.outcome == "ok" and _tells_once(other):
                operation.settled, operation.settled_by = other.answer, now
                return

    def _same(self, operation: Operation) -> list[Operation]:
        return [
            each for each in self.history.operations
            if each is not operation and (each.verb, each.input) == (operation.verb, operation.input)
        ]  # fmt: skip

    def unsent(self, operation: Operation) -> None:
        """Forget a call that didn't reach anybody."""
        self.history.operations.remove(operation)

    def was_lost(self, operation: Operation) -> bool:
        """Whether a client that called the same gave up waiting."""
        return any(each.number in self._lost for each in self._same(operation))

    @property
    def open(self) -> int:
        """How many operations may still have an effect."""
        return sum(operation.over is None for operation in self.history.operations)
