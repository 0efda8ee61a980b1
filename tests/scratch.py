"""Databases of their own for tests that break one, migrate one or count what is asked of one."""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg

from app.operate.migrate import create_database
from app.storage.database import dsn
from app.storage.statements import Statement
from tests.conftest import _clone, database_url

MERCHANT = "INSERT INTO merchant (merchant_id, name, currency, created_at) VALUES ($1, 'Shop', 'USD', now())"
#: For the first rows in a partition a connection reads the catalog, which counts as buffers. Ids that a test makes up
#: are of no month: they go into DEFAULT.
EVENTS = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT $1, id, 'merchant.created', 'merchant', $1, 'system', now()
FROM (VALUES (uuidv7()), (lpad(to_hex((random() * 1e15)::bigint), 32, '0')::uuid)) AS made_up (id)
"""
TYPES = "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = $1"


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


async def buffers_planned_on_nothing(asked: Statement[Any], *fills: str, **values: object) -> tuple[int, int]:
    """Return the rows of a statement of a merchant's, and the buffers it takes by a plan made before `fills` were run.

    `values` are all parameters but the merchant, which is the first one of `fills`; plans are made so by processes that
    were there before the rows.
    """
    (counted,) = await all_planned_on_nothing([(asked, values)], *fills)
    return counted


async def all_planned_on_nothing(
    asked: Sequence[tuple[Statement[Any], Mapping[str, object]]], *fills: str
) -> list[tuple[int, int]]:
    """Return the same of several statements, one after the other on one database."""
    merchant_id = uuid4()
    counted = []
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            await connection.execute(MERCHANT, merchant_id)
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            executed = []
            for number, (statement, values) in enumerate(asked):
                await connection.execute(f"PREPARE asked_{number} AS {statement.text}")
                types = await connection.fetchval(TYPES, f"asked_{number}")
                given = statement.arguments({"merchant_id": merchant_id} | dict(values))
                arguments = [await _literal(connection, *each) for each in zip(types, given, strict=True)]
                executed.append(f"EXECUTE asked_{number} ({', '.join(arguments)})")
            for execute in executed:
                await connection.execute(execute)
            for fill in (*fills, EVENTS, EVENTS):
                await connection.execute(fill, merchant_id)
            for execute in executed:
                told = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
                plan = json.loads(told)[0]["Plan"]
                counted.append((int(plan["Actual Rows"]), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]))
        finally:
            await connection.close()
    return counted


async def _literal(connection: asyncpg.Connection, type_name: str, value: object) -> str:
    """Return a value as EXECUTE takes it: it is a command, and has no parameters of its own."""
    return str(await connection.fetchval(f"SELECT quote_nullable($1::{type_name}::text)", value))
