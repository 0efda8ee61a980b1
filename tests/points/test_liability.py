"""pointsLiability. Without these the books could show other points than members hold, or held."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from app.points.liability import LIABILITY
from app.storage.database import database
from tests.factories import Shop
from tests.points.documents import CONFIGURE, grant, purchase
from tests.points.documents import LIABILITY as ASK


async def liability(shop: Shop, as_of: str | None = None, **how: Any) -> tuple[int, int]:
    """Return the outstanding points and their value."""
    found = (await shop.data(ASK, {"asOf": as_of}, **how))["pointsLiability"]
    assert found["value"]["currency"] == "USD"
    return found["outstandingPoints"], found["value"]["amountMinor"]


async def test_it_is_what_all_members_hold_times_the_value_of_a_point(shop: Shop, other_shop: Shop) -> None:
    await shop.do(CONFIGURE, pointValue=1.5)
    first, second = await shop.member(), await shop.member()
    await purchase(shop, first, "o-1", 10_000)
    await grant(shop, first, -30, "out")
    await grant(shop, second, 5, "in")
    await grant(other_shop, await other_shop.member(), 1_000_000, "theirs")

    assert await liability(shop) == (75, 113)
    assert await liability(shop, key=await shop.key("ANALYST")) == (75, 113)


@pytest.mark.parametrize("value", ["0", "0.5", "0.000001", "0.333333", "1.499999", "10000"])
async def test_half_a_minor_unit_is_rounded_up(shop: Shop, value: str) -> None:
    await shop.do(CONFIGURE, pointValue=float(value))
    await grant(shop, await shop.member(), 2_147_483_647, "in")
    await grant(shop, await shop.member(), 2_147_483_647 - 3, "in too")

    outstanding, worth = await liability(shop)

    assert outstanding == 2 * 2_147_483_647 - 3
    assert worth == int((outstanding * Decimal(value)).quantize(Decimal(1), ROUND_HALF_UP))


async def test_a_past_instant_knows_nothing_of_what_came_later(shop: Shop) -> None:
    member, other = await shop.member(), await shop.member()
    made = [
        (await grant(shop, who, amount, f"k{turn}"))["entry"]
        for turn, (who, amount) in enumerate([(member, 100), (other, 20), (member, -30), (other, 1)])
    ]

    seen = [(await liability(shop, entry["createdAt"]))[0] for entry in made]

    assert seen == [100, 120, 90, 91]
    assert (await liability(shop, "2001-01-01T00:00:00Z"))[0] == 0


async def test_a_later_instant_is_taken_as_now(shop: Shop) -> None:
    await grant(shop, await shop.member(), 7, "in")

    found = (await shop.data(ASK, {"asOf": "2999-01-01T00:00:00Z"}))["pointsLiability"]

    assert found["outstandingPoints"] == 7
    assert found["asOf"] < "2999"


async def test_without_points_it_is_nothing(shop: Shop) -> None:
    assert await liability(shop) == (0, 0)


async def test_tills_and_members_do_not_see_it(shop: Shop) -> None:
    for key in (await shop.key("CHECKOUT"), await shop.token((await shop.member())["id"])):
        assert await shop.error_code(ASK, key=key) == "FORBIDDEN"


async def test_it_is_one_snapshot(shop: Shop) -> None:
    """Both sums are of one statement: a change between two would be counted twice or not at all."""
    assert LIABILITY.text.count(";") == 0
    row = await database().row(LIABILITY, merchant_id=shop.merchant_id, as_of=None)
    assert row is not None
    assert row["points"] == 0
