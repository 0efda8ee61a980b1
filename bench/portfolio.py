"""The portfolio: buffers and time of its statements, for a million codes and for a tenth of that."""

import json
from typing import Any

from app.advisor.figures import COUNTS, POOLS, REACH
from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import Statement
from bench.world import add_members, add_merchant, add_pool

#: Codes, purchases and members of the two merchants. The large merchant has as many as a real retailer's year.
SIZES = {"a tenth of it": (100_000, 15_585, 247), "a million codes": (1_000_000, 155_848, 2_469)}
POOLS_COUNT = 20
CHUNK = 5_000
#: Six codes in ten have an owner, and a third of these were redeemed within the last 120 days.
CODES = """
WITH batch AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    VALUES ($1, gen_random_uuid(), $2, $3, now()) RETURNING id
), made AS (
    INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, member_id,
                      matched_by, allocated_at, redeemed_at)
    SELECT $1, uuidv7(), $2, batch.id, CASE WHEN n % 10 > 5 THEN 'AVAILABLE' WHEN n % 3 = 0 THEN 'REDEEMED'
            ELSE 'ALLOCATED' END,
        decode(repeat(md5(random()::text), 2), 'hex'), decode(md5(random()::text) || md5(random()::text), 'hex'), '2A',
        CASE WHEN n % 10 <= 5 THEN ($4::uuid[])[1 + (random() * ($5::int - 1))::int] END,
        CASE WHEN n % 10 <= 5 THEN 'MEMBER_ID' END, CASE WHEN n % 10 <= 5 THEN now() - interval '130 days' END,
        CASE WHEN n % 10 <= 5 AND n % 3 = 0 THEN now() - random() * interval '120 days' END
    FROM batch, generate_series(1, $3::int) AS n RETURNING *
), ordered AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version)
    SELECT merchant_id, gen_random_uuid(), 'STORE', id::text, 5000, 'USD', 1 FROM made WHERE state = 'REDEEMED'
), redeemed AS (
    INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                            base, discount, currency, redeemed_at)
    SELECT merchant_id, uuidv7(), pool_id, 1, id, 'STORE', id::text, 1, 5000, 5000, 500, 'USD', redeemed_at
    FROM made WHERE state = 'REDEEMED'
)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
SELECT $1, $2, gen_random_uuid(), count(*) FILTER (WHERE state = 'AVAILABLE'),
    count(*) FILTER (WHERE state = 'ALLOCATED'), count(*) FILTER (WHERE state = 'REDEEMED'), 0, 0
FROM made
"""
PURCHASES = """
WITH b AS (
    INSERT INTO purchase (merchant_id, id, member_id, source, order_id, amount, recorded_amount, currency, points,
                          points_per_unit, minor_units, credits, occurred_at, recorded_at)
    SELECT $1, uuidv7(), ($2::uuid[])[1 + (random() * ($3::int - 1))::int], 'STORE', gen_random_uuid()::text,
        amount, amount, 'USD', 0, 0, 100, 0, now() - random() * interval '400 days', now()
    FROM (SELECT (random() * 10000)::int AS amount FROM generate_series(1, $4::int)) made RETURNING *
)
UPDATE member SET last_bought_at = greatest(last_bought_at, b.at)
FROM (SELECT member_id, max(occurred_at) AS at FROM b GROUP BY member_id) b
WHERE merchant_id = $1 AND id = b.member_id
"""


async def fill(viewer: Viewer, codes: int, purchases: int, members_count: int) -> None:
    """Give a merchant members, pools, codes, redemptions and purchases."""
    members = await add_members(viewer, members_count)
    for _ in range(POOLS_COUNT):
        pool_id = await add_pool(viewer)
        for _ in range(0, codes // POOLS_COUNT, CHUNK):
            await database().row(CODES, viewer.merchant_id, pool_id, CHUNK, members, members_count)
    for start in range(0, purchases, CHUNK):
        rows = min(CHUNK, purchases - start)
        await database().row(PURCHASES, viewer.merchant_id, members, members_count, rows)


async def _measured(statement: Statement[Any], **values: object) -> tuple[int, float]:
    """Return the buffers and milliseconds of the fastest of three runs."""
    plans = []
    for _ in range(3):
        explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}"
        row = await database().row(explained, *statement.arguments(values))
        plans.append(json.loads("" if row is None else row["QUERY PLAN"])[0])
    best = min(plans, key=lambda plan: plan["Execution Time"])
    touched = best["Plan"]["Shared Hit Blocks"] + best["Plan"]["Shared Read Blocks"]
    return touched, best["Execution Time"]


async def measure(_viewer: Viewer) -> list[str]:
    """Fill two merchants in one database, and measure what the portfolio and the advisor's facts read."""
    lines = ["| merchant | statement | buffers | ms |", "|---|---|---:|---:|"]
    found: dict[str, list[int]] = {}
    for name, size in SIZES.items():
        owner, _ = await add_merchant(name)
        await fill(owner, *size)
        states = {"written just now": "SELECT 1", "vacuumed": "VACUUM (ANALYZE)"}
        reads: list[tuple[str, Statement[Any]]] = [
            ("pools", POOLS), ("segments", COUNTS), ("the reach of pools", REACH),
        ]  # fmt: skip
        for state, maintenance in states.items():
            await database().row(maintenance)
            for what, statement in reads:
                touched, milliseconds = await _measured(statement, merchant_id=owner.merchant_id)
                found.setdefault(f"{what}, {state}", []).append(touched)
                lines.append(f"| {name}, {state} | {what} | {touched:,} | {milliseconds:,.0f} |")
    lines += ["", "With ten times the data, buffers grow by these factors: " + ", ".join(
        f"{large / small:.1f} ({what})" for what, (small, large) in found.items()
    ) + "."]  # fmt: skip
    return lines
