"""S2: buffers per claim in a fresh pool, in a nearly empty pool, and under an old database snapshot."""

import json
import math
from statistics import median
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons import claims
from app.coupons.claims import CLAIM, Claimant, claim
from app.storage.database import database, transaction
from bench.world import add_filled_pool, add_members

POOL_SIZE = 100_000
BATCH = 5000
SAMPLES = 60

EXPLAIN = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) {CLAIM.text}"
PARTITIONS = "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'event'::regclass"
CLAIMED_CODE = "SELECT code_id FROM claim WHERE merchant_id = $1 AND pool_id = $2 AND member_id = $3"
#: Makes many claims at once and leaves the same dead versions and dead index entries as single claims.
CLAIM_MANY = """
WITH c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = m.id, matched_by = 'MEMBER_ID', allocated_at = now()
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM code
          WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' ORDER BY id LIMIT $4) free,
         (SELECT id, n FROM unnest($3::uuid[]) WITH ORDINALITY AS t (id, n)) m
    WHERE code.merchant_id = $1 AND code.id = free.id AND free.n = m.n RETURNING code.id, code.member_id
)
INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, claimed_at)
SELECT $1, id, $2, member_id, 1, now() FROM c
"""


async def measure(viewer: Viewer) -> list[str]:
    """Return the table of S2.

    A pool was sold before, so that all are measured in indexes that are as high. Nothing is vacuumed meanwhile: that
    would change what a claim touches in some runs and not in others.
    """
    months = [row["name"] for row in await database().rows(PARTITIONS)]
    for table in ("claim", "code", *months, "member", "stock_change", "wallet"):
        await database().row(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    members = await add_members(viewer, POOL_SIZE + 8000)
    await _claim_many(viewer, await add_filled_pool(viewer, POOL_SIZE), members[:POOL_SIZE])
    pool_id = await add_filled_pool(viewer, POOL_SIZE)
    await database().row("ANALYZE")
    fresh = await _sample(viewer, pool_id, members)

    snapshot_pool = await add_filled_pool(viewer, POOL_SIZE)
    async with transaction(None) as old:
        await old.row("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await old.row("SELECT count(*) FROM code WHERE merchant_id = $1", viewer.merchant_id)
        for member_id in members[:6000]:
            await claim(database(), viewer, snapshot_pool, Claimant(member_id), None)
        under_snapshot = await _sample(viewer, snapshot_pool, members[6000:])
        claims._last_found.clear()
        restarted = await explained(viewer, snapshot_pool, members[7000])
        after_restart = await _sample(viewer, snapshot_pool, members[7001:])

    await _claim_many(viewer, pool_id, members[SAMPLES : SAMPLES + POOL_SIZE * 99 // 100])
    claims._last_found.clear()
    first = await explained(viewer, pool_id, members[-1])
    nearly_empty = await _sample(viewer, pool_id, members[-2000:-1])
    late_pool = await add_filled_pool(viewer, POOL_SIZE)
    fresh_late = await _sample(viewer, late_pool, members[-1000:-1])

    rows = [
        (f"fresh pool of {POOL_SIZE:,}", fresh),
        ("99 % claimed", nearly_empty),
        ("6,000 claimed under one old open snapshot", under_snapshot),
        ("the same, after this process was restarted", after_restart),
        ("another fresh pool, filled after all that", fresh_late),
    ]
    lines = ["| pool | buffers per claim (median) | against fresh | goal |", "|---|---|---|---|"]
    lines += [f"| {name} | {buffers:.0f} | {buffers / fresh:.2f} | ≤ 1.30 |" for name, buffers in rows]
    lines += [
        "",
        "Before the first pool another one of as many codes was sold: on empty tables a claim takes 52 buffers because",
        "their indexes are lower, which says nothing of the search. A claim of the newest pool takes 4 fewer than one",
        "of the others: its index entries are the last ones, for which PostgreSQL remembers the page.",
    ]
    lines += [
        "",
        "The first claim of a process that has just started steps once over the codes that were claimed before:",
    ]
    lines += [
        f"{first:.0f} buffers in the pool that is 99 % claimed, {restarted:.0f} in the one under the old snapshot."
    ]
    return lines


async def _claim_many(viewer: Viewer, pool_id: UUID, members: list[UUID]) -> None:
    for start in range(0, len(members), BATCH):
        chunk = members[start : start + BATCH]
        await database().row(CLAIM_MANY, viewer.merchant_id, pool_id, chunk, len(chunk))


async def _sample(viewer: Viewer, pool_id: UUID, members: list[UUID]) -> float:
    return median([await explained(viewer, pool_id, member_id) for member_id in members[:SAMPLES]])


async def explained(viewer: Viewer, pool_id: UUID, member_id: UUID) -> int:
    """Claim for a member under EXPLAIN. Returns the buffers that the statement hit or read."""
    after = claims._last_found.get(pool_id) or UUID(int=0)
    arguments = CLAIM.arguments(
        {
            "merchant_id": viewer.merchant_id,
            "pool_id": pool_id,
            "member_id": member_id,
            "key": None,
            "is_paid": False,
            "after": after,
            "event_id": ids.new(),
            "actor": viewer.actor,
            "memory_pads": viewer.tenant.keys.memory_pads,
        }
    )
    explained = await database().row(EXPLAIN, *arguments)
    claimed = await database().row(CLAIMED_CODE, viewer.merchant_id, pool_id, member_id)
    if explained is None or claimed is None:
        raise RuntimeError("a measured claim got no code")
    claims._last_found.keep(pool_id, claimed["code_id"], math.inf)
    plan = json.loads(explained["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
