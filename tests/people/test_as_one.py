"""Whatever two records did, after a merging the person ends where one member would who did it all."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.factories import Shop
from tests.orders.holding import CAPTURE, RELEASE, hold
from tests.people.documents import merge
from tests.points.documents import CONFIGURE, REVERSE_REWARD, days_later, grant, purchase, refund, reward, wallet
from tests.points.documents import redeem as have

#: Two records of a person: one member in the control, two that are merged half-way otherwise.
Pair = tuple[Any, Any]
Part = Callable[[Shop, Pair, dict[str, Any]], Awaitable[None]]


async def _bought_and_spent(shop: Shop, pair: Pair, kept: dict[str, Any]) -> None:
    first, second = pair
    await purchase(shop, second, "a", 30_000)
    await grant(shop, first, 40, "a", expiresAt="2031-01-01T00:00:00Z")
    kept["had"] = await have(shop, await reward(shop, cost=250), second, "a")


async def _returned_and_brought_back(shop: Shop, pair: Pair, kept: dict[str, Any]) -> None:
    first, second = pair
    await refund(shop, "a", "part", 10_000)
    await shop.do(REVERSE_REWARD, redemptionId=kept["had"]["redemption"]["id"], reason="broken")
    await purchase(shop, first, "b", 5_000)
    await refund(shop, "a", "rest", 20_000)
    await purchase(shop, second, "c", 2_000)


async def _fell_short_and_paid(shop: Shop, pair: Pair, _: dict[str, Any]) -> None:
    # All by one of both: what a return lacks is taken from nobody else's points, before or afterwards.
    _, second = pair
    await purchase(shop, second, "a", 10_000)
    await purchase(shop, second, "b", 4_000)
    await have(shop, await reward(shop, cost=90), second, "a")
    await refund(shop, "a", "all", 10_000)
    # The next one pays in its place.
    await purchase(shop, second, "c", 3_000)


async def _returned_what_had_paid(shop: Shop, pair: Pair, _: dict[str, Any]) -> None:
    first, second = pair
    await refund(shop, "c", "all", 3_000)
    await purchase(shop, first, "d", 20_000)
    await refund(shop, "b", "part", 1_000)
    await grant(shop, second, -20, "less")


async def _held(shop: Shop, pair: Pair, kept: dict[str, Any]) -> None:
    first, second = pair
    await purchase(shop, second, "a", 10_000)
    await grant(shop, first, 60, "a")
    kept["holds"] = [
        await hold(shop, [], member, order=f"held-{number}", points=points)
        for number, (member, points) in enumerate(((second, 70), (first, 50), (second, 20)))
    ]


async def _captured_and_released(shop: Shop, pair: Pair, kept: dict[str, Any]) -> None:
    first, second = pair
    # Of what is returned most is held: what is lacking is filled when a hold ends.
    await refund(shop, "a", "all", 10_000)
    await shop.do(CAPTURE, holdId=kept["holds"][1]["id"])
    await shop.do(RELEASE, holdId=kept["holds"][0]["id"])
    await purchase(shop, first, "held-1", 9_000)
    await refund(shop, "held-1", "part", 4_000)
    await shop.do(RELEASE, holdId=kept["holds"][2]["id"])
    await purchase(shop, second, "d", 1_000)


async def _pending(shop: Shop, pair: Pair, _: dict[str, Any]) -> None:
    first, second = pair
    await shop.do(CONFIGURE, pointsPendingDays=14, pointsLifetimeDays=30)
    for number, member in enumerate(pair):
        await purchase(shop, member, f"p{number}", 5_000)
    await grant(shop, second, 10, "a")
    await refund(shop, "p1", "part", 2_000)
    assert first


async def _matured_and_ended(shop: Shop, pair: Pair, _: dict[str, Any]) -> None:
    first, second = pair
    for member in {each["id"]: each for each in (first, second)}.values():
        await days_later(shop, member, 20)
    await have(shop, await reward(shop, cost=15), second, "a")
    await refund(shop, "p0", "part", 1_000)


STORIES: list[tuple[Part, Part]] = [
    (_bought_and_spent, _returned_and_brought_back),
    (_fell_short_and_paid, _returned_what_had_paid),
    (_held, _captured_and_released),
    (_pending, _matured_and_ended),
]


async def _told(shop: Shop, member: Any) -> Any:
    found = await wallet(shop, member)
    del found["version"]
    expiry = found.pop("nextExpiry")
    return found | {"expiring": None if expiry is None else expiry["points"]}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story[0].__name__.strip("_"))
async def test_a_person_ends_where_one_member_would(shop: Shop, other_shop: Shop, story: tuple[Part, Part]) -> None:
    before, after = story
    one = await other_shop.member()
    kept: dict[str, Any] = {}
    await before(other_shop, (one, one), kept)
    await after(other_shop, (one, one), kept)
    first, second = await shop.member(), await shop.member()
    kept = {}
    await before(shop, (first, second), kept)

    await merge(shop, first, second)
    # Both ids are taken afterwards; points are aged by the row that is left.
    pair = (first, first) if after is _matured_and_ended else (first, second)
    await after(shop, pair, kept)

    assert await _told(shop, first) == await _told(other_shop, one)
    assert await shop.broken_promises() == []
