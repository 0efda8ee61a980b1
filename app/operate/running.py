"""The servers that a command uses: the configured ones, those of a running `flash up`, or its own."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from app.config import ConfigurationError, settings
from app.operate.embedded import Command, DataDirectory, LockedError
from app.operate.migrate import create_database, migrate
from app.operate.places import Place
from app.operate.preflight import check_place, redis_at
from app.storage import master_keys
from app.storage.crypto import new_master_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

START_SECONDS_MAX = 30.0


def ensure_master_keys(data: DataDirectory) -> None:
    """Make sure that master keys are configured. In development, make some in `data` on first start.

    Raises ConfigurationError in production without configured keys.
    """
    if settings().has_master_keys:
        master_keys.configured()
        return
    if settings().production:
        raise ConfigurationError(
            "No master key is configured and FLASH_ENV is production: set FLASH_MASTER_KEYS to what "
            "`flash keys new` prints (or FLASH_MASTER_KEYS_FILE to a file of it), and keep a copy; without it nothing "
            "can be decrypted."
        )
    data.create()
    if not data.master_keys.exists():
        data.write_secret(data.master_keys, new_master_key("development") + "\n")
    master_keys.read_file(data.master_keys)
    adopt(FLASH_MASTER_KEYS_FILE=str(data.master_keys))


@asynccontextmanager
async def running(place: Place = Place.SERVER, *, migrated: bool = False) -> AsyncIterator[None]:
    """Connect a command to its database; start the embedded one if it isn't running.

    Raises ConfigurationError when the database can't be reached, isn't where this command works, or lacks migrations
    and isn't embedded.
    """
    from app.storage.database import connected  # noqa: PLC0415  (two seconds of imports that `flash up` doesn't need)

    data = DataDirectory(settings().data)
    async with contextlib.AsyncExitStack() as stack:
        embedded = settings().database_url is None
        if embedded:
            await stack.enter_async_context(_embedded_postgres(data))
            adopt(DATABASE_URL=data.database_url)
        ensure_master_keys(data)
        if migrated or embedded:
            await migrate(settings().database_url or "")
        await check_place(place)
        await stack.enter_async_context(connected(settings()))
        yield


def valkey() -> "Redis":
    """Return a client of the configured Valkey, or of the embedded one, that hasn't connected yet."""
    return redis_at(settings().redis_url or DataDirectory(settings().data).redis_url)


def adopt(**variables: str) -> None:
    """Change the environment of this process and its children, and read the settings again."""
    os.environ.update(variables)
    settings.cache_clear()


async def wait_for_postgres(data: DataDirectory, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until the embedded PostgreSQL answers, then create the database unless it exists.

    Raises ConfigurationError when it doesn't answer in time, or when `process` ends.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            await create_database(data.database_url, "flash")
        except (OSError, asyncpg.PostgresError, TimeoutError):
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"PostgreSQL doesn't start; see its log, {data.logs / 'postgres.log'}."
                ) from None
            await asyncio.sleep(0.02)
        else:
            return


@asynccontextmanager
async def _embedded_postgres(data: DataDirectory) -> AsyncIterator[None]:
    """Use the PostgreSQL of a running `flash up`, or run one until the block ends."""
    try:
        data.lock()
    except LockedError:
        await wait_for_postgres(data)
        yield
        return
    command = await asyncio.to_thread(data.postgres_command)
    process = _start(command)
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
