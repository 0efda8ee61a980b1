"""Pending points. Without these points could be spent before their time, or be refused because a job was late."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from app.members.rows import member_row
from app.points.ledger import debit
from app.points.mature_points import mature_points, mature_points_of
from app.points.types import PointsReason
from app.storage.database import database
from app.wallets.types import Wallet
from tests.factories import Shop
from tests.points.documents import (
    CONFIGURE,
    GRANT,
    REVERSE,
    age,
    broken,
    days_later,
    entries,
    grant,
    member_uuid,
    points,
    purchase,
    redeem,
    reward,
    wallet,
)
from tests.referrals.documents import accepted, program, viewer_of
from tests.referrals.test_conversions import buy, waiting

MATURED = """
SELECT subject_id, points, wallet_version, wallet_points, wallet_pending_points FROM event
WHERE merchant_id = $1 AND type = 'points.matured' ORDER BY member_id, wallet_version
"""


@pytest.fixture
async def member(shop: Shop) -> Any:
    await shop.do(CONFIGURE, pointsPendingDays=14)
    return await shop.member()


async def counts(shop: Shop, member: Any) -> tuple[int, int, int]:
    """Return all points, those that are pending and those that can be spent."""
    shown = await wallet(shop, member)
    assert shown["heldPoints"] == 0
    return shown["points"], shown["pendingPoints"], shown["spendablePoints"]


async def test_a_purchases_points_are_seen_at_once_and_spent_later(shop: Shop, member: Any) -> None:
    await grant(shop, member, 5, "never pending")
    entry = (await purchase(shop, member, "o-1", 10_000))["entry"]

    created, spendable = (datetime.fromisoformat(entry[name]) for name in ("createdAt", "spendableAt"))
    assert timedelta(0) <= created + timedelta(days=14) - spendable < timedelta(minutes=1)
    assert await counts(shop, member) == (105, 100, 5)
    answer = await shop.refused(GRANT, memberId=member["id"], amount=-6, reference="r", idempotencyKey="k")
    assert (answer["__typename"], answer["balance"], answer["required"]) == ("InsufficientPoints", 5, 6)
    assert answer["message"] == "The member can spend 5 points; 6 are needed."
    assert (await redeem(shop, await reward(shop), member, "k"))["balance"] == 5

    await days_later(shop, member, 14.1)

    assert await counts(shop, member) == (105, 0, 105)
    assert (await redeem(shop, await reward(shop), member, "k"))["__typename"] == "RedeemRewardSuccess"
    assert await broken(shop) == []


async def test_its_end_is_one_change_of_the_wallet(shop: Shop, member: Any) -> None:
    made = [await purchase(shop, member, f"o-{number}", 1000 * number) for number in (1, 2)]

    await days_later(shop, member, 14.1)

    assert [
        (f"entry_{row['subject_id'].hex}", row["points"], *list(row.values())[2:])
        for row in await database().rows(MATURED, shop.merchant_id)
    ] == [(made[0]["entry"]["id"], 10, 3, 30, 20), (made[1]["entry"]["id"], 20, 4, 30, 0)]
    before = await shop.state()
    assert await mature_points() == 0
    assert await shop.state() == before


async def test_nobody_is_refused_because_the_job_is_late(shop: Shop, member: Any) -> None:
    await purchase(shop, member, "o-1", 10_000)
    await age(shop, member, 14.1)
    assert await counts(shop, member) == (100, 0, 100)

    taken = await grant(shop, member, -100, "out")

    assert taken["entry"]["balanceAfter"] == 0
    assert taken["entry"]["member"]["wallet"]["version"] == 3
    assert await counts(shop, member) == (0, 0, 0)
    assert len(await database().rows(MATURED, shop.merchant_id)) == 1
    assert await broken(shop) == []


async def test_days_count_from_when_it_happened_and_a_lifetime_from_its_end(shop: Shop, member: Any) -> None:
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    now = datetime.now(UTC)

    async def bought(order: str, days_ago: int) -> tuple[timedelta, timedelta]:
        at = (now - timedelta(days=days_ago)).isoformat()
        entry = (await purchase(shop, member, order, occurredAt=at))["entry"]
        spendable, ends = (datetime.fromisoformat(entry[name]) for name in ("spendableAt", "expiresAt"))
        return spendable - now, ends - now

    spendable, ends = await bought("some days ago", 10)
    assert (spendable, ends) == (timedelta(days=4), timedelta(days=34))
    spendable, ends = await bought("long ago", 20)
    assert timedelta(0) <= spendable < timedelta(minutes=1)
    assert ends - spendable == timedelta(days=30)
    assert await counts(shop, member) == (20, 10, 10)


async def test_a_purchase_keeps_the_days_and_the_rate_of_the_moment_it_is_recorded(shop: Shop, member: Any) -> None:
    await purchase(shop, member, "o-1")
    await shop.do(CONFIGURE, pointsPendingDays=0, pointsPerUnit=2.0)

    again = await purchase(shop, member, "o-1")
    await purchase(shop, member, "o-2")

    assert again["entry"]["amount"] == 10
    assert await counts(shop, member) == (30, 10, 20)


async def test_a_return_takes_pending_points_of_its_own_first_and_of_others_last(shop: Shop, member: Any) -> None:
    await purchase(shop, member, "o-1", 5000)
    await grant(shop, member, 10, "spendable")
    await purchase(shop, member, "o-2", 2000)

    await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")
    assert await counts(shop, member) == (30, 20, 10)

    await days_later(shop, member, 14.1)
    await grant(shop, member, -15, "spent")
    late = await purchase(shop, member, "o-3", 4000)
    answer = await shop.do(REVERSE, source="STORE", orderId="o-2", reason="returned")

    # Fifteen are its own and others that can be spent; five are of a purchase whose points are pending.
    assert (answer["entry"]["amount"], answer["shortfall"]) == (-20, 0)
    assert await counts(shop, member) == (35, 35, 0)
    assert (await shop.data(REMAINING, {"id": late["entry"]["id"]}))["node"]["remaining"] == 35
    assert await broken(shop) == []


REMAINING = "query ($id: ID!) { node(id: $id) { ... on PointsEntry { remaining spendableAt } } }"


async def test_an_entry_says_what_is_left_of_it(shop: Shop) -> None:
    member = await shop.member()
    given = (await grant(shop, member, 10, "in"))["entry"]
    taken = (await grant(shop, member, -3, "out"))["entry"]

    assert (await shop.data(REMAINING, {"id": given["id"]}))["node"] == {
        "remaining": 7, "spendableAt": given["createdAt"]
    }  # fmt: skip
    assert (await shop.data(REMAINING, {"id": taken["id"]}))["node"] == {"remaining": None, "spendableAt": None}


async def test_points_of_a_referral_are_pending_as_long_as_its_purchase_is(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await shop.do(CONFIGURE, pointsPendingDays=14)

    await buy(shop, referee, "o-1")

    assert await counts(shop, referrer) == (100, 100, 0)
    assert await counts(shop, referee) == (60, 60, 0)
    assert await mature_points_of(shop.merchant_id) == 0
    await age(shop, None, 14.1)
    assert sum(await asyncio.gather(*[mature_points_of(shop.merchant_id) for _ in range(4)])) == 3
    assert await counts(shop, referrer) == (100, 0, 100)
    assert await counts(shop, referee) == (60, 0, 60)
    assert await broken(shop) == []


async def test_points_of_joining_are_not_pending(shop: Shop) -> None:
    await shop.do(CONFIGURE, pointsPendingDays=14)
    await program(shop, convertsOn="JOIN")
    referrer = await shop.member()

    await accepted(shop, referrer)

    assert await counts(shop, referrer) == (100, 0, 100)


async def test_many_credits_mature_in_batches(shop: Shop, member: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.points.sweep.WALLETS_PER_BATCH", 2)
    monkeypatch.setattr("app.points.mature_points.LOTS_PER_STATEMENT", 3)
    members = [member, *[await shop.member() for _ in range(4)]]
    for number, each in enumerate(members):
        for turn in range(3):
            await purchase(shop, each, f"{number}-{turn}")
    await age(shop, None, 14.1)

    assert await mature_points_of(shop.merchant_id) == 15

    assert [await counts(shop, each) for each in members] == [(30, 0, 30)] * 5
    assert [await points(shop, each) for each in members] == [30] * 5
    assert [len(await entries(shop, each)) for each in members] == [3] * 5
    assert await broken(shop) == []


async def test_what_was_taken_back_keeps_nothing_else_pending(
    shop: Shop, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.points.mature_points.LOTS_PER_STATEMENT", 2)
    for number in range(5):
        await purchase(shop, member, f"o-{number}")
    for number in range(4):
        await shop.do(REVERSE, source="STORE", orderId=f"o-{number}", reason="returned")
    await age(shop, member, 14.1)

    # In this process, which asks for two at a time.
    taken = await debit(
        database(), shop.merchant_id, "system", member_uuid(member), 10, PointsReason.ADJUSTMENT, origin="out",
        reference=None,
    )  # fmt: skip

    assert taken is not None
    assert taken["entry_balance_after"] == 0
    assert await mature_points_of(shop.merchant_id) == 0
    assert await broken(shop) == []


async def test_a_return_takes_what_just_became_spendable_in_the_order_of_spending(shop: Shop, member: Any) -> None:
    await shop.do(CONFIGURE, pointsPendingDays=0)
    await purchase(shop, member, "o-1", 5000)
    await grant(shop, member, -50, "spent")
    await grant(shop, member, 50, "endless")
    await shop.do(CONFIGURE, pointsPendingDays=14, pointsLifetimeDays=30)
    await purchase(shop, member, "o-2", 5000)
    await age(shop, member, 14.1)

    answer = await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")

    assert (answer["entry"]["amount"], answer["entry"]["balanceAfter"]) == (-50, 50)
    assert answer["purchase"]["member"]["wallet"] == {"version": 6, "points": 50}
    assert (await wallet(shop, member))["nextExpiry"] is None
    assert await broken(shop) == []


async def test_a_return_between_two_reads_makes_nothing_spendable(shop: Shop, member: Any) -> None:
    """A wallet's row is read first, and then its lots."""
    await purchase(shop, member, "o-1")
    viewer = await viewer_of(shop, member_uuid(member))
    row = await member_row(viewer, member_uuid(member))
    assert row is not None
    await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")
    shown = Wallet.of(row)

    async def load(read: Any, key: UUID) -> Any:
        return (await read(viewer, [key]))[key]

    info: Any = SimpleNamespace(context=SimpleNamespace(load=load))

    assert (shown.points, await Wallet.spendable_points(shown, info)) == (10, 0)
    assert await counts(shop, member) == (0, 0, 0)
