"""Pools: opened, filled, improved and paused, with an exact stock."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from app.stress.aims import AUDIENCES, Budget
from app.stress.claims import key_used
from app.stress.operations import PASSED, UNSEEN, Answer, Operation
from app.stress.things import PERCENTS, Pool, Stock, Story, becomes, is_, stocked, where
from app.stress.verb import Asked, Call, Verb, mutation, reading

if TYPE_CHECKING:
    from app.stress.worlds import World


GENERATE: Final = mutation(
    "generateCodes",
    "GenerateCodesInput",
    "... on GenerateCodesSuccess { replayed batch { id size } } ... on PoolNotEditable { status }",
)


#: Whether the pool takes codes that are new.
closed: Final = where(lambda pool: pool.status in {"DRAFT", "PAUSED"})


def _ask_generate(world: "World") -> Asked | None:
    # A pool that falls back to another never gets codes: that it is empty stays so.
    pools = [pool for pool in world.pools if pool not in world.facts["fallbacks"]]
    return {"poolId": world.rolls.choice(pools), "count": world.rolls.choice([1, 2]), "idempotencyKey": world.key()}, {}


def _generated(call: Call) -> Sequence[Story]:
    pool, count, key = (call.input[name] for name in ("poolId", "count", "idempotencyKey"))
    batch = (call.answer["batch"]["id"], call.answer["batch"]["size"]) if "batch" in call.answer else None
    if call.answer["replayed"]:
        return (((f"key:batch/{key}", where(lambda found: found in {UNSEEN, batch})),),)
    more = (f"stock:{pool}", stocked(available=count))
    return (((f"key:batch/{key}", becomes(None, batch or UNSEEN)), (f"pool:{pool}", closed), more),)


def not_editable(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["status"] and pool.status in {"ACTIVE", "ARCHIVED"})
    return (((f"pool:{call.input['poolId']}", told),),)


_CHANGE: Final = "... on PoolTransitionRejected { from }"


def _ask_activate(world: "World") -> Asked:
    return {"poolId": world.rolls.choice(world.pools)}, {}


def _activated(call: Call) -> Sequence[Story]:
    def move(pool: Pool) -> Sequence[Pool]:
        return (pool._replace(status="ACTIVE", pause_scope=None),) if pool.status in {"DRAFT", "PAUSED"} else ()

    return (((f"pool:{call.input['poolId']}", move),),)


def _not_activated(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["from"] == "ACTIVE")
    return (((f"pool:{call.input['poolId']}", told),),)


def _ask_pause(world: "World") -> Asked:
    return {"poolId": world.rolls.choice(world.pools), "scope": world.rolls.choice(["ALL", "ISSUING"])}, {}


def _paused(call: Call) -> Sequence[Story]:
    scope = call.input["scope"]

    def move(pool: Pool) -> Sequence[Pool]:
        may = pool.status == "ACTIVE" or (pool.status == "PAUSED" and pool.pause_scope != scope)
        return (pool._replace(status="PAUSED", pause_scope=scope, is_closing=True),) if may else ()

    return (((f"pool:{call.input['poolId']}", move),),)


def _learn_activation(world: "World", operation: Operation, _: Answer) -> None:
    world.paused.discard(operation.input["poolId"])


def _learn_pause(world: "World", operation: Operation, _: Answer) -> None:
    world.paused.add(operation.input["poolId"])
    if operation.returned is not None:
        about = {"poolId": operation.input["poolId"]}
        world.recorder.passes(SETTLED.name, about, operation.returned + 1, within_seconds=0)


def _not_paused(call: Call) -> Sequence[Story]:
    status, scope = call.answer["from"], call.input["scope"]
    told = where(lambda pool: pool.status == status and (status == "DRAFT" or pool.pause_scope == scope))
    return (((f"pool:{call.input['poolId']}", told),),)


EDIT: Final = mutation("editPool", "EditPoolInput", "... on PoolNotEditable { status }")


#: What the codes of a pool with a budget may take off together: at first the least.
BUDGETS: Final = (100, 200, 300)


#: When pools of a world of campaigns end, the nearest first.
ENDS: Final = ("2900-01-01T00:00:00Z", "2950-01-01T00:00:00Z", None)


def _ask_edit(world: "World") -> Asked:
    pool, terms = world.rolls.choice(world.pools), {"percentOff": world.rolls.choice(PERCENTS)}
    if pool in world.facts["budgets"] and world.rolls.random() < 0.6:
        money = {"amountMinor": world.rolls.choice(BUDGETS), "currency": world.currency}
        return {"poolId": pool, "maximumTotalDiscount": money}, {}
    if pool in world.facts["audiences"] and world.rolls.random() < 0.8:
        return {"poolId": pool, "audience": list(world.rolls.choice(AUDIENCES))}, {}
    if pool in world.facts["ends"] and world.rolls.random() < 0.8:
        return {"poolId": pool, "endsAt": world.rolls.choice(ENDS)}, {}
    return {"poolId": pool, **terms}, {}


def _term(call: Call) -> tuple[str, Any]:
    """Return the thing that an edit is about, and what it is to be: each only grows."""
    pool = call.input["poolId"]
    if "maximumTotalDiscount" in call.input:
        return f"budget:{pool}", call.input["maximumTotalDiscount"]["amountMinor"]
    if "audience" in call.input:
        return f"audience:{pool}", AUDIENCES.index(tuple(call.input["audience"]))
    if "endsAt" in call.input:
        return f"end:{pool}", ENDS.index(call.input["endsAt"])
    return f"percent:{pool}", call.input["percentOff"]


def _edited(call: Call) -> Sequence[Story]:
    name, value = _term(call)

    def move(before: Any) -> Sequence[Any]:
        if isinstance(before, Budget):
            return (before._replace(limit=value),) if value >= before.limit else ()
        return (value,) if value >= before else ()

    return (((name, move),),)


def _not_edited(call: Call) -> Sequence[Story]:
    name, value = _term(call)
    return (((name, where(lambda found: (found.limit if isinstance(found, Budget) else found) > value)),),)


def _ask_pool(world: "World") -> Asked:
    return {"id": world.rolls.choice(world.pools)}, {}


def _saw_stock(call: Call) -> Sequence[Story]:
    found = Stock(**{name: call.answer["stock"][name] for name in Stock._fields})
    return (((f"stock:{call.input['id']}", is_(found)),),)


def _begun(call: Call) -> Sequence[Story]:
    return (((f"pool:{call.input['poolId']}", lambda pool: (pool._replace(has_begun=True),)),),)


def _settled(call: Call) -> Sequence[Story]:
    return (((f"pool:{call.input['poolId']}", lambda pool: (pool._replace(is_closing=False),)),),)


STOCK: Final = "pool(id: $id) { stock { available allocated redeemed revoked expired } }"
#: Steps that no client takes. From its `startsAt` on a pool issues and honours codes (from its end on a job would
#: change wallets at times that nobody is told); and once a pause was answered, nothing comes that found the pool open.
BEGIN: Final = Verb("begin", "", lambda _: None, {PASSED: _begun}, weight=0)
SETTLED: Final = Verb("settled", "", lambda _: None, {PASSED: _settled}, weight=0)
VERBS: Final = (
    BEGIN,
    SETTLED,
    Verb("pausePool", mutation("pausePool", "PoolIdInput", _CHANGE), _ask_pause, {
        "ChangePoolStatusSuccess": _paused, "PoolTransitionRejected": _not_paused,
    }, _learn_pause),
    Verb("activatePool", mutation("activatePool", "PoolIdInput", _CHANGE), _ask_activate, {
        "ChangePoolStatusSuccess": _activated, "PoolTransitionRejected": _not_activated,
    }, _learn_activation, weight=2),
    Verb("editPool", EDIT, _ask_edit, {"EditPoolSuccess": _edited, "PoolNotEditable": _not_edited}, weight=0.5),
    Verb("generateCodes", GENERATE, _ask_generate, {
        "GenerateCodesSuccess": _generated, "PoolNotEditable": not_editable,
        "IdempotencyKeyReused": key_used("key:batch/"),
    }, repeats=True),
    reading("readStock", STOCK, _ask_pool, _saw_stock),
)  # fmt: skip
