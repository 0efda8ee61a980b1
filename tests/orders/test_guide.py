"""docs/returns.md. Without these a shop could copy calls that are refused."""

from typing import Any

from tests.factories import REDEEM_CODES, Shop, usd
from tests.guides import blocks
from tests.points.documents import grant, purchase

GUIDE = "docs/returns.md"


async def test_points_pay_as_the_guide_says(shop: Shop) -> None:
    jane = await shop.member(externalId="jane")
    await grant(shop, jane, 800, "to spend")
    code = await shop.claim(await shop.pool(), jane)
    (paying,) = blocks(GUIDE, "Points that pay")
    order: dict[str, Any] = {"codes": [code["text"]], "source": "SHOPIFY", "orderId": "1002"}
    await shop.do(REDEEM_CODES, **order, orderAmount=usd(10_000), memberId=jane["id"])
    await purchase(shop, jane, "1002", 9_000, source="SHOPIFY")

    paid = (await shop.data(paying.text, {"code": code["text"]}))["amendOrder"]

    assert paid == {
        "__typename": "AmendOrderSuccess",
        "amountDue": {"amountMinor": 8_500},
        "pointsReturned": 0,
        "purchase": {
            "amount": {"amountMinor": 9_000}, "paidPoints": 500, "paidPointsValue": {"amountMinor": 500},
            "keptPoints": 85,
        },
    }  # fmt: skip


async def test_a_changed_cart_is_amended_and_called_off_as_the_guide_says(shop: Shop) -> None:
    jane = await shop.member(externalId="jane")
    percent = await shop.claim(await shop.pool(stacking="STACKABLE"), jane)
    amount = await shop.claim(await shop.pool(stacking="STACKABLE", kind="AMOUNT", amountOff=usd(500)), jane)
    other = await shop.claim(await shop.pool(stacking="STACKABLE", percentOff=25.0), jane)
    (amended,), (cancelled,) = (blocks(GUIDE, section) for section in ("A changed cart", "An order that is off"))
    await shop.do(
        REDEEM_CODES, codes=[percent["text"], amount["text"]], source="SHOPIFY", orderId="1001",
        orderAmount=usd(10_000), memberId=jane["id"],
    )  # fmt: skip
    await purchase(shop, jane, "1001", 8_500, source="SHOPIFY")

    changed = (await shop.data(amended.text, {"code": percent["text"], "other": other["text"]}))["amendOrder"]
    off = (await shop.data(cancelled.text))["cancelOrder"]
    again = (await shop.data(cancelled.text))["cancelOrder"]

    assert changed == {
        "__typename": "AmendOrderSuccess",
        "totalDiscount": {"amountMinor": 2_600},
        "redemptions": [
            {"position": 1, "discount": {"amountMinor": 800}}, {"position": 2, "discount": {"amountMinor": 1_800}}
        ],
        "purchase": {"amount": {"amountMinor": 5_400}},
        "shortfall": 0,
    }  # fmt: skip
    assert (off["moneyReturned"], off["shortfall"], off["replayed"]) == (usd(5_400), 0, False)
    assert off["order"]["redemptions"] == []
    assert off["order"]["purchase"]["reversedAt"] is not None
    assert again == off | {"replayed": True}
