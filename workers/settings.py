"""The timetable: every job and cron line on one screen."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from typing import Any, cast

from arq import Worker, cron
from arq.connections import RedisSettings

from app.config import settings
from app.database import connected
from app.merchants.data_keys import keyring
from workers.fold_stock import fold_stock

CRON_JOBS = [
    # Every ten seconds: keep reading stock cheap.
    cron(
        cast(Any, fold_stock), second=set(range(0, 60, 10)), timeout=60, max_tries=1, keep_result=0, run_at_startup=True
    ),
]


def run() -> None:
    """Run one worker until SIGTERM: it finishes the job it is at."""
    configured = settings()
    keyring()
    logging.basicConfig(
        stream=sys.stderr,
        level=configured.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    stack = AsyncExitStack()

    async def on_startup(_ctx: dict[Any, Any]) -> None:
        await stack.enter_async_context(connected(configured))

    async def on_shutdown(_ctx: dict[Any, Any]) -> None:
        await stack.aclose()

    asyncio.set_event_loop(asyncio.new_event_loop())
    worker = Worker(
        functions=[],
        cron_jobs=CRON_JOBS,
        redis_settings=_redis(configured.redis_url or ""),
        on_startup=cast(Any, on_startup),
        on_shutdown=cast(Any, on_shutdown),
        job_completion_wait=8,
        handle_signals=True,
    )
    worker.run()


def _redis(url: str) -> RedisSettings:
    redis = RedisSettings.from_dsn(url)
    redis.conn_retries = 30
    return redis
