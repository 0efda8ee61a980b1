"""Storage settings: rows that are changed in place, dead rows, sizes, WAL and buffers, with our settings and without.

`FLASH_BENCH_CODES=200000` says of how many codes. Claims and redemptions are written by the hundred, with the same row
versions as one by one. What stands before an arrow is without the settings.
"""

import asyncio
import os
import time
from statistics import median
from typing import Any, Final
from uuid import UUID

import psutil

from app.api.context import Viewer
from app.config import settings
from app.operate.embedded import DataDirectory
from app.storage.database import database, transaction
from bench.claim_buffers import explained
from bench.world import add_filled_pool, add_members, tree_seconds

CODES: Final = int(os.environ.get("FLASH_BENCH_CODES", "20000"))
POOLS: Final = 4
BATCH: Final = 100
SAMPLES: Final = 60
SHOWN: Final = ("code", "wallet", "claim", "redemption", "stock_change", "member")
CLAIM: Final = """
WITH picked AS (
    SELECT id, row_number() OVER (ORDER BY id) AS n FROM (
        SELECT id FROM code WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' AND id > $4
        ORDER BY id LIMIT cardinality($3::uuid[])
    ) free
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = now()
    WHERE merchant_id = $1 AND member_id = ANY($3) RETURNING *
), c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = m.id, matched_by = 'MEMBER_ID', allocated_at = now()
    FROM picked JOIN unnest($3::uuid[]) WITH ORDINALITY AS m (id, n) ON m.n = picked.n
    WHERE code.merchant_id = $1 AND code.id = picked.id RETURNING code.id, code.member_id
), k AS (
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, claimed_at)
    SELECT $1, id, $2, member_id, 1, now() FROM c
), s AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, $2, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
), e AS (
    INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, member_id, wallet_version,
        wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall)
    SELECT $1, uuidv7(), 'code.claimed', 'code', c.id, 'system', now(), w.member_id, w.version, 0, 0, 0, 0
    FROM c JOIN w ON w.member_id = c.member_id
)
SELECT max(id::text)::uuid AS last FROM c
"""
REDEEM: Final = """
WITH w AS (
    UPDATE wallet SET version = version + 1, changed_at = now()
    WHERE merchant_id = $1 AND member_id = ANY($3) RETURNING *
), c AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now()
    WHERE merchant_id = $1 AND pool_id = $2 AND state = 'ALLOCATED' AND id = ANY(ARRAY(
        SELECT code_id FROM claim WHERE merchant_id = $1 AND pool_id = $2 AND member_id = ANY($3)
    )) RETURNING id, member_id
), m AS (
    UPDATE member SET last_bought_at = now() WHERE merchant_id = $1 AND id = ANY($3)
), o AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version, presenter_id)
    SELECT $1, gen_random_uuid(), 'STORE', id::text, 5000, 'USD', 1, member_id FROM c
), r AS (
    INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
        base, discount, currency, redeemed_at)
    SELECT $1, uuidv7(), $2, 1, id, 'STORE', id::text, 1, 5000, 5000, 500, 'USD', now() FROM c
), s AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, $2, gen_random_uuid(), 0, -1, 1, 0, 0 FROM c
)
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, member_id, wallet_version,
    wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall)
SELECT $1, uuidv7(), 'code.redeemed', 'code', c.id, 'system', now(), w.member_id, w.version, 0, 0, 0, 0
FROM c JOIN w ON w.member_id = c.member_id
"""
#: What the worker does.
FOLD: Final = """
WITH gone AS (DELETE FROM stock_change WHERE merchant_id = $1 AND pool_id = $2 RETURNING *)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked, is_folded)
SELECT $1, $2, gen_random_uuid(), sum(available), sum(allocated), sum(redeemed), 0, 0, true FROM gone
"""
STATISTICS: Final = """
SELECT relname AS table, n_tup_upd AS updates, n_tup_hot_upd AS hot, n_dead_tup AS dead, autovacuum_count AS vacuums,
    pg_table_size(relid) AS bytes, pg_indexes_size(relid) AS index_bytes
FROM pg_stat_user_tables WHERE relname = ANY($1::text[])
"""
SETTINGS: Final = """
SELECT c.relname AS table, o.option_name AS option, o.option_value AS value
FROM pg_class c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""
WAL: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS bytes"


async def _statistics() -> dict[str, Any]:
    return {row["table"]: row for row in await database().rows(STATISTICS, list(SHOWN))}


async def _watch(peaks: dict[str, int]) -> None:
    while True:
        for table, row in (await _statistics()).items():
            peaks[table] = max(peaks.get(table, 0), row["dead"])
        await asyncio.sleep(0.5)


async def _rush(viewer: Viewer, pool_id: UUID, members: list[UUID]) -> None:
    """Let each member claim of the pool, and most of them redeem what they claimed some time before."""
    last, waiting = UUID(int=0), list[list[UUID]]()
    for start in range(0, len(members), BATCH):
        chunk = members[start : start + BATCH]
        row = await database().row(CLAIM, viewer.merchant_id, pool_id, chunk, last)
        last = last if row is None else row["last"]
        waiting.append(chunk)
        if len(waiting) > 20:
            await database().row(REDEEM, viewer.merchant_id, pool_id, waiting.pop(0))
        if start % (50 * BATCH) == 0:
            await database().row(FOLD, viewer.merchant_id, pool_id)
    for chunk in waiting:
        await database().row(REDEEM, viewer.merchant_id, pool_id, chunk)


async def _measured(viewer: Viewer, postgres: psutil.Process) -> dict[str, Any]:
    members = await add_members(viewer, CODES // POOLS + SAMPLES)
    pools = [await add_filled_pool(viewer, CODES // POOLS + SAMPLES) for _ in range(POOLS)]
    await database().row("ANALYZE")
    await database().row("SELECT pg_stat_reset()")
    peaks: dict[str, int] = {}
    watching = asyncio.create_task(_watch(peaks))
    before = (await database().rows(WAL))[0]["bytes"]
    begun, cpu = time.monotonic(), tree_seconds(postgres)
    for pool_id in pools:
        await _rush(viewer, pool_id, members[: CODES // POOLS])
    seconds, cpu = time.monotonic() - begun, tree_seconds(postgres) - cpu
    wal = (await database().rows(WAL))[0]["bytes"] - before
    watching.cancel()
    await database().row("SELECT pg_stat_force_next_flush()")
    found = await _statistics()
    buffers = median([await explained(viewer, pools[-1], member) for member in members[-SAMPLES:]])
    return {
        "tables": found, "peaks": peaks, "seconds": seconds, "wal": wal, "cpu": cpu, "buffers": buffers,
    }  # fmt: skip


async def measure(viewer: Viewer) -> list[str]:
    """Sell and redeem pools twice in empty tables: without our settings, and with them."""
    data = DataDirectory(settings().data)
    postgres = psutil.Process(int((data.postgres / "postmaster.pid").read_text().splitlines()[0]))
    ours: dict[str, dict[str, str]] = {}
    for row in await database().rows(SETTINGS):
        ours.setdefault(row["table"], {})[row["option"]] = row["value"]
    for table, options in ours.items():
        await database().row(f"ALTER TABLE {table} RESET ({', '.join(options)})")
    without = await _measured(viewer, postgres)
    async with transaction(None) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        await tx.row("TRUNCATE member, wallet, pool, code, claim, event, stock_change, sales_order, redemption CASCADE")
    for table, options in ours.items():
        await database().row(f"ALTER TABLE {table} SET ({', '.join(f'{k} = {v}' for k, v in options.items())})")
    return _report(without, await _measured(viewer, postgres))


def _report(without: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    lines = [
        f"{CODES:,} claims, most of them redeemed; {without['seconds']:.0f} and {ours['seconds']:.0f} seconds.",
        "",
        "| table | changed in place | dead rows at most | vacuums | MB of rows | MB of indexes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for table in SHOWN:
        cells = []
        for each in (without, ours):
            row = each["tables"][table]
            cells.append((
                f"{100 * row['hot'] / row['updates']:.0f} %" if row["updates"] else "none", f"{each['peaks'][table]:,}",
                f"{row['vacuums']}", f"{row['bytes'] / 1e6:.1f}", f"{row['index_bytes'] / 1e6:.1f}",
            ))  # fmt: skip
        lines.append(f"| {table} | " + " | ".join(f"{a} → {b}" for a, b in zip(*cells, strict=True)) + " |")
    return [
        *lines,
        "",
        "| a claim and its redemption | without | with |",
        "|---|---:|---:|",
        f"| WAL, bytes | {without['wal'] / CODES:,.0f} | {ours['wal'] / CODES:,.0f} |",
        f"| CPU of PostgreSQL, µs | {1e6 * without['cpu'] / CODES:,.0f} | {1e6 * ours['cpu'] / CODES:,.0f} |",
        f"| buffers of a claim after it all, median | {without['buffers']:.0f} | {ours['buffers']:.0f} |",
    ]
