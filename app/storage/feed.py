"""Feeds: what the subscribers of a process watch, heard of by one connection and swept by one statement for all."""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, cast
from uuid import UUID

from app.storage.database import may_succeed_later
from app.storage.rings import Listener

log = logging.getLogger("flash.feed")

_AWAY_SECONDS: Final = 1.0

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
        self.rung = asyncio.Event()


class Feed(ABC, Generic[W]):
    """All that the subscribers of this process watch of one kind.

    A ring is a hint: whoever misses one hears of the change from the next sweep, and one follows each time that
    listening begins.
    """

    _running: ClassVar["Feed[Any] | None"] = None

    def __init__(self, redis_url: str | None, *, sweep_seconds: float) -> None:
        """Take how often to sweep; `running` connects. Without a Valkey nothing rings, and sweeps tell all."""
        self._sweep_seconds = sweep_seconds
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
        if channel in self._watchers:
            self.hear(self._watchers[channel][1], ring)

    async def _sweep_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sweep_seconds):
                    await self._sweep_due.wait()
            self._sweep_due.clear()
            try:
                if self._watchers:
                    await self.sweep(dict(self._watchers.values()))
            except Exception as error:
                if not may_succeed_later(error):
                    log.exception("a sweep of the %s failed", type(self).__name__)


async def read_patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Return what is read; waits out an absent database."""
    while True:
        try:
            return await read()
        except Exception as error:
            if not may_succeed_later(error):
                raise
        await asyncio.sleep(_AWAY_SECONDS)
