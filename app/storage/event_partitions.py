"""The months that events are kept by: they are made ahead, and one that comes too late takes over what DEFAULT has."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final

import asyncpg

#: How many months there are beside the present one, so that nobody needs to look for weeks.
MONTHS_AHEAD: Final = 2
#: How long those that read every month wait behind one that is made, which waits for who reads them before.
_LOCK_WAIT: Final = "200ms"

MAKE: Final = "SELECT make_event_partition($1)"
#: Of a table's partitions those of months, in their order.
MONTHS: Final = r"""
SELECT to_date(substr(c.relname, 7), 'YYYY_MM') AS month FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
WHERE inhparent = 'event'::regclass AND c.relname ~ '^event_\d{4}_\d{2}$' ORDER BY 1
"""


def months_ahead(now: datetime | None = None) -> list[date]:
    """Return the present month and those that come, each by its first day, UTC."""
    today = (now or datetime.now(UTC)).date()
    return [after(today, months) for months in range(MONTHS_AHEAD + 1)]


def after(day: date, months: int) -> date:
    """Return the first day of the month that is so many months after a day's."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, 1)


async def make_partitions(connection: asyncpg.Connection, months: Iterable[date]) -> tuple[list[date], list[date]]:
    """Make the partitions of months that have none. Returns those that were made, and those that have to wait.

    One waits when somebody has read all months for long: its events are in DEFAULT until it is made. Safe to run twice
    and at once.
    """
    made, waiting = [], []
    for month in months:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                if await connection.fetchval(MAKE, month):
                    made.append(month)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            waiting.append(month)
    return made, waiting


async def months_of(connection: asyncpg.Connection) -> list[date]:
    """Return the months that have partitions, in order."""
    return [row["month"] for row in await connection.fetch(MONTHS)]
