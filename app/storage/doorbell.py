"""Waking the workers, through arq's queue in Valkey, when a job waits. It is rare: each time has its own connection."""

from typing import Final

from arq.connections import ArqRedis
from graphql import GraphQLError
from redis.exceptions import RedisError

from app.config import settings

_SECONDS_MAX: Final = 1.5


def _valkey() -> ArqRedis | None:
    url = settings().redis_url
    if url is None:
        return None
    valkey: ArqRedis = ArqRedis.from_url(url, socket_timeout=_SECONDS_MAX, socket_connect_timeout=_SECONDS_MAX)
    return valkey


async def require_workers(what: str) -> None:
    """Raise UNAVAILABLE unless the queue of the workers answers; `what` can't be asked for without them."""
    message = f"{what} can't be asked for while Valkey is away; try again."
    away = GraphQLError(message, extensions={"code": "UNAVAILABLE"})
    valkey = _valkey()
    if valkey is None:
        raise away
    try:
        await valkey.ping()
    except (RedisError, OSError):
        raise away from None
    finally:
        await valkey.aclose()


async def wake_workers(job: str, *arguments: object) -> None:
    """Tell the workers of a job, by its name. One that is lost costs a minute: the workers look by themselves."""
    valkey = _valkey()
    if valkey is None:
        return
    try:
        await valkey.enqueue_job(job, *arguments)
    except (RedisError, OSError):
        return
    finally:
        await valkey.aclose()
