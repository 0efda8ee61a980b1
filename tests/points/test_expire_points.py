"""Expiry. Without these points could outlive their lifetime, or a member lose points that had not ended."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.points.expire_points import expire_points, expire_points_of, warn_of_expiry
from app.points.ledger import lock_wallet
from app.storage.database import database, transaction
from tests.factories import Shop
from tests.points.documents import (
    CONFIGURE,
    REVERSE_REWARD,
    age,
    broken,
    days_later,
    end,
    entries,
    grant,
    member_uuid,
    points,
    purchase,
    redeem,
    reward,
)
from workers.expire_points import expire_points as expire_points_job
from workers.settings import CRON_JOBS

OPEN = """
SELECT remaining FROM points_lot WHERE merchant_id = $1 AND member_id = $2 AND is_open ORDER BY created_at
"""


class _Trusting:
    async def trusts(self) -> bool:
        return True


async def left(shop: Shop, member: Any) -> list[int]:
    """Return what is left of a member's credits that have something left, the oldest first."""
    return [row["remaining"] for row in await database().rows(OPEN, shop.merchant_id, member_uuid(member))]


@pytest.fixture
async def member(shop: Shop) -> Any:
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    return await shop.member()


async def test_points_have_the_lifetime_that_the_merchant_set_when_they_came(shop: Shop) -> None:
    member = await shop.member()
    for_ever = (await grant(shop, member, 10, "for ever"))["entry"]
    await shop.do(CONFIGURE, pointsLifetimeDays=30)

    month = (await purchase(shop, member, "month"))["entry"]
    spent = (await grant(shop, member, -1, "spent"))["entry"]

    assert for_ever["expiresAt"] is spent["expiresAt"] is None
    created, expires = (datetime.fromisoformat(month[name]) for name in ("createdAt", "expiresAt"))
    assert timedelta(0) <= created - (expires - timedelta(days=30)) < timedelta(minutes=1)


async def test_what_is_left_expires_and_the_wallet_says_so(shop: Shop, member: Any) -> None:
    await grant(shop, member, 100, "in")
    await grant(shop, member, -30, "out")

    await days_later(shop, member, 29.9)
    assert await points(shop, member) == 70
    await days_later(shop, member, 0.2)

    assert await entries(shop, member) == [
        (100, 100, "ADJUSTMENT"), (-30, 70, "ADJUSTMENT"), (-70, 0, "EXPIRY")
    ]  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2, 3]
    assert await left(shop, member) == []
    assert await broken(shop) == []


async def test_the_oldest_points_are_spent_first(shop: Shop, member: Any) -> None:
    await grant(shop, member, 100, "old")
    await days_later(shop, member, 20)
    await grant(shop, member, 50, "new")
    await grant(shop, member, -80, "out")

    await days_later(shop, member, 11)
    assert (await entries(shop, member))[3:] == [(-20, 50, "EXPIRY")]
    await days_later(shop, member, 20)

    assert (await entries(shop, member))[4:] == [(-50, 0, "EXPIRY")]


async def test_points_without_a_lifetime_stay_and_are_spent_last(shop: Shop, member: Any) -> None:
    await shop.do(CONFIGURE, pointsLifetimeDays=None)
    await grant(shop, member, 100, "for ever")
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    await grant(shop, member, 50, "month")
    await grant(shop, member, -40, "out")

    await days_later(shop, member, 31)

    assert (await entries(shop, member))[3:] == [(-10, 100, "EXPIRY")]
    await days_later(shop, member, 10_000)
    assert await points(shop, member) == 100


async def test_what_was_spent_whole_expires_in_silence(shop: Shop, member: Any) -> None:
    await grant(shop, member, 100, "in")
    await grant(shop, member, -100, "out")
    before = await shop.state()

    await days_later(shop, member, 31)

    # The lot's only because `days_later` brings its dates nearer.
    assert (await shop.state()).since(before) == {"points_lot": 0}


async def test_a_changed_lifetime_holds_for_credits_from_then_on(shop: Shop, member: Any) -> None:
    old = (await grant(shop, member, 100, "old"))["entry"]
    await shop.do(CONFIGURE, pointsLifetimeDays=1)
    new = (await grant(shop, member, 50, "new"))["entry"]

    assert old["expiresAt"] > new["expiresAt"]
    await grant(shop, member, -20, "out")
    assert await left(shop, member) == [100, 30]
    await days_later(shop, member, 2)
    assert (await entries(shop, member))[3:] == [(-30, 100, "EXPIRY")]
    await days_later(shop, member, 30)
    assert (await entries(shop, member))[4:] == [(-100, 0, "EXPIRY")]
    assert await left(shop, member) == []
    assert await broken(shop) == []


async def test_expiring_twice_and_at_once_expires_once(shop: Shop, member: Any) -> None:
    members = [member, *[await shop.member() for _ in range(9)]]
    for number, each in enumerate(members):
        for turn in range(3):
            await grant(shop, each, 10, f"{number}-{turn}")
    await end(shop, 2)

    expired = await asyncio.gather(*[expire_points_of(shop.merchant_id) for _ in range(8)])
    before = await shop.state()
    await expire_points()

    assert sum(expired) == 200
    assert [await points(shop, each) for each in members] == [10] * 10
    assert await shop.state() == before
    assert await broken(shop) == []


async def test_many_wallets_expire_in_batches_and_each_by_one_entry(
    shop: Shop, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.points.sweep.WALLETS_PER_BATCH", 2)
    members = [member, *[await shop.member() for _ in range(4)]]
    for number, each in enumerate(members):
        for turn in range(3):
            await grant(shop, each, 10, f"{number}-{turn}")
        await grant(shop, each, -5, f"{number} out")
    await end(shop, 2)

    assert await expire_points_of(shop.merchant_id) == 75

    assert [(await entries(shop, each))[4:] for each in members] == [[(-15, 10, "EXPIRY")]] * 5
    assert await broken(shop) == []


async def test_a_wallet_that_is_busy_is_waited_for_and_holds_up_no_other(shop: Shop, member: Any) -> None:
    other = await shop.member()
    for each in (member, other):
        await grant(shop, each, 10, each["id"])
    await end(shop, 1)
    locked = asyncio.Event()

    async def sweep() -> int:
        await locked.wait()
        return await expire_points_of(shop.merchant_id)

    # Begun outside: a task that begins in a transaction is part of it.
    sweeping = asyncio.create_task(sweep())
    async with transaction(shop.merchant_id) as tx:
        await lock_wallet(tx, shop.merchant_id, member_uuid(member))
        locked.set()
        async with asyncio.timeout(60):
            while await points(shop, other):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
        assert await points(shop, member) == 10
        assert not sweeping.done()

    assert await sweeping == 20
    assert await points(shop, member) == 0


async def test_spending_against_expiry_is_exact(shop: Shop, member: Any) -> None:
    await grant(shop, member, 100, "in")
    await end(shop, 1)

    answers, expired = await asyncio.gather(
        asyncio.gather(*[grant(shop, member, -5, f"out {n}") for n in range(20)]),
        expire_points_of(shop.merchant_id),
    )

    spent = sum(answer["__typename"] == "GrantPointsSuccess" for answer in answers)
    assert expired + 5 * spent == 100
    assert await points(shop, member) == 0
    assert await broken(shop) == []


WARNED = "SELECT subject_id, points FROM event WHERE merchant_id = $1 AND type = 'points.expiring'"


async def test_a_warning_comes_once_and_only_for_what_is_left(shop: Shop, member: Any) -> None:
    await shop.do(CONFIGURE, pointsWarningDays=5)
    other = await shop.member()
    await grant(shop, member, 100, "spent")
    await grant(shop, member, -100, "out")
    left = (await grant(shop, member, 10, "left"))["entry"]
    await grant(shop, other, 10, "later")
    await days_later(shop, member, 24.9)
    await warn_of_expiry()
    assert await database().rows(WARNED, shop.merchant_id) == []

    await days_later(shop, member, 0.2)
    await asyncio.gather(*[warn_of_expiry() for _ in range(4)])
    before = await shop.state()
    await warn_of_expiry()

    warned = await database().rows(WARNED, shop.merchant_id)
    assert [(f"entry_{row['subject_id'].hex}", row["points"]) for row in warned] == [(left["id"], 10)]
    assert await shop.state() == before
    assert await shop.wallet_versions(member) == [1, 2, 3]


async def test_what_expired_once_never_lives_again(shop: Shop, member: Any) -> None:
    """As where a return began before the end and the job was faster. Else the job fails on it for ever."""
    await grant(shop, member, 50, "in")
    mug = await redeem(shop, await reward(shop, cost=30), member, "k")
    await days_later(shop, member, 31)
    await age(shop, member, -2)

    await shop.do(REVERSE_REWARD, redemptionId=mug["redemption"]["id"], reason="broken")

    assert (await entries(shop, member))[2:] == [(-20, 0, "EXPIRY"), (30, 30, "REFUND"), (-30, 0, "EXPIRY")]
    await grant(shop, member, 5, "in, too")
    await days_later(shop, member, 31)
    assert await points(shop, member) == 0
    assert await broken(shop) == []


async def test_the_timetables_job_warns_and_then_expires(shop: Shop, member: Any) -> None:
    await grant(shop, member, 10, "in")
    await end(shop, 1)

    await expire_points_job({"clocks": _Trusting()})

    assert (await shop.event_types())[-2:] == ["points.expiring", "points.debited"]
    assert await points(shop, member) == 0
    assert any(job.coroutine is expire_points_job for job in CRON_JOBS)


async def test_without_warning_days_there_is_no_warning(shop: Shop, member: Any) -> None:
    await shop.do(CONFIGURE, pointsWarningDays=0)
    await grant(shop, member, 10, "in")
    await end(shop, 1)

    await warn_of_expiry()

    assert await database().rows(WARNED, shop.merchant_id) == []
