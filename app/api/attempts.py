"""The limit on guessing codes: unknown codes are counted one by one, per API key and per presenter.

Valkey holds the counters for all processes. While it is away each process counts in its own memory.
"""

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError

from app.api.context import Viewer
from app.config import settings

log = logging.getLogger("flash.attempts")

#: How long Valkey isn't asked after it didn't answer, so that one request waits for the time-out, and not all.
_PAUSE_SECONDS: Final = 2.0
_TIMEOUT_SECONDS: Final = 0.5

_away_until = 0.0


async def exceeded(viewer: Viewer, presenters: Sequence[bytes], unknown: int) -> bool:
    """Count `unknown` codes that were just tried. Returns whether the caller or a presenter is over its limit.

    A presenter is a member's id or the index of an address; a call that names both counts for both. Over the limit
    known codes are refused as well until the minute ends, or the answer would tell a hit from a guess.
    """
    limits = [(RateLimitItemPerMinute(settings().attempts_per_key_max), viewer.actor)]
    limits += [(RateLimitItemPerMinute(settings().attempts_per_member_max), each.hex()) for each in presenters]
    return not all([await allowed(item, f"{viewer.merchant_id.hex}/{scope}", unknown) for item, scope in limits])


async def allowed(item: RateLimitItem, scope: str, unknown: int) -> bool:
    """Count attempts in a scope, for at most half a second. Returns whether they were within the limit."""
    global _away_until  # noqa: PLW0603  (one breaker per process)
    shared = _shared(settings().redis_url)
    if shared is not None and time.monotonic() >= _away_until:
        try:
            return await _count(shared, item, scope, unknown)
        except (RedisError, OSError, TimeoutError) as error:
            _away_until = time.monotonic() + _PAUSE_SECONDS
            log.warning("counting attempts in memory: Valkey is away (%s)", type(error).__name__)
    return await _count(_own(), item, scope, unknown)


async def _count(limiter: FixedWindowRateLimiter, item: RateLimitItem, scope: str, unknown: int) -> bool:
    return await (limiter.hit(item, scope, cost=unknown) if unknown else limiter.test(item, scope))


@lru_cache(maxsize=1)
def _shared(redis_url: str | None) -> FixedWindowRateLimiter | None:
    if redis_url is None:
        return None
    scheme = "async+redis+unix" if redis_url.startswith("unix:") else f"async+{redis_url.partition(':')[0]}"
    storage = RedisStorage(
        f"{scheme}:{redis_url.partition(':')[2]}",
        implementation="redispy",
        key_prefix="flash:attempts",
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
    )
    return FixedWindowRateLimiter(storage)


@lru_cache(maxsize=1)
def _own() -> FixedWindowRateLimiter:
    return FixedWindowRateLimiter(MemoryStorage())
