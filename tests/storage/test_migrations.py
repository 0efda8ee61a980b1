"""The catalog. Without these a promise could be written down and not be held, or a model have no table."""

import asyncio
import importlib
import os
import re
from pathlib import Path

import asyncpg

from app.config import Settings
from app.storage.database import database
from migrations.__main__ import missing
from tests.scratch import scratch_database
from tests.starts import run
from tests.storage.catalog import APPENDED, OF_ALL_MERCHANTS, OF_MANY_KINDS, SET_UP, UNSEARCHED, lacking, tables

MIGRATIONS = Path(__file__).parents[2] / "migrations"
NAMES = """
SELECT conname AS name FROM pg_constraint WHERE convalidated AND connamespace = 'public'::regnamespace
UNION SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisvalid AND c.relnamespace = 'public'::regnamespace
UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'
"""
#: Events are left out: their settings are those of their parts.
STORAGE = """
SELECT relname AS table, coalesce(reloptions, '{}') AS options FROM pg_class
WHERE relkind = 'r' AND NOT relispartition AND relnamespace = 'public'::regnamespace AND relname <> 'event'
    AND relname NOT LIKE 'tortoise%'
"""
NAMED = re.compile(
    r"\b(ADD|DROP) CONSTRAINT (?:IF EXISTS )?(\w+)"
    r"|\b(CREATE|DROP) (?:UNIQUE )?(?:INDEX(?: CONCURRENTLY)?|TRIGGER) (?:IF (?:NOT )?EXISTS )?(\w+)"
)

#: A table as a newcomer might make it better and better.
NEW_TABLE = (
    "CREATE TABLE example (id uuid PRIMARY KEY, member_id uuid, text text UNIQUE, written_at timestamptz)",
    "ALTER TABLE example ADD merchant_id uuid NOT NULL; CREATE INDEX example_newest ON example (written_at)",
    """ALTER TABLE example DROP CONSTRAINT example_pkey, DROP CONSTRAINT example_text_key,
        ADD CONSTRAINT example_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;
    DROP INDEX example_newest""",
    """ALTER TABLE example ADD PRIMARY KEY (merchant_id, id);
    CREATE INDEX example_of_member ON example (merchant_id, member_id, written_at, id)""",
)


def _declared() -> set[str]:
    """Return the names of all constraints, indexes and triggers that the migrations leave behind."""
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


async def _migrate(url: str) -> tuple[int, str]:
    ended = await asyncio.to_thread(run, "migrate", environment=os.environ | {"DATABASE_URL": url})
    return ended.returncode, ended.stdout + ended.stderr


async def test_the_models_say_nothing_that_no_migration_does() -> None:
    assert await missing() == []


async def test_every_table_has_its_keys_and_indexes(database_pool: Settings) -> None:
    said = await lacking(database().rows)

    assert not said, "\n".join(said)


async def test_what_is_excused_from_keys_and_indexes_is_there(database_pool: Settings) -> None:
    names, read = set(await _rows(NAMES)), await tables(database().rows)

    assert (UNSEARCHED | OF_ALL_MERCHANTS) - names == set()
    assert {name for name, table in read.items() if not table.keys["f"]} >= APPENDED
    assert {f"{table}.{column}" for table, each in read.items() for column in each.row["ids"]} >= OF_MANY_KINDS


async def test_every_table_is_vacuumed_by_what_becomes_of_its_rows(database_pool: Settings) -> None:
    keys = importlib.import_module("migrations.0002_keys_and_promises")
    told: dict[str, set[str]] = {table: set() for table in SET_UP}
    for settings, of_life in keys.LIVES.items():
        told |= {table: set(settings.split(", ")) for table in of_life}
    for table, percent in keys.ROOM.items():
        told[table].add(f"fillfactor = {percent}")
    found = {
        row["table"]: {option.replace("=", " = ") for option in row["options"]}
        for row in await database().rows(STORAGE)
    }

    assert found == told
    assert sum(map(len, keys.LIVES.values())) + len(SET_UP) == len(told)


async def test_a_new_table_is_told_what_it_lacks(database_pool: Settings) -> None:
    said = []
    async with scratch_database() as url:
        connection = await asyncpg.connect(url)
        try:
            for statements in NEW_TABLE:
                await connection.execute(statements)
                said.append([each for each in await lacking(connection.fetch) if each.startswith("example")])
        finally:
            await connection.close()

    assert said == [
        ["example lacks a column merchant_id that is NOT NULL."],
        [
            "example: the primary key example_pkey is on (id); it must start with merchant_id.",
            "example: the unique key example_text_key is on (text); it must start with merchant_id.",
            "example: the index example_newest is on (written_at); it must start with merchant_id.",
            "example lacks a foreign key that leads to merchant, at once or over another table.",
            "example.member_id lacks a foreign key: (merchant_id, member_id) REFERENCES …",
        ],
        [
            "example lacks a primary key: (merchant_id, …).",
            "example lacks an index that begins with (merchant_id, member_id), by which example_member refers.",
        ],
        [],
    ]


async def test_every_constraint_that_the_migrations_name_exists(database_pool: Settings) -> None:
    declared = _declared()

    assert {"code_fingerprint", "redemption_live", "wallet_version", "code_by_state", "pool_guard"} <= declared
    assert declared - set(await _rows(NAMES)) == set()


async def test_every_event_says_what_its_subject_is(database_pool: Settings) -> None:
    rows = await database().rows(
        "SELECT attnotnull, atthasdef FROM pg_attribute WHERE attrelid = 'event'::regclass AND attname = 'subject_kind'"
    )

    assert [tuple(row.values()) for row in rows] == [(True, False)]


async def test_two_processes_migrate_a_fresh_database_at_once_to_what_the_template_has(database_pool: Settings) -> None:
    async with scratch_database(migrated=False) as url:
        first = await asyncio.gather(_migrate(url), _migrate(url))
        again = await _migrate(url)
        connection = await asyncpg.connect(url)
        try:
            fresh = {row["name"] for row in await connection.fetch(NAMES)}
        finally:
            await connection.close()

    assert [*first, again] == [(0, "The database is up to date.\n")] * 3
    assert fresh == set(await _rows(NAMES))
