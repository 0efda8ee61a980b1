"""Codes for a part of an order. Without these a code for shoes would take its share of the whole cart."""

from typing import Any

import pytest

from tests.factories import CHECK_CODES, REDEEM_CODES, Shop, problems, usd
from tests.orders.documents import AMEND, amendment
from tests.orders.holding import CAPTURE, hold
from tests.orders.test_reverse_redemption import REVERSE

STACKED: dict[str, Any] = {"stacking": "STACKABLE"}


async def presented(
    shop: Shop, member: Any, codes: list[Any], *amounts: int | None, order: str = "o-1", amount: int = 10_000,
    document: str = REDEEM_CODES,
) -> Any:  # fmt: skip
    """Present codes, each for so much of an order (None: all of it), and return the answer."""
    eligible = [
        {"code": code["text"], "amount": usd(most)}
        for code, most in zip(codes, amounts, strict=False)
        if most is not None
    ]
    asked = {
        "codes": [code["text"] for code in codes], "orderId": order, "orderAmount": usd(amount),
        "memberId": member["id"], "eligible": eligible,
    }  # fmt: skip
    return (await shop.data(document, {"input": asked}))["answer"]


def shares(answer: Any) -> list[tuple[int, int]]:
    """Return base and discount of each redemption."""
    return [(each["base"]["amountMinor"], each["discount"]["amountMinor"]) for each in answer["redemptions"]]


async def two_codes(shop: Shop) -> tuple[Any, list[Any]]:
    """Return a member with a code for 60 off and one for half."""
    member = await shop.member()
    pools = [
        await shop.pool(kind="AMOUNT", amountOff=usd(6_000), **STACKED),
        await shop.pool(percentOff=50.0, **STACKED),
    ]
    return member, [await shop.claim(pool, member) for pool in pools]


async def test_a_code_takes_from_what_it_may_be_applied_to_or_what_is_left(shop: Shop) -> None:
    member, codes = await two_codes(shop)

    checked = await presented(shop, member, codes, 5_000, 7_000, document=CHECK_CODES)
    redeemed = await presented(shop, member, codes, 5_000, 7_000)

    # 50 of 60 off fit into what it is for; of the 50 that are left half, which is less than what the second is for.
    assert shares(checked) == shares(redeemed) == [(5_000, 5_000), (5_000, 2_500)]
    assert await shop.broken_promises() == []


async def test_what_a_code_may_be_applied_to_tells_orders_apart(shop: Shop) -> None:
    member, codes = await two_codes(shop)
    await presented(shop, member, codes, 5_000)

    assert (await presented(shop, member, codes, 5_000))["replayed"] is True
    assert (await presented(shop, member, codes, 5_000, 10_000))["replayed"] is True
    other = await presented(shop, member, codes, 4_000)
    assert [each["reason"] for each in other["rejections"]] == ["ALREADY_REDEEMED"] * 2


async def test_a_minimum_spend_is_compared_with_it(shop: Shop) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(minimumSpend=usd(5_000)), member)
    shown = "rejections { masked reason remedy { shortBy { amountMinor } } }"
    document = REDEEM_CODES.replace("rejections { masked reason }", shown)

    short = await presented(shop, member, [code], 4_000, document=document)

    assert short["rejections"][0]["reason"] == "BELOW_MINIMUM_SPEND"
    assert short["rejections"][0]["remedy"] == {"shortBy": {"amountMinor": 1_000}}
    assert shares(await presented(shop, member, [code], 5_000)) == [(5_000, 500)]


async def test_a_code_for_nothing_of_the_order_is_refused(shop: Shop) -> None:
    member, codes = await two_codes(shop)

    answer = await presented(shop, member, codes, 0, None)

    assert [each["reason"] for each in answer["rejections"]] == ["NOT_ELIGIBLE"]


@pytest.mark.parametrize(
    ("eligible", "path"),
    [
        ([("PCT-NOBODYS", 100)], "eligible.0.code"),
        ([("first", 100), ("first", 200)], "eligible.1.code"),
        ([("first", 10_001)], "eligible.0.amount.amountMinor"),
        ([("first", -1)], "eligible.0.amount.amountMinor"),
    ],
)
async def test_what_makes_no_sense_is_refused(shop: Shop, eligible: list[tuple[str, int]], path: str) -> None:
    member, (first, _) = await two_codes(shop)
    given = [{"code": first["text"] if code == "first" else code, "amount": usd(amount)} for code, amount in eligible]

    refusal = await shop.refused(
        REDEEM_CODES, codes=[first["text"]], orderId="o-1", orderAmount=usd(10_000), memberId=member["id"],
        eligible=given,
    )  # fmt: skip

    assert list(problems(refusal)) == [path]


async def test_a_code_is_known_however_it_is_typed(shop: Shop) -> None:
    member, (first, _) = await two_codes(shop)
    eligible = [{"code": first["text"].lower().replace("-", " "), "amount": usd(3_000)}]

    answer = await shop.do(
        REDEEM_CODES, codes=[first["text"]], orderId="o-1", orderAmount=usd(10_000), memberId=member["id"],
        eligible=eligible,
    )  # fmt: skip

    assert shares(answer) == [(3_000, 3_000)]


async def test_an_amendment_says_anew_what_codes_may_be_applied_to(shop: Shop) -> None:
    member, codes = await two_codes(shop)
    await presented(shop, member, codes, 5_000, 7_000)
    asked = amendment(codes, amount=10_000, orderId="o-1", memberId=member["id"])
    eligible = [{"code": codes[0]["text"], "amount": usd(2_000)}]

    amended = await shop.do(AMEND, **asked, eligible=eligible)
    again = await shop.do(AMEND, **asked, eligible=eligible)
    other = await shop.do(AMEND, **asked)

    assert shares(amended) == [(2_000, 2_000), (8_000, 4_000)]
    assert (again["replayed"], other["__typename"]) == (True, "IdempotencyKeyReused")
    assert await shop.broken_promises() == []


async def test_what_is_left_of_a_stack_keeps_what_it_may_be_applied_to(shop: Shop) -> None:
    member, codes = await two_codes(shop)
    redeemed = await presented(shop, member, codes, 5_000, 7_000)

    await shop.do(REVERSE, redemptionId=redeemed["redemptions"][0]["id"], reason="a return", reinstate=True)

    # The second may be applied to 70 of the whole order.
    assert shares(await presented(shop, member, codes[1:], 7_000)) == [(7_000, 3_500)]
    assert await shop.broken_promises() == []


async def test_a_hold_keeps_what_its_codes_may_be_applied_to(shop: Shop) -> None:
    member, codes = await two_codes(shop)
    eligible = [{"code": codes[0]["text"], "amount": usd(5_000)}, {"code": codes[1]["text"], "amount": usd(7_000)}]

    held = await hold(shop, codes, member, eligible=eligible)
    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert held["totalDiscount"] == usd(7_500)
    assert shares(captured["hold"]) == [(5_000, 5_000), (5_000, 2_500)]
    assert (await presented(shop, member, codes, 5_000, 7_000, order="A-1"))["replayed"] is True
    assert await shop.broken_promises() == []
