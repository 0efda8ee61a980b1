"""revokeCodes: a job revokes all codes of a pool that match at the moment of the call."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id, stored_key
from app.api.operations import (
    IdempotencyKeyReused,
    Info,
    InvalidInput,
    NotFound,
    Refusal,
    Refused,
    mutation,
    not_found,
)
from app.api.reasons import REASON_LENGTH_MAX
from app.coupons import stock_levels
from app.coupons.recycle import recycle
from app.coupons.revive_codes import revive_needed
from app.coupons.revoke_code import IS_REVOCABLE
from app.coupons.rows import IS_OVER, SHOWN_STATE
from app.coupons.types import CodeState
from app.jobs import turns
from app.jobs.cancel_job import cancel_where
from app.jobs.rows import FIND_BY_KEY, BulkJobRow
from app.jobs.turns import HeldRow, Progress, TurnRow
from app.jobs.types import BulkJob
from app.merchants.tenants import decrypted, tenant
from app.storage import doorbell
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import raise_wallets, ring_wallets

#: Codes of one batch. Whoever claims or redeems one of them waits for no more than these.
PAGE: Final = 500
COUNT_MAX: Final = 2**31 - 1
_LIVE: Final = (CodeState.AVAILABLE, CodeState.ALLOCATED)


@strawberry.input(description="Codes to revoke: all of a pool that match everything that is given.")
class RevokeCodesInput:
    pool_id: strawberry.ID = strawberry.field(description="The pool.")
    batch_id: strawberry.ID | None = strawberry.field(
        default=None, description="Only codes of this batch; of one that was issued, its bearer codes."
    )
    campaign_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="Only codes that this campaign allocated, and those that took their places. Its job is cancelled.",
    )
    state: CodeState | None = strawberry.field(
        default=None, description="Only codes in this state: AVAILABLE or ALLOCATED. Both unless told."
    )
    expected_count: int = strawberry.field(description="How many may match at most; of more, none is revoked.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    recycle: bool = strawberry.field(
        default=False,
        description="Whether fresh codes take their places in the pool; not in one that is ARCHIVED or past its end.",
    )
    idempotency_key: str = strawberry.field(
        description="The same key again returns the same job; at most 200 characters."
    )


@strawberry.type(description="A job revokes the codes that matched when it was asked for.")
class RevokeCodesSuccess:
    job: BulkJob = strawberry.field(
        description="The job; `failed` counts codes that were spent, held or dead, or in another state, by their turn."
    )
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key asked for it.")


@strawberry.type(description="More codes match than the caller expects; none is revoked.")
class CountDiffers(Refusal):
    count: int = strawberry.field(description="How many match.")


RevokeCodesResult = Annotated[
    RevokeCodesSuccess | InvalidInput | NotFound | CountDiffers | IdempotencyKeyReused,
    strawberry.union("RevokeCodesResult", description="The job, or why there is none."),
]


class _Asked(TypedDict):
    """The codes that match, by checked ids."""

    pool_id: UUID
    batch_id: UUID | None
    campaign_id: UUID | None
    state: str | None


class _NamedRow(TypedDict):
    has_batch: bool
    has_campaign: bool


#: The pool first, then its jobs: the order of all who lock both.
HOLD_POOL: Final = statement(NoRow, "SELECT FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR KEY SHARE")
LOOK: Final = statement(
    _NamedRow,
    """
SELECT EXISTS (
        SELECT FROM code_batch WHERE merchant_id = :merchant_id AND id = :batch_id AND pool_id = :pool_id
    ) AS has_batch,
    EXISTS (
        SELECT FROM campaign WHERE merchant_id = :merchant_id AND id = :campaign_id AND pool_id = :pool_id
    ) AS has_campaign
""",
)
REQUEST: Final = statement(
    BulkJobRow,
    f"""
WITH j AS (
    INSERT INTO bulk_job (merchant_id, id, kind, status, actor, pool_id, state, recycle, reason, idempotency_key,
                          request_hash, requested_at)
    VALUES (:merchant_id, :job_id, 'REVOKE', 'QUEUED', :actor, :pool_id, :state, :recycle, :reason, :key,
        :request_hash, now())
    ON CONFLICT DO NOTHING RETURNING *
), recorded AS (
    {event("job.requested", subject="j.id", source="j")}
)
SELECT {columns(BulkJobRow)} FROM j WHERE j.merchant_id = :merchant_id
""",
)
#: Waits for the batch of the campaign that is under way; what that allocates matches, too.
CANCEL_CAMPAIGN: Final = cancel_where("campaign_id = :campaign_id")
# The moment of the call is this statement's.
WRITE_DOWN: Final = statement(
    BulkJobRow,
    f"""
WITH matching AS (
    SELECT c.id, (row_number() OVER (ORDER BY c.id) - 1) / :page AS number
    FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.pool_id = :pool_id AND c.state NOT IN ('REDEEMED', 'REVOKED')
        AND {SHOWN_STATE} IN ('AVAILABLE', 'ALLOCATED') AND (:state::text IS NULL OR {SHOWN_STATE} = :state)
        AND (:batch_id::uuid IS NULL OR c.batch_id = :batch_id OR EXISTS (
            SELECT FROM bearer_code b
            WHERE b.merchant_id = :merchant_id AND b.batch_id = :batch_id AND b.code_id = c.id
        ))
        AND (:campaign_id::uuid IS NULL OR EXISTS (
            SELECT FROM delivery d
            WHERE d.merchant_id = :merchant_id AND d.campaign_id = :campaign_id AND d.code_id = c.id AND d.allocated
        ))
), pages AS (
    INSERT INTO bulk_job_page (merchant_id, job_id, number, ids)
    SELECT :merchant_id, :job_id, number, array_agg(id ORDER BY id) FROM matching GROUP BY number
    RETURNING cardinality(ids) AS codes
)
UPDATE bulk_job j SET total = (SELECT coalesce(sum(codes), 0) FROM pages)
WHERE j.merchant_id = :merchant_id AND j.id = :job_id RETURNING {columns(BulkJobRow)}
""",
)


@mutation(
    description="Revoke all codes of a pool that match at the moment of the call, as a job; refused when more match "
    "than expected. Their texts are never used again. ADMIN only."
)
async def revoke_codes(
    info: Info, input: Annotated[RevokeCodesInput, strawberry.argument(description="What to revoke.")]
) -> RevokeCodesResult:
    viewer = info.context.viewer
    problems = Problems()
    if input.state is not None and input.state not in _LIVE:
        problems.add("state", "must be AVAILABLE or ALLOCATED")
    problems.number("expectedCount", input.expected_count, least=0, most=COUNT_MAX)
    reason = problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
    problems.idempotency_key(input.idempotency_key)
    problems.refuse_if_any()
    asked: _Asked = {
        "pool_id": node_id("pool", "pool", input.pool_id),
        "batch_id": None if input.batch_id is None else node_id("batch", "batch", input.batch_id),
        "campaign_id": None if input.campaign_id is None else node_id("campaign", "campaign", input.campaign_id),
        "state": None if input.state is None else input.state.value,
    }
    key = stored_key(viewer, input.idempotency_key)
    request_hash = _hash(viewer, asked, input, reason)
    async with transaction(viewer.merchant_id) as tx:
        job = await _request(tx, viewer, asked, input, reason, key, request_hash)
    if job is not None:
        await doorbell.wake_workers(turns.WORKER_JOB)
        return RevokeCodesSuccess(job=BulkJob.of(job), replayed=False)
    earlier = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is None or earlier["request_hash"] != request_hash:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another job."))
    return RevokeCodesSuccess(job=BulkJob.of(earlier), replayed=True)


def _hash(viewer: Viewer, asked: _Asked, input: RevokeCodesInput, reason: str) -> bytes:
    """Return what tells this request from another one."""
    told = ("REVOKE", *asked.values(), input.expected_count, input.recycle, reason)
    return viewer.tenant.keys.request_index("\0".join(map(str, told)))


async def _request(
    tx: Tx, viewer: Viewer, asked: _Asked, input: RevokeCodesInput, reason: str, key: bytes, request_hash: bytes
) -> BulkJobRow | None:
    """Write the job down with the codes that match. Returns None when the key has a job already. Raises Refused."""
    merchant_id, job_id = viewer.merchant_id, ids.new()
    if await tx.row(HOLD_POOL, merchant_id=merchant_id, pool_id=asked["pool_id"]) is None:
        raise not_found("pool", input.pool_id)
    await _refuse_if_missing(tx, viewer, asked, input)
    requested = await tx.row(
        REQUEST,
        merchant_id=merchant_id,
        job_id=job_id,
        pool_id=asked["pool_id"],
        state=asked["state"],
        recycle=input.recycle,
        reason=viewer.tenant.keys.encrypt(job_id, "reason", reason),
        key=key,
        request_hash=request_hash,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if requested is None:
        return None
    if asked["campaign_id"] is not None:
        await tx.rows(CANCEL_CAMPAIGN, merchant_id=merchant_id, campaign_id=asked["campaign_id"], actor=viewer.actor)
    (job,) = await tx.many(WRITE_DOWN, merchant_id=merchant_id, job_id=job_id, page=PAGE, **asked)
    if job["job_total"] > input.expected_count:
        message = f"{job['job_total']} codes match, more than expected."
        raise Refused(CountDiffers(message=message, count=job["job_total"]))
    return job


async def _refuse_if_missing(tx: Tx, viewer: Viewer, asked: _Asked, input: RevokeCodesInput) -> None:
    """Raise Refused(NotFound) for a batch or a campaign that isn't the pool's."""
    if input.batch_id is None and input.campaign_id is None:
        return
    named = await tx.row(
        LOOK,
        merchant_id=viewer.merchant_id,
        pool_id=asked["pool_id"],
        batch_id=asked["batch_id"],
        campaign_id=asked["campaign_id"],
    )
    if input.batch_id is not None and (named is None or not named["has_batch"]):
        raise not_found("batch", input.batch_id)
    if input.campaign_id is not None and (named is None or not named["has_campaign"]):
        raise not_found("campaign", input.campaign_id)


class RevokedRow(TypedDict):
    """A code that was revoked, whose it was, and its pool's terms for a fresh one."""

    member_id: UUID | None
    kind: str
    code_pattern: str | None
    is_over: bool


# Each code is judged again: it may be spent, dead or in another state by now. The order of locks is codes by id, then
# wallets by member.
REVOKE: Final = statement(
    RevokedRow,
    f"""
WITH live AS (
    SELECT c.id, c.member_id, c.state, p.kind, p.code_pattern, {IS_OVER} AS is_over
    FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(:code_ids::uuid[]) AND {IS_REVOCABLE}
        AND (:state::text IS NULL OR c.state = :state)
    ORDER BY c.id FOR UPDATE OF c
), c AS (
    UPDATE code SET state = 'REVOKED' WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM live))
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :pool_id, gen_random_uuid(), -count(*) FILTER (WHERE state = 'AVAILABLE'),
        -count(*) FILTER (WHERE state = 'ALLOCATED'), 0, 0, count(*)
    FROM live HAVING count(*) > 0
), changed AS (
    SELECT told.event_id, numbered.id AS subject_id, numbered.member_id, told.reason
    FROM (SELECT id, member_id, row_number() OVER (ORDER BY id) AS number FROM live) numbered
    JOIN unnest(:event_ids::uuid[], :reasons::bytea[]) WITH ORDINALITY AS told (event_id, reason, number)
        ON told.number = numbered.number
), {raise_wallets("code.revoked")}
SELECT member_id, kind, code_pattern, is_over FROM live
""",
)


async def revoke_batch(job: TurnRow) -> bool:
    """Revoke the next codes of a job's list. Returns whether more are left."""
    owner = await tenant(job["merchant_id"])
    if owner is None:
        return False
    async with transaction(job["merchant_id"]) as tx:
        await tx.row(HOLD_POOL, merchant_id=job["merchant_id"], pool_id=job["pool_id"])
        held = await turns.hold(tx, job)
        if held is None or held["reason"] is None:
            return False
        code_ids = await turns.take_page(tx, held)
        reason = await decrypted(owner, held["id"], "reason", held["reason"])
        revoked = await _revoke(tx, owner.keys, held, code_ids, reason) if code_ids else 0
        progress = Progress(done=revoked, failed=len(code_ids) - revoked)
        if len(code_ids) == held["remaining"]:
            await turns.finish(tx, held, progress)
            return False
        await turns.go_on(tx, held, progress)
    return True


async def _revoke(tx: Tx, keys: MerchantKeys, job: HeldRow, code_ids: list[UUID], reason: str) -> int:
    """Revoke those of the codes that can be, and mint what replaces them. Returns how many."""
    merchant_id, pool_id = job["merchant_id"], job["pool_id"]
    if pool_id is None:
        return 0
    await revive_needed(tx, merchant_id, code_ids)
    event_ids = [ids.new() for _ in code_ids]
    rows = await tx.many(
        REVOKE,
        merchant_id=merchant_id,
        pool_id=pool_id,
        code_ids=code_ids,
        state=job["state"],
        event_ids=event_ids,
        reasons=[keys.encrypt(event_id, "reason", reason) for event_id in event_ids],
        actor=job["actor"],
    )
    ring_wallets(tx, merchant_id, (row["member_id"] for row in rows if row["member_id"] is not None))
    if rows and job["recycle"] and not rows[0]["is_over"]:
        kind, pattern = rows[0]["kind"], rows[0]["code_pattern"]
        await recycle(tx, keys, pool_id, kind, pattern, count=len(rows), actor=job["actor"])
    elif rows:
        await stock_levels.check(tx, merchant_id, pool_id, job["actor"])
    return len(rows)
