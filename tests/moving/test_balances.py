"""Balances of another system. Without these points could be given twice, or end on another day."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app import ids
from tests.factories import Shop
from tests.moving.files import Mover
from tests.points.documents import grant

SOON = (datetime.now(UTC) + timedelta(days=100)).strftime("%Y-%m-%d")
HEADER = "externalId,externalSource,points,expiresAt\n"
LOTS = """
SELECT l.amount, l.remaining, nullif(l.expires_at, 'infinity') AS expires_at FROM points_lot l
WHERE l.merchant_id = $1 AND l.member_id = $2 ORDER BY l.entry_id
"""
ENTRIES = """
SELECT amount, balance_after, reason FROM points_entry WHERE merchant_id = $1 AND member_id = $2 ORDER BY created_at
"""


async def _lots(mover: Mover, member: Any) -> list[tuple[int, int, datetime | None]]:
    return [tuple(row.values()) for row in await mover.rows(LOTS, ids.decode("member", member["id"]))]


async def _entries(mover: Mover, member: Any) -> list[tuple[int, int, str]]:
    return [tuple(row.values()) for row in await mover.rows(ENTRIES, ids.decode("member", member["id"]))]


def _end(day: str) -> datetime:
    """Return the end of a day."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)


async def test_balances_are_lots_that_end_as_the_file_says(shop: Shop, mover: Mover) -> None:
    anna, ben = await shop.member(externalId="1"), await shop.member(externalId="2", source="SHOPIFY")
    file = f"{HEADER}1,,100,\n1,,50,{SOON}\n2,SHOPIFY,7,{SOON}T10:00:00Z\n1,,0,{SOON}T00:00:00Z\n"

    said = await mover.applied("balances", file)

    assert said == ["balances: 3 new, 0 to correct, 1 there already.", "balances: 3 made, 0 corrected."]
    assert await _lots(mover, anna) == [(100, 100, None), (50, 50, _end(SOON))]
    assert await _lots(mover, ben) == [(7, 7, datetime.fromisoformat(f"{SOON}T10:00:00+00:00"))]
    assert await _entries(mover, anna) == [(100, 100, "ADJUSTMENT"), (50, 150, "ADJUSTMENT")]
    assert await shop.wallet_versions(anna) == [1, 2]


async def test_what_was_brought_in_is_the_same_however_much_of_it_is_spent(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await mover.applied("balances", f"{HEADER}1,,100,{SOON}\n")
    await grant(shop, anna, -30, "spent")
    before = await _entries(mover, anna)

    said = await mover.applied("balances", f"{HEADER}1,STORE,100,{SOON}\n", corrects=True)

    assert said[0] == "balances: 0 new, 0 to correct, 1 there already."
    assert await _entries(mover, anna) == before


async def test_a_corrected_balance_posts_the_difference_to_its_own_lot(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await grant(shop, anna, 10, "before")
    await mover.applied("balances", f"{HEADER}1,,100,{SOON}\n")

    assert await mover.refused("balances", f"{HEADER}1,,120,{SOON}\n") == [
        "2: points differs from the 100 that were brought in; see --correct"
    ]
    for points in (120, 90, 90, 0, 40):
        await mover.applied("balances", f"{HEADER}1,,{points},{SOON}\n", corrects=True)

    assert [amount for amount, *_ in await _entries(mover, anna)] == [10, 100, 20, -30, -90, 40]
    assert await _lots(mover, anna) == [
        (10, 10, None),
        (100, 0, _end(SOON)),
        (20, 0, _end(SOON)),
        (40, 40, _end(SOON)),
    ]
    assert await shop.wallet_versions(anna) == [1, 2, 3, 4, 5, 6]


async def test_spent_points_cannot_be_corrected_away(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await mover.applied("balances", f"{HEADER}1,,100,{SOON}\n")
    await grant(shop, anna, -30, "spent")

    assert await mover.refused("balances", f"{HEADER}1,,20,{SOON}\n", corrects=True) == [
        "2: points can be 30 at least: the others are spent or held"
    ]
    await mover.applied("balances", f"{HEADER}1,,30,{SOON}\n", corrects=True)
    assert await _lots(mover, anna) == [(100, 0, _end(SOON))]


async def test_every_wrong_row_is_a_line(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await shop.member(externalId="2")
    await grant(shop, anna, 100, "before")
    rows = [
        "1,,-5,\n",
        "1,,5.5,\n",
        "1,,,2020-01-01\n",
        "1,,5,2999-01-01\n",
        "nobody,,5,\n",
        "2,,5,\n",
        "2,,6,\n",
        "1,,2147483647,\n",
        "1,,99999999999,\n",
    ]

    assert await mover.refused("balances", HEADER + "".join(rows)) == [
        "2: points must be between 0 and 2147483647",
        "3: points must be a whole number",
        "4: points is missing; expiresAt must be in the future",
        "5: expiresAt must be at most ten years from now; leave it empty for the merchant's lifetime",
        "10: points must be between 0 and 2147483647",
        "6: externalId is no member's; bring members in first",
        "8: externalId and expiresAt are those of line 7 already",
        "9: points would take the member's balance over 2147483647",
    ]


async def test_one_member_under_two_ids_has_one_balance(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await mover.rows(
        "INSERT INTO external_id (merchant_id, member_id, source, external_id) VALUES ($1, $2, 'SHOPIFY', 'a')",
        ids.decode("member", anna["id"]),
    )

    assert await mover.refused("balances", f"{HEADER}1,,5,\na,SHOPIFY,5,\n") == [
        "3: externalId and expiresAt are those of line 2 already"
    ]
