"""The fences of a move: what each server knows of it, and the triggers that refuse writes to a closed merchant."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from app.operate.move_merchant_changes import slot_name

#: How long writers of a table wait behind a trigger that is made or dropped, which waits for whoever writes it before.
_LOCK_WAIT: Final = "100ms"
_PAUSE_SECONDS: Final = 0.1

READ: Final = """
SELECT move, state, peer, copied_at IS NOT NULL AS is_copied,
    extract(epoch FROM clock_timestamp() - since)::float AS age
FROM fence WHERE merchant_id = $1
"""
PUT: Final = """
INSERT INTO fence (merchant_id, move, state, peer, since) VALUES ($1, $2, $3, $4, clock_timestamp())
ON CONFLICT (merchant_id) DO UPDATE SET move = excluded.move, state = excluded.state, peer = excluded.peer,
    since = excluded.since, copied_at = NULL
"""
GUARDED: Final = """
SELECT tgrelid::regclass::text AS name FROM pg_trigger WHERE tgname = $1 AND NOT tgisinternal
    AND tgparentid = 0
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a server knows of a merchant's move. `peer` is the database at the other end, `age` is in seconds."""

    move: UUID
    state: str
    peer: str
    is_copied: bool
    age: float


async def read(connection: asyncpg.Connection, merchant_id: UUID) -> Fence | None:
    """Return the fence of a merchant at a server, if there is one."""
    row = await connection.fetchrow(READ, merchant_id)
    return None if row is None else Fence(**row)


async def put(connection: asyncpg.Connection, merchant_id: UUID, move: UUID, state: str, peer: str) -> None:
    """Put a fence around a merchant, or another one in its place."""
    await connection.execute(PUT, merchant_id, move, state, peer)


async def change(connection: asyncpg.Connection, merchant_id: UUID, state: str) -> None:
    """Close a merchant that is leaving, or open it again."""
    await connection.execute("UPDATE fence SET state = $2 WHERE merchant_id = $1", merchant_id, state)


async def wait_for_writers(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    """Wait for the transactions that found the merchant open before it was closed. Whoever writes now is refused."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", str(merchant_id))


async def remove(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    """Take the fence away: the merchant is open here."""
    await connection.execute("DELETE FROM fence WHERE merchant_id = $1", merchant_id)


async def guard(connection: asyncpg.Connection, merchant_id: UUID, tables: Iterable[str]) -> None:
    """Have every write to the merchant's rows look at its fence. Other merchants' writes are compared with it only."""
    name, refuse = slot_name(merchant_id), f"EXECUTE FUNCTION refuse_closed('{merchant_id}')"
    for table in tables:
        await _patiently(
            connection,
            f"""
CREATE OR REPLACE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table}
    FOR EACH ROW WHEN (NEW.merchant_id = '{merchant_id}') {refuse};
CREATE OR REPLACE TRIGGER {name}_rows BEFORE DELETE ON {table}
    FOR EACH ROW WHEN (OLD.merchant_id = '{merchant_id}') {refuse}
""",
        )


async def unguard(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    """Drop those triggers. It can be run again."""
    name = slot_name(merchant_id)
    for suffix in ("_rows", ""):
        for row in await connection.fetch(GUARDED, name + suffix):
            await _patiently(connection, f"DROP TRIGGER IF EXISTS {name}{suffix} ON {row['name']}")


async def _patiently(connection: asyncpg.Connection, statement: str) -> None:
    """Change a table at a moment when nobody has written it for long; all its writers wait meanwhile."""
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                await connection.execute(statement)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return
