"""The changes of advice runs: each watched run is read when it rings, and all of them now and then, until it ends."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, TypedDict
from uuid import UUID

from app.advisor.rows import FIND_RUN, RunRow
from app.advisor.runs import channel
from app.advisor.types import AdviceRun
from app.config import Settings
from app.storage import feed
from app.storage.database import database
from app.storage.feed import Feed, Watched, read_patiently
from app.storage.statements import statement

#: How often the watched runs are compared with the table, whatever rings: a lost ring costs so long.
_SWEEP_SECONDS: Final = 2.0


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


class Watcher(feed.Watcher):
    """One subscriber: what it was told last."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        """Begin with nothing told."""
        super().__init__()
        self.state = ""


class AdviceFeed(Feed[Watcher]):
    """All runs that this process's subscribers watch."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; `running` connects."""
        super().__init__(settings.redis_url, sweep_seconds=_SWEEP_SECONDS, is_routed=settings.is_routed)

    async def follow(self, run: Watched) -> AsyncGenerator[RunRow, None]:
        """Yield a run as it is now, and whenever it has changed; ends with the run."""
        watcher = Watcher()
        async with self.watching(run, watcher):
            while True:
                watcher.rung.clear()
                row = await read_patiently(lambda: database().row(FIND_RUN, merchant_id=run[0], run_id=run[1]))
                if row is None:
                    raise RuntimeError("a run that was found is gone")
                state = f"{row['run_status']}{row['run_attempts']}"
                if state != watcher.state:
                    watcher.state = state
                    yield row
                if not AdviceRun.is_live(row):
                    return
                await watcher.rung.wait()

    def channel(self, watched: Watched) -> str:
        """Return where the changes of a run ring."""
        return channel(*watched)

    def hear(self, watchers: set[Watcher], _ring: Mapping[str, Any]) -> None:
        """Have the watchers of a run look again."""
        for watcher in watchers:
            watcher.rung.set()

    async def sweep(self, watchers: Mapping[Watched, set[Watcher]]) -> None:
        """Find the runs that are further than a watcher was told, by one statement a merchant."""
        told: defaultdict[UUID, list[tuple[UUID, str]]] = defaultdict(list)
        for (merchant_id, run_id), its in watchers.items():
            told[merchant_id] += [(run_id, watcher.state) for watcher in its]

        async def look(merchant_id: UUID) -> None:
            run_ids, states = zip(*told[merchant_id], strict=True)
            for row in await database().rows(SWEEP, merchant_id=merchant_id, run_ids=run_ids, states=states):
                self.hear(watchers[merchant_id, row["id"]], {})

        await self.each_merchant(look, told)
