"""Conversion by the first purchase. Without these points could be given twice, early, or for a purchase of before."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.factories import Shop, usd
from tests.points.documents import RECORD, REVERSE, entries, grant, points
from tests.points.documents import broken as broken_points
from tests.referrals.documents import (
    CANCEL_INVITE,
    HELD_REFERRALS,
    RECORD_PURCHASE,
    REFERRALS,
    accepted,
    address,
    both_spellings,
    broken,
    happened,
    invited,
    invites_age,
    program,
    referrals_age,
    sent_earlier,
)

FULL = 2**31 - 1


async def buy(shop: Shop, member: Any, order: str, amount: int = 1000, **how: Any) -> Any:
    """Record a purchase, and return the answer."""
    values: dict[str, Any] = {"source": "STORE", "orderId": order, "amount": usd(amount)} | how
    return await shop.do(RECORD_PURCHASE, memberId=member["id"], **values)


async def waiting(shop: Shop, **change: Any) -> tuple[Any, Any]:
    """Return a referrer and a referee who hasn't bought yet."""
    await program(shop, **({"convertsOn": "FIRST_PURCHASE"} | change))
    referrer = await shop.member()
    return referrer, (await accepted(shop, referrer))["member"]


async def test_the_first_purchase_converts_and_credits_both(shop: Shop) -> None:
    referrer, referee = await waiting(shop)

    answer = await buy(shop, referee, "o-1")

    referral = answer["referral"]
    assert (referral["referrer"]["id"], referral["referee"]["id"]) == (referrer["id"], referee["id"])
    assert answer["entry"] == {"amount": 10, "balanceAfter": 60, "reason": "PURCHASE"}
    assert await entries(shop, referrer) == [(100, 100, "REFERRAL_REFERRER")]
    assert await entries(shop, referee) == [(50, 50, "REFERRAL_REFEREE"), (10, 60, "PURCHASE")]
    assert (await happened(shop))[-4:] == [
        "points.credited",
        "points.credited",
        "referral.converted",
        "points.credited",
    ]
    assert await broken(shop) == await broken_points(shop) == []


async def test_a_purchase_that_earns_nothing_still_shows_the_wallet_as_it_is(shop: Shop) -> None:
    _, referee = await waiting(shop)

    bought = await shop.do(RECORD, memberId=referee["id"], source="STORE", orderId="o-1", amount=usd(99))
    returned = await shop.do(REVERSE, purchaseId=bought["purchase"]["id"], reason="returned")

    assert (bought["entry"], bought["purchase"]["member"]["wallet"]) == (None, {"version": 1, "points": 50})
    assert (returned["entry"], returned["purchase"]["member"]["wallet"]) == (None, {"version": 2, "points": 0})


async def test_a_replay_answers_with_the_same_referral(shop: Shop) -> None:
    _, referee = await waiting(shop)
    first = await buy(shop, referee, "o-1")

    again = await buy(shop, referee, "o-1")

    assert again["replayed"] is True
    assert again["referral"]["id"] == first["referral"]["id"]


async def test_a_second_purchase_converts_nothing(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await buy(shop, referee, "o-1")

    second = await buy(shop, referee, "o-2")

    assert second["referral"] is None
    assert await points(shop, referrer) == 100
    assert await broken(shop) == []


async def test_a_purchase_of_a_member_that_was_not_referred_converts_nothing(shop: Shop) -> None:
    referrer, _ = await waiting(shop)

    assert (await buy(shop, referrer, "o-1"))["referral"] is None
    assert (await buy(shop, await shop.member(), "o-2"))["referral"] is None


async def test_a_purchase_of_long_before_the_join_or_of_nothing_does_not_count(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await sent_earlier(shop, 10)
    before = (datetime.now(UTC) - timedelta(days=1, minutes=1)).isoformat()

    old = await buy(shop, referee, "old", occurredAt=before)
    nothing = await buy(shop, referee, "nothing", 0)
    assert (old["referral"], nothing["referral"], await points(shop, referrer)) == (None, None, 0)

    within_the_day = (datetime.now(UTC) - timedelta(hours=23)).isoformat()
    assert (await buy(shop, referee, "new", occurredAt=within_the_day))["referral"] is not None
    assert await entries(shop, referrer) == [(100, 100, "REFERRAL_REFERRER")]


async def test_after_the_invites_lifetime_a_purchase_converts_nothing(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await invites_age(shop, 30)

    assert (await buy(shop, referee, "o-1"))["referral"] is None
    assert await points(shop, referrer) == 0


async def test_who_joined_under_first_purchase_stays_there_when_the_program_changes(shop: Shop) -> None:
    referrer, referee = await waiting(shop)
    await program(shop, convertsOn="JOIN", referrerPoints=7)

    assert (await buy(shop, referee, "o-1"))["referral"] is not None
    assert await points(shop, referrer) == 7


async def test_who_was_brought_brings_others_before_it_has_bought(shop: Shop) -> None:
    first, second = await waiting(shop)
    third = (await accepted(shop, second))["member"]

    await buy(shop, third, "o-3")
    await buy(shop, second, "o-2")

    listed = (await shop.data(REFERRALS))["answer"]["edges"]
    assert [(each["node"]["referrer"]["id"], each["node"]["referee"]["id"]) for each in listed] == [
        (first["id"], second["id"]), (second["id"], third["id"])
    ]  # fmt: skip
    assert await broken(shop) == []


@pytest.mark.parametrize("who", ["referrer", "referee"])
async def test_a_balance_that_cannot_hold_the_points_holds_the_referral_and_not_the_purchase(
    shop: Shop, who: str
) -> None:
    referrer, referee = await waiting(shop)
    await grant(shop, {"referrer": referrer, "referee": referee}[who], FULL - 49, "rich")

    answer = await buy(shop, referee, "o-1")

    assert (answer["__typename"], answer["referral"]) == ("RecordPurchaseSuccess", None)
    held = (await shop.data(HELD_REFERRALS))["answer"]["edges"]
    assert [each["node"]["reviewFlags"] for each in held] == [["BALANCE_FULL"]]
    assert await broken(shop) == await broken_points(shop) == []


async def test_flags_say_what_the_referrer_did_and_hold_nothing_back(shop: Shop) -> None:
    await program(shop, oneRewardPerMailbox=False)
    referrer = await shop.member()

    flags = [(await accepted(shop, referrer))["referral"]["reviewFlags"] for _ in range(6)]
    assert flags == [[]] * 5 + [["VELOCITY"]]
    await referrals_age(shop, 1)
    assert (await accepted(shop, referrer))["referral"]["reviewFlags"] == []
    await referrals_age(shop, 1)

    for made, flagged in zip(await both_spellings(shop, referrer, "same"), ([], ["ONE_MAILBOX"]), strict=True):
        assert made["referral"]["reviewFlags"] == flagged
    await referrals_age(shop, 1)

    own = [await accepted(shop, referrer, email=f"{number}@public.example") for number in range(3)]
    assert [made["referral"]["reviewFlags"] for made in own] == [[], [], []]
    assert await points(shop, referrer) == 1200
    assert await broken(shop) == []


async def test_many_invites_to_one_domain_are_flagged_unless_it_is_a_public_one(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    for domain in ("firm.example", "gmail.com"):
        for _ in range(9):
            await invited(shop, referrer, address(domain))

    public = await accepted(shop, referrer, email=address("gmail.com"))
    private = await accepted(shop, referrer, email=address("firm.example"))

    assert public["referral"]["reviewFlags"] == []
    assert private["referral"]["reviewFlags"] == ["ONE_DOMAIN"]


async def test_a_cancelled_invite_converts_nothing(shop: Shop) -> None:
    await program(shop)
    referrer, email = await shop.member(), address()
    invite, _ = await invited(shop, referrer, email)
    await shop.do(CANCEL_INVITE, inviteId=invite["id"])
    member = await shop.member(email=email)

    assert (await buy(shop, member, "o-1"))["referral"] is None
