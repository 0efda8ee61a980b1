"""activatePool, pausePool, archivePool: a pool moves along its lifecycle and no other way."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refusal, Refused, mutation, not_found
from app.coupons.rows import WAIT_FOR_POOL, PoolRow
from app.coupons.rules import TRANSITIONS
from app.coupons.types import PauseScope, Pool, PoolStatus
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement


@strawberry.input(description="A pool.")
class PoolIdInput:
    pool_id: strawberry.ID = strawberry.field(description="The pool.")
    scope: PauseScope | None = strawberry.field(
        default=PauseScope.ALL,
        description="For pausePool: ISSUING stops issuing and goes on honouring. Ignored elsewhere.",
    )


@strawberry.type(description="The pool has its new status.")
class ChangePoolStatusSuccess:
    pool: Pool = strawberry.field(description="The pool in its new status.")


@strawberry.type(description="The pool's life doesn't go this way.")
class PoolTransitionRejected(Refusal):
    from_: PoolStatus = strawberry.field(name="from", description="The pool's status.")
    to: PoolStatus = strawberry.field(description="The status that was asked for.")
    allowed: list[PoolStatus] = strawberry.field(description="The statuses it may go to.")


@strawberry.type(description="A pool without a code can't be activated; generate some.")
class PoolHasNoCodes(Refusal):
    """A pool in DRAFT that was never filled."""


@strawberry.type(description="The pool's end has passed; give it a later one before activating it.")
class PoolEnded(Refusal):
    ends_at: datetime = strawberry.field(description="When it ended.")


ChangePoolStatusResult = Annotated[
    ChangePoolStatusSuccess | NotFound | PoolTransitionRejected | PoolHasNoCodes | PoolEnded,
    strawberry.union("ChangePoolStatusResult", description="The pool in its new status, or why it keeps its own."),
]
#: Of callers that pause and activate at once each try loses to another; forty of each need more than five.
ATTEMPTS_MAX: Final = 100
WhichPool = Annotated[PoolIdInput, strawberry.argument(description="The pool.")]


class _StandingRow(TypedDict):
    status: str
    pause_scope: str | None
    ends_at: datetime | None
    has_ended: bool
    has_codes: bool


MOVE: Final = statement(
    PoolRow,
    f"""
WITH p AS (
    -- The row lock waits for batches that are being generated, and the condition is checked again after it. A pause
    -- changes its scope without another step of the life.
    UPDATE pool SET status = :status::text, pause_scope = :scope::text
    WHERE merchant_id = :merchant_id AND id = :pool_id
        AND (status = ANY(:sources::text[]) OR (status = :status::text AND pause_scope <> :scope::text))
        AND EXISTS (SELECT FROM code WHERE merchant_id = :merchant_id AND pool_id = :pool_id)
        AND (:status::text <> 'ACTIVE' OR ends_at IS NULL OR ends_at > now())
    RETURNING new.*, old.status AS status_before
), recorded AS (
    {
        event(
            [
                ("pool.activated", "status = 'ACTIVE'"),
                ("pool.pause_changed", "status = 'PAUSED' AND status_before = 'PAUSED'"),
                ("pool.paused", "status = 'PAUSED'"),
                ("pool.archived", ""),
            ],
            subject="id",
            source="p",
        )
    }
)
SELECT {columns(PoolRow)} FROM p
""",
)


async def _move(viewer: Viewer, node: str, to: PoolStatus, scope: PauseScope | None = None) -> ChangePoolStatusSuccess:
    """Do the guarded change; the refusal is worked out afterwards, from what stood in the way."""
    pool_id = node_id("pool", "pool", node)
    sources = [status for status, targets in TRANSITIONS.items() if to.value in targets]
    for _ in range(ATTEMPTS_MAX):
        moved = await database().row(
            MOVE,
            merchant_id=viewer.merchant_id,
            pool_id=pool_id,
            status=to.value,
            scope=None if scope is None else scope.value,
            sources=sources,
            event_id=ids.new(),
            actor=viewer.actor,
        )
        if moved is not None:
            if to is not PoolStatus.ACTIVE:
                await database().row(WAIT_FOR_POOL, merchant_id=viewer.merchant_id, pool_id=pool_id)
            return ChangePoolStatusSuccess(pool=Pool.of(moved))
        await _refuse_if_in_the_way(viewer, pool_id, node, to, scope)
    raise RuntimeError("a pool's status kept changing while it was to be changed")


LOOK: Final = statement(
    _StandingRow,
    """
SELECT status, pause_scope, ends_at, coalesce(ends_at <= now(), false) AS has_ended,
    EXISTS (SELECT FROM code WHERE merchant_id = :merchant_id AND pool_id = :pool_id) AS has_codes
FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id
""",
)


async def _refuse_if_in_the_way(
    viewer: Viewer, pool_id: UUID, node: str, to: PoolStatus, scope: PauseScope | None
) -> None:
    """Raise Refused with what is against the change. Returns when nothing is any more, so that it is tried again."""
    stands = await database().row(LOOK, merchant_id=viewer.merchant_id, pool_id=pool_id)
    if stands is None:
        raise not_found("pool", node)
    status = PoolStatus(stands["status"])
    allowed = [PoolStatus(target) for target in TRANSITIONS[status.value]]
    changes_scope = to is status is PoolStatus.PAUSED and scope is not None and stands["pause_scope"] != scope.value
    if to not in allowed and not changes_scope:
        message = f"A pool in {status.value} can't become {to.value}."
        raise Refused(PoolTransitionRejected(message=message, from_=status, to=to, allowed=allowed))
    if not stands["has_codes"]:
        raise Refused(PoolHasNoCodes(message="The pool has no codes yet; generate some before activating it."))
    if to is PoolStatus.ACTIVE and stands["has_ended"] and stands["ends_at"] is not None:
        message = "The pool's end has passed; give it a later one before activating it."
        raise Refused(PoolEnded(message=message, ends_at=stands["ends_at"]))


@mutation(description="Start issuing and honouring a pool's codes, or lift its pause. ADMIN only.")
async def activate_pool(info: Info, input: WhichPool) -> ChangePoolStatusResult:
    """DRAFT or PAUSED to ACTIVE."""
    return await _move(info.context.viewer, input.pool_id, PoolStatus.ACTIVE)


@mutation(
    description="Hold a pool: nothing is issued or honoured until it is activated again; with the scope ISSUING codes "
    "that are someone's are honoured all the same. Pausing again with another scope changes it. Lifetimes run on. "
    "ADMIN only."
)
async def pause_pool(info: Info, input: WhichPool) -> ChangePoolStatusResult:
    """ACTIVE to PAUSED."""
    return await _move(info.context.viewer, input.pool_id, PoolStatus.PAUSED, input.scope or PauseScope.ALL)


@mutation(description="Close a pool for good: all its codes that aren't spent expire. ADMIN only.")
async def archive_pool(info: Info, input: WhichPool) -> ChangePoolStatusResult:
    """ACTIVE or PAUSED to ARCHIVED."""
    return await _move(info.context.viewer, input.pool_id, PoolStatus.ARCHIVED)
