"""Falls, replacements and comebacks. Without these an exchange would cost a referral, or be paid for twice.

Anna refers and earns 100, Ben is referred and earns 50; a purchase of 10.00 earns 10 points.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.storage.database import database
from tests.factories import Shop, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, stacked
from tests.points.documents import (
    CONFIGURE,
    REVERSE_REWARD,
    check_refund,
    days_later,
    end,
    entries,
    grant,
    points,
    redeem,
    refund,
    reward,
    wallet,
)
from tests.points.documents import broken as broken_points
from tests.points.ledger import amended
from tests.referrals.documents import (
    DECLINE_REFERRAL,
    HELD_REFERRALS,
    RELEASE_REFERRAL,
    accepted,
    broken,
    happened,
    instant,
    invites_age,
    program,
    referrals_age,
)
from tests.referrals.test_conversions import FULL, buy, waiting
from tests.referrals.test_reversals import listed

STANDS_BY = """
SELECT b.order_id, r.falls FROM referral r JOIN purchase b ON b.merchant_id = $1 AND b.id = r.purchase_id
WHERE r.merchant_id = $1
"""
ORIGINS = """
SELECT reason, split_part(e.origin, '/', 2) AS cause, split_part(e.origin, '/', 3) AS number, b.order_id
FROM points_entry e LEFT JOIN purchase b ON b.merchant_id = $1
    AND replace(b.id::text, '-', '') = split_part(e.origin, '/', 2)
WHERE e.merchant_id = $1 AND e.member_id = (SELECT referrer_id FROM referral WHERE merchant_id = $1)
ORDER BY e.created_at
"""


def ago(**time: float) -> dict[str, Any]:
    """Return when a purchase occurred, so long ago."""
    return {"occurredAt": (datetime.now(UTC) - timedelta(**time)).isoformat()}


async def both(shop: Shop, *members: Any) -> list[int]:
    """Return what the members have."""
    return [await points(shop, member) for member in members]


async def stands_by(shop: Shop) -> tuple[str, int]:
    """Return the order that the shop's referral stands by, or stood by when it fell, and how often it fell."""
    row = await database().row(STANDS_BY, shop.merchant_id)
    assert row is not None
    return row["order_id"], row["falls"]


async def falls(shop: Shop) -> list[str]:
    """Return what happened to referrals, oldest first."""
    return [kind.removeprefix("referral.") for kind in await happened(shop) if kind.startswith("referral.")]


async def sound(shop: Shop) -> None:
    """Assert that what must always hold does."""
    assert await broken(shop) == await broken_points(shop) == await shop.broken_promises() == []


async def test_an_exchange_that_is_recorded_already_takes_the_place(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await buy(shop, ben, "too small")
    await buy(shop, ben, "exchange")
    before = [await wallet(shop, anna), await entries(shop, ben)]

    assert (await check_refund(shop, "too small", "r-1", 1000))["endsReferral"] is False
    await refund(shop, "too small", "r-1", 1000)

    assert [await wallet(shop, anna), (await entries(shop, ben))[:-1]] == before
    assert (await entries(shop, ben))[-1] == (-10, 60, "REVERSAL")
    (referral,) = await listed(shop)
    assert (referral["reversedAt"], referral["shortfall"], await stands_by(shop)) == (None, None, ("exchange", 0))
    assert (await buy(shop, ben, "exchange"))["referral"] == referral
    assert await falls(shop) == ["converted", "purchase_replaced"]
    await sound(shop)

    # It stands by that one now.
    assert (await check_refund(shop, "exchange", "r-1", 1000))["endsReferral"] is True
    await refund(shop, "exchange", "r-1", 1000)
    assert await both(shop, anna, ben) == [0, 0]
    assert await falls(shop) == ["converted", "purchase_replaced", "reversed"]
    await sound(shop)


async def test_the_earliest_that_counts_takes_the_place(shop: Shop) -> None:
    _, ben = await waiting(shop, minimumPurchase=usd(600))
    await buy(shop, ben, "first")
    await buy(shop, ben, "before he joined", **ago(hours=25))
    await buy(shop, ben, "too small", 599, **ago(hours=5))
    await buy(shop, ben, "returned", **ago(hours=4))
    await refund(shop, "returned", "r-1", 401)
    await buy(shop, ben, "later", **ago(hours=1))
    await buy(shop, ben, "earlier", 600, **ago(hours=2))
    await buy(shop, await shop.member(), "somebody else's", **ago(hours=3))

    await refund(shop, "first", "r-1", 401)

    assert await stands_by(shop) == ("earlier", 0)
    await sound(shop)


async def test_the_minimum_and_the_window_are_kept(shop: Shop) -> None:
    anna, ben = await waiting(shop, minimumPurchase=usd(600), refundWindowDays=10)
    await buy(shop, ben, "first")
    await program(shop, convertsOn="FIRST_PURCHASE", refundWindowDays=0)
    await buy(shop, ben, "second", 599)

    await refund(shop, "first", "r-1", 401)
    assert (await both(shop, anna, ben), await stands_by(shop)) == ([0, 10], ("first", 1))
    await buy(shop, ben, "third", 599)
    assert await points(shop, anna) == 0
    await buy(shop, ben, "fourth", 600)

    assert (await points(shop, anna), await stands_by(shop)) == (100, ("fourth", 1))
    await sound(shop)


async def test_a_later_order_brings_it_back_as_if_it_had_never_fallen(shop: Shop) -> None:
    """Anna had spent most of it, and her own orders had begun to pay for what was lacking."""
    anna, ben = await waiting(shop)
    await buy(shop, ben, "first")
    await grant(shop, anna, -70, "spent")
    await grant(shop, ben, -5, "spent too")
    await refund(shop, "first", "r-1", 1000)
    assert [await both(shop, anna, ben), (await listed(shop))[0]["shortfall"]] == [[0, 0], 70]
    await buy(shop, anna, "her own", 5000)
    assert [(await wallet(shop, each))["shortfall"] for each in (anna, ben)] == [20, 5]

    answer = await buy(shop, ben, "exchange")

    # 30 come back to the credit, and 50 to her order that had filled what was lacking.
    assert (await entries(shop, anna))[-4:] == [
        (-30, 0, "REVERSAL"), (50, 50, "PURCHASE"), (-50, 0, "REVERSAL"), (80, 80, "REFERRAL_REFERRER")
    ]  # fmt: skip
    assert [(await wallet(shop, each))["shortfall"] for each in (anna, ben)] == [0, 0]
    # 50 of the referral and 10 of the exchange, less what was spent.
    assert await both(shop, anna, ben) == [80, 55]
    (referral,) = await listed(shop)
    assert answer["referral"] == referral
    assert (referral["reversedAt"], referral["shortfall"]) == (None, None)
    assert referral["referrerEntry"]["amount"] == 100
    assert await falls(shop) == ["converted", "reversed", "reinstated"]
    await sound(shop)


async def test_what_was_spent_before_the_fall_and_comes_back_after_it_is_there_once(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await buy(shop, ben, "first")
    mug = await redeem(shop, await reward(shop, cost=100), anna, "k-1")
    await refund(shop, "first", "r-1", 1000)
    await shop.do(REVERSE_REWARD, redemptionId=mug["redemption"]["id"], reason="broken")
    assert ((await wallet(shop, anna))["shortfall"], await points(shop, anna)) == (0, 0)

    await buy(shop, ben, "exchange")

    assert await both(shop, anna, ben) == [100, 60]
    await sound(shop)


async def test_what_is_past_its_date_expires_at_once(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await shop.do(CONFIGURE, pointsLifetimeDays=5)
    await buy(shop, ben, "first")
    await refund(shop, "first", "r-1", 1000)
    await days_later(shop, anna, 6)

    await buy(shop, ben, "exchange")

    assert (await entries(shop, anna))[-2:] == [(100, 100, "REFERRAL_REFERRER"), (-100, 0, "EXPIRY")]
    assert await both(shop, anna, ben) == [0, 60]
    await sound(shop)


async def test_what_had_expired_before_the_fall_does_not_come_back(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await shop.do(CONFIGURE, pointsLifetimeDays=5)
    await buy(shop, ben, "first")
    await end(shop, 1)
    await days_later(shop, anna, 1)
    await refund(shop, "first", "r-1", 1000)

    await buy(shop, ben, "exchange")

    assert (await entries(shop, anna))[-1] == (-100, 0, "EXPIRY")
    assert (await listed(shop))[0]["reversedAt"] is None
    await sound(shop)


async def test_it_falls_and_comes_back_as_often_as_it_must_and_is_paid_once(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await buy(shop, ben, "o-1")
    for number in range(1, 4):
        await refund(shop, f"o-{number}", "r-1", 1000)
        assert await both(shop, anna, ben) == [0, 0]
        await buy(shop, ben, f"o-{number + 1}")
        assert await both(shop, anna, ben) == [100, 60]

    assert await falls(shop) == ["converted", *["reversed", "reinstated"] * 3]
    rows = await database().rows(ORIGINS, shop.merchant_id)
    assert [(row["reason"], row["order_id"] or row["cause"], row["number"]) for row in rows] == [
        ("REFERRAL_REFERRER", "", ""),
        *[
            each for number in range(1, 4) for each in (
                ("REVERSAL", "referrer", str(number)), ("REFERRAL_REFERRER", f"o-{number + 1}", str(number))
            )
        ],
    ]  # fmt: skip
    await sound(shop)


async def test_an_order_that_changes_ends_it_and_brings_it_back(shop: Shop) -> None:
    """Twice by the same purchase, and at last by another one that is worth enough by then."""
    anna, ben = await waiting(shop, minimumPurchase=usd(600))
    await buy(shop, ben, "first")
    await buy(shop, ben, "second", 500)

    for number in range(2):
        await amended(shop, "first", 599, f"less {number}")
        assert await both(shop, anna, ben) == [0, 10]
        await amended(shop, "first", 600, f"more {number}")
        assert await both(shop, anna, ben) == [100, 61]
        await sound(shop)
    await amended(shop, "first", 0, "nothing")
    await amended(shop, "second", 700, "more")

    assert (await points(shop, anna), await stands_by(shop)) == (100, ("second", 3))
    await sound(shop)


async def test_an_order_that_changes_is_replaced_or_converts(shop: Shop) -> None:
    anna, ben = await waiting(shop, minimumPurchase=usd(600))
    await buy(shop, ben, "first", 599)
    await amended(shop, "first", 600, "more")
    assert await points(shop, anna) == 100
    await buy(shop, ben, "second")

    await amended(shop, "first", 599, "less")

    assert (await points(shop, anna), await stands_by(shop)) == (100, ("second", 0))
    assert await falls(shop) == ["converted", "purchase_replaced"]
    await sound(shop)


async def test_a_changed_cart_ends_it_and_brings_it_back_and_calling_the_order_off_leaves_it_to_another(
    shop: Shop,
) -> None:
    anna, ben = await waiting(shop, minimumPurchase=usd(6_000))
    codes, _ = await stacked(shop, ben, 20.0)
    await buy(shop, ben, "A-1", 8_000)
    assert await both(shop, anna, ben) == [100, 130]

    less = await shop.do(AMEND, **amendment(codes, ben, 7_000))
    assert (less["shortfall"], less["purchase"]["member"]["wallet"]["points"]) == (0, 56)
    assert (await points(shop, anna), (await listed(shop))[0]["reversedAt"] is not None) == (0, True)
    more = await shop.do(AMEND, **amendment([], ben, 7_000))
    assert more["purchase"]["member"]["wallet"]["points"] == 120
    assert await points(shop, anna) == 100
    await buy(shop, ben, "exchange", 6_000)
    await shop.do(CANCEL, **cancellation())

    assert (await both(shop, anna, ben), await stands_by(shop)) == ([100, 110], ("exchange", 1))
    await sound(shop)


async def test_after_the_window_nothing_falls_or_is_replaced(shop: Shop) -> None:
    anna, ben = await waiting(shop, refundWindowDays=7)
    await buy(shop, ben, "first")
    await buy(shop, ben, "second")
    await referrals_age(shop, 7)

    await refund(shop, "first", "r-1", 1000)

    assert (await points(shop, anna), await stands_by(shop)) == (100, ("first", 0))
    await sound(shop)


async def test_the_window_is_that_of_the_conversion_whatever_replaced_its_purchase(shop: Shop) -> None:
    anna, ben = await waiting(shop, refundWindowDays=7)
    await buy(shop, ben, "first")
    await refund(shop, "first", "r-1", 1000)
    await referrals_age(shop, 7)

    # An order that comes after it brings the referral back, and then nothing ends it.
    await buy(shop, ben, "second")
    assert await points(shop, anna) == 100
    await refund(shop, "second", "r-1", 1000)

    assert (await points(shop, anna), await stands_by(shop)) == (100, ("second", 1))
    await sound(shop)


async def test_only_purchases_of_the_invites_lifetime_bring_it_back(shop: Shop) -> None:
    anna, ben = await waiting(shop, inviteLifetimeDays=30)
    await buy(shop, ben, "first")
    await refund(shop, "first", "r-1", 1000)
    # The invite ended an hour ago.
    await invites_age(shop, 30 + 1 / 24)

    assert (await buy(shop, ben, "after its end"))["referral"] is None
    assert await points(shop, anna) == 0
    told_later = await buy(shop, ben, "told later", **ago(hours=2))

    assert told_later["referral"]["reversedAt"] is None
    assert (await points(shop, anna), await stands_by(shop)) == (100, ("told later", 1))
    assert await shop.broken_promises() == []


async def test_after_the_invites_lifetime_a_purchase_of_it_can_take_the_place(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await buy(shop, ben, "first")
    await buy(shop, ben, "second", **ago(hours=2))
    await invites_age(shop, 30 + 1 / 24)
    await buy(shop, ben, "third")

    await refund(shop, "first", "r-1", 1000)
    assert (await points(shop, anna), await stands_by(shop)) == (100, ("second", 0))
    await refund(shop, "second", "r-1", 1000)

    assert await points(shop, anna) == 0


async def test_points_keep_the_dates_that_they_have(shop: Shop) -> None:
    """Those of the first purchase: nobody waits longer because of an exchange."""
    anna, ben = await waiting(shop)
    await shop.do(CONFIGURE, pointsPendingDays=14)
    await buy(shop, ben, "first")
    (first,) = await listed(shop)
    await days_later(shop, ben, 13)
    await buy(shop, ben, "second")

    await refund(shop, "first", "r-1", 1000)
    await days_later(shop, anna, 14)

    assert (await listed(shop))[0]["referrerEntry"]["spendableAt"] == first["referrerEntry"]["spendableAt"]
    assert ((await wallet(shop, anna))["spendablePoints"], await stands_by(shop)) == (100, ("second", 0))
    await refund(shop, "second", "r-1", 1000)
    await buy(shop, ben, "third")
    assert (await wallet(shop, anna))["spendablePoints"] == 100
    await sound(shop)


async def test_a_held_one_waits_for_as_long_as_something_stands(shop: Shop) -> None:
    anna, ben = await waiting(shop, reviewPolicy="ALL")
    await shop.do(CONFIGURE, pointsPendingDays=14)
    await buy(shop, ben, "first")
    await buy(shop, ben, "second", **ago(hours=1))
    (held,) = (await shop.data(HELD_REFERRALS))["answer"]["edges"]
    await refund(shop, "first", "r-1", 1000)
    assert (await shop.data(HELD_REFERRALS))["answer"]["edges"] == [held]
    await refund(shop, "second", "r-1", 1000)
    assert (await shop.data(HELD_REFERRALS))["answer"]["edges"] == []
    refused = await shop.refused(RELEASE_REFERRAL, referralId=held["node"]["id"])
    assert refused["__typename"] == "ReferralNotReleasable"

    third = await buy(shop, ben, "third", **ago(hours=23))

    assert (third["referral"], await points(shop, anna)) == (None, 0)
    assert (await shop.data(HELD_REFERRALS))["answer"]["edges"] == [held]
    referral = (await shop.do(RELEASE_REFERRAL, referralId=held["node"]["id"]))["referral"]
    # Its points are pending as long as the purchase's are that it stands by now.
    left = instant(referral["referrerEntry"]["spendableAt"]) - datetime.now(UTC)
    assert timedelta(days=13) < left < timedelta(days=13, hours=1)
    assert await falls(shop) == ["held", "purchase_replaced", "reversed", "reinstated", "converted"]
    await sound(shop)


async def test_a_declined_one_stays_declined(shop: Shop) -> None:
    anna, ben = await waiting(shop, reviewPolicy="ALL")
    await buy(shop, ben, "first")
    (held,) = (await shop.data(HELD_REFERRALS))["answer"]["edges"]
    await shop.do(DECLINE_REFERRAL, referralId=held["node"]["id"], reason="invented")
    await refund(shop, "first", "r-1", 1000)

    await buy(shop, ben, "second")

    (declined,) = (await shop.data(HELD_REFERRALS, {"declined": True}))["answer"]["edges"]
    assert (declined["node"]["reversedAt"] is not None, await points(shop, anna)) == (True, 0)
    assert await falls(shop) == ["held", "declined", "reversed"]
    await sound(shop)


async def test_one_that_a_full_balance_cannot_hold_comes_back_with_the_next_purchase(shop: Shop) -> None:
    anna, ben = await waiting(shop)
    await buy(shop, ben, "first")
    await refund(shop, "first", "r-1", 1000)
    await grant(shop, anna, FULL, "rich")

    assert (await buy(shop, ben, "second"))["referral"] is None
    assert await both(shop, anna, ben) == [FULL, 10]
    await grant(shop, anna, -100, "spent")
    third = await buy(shop, ben, "third")

    assert third["referral"]["reversedAt"] is None
    assert (await both(shop, anna, ben), await stands_by(shop)) == ([FULL, 70], ("second", 1))
    await sound(shop)


async def test_a_purchase_that_earns_nothing_shows_the_wallet_as_it_brought_it_back(shop: Shop) -> None:
    _, ben = await waiting(shop)
    await buy(shop, ben, "first")
    await refund(shop, "first", "r-1", 1000)

    assert (await buy(shop, ben, "second", 99))["referral"]["refereeEntry"]["member"]["wallet"]["points"] == 50


async def test_a_join_is_never_replaced(shop: Shop) -> None:
    await program(shop)
    anna = await shop.member()
    ben = (await accepted(shop, anna))["member"]
    await buy(shop, ben, "first")
    await refund(shop, "first", "r-1", 1000)

    assert (await buy(shop, ben, "second"))["referral"] is None
    assert (await points(shop, anna), await falls(shop)) == (100, ["converted"])


@pytest.mark.parametrize("recovers", [True, False])
async def test_only_what_was_really_taken_comes_back(shop: Shop, recovers: bool) -> None:
    """Whether or not Anna's orders pay for what she lacks, she ends with what she would have had."""
    anna, ben = await waiting(shop)
    await shop.do(CONFIGURE, recoverShortfalls=recovers)
    await buy(shop, ben, "first")
    await grant(shop, anna, 20, "older")
    await grant(shop, anna, -90, "spent")
    await refund(shop, "first", "r-1", 1000)
    assert ((await wallet(shop, anna))["shortfall"], await points(shop, anna)) == (70, 0)
    await buy(shop, anna, "her own", 1000)
    assert await points(shop, anna) == (0 if recovers else 10)

    await buy(shop, ben, "exchange")

    assert ((await wallet(shop, anna))["shortfall"], await points(shop, anna)) == (0, 40)
    await sound(shop)


async def test_an_order_that_changes_converts_no_invite_that_has_an_obstacle(shop: Shop) -> None:
    """Ben bought before he was invited; that he has returned it since makes him no new customer."""
    anna, ben = await waiting(shop, minimumPurchase=usd(6_000))
    await stacked(shop, ben, 20.0)
    await buy(shop, ben, "early", 6_500, **ago(hours=2))
    await buy(shop, ben, "A-1", 4_000)
    await refund(shop, "early", "r-1", 6_500)

    await shop.do(AMEND, **amendment([], ben, 20_000))

    row = await database().row("SELECT status, obstacle FROM invite WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None
    assert (row["status"], row["obstacle"]) == ("PENDING", "EXISTING_CUSTOMER")
    assert await both(shop, anna, ben) == [0, 160]
    await sound(shop)
