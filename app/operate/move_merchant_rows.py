"""A merchant's rows on two servers: which tables have them, copying them, and comparing both sides."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from uuid import UUID

import asyncpg

#: What a move changes: transactions are counted by each server for itself, and webhooks begin after the last row.
CHANGED: Final = {
    "event": {"txid"},
    "webhook": {"feed_from", "feed_to", "feed_txid", "feed_event_id", "skipped"},
}
#: So many rows are read by their keys in one statement, or deleted in one transaction.
BATCH: Final = 5_000
#: Blocks of a table that was read and isn't written yet.
_BLOCKS_MAX: Final = 8

TABLES: Final = """
SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
    array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types,
    (SELECT array_agg(k.attname::text) FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid
     WHERE i.indrelid = c.oid AND i.indisprimary AND k.attnum = ANY(i.indkey)) AS key
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'fence'
GROUP BY c.oid HAVING bool_or(a.attname = 'merchant_id')
ORDER BY c.relname
"""

#: A row's key without its merchant, each value as PostgreSQL writes it.
Key = tuple[str, ...]
#: How many rows, and a digest of all that is in them.
Digest = tuple[int, int]


@dataclass(eq=False)
class Table:
    """A table that has rows of merchants."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]

    @cached_property
    def listed(self) -> str:
        """Return the columns as SQL."""
        return ", ".join(f'"{column}"' for column in self.columns)

    def rows_at(self, transaction: int) -> str:
        """Return the columns as SQL, as a transaction of the other server writes them."""
        # Quiet events stay so, and what was told is told by that transaction.
        said = {"txid": f"CASE WHEN t.txid IS NOT NULL THEN {transaction}::bigint END"} if self.name == "event" else {}
        return ", ".join(said.get(column, f't."{column}"') for column in self.columns)

    @cached_property
    def digest(self) -> str:
        """Return the count and the digest of rows as SQL. The order of rows makes no difference."""
        changed = CHANGED.get(self.name, set())
        compared = [f't."{column}"' for column in self.columns if column not in changed]
        if self.name == "event":
            compared.append("t.txid IS NULL")
        return f"count(*) AS rows, coalesce(sum(hash_record_extended(ROW({', '.join(compared)}), 0)), 0) AS digest"

    @property
    def joined(self) -> str:
        """Return the join of rows `t` with keys, whose parts are the parameters after the first."""
        if not self.key:
            return ""
        parts = ", ".join(f"${place}::text[]" for place in range(2, 2 + len(self.key)))
        names = ", ".join(f'"{column}"' for column in self.key)
        on = " AND ".join(f't."{column}" = k."{column}"::{self.columns[column]}' for column in self.key)
        return f"unnest({parts}) AS k ({names}) WHERE {on} AND"


async def tables(connection: asyncpg.Connection) -> list[Table]:
    """Return every table with rows of merchants."""
    return [
        Table(
            row["name"],
            dict(zip(row["columns"], row["types"], strict=True)),
            tuple(column for column in row["columns"] if column in row["key"] and column != "merchant_id"),
        )
        for row in await connection.fetch(TABLES)
    ]


async def copy_all(
    source: asyncpg.Connection, target: asyncpg.Connection, table: Table, merchant_id: UUID, transaction: int
) -> int:
    """Copy every row of a merchant. Returns how many."""
    query = f"SELECT {table.rows_at(transaction)} FROM {table.name} t WHERE t.merchant_id = $1"
    return await _copy(source, target, table, query, [merchant_id])


async def copy_again(
    source: asyncpg.Connection,
    target: asyncpg.Connection,
    table: Table,
    merchant_id: UUID,
    keys: Collection[Key],
    transaction: int,
) -> int:
    """Copy the rows of these keys that the source has. The target must have none of them. Returns how many."""
    copied = 0
    for batch in _batches(table, keys):
        query = _of_keys(f"SELECT {table.rows_at(transaction)} FROM {table.name} t", table, ",")
        copied += await _copy(source, target, table, query, [merchant_id, *batch])
    return copied


async def delete(target: asyncpg.Connection, table: Table, merchant_id: UUID, keys: Collection[Key]) -> None:
    """Delete the rows of these keys."""
    for batch in _batches(table, keys):
        await target.execute(_of_keys(f"DELETE FROM {table.name} t", table, " USING"), merchant_id, *batch)


async def delete_all(connection: asyncpg.Connection, merchant_id: UUID) -> int:
    """Delete a merchant's rows, some at a time, itself last, without triggers. Returns how many. Can be run again."""
    # A row's place says which it is within one partition: of those at such places in all of them the merchant's go.
    deleted = 0
    found = await tables(connection)
    await connection.execute("SET session_replication_role = replica")
    for table in sorted(found, key=lambda table: table.name == "merchant"):
        some = BATCH
        while some >= BATCH:
            said = await connection.execute(
                f"""
DELETE FROM {table.name} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table.name} WHERE merchant_id = $1 LIMIT {BATCH}
)) AND merchant_id = $1
""",
                merchant_id,
            )
            some = int(said.split()[-1])
            deleted += some
    await connection.execute("RESET session_replication_role")
    return deleted


async def has_rows(connection: asyncpg.Connection, merchant_id: UUID) -> bool:
    """Whether a merchant has a row in any table."""
    looks = " OR ".join(
        f"EXISTS (SELECT FROM {table.name} WHERE merchant_id = $1)" for table in await tables(connection)
    )
    return bool(await connection.fetchval(f"SELECT {looks}", merchant_id))


async def differing(
    source: asyncpg.Connection,
    target: asyncpg.Connection,
    merchant_id: UUID,
    compared: dict[Table, Collection[Key] | None],
) -> list[str]:
    """Return the tables whose rows differ: of those with these keys, or of all for None."""
    here, there = await asyncio.gather(_digests(source, merchant_id, compared), _digests(target, merchant_id, compared))
    return [table.name for table in compared if here[table] != there[table]]


async def _digests(
    connection: asyncpg.Connection, merchant_id: UUID, compared: dict[Table, Collection[Key] | None]
) -> dict[Table, list[Digest]]:
    found: dict[Table, list[Digest]] = {}
    for table, keys in compared.items():
        query = f"SELECT {table.digest} FROM {table.name} t"
        statement = f"{query} WHERE t.merchant_id = $1" if keys is None else _of_keys(query, table, ",")
        found[table] = [
            (row["rows"], int(row["digest"]))
            for batch in ([[]] if keys is None else _batches(table, keys))
            for row in await connection.fetch(statement, merchant_id, *batch)
        ]
    return found


def _of_keys(statement: str, table: Table, separator: str) -> str:
    """Return a statement about the rows of some keys. A table of one row for each merchant has no other key."""
    return f"{statement}{separator if table.key else ' WHERE'} {table.joined} t.merchant_id = $1"


def _batches(table: Table, keys: Collection[Key]) -> list[list[Sequence[str]]]:
    """Return keys as lists of their parts, BATCH at a time."""
    if not table.key:
        return [[]] if keys else []
    ordered = sorted(keys)
    return [
        [[key[part] for key in ordered[first : first + BATCH]] for part in range(len(table.key))]
        for first in range(0, len(ordered), BATCH)
    ]


async def _copy(
    source: asyncpg.Connection, target: asyncpg.Connection, table: Table, query: str, arguments: list[object]
) -> int:
    """Copy what a query returns, in PostgreSQL's binary form, a few blocks at a time. Returns how many rows."""
    blocks: asyncio.Queue[bytes | None] = asyncio.Queue(_BLOCKS_MAX)

    async def read() -> None:
        try:
            await source.copy_from_query(query, *arguments, output=blocks.put, format="binary")
        finally:
            await blocks.put(None)

    async def taken() -> AsyncIterator[bytes]:
        while (block := await blocks.get()) is not None:
            yield block
        # Raises what ended it early.
        await reading

    reading = asyncio.create_task(read())
    try:
        said: str = await target.copy_to_table(table.name, source=taken(), columns=list(table.columns), format="binary")
    finally:
        reading.cancel()
        await asyncio.wait([reading])
    return int(said.rsplit(maxsplit=1)[-1])
