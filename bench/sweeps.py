"""Sweeps over all merchants: buffers of a round that is idle and of one with work, for few merchants and many more."""

import json
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import asyncpg

from app.api.context import Viewer
from app.config import settings
from app.coupons.expire_codes import expire_codes, expire_codes_of
from app.coupons.rows import LIST_CODES_IN_STATE
from app.coupons.stock import fold, fold_stock
from app.coupons.stock_levels import check_missed
from app.merchants.create_merchant import create_merchant
from app.storage.database import database, dsn
from app.webhooks import deliveries
from app.webhooks.feed import make_deliveries
from bench.world import add_pool

#: How many merchants there are, and how many of them have work.
SIZES: Final = (200, 2_000)
BUSY: Final = 5
#: A backlog: so many pools, and how many codes of each are past an end of their own.
BACKLOGS: Final = (2, 20)
BACKLOG_OF_POOL: Final = 500
MERCHANTS: Final = """
INSERT INTO merchant (merchant_id, name, currency, created_at)
SELECT gen_random_uuid(), 'small', 'USD', now() FROM generate_series(1, $1::int)
"""
#: What new merchants have: two pools, one of which will be over, a webhook, and an event.
WORLDS: Final = """
WITH m AS (
    SELECT merchant_id FROM merchant m WHERE NOT EXISTS (SELECT FROM pool p WHERE p.merchant_id = m.merchant_id)
), p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, percent_off, claims_per_member, stacking, transferable,
                      created_at)
    SELECT merchant_id, uuidv7(), 'bench', 'DRAFT', 'PERCENT', 10, 1, 'EXCLUSIVE', false, now()
    FROM m, generate_series(1, 2) RETURNING merchant_id, id
), s AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT merchant_id, id, gen_random_uuid(), 100, 0, 0, 0, 0 FROM p
), w AS (
    INSERT INTO webhook (merchant_id, id, url, event_types, secret, created_at, feed_from)
    SELECT merchant_id, uuidv7(), 'x', '{}', 'x', now(), pg_current_snapshot()::text FROM m RETURNING merchant_id, id
)
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT merchant_id, uuidv7(), 'webhook.created', 'webhook', id, 'system', now() FROM w
"""
#: A batch of codes of each merchant, some of them with an end to come.
CODES: Final = """
WITH batch AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT DISTINCT ON (merchant_id) merchant_id, uuidv7(), id, 20, now() FROM pool ORDER BY merchant_id, id
    RETURNING merchant_id, id, pool_id
)
INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, expires_at)
SELECT merchant_id, uuidv7(), pool_id, id, 'AVAILABLE', 'x', decode(md5(random()::text) || md5(n::text), 'hex'), '2A',
    CASE WHEN n <= 5 THEN now() + interval '1 day' END
FROM batch, generate_series(1, 20) AS n
"""
BACKLOG: Final = """
WITH batch AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at) VALUES ($1, uuidv7(), $2, $3, now()) RETURNING *
)
INSERT INTO code (merchant_id, id, pool_id, batch_id, state, bearer, allocated_at, expires_at, ciphertext, fingerprint,
                  suffix)
SELECT merchant_id, uuidv7(), pool_id, id, 'ALLOCATED', true, now(), now() - random() * interval '1 hour', 'x',
    decode(md5(random()::text) || md5(n::text), 'hex'), '2A'
FROM batch, generate_series(1, $3::int) AS n
"""
#: Pools of one merchant with so few codes that all are among the newest but those of the first ones; one is revoked,
#: and one allocated.
LISTED: Final = (500, 5_000)
LISTED_POOLS: Final = """
WITH p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, percent_off, claims_per_member, stacking, transferable,
                      created_at)
    SELECT $1, uuidv7(), 'bench', 'DRAFT', 'PERCENT', 10, 1, 'EXCLUSIVE', false, now() FROM generate_series(1, $2::int)
    RETURNING merchant_id, id
), batch AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT merchant_id, uuidv7(), id, 5, now() FROM p RETURNING merchant_id, id, pool_id
), c AS (
    INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix)
    SELECT merchant_id, uuidv7(), pool_id, id, 'AVAILABLE', 'x',
        decode(md5(random()::text) || md5(n::text), 'hex'), '2A'
    FROM batch, generate_series(1, 5) AS n
)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked, is_folded)
SELECT merchant_id, id, gen_random_uuid(), 5, 0, 0, 0, 0, true FROM p
"""
REVOKED: Final = """
WITH c AS (
    UPDATE code SET state = 'REVOKED'
    WHERE merchant_id = $1 AND id = (SELECT id FROM code WHERE merchant_id = $1 ORDER BY id LIMIT 1) RETURNING *
)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
SELECT merchant_id, pool_id, gen_random_uuid(), -1, 0, 0, 0, 1 FROM c
"""
ALLOCATED: Final = """
WITH c AS (
    UPDATE code SET state = 'ALLOCATED', bearer = true, allocated_at = now()
    WHERE merchant_id = $1 AND id = (SELECT id FROM code WHERE merchant_id = $1 ORDER BY id OFFSET 1 LIMIT 1)
    RETURNING *
)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
SELECT merchant_id, pool_id, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
"""
OVER: Final = """
UPDATE pool SET status = 'ARCHIVED' WHERE status = 'ACTIVE' AND id = ANY(ARRAY(
    SELECT max(id::text)::uuid FROM pool GROUP BY merchant_id
))
"""
#: What a busy merchant's customers do: sixty claims of a pool, of which one reaches a level, and two codes that end.
CHANGES: Final = """
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
SELECT merchant_id, id, gen_random_uuid(), -1, 1, 0, 0, 0 FROM pool, generate_series(1, 60)
WHERE status = 'ACTIVE' AND merchant_id = ANY($1::uuid[])
"""
ENDS: Final = """
UPDATE code SET expires_at = now() WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM (
        SELECT ctid, row_number() OVER (PARTITION BY merchant_id) AS number FROM code
        WHERE merchant_id = ANY($1::uuid[]) AND expires_at IS NOT NULL
    ) each WHERE number <= 2
))
"""
EVENTS: Final = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT merchant_id, uuidv7(), 'pool.edited', 'pool', gen_random_uuid(), 'system', now() FROM merchant
WHERE merchant_id = ANY($1::uuid[])
"""
DELIVERED: Final = """
UPDATE webhook_delivery SET state = 'DELIVERED', settled_at = now(), next_attempt_at = NULL WHERE state = 'PENDING'
"""
COUNTED: Final = """
SELECT blks_hit + blks_read AS buffers FROM pg_stat_database WHERE datname = current_database()
"""


async def _take() -> int:
    return len(await deliveries.take({}, per_webhook=4, most=100))


async def _make() -> int:
    return (await make_deliveries())[0]


#: Does a round, and returns how much there was to do.
Sweep = Callable[[], Awaitable[int]]
SWEEPS: Final[dict[str, Sweep]] = {
    "stock levels": check_missed,
    "folding stock": fold_stock,
    "expiry of codes": expire_codes,
    "events for webhooks": _make,
    "deliveries that are due": _take,
}


async def _buffers() -> int:
    """Return how many blocks this server's sessions have touched, those of the connection that asks for it included."""
    await database().row("SELECT pg_stat_force_next_flush()")
    row = await database().row(COUNTED)
    return 0 if row is None else int(row["buffers"])


async def _counted(sweep: Sweep) -> int:
    """Return the buffers that a sweep touches, less those of counting them."""
    start = await _buffers()
    begun = await _buffers()
    await sweep()
    return max(0, await _buffers() - begun - (begun - start))


async def _settle() -> None:
    """Do what there is to do, so that the next round of each sweep is idle."""
    for row in await database().rows("SELECT merchant_id, pool_id FROM stock_change GROUP BY 1, 2 HAVING count(*) > 1"):
        await fold(row["merchant_id"], row["pool_id"])
    await database().row("UPDATE stock_change SET is_folded = true")
    while (await make_deliveries())[1]:
        pass
    await database().many(DELIVERED, seconds_max=600)
    # Also plans each for the first time.
    for sweep in SWEEPS.values():
        await sweep()


async def _work(merchants: list[UUID]) -> None:
    for statement in (CHANGES, ENDS, EVENTS):
        await database().row(statement, merchants)


async def measure(viewer: Viewer) -> list[str]:
    """Add merchants twice, and count each sweep's buffers while nothing is to be done, and while some have work."""
    found: dict[tuple[str, str], list[int]] = {}
    busy = [(await create_merchant("busy", "USD")).id for _ in range(BUSY)]
    there = 0
    for size in SIZES:
        await database().many(MERCHANTS, size - there, seconds_max=600)
        there = size
        for statement in (WORLDS, "UPDATE pool SET status = 'ACTIVE' WHERE status = 'DRAFT'", OVER, CODES):
            await database().many(statement, seconds_max=600)
        await database().many("VACUUM (ANALYZE)", seconds_max=600)
        await _settle()
        await database().many("VACUUM (ANALYZE)", seconds_max=600)
        for name, sweep in SWEEPS.items():
            found.setdefault((name, "idle"), []).append(await _counted(sweep))
        await _work(busy)
        for name, sweep in SWEEPS.items():
            found.setdefault((name, f"{BUSY} with work"), []).append(await _counted(sweep))
    first, last = SIZES
    lines = [f"| sweep | round | {first:,} merchants | {last:,} merchants |", "|---|---|---:|---:|"]
    lines += [f"| {name} | {round_} | {few:,} | {many:,} |" for (name, round_), (few, many) in sorted(found.items())]
    lines += ["", "| codes that expire while an old snapshot is open | buffers per code |", "|---:|---:|"]
    for pools in BACKLOGS:
        codes, buffers = await _expired(viewer, pools)
        lines.append(f"| {codes:,} | {buffers / codes:,.0f} |")
    lines += ["", "| pools | buffers of a page of REVOKED codes | EXPIRED | ALLOCATED |", "|---:|---:|---:|---:|"]
    for pools in LISTED:
        owner = (await create_merchant("lists", "USD")).id
        await database().many(LISTED_POOLS, owner, pools, seconds_max=600)
        await database().many(REVOKED, owner)
        await database().many(ALLOCATED, owner)
        await database().many("VACUUM (ANALYZE)", seconds_max=600)
        counted = [await _listed(owner, state) for state in ("REVOKED", "EXPIRED", "ALLOCATED")]
        lines.append(f"| {pools:,} | {' | '.join(f'{each:,}' for each in counted)} |")
    return ["Buffers of one round of each sweep.", "", *lines]


async def _listed(merchant_id: UUID, state: str) -> int:
    """Return the buffers of a page of codes in a state that few have."""
    arguments = LIST_CODES_IN_STATE.arguments(
        {"merchant_id": merchant_id, "before": UUID(int=2**128 - 1), "limit": 51, "state": state}
    )
    query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) {LIST_CODES_IN_STATE.text}"
    row = await database().row(query, *arguments)
    plan = json.loads("" if row is None else row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def _expired(viewer: Viewer, pools: int) -> tuple[int, int]:
    """Let codes expire under an open snapshot, and return how many, and the buffers that this touches."""
    for _ in range(pools):
        await database().row(BACKLOG, viewer.merchant_id, await add_pool(viewer), BACKLOG_OF_POOL)
    await database().many("VACUUM (ANALYZE)", seconds_max=600)
    reader = await asyncpg.connect(dsn(settings().database_url or ""))
    try:
        async with reader.transaction(isolation="repeatable_read"):
            await reader.execute("SELECT FROM merchant LIMIT 1")
            before = await _buffers()
            expired = await expire_codes_of(viewer.merchant_id)
            return expired, await _buffers() - before
    finally:
        await reader.close()
