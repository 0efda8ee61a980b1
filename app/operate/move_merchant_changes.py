"""What changes of a merchant's rows while they are copied: the keys of rows, by logical decoding at the source.

A publication names every table that has rows of merchants, with a filter for the one that moves and the columns of its
key; a slot keeps what was committed. Only keys are read of it: rows are copied as they are at one moment, which is
correct whatever happened to them before, and however often.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from app.operate.move_merchant_rows import Key, Table

_FETCHED: Final = 2_000
_UINT16: Final = struct.Struct(">H")
_UINT32: Final = struct.Struct(">I")
#: Logical decoding tells transactions by numbers that begin anew after so many.
_NUMBERS: Final = 2**32

CREATE_SLOT: Final = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')"
PEEK: Final = """
SELECT lsn::text AS lsn, data FROM pg_logical_slot_peek_binary_changes(
    $1, NULL, NULL, 'proto_version', '1', 'publication_names', $1::name::text
)
"""
MOMENT: Final = """
SELECT pg_snapshot_xmax(seen)::text::bigint AS next, ARRAY(SELECT pg_snapshot_xip(seen)::text::bigint) AS running
FROM pg_current_snapshot() AS seen
"""
HAS_SLOT: Final = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)"


@dataclass(frozen=True, slots=True)
class Moment:
    """What a snapshot sees of transactions: those before the next one that weren't running."""

    next: int
    running: frozenset[int]

    def has(self, number: int) -> bool:
        """Whether it sees a transaction, by the last 32 bits of its number."""
        return (self.next - 1 - number) % _NUMBERS < _NUMBERS // 2 and number not in self.running


def slot_name(merchant_id: UUID) -> str:
    """Return the name of a move's slot, its publication and its triggers."""
    return f"flash_move_{merchant_id.hex}"


async def keep(connection: asyncpg.Connection, merchant_id: UUID, tables: list[Table]) -> None:
    """Keep the changes from now on, unless they are kept already. Waits for all transactions that write."""
    name = slot_name(merchant_id)
    if await is_kept(connection, merchant_id):
        return
    published = ", ".join(
        f"{table.name} ({', '.join(['merchant_id', *table.key])}) WHERE (merchant_id = '{merchant_id}')"
        for table in tables
    )
    await connection.execute(f"DROP PUBLICATION IF EXISTS {name}")
    await connection.execute(f"CREATE PUBLICATION {name} FOR TABLE {published} WITH (publish_via_partition_root)")
    await connection.fetchval(CREATE_SLOT, name)


async def is_kept(connection: asyncpg.Connection, merchant_id: UUID) -> bool:
    """Whether changes of the merchant are kept."""
    return bool(await connection.fetchval(HAS_SLOT, slot_name(merchant_id)))


async def forget(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    """Keep them no more. It can be run again."""
    name = slot_name(merchant_id)
    if await is_kept(connection, merchant_id):
        await connection.execute("SELECT pg_drop_replication_slot($1)", name)
    await connection.execute(f"DROP PUBLICATION IF EXISTS {name}")


async def moment(connection: asyncpg.Connection) -> Moment:
    """Return the moment that a transaction sees. It is repeatable read, and this may be its first statement."""
    (row,) = await connection.fetch(MOMENT)
    return Moment(row["next"], frozenset(number % _NUMBERS for number in row["running"]))


async def changed(
    connection: asyncpg.Connection, merchant_id: UUID, tables: list[Table], seen: Moment
) -> tuple[dict[Table, set[Key]], str | None]:
    """Return the keys of all rows whose changes are on the source's disk, and up to where those are in a moment.

    They are read again until `read_up_to`. What isn't in that moment yet has to be. The connection is in a transaction.
    """
    by_name = {table.name: table for table in tables}
    found: dict[Table, set[Key]] = {}
    relations: dict[int, tuple[Table, list[int]]] = {}
    lsn, is_seen = None, True
    async for row in connection.cursor(PEEK, slot_name(merchant_id), prefetch=_FETCHED):
        data = row["data"]
        if data[:1] == b"B":
            is_seen = is_seen and seen.has(_UINT32.unpack_from(data, 17)[0])
        elif data[:1] == b"C" and is_seen:
            lsn = row["lsn"]
        elif data[:1] == b"R":
            number, name, columns = _relation(data)
            # A partition is told of beside its table, by whose number its rows go.
            if name in by_name:
                relations[number] = by_name[name], [columns.index(column) for column in by_name[name].key]
        elif data[:1] in b"IUD":
            table, places = relations[_UINT32.unpack_from(data, 1)[0]]
            keys = found.setdefault(table, set())
            # A changed key comes with the one before.
            keys.update(tuple(values[place] for place in places) for values in _tuples(data))
        elif data[:1] == b"T":
            raise AssertionError("a table with a merchant's rows was truncated")
    return found, lsn


async def read_up_to(connection: asyncpg.Connection, merchant_id: UUID, lsn: str) -> None:
    """Let the source forget the changes up to there."""
    await connection.execute("SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)", slot_name(merchant_id), lsn)


def _relation(data: bytes) -> tuple[int, str, list[str]]:
    """Return the number of a table in what follows, its name and its columns."""
    (number,) = _UINT32.unpack_from(data, 1)
    namespace_end = data.index(b"\0", 5)
    name_end = data.index(b"\0", namespace_end + 1)
    name = data[namespace_end + 1 : name_end].decode()
    (count,) = _UINT16.unpack_from(data, name_end + 2)
    at, columns = name_end + 4, []
    for _ in range(count):
        end = data.index(b"\0", at + 1)
        columns.append(data[at + 1 : end].decode())
        at = end + 9
    return number, name, columns


def _tuples(data: bytes) -> Iterator[list[str]]:
    """Yield the old and new keys in a message of one row's change."""
    at = 5
    while at < len(data):
        (count,) = _UINT16.unpack_from(data, at + 1)
        at += 3
        values = []
        for _ in range(count):
            if data[at : at + 1] != b"t":
                raise AssertionError("a key has a part that isn't told")
            (length,) = _UINT32.unpack_from(data, at + 1)
            values.append(data[at + 5 : at + 5 + length].decode())
            at += 5 + length
        yield values
