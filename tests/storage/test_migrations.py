"""The catalog. Without these a promise could be written down and not be held, or a model have no table."""

import asyncio
import os
import re
import sys
from pathlib import Path

import asyncpg

from app.config import Settings
from app.storage.database import database
from migrations.__main__ import missing
from tests.scratch import scratch_database

MIGRATIONS = Path(__file__).parents[2] / "migrations"
ENGINE_TABLES = (
    "SELECT c.oid, c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p') "
    "AND c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'tortoise%'"
)
KEYS_NOT_BY_MERCHANT = f"""
WITH engine AS ({ENGINE_TABLES})
SELECT engine.relname || '.' || k.conname AS name FROM pg_constraint k JOIN engine ON engine.oid = k.conrelid
JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
LEFT JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1]
WHERE k.contype IN ('p', 'u', 'f', 'x')
    AND (a.attname <> 'merchant_id' OR (k.contype = 'f' AND f.attname <> 'merchant_id'))
UNION ALL
SELECT engine.relname || '.' || i.indexrelid::regclass FROM pg_index i JOIN engine ON engine.oid = i.indrelid
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indisunique AND a.attname IS DISTINCT FROM 'merchant_id'
"""
UNKEYED_TABLES = f"""
WITH engine AS ({ENGINE_TABLES})
SELECT relname FROM engine WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = engine.oid AND contype = 'p')
"""
ORPHAN_TABLES = f"""
WITH engine AS ({ENGINE_TABLES})
SELECT relname FROM engine WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = engine.oid AND contype = 'f')
"""
NAMES = """
SELECT conname AS name FROM pg_constraint WHERE convalidated AND connamespace = 'public'::regnamespace
UNION SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisvalid AND c.relnamespace = 'public'::regnamespace
"""
NAMED = re.compile(
    r"\b(ADD|DROP) CONSTRAINT (?:IF EXISTS )?(\w+)|\b(CREATE|DROP) (?:UNIQUE )?INDEX (?:IF (?:NOT )?EXISTS )?(\w+)"
)


def _declared() -> set[str]:
    """Return the names of all constraints and indexes that the migrations leave behind."""
    names: set[str] = set()
    for path in sorted(MIGRATIONS.glob("0*.py")):
        for verb, constraint, index_verb, index in NAMED.findall(path.read_text()):
            if (verb or index_verb) == "DROP":
                names.discard(constraint or index)
            else:
                names.add(constraint or index)
    return names


async def _rows(sql: str) -> list[str]:
    return [next(iter(row.values())) for row in await database().rows(sql)]


async def _migrate(url: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "migrate",
        env=os.environ | {"DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_models_say_nothing_that_no_migration_does() -> None:
    assert await missing() == []


async def test_every_key_starts_with_the_merchant(database_pool: Settings) -> None:
    assert await _rows(KEYS_NOT_BY_MERCHANT) == []


async def test_every_table_has_a_primary_key(database_pool: Settings) -> None:
    assert await _rows(UNKEYED_TABLES) == []


async def test_what_belongs_to_a_row_refers_to_it(database_pool: Settings) -> None:
    """Merchants are the root; events and changes of stock are appended without a look-up."""
    assert set(await _rows(ORPHAN_TABLES)) == {"merchant", "event", "stock_change"}


async def test_every_constraint_that_the_migrations_name_exists(database_pool: Settings) -> None:
    declared = _declared()

    assert {"code_fingerprint", "claim_slot", "redemption_live", "wallet_version", "code_by_state"} <= declared
    assert declared - set(await _rows(NAMES)) == set()


async def test_the_lifecycle_of_pools_is_guarded_by_a_trigger(database_pool: Settings) -> None:
    guards = await _rows(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'pool'::regclass AND NOT tgisinternal AND tgenabled = 'O'"
    )

    assert "pool_guard" in guards


async def test_two_processes_migrate_a_fresh_database_at_once(database_pool: Settings) -> None:
    async with scratch_database(migrated=False) as url:
        first = await asyncio.gather(_migrate(url), _migrate(url))
        again = await _migrate(url)

    assert [*first, again] == [(0, "The database is up to date.\n")] * 3


async def test_a_fresh_database_gets_what_the_template_has(database_pool: Settings) -> None:
    async with scratch_database(migrated=False) as url:
        await _migrate(url)
        connection = await asyncpg.connect(url)
        try:
            fresh = {row["name"] for row in await connection.fetch(NAMES)}
        finally:
            await connection.close()

    assert fresh == set(await _rows(NAMES))
