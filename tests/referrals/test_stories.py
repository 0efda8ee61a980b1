"""Referrals as a shop tells them. Without these each rule could hold alone, and people still be paid wrongly.

Anna refers, Ben is referred, and the shop's till, its web shop and its support agents call the API.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.referrals.expire_invites import expire_batch
from tests.factories import EDIT_MEMBER, REFUSALS, Shop, usd
from tests.points.documents import points
from tests.referrals.documents import (
    ACCEPT_INVITE,
    INVITE_MEMBERS,
    INVITES,
    RECORD_PURCHASE,
    REFERRAL,
    broken,
    invited,
    invites_age,
    program,
    reasons,
    sent_earlier,
)

PROVE = f"""
mutation ($input: VerifyMemberEmailInput!) {{
  answer: verifyMemberEmail(input: $input) {{
    __typename ... on VerifyMemberEmailSuccess {{ member {{ emailVerified }} referral {{ {REFERRAL} }} }} {REFUSALS}
  }}
}}
"""


async def opens(shop: Shop, **terms: Any) -> None:
    """The shop pays 100 points for a friend who buys, and 50 to the friend."""
    await program(shop, **({"convertsOn": "FIRST_PURCHASE"} | terms))


async def joins(shop: Shop, invite: Any, email: str, **how: Any) -> Any:
    """Somebody comes with the link and an address, at the till, and nobody has proved the address."""
    return await shop.do(ACCEPT_INVITE, key=await shop.key("CHECKOUT"), token=invite["token"], email=email, **how)


async def buys(shop: Shop, member: Any, order: str, amount: int = 2_500, *, hours_ago: float = 0) -> Any:
    """The till records an order."""
    at = {"occurredAt": (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat()} if hours_ago else {}
    return await shop.do(
        RECORD_PURCHASE, key=await shop.key("CHECKOUT"), memberId=member["id"], source="SHOPIFY", orderId=order,
        amount=usd(amount), **at,
    )  # fmt: skip


async def proves(shop: Shop, member: Any) -> Any:
    """Somebody follows the link in the mail that the shop sent to its address, and the shop records it."""
    return await shop.do(PROVE, key=await shop.key("CHECKOUT"), memberId=member["id"])


async def test_twenty_invented_addresses_earn_nothing(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN")
    mallory = await shop.member(email="mallory@example.com", emailVerified=True)
    invented = [f"nobody-{number}@invented.example" for number in range(20)]
    sent = await shop.do(INVITE_MEMBERS, emails=invented, key=await shop.token(mallory["id"]))

    joined = [await joins(shop, invite, email) for invite, email in zip(sent["invites"], invented, strict=True)]
    assert {(each["invite"]["status"], each["referral"], each["obstacle"]) for each in joined} == {
        ("PENDING", None, None)
    }
    assert await points(shop, mallory) == 0

    # The one that turns out to be somebody's is paid for, then and once.
    real = await proves(shop, joined[7]["member"])
    again = await proves(shop, joined[7]["member"])
    assert real["referral"]["referee"] == {"id": joined[7]["member"]["id"]}
    assert (again["__typename"], again["referral"]) == ("VerifyMemberEmailSuccess", None)
    assert (await points(shop, mallory), await points(shop, joined[7]["member"])) == (100, 50)
    assert await broken(shop) == []


async def test_ben_buys_at_once_and_reads_his_mail_in_the_evening(shop: Shop) -> None:
    await opens(shop)
    anna = await shop.member()
    invite, email = await invited(shop, anna)
    ben = (await joins(shop, invite, email))["member"]

    bought = await buys(shop, ben, "B-1")
    assert (bought["referral"], await points(shop, anna)) == (None, 0)

    evening = await proves(shop, ben)
    assert (evening["referral"]["referee"], await points(shop, anna)) == ({"id": ben["id"]}, 100)
    # What converts once doesn't convert again.
    assert (await buys(shop, ben, "B-2"))["referral"] is None
    assert await points(shop, ben) == 50 + 2 * 25


async def test_ben_signs_up_on_the_web_with_his_own_address_and_remembers_the_link_later(shop: Shop) -> None:
    await opens(shop)
    anna = await shop.member()
    invite, _ = await invited(shop, anna, "ben@work.example")
    ben = await shop.member(email="ben@home.example", emailVerified=True, displayName="Ben", source="SHOPIFY")
    await buys(shop, ben, "S-1")

    # The invited address isn't his account's, and without naming him the shop would enrol him twice.
    twice = await joins(shop, invite, "ben@home.example")
    assert (twice["__typename"], twice["existing"]) == ("MemberAlreadyExists", {"id": ben["id"]})
    accepted = await joins(shop, invite, "ben@home.example", memberId=ben["id"])

    assert accepted["member"]["source"] == "SHOPIFY"
    assert (accepted["invite"]["status"], accepted["referral"]["referrer"]) == ("CONVERTED", {"id": anna["id"]})
    assert (await points(shop, anna), await points(shop, ben)) == (100, 25 + 50)
    assert await broken(shop) == []


async def test_the_shop_hears_of_the_order_before_it_hears_of_the_sign_up(shop: Shop) -> None:
    await opens(shop)
    anna = await shop.member()
    invite, email = await invited(shop, anna)
    await sent_earlier(shop, 7)
    ben = (await joins(shop, invite, email, emailVerified=True))["member"]

    long_ago = await buys(shop, ben, "S-1", hours_ago=30)
    with_the_sign_up = await buys(shop, ben, "S-2", hours_ago=2)

    assert long_ago["referral"] is None
    assert with_the_sign_up["referral"]["referrer"] == {"id": anna["id"]}


async def test_anna_tries_to_be_her_own_friend(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN")
    anna = await shop.member(email="anna.smith@gmail.com", emailVerified=True)
    token = await shop.token(anna["id"])

    skipped = await shop.do(INVITE_MEMBERS, emails=["annasmith+shop@gmail.com"], key=token)
    invite, _ = await invited(shop, anna, "a-friend@example.com")
    joined = await joins(shop, invite, "anna.smith+friend@googlemail.com", emailVerified=True)

    assert reasons(skipped) == [("annasmith+shop@gmail.com", "SELF")]
    assert (joined["__typename"], joined["obstacle"], joined["referral"]) == ("AcceptInviteSuccess", "SELF", None)
    await buys(shop, joined["member"], "A-1")
    assert (await points(shop, anna), joined["invite"]["status"]) == (0, "PENDING")


async def test_anna_invites_herself_by_the_address_that_she_is_moving_to(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN")
    anna = await shop.member(email="anna@example.com", emailVerified=True)
    # She told support of it, and hasn't followed the link in the mail yet.
    await shop.do(EDIT_MEMBER, memberId=anna["id"], email="anna@new.example")
    token = await shop.token(anna["id"])

    skipped = await shop.do(INVITE_MEMBERS, emails=["anna+shop@new.example"], key=token)
    invite, _ = await invited(shop, anna, "a-friend@example.com")
    joined = await joins(shop, invite, "anna+friend@new.example", emailVerified=True)

    assert reasons(skipped) == [("anna+shop@new.example", "SELF")]
    assert (joined["obstacle"], joined["referral"], await points(shop, anna)) == ("SELF", None, 0)


async def test_an_old_customer_is_welcome_and_is_not_paid_for(shop: Shop) -> None:
    await opens(shop)
    anna, otto = await shop.member(), await shop.member(email="otto@gmail.com", emailVerified=True)
    invite, _ = await invited(shop, anna, "somebody@example.com")
    other, email = await invited(shop, anna, "o.t.t.o@gmail.com")

    himself = await joins(shop, invite, "otto@gmail.com", memberId=otto["id"])
    spelt_otherwise = await joins(shop, other, email, emailVerified=True)

    assert (await shop.event_types()).count("invite.obstructed") == 2
    for accepted in (himself, spelt_otherwise):
        assert (accepted["__typename"], accepted["obstacle"]) == ("AcceptInviteSuccess", "EXISTING_CUSTOMER")
        assert (await buys(shop, accepted["member"], accepted["invite"]["id"]))["referral"] is None
    assert await points(shop, anna) == 0


async def test_a_guest_who_bought_before_the_invite_is_a_customer_too(shop: Shop) -> None:
    await opens(shop)
    anna = await shop.member()
    invite, email = await invited(shop, anna)
    ben = await shop.member(email=email, emailVerified=True)
    # The shop tells late of what he bought as a guest last week.
    await buys(shop, ben, "G-1", hours_ago=24 * 7)
    await buys(shop, ben, "G-2")

    accepted = await joins(shop, invite, email, memberId=ben["id"])

    assert (accepted["obstacle"], accepted["referral"], await points(shop, anna)) == ("EXISTING_CUSTOMER", None, 0)


async def test_eve_lets_two_friends_invite_her_by_two_spellings(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN")
    anna, carl = await shop.member(), await shop.member()
    first, one = await invited(shop, anna, "eve@gmail.com")
    second, two = await invited(shop, carl, "e.v.e+shopping@googlemail.com")

    paid = await joins(shop, first, one, emailVerified=True)
    unpaid = await joins(shop, second, two)
    proven = await proves(shop, unpaid["member"])

    assert (paid["obstacle"], paid["invite"]["status"]) == (None, "CONVERTED")
    assert (unpaid["obstacle"], proven["referral"]) == ("MAILBOX_REWARDED", None)
    assert (await points(shop, anna), await points(shop, carl)) == (100, 0)


async def test_a_shop_for_families_pays_for_each_spelling(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN", oneRewardPerMailbox=False)
    anna = await shop.member()
    sent = [await invited(shop, anna, f"family+{name}@example.com") for name in ("mum", "dad")]

    joined = [await joins(shop, invite, email, emailVerified=True) for invite, email in sent]
    assert [each["invite"]["status"] for each in joined] == ["CONVERTED", "CONVERTED"]
    assert (await points(shop, anna), await shop.count("rewarded_mailbox")) == (200, 1)

    # When it changes its mind, who was paid for before stays paid for.
    third, email = await invited(shop, anna, "family+son@example.com")
    await sent_earlier(shop, 10)
    await opens(shop, convertsOn="JOIN", oneRewardPerMailbox=True)
    assert (await joins(shop, third, email, emailVerified=True))["obstacle"] == "MAILBOX_REWARDED"


async def test_a_coffee_is_not_enough(shop: Shop) -> None:
    await opens(shop, minimumPurchase=usd(2_000))
    anna = await shop.member()
    invite, email = await invited(shop, anna)
    ben = (await joins(shop, invite, email, emailVerified=True))["member"]

    coffee, almost = await buys(shop, ben, "C-1", 350), await buys(shop, ben, "C-2", 1_999)
    enough = await buys(shop, ben, "C-3", 2_000)

    assert (coffee["referral"], almost["referral"]) == (None, None)
    assert enough["referral"]["referrer"] == {"id": anna["id"]}


async def test_a_link_that_ran_out_keeps_nobody_from_the_next_one(shop: Shop) -> None:
    await opens(shop)
    anna, carl = await shop.member(), await shop.member()
    annas, email = await invited(shop, anna)
    ben = (await joins(shop, annas, email))["member"]
    await invites_age(shop, 30)
    await expire_batch(shop.merchant_id)
    assert ((await buys(shop, ben, "L-1"))["referral"], (await proves(shop, ben))["referral"]) == (None, None)

    carls, other = await invited(shop, carl, "ben@work.example")
    await sent_earlier(shop, 1)
    accepted = await joins(shop, carls, other, memberId=ben["id"])

    # He was no customer when Carl invited him, and what he bought since then counts.
    assert (accepted["obstacle"], accepted["referral"]["referrer"]) == (None, {"id": carl["id"]})
    assert (await points(shop, anna), await points(shop, carl)) == (0, 100)


async def test_the_shop_changes_its_program_while_ben_looks_for_the_mail(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN")
    anna = await shop.member()
    invite, email = await invited(shop, anna)
    ben = (await joins(shop, invite, email))["member"]
    await opens(shop, convertsOn="FIRST_PURCHASE", minimumPurchase=usd(10_000))

    proven = await proves(shop, ben)

    assert proven["referral"]["referrer"] == {"id": anna["id"]}


async def test_support_sees_why_nothing_came_and_anna_does_not(shop: Shop) -> None:
    await opens(shop, convertsOn="JOIN")
    anna, otto = await shop.member(), await shop.member(email="otto@example.com", emailVerified=True)
    invite, _ = await invited(shop, anna, "somebody@example.com")
    await joins(shop, invite, "otto@example.com", memberId=otto["id"])

    seen = [
        (await shop.data(INVITES, key=key))["answer"]["edges"][0]["node"]["obstacle"]
        for key in (await shop.key("SUPPORT"), await shop.token(anna["id"]))
    ]

    # She isn't told who is a customer of the shop.
    assert seen == ["EXISTING_CUSTOMER", None]
