"""issueCodes: codes leave the stock as bearer codes, for print and gift cards; a batch, whole or not at all."""

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
from app.api.reasons import sealed
from app.coupons import stock_levels
from app.coupons.claims import PoolBacksReward, PoolExhausted, PoolNotActive, not_active, refuse_if_for_points
from app.coupons.generate_codes import BATCH_SIZE_MAX, FIND_BY_KEY
from app.coupons.rows import ISSUES_AHEAD, REWARD_OF_POOL, batch_row
from app.coupons.send_codes import pick
from app.coupons.types import CodeBatch, PoolStatus
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="Bearer codes to issue: they belong to whoever holds them.")
class IssueCodesInput:
    pool_id: strawberry.ID = strawberry.field(
        description="The pool; it must be transferable and ACTIVE, but need not have begun."
    )
    count: int = strawberry.field(description="How many codes: 1 to 5,000.")
    reason: str = strawberry.field(description="What for, for the record; at most 500 characters, stored encrypted.")
    idempotency_key: str = strawberry.field(
        description="The same key again returns the same batch; at most 200 characters."
    )


@strawberry.type(description="The codes are issued, all of them.")
class IssueCodesSuccess:
    batch: CodeBatch = strawberry.field(description="The batch; `texts` are what is printed.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


@strawberry.type(description="Codes of this pool are their owners' alone, so it has no bearer codes.")
class PoolNotTransferable(Refusal):
    """Only a pool that honours whoever holds a code can have codes that are nobody's."""


IssueCodesResult = Annotated[
    IssueCodesSuccess
    | InvalidInput
    | NotFound
    | PoolNotActive
    | PoolBacksReward
    | PoolNotTransferable
    | PoolExhausted
    | IdempotencyKeyReused,
    strawberry.union("IssueCodesResult", description="The batch, or why there is none."),
]


class _HeldRow(TypedDict):
    status: str
    transferable: bool
    issues: bool


class _InsertedRow(TypedDict):
    reward_id: UUID | None


# Issues and campaigns of one pool go one after another; its status waits for them, claims don't.
HOLD_POOL: Final = statement(
    _HeldRow,
    f"""
SELECT p.status, p.transferable, {ISSUES_AHEAD} AS issues
FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = :pool_id FOR NO KEY UPDATE
""",
)
INSERT_BATCH: Final = statement(
    _InsertedRow,
    f"""
INSERT INTO code_batch (merchant_id, id, pool_id, kind, size, idempotency_key, created_at)
VALUES (:merchant_id, :batch_id, :pool_id, 'ISSUED', :size, :key, now()) ON CONFLICT DO NOTHING
RETURNING {REWARD_OF_POOL.format(":pool_id")} AS reward_id
""",
)
# A bearer code ends with its pool, or by its own date if it was imported with one.
ISSUE: Final = statement(
    NoRow,
    f"""
WITH c AS (
    UPDATE code SET state = 'ALLOCATED', bearer = true, allocated_at = now()
    WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[])
    RETURNING id
), listed AS (
    INSERT INTO bearer_code (merchant_id, batch_id, code_id, pool_id)
    SELECT :merchant_id, :batch_id, id, :pool_id FROM c
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :pool_id, gen_random_uuid(), -count(*), count(*), 0, 0, 0 FROM c
), recorded AS (
    {event("codes.issued", subject=":batch_id", reason=":reason")}
)
SELECT FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id
""",
)


@mutation(description="Issue up to 5,000 bearer codes of a transferable pool, all or none. ADMIN only.")
async def issue_codes(
    info: Info, input: Annotated[IssueCodesInput, strawberry.argument(description="What to issue.")]
) -> IssueCodesResult:
    viewer = info.context.viewer
    problems = Problems()
    problems.number("count", input.count, least=1, most=BATCH_SIZE_MAX)
    problems.idempotency_key(input.idempotency_key)
    problems.refuse_if_any()
    event_id, reason = sealed(viewer, input.reason)
    key = stored_key(viewer, input.idempotency_key)
    pool_id = node_id("pool", "pool", input.pool_id)
    batch_id = ids.new()
    async with transaction(viewer.merchant_id) as tx:
        is_new = await _issue(tx, viewer, pool_id, batch_id, input, key, event_id, reason)
    if not is_new:
        batch_id = await _earlier(viewer, pool_id, input, key)
    return IssueCodesSuccess(batch=CodeBatch.of(await batch_row(viewer, batch_id)), replayed=not is_new)


async def _issue(
    tx: Tx, viewer: Viewer, pool_id: UUID, batch_id: UUID, input: IssueCodesInput, key: bytes, event_id: UUID,
    reason: bytes,
) -> bool:  # fmt: skip
    """Issue the codes. Returns False when the key has a batch already. Raises Refused."""
    merchant_id = viewer.merchant_id
    pool = await tx.row(HOLD_POOL, merchant_id=merchant_id, pool_id=pool_id)
    if pool is None:
        raise not_found("pool", input.pool_id)
    inserted = await tx.row(
        INSERT_BATCH,
        merchant_id=merchant_id,
        batch_id=batch_id,
        pool_id=pool_id,
        size=input.count,
        key=key,
    )
    if inserted is None:
        return False
    if not pool["issues"]:
        raise Refused(not_active(PoolStatus(pool["status"])))
    refuse_if_for_points(inserted["reward_id"])
    if not pool["transferable"]:
        raise Refused(PoolNotTransferable(message="Codes of this pool are their owners' alone."))
    codes = await pick(tx, viewer, pool_id, input.count)
    await tx.row(
        ISSUE,
        merchant_id=merchant_id,
        pool_id=pool_id,
        batch_id=batch_id,
        code_ids=codes,
        event_id=event_id,
        reason=reason,
        actor=viewer.actor,
    )
    await stock_levels.check(tx, merchant_id, pool_id, viewer.actor)
    return True


async def _earlier(viewer: Viewer, pool_id: UUID, input: IssueCodesInput, key: bytes) -> UUID:
    """Return the batch that this key made before. Raises Refused when it was another request."""
    earlier = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is None or (earlier["pool_id"], earlier["size"], earlier["kind"]) != (pool_id, input.count, "ISSUED"):
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another batch."))
    return earlier["id"]
