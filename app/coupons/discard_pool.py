"""discardPool: a draft goes, with its codes."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refused, mutation, not_found
from app.coupons.change_pool_status import WhichPool
from app.coupons.edit_pool import PoolNotEditable
from app.coupons.types import PoolStatus
from app.jobs.cancel_job import cancel_where
from app.storage import events
from app.storage.database import Tx, transaction
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


@strawberry.type(description="The pool and its codes are gone; the texts of its codes are free again.")
class DiscardPoolSuccess:
    pool_id: strawberry.ID = strawberry.field(description="What the pool's id was.")


DiscardPoolResult = Annotated[
    DiscardPoolSuccess | NotFound | PoolNotEditable,
    strawberry.union("DiscardPoolResult", description="That the pool is gone, or why it stays."),
]


class _HeldRow(TypedDict):
    status: str


class _NamedRow(TypedDict):
    by_pool: bool
    by_reward: bool
    batch_id: UUID | None


class _GoneRow(TypedDict):
    gone: int


# Whoever activates, fills or edits it waits, and finds it gone; so does who wants to name it.
HOLD: Final = statement(
    _HeldRow, "SELECT status FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR UPDATE"
)
# A statement of its own: it sees what the lock waited for.
LOOK: Final = statement(
    _NamedRow,
    """
SELECT EXISTS (SELECT FROM pool WHERE merchant_id = :merchant_id AND fallback_pool_id = :pool_id) AS by_pool,
    EXISTS (SELECT FROM reward WHERE merchant_id = :merchant_id AND pool_id = :pool_id) AS by_reward,
    (SELECT id FROM code_batch WHERE merchant_id = :merchant_id AND pool_id = :pool_id ORDER BY id LIMIT 1) AS batch_id
""",
)


@mutation(
    description="Delete a pool in DRAFT with its codes; those that have an owner leave its wallet. A large one that "
    "takes too long goes on where it was when it is asked for again. ADMIN only."
)
async def discard_pool(info: Info, input: WhichPool) -> DiscardPoolResult:
    """Delete a batch per transaction, and the pool with the last: one that is interrupted goes on when asked again."""
    viewer = info.context.viewer
    pool_id = node_id("pool", "pool", input.pool_id)
    while not await _discard_next(viewer, pool_id, input.pool_id):
        pass
    return DiscardPoolSuccess(pool_id=strawberry.ID(ids.encode("pool", pool_id)))


async def _discard_next(viewer: Viewer, pool_id: UUID, node: str) -> bool:
    """Delete the pool's first batch, or, once it has none, the pool: returns whether that is gone."""
    async with transaction(viewer.merchant_id) as tx:
        held = await tx.row(HOLD, merchant_id=viewer.merchant_id, pool_id=pool_id)
        if held is None:
            raise not_found("pool", node)
        named = await tx.row(LOOK, merchant_id=viewer.merchant_id, pool_id=pool_id)
        if named is None:
            raise RuntimeError("a SELECT without FROM returned no row")
        _refuse_if_in_use(PoolStatus(held["status"]), named)
        await tx.rows(CANCEL_JOBS, merchant_id=viewer.merchant_id, pool_id=pool_id, actor=viewer.actor)
        if named["batch_id"] is not None:
            await _discard_batch(tx, viewer, named["batch_id"])
            return False
        await _discard_empty(tx, viewer, pool_id)
    return True


def _refuse_if_in_use(status: PoolStatus, named: _NamedRow) -> None:
    message = None
    if status is not PoolStatus.DRAFT:
        message = f"A pool in {status.value} can't be discarded; archive it."
    elif named["by_pool"]:
        message = "Another pool falls back to it; give that one another fallback first."
    elif named["by_reward"]:
        message = "A reward gives its codes."
    if message is not None:
        raise Refused(PoolNotEditable(message=message, status=status, fields=[]))


class _CodeRow(TypedDict):
    id: UUID


FIND_TAKEN: Final = statement(
    _CodeRow,
    """
SELECT id FROM code
WHERE merchant_id = :merchant_id AND batch_id = :batch_id AND pool_id = (
    SELECT pool_id FROM code_batch WHERE merchant_id = :merchant_id AND id = :batch_id
) AND state IN ('ALLOCATED', 'EXPIRED', 'REVOKED') ORDER BY id FOR UPDATE
""",
)
DROP_CLAIMS: Final = statement(
    NoRow, "DELETE FROM claim WHERE merchant_id = :merchant_id AND code_id = ANY(:code_ids::uuid[])"
)
DROP_LISTED: Final = statement(
    NoRow, "DELETE FROM bearer_code WHERE merchant_id = :merchant_id AND code_id = ANY(:code_ids::uuid[])"
)
# The order of locks is codes by id, then wallets by member. What leaves the stock is written down here, too.
DISCARD: Final = statement(
    ChangeRow,
    f"""
WITH gone AS (
    DELETE FROM code WHERE merchant_id = :merchant_id AND batch_id = :batch_id AND pool_id = (
        SELECT pool_id FROM code_batch WHERE merchant_id = :merchant_id AND id = :batch_id
    )
    RETURNING *
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), -count(*) FILTER (WHERE state = 'AVAILABLE'),
        -count(*) FILTER (WHERE state = 'ALLOCATED'), 0, -count(*) FILTER (WHERE state = 'EXPIRED'),
        -count(*) FILTER (WHERE state = 'REVOKED')
    FROM gone GROUP BY pool_id
), changed AS (
    SELECT t.event_id, gone.id AS subject_id, gone.member_id, NULL::bytea AS reason
    FROM gone JOIN unnest(:code_ids::uuid[], :event_ids::uuid[]) AS t (code_id, event_id) ON t.code_id = gone.id
), {raise_wallets("code.discarded")}
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)
DROP_BATCH: Final = statement(NoRow, "DELETE FROM code_batch WHERE merchant_id = :merchant_id AND id = :batch_id")


async def _discard_batch(tx: Tx, viewer: Viewer, batch_id: UUID) -> None:
    """Delete a batch, whole. What a code that isn't in stock any more tells of itself is that it is gone."""
    merchant_id = viewer.merchant_id
    taken = [row["id"] for row in await tx.rows(FIND_TAKEN, merchant_id=merchant_id, batch_id=batch_id)]
    for each in (DROP_CLAIMS, DROP_LISTED):
        await tx.row(each, merchant_id=merchant_id, code_ids=taken)
    changes = await tx.rows(
        DISCARD,
        merchant_id=merchant_id,
        batch_id=batch_id,
        code_ids=taken,
        event_ids=[ids.new() for _ in taken],
        actor=viewer.actor,
    )
    await tx.row(DROP_BATCH, merchant_id=merchant_id, batch_id=batch_id)
    await events.record(tx, merchant_id, "codes.discarded", batch_id, viewer.actor)
    for change in changes:
        ring_wallet(tx, merchant_id, change)


DROP_STOCK: Final = statement(
    _GoneRow,
    """
WITH gone AS (
    DELETE FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = :pool_id RETURNING id
)
SELECT count(*) AS gone FROM gone
""",
)
DROP_ALERTS: Final = statement(NoRow, "DELETE FROM stock_alert WHERE merchant_id = :merchant_id AND pool_id = :pool_id")
DROP_TERMS: Final = statement(NoRow, "DELETE FROM pool_terms WHERE merchant_id = :merchant_id AND pool_id = :pool_id")
# Jobs stay, without their pool. One that was filling it is cancelled first: it would make again what is deleted.
CANCEL_JOBS: Final = cancel_where("pool_id = :pool_id")
LET_JOBS_GO: Final = statement(
    NoRow, "UPDATE bulk_job SET pool_id = NULL WHERE merchant_id = :merchant_id AND pool_id = :pool_id"
)
DROP_POOL: Final = statement(NoRow, "DELETE FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id")


async def _discard_empty(tx: Tx, viewer: Viewer, pool_id: UUID) -> None:
    where = {"merchant_id": viewer.merchant_id, "pool_id": pool_id}
    # A fold that was under way has left a row that the first look didn't see.
    while (dropped := await tx.row(DROP_STOCK, **where)) is not None and dropped["gone"]:
        pass
    for each in (LET_JOBS_GO, DROP_ALERTS, DROP_TERMS, DROP_POOL):
        await tx.row(each, **where)
    await events.record(tx, viewer.merchant_id, "pool.discarded", pool_id, viewer.actor)
