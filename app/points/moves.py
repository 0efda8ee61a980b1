"""Entries that change lots by name, in wallets that are locked: what is taken back, comes back, or ends with it."""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from app import ids
from app.api.inputs import Problems
from app.api.operations import InvalidInput, Refused
from app.points.ledger import POINTS_MAX, RECORD_ENTRY, PostedRow
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: Amounts by lot, and by (lot, covered lot).
ByLot = dict[UUID, int]
ByCover = dict[tuple[UUID, UUID], int]


@dataclass
class Move:
    """What an entry does: to what is left of lots, to what they lack, and which lots pay in place of which."""

    parts: ByLot = field(default_factory=dict)
    shortfalls: ByLot = field(default_factory=dict)
    covers: ByCover = field(default_factory=dict)
    #: The lot whose credit is taken back by it.
    taken_back: UUID | None = None


MOVE: Final = statement(
    PostedRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(:lot_ids::uuid[], :amounts::int[], :shortfalls::int[]) AS asked (lot_id, amount, shortfall)
), total AS (
    SELECT sum(asked.amount)::int AS amount, sum(asked.shortfall)::int AS shortfall,
        coalesce(sum(asked.amount) FILTER (WHERE l.is_pending), 0)::int AS pending
    FROM asked CROSS JOIN LATERAL (
        SELECT is_pending FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = asked.lot_id OFFSET 0
    ) l
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points + total.amount,
        pending_points = pending_points + total.pending, shortfall = wallet.shortfall + total.shortfall
    FROM total WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = :member_id
    RETURNING wallet.*, total.amount
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference, created_at)
    SELECT :merchant_id, :entry_id, member_id, amount, points, :reason::text, :origin, :reference, changed_at
    FROM w RETURNING *
), moved AS (
    UPDATE points_lot SET remaining = remaining + asked.amount, is_open = remaining + asked.amount > 0,
        last_entry_id = CASE WHEN asked.amount = 0 THEN last_entry_id ELSE :entry_id END,
        expired = expired - CASE WHEN :reason = 'EXPIRY' THEN asked.amount ELSE 0 END,
        shortfall = points_lot.shortfall + asked.shortfall,
        taken_back_at = CASE WHEN entry_id = :taken_back_id THEN coalesce(taken_back_at, w.changed_at)
            ELSE taken_back_at END
    FROM asked, w
    WHERE points_lot.merchant_id = :merchant_id AND entry_id = ANY(:lot_ids) AND entry_id = asked.lot_id
), parts AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
    SELECT :merchant_id, :entry_id, lot_id, amount FROM asked WHERE amount <> 0
), covers AS (
    INSERT INTO points_cover (merchant_id, lot_id, covered_id, amount)
    SELECT :merchant_id, * FROM unnest(:covering_ids::uuid[], :covered_ids::uuid[], :covered::int[])
    ON CONFLICT (merchant_id, covered_id, lot_id) DO UPDATE SET amount = points_cover.amount + excluded.amount
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT {columns(PostedRow)} FROM e CROSS JOIN w CROSS JOIN ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :member_id OFFSET 0) m
""",
)


async def write(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    move: Move,
    reason: PointsReason,
    *,
    origin: str,
    reference: str | None,
) -> PostedRow:
    """Write an entry of a wallet that is locked. Its parts don't make 0.

    Raises asyncpg.UniqueViolationError when `origin` has an entry for this reason already.
    """
    changed = dict.fromkeys([*move.parts, *move.shortfalls, *([move.taken_back] if move.taken_back else [])])
    entry = await tx.row(
        MOVE,
        merchant_id=merchant_id,
        member_id=member_id,
        entry_id=ids.new(),
        reason=reason.value,
        origin=origin,
        reference=reference,
        lot_ids=list(changed),
        amounts=[move.parts.get(lot_id, 0) for lot_id in changed],
        shortfalls=[move.shortfalls.get(lot_id, 0) for lot_id in changed],
        taken_back_id=move.taken_back,
        covering_ids=[lot_id for lot_id, _ in move.covers],
        covered_ids=[covered_id for _, covered_id in move.covers],
        covered=list(move.covers.values()),
        event_id=ids.new(),
        actor=actor,
    )
    if entry is None:
        raise RuntimeError("a locked wallet took no entry")
    ring_wallet(tx, merchant_id, entry)
    return entry


FALL_SHORT: Final = statement(
    ChangeRow,
    f"""
WITH w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, shortfall = shortfall + :lacking::int
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND shortfall + :lacking::bigint <= {POINTS_MAX}
    RETURNING *
), lot AS (
    UPDATE points_lot SET shortfall = points_lot.shortfall + :lacking,
        taken_back_at = coalesce(taken_back_at, w.changed_at)
    FROM w WHERE points_lot.merchant_id = :merchant_id AND entry_id = :lot_id
), ev AS (
    {
        event(
            "points.fell_short",
            subject=":lot_id",
            source="w",
            points=":lacking",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


async def fall_short(tx: Tx, merchant_id: UUID, actor: str, member_id: UUID, lot_id: UUID, lacking: int) -> ChangeRow:
    """Write down what a take-back of a lot's credit could not get, in a wallet that is locked.

    Raises Refused(InvalidInput) when the wallet would lack more than POINTS_MAX.
    """
    change = await tx.row(
        FALL_SHORT,
        merchant_id=merchant_id,
        member_id=member_id,
        lot_id=lot_id,
        lacking=lacking,
        event_id=ids.new(),
        actor=actor,
    )
    if change is None:
        problems = Problems()
        problems.add("purchaseId", f"would take the member's shortfall over {POINTS_MAX}")
        raise Refused(InvalidInput(message=f"purchaseId {problems.found[0].message}.", problems=problems.found))
    ring_wallet(tx, merchant_id, change)
    return change
