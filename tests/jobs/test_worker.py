"""Real workers. Without these what was asked for could wait for ever, or a worker that dies take a job along."""

import asyncio
import time
from typing import Any

from tests.conftest import own_valkey, run_api, run_worker
from tests.factories import Shop, open_shop
from tests.jobs.documents import FILL, job_row, look_again, progress
from tests.sizes import size

CODES = size(12_000, 60_000)
SECONDS_MAX = 120


async def _until(shop: Shop, job: Any, done: int) -> Any:
    """Wait until so much of a job is done, and return the job."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        found = await job_row(shop, job)
        if found["done"] >= done:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("the job doesn't go on")


async def test_a_job_outlives_a_worker_that_is_killed(worker_database: str, shop: Shop) -> None:
    url = own_valkey(6)
    starting = run_api(worker_database, REDIS_URL=url)
    api = await asyncio.to_thread(starting.__enter__)
    try:
        async with open_shop(f"{api.url}/graphql") as served:
            pool = await served.pool(codes=0, active=False)
            with run_worker(url) as worker:
                job = (await served.do(FILL, poolId=pool["id"], available=CODES, idempotencyKey="fill"))["job"]
                await _until(served, job, 1)
                worker.kill()
            await look_again(served)
            with run_worker(url):
                ended = await _until(served, job, CODES)
            assert progress(ended) == {"status": "DONE", "total": CODES, "done": CODES, "failed": 0}
            assert (await served.stock(pool))["available"] == CODES
            assert await served.broken_promises() == []
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
