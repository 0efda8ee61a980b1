"""recordPurchase. Without these a resent order could earn twice, or a rounded share of a point be given away."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Api
from tests.factories import EDIT_MEMBER, Shop, open_shop, problems, usd
from tests.points.documents import CONFIGURE, RECORD, broken, entries, points, purchase

DAY = "2026-01-31T09:30:00Z"


def values(member: Any, **change: Any) -> dict[str, Any]:
    """Return an input."""
    return {"memberId": member["id"], "source": "STORE", "orderId": "o-1", "amount": usd(1000)} | change


async def test_a_purchase_earns_its_points(shop: Shop) -> None:
    member = await shop.member()

    answer = await purchase(shop, member, "o-1", 1299, occurredAt=DAY)

    assert answer["replayed"] is False
    assert {name: answer["entry"][name] for name in ("amount", "balanceAfter", "reason", "reference")} == {
        "amount": 12, "balanceAfter": 12, "reason": "PURCHASE", "reference": "o-1"
    }  # fmt: skip
    made = answer["purchase"]
    assert {name: made[name] for name in ("source", "orderId", "amount", "points", "occurredAt", "reversedAt")} == {
        "source": "STORE", "orderId": "o-1", "amount": usd(1299), "points": 12, "occurredAt": DAY, "reversedAt": None
    }  # fmt: skip
    assert made["member"] == {"id": member["id"], "wallet": {"version": 1, "points": 12}}
    assert [kind for kind in await shop.event_types() if kind.startswith(("points", "purchase"))] == [
        "purchase.recorded", "points.credited"
    ]  # fmt: skip
    node = "query ($id: ID!) { node(id: $id) { id ... on Purchase { orderId } } }"
    assert (await shop.data(node, {"id": made["id"]}))["node"] == {"id": made["id"], "orderId": "o-1"}
    assert await broken(shop) == []


@pytest.mark.parametrize(
    ("currency", "rate", "amount", "earned"),
    [
        ("USD", 1, 199, 1),
        ("USD", 1.5, 199, 2),
        ("USD", 1.5, 200, 3),
        ("USD", 0.0001, 999_999, 0),
        ("USD", 0.0001, 1_000_000, 1),
        ("USD", 10_000, 1, 100),
        ("JPY", 1, 199, 199),
        ("JPY", 0.01, 199, 1),
        ("BHD", 1, 1999, 1),
        ("BHD", 3.3333, 1000, 3),
        ("BHD", 0.9999, 10**9, 999_900),
        # Dividing would round the last places of a long number up.
        ("BHD", 0.0001, 10**15 - 1, 99_999_999),
        ("USD", 0, 10**15, None),
    ],
)
async def test_points_are_the_whole_ones_of_amount_times_rate(
    api: Api, shop: Shop, currency: str, rate: float, amount: int, earned: int | None
) -> None:
    async with open_shop(shop.url, currency) as other:
        member = await other.member()
        await other.do(CONFIGURE, pointsPerUnit=rate)

        answer = await other.do(RECORD, **values(member, amount={"amountMinor": amount, "currency": currency}))

        assert answer["__typename"] == "RecordPurchaseSuccess", answer
        assert answer["purchase"]["points"] == (earned or 0)
        assert (answer["entry"] or {"amount": None})["amount"] == (earned or None)


async def test_a_purchase_that_earns_nothing_is_recorded_all_the_same(shop: Shop) -> None:
    member = await shop.member()

    first, again = await purchase(shop, member, "o-1", 99), await purchase(shop, member, "o-1", 99)
    nothing = await purchase(shop, member, "o-2", 0)

    assert first["entry"] is again["entry"] is nothing["entry"] is None
    assert [first["replayed"], again["replayed"], nothing["replayed"]] == [False, True, False]
    assert again["purchase"] == first["purchase"]
    assert await shop.count("purchase") == 2
    assert await shop.wallet_versions(member) == []


async def test_the_rate_counts_from_the_instant_at_which_it_changes(shop: Shop, second_api: Api) -> None:
    member = await shop.member()
    await purchase(shop, member, "before")
    await shop.do(CONFIGURE, pointsPerUnit=3)

    after = await shop.do(RECORD, url=f"{second_api.url}/graphql", **values(member, orderId="after"))
    replayed = await purchase(shop, member, "before")

    assert after["entry"]["amount"] == 30
    assert (replayed["replayed"], replayed["entry"]["amount"]) == (True, 10)


async def test_the_same_order_is_the_same_purchase(shop: Shop) -> None:
    member = await shop.member()
    first = await purchase(shop, member, "o-1", occurredAt=DAY)
    before = await shop.state()

    again = await purchase(shop, member, " o-1 ")

    assert again["replayed"] is True
    assert (again["entry"], again["purchase"]) == (first["entry"], first["purchase"])
    assert await shop.state() == before


async def test_an_order_id_is_its_sources_own(shop: Shop) -> None:
    member = await shop.member()

    for source in ("STORE", "SHOPIFY", "RECEIPT", "REFERRAL", "IMPORT"):
        assert (await purchase(shop, member, "o-1", source=source))["replayed"] is False

    assert await points(shop, member) == 50


async def test_it_happened_when_it_was_recorded_unless_told(shop: Shop) -> None:
    made = (await purchase(shop, await shop.member(), "o-1"))["purchase"]

    assert made["occurredAt"] == made["recordedAt"]


async def test_what_can_not_be_is_invalid(shop: Shop) -> None:
    member = await shop.member()

    assert problems(await shop.refused(RECORD, **values(member, orderId=" "))) == {"orderId": "must not be blank"}
    assert problems(await shop.refused(RECORD, **values(member, orderId="o" * 101))) == {
        "orderId": "must be at most 100 characters"
    }
    assert problems(await shop.refused(RECORD, **values(member, amount={"amountMinor": 1, "currency": "EUR"}))) == {
        "amount.currency": "must be USD, the merchant's currency"
    }
    for amount in (-1, 10**15 + 1):
        assert problems(await shop.refused(RECORD, **values(member, amount=usd(amount)))) == {
            "amount.amountMinor": f"must be between 0 and {10**15}"
        }
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert problems(await shop.refused(RECORD, **values(member, occurredAt=tomorrow))) == {
        "occurredAt": "must not be in the future"
    }


async def test_a_tills_clock_may_be_a_little_ahead(shop: Shop) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=2)).isoformat()

    assert (await purchase(shop, await shop.member(), "o-1", occurredAt=soon))["replayed"] is False


async def test_more_points_than_a_balance_holds_are_refused(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-0", 100)

    at_once = await shop.refused(RECORD, **values(member, amount=usd(10**15)))
    in_sum = await shop.refused(RECORD, **values(member, amount=usd((2**31 - 1) * 100)))

    message = f"would take the member's balance over {2**31 - 1}"
    assert problems(at_once) == problems(in_sum) == {"amount.amountMinor": message}
    assert await points(shop, member) == 1


async def test_another_merchants_member_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member()
    before = await other_shop.state()

    for node in (theirs["id"], f"member_{'0' * 32}", "nonsense"):
        answer = await shop.refused(RECORD, **values({"id": node}))
        assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": node}
    assert await other_shop.state() == before


async def test_an_order_for_another_member_or_amount_is_refused(shop: Shop) -> None:
    member, other = await shop.member(), await shop.member()
    await purchase(shop, member, "o-1")

    for change in ({"amount": usd(1001)}, {"amount": usd(0)}, {"memberId": other["id"]}):
        answer = await shop.refused(RECORD, **values(member, **change))
        assert answer["__typename"] == "IdempotencyKeyReused"
    assert await entries(shop, member) == [(10, 10, "PURCHASE")]


async def test_a_till_records_and_a_member_does_not(shop: Shop) -> None:
    member = await shop.member()

    answer = await purchase(shop, member, "o-1", key=await shop.key("CHECKOUT"))

    assert answer["entry"]["amount"] == 10
    assert await shop.failed(RECORD, key=await shop.token(member["id"]), **values(member)) == "FORBIDDEN"


@pytest.mark.parametrize("key", [{"email": "jane@example.com"}, {"externalId": "1001"}])
async def test_a_resent_order_is_the_same_whoever_its_buyers_address_or_number_has_become(
    shop: Shop, key: dict[str, str]
) -> None:
    jane: dict[str, Any] = {"email": "jane@example.com", "emailVerified": True, "externalId": "1001"}
    member = await shop.member(**jane)
    order: dict[str, Any] = {"member": key, "source": "STORE", "orderId": "o-1", "amount": usd(1000)}
    first = await shop.do(RECORD, **order)

    await shop.do(EDIT_MEMBER, memberId=member["id"], email="j@new.example", emailVerified=True, externalId="2002")
    nobodys = await shop.do(RECORD, **order)
    heir = await shop.member(**jane)
    heirs = await shop.do(RECORD, **order)

    assert nobodys == heirs == first | {"replayed": True}
    assert (await points(shop, member), await points(shop, heir)) == (10, 0)
    # Another amount, or another name, is another order of the same number.
    changes: tuple[dict[str, Any], ...] = ({"amount": usd(2000)}, {"member": None, "memberId": heir["id"]})
    for change in changes:
        assert (await shop.refused(RECORD, **order | change))["__typename"] == "IdempotencyKeyReused"
    assert await broken(shop) == []
