"""reverseRedemption. Without these a return could be booked twice, or a code come back to life unasked."""

import asyncio
from typing import Any

from tests.factories import CODE, REDEEM_CODES, REFUSALS, Shop, usd

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
