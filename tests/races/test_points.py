"""Points that are earned and spent at once by two processes. Without these a balance could pay twice, or a stock."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.points.expire_points import expire_points_of
from app.points.ledger import debit
from app.points.mature_points import mature_points_of
from app.points.types import PointsReason
from app.storage.database import transaction
from tests.conftest import Api
from tests.factories import CLAIM_CODE, CREATE_CAMPAIGN, Shop, usd
from tests.points.documents import (
    CONFIGURE,
    CREATE_REWARD,
    GRANT,
    RECORD,
    REDEEM_REWARD,
    REVERSE,
    REVERSE_REWARD,
    age,
    broken,
    end,
    entries,
    grant,
    member_uuid,
    points,
    purchase,
    reward,
)
from tests.races.storm import Processes, at_once, kinds, members, until_somebody_waits


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def rich(shop: Shop, count: int, amount: int) -> list[str]:
    """Enrol members and give each of them points."""
    crowd = await members(shop, count)
    await at_once((grant(shop, {"id": member}, amount, f"in {member}") for member in crowd), most=20)
    return crowd


async def test_of_fifty_spends_a_balance_for_twenty_pays_twenty(shop: Shop, processes: Processes) -> None:
    (member,) = await rich(shop, 1, 200)

    answers = await at_once(
        processes.do(GRANT, memberId=member, amount=-10, reference="spend", idempotencyKey=f"spend {number}")
        for number in range(50)
    )

    assert kinds(answers) == {"GrantPointsSuccess": 20, "InsufficientPoints": 30}
    refused = [answer for answer in answers if answer["__typename"] == "InsufficientPoints"]
    assert all(answer["required"] == 10 and answer["balance"] == 0 for answer in refused)
    assert sorted(balance for _, balance, _ in await entries(shop, {"id": member})) == list(range(0, 201, 10))
    assert await shop.wallet_versions({"id": member}) == list(range(1, 22))
    assert await broken(shop) == []


async def test_fifty_rewards_for_a_balance_for_twenty_are_twenty(shop: Shop, processes: Processes) -> None:
    (member,) = await rich(shop, 1, 200)
    pool = await shop.pool(codes=60, claimsPerMember=60)
    mug = await reward(shop, cost=10, poolId=pool["id"])

    answers = await at_once(
        processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member, idempotencyKey=f"k {number}")
        for number in range(50)
    )

    assert kinds(answers) == {"RedeemRewardSuccess": 20, "InsufficientPoints": 30}
    codes = {answer["redemption"]["code"]["id"] for answer in answers if "redemption" in answer}
    assert len(codes) == 20
    assert (await shop.stock(pool))["available"] == 40
    assert await broken(shop) == []


@pytest.mark.parametrize("backing", ["stock", "pool", "both"])
async def test_the_last_reward_goes_to_one_of_thirty_members(shop: Shop, processes: Processes, backing: str) -> None:
    crowd = await rich(shop, 30, 100)
    pool = None if backing == "stock" else await shop.pool(codes=1)
    mug = await reward(shop, stock=None if backing == "pool" else 1, poolId=None if pool is None else pool["id"])

    answers = await at_once(
        processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member, idempotencyKey=f"k {member}")
        for member in crowd
    )

    assert kinds(answers) == {"RedeemRewardSuccess": 1, "RewardOutOfStock": 29}
    balances = sorted([await points(shop, {"id": member}) for member in crowd])
    assert balances == [0] + [100] * 29
    assert await shop.count("reward_redemption") == 1
    assert await broken(shop) == []


async def test_one_key_thirty_times_at_once_is_one_redemption(shop: Shop, processes: Processes) -> None:
    (member,) = await rich(shop, 1, 100)
    pool = await shop.pool(codes=1)

    for turn, options in enumerate(({}, {"stock": 1}, {"poolId": pool["id"]})):
        mug = await reward(shop, cost=30, **options)
        answers = await at_once(
            processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member, idempotencyKey=f"k {turn}")
            for _ in range(30)
        )
        assert kinds(answers) == {"RedeemRewardSuccess": 30}
        assert len({answer["redemption"]["id"] for answer in answers}) == 1
        assert sum(not answer["replayed"] for answer in answers) == 1
    assert await points(shop, {"id": member}) == 10
    assert await broken(shop) == []


async def test_a_purchase_sent_by_twenty_callers_earns_once(shop: Shop, processes: Processes) -> None:
    (member,) = await members(shop, 1)

    answers = await at_once(
        processes.do(RECORD, memberId=member, source="STORE", orderId="o-1", amount=usd(1000)) for _ in range(20)
    )

    assert kinds(answers) == {"RecordPurchaseSuccess": 20}
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert len({(answer["purchase"]["id"], answer["entry"]["id"]) for answer in answers}) == 1
    assert await entries(shop, {"id": member}) == [(10, 10, "PURCHASE")]


async def test_a_grant_sent_by_twenty_callers_counts_once_even_when_it_empties(
    shop: Shop, processes: Processes
) -> None:
    (member,) = await rich(shop, 1, 100)

    answers = await at_once(
        processes.do(GRANT, memberId=member, amount=-100, reference="all", idempotencyKey="all") for _ in range(20)
    )

    assert kinds(answers) == {"GrantPointsSuccess": 20}
    assert len({answer["entry"]["id"] for answer in answers}) == 1
    assert await entries(shop, {"id": member}) == [(100, 100, "ADJUSTMENT"), (-100, 0, "ADJUSTMENT")]


async def test_everything_at_once_stays_exact(shop: Shop, processes: Processes) -> None:
    await shop.do(CONFIGURE, pointsLifetimeDays=1)
    crowd = await rich(shop, 3, 100)
    made = [(await purchase(shop, {"id": member}, f"old {member}", 5000))["purchase"]["id"] for member in crowd]
    await end(shop, 1)
    pool = await shop.pool(codes=20, claimsPerMember=20)
    mug = await reward(shop, cost=20, stock=15, poolId=pool["id"])

    calls: list[Any] = [expire_points_of(shop.merchant_id) for _ in range(3)]
    for member, purchase_id in zip(crowd, made, strict=True):
        for turn in range(8):
            key = f"{member} {turn}"
            calls += [
                processes.do(RECORD, memberId=member, source="STORE", orderId=key, amount=usd(1000)),
                processes.do(GRANT, memberId=member, amount=-15, reference="spend", idempotencyKey=key),
                processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member, idempotencyKey=key),
                processes.do(REVERSE, purchaseId=purchase_id, reason="returned"),
            ]
    answers = await at_once(calls, most=40)

    counted = kinds(answer for answer in answers if isinstance(answer, dict))
    assert counted["RecordPurchaseSuccess"] == 24
    assert counted["ReversePurchaseSuccess"] == 3
    assert counted["PurchaseAlreadyReversed"] == 21
    assert counted.get("RedeemRewardSuccess", 0) == await shop.count("reward_redemption")
    assert (await shop.stock(pool))["allocated"] == counted.get("RedeemRewardSuccess", 0)
    assert await broken(shop) == []


async def test_of_fifty_that_want_all_or_one_more_one_gets_all(shop: Shop, processes: Processes) -> None:
    await shop.do(CONFIGURE, pointsPendingDays=14)
    (member,) = await rich(shop, 1, 60)
    await grant(shop, {"id": member}, 40, "a second lot")
    await purchase(shop, {"id": member}, "pending", 5000)

    answers = await at_once(
        processes.do(GRANT, memberId=member, amount=-100 - number % 2, reference="all", idempotencyKey=f"{number}")
        for number in range(50)
    )

    assert kinds(answers) == {"GrantPointsSuccess": 1, "InsufficientPoints": 49}
    (taken,) = [answer["entry"] for answer in answers if "entry" in answer]
    assert (taken["amount"], taken["balanceAfter"]) == (-100, 50)
    assert {answer["balance"] for answer in answers if "balance" in answer} <= {0, 100}
    assert await broken(shop) == []


async def test_credits_and_debits_of_many_lots_at_once_are_exact(shop: Shop, processes: Processes) -> None:
    (member,) = await members(shop, 1)
    calls = []
    for number in range(40):
        key = f"{number}"
        calls += [
            processes.do(GRANT, memberId=member, amount=7, reference="in", idempotencyKey=f"in {key}"),
            processes.do(GRANT, memberId=member, amount=-10, reference="out", idempotencyKey=f"out {key}"),
        ]

    answers = await at_once(calls)

    spent = sum(answer.get("entry", {}).get("amount") == -10 for answer in answers)
    assert kinds(answers).get("InsufficientPoints", 0) == 40 - spent
    assert await points(shop, {"id": member}) == 40 * 7 - spent * 10
    assert await broken(shop) == await shop.broken_promises() == []


@pytest.mark.parametrize("against", ["expiry", "the end of pending", "a return", "a reward that goes back"])
async def test_spending_against_what_else_changes_lots_is_exact(shop: Shop, processes: Processes, against: str) -> None:
    await shop.do(CONFIGURE, pointsLifetimeDays=30, pointsPendingDays=14 if against == "the end of pending" else 0)
    crowd = await members(shop, 6)
    mug = await reward(shop, cost=20)
    calls: list[Any] = []
    for member in crowd:
        await purchase(shop, {"id": member}, f"first {member}", 5000)
        await grant(shop, {"id": member}, 50, f"second {member}")
        had = await processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member, idempotencyKey=member)
        if against == "a return":
            calls += [
                processes.do(REVERSE, source="STORE", orderId=f"first {member}", reason="returned") for _ in range(2)
            ]
        elif against == "a reward that goes back":
            calls += [
                processes.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken") for _ in range(2)
            ]
        calls += [
            processes.do(GRANT, memberId=member, amount=-15, reference="spend", idempotencyKey=f"{member} {turn}")
            for turn in range(8)
        ]
    if against == "expiry":
        await end(shop, 1)
        calls += [expire_points_of(shop.merchant_id) for _ in range(3)]
    elif against == "the end of pending":
        await age(shop, None, 14.1)
        calls += [mature_points_of(shop.merchant_id) for _ in range(3)]

    # As they come to mind: sweeps, returns and spends of all members side by side.
    answers = await at_once(sorted(calls, key=lambda _: ids.new().hex[-8:]), most=40)

    spent = kinds(answer for answer in answers if isinstance(answer, dict)).get("GrantPointsSuccess", 0)
    for member in crowd:
        moved = [amount for amount, _, _ in await entries(shop, {"id": member})]
        assert sum(moved) == await points(shop, {"id": member})
    assert spent > 0
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_return_waits_for_who_spends_and_takes_what_that_leaves(shop: Shop, second_api: Api) -> None:
    member = await shop.member()
    await purchase(shop, member, "o-1", 5000)

    async with transaction(shop.merchant_id) as tx:
        spent = await debit(
            tx, shop.merchant_id, "system", member_uuid(member), 30, PointsReason.ADJUSTMENT, origin="grant/spend",
            reference="spend",
        )  # fmt: skip
        assert spent is not None
        returning = asyncio.create_task(
            shop.do(REVERSE, url=f"{second_api.url}/graphql", source="STORE", orderId="o-1", reason="returned")
        )
        await until_somebody_waits(tx)

    answer = await returning
    assert (answer["entry"]["amount"], answer["entry"]["balanceAfter"], answer["shortfall"]) == (-20, 0, 30)
    assert await entries(shop, member) == [(50, 50, "PURCHASE"), (-30, 20, "ADJUSTMENT"), (-20, 0, "REVERSAL")]
    assert await broken(shop) == []


async def test_once_a_reward_is_there_nobody_gets_its_codes_for_nothing(shop: Shop, processes: Processes) -> None:
    """Claims and campaigns that were asked for before it was answered may win; those after never do."""
    crowd = await members(shop, 120)
    last = await shop.pool(codes=200)
    first = await shop.pool(codes=1, fallbackPoolId=last["id"])
    created = asyncio.Event()
    late: list[str] = []

    async def ask(number: int, member: str) -> str:
        document, named = CLAIM_CODE, {"poolId": last["id"], "memberId": member}
        if number % 3 == 1:
            named = {"poolId": first["id"], "memberId": member}
        elif number % 3 == 2:
            document, named = CREATE_CAMPAIGN, {"name": "c", "poolId": last["id"], "recipients": [{"memberId": member}]}
        after = created.is_set()
        answer = await processes.do(document, **named)
        if after and answer.get("servedBy") != {"id": first["id"]}:
            late.append(answer["__typename"])
        return "served" if answer.get("servedBy") != {"id": first["id"]} and "message" not in answer else "not"

    async def create() -> str:
        answer = await processes.do(CREATE_REWARD, name="Mug", cost=10, poolId=last["id"])
        created.set()
        return str(answer["__typename"])

    calls = [ask(number, member) for number, member in enumerate(crowd)]
    outcomes = await at_once([*calls[:40], create(), *calls[40:80]], most=20)
    outcomes += await at_once(calls[80:], most=20)

    assert outcomes.count("CreateRewardSuccess") == 1
    assert len(late) >= 39
    assert set(late) == {"PoolBacksReward", "PoolExhausted"}
    assert (await shop.stock(last))["allocated"] == outcomes.count("served")


async def test_liability_read_under_spends_is_always_a_whole_number_of_them(shop: Shop, processes: Processes) -> None:
    """Every redemption moves 10 points out: a read between two sums of different snapshots would show another."""
    crowd = await rich(shop, 4, 100)
    seen: list[int] = []
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            found = await shop.data("{ pointsLiability { outstandingPoints } }")
            seen.append(found["pointsLiability"]["outstandingPoints"])

    reading = asyncio.create_task(read())
    await at_once(
        (
            processes.do(GRANT, memberId=member, amount=-10, reference="spend", idempotencyKey=f"{member} {turn}")
            for turn in range(10) for member in crowd
        ),
        most=10,
    )  # fmt: skip
    done.set()
    await reading

    assert seen == sorted(seen, reverse=True)
    assert all(each % 10 == 0 for each in seen)
