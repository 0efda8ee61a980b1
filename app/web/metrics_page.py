"""/metrics: what this process counted, and some facts of the servers, which are looked up every few seconds at most.

Readers send FLASH_METRICS_TOKEN. Without that setting there is no such page in production, and in development only the
same machine may read it.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.config import Settings
from app.storage.database import database, may_succeed_later
from app.storage.pulse import within
from app.storage.queues import queues
from app.telemetry import metrics

log = logging.getLogger("flash.metrics")

#: However often the page is read, the servers are looked at once in so many seconds, and never twice at once.
LOOK_SECONDS: Final = 15.0
_LOOK_SECONDS_MAX: Final = 1.5
#: If more pools are active, only so many are counted.
_POOLS_MAX: Final = 50_000
_SAMPLE_SECONDS: Final = 2.0
#: Headers of proxies: with one of them the peer's address isn't the reader's.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

# The lowest level on record of each active pool, because stock itself is the sum of every change.
POOLS: Final = f"""
SELECT coalesce(lowest, 100)::int AS stock, count(*) AS pools
FROM (
    SELECT (
        SELECT min(level) FROM stock_alert a WHERE a.merchant_id = p.merchant_id AND a.pool_id = p.id
    ) AS lowest
    FROM pool p WHERE status = 'ACTIVE' LIMIT {_POOLS_MAX}
) t
GROUP BY 1
"""
# Jobs that are rows, and how long the first of each has waited.
JOBS: Final = """
SELECT 'advice' AS job, count(*) AS waiting, extract(epoch FROM now() - min(requested_at))::float AS seconds
FROM advice_run WHERE status = 'QUEUED'
UNION ALL
SELECT 'bulk', count(*), extract(epoch FROM now() - min(requested_at))::float FROM bulk_job WHERE status = 'QUEUED'
UNION ALL
SELECT 'graph', count(*), extract(epoch FROM now() - min(requested_at))::float FROM graph_job WHERE status = 'QUEUED'
"""


@dataclass(eq=False)
class Facts(Collector):
    """What was seen when the servers were last looked at."""

    database_answers: bool = False
    #: Behind a router: whether each answers.
    servers: dict[str, bool] = field(default_factory=dict)
    valkey_answers: bool | None = None
    queued: int | None = None
    pools: dict[int, int] = field(default_factory=dict)
    jobs: dict[str, tuple[int, float]] = field(default_factory=dict)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each fact; what couldn't be seen is absent."""
        yield GaugeMetricFamily("flash_database_up", "Whether the database answers.", float(self.database_answers))
        if self.servers:
            up = GaugeMetricFamily("flash_server_up", "Whether a server behind the router answers.", labels=["server"])
            for name, answers in self.servers.items():
                up.add_metric([name], float(answers))
            yield up
        if self.valkey_answers is not None:
            yield GaugeMetricFamily("flash_valkey_up", "Whether Valkey answers.", float(self.valkey_answers))
        if self.queued is not None:
            yield GaugeMetricFamily("flash_queue_jobs", "Jobs in the queues of the workers.", self.queued)
        if not self.database_answers:
            return
        pools = GaugeMetricFamily(
            "flash_pools",
            "Active pools, by the level in % that their stock has fallen to; 100 is above 50.",
            labels=["stock"],
        )
        for level in (100, 50, 25, 10, 0):
            pools.add_metric([str(level)], self.pools.get(level, 0))
        yield pools
        waiting = GaugeMetricFamily(
            "flash_jobs_waiting", "Jobs that are rows and that no worker has taken.", labels=["job"]
        )
        oldest = GaugeMetricFamily(
            "flash_jobs_waiting_seconds", "How long the first of them has waited.", labels=["job"]
        )
        for job, (count, seconds) in self.jobs.items():
            waiting.add_metric([job], count)
            oldest.add_metric([job], seconds)
        yield waiting
        yield oldest


class MetricsPage:
    """The page, and who may read it."""

    def __init__(self, chosen: Settings) -> None:
        self._token = None if chosen.metrics_token is None else chosen.metrics_token.get_secret_value()
        self._facts = Facts()
        self._stands_until = 0.0
        self._looking = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer with the page, or 401."""
        if not self._may_read(request):
            log.info("refused to a caller: metrics")
            return PlainTextResponse(
                "Send FLASH_METRICS_TOKEN as a bearer token.\n", 401, {"www-authenticate": "Bearer"}
            )
        facts = await self._looked(request.app.state.redis)
        _sample()
        return Response(
            metrics.exposition(facts), media_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"cache-control": "no-store"}
        )

    def _may_read(self, request: Request) -> bool:
        if self._token is None:
            return _is_of_this_machine(request)
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())

    async def _looked(self, redis: Redis | None) -> Facts:
        """Return the facts of the servers, at most LOOK_SECONDS old."""
        async with self._looking:
            if time.monotonic() >= self._stands_until:
                self._facts = await _look(redis)
                self._stands_until = time.monotonic() + LOOK_SECONDS
            return self._facts


async def _look(redis: Redis | None) -> Facts:
    """Look at both servers at once, so that two silent ones take no longer than one."""
    facts = Facts()
    await asyncio.gather(_look_at_valkey(redis, facts), _look_at_database(facts))
    return facts


async def _look_at_valkey(redis: Redis | None, facts: Facts) -> None:
    if redis is None:
        return
    try:
        facts.queued = await within(_LOOK_SECONDS_MAX, _queued(redis))
        facts.valkey_answers = True
    except (RedisError, OSError, TimeoutError):
        facts.valkey_answers = False


async def _queued(redis: Redis) -> int:
    return sum([await redis.zcard(queue) for queue in await queues(redis)])


async def _look_at_database(facts: Facts) -> None:
    async def look() -> None:
        pools, jobs = await database().everywhere(POOLS, JOBS)
        for row in pools:
            facts.pools[row["stock"]] = facts.pools.get(row["stock"], 0) + row["pools"]
        for row in jobs:
            waiting, seconds = facts.jobs.get(row["job"], (0, 0.0))
            facts.jobs[row["job"]] = waiting + row["waiting"], max(seconds, row["seconds"] or 0.0)

    try:
        await within(_LOOK_SECONDS_MAX, look())
    except Exception as error:
        if not may_succeed_later(error):
            raise
        return
    facts.database_answers = True
    facts.servers = database().answering


@asynccontextmanager
async def sampling() -> AsyncIterator[None]:
    """Count this process's connections every few seconds until the block ends: another process may answer for it."""
    task = asyncio.create_task(_sample_often())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _sample_often() -> None:
    while True:
        _sample()
        await asyncio.sleep(_SAMPLE_SECONDS)


def _sample() -> None:
    pool = database().pool
    size, idle = (0, 0) if pool is None else (pool.get_size(), pool.get_idle_size())
    metrics.CONNECTIONS.labels("idle").set(idle)
    metrics.CONNECTIONS.labels("used").set(size - idle)


def _is_of_this_machine(request: Request) -> bool:
    """Whether the peer is a process of this machine, and no proxy."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(request.client.host).is_loopback
    return False
