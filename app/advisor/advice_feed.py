"""The changes of advice runs: each watched run is read when it rings, and all of them now and then, until it ends."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from app.advisor.queries import FIND_RUN
from app.advisor.runs import channel
from app.advisor.types import AdviceRun
from app.config import Settings
from app.storage import feed
from app.storage.database import Row, database
from app.storage.feed import Feed, Watched, read_patiently

#: How often the watched runs are compared with the table, whatever rings: a lost ring costs so long.
_SWEEP_SECONDS: Final = 2.0

SWEEP: Final = """
SELECT asked.merchant_id, asked.id FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS asked (merchant_id, id, state)
CROSS JOIN LATERAL (
    SELECT status, attempts FROM advice_run WHERE merchant_id = asked.merchant_id AND id = asked.id OFFSET 0
) a
WHERE a.status || a.attempts <> asked.state
"""


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
        super().__init__(settings.redis_url, sweep_seconds=_SWEEP_SECONDS)

    async def follow(self, run: Watched) -> AsyncGenerator[Row, None]:
        """Yield a run as it is now (RUN_COLUMNS), and whenever it has changed; ends with the run."""
        watcher = Watcher()
        async with self.watching(run, watcher):
            while True:
                watcher.rung.clear()
                row = await read_patiently(lambda: database().row(FIND_RUN, *run))
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
        """Find the runs that are further than a watcher was told."""
        told = [(run, watcher.state) for run, its in watchers.items() for watcher in its]
        merchants, run_ids = zip(*(run for run, _ in told), strict=True)
        for row in await database().rows(SWEEP, merchants, run_ids, [state for _, state in told]):
            self.hear(watchers[row["merchant_id"], row["id"]], {})
