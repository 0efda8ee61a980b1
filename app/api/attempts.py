"""The limit on guessing codes: unknown codes are counted one by one, per presenter and per API key.

Valkey holds the counters for all processes. While it is away each process counts in its own memory.
"""

import logging
import time
from functools import lru_cache
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from redis.exceptions import RedisError

from app.api.context import Viewer
from app.config import settings

log = logging.getLogger("flash.attempts")

#: How long Valkey isn't asked after it didn't answer, so that one request waits for the time-out, and not all.
_PAUSE_SECONDS: Final = 2.0
_TIMEOUT_SECONDS: Final = 0.5

_away_until = 0.0


async def exceeded(viewer: Viewer, presenter: bytes | None, *, tried: int, unknown: int) -> bool:
    """Count the unknown ones of the codes that were tried. Returns whether the presenter or the key is over its limit.

    The presenter's limit comes first, and what it refuses isn't counted for the key: it takes many presenters to reach
    that. Over a limit no answer tells a hit from a guess. So whether it is over depends on how many codes were tried,
    not on which of them exist, and then all of them are counted.
    """
    limits = [(settings().attempts_per_key_max, viewer.actor)]
    if presenter is not None:
        limits.insert(0, (settings().attempts_per_member_max, presenter.hex()))
    known = tried - unknown
    counted = []
    for most, whose in limits:
        limit, scope = RateLimitItemPerMinute(most), f"{viewer.merchant_id.hex}/{whose}"
        counted.append((limit, scope))
        if await _counted(limit, scope, unknown) + known > most:
            if known:
                for each in counted:
                    await _counted(*each, known)
            return True
    return False


async def is_new(viewer: Viewer, presenter: bytes, text: bytes) -> bool:
    """Whether a presenter didn't try this text within the last minute."""
    scope = f"{viewer.merchant_id.hex}/{presenter.hex()}/{text.hex()}"
    return await _counted(RateLimitItemPerMinute(1), scope, 1) == 1


async def allowed(limit: RateLimitItem, scope: str, attempts: int) -> bool:
    """Count attempts in a scope. Returns whether they were within the limit, or, of none, whether one more would be."""
    return await _counted(limit, scope, attempts) + (attempts == 0) <= limit.amount


async def _counted(limit: RateLimitItem, scope: str, attempts: int) -> int:
    """Count attempts in a scope, for at most half a second. Returns how many there were by now."""
    global _away_until  # noqa: PLW0603  (one breaker per process)
    shared = _shared(settings().redis_url)
    if shared is not None and time.monotonic() >= _away_until:
        try:
            return await _count(shared, limit, scope, attempts)
        except (RedisError, OSError, TimeoutError) as error:
            _away_until = time.monotonic() + _PAUSE_SECONDS
            log.warning("counting attempts in memory: Valkey is away (%s)", type(error).__name__)
    return await _count(_own(), limit, scope, attempts)


async def _count(storage: Storage, limit: RateLimitItem, scope: str, attempts: int) -> int:
    key = limit.key_for(scope)
    return await (storage.incr(key, limit.get_expiry(), attempts) if attempts else storage.get(key))


@lru_cache(maxsize=1)
def _shared(redis_url: str | None) -> Storage | None:
    if redis_url is None:
        return None
    scheme = "async+redis+unix" if redis_url.startswith("unix:") else f"async+{redis_url.partition(':')[0]}"
    return RedisStorage(
        f"{scheme}:{redis_url.partition(':')[2]}",
        implementation="redispy",
        key_prefix="flash:attempts",
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
    )


@lru_cache(maxsize=1)
def _own() -> Storage:
    return MemoryStorage()
