"""reverseRedemption. Without these a return could be booked twice, or a code come back to life unasked."""

import asyncio
from typing import Any

import pytest

from tests.factories import CODE, REDEEM_CODES, REFUSALS, Shop, usd
from tests.orders.documents import order_of, stacked
from tests.orders.presented import expire

REVERSE = f"""
mutation ($input: ReverseRedemptionInput!) {{
  answer: reverseRedemption(input: $input) {{
    __typename
    ... on ReverseRedemptionSuccess {{ redemption {{ id reversedAt }} code {{ {CODE} }} }}
    {REFUSALS} ... on AlreadyReversed {{ redemption {{ id reversedAt }} }}
  }}
}}
"""
EVENTS = "query { events(first: 1) { edges { node { type subjectId reason } } } }"


async def redeemed(shop: Shop, order: str = "order-1") -> tuple[Any, Any, Any]:
    """Return a pool, its member's redeemed code and the redemption."""
    pool = await shop.pool(codes=2)
    member = await shop.member()
    code = await shop.claim(pool, member)
    answer = await shop.do(
        REDEEM_CODES, codes=[code["text"]], orderId=order, orderAmount=usd(1000), memberId=member["id"]
    )
    return pool, member | {"code": code}, answer["redemptions"][0]


async def test_a_reversed_redemption_reinstates_the_code(shop: Shop) -> None:
    pool, _, redemption = await redeemed(shop)

    answer = await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned goods")

    assert answer["redemption"]["id"] == redemption["id"]
    assert answer["redemption"]["reversedAt"] is not None
    assert answer["code"]["state"] == "ALLOCATED"
    assert answer["code"]["redeemedAt"] is None
    assert answer["code"]["owner"]["wallet"]["version"] == 3
    assert (await shop.stock(pool))["allocated"] == 1
    assert (await shop.stock(pool))["redeemed"] == 0
    assert (await shop.data(EVENTS))["events"]["edges"][0]["node"] == {
        "type": "redemption.reversed", "subjectId": redemption["id"], "reason": "returned goods"
    }  # fmt: skip


async def test_a_reinstated_code_can_be_redeemed_again_on_the_same_order(shop: Shop) -> None:
    _, member, redemption = await redeemed(shop)
    await shop.do(REVERSE, redemptionId=redemption["id"], reason="wrong till")

    again = await shop.do(
        REDEEM_CODES, codes=[member["code"]["text"]], orderId="order-1", orderAmount=usd(1000), memberId=member["id"]
    )

    assert again["replayed"] is False
    assert again["redemptions"][0]["id"] != redemption["id"]


async def test_without_reinstating_the_code_stays_spent(shop: Shop) -> None:
    pool, member, redemption = await redeemed(shop)

    answer = await shop.do(REVERSE, redemptionId=redemption["id"], reason="fraud", reinstate=False)

    assert answer["code"]["state"] == "REDEEMED"
    assert answer["code"]["owner"]["wallet"]["version"] == 2
    assert (await shop.stock(pool))["redeemed"] == 1
    again = await shop.do(
        REDEEM_CODES, codes=[member["code"]["text"]], orderId="order-2", orderAmount=usd(1000), memberId=member["id"]
    )
    assert again["rejections"][0]["reason"] == "ALREADY_REDEEMED"


async def test_blank_reasons_are_refused(shop: Shop) -> None:
    _, _, redemption = await redeemed(shop)

    answer = await shop.refused(REVERSE, redemptionId=redemption["id"], reason=" ")

    assert answer["__typename"] == "InvalidInput"
    assert answer["problems"] == [{"path": ["reason"], "message": "must not be blank"}]


async def test_an_unknown_redemption_is_not_found(shop: Shop, other_shop: Shop) -> None:
    _, _, foreign = await redeemed(other_shop)
    before = await other_shop.state()
    for node in (foreign["id"], f"redemption_{'0' * 32}", "nonsense"):
        answer = await shop.refused(REVERSE, redemptionId=node, reason="why not")
        assert answer == {"__typename": "NotFound", "message": "There is no such redemption.", "id": node}
    assert await other_shop.state() == before


async def test_a_second_reversal_is_refused(shop: Shop) -> None:
    _, _, redemption = await redeemed(shop)
    first = await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned")

    answer = await shop.refused(REVERSE, redemptionId=redemption["id"], reason="returned")

    assert answer["__typename"] == "AlreadyReversed"
    assert answer["redemption"] == first["redemption"]


async def test_of_twenty_reversals_at_once_one_counts(shop: Shop) -> None:
    pool, _, redemption = await redeemed(shop)

    answers = await asyncio.gather(
        *[shop.do(REVERSE, redemptionId=redemption["id"], reason=f"caller {n}") for n in range(20)]
    )

    kinds = sorted(answer["__typename"] for answer in answers)
    assert kinds == ["AlreadyReversed"] * 19 + ["ReverseRedemptionSuccess"]
    assert (await shop.stock(pool))["allocated"] == 1


async def test_what_is_left_of_a_stack_is_priced_anew(shop: Shop) -> None:
    member = await shop.member()
    codes, redemptions = await stacked(shop, member, 50.0, 20.0, 10.0)
    before = await shop.state()

    answer = await shop.do(REVERSE, redemptionId=redemptions[0]["id"], reason="returned goods")

    assert answer["code"]["state"] == "ALLOCATED"
    assert (await shop.state()).since(before) == {
        "sales_order": 0, "redemption": 0, "reversal": 1, "code": 0, "stock_change": 1, "wallet": 0, "event": 1
    }  # fmt: skip
    left = (await order_of(shop, "A-1"))["redemptions"]
    assert [(each["id"], each["position"], each["discount"]["amountMinor"]) for each in left] == [
        (redemptions[1]["id"], 1, 2_000), (redemptions[2]["id"], 2, 800)
    ]  # fmt: skip
    stale = await shop.redeem([code["text"] for code in codes], member, order="A-1")
    assert [each["reason"] for each in stale["rejections"]] == ["NOT_STACKABLE", "ALREADY_REDEEMED", "ALREADY_REDEEMED"]
    again = await shop.redeem([code["text"] for code in codes[1:]], member, order="A-1")
    assert (again["replayed"], again["totalDiscount"]) == (True, usd(2_800))
    assert await shop.broken_promises() == []


async def test_a_stack_is_taken_back_code_by_code(shop: Shop) -> None:
    member = await shop.member()
    codes, redemptions = await stacked(shop, member, 50.0, 20.0, 10.0, 5.0)

    answers = await asyncio.gather(
        *(shop.do(REVERSE, redemptionId=each["id"], reason="all at once") for each in redemptions)
    )

    assert {answer["__typename"] for answer in answers} == {"ReverseRedemptionSuccess"}
    assert (await order_of(shop, "A-1"))["redemptions"] == []
    again = await shop.redeem([code["text"] for code in codes], member, order="A-1", amount=500)
    assert again["replayed"] is False
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("reinstate", [True, False])
async def test_a_code_that_comes_back_past_its_end_is_expired(shop: Shop, reinstate: bool) -> None:
    pool = await shop.pool(codes=1, codeLifetimeDays=1)
    code = await shop.claim(pool, member := await shop.member())
    (redemption,) = (await shop.redeem([code["text"]], member))["redemptions"]
    await expire(shop, code)

    answer = await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned", reinstate=reinstate)

    assert answer["code"]["state"] == ("EXPIRED" if reinstate else "REDEEMED")
    assert answer["code"]["owner"]["wallet"]["version"] == (4 if reinstate else 2)
    assert (answer["code"]["redeemedAt"] is None) is reinstate
    assert answer["redemption"]["reversedAt"] is not None
    assert await shop.broken_promises() == []


async def test_a_code_of_a_stack_may_stay_spent(shop: Shop) -> None:
    codes, redemptions = await stacked(shop, await shop.member(), 50.0, 20.0)

    answer = await shop.do(REVERSE, redemptionId=redemptions[0]["id"], reason="fraud", reinstate=False)

    assert answer["code"] == codes[0] | {
        "state": "REDEEMED", "text": None, "redeemedAt": redemptions[0]["redeemedAt"],
        "owner": codes[0]["owner"] | {"wallet": {"version": 4}},
    }  # fmt: skip
    assert [each["discount"]["amountMinor"] for each in (await order_of(shop, "A-1"))["redemptions"]] == [2_000]
    assert await shop.broken_promises() == []
