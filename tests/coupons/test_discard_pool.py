"""discardPool. Without these a draft that went could leave codes, stock or a wallet behind."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.coupons.stock import fold_stock
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import (
    CHANGE_STATUS,
    CREATE_POOL,
    EDIT_POOL,
    GENERATE_CODES,
    REFUSALS,
    Shop,
)
from tests.points.documents import reward
from tests.races.storm import Processes, at_once, kinds, until_somebody_waits

DISCARD = f"""
mutation ($input: PoolIdInput!) {{
  answer: discardPool(input: $input) {{
    __typename ... on DiscardPoolSuccess {{ poolId }} {REFUSALS} ... on PoolNotEditable {{ status fields }}
  }}
}}
"""
REVEAL = "mutation ($input: RevealCodeInput!) { answer: revealCode(input: $input) { __typename } }"
HOLD = "SELECT FROM pool WHERE merchant_id = $1 AND id = $2 FOR SHARE"


#: Foreign keys to codes that no index serves: each code that goes would read all rows that may refer to it.
UNSERVED = """
SELECT conname FROM pg_constraint
WHERE contype = 'f' AND confrelid = 'code'::regclass AND NOT EXISTS (
    SELECT FROM pg_index
    WHERE indrelid = conrelid AND (indkey::int2[])[0:1] = conkey AND (
        indpred IS NULL OR pg_get_expr(indpred, indrelid) = (
            SELECT format('(%I IS NOT NULL)', attname) FROM pg_attribute
            WHERE attrelid = conrelid AND attnum = conkey[2]
        )
    )
)
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def test_a_draft_goes_with_everything_that_it_has(shop: Shop) -> None:
    before = (await shop.state()).counts()
    pool = await shop.pool(codes=3, active=False)
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=2)
    await shop.do(EDIT_POOL, poolId=pool["id"], percentOff=20.0)
    (code, *_) = (await shop.data("{ codes { edges { node { id } } } }"))["codes"]["edges"]
    await shop.do(REVEAL, codeId=code["node"]["id"], reason="a look")

    answer = await shop.do(DISCARD, poolId=pool["id"])

    assert answer == {"__typename": "DiscardPoolSuccess", "poolId": pool["id"]}
    after = (await shop.state()).counts()
    assert {table: rows for table, rows in after.items() if table != "event"} == {
        table: rows for table, rows in before.items() if table != "event"
    }
    assert (await shop.event_types())[-3:] == ["codes.discarded", "codes.discarded", "pool.discarded"]
    assert await shop.data("query ($id: ID!) { pool(id: $id) { id } }", {"id": pool["id"]}) == {"pool": None}
    assert await shop.broken_promises() == []


@pytest.mark.usefixtures("shop")
async def test_what_refers_to_codes_is_found_by_an_index() -> None:
    assert [row["conname"] for row in await database().rows(UNSERVED)] == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (["activatePool"], "ACTIVE"),
        (["activatePool", "pausePool"], "PAUSED"),
        (["activatePool", "archivePool"], "ARCHIVED"),
    ],
)
async def test_a_pool_that_left_draft_stays(shop: Shop, path: list[str], status: str) -> None:
    pool = await shop.pool(codes=1, active=False)
    for step in path:
        await shop.do(CHANGE_STATUS % step, poolId=pool["id"])

    assert await shop.refused(DISCARD, poolId=pool["id"]) == {
        "__typename": "PoolNotEditable",
        "message": f"A pool in {status} can't be discarded; archive it.",
        "status": status,
        "fields": [],
    }


async def test_a_fallback_and_a_rewards_pool_stay(shop: Shop) -> None:
    fallback, backing = [await shop.pool(codes=1, active=False) for _ in range(2)]
    pool = await shop.pool(codes=0, active=False, fallbackPoolId=fallback["id"])
    await reward(shop, cost=5, poolId=backing["id"])

    for each, message in (
        (fallback, "Another pool falls back to it; give that one another fallback first."),
        (backing, "A reward gives its codes."),
    ):
        refusal = await shop.refused(DISCARD, poolId=each["id"])
        assert (refusal["__typename"], refusal["message"]) == ("PoolNotEditable", message)
    assert (await shop.do(DISCARD, poolId=pool["id"]))["__typename"] == "DiscardPoolSuccess"
    assert (await shop.do(DISCARD, poolId=fallback["id"]))["__typename"] == "DiscardPoolSuccess"


async def test_a_pool_is_discarded_once(shop: Shop, other_shop: Shop) -> None:
    pool, theirs = await shop.pool(codes=1, active=False), await other_shop.pool(codes=1, active=False)
    await shop.do(DISCARD, poolId=pool["id"])

    for node_id in (pool["id"], theirs["id"], "pool_", "code_0123456789abcdef0123456789abcdef"):
        refusal = await shop.refused(DISCARD, poolId=node_id)
        assert (refusal["__typename"], refusal["id"]) == ("NotFound", node_id)


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST", "SUPPORT"])
async def test_only_an_admin_discards_pools(shop: Shop, role: str) -> None:
    pool = await shop.pool(codes=1, active=False)

    assert await shop.failed(DISCARD, key=await shop.key(role), poolId=pool["id"]) == "FORBIDDEN"


async def test_discarding_meets_all_that_can_happen_to_a_draft(shop: Shop, processes: Processes) -> None:
    for _ in range(8):
        pool, other = [await shop.pool(codes=60, active=False) for _ in range(2)]
        new: dict[str, Any] = {"name": "Spring", "kind": "PERCENT", "percentOff": 10.0}

        answers = await at_once(
            [
                processes.do(DISCARD, poolId=pool["id"]),
                processes.do(DISCARD, poolId=pool["id"]),
                processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]),
                processes.do(GENERATE_CODES, poolId=pool["id"], count=5),
                processes.do(EDIT_POOL, poolId=pool["id"], percentOff=20.0),
                processes.do(EDIT_POOL, poolId=other["id"], fallbackPoolId=pool["id"]),
                processes.do(CREATE_POOL, fallbackPoolId=pool["id"], **new),
                fold_stock(),
            ]
        )

        found = await shop.data("query ($id: ID!) { pool(id: $id) { id } }", {"id": pool["id"]})
        assert (found["pool"] is None) is ("DiscardPoolSuccess" in kinds(answers[:2]))
        assert set(kinds(answers[:7])) <= {
            "DiscardPoolSuccess", "NotFound", "PoolNotEditable", "ChangePoolStatusSuccess", "GenerateCodesSuccess",
            "EditPoolSuccess", "CreatePoolSuccess", "InvalidInput", "PoolHasNoCodes",
        }  # fmt: skip
    assert await shop.broken_promises() == []


async def test_a_reward_that_waits_for_a_discarded_pool_is_not_found(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=1, active=False)
    document = (
        f"mutation ($input: CreateRewardInput!) {{ answer: createReward(input: $input) {{ __typename {REFUSALS} }} }}"
    )
    async with transaction(shop.merchant_id) as tx:
        await tx.row(HOLD, shop.merchant_id, ids.decode("pool", pool["id"]))
        discarded = asyncio.ensure_future(processes.do(DISCARD, poolId=pool["id"]))
        await until_somebody_waits(tx)
        asked = asyncio.ensure_future(processes.do(document, name="Mug", cost=5, poolId=pool["id"]))
    answers = [await discarded, await asked]

    assert kinds(answers) in (
        {"DiscardPoolSuccess": 1, "NotFound": 1},
        {"PoolNotEditable": 1, "CreateRewardSuccess": 1},
    )
    rows = await database().rows("SELECT pool_id FROM reward WHERE merchant_id = $1", shop.merchant_id)
    assert [row["pool_id"] is None for row in rows] in ([], [False])
    assert await shop.broken_promises() == []
