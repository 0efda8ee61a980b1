"""Feeds: what the subscribers of a process watch, heard of by one connection, and swept in case a ring was lost.

On one server a sweep is one statement for all. Behind a router it takes one for each merchant, so it comes seldom: at
once when rings were interrupted, often while they are, and otherwise once a minute.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, cast
from uuid import UUID

from app.storage.database import may_succeed_later
from app.storage.flag import Flag
from app.storage.rings import MISSED, Listener

log = logging.getLogger("flash.feed")

_AWAY_SECONDS: Final = 1.0
#: Between two sweeps of a process behind a router that hears all that rings.
_SELDOM_SECONDS: Final = 60.0
#: How soon that begins to sweep when it hears nothing any more.
_LOOK_SECONDS: Final = 1.0

T = TypeVar("T")
W = TypeVar("W", bound="Watcher")

#: What is watched: a merchant, and which of its wallets, runs or whatever the feed is of.
Watched = tuple[UUID, UUID]


class Watcher:
    """One subscriber; a feed's own says what it was told last."""

    __slots__ = ("rung",)

    def __init__(self) -> None:
        """Begin to wait."""
        #: Set when there is something to look at.
        self.rung = Flag()


class Feed(ABC, Generic[W]):
    """All that the subscribers of this process watch of one kind.

    A ring is a hint: whoever misses one hears of the change from the next sweep, and one follows each time that
    listening begins.
    """

    _running: ClassVar["Feed[Any] | None"] = None

    def __init__(self, redis_url: str | None, *, sweep_seconds: float, is_routed: bool = False) -> None:
        """Take how often to sweep; `running` connects. Without a Valkey nothing rings, and sweeps tell all."""
        self._sweep_seconds = sweep_seconds
        #: Whether a sweep takes a statement for each merchant.
        self.is_routed = is_routed
        self._missed_some = False
        self._watchers: dict[str, tuple[Watched, set[W]]] = {}
        self._sweep_due = asyncio.Event()
        self._listener = None if redis_url is None else Listener(redis_url, self.heard, self._sweep_due.set)

    @abstractmethod
    def channel(self, watched: Watched) -> str:
        """Return where changes of it ring."""

    @abstractmethod
    def hear(self, watchers: set[W], ring: Mapping[str, Any]) -> None:
        """Tell the watchers of one thing what rang."""

    @abstractmethod
    async def sweep(self, watchers: Mapping[Watched, set[W]]) -> None:
        """Ask the table once, for all that is watched, what the watchers weren't told, and tell them."""

    @classmethod
    def of_process(cls) -> Self:
        """Return the one that runs in this process."""
        if cls._running is None:
            raise RuntimeError(f"this process runs no {cls.__name__}")
        return cast(Self, cls._running)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and sweep for the length of the block, as this process's own."""
        tasks = [asyncio.create_task(self._sweep_always())]
        if self._listener is not None:
            if self.is_routed:
                await self._listener.listen(MISSED)
            tasks.append(asyncio.create_task(self._listener.run()))
        type(self)._running = self
        try:
            yield
        finally:
            type(self)._running = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def watching(self, watched: Watched, watcher: W) -> AsyncIterator[None]:
        """Have a watcher told for the length of the block, from its beginning on."""
        channel = self.channel(watched)
        _, watchers = self._watchers.setdefault(channel, (watched, set()))
        watchers.add(watcher)
        try:
            if self._listener is not None:
                await self._listener.listen(channel)
            yield
        finally:
            watchers.discard(watcher)
            if not watchers and self._watchers.pop(channel, None) is not None and self._listener is not None:
                await self._listener.ignore(channel)

    def heard(self, channel: str, ring: Mapping[str, Any]) -> None:
        """Tell those who watch what rings on a channel, if anybody does."""
        if channel == MISSED:
            self._sweep_due.set()
        if channel in self._watchers:
            self.hear(self._watchers[channel][1], ring)

    async def each_merchant(self, look: Callable[[UUID], Awaitable[None]], merchants: Iterable[UUID]) -> None:
        """Look at one merchant after the other. One whose server is away doesn't keep those of others waiting.

        Raises what asyncpg does when one is away, at the end.
        """
        away: Exception | None = None
        for merchant_id in merchants:
            try:
                await look(merchant_id)
            except Exception as error:
                if not (self.is_routed and may_succeed_later(error)):
                    raise
                away = error
        if away is not None:
            raise away

    async def _sweep_always(self) -> None:
        while True:
            await self._until_due()
            self._sweep_due.clear()
            try:
                if self._watchers:
                    await self.sweep(dict(self._watchers.values()))
                self._missed_some = False
            except Exception as error:
                self._missed_some = True
                if not may_succeed_later(error):
                    log.exception("a sweep of the %s failed", type(self).__name__)

    async def _until_due(self) -> None:
        """Wait until it is time to sweep."""
        last = time.monotonic()
        while not self._sweep_due.is_set() and (left := self._pause - (time.monotonic() - last)) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_SECONDS) if self.is_routed else left):
                    await self._sweep_due.wait()

    @property
    def is_listening(self) -> bool:
        """Whether what rings from now on is heard."""
        return self._listener is not None and self._listener.is_listening

    @property
    def _pause(self) -> float:
        """How long after a sweep the next one comes if nothing happens."""
        hears_all = self.is_listening and not self._missed_some
        return max(self._sweep_seconds, _SELDOM_SECONDS) if self.is_routed and hears_all else self._sweep_seconds


async def read_patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Return what is read; waits out an absent database."""
    while True:
        try:
            return await read()
        except Exception as error:
            if not may_succeed_later(error):
                raise
        await asyncio.sleep(_AWAY_SECONDS)
