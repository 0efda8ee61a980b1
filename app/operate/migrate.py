"""Migrates a database to the schema of this version, one process at a time."""

import asyncpg

from app.config import ConfigurationError, dsn, tortoise_config
from app.operate.places import refuse_other_server
from app.operate.preflight import reach
from app.storage.event_partitions import make_partitions, months_ahead

#: Any number that nothing else on the database locks.
_LOCK = 7_015_226_001


async def migrate(database_url: str) -> None:
    """Apply the missing migrations, and make the months to come of events. Several processes may do so at once.

    Raises ConfigurationError when the server can't be reached, is too old or isn't that of FLASH_SERVER, or when the
    database isn't Flash's.
    """
    from tortoise import Tortoise  # noqa: PLC0415  (a second of imports that creating a database doesn't need)
    from tortoise.exceptions import BaseORMException  # noqa: PLC0415
    from tortoise.migrations.api import migrate as tortoise_migrate  # noqa: PLC0415

    guard = await reach(database_url)
    try:
        await refuse_other_server(guard)
        await guard.fetch("SELECT pg_advisory_lock($1)", _LOCK)
        try:
            await tortoise_migrate(config=tortoise_config(dsn(database_url), timeout_seconds=600))
            # What can't be made now, a worker makes later.
            await make_partitions(guard, months_ahead())
        finally:
            await Tortoise.close_connections()
    except (BaseORMException, asyncpg.PostgresError) as error:
        # Its other lines may quote rows.
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"The database can't be migrated: {reason}; DATABASE_URL must name a database of Flash's own, "
            "whose role may create tables in it."
        ) from error
    finally:
        await guard.close()


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
