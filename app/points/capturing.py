"""Held points that are captured: an entry takes them, and what it leaves comes free."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app import ids
from app.points.freeing import FreedRow, come_free, origin_of
from app.points.ledger import RECORD_ENTRY, PostedRow, lock_wallet
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: CTEs that take held points. They continue a WITH that has `w`, the member's wallet as the statement changed it: its
#: points by `:points`, its `held_points` by all that `:position` of `:hold_id` has. Its guard is that nobody changed
#: the wallet since the statement began; without a row nothing is taken. The entry `:entry_id` takes `:points` of the
#: position in the order of spending, and the rest comes free. They add `captured`, by lot: the `amount` that was held
#: of it and how many of those were `taken`. Who left some goes on with `come_free`.
CAPTURE_LOTS: Final = """
captured AS (
    SELECT lot_id, amount, least(amount, greatest(:points::int - (ends - amount), 0))::int AS taken, held_at,
        expires_at, created_at, is_past, is_returned
    FROM (
        SELECT p.*, l.*, sum(p.amount) OVER (ORDER BY l.expires_at, l.created_at, p.lot_id) AS ends
        FROM hold_part p CROSS JOIN LATERAL (
            SELECT expires_at, created_at, expires_at <= now() OR expired > 0 AS is_past, returned > 0 AS is_returned
            FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = p.lot_id OFFSET 0
        ) l
        WHERE p.merchant_id = :merchant_id AND p.hold_id = :hold_id AND p.position = :position
    ) part WHERE EXISTS (SELECT FROM w)
), captured_lots AS (
    UPDATE points_lot SET remaining = remaining - captured.taken, held = held - captured.amount,
        is_open = remaining - captured.taken > held - captured.amount,
        last_entry_id = CASE WHEN captured.taken > 0 THEN :entry_id ELSE last_entry_id END
    FROM captured
    WHERE merchant_id = :merchant_id AND entry_id = ANY(ARRAY(SELECT lot_id FROM captured))
        AND entry_id = captured.lot_id
), captured_parts AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount, held_at)
    SELECT :merchant_id, :entry_id, lot_id, -taken, held_at FROM captured WHERE taken > 0
), gone AS (
    DELETE FROM hold_part WHERE merchant_id = :merchant_id AND hold_id = :hold_id AND position = :position
        AND EXISTS (SELECT FROM w)
)"""


class _CapturedRow(PostedRow, FreedRow):
    """The entry that captured points, and what came free of a lot: `lot_id` is null where nothing did."""


# What would be spent last comes first.
CAPTURE: Final = statement(
    _CapturedRow,
    f"""
WITH has AS (
    SELECT sum(amount)::int AS points FROM hold_part
    WHERE merchant_id = :merchant_id AND hold_id = :hold_id AND position = :position
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = wallet.points - :points,
        held_points = held_points - has.points
    FROM has WHERE merchant_id = :merchant_id AND member_id = :member_id AND has.points >= :points
    RETURNING wallet.*
), {CAPTURE_LOTS}, e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference, created_at)
    SELECT :merchant_id, :entry_id, member_id, -:points, points, :reason, :origin, :reference, changed_at
    FROM w RETURNING *
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT {columns(PostedRow)}, left_over.* FROM e CROSS JOIN w CROSS JOIN ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :member_id OFFSET 0) m
LEFT JOIN (
    SELECT lot_id, amount - taken AS amount, held_at, expires_at, created_at, is_past, is_returned FROM captured
    WHERE amount > taken
) left_over ON true
ORDER BY left_over.expires_at DESC, left_over.created_at DESC, left_over.lot_id DESC
""",
)


@dataclass(frozen=True, slots=True)
class Captured:
    """The entry that captured points, the last change that it led to, and how many of those that were left expired."""

    entry: PostedRow
    latest: ChangeRow
    expired: int


async def capture_points(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    hold_id: UUID,
    *,
    position: int,
    points: int,
    reason: PointsReason,
    origin: str,
    reference: str | None,
) -> Captured:
    """Let an entry take `points`, over 0, of what a hold has at a position, what would be spent first of it.

    The rest comes free by the same change of the wallet. Locks the wallet. Raises RuntimeError when the position has
    fewer, and asyncpg.UniqueViolationError when `origin` has an entry for this reason already.
    """
    await lock_wallet(tx, merchant_id, member_id)
    rows = await tx.rows(
        CAPTURE,
        merchant_id=merchant_id,
        member_id=member_id,
        hold_id=hold_id,
        position=position,
        points=points,
        entry_id=ids.new(),
        reason=reason.value,
        origin=origin,
        reference=reference,
        event_id=ids.new(),
        actor=actor,
    )
    if not rows:
        raise RuntimeError("a hold has fewer points at this position")
    entry = rows[0]
    ring_wallet(tx, merchant_id, entry)
    freed = [row for row in rows if row["lot_id"] is not None]
    latest, expired = await come_free(
        tx, merchant_id, actor, member_id, freed, shortfall=entry["wallet_shortfall"] if freed else 0,
        origin=origin_of(hold_id, entry), reference=reference,
    )  # fmt: skip
    return Captured(entry, latest or entry, expired)
