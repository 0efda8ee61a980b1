"""Refunds on two processes. Without these a purchase could go back more than once, or leave points behind."""

from typing import Any

import pytest

from app import ids
from app.points.expire_points import expire_points_of
from app.points.mature_points import mature_points_of
from tests.conftest import Api
from tests.factories import Shop
from tests.points.documents import (
    CONFIGURE,
    GRANT,
    RECORD,
    REDEEM_REWARD,
    REFUND,
    REVERSE,
    REVERSE_REWARD,
    age,
    asked_refund,
    broken,
    end,
    entries,
    grant,
    points,
    purchase,
    reward,
)
from tests.races.storm import Processes, at_once, kinds, members

KEPT = "query ($id: ID!) { node(id: $id) { ... on Purchase { keptPoints refunded { amountMinor } } } }"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def shuffled(calls: list[Any]) -> list[Any]:
    """Return calls as they come to mind."""
    return sorted(calls, key=lambda _: ids.new().hex[-8:])


async def test_of_fifty_equal_refunds_one_is_made(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 5000)

    for _ in range(2):
        answers = await at_once([processes.do(REFUND, **asked_refund("o-1", "r-1", 2000)) for _ in range(50)])
        assert kinds(answers) == {"RefundPurchaseSuccess": 50}
        assert len({answer["entries"][0]["id"] for answer in answers}) == 1

    assert await entries(shop, member) == [(50, 50, "PURCHASE"), (-20, 30, "REVERSAL")]


async def test_different_refunds_at_once_are_never_more_than_the_purchase(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    made = (await purchase(shop, member, "o-1", 1000))["purchase"]
    calls = [processes.do(REFUND, **asked_refund("o-1", f"r-{number}", 150)) for number in range(15)]
    calls += [processes.do(REFUND, **asked_refund("o-1", "r-0", 149)) for _ in range(5)]

    answers = await at_once(shuffled(calls))

    # Of two amounts under one id one may be refunded; what is left then is too little for another one.
    assert kinds(answers).keys() <= {"RefundPurchaseSuccess", "RefundTooLarge", "IdempotencyKeyReused"}
    assert [answer["replayed"] for answer in answers if "replayed" in answer].count(False) == 6
    assert (await shop.data(KEPT, {"id": made["id"]}))["node"] in (
        {"keptPoints": 1, "refunded": {"amountMinor": 900}}, {"keptPoints": 1, "refunded": {"amountMinor": 899}}
    )  # fmt: skip
    assert await points(shop, member) == 1


async def test_a_refund_and_the_reversal_of_the_rest_make_the_whole(shop: Shop, processes: Processes) -> None:
    crowd = await members(shop, 8)
    for member in crowd:
        await purchase(shop, {"id": member}, member, 3000)
    calls = [processes.do(REFUND, **asked_refund(each, f"r-{part}", 700)) for each in crowd for part in range(4)]
    calls += [processes.do(REVERSE, source="STORE", orderId=each, reason="all") for each in crowd for _ in range(2)]

    answers = await at_once(shuffled(calls), most=40)

    assert kinds(answers)["ReversePurchaseSuccess"] == len(crowd)
    for member in crowd:
        assert await points(shop, {"id": member}) == 0


@pytest.mark.parametrize("against", ["expiry", "the end of pending", "a reward that goes back", "later purchases"])
async def test_refunds_against_what_else_changes_lots_are_exact(shop: Shop, processes: Processes, against: str) -> None:
    await shop.do(CONFIGURE, pointsLifetimeDays=30, pointsPendingDays=14 if against == "the end of pending" else 0)
    crowd = await members(shop, 5)
    mug = await reward(shop, cost=20)
    calls: list[Any] = []
    for member in crowd:
        await purchase(shop, {"id": member}, member, 5000)
        await grant(shop, {"id": member}, 50, f"gift {member}")
        had = await processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member, idempotencyKey=member)
        calls += [processes.do(REFUND, **asked_refund(member, f"r-{part}", 1250)) for part in range(4) for _ in "ab"]
        calls += [
            processes.do(GRANT, memberId=member, amount=-15, reference="spend", idempotencyKey=f"{member} {turn}")
            for turn in range(6)
        ]
        if against == "a reward that goes back":
            calls += [
                processes.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken") for _ in range(2)
            ]
        elif against == "later purchases":
            more = {"memberId": member, "source": "STORE", "amount": {"amountMinor": 1500, "currency": "USD"}}
            calls += [processes.do(RECORD, **more, orderId=f"{member} {turn}") for turn in range(3)]
    if against == "expiry":
        await end(shop, 1)
        calls += [expire_points_of(shop.merchant_id) for _ in range(3)]
    elif against == "the end of pending":
        await age(shop, None, 14.1)
        calls += [mature_points_of(shop.merchant_id) for _ in range(3)]

    answers = await at_once(shuffled(calls), most=40)

    told = [answer for answer in answers if isinstance(answer, dict)]
    assert kinds(told)["RefundPurchaseSuccess"] == 8 * len(crowd)
    for member in crowd:
        moved = [amount for amount, _, _ in await entries(shop, {"id": member})]
        assert sum(moved) == await points(shop, {"id": member})
    assert await broken(shop) == []
