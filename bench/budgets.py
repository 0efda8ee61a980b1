"""Budgets: 64 checkouts at once on one pool, without a budget, with one in slices and with one in a single row."""

import asyncio
import time
from statistics import median
from typing import Any
from uuid import UUID

import asyncpg

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.coupons.claims import Claimant, claim
from app.coupons.generate_codes import encrypted_codes, store_batch
from app.orders.budgets import WAIT
from app.orders.redeem_codes import REDEEM
from app.storage.database import database, dsn, transaction
from bench.world import BATCH, activate, add_members

CHECKOUTS = 64
TURNS = 5
EACH = 8
DISCOUNT = 500
PLENTY = 10**9
POOL = """
INSERT INTO pool (merchant_id, id, name, status, kind, amount_off, claims_per_member, stacking, transferable,
                  maximum_total_discount, created_at)
VALUES ($1, $2, 'bench', 'DRAFT', 'AMOUNT', $3, 1000, 'EXCLUSIVE', false, $4, now())
"""
#: What a budget would be that is one row.
ONE_ROW = """
WITH gone AS (DELETE FROM pool_budget WHERE merchant_id = $1 AND pool_id = $2 RETURNING remaining)
INSERT INTO pool_budget (merchant_id, pool_id, id, remaining)
SELECT $1, $2, gen_random_uuid(), sum(remaining)::bigint FROM gone
"""
SLICES = "SELECT count(*) AS slices FROM pool_budget WHERE merchant_id = $1 AND pool_id = $2"
HITS = "SELECT coalesce(sum(hits), 0)::bigint FROM pg_stat_get_backend_io(pg_backend_pid())"


async def _pool(viewer: Viewer, budget: int | None, codes: int) -> UUID:
    pool_id = ids.new()
    await database().row(POOL, viewer.merchant_id, pool_id, DISCOUNT, budget)
    for start in range(0, codes, BATCH):
        batch_id = ids.new()
        rows = encrypted_codes(viewer.tenant.keys, "AMOUNT", min(BATCH, codes - start), pool_id, batch_id)
        async with transaction(None) as tx:
            await store_batch(tx, viewer, pool_id, batch_id, rows, None)
    await activate(viewer, pool_id)
    return pool_id


async def _claimed(viewer: Viewer, pool_id: UUID, members: list[UUID], numbers: Any) -> list[tuple[UUID, UUID]]:
    codes = []
    for member_id in members:
        claimed = await claim(database(), viewer, pool_id, Claimant(member_id), f"bench-{next(numbers)}".encode())
        if claimed is None:
            raise RuntimeError("a claim found no pool")
        codes.append((member_id, claimed.row["code_id"]))
    return codes


def _arguments(viewer: Viewer, member_id: UUID, code_id: UUID) -> list[object]:
    return REDEEM.arguments({
        "merchant_id": viewer.merchant_id, "code_ids": [code_id], "redemption_ids": [ids.new()],
        "event_ids": [ids.new()], "bases": [5_000], "discounts": [DISCOUNT], "eligible": [None], "terms_versions": [1],
        "positions": [1], "presenter": member_id, "email_index": None, "person_id": member_id, "person_mailbox": None,
        "first_keys": [], "first_versions": [], "order_row_id": ids.new(), "version": 0, "source": "STORE",
        "order_id": code_id.hex, "amount": 5_000, "currency": "USD", "presented_by": b"x", "actor": viewer.actor,
    })  # fmt: skip


async def _redeemed(connection: Any, viewer: Viewer, member_id: UUID, code_id: UUID) -> bool:
    """Redeem a code. Returns False when no slice was free that had enough."""
    try:
        rows = await connection.fetch(REDEEM.text, *_arguments(viewer, member_id, code_id))
    except asyncpg.CheckViolationError:
        return False
    if not rows:
        raise RuntimeError("a redemption that is measured made nothing")
    return True


async def _at_once(connections: list[Any], viewer: Viewer, pool_id: UUID, codes: list[tuple[UUID, UUID]]) -> float:
    """Redeem all codes, one after the other on each connection. Returns how many a second."""

    async def checkout(connection: Any, own: list[tuple[UUID, UUID]]) -> None:
        for member_id, code_id in own:
            while not await _redeemed(connection, viewer, member_id, code_id):
                await connection.fetch(WAIT.text, *WAIT.arguments({
                    "merchant_id": viewer.merchant_id, "pool_ids": [pool_id]
                }))  # fmt: skip

    began = time.monotonic()
    share = len(codes) // len(connections)
    await asyncio.gather(*(checkout(each, codes[at * share : (at + 1) * share]) for at, each in enumerate(connections)))
    return len(codes) / (time.monotonic() - began)


async def _buffers(connection: Any, viewer: Viewer, codes: list[tuple[UUID, UUID]]) -> float:
    found = []
    for member_id, code_id in codes:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        before = await connection.fetchval(HITS)
        await connection.fetch(REDEEM.text, *_arguments(viewer, member_id, code_id))
        await connection.execute("SELECT pg_stat_force_next_flush()")
        found.append(await connection.fetchval(HITS) - before)
    return float(median(found))


async def measure(viewer: Viewer) -> list[str]:
    """Redeem at once from three pools, turn by turn."""
    each_turn = CHECKOUTS * EACH
    members = await add_members(viewer, each_turn)
    pools = {name: await _pool(viewer, budget, each_turn * (TURNS + 1)) for name, budget in (
        ("no budget", None), ("a budget in slices", PLENTY), ("a budget in one row", PLENTY)
    )}  # fmt: skip
    await database().row(ONE_ROW, viewer.merchant_id, pools["a budget in one row"])
    url = dsn(settings().database_url or "")
    connections = [await asyncpg.connect(url) for _ in range(CHECKOUTS)]
    rates: dict[str, list[float]] = {name: [] for name in pools}
    buffers: dict[str, float] = {}
    numbers = iter(range(10**6))
    try:
        for name, pool_id in pools.items():
            warm = await _claimed(viewer, pool_id, members[:100], numbers)
            await _at_once(connections[:1], viewer, pool_id, warm[:40])
            buffers[name] = await _buffers(connections[0], viewer, warm[40:])
        for _ in range(TURNS):
            for name, pool_id in pools.items():
                rates[name].append(
                    await _at_once(connections, viewer, pool_id, await _claimed(viewer, pool_id, members, numbers))
                )
    finally:
        for connection in connections:
            await connection.close()
    (slices,) = await database().rows(SLICES, viewer.merchant_id, pools["a budget in slices"])
    lines = [
        f"{TURNS} turns of {each_turn} redemptions each by {CHECKOUTS} checkouts at once; {slices['slices']} slices.",
        "",
        "| pool | redemptions a second (median) | against none | buffers per redemption |",
        "|---|---:|---:|---:|",
    ]
    base = median(rates["no budget"])
    lines += [
        f"| {name} | {median(each):,.0f} | {median(each) / base:.2f} | {buffers[name]:.0f} |"
        for name, each in rates.items()
    ]
    return lines
