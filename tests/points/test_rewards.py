"""createReward, editReward, retireReward and their list. Without these a reward could be offered that isn't one."""

from typing import Any

from tests.factories import Shop, problems
from tests.points.documents import CREATE_REWARD, EDIT_REWARD, REDEEM_REWARD, RETIRE_REWARD, grant, redeem, reward

REWARDS = "{ rewards { edges { node { id name cost stock active pool { name } } } } }"
INT_MAX = 2**31 - 1


async def listed(shop: Shop, key: str | None = None) -> list[Any]:
    """Return the names of the rewards that a caller sees."""
    return [edge["node"]["name"] for edge in (await shop.data(REWARDS, key=key))["rewards"]["edges"]]


async def test_a_reward_is_created_and_listed(shop: Shop) -> None:
    pool = await shop.pool(name="Mugs")

    made = await reward(shop, name="Mug", cost=500, stock=3, poolId=pool["id"])

    assert {name: made[name] for name in ("name", "cost", "stock", "active", "pool")} == {
        "name": "Mug", "cost": 500, "stock": 3, "active": True, "pool": {"id": pool["id"]}
    }  # fmt: skip
    assert (await shop.data(REWARDS))["rewards"]["edges"] == [
        {"node": {name: made[name] for name in ("id", "name", "cost", "stock", "active")} | {"pool": {"name": "Mugs"}}}
    ]
    assert (await shop.event_types())[-1] == "reward.created"


async def test_without_stock_and_pool_it_has_neither(shop: Shop) -> None:
    made = await reward(shop)

    assert (made["stock"], made["pool"]) == (None, None)


async def test_what_can_not_be_is_invalid(shop: Shop) -> None:
    async def wrong(document: str = CREATE_REWARD, **input: Any) -> dict[str, str]:
        return problems(await shop.refused(document, **input))

    made = await reward(shop)
    assert await wrong(name=" ", cost=1) == {"name": "must not be blank"}
    assert await wrong(name="n" * 201, cost=1) == {"name": "must be at most 200 characters"}
    for cost in (0, -5):
        assert await wrong(name="Mug", cost=cost) == {"cost": f"must be between 1 and {INT_MAX}"}
        assert await wrong(EDIT_REWARD, rewardId=made["id"], cost=cost) == {"cost": f"must be between 1 and {INT_MAX}"}
    assert await wrong(name="Mug", cost=1, stock=-1) == {"stock": f"must be between 0 and {INT_MAX}"}
    assert await wrong(EDIT_REWARD, rewardId=made["id"], stock=-1) == {"stock": f"must be between 0 and {INT_MAX}"}
    assert await wrong(EDIT_REWARD, rewardId=made["id"], name="") == {"name": "must not be blank"}
    assert await wrong(EDIT_REWARD, rewardId=made["id"], name=None, cost=None) == {
        "name": "must not be null", "cost": "must not be null"
    }  # fmt: skip


async def test_another_merchants_pool_or_reward_is_not_found(shop: Shop, other_shop: Shop) -> None:
    pool, theirs = await other_shop.pool(), await reward(other_shop)
    before = await other_shop.state()

    for node in (pool["id"], f"pool_{'0' * 32}", "nonsense"):
        answer = await shop.refused(CREATE_REWARD, name="Mug", cost=1, poolId=node)
        assert answer == {"__typename": "NotFound", "message": "There is no such pool.", "id": node}
    for node in (theirs["id"], f"reward_{'0' * 32}", "nonsense"):
        for document in (EDIT_REWARD, RETIRE_REWARD):
            answer = await shop.refused(document, rewardId=node)
            assert answer == {"__typename": "NotFound", "message": "There is no such reward.", "id": node}
    assert await other_shop.state() == before


async def test_an_edit_changes_what_it_names(shop: Shop) -> None:
    made = await reward(shop, name="Mug", cost=500, stock=3)

    dearer = (await shop.do(EDIT_REWARD, rewardId=made["id"], cost=600))["reward"]
    endless = (await shop.do(EDIT_REWARD, rewardId=made["id"], name="Cup", stock=None))["reward"]
    empty = (await shop.do(EDIT_REWARD, rewardId=made["id"], stock=0))["reward"]

    assert dearer == made | {"cost": 600}
    assert endless == made | {"cost": 600, "name": "Cup", "stock": None}
    assert empty == endless | {"stock": 0}
    assert (await shop.event_types())[-3:] == ["reward.edited"] * 3


async def test_a_changed_cost_leaves_what_was_paid(shop: Shop) -> None:
    member, mug = await shop.member(), await reward(shop, cost=100)
    await grant(shop, member, 1000, "in")
    first = await redeem(shop, mug, member, "k1")
    await shop.do(EDIT_REWARD, rewardId=mug["id"], cost=300)

    again, second = await redeem(shop, mug, member, "k1"), await redeem(shop, mug, member, "k2")

    assert again["redemption"]["entry"]["amount"] == first["redemption"]["entry"]["amount"] == -100
    assert second["redemption"]["entry"]["amount"] == -300


async def test_a_retired_reward_is_out_of_stock_and_out_of_members_sight(shop: Shop) -> None:
    member, mug = await shop.member(), await reward(shop, name="Mug")
    await reward(shop, name="Cup")
    await grant(shop, member, 1000, "in")
    token = await shop.token(member["id"])
    node = "query ($id: ID!) { node(id: $id) { id } }"

    answer = await shop.do(RETIRE_REWARD, rewardId=mug["id"])
    before = await shop.state()
    again = await shop.do(RETIRE_REWARD, rewardId=mug["id"])

    assert answer["reward"] == again["reward"] == mug | {"active": False}
    assert await shop.state() == before
    assert (await listed(shop), await listed(shop, token)) == (["Cup", "Mug"], ["Cup"])
    assert (await shop.data(node, {"id": mug["id"]}))["node"] == {"id": mug["id"]}
    assert (await shop.data(node, {"id": mug["id"]}, key=token))["node"] is None
    refusal = await shop.refused(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k")
    assert (refusal["__typename"], refusal["message"]) == (
        "RewardOutOfStock", "The reward can't be had: it is retired."
    )  # fmt: skip
