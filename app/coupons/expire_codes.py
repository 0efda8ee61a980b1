"""Expiry: allocated codes past their end or their pool's become EXPIRED; those of pools that go on are replaced."""

from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.coupons.recycle import recycle_each
from app.coupons.rows import IS_HELD, IS_OVER, IS_OVER_FOR, JOIN_CODE, WholeCodeRow
from app.merchants.tenants import tenant
from app.storage.database import database, transaction
from app.storage.fences import stands
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
    f"""
SELECT m.merchant_id FROM merchant m WHERE {stands("m")} AND (EXISTS (
    SELECT FROM code c
    WHERE c.merchant_id = m.merchant_id AND c.state IN ('AVAILABLE', 'ALLOCATED') AND c.expires_at <= now()
        AND NOT {IS_HELD}
) OR EXISTS (
    SELECT FROM pool p WHERE p.merchant_id = m.merchant_id AND {IS_OVER} AND EXISTS (
        SELECT FROM code c
        WHERE c.merchant_id = m.merchant_id AND c.pool_id = p.id AND c.state = 'ALLOCATED' AND {IS_OVER_FOR.format("c")}
            AND NOT {IS_HELD}
    )
))
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
WITH over AS (
    -- Pools whose codes are dead. An edit that gives one a later end waits for this, and has revived what expired.
    SELECT id, status = 'ARCHIVED' AS is_archived FROM pool p
    WHERE merchant_id = :merchant_id AND {IS_OVER} AND EXISTS (
        SELECT FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND state = 'ALLOCATED' AND {IS_OVER_FOR.format("c")}
            AND NOT {IS_HELD}
    )
    ORDER BY id FOR SHARE
), found AS (
    -- Stock that was imported may have an end of its own, too. What is held doesn't end before its hold.
    (SELECT id FROM code c
     WHERE merchant_id = :merchant_id AND state IN ('AVAILABLE', 'ALLOCATED') AND expires_at <= now() AND NOT {IS_HELD}
     ORDER BY expires_at LIMIT cardinality(:event_ids::uuid[]))
    UNION
    SELECT each.id FROM over CROSS JOIN LATERAL (
        SELECT id FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = over.id AND state = 'ALLOCATED'
            AND (over.is_archived OR NOT outlives_pool) AND NOT {IS_HELD}
        ORDER BY id LIMIT cardinality(:event_ids::uuid[])
    ) each
), due AS (
    -- Without codes that are being redeemed or revoked right now: they come up again, in whatever state they are then.
    SELECT id FROM code c
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM found))
        AND state IN ('AVAILABLE', 'ALLOCATED') AND NOT {IS_HELD}
        AND (expires_at <= now() OR (state = 'ALLOCATED' AND (
            pool_id = ANY(ARRAY(SELECT id FROM over WHERE is_archived))
            OR (NOT outlives_pool AND pool_id = ANY(ARRAY(SELECT id FROM over)))
        )))
    ORDER BY id LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE SKIP LOCKED
), c AS (
    UPDATE code SET state = 'EXPIRED', died_with_pool = NOT coalesce(expires_at <= now(), false)
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM due))
    RETURNING new.*, old.state AS state_before
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), -count(*) FILTER (WHERE state_before = 'AVAILABLE'),
        -count(*) FILTER (WHERE state_before = 'ALLOCATED'), 0, count(*), 0
    FROM c GROUP BY pool_id
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id, id AS subject_id, member_id,
        NULL::bytea AS reason
    FROM c
), {raise_wallets("code.expired", actor="'system'")}
SELECT {columns(WholeCodeRow)}, {columns(ChangeRow)},
    p.recycle_expired AND c.state_before = 'ALLOCATED' AND NOT {IS_OVER} AS recycled
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
        for row in rows:
            ring_wallet(tx, merchant_id, row)
        places = [(row["pool_id"], row["pool_kind"], row["pool_code_pattern"]) for row in rows if row["recycled"]]
        await recycle_each(tx, owner.keys, places, actor="system")
    return len(rows)
