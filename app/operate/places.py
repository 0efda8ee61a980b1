"""Many PostgreSQL servers behind a router: which process belongs where, and what is refused there."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

import asyncpg

from app.config import ConfigurationError, dsn, settings
from app.storage.database import APPLIED
from app.storage.servers import NO_SUCH_SERVER, begin_at, every
from app.storage.versions import migration_names

#: Of servers that a router knows it has fewer.
_NUMBER_MAX: Final = 9_999
_CONNECT_SECONDS_MAX: Final = 10.0
#: What takes a server behind the router longer is taken for its silence.
_ANSWER_SECONDS_MAX: Final = 3.0
#: What the router itself answers to what it refuses or can't do: 58000, after which it may close the connection.
ROUTERS: Final = (asyncpg.PostgresSystemError, asyncpg.PostgresConnectionError)

NO_ROUTER: Final = (
    "FLASH_ROUTER is set, but DATABASE_URL leads to a PostgreSQL server: lead it to the router, or unset FLASH_ROUTER."
)
BE_STRICT: Final = (
    "It runs what names no merchant: set cross_shard_disabled = true in its configuration, and RELOAD it whenever the "
    "servers were migrated."
)

# Copies of a database's files have the same identity.
WHO: Final = """
SELECT current_setting('cluster_name') AS name, system_identifier || '/' || oid AS identity
FROM pg_control_system(), pg_database WHERE datname = current_database()
"""
# Each changes nothing, on however many servers it runs.
CROSSING: Final = (
    "SELECT merchant_id FROM merchant LIMIT 1",
    "UPDATE merchant SET name = name WHERE false",
    "INSERT INTO merchant SELECT * FROM merchant WHERE false",
)
SERVER: Final = """
SELECT current_setting('cluster_name') AS name, current_setting('jit')::boolean AS has_jit,
    to_regclass('tortoise_migrations') IS NOT NULL AS has_tables
"""


class Place(Enum):
    """Where something runs, if merchants are on many servers."""

    #: It reads or changes rows of many merchants: those of one server.
    SERVER = "server"
    #: It makes a merchant, or serves all of them.
    ROUTER = "router"
    #: It names its merchant.
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Server:
    """What a server behind the router says of itself, or why it says nothing."""

    number: int
    name: str = ""
    version: str = ""
    has_jit: bool = False
    missing: tuple[str, ...] = ()
    away: str | None = None

    def __str__(self) -> str:
        return self.name or f"server {self.number} of the router"


def refuse_place(place: Place, what: str = "This command works") -> None:
    """Raise ConfigurationError when by the settings this process is elsewhere."""
    configured = settings()
    if configured.router is not None and configured.server is not None:
        raise ConfigurationError(
            "FLASH_ROUTER and FLASH_SERVER are both set, but DATABASE_URL leads either to the router or to that server."
        )
    if configured.router is not None and configured.database_url is None:
        raise ConfigurationError("FLASH_ROUTER is set, but DATABASE_URL, which has to lead to the router, is not.")
    if configured.router is not None and place is Place.SERVER:
        raise ConfigurationError(
            f"{what} on one server at a time: unset FLASH_ROUTER, lead DATABASE_URL to the server, and set "
            "FLASH_SERVER to its name."
        )
    if configured.server is not None and place is Place.ROUTER:
        raise ConfigurationError(
            f"{what} at the router: unset FLASH_SERVER, lead DATABASE_URL to the router, and set FLASH_ROUTER."
        )


async def refuse_other_server(connection: asyncpg.Connection) -> str:
    """Raise ConfigurationError unless this is the server of FLASH_SERVER. Returns the identity of its database."""
    wanted = settings().server
    found = await who(connection)
    if found is None:
        raise ConfigurationError(
            "DATABASE_URL leads to a router: set FLASH_ROUTER if that is meant, or lead it to one of the servers."
        )
    name, identity = found
    if wanted is not None and name != wanted:
        called = f"this server's cluster_name is {name!r}" if name else "this server has no cluster_name"
        raise ConfigurationError(
            f"FLASH_SERVER is {wanted!r}, but {called}: lead DATABASE_URL to {wanted}, or correct the name."
        )
    return identity


def refuse_other_servers(others: dict[str, str], identity: str, place: Place) -> None:
    """Raise ConfigurationError if workers of other servers run that make this one a wrong one, or a nameless one."""
    wanted = settings().server
    if wanted is None and others:
        right = "FLASH_ROUTER, and lead DATABASE_URL to the router"
        if place is not Place.ROUTER:
            right = "FLASH_SERVER to the cluster_name of this one"
        raise ConfigurationError(f"Workers of {' and '.join(sorted(others))} use this Valkey: set {right}.")
    if wanted is not None and others.get(wanted, identity) != identity:
        raise ConfigurationError(
            f"Two databases are called {wanted}, and workers of the other one run, or ran a minute ago: give each "
            "server a cluster_name of its own."
        )


async def refuse_other_router(connection: asyncpg.Connection) -> None:
    """Raise ConfigurationError unless this is a strict router, to servers that differ in nothing but their merchants.

    Servers that are away are passed over, unless all of them are.
    """
    if await who(connection) is not None:
        raise ConfigurationError(NO_ROUTER)
    if await crosses():
        raise ConfigurationError(f"The router isn't strict. {BE_STRICT}")
    found = await servers()
    for sentence in misnamed(found) + unmigrated(found):
        raise ConfigurationError(sentence)
    if all(server.away for server in found):
        raise ConfigurationError(
            f"No server behind the router answers{''.join(f': {server.away}' for server in found[:1])}."
        )


async def crosses() -> bool:
    """Whether the router runs anything on every server."""
    return any([await _is_run(sql) for sql in CROSSING])


async def _is_run(sql: str) -> bool:
    connection = await connect()
    try:
        await connection.execute(sql)
    except ROUTERS:
        return False
    except asyncpg.PostgresError:
        # Some server's own word: it was run.
        return True
    finally:
        connection.terminate()
    return True


def misnamed(found: list[Server]) -> list[str]:
    """Say in sentences which of the servers that answer have no name of their own."""
    names = Counter(server.name for server in found if server.away is None)
    nameless = names.pop("", 0)
    return [f"{nameless} of its servers have no cluster_name: set one for each, and restart them."] * bool(nameless) + [
        f"{count} of its servers are called {name}: give each a cluster_name of its own."
        for name, count in names.items()
        if count > 1
    ]


def unmigrated(found: list[Server]) -> list[str]:
    """Say in sentences which of the servers that answer have an older schema than this version's."""
    return [
        f"{server} lacks migrations ({', '.join(server.missing)}): run `flash migrate` at it."
        for server in found
        if server.missing
    ]


async def servers() -> list[Server]:
    """Ask each server behind the router."""
    return await every(_asked)


async def _asked(number: int) -> Server | None:
    try:
        async with at(number) as connection:
            (row,) = await connection.fetch(SERVER)
            applied = {each["name"] for each in await connection.fetch(APPLIED)} if row["has_tables"] else set()
            version = str(connection.get_server_version().major)
    except ROUTERS as error:
        return None if NO_SUCH_SERVER in str(error) else Server(number, away=str(error))
    except TimeoutError:
        return Server(number, away="silent")
    missing = tuple(name for name in migration_names() if name not in applied)
    return Server(number, row["name"], version, row["has_jit"], missing)


@asynccontextmanager
async def at(number: int) -> AsyncIterator[asyncpg.Connection]:
    """Open a transaction on one server behind the router. Raises one of ROUTERS, or TimeoutError, if it is away."""
    connection = await connect()
    try:
        await begin_at(connection, number)
        yield connection
    finally:
        # In good order it would wait for a server that is silent.
        connection.terminate()


async def who(connection: asyncpg.Connection) -> tuple[str, str] | None:
    """Return a server's name and its database's identity, or None for a router: it alone knows no such server."""
    try:
        await begin_at(connection, _NUMBER_MAX)
    except ROUTERS:
        return None
    (row,) = await connection.fetch(WHO)
    await connection.execute("COMMIT")
    return row["name"], row["identity"]


async def connect() -> asyncpg.Connection:
    """Each question has a connection of its own: the router may close it with its answer."""
    return await asyncpg.connect(
        dsn(settings().database_url or ""), timeout=_CONNECT_SECONDS_MAX, command_timeout=_ANSWER_SECONDS_MAX
    )
