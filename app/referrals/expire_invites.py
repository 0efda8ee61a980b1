"""Expiry: invites that didn't convert in their lifetime end, and their senders' lifetime quotas have them back."""

from datetime import datetime
from typing import Final
from uuid import UUID

from app import ids
from app.storage.database import database

BATCH: Final = 500

FIND: Final = """
SELECT merchant_id FROM merchant m WHERE EXISTS (
    SELECT FROM invite i WHERE i.merchant_id = m.merchant_id AND i.status = 'PENDING' AND i.expires_at <= now()
)
"""
# Skips invites that are being accepted, converted or cancelled right now: they come up again, if they are PENDING
# then. Quotas are locked by member, after the invites, as when invites are sent. The day's isn't given back: sending
# is what it limits.
EXPIRE: Final = """
WITH due AS (
    SELECT id FROM invite
    WHERE merchant_id = $1 AND status = 'PENDING' AND expires_at <= coalesce($3::timestamptz, now())
    ORDER BY expires_at LIMIT cardinality($2::uuid[]) FOR UPDATE SKIP LOCKED
), i AS (
    UPDATE invite SET status = 'EXPIRED' WHERE merchant_id = $1 AND id = ANY(ARRAY(SELECT id FROM due))
    RETURNING id, referrer_id
), holders AS (
    SELECT member_id FROM invite_quota
    WHERE merchant_id = $1 AND member_id = ANY(ARRAY(SELECT referrer_id FROM i)) ORDER BY member_id FOR UPDATE
), reclaimed AS (
    UPDATE invite_quota SET sent_lifetime = sent_lifetime - ended.count
    FROM (SELECT referrer_id, count(*)::int AS count FROM i GROUP BY 1) ended
    WHERE merchant_id = $1 AND member_id = ANY(ARRAY(SELECT member_id FROM holders)) AND member_id = ended.referrer_id
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, ($2::uuid[])[row_number() OVER (ORDER BY id)], 'invite.expired', id, 'system', now() FROM i
)
SELECT count(*) AS invites FROM i
"""


async def expire_invites() -> int:
    """Expire all invites that are due, a batch per statement. Returns how many. Safe to run twice and at once."""
    expired = 0
    for row in await database().rows(FIND):
        while batch := await expire_batch(row["merchant_id"]):
            expired += batch
    return expired


async def expire_batch(merchant_id: UUID, at: datetime | None = None) -> int:
    """Expire up to BATCH invites of a merchant that are due, now or at an instant."""
    row = await database().row(EXPIRE, merchant_id, [ids.new() for _ in range(BATCH)], at)
    return 0 if row is None else int(row["invites"])
