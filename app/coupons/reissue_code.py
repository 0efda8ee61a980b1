"""reissueCode: a fresh code of the pool takes the place of one that was revoked or expired, for the same owner."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, OutpacedError, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.coupons import stock_levels
from app.coupons.claims import PoolExhausted, PoolNotActive, exhausted, not_active
from app.coupons.rows import FIND_CODE, ISSUES_AHEAD, SHOWN_STATE
from app.coupons.types import Code, CodeState, PoolStatus
from app.merchants.tenants import decrypted
from app.storage.database import Tx, database, transaction
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


@strawberry.input(description="A code to replace.")
class ReissueCodeInput:
    code_id: strawberry.ID = strawberry.field(description="The code; it must have been revoked, or have expired.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="The owner has a live code again.")
class ReissueCodeSuccess:
    code: Code = strawberry.field(description="The code that took the place of the one that was named.")
    replayed: bool = strawberry.field(description="Whether an earlier call issued it.")


@strawberry.type(description="The code is alive, spent, a bearer code or nobody's claim, so nothing takes its place.")
class CodeNotReissuable(Refusal):
    state: CodeState = strawberry.field(description="The code's state.")


ReissueCodeResult = Annotated[
    ReissueCodeSuccess | InvalidInput | NotFound | PoolNotActive | CodeNotReissuable | PoolExhausted,
    strawberry.union("ReissueCodeResult", description="The code in the place of the other, or why there is none."),
]


class _OwnerRow(TypedDict):
    email_index: bytes | None


class _HeldRow(TypedDict):
    pool_id: UUID
    pool_status: str
    issues: bool
    state: str
    stored_state: str
    bearer: bool
    has_claim: bool
    reissued_as: UUID | None
    email_index: bytes | None


class _DeliveryRow(TypedDict):
    recipient: bytes | None


FIND_OWNER: Final = statement(
    _OwnerRow, "SELECT email_index FROM code WHERE merchant_id = :merchant_id AND id = :code_id"
)
# Who proves the address locks it before the codes that wait for it.
HOLD_ADDRESS: Final = statement(
    NoRow, "SELECT FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index FOR UPDATE"
)
HOLD: Final = statement(
    _HeldRow,
    f"""
SELECT c.pool_id, p.status AS pool_status, {ISSUES_AHEAD} AS issues, {SHOWN_STATE} AS state, c.state AS stored_state,
    c.bearer, c.reissued_as, c.email_index,
    EXISTS (SELECT FROM claim WHERE merchant_id = :merchant_id AND pool_id = c.pool_id AND code_id = c.id)
        AND NOT EXISTS (
            SELECT FROM member m WHERE m.merchant_id = :merchant_id AND m.id = c.member_id AND m.erased_at IS NOT NULL
        ) AS has_claim
FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
WHERE c.merchant_id = :merchant_id AND c.id = :code_id FOR UPDATE OF c
""",
)


# What the job would write down a minute later.
EXPIRE: Final = statement(
    ChangeRow,
    f"""
WITH c AS (
    UPDATE code SET state = 'EXPIRED', died_with_pool = false
    WHERE merchant_id = :merchant_id AND id = :code_id AND state = 'ALLOCATED'
    RETURNING id, pool_id, member_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -1, 0, 1, 0 FROM c
), changed AS (
    SELECT :event_id::uuid AS event_id, id AS subject_id, member_id, NULL::bytea AS reason FROM c
), {raise_wallets("code.expired", actor="'system'")}
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)
# The order of locks is that of a claim: codes, claim, wallet. The dead code stays in its member's wallet, but waits for
# no address any more: it has no claim by which it could be adopted.
REISSUE: Final = statement(
    ChangeRow,
    f"""
WITH picked AS (
    SELECT id FROM code
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND state = 'AVAILABLE'
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
), dead AS (
    UPDATE code SET reissued_as = picked.id, email_index = NULL FROM picked
    WHERE code.merchant_id = :merchant_id AND code.id = :code_id RETURNING new.*, old.email_index AS waited_for
), slots AS (
    -- Of the pool that served the code, and of the one that was asked.
    UPDATE claim SET code_id = dead.reissued_as FROM dead
    WHERE claim.merchant_id = :merchant_id AND claim.pool_id = ANY(:pool_ids::uuid[]) AND claim.code_id = dead.id
), exchanged AS (
    UPDATE reward_redemption SET code_id = dead.reissued_as FROM dead
    WHERE reward_redemption.merchant_id = :merchant_id AND reward_redemption.code_id = dead.id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :pool_id, gen_random_uuid(), -1, 1, 0, 0, 0 FROM dead
), changed AS (
    SELECT :event_id::uuid AS event_id, reissued_as AS subject_id, member_id, :reason::bytea AS reason FROM dead
), {raise_wallets("code.reissued")}, c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = owned.member_id, email_index = owned.email_index,
        matched_by = owned.matched_by, allocated_at = owned.at, expires_at = least(
            code.expires_at, greatest(owned.at, owned.starts_at) + make_interval(days => owned.code_lifetime_days)
        )
    FROM (
        SELECT dead.reissued_as, dead.member_id, dead.waited_for AS email_index, dead.matched_by, p.starts_at,
            p.code_lifetime_days, coalesce((SELECT changed_at FROM raised), now()) AS at
        FROM dead JOIN pool p ON p.merchant_id = :merchant_id AND p.id = :pool_id
    ) owned
    WHERE code.merchant_id = :merchant_id AND code.id = owned.reissued_as
)
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)
FIND_DELIVERY: Final = statement(
    _DeliveryRow, "SELECT recipient FROM delivery WHERE merchant_id = :merchant_id AND code_id = :code_id"
)
REDIRECT: Final = statement(
    NoRow,
    """
UPDATE delivery SET code_id = :fresh_id, recipient = :recipient
WHERE merchant_id = :merchant_id AND code_id = :code_id
""",
)


class _PoolRow(TypedDict):
    pool_id: UUID


FIND_POOLS: Final = statement(
    _PoolRow,
    """
SELECT k.pool_id FROM pool p CROSS JOIN LATERAL (
    SELECT pool_id FROM claim WHERE merchant_id = :merchant_id AND pool_id = p.id AND code_id = :code_id OFFSET 0
) k WHERE p.merchant_id = :merchant_id
""",
)


@mutation(
    description="Give the owner of a code that was revoked or expired a fresh one in its place, with a fresh lifetime. "
    "Again: the same answer. ADMIN and SUPPORT."
)
async def reissue_code(
    info: Info, input: Annotated[ReissueCodeInput, strawberry.argument(description="What to replace, and why.")]
) -> ReissueCodeResult:
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    code_id = node_id("code", "code", input.code_id)
    async with transaction(viewer.merchant_id) as tx:
        fresh_id, change = await _reissue(tx, viewer, code_id, input.code_id, event_id, reason)
    row = await database().row(FIND_CODE, merchant_id=viewer.merchant_id, code_id=fresh_id, member_id=None)
    if row is None:
        raise RuntimeError("a code that was just issued can't be read")
    if change is not None:
        ring_wallet(database(), viewer.merchant_id, change, about=row)
    return ReissueCodeSuccess(code=Code.of(row), replayed=change is None)


async def _reissue(
    tx: Tx, viewer: Viewer, code_id: UUID, node: str, event_id: UUID, reason: bytes
) -> tuple[UUID, ChangeRow | None]:
    """Return the code that takes the place, with its change unless an earlier call made it.

    Raises OutpacedError when the code moved meanwhile, and Refused.
    """
    merchant_id = viewer.merchant_id
    owner = await tx.row(FIND_OWNER, merchant_id=merchant_id, code_id=code_id)
    if owner is None:
        raise not_found("code", node)
    if owner["email_index"] is not None:
        await tx.row(HOLD_ADDRESS, merchant_id=merchant_id, email_index=owner["email_index"])
    held = await tx.row(HOLD, merchant_id=merchant_id, code_id=code_id)
    if held is None:
        raise not_found("code", node)
    if held["email_index"] != owner["email_index"]:
        raise OutpacedError
    if held["reissued_as"] is not None:
        return held["reissued_as"], None
    if not held["issues"]:
        raise Refused(not_active(PoolStatus(held["pool_status"])))
    state = CodeState(held["state"])
    if state not in {CodeState.EXPIRED, CodeState.REVOKED} or held["bearer"] or not held["has_claim"]:
        message = "Only a code that was somebody's claim, and was revoked or expired, is replaced."
        raise Refused(CodeNotReissuable(message=message, state=state))
    if held["stored_state"] == "ALLOCATED":
        expired = await tx.row(EXPIRE, merchant_id=merchant_id, code_id=code_id, event_id=ids.new())
        if expired is not None:
            ring_wallet(tx, merchant_id, expired)
    pools = await tx.rows(FIND_POOLS, merchant_id=merchant_id, code_id=code_id)
    change = await tx.row(
        REISSUE,
        merchant_id=merchant_id,
        code_id=code_id,
        pool_id=held["pool_id"],
        pool_ids=[row["pool_id"] for row in pools],
        event_id=event_id,
        reason=reason,
        actor=viewer.actor,
    )
    if change is None:
        raise Refused(exhausted([held["pool_id"]]))
    await _redirect(tx, viewer, code_id, change["event_subject_id"])
    await stock_levels.check(tx, merchant_id, held["pool_id"], viewer.actor)
    return change["event_subject_id"], change


async def _redirect(tx: Tx, viewer: Viewer, code_id: UUID, fresh_id: UUID) -> None:
    """Let a campaign deliver the fresh code. A recipient is sealed for its own row, so it is sealed anew."""
    delivery = await tx.row(FIND_DELIVERY, merchant_id=viewer.merchant_id, code_id=code_id)
    if delivery is None:
        return
    recipient = None
    if delivery["recipient"] is not None:
        address = await decrypted(viewer.tenant, code_id, "recipient", delivery["recipient"])
        recipient = viewer.tenant.keys.encrypt(fresh_id, "recipient", address)
    await tx.row(REDIRECT, merchant_id=viewer.merchant_id, code_id=code_id, fresh_id=fresh_id, recipient=recipient)
