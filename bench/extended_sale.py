"""A sale that is extended: 100,000 codes whose pool gets a later end after it ended, all expired by then."""

import json
import time
from datetime import UTC, datetime
from typing import Any, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons.expire_codes import expire_batch
from app.coupons.revive_codes import revive_batch
from app.coupons.rows import CODES_OF_POOLS, codes_by_member
from app.storage.database import database, transaction
from bench.create_campaign import send, timed
from bench.world import BATCH, add_filled_pool, add_members

CODES = 100_000
WALLETS_READ = 100
PAGE = 21
INSTANT = datetime(9999, 1, 1, tzinfo=UTC)
LAST = UUID(int=2**128 - 1)
EDIT = """
mutation ($input: EditPoolInput!) { answer: editPool(input: $input) { __typename } }
"""
END = "UPDATE {} SET ends_at = now() - interval '1 second' WHERE merchant_id = $1 AND {} = $2"
#: Wallets whose version isn't the number of their events, or isn't the last one's.
GAPS = """
SELECT w.member_id FROM wallet w
LEFT JOIN event e ON e.merchant_id = w.merchant_id AND e.member_id = w.member_id
WHERE w.merchant_id = $1 GROUP BY w.member_id, w.version
HAVING w.version <> count(e.id) OR w.version <> coalesce(max(e.wallet_version), 0)
"""


class _Step(TypedDict):
    """A step, how many seconds it took, and what is read after it."""

    what: str
    seconds: float
    live: int
    expired: int


async def measure(viewer: Viewer) -> list[str]:
    """Send the codes, let the pool end, expire them all, extend it and revive them; after each step read wallets."""
    pool_id = await add_filled_pool(viewer, CODES)
    members = await add_members(viewer, CODES)
    await database().row("ANALYZE")
    for start in range(0, CODES, BATCH):
        recipients = [{"memberId": ids.encode("member", each)} for each in members[start : start + BATCH]]
        await send(viewer, pool_id, recipients)

    async def step(what: str, seconds: float) -> _Step:
        shown: Any = await codes_by_member(viewer, members[:: CODES // WALLETS_READ], INSTANT, LAST, 2, "ALLOCATED")
        live = sum(len(codes) for codes in shown.values())
        return _Step(what=what, seconds=seconds, live=live, expired=await _buffers_of_expired(viewer, pool_id))

    steps = [await step("sent", 0.0)]
    async with transaction(None) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        for table, key in (("pool", "id"), ("pool_terms", "pool_id")):
            await tx.row(END.format(table, key), viewer.merchant_id, pool_id)
    steps.append(await step("the pool ends", 0.0))
    begun = time.perf_counter()
    while await expire_batch(viewer.merchant_id):
        pass
    steps.append(await step("the job expires them", time.perf_counter() - begun))
    edited = await timed(viewer, EDIT, poolId=ids.encode("pool", pool_id), endsAt=None)
    at_once = await step("the edit", edited)
    steps.append(at_once)
    begun = time.perf_counter()
    while await revive_batch(viewer.merchant_id, pool_id) is not None:
        pass
    steps.append(await step("the job revives them", time.perf_counter() - begun))
    gaps = len(await database().rows(GAPS, viewer.merchant_id))
    return [
        f"| step | seconds | live codes that {WALLETS_READ} wallets show | buffers of a page of the EXPIRED codes |",
        "|---|---:|---:|---:|",
        *(f"| {each['what']} | {each['seconds']:.2f} | {each['live']} | {each['expired']} |" for each in steps),
        "",
        f"The later end reaches {'every code at once' if at_once['live'] == WALLETS_READ else 'some codes later'}.",
        f"Of {CODES:,} wallets, each of which changed three times, {gaps} have a gap in their versions.",
    ]


async def _buffers_of_expired(viewer: Viewer, pool_id: UUID) -> int:
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) {CODES_OF_POOLS.text}"
    values = {"merchant_id": viewer.merchant_id, "pool_ids": [pool_id], "state": "EXPIRED", "before": LAST}
    row = await database().row(explained, *CODES_OF_POOLS.arguments(values | {"limit": PAGE}))
    if row is None:
        raise RuntimeError("EXPLAIN said nothing")
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
