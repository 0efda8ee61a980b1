"""What a command runs against: the configured servers, those of a running `flash up`, or ones of its own."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from app.config import ConfigurationError, Settings, settings
from app.crypto import new_master_key
from app.database import connected, dsn
from app.embedded import Command, DataDirectory
from app.migrate import create_database, migrate

START_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Running:
    """The settings that a command works under, and whether the database is an embedded one."""

    settings: Settings
    embedded: bool


def ensure_master_keys(data: DataDirectory) -> str:
    """Return the configured master keys; in development they are made on first start and kept in `data`.

    Raises ConfigurationError in production without configured keys.
    """
    configured = settings().master_keys
    if configured is not None:
        return configured.get_secret_value()
    if settings().production:
        raise ConfigurationError(
            "No master key is configured and FLASH_ENV is production: set FLASH_MASTER_KEYS to what "
            "`flash keys new` prints, and keep a copy; without it nothing can be decrypted."
        )
    if not data.master_keys.exists():
        data.create()
        data.write_secret(data.master_keys, new_master_key("development") + "\n")
    return data.master_keys.read_text().strip()


@asynccontextmanager
async def running(*, migrated: bool = False) -> AsyncIterator[Running]:
    """Connect a command to its database. An embedded one is started for the command if it isn't running.

    Raises ConfigurationError when the database can't be reached, or lacks migrations and isn't embedded.
    """
    data = DataDirectory(settings().data)
    async with contextlib.AsyncExitStack() as stack:
        embedded = settings().database_url is None
        if embedded:
            if not data.is_locked():
                data.lock()
                await stack.enter_async_context(_postgres(data))
            adopt(DATABASE_URL=data.database_url)
        adopt(FLASH_MASTER_KEYS=ensure_master_keys(data))
        database_url = settings().database_url or ""
        if migrated or embedded:
            await migrate(database_url)
        await stack.enter_async_context(connected(settings()))
        if not migrated:
            await refuse_unmigrated(database_url)
        yield Running(settings(), embedded)


def adopt(**variables: str) -> None:
    """Make these settings of the process and of its children."""
    os.environ.update(variables)
    settings.cache_clear()


async def refuse_unmigrated(database_url: str) -> None:
    """Raise ConfigurationError when the database can't be reached or has no tables yet."""
    try:
        connection = await asyncpg.connect(dsn(database_url), timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise ConfigurationError(f"The database can't be reached: {error or type(error).__name__}.") from None
    try:
        if await connection.fetchval("SELECT to_regclass('merchant')") is None:
            raise ConfigurationError("The database has no tables yet; run `flash migrate`.")
    finally:
        await connection.close()


async def wait_for_postgres(data: DataDirectory, is_alive: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until the embedded PostgreSQL answers, then make sure the engine's database exists."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS_MAX
    while True:
        try:
            await create_database(data.database_url, "flash")
        except (OSError, asyncpg.PostgresError, TimeoutError):
            stopped = is_alive is not None and is_alive.poll() is not None
            if stopped or asyncio.get_running_loop().time() > deadline:
                raise ConfigurationError(
                    f"PostgreSQL doesn't start; its log is {data.logs / 'postgres.log'}."
                ) from None
            await asyncio.sleep(0.05)
        else:
            return


@asynccontextmanager
async def _postgres(data: DataDirectory) -> AsyncIterator[None]:
    """Run the embedded PostgreSQL for the length of a command."""
    command = await asyncio.to_thread(data.postgres_command)
    process = await asyncio.to_thread(_start, command)
    try:
        await wait_for_postgres(data, process)
        yield
    finally:
        process.send_signal(command.stop_signal)
        await asyncio.to_thread(process.wait)


def _start(command: Command) -> "subprocess.Popen[bytes]":
    with command.log.open("ab") as log:
        return subprocess.Popen(
            command.arguments,
            stdout=log,
            stderr=log,
            user=command.uid,
            group=command.uid,
            start_new_session=True,
        )
