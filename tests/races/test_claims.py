"""Claims that arrive at once at two processes. Without these one code could go to two members."""

import asyncio

import pytest

from app.coupons.stock import fold_stock
from app.storage.database import database
from tests.conftest import Api
from tests.factories import CHANGE_STATUS, CLAIM_CODE, Shop
from tests.races.storm import Processes, at_once, kinds, members
from tests.sizes import size

ONE_OWNER = """
SELECT count(*) AS claims, count(DISTINCT code_id) AS codes, count(DISTINCT member_id) AS owners FROM claim
WHERE merchant_id = $1
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


@pytest.mark.parametrize("stock", [1, 200])
async def test_a_hundred_taps_of_one_member_get_one_code(shop: Shop, processes: Processes, stock: int) -> None:
    pool = await shop.pool(codes=stock)
    (member,) = await members(shop, 1)
    before = await shop.state()

    answers = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for _ in range(100))

    assert kinds(answers) == {"ClaimCodeSuccess": 100}
    assert len({(answer["code"]["id"], answer["code"]["text"]) for answer in answers}) == 1
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 99
    levels = 4 if stock == 1 else 0
    assert (await shop.state()).since(before) == {
        "claim": 1, "code": 0, "wallet": 0, "stock_change": 1, "event": 1 + levels,
    } | ({"stock_alert": levels} if levels else {})  # fmt: skip
    assert await shop.wallet_versions({"id": member}) == [1]


async def test_of_a_thousand_members_700_get_a_code_each_of_700(shop: Shop, processes: Processes) -> None:
    """A fifth of them in `make test`."""
    stock, late = size((140, 60), (700, 300))
    pool = await shop.pool(codes=stock)
    crowd = await members(shop, stock + late)

    # Fewer at a time, so that no connection is idle for the 5 seconds after which the server closes it.
    answers = await at_once((processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in crowd), most=40)

    assert kinds(answers) == {"ClaimCodeSuccess": stock, "PoolExhausted": late}
    claimed = [answer for answer in answers if answer["__typename"] == "ClaimCodeSuccess"]
    assert len({answer["code"]["id"] for answer in claimed}) == stock
    assert len({answer["code"]["text"] for answer in claimed}) == stock
    assert not any(answer["replayed"] for answer in claimed)
    refused = [answer for answer in answers if answer["__typename"] == "PoolExhausted"]
    assert all(answer["poolsTried"] == [pool["id"]] for answer in refused)
    for answer, member in zip(answers, crowd, strict=True):
        if answer["__typename"] == "ClaimCodeSuccess":
            assert answer["code"]["owner"] == {"id": member, "wallet": {"version": 1}}
    exact = {"total": stock, "available": 0, "allocated": stock, "redeemed": 0, "expired": 0, "revoked": 0}
    assert await shop.stock(pool) == exact
    row = await database().row(ONE_OWNER, shop.merchant_id)
    assert row is not None
    assert dict(row) == {"claims": stock, "codes": stock, "owners": stock}
    await fold_stock()
    assert await shop.stock(pool) == exact


async def test_the_stock_is_exact_while_it_is_folded_under_claims(shop: Shop, processes: Processes) -> None:
    count = size(80, 200)
    pool = await shop.pool(codes=count)
    crowd = await members(shop, count)
    done = asyncio.Event()
    totals: list[int] = []

    async def fold() -> None:
        while not done.is_set():
            await fold_stock()
            stock = await shop.stock(pool)
            totals.append(stock["total"])

    folding = asyncio.create_task(fold())
    answers = await at_once((processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in crowd), most=20)
    done.set()
    await folding

    assert kinds(answers) == {"ClaimCodeSuccess": count}
    assert set(totals) == {count}
    stock = await shop.stock(pool)
    assert (stock["available"], stock["allocated"]) == (0, count)


async def test_sixty_keys_of_one_member_get_as_many_codes_as_the_pool_allows(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=100, claimsPerMember=3)
    (member,) = await members(shop, 1)

    answers = await at_once(
        processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member, idempotencyKey=f"key {number % 20}")
        for number in range(60)
    )

    assert kinds(answers) == {"ClaimCodeSuccess": 60}
    assert len({answer["code"]["id"] for answer in answers}) == 3
    assert sum(not answer["replayed"] for answer in answers) == 3
    assert await shop.wallet_versions({"id": member}) == [1, 2, 3]
    stock = await shop.stock(pool)
    assert (stock["available"], stock["allocated"]) == (97, 3)


async def test_keys_sent_three_times_at_once_are_one_claim_each(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=40, claimsPerMember=30)
    (member,) = await members(shop, 1)

    answers = await at_once(
        processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member, idempotencyKey=f"key {number % 30}")
        for number in range(90)
    )

    by_key = [{answers[number + 30 * turn]["code"]["id"] for turn in range(3)} for number in range(30)]
    assert all(len(codes) == 1 for codes in by_key)
    assert len(set().union(*by_key)) == 30
    assert sum(not answer["replayed"] for answer in answers) == 30
    assert await shop.wallet_versions({"id": member}) == list(range(1, 31))


async def test_no_claim_that_is_sent_after_the_answer_of_a_pause_succeeds(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=300)
    crowd = await members(shop, 200)
    answered = 0
    enough = asyncio.Event()

    async def claim(member: str) -> str:
        nonlocal answered
        answer = await processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member)
        answered += 1
        if answered == 30:
            enough.set()
        kind: str = answer["__typename"]
        return kind

    running = asyncio.create_task(at_once((claim(member) for member in crowd), most=20))
    await enough.wait()
    paused = await processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    late = await members(shop, 40)
    after = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in late)
    before = await running

    assert paused["__typename"] == "ChangePoolStatusSuccess"
    assert kinds(after) == {"PoolNotActive": 40}
    # On a busy machine all of them may have been answered before the pause.
    assert set(before) <= {"ClaimCodeSuccess", "PoolNotActive"}
    assert (await shop.stock(pool))["allocated"] == before.count("ClaimCodeSuccess")
