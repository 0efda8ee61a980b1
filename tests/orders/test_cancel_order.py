"""cancelOrder. Without these an order that was called off could go on giving discounts, points or codes."""

import asyncio
from typing import Any

import pytest

from tests.factories import REDEEM_CODES, Shop, problems, usd
from tests.orders.documents import CANCEL, cancellation, order_of, stacked
from tests.orders.presented import expire, order
from tests.points.documents import RECORD, grant, points, purchase

EVENTS = "query { events(first: 10) { edges { node { type subjectId reason } } } }"


async def states(shop: Shop, *codes: Any) -> list[str]:
    """Return the states of codes."""
    document = "query ($id: ID!) { node(id: $id) { ... on Code { state } } }"
    return [(await shop.data(document, {"id": code["id"]}))["node"]["state"] for code in codes]


async def test_a_redeemed_order_is_called_off_with_its_codes(shop: Shop) -> None:
    member = await shop.member()
    codes, redemptions = await stacked(shop, member, 50.0, 20.0)
    shown = (await order_of(shop, "A-1"))["id"]
    before = await shop.state()

    answer = await shop.do(CANCEL, **cancellation())

    cancelled_at = answer["order"].pop("cancelledAt")
    assert cancelled_at is not None
    assert answer == {
        "__typename": "CancelOrderSuccess", "replayed": False, "moneyReturned": usd(0), "pointsReturned": 0,
        "pointsExpired": 0, "shortfall": 0, "kept": [],
        "order": {"id": shown, "source": "STORE", "orderId": "A-1", "purchase": None, "redemptions": []},
    }  # fmt: skip
    assert await states(shop, *codes) == ["ALLOCATED", "ALLOCATED"]
    assert (await shop.state()).since(before) == {
        "sales_order": 0, "redemption": 0, "reversal": 2, "code": 0, "stock_change": 2, "wallet": 0, "event": 3
    }  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5, 6]
    told = [edge["node"] for edge in (await shop.data(EVENTS))["events"]["edges"]]
    assert told[0] == {"type": "order.cancelled", "subjectId": shown, "reason": "out of stock"}
    assert {each["subjectId"] for each in told[1:3]} == {each["id"] for each in redemptions}
    assert await shop.broken_promises() == []


async def test_codes_may_stay_spent(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 50.0, 20.0)

    answer = await shop.do(CANCEL, **cancellation(reinstate=False))

    assert answer["order"]["redemptions"] == []
    assert await states(shop, *codes) == ["REDEEMED", "REDEEMED"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert await shop.broken_promises() == []


async def test_codes_past_their_end_are_expired(shop: Shop) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(codeLifetimeDays=1), member)
    await shop.redeem([code["text"]], member, order="A-1")
    await expire(shop, code)

    await shop.do(CANCEL, **cancellation())

    assert await states(shop, code) == ["EXPIRED"]
    assert await shop.broken_promises() == []


async def test_again_it_is_the_same_answer(shop: Shop) -> None:
    member = await shop.member()
    await stacked(shop, member, 50.0)
    first = await shop.do(CANCEL, **cancellation())
    support = await shop.key("SUPPORT")
    before = await shop.state()

    again = await shop.do(CANCEL, **cancellation(reason="again", reinstate=False), key=support)

    assert again == first | {"replayed": True}
    assert await shop.state() == before


async def test_of_fifty_calls_at_once_one_calls_it_off(shop: Shop) -> None:
    member = await shop.member()
    await stacked(shop, member, 50.0, 20.0)
    await purchase(shop, member, "A-1", 4_000)

    answers = await asyncio.gather(*(shop.do(CANCEL, **cancellation()) for _ in range(50)))

    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 49
    assert all(answer | {"replayed": True} == answers[0] | {"replayed": True} for answer in answers)
    assert await points(shop, member) == 0
    assert await shop.broken_promises() == []


async def test_nothing_is_done_for_an_order_that_is_off(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 50.0)
    await shop.do(CANCEL, **cancellation())
    bought = {"memberId": member["id"], "source": "STORE", "orderId": "A-1", "amount": usd(5_000)}
    texts = [codes[0]["text"]]

    refused = [
        await shop.refused(REDEEM_CODES, **order(texts, member, orderId="A-1")),
        await shop.refused(REDEEM_CODES.replace("mutation", "query").replace("redeemCodes", "checkCodes"),
                           **order(texts, member, orderId="A-1")),
        await shop.refused(RECORD, **bought),
    ]  # fmt: skip

    assert [each["__typename"] for each in refused] == ["OrderNotOpen"] * 3
    unknown = await shop.refused(REDEEM_CODES, **order(["no such code"], member, orderId="A-1"))
    assert unknown["__typename"] == "OrderNotOpen"
    other = await shop.do(REDEEM_CODES, **order(texts, member, orderId="A-1", source="SHOPIFY"))
    assert other["replayed"] is False


async def test_what_is_left_of_a_purchase_goes_back(shop: Shop) -> None:
    member = await shop.member()
    await stacked(shop, member, 50.0)
    made = await purchase(shop, member, "A-1", 5_000)
    await grant(shop, member, -30, "spent")

    answer = await shop.do(CANCEL, **cancellation())

    assert (answer["moneyReturned"], answer["shortfall"]) == (usd(5_000), 30)
    assert answer["order"]["purchase"]["id"] == made["purchase"]["id"]
    assert answer["order"]["purchase"]["reversedAt"] is not None
    assert await points(shop, member) == 0
    again = await shop.do(CANCEL, **cancellation())
    assert again == answer | {"replayed": True}
    refused = await shop.refused(
        RECORD, memberId=member["id"], source="STORE", orderId="A-1", amount=usd(5_000)
    )  # fmt: skip
    assert refused["__typename"] == "OrderNotOpen"
    assert await shop.broken_promises() == []


async def test_an_order_that_was_only_recorded_is_called_off_under_the_id_that_it_had(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "A-1", 5_000)
    shown = (await order_of(shop, "A-1"))["id"]
    code = await shop.claim(await shop.pool(), member)

    answer = await shop.do(CANCEL, **cancellation())

    assert (answer["order"]["id"], answer["moneyReturned"]) == (shown, usd(5_000))
    assert (await order_of(shop, "A-1"))["cancelledAt"] == answer["order"]["cancelledAt"]
    refused = await shop.refused(REDEEM_CODES, **order([code["text"]], member, orderId="A-1"))
    assert refused["__typename"] == "OrderNotOpen"
    assert await shop.broken_promises() == []


async def test_an_order_that_nobody_knows_is_not_found(shop: Shop, other_shop: Shop) -> None:
    await stacked(other_shop, await other_shop.member(), 50.0)
    await stacked(shop, await shop.member(), 50.0)

    foreign = await shop.refused(CANCEL, **cancellation(orderId="A-2"))
    channel = await shop.refused(CANCEL, **cancellation(source="SHOPIFY"))

    assert foreign == {"__typename": "NotFound", "message": "There is no such order.", "id": "A-2"}
    assert channel["__typename"] == "NotFound"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"orderId": " "}, {"orderId": "must not be blank"}),
        ({"orderId": "x" * 101}, {"orderId": "must be at most 100 characters"}),
        ({"reason": ""}, {"reason": "must not be blank"}),
        ({"orderId": "", "reason": "x" * 501}, {
            "orderId": "must not be blank", "reason": "must be at most 500 characters",
        }),
    ],
    ids=str,
)  # fmt: skip
async def test_a_cancellation_without_sense_is_refused_with_every_problem(
    shop: Shop, change: dict[str, Any], expected: dict[str, str]
) -> None:
    assert problems(await shop.refused(CANCEL, **cancellation(**change))) == expected


@pytest.mark.parametrize("role", ["ANALYST", "MEMBER"])
async def test_only_who_stands_at_a_counter_cancels(shop: Shop, role: str) -> None:
    member = await shop.member()
    await stacked(shop, member, 50.0)
    key = await shop.token(member["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(CANCEL, key=key, **cancellation()) == "FORBIDDEN"
