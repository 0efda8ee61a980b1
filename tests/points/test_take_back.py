"""Take-backs in parts, and what puts them off. Without these points could go back twice, or to the wrong lot."""

from typing import Any

import pytest

from app import ids
from app.api.operations import Refused
from app.points.ledger import POINTS_MAX
from app.points.types import PointsReason
from app.storage.database import database
from app.storage.statements import statement
from tests.factories import Shop
from tests.points.documents import (
    CONFIGURE,
    REVERSE_REWARD,
    days_later,
    entries,
    grant,
    member_uuid,
    purchase,
    redeem,
    refund,
    reward,
    wallet,
)
from tests.points.ledger import earned_more, put_back_again, taken_back

EARNED = PointsReason.PURCHASE
GIVEN = PointsReason.ADJUSTMENT
LOTS = statement(
    dict[str, Any],
    """
SELECT e.origin, l.remaining, l.amount - l.returned AS standing, ARRAY(
    SELECT shortfall FROM points_return WHERE merchant_id = :merchant_id AND lot_id = l.entry_id ORDER BY since
) AS lacking
FROM points_lot l JOIN points_entry e ON e.merchant_id = :merchant_id AND e.id = l.entry_id
WHERE l.merchant_id = :merchant_id AND l.member_id = :member_id ORDER BY l.created_at
""",
)


async def bought(shop: Shop, member: Any, order: str, points: int) -> str:
    """Record a purchase, and return the origin of its credit."""
    answer = await purchase(shop, member, order, 100 * points)
    purchase_id = ids.decode("purchase", answer["purchase"]["id"])
    assert purchase_id is not None
    return purchase_id.hex


async def lots(shop: Shop, member: Any) -> list[tuple[int, int, list[int]]]:
    """Return of each lot what is left, how much of its credit stands, and what its take-backs lack."""
    found = await database().rows(
        LOTS.text, *LOTS.arguments({"merchant_id": shop.merchant_id, "member_id": member_uuid(member)})
    )
    return [(row["remaining"], row["standing"], row["lacking"]) for row in found]


async def test_parts_take_what_is_left_of_the_lot(shop: Shop) -> None:
    member = await shop.member()
    origin = await bought(shop, member, "o-1", 10)
    await grant(shop, member, 5, "others")

    taken = [await taken_back(shop, member, EARNED, [origin], f"t-{part}", part) for part in (3, 4)]
    rest = await taken_back(shop, member, EARNED, [origin], "t-rest")
    none = await taken_back(shop, member, EARNED, [origin], "t-none")

    assert [each.entry and each.entry["entry_amount"] for each in (*taken, rest, none)] == [-3, -4, -3, None]
    assert await lots(shop, member) == [(0, 0, [0, 0, 0]), (5, 5, [])]


async def test_points_spent_between_two_parts_fill_the_second(shop: Shop) -> None:
    """By the time that they were spent the first was lacking already."""
    member = await shop.member()
    await bought(shop, member, "o-1", 10)
    await grant(shop, member, -10, "spent")
    first = await refund(shop, "o-1", "r-1", 400)
    await grant(shop, member, 6, "younger than the first")
    mug = await redeem(shop, await reward(shop, cost=6), member, "spent between")
    second = await refund(shop, "o-1", "r-2", 600)
    assert (first["shortfall"], second["shortfall"]) == (4, 6)

    await shop.do(REVERSE_REWARD, redemptionId=mug["redemption"]["id"], reason="broken")

    assert await lots(shop, member) == [(0, 0, [4, 0]), (0, 6, [])]
    assert (await wallet(shop, member))["shortfall"] == 4
    assert await shop.broken_promises() == []


async def test_what_comes_back_to_a_lot_fills_its_first_part_first(shop: Shop) -> None:
    member = await shop.member()
    await bought(shop, member, "o-1", 10)
    mug = await redeem(shop, await reward(shop, cost=3), member, "spent")
    await grant(shop, member, -7, "spent, too")
    for part in (4, 6):
        await refund(shop, "o-1", f"r-{part}", 100 * part)

    await shop.do(REVERSE_REWARD, redemptionId=mug["redemption"]["id"], reason="broken")

    assert await lots(shop, member) == [(0, 0, [1, 6])]
    # So does what a later purchase earns.
    await bought(shop, member, "o-2", 2)
    assert await lots(shop, member) == [(0, 0, [0, 5]), (0, 2, [])]
    assert await shop.broken_promises() == []


async def test_of_what_a_lot_had_paid_the_latest_take_back_loses_first(shop: Shop) -> None:
    member = await shop.member()
    await bought(shop, member, "o-1", 3)
    await bought(shop, member, "o-2", 4)
    await grant(shop, member, -7, "spent")
    for order, amount in (("o-1", 300), ("o-2", 400)):
        await refund(shop, order, "r-1", amount)
    await bought(shop, member, "pays", 7)
    assert await lots(shop, member) == [(0, 0, [0]), (0, 0, [0]), (0, 7, [])]

    answer = await refund(shop, "pays", "r-1", 500)

    assert (answer["entries"], answer["shortfall"]) == ([], 0)
    assert await lots(shop, member) == [(0, 0, [1]), (0, 0, [4]), (0, 2, [0])]
    assert await shop.broken_promises() == []


async def test_what_expired_counts_as_taken_once_over_all_parts(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    await bought(shop, member, "o-1", 10)
    await grant(shop, member, -4, "spent")
    await days_later(shop, member, 31)
    await grant(shop, member, 50, "new")

    taken = [await refund(shop, "o-1", f"r-{part}", 100 * part) for part in (3, 5, 2)]

    # Six expired: three of the first part, three of the second.
    assert [[entry["amount"] for entry in each["entries"]] for each in taken] == [[], [-2], [-2]]
    assert await lots(shop, member) == [(0, 0, [0, 0, 0]), (46, 50, [])]
    assert await shop.broken_promises() == []


async def test_of_several_lots_the_newest_goes_first(shop: Shop) -> None:
    member = await shop.member()
    origin = await bought(shop, member, "o-1", 10)
    await earned_more(shop, member, 6, credited=[origin], origin=f"{origin}/2")
    credited = [origin, f"{origin}/2"]

    taken = await taken_back(shop, member, EARNED, credited, "t-1", 8)

    assert (taken.entry and taken.entry["entry_amount"], taken.shortfall) == (-8, 0)
    assert await lots(shop, member) == [(8, 8, [0]), (0, 0, [0])]
    await grant(shop, member, -8, "spent")
    rest = await taken_back(shop, member, EARNED, credited, "t-2")
    assert (rest.entry, rest.shortfall) == (None, 8)
    assert await lots(shop, member) == [(0, 0, [0, 8]), (0, 0, [0])]


async def test_what_is_lacking_is_that_of_the_newest_lot_as_far_as_its_credit_goes(shop: Shop) -> None:
    member = await shop.member()
    origin = await bought(shop, member, "o-1", 10)
    await earned_more(shop, member, 6, credited=[origin], origin=f"{origin}/2")
    await grant(shop, member, -16, "spent")
    await grant(shop, member, 3, "pays")

    taken = await taken_back(shop, member, EARNED, [origin, f"{origin}/2"], "t-1", 9)

    assert (taken.entry and taken.entry["entry_amount"], taken.shortfall) == (-3, 6)
    # Of the newest lot six went: three were paid by the grant, and three are lacking; of the other three are lacking.
    assert await lots(shop, member) == [(0, 7, [3]), (0, 0, [3]), (0, 3, [])]


async def test_more_fills_its_own_shortfall_before_it_is_credited(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, recoverShortfalls=False)
    origin, other = await bought(shop, member, "o-1", 10), await bought(shop, member, "o-2", 10)
    await grant(shop, member, -20, "spent")
    for number, part in enumerate((3, 4)):
        await taken_back(shop, member, EARNED, [origin], f"t-{number}", part)
    await taken_back(shop, member, EARNED, [other], "t-other", 5)
    await shop.do(CONFIGURE, recoverShortfalls=True)
    version = (await wallet(shop, member))["version"]

    some = await earned_more(shop, member, 5, credited=[origin], origin=f"{origin}/2")
    assert (some.entry, some.filled) == (None, 5)
    assert await lots(shop, member) == [(0, 8, [2, 0]), (0, 5, [5])]
    assert (await wallet(shop, member))["version"] == version + 1
    more = await earned_more(shop, member, 9, credited=[origin], origin=f"{origin}/2")

    assert (more.entry and more.entry["entry_amount"], more.filled) == (7, 2)
    # Earned points make good what other returns lack.
    assert await lots(shop, member) == [(0, 10, [0, 0]), (0, 5, [0]), (2, 7, [])]
    assert (await wallet(shop, member))["version"] == version + 4
    assert (await entries(shop, member))[-2:] == [(7, 7, "PURCHASE"), (-5, 2, "REVERSAL")]


async def test_more_than_the_balance_can_hold_is_refused(shop: Shop) -> None:
    member = await shop.member()
    origin = await bought(shop, member, "o-1", 10)
    before = await shop.state()

    with pytest.raises(Refused):
        await earned_more(shop, member, POINTS_MAX, credited=[origin], origin=f"{origin}/2")

    assert await shop.state() == before


async def test_a_credit_that_stands_again_has_what_was_really_taken(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    await grant(shop, member, 10, "falls")
    await days_later(shop, member, 29)
    await grant(shop, member, -4, "spent")
    await grant(shop, member, 3, "pays")
    taken = await taken_back(shop, member, GIVEN, ["grant/falls"], "t-1")
    assert (taken.entry and taken.entry["entry_amount"], taken.shortfall) == (-9, 1)
    await days_later(shop, member, 2)

    back = await put_back_again(shop, member, GIVEN, "grant/falls", "again")

    # Six are past their date, three go to the lot that had paid, and nothing is lacking any more.
    assert back is not None
    assert (back.entry["entry_amount"], back.expired) == (9, 6)
    assert await lots(shop, member) == [(0, 10, [0]), (3, 3, [])]
    assert (await wallet(shop, member))["shortfall"] == 0
    assert await put_back_again(shop, member, GIVEN, "grant/falls", "once more") is None
    assert await shop.broken_promises() == []


async def test_what_had_filled_the_shortfall_comes_back_to_who_paid(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 10, "falls")
    await grant(shop, member, -10, "spent")
    await taken_back(shop, member, GIVEN, ["grant/falls"], "t-1")
    await purchase(shop, member, "pays", 700)
    assert (await wallet(shop, member))["shortfall"] == 3

    back = await put_back_again(shop, member, GIVEN, "grant/falls", "again")

    assert back is not None
    assert (back.entry["entry_amount"], back.expired) == (7, 0)
    assert await lots(shop, member) == [(0, 10, [0]), (7, 7, [])]
    again = await taken_back(shop, member, GIVEN, ["grant/falls"], "t-2")
    assert (again.entry and again.entry["entry_amount"], again.shortfall) == (-7, 3)
    assert await shop.broken_promises() == []


async def test_what_comes_back_of_it_fills_what_others_lack_since(shop: Shop) -> None:
    """It would have been there to pay."""
    member = await shop.member()
    await grant(shop, member, 10, "falls")
    await bought(shop, member, "o-1", 8)
    await taken_back(shop, member, GIVEN, ["grant/falls"], "t-1")
    await grant(shop, member, -8, "spent")
    await refund(shop, "o-1", "r-1", 800)
    assert await lots(shop, member) == [(0, 0, [0]), (0, 0, [8])]

    back = await put_back_again(shop, member, GIVEN, "grant/falls", "again")

    assert back is not None
    assert (back.entry["entry_amount"], back.latest["event_wallet_points"]) == (10, 2)
    assert await lots(shop, member) == [(2, 10, [0]), (0, 0, [0])]
    assert await shop.broken_promises() == []


async def test_a_full_wallet_takes_nothing_back(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 10, "falls")
    await taken_back(shop, member, GIVEN, ["grant/falls"], "t-1")
    await grant(shop, member, POINTS_MAX, "full")
    before = await shop.state()

    with pytest.raises(OverflowError):
        await put_back_again(shop, member, GIVEN, "grant/falls", "again")

    assert await shop.state() == before
