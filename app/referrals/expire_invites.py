"""Expiry: invites that didn't convert in their lifetime end, and their senders' lifetime quotas have them back."""

from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.storage.database import database
from app.storage.events import event
from app.storage.fences import stands
from app.storage.statements import statement

BATCH: Final = 500


class DueMerchantRow(TypedDict):
    """A merchant of whose invites some are due."""

    merchant_id: UUID


FIND: Final = statement(
    DueMerchantRow,
    f"""
SELECT merchant_id FROM merchant m WHERE {stands("m")} AND EXISTS (
    SELECT FROM invite i WHERE i.merchant_id = m.merchant_id AND i.status = 'PENDING' AND i.expires_at <= now()
)
""",
)


async def expire_invites() -> int:
    """Expire all invites that are due, a batch per statement. Returns how many. Safe to run twice and at once."""
    expired = 0
    for row in await database().rows(FIND):
        while batch := await expire_batch(row["merchant_id"]):
            expired += batch
    return expired


class ExpiredRow(TypedDict):
    """How many invites were expired."""

    invites: int


EXPIRE: Final = statement(
    ExpiredRow,
    f"""
WITH due AS (
    -- Without invites that are being accepted, converted or cancelled right now: they come up again, if they are
    -- PENDING then.
    SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND status = 'PENDING' AND expires_at <= coalesce(:at::timestamptz, now())
    ORDER BY expires_at LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE SKIP LOCKED
), i AS (
    UPDATE invite SET status = 'EXPIRED' WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM due))
    RETURNING id, referrer_id
), holders AS (
    -- Quotas are locked by member, after the invites, as when invites are sent.
    SELECT member_id FROM invite_quota
    WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY(SELECT referrer_id FROM i))
    ORDER BY member_id FOR UPDATE
), reclaimed AS (
    -- The day's quota isn't given back: sending is what it limits.
    UPDATE invite_quota SET sent_lifetime = sent_lifetime - ended.count
    FROM (SELECT referrer_id, count(*)::int AS count FROM i GROUP BY 1) ended
    WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY(SELECT member_id FROM holders))
        AND member_id = ended.referrer_id
), recorded AS (
    {
        event(
            "invite.expired",
            id="(:event_ids::uuid[])[row_number() OVER (ORDER BY id)]",
            subject="id",
            actor="'system'",
            source="i",
        )
    }
)
SELECT count(*) AS invites FROM i
""",
)


async def expire_batch(merchant_id: UUID, at: datetime | None = None) -> int:
    """Expire up to BATCH invites of a merchant that are due, now or at an instant."""
    event_ids = [ids.new() for _ in range(BATCH)]
    row = await database().row(EXPIRE, merchant_id=merchant_id, event_ids=event_ids, at=at)
    return 0 if row is None else row["invites"]
