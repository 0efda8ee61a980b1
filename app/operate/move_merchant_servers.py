"""The two servers of a move: who may exchange a merchant, and what is refused before anything is written."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from app import ids
from app.config import ConfigurationError
from app.operate import move_merchant_fence as fences
from app.operate import move_merchant_rows as rows
from app.operate.move_merchant_fence import Fence
from app.operate.preflight import missing_migrations, reach, refuse_other_keys
from app.storage import master_keys

#: What is raised when a server fails half-way. The last is of a statement after the end of its connection.
FAILED: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_CLOSE_SECONDS_MAX: Final = 5.0
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended('move ' || $1, 0))"
_IDENTITY: Final = """
SELECT system_identifier || '/' || current_setting('cluster_name') || '/' || current_database()
FROM pg_control_system()
"""
_IS_THERE: Final = "SELECT EXISTS (SELECT FROM merchant WHERE merchant_id = $1)"
_SLOTS_LEFT: Final = """
SELECT current_setting('max_replication_slots')::int - count(*)::int FROM pg_replication_slots
"""
_MAY_REPLICATE: Final = "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user"


@dataclass(slots=True)
class Server:
    """One of two servers, by the connection that decides. `identity` is its own number and name, and its database's."""

    connection: asyncpg.Connection
    identity: str


@asynccontextmanager
async def both(node_id: str, source_url: str, target_url: str) -> AsyncIterator[tuple[UUID, Server, Server]]:
    """Connect to both servers, alone with the merchant. Raises ConfigurationError unless they can exchange one."""
    merchant_id = ids.decode("merchant", node_id)
    if merchant_id is None:
        raise ConfigurationError(f"{node_id[:60]!r} is no merchant's id.")
    async with connected("--from", source_url) as from_there, connected("--to", target_url) as to_there:
        source = Server(from_there, await from_there.fetchval(_IDENTITY))
        target = Server(to_there, await to_there.fetchval(_IDENTITY))
        if source.identity == target.identity:
            raise ConfigurationError("--from and --to are one database; the merchant stays where it is.")
        await _refuse_other_schemas(source.connection, target.connection)
        for server in (source, target):
            if not await server.connection.fetchval(_LOCK, str(merchant_id)):
                raise ConfigurationError(f"Another command is moving {node_id[:60]} at this moment.")
        yield merchant_id, source, target


@asynccontextmanager
async def connected(option: str, url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await reach(url, option)
    try:
        # A role may have limits that suit requests.
        await connection.execute(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"
        )
        yield connection
    finally:
        with contextlib.suppress(*FAILED):
            await connection.close(timeout=_CLOSE_SECONDS_MAX)


async def _refuse_other_schemas(source: asyncpg.Connection, target: asyncpg.Connection) -> None:
    """Raise ConfigurationError unless both databases have this version's tables."""
    for option, connection in (("--from", source), ("--to", target)):
        missing = await missing_migrations(connection)
        if missing:
            raise ConfigurationError(
                f"The database of {option} lacks migrations ({', '.join(missing)}); run `flash migrate` at both."
            )
    here, there = await rows.tables(source), await rows.tables(target)
    if [(table.name, table.columns, table.key) for table in here] != [
        (table.name, table.columns, table.key) for table in there
    ]:
        raise ConfigurationError("--from and --to have different tables; run one version of Flash at both.")


async def fences_of(merchant_id: UUID, source: Server, target: Server) -> tuple[Fence | None, Fence | None]:
    return await fences.read(source.connection, merchant_id), await fences.read(target.connection, merchant_id)


async def refuse(
    node_id: str, merchant_id: UUID, source: Server, target: Server, here: Fence | None, there: Fence | None
) -> None:
    """Raise ConfigurationError unless the merchant is at the source, and either moves to the target or could."""
    named = node_id[:60]
    is_here = await source.connection.fetchval(_IS_THERE, merchant_id)
    is_there = await target.connection.fetchval(_IS_THERE, merchant_id)
    if not is_here:
        at = "is at --to already" if is_there and there is None else "isn't at --from"
        raise ConfigurationError(f"The merchant {named} {at}; nothing was moved.")
    if here is not None and here.state == "ARRIVING":
        raise ConfigurationError(f"{named} is still arriving at --from, and isn't served there; nothing was moved.")
    if here is not None and here.peer != target.identity:
        raise ConfigurationError(f"{named} is moving from --from to another server than --to; nothing was moved.")
    if there is not None and there.state != "ARRIVING":
        raise ConfigurationError(
            f"{named} has left --to, and its rows are still there; run `flash merchant remove-moved` first."
        )
    if there is not None and there.peer != source.identity:
        raise ConfigurationError(f"{named} is arriving at --to from another server than --from; nothing was moved.")
    if here is not None and here.state == "CLOSED" and there is None and not is_there:
        raise ConfigurationError(f"{named} has moved from --from to --to, and isn't there any more; nothing was moved.")
    if is_there and there is None and (here is None or here.state != "CLOSED"):
        raise ConfigurationError(f"{named} is at both servers, and served at both; nothing was moved.")
    await refuse_other_keys(source.connection, master_keys.unwrap)
    await refuse_other_keys(target.connection, master_keys.unwrap)


async def refuse_unable(source: asyncpg.Connection, target: asyncpg.Connection) -> None:
    """Raise ConfigurationError unless the source can keep changes, and the target take rows as they are."""
    if await source.fetchval("SHOW wal_level") != "logical":
        raise ConfigurationError("--from keeps no changes; set wal_level = logical there, and start it again.")
    if await source.fetchval(_SLOTS_LEFT) < 1:
        raise ConfigurationError("--from has no replication slot left; raise max_replication_slots there.")
    try:
        async with target.transaction():
            await target.execute("SET LOCAL session_replication_role = replica")
    except asyncpg.InsufficientPrivilegeError:
        raise ConfigurationError(
            "The role of --to may not write rows as they are; as a superuser, run there: "
            "GRANT SET ON PARAMETER session_replication_role TO the role."
        ) from None
    if not await source.fetchval(_MAY_REPLICATE):
        raise ConfigurationError(
            "The role of --from may keep no changes; as a superuser, run: ALTER ROLE … REPLICATION."
        )


async def is_at(server: Server, merchant_id: UUID) -> bool:
    """Whether a server has the merchant's own row."""
    return bool(await server.connection.fetchval(_IS_THERE, merchant_id))
