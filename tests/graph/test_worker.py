"""A real worker. Without these what was asked for could wait for ever, or a missing Valkey look like a success."""

import asyncio
import time

from app.storage.database import database
from tests.conftest import own_valkey, run_api, run_worker
from tests.factories import Shop, open_shop
from tests.graph.documents import JOB, LATEST, TAKE
from tests.referrals.documents import accepted, program

SECONDS_MAX = 60


async def _ended(shop: Shop, job_id: str) -> str:
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        status: str = (await shop.data(JOB, {"id": job_id}))["graphSnapshotJob"]["status"]
        if status in {"DONE", "FAILED"}:
            return status
        await asyncio.sleep(0.1)
    raise AssertionError("the job doesn't end")


async def test_a_snapshot_that_is_asked_for_is_taken_by_a_worker(worker_database: str, shop: Shop) -> None:
    url = own_valkey(9)
    starting = run_api(worker_database, REDIS_URL=url)
    api = await asyncio.to_thread(starting.__enter__)
    try:
        async with open_shop(f"{api.url}/graphql") as served:
            await program(served)
            hub = await served.member()
            await accepted(served, hub)
            with run_worker(url):
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
        before = await shop.state()
        code = await shop.error_code(TAKE, url=f"{api.url}/graphql")
        read = await shop.data(LATEST, url=f"{api.url}/graphql")
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)

    assert code == "UNAVAILABLE"
    assert read["latestGraphSnapshot"] is None
    assert await shop.state() == before


async def test_a_job_is_in_the_lane_of_its_size(shop: Shop) -> None:
    await shop.data(TAKE)

    rows = await database().rows("SELECT is_large FROM graph_job WHERE merchant_id = $1", shop.merchant_id)

    assert [row["is_large"] for row in rows] == [False]
