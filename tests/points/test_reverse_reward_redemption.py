"""reverseRewardRedemption. Without these a reward could come back twice, or its points without their dates."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.api.context import Role, Viewer
from app.merchants.tenants import tenant
from app.points import reverse_reward_redemption
from app.points.ledger import POINTS_MAX
from app.points.reverse_reward_redemption import _end_code, _exchange
from app.points.rows import code_of
from app.storage.database import database, transaction
from tests.factories import Shop, problems
from tests.points.documents import (
    CONFIGURE,
    EDIT_REWARD,
    REVERSE,
    REVERSE_REWARD,
    age,
    broken,
    entries,
    grant,
    points,
    purchase,
    redeem,
    reward,
    wallet,
)

REVERSE_REDEMPTION = """
mutation ($input: ReverseRedemptionInput!) { answer: reverseRedemption(input: $input) { __typename } }
"""
REWARD = "query ($id: ID!) { node(id: $id) { ... on Reward { stock } } }"
EVENTS = "query { events(first: 3) { edges { node { type subjectId reason points } } } }"


async def back(shop: Shop, had: Any, **how: Any) -> Any:
    """Take a reward back, and return the answer."""
    return await shop.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken", **how)


async def test_points_come_back_with_their_dates_and_so_does_the_stock(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    await grant(shop, member, 60, "first")
    ends = (await wallet(shop, member))["nextExpiry"]
    await grant(shop, member, 60, "second")
    mug = await reward(shop, cost=100, stock=2)
    had = await redeem(shop, mug, member, "k")

    answer = await back(shop, had)

    assert answer["replayed"] is False
    entry = answer["entry"]
    assert (entry["amount"], entry["balanceAfter"], entry["reason"], entry["reference"]) == (100, 120, "REFUND", "Mug")
    assert entry["spendableAt"] is entry["expiresAt"] is None
    assert answer["redemption"]["reversedAt"] is not None
    assert answer["redemption"]["reward"]["stock"] == 2
    assert answer["redemption"]["member"]["wallet"] == {"version": 4, "points": 120}
    assert (await wallet(shop, member))["nextExpiry"] == ends
    nodes = [edge["node"] for edge in (await shop.data(EVENTS))["events"]["edges"]]
    (event,) = [node for node in nodes if node["type"] == "reward.returned"]
    assert event == {
        "type": "reward.returned", "subjectId": had["redemption"]["id"], "reason": "broken", "points": None
    }  # fmt: skip
    assert await broken(shop) == []


async def test_again_is_the_same_answer(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "in")
    had = await redeem(shop, await reward(shop), member, "k")
    first = await back(shop, had)
    before = await shop.state()

    again = await back(shop, had)

    assert again == first | {"replayed": True}
    assert await shop.state() == before


async def test_of_twenty_at_once_one_gives_back(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "in")
    had = await redeem(shop, await reward(shop, stock=1), member, "k")

    answers = await asyncio.gather(*[back(shop, had) for _ in range(20)])

    assert sum(not answer["replayed"] for answer in answers) == 1
    assert len({answer["entry"]["id"] for answer in answers}) == 1
    assert await points(shop, member) == 100
    assert (await shop.data(REWARD, {"id": had["redemption"]["reward"]["id"]}))["node"]["stock"] == 1
    assert await broken(shop) == []


async def test_its_code_dies(shop: Shop) -> None:
    member, pool = await shop.member(), await shop.pool(codes=3)
    await grant(shop, member, 100, "in")
    had = await redeem(shop, await reward(shop, poolId=pool["id"]), member, "k")

    answer = await back(shop, had)

    assert answer["redemption"]["code"]["state"] == "REVOKED"
    assert await shop.stock(pool) == {
        "total": 3, "available": 2, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 1
    }  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5]
    assert await broken(shop) == []


async def test_one_whose_code_was_spent_stays(shop: Shop) -> None:
    member, pool = await shop.member(), await shop.pool()
    await grant(shop, member, 100, "in")
    had = await redeem(shop, await reward(shop, poolId=pool["id"]), member, "k")
    await shop.redeem([had["redemption"]["code"]["text"]], member)

    answer = await shop.refused(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken")

    assert answer == {
        "__typename": "RewardNotReversible", "message": "The code that the reward brought was spent."
    }  # fmt: skip


async def test_a_code_that_comes_back_to_life_meanwhile_dies(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is spent when the reward's return looks for a live one, and given back when it looks at its state."""
    member, pool = await shop.member(), await shop.pool()
    await grant(shop, member, 100, "in")
    had = (await redeem(shop, await reward(shop, poolId=pool["id"]), member, "k"))["redemption"]
    spent = (await shop.redeem([had["code"]["text"]], member))["redemptions"][0]
    read = code_of
    reinstated: list[Any] = []

    async def reinstate_and_read(*asked: Any) -> Any:
        if not reinstated:
            # Outside of the transaction that this one is in.
            reinstated.append(await shop.do(REVERSE_REDEMPTION, redemptionId=spent["id"], reason="mistake"))
        return await read(*asked)

    monkeypatch.setattr(reverse_reward_redemption, "code_of", reinstate_and_read)
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    viewer = Viewer(Role.ADMIN, owner, "system")
    exchange_id = ids.decode("rewardredemption", had["id"])
    assert exchange_id is not None
    exchange = await _exchange(database(), viewer, exchange_id)
    assert exchange is not None
    async with transaction(shop.merchant_id) as tx:
        await _end_code(tx, viewer, exchange, "broken")

    assert reinstated[0]["__typename"] == "ReverseRedemptionSuccess"
    assert (await shop.stock(pool))["revoked"] == 1
    assert await broken(shop) == []


async def test_a_stock_that_came_later_is_not_given_what_it_never_lost(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "in")
    mug = await reward(shop)
    had = await redeem(shop, mug, member, "k")
    edit = "mutation ($input: EditRewardInput!) { answer: editReward(input: $input) { __typename } }"
    await shop.do(edit, rewardId=mug["id"], stock=5)

    assert (await back(shop, had))["redemption"]["reward"]["stock"] == 5


async def test_what_is_past_its_date_expires_at_once(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    await grant(shop, member, 40, "old")
    await shop.do(CONFIGURE, pointsLifetimeDays=None)
    await grant(shop, member, 60, "for ever")
    had = await redeem(shop, await reward(shop), member, "k")
    await age(shop, member, 31)

    answer = await back(shop, had)

    assert answer["entry"]["balanceAfter"] == 100
    assert (await entries(shop, member))[3:] == [(100, 100, "REFUND"), (-40, 60, "EXPIRY")]
    assert answer["redemption"]["member"]["wallet"] == {"version": 5, "points": 60}
    assert await broken(shop) == []


async def test_buy_take_a_reward_return_and_again_gives_one_reward(shop: Shop) -> None:
    member = await shop.member()
    mug = await reward(shop)
    await purchase(shop, member, "o-1", 10_000)
    had = await redeem(shop, mug, member, "k-1")
    await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")
    assert (await wallet(shop, member))["shortfall"] == 100

    await purchase(shop, member, "o-2", 10_000)

    assert {name: (await wallet(shop, member))[name] for name in ("points", "shortfall")} == {
        "points": 0, "shortfall": 0
    }  # fmt: skip
    assert (await redeem(shop, mug, member, "k-2"))["__typename"] == "InsufficientPoints"
    await back(shop, had)
    # The purchase that paid in the place of the first one has its points back.
    assert await entries(shop, member) == [
        (100, 100, "PURCHASE"), (-100, 0, "REWARD"), (100, 100, "PURCHASE"), (-100, 0, "REVERSAL"), (100, 100, "REFUND")
    ]  # fmt: skip
    await shop.do(REVERSE, source="STORE", orderId="o-2", reason="returned")
    assert await points(shop, member) == 0
    assert (await wallet(shop, member))["shortfall"] == 0
    assert await broken(shop) == []


async def test_what_comes_back_fills_what_a_return_lacks(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 50, "gift")
    mug = await redeem(shop, await reward(shop, cost=50), member, "spends the gift")
    await purchase(shop, member, "o-1", 10_000)
    bag = await redeem(shop, await reward(shop, name="Bag"), member, "spends the purchase")
    await shop.do(REVERSE, source="STORE", orderId="o-1", reason="returned")
    late = (await grant(shop, member, 30, "never pays"))["entry"]

    await back(shop, mug)
    assert {name: (await wallet(shop, member))[name] for name in ("points", "shortfall")} == {
        "points": 30, "shortfall": 50
    }  # fmt: skip
    await back(shop, bag)

    # Half of it fills what is lacking still, and half of it pays back the gift.
    assert (await entries(shop, member))[4:] == [
        (late["amount"], 30, "ADJUSTMENT"),
        (50, 80, "REFUND"), (-50, 30, "REVERSAL"),
        (100, 130, "REFUND"), (-50, 80, "REVERSAL"),
    ]  # fmt: skip
    assert (await wallet(shop, member))["shortfall"] == 0
    assert await broken(shop) == []


async def test_what_can_not_be_is_invalid_or_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member()
    await grant(other_shop, theirs, 100, "in")
    had = await redeem(other_shop, await reward(other_shop), theirs, "k")
    before = await other_shop.state()

    answer = await shop.refused(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason=" ")
    assert problems(answer) == {"reason": "must not be blank"}
    for node in (had["redemption"]["id"], f"rewardredemption_{'0' * 32}", "nonsense"):
        answer = await shop.refused(REVERSE_REWARD, redemptionId=node, reason="why not")
        assert (answer["__typename"], answer["id"]) == ("NotFound", node)
    assert await other_shop.state() == before


async def test_a_balance_that_can_not_hold_it_is_left_alone(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "in")
    had = await redeem(shop, await reward(shop), member, "k")
    await grant(shop, member, 2**31 - 1, "all that there is")

    answer = await shop.refused(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken")

    assert problems(answer) == {"redemptionId": f"would take the member's balance over {2**31 - 1}"}


async def test_a_stock_that_is_full_stays_full(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "in")
    mug = await reward(shop, stock=1)
    had = await redeem(shop, mug, member, "k")
    await shop.do(EDIT_REWARD, rewardId=mug["id"], stock=POINTS_MAX)

    answer = await back(shop, had)

    assert answer["redemption"]["reward"]["stock"] == POINTS_MAX
