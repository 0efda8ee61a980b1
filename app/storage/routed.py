"""The pool of a process behind a router: Tortoise loads this engine where FLASH_ROUTER says that there is one.

A transaction says its merchant first. A single statement is sent as it is, once the connection knows it: the router
finds the merchant in it. To learn a statement, it is sent within a transaction, because a router sends what names no
values to any server, which may be the one that is away.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import takewhile
from types import TracebackType
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import asyncpg
from asyncpg.transaction import Transaction

from app.config import settings
from app.storage import compat
from app.storage.database import Client, Connection, Readiness, Row, Standing, Tx, readiness
from app.storage.in_turn import InTurn
from app.storage.pulse import DatabaseSilentError, Waiting, within
from app.storage.servers import NO_SUCH_SERVER, OF_MERCHANT, Servers, begin_at, every

T = TypeVar("T")

#: How long one server may take to say how it stands.
_STANDING_SECONDS_MAX: Final = 0.8
#: How long the number of servers isn't asked again.
_COUNTED_SECONDS: Final = 60.0
#: What a server says, or what is said of it, that can't be served from.
_AWAY: Final = (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_NAME: Final = "SELECT current_setting('cluster_name')"


class _Connection(compat.Uncancelled, Connection):
    """A connection to a router."""


class _Placed:
    """A connection over which a statement finds its server: a transaction says which, unless it knows the statement."""

    __slots__ = ("_context", "_merchant_id", "_text", "_transaction")

    def __init__(self, context: AbstractAsyncContextManager[Any], text: str, merchant_id: UUID) -> None:
        self._context = context
        self._text = text
        self._merchant_id = merchant_id
        self._transaction: Transaction | None = None

    async def __aenter__(self) -> Any:
        connection = await self._context.__aenter__()
        if compat.is_prepared(connection, self._text):
            return connection
        transaction = connection.transaction()
        try:
            await transaction.start()
            await connection.execute(OF_MERCHANT.format(self._merchant_id))
        except BaseException:
            # Nobody knows whether it is in a transaction.
            connection.terminate()
            await self._context.__aexit__(None, None, None)
            raise
        self._transaction = transaction
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._transaction is None:
                return
            if error is None:
                await self._transaction.commit()
            else:
                with suppress(asyncpg.InterfaceError, asyncpg.PostgresConnectionError):
                    # The connection may have ended, and the transaction with it.
                    await self._transaction.rollback()
        finally:
            try:
                await self._context.__aexit__(kind, error, traceback)
            except asyncpg.InternalClientError:
                # The connection ended on its way back to the pool. What ended the statement says more.
                if error is None:
                    raise


class RoutedTx(Tx):
    """An open transaction at the server of a merchant."""

    async def begin(self) -> None:
        """Begin, and say whose it is: the router takes it there with the first statement."""
        await super().begin()
        if self.merchant_id is not None:
            await compat.connection_of(self).execute(OF_MERCHANT.format(self.merchant_id))

    async def rollback(self) -> None:
        """Roll back. A connection that has ended has taken the transaction with it."""
        with suppress(asyncpg.InterfaceError, asyncpg.PostgresConnectionError):
            await super().rollback()


class RoutedClient(Client):
    """The pool of several databases of one schema."""

    connection_kind = _Connection

    def __init__(self, dsn: str, **kwargs: Any) -> None:
        super().__init__(dsn, **kwargs)
        #: Of a pool that is watched.
        self.servers: Servers | None = None
        #: The name of each server, by its number; empty for one that hasn't said it yet.
        self._names: list[str] = []
        self._seen: dict[str, Readiness] = {}
        self._counted_until = 0.0
        self._looking = asyncio.Lock()

    def acquire_connection(self) -> Any:
        """Return the context of a connection for what names no merchant."""
        return self._in_turn(self.from_pool(), None)

    def _connection_for(self, text: str, named: Mapping[str, object]) -> Any:
        merchant_id = named.get("merchant_id")
        if not isinstance(merchant_id, UUID):
            return self.acquire_connection()
        return self._in_turn(_Placed(self.from_pool(), text, merchant_id), merchant_id)

    def opening(self, merchant_id: UUID | None = None) -> Any:
        """Return the context of a transaction."""
        tx = RoutedTx(self)
        tx.merchant_id = merchant_id
        return self._in_turn(compat.pooled(self, tx), merchant_id)

    def _in_turn(self, context: AbstractAsyncContextManager[Any], merchant_id: UUID | None) -> Any:
        if self.servers is None:
            return InTurn(context, self.turns)
        turns, watch = self.servers.of(merchant_id)
        return Waiting(InTurn(context, turns, self.turns), watch)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Notice for the length of the block when a server falls silent."""
        self.is_watched = True
        self.servers = Servers(self.pool_maxsize, self.connect, settings().server_seconds_max)
        async with self.servers.watched():
            yield

    async def standing(self, within_seconds: float) -> Standing:
        """Return which servers can be served from: one is enough, unless one has tables of another version.

        Its merchants are served by processes of that version, which this one mustn't replace.
        """
        async with asyncio.timeout(within_seconds), self._looking:
            found = await self._look_at_all()
        if self.servers is not None:
            found |= dict.fromkeys(self.servers.silent(), Readiness.AWAY)
        for telling in (Readiness.UNMIGRATED, Readiness.OK, Readiness.FULL, Readiness.AWAY):
            if telling in found.values():
                return Standing(telling, found)
        return Standing(Readiness.UNMIGRATED, found)

    async def _look_at_all(self) -> dict[str, Readiness]:
        """Look at all servers at once, and now and then for further ones. Raises OSError when the router is away."""
        looks = await asyncio.gather(*(self._look_at(number) for number in range(len(self._names))))
        told = [look for look in takewhile(bool, looks) if look is not None]
        if len(told) < len(looks) or time.monotonic() > self._counted_until:
            told += await every(self._look_at, len(told))
            self._counted_until = time.monotonic() + _COUNTED_SECONDS
        self._names = [name for name, _ in told]
        self._seen = {name or f"server {number}": readiness for number, (name, readiness) in enumerate(told)}
        return dict(self._seen)

    @property
    def answering(self) -> dict[str, bool]:
        """Whether each server answered when it was last looked at."""
        return {name: readiness is not Readiness.AWAY for name, readiness in self._seen.items()}

    async def everywhere(self, *texts: str) -> list[list[Row]]:
        """Return the rows of statements over all merchants, of every server that answers. Nobody waits for the rest."""

        async def read(connection: asyncpg.Connection) -> list[list[Row]]:
            await connection.fetchval(_NAME)
            return [cast("list[Row]", await connection.fetch(text)) for text in texts]

        async def read_at(number: int) -> list[list[Row]]:
            try:
                return await self._at(number, read)
            except _AWAY:
                return [[] for _ in texts]

        async with self._looking:
            await self._look_at_all()
        if not any(self.answering.values()):
            raise DatabaseSilentError("no server answers")
        found = await asyncio.gather(*(read_at(number) for number in range(len(self._names))))
        return [[row for of_server in found for row in of_server[place]] for place in range(len(texts))]

    async def _look_at(self, number: int) -> tuple[str, Readiness] | None:
        """Return a server's name and how it stands, or None if the router has no server of this number."""
        name = self._names[number] if number < len(self._names) else ""
        pulse = None if self.servers is None else self.servers.named(name)
        if pulse is not None and pulse.is_silent:
            return name, Readiness.AWAY
        try:
            return await self._at(number, self._ask)
        except _AWAY as error:
            return None if NO_SUCH_SERVER in str(error) else (name, Readiness.AWAY)

    async def _at(self, number: int, ask: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Ask a server by its number, beside the pool. Raises one of _AWAY, or OSError when the router is away."""
        connection = await self.connect(_STANDING_SECONDS_MAX)

        async def work() -> T:
            await begin_at(connection, number)
            return await ask(connection)

        try:
            return await within(_STANDING_SECONDS_MAX, work())
        except OSError as error:
            raise asyncpg.ConnectionDoesNotExistError(str(error)) from None
        finally:
            connection.terminate()

    async def _ask(self, connection: asyncpg.Connection) -> tuple[str, Readiness]:
        name: str = await connection.fetchval(_NAME)
        pulse = None if self.servers is None else self.servers.named(name)
        return name, await readiness(connection.fetch, connection.execute, pulse)


client_class = RoutedClient
