"""The pool. Without these it could run out of connections that nobody uses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.config import Settings
from app.storage.database import Client


@pytest.fixture
async def client(worker_database: str, database_pool: Settings) -> AsyncIterator[Client]:
    """A pool of one connection, which is there."""
    client = Client(worker_database, connection_name="one", maxsize=1)
    await client.row("SELECT 1")
    yield client
    await client.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_whose_transaction_does_not_begin_is_not_lost(client: Client, turns: int) -> None:
    async def begin() -> None:
        async with client.opening():
            pass

    beginning = asyncio.create_task(begin())
    for _ in range(turns):
        await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait([beginning])

    async with asyncio.timeout(30), client.opening() as tx:
        assert dict(await tx.row("SELECT 1 AS answer") or {}) == {"answer": 1}
