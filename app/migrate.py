"""Bringing a database to the schema of this version, by one process at a time."""

import asyncpg
from tortoise import Tortoise
from tortoise.migrations.api import migrate as tortoise_migrate

from app.config import ConfigurationError, tortoise_config
from app.database import dsn

#: Any number works, as long as nothing else on the database locks it.
_LOCK = 7_015_226_001


async def migrate(database_url: str) -> None:
    """Apply the migrations that are missing. Safe to run at once from several processes.

    Raises ConfigurationError when the server can't be reached or is older than PostgreSQL 15.
    """
    url = dsn(database_url)
    try:
        guard = await asyncpg.connect(url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise ConfigurationError(f"The database can't be reached: {error or type(error).__name__}.") from None
    try:
        if guard.get_server_version().major < 15:
            raise ConfigurationError("Flash needs PostgreSQL 15 or newer.")
        await guard.fetch("SELECT pg_advisory_lock($1)", _LOCK)
        await tortoise_migrate(config=tortoise_config(url, timeout_seconds=600))
    finally:
        await Tortoise.close_connections()
        await guard.close()


async def create_database(database_url: str, name: str) -> None:
    """Create a database beside the one of the URL unless it is there."""
    connection = await asyncpg.connect(dsn(database_url), database="postgres", timeout=10)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}"')
    except asyncpg.DuplicateDatabaseError:
        pass
    finally:
        await connection.close()
