"""The changes of advice runs: each watched run is read when it rings, and all of them now and then, until it ends."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypedDict
from uuid import UUID

from app.advisor.rows import FIND_RUN, RunRow
from app.advisor.runs import channel
from app.advisor.types import AdviceRun
from app.config import Settings
from app.storage.database import database, is_away
from app.storage.rings import Listener
from app.storage.statements import statement

log = logging.getLogger("flash.advisor")

#: How often the watched runs are compared with the table, whatever rings: a lost ring costs so long.
_SWEEP_SECONDS: Final = 2.0
_AWAY_SECONDS: Final = 1.0


class _FurtherRow(TypedDict):
    """A run that is further than a watcher was told."""

    id: UUID


SWEEP: Final = statement(
    _FurtherRow,
    """
SELECT asked.id FROM unnest(:run_ids::uuid[], :states::text[]) AS asked (id, state)
CROSS JOIN LATERAL (
    SELECT status, attempts FROM advice_run WHERE merchant_id = :merchant_id AND id = asked.id OFFSET 0
) a
WHERE a.status || a.attempts <> asked.state
""",
)

Run = tuple[UUID, UUID]


class Watcher:
    """One subscriber: what it was told last, and whether it has to look again."""

    __slots__ = ("rung", "state")

    def __init__(self) -> None:
        """Begin with nothing told."""
        self.state = ""
        self.rung = asyncio.Event()


class AdviceFeed:
    """All runs that this process's subscribers watch: one listening connection, and a sweep of each merchant's."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; `running` connects."""
        self._watchers: dict[str, tuple[Run, set[Watcher]]] = {}
        self._listener = (
            None if settings.redis_url is None else Listener(settings.redis_url, self._heard, self._ring_all)
        )

    async def changes(self, merchant_id: UUID, run_id: UUID) -> AsyncGenerator[RunRow, None]:
        """Yield a run as it is now, and whenever it has changed; ends with the run."""
        async with self._watching((merchant_id, run_id)) as watcher:
            while True:
                watcher.rung.clear()
                row = await _read(merchant_id, run_id)
                state = f"{row['run_status']}{row['run_attempts']}"
                if state != watcher.state:
                    watcher.state = state
                    yield row
                if not AdviceRun.is_live(row):
                    return
                await watcher.rung.wait()

    @asynccontextmanager
    async def _watching(self, run: Run) -> AsyncIterator[Watcher]:
        """Watch a run for the length of the block; it rings from the beginning of the block on."""
        name = channel(*run)
        watcher = Watcher()
        _, watchers = self._watchers.setdefault(name, (run, set()))
        watchers.add(watcher)
        try:
            if self._listener is not None:
                await self._listener.listen(name)
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers and self._watchers.pop(name, None) is not None and self._listener is not None:
                await self._listener.ignore(name)

    def _heard(self, name: str, _row: Mapping[str, object]) -> None:
        for watcher in self._watchers[name][1] if name in self._watchers else ():
            watcher.rung.set()

    def _ring_all(self) -> None:
        for name in self._watchers:
            self._heard(name, {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and sweep for the length of the block."""
        tasks = [asyncio.create_task(self._sweep_always())]
        if self._listener is not None:
            tasks.append(asyncio.create_task(self._listener.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep_always(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self._sweep()
            except Exception as error:
                if not is_away(error):
                    log.exception("a sweep failed")

    async def _sweep(self) -> None:
        """Ask once for all runs of a merchant whether one is further than a watcher was told."""
        told: defaultdict[UUID, list[tuple[UUID, str]]] = defaultdict(list)
        for (merchant_id, run_id), watchers in self._watchers.values():
            told[merchant_id] += [(run_id, watcher.state) for watcher in watchers]
        for merchant_id, runs in told.items():
            run_ids, states = zip(*runs, strict=True)
            for row in await database().rows(SWEEP, merchant_id=merchant_id, run_ids=run_ids, states=states):
                self._heard(channel(merchant_id, row["id"]), {})


async def _read(merchant_id: UUID, run_id: UUID) -> RunRow:
    """Return a run; waits out an absent database."""
    while True:
        try:
            row = await database().row(FIND_RUN, merchant_id=merchant_id, run_id=run_id)
        except Exception as error:
            if not is_away(error):
                raise
        else:
            if row is None:
                raise RuntimeError("a run that was found is gone")
            return row
        await asyncio.sleep(_AWAY_SECONDS)


_feed: AdviceFeed | None = None


def advice_feed() -> AdviceFeed:
    """Return the feed of this process."""
    if _feed is None:
        raise RuntimeError("this process feeds no advice")
    return _feed


@asynccontextmanager
async def advising(settings: Settings) -> AsyncIterator[None]:
    """Feed this process's subscribers for the length of the block."""
    global _feed  # noqa: PLW0603  (one feed per process)
    _feed = AdviceFeed(settings)
    try:
        async with _feed.running():
            yield
    finally:
        _feed = None
