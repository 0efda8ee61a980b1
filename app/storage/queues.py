"""The workers' queues in Valkey: one for each PostgreSQL server, told from those of others while its workers run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from arq.constants import default_queue_name
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.config import settings

#: A set: every server that ever had workers.
NAMES: Final = "flash:servers"
#: The database that the workers of a server work on, while they run.
_WORKED_ON: Final = "flash:server:"
_SECONDS_MAX: Final = 60
_RENEW_SECONDS: Final = 15.0


def queue_of(server: str | None) -> str:
    """Return the name of a server's queue; the only server needs no name."""
    return default_queue_name if server is None else f"flash:queue:{server}"


async def queues(valkey: Redis) -> list[str]:
    """Return whom this process rings: at a router, the workers of every server. Raises what Valkey raises."""
    if settings().router is None:
        return [queue_of(settings().server)]
    return [queue_of(server) for server in sorted(await worked_on(valkey))]


async def worked_on(valkey: Redis) -> dict[str, str]:
    """Return the servers whose workers run, each with what tells its database. Raises what Valkey raises."""
    known = [name.decode(errors="replace") for name in await cast(Any, valkey).smembers(NAMES)]
    if not known:
        return {}
    databases = await valkey.mget([_WORKED_ON + name for name in known])
    return {
        name: database.decode(errors="replace")
        for name, database in zip(known, databases, strict=True)
        if database is not None
    }


@asynccontextmanager
async def working(valkey: Redis, server: str | None, database: str) -> AsyncIterator[None]:
    """Tell for the length of the block that a server's workers run. Nobody needs to be told of the only one."""
    if server is None:
        yield
        return
    await _tell(valkey, server, database)
    telling = asyncio.create_task(_tell_again(valkey, server, database))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])


async def _tell(valkey: Redis, server: str, database: str) -> None:
    async with valkey.pipeline(transaction=False) as commands:
        commands.sadd(NAMES, server)
        commands.set(_WORKED_ON + server, database, ex=_SECONDS_MAX)
        await commands.execute()


async def _tell_again(valkey: Redis, server: str, database: str) -> None:
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        with contextlib.suppress(RedisError, OSError):
            await _tell(valkey, server, database)
