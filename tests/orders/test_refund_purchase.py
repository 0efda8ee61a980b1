"""refundPurchase and checkRefund. Without these goods could come back, and the points for them stay or go twice."""

import asyncio
from typing import Any

import pytest

from app.points.ledger import POINTS_MAX
from app.storage.database import database
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop, problems, usd
from tests.points.documents import (
    CHECK_REFUND,
    CONFIGURE,
    REFUND,
    RETURNED,
    REVERSE,
    asked_refund,
    broken,
    check_refund,
    entries,
    grant,
    points,
    purchase,
    refund,
    wallet,
)

NODE = "query ($id: ID!) { node(id: $id) { ... on Refund { id refundId amount { amountMinor } refundedAt } } }"
EVENTS = "query { events(first: 9) { edges { node { type subjectId reason } } } }"
AS_PURCHASE = f"query ($id: ID!) {{ node(id: $id) {{ ... on Purchase {{ {RETURNED} }} }} }}"


def taken(answer: Any) -> list[int]:
    """Return what each entry of a refund moved."""
    return [entry["amount"] for entry in answer["entries"]]


async def happened(shop: Shop) -> list[tuple[str, str]]:
    """Return the types of the last events and the reasons given for them, the newest first."""
    nodes = [edge["node"] for edge in (await shop.data(EVENTS))["events"]["edges"]]
    return [(node["type"], node["reason"]) for node in nodes]


async def test_a_part_goes_back_with_what_it_earned(shop: Shop) -> None:
    member = await shop.member()
    made = (await purchase(shop, member, "o-1", 9999))["purchase"]

    answer = await refund(shop, "o-1", "r-1", 3333)

    # 66.66 stand, which earn 66: of 99 points 33 go.
    assert taken(answer) == [-33]
    assert answer["moneyReturned"] == usd(3333)
    assert [answer[name] for name in ("shortfall", "pointsReturned", "pointsExpired", "pointsForfeited")] == [0] * 4
    bought = answer["purchase"]
    assert (bought["id"], bought["amount"], bought["refunded"]) == (made["id"], usd(9999), usd(3333))
    assert (bought["points"], bought["keptPoints"], bought["reversedAt"]) == (99, 66, None)
    assert bought["member"]["wallet"] == {"version": 2, "points": 66}
    (part,) = bought["refunds"]
    assert (part["refundId"], part["amount"]) == ("r-1", usd(3333))
    assert (await shop.data(NODE, {"id": part["id"]}))["node"] == {
        "id": part["id"], "refundId": "r-1", "amount": {"amountMinor": 3333}, "refundedAt": part["refundedAt"]
    }  # fmt: skip
    assert answer["replayed"] is False
    assert await entries(shop, member) == [(99, 99, "PURCHASE"), (-33, 66, "REVERSAL")]
    assert ("purchase.refunded", "returned") in await happened(shop)
    assert "purchase.reversed" not in [kind for kind, _ in await happened(shop)]
    assert await broken(shop) == await shop.broken_promises() == []


async def test_the_last_unit_reverses_the_purchase(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 1000)
    await refund(shop, "o-1", "r-1", 999)

    answer = await refund(shop, "o-1", "r-2", 1)

    assert answer["purchase"]["reversedAt"] is not None
    assert [part["refundId"] for part in answer["purchase"]["refunds"]] == ["r-1", "r-2"]
    assert await points(shop, member) == 0
    assert ("purchase.reversed", "returned") in await happened(shop)


async def test_reversing_refunds_what_is_left(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 1000)
    await refund(shop, "o-1", "r-1", 301)

    answer = await shop.do(REVERSE, source="STORE", orderId="o-1", reason="all of it")

    assert answer["entry"]["amount"] == -6
    first, rest = answer["purchase"]["refunds"]
    assert (first["refundId"], first["amount"]) == ("r-1", usd(301))
    assert (rest["refundId"], rest["amount"]) == (rest["id"], usd(699))
    assert answer["purchase"]["keptPoints"] == 0
    assert await broken(shop) == await shop.broken_promises() == []


async def test_the_rate_is_that_of_the_purchase(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsPerUnit=2.5)
    await purchase(shop, member, "o-1", 1001)
    await shop.do(CONFIGURE, pointsPerUnit=100.0)

    answer = await refund(shop, "o-1", "r-1", 500)

    # 5.01 stand, at 2.5: 12 of 25 points are kept.
    assert (taken(answer), answer["purchase"]["keptPoints"]) == ([-13], 12)
    assert await shop.broken_promises() == []


async def test_again_is_the_same_answer_whatever_happened_since(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 1000)
    await grant(shop, member, -8, "spent")
    told = await refund(shop, "o-1", "r-1", 500)
    await purchase(shop, member, "makes it good", 5000)
    await refund(shop, "o-1", "r-2", 500)
    before = await shop.state()

    again = await refund(shop, "o-1", "r-1", 500)

    kept = ("shortfall", "moneyReturned", "pointsReturned", "pointsExpired", "pointsForfeited")
    assert {name: again[name] for name in kept} == {name: told[name] for name in kept}
    assert told["shortfall"] == 3
    assert [entry["id"] for entry in again["entries"]] == [entry["id"] for entry in told["entries"]]
    assert again["replayed"] is True
    assert again["purchase"]["reversedAt"] is not None
    assert await shop.state() == before


async def test_of_fifty_equal_calls_at_once_one_refunds(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 10_000)

    answers = await asyncio.gather(*[refund(shop, "o-1", "r-1", 2000) for _ in range(50)])

    assert sum(not answer["replayed"] for answer in answers) == 1
    assert {tuple(entry["id"] for entry in answer["entries"]) for answer in answers} == {
        tuple(entry["id"] for entry in answers[0]["entries"])
    }  # fmt: skip
    after = await shop.state()
    assert all(answer["replayed"] for answer in [await refund(shop, "o-1", "r-1", 2000) for _ in range(5)])
    assert await shop.state() == after
    assert (await wallet(shop, member))["points"] == 80
    assert await broken(shop) == await shop.broken_promises() == []


async def test_what_is_checked_is_what_happens(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "pays", 1000)
    await purchase(shop, member, "o-1", 1000)
    await grant(shop, member, -15, "spent")
    before = await shop.state()

    checked = await check_refund(shop, "o-1", "r-1", 700)

    assert await shop.state() == before
    assert checked == {
        "__typename": "RefundPreview", "points": 5, "shortfall": 2, "pointsReturned": 0, "moneyReturned": usd(700),
        "endsReferral": False,
    }  # fmt: skip
    answer = await refund(shop, "o-1", "r-1", 700)
    assert (taken(answer), answer["shortfall"], answer["moneyReturned"]) == ([-5], 2, usd(700))
    # Of a refund that was made, what it did.
    assert await check_refund(shop, "o-1", "r-1", 700) == checked
    assert problems(await check_refund(shop, "o-1", "r-1", 701)) == {"refundId": "was used for another amount"}


@pytest.mark.parametrize("document", [REFUND, CHECK_REFUND])
async def test_what_no_refund_can_be(shop: Shop, document: str) -> None:
    await purchase(shop, await shop.member(), "o-1", 1000)

    async def wrong(**how: Any) -> dict[str, str]:
        asked = asked_refund("o-1", "r-1", 100) | how
        if document == REFUND:
            return problems(await shop.refused(document, **asked))
        return problems((await shop.data(document, {"input": asked}))["answer"])

    over = "must be between 1 and 1000000000000000"
    assert await wrong(amount=usd(0)) == {"amount.amountMinor": over}
    assert await wrong(amount=usd(-1)) == {"amount.amountMinor": over}
    assert await wrong(amount={"amountMinor": 100, "currency": "EUR"}) == {
        "amount.currency": "must be USD, the merchant's currency"
    }  # fmt: skip
    assert await wrong(reason=" ", refundId="", orderId="x" * 101) == {
        "reason": "must not be blank", "refundId": "must not be blank", "orderId": "must be at most 100 characters"
    }  # fmt: skip


async def test_refusals_come_in_their_order(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 1000)

    async def refused(order: str, refund_id: str, amount: int, **how: Any) -> Any:
        answer = await shop.refused(REFUND, **asked_refund(order, refund_id, amount, **how))
        checked = await check_refund(shop, order, refund_id, amount, **how)
        if answer["__typename"] != "IdempotencyKeyReused":
            assert checked == answer
        return answer

    assert (await refused("o-2", "r-1", 100))["__typename"] == "NotFound"
    # The same number in another channel is another order.
    assert (await refused("o-1", "r-1", 100, source="SHOPIFY"))["__typename"] == "NotFound"
    large = await refused("o-1", "r-1", 1001)
    assert (large["__typename"], large["refundable"]) == ("RefundTooLarge", usd(1000))
    await refund(shop, "o-1", "r-1", 400)
    assert (await refused("o-1", "r-1", 1001))["__typename"] == "IdempotencyKeyReused"
    assert (await refused("o-1", "r-2", 601))["refundable"] == usd(600)
    await refund(shop, "o-1", "r-2", 600)
    assert (await refused("o-1", "r-2", 601))["__typename"] == "IdempotencyKeyReused"
    gone = await refused("o-1", "r-3", 1)
    assert gone["__typename"] == "PurchaseAlreadyReversed"
    assert gone["purchase"]["reversedAt"] is not None
    assert await entries(shop, member) == [(10, 10, "PURCHASE"), (-4, 6, "REVERSAL"), (-6, 0, "REVERSAL")]


async def test_two_channels_may_have_one_number(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 1000)
    await purchase(shop, member, "o-1", 2000, source="SHOPIFY")

    answer = await refund(shop, "o-1", "r-1", 2000, source="SHOPIFY")
    again = await refund(shop, "o-1", "r-1", 1000)

    assert (answer["purchase"]["source"], again["purchase"]["source"]) == ("SHOPIFY", "STORE")
    assert await points(shop, member) == 0


async def test_a_member_sees_what_went_back_of_its_own_purchase(shop: Shop) -> None:
    member, other = await shop.member(), await shop.member()
    made = (await purchase(shop, member, "o-1", 1000))["purchase"]
    told = (await refund(shop, "o-1", "r-1", 250))["purchase"]

    own, theirs = [await shop.token(each["id"]) for each in (member, other)]

    assert (await shop.data(AS_PURCHASE, {"id": made["id"]}, key=own))["node"] == told
    refund_id = told["refunds"][0]["id"]
    assert (await shop.data(NODE, {"id": refund_id}, key=own))["node"]["refundId"] == "r-1"
    assert (await shop.data(NODE, {"id": refund_id}, key=theirs))["node"] is None
    assert (await shop.data(AS_PURCHASE, {"id": made["id"]}, key=theirs))["node"] is None


async def test_a_shortfall_has_a_limit(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, recoverShortfalls=False)
    for order in ("o-1", "o-2"):
        await purchase(shop, member, order, 100 * POINTS_MAX)
        await grant(shop, member, -POINTS_MAX, f"spent {order}")
    await refund(shop, "o-1", "r-1", 100 * POINTS_MAX)

    refused = await shop.refused(REFUND, **asked_refund("o-2", "r-1", 100))

    assert problems(refused) == {"orderId": f"would take the member's shortfall over {POINTS_MAX}"}


async def test_a_purchase_that_earned_nothing_goes_back_too(shop: Shop) -> None:
    member = await shop.member()
    for order, amount in (("small", 99), ("free", 0)):
        await purchase(shop, member, order, amount)

    answer = await refund(shop, "small", "r-1", 50)
    free = await shop.do(REVERSE, source="STORE", orderId="free", reason="returned")

    assert (answer["entries"], answer["shortfall"], answer["purchase"]["keptPoints"]) == ([], 0, 0)
    assert (free["entry"], free["purchase"]["refunded"]) == (None, usd(0))
    assert free["purchase"]["reversedAt"] is not None
    assert await shop.wallet_versions(member) == []
    assert await shop.broken_promises() == []


async def test_a_refund_is_few_round_trips(counter: Counter, counted_shop: Shop) -> None:
    shop, member = counted_shop, await counted_shop.member()
    document = "mutation ($input: RefundPurchaseInput!) { refundPurchase(input: $input) { __typename } }"

    async def refunded(order: str, refund_id: str) -> int:
        asked = {"input": asked_refund(order, refund_id, 100)}
        return len(await counter.during(lambda: shop.data(document, asked)))

    for order in ("warm", "warm too", "a", "b"):
        await purchase(shop, member, order)
    for order in ("warm", "warm too"):
        await refunded(order, "r")
        await refunded(order, "r")

    # Look, buyer and purchase, wallet, lots, entry, refund; beside BEGIN and COMMIT. Again: look, refund, entries.
    assert [await refunded(order, "r") for order in ("a", "b", "a")] == [8, 8, 3]


async def test_a_refund_stays_as_it_was(shop: Shop) -> None:
    await purchase(shop, await shop.member(), "o-1", 1000)
    told = await refund(shop, "o-1", "r-1", 1000)

    rows = await database().rows("SELECT * FROM refund WHERE merchant_id = $1", shop.merchant_id)

    (row,) = [dict(each) for each in rows]
    assert (row["amount"], row["points"], row["taken"], row["shortfall"], row["money_returned"]) == (
        1000, 10, 10, 0, 1000
    )  # fmt: skip
    assert [f"entry_{each.hex}" for each in row["entry_ids"]] == [entry["id"] for entry in told["entries"]]
