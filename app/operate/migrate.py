"""Migrates a database to the schema of this version, one process at a time."""

import asyncio
from contextlib import suppress
from typing import Final

import asyncpg

from app.config import ConfigurationError, dsn, tortoise_config
from app.operate.places import refuse_other_server
from app.operate.preflight import missing_migrations, reach
from app.storage.event_partitions import make_partitions, months_ahead

#: Any number that nothing else on the database locks.
_LOCK = 7_015_226_001
#: How often a migration is tried that doesn't get its locks in time. Each try waits for two seconds (its lock_timeout)
#: and whoever serves waits behind it; in between they have their turn.
_TRIES_MAX: Final = 30
_PAUSE_SECONDS: Final = 3.0
_LOCKED: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)

#: The oldest transaction of others on this database, as far as the role may see it.
FIND_OLDEST: Final = """
SELECT pid, application_name AS application, extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 1
"""


async def migrate(database_url: str, *, tries_max: int = _TRIES_MAX, pause_seconds: float = _PAUSE_SECONDS) -> None:
    """Apply the missing migrations, and make the months to come of events. Several processes may do so at once.

    What was cut short is done by the next call. Raises ConfigurationError when the server can't be reached, is too old
    or isn't that of FLASH_SERVER, when the database isn't Flash's, was made before 0.2.0 or is too new, and when others
    keep its tables locked.
    """
    from tortoise.exceptions import BaseORMException  # noqa: PLC0415

    guard = await reach(database_url)
    try:
        await refuse_other_server(guard)
        await guard.fetch("SELECT pg_advisory_lock($1)", _LOCK)
        await missing_migrations(guard)
        await _migrate_patiently(database_url, tries_max, pause_seconds)
        # What can't be made now, a worker makes later.
        await make_partitions(guard, months_ahead())
    except _LOCKED:
        oldest = await guard.fetchrow(FIND_OLDEST)
        whose = f" (process {oldest['pid']}, {oldest['application'] or 'unnamed'})" if oldest else ""
        since = f", the oldest of them for {oldest['seconds']:,} s{whose}" if oldest else ""
        raise ConfigurationError(
            f"The database can't be migrated yet: other transactions keep a table locked{since}. The engine goes on as "
            "it was; end that one or wait for it, and run `flash migrate` again."
        ) from None
    except (BaseORMException, asyncpg.PostgresError) as error:
        # Its other lines may quote rows.
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"The database can't be migrated: {reason}; DATABASE_URL must name a database of Flash's own, "
            "whose role may create tables in it."
        ) from error
    finally:
        await guard.close()


async def _migrate_patiently(database_url: str, tries_max: int, pause_seconds: float) -> None:
    for _ in range(tries_max - 1):
        with suppress(*_LOCKED):
            return await _migrate_once(database_url)
        await asyncio.sleep(pause_seconds)
    return await _migrate_once(database_url)


async def _migrate_once(database_url: str) -> None:
    """Apply the missing migrations. A statement has all the time it needs: how long it may wait for a lock, it says."""
    from tortoise import Tortoise  # noqa: PLC0415  (a second of imports that creating a database doesn't need)
    from tortoise.migrations.api import migrate as tortoise_migrate  # noqa: PLC0415

    try:
        await tortoise_migrate(config=tortoise_config(dsn(database_url), timeout_seconds=None))
    finally:
        await Tortoise.close_connections()


async def create_database(database_url: str, name: str) -> None:
    """Create a database on the server of the URL, unless it exists."""
    connection = await asyncpg.connect(dsn(database_url), database="postgres", timeout=10)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}"')
    except asyncpg.DuplicateDatabaseError:
        pass
    finally:
        await connection.close()
