"""revokeCode: a code that isn't spent dies at once, and a fresh one can take its place in the pool."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.coupons import stock_levels
from app.coupons.recycle import recycle
from app.coupons.revive_codes import revive_needed
from app.coupons.rows import FIND_CODE, HAS_ENDED, IS_HELD, IS_OVER
from app.coupons.types import Code, CodeState
from app.storage.database import database, transaction
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


@strawberry.input(description="A code to revoke.")
class RevokeCodeInput:
    code_id: strawberry.ID = strawberry.field(description="The code.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    recycle: bool = strawberry.field(
        default=True,
        description="Whether a fresh code takes its place in the pool; not in one that is ARCHIVED or past its end.",
    )


@strawberry.type(description="The code is dead.")
class RevokeCodeSuccess:
    code: Code = strawberry.field(description="The revoked code.")
    replacement: Code | None = strawberry.field(description="The fresh code in the pool's stock, if there is one.")


@strawberry.type(description="The code is spent, expired or revoked already, or an order that isn't paid yet holds it.")
class CodeNotRevocable(Refusal):
    state: CodeState = strawberry.field(description="The code's state.")
    held_until: datetime | None = strawberry.field(
        default=None, description="Until when an order holds it; null where none does."
    )


RevokeCodeResult = Annotated[
    RevokeCodeSuccess | InvalidInput | NotFound | CodeNotRevocable,
    strawberry.union("RevokeCodeResult", description="The revoked code, or why it lives on."),
]


class RevokedRow(ChangeRow):
    """That a code was revoked, and its pool."""

    pool_id: UUID
    kind: str
    code_pattern: str | None
    is_over: bool


#: Whether the code `c` of the pool `p` lives and isn't spent.
IS_REVOCABLE: Final = f"(c.state IN ('AVAILABLE', 'ALLOCATED') AND NOT {HAS_ENDED} AND NOT {IS_HELD})"
REVOKE: Final = statement(
    RevokedRow,
    f"""
WITH live AS (
    -- Waits for whoever is claiming, redeeming or holding the code, and then looks at it again.
    SELECT c.id, c.pool_id, c.member_id, c.state, p.kind, p.code_pattern, {IS_OVER} AS is_over
    FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = :code_id AND {IS_REVOCABLE} FOR UPDATE OF c
), c AS (
    UPDATE code SET state = 'REVOKED' WHERE merchant_id = :merchant_id AND id = (SELECT id FROM live)
    RETURNING id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), -(state = 'AVAILABLE')::int, -(state = 'ALLOCATED')::int, 0, 0, 1
    FROM live
), changed AS (
    SELECT :event_id::uuid AS event_id, id AS subject_id, member_id, :reason::bytea AS reason FROM live
), {raise_wallets("code.revoked")}
SELECT live.pool_id, live.kind, live.code_pattern, live.is_over, {columns(ChangeRow)} FROM live, recorded ev
""",
)


async def _revoke(
    viewer: Viewer, code_id: UUID, input: RevokeCodeInput, event_id: UUID, reason: bytes
) -> tuple[RevokedRow | None, list[UUID]]:
    """Revoke a code and mint what replaces it, in one transaction. Returns None when it isn't live."""
    fresh: list[UUID] = []
    async with transaction(viewer.merchant_id) as tx:
        revoked = await tx.row(
            REVOKE,
            merchant_id=viewer.merchant_id,
            code_id=code_id,
            event_id=event_id,
            reason=reason,
            actor=viewer.actor,
        )
        if revoked is not None and input.recycle and not revoked["is_over"]:
            keys, pool_id, pattern = viewer.tenant.keys, revoked["pool_id"], revoked["code_pattern"]
            fresh = await recycle(tx, keys, pool_id, revoked["kind"], pattern, count=1, actor=viewer.actor)
        elif revoked is not None:
            await stock_levels.check(tx, viewer.merchant_id, revoked["pool_id"], viewer.actor)
    return revoked, fresh


@mutation(description="Revoke a code that isn't spent; its text is never used again. ADMIN only.")
async def revoke_code(
    info: Info, input: Annotated[RevokeCodeInput, strawberry.argument(description="What to revoke.")]
) -> RevokeCodeResult:
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    code_id = node_id("code", "code", input.code_id)
    while True:
        revoked, fresh = await _revoke(viewer, code_id, input, event_id, reason)
        row = await database().row(FIND_CODE, merchant_id=viewer.merchant_id, code_id=code_id, member_id=None)
        if row is None:
            raise not_found("code", input.code_id)
        if revoked is not None:
            break
        state = CodeState(row["code_state"])
        if state not in {CodeState.AVAILABLE, CodeState.ALLOCATED}:
            raise Refused(CodeNotRevocable(message=f"A code that is {state.value} can't be revoked.", state=state))
        if row["code_held_until"] is not None:
            message = "A code that an order holds can't be revoked."
            raise Refused(CodeNotRevocable(message=message, state=state, held_until=row["code_held_until"]))
        # One that lives again, or that a reversal has given back since, is tried again.
        await revive_needed(database(), viewer.merchant_id, [code_id])
    ring_wallet(database(), viewer.merchant_id, revoked, about=row)
    replacement = None
    if fresh:
        replacement = await database().row(FIND_CODE, merchant_id=viewer.merchant_id, code_id=fresh[0], member_id=None)
    return RevokeCodeSuccess(code=Code.of(row), replacement=None if replacement is None else Code.of(replacement))
