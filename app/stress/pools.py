"""Pools: each is opened, paused and opened again, and its stock is exact."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from app.stress.operations import PASSED
from app.stress.things import Pool, Stock, Story, is_, where
from app.stress.verb import Asked, Call, Verb, mutation, reading

if TYPE_CHECKING:
    from app.stress.worlds import World


def _change(name: str, before: tuple[str, ...], after: str) -> Verb:
    def ask(world: "World") -> Asked:
        return {"poolId": world.rolls.choice(world.pools)}, {}

    def done(call: Call) -> Sequence[Story]:
        def move(pool: Pool) -> Sequence[Pool]:
            return (pool._replace(status=after),) if pool.status in before else ()

        return (((f"pool:{call.input['poolId']}", move),),)

    def rejected(call: Call) -> Sequence[Story]:
        moves = where(lambda pool: pool.status == call.answer["from"] and pool.status not in before)
        return (((f"pool:{call.input['poolId']}", moves),),)

    document = mutation(name, "PoolIdInput", "... on PoolTransitionRejected { from }")
    return Verb(name, document, ask, {"ChangePoolStatusSuccess": done, "PoolTransitionRejected": rejected})


def _ask_pool(world: "World") -> Asked:
    return {"id": world.rolls.choice(world.pools)}, {}


def _saw_stock(call: Call) -> Sequence[Story]:
    found = Stock(**{name: call.answer["stock"][name] for name in Stock._fields})
    return (((f"stock:{call.input['id']}", is_(found)),),)


def _ended(call: Call) -> Sequence[Story]:
    return (((f"pool:{call.input['poolId']}", lambda pool: (pool._replace(is_in_time=False),)),),)


#: A step that no client takes: from its `endsAt` on a pool issues and honours nothing.
END: Final = Verb("end", "", lambda _: None, {PASSED: _ended}, weight=0)
VERBS: Final = (
    END,
    _change("pausePool", ("ACTIVE",), "PAUSED"),
    _change("activatePool", ("DRAFT", "PAUSED"), "ACTIVE"),
    reading("readStock", "pool(id: $id) { stock { available allocated redeemed revoked } }", _ask_pool, _saw_stock),
)
