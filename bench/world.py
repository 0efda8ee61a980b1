"""A scratch engine to measure: an embedded server with its usual settings, a merchant, and bulk-made members."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import psutil

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.coupons.generate_codes import encrypted_codes, store_batch
from app.merchants.create_merchant import create_merchant
from app.operate.running import running
from app.storage.database import database, transaction
from app.web.authentication import authenticate

BATCH = 5000
MEMBERS = """
INSERT INTO member (merchant_id, id, email_verified, source, joined_at)
SELECT $1, id, false, 'IMPORT', now() FROM unnest($2::uuid[]) AS t (id)
"""
WALLETS = "INSERT INTO wallet (merchant_id, member_id, version) SELECT $1, id, 0 FROM unnest($2::uuid[]) AS t (id)"
POOL = """
INSERT INTO pool (merchant_id, id, name, status, kind, percent_off, claims_per_member, stacking, transferable,
                  created_at)
VALUES ($1, $2, 'bench', 'DRAFT', 'PERCENT', 10, 1, 'EXCLUSIVE', false, now())
"""
ACTIVATE = "UPDATE pool SET status = 'ACTIVE' WHERE merchant_id = $1 AND id = $2"


@asynccontextmanager
async def engine() -> AsyncIterator[Viewer]:
    """Run an embedded engine in a scratch directory. Yields an ADMIN viewer of its merchant."""
    for variable in ("DATABASE_URL", "REDIS_URL", "FLASH_MASTER_KEYS", "FLASH_MASTER_KEYS_FILE"):
        os.environ.pop(variable, None)
    data = tempfile.mkdtemp(prefix="flash-bench-")
    os.environ["FLASH_DATA"] = data
    # A machine that is busy is slow, and what is measured on it takes long: it isn't broken after ten seconds.
    os.environ["FLASH_DATABASE_TIMEOUT_SECONDS"] = "600"
    settings.cache_clear()
    try:
        async with running(migrated=True):
            viewer, _ = await add_merchant("Bench")
            yield viewer
    finally:
        shutil.rmtree(data, ignore_errors=True)


async def add_merchant(name: str) -> tuple[Viewer, str]:
    """Make a merchant. Returns an ADMIN viewer and its API key."""
    made = await create_merchant(name, "USD")
    viewer = await authenticate(f"Bearer {made.api_key}")
    if viewer is None:
        raise RuntimeError("a key that was just made proves nobody")
    return viewer, made.api_key


async def add_members(viewer: Viewer, count: int) -> list[UUID]:
    """Enrol members in bulk."""
    members = [ids.new() for _ in range(count)]
    for start in range(0, count, 10_000):
        chunk = members[start : start + 10_000]
        async with transaction(None) as tx:
            await tx.row(MEMBERS, viewer.merchant_id, chunk)
            await tx.row(WALLETS, viewer.merchant_id, chunk)
    return members


async def add_pool(viewer: Viewer) -> UUID:
    """Create a pool in DRAFT."""
    pool_id = ids.new()
    await database().row(POOL, viewer.merchant_id, pool_id)
    return pool_id


async def add_filled_pool(viewer: Viewer, codes: int) -> UUID:
    """Create a pool with codes, and activate it."""
    pool_id = await add_pool(viewer)
    for start in range(0, codes, BATCH):
        batch_id = ids.new()
        rows = encrypted_codes(viewer.tenant.keys, "PERCENT", min(BATCH, codes - start), pool_id, batch_id)
        async with transaction(None) as tx:
            await store_batch(tx, viewer, pool_id, batch_id, rows, None)
    await activate(viewer, pool_id)
    return pool_id


async def activate(viewer: Viewer, pool_id: UUID) -> None:
    """Activate a pool."""
    await database().row(ACTIVATE, viewer.merchant_id, pool_id)


def run(measure: Callable[[Viewer], Coroutine[Any, Any, list[str]]]) -> list[str]:
    """Run one measurement on an engine of its own and return its report."""

    async def inside() -> list[str]:
        async with engine() as viewer:
            return await measure(viewer)

    return asyncio.run(inside())


def cpu_seconds(process: psutil.Process) -> float:
    """Return the user and system time of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def tree_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, its children, and those of them that have ended."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            total += cpu_seconds(each) + sum(each.cpu_times()[2:4])
    return total
