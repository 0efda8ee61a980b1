"""fillPool. Without these a pool could get too few codes, too many, or some while it is sold from."""

import asyncio
from typing import Any

import pytest

from app.coupons import fill_pool
from app.coupons.carry_out import carry_out_jobs
from app.jobs import turns
from app.storage.database import database
from tests.coupons.test_discard_pool import DISCARD
from tests.factories import CHANGE_STATUS, GENERATE_CODES, Shop, problems
from tests.jobs.documents import FILL, carried_out, job_row, killed_everywhere, progress

NOWHERE = "pool_0123456789abcdef0123456789abcdef"
SIZES = "SELECT size FROM code_batch WHERE merchant_id = $1 ORDER BY id"


async def filling(shop: Shop, pool: Any, available: int, key: str = "fill") -> Any:
    """Ask for a pool to be filled, and return the job."""
    return (await shop.do(FILL, poolId=pool["id"], available=available, idempotencyKey=key))["job"]


async def sizes(shop: Shop) -> list[int]:
    """Return the sizes of the batches, oldest first."""
    return [row["size"] for row in await database().rows(SIZES, shop.merchant_id)]


async def available(shop: Shop, pool: Any) -> int:
    return (await shop.stock(pool))["available"]


async def test_a_job_makes_what_is_missing(shop: Shop) -> None:
    pool = await shop.pool(codes=3, active=False)
    before = await shop.state()

    answer = await shop.do(FILL, poolId=pool["id"], available=10, idempotencyKey="fill")

    asked = answer["job"]
    assert answer["replayed"] is False
    assert asked | {"id": "", "createdAt": ""} == {
        "id": "", "kind": "FILL", "status": "QUEUED", "total": 7, "done": 0, "failed": 0, "skipped": [],
        "problem": None, "createdAt": "", "finishedAt": None,
    }  # fmt: skip
    assert asked["id"].startswith("job_")
    assert (await shop.state()).since(before) == {"bulk_job": 1, "event": 1}

    done = await carried_out(shop, asked)

    assert progress(done) == {"status": "DONE", "total": 7, "done": 7, "failed": 0}
    assert done["finishedAt"] is not None
    assert (await shop.state()).since(before) == {
        "bulk_job": 1,
        "code_batch": 1,
        "code": 7,
        "stock_change": 1,
        "event": 3,
    }
    assert (await shop.event_types())[-3:] == ["job.requested", "codes.generated", "job.finished"]
    assert await available(shop, pool) == 10
    assert await shop.broken_promises() == []


async def test_batches_are_as_large_as_one_may_be(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_pool, "BATCH_SIZE_MAX", 4)
    pool = await shop.pool(codes=0, active=False)

    done = await carried_out(shop, await filling(shop, pool, 10))

    assert progress(done) == {"status": "DONE", "total": 10, "done": 10, "failed": 0}
    assert await sizes(shop) == [4, 4, 2]
    read = await shop.data(
        "query ($id: ID!) { pool(id: $id) { batches { edges { node { size } } } } }", {"id": pool["id"]}
    )
    assert [edge["node"]["size"] for edge in read["pool"]["batches"]["edges"]] == [2, 4, 4]


async def test_whatever_kills_the_workers_the_pool_has_as_many_codes_as_were_asked_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_pool, "BATCH_SIZE_MAX", 3)
    pool = await shop.pool(codes=0, active=False)
    job = await filling(shop, pool, 10)

    assert await killed_everywhere(shop, job, monkeypatch) == 4

    assert progress(await job_row(shop, job)) == {"status": "DONE", "total": 10, "done": 10, "failed": 0}
    assert await sizes(shop) == [3, 3, 3, 1]
    assert await shop.broken_promises() == []


async def test_workers_at_once_make_no_more(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_pool, "BATCH_SIZE_MAX", 2)
    pool = await shop.pool(codes=0, active=False)
    jobs = [await filling(shop, pool, 21, key) for key in ("one", "two")]
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=5)

    job = await database().row(turns.TAKE, kinds=["FILL"])
    # As if a lease had ended too early: all of these have the same job.
    await asyncio.gather(*(_until_done(job) for _ in range(3)), carry_out_jobs(seconds_max=30))
    ended = [await carried_out(shop, job) for job in jobs]

    assert await available(shop, pool) == 21
    assert sum(job["done"] for job in ended) == 16
    assert {job["status"] for job in ended} == {"DONE"}
    assert await shop.broken_promises() == []


async def _until_done(job: Any) -> None:
    while await fill_pool.fill_batch(job):
        pass


async def test_a_pool_that_is_sold_from_is_filled_once_it_is_paused(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    job = await filling(shop, pool, 5)

    waiting = await carried_out(shop, job)
    assert progress(waiting) == {"status": "WAITING", "total": 3, "done": 0, "failed": 0}
    assert waiting["problem"] == "The pool is ACTIVE; it takes codes while it is PAUSED."
    assert await sizes(shop) == [2]

    await shop.claim(pool, await shop.member())
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    done = await carried_out(shop, job)
    assert progress(done) == {"status": "DONE", "total": 4, "done": 4, "failed": 0}
    assert done["problem"] is None
    assert await available(shop, pool) == 5


async def test_a_pool_that_is_archived_fails_its_job(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    job = await filling(shop, pool, 5)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    failed = await carried_out(shop, job)

    assert progress(failed) == {"status": "FAILED", "total": 3, "done": 0, "failed": 0}
    assert failed["problem"] == "The pool is ARCHIVED; it takes no codes any more."
    assert (await shop.event_types())[-1] == "job.failed"


async def test_a_pool_that_has_enough_is_done_at_once(shop: Shop) -> None:
    done = await carried_out(shop, await filling(shop, await shop.pool(codes=5), 5))

    assert progress(done) == {"status": "DONE", "total": 0, "done": 0, "failed": 0}


async def test_a_draft_that_is_discarded_takes_its_job_along(shop: Shop) -> None:
    pool = await shop.pool(codes=1, active=False)
    done = await carried_out(shop, await filling(shop, pool, 2, "first"))
    job = await filling(shop, pool, 5)

    await shop.do(DISCARD, poolId=pool["id"])

    assert progress(await carried_out(shop, job)) == {"status": "CANCELLED", "total": 3, "done": 0, "failed": 0}
    assert await job_row(shop, done) == done
    told = (await shop.event_types())[-4:]
    # Before anything is deleted, which the job would make again.
    assert told == ["job.cancelled", "codes.discarded", "codes.discarded", "pool.discarded"]
    assert await shop.broken_promises() == []


async def test_codes_have_the_pools_pattern(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False, codePattern="FAIR-####-####-####")
    await carried_out(shop, await filling(shop, pool, 2))
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    assert (await shop.claim(pool, await shop.member()))["masked"].startswith("••••")


async def test_the_same_key_is_the_same_job(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    job = await filling(shop, pool, 5)
    before = await shop.state()

    again = await shop.do(FILL, poolId=pool["id"], available=5, idempotencyKey="fill")
    assert again == {"__typename": "FillPoolSuccess", "replayed": True, "job": job}
    assert await shop.state() == before
    for other in ({"available": 6}, {"poolId": (await shop.pool())["id"]}):
        refused = await shop.refused(FILL, **({"poolId": pool["id"], "available": 5, "idempotencyKey": "fill"} | other))
        assert refused["__typename"] == "IdempotencyKeyReused"

    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])
    assert (await shop.do(FILL, poolId=pool["id"], available=5, idempotencyKey="fill"))["replayed"] is True


async def test_refusals(shop: Shop, other_shop: Shop) -> None:
    pool = await shop.pool()
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])
    for number in (0, -1, 1_000_001):
        refused = await shop.refused(FILL, poolId=pool["id"], available=number, idempotencyKey=" ")
        assert problems(refused) == {
            "available": "must be between 1 and 1000000", "idempotencyKey": "must not be blank"
        }  # fmt: skip
    for missing in (NOWHERE, (await other_shop.pool())["id"]):
        refused = await shop.refused(FILL, poolId=missing, available=1, idempotencyKey="fill")
        assert refused["__typename"] == "NotFound"
    refused = await shop.refused(FILL, poolId=pool["id"], available=1, idempotencyKey="fill")
    assert (refused["__typename"], refused["status"]) == ("PoolNotEditable", "ARCHIVED")
