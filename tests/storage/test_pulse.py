"""The pulse of a database. Without it a frozen server would hold everybody for as long as a slow statement may take."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest

from app.storage.pulse import DatabaseSilentError, Patience, Pulse, Waiting, within

WAIT_SECONDS_MAX = 30.0


class Server:
    """A server that answers, or doesn't, and how often it was asked."""

    def __init__(self) -> None:
        """Begin as one that answers."""
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuses: Exception | None = None
        self.ended = asyncio.Event()
        self._asked_again = asyncio.Condition()

    async def connect(self, _seconds_max: float) -> asyncpg.Connection:
        """Be what is connected to."""
        if self.refuses is not None:
            await self._note()
            raise self.refuses
        return cast("asyncpg.Connection", self)

    def is_closed(self) -> bool:
        """Be an open connection."""
        return False

    async def execute(self, _sql: str) -> None:
        """Answer, if it does."""
        await self._note()
        await self.answers.wait()

    def terminate(self) -> None:
        """End a connection of the pool."""
        self.ended.set()

    async def _note(self) -> None:
        async with self._asked_again:
            self.asked += 1
            self._asked_again.notify_all()

    async def asked_times(self, count: int) -> None:
        """Wait until it was asked so often."""
        async with asyncio.timeout(WAIT_SECONDS_MAX), self._asked_again:
            await self._asked_again.wait_for(lambda: self.asked >= count)


#: Looks often, and waits for no answer for long.
IMPATIENT = Patience(suspect=0.0, answer=0.05, look=0.001, again=0.001)


@asynccontextmanager
async def _watched(server: Server) -> AsyncIterator[Pulse]:
    beating = Pulse(server.connect, patience=IMPATIENT)
    task = asyncio.create_task(beating.watch())
    try:
        yield beating
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def _connection(server: Server, event: asyncio.Event) -> AsyncIterator[Server]:
    """Give a connection when the event has happened."""
    await event.wait()
    yield server


def _waiting(beating: Pulse, server: Server, event: asyncio.Event) -> Waiting[Server]:
    return Waiting(_connection(server, event), beating)


async def _until(beating: Pulse, *, silent: bool) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while beating.is_silent is not silent:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.001)


async def test_a_slow_statement_goes_on_while_the_server_answers() -> None:
    server = Server()
    async with _watched(server) as beating:
        ready = asyncio.Event()
        ready.set()
        async with _waiting(beating, server, ready):
            await server.asked_times(20)
            assert not beating.is_silent
            assert not server.ended.is_set()


async def test_nobody_is_asked_while_nobody_waits() -> None:
    server = Server()
    async with _watched(server) as beating:
        for _ in range(50):
            await asyncio.sleep(0.001)

        assert (server.asked, beating.is_silent) == (0, False)


async def test_when_the_server_falls_silent_whoever_waits_for_a_connection_is_told() -> None:
    server = Server()
    server.answers.clear()
    async with _watched(server) as beating:
        with pytest.raises(DatabaseSilentError):
            async with _waiting(beating, server, asyncio.Event()):
                pass

        assert beating.is_silent
        with pytest.raises(DatabaseSilentError):
            async with _waiting(beating, server, asyncio.Event()):
                pass
        server.answers.set()
        await _until(beating, silent=False)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_when_the_server_falls_silent_every_connection_is_ended() -> None:
    server, pooled = Server(), Server()
    server.answers.clear()
    async with _watched(server) as beating:
        beating.knows(cast("asyncpg.Connection", pooled))
        ready = asyncio.Event()
        ready.set()
        async with _waiting(beating, pooled, ready), asyncio.timeout(WAIT_SECONDS_MAX):
            await pooled.ended.wait()

        assert beating.is_silent


async def test_a_server_that_answers_others_is_not_silent() -> None:
    """A probe may be lost, or the server may have no room for its connection."""
    server = Server()
    server.answers.clear()
    async with _watched(server) as beating:
        ready = asyncio.Event()
        ready.set()
        async with _waiting(beating, server, ready):
            while server.asked < 3:
                async with _waiting(beating, server, ready):
                    await asyncio.sleep(0.001)
            assert not beating.is_silent


@pytest.mark.parametrize(
    ("refuses", "silent"),
    [
        (asyncpg.TooManyConnectionsError("no more"), False),
        (asyncpg.CannotConnectNowError("starting up"), False),
        (ConnectionRefusedError(), True),
        (asyncpg.ConnectionDoesNotExistError("closed"), True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_server_that_says_no_is_there(refuses: Exception, silent: bool) -> None:
    server = Server()
    server.refuses = refuses
    async with _watched(server) as beating:
        ready = asyncio.Event()
        ready.set()
        async with _waiting(beating, server, ready):
            await server.asked_times(3)
            if silent:
                await _until(beating, silent=True)
            assert beating.is_silent is silent


async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    beating, server = Pulse(Server().connect), Server()
    never = asyncio.Event()

    async def wait() -> None:
        async with _waiting(beating, server, never):
            pass

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_disk_without_room_is_noticed_and_other_errors_are_not() -> None:
    server = Server()
    beating = Pulse(server.connect)
    ready = asyncio.Event()
    ready.set()
    seen = {}
    for error in (asyncpg.UniqueViolationError("x"), asyncpg.DiskFullError("x"), asyncpg.PostgresIOError("x")):
        beating.is_full = False
        with pytest.raises(type(error)):
            async with _waiting(beating, server, ready):
                raise error
        seen[type(error).__name__] = beating.is_full

    assert seen == {"UniqueViolationError": False, "DiskFullError": True, "PostgresIOError": True}


async def test_a_bound_is_kept_however_long_it_takes_to_cancel() -> None:
    unwinding, over = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwinding.set()
            await over.wait()
            raise RuntimeError("nobody hears of this")

    with pytest.raises(TimeoutError):
        await within(0.01, work())
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        await unwinding.wait()
    over.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()


async def test_within_its_bound_work_comes_to_what_it_comes_to() -> None:
    async def work(error: Exception | None = None) -> Any:
        if error is not None:
            raise error
        return 7

    assert await within(WAIT_SECONDS_MAX, work()) == 7
    with pytest.raises(KeyError):
        await within(WAIT_SECONDS_MAX, work(KeyError("x")))
