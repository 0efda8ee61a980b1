"""`flash archive`: months of events that are old go to files, and out of the database.

Of a month, the file is written and read back, then what promises need of its events is kept, and then one transaction
says so and drops it, if the rows are still those of the file. Whatever ends it before has dropped nothing, and the next
run goes on from the files that are there.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from app import ids
from app.config import ConfigurationError, Settings
from app.integrity import archived
from app.operate.archive_files import File, Source, digest_of, refuse_folder, store
from app.operate.places import refuse_other_server
from app.operate.preflight import missing_migrations, reach
from app.storage.event_partitions import after, make_partitions, months_of

#: Any number that nothing else on the database locks.
_LOCK: Final = 7_015_226_003
#: How long all who write events wait, at most, behind a month that is about to be dropped; and for how long that waits
#: for its moment.
_LOCK_WAIT: Final = "100ms"
_PAUSE_SECONDS: Final = 0.2
_SECONDS_MAX: Final = 60.0

TRY_LOCK: Final = "SELECT pg_try_advisory_lock($1)"
IS_MOVING: Final = "SELECT EXISTS (SELECT FROM fence)"
#: Months of DEFAULT that have no partition.
STRAYED: Final = """
SELECT DISTINCT date_trunc('month', to_timestamp(
    ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0
) AT TIME ZONE 'UTC')::date AS month
FROM event_default WHERE id < event_first_id($1) ORDER BY 1
"""
COUNT: Final = "SELECT count(*) FROM {month}"
FINISHED: Final = "SELECT count(DISTINCT id) FROM event_archive WHERE month = $1 AND dropped_at IS NOT NULL"
#: Webhooks that weren't told of an event of the month, save those that are disabled for as long as events are kept.
BEHIND: Final = """
SELECT w.id FROM webhook w WHERE (w.disabled_at IS NULL OR w.disabled_at >= $1) AND EXISTS (
    SELECT FROM {month} e WHERE e.merchant_id = w.merchant_id
        AND e.txid >= pg_snapshot_xmin(w.feed_from::pg_snapshot)::text::bigint
        AND NOT pg_visible_in_snapshot(e.txid::text::xid8, w.feed_from::pg_snapshot)
        AND NOT w.skipped::int8multirange @> e.txid
)
ORDER BY w.id
"""
#: Deliveries that somebody may still want: they wait, or are younger than deliveries that are kept longest.
WANTED: Final = """
SELECT count(*) FROM webhook_delivery d JOIN webhook w ON w.merchant_id = d.merchant_id AND w.id = d.webhook_id
WHERE d.event_id >= $1 AND d.event_id < $2
    AND CASE d.state WHEN 'PENDING' THEN w.disabled_at IS NULL OR w.disabled_at >= $3 ELSE d.settled_at >= $4 END
"""
HOLD: Final = """
SELECT FROM webhook w WHERE EXISTS (
    SELECT FROM webhook_delivery d WHERE d.merchant_id = w.merchant_id AND d.webhook_id = w.id
        AND d.event_id >= $1 AND d.event_id < $2
)
ORDER BY merchant_id, id FOR UPDATE
"""
FORGET: Final = """
DELETE FROM webhook_delivery WHERE event_id >= $1 AND event_id < $2 RETURNING merchant_id, webhook_id, subject_id
"""
#: Of a subject the first that still waits has its turn.
GIVE_TURN: Final = """
UPDATE webhook_delivery d SET next_attempt_at = now()
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS gone (merchant_id, webhook_id, subject_id)
CROSS JOIN LATERAL (
    SELECT id, next_attempt_at FROM webhook_delivery p
    WHERE p.merchant_id = gone.merchant_id AND p.webhook_id = gone.webhook_id AND p.subject_id = gone.subject_id
        AND p.state = 'PENDING'
    ORDER BY p.position LIMIT 1
) next
WHERE d.merchant_id = gone.merchant_id AND d.id = next.id AND next.next_attempt_at IS NULL
"""
DROP: Final = "ALTER TABLE event DETACH PARTITION {month}; DROP TABLE {month}"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Month:
    """A month of events that is older than events are kept."""

    first: date
    #: Since when whatever is younger is kept.
    cutoff: datetime
    deliveries_since: datetime

    @property
    def partition(self) -> str:
        """Return its partition's name."""
        return f"event_{self.first:%Y_%m}"

    @cached_property
    def bounds(self) -> tuple[UUID, UUID]:
        """Return what its ids are at least, and what they are below."""
        return ids.first_at(_midnight(self.first)), ids.first_at(_midnight(after(self.first, 1)))

    @property
    def events(self) -> Source:
        """Return its events."""
        return Source(self.partition, "true")

    @property
    def deliveries(self) -> Source:
        """Return what is left of the deliveries of its events."""
        since, until = self.bounds
        return Source("webhook_delivery", f"t.event_id >= '{since}' AND t.event_id < '{until}'")


@dataclass(slots=True)
class Archived:
    """What a run came to."""

    files: list[File] = field(default_factory=list)
    #: Months that stay, and why.
    kept: list[str] = field(default_factory=list)


async def archive(url: str, folder: Path, configured: Settings, say: Say, *, is_dry: bool = False) -> Archived:
    """Archive the months that are wholly older than events are kept. It can be run again, and goes on.

    Raises ConfigurationError when it can't; what it says of a month was archived all the same.
    """
    cutoff = _cutoff(configured)
    deliveries_since = datetime.now(UTC) - timedelta(
        days=max(configured.webhook_history_days, configured.webhook_dead_history_days)
    )
    run = Archived()
    async with _alone(url) as connection:
        if not is_dry:
            refuse_folder(folder)
            await connection.execute(archived.FORGET_UNFINISHED)
            strayed = [row["month"] for row in await connection.fetch(STRAYED, cutoff)]
            await make_partitions(connection, [month for month in strayed if _is_old(month, cutoff)])
        for first in await months_of(connection):
            if not _is_old(first, cutoff):
                continue
            month = Month(first, cutoff, deliveries_since)
            reason = await _held_by(connection, month)
            if reason is not None:
                run.kept.append(f"{first:%Y-%m}")
                say(f"{first:%Y-%m} stays: {reason}.")
            elif is_dry:
                events = await connection.fetchval(COUNT.format(month=month.partition))
                say(f"{first:%Y-%m} would be archived: {events:,} events.")
            else:
                files = await _archive(connection, month, folder, configured.server)
                run.files += files
                say(f"{first:%Y-%m} is archived: {files[0].rows:,} events are in {files[0].file}.")
    return run


def _cutoff(configured: Settings) -> datetime:
    """Return since when events are kept. Raises ConfigurationError when all are, or too few would be."""
    days = configured.event_retention_days
    if days is None:
        raise ConfigurationError(
            "Events are kept for ever: set FLASH_EVENT_RETENTION_DAYS to how many days they stay in the database."
        )
    # A day more than whoever asks for them is promised, for clocks that differ.
    least = 1 + max(
        configured.wallet_history_days, configured.webhook_history_days, configured.webhook_dead_history_days
    )
    if days < least:
        raise ConfigurationError(
            f"FLASH_EVENT_RETENTION_DAYS must be {least} or more, because wallets and webhooks still tell of events "
            "that long (FLASH_WALLET_HISTORY_DAYS, FLASH_WEBHOOK_HISTORY_DAYS, FLASH_WEBHOOK_DEAD_HISTORY_DAYS)."
        )
    return datetime.now(UTC) - timedelta(days=days)


def _is_old(month: date, cutoff: datetime) -> bool:
    """Whether all of a month was before."""
    return _midnight(after(month, 1)) <= cutoff


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@asynccontextmanager
async def _alone(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a server where nobody else archives, and no merchant moves."""
    connection = await reach(url)
    try:
        await refuse_other_server(connection)
        missing = await missing_migrations(connection)
        if missing:
            raise ConfigurationError(f"The database lacks migrations ({', '.join(missing)}); run `flash migrate`.")
        if not await connection.fetchval(TRY_LOCK, _LOCK):
            raise ConfigurationError("Another `flash archive` is at work here; nothing was archived.")
        await _refuse_moving(connection)
        # What reads a month may take as long as it likes.
        await connection.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        yield connection
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise ConfigurationError(
            f"The database failed half-way ({type(error).__name__}: {error}); what wasn't archived is all there. Run "
            "this again."
        ) from error
    finally:
        await connection.close()


async def _refuse_moving(connection: asyncpg.Connection) -> None:
    if await connection.fetchval(IS_MOVING):
        raise ConfigurationError(
            "A merchant moves, or has left rows behind: end that first, with `flash merchant move` or "
            "`flash merchant remove-moved`."
        )


async def _held_by(connection: asyncpg.Connection, month: Month) -> str | None:
    """Return why a month can't go yet."""
    behind = await connection.fetch(BEHIND.format(month=month.partition), month.cutoff)
    if behind:
        return f"{ids.encode('webhook', behind[0]['id'])} hasn't been told of its events yet"
    wanted = await connection.fetchval(WANTED, *month.bounds, month.cutoff, month.deliveries_since)
    if wanted:
        return f"{wanted:,} deliveries of its events wait, or ended not long ago"
    return None


async def _archive(connection: asyncpg.Connection, month: Month, folder: Path, server: str | None) -> list[File]:
    """Archive a month. Returns its files, that of the events first."""
    times = await connection.fetchval(FINISHED, month.first)
    name = f"{month.first:%Y-%m}{f'-{times + 1}' if times else ''}"
    beginning = f"{server}-" if server else ""
    events = folder / f"{beginning}event-{name}.parquet"
    files = [await store(connection, month.events, events, "event", name)]
    rows, _ = await digest_of(connection, month.deliveries)
    if rows:
        path = folder / f"{beginning}webhook_delivery-{name}.parquet"
        files.append(await store(connection, month.deliveries, path, "webhook_delivery", name))
    archive_id = await _keep_totals(connection, month, files[0])
    await _drop(connection, month, archive_id, files)
    return files


async def _keep_totals(connection: asyncpg.Connection, month: Month, file: File) -> UUID:
    """Keep what promises need of a month, which counts once it is dropped. Returns the archive's id."""
    archive_id = uuid.uuid4()
    async with connection.transaction():
        await connection.execute(archived.BEGIN.format(month=month.partition), archive_id, month.first, file.file)
        for statement in (archived.KEEP_SUBJECTS, archived.KEEP_WALLETS):
            await connection.execute(statement.format(month=month.partition), archive_id)
    return archive_id


async def _refuse_changed(connection: asyncpg.Connection, month: Month, files: list[File]) -> None:
    """Raise ConfigurationError unless the files have what is to be dropped, as it is by now."""
    stored = {file.table: (file.rows, file.digest) for file in files}
    for table, source in (("event", month.events), ("webhook_delivery", month.deliveries)):
        if await digest_of(connection, source) != stored.get(table, (0, "0")):
            raise ConfigurationError(
                f"Rows of {month.first:%Y-%m} were changed after they were written; nothing of it was dropped. Move "
                f"{' and '.join(file.file for file in files)} away, and run this again."
            )


async def _drop(connection: asyncpg.Connection, month: Month, archive_id: UUID, files: list[File]) -> None:
    """Drop a month whose rows are all in its files, at a moment when nobody reads or writes events for long.

    Until then only those wait who change the month's own events, or deliveries of them.
    """
    async with connection.transaction():
        # Who begins to move from now on finds the month dropped.
        await connection.execute("LOCK TABLE fence IN SHARE MODE")
        await _refuse_moving(connection)
        await connection.execute(f"LOCK TABLE {month.partition} IN SHARE MODE")
        await connection.execute(HOLD, *month.bounds)
        await _refuse_changed(connection, month, files)
        gone = await connection.fetch(FORGET, *month.bounds)
        if gone:
            await connection.execute(GIVE_TURN, *zip(*gone, strict=True))
        await connection.execute(archived.FINISH, archive_id)
        until = time.monotonic() + _SECONDS_MAX
        while True:
            try:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                    await connection.execute(DROP.format(month=month.partition))
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if time.monotonic() > until:
                    raise ConfigurationError(
                        f"Somebody has read events for {_SECONDS_MAX:.0f} s, so {month.first:%Y-%m} couldn't be "
                        "dropped; its file is whole. Run this again."
                    ) from None
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return
