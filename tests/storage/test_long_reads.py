"""Statements that read everything. Without these a worker that was killed could keep PostgreSQL at work for long."""

import asyncio

import asyncpg
import pytest

from app.config import settings
from app.storage.database import database, dsn
from app.storage.long_reads import LIMIT
from tests.factories import Shop

RUNNING = "SELECT FROM pg_stat_activity WHERE query = $1 AND state = 'active'"
SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1


@pytest.mark.usefixtures("database_pool")
async def test_a_statement_ends_soon_after_its_client(shop: Shop) -> None:
    query = f"SELECT pg_sleep(600) /* of {shop.merchant_id} */"

    async def until_so_many_run(count: int) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while len(await database().rows(RUNNING, query)) != count:  # noqa: ASYNC110  (no event tells it)
                await asyncio.sleep(LOOK_SECONDS)

    client = await asyncpg.connect(dsn(settings().database_url or ""))
    await client.execute("BEGIN")
    await client.fetch(LIMIT.text, *LIMIT.arguments({"merchant_id": shop.merchant_id, "milliseconds": "600000"}))
    asking = asyncio.create_task(client.execute(query))
    await until_so_many_run(1)
    client.terminate()
    with pytest.raises(asyncpg.PostgresConnectionError):
        await asking

    await until_so_many_run(0)
