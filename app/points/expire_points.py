"""Expiry: what is left of a credit when it ends is debited, and some days before the member is warned.

Points expire when the job writes it, so until then they can be spent; a balance is always the sum of its entries. What
is held expires when it is freed.
"""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.points.sweep import DueMerchantRow, lock_due, sweep
from app.storage.database import Tx, database
from app.storage.events import event
from app.storage.fences import stands
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

LOTS_PER_ENTRY_MAX: Final = 5000
WARNINGS_PER_STATEMENT: Final = 500


FIND_DUE: Final = statement(
    DueMerchantRow,
    f"""
SELECT merchant_id FROM merchant m WHERE {stands("m")} AND EXISTS (
    SELECT FROM points_lot l
    WHERE l.merchant_id = m.merchant_id AND l.is_open AND l.expires_at < 'infinity' AND l.expires_at <= now()
)
""",
)


async def expire_points() -> int:
    """Expire all points that are due. Returns how many. Safe to run twice and at once."""
    expired = 0
    for row in await database().rows(FIND_DUE):
        expired += await expire_points_of(row["merchant_id"])
    return expired


async def expire_points_of(merchant_id: UUID) -> int:
    """Expire what is due of one merchant. Returns how many points."""
    return await sweep(merchant_id, LOCK_DUE, WAIT_FOR_DUE, _expire)


_DUE: Final = """
    SELECT member_id FROM points_lot
    WHERE merchant_id = :merchant_id AND is_open AND expires_at < 'infinity' AND expires_at <= now()
    ORDER BY expires_at LIMIT :credits
"""
LOCK_DUE: Final = lock_due(_DUE, skips=True)
WAIT_FOR_DUE: Final = lock_due(_DUE, skips=False)


# One entry for each member. Its origin is the newest of the credits that end, so that it can't be written twice.
EXPIRE: Final = statement(
    ChangeRow,
    f"""
WITH due AS (
    SELECT asked.member_id, asked.place, lot.entry_id, lot.free, lot.is_pending
    FROM unnest(:member_ids::uuid[]) WITH ORDINALITY AS asked (member_id, place) CROSS JOIN LATERAL (
        SELECT entry_id, remaining - held AS free, is_pending FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND is_open AND is_pending IN (false, true)
            AND expires_at <= now()
        ORDER BY is_pending, expires_at, created_at, entry_id LIMIT {LOTS_PER_ENTRY_MAX}
    ) lot
), gone AS (
    SELECT member_id, (:entry_ids::uuid[])[place] AS entry_id, (:event_ids::uuid[])[place] AS event_id,
        sum(free)::int AS points, coalesce(sum(free) FILTER (WHERE is_pending), 0)::int AS pending,
        (array_agg(due.entry_id ORDER BY due.entry_id DESC))[1] AS newest
    FROM due GROUP BY member_id, place
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = wallet.points - gone.points,
        pending_points = pending_points - gone.pending
    FROM gone
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = ANY(:member_ids)
        AND wallet.member_id = gone.member_id
    RETURNING wallet.*, gone.entry_id, gone.event_id, gone.points AS gone, gone.newest
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, created_at)
    SELECT :merchant_id, entry_id, member_id, -gone, points, 'EXPIRY', replace(newest::text, '-', ''), changed_at
    FROM w
), emptied AS (
    UPDATE points_lot SET remaining = held, is_open = false, expired = expired + remaining - held,
        last_entry_id = w.entry_id
    FROM w
    WHERE points_lot.merchant_id = :merchant_id AND points_lot.entry_id = ANY(ARRAY(SELECT entry_id FROM due))
        AND points_lot.member_id = w.member_id
), parts AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
    SELECT :merchant_id, w.entry_id, due.entry_id, -due.free FROM due JOIN w ON w.member_id = due.member_id
), ev AS (
    {
        event(
            "points.debited",
            id="w.event_id",
            subject="w.entry_id",
            actor="'system'",
            source="w",
            points="w.gone",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


async def _expire(tx: Tx, merchant_id: UUID, member_ids: Sequence[UUID]) -> int:
    """Expire what is due in wallets that are locked. Returns how many points."""
    changes = await tx.many(
        EXPIRE,
        merchant_id=merchant_id,
        member_ids=list(member_ids),
        entry_ids=[ids.new() for _ in member_ids],
        event_ids=[ids.new() for _ in member_ids],
    )
    for change in changes:
        ring_wallet(tx, merchant_id, change)
    return sum(change["event_points"] or 0 for change in changes)


FIND_UNWARNED: Final = statement(
    DueMerchantRow,
    f"""
SELECT merchant_id FROM merchant m WHERE points_warning_days > 0 AND {stands("m")} AND EXISTS (
    SELECT FROM points_lot l
    WHERE l.merchant_id = m.merchant_id AND l.is_open AND NOT l.is_warned AND l.expires_at < 'infinity'
        AND l.expires_at <= now() + m.points_warning_days * interval '24 hours'
)
""",
)


async def warn_of_expiry() -> int:
    """Write one event for each credit that is about to expire with points left. Returns how many."""
    warned = 0
    for row in await database().rows(FIND_UNWARNED):
        while written := await _warn(row["merchant_id"]):
            warned += written
    return warned


class WarnedRow(TypedDict):
    """How many credits were warned of."""

    credits: int


WARN: Final = statement(
    WarnedRow,
    f"""
WITH near AS (
    -- The next ones, without those that another run or a debit is at.
    SELECT l.entry_id FROM points_lot l
    WHERE l.merchant_id = :merchant_id AND l.is_open AND NOT l.is_warned AND l.expires_at < 'infinity'
        AND l.expires_at <= now() + interval '24 hours' * (
            SELECT points_warning_days FROM merchant WHERE merchant_id = :merchant_id
        )
    ORDER BY l.expires_at LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE SKIP LOCKED
), warned AS (
    UPDATE points_lot SET is_warned = true
    WHERE merchant_id = :merchant_id AND entry_id = ANY(ARRAY(SELECT entry_id FROM near))
    RETURNING entry_id, remaining - held AS free
), recorded AS (
    {
        event(
            "points.expiring",
            id="(:event_ids::uuid[])[row_number() OVER (ORDER BY entry_id)]",
            subject="entry_id",
            actor="'system'",
            source="warned",
            points="free",
        )
    }
)
SELECT count(*) AS credits FROM warned
""",
)


async def _warn(merchant_id: UUID) -> int:
    event_ids = [ids.new() for _ in range(WARNINGS_PER_STATEMENT)]
    row = await database().row(WARN, merchant_id=merchant_id, event_ids=event_ids)
    return 0 if row is None else row["credits"]
