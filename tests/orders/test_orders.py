"""An order is (source, orderId). Without these two channels could spend each other's codes, or nobody see an order."""

from typing import Any

import pytest

from app import ids
from app.storage.database import database
from tests.factories import CHECK_CODES, REDEEM_CODES, Shop, usd
from tests.orders.documents import ORDER, order_of, unguarded
from tests.orders.presented import order
from tests.points.documents import purchase

REJECTED = REDEEM_CODES.replace(
    "masked reason", "masked reason remedy { shortBy { amountMinor currency } validFrom heldUntil }"
)


async def start_tomorrow(shop: Shop, pool: Any) -> None:
    """Let a pool begin much later."""
    statement = "UPDATE pool SET starts_at = '2999-01-01T00:00:00Z' WHERE merchant_id = $1 AND id = $2"
    await unguarded(shop, statement, ids.decode("pool", pool["id"]))


async def test_two_channels_may_have_an_order_of_one_id(shop: Shop) -> None:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]

    counter = await shop.do(REDEEM_CODES, **order([codes[0]["text"]], member, orderId="1001"))
    web = await shop.do(REDEEM_CODES, **order([codes[1]["text"]], member, orderId="1001", source="SHOPIFY"))
    again = await shop.do(REDEEM_CODES, **order([codes[1]["text"]], member, orderId="1001", source="SHOPIFY"))

    assert [each["replayed"] for each in (counter, web, again)] == [False, False, True]
    assert [each["redemptions"][0]["source"] for each in (counter, web)] == ["STORE", "SHOPIFY"]
    for source, code in (("STORE", codes[0]), ("SHOPIFY", codes[1])):
        assert [each["code"]["id"] for each in (await order_of(shop, "1001", source))["redemptions"]] == [code["id"]]
    assert await order_of(shop, "1001", "RECEIPT") is None
    assert await shop.broken_promises() == []


async def test_a_code_of_an_order_of_another_channel_is_spent(shop: Shop) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(), member)
    presented = order([code["text"]], member, orderId="1001")
    await shop.do(REDEEM_CODES, **presented)

    for document in (CHECK_CODES, REDEEM_CODES):
        refusal = await shop.refused(document, **presented, source="SHOPIFY")
        assert [each["reason"] for each in refusal["rejections"]] == ["ALREADY_REDEEMED"]


async def test_an_order_shows_its_purchase_and_its_codes_in_their_order(shop: Shop) -> None:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]
    redeemed = await shop.do(REDEEM_CODES, **order([code["text"] for code in codes], member, orderId="1001"))
    made = await purchase(shop, member, "1001", 8_100)
    await purchase(shop, member, "1001", 500, source="SHOPIFY")

    found = await order_of(shop, " 1001 ", key=await shop.key("SUPPORT"))

    assert found.pop("id").startswith("order_")
    assert found == {
        "source": "STORE",
        "orderId": "1001",
        "cancelledAt": None,
        "purchase": {"id": made["purchase"]["id"], "amount": {"amountMinor": 8_100}, "reversedAt": None},
        "redemptions": [
            {
                "id": each["id"],
                "source": "STORE",
                "orderId": "1001",
                "position": place,
                "discount": {"amountMinor": discount},
                "reversedAt": None,
                "code": {"id": code["id"]},
            }
            for place, (each, code, discount) in enumerate(
                zip(redeemed["redemptions"], codes, (1_000, 900), strict=True), start=1
            )
        ],
    }


async def test_an_order_that_was_only_recorded_is_one(shop: Shop) -> None:
    made = await purchase(shop, await shop.member(), "1001", 500)

    found = await order_of(shop, "1001")

    assert (found["purchase"]["id"], found["redemptions"]) == (made["purchase"]["id"], [])


async def test_an_order_can_be_read_again_by_its_id(shop: Shop) -> None:
    member = await shop.member()
    read = "query ($id: ID!) { node(id: $id) { id ... on Order { source orderId } } }"
    await purchase(shop, member, "recorded")
    await purchase(shop, member, "both", source="SHOPIFY")
    code = await shop.claim(await shop.pool(), member)
    before = (await order_of(shop, "both", "SHOPIFY"))["id"]
    await shop.do(REDEEM_CODES, **order([code["text"]], member, orderId="both", source="SHOPIFY"))

    for order_id, source in (("recorded", "STORE"), ("both", "SHOPIFY")):
        found = await order_of(shop, order_id, source)
        node = (await shop.data(read, {"id": found["id"]}))["node"]
        assert node == {"id": found["id"], "source": source, "orderId": order_id}
        assert await shop.data(read, {"id": found["id"]}, key=await shop.key("ANALYST")) == {"node": None}
    assert (await shop.data(read, {"id": before}))["node"]["orderId"] == "both"


async def test_an_order_that_nobody_knows_is_null(shop: Shop, other_shop: Shop) -> None:
    await purchase(other_shop, await other_shop.member(), "1001", 500)

    assert await order_of(shop, "1001") is None


@pytest.mark.parametrize("order_id", ["", " ", "x" * 101, "a\x00b"])
async def test_what_can_be_no_id_is_bad_user_input(shop: Shop, order_id: str) -> None:
    assert await shop.error_code(ORDER, {"orderId": order_id}) == "BAD_USER_INPUT"


async def test_a_rejection_tells_what_would_make_the_code_work(shop: Shop) -> None:
    member = await shop.member()
    dear = await shop.claim(await shop.pool(minimumSpend=usd(12_000), stacking="STACKABLE"), member)
    early = await shop.claim(pool := await shop.pool(stacking="STACKABLE"), member)
    spent = await shop.claim(await shop.pool(), member)
    await shop.redeem([spent["text"]], member)
    await start_tomorrow(shop, pool)

    refusal = await shop.refused(REJECTED, **order([each["text"] for each in (dear, early, spent)], member))

    nothing = {"shortBy": None, "validFrom": None, "heldUntil": None}
    assert [(each["reason"], each["remedy"]) for each in refusal["rejections"]] == [
        ("BELOW_MINIMUM_SPEND", nothing | {"shortBy": usd(2_000)}),
        ("POOL_NOT_ACTIVE", nothing | {"validFrom": "2999-01-01T00:00:00Z"}),
        ("ALREADY_REDEEMED", None),
    ]


async def test_an_order_whose_codes_were_given_back_can_be_redeemed_again(shop: Shop) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(), member)
    for amount in (10_000, 5_000):
        redeemed = await shop.redeem([code["text"]], member, order="1001", amount=amount)
        assert redeemed["totalDiscount"] == usd(amount // 10)
        assert await shop.broken_promises() == []
        for each in redeemed["redemptions"]:
            await shop.do(
                """mutation ($input: ReverseRedemptionInput!) { answer: reverseRedemption(input: $input) {
                    __typename } }""",
                redemptionId=each["id"], reason="wrong till",
            )  # fmt: skip

    (row,) = await database().rows(
        "SELECT order_amount, count(*) OVER () AS orders FROM sales_order WHERE merchant_id = $1", shop.merchant_id
    )
    assert (row["order_amount"], row["orders"]) == (5_000, 1)
