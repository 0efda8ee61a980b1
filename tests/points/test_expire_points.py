"""Expiry. Without these points could outlive their lifetime, or a member lose points that had not ended."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.points.expire_points import expire_points, expire_points_of, warn_of_expiry
from app.storage.database import database
from tests.factories import Shop
from tests.points.documents import CONFIGURE, broken, days_later, entries, grant, member_uuid, points, purchase
from workers.expire_points import expire_points as expire_points_job
from workers.settings import CRON_JOBS

AGE = "UPDATE points_due SET expires_at = now() - interval '1 second' WHERE merchant_id = $1 AND mark <= $2"
DUE = "SELECT mark FROM points_due WHERE merchant_id = $1 AND member_id = $2 ORDER BY mark"


class _Trusting:
    async def trusts(self) -> bool:
        return True


async def due(shop: Shop, member: Any) -> list[int]:
    """Return the marks of a member's credits that will expire."""
    return [row["mark"] for row in await database().rows(DUE, shop.merchant_id, member_uuid(member))]


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
    assert await due(shop, member) == []
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

    # The wallet's only because `days_later` brings its dates nearer.
    assert (await shop.state()).since(before) == {"points_due": -1, "wallet": 0}
    assert await shop.count("points_due") == 0


async def test_a_shortened_lifetime_lets_no_newer_points_expire_before_older_ones(shop: Shop, member: Any) -> None:
    old = (await grant(shop, member, 100, "old"))["entry"]
    await shop.do(CONFIGURE, pointsLifetimeDays=1)
    new = (await grant(shop, member, 50, "new"))["entry"]
    await grant(shop, member, -150, "out")
    alone = (await grant(shop, member, 10, "alone"))["entry"]

    assert new["expiresAt"] == old["expiresAt"] > alone["expiresAt"]
    await days_later(shop, member, 2)
    assert (await entries(shop, member))[4:] == [(-10, 0, "EXPIRY")]
    await days_later(shop, member, 30)
    assert await due(shop, member) == []
    assert await broken(shop) == []


async def test_expiring_twice_and_at_once_expires_once(shop: Shop, member: Any) -> None:
    members = [member, *[await shop.member() for _ in range(9)]]
    for number, each in enumerate(members):
        for turn in range(3):
            await grant(shop, each, 10, f"{number}-{turn}")
    await database().row(AGE, shop.merchant_id, 20)

    expired = await asyncio.gather(*[expire_points_of(shop.merchant_id) for _ in range(8)])
    before = await shop.state()
    await expire_points()

    assert sum(expired) == 200
    assert [await points(shop, each) for each in members] == [10] * 10
    assert await shop.state() == before
    assert await broken(shop) == []


async def test_many_credits_expire_in_bounded_batches(shop: Shop, member: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.points.expire_points.CREDITS_PER_ENTRY_MAX", 2)
    monkeypatch.setattr("app.points.expire_points.MEMBERS_PER_LOOK", 1)
    for turn in range(5):
        await grant(shop, member, 10, f"{turn}")
    await grant(shop, member, -5, "out")

    await days_later(shop, member, 31)

    assert (await entries(shop, member))[6:] == [(-15, 30, "EXPIRY"), (-20, 10, "EXPIRY"), (-10, 0, "EXPIRY")]


async def test_spending_against_expiry_is_exact(shop: Shop, member: Any) -> None:
    await grant(shop, member, 100, "in")
    await database().row(AGE, shop.merchant_id, 100)

    answers, expired = await asyncio.gather(
        asyncio.gather(*[grant(shop, member, -5, f"out {n}") for n in range(20)]),
        expire_points_of(shop.merchant_id),
    )

    spent = sum(answer["__typename"] == "GrantPointsSuccess" for answer in answers)
    assert expired + 5 * spent == 100
    assert await points(shop, member) == 0
    assert await broken(shop) == []


WARNED = "SELECT subject_id FROM event WHERE merchant_id = $1 AND type = 'points.expiring'"


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

    assert [f"entry_{row['subject_id'].hex}" for row in await database().rows(WARNED, shop.merchant_id)] == [left["id"]]
    assert await shop.state() == before
    assert await shop.wallet_versions(member) == [1, 2, 3]


async def test_the_timetables_job_warns_and_then_expires(shop: Shop, member: Any) -> None:
    await grant(shop, member, 10, "in")
    await database().row(AGE, shop.merchant_id, 10)

    await expire_points_job({"clocks": _Trusting()})

    assert (await shop.event_types())[-2:] == ["points.expiring", "points.debited"]
    assert await points(shop, member) == 0
    assert any(job.coroutine is expire_points_job for job in CRON_JOBS)


async def test_without_warning_days_there_is_no_warning(shop: Shop, member: Any) -> None:
    await shop.do(CONFIGURE, pointsWarningDays=0)
    await grant(shop, member, 10, "in")
    await database().row(AGE, shop.merchant_id, 10)

    await warn_of_expiry()

    assert await database().rows(WARNED, shop.merchant_id) == []
