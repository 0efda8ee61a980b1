"""fillPool: a job makes codes, batch by batch, until so many are available."""

import asyncio
import hashlib
from typing import Annotated, Final, TypedDict
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons import stock_levels
from app.coupons.edit_pool import PoolNotEditable
from app.coupons.generate_codes import BATCH_SIZE_MAX, INSERT_BATCH, encrypted_codes, write_codes
from app.coupons.rows import AVAILABLE_OF, pool_row
from app.coupons.send_codes import IN_STOCK
from app.coupons.types import PoolStatus
from app.jobs import turns
from app.jobs.rows import FIND_BY_KEY, BulkJobRow
from app.jobs.turns import HeldRow, Progress, TurnRow
from app.jobs.types import BulkJob
from app.merchants.tenants import tenant
from app.storage import doorbell
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, statement

AVAILABLE_MAX: Final = 1_000_000
#: So many codes more are ready than seem to be missing: what is claimed meanwhile is made with the same batch.
SPARE: Final = 100


@strawberry.input(description="A pool to fill.")
class FillPoolInput:
    pool_id: strawberry.ID = strawberry.field(
        description="The pool. While it is ACTIVE the job waits; DRAFT and PAUSED ones take codes."
    )
    available: int = strawberry.field(description="How many codes are to be available in the end: 1 to 1,000,000.")
    idempotency_key: str = strawberry.field(
        description="The same key again returns the same job; at most 200 characters."
    )


@strawberry.type(description="A job fills the pool.")
class FillPoolSuccess:
    job: BulkJob = strawberry.field(description="The job; `done` counts the codes that it has made.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key asked for it.")


FillPoolResult = Annotated[
    FillPoolSuccess | InvalidInput | NotFound | PoolNotEditable | IdempotencyKeyReused,
    strawberry.union("FillPoolResult", description="The job, or why there is none."),
]

REQUEST: Final = statement(
    BulkJobRow,
    f"""
WITH j AS (
    -- An archived pool is never filled. It can't be archived before this has committed.
    INSERT INTO bulk_job (merchant_id, id, kind, status, actor, pool_id, wanted, total, idempotency_key, request_hash,
                          requested_at)
    SELECT :merchant_id, :job_id, 'FILL', 'QUEUED', :actor, p.id, :available::int,
        greatest(:available::int - {AVAILABLE_OF.format(":pool_id")}, 0), :key, :request_hash, now()
    FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = :pool_id AND p.status <> 'ARCHIVED'
    ON CONFLICT DO NOTHING RETURNING *
), recorded AS (
    {event("job.requested", subject="j.id", source="j")}
)
SELECT {columns(BulkJobRow)} FROM j WHERE j.merchant_id = :merchant_id
""",
)


@mutation(
    description="Make codes in batches of at most 5,000, as a job, until so many are available. While the pool is "
    "ACTIVE the job is WAITING, and once it is ARCHIVED FAILED. ADMIN only."
)
async def fill_pool(
    info: Info, input: Annotated[FillPoolInput, strawberry.argument(description="The pool to fill.")]
) -> FillPoolResult:
    viewer = info.context.viewer
    problems = Problems()
    problems.number("available", input.available, least=1, most=AVAILABLE_MAX)
    problems.idempotency_key(input.idempotency_key)
    problems.refuse_if_any()
    pool_id = node_id("pool", "pool", input.pool_id)
    key = stored_key(viewer, input.idempotency_key)
    request_hash = hashlib.sha256(b"FILL" + pool_id.bytes + input.available.to_bytes(4)).digest()
    asked = await database().row(
        REQUEST,
        merchant_id=viewer.merchant_id,
        job_id=ids.new(),
        pool_id=pool_id,
        available=input.available,
        key=key,
        request_hash=request_hash,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if asked is not None:
        await doorbell.wake_workers(turns.WORKER_JOB)
        return FillPoolSuccess(job=BulkJob.of(asked), replayed=False)
    return await _earlier(viewer, pool_id, input, key, request_hash)


async def _earlier(
    viewer: Viewer, pool_id: UUID, input: FillPoolInput, key: bytes, request_hash: bytes
) -> FillPoolSuccess:
    """Return the job that this key asked for before. Raises Refused when there is none, or it was another request."""
    pool = await pool_row(database(), viewer, pool_id)
    if pool is None:
        raise not_found("pool", input.pool_id)
    earlier = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is None:
        message = "A pool that is ARCHIVED is never filled."
        raise Refused(PoolNotEditable(message=message, status=PoolStatus(pool["pool_status"]), fields=[]))
    if earlier["request_hash"] != request_hash:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another job."))
    return FillPoolSuccess(job=BulkJob.of(earlier), replayed=True)


class _PoolRow(TypedDict):
    status: str
    kind: str
    code_pattern: str | None


class _LookRow(_PoolRow):
    missing: int


LOOK: Final = statement(
    _LookRow,
    f"""
SELECT status, kind, code_pattern, :wanted::int - {AVAILABLE_OF.format(":pool_id")} AS missing
FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id
""",
)
# What else brings codes waits, so that it is exact how many are missing; a change of the status waits, too.
HOLD_POOL: Final = statement(
    _PoolRow,
    """
SELECT status, kind, code_pattern FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR NO KEY UPDATE
""",
)


async def fill_batch(job: TurnRow) -> bool:
    """Make the next batch of codes for a job. Returns whether the job can go on at once."""
    where = {"merchant_id": job["merchant_id"], "pool_id": job["pool_id"]}
    owner = await tenant(job["merchant_id"])
    look = await database().row(LOOK, wanted=job["wanted"], **where)
    if owner is None or look is None or job["pool_id"] is None:
        return False
    # Some may turn out not to be needed: what was there before is counted again under the pool's lock.
    batch_id, count = ids.new(), min(max(look["missing"], 0) + SPARE, BATCH_SIZE_MAX)
    codes = await asyncio.to_thread(
        encrypted_codes, owner.keys, look["kind"], count, job["pool_id"], batch_id, look["code_pattern"]
    )
    try:
        async with transaction(job["merchant_id"]) as tx:
            pool = await tx.row(HOLD_POOL, **where)
            held = await turns.hold(tx, job)
            if pool is None or held is None:
                return False
            if pool["code_pattern"] != look["code_pattern"]:
                return True
            return await _fill(tx, held, job["pool_id"], pool["status"], batch_id, codes)
    except asyncpg.UniqueViolationError:
        # A text that the merchant has already: chance, and the next ones are others.
        return True


async def _fill(
    tx: Tx, job: HeldRow, pool_id: UUID, status: str, batch_id: UUID, codes: list[tuple[object, ...]]
) -> bool:
    """Write a batch of those codes that are missing. The caller holds pool and job."""
    merchant_id = job["merchant_id"]
    stock = await tx.row(IN_STOCK, merchant_id=merchant_id, pool_id=pool_id)
    missing = max((job["wanted"] or 0) - (stock["available"] if stock is not None else 0), 0)
    if status == "ARCHIVED":
        await turns.fail(tx, job, "The pool is ARCHIVED; it takes no codes any more.")
        return False
    if not missing:
        await turns.finish(tx, job, Progress(total=job["done"]))
        return False
    if status == "ACTIVE":
        await turns.wait(tx, job, "The pool is ACTIVE; it takes codes while it is PAUSED.")
        return False
    made = codes[:missing]
    if made:
        await tx.row(
            INSERT_BATCH, merchant_id=merchant_id, batch_id=batch_id, pool_id=pool_id, size=len(made), key=None
        )
        await write_codes(tx, merchant_id, pool_id, batch_id, made, job["actor"])
        await tx.row(stock_levels.FORGET, merchant_id=merchant_id, pool_id=pool_id)
    progress = Progress(done=len(made), total=job["done"] + missing)
    if len(made) == missing:
        await turns.finish(tx, job, progress)
        return False
    await turns.go_on(tx, job, progress)
    return True
