"""The timetable: every job and cron line on one screen."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final, cast

from arq import Worker, cron, func
from redis.exceptions import RedisError

from app.config import Settings, settings
from app.operate.clocks import Watch, this_machine
from app.storage.database import connected
from app.storage.doorbell import UNREADABLE, decode_job, encode_job, queue_at
from app.storage.master_keys import keyring
from app.storage.rings import ringing
from app.telemetry import logs
from app.telemetry.observed import job_id
from workers.advise import TIMEOUT_SECONDS, advise, sweep_advice
from workers.audit import audit
from workers.deliver_webhooks import TIMEOUT_SECONDS as DELIVERING_SECONDS
from workers.deliver_webhooks import deliver_webhooks, forget_webhook_deliveries
from workers.drop_unreadable import drop_unreadable
from workers.expire_codes import expire_codes
from workers.expire_invites import expire_invites
from workers.expire_points import expire_points
from workers.fold_stock import fold_stock
from workers.take_graph_snapshots import LANE_TIMEOUT_SECONDS, plan_graph_snapshots, take_graph_snapshots
from workers.watch_stock import watch_stock

log = logging.getLogger("flash.worker")

CRON_JOBS = [
    # Every ten seconds: keep reading stock cheap.
    cron(
        cast(Any, fold_stock), second=set(range(0, 60, 10)), timeout=60, max_tries=1, keep_result=0, run_at_startup=True
    ),
    # Every ten seconds: what claims left unrecorded of a pool's stock levels.
    cron(cast(Any, watch_stock), second=set(range(5, 60, 10)), timeout=60, max_tries=1, keep_result=0),
    # Every minute: end codes whose lifetime is over. Redeeming looks at the time itself, so a late run harms nothing.
    cron(cast(Any, expire_codes), second=30, timeout=300, max_tries=1, keep_result=0),
    # Every minute: debit points whose lifetime is over, and warn of those that will be.
    cron(cast(Any, expire_points), second=45, timeout=300, max_tries=1, keep_result=0),
    # Every minute: end invites that didn't convert in time. Accepting and converting look at the time themselves.
    cron(cast(Any, expire_invites), second=15, timeout=300, max_tries=1, keep_result=0),
    # Every minute: ask for the network snapshots of merchants whose day has begun, ring for those that wait, and let
    # those go that are too old.
    cron(cast(Any, plan_graph_snapshots), second=20, timeout=60, max_tries=1, keep_result=0),
    # Every minute: end the advisor's runs that no worker survived, and ring for those that wait.
    cron(cast(Any, sweep_advice), second=40, timeout=60, max_tries=1, keep_result=0),
    # Every two seconds, once for each worker: send webhooks what happened, unless the worker is at it already.
    cron(
        cast(Any, deliver_webhooks),
        second=set(range(0, 60, 2)),
        timeout=DELIVERING_SECONDS,
        max_tries=1,
        keep_result=0,
        unique=False,
    ),
    # Every minute: let deliveries go that ended long ago.
    cron(cast(Any, forget_webhook_deliveries), second=50, timeout=60, max_tries=1, keep_result=0),
    # Every night: recompute every promise of the engine from the rows.
    cron(cast(Any, audit), hour=3, minute=10, second=0, timeout=6 * 3600, max_tries=1, keep_result=0),
]
JOBS = [
    # Rung for: what waits in the lane of small networks, or in that of large ones.
    func(cast(Any, take_graph_snapshots), timeout=LANE_TIMEOUT_SECONDS, max_tries=1, keep_result=0),
    # Rung for: runs of the advisor that wait.
    func(cast(Any, advise), timeout=TIMEOUT_SECONDS, max_tries=1, keep_result=0),
    # Rung for: deliveries that somebody asked for again.
    func(cast(Any, deliver_webhooks), timeout=DELIVERING_SECONDS, max_tries=1, keep_result=0),
    # Read in the place of what is no job.
    func(cast(Any, drop_unreadable), name=UNREADABLE, keep_result=0),
]

_CONNECT_SECONDS_MAX: Final = 1.0
_RETRY_SECONDS: Final = 1.0
_REMIND_EVERY: Final = 30


class _Worker(Worker):
    """arq's worker, which would end at an id that isn't text."""

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        readable = []
        for each in job_ids:
            try:
                each.decode()
            except UnicodeDecodeError:
                await self.pool.zrem(self.queue_name, each)
                log.warning("a job whose id can't be read was dropped")
            else:
                readable.append(each)
        await super().start_jobs(readable)


def run() -> None:
    """Run one worker until SIGTERM: it finishes the job it is at. While Valkey is away it waits, and says so."""
    configured = settings()
    keyring()
    logs.configure(configured)
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    stopped = asyncio.Event()
    failures = 0

    async def began() -> None:
        nonlocal failures
        failures = 0
        log.info("the worker has begun")

    while not stopped.is_set():
        try:
            _work(configured, began, stopped)
        except (RedisError, OSError) as error:
            if failures % _REMIND_EVERY == 0:
                log.warning("Valkey is away (%s); jobs wait for it", type(error).__name__)
            failures += 1
            loop.run_until_complete(_pause(stopped))


def _work(configured: Settings, began: Callable[[], Awaitable[None]], stopped: asyncio.Event) -> None:
    """Work until a signal. Raises RedisError or OSError when Valkey doesn't answer, or no longer."""
    stack = AsyncExitStack()

    async def on_startup(ctx: dict[Any, Any]) -> None:
        # What takes one thing after the other on, for minutes, ends early when this worker is to stop.
        ctx["stopping"] = stopped
        await stack.enter_async_context(connected(configured))
        await stack.enter_async_context(ringing(configured.redis_url))
        # What a wrong clock lets expire is gone: jobs that expire things ask first.
        ctx["clocks"] = Watch(this_machine(), ctx["redis"])
        await began()

    async def on_shutdown(_ctx: dict[Any, Any]) -> None:
        await stack.aclose()

    async def on_job_start(ctx: dict[Any, Any]) -> None:
        # A job is a task of its own: whatever it logs names it.
        job_id.set(ctx["job_id"])

    worker = _Worker(
        functions=JOBS,
        cron_jobs=CRON_JOBS,
        redis_pool=queue_at(configured.redis_url or "", socket_connect_timeout=_CONNECT_SECONDS_MAX),
        job_serializer=encode_job,
        job_deserializer=decode_job,
        keep_result=0,
        on_startup=cast(Any, on_startup),
        on_shutdown=cast(Any, on_shutdown),
        on_job_start=cast(Any, on_job_start),
        job_completion_wait=8,
        handle_signals=True,
    )
    worker.on_stop = lambda _signal: stopped.set()
    try:
        worker.run()
    except asyncio.CancelledError:
        # A job didn't end in the time that a signal leaves it; it runs again elsewhere.
        stopped.set()
    finally:
        asyncio.get_event_loop().run_until_complete(stack.aclose())


async def _pause(stopped: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopped.wait(), _RETRY_SECONDS)
    except TimeoutError:
        return
