"""Waking the workers, through arq's queue in Valkey, when a job waits. It is rare: each time has its own connection."""

from typing import Any, Final

import orjson
from arq.connections import ArqRedis
from graphql import GraphQLError
from redis.exceptions import RedisError

from app.config import settings
from app.storage.queues import queue_of, queues

#: The job that takes the place of one that can't be read.
UNREADABLE: Final = "drop_unreadable"
_SECONDS_MAX: Final = 1.5
#: In the year 5138, in milliseconds; arq makes a date of the time in a job.
_TIME_MAX: Final = 10**14


def queue_at(url: str, **options: Any) -> ArqRedis:
    """Return a client of this process's queue that hasn't connected. Jobs are JSON: nothing in Valkey is ever code."""
    queue: ArqRedis = ArqRedis.from_url(url, **options)
    queue.default_queue_name = queue_of(settings().server)
    queue.job_serializer = encode_job
    queue.job_deserializer = decode_job
    return queue


def encode_job(job: dict[str, Any]) -> bytes:
    """Return a job, or its result, as JSON. Raises TypeError for an argument that JSON can't hold."""
    return orjson.dumps(job, default=_error_name)


def _error_name(value: object) -> str:
    if not isinstance(value, BaseException):
        raise TypeError(f"a job can't hold {type(value).__name__}")
    return type(value).__name__


def decode_job(payload: bytes) -> dict[str, Any]:
    """Return a job as arq reads it. Anything else becomes UNREADABLE; arq would log a traceback, or end."""
    try:
        job = orjson.loads(payload)
    except orjson.JSONDecodeError:
        job = None
    match job:
        case {"f": str(), "a": list(), "k": dict(), "t": int() | None, "et": int(time)} if 0 <= time < _TIME_MAX:
            return {field: job[field] for field in ("f", "a", "k", "t", "et")}
    return {"f": UNREADABLE, "a": [], "k": {}, "t": None, "et": 0}


def _queue() -> ArqRedis | None:
    url = settings().redis_url
    if url is None:
        return None
    return queue_at(url, socket_timeout=_SECONDS_MAX, socket_connect_timeout=_SECONDS_MAX)


async def require_workers(what: str) -> None:
    """Raise UNAVAILABLE unless the queue of the workers answers; `what` can't be asked for without them."""
    message = f"{what} can't be asked for while Valkey is away; try again."
    away = GraphQLError(message, extensions={"code": "UNAVAILABLE"})
    queue = _queue()
    if queue is None:
        raise away
    try:
        await queue.ping()
    except (RedisError, OSError):
        raise away from None
    finally:
        await queue.aclose()


async def wake_workers(job: str, *arguments: object) -> None:
    """Tell the workers of a job, by its name. One that is lost costs a minute: the workers look by themselves."""
    queue = _queue()
    if queue is None:
        return
    try:
        for name in await queues(queue):
            await queue.enqueue_job(job, *arguments, _queue_name=name)
    except (RedisError, OSError):
        return
    finally:
        await queue.aclose()
