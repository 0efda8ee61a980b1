"""Held points. Without these they could be spent twice, expire, be taken back, or come back to the wrong dates."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.points.types import PointsReason
from tests.factories import Shop
from tests.points.documents import (
    REVERSE,
    broken,
    days_later,
    entries,
    grant,
    purchase,
    redeem,
    reward,
    wallet,
)
from tests.points.holds import captured, freed, held, parts
from tests.races.storm import at_once

#: In thirty days.
ENDS = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_rewards_have_what_is_spent_first_and_the_payment_what_is_spent_last(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "endless")
    await grant(shop, member, 50, "ends", expiresAt=ENDS)

    hold_id, holding = await held(shop, member, 70, 30, 40)

    assert (holding.is_held, holding.spendable) == (True, 150)
    assert await parts(shop, hold_id, "endless", "ends") == [
        (0, "endless", 70), (1, "ends", 30), (2, "ends", 20), (2, "endless", 20)
    ]  # fmt: skip
    shown = await wallet(shop, member)
    assert (shown["points"], shown["heldPoints"], shown["spendablePoints"], shown["nextExpiry"]) == (150, 140, 10, None)
    assert holding.change is not None
    assert (holding.change["event_type"], holding.change["event_points"]) == ("hold.placed", 140)
    assert holding.change["event_wallet_held_points"] == 140
    assert await broken(shop) == await shop.broken_promises() == []


async def test_what_is_held_is_not_spent(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    await held(shop, member, 60)

    refused = await grant(shop, member, -41, "k-2")
    answer = await grant(shop, member, -40, "k-3")
    _, holding = await held(shop, member, 1)

    assert (refused["__typename"], refused["balance"], refused["required"]) == ("InsufficientPoints", 40, 41)
    assert answer["entry"]["balanceAfter"] == 60
    assert (holding.is_held, holding.spendable) == (False, 0)
    assert (await wallet(shop, member))["heldPoints"] == 60
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_capture_takes_exactly_what_is_held(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "endless")
    hold_id, _ = await held(shop, member, 40, 50)
    await grant(shop, member, 30, "ends", expiresAt=ENDS)

    mug = await captured(shop, member, hold_id, 50, position=1, reason=PointsReason.REWARD)
    paid = await captured(shop, member, hold_id, 40)

    assert (mug.entry["entry_amount"], paid.entry["entry_amount"], paid.entry["entry_balance_after"]) == (-50, -40, 40)
    assert (paid.latest, paid.expired) == (paid.entry, 0)
    shown = await wallet(shop, member)
    assert (shown["points"], shown["heldPoints"], shown["spendablePoints"]) == (40, 0, 40)
    assert shown["nextExpiry"] == {"points": 30, "expiresAt": ENDS}
    assert await parts(shop, hold_id) == []
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_smaller_capture_gives_back_what_would_be_spent_last(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 50, "endless")
    await grant(shop, member, 50, "ends", expiresAt=ENDS)
    hold_id, _ = await held(shop, member, 80)
    before = (await wallet(shop, member))["version"]

    paid = await captured(shop, member, hold_id, 20)

    shown = await wallet(shop, member)
    assert (paid.entry["entry_amount"], shown["points"], shown["heldPoints"], shown["version"]) == (
        -20, 80, 0, before + 1
    )  # fmt: skip
    assert shown["nextExpiry"] == {"points": 30, "expiresAt": ENDS}
    assert await broken(shop) == await shop.broken_promises() == []


async def test_more_than_is_held_is_not_captured(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    hold_id, _ = await held(shop, member, 40)
    before = await shop.state()

    with pytest.raises(RuntimeError, match="fewer points"):
        await captured(shop, member, hold_id, 41)

    assert (await shop.state()).since(before) == {}


async def test_points_come_free_once(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    hold_id, _ = await held(shop, member, 40, 20)

    first = await freed(shop, member, hold_id)
    before = await shop.state()
    second = await freed(shop, member, hold_id)

    assert first is not None
    assert (first.points, first.expired, first.change["event_type"]) == (60, 0, "hold.released")
    assert first.latest == first.change
    assert second is None
    assert (await shop.state()).since(before) == {}
    shown = await wallet(shop, member)
    assert (shown["points"], shown["heldPoints"], shown["spendablePoints"]) == (100, 0, 100)
    assert await entries(shop, member) == [(100, 100, "ADJUSTMENT")]
    assert await broken(shop) == await shop.broken_promises() == []


async def test_what_is_held_expires_when_it_comes_free(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1", expiresAt=ENDS)
    hold_id, _ = await held(shop, member, 60)
    await days_later(shop, member, 31)
    between = await wallet(shop, member)

    ended = await freed(shop, member, hold_id, "hold.expired")

    assert (between["points"], between["heldPoints"], between["spendablePoints"]) == (60, 60, 0)
    assert ended is not None
    assert (ended.points, ended.expired) == (60, 60)
    assert await entries(shop, member) == [(100, 100, "ADJUSTMENT"), (-40, 60, "EXPIRY"), (-60, 0, "EXPIRY")]
    assert await broken(shop) == await shop.broken_promises() == []


async def test_what_is_held_past_its_date_still_pays(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1", expiresAt=ENDS)
    hold_id, _ = await held(shop, member, 60)
    await days_later(shop, member, 31)

    paid = await captured(shop, member, hold_id, 50)

    assert (paid.entry["entry_amount"], paid.expired) == (-50, 10)
    assert await entries(shop, member) == [
        (100, 100, "ADJUSTMENT"), (-40, 60, "EXPIRY"), (-50, 10, "REWARD"), (-10, 0, "EXPIRY")
    ]  # fmt: skip
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_return_lacks_what_is_held_and_has_it_when_it_comes_free(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 10_000)
    hold_id, _ = await held(shop, member, 70)
    answer = await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")
    await purchase(shop, member, "o-2", 3_000)
    lacking = await wallet(shop, member)

    ended = await freed(shop, member, hold_id)

    assert (answer["shortfall"], lacking["shortfall"], lacking["points"], lacking["heldPoints"]) == (70, 40, 70, 70)
    shown = await wallet(shop, member)
    assert (shown["points"], shown["heldPoints"], shown["shortfall"]) == (30, 0, 0)
    # Its own points fill what was left to lack, and the later purchase has back what it had paid.
    assert await entries(shop, member) == [
        (100, 100, "PURCHASE"), (-30, 70, "REVERSAL"), (30, 100, "PURCHASE"), (-30, 70, "REVERSAL"),
        (-70, 0, "REVERSAL"), (30, 30, "REFUND"),
    ]  # fmt: skip
    assert ended is not None
    assert ended.latest["event_wallet_points"] == 30
    assert await broken(shop) == await shop.broken_promises() == []


async def test_others_pay_in_place_of_what_is_held_and_have_it_back(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 10_000)
    hold_id, _ = await held(shop, member, 100)
    await grant(shop, member, 100, "ends", expiresAt=ENDS)

    answer = await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")
    between = (await wallet(shop, member))["nextExpiry"]
    await freed(shop, member, hold_id)

    assert (answer["shortfall"], between) == (0, None)
    assert (await wallet(shop, member))["nextExpiry"] == {"points": 100, "expiresAt": ENDS}
    assert await entries(shop, member) == [
        (100, 100, "PURCHASE"), (100, 200, "ADJUSTMENT"), (-100, 100, "REVERSAL"), (-100, 0, "REVERSAL"),
        (100, 100, "REFUND"),
    ]  # fmt: skip
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_hold_that_asks_for_more_keeps_what_it_has(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 50, "first")
    hold_id, _ = await held(shop, member, 30)
    await grant(shop, member, 50, "ends", expiresAt=ENDS)

    _, more = await held(shop, member, 20, 40, hold_id=hold_id, event_type="hold.changed")
    _, too_many = await held(shop, member, 20, 81, hold_id=hold_id, event_type="hold.changed")
    _, same = await held(shop, member, 20, 40, hold_id=hold_id, event_type="hold.changed")

    assert (more.is_held, more.spendable, too_many.is_held, too_many.spendable) == (True, 100, False, 100)
    assert (same.is_held, same.change) == (True, None)
    assert await parts(shop, hold_id, "first", "ends") == [(0, "first", 20), (1, "ends", 30), (1, "first", 10)]
    assert (await wallet(shop, member))["heldPoints"] == 60
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_hold_that_asks_for_fewer_frees_what_would_be_spent_last(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 50, "endless")
    await grant(shop, member, 50, "ends", expiresAt=ENDS)
    hold_id, _ = await held(shop, member, 30, 60)

    _, fewer = await held(shop, member, 20, 10, hold_id=hold_id, event_type="hold.changed")

    assert fewer.change is not None
    assert (fewer.change["event_type"], fewer.change["event_points"]) == ("hold.changed", 60)
    assert await parts(shop, hold_id, "ends") == [(0, "ends", 20), (1, "ends", 10)]
    shown = await wallet(shop, member)
    assert (shown["heldPoints"], shown["nextExpiry"]) == (30, {"points": 20, "expiresAt": ENDS})

    await held(shop, member, 0, hold_id=hold_id, event_type="hold.changed")
    assert await parts(shop, hold_id) == []
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_reward_is_paid_by_what_is_not_held(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 50, "ends", expiresAt=ENDS)
    await grant(shop, member, 50, "endless")
    hold_id, _ = await held(shop, member, 30)

    answer = await redeem(shop, await reward(shop, cost=60), member, "mug")

    assert answer["redemption"]["entry"]["balanceAfter"] == 40
    assert await parts(shop, hold_id, "ends") == [(0, "ends", 30)]
    assert (await wallet(shop, member))["nextExpiry"] is None
    await freed(shop, member, hold_id)
    assert (await wallet(shop, member))["nextExpiry"] == {"points": 30, "expiresAt": ENDS}
    assert await broken(shop) == await shop.broken_promises() == []


async def test_of_holds_and_debits_at_once_none_has_the_points_of_another(shop: Shop) -> None:
    member = await shop.member()
    for number in range(5):
        await grant(shop, member, 20, f"k-{number}")

    holds, debits = await asyncio.gather(
        at_once(held(shop, member, 7, 3) for _ in range(8)),
        at_once(grant(shop, member, -6, f"spent-{number}") for number in range(8)),
    )

    placed = [hold_id for hold_id, holding in holds if holding.is_held]
    spent = sum(answer["__typename"] == "GrantPointsSuccess" for answer in debits)
    shown = await wallet(shop, member)
    assert (shown["points"], shown["heldPoints"]) == (100 - 6 * spent, 10 * len(placed))
    assert 0 <= shown["spendablePoints"] < 10
    ended = await at_once(freed(shop, member, hold_id) for hold_id in placed * 2)
    assert sum(each.points for each in ended if each is not None) == 10 * len(placed)
    assert (await wallet(shop, member))["spendablePoints"] == 100 - 6 * spent
    assert await broken(shop) == await shop.broken_promises() == []
