"""Expiry: what is left of a credit when its lifetime ends is debited, and some days before the member is warned.

Points expire when the job writes it, so until then they can be spent; a balance is always the sum of its entries.
"""

from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.points.ledger import lock_wallet, post
from app.points.types import PointsReason
from app.storage.database import database, transaction
from app.storage.events import event
from app.storage.statements import statement

MEMBERS_PER_LOOK: Final = 500
CREDITS_PER_ENTRY_MAX: Final = 5000
WARNINGS_PER_STATEMENT: Final = 500


class DueMerchantRow(TypedDict):
    """A merchant of whose points some are due."""

    merchant_id: UUID


FIND_DUE: Final = statement(
    DueMerchantRow,
    """
SELECT merchant_id FROM merchant m WHERE EXISTS (
    SELECT FROM points_due d WHERE d.merchant_id = m.merchant_id AND d.expires_at <= now()
)
""",
)


async def expire_points() -> int:
    """Expire all points that are due, a member per transaction. Returns how many. Safe to run twice and at once."""
    expired = 0
    for row in await database().rows(FIND_DUE):
        expired += await expire_points_of(row["merchant_id"])
    return expired


class DueMemberRow(TypedDict):
    """A member of whose points some are due."""

    member_id: UUID


FIND_MEMBERS: Final = statement(
    DueMemberRow,
    """
SELECT DISTINCT member_id FROM (
    SELECT member_id FROM points_due
    WHERE merchant_id = :merchant_id AND expires_at <= now() ORDER BY expires_at LIMIT :limit
) due ORDER BY member_id
""",
)


async def expire_points_of(merchant_id: UUID) -> int:
    """Expire what is due of one merchant. Returns how many points."""
    expired = 0
    while due := await database().rows(FIND_MEMBERS, merchant_id=merchant_id, limit=MEMBERS_PER_LOOK):
        for row in due:
            expired += await _expire_member(merchant_id, row["member_id"])
    return expired


class NewestDueRow(TypedDict):
    """The newest of the credits that were due."""

    mark: int
    entry_id: UUID


TAKE_DUE: Final = statement(
    NewestDueRow,
    """
WITH due AS (
    SELECT mark FROM points_due
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND expires_at <= now() ORDER BY mark LIMIT :limit
), gone AS (
    DELETE FROM points_due
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND mark = ANY(ARRAY(SELECT mark FROM due))
    RETURNING mark, entry_id
)
SELECT mark, entry_id FROM gone ORDER BY mark DESC LIMIT 1
""",
)


async def _expire_member(merchant_id: UUID, member_id: UUID) -> int:
    """Debit what is left of a member's credits that are due, as one entry, and forget them.

    The wallet's lock comes first, so that no debit comes between looking and writing. The entry's origin is the
    newest of the credits, so that it can't be written twice.
    """
    async with transaction(merchant_id) as tx:
        wallet = await lock_wallet(tx, merchant_id, member_id)
        newest = await tx.row(TAKE_DUE, merchant_id=merchant_id, member_id=member_id, limit=CREDITS_PER_ENTRY_MAX)
        left = 0 if newest is None else newest["mark"] - wallet["expiring_spent"]
        if newest is None or left <= 0:
            return 0
        origin = newest["entry_id"].hex
        await post(tx, merchant_id, "system", member_id, -left, PointsReason.EXPIRY, origin=origin, reference=None)
        return left


FIND_UNWARNED: Final = statement(
    DueMerchantRow,
    """
SELECT merchant_id FROM merchant m WHERE points_warning_days > 0 AND EXISTS (
    SELECT FROM points_due d WHERE d.merchant_id = m.merchant_id AND NOT d.warned
        AND d.expires_at <= now() + m.points_warning_days * interval '24 hours'
)
""",
)


async def warn_of_expiry() -> int:
    """Write one event for each credit that is about to expire with points left. Returns how many were looked at."""
    warned = 0
    for row in await database().rows(FIND_UNWARNED):
        while looked_at := await _warn(row["merchant_id"]):
            warned += looked_at
    return warned


class WarnedRow(TypedDict):
    """How many credits were looked at."""

    credits: int


WARN: Final = statement(
    WarnedRow,
    f"""
WITH near AS (
    -- The next ones, without those that another run is at.
    SELECT d.entry_id, d.member_id, d.mark FROM points_due d
    WHERE d.merchant_id = :merchant_id AND NOT d.warned AND d.expires_at <= now() + interval '24 hours' * (
        SELECT points_warning_days FROM merchant WHERE merchant_id = :merchant_id
    )
    ORDER BY d.expires_at LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE SKIP LOCKED
), marked AS (
    UPDATE points_due d SET warned = true FROM near
    WHERE d.merchant_id = :merchant_id AND d.member_id = near.member_id AND d.mark = near.mark
    RETURNING d.entry_id, d.member_id, d.mark
), unspent AS (
    -- A credit of which nothing is left is passed over in silence.
    SELECT marked.entry_id FROM marked CROSS JOIN LATERAL (
        SELECT expiring_spent FROM wallet WHERE merchant_id = :merchant_id AND member_id = marked.member_id OFFSET 0
    ) w
    WHERE marked.mark > w.expiring_spent
), recorded AS (
    {
        event(
            "points.expiring",
            id="(:event_ids::uuid[])[row_number() OVER (ORDER BY entry_id)]",
            subject="entry_id",
            actor="'system'",
            source="unspent",
        )
    }
)
SELECT count(*) AS credits FROM marked
""",
)


async def _warn(merchant_id: UUID) -> int:
    event_ids = [ids.new() for _ in range(WARNINGS_PER_STATEMENT)]
    row = await database().row(WARN, merchant_id=merchant_id, event_ids=event_ids)
    return 0 if row is None else row["credits"]
