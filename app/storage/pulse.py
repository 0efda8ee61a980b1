"""Whether a database says anything: when it falls silent, whoever waits for it is told at once.

A statement may take its time while the server works, and PostgreSQL or the operation's deadline ends it. A server that
is frozen, or that nothing reaches, answers nobody; without this everybody would wait for their own deadline, and the
driver, which cancels a statement over a new connection, for longer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

import asyncpg

log = logging.getLogger("flash.database")

T = TypeVar("T")


class Patience(NamedTuple):
    """For how many seconds. The first three together are how long somebody may wait before being told."""

    #: Somebody has waited when the server is asked whether it is there.
    suspect: float
    #: It may take to say so.
    answer: float
    #: Between two looks at who waits.
    look: float
    #: Until a silent server is asked again.
    again: float


#: Everybody is answered within 3 seconds.
_PATIENCE: Final = Patience(suspect=0.5, answer=2.0, look=0.2, again=0.2)
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
    """Whether the server itself said this. 58000 is what a router says of a server that it can't reach."""
    return (
        isinstance(error, asyncpg.PostgresError)
        and not isinstance(error, asyncpg.PostgresConnectionError)
        and type(error) is not asyncpg.PostgresSystemError
    )


def _ignore(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


async def ask_anything(connection: asyncpg.Connection) -> None:
    """Ask a server for a trivial statement."""
    await connection.execute("SELECT 1")


class Watch(Protocol):
    """Who is told of everybody who waits for a database."""

    def begun(self, waiting: "Waiting[Any]") -> None:
        """Learn of somebody who waits. Raises DatabaseSilentError while nobody is answered."""

    def ended(self, waiting: "Waiting[Any]", error: BaseException | None) -> None:
        """Learn of what came of it."""


class Pulse:
    """What is known of one database, and who waits for it."""

    def __init__(
        self,
        connect: Callable[[float], Awaitable[asyncpg.Connection]],
        ask: Callable[[asyncpg.Connection], Awaitable[None]] = ask_anything,
        *,
        name: str = "the database",
        patience: Patience = _PATIENCE,
    ) -> None:
        """Take how the server is reached beside the pool, within so many seconds, and what it is asked then."""
        self.is_silent = False
        #: Whether a write found no room since one was last seen to succeed.
        self.is_full = False
        self._connect = connect
        self._ask_server = ask
        self._name = name
        self._patience = patience
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
            raise DatabaseSilentError(f"{self._name} is silent")
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
            await asyncio.sleep(self._patience.again if self.is_silent else self._patience.look)
            if self.is_silent:
                if await self._answers():
                    self.is_silent = False
                    log.warning("%s answers again", self._name)
                continue
            longest = next(iter(self._waiting), None)
            if longest is None or time.monotonic() - longest.since < self._patience.suspect:
                self._stop_asking()
                continue
            answered = self._answered
            if not await self._answers() and self._answered == answered:
                self._give_up()

    async def _answers(self) -> bool:
        """Whether the server answers a trivial statement, or says why it won't."""
        task = asyncio.create_task(self._ask())
        await asyncio.wait({task}, timeout=self._patience.answer)
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
            self._asking = await self._connect(self._patience.answer)
        await self._ask_server(self._asking)

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.terminate()
            self._asking = None

    def _give_up(self) -> None:
        """End every connection, and with it what is waited for; and whatever waits for a connection."""
        log.warning("%s is silent: %d operations that wait for it are ended", self._name, len(self._waiting))
        self.is_silent = True
        for waiting in self._waiting:
            waiting.end()
        for connection in list(self._connections):
            connection.terminate()


class Waiting(Generic[T]):
    """A connection or a transaction for the length of a block, watched by a pulse."""

    __slots__ = ("_cancelling", "_context", "_entered", "_task", "_watch", "is_ended", "since")

    def __init__(self, context: AbstractAsyncContextManager[T], watch: Watch) -> None:
        """Take the block's context."""
        self._context = context
        self._watch = watch
        self._entered: Any = None
        self.is_ended = False

    async def __aenter__(self) -> T:
        """Wait for a connection. Raises DatabaseSilentError."""
        self.begin()
        try:
            entered = await self._context.__aenter__()
        except BaseException as error:
            self._watch.ended(self, error)
            is_cancelled = isinstance(error, asyncio.CancelledError)
            if self.is_ended and self._task.uncancel() <= self._cancelling and is_cancelled:
                raise DatabaseSilentError("the database is silent") from None
            if isinstance(error, TimeoutError):
                raise DatabaseSilentError("no connection in time") from None
            raise
        self._entered = entered
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the connection back."""
        try:
            await self._context.__aexit__(kind, error, traceback)
        except BaseException as late:
            self._watch.ended(self, late)
            raise
        self._watch.ended(self, error)

    def begin(self) -> None:
        """Be watched. Raises DatabaseSilentError."""
        self._watch.begun(self)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a statement outside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self.since = time.monotonic()

    def end(self) -> None:
        """Wait no longer: neither for a connection, nor for what was asked over the one that there is."""
        if self.is_ended:
            # Cancelled twice, its task would take the second time for somebody else's.
            return
        self.is_ended = True
        if self._entered is None:
            self._task.cancel()
            return
        with suppress(asyncpg.InterfaceError):
            # It may be on its way back to the pool.
            self._entered.terminate()
