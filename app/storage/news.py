"""Which events a sweep over all merchants hasn't looked at yet: it needn't look at merchants without any."""

import time
from dataclasses import dataclass
from typing import Final, TypedDict

from app.storage.database import Client, database
from app.storage.statements import statement


class _SinceRow(TypedDict):
    since: int


# Whatever will be seen and isn't seen now is written by this transaction or a later one.
SINCE: Final = statement(_SinceRow, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS since")


@dataclass(frozen=True, slots=True)
class Look:
    """A look at events of transactions from `since` on, or at everything (None); the next begins at `until`."""

    since: int | None
    until: int
    client: Client
    of_all_at: float


class News:
    """What a sweep of this process has seen: everything at first, and again now and then; otherwise what is new.

    Everything, because another server may have taken the database's place, and because some of what a sweep is for has
    no event. Events of transactions since another are found by the pages that were written last (`event_latest`, which
    is of `txid + 0`).
    """

    def __init__(self, *, all_seconds: float) -> None:
        """Take how often everything is looked at."""
        self._all_seconds = all_seconds
        self._seen: Look | None = None

    async def look(self) -> Look:
        """Return what has to be looked at. It is asked for before that is read, and `seen` afterwards."""
        client, now = database(), time.monotonic()
        row = await client.row(SINCE)
        if row is None:
            raise RuntimeError("a snapshot has a first transaction")
        seen, until = self._seen, row["since"]
        if seen is None or seen.client is not client or seen.until > until or now - seen.of_all_at > self._all_seconds:
            return Look(None, until, client, now)
        return Look(seen.until, until, client, seen.of_all_at)

    def seen(self, look: Look) -> None:
        """Remember that whatever a look showed has been done."""
        self._seen = look
