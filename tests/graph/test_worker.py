"""A real worker. Without these what was asked for could wait for ever, or a missing Valkey look like a success."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from app.database import database
from tests.conftest import run_api
from tests.factories import Shop, open_shop
from tests.graph.documents import JOB, LATEST, TAKE
from tests.referrals.documents import accepted, program

SECONDS_MAX = 60


def _own_valkey() -> str:
    """A database that no other test's worker looks into."""
    url = os.environ["REDIS_URL"]
    return f"{url}{'&' if '?' in url else '?'}db=9"


@contextlib.contextmanager
def _worker(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    log = Path(os.environ["FLASH_DATA"]) / "logs" / f"graph-worker-{os.getpid()}-{time.monotonic_ns()}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "worker"],
            env=os.environ | {"REDIS_URL": url},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _ended(shop: Shop, job_id: str) -> str:
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        status: str = (await shop.data(JOB, {"id": job_id}))["graphSnapshotJob"]["status"]
        if status in {"DONE", "FAILED"}:
            return status
        await asyncio.sleep(0.1)
    raise AssertionError("the job doesn't end")


async def test_a_snapshot_that_is_asked_for_is_taken_by_a_worker(worker_database: str, shop: Shop) -> None:
    url = _own_valkey()
    starting = run_api(worker_database, REDIS_URL=url)
    api = await asyncio.to_thread(starting.__enter__)
    try:
        async with open_shop(f"{api.url}/graphql") as served:
            await program(served)
            hub = await served.member()
            await accepted(served, hub)
            with _worker(url):
                job_id = (await served.data(TAKE))["answer"]["jobId"]
                assert await _ended(served, job_id) == "DONE"
            assert (await served.data(LATEST))["latestGraphSnapshot"]["memberCount"] == 2
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)


async def test_without_valkey_nothing_is_asked_for_and_snapshots_are_still_read(
    worker_database: str, shop: Shop
) -> None:
    starting = run_api(worker_database, REDIS_URL="redis://127.0.0.1:1/0")
    api = await asyncio.to_thread(starting.__enter__)
    try:
        before = await shop.counts()
        code = await shop.error_code(TAKE, url=f"{api.url}/graphql")
        read = await shop.data(LATEST, url=f"{api.url}/graphql")
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)

    assert code == "UNAVAILABLE"
    assert read["latestGraphSnapshot"] is None
    assert await shop.counts() == before


async def test_a_job_is_in_the_lane_of_its_size(shop: Shop) -> None:
    await shop.data(TAKE)

    rows = await database().rows("SELECT is_large FROM graph_job WHERE merchant_id = $1", shop.merchant_id)

    assert [row["is_large"] for row in rows] == [False]
