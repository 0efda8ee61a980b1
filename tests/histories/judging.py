"""Asks porcupine whether some order of a history's operations explains every answer, and shows which can't be."""

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from app.stress.aims import Budget, derived
from app.stress.claims import LOOKED
from app.stress.gone import JUDGED
from app.stress.gone import stories as stories_of
from app.stress.operations import History, Operation
from app.stress.people import PEOPLE, People, forfeited, spread
from app.stress.things import (
    ANYTHING,
    BEARER,
    INITIAL,
    Move,
    Pool,
    Shelf,
    Stock,
    Story,
    follow,
    forgets,
    touched,
    within_budgets,
)
from app.stress.verb import Facts, who
from app.stress.verbs import VERBS

SOURCE: Final = Path(__file__).parent / "judge"
#: For a whole history, and for each try to make a counterexample smaller.
SECONDS_MAX: Final = 30.0
SMALLER_SECONDS_MAX: Final = 2.0
BAR_WIDTH: Final = 24
SHOWN_MAX: Final = 16
ALIKE_MAX: Final = 3
OK, ILLEGAL, UNKNOWN = "Ok", "Illegal", "Unknown"

State = Mapping[str, Any]
#: What a world has of which nothing is aimed at anybody.
_UNAIMED: Final[Facts] = {"budgets": [], "first": [], "audiences": [], "members": [], "address": None}
#: Verbs that may make an order somebody's, or change what it has of a budget.
ORDERING: Final = frozenset({"redeemCodes", "amendOrder", "holdCheckout", "recordPurchase", "checkCodes"})


#: Verbs that are a part of others: what these had looked at.
LOOKS: Final = frozenset({LOOKED.name, JUDGED.name})


class NoJudgeError(Exception):
    """There is no Go, or it can't build the judge; the message says which."""


@contextmanager
def judge() -> Iterator["Judge"]:
    """Build the judge and run it for the length of the block. Raises NoJudgeError."""
    go = shutil.which("go")
    if go is None:
        raise NoJudgeError("there is no Go toolchain")
    with tempfile.TemporaryDirectory(prefix="flash-judge-") as directory:
        binary = Path(directory) / "judge"
        built = subprocess.run(
            [go, "build", "-buildvcs=false", "-o", str(binary), "."],
            cwd=SOURCE,
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise NoJudgeError(f"Go can't build the judge: {built.stderr.strip()[-500:]}")
        with subprocess.Popen([str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield Judge(process)
            assert process.stdin is not None
            process.stdin.close()


class Judge:
    """A running judge; one history at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def verdict(self, case: "Case", seconds: float = SECONDS_MAX) -> str:
        """Return OK, ILLEGAL or UNKNOWN."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        tell, hear = self._process.stdin, self._process.stdout
        # What says nothing can have happened at any time: trying when would double the work.
        judged = [number for number, stories in enumerate(case.stories) if stories != [()]]
        operations = [case.operations[number] for number in judged]
        spans = [f"{each.called} {-1 if each.over is None else each.over}" for each in operations]
        tell.write("\n".join([f"check {len(spans)} {round(seconds * 1000)}", *spans, ""]))
        tell.flush()
        while True:
            kind, *words = hear.readline().split()
            if kind == "!":
                return words[0]
            tell.write(f"{case.step(int(words[0]), judged[int(words[1])])}\n")
            tell.flush()


@dataclass
class Case:
    """What is judged: operations with their stories, without the things that were left out.

    A state of the judge is a number that stands for a set of states of all things: those that are possible after the
    operations so far, where an answer leaves open what was done.
    """

    history: History
    operations: list[Operation]
    left_out: frozenset[str] = frozenset()
    stories: list[Sequence[Story]] = field(init=False)
    _sets: list[frozenset[tuple[Any, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        known = _UNAIMED | self.history.facts
        facts: Facts = {
            **known, "codes": _codes(self.operations, known),
            "touched": _touched(self.operations, known), "holding": _holding(self.operations, known),
            "looked": {each.input["number"] for each in self.operations if each.verb in LOOKS},
            "left_out": self.left_out,
        }  # fmt: skip
        self._people: list[str] = []
        if facts["address"] is not None:
            facts["sent"], facts["claimed"] = _sent(self.operations), _claimed(self.operations)
            self._people = _people(self.operations, facts)
            facts["touched"] = {order: spread(names, self._people) for order, names in facts["touched"].items()}
            facts["holding"] = spread(facts["holding"], self._people)
        self._facts = facts
        self._derived = [name for name in facts["holding"] if derived(name)]
        told = [VERBS[each.verb].stories(each, facts) if each.verb in VERBS else () for each in self.operations]
        self.stories = [self._followed(stories) for stories in told]
        named = {name for stories in self.stories for story in stories for step in story for name in touched(step)}
        if self._people:
            named |= _named(facts, self._people)
        self.names = sorted(named - self.left_out)
        self._told: dict[tuple[int, People], Sequence[Story]] = {}
        begun = self.history.facts["initial"]
        self._sets = [frozenset({tuple(_initial(name, begun) for name in self.names)})]
        self._numbers = {self._sets[0]: 0}

    def _followed(self, stories: Sequence[Story]) -> Sequence[Story]:
        return list(dict.fromkeys(self._without(story) for story in stories))

    def _stories(self, operation: int, state: State) -> Sequence[Story]:
        """Return the stories of an operation, as those stand that it names."""
        people = state[PEOPLE] if self._people else None
        if people is None:
            return self.stories[operation]
        # Who brought whom, and whose address it is, is nothing to others.
        who_stands = People(kept=people.kept, erased=people.erased)
        if (operation, who_stands) not in self._told:
            asked = self.operations[operation]
            told = stories_of(VERBS[asked.verb], asked, self._facts, who_stands) if asked.verb in VERBS else ()
            self._told[operation, who_stands] = self._followed(told)
        return self._told[operation, who_stands]

    def _without(self, story: Story) -> Story:
        """Return a story about what isn't left out; what depends on something that is can be anything afterwards."""
        steps: list[tuple[str, Move]] = []
        for step in story:
            if step[0] in self.left_out:
                names = {*touched(step), *(self._derived if step[0].startswith("order:") else ())}
                steps += [(name, forgets) for name in sorted(names - self.left_out)]
            else:
                steps.append(step)
        return tuple(steps)

    def step(self, state: int, operation: int) -> int:
        """Return the number of the states after an operation, -1 when there are none."""
        states = [dict(zip(self.names, values, strict=True)) for values in self._sets[state]]
        ends = frozenset(
            tuple(end[name] for name in self.names)
            for before in states
            for story in self._stories(operation, before)
            for after in follow(story, before)
            for end in within_budgets(forfeited(after, ANYTHING) if self._people else after)
        )
        if not ends:
            return -1
        if ends not in self._numbers:
            self._numbers[ends] = len(self._sets)
            self._sets.append(ends)
        return self._numbers[ends]


def _initial(name: str, begun: State) -> Any:
    kind = name.partition(":")[0]
    made: dict[str, Callable[..., Any]] = {
        "stock": Stock, "pool": Pool, "reward": Shelf, "budget": Budget, PEOPLE: People
    }  # fmt: skip
    return made[kind](*begun[name]) if kind in made and name in begun else begun.get(name, INITIAL[kind])


def _codes(operations: Sequence[Operation], facts: Facts) -> dict[str, list[str]]:
    """Return the codes that anybody was told of, by pool."""
    found: dict[str, dict[str, None]] = {}
    for each in operations:
        answer = each.answer or {}
        if each.verb == "claimCode" and "code" in answer:
            found.setdefault(answer["servedBy"]["id"], {})[answer["code"]["id"]] = None
        if each.verb in {"importCodes", "issueCodes"} and "batch" in answer:
            for edge in answer["batch"]["texts"]["edges"]:
                found.setdefault(each.input["poolId"], {})[edge["node"]["id"]] = None
        if each.verb == "reissueCode" and "code" in answer:
            found.setdefault(each.about["pool"], {})[answer["code"]["id"]] = None
        if each.verb == "redeemReward" and answer.get("redemption", {}).get("code"):
            pool = facts["rewards"][each.input["rewardId"]]["pool"]
            found.setdefault(pool, {})[answer["redemption"]["code"]["id"]] = None
        for of_hold in answer.get("hold", {}).get("rewards", ()):
            if of_hold["redemption"] and of_hold["redemption"]["code"]:
                pool = facts["rewards"][of_hold["reward"]["id"]]["pool"]
                found.setdefault(pool, {})[of_hold["redemption"]["code"]["id"]] = None
        if each.verb == "readCodes" and answer:
            for edge in answer["wallet"]["codes"]["edges"]:
                found.setdefault(edge["node"]["pool"]["id"], {})[edge["node"]["id"]] = None
    return {pool: sorted(codes) for pool, codes in found.items()}


def _people(operations: Sequence[Operation], facts: Facts) -> list[str]:
    """Return all that a world's people are named by: members, those that joined, and the address that waits."""
    joined = [
        (each.answer or {}).get("member", {}).get("id") for each in operations if each.verb == "acceptInvite"
    ]  # fmt: skip
    return list(dict.fromkeys([*facts["members"], *filter(None, joined), facts["address"]]))


def _sent(operations: Sequence[Operation]) -> list[tuple[str, str, str]]:
    """Return the invites that were sent, each with its sender and its address; of some nobody was told the id."""
    found = []
    for each in operations:
        if each.verb == "inviteMembers" and each.outcome != "refused":
            answer = each.answer or {}
            skipped = {one["email"] for one in answer.get("skipped", ())}
            new = [email for email in each.input["emails"] if email not in skipped]
            made = [one["id"] for one in answer.get("invites", ())] or [""] * len(new)
            found += [(invite, each.about["as"], email) for invite, email in zip(made, new, strict=True)]
    return found


def _claimed(operations: Sequence[Operation]) -> dict[str, tuple[int, int]]:
    """Return when codes were claimed: after the call, and before the answer."""
    return {
        each.answer["code"]["id"]: (each.called, each.returned)
        for each in operations
        if each.verb == "claimCode" and each.answer and each.answer.get("replayed") is False and each.returned
    }


def _named(facts: Facts, people: Sequence[str]) -> set[str]:
    """Return the names of all that a merging or an erasing may touch."""
    named = {PEOPLE, *(f"code:{code}" for codes in facts["codes"].values() for code in codes)}
    for each in people:
        named |= {f"wallet:{each}", f"quota:{each}", f"brought:{each}"}
        named |= {f"claims:{pool}/{each}" for pool in facts["limits"]}
    return named | {f"stock:{pool}" for pool in facts["limits"]}


def _touched(operations: Sequence[Operation], facts: Facts) -> dict[str, list[str]]:
    """Return the names of what a change of each order may touch: codes, stocks, pools, budgets, and whose wallets."""
    found: dict[str, dict[str, None]] = {}
    for each in operations:
        names = found.setdefault(each.input.get("orderId", ""), {})
        if each.verb in ORDERING:
            names |= dict.fromkeys(f"budget:{pool}" for pool in facts["budgets"])
            names |= dict.fromkeys([f"person:{who(each.input)}"] if facts["first"] or facts["audiences"] else [])
        if each.verb == "recordPurchase":
            names[f"wallet:{each.input['memberId']}"] = None
        if each.input.get("rewardIds"):
            names |= dict.fromkeys(_of_rewards(each.input["rewardIds"], who(each.input), facts))
        if each.input.get("points") or each.input.get("rewardIds"):
            names[f"wallet:{who(each.input)}"] = None
        if each.verb in {"redeemCodes", "amendOrder", "holdCheckout"}:
            for code in each.about["codes"]:
                things = (f"code:{code['id']}", f"stock:{code['pool']}", f"pool:{code['pool']}")
                names |= dict.fromkeys((*things, f"wallet:{who(each.input)}"))
                if code["owner"] != BEARER:
                    names[f"wallet:{code['owner']}"] = None
    return {order: list(names) for order, names in found.items()}


def _of_rewards(rewards: Sequence[str], member: str, facts: Facts) -> Iterator[str]:
    """Return the names of what rewards of a hold may touch, now or when they are had or go back."""
    for reward in rewards:
        yield f"reward:{reward}"
        pool = facts["rewards"][reward]["pool"]
        if pool is not None:
            yield from (f"pool:{pool}", f"stock:{pool}", f"claims:{pool}/{member}")


def _holding(operations: Sequence[Operation], facts: Facts) -> list[str]:
    """Return the names of what a hold may touch: it may take over what another order holds."""
    orders = {f"order:{each.input['orderId']}": None for each in operations if each.verb == "holdCheckout"}
    things = {name: None for names in _touched(operations, facts).values() for name in names}
    return list(orders | things)


@dataclass(frozen=True)
class Counterexample:
    """The few answers that can't all be true, whatever the other operations did."""

    case: Case
    told: list[Operation]


def counterexample(judge: Judge, history: History) -> Counterexample:
    """Make a history that is ILLEGAL small, so that what is left is impossible whatever all others did.

    The history is cut where it becomes impossible. Things go, with all that answers say of them; then operations that
    say nothing any more; then reads and refusals that aren't needed; then answers, as if nobody had been told.
    """

    def illegal(case: Case) -> bool:
        return judge.verdict(case, SMALLER_SECONDS_MAX) == ILLEGAL

    case = _first_impossible(history, illegal)
    for names in _to_leave_out(case.names):
        smaller = _without(case, case.left_out | names)
        if not names <= case.left_out and illegal(smaller):
            case = smaller
    for each in list(case.operations):
        smaller = Case(history, [other for other in case.operations if other is not each], case.left_out)
        if _moves_nothing(each) and illegal(smaller):
            case = smaller
    for each in list(reversed(case.operations)):
        if each.answer is not None:
            untold = [_unanswered(other) if other is each else other for other in case.operations]
            smaller = Case(history, untold, case.left_out)
            if illegal(smaller):
                case = smaller
    return Counterexample(case, [each for each in case.operations if each.answer is not None])


def _to_leave_out(names: Iterable[str]) -> Iterator[frozenset[str]]:
    """Return what to try to leave out, one after the other: all things of a kind, then single ones.

    The fewer things there are, the sooner it is known whether the rest is impossible. Last come those that say most to
    a person. Who stands for whom never goes.
    """
    found = sorted(set(names) - {PEOPLE}, key=lambda name: (name.startswith(("code:", "wallet:")), name))
    for _, of_kind in itertools.groupby(found, key=lambda name: name.partition(":")[0]):
        yield frozenset(of_kind)
    yield from (frozenset({name}) for name in found)


def _first_impossible(history: History, illegal: Callable[[Case], bool]) -> Case:
    """Cut the history after the first answer that makes it impossible."""
    ends = sorted(each.returned for each in history.operations if each.returned is not None)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if illegal(_until(history, ends[middle])):
            high = middle
        else:
            low = middle + 1
    return _until(history, ends[low])


def _until(history: History, end: int) -> Case:
    operations = []
    for each in history.operations:
        if each.called <= end:
            told = each.returned is not None and each.returned <= end
            operations.append(each if told or each.answer is None else _unanswered(each))
    return Case(history, operations)


def _unanswered(operation: Operation) -> Operation:
    """Return an operation as if nobody had been told of it: what it did, if anything, it had done when it was over."""
    return replace(operation, answer=None, returned=None, settled=None, settled_by=operation.over)


def _without(case: Case, left_out: frozenset[str]) -> Case:
    smaller = Case(case.history, case.operations, left_out)
    told = zip(smaller.operations, smaller.stories, strict=True)
    # What nobody was told of may have been all that explains the rest.
    speaking = [each for each, stories in told if any(stories) or not stories or each.answer is None]
    return Case(case.history, speaking, left_out)


def _moves_nothing(operation: Operation) -> bool:
    """Whether it is a read or a refusal: leaving it out can't make the rest impossible."""
    return operation.outcome == "refused" or (operation.answer is not None and VERBS[operation.verb].reads)


def timeline(found: Counterexample) -> str:
    """Return a counterexample as a person reads it: who asked what when, and was told what."""
    case, names = found.case, _Names()
    history = case.history
    told = {each.number for each in found.told}
    whole = Case(history, history.operations, case.left_out)
    end = max(each.returned or each.called for each in found.told)
    shown = [
        each for each, stories in zip(whole.operations, whole.stories, strict=True)
        if each.number in told
        or (each.called <= end and any(step[0] in case.names for story in stories for step in story))
    ]  # fmt: skip
    if len(shown) > SHOWN_MAX:
        shown = [each for each in history.operations if each.number in {other.number for other in case.operations}]
    if len(shown) > SHOWN_MAX:
        shown = [each for each in history.operations if each.number in told]
    begun = min(each.called for each in shown)
    ended = max(each.returned or each.called for each in shown)
    lines = [f"{history.name}: no order of these operations explains the answers marked with !, whatever others did."]
    lines += _beginnings(case, names)
    for each in sorted(shown, key=lambda operation: operation.called):
        mark, at = "!" if each.number in told else " ", (each.called - begun) / 1e6
        answer = "no answer" if each.answer is None else _told(each.answer, names)
        who = f"{each.client} as {names.short(each.about['as'])}" if "as" in each.about else each.client
        line = f"{who}: {each.verb}({names.flat(each.input)}) → {answer}"
        lines.append(f"  {mark} {at:8.1f} ms  {_bar(each, begun, ended)}  {line}")
    others = len(history.operations) - len(shown)
    lines.append(f"    {others} other operations of this world are about other things." if others else "")
    return "\n".join(lines).rstrip()


def _beginnings(case: Case, names: "_Names") -> Iterator[str]:
    """Return what things begin as, in a line each; of many of a kind that begin alike, how many there are."""
    begun = case.history.facts["initial"]
    for kind, of_kind in itertools.groupby(case.names, key=lambda name: name.partition(":")[0]):
        alike: dict[str, list[str]] = {}
        for name in of_kind:
            alike.setdefault(str(_initial(name, begun)), []).append(name)
        for beginning, found in alike.items():
            if len(found) > ALIKE_MAX:
                yield f"    {kind}: {len(found)} begin as {beginning}"
            else:
                yield from (f"    {names.short(name)} begins as {beginning}" for name in found)


def _bar(operation: Operation, begun: int, ended: int) -> str:
    """Draw from when to when an operation was under way."""
    scale = max(ended - begun, 1)
    left = (operation.called - begun) * (BAR_WIDTH - 1) // scale
    if operation.returned is None:
        return " " * left + "├" + "─" * (BAR_WIDTH - left - 2) + ">" * (left < BAR_WIDTH - 1)
    right = (operation.returned - begun) * (BAR_WIDTH - 1) // scale
    return (" " * left + ("│" if right == left else "├" + "─" * (right - left - 1) + "┤")).ljust(BAR_WIDTH)


def _told(answer: Mapping[str, Any], names: "_Names") -> str:
    kind = answer["__typename"]
    what = names.flat({name: value for name, value in answer.items() if name not in {"__typename", "message"}})
    return kind if not what else f"{what}" if kind == "Read" else f"{kind}({what})"


class _Names:
    """Short names for ids, in the order in which they come up: member 1, pool 2."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._numbers: dict[str, Iterator[int]] = {}

    def short(self, text: str) -> str:
        """Return a text with every id in it made short."""
        return "/".join(":".join(self._one(word) for word in part.split(":")) for part in text.split("/"))

    def _one(self, word: str) -> str:
        kind, separator, rest = word.partition("_")
        if not separator or len(rest) < 16:
            return word
        if word not in self._found:
            number = next(self._numbers.setdefault(kind, itertools.count(1)))
            self._found[word] = f"{kind}{number}"
        return self._found[word]

    def flat(self, value: Any) -> str:
        """Return what a value says, in a line."""
        match value:
            case dict():
                parts = [f"{name}: {self.flat(each)}" for name, each in value.items() if each is not None]
                return ", ".join(parts)
            case list():
                return "[" + "; ".join(self.flat(each) for each in value) + "]"
            case str():
                return self.short(value)
            case _:
                return str(value)
