"""The pool. Without these somebody could wait for a connection as long as others ask, or for ever for a lost one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

import asyncpg
import pytest

from app.config import Settings
from app.storage.database import Client
from app.storage.in_turn import Turns
from app.storage.pulse import DatabaseSilentError


@pytest.fixture(params=[False, True], ids=["", "watched"])
async def client(
    worker_database: str, database_pool: Settings, request: pytest.FixtureRequest
) -> AsyncIterator[Client]:
    """A pool of one connection, which is there."""
    client = Client(worker_database, connection_name="one", maxsize=1)
    async with client.watched() if request.param else nullcontext():
        await client.row("SELECT 1")
        yield client
    await client.close()


async def test_who_asks_first_is_answered_first_however_many_come(client: Client) -> None:
    answered: list[int] = []

    async def ask(number: int) -> None:
        await client.row("SELECT 1")
        answered.append(number)

    async with asyncio.TaskGroup() as asking:
        for number in range(300):
            asking.create_task(ask(number))
            # While they come, connections are given back.
            await asyncio.sleep(0)

    assert answered == list(range(300))


async def test_a_transaction_waits_for_its_turn_and_gives_it_on_however_it_ends(client: Client) -> None:
    answered: list[str] = []

    async def read(name: str) -> None:
        await client.row("SELECT 1")
        answered.append(name)

    async def write(name: str) -> None:
        async with client.opening() as tx:
            await tx.row("SELECT 1")
            answered.append(name)
            raise LookupError

    async def leave() -> None:
        async with asyncio.timeout(0), client.opening():
            pass

    ended = await asyncio.gather(
        read("a"), write("b"), leave(), read("c"), write("d"), read("e"), return_exceptions=True
    )

    assert answered == ["a", "b", "c", "d", "e"]
    assert [type(end) for end in ended if end is not None] == [LookupError, TimeoutError, LookupError]


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


async def _session(client: Client) -> int:
    """Return which of the server's processes answers, in no transaction."""
    row = await client.row("SELECT pg_backend_pid() AS pid, pg_current_xact_id_if_assigned() IS NULL AS is_outside")
    assert row is not None
    assert row["is_outside"]
    return int(row["pid"])


async def test_a_connection_that_nothing_was_left_on_is_given_again(client: Client) -> None:
    assert await _session(client) == await _session(client)


async def test_a_connection_that_comes_back_in_a_transaction_is_out_of_it(client: Client) -> None:
    assert client.pool is not None
    before = await _session(client)
    async with client.pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT pg_current_xact_id()")

    assert await _session(client) == before


@pytest.mark.parametrize("end", ["closed", "killed", "expired"])
async def test_a_connection_that_ended_is_never_given(client: Client, end: str) -> None:
    assert client.pool is not None
    before = await _session(client)
    if end == "expired":
        await client.pool.expire_connections()
    else:
        async with client.pool.acquire() as connection:
            if end == "closed":
                await connection.close()
            else:
                with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert await _session(client) != before


async def test_a_connection_whose_use_was_cancelled_is_given_again(client: Client) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.row("SELECT pg_sleep(60)")
        await _session(client)


async def test_a_turn_that_came_too_late_goes_to_the_next() -> None:
    turns = Turns(1)
    answered: list[str] = []

    async def wait(name: str) -> None:
        await turns.acquire()
        answered.append(name)

    await turns.acquire()
    waiting = [asyncio.create_task(wait(name)) for name in ("leaves before", "leaves at once", "stays")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    turns.release()
    # It is given the turn, and cancelled before it knows.
    waiting[1].cancel()
    await asyncio.wait(waiting)

    assert answered == ["stays"]
    assert not turns.take()
    turns.release()
    assert (turns.take(), turns.take()) == (True, False)


async def test_nobody_has_a_connection_of_a_silent_database_and_none_is_lost(client: Client) -> None:
    async with client.watched() if client.pulse is None else nullcontext():
        assert client.pulse is not None
        client.pulse.is_silent = True
        with pytest.raises(DatabaseSilentError):
            await client.row("SELECT 1")
        client.pulse.is_silent = False

        assert dict(await client.row("SELECT 1 AS one") or {}) == {"one": 1}


async def test_a_statement_that_a_connection_knows_survives_a_change_of_its_table(client: Client) -> None:
    await client.rows("CREATE TABLE changing (a int)")
    await client.rows("INSERT INTO changing VALUES (1)")
    try:
        before = await client.row("SELECT * FROM changing")
        await client.rows("ALTER TABLE changing ADD b int DEFAULT 2")
        after = await client.row("SELECT * FROM changing")
        await client.rows("ALTER TABLE changing ADD c int DEFAULT 3")
        with pytest.raises(asyncpg.InvalidCachedStatementError):
            async with client.opening() as tx:
                await tx.row("SELECT * FROM changing")
        last = await client.row("SELECT * FROM changing")
    finally:
        await client.rows("DROP TABLE changing")

    seen = [dict(row or {}) for row in (before, after, last)]
    assert seen == [{"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}]
