"""Telling the workers, through arq's queue in Valkey, that snapshots wait. Rings are rare: each has its connection."""

from typing import Final

from arq.connections import ArqRedis
from graphql import GraphQLError
from redis.exceptions import RedisError

from app.config import settings

#: The worker's function; the engine knows it by name only.
JOB: Final = "take_graph_snapshots"
_SECONDS_MAX: Final = 1.5


def _valkey() -> ArqRedis:
    url = settings().redis_url
    if url is None:
        raise _away()
    valkey: ArqRedis = ArqRedis.from_url(url, socket_timeout=_SECONDS_MAX, socket_connect_timeout=_SECONDS_MAX)
    return valkey


def _away() -> GraphQLError:
    message = "Snapshots can't be asked for while Valkey is away; try again."
    return GraphQLError(message, extensions={"code": "UNAVAILABLE"})


async def require_workers() -> None:
    """Raise UNAVAILABLE unless the queue of the workers answers."""
    valkey = _valkey()
    try:
        await valkey.ping()
    except (RedisError, OSError):
        raise _away() from None
    finally:
        await valkey.aclose()


async def ring(*, is_large: bool) -> None:
    """Tell the workers of a lane. A ring that is lost costs a minute: the workers look by themselves."""
    valkey = _valkey()
    try:
        await valkey.enqueue_job(JOB, is_large)
    except (RedisError, OSError):
        return
    finally:
        await valkey.aclose()
