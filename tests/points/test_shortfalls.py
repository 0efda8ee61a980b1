"""Shortfalls. Without these a return could be paid twice, or not at all, or change what nobody returned."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.points.ledger import POINTS_MAX
from app.storage.database import database
from tests.conftest import Api
from tests.factories import Shop, open_shop, problems
from tests.points.documents import (
    CONFIGURE,
    REVERSE,
    REVERSE_REWARD,
    broken,
    days_later,
    entries,
    grant,
    purchase,
    redeem,
    refund,
    reward,
    wallet,
)
from tests.points.holds import captured, freed, held
from tests.sizes import FULL, size

T = TypeVar("T")


async def state(shop: Shop, member: Any) -> tuple[int, int]:
    """Return a member's points and shortfall."""
    shown = await wallet(shop, member)
    return shown["points"], shown["shortfall"]


async def reverse(shop: Shop, order: str) -> Any:
    """Take a purchase back, and return the answer."""
    return await shop.do(REVERSE, source="STORE", orderId=order, reason="returned")


async def test_later_purchases_make_a_shortfall_good_and_nothing_else_does(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 10_000)
    await grant(shop, member, -100, "spent")
    answer = await reverse(shop, "o-1")
    assert (answer["entry"], answer["shortfall"]) == (None, 100)
    assert answer["purchase"]["member"]["wallet"] == {"version": 3, "points": 0}

    await grant(shop, member, 30, "never pays")
    bought = await purchase(shop, member, "o-2", 6000)
    assert (bought["entry"]["amount"], bought["purchase"]["points"]) == (60, 60)
    assert bought["purchase"]["member"]["wallet"] == {"version": 6, "points": 30}
    assert await state(shop, member) == (30, 40)
    await purchase(shop, member, "o-3", 6000)

    assert await state(shop, member) == (50, 0)
    assert (await entries(shop, member))[2:] == [
        (30, 30, "ADJUSTMENT"), (60, 90, "PURCHASE"), (-60, 30, "REVERSAL"), (60, 90, "PURCHASE"), (-40, 50, "REVERSAL")
    ]  # fmt: skip
    assert await broken(shop) == []


async def test_a_merchant_may_leave_it_at_that(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, recoverShortfalls=False)
    await purchase(shop, member, "o-1", 10_000)
    await grant(shop, member, -100, "spent")
    await reverse(shop, "o-1")

    await purchase(shop, member, "o-2", 6000)
    assert await state(shop, member) == (60, 100)
    await shop.do(CONFIGURE, recoverShortfalls=True)
    await purchase(shop, member, "o-3", 1000)

    assert await state(shop, member) == (60, 90)


async def test_several_are_made_good_in_the_order_in_which_they_arose(shop: Shop) -> None:
    member = await shop.member()
    made = [await purchase(shop, member, f"o-{number}", 1000 * number) for number in (1, 2)]
    await grant(shop, member, -30, "spent")
    await reverse(shop, "o-2")
    await reverse(shop, "o-1")

    await purchase(shop, member, "o-3", 2500)
    assert await state(shop, member) == (0, 5)
    # Of the five that are lacking still, all are of the first order: its return came last.
    answer = await reverse(shop, "o-3")

    assert (answer["entry"], answer["shortfall"]) == (None, 0)
    assert await state(shop, member) == (0, 30)
    assert {each["purchase"]["points"] for each in made} == {10, 20}
    assert await broken(shop) == []


async def test_returning_the_purchase_that_paid_opens_the_shortfall_again(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 20, "old")
    mug = await redeem(shop, await reward(shop, cost=20), member, "spends the old ones")
    await purchase(shop, member, "o-1", 3000)
    await redeem(shop, await reward(shop, cost=30), member, "spends the purchase")
    await reverse(shop, "o-1")
    await purchase(shop, member, "o-2", 5000)
    assert await state(shop, member) == (20, 0)
    # These are older than the return: they pay when the purchase that paid goes back itself.
    await shop.do(REVERSE_REWARD, redemptionId=mug["redemption"]["id"], reason="broken")
    late = await grant(shop, member, 7, "younger than the return")
    assert late["entry"]["balanceAfter"] == 47

    answer = await reverse(shop, "o-2")

    assert (answer["entry"]["amount"], answer["shortfall"]) == (-20, 0)
    assert (await entries(shop, member))[-2:] == [(-20, 27, "REVERSAL"), (-20, 7, "REVERSAL")]
    assert answer["purchase"]["member"]["wallet"]["points"] == 7
    assert await state(shop, member) == (7, 10)
    assert await broken(shop) == []


async def test_a_pending_purchase_pays_too(shop: Shop) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 3000)
    await grant(shop, member, -30, "spent")
    await reverse(shop, "o-1")
    await shop.do(CONFIGURE, pointsPendingDays=14)

    await purchase(shop, member, "o-2", 5000)

    shown = await wallet(shop, member)
    assert (shown["points"], shown["pendingPoints"], shown["shortfall"]) == (20, 20, 0)
    assert await broken(shop) == []


@pytest.mark.parametrize("is_mug_first", [True, False])
async def test_what_comes_back_fills_what_its_absence_opened_again(shop: Shop, *, is_mug_first: bool) -> None:
    """A purchase had paid in place of another one, and goes back while older points are spent."""
    member = await shop.member()
    await grant(shop, member, 50, "old")
    first = await redeem(shop, await reward(shop, cost=50), member, "spends the old ones")
    await purchase(shop, member, "o-1", 3000)
    await redeem(shop, await reward(shop, cost=30), member, "spends the purchase")
    await reverse(shop, "o-1")
    await purchase(shop, member, "o-2", 3000)
    assert await state(shop, member) == (0, 0)
    await shop.do(REVERSE_REWARD, redemptionId=first["redemption"]["id"], reason="broken")
    second = await redeem(shop, await reward(shop, cost=50), member, "spends the old ones again")

    if not is_mug_first:
        assert (await reverse(shop, "o-2"))["shortfall"] == 0
        assert await state(shop, member) == (0, 30)
    await shop.do(REVERSE_REWARD, redemptionId=second["redemption"]["id"], reason="broken, too")
    if is_mug_first:
        await reverse(shop, "o-2")

    assert await state(shop, member) == (20, 0)
    assert await broken(shop) == []


async def test_a_shortfall_has_a_limit(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, recoverShortfalls=False)
    for order in ("o-1", "o-2"):
        await purchase(shop, member, order, 100 * POINTS_MAX)
        await grant(shop, member, -POINTS_MAX, f"spent {order}")
    assert (await reverse(shop, "o-1"))["shortfall"] == POINTS_MAX

    refused = await shop.refused(REVERSE, source="STORE", orderId="o-2", reason="returned")

    assert problems(refused) == {"orderId": f"would take the member's shortfall over {POINTS_MAX}"}


#: What may have happened before: earned, given with an end or without, spent, returned, waited, held and captured in
#: part, or not.
HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.just("buy"), st.integers(1, 60)),
        st.tuples(st.just("grant"), st.integers(1, 60)),
        st.tuples(st.just("grant with an end"), st.integers(1, 20)),
        st.tuples(st.just("spend"), st.integers(1, 60)),
        st.tuples(st.just("hold"), st.integers(1, 60)),
        st.tuples(st.just("capture"), st.integers(1, 60)),
        st.tuples(st.just("let go"), st.integers(0, 2)),
        st.tuples(st.just("return"), st.integers(0, 9)),
        st.tuples(st.just("return some"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("lifetime"), st.sampled_from([5, 30])),
        st.tuples(st.just("pending"), st.sampled_from([0, 3])),
    ),
    max_size=10,
)


async def test_buying_and_returning_leaves_everything_as_it_was(api: Api, shop: Shop) -> None:
    """For any history, whole or in parts, held in between or not: balance, pending, shortfall, and each date."""
    loop = asyncio.get_running_loop()

    def do(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(120)

    @settings(deadline=None, max_examples=size(5, 100), derandomize=not FULL, suppress_health_check=list(HealthCheck))
    @given(
        steps=HISTORIES, points=st.integers(1, 80), parts=st.integers(1, 4), pending_days=st.sampled_from([0, 3]),
        held_points=st.lists(st.integers(1, 100), max_size=2),
    )  # fmt: skip
    def holds(steps: list[tuple[str, int]], points: int, parts: int, pending_days: int, held_points: list[int]) -> None:
        do(_as_it_was(f"{api.url}/graphql", steps, 100 * points + 50, parts, held_points, pending_days=pending_days))

    await asyncio.to_thread(holds)


async def _as_it_was(
    url: str, steps: list[tuple[str, int]], amount: int, parts: int, held_points: list[int], *, pending_days: int
) -> None:
    async with open_shop(url) as shop:
        member = await shop.member()
        orders, holds = list[str](), list[UUID]()
        for number, (step, value) in enumerate(steps):
            if step in {"hold", "capture", "let go"}:
                await _hold(shop, member, step, value, holds)
            else:
                await _live(shop, member, step, value, f"{number}", orders)
        await shop.do(CONFIGURE, pointsPendingDays=pending_days)
        before = await _dates(shop)

        await purchase(shop, member, "bought and returned", amount)
        later = [(await held(shop, member, each))[0] for each in held_points]
        for part in range(1, parts):
            await refund(shop, "bought and returned", f"{part}", amount // parts)
            if later:
                await freed(shop, member, later.pop())
        await reverse(shop, "bought and returned")
        for each in later:
            await freed(shop, member, each)

        assert await _dates(shop) == before
        assert await broken(shop) == []
        assert await shop.broken_promises() == []


async def _live(shop: Shop, member: Any, step: str, value: int, key: str, orders: list[str]) -> None:
    match step:
        case "buy":
            orders.append(f"o-{len(orders)}")
            await purchase(shop, member, orders[-1], 100 * value)
        case "grant":
            await grant(shop, member, value, key)
        case "grant with an end":
            ends = (datetime.now(UTC) + timedelta(days=value)).isoformat()
            await grant(shop, member, 10, key, expiresAt=ends)
        case "spend":
            await grant(shop, member, -value, key)
        case "return":
            await shop.do(REVERSE, source="STORE", orderId=f"o-{value}", reason="returned")
        case "return some":
            await refund(shop, f"o-{value}", key, 700)
        case "wait":
            await days_later(shop, member, value)
        case "lifetime":
            await shop.do(CONFIGURE, pointsLifetimeDays=value)
        case "pending":
            await shop.do(CONFIGURE, pointsPendingDays=value)


async def _hold(shop: Shop, member: Any, step: str, value: int, holds: list[UUID]) -> None:
    if step == "let go":
        if holds:
            await freed(shop, member, holds[value % len(holds)])
        return
    hold_id, holding = await held(shop, member, value)
    if step == "hold":
        holds.append(hold_id)
    elif holding.is_held:
        await captured(shop, member, hold_id, (value + 1) // 2)


LOTS = """
SELECT sum(l.remaining)::int AS points, l.held, l.expires_at, l.is_pending,
    coalesce(sum(r.shortfall), 0)::int AS shortfall
FROM points_lot l LEFT JOIN (
    SELECT lot_id, sum(shortfall) AS shortfall FROM points_return WHERE merchant_id = $1 GROUP BY lot_id
) r ON r.lot_id = l.entry_id
WHERE l.merchant_id = $1 AND (l.remaining > 0 OR r.shortfall > 0)
GROUP BY l.held, l.expires_at, l.is_pending, l.entry_id ORDER BY l.expires_at, l.is_pending, l.entry_id
"""


async def _dates(shop: Shop) -> list[Any]:
    return [tuple(row.values()) for row in await database().rows(LOTS, shop.merchant_id)]
