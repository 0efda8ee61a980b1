"""Pools that back a reward. Without these a code that costs points could be had for nothing."""

from typing import Any

import pytest

from tests.factories import CHANGE_STATUS, CLAIM_CODE, CREATE_CAMPAIGN, Shop
from tests.points.documents import REDEEM_REWARD, RETIRE_REWARD, grant, points, redeem, reward

REWARD_ID = "... on PoolBacksReward { rewardId }"
CLAIM = CLAIM_CODE.replace("__typename", f"__typename {REWARD_ID}", 1)
CAMPAIGN = CREATE_CAMPAIGN.replace("__typename", f"__typename {REWARD_ID}", 1)


def refusal(mug: Any) -> dict[str, str]:
    """Return what claims and campaigns are told while a reward is offered."""
    message = "The pool's codes are had for points: redeem its reward."
    return {"__typename": "PoolBacksReward", "message": message, "rewardId": mug["id"]}


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT", "MEMBER"])
async def test_nobody_claims_what_a_reward_sells(shop: Shop, role: str) -> None:
    member, pool = await shop.member(), await shop.pool()
    await reward(shop, poolId=pool["id"])
    mug = await reward(shop, poolId=pool["id"])
    key = await (shop.token(member["id"]) if role == "MEMBER" else shop.key(role))

    assert await shop.refused(CLAIM, key=key, poolId=pool["id"], memberId=member["id"]) == refusal(mug)
    if role != "MEMBER":
        assert await shop.refused(CLAIM, key=key, poolId=pool["id"], email="stranger@example.com") == refusal(mug)
    assert (await shop.stock(pool))["available"] == 10


async def test_no_campaign_sends_what_a_reward_sells(shop: Shop) -> None:
    member, pool = await shop.member(), await shop.pool()
    recipients = [{"memberId": member["id"]}, {"email": "stranger@example.com"}]
    sent: dict[str, Any] = {"name": "Hello", "poolId": pool["id"], "recipients": recipients, "idempotencyKey": "k"}
    first = await shop.do(CAMPAIGN, **sent)
    mug = await reward(shop, poolId=pool["id"])

    assert await shop.refused(CAMPAIGN, **sent | {"idempotencyKey": "another"}) == refusal(mug)
    assert await shop.do(CAMPAIGN, **sent) == first | {"replayed": True}


@pytest.mark.parametrize("claimant", ["memberId", "email"])
async def test_a_chain_passes_over_the_pool_of_a_reward(shop: Shop, claimant: str) -> None:
    last = await shop.pool(codes=1)
    sold = await shop.pool(codes=5, fallbackPoolId=last["id"])
    first = await shop.pool(codes=1, fallbackPoolId=sold["id"])
    await reward(shop, poolId=sold["id"])
    named = [(await shop.member())["id"] if claimant == "memberId" else f"{n}@example.com" for n in range(3)]

    answers = [await shop.do(CLAIM, poolId=first["id"], **{claimant: who}) for who in named[:2]]
    refused = await shop.refused(CLAIM, poolId=first["id"], **{claimant: named[2]})

    assert [answer["servedBy"]["id"] for answer in answers] == [first["id"], last["id"]]
    assert (refused["__typename"], refused["poolsTried"]) == ("PoolExhausted", [first["id"], last["id"]])
    assert (await shop.stock(sold))["available"] == 5


async def test_a_reward_is_served_by_its_fallbacks_and_not_by_another_rewards_pool(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 1000, "in")
    last, dear = await shop.pool(codes=1), await shop.pool(codes=5)
    middle = await shop.pool(codes=5, fallbackPoolId=last["id"])
    first = await shop.pool(codes=1, claimsPerMember=9, fallbackPoolId=middle["id"])
    mug = await reward(shop, cost=10, poolId=first["id"])
    for pool in (middle, dear):
        await reward(shop, cost=500, poolId=pool["id"])

    made = [(await redeem(shop, mug, member, key))["redemption"]["code"] for key in ("a", "b")]
    refused = await shop.refused(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey="c")

    assert [code["pool"]["id"] for code in made] == [first["id"], last["id"]]
    assert refused["__typename"] == "RewardOutOfStock"
    assert await points(shop, member) == 980


async def test_what_a_member_has_stays_its_own(shop: Shop) -> None:
    early, buyer, pool = await shop.member(), await shop.member(), await shop.pool(claimsPerMember=2)
    await grant(shop, buyer, 100, "in")
    claimed = await shop.claim(pool, early)
    mug = await reward(shop, cost=100, poolId=pool["id"])
    bought = (await redeem(shop, mug, buyer, "k"))["redemption"]["code"]

    for member, code in ((early, claimed), (buyer, bought)):
        again = await shop.do(CLAIM, poolId=pool["id"], memberId=member["id"])
        assert (again["replayed"], again["code"]["text"]) == (True, code["text"])
        assert (await shop.redeem([code["text"]], member))["__typename"] == "RedeemCodesSuccess"
        more = await shop.refused(CLAIM, poolId=pool["id"], memberId=member["id"], idempotencyKey="more")
        assert more == refusal(mug)


async def test_a_retired_rewards_pool_is_a_pool_like_any_other(shop: Shop) -> None:
    member, pool = await shop.member(), await shop.pool()
    mug = await reward(shop, poolId=pool["id"])
    assert (await shop.refused(CLAIM, poolId=pool["id"], memberId=member["id"])) == refusal(mug)

    await shop.do(RETIRE_REWARD, rewardId=mug["id"])

    assert (await shop.do(CLAIM, poolId=pool["id"], memberId=member["id"]))["replayed"] is False


async def test_that_it_is_closed_is_told_first(shop: Shop) -> None:
    member, pool = await shop.member(), await shop.pool()
    await reward(shop, poolId=pool["id"])
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    assert (await shop.refused(CLAIM, poolId=pool["id"], memberId=member["id"]))["__typename"] == "PoolNotActive"
    sent = await shop.refused(CAMPAIGN, name="Hello", poolId=pool["id"], recipients=[{"memberId": member["id"]}])
    assert sent["__typename"] == "PoolNotActive"
