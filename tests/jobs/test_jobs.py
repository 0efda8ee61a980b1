"""jobs, cancelJob and turns. Without these a job could be done twice, never end, or keep all others waiting."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app.coupons import fill_pool
from app.jobs import turns
from app.jobs.turns import TurnRow
from app.storage.database import database
from tests.factories import Shop
from tests.jobs.documents import CANCEL, FILL, JOBS, carried_out, job_row, progress

NOBODY = "job_0123456789abcdef0123456789abcdef"
ATTEMPTS = "SELECT attempts, status FROM bulk_job WHERE merchant_id = $1"


async def asked(shop: Shop, key: str = "fill", available: int = 3) -> Any:
    """Ask for a pool to be filled."""
    pool = await shop.pool(codes=0, active=False)
    return (await shop.do(FILL, poolId=pool["id"], available=available, idempotencyKey=key))["job"]


async def listed(shop: Shop, **how: Any) -> list[Any]:
    return [edge["node"] for edge in (await shop.data(JOBS, how))["jobs"]["edges"]]


async def test_jobs_are_listed_newest_first_and_by_status(shop: Shop) -> None:
    done = await asked(shop, "first")
    done = await carried_out(shop, done)
    queued = await asked(shop, "second")

    assert await listed(shop) == [queued, done]
    assert await listed(shop, status="QUEUED") == [queued]
    assert await listed(shop, status="DONE") == [done]
    first = await shop.data(JOBS, {"first": 1})
    assert first["jobs"]["pageInfo"]["hasNextPage"] is True
    after = first["jobs"]["pageInfo"]["endCursor"]
    assert await listed(shop, first=1, after=after) == [done]


async def test_admins_and_analysts_read_jobs_and_nobody_else(shop: Shop, other_shop: Shop) -> None:
    job = await asked(shop)
    node = "query ($id: ID!) { node(id: $id) { id } }"

    for role in ("ADMIN", "ANALYST"):
        key = await shop.key(role)
        assert (await shop.data(node, {"id": job["id"]}, key=key))["node"] == {"id": job["id"]}
        assert len((await shop.data(JOBS, key=key))["jobs"]["edges"]) == 1
    for role in ("CHECKOUT", "SUPPORT"):
        key = await shop.key(role)
        assert (await shop.data(node, {"id": job["id"]}, key=key))["node"] is None
        assert await shop.error_code(JOBS, key=key) == "FORBIDDEN"
    assert (await other_shop.data(node, {"id": job["id"]}))["node"] is None
    assert await listed(other_shop) == []


async def test_a_cancelled_job_goes_no_further_and_is_answered_as_it_is(shop: Shop) -> None:
    job = await asked(shop)

    cancelled = (await shop.data(CANCEL, {"input": job["id"]}))["answer"]["job"]
    before = await shop.state()
    again = (await shop.data(CANCEL, {"input": job["id"]}))["answer"]["job"]
    carried = await carried_out(shop, job)

    assert progress(cancelled) == {"status": "CANCELLED", "total": 3, "done": 0, "failed": 0}
    assert cancelled["finishedAt"] is not None
    assert cancelled == again == carried
    assert await shop.state() == before
    assert (await shop.event_types())[-1] == "job.cancelled"
    assert await shop.count("code") == 0
    assert await shop.broken_promises() == []


async def test_a_job_that_is_done_is_not_cancelled(shop: Shop) -> None:
    done = await carried_out(shop, await asked(shop))
    before = await shop.state()

    answer = await shop.data(CANCEL, {"input": done["id"]})

    assert answer["answer"]["job"] == done
    assert done["status"] == "DONE"
    assert await shop.state() == before


async def test_a_job_of_another_merchant_is_not_found(shop: Shop, other_shop: Shop) -> None:
    job = await asked(other_shop)
    before = await other_shop.state()

    for job_id in (job["id"], NOBODY, "nothing", job["id"].replace("job", "pool")):
        refused = await shop.refused(CANCEL, whole=job_id)
        assert (refused["__typename"], refused["id"]) == ("NotFound", job_id)
    assert await other_shop.state() == before


async def test_cancelling_waits_for_the_batch_that_is_under_way(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_pool, "BATCH_SIZE_MAX", 1)
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    job = await asked(shop, available=1000)
    running = asyncio.create_task(carried_out(shop, job))
    while (await job_row(shop, job))["done"] == 0:
        pass

    cancelled = (await shop.data(CANCEL, {"input": job["id"]}))["answer"]["job"]
    await running

    assert cancelled["status"] == "CANCELLED"
    assert await job_row(shop, job) == cancelled
    assert await shop.count("code") == cancelled["done"] > 0


async def test_merchants_take_turns_however_many_jobs_one_has(
    shop: Shop, other_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await asked(shop, f"fill {number}", available=2)
    await asked(other_shop, available=3)
    monkeypatch.setattr(fill_pool, "BATCH_SIZE_MAX", 1)
    monkeypatch.setattr(turns, "TURN_SECONDS", 0)
    names = {shop.merchant_id: "many", other_shop.merchant_id: "one"}
    seen: list[str] = []

    async def noted(job: TurnRow) -> bool:
        seen.append(names[job["merchant_id"]])
        return await fill_pool.fill_batch(job)

    await turns.carry_out({"FILL": noted}, seconds_max=30)

    assert seen[:6] == ["many", "one"] * 3
    assert seen.count("one") == 3
    assert {job["status"] for each in (shop, other_shop) for job in await listed(each)} == {"DONE"}


async def test_a_merchants_jobs_run_one_by_one(shop: Shop) -> None:
    jobs = [await asked(shop, f"fill {number}", available=1) for number in range(4)]
    at_once = most = 0

    async def noted(job: TurnRow) -> bool:
        nonlocal at_once, most
        if job["merchant_id"] != shop.merchant_id:
            return False
        at_once += 1
        most = max(most, at_once)
        try:
            return await fill_pool.fill_batch(job)
        finally:
            at_once -= 1

    while {job["status"] for job in await listed(shop)} != {"DONE"}:
        await asyncio.gather(*(turns.carry_out({"FILL": noted}, seconds_max=30) for _ in range(3)))

    assert most == 1
    assert [(await job_row(shop, job))["done"] for job in jobs] == [1, 1, 1, 1]


async def test_a_job_that_brings_no_worker_further_is_given_up(shop: Shop) -> None:
    job = await asked(shop)

    async def broken(_: TurnRow) -> bool:
        raise ValueError("it never works")

    for _ in range(turns.ATTEMPTS_MAX + 1):
        await turns.carry_out({"FILL": broken}, seconds_max=30)
        await database().rows("UPDATE bulk_job SET lease_until = now() WHERE merchant_id = $1", shop.merchant_id)
    await turns.carry_out({"FILL": broken}, seconds_max=30)

    failed = await job_row(shop, job)
    assert progress(failed) == {"status": "FAILED", "total": 3, "done": 0, "failed": 0}
    assert failed["problem"] == "It failed again and again; the logs of the workers say why."
    assert (await shop.event_types())[-1] == "job.failed"
    assert await shop.broken_promises() == []


async def test_a_batch_that_fails_is_tried_again_later(shop: Shop) -> None:
    job = await asked(shop)

    async def broken(_: TurnRow) -> bool:
        raise ValueError("it doesn't work now")

    await turns.carry_out({"FILL": broken}, seconds_max=30)
    assert dict((await database().rows(ATTEMPTS, shop.merchant_id))[0]) == {"attempts": 1, "status": "QUEUED"}

    assert progress(await carried_out(shop, job)) == {"status": "DONE", "total": 3, "done": 3, "failed": 0}
    assert dict((await database().rows(ATTEMPTS, shop.merchant_id))[0]) == {"attempts": 0, "status": "DONE"}


async def test_what_a_worker_does_not_know_yet_waits_for_another(shop: Shop) -> None:
    await asked(shop)
    before = await shop.state()

    assert await turns.carry_out({}, seconds_max=30) == 0

    assert await shop.state() == before


@pytest.mark.parametrize(
    ("constraint", "change"),
    [
        ("bulk_job_guard", "status = 'RUNNING', finished_at = NULL"),
        ("bulk_job_guard", "total = total"),
        ("bulk_job_whole", "status = 'DONE', total = total + 1"),
        ("bulk_job_ended", "finished_at = NULL, status = status"),
    ],
)
async def test_a_job_that_ended_stays_as_it_is(shop: Shop, constraint: str, change: str) -> None:
    await carried_out(shop, await asked(shop))

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().rows(f"UPDATE bulk_job SET {change} WHERE merchant_id = $1", shop.merchant_id)

    assert violation.value.constraint_name == constraint


async def test_a_job_never_waits_in_the_queue_again(shop: Shop) -> None:
    job = await asked(shop)
    await database().rows("UPDATE bulk_job SET status = 'RUNNING' WHERE merchant_id = $1", shop.merchant_id)

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().rows("UPDATE bulk_job SET status = 'QUEUED' WHERE merchant_id = $1", shop.merchant_id)

    assert violation.value.constraint_name == "bulk_job_guard"
    assert (await job_row(shop, job))["status"] == "RUNNING"
