"""The private names of Tortoise and asyncpg that are used: pyproject.toml keeps both below a next minor version."""

import asyncio
from typing import Any

import asyncpg
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
