"""Expiry: what is left of a credit when its lifetime ends is debited, and some days before the member is warned.

Points expire when the job writes it, so until then they can be spent; a balance is always the sum of its entries.
"""

from typing import Final
from uuid import UUID

from app import ids
from app.points.ledger import lock_wallet, post
from app.points.types import PointsReason
from app.storage.database import database, transaction

MEMBERS_PER_LOOK: Final = 500
CREDITS_PER_ENTRY_MAX: Final = 5000
WARNINGS_PER_STATEMENT: Final = 500

FIND_DUE: Final = """
SELECT merchant_id FROM merchant m WHERE EXISTS (
    SELECT FROM points_due d WHERE d.merchant_id = m.merchant_id AND d.expires_at <= now()
)
"""
FIND_MEMBERS: Final = """
SELECT DISTINCT member_id FROM (
    SELECT member_id FROM points_due WHERE merchant_id = $1 AND expires_at <= now() ORDER BY expires_at LIMIT $2
) due ORDER BY member_id
"""
TAKE_DUE: Final = """
WITH due AS (
    SELECT mark FROM points_due WHERE merchant_id = $1 AND member_id = $2 AND expires_at <= now()
    ORDER BY mark LIMIT $3
), gone AS (
    DELETE FROM points_due WHERE merchant_id = $1 AND member_id = $2 AND mark = ANY(ARRAY(SELECT mark FROM due))
    RETURNING mark, entry_id
)
SELECT mark, entry_id FROM gone ORDER BY mark DESC LIMIT 1
"""
FIND_UNWARNED: Final = """
SELECT merchant_id FROM merchant m WHERE points_warning_days > 0 AND EXISTS (
    SELECT FROM points_due d WHERE d.merchant_id = m.merchant_id AND NOT d.warned
        AND d.expires_at <= now() + m.points_warning_days * interval '24 hours'
)
"""
# Skips rows that another run is at. A credit of which nothing is left is passed over in silence.
WARN: Final = """
WITH near AS (
    SELECT d.entry_id, d.member_id, d.mark FROM points_due d
    WHERE d.merchant_id = $1 AND NOT d.warned AND d.expires_at <= now() + interval '24 hours' * (
        SELECT points_warning_days FROM merchant WHERE merchant_id = $1
    )
    ORDER BY d.expires_at LIMIT cardinality($2::uuid[]) FOR UPDATE SKIP LOCKED
), marked AS (
    UPDATE points_due d SET warned = true FROM near
    WHERE d.merchant_id = $1 AND d.member_id = near.member_id AND d.mark = near.mark
    RETURNING d.entry_id, d.member_id, d.mark
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, ($2::uuid[])[row_number() OVER (ORDER BY marked.entry_id)], 'points.expiring', marked.entry_id,
        'system', now()
    FROM marked CROSS JOIN LATERAL (
        SELECT expiring_spent FROM wallet WHERE merchant_id = $1 AND member_id = marked.member_id OFFSET 0
    ) w
    WHERE marked.mark > w.expiring_spent
)
SELECT count(*) AS credits FROM marked
"""


async def expire_points() -> int:
    """Expire all points that are due, a member per transaction. Returns how many. Safe to run twice and at once."""
    expired = 0
    for row in await database().rows(FIND_DUE):
        expired += await expire_points_of(row["merchant_id"])
    return expired


async def expire_points_of(merchant_id: UUID) -> int:
    """Expire what is due of one merchant. Returns how many points."""
    expired = 0
    while due := await database().rows(FIND_MEMBERS, merchant_id, MEMBERS_PER_LOOK):
        for row in due:
            expired += await _expire_member(merchant_id, row["member_id"])
    return expired


async def _expire_member(merchant_id: UUID, member_id: UUID) -> int:
    """Debit what is left of a member's credits that are due, as one entry, and forget them.

    The wallet's lock comes first, so that no debit comes between looking and writing. The entry's origin is the
    newest of the credits, so that it can't be written twice.
    """
    async with transaction() as tx:
        wallet = await lock_wallet(tx, merchant_id, member_id)
        newest = await tx.row(TAKE_DUE, merchant_id, member_id, CREDITS_PER_ENTRY_MAX)
        left = 0 if newest is None else newest["mark"] - wallet["expiring_spent"]
        if newest is None or left <= 0:
            return 0
        origin = newest["entry_id"].hex
        await post(tx, merchant_id, "system", member_id, -left, PointsReason.EXPIRY, origin=origin, reference=None)
        return int(left)


async def warn_of_expiry() -> int:
    """Write one event for each credit that is about to expire with points left. Returns how many were looked at."""
    warned = 0
    for row in await database().rows(FIND_UNWARNED):
        while looked_at := await _warn(row["merchant_id"]):
            warned += looked_at
    return warned


async def _warn(merchant_id: UUID) -> int:
    row = await database().row(WARN, merchant_id, [ids.new() for _ in range(WARNINGS_PER_STATEMENT)])
    return 0 if row is None else int(row["credits"])
