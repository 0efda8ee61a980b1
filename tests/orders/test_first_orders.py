"""Codes for first orders. Without these a welcome gift could be had with every order, or not at all."""

import asyncio
from typing import Any

from app.storage.database import database
from tests.coupons.ownership import claim_by_email
from tests.factories import CHECK_CODES, REDEEM_CODES, Shop, usd
from tests.orders.documents import AMEND, CANCEL
from tests.orders.holding import CAPTURE, HOLD, RELEASE, cart, hold, let_pass, reasons
from tests.orders.test_reverse_redemption import REVERSE as REVERSE_REDEMPTION
from tests.people.documents import merge
from tests.people.lives import indexes
from tests.points.documents import REVERSE, purchase, refund

OK = "RedeemCodesSuccess"


async def presented(shop: Shop, code: Any, order: str, *, document: str = REDEEM_CODES, **presenter: Any) -> str:
    """Present a code for an order, and return why not, or the answer's kind."""
    asked = {"codes": [code["text"]], "orderId": order, "orderAmount": usd(5_000)} | presenter
    answer = (await shop.data(document, {"input": asked}))["answer"]
    rejections = answer.get("rejections")
    return str(rejections[0]["reason"] if rejections else answer["__typename"])


async def welcome(shop: Shop, member: Any, **terms: Any) -> Any:
    """Return a code for a first order."""
    return await shop.claim(await shop.pool(firstOrderOnly=True, **terms), member)


async def test_a_code_for_first_orders_is_for_the_first_one(shop: Shop) -> None:
    member = await shop.member()
    code, other = await welcome(shop, member), await welcome(shop, member)
    who = {"memberId": member["id"]}

    assert await presented(shop, code, "o-1", document=CHECK_CODES, **who) == OK
    assert await presented(shop, code, "o-1", **who) == OK
    assert await presented(shop, code, "o-1", **who) == OK
    # What is recorded for it is the same order.
    await purchase(shop, member, "o-1", 4_500)
    assert await presented(shop, other, "o-2", document=CHECK_CODES, **who) == "NOT_FIRST_ORDER"
    assert await presented(shop, other, "o-2", **who) == "NOT_FIRST_ORDER"
    assert await shop.broken_promises() == []


async def test_the_numbers_of_two_channels_are_two_orders(shop: Shop) -> None:
    member = await shop.member()
    code = await welcome(shop, member)
    await purchase(shop, member, "o-1", source="SHOPIFY")

    assert await presented(shop, code, "o-1", memberId=member["id"]) == "NOT_FIRST_ORDER"
    assert await presented(shop, code, "o-1", memberId=member["id"], source="SHOPIFY") == OK


async def test_what_a_guest_ordered_counts_though_its_record_was_merged(shop: Shop) -> None:
    kept = await shop.member(email="new@example.com", emailVerified=True)
    bought = await claim_by_email(shop, await shop.pool(), "old@example.com")
    assert await presented(shop, bought, "o-1", email="old@example.com") == OK
    merged = await shop.member(email="old@example.com", emailVerified=True)
    code = await welcome(shop, merged)
    assert await presented(shop, code, "o-2", document=CHECK_CODES, memberId=merged["id"]) == "NOT_FIRST_ORDER"

    assert (await merge(shop, kept, merged))["__typename"] == "MergeMembersSuccess"

    assert await presented(shop, code, "o-2", memberId=kept["id"]) == "NOT_FIRST_ORDER"


async def test_a_persons_first_order_takes_every_mailbox_that_it_has_proved(shop: Shop) -> None:
    """Or a guest with another spelling of one that isn't shown could have a first order at the same moment."""
    kept = await shop.member(email="new@example.com", emailVerified=True)
    await merge(shop, kept, await shop.member(email="old@example.com", emailVerified=True))
    code = await welcome(shop, kept)

    assert await presented(shop, code, "o-1", memberId=kept["id"]) == OK

    _, shown, _, other = await indexes(shop, "new@example.com", "old@example.com")
    taken = await database().rows("SELECT person FROM first_order WHERE merchant_id = $1", shop.merchant_id)
    assert {shown, other} <= {row["person"] for row in taken}


async def test_an_order_that_went_back_whole_was_none(shop: Shop) -> None:
    member = await shop.member()
    code = await welcome(shop, member)
    await purchase(shop, member, "o-1")

    await refund(shop, "o-1", "a part", 400)
    assert await presented(shop, code, "o-2", memberId=member["id"]) == "NOT_FIRST_ORDER"
    await shop.do(REVERSE, source="STORE", orderId="o-1", reason="the rest")
    assert await presented(shop, code, "o-2", memberId=member["id"]) == OK


async def test_an_order_with_any_code_counts_until_that_is_taken_back(shop: Shop) -> None:
    member = await shop.member()
    code, plain = await welcome(shop, member), await shop.claim(await shop.pool(), member)
    redeemed = await shop.redeem([plain["text"]], member, order="o-1")

    assert await presented(shop, code, "o-2", memberId=member["id"]) == "NOT_FIRST_ORDER"
    redemption = redeemed["redemptions"][0]["id"]
    await shop.do(REVERSE_REDEMPTION, redemptionId=redemption, reason="a return", reinstate=True)
    assert await presented(shop, code, "o-2", memberId=member["id"]) == OK
    await shop.do(CANCEL, orderId="o-2", reason="called off")
    assert await presented(shop, code, "o-3", memberId=member["id"]) == OK
    assert await shop.broken_promises() == []


async def test_guests_are_known_by_their_mailbox(shop: Shop) -> None:
    pools = [await shop.pool(firstOrderOnly=True, oneClaimPerMailbox=False) for _ in range(2)]
    first = await claim_by_email(shop, pools[0], "anna@example.com")
    second = await claim_by_email(shop, pools[1], "anna+2@example.com")

    assert await presented(shop, first, "o-1", email="anna@example.com") == OK
    assert await presented(shop, second, "o-2", email="anna+2@example.com") == "NOT_FIRST_ORDER"

    # Once she has proved her address, she still has had her first order as a guest.
    member = await shop.member(email="anna+2@example.com", emailVerified=True)
    assert await presented(shop, second, "o-2", memberId=member["id"]) == "NOT_FIRST_ORDER"
    await shop.do(CANCEL, orderId="o-1", reason="called off")
    assert await presented(shop, second, "o-2", memberId=member["id"]) == OK
    assert await shop.broken_promises() == []


async def test_a_guest_with_a_members_mailbox_has_the_members_orders(shop: Shop) -> None:
    member = await shop.member(email="anna@example.com", emailVerified=True)
    code = await claim_by_email(shop, await shop.pool(firstOrderOnly=True), "anna+2@example.com")
    await purchase(shop, member, "o-1")

    assert await presented(shop, code, "o-2", email="anna+2@example.com") == "NOT_FIRST_ORDER"


async def test_who_is_not_named_has_no_first_order(shop: Shop) -> None:
    member = await shop.member()
    code = await welcome(shop, member, transferable=True)

    assert await presented(shop, code, "o-1") == "NOT_FIRST_ORDER"
    assert await presented(shop, code, "o-1", memberId=(await shop.member())["id"]) == OK


async def test_a_code_stays_on_an_amended_order_whatever_was_ordered_since(shop: Shop) -> None:
    member = await shop.member()
    code = await welcome(shop, member)
    await presented(shop, code, "o-1", memberId=member["id"])
    await purchase(shop, member, "o-2")

    amended = await shop.do(
        AMEND, orderId="o-1", codes=[code["text"]], orderAmount=usd(6_000), memberId=member["id"], reason="more",
        idempotencyKey="k",
    )  # fmt: skip

    assert amended["__typename"] == "AmendOrderSuccess"


async def test_of_two_first_orders_at_once_one_wins(shop: Shop) -> None:
    member = await shop.member(email="anna@example.com", emailVerified=True)
    codes = [await welcome(shop, member) for _ in range(4)]
    guests = [
        await claim_by_email(shop, await shop.pool(firstOrderOnly=True), f"anna+{number}@example.com")
        for number in range(4)
    ]

    answers = await asyncio.gather(
        *(presented(shop, code, f"o-{number}", memberId=member["id"]) for number, code in enumerate(codes)),
        *(
            presented(shop, code, f"g-{number}", email=f"anna+{number}@example.com")
            for number, code in enumerate(guests)
        ),
    )

    assert sorted(answers) == ["NOT_FIRST_ORDER"] * 7 + [OK]
    assert await shop.broken_promises() == []


async def test_what_is_held_is_an_order_until_it_is_released(shop: Shop) -> None:
    member = await shop.member()
    code, other = await welcome(shop, member), await welcome(shop, member)
    held = await hold(shop, [code], member)

    assert await presented(shop, other, "o-2", memberId=member["id"]) == "NOT_FIRST_ORDER"
    # The same code in another cart of the same person ends the first one.
    again = await shop.do(HOLD, **cart([code], member, order="A-2"))
    assert (again["__typename"], again["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert (await shop.do(RELEASE, holdId=again["hold"]["id"]))["__typename"] == "ReleaseHoldSuccess"
    assert await presented(shop, other, "o-2", memberId=member["id"]) == OK
    assert reasons(await shop.do(HOLD, **cart([code], member, order="A-3"))) == ["NOT_FIRST_ORDER"]
    assert held["status"] == "HELD"
    assert await shop.broken_promises() == []


async def test_a_first_cart_that_is_paid_late_has_what_it_was_told(shop: Shop) -> None:
    member = await shop.member()
    codes = [await welcome(shop, member) for _ in range(3)]
    held = await hold(shop, codes[:1], member, order="A-1")
    await let_pass(shop, held)
    assert await presented(shop, codes[1], "A-2", memberId=member["id"]) == OK

    assert (await shop.do(CAPTURE, holdId=held["id"]))["__typename"] == "CaptureHoldSuccess"

    assert await presented(shop, codes[2], "A-3", memberId=member["id"]) == "NOT_FIRST_ORDER"
    assert await shop.broken_promises() == []


async def test_of_two_first_carts_at_once_one_is_held_and_can_be_paid(shop: Shop) -> None:
    member = await shop.member()
    codes = [await welcome(shop, member) for _ in range(4)]

    answers = await asyncio.gather(
        *(shop.do(HOLD, **cart([code], member, order=f"A-{number}")) for number, code in enumerate(codes))
    )

    assert sorted(answer["__typename"] for answer in answers) == ["CodesRejected"] * 3 + ["HoldCheckoutSuccess"]
    (held,) = (answer["hold"] for answer in answers if "hold" in answer)
    assert (await shop.do(CAPTURE, holdId=held["id"]))["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []
