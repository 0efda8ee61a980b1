"""The points of a member that is erased: all that are left are debited, pending or not."""

from typing import Final
from uuid import UUID

from app import ids
from app.points.expire_points import LOTS_PER_ENTRY_MAX
from app.points.ledger import RECORD_ENTRY
from app.storage.database import Tx
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet


class ErasedRow(ChangeRow):
    """An entry that took what was left."""

    points: int


ERASE: Final = statement(
    ErasedRow,
    f"""
WITH lots AS (
    SELECT entry_id, remaining - held AS free, is_pending FROM points_lot
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND is_pending IN (false, true)
    ORDER BY is_pending, expires_at, created_at, entry_id LIMIT {LOTS_PER_ENTRY_MAX}
), total AS (
    SELECT sum(free)::int AS points, coalesce(sum(free) FILTER (WHERE is_pending), 0)::int AS pending FROM lots
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = wallet.points - total.points,
        pending_points = pending_points - total.pending
    FROM total WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = :member_id AND total.points > 0
    RETURNING wallet.*, total.points AS gone
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, created_at)
    SELECT :merchant_id, :entry_id, member_id, -gone, points, 'ERASURE', :origin, changed_at FROM w RETURNING *
), emptied AS (
    UPDATE points_lot SET remaining = held, is_open = false, last_entry_id = e.id FROM e
    WHERE points_lot.merchant_id = :merchant_id AND entry_id = ANY(ARRAY(SELECT entry_id FROM lots))
), parts AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
    SELECT :merchant_id, e.id, lots.entry_id, -lots.free FROM lots CROSS JOIN e
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT {columns(ChangeRow)}, w.gone AS points FROM ev CROSS JOIN w
""",
)


async def erase_points(tx: Tx, merchant_id: UUID, actor: str, member_id: UUID) -> int:
    """Debit all that a wallet has and isn't held, an entry for each 5,000 credits. Returns how many points.

    The wallet is locked.
    """
    erased = 0
    while True:
        entry_id = ids.new()
        row = await tx.row(
            ERASE,
            merchant_id=merchant_id,
            member_id=member_id,
            entry_id=entry_id,
            origin=entry_id.hex,
            event_id=ids.new(),
            actor=actor,
        )
        if row is None:
            return erased
        ring_wallet(tx, merchant_id, row)
        erased += row["points"]
