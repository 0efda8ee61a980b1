"""Returns of the purchase that converted. Without these who invites, buys and returns would keep the points."""

from typing import Any

import pytest

from tests.factories import Shop, usd
from tests.points.documents import (
    CONFIGURE,
    REVERSE,
    check_refund,
    days_later,
    entries,
    grant,
    points,
    refund,
    wallet,
)
from tests.points.documents import broken as broken_points
from tests.referrals.documents import (
    HELD_REFERRALS,
    REFERRALS,
    REFERRED_BY,
    RELEASE_REFERRAL,
    accepted,
    broken,
    happened,
    program,
    referrals_age,
)
from tests.referrals.test_conversions import buy, waiting


async def bring_back(shop: Shop, bought: Any) -> Any:
    """Reverse a purchase, and return the answer."""
    return await shop.do(REVERSE, purchaseId=bought["purchase"]["id"], reason="returned")


async def listed(shop: Shop) -> list[Any]:
    """Return all referrals."""
    return [edge["node"] for edge in (await shop.data(REFERRALS))["answer"]["edges"]]


async def test_a_return_takes_both_credits_back_and_keeps_the_history(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    bought = await buy(shop, referee, "o-1")

    answer = await bring_back(shop, bought)

    assert (answer["entry"]["amount"], answer["entry"]["balanceAfter"], answer["shortfall"]) == (-10, 0, 0)
    assert await entries(shop, referrer) == [(100, 100, "REFERRAL_REFERRER"), (-100, 0, "REVERSAL")]
    assert await entries(shop, referee) == [
        (50, 50, "REFERRAL_REFEREE"), (10, 60, "PURCHASE"), (-50, 10, "REVERSAL"), (-10, 0, "REVERSAL")
    ]  # fmt: skip
    (referral,) = await listed(shop)
    assert referral["id"] == bought["referral"]["id"]
    assert referral["reversedAt"] is not None
    assert referral["shortfall"] == 0
    assert (await shop.data(REFERRED_BY, {"id": referee["id"]}))["member"]["referredBy"] == referral
    assert "referral.reversed" in await happened(shop)
    assert await broken(shop) == await broken_points(shop) == []


async def test_a_return_of_another_purchase_takes_nothing_of_it(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await buy(shop, referee, "o-1")

    await bring_back(shop, await buy(shop, referee, "o-2"))

    assert (await points(shop, referrer), await points(shop, referee)) == (100, 60)


async def test_a_part_ends_it_only_where_too_little_stands(shop: Shop) -> None:
    referrer, referee = await waiting(shop, minimumPurchase=usd(600))
    await buy(shop, referee, "o-1")
    # The minimum is that of the conversion, whatever the program says since.
    await program(shop, convertsOn="FIRST_PURCHASE", minimumPurchase=usd(999))

    assert (await check_refund(shop, "o-1", "r-1", 400))["endsReferral"] is False
    await refund(shop, "o-1", "r-1", 400)
    assert (await points(shop, referrer), await points(shop, referee)) == (100, 56)
    assert (await check_refund(shop, "o-1", "r-2", 1))["endsReferral"] is True
    told = await refund(shop, "o-1", "r-2", 1)
    again = await check_refund(shop, "o-1", "r-2", 1)

    assert (await points(shop, referrer), await points(shop, referee)) == (0, 5)
    assert told["purchase"]["member"]["wallet"]["points"] == 5
    assert again["endsReferral"] is True
    assert "referral.reversed" in await happened(shop)
    assert await broken(shop) == await broken_points(shop) == await shop.broken_promises() == []


async def test_without_a_minimum_it_stands_until_the_last_unit(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await buy(shop, referee, "o-1")

    await refund(shop, "o-1", "r-1", 999)
    assert await points(shop, referrer) == 100
    await refund(shop, "o-1", "r-2", 1)

    assert await points(shop, referrer) == 0


async def test_the_window_is_that_of_the_conversion(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await buy(shop, referee, "o-1")
    await program(shop, convertsOn="FIRST_PURCHASE", refundWindowDays=0)

    await refund(shop, "o-1", "r-1", 1000)

    assert await points(shop, referrer) == 0


async def test_what_was_spent_is_a_shortfall(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    bought = await buy(shop, referee, "o-1")
    await grant(shop, referrer, -70, "spent")
    await grant(shop, referee, -55, "spent too")

    answer = await bring_back(shop, bought)

    assert (await points(shop, referrer), await points(shop, referee)) == (0, 0)
    assert (await listed(shop))[0]["shortfall"] == 70 + 45
    # Five of the purchase's own points had paid for the referral, which lacks them now.
    assert answer["shortfall"] == 5
    assert [(await wallet(shop, each))["shortfall"] for each in (referrer, referee)] == [70, 50 + 5]
    assert await broken(shop) == await broken_points(shop) == []


async def test_what_has_expired_is_not_taken_twice(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await shop.do(CONFIGURE, pointsLifetimeDays=5)
    bought = await buy(shop, referee, "o-1")
    await days_later(shop, referrer, 6)
    await grant(shop, referrer, 500, "new")

    await bring_back(shop, bought)

    assert await entries(shop, referrer) == [
        (100, 100, "REFERRAL_REFERRER"), (-100, 0, "EXPIRY"), (500, 500, "ADJUSTMENT")
    ]  # fmt: skip
    assert (await listed(shop))[0]["shortfall"] == 0


@pytest.mark.parametrize(("days", "reversed_"), [(6.9, True), (7, False)])
async def test_a_return_after_the_window_leaves_the_referral(shop: Shop, days: float, reversed_: bool) -> None:
    referrer, referee = await waiting(shop, refundWindowDays=7)
    bought = await buy(shop, referee, "o-1")
    await referrals_age(shop, days)

    await bring_back(shop, bought)

    assert await points(shop, referrer) == (0 if reversed_ else 100)
    assert ((await listed(shop))[0]["reversedAt"] is not None) is reversed_


async def test_without_a_window_nothing_is_taken_back(shop: Shop) -> None:
    referrer, referee = await waiting(shop, refundWindowDays=0)

    await bring_back(shop, await buy(shop, referee, "o-1"))

    assert await points(shop, referrer) == 100


async def test_a_held_referral_whose_purchase_is_returned_can_never_be_released(shop: Shop) -> None:
    referrer, referee = await waiting(shop, reviewPolicy="ALL")
    bought = await buy(shop, referee, "o-1")
    (held,) = (await shop.data(HELD_REFERRALS))["answer"]["edges"]

    await bring_back(shop, bought)

    assert (await shop.data(HELD_REFERRALS))["answer"]["edges"] == []
    answer = await shop.refused(RELEASE_REFERRAL, referralId=held["node"]["id"])
    assert answer["__typename"] == "ReferralNotReleasable"
    assert await points(shop, referrer) == 0
    assert await broken(shop) == []


async def test_who_brings_people_that_return_everything_is_flagged(shop: Shop) -> None:
    referrer, _ = await waiting(shop)
    for number in range(2):
        referee = (await accepted(shop, referrer))["member"]
        await bring_back(shop, await buy(shop, referee, f"returned {number}"))

    third = await buy(shop, (await accepted(shop, referrer))["member"], "kept")

    assert third["referral"]["reviewFlags"] == ["REFUNDS"]
    assert await points(shop, referrer) == 100


async def test_a_join_has_no_purchase_to_return(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    referee = (await accepted(shop, referrer))["member"]

    await bring_back(shop, await buy(shop, referee, "o-1"))

    assert await points(shop, referrer) == 100
