"""Merchants with rows in every table, made of the catalog: a new table is moved without anyone thinking of it."""

from typing import Final
from uuid import UUID, uuid4

import asyncpg

from app.operate.move_merchant_rows import Table, tables

CHECKS: Final = """
SELECT conrelid::regclass::text AS "table", conname AS name FROM pg_constraint
WHERE (contype IN ('c', 'x') OR (contype = 'u' AND condeferrable)) AND connamespace = 'public'::regnamespace
    AND coninhcount = 0
"""
NULLABLE: Final = """
SELECT attrelid::regclass::text || '.' || attname AS name FROM pg_attribute a
JOIN pg_class c ON c.oid = attrelid AND relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
    AND NOT relispartition
WHERE attnum > 0 AND NOT attnotnull AND NOT attisdropped
"""
#: A value of each type, whatever `n` is of the row; texts and bytes are larger than a block where they may be.
VALUES: Final = {
    "uuid": "gen_random_uuid()",
    "text": "repeat(md5(random()::text), CASE WHEN n <= 2 THEN 500 ELSE 1 END) || E'\\n\\t\\\\N ä'",
    "bytea": "decode(repeat(md5(random()::text), CASE WHEN n <= 2 THEN 500 ELSE 1 END), 'hex')",
    "boolean": "n % 2 = 0",
    "smallint": "n",
    "integer": "n",
    "bigint": "n * 10000000000",
    "numeric": "n % 9 + 0.5",
    "double precision": "n / 3.0",
    "date": "date '2026-01-01' + n::int",
    "timestamp with time zone": "CASE n % 2 WHEN 0 THEN 'infinity' ELSE now() + n * interval '1 microsecond' END",
    "jsonb": "jsonb_build_object('n', n)",
    "bigint[]": "ARRAY[n, NULL]::bigint[]",
    "uuid[]": "ARRAY[gen_random_uuid(), gen_random_uuid()]",
    "bytea[]": "ARRAY['\\x00', NULL]::bytea[]",
    "text[]": "ARRAY['a', NULL, '{}']",
}
#: What the feed of webhooks reads as something else than text.
SAID: Final = {
    "webhook.feed_from": "'3:3:'",
    "webhook.feed_to": "NULL",
    "webhook.feed_txid": "NULL",
    "webhook.feed_event_id": "NULL",
    "webhook.skipped": "'{}'",
    "webhook.event_types": "'{}'",
    "event.txid": "CASE WHEN n % 2 = 0 THEN pg_current_xact_id()::text::bigint END",
}


async def drop_checks(connection: asyncpg.Connection) -> None:
    """Let rows be of any values."""
    for row in await connection.fetch(CHECKS):
        await connection.execute(f'ALTER TABLE {row["table"]} DROP CONSTRAINT "{row["name"]}"')


async def filled(connection: asyncpg.Connection, *, rows: int = 2) -> UUID:
    """Make a merchant that has rows in every table, in some of them without a value where one may be lacking."""
    merchant_id = uuid4()
    nullable = {row["name"] for row in await connection.fetch(NULLABLE)}
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in await tables(connection):
            await connection.execute(
                _insert(table, nullable), merchant_id, rows if table.key and table.name != "webhook" else 1
            )
    return merchant_id


def _insert(table: Table, nullable: set[str]) -> str:
    values = [
        _value(f"{table.name}.{column}", column, kind, is_nullable=f"{table.name}.{column}" in nullable)
        for column, kind in table.columns.items()
    ]
    return f"""
INSERT INTO {table.name} ({table.listed}) SELECT {", ".join(values)} FROM generate_series(1, $2::int) AS n
ON CONFLICT DO NOTHING
"""


def _value(name: str, column: str, kind: str, *, is_nullable: bool) -> str:
    if column == "merchant_id":
        return "$1::uuid"
    if name in SAID:
        return SAID[name]
    base, _, limit = kind.partition("(")
    value = f"left(md5(random()::text), {limit.rstrip(')')})" if base == "character varying" else VALUES[base]
    return f"CASE WHEN n % 2 = 0 THEN {value} END" if is_nullable else value
