"""A process's pool behind a router. Without these one server could hold all connections, or a statement go astray."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypedDict
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from app.config import Settings
from app.storage import servers as places
from app.storage.database import Readiness, Standing, dsn, is_away
from app.storage.pulse import DatabaseSilentError
from app.storage.routed import RoutedClient
from app.storage.statements import NoRow, statement
from tests.scratch import MERCHANT
from tests.servers.pair import NAMES
from tests.servers.router import Router

WAIT_SECONDS_MAX = 60.0
CONNECTIONS = 6


class NameRow(TypedDict):
    """The name of a server."""

    server: str


NAME = statement(
    NameRow, "SELECT current_setting('cluster_name') AS server FROM merchant WHERE merchant_id = :merchant_id"
)
TOUCH = statement(NoRow, "UPDATE merchant SET name = name WHERE merchant_id = :merchant_id")
FULL_DISK = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE FUNCTION full_disk_too() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE UPDATE ON merchant EXECUTE FUNCTION full_disk();
CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION full_disk_too();
"""
ROOM = "DROP EVENT TRIGGER full_disk; DROP TRIGGER full_disk ON merchant;"
SLOW = statement(NameRow, "SELECT pg_sleep(:seconds)::text AS server FROM merchant WHERE merchant_id = :merchant_id")


@pytest_asyncio.fixture(loop_scope="session")
async def merchants(databases: list[str], way: Router) -> tuple[UUID, UUID]:
    """A merchant on each server."""
    made = uuid4(), uuid4()
    for number, merchant_id in enumerate(made):
        way.places[merchant_id] = number
        connection = await asyncpg.connect(dsn(databases[number]))
        await connection.execute(MERCHANT, merchant_id)
        await connection.close()
    return made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other tests the stand-in for the router may take seconds to answer."""
    monkeypatch.setattr("app.storage.routed.settings", lambda: Settings(server_seconds_max=3))


@asynccontextmanager
async def _pool(way: Router) -> AsyncIterator[RoutedClient]:
    client = RoutedClient(dsn(way.url), connection_name="routed", maxsize=CONNECTIONS, command_timeout=600)
    async with client.watched():
        try:
            yield client
        finally:
            if client.pool is not None:
                client.pool.terminate()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not holds():  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.005)


def _used(client: RoutedClient) -> int:
    return 0 if client.pool is None else client.pool.get_size() - client.pool.get_idle_size()


async def _name(client: RoutedClient, merchant_id: UUID) -> str | None:
    row = await client.row(NAME, merchant_id=merchant_id)
    return None if row is None else row["server"]


async def test_a_server_that_does_not_answer_holds_at_most_half_of_the_connections(
    way: Router, merchants: tuple[UUID, UUID]
) -> None:
    north, south = merchants
    async with _pool(way) as client:
        for merchant_id, name in zip(merchants, NAMES, strict=True):
            places.learn(merchant_id, name)
        # All connections, which know the statement then.
        await asyncio.gather(*(_name(client, merchant_id) for merchant_id in merchants for _ in range(20)))
        way.freeze(1)
        waiting = [asyncio.create_task(_name(client, south)) for _ in range(20)]
        await _until(lambda: _used(client) == CONNECTIONS // 2)
        others = await asyncio.gather(*(_name(client, north) for _ in range(50)))
        assert _used(client) <= CONNECTIONS // 2
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert client.servers is not None
        sent = len(way.sent)
        with pytest.raises(DatabaseSilentError):
            await _name(client, south)
        assert client.servers.silent() == {"south"}
        assert len(way.sent) == sent
        way.thaw(1)
        await _until(lambda: not client.servers.silent())  # type: ignore[union-attr]
        assert await _name(client, south) == "south"

    assert others == ["north"] * 50
    assert all(is_away(error) for error in ended if isinstance(error, BaseException))
    assert sum(isinstance(error, BaseException) for error in ended) == 20


async def test_a_slow_statement_goes_on_while_its_server_answers(way: Router, merchants: tuple[UUID, UUID]) -> None:
    _, south = merchants
    places.learn(south, "south")
    async with _pool(way) as client:
        slow = asyncio.create_task(client.row(SLOW, merchant_id=south, seconds=2.5))
        # It is asked meanwhile, and says that it is there.
        await _until(lambda: (1, "SELECT 1") in way.sent)
        assert await slow is not None


@pytest.mark.usefixtures("database_pool")
async def test_a_statement_that_nobody_waits_for_is_left_and_not_cancelled(
    way: Router, merchants: tuple[UUID, UUID]
) -> None:
    """The router might cancel another client's statement."""
    _, south = merchants
    places.learn(south, "south")
    async with _pool(way) as client:

        async def in_transaction() -> None:
            async with client.opening(south) as tx:
                await tx.row(SLOW, merchant_id=south, seconds=60.0)

        alone = partial(client.row, SLOW, merchant_id=south, seconds=60.0)
        for ask in (alone, in_transaction):
            way.sent.clear()
            asking = asyncio.ensure_future(ask())
            await _until(lambda: (1, SLOW.text) in way.sent)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await _until(lambda: _used(client) == 0)
        assert await _name(client, south) == "south"
    assert way.cancels == 0


async def test_statements_are_learned_at_their_own_server_though_another_is_away(
    way: Router, merchants: tuple[UUID, UUID]
) -> None:
    north, _ = merchants
    places.learn(north, "north")
    way.refuse(1)
    async with _pool(way) as client:
        assert await asyncio.gather(*(_name(client, north) for _ in range(20))) == ["north"] * 20
        rows = await client.many(NAME, merchant_id=north)
        assert [row["server"] for row in rows] == ["north"]
        # It is known by now: no transaction for it.
        way.sent.clear()
        assert await _name(client, north) == "north"
    assert way.sent == [(0, NAME.text)]


async def test_an_error_leaves_the_connection_as_it_was(way: Router, merchants: tuple[UUID, UUID]) -> None:
    fails = statement(NameRow, "SELECT (1 / 0)::text AS server FROM merchant WHERE merchant_id = :merchant_id")
    north, _ = merchants
    async with _pool(way) as client:
        for _ in range(2 * CONNECTIONS):
            with pytest.raises(asyncpg.DivisionByZeroError):
                await client.row(fails, merchant_id=north)
        assert await _name(client, north) == "north"
        assert _used(client) == 0


async def test_merchants_whose_server_is_not_known_share_two_connections(
    way: Router, merchants: tuple[UUID, UUID]
) -> None:
    north, _ = merchants
    places.learn(north, "north")
    strangers = [uuid4() for _ in range(10)]
    way.places.update(dict.fromkeys(strangers, 1))
    way.freeze(1)
    async with _pool(way) as client:
        waiting = [asyncio.create_task(_name(client, stranger)) for stranger in strangers]
        await _until(lambda: _used(client) == 2)
        assert await asyncio.gather(*(_name(client, north) for _ in range(50))) == ["north"] * 50
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, BaseException) and is_away(error) for error in ended)
        # Nor are they asked for again at once.
        with pytest.raises(DatabaseSilentError):
            await _name(client, strangers[-1])
        way.thaw(1)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            for stranger in strangers:
                await _until_answered(client, stranger)


async def _until_answered(client: RoutedClient, merchant_id: UUID) -> None:
    while True:
        with suppress(OSError, asyncpg.PostgresConnectionError):
            await _name(client, merchant_id)
            return
        await asyncio.sleep(0.05)


async def _until_it_says(client: RoutedClient, readiness: Readiness, **servers: Readiness) -> None:
    """Wait until readiness says this: a busy machine may be slow to answer what isn't away."""
    wanted = Standing(readiness, {name.replace("_", " "): each for name, each in servers.items()})
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while await client.standing(WAIT_SECONDS_MAX) != wanted:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)


async def test_readiness_tells_each_server(way: Router, databases: list[str]) -> None:
    south = await asyncpg.connect(dsn(databases[1]))
    ok, away = Readiness.OK, Readiness.AWAY
    try:
        async with _pool(way) as client:
            await _until_it_says(client, ok, north=ok, south=ok)
            way.freeze(1)
            await _until_it_says(client, ok, north=ok, south=away)
            way.thaw(1)
            await south.execute("ALTER TABLE tortoise_migrations RENAME TO away")
            await _until_it_says(client, ok, north=ok, south=Readiness.EMPTY)
            await south.execute("CREATE TABLE tortoise_migrations AS SELECT * FROM away LIMIT 1")
            await _until_it_says(client, Readiness.UNMIGRATED, north=ok, south=Readiness.UNMIGRATED)
            await south.execute("DROP TABLE tortoise_migrations")
            await south.execute("ALTER TABLE away RENAME TO tortoise_migrations")
            way.refuse(0)
            way.refuse(1)
            await _until_it_says(client, away, north=away, south=away)
    finally:
        await south.close()


async def test_what_is_counted_everywhere_comes_from_every_server_that_answers(
    way: Router, merchants: tuple[UUID, UUID]
) -> None:
    assert len(merchants) == 2
    async with _pool(way) as client:
        count = "SELECT current_setting('cluster_name') AS server, count(*) > 0 AS has_some FROM merchant"
        await _until_it_says(client, Readiness.OK, north=Readiness.OK, south=Readiness.OK)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            # One that is slow is left out.
            while len(both := (await client.everywhere(count, "SELECT 1"))[0]) < 2:
                pass
        way.refuse(0)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not (one := (await client.everywhere(count))[0]):
                pass
        answering = client.answering
        way.refuse(1)
        with pytest.raises(DatabaseSilentError):
            await client.everywhere(count)
        for number in range(2):
            way.accept(number)

    assert [dict(row) for row in both] == [{"server": name, "has_some": True} for name in NAMES]
    assert [row["server"] for row in one] == ["south"]
    assert answering == {"north": False, "south": True}


async def test_a_server_that_was_away_from_the_start_is_told_by_its_number(way: Router) -> None:
    way.refuse(1)
    async with _pool(way) as client:
        await _until_it_says(client, Readiness.OK, north=Readiness.OK, server_1=Readiness.AWAY)


async def test_a_full_server_is_told_until_it_has_room(
    way: Router, databases: list[str], merchants: tuple[UUID, UUID]
) -> None:
    _, south = merchants
    places.learn(south, "south")
    admin = await asyncpg.connect(dsn(databases[1]))
    try:
        async with _pool(way) as client:
            await admin.execute(FULL_DISK)
            with pytest.raises(asyncpg.DiskFullError):
                await client.row(TOUCH, merchant_id=south)
            await _until_it_says(client, Readiness.OK, north=Readiness.OK, south=Readiness.FULL)
            await admin.execute(ROOM)
            await _until_it_says(client, Readiness.OK, north=Readiness.OK, south=Readiness.OK)
    finally:
        await admin.close()
