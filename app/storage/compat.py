"""The private names of Tortoise and asyncpg that are used: pyproject.toml keeps both below a next minor version."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy
from tortoise import Tortoise
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import TransactionalDBClient, TransactionContextPooled


async def initialise(config: dict[str, Any]) -> None:
    """Make the pools that a configuration names, for all contexts of this process.

    Tortoise keeps them in a context variable; Starlette runs requests outside the context of its lifespan.
    """
    await Tortoise.init(config=config, _enable_global_fallback=True)


def is_prepared(connection: asyncpg.Connection, text: str) -> bool:
    """Whether `fetch` and `fetchrow` would send a statement without asking first what it takes and returns.

    asyncpg keeps a hundred statements, for five minutes, and none that is longer than `tortoise_config` says.
    """
    inside: Any = connection
    return bool(inside._stmt_cache.has((text, inside._protocol.get_record_class(), False)))


async def first(connection: Any, text: str, arguments: Sequence[object]) -> Any:
    """Return the first row of a statement, or None, as `fetchrow` does over a connection of a pool.

    What the connection knows is sent at once. asyncpg's own way there takes four coroutines.
    """
    inside = connection._con
    if inside is None or inside.is_closed() or inside._query_loggers:
        return await connection.fetchrow(text, *arguments)
    known = inside._stmt_cache.get((text, asyncpg.Record, False))
    if known is None:
        return await connection.fetchrow(text, *arguments)
    try:
        rows = await inside._protocol.bind_execute(known, arguments, "", 1, return_extra=False, timeout=None)
    except asyncpg.OutdatedSchemaCacheError:
        await inside.reload_schema_state()
        raise
    except asyncpg.InvalidCachedStatementError:
        # It was prepared for an earlier form of the tables.
        inside._drop_global_statement_cache()
        if inside.is_in_transaction():
            raise
        return await connection.fetchrow(text, *arguments)
    return rows[0] if rows else None


class Pool(asyncpg.Pool):
    """A pool that gives and takes a connection at once if nothing has to be asked or waited for.

    asyncpg's own makes a task for each that comes back, so that no cancelling keeps it from its pool, and resets it:
    together a tenth of what a claim costs. What never waits can't be cancelled.
    """

    def __init__(self, dsn: str, **settings: Any) -> None:
        """Take what `asyncpg.create_pool` takes."""
        super().__init__(dsn, **{"max_queries": 50_000, "loop": None, "record_class": asyncpg.Record} | settings)

    def acquire(self, *, timeout: float | None = None) -> "_Acquiring":
        """Return the context of a connection, or what to await for it."""
        return _Acquiring(self, timeout)

    def take(self) -> Any:
        """Return a connection that is idle, None if it must be waited for."""
        inside: Any = self
        idle = inside._queue._queue
        holder = idle[-1] if idle else None
        if (
            holder is None
            or holder._con is None
            or holder._con.is_closed()
            or holder._generation != inside._generation
            or holder._max_inactive_time
            or inside._closing
        ):
            return None
        idle.pop()
        holder._timeout = None
        holder._in_use = inside._loop.create_future()
        holder._proxy = PoolConnectionProxy(holder, holder._con)
        return holder._proxy

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Take a connection back."""
        inside, holder = connection._con, connection._holder
        if (
            inside is None
            or inside.is_closed()
            or inside.get_reset_query()
            or inside._listeners
            or inside._log_listeners
            or inside._top_xact is not None
            or inside._protocol.is_in_transaction()
            or inside._protocol._is_cancelling()
            or inside._protocol.queries_count >= holder._max_queries
            or holder._generation != holder._pool._generation
            or holder._max_inactive_time
        ):
            await super().release(connection, timeout=timeout)
            return
        inside._pool_release_ctr += 1
        holder._release()


class _Acquiring(PoolAcquireContext):
    """The context of a connection. One that is idle is had at once."""

    pool: Pool

    async def __aenter__(self) -> Any:
        taken = self.pool.take()
        if taken is None:
            return await super().__aenter__()
        self.connection = taken
        return taken


class Uncancelled(asyncpg.Connection):
    """A connection that ends with a statement that nobody waits for any more, and cancels none.

    A router passes a wish to cancel on to a server's connection, which may be at work for somebody else by then.
    """

    def _cancel_current_command(self, *_waiters: object) -> None:
        asyncio.get_running_loop().call_soon(self.terminate)


class _Pooled(TransactionContextPooled):
    """Tortoise's forgets its connection when the transaction doesn't begin, and nobody ever gets that again."""

    async def __aenter__(self) -> TransactionalDBClient:
        try:
            return await super().__aenter__()
        except BaseException:
            if self.client._connection is not None:
                # Nobody knows whether it is in a transaction.
                self.client._connection.terminate()
                self.client._finalized = True
                await super().__aexit__(None, None, None)
            raise

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)
        except asyncpg.InternalClientError:
            # The connection ended on its way back to the pool. What ended the transaction says more.
            if exc_type is None:
                raise


def connection_of(transaction: TransactionWrapper) -> asyncpg.Connection:
    """Return the connection that a transaction is on."""
    return transaction._connection


def pooled(client: AsyncpgDBClient, transaction: TransactionWrapper) -> TransactionContextPooled:
    """Return the context of a transaction on a connection of its own. `in_transaction` makes only Tortoise's class."""
    return _Pooled(transaction, client._pool_init_lock)
