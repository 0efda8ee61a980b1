"""The connection pool and transactions: Tortoise's client, with plain rows for SQL that is contended or hot.

Tortoise loads this module as its engine (`client_class`). Two things differ from its own asyncpg client:
the URL goes to asyncpg as it is (Unix sockets, TLS, several hosts), and a connection that returns to the
pool is not reset, because nothing here changes a session: settings are `SET LOCAL`, locks end with their
transaction. That saves a round trip per statement and is what PgBouncer's transaction mode needs.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Final, TypeVar, cast, overload
from uuid import UUID

import asyncpg
from tortoise import Tortoise
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import NestedTransactionContext, TransactionContext
from tortoise.connection import get_connection
from tortoise.exceptions import BaseORMException

from app.config import ConfigurationError, Settings, settings, tortoise_config
from app.config import dsn as dsn  # noqa: PLC0414  (most take it from here)
from app.storage import compat, gone
from app.storage.in_turn import InTurn, Turns
from app.storage.pulse import FULL, Pulse, Waiting, Watch, within
from app.storage.statements import Statement
from app.storage.versions import migration_names
from app.telemetry import traces

T = TypeVar("T")

#: A row that nobody declared: of tests and tools.
Row = Mapping[str, Any]

#: What asyncpg raises when the database is away. The last three are answers to connecting: no statement of the
#: engine names a database, a user or anything that isn't ready.
_AWAY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    # A statement that was sent between the words of a backend that ends and the end of its connection.
    asyncpg.InternalClientError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    # The server has no room, on its disk or in its memory.
    *FULL,
    asyncpg.OutOfMemoryError,
)
#: For a connection of a database that is watched.
_CONNECT_SECONDS_MAX: Final = 2.5

#: Arrays of PostgreSQL's own types that statements use, with what they are of. Their numbers never change, but asyncpg
#: would ask the server for them over every connection, which takes it 14 ms for each.
_ARRAYS: Final = {
    "_bool": (1000, 16), "_bytea": (1001, 17), "_int2": (1005, 21), "_int4": (1007, 23), "_int8": (1016, 20),
    "_timestamptz": (1185, 1184), "_numeric": (1231, 1700), "_uuid": (2951, 2950),
}  # fmt: skip
_ARRAY_TYPES: Final = [
    {
        "oid": oid, "ns": "pg_catalog", "name": name, "kind": b"b", "elemtype": element, "elemdelim": ",",
        "elemtype_name": name[1:], "basetype": None, "basetype_name": None, "range_subtype": None,
        "range_subtype_name": None, "attrtypoids": None, "attrnames": None,
    }
    for name, (oid, element) in _ARRAYS.items()
]  # fmt: skip

#: Whatever a transaction reads after this is as of one moment. Its first statement.
ONE_MOMENT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
APPLIED: Final = "SELECT name FROM tortoise_migrations"
# A row of a table that is gone when the statement ends takes a block of its own. A router that sees a table made reads
# its schema again; it doesn't look into a DO.
TRY_TO_WRITE: Final = "DO $$ BEGIN CREATE TEMPORARY TABLE flash_room ON COMMIT DROP AS SELECT 1 AS row; END $$"


async def _connect(*where: Any, **how: Any) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(*where, **how)
    except TimeoutError:
        # As opposed to a statement that takes too long.
        raise ConnectionError("the database lets nobody connect in time") from None


class Connection(asyncpg.Connection):
    """A connection that isn't reset when it returns to the pool."""

    def get_reset_query(self) -> str:
        return ""


def _bound(
    statement: Statement[Any] | str, values: tuple[object, ...], named: Mapping[str, object]
) -> tuple[str, Sequence[object]]:
    if isinstance(statement, str):
        return statement, values
    return statement.text, statement.arguments(named)


class Statements:
    """Raw statements on a client or a transaction; asyncpg's own exceptions, one round trip each.

    Rows are what the statement says they are. A plain text with `$1` is for tests and tools: nobody knows its rows.
    """

    @overload
    async def rows(self, statement: Statement[T], /, **values: object) -> list[T]: ...
    @overload
    async def rows(self, statement: str, /, *values: object) -> list[Row]: ...
    async def rows(self, statement: Statement[T] | str, /, *values: object, **named: object) -> Any:
        """Return all rows of one statement."""
        text, arguments = _bound(statement, values, named)
        async with self._connection_for(text, named) as connection:
            return await connection.fetch(text, *arguments)

    @overload
    async def row(self, statement: Statement[T], /, **values: object) -> T | None: ...
    @overload
    async def row(self, statement: str, /, *values: object) -> Row | None: ...
    async def row(self, statement: Statement[T] | str, /, *values: object, **named: object) -> Any:
        """Return the first row of one statement, or None."""
        text, arguments = _bound(statement, values, named)
        async with self._connection_for(text, named) as connection:
            return await compat.first(connection, text, arguments)

    @overload
    async def many(
        self, statement: Statement[T], /, *, seconds_max: float | None = None, **values: object
    ) -> list[T]: ...
    @overload
    async def many(self, statement: str, /, *values: object, seconds_max: float | None = None) -> list[Row]: ...
    async def many(
        self, statement: Statement[T] | str, /, *values: object, seconds_max: float | None = None, **named: object
    ) -> Any:
        """Return all rows of a statement over thousands of things, planned for these and forgotten: two round trips.

        `seconds_max` replaces the usual time limit.

        A prepared plan is made for lists of any length, perhaps while the tables were small: it may compare each row
        with each of them (measured: 11 ms become 1.7 s for 5,000, and 10 s on tables that were never analysed).
        """
        text, arguments = _bound(statement, values, named)
        async with self._connection_for(text, named) as connection:
            prepared = await connection.prepare(text)
            return await prepared.fetch(*arguments, timeout=seconds_max)

    async def copy(self, table: str, columns: list[str], records: list[tuple[object, ...]]) -> None:
        """COPY records into a table."""
        async with self.acquire_connection() as connection:  # type: ignore[attr-defined]
            await connection.copy_records_to_table(table, columns=columns, records=records)

    def _connection_for(self, _text: str, _named: Mapping[str, object]) -> Any:
        """Return the context of a connection that a statement with these values can be sent over."""
        return self.acquire_connection()  # type: ignore[attr-defined]

    def after_commit(self, act: Callable[[], None]) -> None:
        """Do something once what was written is committed; outside a transaction it is, so at once."""
        act()

    async def copy_in(self, table: str, columns: list[str], payload: bytes, *, seconds_max: float) -> None:
        """COPY rows into a table that are in PostgreSQL's binary form already."""
        source = io.BytesIO(payload)
        async with self.acquire_connection() as connection:  # type: ignore[attr-defined]
            await connection.copy_to_table(table, source=source, columns=columns, format="binary", timeout=seconds_max)

    async def copy_out(self, statement: Statement[Any], /, **values: object) -> bytes:
        """Return the rows of one statement in PostgreSQL's binary form."""
        target, arguments = io.BytesIO(), statement.arguments(values)
        async with self._connection_for(statement.text, values) as connection:
            await connection.copy_from_query(statement.text, *arguments, output=target, format="binary")
        return target.getvalue()


class Tx(Statements, TransactionWrapper):
    """An open transaction. A function that takes one as `tx` runs inside its caller's transaction."""

    def __init__(self, outer: AsyncpgDBClient) -> None:
        super().__init__(outer)
        self._outer = outer
        self.merchant_id: UUID | None = None
        self._after_commit: list[Callable[[], None]] = []

    def after_commit(self, act: Callable[[], None]) -> None:
        """Do something when the transaction has committed; never if it is rolled back."""
        self._after_commit.append(act)

    async def release_savepoint(self) -> None:
        await super().release_savepoint()
        cast(Tx, self._outer)._after_commit += self._after_commit

    def committed(self) -> None:
        """Do what waited for the commit, in order."""
        for act in self._after_commit:
            act()

    def opening(self, _merchant_id: UUID | None = None) -> TransactionContext:
        """Return the context of a savepoint."""
        return NestedTransactionContext(Tx(self))

    def terminate(self) -> None:
        """End the connection, and with it whatever is asked over it."""
        compat.connection_of(self).terminate()

    @asynccontextmanager
    async def nested(self) -> AsyncIterator["Tx"]:
        """Open a savepoint: what fails inside leaves this transaction as it was."""
        async with self.opening() as tx:
            cast(Tx, tx).merchant_id = self.merchant_id
            yield cast(Tx, tx)


class Readiness(Enum):
    """Whether the database can be served from."""

    OK = "ok"
    AWAY = "away"
    FULL = "full"
    UNMIGRATED = "not migrated"
    #: Of one server behind a router: it has no tables, so no merchants.
    EMPTY = "empty"


async def readiness(
    fetch: Callable[..., Awaitable[Sequence[Any]]], run: Callable[..., Awaitable[object]], pulse: Pulse | None
) -> Readiness:
    """Return how a server stands that answers. It is asked whether it has room again only after it had none."""
    try:
        applied = {row["name"] for row in await fetch(APPLIED)}
    except asyncpg.UndefinedTableError:
        return Readiness.EMPTY
    if not applied.issuperset(migration_names()):
        return Readiness.UNMIGRATED
    if pulse is not None and pulse.is_full:
        try:
            await run(TRY_TO_WRITE)
        except FULL:
            return Readiness.FULL
        pulse.is_full = False
    return Readiness.OK


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the database can be served from, and behind a router which of its servers, by their names."""

    readiness: Readiness
    servers: Mapping[str, Readiness] = field(default_factory=dict)


class Lent(Waiting[Any]):
    """A connection of a watched pool for the length of a block. One that is idle is had at once."""

    __slots__ = ("_client", "_is_at_once")

    def __init__(self, client: "Client", watch: Watch) -> None:
        """Take whose connections they are, and who watches them."""
        self._client = client
        self._watch = watch
        self._entered = None
        self.is_ended = False

    async def __aenter__(self) -> Any:
        taken = self._client.take()
        self._is_at_once = taken is not None
        if taken is None:
            self._context = self._client.in_turn()
            return await super().__aenter__()
        self._entered = taken
        try:
            self.begin()
        except BaseException:
            await self._client.give(taken)
            raise
        return taken

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_at_once:
            await super().__aexit__(kind, error, traceback)
            return
        try:
            await self._client.give(self._entered)
        except BaseException as late:
            self._watch.ended(self, late)
            raise
        self._watch.ended(self, error)


class Client(Statements, AsyncpgDBClient):
    """The pool of one database."""

    connection_kind: type[asyncpg.Connection] = Connection

    def __init__(self, dsn: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._dsn = dsn
        self.turns = Turns(self.pool_maxsize)
        self.is_watched = False
        #: Of a database that is watched.
        self.pulse: Pulse | None = None
        #: Made with the first statement.
        self.pool: compat.Pool | None = None

    async def create_pool(self, **kwargs: Any) -> compat.Pool:
        for setting in ("host", "port", "user", "password", "database", "loop"):
            kwargs.pop(setting)
        kwargs |= {"connection_class": self.connection_kind, "min_size": 1, "max_inactive_connection_lifetime": 0}
        kwargs |= {"init": self._begin, "connect": _connect}
        if self.is_watched:
            kwargs["timeout"] = _CONNECT_SECONDS_MAX
        self.pool = await compat.Pool(self._dsn, **kwargs)
        return self.pool

    async def _begin(self, connection: asyncpg.Connection) -> None:
        connection.get_settings().register_data_types(_ARRAY_TYPES)
        if self.pulse is not None:
            self.pulse.knows(connection)
        if traces.are_on():
            await traces.watch(connection)

    def acquire_connection(self) -> Any:
        """Return the context of a connection."""
        return self.in_turn() if self.pulse is None else Lent(self, self.pulse)

    def in_turn(self) -> InTurn[Any]:
        """Return the context of a connection that nobody watches."""
        return InTurn(self.from_pool(), self.turns)

    def take(self) -> Any:
        """Return a connection that is idle, for `give`; None if one must be waited for."""
        if self.pool is None or not self.turns.take():
            return None
        taken = self.pool.take()
        if taken is None:
            self.turns.release()
        return taken

    async def give(self, connection: Any) -> None:
        """Take back what `take` returned."""
        try:
            if self.pool is not None:
                await self.pool.release(connection)
        finally:
            self.turns.release()

    def from_pool(self) -> Any:
        """Return the context of a connection for who has a turn."""
        return super().acquire_connection() if self.pool is None else self.pool.acquire()

    def opening(self, _merchant_id: UUID | None = None) -> Any:
        """Return the context of a transaction."""
        opening = InTurn(compat.pooled(self, Tx(self)), self.turns)
        return opening if self.pulse is None else Waiting(opening, self.pulse)

    async def connect(self, seconds_max: float) -> asyncpg.Connection:
        """Open a connection beside the pool."""
        connection: asyncpg.Connection = await asyncpg.connect(
            self._dsn, timeout=seconds_max, connection_class=self.connection_kind
        )
        return connection

    @property
    def answering(self) -> dict[str, bool]:
        """Whether each server behind a router answered when it was last looked at; empty where there is only one."""
        return {}

    async def everywhere(self, *texts: str) -> list[list[Row]]:
        """Return the rows of statements over all merchants, of every server that answers. Nobody waits for the rest."""
        return [await self.rows(text) for text in texts]

    async def standing(self, within_seconds: float) -> Standing:
        """Return whether it can be served from. Raises what asyncpg does when it is away, or TimeoutError."""
        if self.pulse is not None and self.pulse.is_silent:
            return Standing(Readiness.AWAY)
        return Standing(await within(within_seconds, self._readiness()))

    async def _readiness(self) -> Readiness:
        found = await readiness(self.rows, self.rows, self.pulse)
        return Readiness.UNMIGRATED if found is Readiness.EMPTY else found

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Notice for the length of the block when the database falls silent. Begins before the first statement."""

        self.is_watched = True
        self.pulse = Pulse(self.connect)
        watching = asyncio.create_task(self.pulse.watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])


client_class = Client


def database() -> Client:
    """Return the pool of this process; each statement on it commits by itself."""
    return _client("default")


def replica() -> Client:
    """Return the pool for reports: the replica's where one is configured. Nothing is written to it, and it may lag."""
    return _client("replica" if settings().database_replica_url else "default")


#: Those of this process by name. Tortoise finds them by the context of whoever asks, which takes longer than it may.
_clients: dict[str, Client] = {}


def _client(name: str) -> Client:
    found = _clients.get(name)
    return cast(Client, get_connection(name)) if found is None else found


@asynccontextmanager
async def transaction(merchant_id: UUID | None) -> AsyncIterator[Tx]:
    """Open a transaction of one merchant: committed when the block ends, rolled back when it raises.

    None stands for a transaction over all merchants, which only jobs of workers and commands open. What comes back to
    erased members is forfeited (app/storage/gone.py).
    """
    async with database().opening(merchant_id) as opened:
        tx = cast(Tx, opened)
        tx.merchant_id = merchant_id
        erased = sorted(gone.forfeiting.get())
        if merchant_id is not None and erased:
            await tx.row(gone.LET, merchant_id=merchant_id, member_ids=" ".join(map(str, erased)))
        yield tx
        if merchant_id is not None:
            for member_id in erased:
                await gone.forfeit(tx, merchant_id, member_id)
    tx.committed()


class _TriedError(Exception):
    """Rolls back what was only tried."""


async def tried(merchant_id: UUID, work: Callable[[Tx], Awaitable[T]]) -> T:
    """Do work in a transaction that is rolled back. Returns what it would have done."""
    with suppress(_TriedError):
        async with transaction(merchant_id) as tx:
            done = await work(tx)
            raise _TriedError
    return done


@asynccontextmanager
async def connected(configured: Settings, *, limited: bool = False) -> AsyncIterator[None]:
    """Open this process's pools, and close them after the block. PostgreSQL ends long statements if `limited`."""
    if configured.database_url is None:
        raise ConfigurationError("DATABASE_URL is not set; `flash up` starts an embedded server instead.")
    replica_url = configured.database_replica_url
    config = tortoise_config(
        dsn(configured.database_url),
        replica_url=dsn(replica_url, "DATABASE_REPLICA_URL") if replica_url else None,
        connections_max=configured.database_connections_max,
        timeout_seconds=configured.database_timeout_seconds,
        statement_seconds_max=configured.statement_seconds_max if limited else 0,
        is_routed=configured.is_routed,
    )
    await compat.initialise(config)
    before = _clients.copy()
    _clients.update({name: cast(Client, get_connection(name)) for name in config["connections"]})
    try:
        async with AsyncExitStack() as stack:
            for client in {database(), replica()} if limited else ():
                await stack.enter_async_context(client.watched())
            yield
    finally:
        _clients.clear()
        _clients.update(before)
        await Tortoise.close_connections()


async def standing(*, within_seconds: float) -> Standing:
    """Return whether a claim finds what it needs: a server that answers and can write, and this version's tables."""
    try:
        return await database().standing(within_seconds)
    except (*_AWAY, asyncpg.PostgresError):
        return Standing(Readiness.AWAY)


def is_away(error: BaseException | None) -> bool:
    """Whether this is the database being away, as opposed to a statement being wrong or taking too long."""
    if isinstance(error, BaseORMException):
        error = error.__cause__
    if type(error) is asyncpg.PostgresSystemError:
        # What a router says of a server that it can't reach. What it refuses to route speaks of shards.
        return "shard" not in str(error)
    return isinstance(error, _AWAY) and not isinstance(error, ValueError) and not took_too_long(error)


def took_too_long(error: BaseException | None) -> bool:
    """Whether something was ended because its time was over: by PostgreSQL, or by whoever waited for it."""
    if isinstance(error, BaseORMException):
        error = error.__cause__
    if isinstance(error, TimeoutError):
        # With a number it is the system's word on a connection.
        return error.errno is None
    return isinstance(error, asyncpg.QueryCanceledError)


def may_succeed_later(error: BaseException | None) -> bool:
    """Whether the same may succeed at another time: the database was away, or too busy."""
    return is_away(error) or took_too_long(error)
