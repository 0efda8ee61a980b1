"""Pools: opened, filled, paused and archived, with an exact stock."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from app.stress.claims import key_used
from app.stress.operations import PASSED
from app.stress.things import Pool, Stock, Story, becomes, is_, stocked, where
from app.stress.verb import UNSEEN, Asked, Call, Says, Verb, mutation, reading

if TYPE_CHECKING:
    from app.stress.worlds import World


GENERATE: Final = mutation(
    "generateCodes",
    "GenerateCodesInput",
    "... on GenerateCodesSuccess { replayed batch { id size } } ... on PoolNotEditable { status }",
)


def _ask_generate(world: "World") -> Asked | None:
    # A pool that falls back to another never gets codes: that it is empty stays so.
    pools = [pool for pool in world.pools if pool not in world.facts["fallbacks"]]
    return {"poolId": world.rolls.choice(pools), "count": world.rolls.choice([1, 2]), "idempotencyKey": world.key()}, {}


def _generated(call: Call) -> Sequence[Story]:
    pool, count, key = (call.input[name] for name in ("poolId", "count", "idempotencyKey"))
    batch = (call.answer["batch"]["id"], call.answer["batch"]["size"]) if "batch" in call.answer else None
    if call.answer["replayed"]:
        return (((f"key:batch/{key}", where(lambda found: found in {UNSEEN, batch})),),)
    closed = where(lambda pool: pool.status in {"DRAFT", "PAUSED"})
    more = (f"stock:{pool}", stocked(available=count))
    return (((f"key:batch/{key}", becomes(None, batch or UNSEEN)), (f"pool:{pool}", closed), more),)


def _not_editable(call: Call) -> Sequence[Story]:
    told = where(lambda pool: pool.status == call.answer["status"] and pool.status in {"ACTIVE", "ARCHIVED"})
    return (((f"pool:{call.input['poolId']}", told),),)


def _change(name: str, before: tuple[str, ...], after: str, weight: float = 1) -> Verb:
    """Return the declaration of a verb that moves a pool from one status to another."""

    def ask(world: "World") -> Asked:
        return {"poolId": world.rolls.choice(world.pools)}, {}

    def done(call: Call) -> Sequence[Story]:
        def move(pool: Pool) -> Sequence[Pool]:
            return (pool._replace(status=after),) if pool.status in before else ()

        return (((f"pool:{call.input['poolId']}", move),),)

    def rejected(call: Call) -> Sequence[Story]:
        told = where(lambda pool: pool.status == call.answer["from"] and pool.status not in before)
        return (((f"pool:{call.input['poolId']}", told),),)

    document = mutation(name, "PoolIdInput", "... on PoolTransitionRejected { from }")
    says: dict[str, Says] = {"ChangePoolStatusSuccess": done, "PoolTransitionRejected": rejected}
    return Verb(name, document, ask, says, weight=weight)


def _ask_pool(world: "World") -> Asked:
    return {"id": world.rolls.choice(world.pools)}, {}


def _saw_stock(call: Call) -> Sequence[Story]:
    found = Stock(**{name: call.answer["stock"][name] for name in Stock._fields})
    return (((f"stock:{call.input['id']}", is_(found)),),)


def _ended(call: Call) -> Sequence[Story]:
    return (((f"pool:{call.input['poolId']}", lambda pool: (pool._replace(is_in_time=False),)),),)


STOCK: Final = "pool(id: $id) { stock { available allocated redeemed revoked expired } }"
#: A step that no client takes: from its `endsAt` on a pool issues and honours nothing.
END: Final = Verb("end", "", lambda _: None, {PASSED: _ended}, weight=0)
VERBS: Final = (
    END,
    _change("pausePool", ("ACTIVE",), "PAUSED"),
    _change("activatePool", ("DRAFT", "PAUSED"), "ACTIVE", weight=2),
    _change("archivePool", ("ACTIVE", "PAUSED"), "ARCHIVED", weight=0.2),
    Verb("generateCodes", GENERATE, _ask_generate, {
        "GenerateCodesSuccess": _generated, "PoolNotEditable": _not_editable,
        "IdempotencyKeyReused": key_used("key:batch/"),
    }, repeats=True),
    reading("readStock", STOCK, _ask_pool, _saw_stock),
)  # fmt: skip
