"""Expiry: allocated codes past their lifetime become EXPIRED, and are replaced where the pool says so."""

from collections import Counter
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.coupons.recycle import recycle
from app.coupons.rows import JOIN_CODE, WholeCodeRow
from app.merchants.tenants import tenant
from app.storage.database import database, transaction
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

BATCH: Final = 500


class _MerchantRow(TypedDict):
    merchant_id: UUID


class ExpiredRow(WholeCodeRow, ChangeRow):
    """A code that expired, and whether a fresh one takes its place."""

    recycled: bool


FIND: Final = statement(
    _MerchantRow,
    """
SELECT m.merchant_id FROM merchant m WHERE EXISTS (
    SELECT FROM code c WHERE c.merchant_id = m.merchant_id AND c.state = 'ALLOCATED' AND c.expires_at <= now()
)
""",
)


async def expire_codes() -> int:
    """Expire all codes that are due, a batch per transaction. Returns how many. Safe to run twice and at once."""
    expired = 0
    for row in await database().rows(FIND):
        while batch := await expire_batch(row["merchant_id"]):
            expired += batch
    return expired


EXPIRE: Final = statement(
    ExpiredRow,
    f"""
WITH due AS (
    -- Without codes that are being redeemed or revoked right now: they come up again, in whatever state they are then.
    SELECT id FROM code
    WHERE merchant_id = :merchant_id AND state = 'ALLOCATED' AND expires_at <= now()
    ORDER BY id LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE SKIP LOCKED
), c AS (
    UPDATE code SET state = 'EXPIRED' WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM due))
    RETURNING *
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), 0, count(*), 0 FROM c GROUP BY pool_id
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id, id AS subject_id, member_id,
        NULL::bytea AS reason
    FROM c
), {raise_wallets("code.expired", actor="'system'")}
SELECT {columns(WholeCodeRow)}, {columns(ChangeRow)}, p.recycle_expired AND p.status <> 'ARCHIVED' AS recycled
FROM c {JOIN_CODE} JOIN recorded ev ON ev.subject_id = c.id
""",
)


async def expire_batch(merchant_id: UUID) -> int:
    """Expire up to BATCH codes of a merchant in one transaction, recycling included."""
    owner = await tenant(merchant_id)
    if owner is None:
        return 0
    async with transaction(merchant_id) as tx:
        rows = await tx.rows(EXPIRE, merchant_id=merchant_id, event_ids=[ids.new() for _ in range(BATCH)])
        places = Counter((row["pool_id"], row["pool_kind"]) for row in rows if row["recycled"])
        for row in rows:
            ring_wallet(tx, merchant_id, row)
        for (pool_id, kind), count in sorted(places.items()):
            await recycle(tx, owner.keys, pool_id, kind, count=count, actor="system")
    return len(rows)
