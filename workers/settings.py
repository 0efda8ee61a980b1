"""The timetable: every job and cron line on one screen."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final, cast

from arq import Worker, cron, func
from arq.cron import CronJob
from redis.exceptions import RedisError

from app.config import Settings, settings
from app.operate.clocks import Watch, this_machine
from app.operate.places import Place, refuse_other_servers
from app.operate.preflight import UnreachableError, check_database
from app.storage.database import connected
from app.storage.doorbell import UNREADABLE, decode_job, encode_job, queue_at
from app.storage.master_keys import keyring
from app.storage.queues import queue_of, worked_on, working
from app.storage.rings import ringing
from app.telemetry import logs
from app.telemetry.observed import job_id
from workers.advise import TIMEOUT_SECONDS, advise, sweep_advice
from workers.audit import audit
from workers.carry_out_jobs import TIMEOUT_SECONDS as CARRYING_OUT_SECONDS
from workers.carry_out_jobs import carry_out_jobs
from workers.deliver_webhooks import TIMEOUT_SECONDS as DELIVERING_SECONDS
from workers.deliver_webhooks import deliver_webhooks, forget_webhook_deliveries
from workers.drop_unreadable import drop_unreadable
from workers.expire_codes import expire_codes
from workers.expire_holds import expire_holds
from workers.expire_invites import expire_invites
from workers.expire_points import expire_points
from workers.fold_stock import fold_stock
from workers.forget_erased import forget_erased
from workers.keep_reports import TIMEOUT_SECONDS as KEEPING_SECONDS
from workers.keep_reports import keep_reports
from workers.log_erasures import log_erasures
from workers.make_partitions import make_partitions
from workers.refresh_segments import refresh_segments
from workers.revive_codes import revive_codes
from workers.seldom import Seldom
from workers.take_graph_snapshots import LANE_TIMEOUT_SECONDS, plan_graph_snapshots, take_graph_snapshots
from workers.watch_stock import watch_stock

log = logging.getLogger("flash.worker")

CRON_JOBS = [
    # Every ten seconds: keep stock cheap to read.
    cron(
        cast(Any, fold_stock), second=set(range(0, 60, 10)), timeout=60, max_tries=1, keep_result=0, run_at_startup=True
    ),
    # Every ten seconds: record stock levels that claims haven't recorded.
    cron(cast(Any, watch_stock), second=set(range(5, 60, 10)), timeout=60, max_tries=1, keep_result=0),
    # Every minute: expire codes whose lifetime is over. Redeeming checks the time itself, so a late run does no harm.
    cron(cast(Any, expire_codes), second=30, timeout=300, max_tries=1, keep_result=0),
    # Every minute: write down which holds have ended. What wants something of one checks the time itself.
    cron(cast(Any, expire_holds), second=0, timeout=300, max_tries=1, keep_result=0),
    # Every minute: revive codes whose pool has a later end, if the ring for them was lost.
    cron(cast(Any, revive_codes), second=10, timeout=300, max_tries=1, keep_result=0),
    # Every minute: let pending points be spent, expire those whose lifetime is over, and warn of those that end soon.
    cron(cast(Any, expire_points), second=45, timeout=300, max_tries=1, keep_result=0),
    # Twice a minute: write erasures to the log outside the database.
    cron(cast(Any, log_erasures), second={25, 55}, timeout=60, max_tries=1, keep_result=0, run_at_startup=True),
    # Every minute: expire invites that didn't convert in time. Accepting and converting check the time themselves.
    cron(cast(Any, expire_invites), second=15, timeout=300, max_tries=1, keep_result=0),
    # Every minute: ask for the network snapshots of merchants whose day has begun, ring for those that wait, and delete
    # old ones.
    cron(cast(Any, plan_graph_snapshots), second=20, timeout=60, max_tries=1, keep_result=0),
    # Every minute: end the advisor's runs that no worker could finish, and ring for those that wait.
    cron(cast(Any, sweep_advice), second=40, timeout=60, max_tries=1, keep_result=0),
    # Every five seconds, in each worker: give turns to jobs, unless the worker is doing so already.
    cron(
        cast(Any, carry_out_jobs),
        second=set(range(3, 60, 5)),
        timeout=CARRYING_OUT_SECONDS,
        max_tries=1,
        keep_result=0,
        unique=False,
    ),
    # Every two seconds, in each worker: send events to webhooks, unless the worker is doing so already.
    cron(
        cast(Any, deliver_webhooks),
        second=set(range(0, 60, 2)),
        timeout=DELIVERING_SECONDS,
        max_tries=1,
        keep_result=0,
        unique=False,
    ),
    # Every minute: delete deliveries that ended long ago.
    cron(cast(Any, forget_webhook_deliveries), second=50, timeout=60, max_tries=1, keep_result=0),
    # Four times a night: work out the segments of merchants that this night hasn't had yet.
    cron(cast(Any, refresh_segments), hour={2, 3, 4, 5}, minute=40, second=0, timeout=3000, max_tries=1, keep_result=0),
    # Every night: forget who was erased longer ago than its merchant remembers. What asks checks the time itself.
    cron(cast(Any, forget_erased), hour=2, minute=20, second=35, timeout=300, max_tries=1, keep_result=0),
    # Every night: make the months to come of events. Those of a month that nobody made have a place, too.
    cron(
        cast(Any, make_partitions),
        hour=1,
        minute=30,
        second=0,
        timeout=60,
        max_tries=1,
        keep_result=0,
        run_at_startup=True,
    ),
    # Every night: look at the constraints that hold the promises.
    cron(cast(Any, audit), hour=3, minute=10, second=0, timeout=300, max_tries=1, keep_result=0),
    # Every minute, in each worker: recompute promises and portfolios, those that were asked for and those that this
    # night hasn't had yet, unless the worker is doing so already.
    cron(cast(Any, keep_reports), second=35, timeout=KEEPING_SECONDS, max_tries=1, keep_result=0, unique=False),
]
JOBS = [
    # Rung for: network snapshots that wait, in the lane of small networks or of large ones.
    func(cast(Any, take_graph_snapshots), timeout=LANE_TIMEOUT_SECONDS, max_tries=1, keep_result=0),
    # Rung for: runs of the advisor that wait.
    func(cast(Any, advise), timeout=TIMEOUT_SECONDS, max_tries=1, keep_result=0),
    # Rung for: codes whose pool has a later end.
    func(cast(Any, revive_codes), timeout=300, max_tries=1, keep_result=0),
    # Rung for: jobs that were just asked for.
    func(cast(Any, carry_out_jobs), timeout=CARRYING_OUT_SECONDS, max_tries=1, keep_result=0),
    # Rung for: deliveries that somebody asked for again.
    func(cast(Any, deliver_webhooks), timeout=DELIVERING_SECONDS, max_tries=1, keep_result=0),
    # Rung for: reports that were just asked for.
    func(cast(Any, keep_reports), timeout=KEEPING_SECONDS, max_tries=1, keep_result=0),
    # What decode_job makes of anything that isn't a job.
    func(cast(Any, drop_unreadable), name=UNREADABLE, keep_result=0),
]

_CONNECT_SECONDS_MAX: Final = 1.0
_RETRY_SECONDS: Final = 1.0
_REMIND_EVERY: Final = 30


def cron_jobs_of(server: str | None) -> list[CronJob]:
    """Return the timetable of a server. Each runs a job once at its time: the job's id is made of this name."""
    if server is None:
        return CRON_JOBS
    return [dataclasses.replace(job, name=f"{job.name}@{server}") for job in CRON_JOBS]


class _Worker(Worker):
    """arq's worker; an id that isn't text would end it."""

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
    """Run a worker until SIGTERM, at which it finishes its jobs. While Valkey is away it waits, and logs that."""
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
        except UnreachableError as error:
            if failures % _REMIND_EVERY == 0:
                log.warning("%s Jobs wait for it.", error)
            failures += 1
            loop.run_until_complete(_pause(stopped))


def _work(configured: Settings, began: Callable[[], Awaitable[None]], stopped: asyncio.Event) -> None:
    """Work until a signal. Raises RedisError or OSError when Valkey doesn't answer.

    Raises UnreachableError when the database doesn't as it begins, and ConfigurationError when it is the wrong one.
    """
    stack = AsyncExitStack()

    async def on_startup(ctx: dict[Any, Any]) -> None:
        # Jobs that go on for minutes end early when it is set.
        ctx["stopping"] = stopped
        identity = await check_database() or ""
        refuse_other_servers(await worked_on(ctx["redis"]), identity, Place.SERVER)
        await stack.enter_async_context(connected(configured))
        await stack.enter_async_context(ringing(configured.redis_url))
        await stack.enter_async_context(working(ctx["redis"], configured.server, identity))
        # Jobs that let anything expire ask it first.
        ctx["clocks"] = Watch(this_machine(), ctx["redis"])
        ctx["seldom"] = Seldom()
        await began()

    async def on_shutdown(_ctx: dict[Any, Any]) -> None:
        await stack.aclose()

    async def on_job_start(ctx: dict[Any, Any]) -> None:
        # A job is a task of its own, so every line that it logs has its id.
        job_id.set(ctx["job_id"])

    worker = _Worker(
        functions=JOBS,
        cron_jobs=cron_jobs_of(configured.server),
        queue_name=queue_of(configured.server),
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
        # A job didn't end in time; it runs again elsewhere.
        stopped.set()
    finally:
        asyncio.get_event_loop().run_until_complete(stack.aclose())


async def _pause(stopped: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stopped.wait(), _RETRY_SECONDS)
    except TimeoutError:
        return
