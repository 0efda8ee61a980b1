"""Jobs against workers, cancellations and what they change. Without these a page could be done twice, or half."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from app.coupons.carry_out import carry_out_jobs
from app.coupons.fill_pool import fill_batch
from app.jobs import turns
from app.storage.database import database, dsn
from tests.conftest import Api, own_valkey, run_api, run_worker
from tests.coupons.test_discard_pool import DISCARD
from tests.coupons.test_revoke_codes import asked, stock
from tests.factories import CHANGE_STATUS, CLAIM_CODE, GENERATE_CODES, REDEEM_CODES, Shop, open_shop, usd
from tests.jobs.documents import CANCEL, FILL, carried_out, job_row, look_again, paged, progress
from tests.races.storm import SECONDS_MAX, Processes, at_once, members
from tests.sizes import size

ROUNDS = size(3, 20)
WAITERS = """
WITH RECURSIVE waiter (pid) AS (
    SELECT pg_backend_pid()
    UNION
    SELECT l.pid FROM pg_locks l JOIN waiter ON waiter.pid = ANY(pg_blocking_pids(l.pid)) WHERE NOT l.granted
)
SELECT pid FROM waiter WHERE pid <> pg_backend_pid()
"""
HOLD_POOL = "SELECT FROM pool WHERE merchant_id = $1 FOR NO KEY UPDATE"
LOCK_CODES = "SELECT FROM code WHERE merchant_id = $1 FOR UPDATE"
LOCK_SOME = """
SELECT FROM code WHERE merchant_id = $1 AND id = ANY(
    SELECT unnest(ids) FROM bulk_job_page WHERE merchant_id = $1 AND number = $2
) FOR UPDATE
"""
PAGES = "SELECT number FROM bulk_job_page WHERE merchant_id = $1 ORDER BY number"
ENDS = """
SELECT type, count(*) AS times FROM event WHERE merchant_id = $1 AND type LIKE 'job.%' AND type <> 'job.requested'
GROUP BY type
"""
GAPS = """
SELECT w.member_id FROM wallet w WHERE w.merchant_id = $1 AND w.version <> (
    SELECT count(*) FROM event e WHERE e.merchant_id = $1 AND e.member_id = w.member_id
)
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def cancel(shop: Shop, job: Any, **how: Any) -> Any:
    """Call a job off, and return it as it was answered."""
    return (await shop.data(CANCEL, {"input": job["id"]}, **how))["answer"]["job"]


async def ends(shop: Shop) -> dict[str, int]:
    """Return how often the shop's jobs ended, by how."""
    return {row["type"]: row["times"] for row in await database().rows(ENDS, shop.merchant_id)}


async def two_workers(shop: Shop, job: Any) -> None:
    """Let two workers do what can be done, each batch a turn of its own."""
    while (await job_row(shop, job))["finishedAt"] is None:
        await asyncio.gather(*(carry_out_jobs(seconds_max=30) for _ in range(2)))


@asynccontextmanager
async def another_session(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Open a transaction of its own: what the block starts isn't part of it."""
    connection = await asyncpg.connect(dsn(url))
    await connection.execute("BEGIN")
    try:
        yield connection
    finally:
        connection.terminate()


async def until_so_many_wait(session: "asyncpg.Connection[Any]", count: int) -> None:
    """Wait until so many others wait for a session, or for one that does."""
    deadline = time.monotonic() + SECONDS_MAX
    while len(await session.fetch(WAITERS)) < count:
        assert time.monotonic() < deadline, "nobody waits"
        await asyncio.sleep(0.01)


async def test_a_job_that_is_cancelled_under_two_workers_has_done_whole_pages(
    shop: Shop, processes: Processes, second_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims and redemptions meet it: each code is spent, revoked or neither, once."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    for number in range(ROUNDS):
        pool = await shop.pool(codes=24)
        people = await members(shop, 12)
        codes = [await shop.claim(pool, {"id": member}) for member in people[:8]]
        job = await asked(shop, pool, f"leaked {number}")
        assert await paged(shop, 3) == [3] * 8
        claimed = await shop.stock(pool)

        async def cancelled(job: Any = job, pages: int = 2 * (number % 4) + 1) -> Any:
            while (found := await job_row(shop, job))["done"] + found["failed"] < 3 * pages:
                pass
            return await cancel(shop, job, url=f"{second_api.url}/graphql")

        told, _, spent, more = await asyncio.gather(
            cancelled(),
            two_workers(shop, job),
            at_once(
                processes.do(REDEEM_CODES, codes=[code["text"]], orderId=code["id"], orderAmount=usd(500),
                             memberId=member)
                for code, member in zip(codes[:4], people, strict=False)
            ),
            at_once(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in people[8:]),
        )  # fmt: skip

        assert told == await job_row(shop, job) == await carried_out(shop, job)
        assert told["status"] in {"CANCELLED", "DONE"}
        assert (told["done"] + told["failed"]) % 3 == 0
        assert (told["status"] == "DONE") == (told["done"] + told["failed"] == 24)
        redeemed = sum(answer["__typename"] == "RedeemCodesSuccess" for answer in spent)
        got = sum(answer["__typename"] == "ClaimCodeSuccess" for answer in more)
        found = await shop.stock(pool)
        assert (found["revoked"], found["redeemed"]) == (told["done"], redeemed)
        assert told["failed"] <= redeemed
        assert found["available"] + found["allocated"] == 24 - redeemed - told["done"]
        assert claimed["allocated"] == 8
        assert got <= 4
        assert await shop.count("bulk_job_page") == 0
    assert await database().rows(GAPS, shop.merchant_id) == []
    assert sum((await ends(shop)).values()) == ROUNDS


async def test_a_job_that_is_cancelled_during_its_last_page_is_done(
    shop: Shop, second_api: Api, worker_database: str
) -> None:
    pool = await shop.pool(codes=4)
    job = await asked(shop, pool)

    async with another_session(worker_database) as session:
        await session.execute(LOCK_CODES.replace("$1", f"'{shop.merchant_id}'"))
        worker = asyncio.create_task(carry_out_jobs(seconds_max=30))
        await until_so_many_wait(session, 1)
        cancelling = asyncio.create_task(cancel(shop, job, url=f"{second_api.url}/graphql"))
        await until_so_many_wait(session, 2)
    told = await cancelling
    await worker

    assert progress(told) == {"status": "DONE", "total": 4, "done": 4, "failed": 0}
    assert await ends(shop) == {"job.finished": 1}
    assert await stock(shop, pool) == {"revoked": 4}


async def test_what_a_worker_had_under_way_when_it_was_killed_is_not_done(worker_database: str) -> None:
    """Its server process doesn't notice at once. Another worker and a cancellation meet it: each page is done once."""
    url = own_valkey(7)
    starting = run_api(worker_database, REDIS_URL=url)
    api = await asyncio.to_thread(starting.__enter__)
    try:
        async with open_shop(f"{api.url}/graphql") as shop:
            pool = await shop.pool(codes=24)
            for member in await members(shop, 6):
                await shop.claim(pool, {"id": member})
            job = await asked(shop, pool)
            assert await paged(shop, 4) == [4] * 6
            third = (await database().rows(PAGES, shop.merchant_id))[2]["number"]
            async with another_session(worker_database) as session:
                await session.fetch(LOCK_SOME, shop.merchant_id, third)
                with run_worker(url) as worker:
                    await until_so_many_wait(session, 1)
                    assert (await job_row(shop, job))["done"] == 8
                    worker.kill()
                    worker.wait()
            await look_again(shop)
            await asyncio.gather(two_workers(shop, job), cancel(shop, job))

            ended = await job_row(shop, job)
            assert ended["status"] in {"CANCELLED", "DONE"}
            assert ended["done"] in range(8, 25, 4)
            assert (ended["status"] == "DONE") == (ended["done"] == 24)
            assert (await shop.stock(pool))["revoked"] == ended["done"]
            assert await shop.count("bulk_job_page") == 0
            assert await database().rows(GAPS, shop.merchant_id) == []
            assert await shop.broken_promises() == []
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)


async def test_a_pool_is_filled_exactly_whatever_else_takes_or_brings_codes(shop: Shop, processes: Processes) -> None:
    for number in range(ROUNDS):
        pool = await shop.pool(codes=6)
        people = await members(shop, 8)
        job = (await shop.do(FILL, poolId=pool["id"], available=20, idempotencyKey=f"fill {number}"))["job"]

        async def pausing(pool: Any = pool, key: str = f"more {number}") -> list[Any]:
            paused = await processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"], scope="ISSUING")
            await look_again(shop)
            made = await processes.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey=key)
            return [paused, made]

        claims, (_, made), *_ = await asyncio.gather(
            at_once(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in people),
            pausing(),
            *(carry_out_jobs(seconds_max=30) for _ in range(2)),
        )
        ended = await carried_out(shop, job)

        got = sum(answer["__typename"] == "ClaimCodeSuccess" for answer in claims)
        found = await shop.stock(pool)
        assert made["__typename"] == "GenerateCodesSuccess"
        assert progress(ended) == {"status": "DONE", "total": ended["done"], "done": ended["done"], "failed": 0}
        # The five come before what the job counts, or after it; so do claims that found the pool open.
        assert 20 - got <= found["available"] <= 25
        assert found["available"] + got == 6 + 5 + ended["done"]
    assert await ends(shop) == {"job.finished": ROUNDS}


async def test_what_is_claimed_while_codes_are_made_is_made_with_the_same_batch(
    shop: Shop, worker_database: str
) -> None:
    pool, people = await shop.pool(codes=5), await members(shop, 2)
    job = (await shop.do(FILL, poolId=pool["id"], available=6, idempotencyKey="fill"))["job"]
    turn = await database().row(turns.TAKE, kinds=["FILL"])
    assert turn is not None
    async with another_session(worker_database) as holding:
        await holding.execute(HOLD_POOL, shop.merchant_id)
        pausing = asyncio.create_task(shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"]))
        await until_so_many_wait(holding, 1)
        # It has counted, and waits for whoever pauses the pool.
        filling = asyncio.create_task(fill_batch(turn))
        await until_so_many_wait(holding, 2)
        for member in people:
            await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
        await holding.execute("COMMIT")
        await pausing
        can_go_on = await filling

    assert can_go_on is False
    assert progress(await job_row(shop, job)) == {"status": "DONE", "total": 3, "done": 3, "failed": 0}
    assert (await shop.stock(pool))["available"] == 6
    assert await shop.broken_promises() == []


async def test_a_draft_that_is_discarded_while_it_is_filled_is_gone_with_its_job(
    shop: Shop, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.coupons.fill_pool.BATCH_SIZE_MAX", 10)
    for number in range(ROUNDS):
        pool = await shop.pool(codes=5, active=False)
        job = (await shop.do(FILL, poolId=pool["id"], available=300, idempotencyKey=f"fill {number}"))["job"]

        async def discarded(pool: Any = pool, job: Any = job) -> Any:
            while (await job_row(shop, job))["done"] == 0:
                pass
            return await processes.do(DISCARD, poolId=pool["id"])

        gone, _ = await asyncio.gather(discarded(), carry_out_jobs(seconds_max=30))

        assert gone["__typename"] == "DiscardPoolSuccess"
        ended = await job_row(shop, job)
        # It doesn't make again what is deleted.
        assert ended["status"] in {"CANCELLED", "DONE"}
        assert 0 < ended["done"] <= 300
    assert await shop.count("code") == await shop.count("pool") == 0


async def test_a_worker_that_falls_silent_as_it_looks_for_a_turn_keeps_nobody_from_looking(
    shop: Shop, worker_database: str
) -> None:
    pool = await shop.pool(codes=2)
    job = await asked(shop, pool)

    async with another_session(worker_database) as frozen:
        await frozen.fetch(turns.LOOK.text, *turns.LOOK.arguments({"silent_ms": "300"}))
        # PostgreSQL ends what is silent for so long, and with it the lock.
        await carry_out_jobs(seconds_max=30)

        assert progress(await job_row(shop, job))["status"] == "DONE"
        assert frozen.is_closed()
