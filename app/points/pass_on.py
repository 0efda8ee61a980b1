"""What becomes of a merged member's points: its lots change hands whole, each by a debit and a credit.

A lot stays what it is, with its dates, what was taken of it and what it paid for: so whatever goes back later goes back
as if there had been one member from the start. The wallets of both are locked.
"""

from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.points.ledger import POINTS_MAX, RECORD_ENTRY, PostedRow
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet


class LotRow(TypedDict):
    """A lot, and how much of it is left and held."""

    lot_id: UUID
    remaining: int
    held: int


# In the order of spending. By entries: of lots that are spent no index tells whose they are. What was spent before an
# earlier merging has its entry with a record that was merged then, and names the kept member by now.
FIND_LOTS: Final = statement(
    LotRow,
    """
SELECT l.entry_id AS lot_id, l.remaining, l.held FROM (
    SELECT DISTINCT coalesce(lot_id, id) AS id FROM points_entry
    WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY(
        SELECT id FROM member WHERE merchant_id = :merchant_id AND merged_into_id = :kept_id
    ))
) named CROSS JOIN LATERAL (
    SELECT * FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = named.id OFFSET 0
) l
WHERE l.member_id = :merged_id
ORDER BY l.is_pending, l.expires_at, l.created_at, l.entry_id
""",
)
#: Follows an entry `e` and the wallet `w` that it left: what a lot had is taken from it, or given back to it.
_TOLD: Final = f"""
part AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
    SELECT :merchant_id, :entry_id, :lot_id, amount FROM e
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT {columns(PostedRow)} FROM e CROSS JOIN w CROSS JOIN ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = e.member_id OFFSET 0) m
"""
PAY_OUT: Final = statement(
    PostedRow,
    f"""
WITH lot AS (
    SELECT remaining, held, is_pending FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = :lot_id
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points - lot.remaining,
        held_points = held_points - lot.held,
        pending_points = pending_points - CASE WHEN lot.is_pending THEN lot.remaining ELSE 0 END
    FROM lot WHERE merchant_id = :merchant_id AND member_id = :merged_id RETURNING wallet.*, lot.remaining
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, created_at)
    SELECT :merchant_id, :entry_id, member_id, -remaining, points, 'MERGE', :origin, changed_at FROM w RETURNING *
), emptied AS (
    UPDATE points_lot SET remaining = 0, held = 0, is_open = false, last_entry_id = :entry_id
    WHERE merchant_id = :merchant_id AND entry_id = :lot_id
), {_TOLD}
""",
)
TAKE_IN: Final = statement(
    PostedRow,
    f"""
WITH lot AS (
    SELECT spendable_at, expires_at, is_pending FROM points_lot
    WHERE merchant_id = :merchant_id AND entry_id = :lot_id
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points + :remaining::int,
        held_points = held_points + :held::int,
        pending_points = pending_points + CASE WHEN lot.is_pending THEN :remaining ELSE 0 END
    FROM lot WHERE merchant_id = :merchant_id AND member_id = :kept_id
    RETURNING wallet.*, lot.spendable_at, lot.expires_at
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, spendable_at,
                              expires_at, created_at, lot_id)
    SELECT :merchant_id, :entry_id, member_id, :remaining, points, 'MERGE', :origin, spendable_at,
        nullif(expires_at, 'infinity'), changed_at, :lot_id
    FROM w RETURNING *
), filled AS (
    UPDATE points_lot SET member_id = :kept_id, remaining = :remaining, held = :held, is_open = :remaining > :held,
        last_entry_id = :entry_id
    WHERE merchant_id = :merchant_id AND entry_id = :lot_id
), {_TOLD}
""",
)
# Lots of which nothing is left, and take-backs, of whichever lots.
FOLLOW: Final = statement(
    NoRow,
    """
WITH lots AS (
    UPDATE points_lot SET member_id = :kept_id
    WHERE merchant_id = :merchant_id AND entry_id = ANY(:spent_ids::uuid[])
)
UPDATE points_return SET member_id = :kept_id WHERE merchant_id = :merchant_id AND lot_id = ANY(:lot_ids::uuid[])
""",
)
TAKE_SHORTFALL: Final = statement(
    ChangeRow,
    f"""
WITH short AS (
    SELECT shortfall FROM wallet WHERE merchant_id = :merchant_id AND member_id = :merged_id
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, shortfall = wallet.shortfall + short.shortfall
    FROM short WHERE merchant_id = :merchant_id AND member_id = :kept_id AND short.shortfall > 0
    RETURNING wallet.*, short.shortfall AS taken
), first AS (
    -- Of the lot whose return lacked something first.
    SELECT lot_id FROM points_return
    WHERE merchant_id = :merchant_id AND lot_id = ANY(:lot_ids::uuid[]) AND shortfall > 0 ORDER BY since, id LIMIT 1
), ev AS (
    {
        event(
            "points.fell_short",
            subject="first.lot_id",
            source="w, first",
            points="w.taken",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


class BalancesRow(TypedDict):
    """Whether one wallet can hold what both have."""

    fits: bool


FIT: Final = statement(
    BalancesRow,
    f"""
SELECT sum(points) <= {POINTS_MAX} AND sum(shortfall) <= {POINTS_MAX} AS fits FROM wallet
WHERE merchant_id = :merchant_id AND member_id IN (:kept_id, :merged_id)
""",
)


async def points_fit(tx: Tx, merchant_id: UUID, kept_id: UUID, merged_id: UUID) -> bool:
    """Whether the kept member's wallet can hold what both have; they are locked."""
    row = await tx.row(FIT, merchant_id=merchant_id, kept_id=kept_id, merged_id=merged_id)
    return row is not None and row["fits"]


async def pass_points(tx: Tx, merchant_id: UUID, actor: str, kept_id: UUID, merged_id: UUID) -> int:
    """Make a merged member's points the kept one's, and what its returns lack. Returns how many points there were."""
    pair = {"merchant_id": merchant_id, "kept_id": kept_id, "merged_id": merged_id}
    lots = await tx.rows(FIND_LOTS, **pair)
    for lot in lots:
        if not lot["remaining"]:
            continue
        origin = f"{merged_id.hex}/{lot['lot_id'].hex}"
        paid = await tx.row(
            PAY_OUT, merchant_id=merchant_id, merged_id=merged_id, lot_id=lot["lot_id"], entry_id=ids.new(),
            origin=f"{origin}/out", event_id=ids.new(), actor=actor,
        )  # fmt: skip
        taken = await tx.row(
            TAKE_IN, merchant_id=merchant_id, kept_id=kept_id, lot_id=lot["lot_id"], remaining=lot["remaining"],
            held=lot["held"], entry_id=ids.new(), origin=f"{origin}/in", event_id=ids.new(), actor=actor,
        )  # fmt: skip
        for change in (paid, taken):
            if change is None:
                raise RuntimeError("a locked wallet took no entry")
            ring_wallet(tx, merchant_id, change)
    lot_ids = [lot["lot_id"] for lot in lots]
    await tx.row(
        FOLLOW,
        merchant_id=merchant_id,
        kept_id=kept_id,
        spent_ids=[lot["lot_id"] for lot in lots if not lot["remaining"]],
        lot_ids=lot_ids,
    )
    short = await tx.row(TAKE_SHORTFALL, **pair, lot_ids=lot_ids, event_id=ids.new(), actor=actor)
    if short is not None:
        ring_wallet(tx, merchant_id, short)
    return sum(lot["remaining"] for lot in lots)
