"""reversePurchase. Without these a return could be booked twice, or leave the points of goods that went back."""

import asyncio
from typing import Any

from tests.factories import Shop, problems, usd
from tests.points.documents import CONFIGURE, RECORD, REVERSE, broken, days_later, entries, grant, points, purchase

EVENTS = "query { events(first: 2) { edges { node { type subjectId reason } } } }"


async def test_a_purchase_is_taken_back_with_its_points(shop: Shop) -> None:
    member = await shop.member()
    made = (await purchase(shop, member, "o-1"))["purchase"]

    answer = await shop.do(REVERSE, purchaseId=made["id"], reason="returned goods")

    assert answer["shortfall"] == 0
    assert answer["purchase"]["id"] == made["id"]
    assert answer["purchase"]["reversedAt"] is not None
    assert answer["purchase"]["member"]["wallet"] == {"version": 2, "points": 0}
    assert {name: answer["entry"][name] for name in ("amount", "balanceAfter", "reason", "reference")} == {
        "amount": -10, "balanceAfter": 0, "reason": "REVERSAL", "reference": "o-1"
    }  # fmt: skip
    assert (await shop.data(EVENTS))["events"]["edges"][1]["node"] == {
        "type": "purchase.reversed", "subjectId": made["id"], "reason": "returned goods"
    }  # fmt: skip
    assert await broken(shop) == []


async def test_source_and_order_id_name_it_too(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1")
    await purchase(shop, member, "o-1", source="SHOPIFY")

    answer = await shop.do(REVERSE, source="SHOPIFY", orderId="o-1", reason="returned")

    assert answer["purchase"]["source"] == "SHOPIFY"
    assert await points(shop, member) == 10


async def test_points_that_are_spent_already_are_a_shortfall(shop: Shop) -> None:
    member = await shop.member()
    made = (await purchase(shop, member, "o-1"))["purchase"]
    await grant(shop, member, -7, "spent")

    answer = await shop.do(REVERSE, purchaseId=made["id"], reason="returned")

    assert (answer["entry"]["amount"], answer["shortfall"]) == (-3, 7)
    await purchase(shop, member, "o-2")
    assert await entries(shop, member) == [
        (10, 10, "PURCHASE"), (-7, 3, "ADJUSTMENT"), (-3, 0, "REVERSAL"), (10, 10, "PURCHASE"), (-7, 3, "REVERSAL")
    ]  # fmt: skip


async def test_with_nothing_to_take_there_is_no_entry(shop: Shop) -> None:
    member = await shop.member()
    small = (await purchase(shop, member, "small", 99))["purchase"]
    spent = (await purchase(shop, member, "spent"))["purchase"]
    await grant(shop, member, -10, "spent")

    answers = [await shop.do(REVERSE, purchaseId=made["id"], reason="returned") for made in (small, spent)]

    assert [(answer["entry"], answer["shortfall"]) for answer in answers] == [(None, 0), (None, 10)]
    assert await shop.wallet_versions(member) == [1, 2, 3]
    assert await broken(shop) == []


async def test_what_has_expired_of_it_is_not_taken_twice(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    old = (await purchase(shop, member, "old"))["purchase"]
    await grant(shop, member, -4, "spent")
    await days_later(shop, member, 31)
    await purchase(shop, member, "new", 5000)

    answer = await shop.do(REVERSE, purchaseId=old["id"], reason="returned")

    assert (answer["entry"]["amount"], answer["shortfall"]) == (-4, 0)
    assert await entries(shop, member) == [
        (10, 10, "PURCHASE"), (-4, 6, "ADJUSTMENT"), (-6, 0, "EXPIRY"), (50, 50, "PURCHASE"), (-4, 46, "REVERSAL")
    ]  # fmt: skip


async def test_a_purchase_spent_before_others_expired_is_taken_whole(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    first = (await purchase(shop, member, "first"))["purchase"]
    second = (await purchase(shop, member, "second"))["purchase"]
    await grant(shop, member, -10, "spends the first")
    await days_later(shop, member, 31)
    await grant(shop, member, 100, "new")

    answers = [await shop.do(REVERSE, purchaseId=made["id"], reason="returned") for made in (first, second)]

    assert [(answer["entry"] or {"amount": 0})["amount"] for answer in answers] == [-10, 0]
    assert [answer["shortfall"] for answer in answers] == [0, 0]
    assert await broken(shop) == []


async def test_it_must_be_named_in_one_way_and_with_a_reason(shop: Shop) -> None:
    made = (await purchase(shop, await shop.member(), "o-1"))["purchase"]

    async def wrong(**input: Any) -> dict[str, str]:
        return problems(await shop.refused(REVERSE, **({"reason": "returned"} | input)))

    assert await wrong(purchaseId=made["id"], reason=" ") == {"reason": "must not be blank"}
    assert await wrong() == {"purchaseId": "or source and orderId must name the purchase"}
    assert await wrong(orderId="o-1") == {"source": "is needed beside orderId"}
    assert await wrong(source="STORE") == {"orderId": "is needed beside source"}
    assert await wrong(purchaseId=made["id"], source="STORE", orderId="o-1") == {
        "source": "has no meaning beside purchaseId", "orderId": "has no meaning beside purchaseId"
    }  # fmt: skip


async def test_an_unknown_purchase_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = (await purchase(other_shop, await other_shop.member(), "theirs"))["purchase"]
    before = await other_shop.state()

    for node in (theirs["id"], f"purchase_{'0' * 32}", "nonsense"):
        answer = await shop.refused(REVERSE, purchaseId=node, reason="why not")
        assert answer == {"__typename": "NotFound", "message": "There is no such purchase.", "id": node}
    answer = await shop.refused(REVERSE, source="STORE", orderId="theirs", reason="why not")
    assert (answer["__typename"], answer["id"]) == ("NotFound", "theirs")
    assert await other_shop.state() == before


async def test_a_second_reversal_is_refused(shop: Shop) -> None:
    made = (await purchase(shop, await shop.member(), "o-1"))["purchase"]
    first = await shop.do(REVERSE, purchaseId=made["id"], reason="returned")

    answer = await shop.refused(REVERSE, source="STORE", orderId="o-1", reason="returned")

    assert answer["__typename"] == "PurchaseAlreadyReversed"
    assert answer["purchase"] == first["purchase"]


async def test_of_twenty_reversals_at_once_one_counts(shop: Shop) -> None:
    member = await shop.member()
    made = (await purchase(shop, member, "o-1"))["purchase"]

    answers = await asyncio.gather(*[shop.do(REVERSE, purchaseId=made["id"], reason=f"caller {n}") for n in range(20)])

    kinds = sorted(answer["__typename"] for answer in answers)
    assert kinds == ["PurchaseAlreadyReversed"] * 19 + ["ReversePurchaseSuccess"]
    assert await entries(shop, member) == [(10, 10, "PURCHASE"), (-10, 0, "REVERSAL")]


async def test_a_reversed_order_that_is_sent_again_is_refused(shop: Shop) -> None:
    member = await shop.member()
    first = await purchase(shop, member, "o-1")
    await shop.do(REVERSE, purchaseId=first["purchase"]["id"], reason="returned")
    order = {"memberId": member["id"], "source": "STORE", "orderId": "o-1"}

    again = await shop.refused(RECORD, **order, amount=usd(1000))
    other = await shop.refused(RECORD, **order, amount=usd(1001))

    assert (again["__typename"], again["message"]) == (
        "PurchaseAlreadyReversed", "The purchase was taken back before."
    )  # fmt: skip
    assert other["__typename"] == "IdempotencyKeyReused"
    assert await points(shop, member) == 0
