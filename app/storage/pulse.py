"""Whether a database says anything: when it falls silent, whoever waits for it is told at once.

A statement may take its time while the server works, and PostgreSQL or the operation's deadline ends it. A server that
is frozen, or that nothing reaches, answers nobody; without this everybody would wait for their own deadline, and the
driver, which cancels a statement over a new connection, for longer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

import asyncpg

log = logging.getLogger("flash.database")

T = TypeVar("T")

#: How long somebody has waited when the server is asked whether it is there, and how long it may take to say so:
#: together, and with a round of looking, less than the 3 seconds in which everybody is answered.
_SUSPECT_SECONDS: Final = 0.5
_ANSWER_SECONDS_MAX: Final = 2.0
_LOOK_SECONDS: Final = 0.2
#: What has come meanwhile is read before the server is called silent: a process that was held up itself must not
#: blame the server. In some event loops timers come before sockets.
_ROUNDS_BEFORE_BLAME: Final = 3

#: No room to write, as opposed to a statement being wrong.
FULL: Final = (asyncpg.DiskFullError, asyncpg.PostgresIOError)


class DatabaseSilentError(ConnectionError):
    """The database answers nobody. Whether what was asked of it is done nobody knows."""


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return what work comes to. Raises TimeoutError after so many seconds, however long it takes to cancel it."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_ignore)


def _is_answer(error: BaseException | None) -> bool:
    """Whether the server itself said this."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError)


def _ignore(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


class Pulse:
    """What is known of one database, and who waits for it."""

    def __init__(self, connect: Callable[[float], Awaitable[asyncpg.Connection]]) -> None:
        """Take how the server is reached beside the pool, within so many seconds."""
        self.is_silent = False
        #: Whether a write found no room since one was last seen to succeed.
        self.is_full = False
        self._connect = connect
        self._connections: WeakSet[asyncpg.Connection] = WeakSet()
        #: The longest first.
        self._waiting: dict[Waiting[Any], None] = {}
        self._answered = 0
        self._asking: asyncpg.Connection | None = None

    def knows(self, connection: asyncpg.Connection) -> None:
        """Learn of a new connection of the pool."""
        self._connections.add(connection)

    def begun(self, waiting: "Waiting[Any]") -> None:
        """Learn of somebody who waits. Raises DatabaseSilentError while nobody is answered."""
        if self.is_silent:
            raise DatabaseSilentError("the database is silent")
        self._waiting[waiting] = None

    def ended(self, waiting: "Waiting[Any]", error: BaseException | None) -> None:
        """Learn of what came of it."""
        del self._waiting[waiting]
        if error is None or _is_answer(error):
            self._answered += 1
        if isinstance(error, FULL):
            self.is_full = True

    async def watch(self) -> None:
        """Look after those who wait, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.is_silent:
                if await self._answers():
                    self.is_silent = False
                    log.warning("the database answers again")
                continue
            longest = next(iter(self._waiting), None)
            if longest is None or time.monotonic() - longest.since < _SUSPECT_SECONDS:
                self._stop_asking()
                continue
            answered = self._answered
            if not await self._answers() and self._answered == answered:
                self._give_up()

    async def _answers(self) -> bool:
        """Whether the server answers a trivial statement, or says why it won't."""
        task = asyncio.create_task(self._ask())
        await asyncio.wait({task}, timeout=_ANSWER_SECONDS_MAX)
        for _ in range(_ROUNDS_BEFORE_BLAME):
            if not task.done():
                await asyncio.sleep(0)
        if task.done() and (task.exception() is None or _is_answer(task.exception())):
            return True
        self._stop_asking()
        task.cancel()
        task.add_done_callback(_ignore)
        return False

    async def _ask(self) -> None:
        if self._asking is None or self._asking.is_closed():
            self._asking = await self._connect(_ANSWER_SECONDS_MAX)
        await self._asking.execute("SELECT 1")

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.terminate()
            self._asking = None

    def _give_up(self) -> None:
        """End every connection, and with it what is waited for; and whatever waits for a connection."""
        log.warning("the database is silent: %d operations that wait for it are ended", len(self._waiting))
        self.is_silent = True
        for waiting in self._waiting:
            waiting.end()
        for connection in list(self._connections):
            connection.terminate()


class Waiting(Generic[T]):
    """A connection or a transaction for the length of a block, watched by a pulse."""

    __slots__ = ("_cancelling", "_context", "_is_ended", "_is_entered", "_pulse", "_task", "since")

    def __init__(self, context: AbstractAsyncContextManager[T], pulse: Pulse) -> None:
        """Take the block's context."""
        self._context = context
        self._pulse = pulse
        self._is_entered = False
        self._is_ended = False

    async def __aenter__(self) -> T:
        """Wait for a connection. Raises DatabaseSilentError."""
        self._pulse.begun(self)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a statement outside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self.since = time.monotonic()
        try:
            entered = await self._context.__aenter__()
        except BaseException as error:
            self._pulse.ended(self, error)
            if self._is_ended and task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
                raise DatabaseSilentError("the database is silent") from None
            if isinstance(error, TimeoutError):
                raise DatabaseSilentError("no connection in time") from None
            raise
        self._is_entered = True
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the connection back."""
        try:
            await self._context.__aexit__(kind, error, traceback)
        except BaseException as late:
            self._pulse.ended(self, late)
            raise
        self._pulse.ended(self, error)

    def end(self) -> None:
        """Wait no longer for a connection. Whoever has one notices when that is ended."""
        if not self._is_entered:
            self._is_ended = True
            self._task.cancel()
