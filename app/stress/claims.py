"""Claims: a member gets codes of a pool, or of one that it falls back to, up to its limit."""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.aims import AUDIENCES, Budget, has_another
from app.stress.operations import PASSED, UNSEEN, Answer, Operation
from app.stress.things import Code, Leads, Move, Story, Then, becomes, changed, is_, stocked, where
from app.stress.verb import NOTHING, Asked, Call, Says, Verb, mutation, named, who

if TYPE_CHECKING:
    from app.stress.worlds import World

OPEN: Final = where(lambda pool: pool.is_open or pool.is_closing)
CLOSED: Final = where(lambda pool: not pool.is_open)
EMPTY: Final = where(lambda stock: stock.available == 0)

CLAIM: Final = mutation(
    "claimCode",
    "ClaimCodeInput",
    "... on ClaimCodeSuccess { replayed servedBy { id } code { id text masked } } ... on PoolNotActive { status } "
    "... on NotEligible { reason }",
)


def _ask_claim(world: "World") -> Asked:
    pool = world.rolls.choice(world.pools)
    return {"poolId": pool, "idempotencyKey": world.key(), **named(world.claimant())}, {}


def holds(pool: str, member: str) -> str:
    return f"claims:{pool}/{member}"


def allocated(code: str | None, pool: str, member: str) -> Story:
    """A code leaves the stock of its pool and is a member's, whose wallet changes; nobody reads that of an address."""
    allocated: Story = (
        (f"stock:{pool}", stocked(available=-1, allocated=1)), (f"wallet:{member}", changed()),
    )  # fmt: skip
    return allocated if code is None else ((f"code:{code}", becomes(Code(), Code(member))), *allocated)


def one_more(code: str, limit: int, *, least: int = 0) -> Move:
    return lambda codes: ((*codes, code),) if least <= len(codes) < limit else ()


def _has(slot: int, code: str) -> Move:
    """A code is in a slot: that of the claim, or what took its place."""
    return where(lambda codes: codes[slot : slot + 1] == (code,))


def _claimed(call: Call) -> Sequence[Story]:
    asked, key, member = call.input["poolId"], call.input["idempotencyKey"], who(call.input)
    served = call.answer["servedBy"]["id"] if "servedBy" in call.answer else None
    slots = range(call.facts["limits"][asked])
    if call.answer["replayed"]:
        code, full = call.answer["code"]["id"], call.facts["limits"][served or asked]
        has_all = where(lambda codes: len(codes) >= full and codes[-1] == code)
        return (
            *(
                ((f"key:claim/{key}", is_((holds(asked, member), slot))), (holds(asked, member), _has(slot, code)))
                for slot in slots
            ),
            ((f"key:claim/{key}", is_(None)), (holds(asked, member), has_all)),
            ((f"key:claim/{key}", is_(None)), (holds(served or asked, member), has_all)),
        )
    stories: list[Story] = []
    for pool in [served] if served else [asked, *call.facts["fallbacks"].get(asked, [])]:
        codes = [call.answer["code"]["id"]] if "code" in call.answer else [*call.facts["codes"].get(pool, ()), UNSEEN]
        for code, slot in itertools.product(codes, slots):
            story: Story = (
                *looked(call), (f"pool:{asked}", OPEN),
                (f"key:claim/{key}", becomes(None, (holds(asked, member), slot))),
                (holds(asked, member), one_more(code, slot + 1, least=slot)),
                *allocated(None if code == UNSEEN else code, pool, member),
            )  # fmt: skip
            if pool != asked:
                story = (
                    (f"stock:{asked}", EMPTY), (f"pool:{pool}", OPEN),
                    (holds(pool, member), one_more(code, call.facts["limits"][pool])), *story,
                )  # fmt: skip
            stories.append(story)
    return stories


def _learn_claim(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_code(answer["code"], answer["servedBy"]["id"], who(operation.input))


def _exhausted(call: Call) -> Sequence[Story]:
    """Neither the pool nor, while it is open, its fallback has a code."""
    asked = call.input["poolId"]
    first: Story = ((f"pool:{asked}", OPEN), (f"stock:{asked}", EMPTY))
    fallbacks = call.facts["fallbacks"].get(asked, [])
    if not fallbacks:
        return (first,)
    return tuple((*first, step) for pool in fallbacks for step in ((f"stock:{pool}", EMPTY), (f"pool:{pool}", CLOSED)))


def _not_active(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["status"] and not pool.is_open)
    return (((f"pool:{call.input['poolId']}", told),),)


def key_used(prefix: str) -> Says:
    return lambda call: (((f"{prefix}{call.input['idempotencyKey']}", where(lambda found: found is not None)),),)


def _backs_reward(call: Call) -> Sequence[Story]:
    return (NOTHING,) if call.input["poolId"] in call.facts["backing"] else ()


def _not_eligible(call: Call) -> Sequence[Story]:
    """The pool is for others, or its budget has nothing left."""
    pool = call.input["poolId"]
    told: dict[str, Story] = {"AUDIENCE": (_audience(pool, who(call.input), is_for=False),)}
    if pool in call.facts["budgets"]:
        told["BUDGET_SPENT"] = ((f"budget:{pool}", where(lambda budget: budget.left < 1)),)
    story = told.get(call.answer["reason"]) if pool in (*call.facts["budgets"], *call.facts["audiences"]) else None
    return () if story is None else (((f"pool:{pool}", OPEN), *story),)


def _audience(pool: str, claimant: str, *, is_for: bool) -> tuple[str, Move]:
    """Whether the claimant is one of those that a pool is for; with a purchase that stands it is ACTIVE."""
    name = f"person:{claimant}"

    def move(rank: int) -> Iterable[Then]:
        taken = AUDIENCES[rank]
        if "@" not in claimant and taken == ("ACTIVE",):
            bought = where(lambda person: any(each.by == "bought" for each in person) == is_for)
            yield Then(rank, ((name, bought),))
        elif (not taken or "@" not in claimant) == is_for:
            yield Then(rank, ())

    return f"audience:{pool}", Leads(move, (name,))


def looked(call: Call) -> Story:
    """An operation that looks first and doesn't look again has looked by now, and found what it was told."""
    return ((f"look:{call.number}", is_("so")),) if call.number in call.facts["looked"] else ()


def _look_of_claim(world: "World", operation: Operation, answer: Answer) -> dict[str, Any] | None:
    """A claim looks at the audience and the budget of the pool that it asks, and at nothing that follows."""
    pool = operation.input["poolId"]
    aimed = (*world.facts["budgets"], *world.facts["audiences"])
    return None if answer["replayed"] or pool not in aimed else {"pool": pool, "who": who(operation.input)}


def _looked(call: Call) -> Sequence[Story]:
    """At some moment of an operation what it looked at was so; or that wasn't what it was about."""
    found = call.input
    story: list[tuple[str, Move]] = [(f"look:{found['number']}", becomes(None, "so"))]
    if "codes" in found:
        another = partial(has_another, order=found["order"], codes=found["codes"])
        story.append((f"person:{found['who']}", where(lambda person: not another(person))))
    if found.get("pool") in call.facts["audiences"]:
        story.append(_audience(found["pool"], found["who"], is_for=True))
    if found.get("pool") in call.facts["budgets"]:
        story.append((f"budget:{found['pool']}", where(_has_some_left)))
    return (NOTHING, tuple(story))


def _has_some_left(budget: Budget) -> bool:
    return budget.left >= 1


#: A moment of an operation, between its call and its answer.
LOOKED: Final = Verb("looked", "", lambda _: None, {PASSED: _looked}, weight=0)
VERBS: Final = (
    LOOKED,
    Verb("claimCode", CLAIM, _ask_claim, {
        "ClaimCodeSuccess": _claimed, "PoolNotActive": _not_active, "PoolBacksReward": _backs_reward,
        "NotEligible": _not_eligible, "PoolExhausted": _exhausted, "IdempotencyKeyReused": key_used("key:claim/"),
    }, _learn_claim, looks=_look_of_claim, repeats=True, weight=4),
)  # fmt: skip
