"""activatePool, pausePool, archivePool: a pool moves along its lifecycle and no other way."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refusal, Refused, mutation, not_found
from app.coupons.rows import POOL_COLUMNS
from app.coupons.rules import TRANSITIONS
from app.coupons.types import Pool, PoolStatus
from app.storage.database import database


@strawberry.input(description="A pool.")
class PoolIdInput:
    """Which pool."""

    pool_id: strawberry.ID = strawberry.field(description="The pool.")


@strawberry.type(description="The pool has its new status.")
class ChangePoolStatusSuccess:
    """The pool."""

    pool: Pool = strawberry.field(description="The pool in its new status.")


@strawberry.type(description="The pool's life doesn't go this way.")
class PoolTransitionRejected(Refusal):
    """What was asked and what is possible."""

    from_: PoolStatus = strawberry.field(name="from", description="The pool's status.")
    to: PoolStatus = strawberry.field(description="The status that was asked for.")
    allowed: list[PoolStatus] = strawberry.field(description="The statuses it may go to.")


@strawberry.type(description="A pool without a code can't be activated; generate some.")
class PoolHasNoCodes(Refusal):
    """There is nothing to issue."""


ChangePoolStatusResult = Annotated[
    ChangePoolStatusSuccess | NotFound | PoolTransitionRejected | PoolHasNoCodes,
    strawberry.union("ChangePoolStatusResult", description="The pool in its new status, or why it keeps its own."),
]
ATTEMPTS_MAX: Final = 5
WhichPool = Annotated[PoolIdInput, strawberry.argument(description="The pool.")]

#: The row lock waits for batches that are being generated, and the condition is checked again after it.
MOVE: Final = f"""
WITH p AS (
    UPDATE pool SET status = $3
    WHERE merchant_id = $1 AND id = $2 AND status = ANY($4::text[])
        AND EXISTS (SELECT FROM code WHERE merchant_id = $1 AND pool_id = $2)
    RETURNING *
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT merchant_id, $5, $6, id, $7, now() FROM p
)
SELECT {POOL_COLUMNS} FROM p
"""

LOOK: Final = """
SELECT status, EXISTS (SELECT FROM code WHERE merchant_id = $1 AND pool_id = $2) AS has_codes
FROM pool WHERE merchant_id = $1 AND id = $2
"""


async def _move(viewer: Viewer, node: str, to: PoolStatus, event_type: str) -> ChangePoolStatusSuccess:
    """Do the guarded change; the refusal is worked out afterwards, from what stood in the way."""
    pool_id = node_id("pool", "pool", node)
    sources = [status for status, targets in TRANSITIONS.items() if to.value in targets]
    for _ in range(ATTEMPTS_MAX):
        moved = await database().row(
            MOVE, viewer.merchant_id, pool_id, to.value, sources, ids.new(), event_type, viewer.actor
        )
        if moved is not None:
            return ChangePoolStatusSuccess(pool=Pool.of(moved))
        await _refuse_if_in_the_way(viewer, pool_id, node, to)
    raise RuntimeError("a pool's status kept changing while it was to be changed")


async def _refuse_if_in_the_way(viewer: Viewer, pool_id: UUID, node: str, to: PoolStatus) -> None:
    """Raise Refused with what is against the change. Returns when nothing is any more, so that it is tried again."""
    stands = await database().row(LOOK, viewer.merchant_id, pool_id)
    if stands is None:
        raise not_found("pool", node)
    status = PoolStatus(stands["status"])
    allowed = [PoolStatus(target) for target in TRANSITIONS[status.value]]
    if to not in allowed:
        message = f"A pool in {status.value} can't become {to.value}."
        raise Refused(PoolTransitionRejected(message=message, from_=status, to=to, allowed=allowed))
    if not stands["has_codes"]:
        raise Refused(PoolHasNoCodes(message="The pool has no codes yet; generate some before activating it."))


@mutation(description="Start issuing and honouring a pool's codes, or lift its pause. ADMIN only.")
async def activate_pool(info: Info, input: WhichPool) -> ChangePoolStatusResult:
    """DRAFT or PAUSED to ACTIVE."""
    return await _move(info.context.viewer, input.pool_id, PoolStatus.ACTIVE, "pool.activated")


@mutation(description="Hold a pool: nothing is issued or honoured until it is activated again. ADMIN only.")
async def pause_pool(info: Info, input: WhichPool) -> ChangePoolStatusResult:
    """ACTIVE to PAUSED."""
    return await _move(info.context.viewer, input.pool_id, PoolStatus.PAUSED, "pool.paused")


@mutation(description="Close a pool for good. ADMIN only.")
async def archive_pool(info: Info, input: WhichPool) -> ChangePoolStatusResult:
    """ACTIVE or PAUSED to ARCHIVED."""
    return await _move(info.context.viewer, input.pool_id, PoolStatus.ARCHIVED, "pool.archived")
