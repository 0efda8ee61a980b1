"""The router that stands for PgDog: without these, tests of many servers would say nothing of a real one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.storage.database import dsn
from tests.scratch import MERCHANT
from tests.servers.pair import NAMES, Server
from tests.servers.router import Router

WHERE = "SELECT current_setting('cluster_name') FROM merchant WHERE merchant_id = $1"
KEY = "SET LOCAL pgdog.sharding_key TO '{}'"


@asynccontextmanager
async def _connected(way: Router) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn(way.url), timeout=30, command_timeout=30)
    try:
        yield connection
    finally:
        connection.terminate()


async def _merchants(connection: asyncpg.Connection, way: Router) -> list[UUID]:
    merchants = [uuid4(), uuid4()]
    for number, merchant_id in enumerate(merchants):
        way.places[merchant_id] = number
        await connection.execute(MERCHANT, merchant_id)
    return merchants


async def test_a_statement_goes_to_the_server_of_its_merchant(way: Router) -> None:
    async with _connected(way) as connection:
        merchants = await _merchants(connection, way)
        for _ in range(2):
            found = [await connection.fetchval(WHERE, merchant_id) for merchant_id in merchants]
            assert found == list(NAMES)
        with pytest.raises(asyncpg.PostgresSystemError, match="cross-shard queries are disabled"):
            await connection.fetch("SELECT FROM merchant WHERE name = $1", "x")


async def test_a_transaction_may_go_to_a_server_by_its_number(way: Router) -> None:
    async with _connected(way) as connection:
        for number, name in enumerate(NAMES):
            async with connection.transaction():
                await connection.execute(f"SET LOCAL pgdog.shard TO '{number}'")
                assert await connection.fetchval("SELECT current_setting('cluster_name')") == name
        await connection.execute("BEGIN")
        await connection.execute("SET LOCAL pgdog.shard TO '2'")
        with pytest.raises(asyncpg.ConnectionDoesNotExistError, match="no such shard: 2"):
            await connection.fetchval("SELECT 1")


async def test_a_transaction_goes_where_it_says_and_takes_copy_along(way: Router) -> None:
    async with _connected(way) as connection:
        _, south = await _merchants(connection, way)
        async with connection.transaction():
            await connection.execute(KEY.format(south))
            assert await connection.fetchval("SELECT current_setting('cluster_name')") == "south"
            record = (south, "kid", 1)
            await connection.execute("CREATE TEMPORARY TABLE t (merchant_id uuid, a text, b int) ON COMMIT DROP")
            await connection.copy_records_to_table("t", records=[record] * 3)
            assert await connection.fetchval("SELECT count(*) FROM t") == 3
        with pytest.raises(asyncpg.PostgresSystemError):
            async with connection.transaction():
                await connection.fetchval(WHERE, south)
        assert await connection.fetchval(WHERE, south) == "south"
        with pytest.raises(asyncpg.PostgresSystemError, match="multi-statement"):
            await connection.execute("BEGIN; " + KEY.format(south))


async def test_a_dead_server_is_an_error_of_its_merchants_alone(way: Router) -> None:
    async with _connected(way) as connection:
        north, south = await _merchants(connection, way)
        assert [await connection.fetchval(WHERE, each) for each in (north, south)] == list(NAMES)
        way.refuse(1)
        with pytest.raises(asyncpg.PostgresSystemError, match="checkout timeout"):
            await connection.fetchval(WHERE, south)
        assert await connection.fetchval(WHERE, north) == "north"
        way.accept(1)
        assert await connection.fetchval(WHERE, south) == "south"


async def test_a_frozen_server_holds_its_own_until_it_thaws(way: Router) -> None:
    async with _connected(way) as connection, _connected(way) as other:
        north, south = await _merchants(connection, way)
        for each in (connection, other):
            for merchant_id in (north, south):
                await each.fetchval(WHERE, merchant_id)
        way.freeze(1)
        with pytest.raises(TimeoutError):
            await connection.fetchval(WHERE, south, timeout=0.05)
        assert await other.fetchval(WHERE, north) == "north"
        way.thaw(1)
        assert await other.fetchval(WHERE, south) == "south"


async def test_what_only_prepares_goes_to_any_server_even_a_dead_one(way: Router) -> None:
    """The reason why a process prepares statements in transactions that say where they go."""
    async with _connected(way) as connection:
        north, _ = await _merchants(connection, way)
        way.refuse(1)
        outcomes = set()
        for number in range(2):
            try:
                outcomes.add(await connection.fetchval(f"{WHERE} AND {number} = {number}", north))
            except asyncpg.PostgresSystemError as error:
                outcomes.add(str(error))
        assert outcomes == {"north", "checkout timeout"}
        async with connection.transaction():
            await connection.execute(KEY.format(north))
            assert await connection.fetchval(f"{WHERE} AND 2 = 2", north) == "north"


async def test_a_killed_server_comes_back_with_what_was_committed(servers: tuple[Server, Server], way: Router) -> None:
    async with _connected(way) as connection:
        north, south = await _merchants(connection, way)
        for merchant_id in (north, south):
            await connection.fetchval(WHERE, merchant_id)
        servers[1].kill()
        try:
            assert await connection.fetchval(WHERE, north) == "north"
            with pytest.raises((asyncpg.PostgresSystemError, asyncpg.ConnectionDoesNotExistError)):
                await connection.fetchval(WHERE, south)
        finally:
            servers[1].start()
    async with _connected(way) as connection:
        assert await connection.fetchval(WHERE, south) == "south"
