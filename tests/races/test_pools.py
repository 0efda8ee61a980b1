"""Changes of one pool that arrive at once at two processes. Without these terms could change under issued codes."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app import ids
from app.config import settings
from app.storage.database import Tx, dsn, transaction
from tests.conftest import Api
from tests.factories import CHANGE_STATUS, CLAIM_CODE, EDIT_POOL, GENERATE_CODES, POOL, REDEEM_CODES, Shop
from tests.orders.holding import HOLD, cart
from tests.orders.presented import order
from tests.races.storm import SECONDS_MAX, Processes, at_once, kinds, until_somebody_waits

HOLD_WALLET = "SELECT FROM wallet WHERE merchant_id = $1 AND member_id = $2 FOR UPDATE"
LOOK_AT_POOL = "SELECT FROM pool WHERE merchant_id = $1 AND id = $2 FOR KEY SHARE"
WAITING_FOR_POOL = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'SELECT FROM pool, wait_for_pool%' AND wait_event = 'PgSleep'
"""
READ = f"query ($id: ID!) {{ pool(id: $id) {{ {POOL} }} }}"


async def until_pool(shop: Shop, pool: Any, **shown: Any) -> None:
    """Wait until a pool is seen to be as told."""
    async with asyncio.timeout(SECONDS_MAX):
        while not shown.items() <= (await shop.data(READ, {"id": pool["id"]}))["pool"].items():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_waited_for(tx: Tx) -> None:
    """Wait until somebody waits for the transactions that have a pool."""
    async with asyncio.timeout(SECONDS_MAX):
        while not await tx.rows(WAITING_FOR_POOL):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def test_an_edit_comes_before_the_activation_or_not_at_all(shop: Shop, processes: Processes) -> None:
    for _ in range(15):
        pool = await shop.pool(codes=1, active=False)

        edited, activated, other = await at_once(
            [
                processes.do(EDIT_POOL, poolId=pool["id"], percentOff=5.0),
                processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]),
                processes.do(EDIT_POOL, poolId=pool["id"], stacking="STACKABLE"),
            ]
        )

        expected = pool | {"status": "ACTIVE", "allowedTransitions": ["PAUSED", "ARCHIVED"]}
        assert activated["__typename"] == "ChangePoolStatusSuccess"
        for answer, terms in ((edited, {"percentOff": 5.0}), (other, {"stacking": "STACKABLE"})):
            if answer["__typename"] == "EditPoolSuccess":
                expected |= terms
            else:
                assert (answer["__typename"], answer["status"]) == ("PoolNotEditable", "ACTIVE")
        assert (await shop.data(READ, {"id": pool["id"]}))["pool"] == expected
        assert activated["pool"] == expected


async def test_edits_of_different_terms_at_once_lose_none(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=0, active=False)
    edits: list[dict[str, Any]] = [
        {"name": "A"},
        {"percentOff": 1.0},
        {"claimsPerMember": 7},
        {"stacking": "STACKABLE"},
        {"transferable": True},
        {"codeLifetimeDays": 9},
    ]

    answers = await at_once(processes.do(EDIT_POOL, poolId=pool["id"], **edit) for edit in edits)

    assert kinds(answers) == {"EditPoolSuccess": 6}
    expected = pool | {key: value for edit in edits for key, value in edit.items()}
    assert (await shop.data(READ, {"id": pool["id"]}))["pool"] == expected


async def test_a_batch_comes_whole_before_the_activation_or_not_at_all(shop: Shop, processes: Processes) -> None:
    for _ in range(10):
        pool = await shop.pool(codes=1, active=False)

        *batches, activated = await at_once(
            [
                *(processes.do(GENERATE_CODES, poolId=pool["id"], count=50) for _ in range(3)),
                processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]),
            ]
        )

        assert activated["__typename"] == "ChangePoolStatusSuccess"
        assert set(kinds(batches)) <= {"GenerateCodesSuccess", "PoolNotEditable"}
        stored = kinds(batches).get("GenerateCodesSuccess", 0)
        assert (await shop.stock(pool))["total"] == 1 + 50 * stored


async def test_an_empty_pool_is_activated_with_its_first_batch_or_not_at_all(shop: Shop, processes: Processes) -> None:
    for _ in range(10):
        pool = await shop.pool(codes=0, active=False)

        generated, activated = await at_once(
            [
                processes.do(GENERATE_CODES, poolId=pool["id"], count=20),
                processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]),
            ]
        )

        assert generated["__typename"] == "GenerateCodesSuccess"
        assert activated["__typename"] in {"ChangePoolStatusSuccess", "PoolHasNoCodes"}
        again = await processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
        was_active = activated["__typename"] == "ChangePoolStatusSuccess"
        assert again["__typename"] == ("PoolTransitionRejected" if was_active else "ChangePoolStatusSuccess")


async def test_of_activations_at_once_one_succeeds(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=1, active=False)

    answers = await at_once(processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]) for _ in range(20))

    assert kinds(answers) == {"ChangePoolStatusSuccess": 1, "PoolTransitionRejected": 19}
    assert (await shop.event_types()).count("pool.activated") == 1


async def test_pauses_and_activations_at_once_alternate_and_never_miss_the_codes(
    shop: Shop, processes: Processes
) -> None:
    pool = await shop.pool(codes=1)

    answers = await at_once(
        processes.do(CHANGE_STATUS % step, poolId=pool["id"])
        for _ in range(40)
        for step in ("pausePool", "activatePool")
    )

    assert set(kinds(answers)) <= {"ChangePoolStatusSuccess", "PoolTransitionRejected"}
    moves = [event for event in await shop.event_types() if event in {"pool.paused", "pool.activated"}]
    assert len(moves) == 1 + kinds(answers)["ChangePoolStatusSuccess"]
    paused, activated = moves.count("pool.paused"), moves.count("pool.activated")
    assert activated - paused in {0, 1}
    status = (await shop.data(READ, {"id": pool["id"]}))["pool"]["status"]
    assert status == ("ACTIVE" if activated > paused else "PAUSED")


async def test_once_a_pause_is_answered_nothing_comes_after_it_that_found_the_pool_open(
    shop: Shop, processes: Processes
) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    code = await shop.claim(pool, other := await shop.member())
    calls: list[tuple[Any, str, dict[str, Any], list[int]]] = [
        (member, CLAIM_CODE, {"poolId": pool["id"], "memberId": member["id"]}, [1]),
        (other, REDEEM_CODES, order([code["text"]], other), [1, 2]),
    ]
    for whose, document, asked, versions in calls:
        async with transaction(shop.merchant_id) as tx:
            # The call has found the pool open, and waits for the wallet.
            await tx.rows(HOLD_WALLET, shop.merchant_id, ids.decode("member", whose["id"]))
            caught = asyncio.ensure_future(processes.do(document, **asked))
            await until_somebody_waits(tx)
            pausing = asyncio.ensure_future(processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"]))
            await until_pool(shop, pool, status="PAUSED")
            assert not pausing.done()
        assert (await pausing)["__typename"] == "ChangePoolStatusSuccess"
        assert await shop.wallet_versions(whose) == versions
        assert (await caught)["__typename"] in {"ClaimCodeSuccess", "RedeemCodesSuccess"}
        await processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])


@pytest.mark.parametrize("verb", ["redeemCodes", "holdCheckout"])
async def test_once_an_edit_is_answered_nothing_comes_by_the_terms_of_before(
    shop: Shop, processes: Processes, verb: str
) -> None:
    pool = await shop.pool(percentOff=10.0)
    code = await shop.claim(pool, owner := await shop.member())
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "redeemCodes": (REDEEM_CODES, order([code["text"]], owner)), "holdCheckout": (HOLD, cart([code], owner)),
    }  # fmt: skip
    document, asked = calls[verb]

    async with transaction(shop.merchant_id) as tx:
        # The call has worked out the discount, and waits for the wallet.
        await tx.rows(HOLD_WALLET, shop.merchant_id, ids.decode("member", owner["id"]))
        caught = asyncio.ensure_future(processes.do(document, **asked))
        await until_somebody_waits(tx)
        editing = asyncio.ensure_future(processes.do(EDIT_POOL, poolId=pool["id"], percentOff=20.0))
        await until_pool(shop, pool, percentOff=20.0)
        await until_pool(shop, pool, percentOff=20.0)
        assert not editing.done()

    assert (await editing)["__typename"] == "EditPoolSuccess"
    assert await shop.wallet_versions(owner) == [1, 2]
    told = await caught
    discount = (told["hold"] if verb == "holdCheckout" else told)["totalDiscount"]["amountMinor"]
    assert discount == 1_000


@pytest.mark.parametrize("change", ["editPool", "pausePool"])
async def test_a_change_waits_for_those_that_found_the_pool_before_it_and_not_for_those_that_come(
    shop: Shop, processes: Processes, change: str
) -> None:
    pool = await shop.pool(percentOff=10.0)
    pool_id = ids.decode("pool", pool["id"])
    calls: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "editPool": (EDIT_POOL, {"percentOff": 20.0}, {"percentOff": 20.0}),
        # Codes are honoured all the same, so redemptions go on coming.
        "pausePool": (CHANGE_STATUS % "pausePool", {"scope": "ISSUING"}, {"status": "PAUSED"}),
    }
    document, asked, shown = calls[change]

    late = await asyncpg.connect(dsn(settings().database_url or ""))
    try:
        async with transaction(shop.merchant_id) as early:
            await early.rows(LOOK_AT_POOL, shop.merchant_id, pool_id)
            changing = asyncio.ensure_future(processes.do(document, poolId=pool["id"], **asked))
            await until_pool(shop, pool, **shown)
            await until_waited_for(early)
            await late.execute("BEGIN")
            assert await late.fetch(LOOK_AT_POOL, shop.merchant_id, pool_id)
        async with asyncio.timeout(SECONDS_MAX):
            assert (await changing)["__typename"].endswith("Success")
    finally:
        await late.close()
