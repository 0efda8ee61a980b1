"""captureHold: what is held for an order is redeemed, all of it or nothing, once; late, too, if it is still there."""

from typing import Annotated, Final

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refused, mutation, not_found
from app.coupons import code_text
from app.coupons.rows import IS_HELD, IS_PAST_END
from app.coupons.rules import CodeRejectionReason
from app.orders.hold_types import Hold, HoldNotOpen
from app.orders.holds import (
    CODE_IDS_OF_HOLDS,
    CODES_MAX,
    CODES_OF_HOLDS,
    JOIN_HOLDER,
    ChangedHoldRow,
    HeldCodeRow,
    WholeHoldRow,
    changed_hold,
    end_hold,
    hold_row,
    open_holds_of_order,
)
from app.orders.order_changes import LOCK_CODES, LOCK_ORDER
from app.orders.presented_codes import CodeRejection, Remedy
from app.orders.refunds import OutpacedError
from app.orders.rows import FIND_ORDER
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets

ATTEMPTS_MAX: Final = 20


@strawberry.input(description="A hold whose order is paid.")
class CaptureHoldInput:
    hold_id: strawberry.ID = strawberry.field(description="The hold.")


@strawberry.type(description="The hold is CAPTURED.")
class CaptureHoldSuccess:
    hold: Hold = strawberry.field(description="The hold, with its redemptions.")
    replayed: bool = strawberry.field(description="Whether an earlier call captured it.")


CaptureHoldResult = Annotated[
    CaptureHoldSuccess | NotFound | HoldNotOpen,
    strawberry.union("CaptureHoldResult", description="The captured hold, or why it isn't."),
]

# All codes or none, by the terms and at the amounts that the hold told; what became of their pools since is no matter.
# The order of locks is the order, the hold, codes by id, wallets by member. A hold whose time has passed is captured if
# its codes are still live and nobody else holds them.
CAPTURE: Final = statement(
    ChangedHoldRow,
    f"""
WITH known AS MATERIALIZED (
    SELECT id FROM sales_order
    WHERE merchant_id = :merchant_id AND id = :order_row_id AND cancelled_at IS NULL AND order_amount IS NULL
    FOR NO KEY UPDATE
), open AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND version = :version AND EXISTS (SELECT FROM known)
        AND CASE WHEN :is_late THEN status = 'EXPIRED' OR (status = 'HELD' AND held_until <= now())
            ELSE status = 'HELD' AND held_until > now() END
    FOR UPDATE
), asked AS (
    SELECT x.*, (:redemption_ids::uuid[])[x.position] AS new_redemption_id, (:event_ids::uuid[])[x.position] AS event_id
    FROM hold_code x WHERE x.merchant_id = :merchant_id AND x.hold_id = (SELECT id FROM open)
), locked AS (
    SELECT c.id FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(SELECT code_id FROM asked)) AND c.state = 'ALLOCATED'
        AND CASE WHEN {IS_HELD} THEN c.hold_id = :hold_id ELSE :is_late AND NOT {IS_PAST_END} END
    ORDER BY c.id FOR UPDATE OF c FOR KEY SHARE OF p
), h AS (
    UPDATE hold SET status = 'CAPTURED', version = version + 1, ended_at = now(), captured_points = 0,
        captured_value = 0
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM open)
        AND (SELECT count(*) FROM locked) = (SELECT count(*) FROM asked)
    RETURNING *
), continued AS (
    UPDATE sales_order SET version = sales_order.version + 1, order_amount = h.order_amount FROM h
    WHERE sales_order.merchant_id = :merchant_id AND sales_order.id = :order_row_id
), redeemed AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now(), hold_id = NULL, held_until = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM locked)) AND EXISTS (SELECT FROM h)
    RETURNING id, pool_id, member_id
), r AS (
    INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                            base, discount, currency, redeemed_at, presented_by, eligible)
    SELECT :merchant_id, asked.new_redemption_id, redeemed.pool_id, asked.terms_version, asked.code_id, :source,
        :order_id, asked.position, h.order_amount, asked.base, asked.discount, h.currency, now(), h.presented_by,
        asked.eligible
    FROM h CROSS JOIN asked JOIN redeemed ON redeemed.id = asked.code_id ORDER BY asked.position
), listed AS (
    UPDATE hold_code SET redemption_id = asked.new_redemption_id FROM asked, h
    WHERE hold_code.merchant_id = :merchant_id AND hold_code.hold_id = h.id AND hold_code.code_id = asked.code_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), count(*), 0, 0 FROM redeemed GROUP BY pool_id
), told AS (
    {event("hold.captured", subject="h.id", source="h")}
), changed AS (
    SELECT asked.event_id, redeemed.id AS subject_id, redeemed.member_id, NULL::bytea AS reason
    FROM redeemed JOIN asked ON asked.code_id = redeemed.id
), {raise_wallets("code.redeemed")}
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)}
FROM h CROSS JOIN (SELECT :source::text AS source, :order_id::text AS order_id) o {JOIN_HOLDER}
LEFT JOIN recorded ev ON true ORDER BY ev.wallet_version
""",
)


async def _capture(where: Statements, viewer: Viewer, hold: WholeHoldRow, *, is_late: bool) -> ChangedHoldRow | None:
    """Capture a hold as it was read, and tell who watches the wallets; None when it or its order has changed."""
    rows = await where.rows(
        CAPTURE,
        merchant_id=viewer.merchant_id,
        hold_id=hold["hold_id"],
        version=hold["hold_version"],
        order_row_id=hold["hold_order_row_id"],
        source=hold["hold_source"],
        order_id=hold["hold_order_id"],
        is_late=is_late,
        redemption_ids=[ids.new() for _ in range(CODES_MAX)],
        event_id=ids.new(),
        event_ids=[ids.new() for _ in range(CODES_MAX)],
        actor=viewer.actor,
    )
    return changed_hold(where, viewer.merchant_id, rows)


@mutation(
    description="Redeem what is held, all of it or nothing, by the terms and at the amounts that the hold told. Again, "
    "it is the same answer. A hold that is EXPIRED is captured, too, if all that it held is still there. ADMIN and "
    "CHECKOUT."
)
async def capture_hold(
    info: Info, input: Annotated[CaptureHoldInput, strawberry.argument(description="The hold.")]
) -> CaptureHoldResult:
    viewer = info.context.viewer
    hold_id = node_id("hold", "hold", input.hold_id)
    for _ in range(ATTEMPTS_MAX):
        row = await hold_row(database(), viewer, hold_id)
        if row is None:
            raise not_found("hold", input.hold_id)
        if row["hold_status"] == "CAPTURED":
            return CaptureHoldSuccess(hold=Hold.of(row), replayed=True)
        if row["hold_status"] == "RELEASED":
            raise Refused(HoldNotOpen.of(row, "it was released"))
        try:
            if row["hold_status"] == "HELD":
                captured = await _capture(database(), viewer, row, is_late=False)
            else:
                async with transaction(viewer.merchant_id) as tx:
                    captured = await _capture_late(tx, viewer, row)
        except OutpacedError:
            continue
        if captured is not None:
            return CaptureHoldSuccess(hold=Hold.changed(captured), replayed=False)
    raise RuntimeError("a hold kept changing while it was captured")


async def _capture_late(tx: Tx, viewer: Viewer, seen: WholeHoldRow) -> ChangedHoldRow:
    """Capture a hold whose time has passed, and release what the order holds since.

    Raises OutpacedError when it has become something else, and Refused(HoldNotOpen) when something is missing.
    """
    name = {
        "merchant_id": viewer.merchant_id, "source": seen["hold_source"], "order_id": seen["hold_order_id"]
    }  # fmt: skip
    await tx.row(LOCK_ORDER, **name)
    order = await tx.row(FIND_ORDER, **name)
    holds = {row["hold_id"]: row for row in await open_holds_of_order(tx, viewer, seen["hold_order_row_id"])}
    hold = holds.pop(seen["hold_id"], None)
    if order is None or hold is None or hold["hold_version"] != seen["hold_version"]:
        raise OutpacedError
    if order["cancelled_at"] is not None or order["order_amount"] is not None:
        raise Refused(HoldNotOpen.of(hold, "its order was paid or called off since"))
    live = [row["hold_id"] for row in holds.values() if row["hold_stored_status"] == "HELD"]
    wanted = {"merchant_id": viewer.merchant_id, "hold_ids": [hold["hold_id"], *live]}
    code_ids = [row["code_id"] for row in await tx.rows(CODE_IDS_OF_HOLDS, **wanted)]
    await tx.rows(LOCK_CODES, merchant_id=viewer.merchant_id, code_ids=code_ids)
    for hold_id in live:
        await end_hold(tx, viewer.merchant_id, viewer.actor, hold_id, "RELEASED")
    await _refuse_if_missing(tx, viewer, hold)
    try:
        async with tx.nested() as inner:
            captured = await _capture(inner, viewer, hold, is_late=True)
    except asyncpg.CheckViolationError as violation:
        if violation.constraint_name != "pool_budget_spent":
            raise
        raise Refused(HoldNotOpen.of(hold, "the budget of its pool is spent since")) from None
    if captured is None:
        raise OutpacedError
    return captured


async def _refuse_if_missing(tx: Tx, viewer: Viewer, hold: WholeHoldRow) -> None:
    """Raise Refused(HoldNotOpen) with those codes of a hold that can't be redeemed any more."""
    rows = await tx.rows(CODES_OF_HOLDS, merchant_id=viewer.merchant_id, hold_ids=[hold["hold_id"]])
    rejections = [rejection for row in rows if (rejection := _missing(row)) is not None]
    if rejections:
        raise Refused(HoldNotOpen.of(hold, "some of its codes are gone", rejections))


def _missing(row: HeldCodeRow) -> CodeRejection | None:
    """Return why a code of a hold whose time has passed can't be redeemed any more, or None."""
    held_until, state = row["code_held_until"], row["code_state"]
    if state == "ALLOCATED" and held_until is None:
        return None
    reason = {
        "ALLOCATED": CodeRejectionReason.HELD,
        "REDEEMED": CodeRejectionReason.ALREADY_REDEEMED,
        "REVOKED": CodeRejectionReason.REVOKED,
    }.get(state, CodeRejectionReason.EXPIRED)
    masked = code_text.mask(row["pool_kind"], row["code_suffix"], is_foreign=row["code_is_foreign"])
    remedy = None if held_until is None else Remedy(short_by=None, valid_from=None, held_until=held_until)
    return CodeRejection(masked=masked, reason=reason, remedy=remedy)
