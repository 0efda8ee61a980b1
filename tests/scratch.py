"""Databases of their own for tests that break one, migrate one or count what is asked of one."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg

from app.merchants.create_merchant import INSERT as INSERT_MERCHANT
from app.operate.migrate import create_database
from app.storage.database import dsn
from tests.conftest import _clone, database_url


@asynccontextmanager
async def scratch_database(*, migrated: bool = True) -> AsyncIterator[str]:
    """Return the URL of a new database, cloned from the migrated template unless told; dropped after the block."""
    template = os.environ["FLASH_TEST_TEMPLATE"]
    name = f"{template}_scratch_{uuid4().hex[:12]}"
    if migrated:
        await _clone(template, name)
    else:
        await create_database(os.environ["DATABASE_URL"], name)
    try:
        yield database_url(name)
    finally:
        connection = await asyncpg.connect(dsn(os.environ["DATABASE_URL"]), database="postgres")
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()


async def buffers_planned_on_nothing(statement: str, types: str, arguments: str, fill: str) -> tuple[int, int]:
    """Return the rows of a statement of a merchant's, and the buffers it takes by a plan made before `fill` was run.

    The merchant is the first parameter of both; plans are made so by processes that were there before the rows.
    """
    merchant_id: UUID = uuid4()
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            await connection.execute(INSERT_MERCHANT.text, merchant_id, "Shop", "USD")
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            await connection.execute(f"PREPARE asked (uuid, {types}) AS {statement}")
            await connection.execute(f"EXECUTE asked ('{merchant_id}', {arguments})")
            await connection.execute(fill, merchant_id)
            told = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked ('{merchant_id}', {arguments})"
            )
        finally:
            await connection.close()
    plan = json.loads(told)[0]["Plan"]
    return int(plan["Actual Rows"]), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
