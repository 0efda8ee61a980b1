"""Stock levels. Without these a pool could run empty unannounced, or announce it with every claim."""

from typing import Any

import pytest

from app import ids
from app.coupons import stock_levels
from app.coupons.stock import fold
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.ownership import claim_by_email, send
from tests.factories import CHANGE_STATUS, CLAIM_CODE, GENERATE_CODES, Shop
from tests.races.storm import Processes, at_once, members
from tests.unguarded import unguarded

FELL = """
SELECT type, subject_id, actor FROM event
WHERE merchant_id = $1 AND starts_with(type, 'pool.stock_fell_to_') ORDER BY id
"""
#: By the number of codes, after which claim the stock is at each level.
LEVELS = {
    1: {1: [50, 25, 10, 0]},
    2: {1: [50], 2: [25, 10, 0]},
    3: {2: [50], 3: [25, 10, 0]},
    4: {2: [50], 3: [25], 4: [10, 0]},
    10: {5: [50], 8: [25], 9: [10], 10: [0]},
    100: {50: [50], 75: [25], 90: [10], 100: [0]},
}
ALL = [50, 25, 10, 0]


async def fallen(shop: Shop, pool: Any) -> list[int]:
    """Return the levels that are on record for a pool, oldest first."""
    rows = await database().rows(FELL, shop.merchant_id)
    return [int(row["type"].rpartition("_")[2]) for row in rows if row["subject_id"] == ids.decode("pool", pool["id"])]


async def forget_alerts(shop: Shop) -> None:
    """Leave the rows as if no process had looked at the stock."""
    await database().rows("DELETE FROM stock_alert WHERE merchant_id = $1", shop.merchant_id)
    async with unguarded("event") as tx:
        await tx.rows("DELETE FROM event WHERE merchant_id = $1 AND starts_with(type, 'pool.stock_')", shop.merchant_id)


async def restock(shop: Shop, pool: Any, count: int) -> None:
    """Generate codes in an active pool, in a pause."""
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=count)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])


@pytest.mark.parametrize("codes", LEVELS)
async def test_each_level_is_told_once_by_the_claim_that_reaches_it(shop: Shop, codes: int) -> None:
    pool = await shop.pool(codes=codes)
    expected: list[int] = []

    for number, member in enumerate(await members(shop, codes), start=1):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
        expected += LEVELS[codes].get(number, [])
        assert await fallen(shop, pool) == expected, number

    assert expected == ALL
    late = (await members(shop, 1))[0]
    await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=late)
    assert await fallen(shop, pool) == ALL
    rows = await database().rows(FELL, shop.merchant_id)
    key = await database().row("SELECT id FROM api_key WHERE merchant_id = $1", shop.merchant_id)
    assert key is not None
    assert {row["actor"] for row in rows} == {ids.encode("apikey", key["id"])}


@pytest.mark.parametrize(
    ("codes", "recipients", "levels"),
    [
        (1, 1, ALL),
        (4, 1, []),
        (4, 3, [50, 25]),
        (10, 9, [50, 25, 10]),
        (10, 4, []),
        (100, 100, ALL),
        (100, 75, [50, 25]),
    ],
)
async def test_a_campaign_tells_the_levels_it_passes_together_in_order(
    shop: Shop, codes: int, recipients: int, levels: list[int]
) -> None:
    pool = await shop.pool(codes=codes)
    to = [{"email": f"stranger-{number}@example.com"} for number in range(recipients)]

    await send(shop, pool, *to)
    assert await fallen(shop, pool) == levels
    await send(shop, pool, *to, name="again")
    assert await fallen(shop, pool) == levels


async def test_claims_by_address_and_by_fallback_tell_the_level_of_the_pool_that_served(shop: Shop) -> None:
    last = await shop.pool(codes=2)
    first = await shop.pool(codes=1, fallbackPoolId=last["id"])

    for number in range(3):
        await claim_by_email(shop, first, f"stranger-{number}@example.com")

    assert await fallen(shop, first) == ALL
    assert await fallen(shop, last) == ALL


async def test_a_level_that_was_left_by_restocking_can_be_reached_again(shop: Shop) -> None:
    pool = await shop.pool(codes=4)
    for member in await members(shop, 3):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
    assert await fallen(shop, pool) == [50, 25]

    # 2 of 5: still at the first level, above the second.
    await restock(shop, pool, 1)
    for member in await members(shop, 2):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
    assert await fallen(shop, pool) == [50, 25, 25, 10, 0]

    await restock(shop, pool, 15)
    assert await fallen(shop, pool) == [50, 25, 25, 10, 0]
    for member in await members(shop, 15):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
    assert await fallen(shop, pool) == [50, 25, 25, 10, 0, *ALL]


async def test_pausing_and_adding_codes_tell_no_level(shop: Shop) -> None:
    pool = await shop.pool(codes=4)
    await restock(shop, pool, 4)

    assert await fallen(shop, pool) == []


async def test_what_claims_left_unrecorded_is_found_and_twice_is_once(shop: Shop) -> None:
    pool, untouched = await shop.pool(codes=10), await shop.pool(codes=10)
    for member in await members(shop, 8):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
    # As if the process had died between the claims and the record.
    await forget_alerts(shop)

    assert await stock_levels.check_missed() >= 1
    assert await fallen(shop, pool) == [50, 25]
    await stock_levels.check_missed()

    assert await fallen(shop, pool) == [50, 25]
    assert await fallen(shop, untouched) == []
    rows = await database().rows(FELL, shop.merchant_id)
    assert {row["actor"] for row in rows} == {"system"}
    for member in await members(shop, 2):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
    assert await fallen(shop, pool) == ALL


async def test_folding_tells_what_claims_left_unrecorded_because_nobody_looks_at_folded_rows_again(shop: Shop) -> None:
    pool = await shop.pool(codes=10)
    pool_id = ids.decode("pool", pool["id"])
    assert pool_id is not None
    for member in await members(shop, 8):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
    await forget_alerts(shop)

    await fold(shop.merchant_id, pool_id)
    told = await fallen(shop, pool)
    await forget_alerts(shop)
    await stock_levels.check_missed()

    assert (told, await fallen(shop, pool)) == ([50, 25], [])
    assert await shop.count("stock_change") == 1
    assert (await shop.stock(pool))["available"] == 2


async def test_sweeps_at_once_tell_each_level_once(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    await claim_by_email(shop, pool, "stranger@example.com")
    await forget_alerts(shop)

    await at_once(stock_levels.check_missed() for _ in range(8))

    assert await fallen(shop, pool) == ALL


async def test_two_processes_tell_each_level_once(shop: Shop, api: Api, second_api: Api) -> None:
    processes = Processes(shop, api, second_api)
    pool = await shop.pool(codes=200)

    await at_once(
        (processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in await members(shop, 200)), most=20
    )
    await stock_levels.check_missed()

    assert sorted(await fallen(shop, pool), reverse=True) == ALL
