"""Purchases of another system. Without these they could earn points again, or not count as what somebody bought."""

import asyncio
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from app import ids
from app.moving.purchases import Purchases
from app.storage.database import transaction
from tests.factories import Shop
from tests.moving.files import Mover
from tests.orders.documents import CANCEL, cancellation, order_of, stackable
from tests.orders.holding import hold
from tests.points.documents import CONFIGURE, points, purchase, refund
from tests.races.storm import until_somebody_waits
from tests.referrals.documents import accepted, program

HEADER = "source,orderId,externalId,externalSource,amountMinor,currency,occurredAt\n"
FIRST = "STORE,A-1,1,,1999,USD,2024-03-01T10:00:00Z\n"
SECOND = "shopify,A-1,1,,500,USD,2025-03-01\n"
BOUGHT = "SELECT last_bought_at FROM member WHERE merchant_id = $1 AND id = $2"
LOCK = "SELECT FROM member WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE"
ROWS = """
SELECT source, order_id, amount, points, points_per_unit::int AS rate, occurred_at FROM purchase
WHERE merchant_id = $1 ORDER BY id
"""


async def _last(mover: Mover, member: Any) -> datetime | None:
    (row,) = await mover.rows(BOUGHT, ids.decode("member", member["id"]))
    found: datetime | None = row["last_bought_at"]
    return found


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def test_purchases_count_as_those_of_their_day_and_earn_nothing(shop: Shop, mover: Mover) -> None:
    await shop.do(CONFIGURE, pointsPerUnit=10.0)
    anna = await shop.member(externalId="1")

    said = await mover.applied("purchases", HEADER + SECOND + FIRST)

    assert said == ["purchases: 2 new, 0 to correct, 0 there already.", "purchases: 2 made, 0 corrected."]
    assert [tuple(row.values()) for row in await mover.rows(ROWS)] == [
        ("SHOPIFY", "A-1", 500, 0, 0, _utc("2025-03-01")),
        ("STORE", "A-1", 1999, 0, 0, _utc("2024-03-01T10:00:00")),
    ]
    assert (await points(shop, anna), await _last(mover, anna)) == (0, _utc("2025-03-01"))
    assert await shop.wallet_versions(anna) == []
    assert (await purchase(shop, anna, "A-1", 1999))["replayed"] is True
    refunded = await refund(shop, "A-1", "R-1", 999)
    assert (refunded["moneyReturned"]["amountMinor"], refunded["shortfall"]) == (999, 0)
    assert await shop.broken_promises() == []


async def test_they_convert_no_invite_and_the_next_purchase_does(shop: Shop, mover: Mover) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    await accepted(shop, await shop.member(), externalId="1")

    await mover.applied("purchases", HEADER + FIRST.replace(",1,,", ",1,REFERRAL,"))

    assert await shop.count("referral") == 0
    assert (await mover.rows("SELECT status FROM invite WHERE merchant_id = $1"))[0]["status"] == "PENDING"


async def test_the_same_purchases_are_there_already(shop: Shop, mover: Mover) -> None:
    await shop.member(externalId="1")
    await mover.applied("purchases", HEADER + FIRST)

    said = await mover.applied("purchases", HEADER + SECOND + FIRST)

    assert said[0] == "purchases: 1 new, 0 to correct, 1 there already."


async def test_what_differs_is_refused_and_with_correct_is_changed(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await mover.applied("purchases", HEADER + FIRST + SECOND)
    changed = HEADER + FIRST + SECOND.replace("500", "700").replace("2025", "2023")

    assert await mover.refused("purchases", changed) == [
        "3: amountMinor, occurredAt differs from what is recorded; see --correct"
    ]
    await mover.applied("purchases", changed, corrects=True)

    assert [row["amount"] for row in await mover.rows(ROWS)] == [1999, 700]
    assert await _last(mover, anna) == _utc("2024-03-01T10:00:00")
    assert (await shop.event_types())[-1] == "purchase.corrected"


async def test_a_correction_that_a_deadlock_ended_is_made_again(
    shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.member(externalId="1")
    await mover.applied("purchases", HEADER + FIRST)
    correct, ended = Purchases._correct, [1]

    async def ending(*asked: Any) -> bool:
        if ended and ended.pop():
            raise asyncpg.DeadlockDetectedError
        return await correct(*asked)

    monkeypatch.setattr(Purchases, "_correct", ending)
    said = await mover.applied("purchases", HEADER + FIRST.replace("1999", "700"), corrects=True)

    assert said[-1] == "purchases: 0 made, 1 corrected."
    assert [row["amount"] for row in await mover.rows(ROWS)] == [700]


async def test_what_points_or_refunds_hang_on_cannot_be_corrected(shop: Shop, mover: Mover) -> None:
    anna, _ = await shop.member(externalId="1"), await shop.member(externalId="2")
    await purchase(shop, anna, "earned", 1000)
    await mover.applied("purchases", HEADER + FIRST)
    await refund(shop, "A-1", "R-1", 999)
    rows = "STORE,earned,1,,5,USD,2024-01-01\nSTORE,A-1,1,,5,USD,2024-03-01T10:00:00Z\n"

    assert await mover.refused("purchases", HEADER + rows, corrects=True) == [
        "2: amountMinor, occurredAt can't be corrected: points, refunds or codes hang on it; amend the order",
        "3: amountMinor can't be corrected: points, refunds or codes hang on it; amend the order",
    ]
    assert await mover.refused("purchases", HEADER + FIRST.replace(",1,", ",2,")) == [
        "2: orderId is recorded for another member"
    ]


async def test_an_order_that_is_held_is_read_again_and_a_cancelled_one_is_refused(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    for order in ("A-1", "A-2"):
        await hold(shop, [await shop.claim(await shop.pool(), anna)], anna, order=order)
    await shop.do(CANCEL, **cancellation(orderId="A-2"))

    assert await mover.refused("purchases", HEADER + FIRST + FIRST.replace("A-1", "A-2")) == [
        "3: orderId is that of a cancelled order"
    ]
    version = "SELECT version FROM sales_order WHERE merchant_id = $1 AND order_id = 'A-1'"
    (before,) = await mover.rows(version)
    await mover.applied("purchases", HEADER + FIRST)
    (after,) = await mover.rows(version)
    assert after["version"] == before["version"] + 1


async def test_an_order_that_began_and_was_called_off_meanwhile_has_no_purchase(shop: Shop, mover: Mover) -> None:
    """The batch began to look before the order was there."""
    anna, ben = await shop.member(externalId="1"), await shop.member()
    (code,) = await stackable(shop, ben, 1)
    outside = copy_context()

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK, shop.merchant_id, ids.decode("member", anna["id"]))
        moving = asyncio.create_task(mover.move("purchases", HEADER + FIRST + SECOND), context=outside)
        await until_somebody_waits(tx)
        await shop.redeem([code["text"]], ben, order="A-1")
        cancelled = await shop.do(CANCEL, **cancellation(orderId="A-1"))
        assert cancelled["moneyReturned"]["amountMinor"] == 0

    brought = await moving
    assert (brought.status, brought.said[-1]) == (3, "purchases: 1 made, 0 corrected.")
    assert [line.partition(" ")[0] for line in brought.wrong] == ["export.csv:2:"]
    assert (await order_of(shop, "A-1"))["purchase"] is None
    assert await shop.broken_promises() == []


async def test_every_wrong_row_is_a_line(shop: Shop, mover: Mover) -> None:
    await shop.member(externalId="1")
    rows = [
        "TILL,A-1,1,,1,USD,2024-01-01\n",
        "STORE,,1,,1e3,EUR,2024-01-01\n",
        "STORE,A-2,1,,-1,USD,2999-01-01\n",
        "STORE,A-3,nobody,,1,USD,2024-01-01\n",
        "STORE,A-4,1,,1,USD,2024-01-01\n",
        "STORE,A-4,1,,1,USD,2024-01-01\n",
    ]

    assert await mover.refused("purchases", HEADER + "".join(rows)) == [
        "2: source must be one of STORE, SHOPIFY, RECEIPT, REFERRAL, IMPORT",
        "3: orderId is missing; amountMinor must be a whole number; currency must be USD, the merchant's currency",
        "4: amountMinor must be between 0 and 1000000000000000; occurredAt must not be in the future",
        "5: externalId is no member's; bring members in first",
        "7: source and orderId are those of line 6 already",
    ]
