"""How often points ask PostgreSQL. Without these a page could ask once per row, and only load would tell."""

from typing import Any

from app.coupons import stock_levels
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop
from tests.points.documents import ENTRY, REWARD, grant, purchase, redeem, reward

LISTS = {
    "pointsEntries": (ENTRY, 1),
    "rewards": (REWARD, 2),
    "members": (f"id wallet {{ version points entries(first: 3) {{ edges {{ cursor node {{ {ENTRY} }} }} }} }}", 2),
}


async def test_a_purchase_and_a_grant_are_few_round_trips(counter: Counter, counted_shop: Shop) -> None:
    member = await counted_shop.member()

    async def bought(order: str) -> int:
        return len(await counter.during(lambda: purchase(counted_shop, member, order)))

    async def given(amount: int, key: str) -> int:
        return len(await counter.during(lambda: grant(counted_shop, member, amount, key)))

    for _ in range(2):
        await bought("warm")
        await given(1, "warm")
        await given(-1000, "too many")

    # BEGIN and COMMIT count, too.
    assert [await bought(order) for order in ("a", "b", "a")] == [4, 4, 5]
    assert [await given(1, key) for key in ("a", "b", "a")] == [2, 2, 1]
    # A refusal looks whether the member that was named was merged.
    assert await given(-1000, "too many") == 4


async def test_a_reward_is_few_round_trips(counter: Counter, counted_shop: Shop) -> None:
    member, pool = await counted_shop.member(), await counted_shop.pool(codes=9, claimsPerMember=9)
    await grant(counted_shop, member, 500, "in")
    mug, voucher = await reward(counted_shop, stock=9, cost=10), await reward(counted_shop, cost=10, poolId=pool["id"])

    async def had(what: Any, key: str) -> int:
        waits = await counter.during(lambda: redeem(counted_shop, what, member, key))
        # Now and then, and near a level of the stock, a claim is followed by a look at it.
        return len([statement for statement in waits if statement != stock_levels.CHECK.text])

    for key in ("warm", "warm"):
        await had(mug, key)
        await had(voucher, f"{key} too")

    # Member, key, reward, (code,) entry, redemption, between BEGIN and COMMIT; then the pool that is asked for.
    assert [await had(mug, key) for key in ("a", "b", "a")] == [7, 7, 4]
    assert [await had(voucher, key) for key in ("c", "d", "c")] == [9, 9, 6]


async def test_a_page_costs_the_same_for_1_and_100_rows(counter: Counter, counted_shop: Shop) -> None:
    pool = await counted_shop.pool()
    for number in range(101):
        member = await counted_shop.member()
        answer = await grant(counted_shop, member, 10, f"{number}")
        assert answer["__typename"] == "GrantPointsSuccess"
        await reward(counted_shop, poolId=pool["id"])

    for name, (fields, expected) in LISTS.items():
        document = f"query ($first: Int) {{ answer: {name}(first: $first) {{ edges {{ node {{ {fields} }} }} }} }}"
        counts = []
        for first in (1, 100, 1, 100):
            answers: list[Any] = []

            async def ask(size: int = first, asked: str = document, to: list[Any] = answers) -> None:
                to.append(await counted_shop.data(asked, {"first": size}))

            counts.append(len(await counter.during(ask)))
            assert len(answers[0]["answer"]["edges"]) == first
        assert counts[2:] == [expected, expected], name
