"""redeemReward. Without these points could go and no reward come, or one reward be had twice for one price."""

from typing import Any

from app import ids
from app.storage.database import database
from tests.factories import CHANGE_STATUS, CLAIM_CODE, Shop, problems
from tests.points.documents import REDEEM_REWARD, RETIRE_REWARD, broken, entries, grant, points, redeem, reward


async def rich(shop: Shop, amount: int = 1000) -> Any:
    """Return a member with points."""
    member = await shop.member()
    await grant(shop, member, amount, f"in {member['id']}")
    return member


async def stock_of(shop: Shop, reward: Any) -> int | None:
    """Return what is left of a reward."""
    found = await shop.data("query ($id: ID!) { node(id: $id) { ... on Reward { stock } } }", {"id": reward["id"]})
    stock: int | None = found["node"]["stock"]
    return stock


async def test_a_reward_costs_its_points_and_its_stock(shop: Shop) -> None:
    member, mug = await rich(shop), await reward(shop, name="Mug", cost=400, stock=2)

    answer = await redeem(shop, mug, member, "k")

    made = answer["redemption"]
    assert answer["replayed"] is False
    assert made["reward"] == mug | {"stock": 1}
    assert made["code"] is None
    assert (made["entry"]["amount"], made["entry"]["balanceAfter"], made["entry"]["reason"]) == (-400, 600, "REWARD")
    assert made["entry"]["reference"] == "Mug"
    assert made["member"] == {"id": member["id"], "wallet": {"version": 2, "points": 600}}
    assert await stock_of(shop, mug) == 1
    assert (await shop.event_types())[-2:] == ["points.debited", "reward.redeemed"]
    node = "query ($id: ID!) { node(id: $id) { id ... on RewardRedemption { reward { name } entry { amount } } } }"
    assert (await shop.data(node, {"id": made["id"]}))["node"] == {
        "id": made["id"], "reward": {"name": "Mug"}, "entry": {"amount": -400}
    }  # fmt: skip
    assert await broken(shop) == []


async def test_a_reward_with_a_pool_brings_a_code(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=2)
    mug = await reward(shop, cost=400, poolId=pool["id"])

    made = (await redeem(shop, mug, member, "k"))["redemption"]

    assert made["code"]["text"].startswith("PCT-")
    assert made["code"]["state"] == "ALLOCATED"
    assert made["code"]["owner"] == {"id": member["id"], "wallet": {"version": 3}}
    assert (await shop.stock(pool))["available"] == 1
    told = [event for event in await shop.event_types() if not event.startswith("pool.stock_fell")]
    assert told[-3:] == ["code.claimed", "points.debited", "reward.redeemed"]
    assert (await shop.redeem([made["code"]["text"]], member))["__typename"] == "RedeemCodesSuccess"
    assert await broken(shop) == []


async def test_a_member_redeems_for_itself_only(shop: Shop) -> None:
    member, other, pool = await rich(shop), await rich(shop), await shop.pool()
    mug = await reward(shop, poolId=pool["id"])
    token = await shop.token(member["id"])

    made = (await shop.do(REDEEM_REWARD, key=token, rewardId=mug["id"], idempotencyKey="k"))["redemption"]

    assert made["member"]["id"] == member["id"]
    assert made["code"]["text"].startswith("PCT-")
    answer = await shop.refused(REDEEM_REWARD, key=token, rewardId=mug["id"], memberId=other["id"], idempotencyKey="k2")
    assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": other["id"]}
    node = "query ($id: ID!) { node(id: $id) { ... on RewardRedemption { code { text } } } }"
    theirs = await shop.token(other["id"])
    assert (await shop.data(node, {"id": made["id"]}, key=token))["node"]["code"] == {"text": made["code"]["text"]}
    assert (await shop.data(node, {"id": made["id"]}))["node"]["code"] == {"text": None}
    assert (await shop.data(node, {"id": made["id"]}, key=theirs))["node"] is None


async def test_the_same_key_is_the_same_redemption(shop: Shop) -> None:
    member, pool = await rich(shop, 100), await shop.pool(codes=1)
    mug = await reward(shop, cost=100, stock=1, poolId=pool["id"])
    first = await redeem(shop, mug, member, "k")
    before = await shop.state()

    again = await redeem(shop, mug, member, "k")

    assert again["replayed"] is True
    assert again["redemption"] == first["redemption"]
    assert await shop.state() == before


async def test_each_key_is_a_redemption_and_a_code_of_its_own(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=5, claimsPerMember=3)
    claimed = await shop.claim(pool, member)
    mug = await reward(shop, cost=100, poolId=pool["id"])

    made = [(await redeem(shop, mug, member, key))["redemption"] for key in ("a", "b")]

    assert len({claimed["id"], made[0]["code"]["id"], made[1]["code"]["id"]}) == 3
    assert await points(shop, member) == 800


async def test_a_members_keys_are_its_own(shop: Shop) -> None:
    first, second, mug = await rich(shop), await rich(shop), await reward(shop)

    for member in (first, second):
        token = await shop.token(member["id"])
        answer = await shop.do(REDEEM_REWARD, key=token, rewardId=mug["id"], idempotencyKey="same")
        assert answer["replayed"] is False
    assert (await redeem(shop, mug, first, "same"))["replayed"] is False


async def test_a_key_must_be_one_and_a_till_names_the_member(shop: Shop) -> None:
    member, mug = await rich(shop), await reward(shop)

    async def wrong(**input: Any) -> dict[str, str]:
        return problems(await shop.refused(REDEEM_REWARD, rewardId=mug["id"], **input))

    assert await wrong(memberId=member["id"], idempotencyKey=" ") == {"idempotencyKey": "must not be blank"}
    assert await wrong(memberId=member["id"], idempotencyKey="k" * 201) == {
        "idempotencyKey": "must be at most 200 characters"
    }
    assert await wrong(idempotencyKey="k") == {"memberId": "or member must be given, and not both"}
    assert await wrong(member={"email": "jane@example.com"}, idempotencyKey="k") == {
        "member.email": "spends nobody's points: name the member by its id or a store's id"
    }


async def test_another_merchants_reward_or_member_is_not_found(shop: Shop, other_shop: Shop) -> None:
    member, mug = await rich(shop), await reward(shop)
    foreign, theirs = await rich(other_shop), await reward(other_shop)
    before = await other_shop.state()

    for node in (theirs["id"], f"reward_{'0' * 32}", "nonsense"):
        answer = await shop.refused(REDEEM_REWARD, rewardId=node, memberId=member["id"], idempotencyKey="k")
        assert answer == {"__typename": "NotFound", "message": "There is no such reward.", "id": node}
    for with_pool in (False, True):
        wanted = await reward(shop, poolId=(await shop.pool())["id"]) if with_pool else mug
        for node in (foreign["id"], f"member_{'0' * 32}", "nonsense"):
            answer = await shop.refused(REDEEM_REWARD, rewardId=wanted["id"], memberId=node, idempotencyKey="k")
            assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": node}
    assert await other_shop.state() == before


async def test_too_few_points_leave_stock_and_codes_as_they_were(shop: Shop) -> None:
    member, pool = await rich(shop, 99), await shop.pool(codes=2)
    mug = await reward(shop, cost=100, stock=2, poolId=pool["id"])

    answer = await shop.refused(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k")

    assert (answer["__typename"], answer["balance"], answer["required"]) == ("InsufficientPoints", 99, 100)
    assert await stock_of(shop, mug) == 2
    assert (await shop.stock(pool))["available"] == 2
    assert await entries(shop, member) == [(99, 99, "ADJUSTMENT")]
    await grant(shop, member, 1, "one more")
    assert (await redeem(shop, mug, member, "k"))["__typename"] == "RedeemRewardSuccess"


async def test_out_of_stock_is_refused(shop: Shop) -> None:
    member, mug = await rich(shop), await reward(shop, stock=1)
    await redeem(shop, mug, member, "k1")

    answer = await shop.refused(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k2")

    assert (answer["__typename"], answer["message"]) == (
        "RewardOutOfStock", "The reward can't be had: none is left."
    )  # fmt: skip
    assert await points(shop, member) == 900


async def test_a_pool_that_gives_no_code_is_out_of_stock(shop: Shop) -> None:
    member, rival = await rich(shop), await shop.member()
    empty, draft, paused = await shop.pool(codes=1), await shop.pool(active=False), await shop.pool()
    await shop.claim(empty, rival)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=paused["id"])

    messages = []
    for pool in (empty, draft, paused):
        mug = await reward(shop, stock=5, poolId=pool["id"])
        answer = await shop.refused(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k")
        assert answer["__typename"] == "RewardOutOfStock"
        assert await stock_of(shop, mug) == 5
        messages.append(answer["message"].partition(": ")[2])

    assert messages == [
        "its pool gives no code (The pool has no code left).",
        "its pool gives no code (The pool issues no codes: it is DRAFT).",
        "its pool gives no code (The pool issues no codes: it is PAUSED).",
    ]
    assert await points(shop, member) == 1000


async def test_a_code_that_the_member_has_is_not_sold_to_it(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=5)
    await shop.claim(pool, member)
    mug = await reward(shop, cost=100, poolId=pool["id"])

    answer = await shop.refused(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k")

    assert (answer["__typename"], answer["message"]) == (
        "RewardOutOfStock", "The reward can't be had: the member has as many codes of its pool as it may have."
    )  # fmt: skip
    assert await points(shop, member) == 1000
    assert (await shop.stock(pool))["available"] == 4


async def test_a_key_of_another_redemption_is_refused(shop: Shop) -> None:
    member, other = await rich(shop), await rich(shop)
    mug, cup = await reward(shop), await reward(shop)
    await redeem(shop, mug, member, "k")

    for wanted, who in ((cup, member), (mug, other)):
        answer = await shop.refused(REDEEM_REWARD, rewardId=wanted["id"], memberId=who["id"], idempotencyKey="k")
        assert answer["__typename"] == "IdempotencyKeyReused"


async def test_a_claims_key_is_not_a_redemptions(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=5, claimsPerMember=5)
    mug = await reward(shop, poolId=pool["id"])
    made = (await redeem(shop, mug, member, "k"))["redemption"]
    await shop.do(RETIRE_REWARD, rewardId=mug["id"])

    claimed = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="k")

    assert claimed["replayed"] is False
    assert claimed["code"]["id"] != made["code"]["id"]
    counted = "SELECT count(*) AS codes FROM reward_redemption WHERE merchant_id = $1 AND code_id = $2"
    row = await database().row(counted, shop.merchant_id, ids.decode("code", made["code"]["id"]))
    assert row is not None
    assert row["codes"] == 1


async def test_a_price_that_has_changed_is_refused_where_the_caller_says_which(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 500, "in")
    mug = await reward(shop, cost=120, stock=1)
    asked = {"rewardId": mug["id"], "memberId": member["id"], "idempotencyKey": "k"}

    answer = await shop.refused(REDEEM_REWARD, **asked, expectedCost=100)

    assert answer == {
        "__typename": "RewardCostChanged", "message": "The reward costs 120 points now.", "cost": 120
    }  # fmt: skip
    had = await redeem(shop, mug, member, "k", expectedCost=120)
    assert had["redemption"]["entry"]["amount"] == -120
    # What was had stays the same answer, whatever it would cost now.
    assert (await redeem(shop, mug, member, "k", expectedCost=100))["replayed"] is True


async def test_a_typed_address_spends_nobodys_points(shop: Shop) -> None:
    member = await shop.member(email="anna@example.com", emailVerified=True, externalId="1001")
    await grant(shop, member, 1_000, "in")
    mug = await reward(shop, cost=400)
    asked = {"rewardId": mug["id"], "idempotencyKey": "k"}

    refused = await shop.refused(REDEEM_REWARD, **asked, member={"email": "anna@example.com"})
    made = await shop.do(REDEEM_REWARD, **asked, member={"externalId": "1001"})

    why = "spends nobody's points: name the member by its id or a store's id"
    assert problems(refused) == {"member.email": why}
    assert made["__typename"] == "RedeemRewardSuccess"
