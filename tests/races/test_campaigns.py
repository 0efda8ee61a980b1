"""Campaigns against whatever else wants the same codes. Without these a code could be sent to one and given to another.

Also fallback pools: the claims of a campaign's pool and of what it falls back to meet here.
"""

import asyncio
from typing import Any

import pytest

from app.storage.database import database
from tests.conftest import Api
from tests.coupons.ownership import breaches
from tests.factories import CHANGE_STATUS, CLAIM_CODE, CREATE_CAMPAIGN, VERIFY_MEMBER_EMAIL, Shop
from tests.races.storm import Processes, at_once, kinds, members
from tests.sizes import size

SENT = """
SELECT count(*) AS deliveries, count(DISTINCT code_id) AS codes FROM delivery WHERE merchant_id = $1
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def to_members(crowd: list[str]) -> list[dict[str, str]]:
    """Return members as recipients."""
    return [{"memberId": member} for member in crowd]


def to_strangers(count: int, *, first: int = 0) -> list[dict[str, str]]:
    """Return addresses as recipients."""
    return [{"email": f"stranger-{number}@example.com"} for number in range(first, first + count)]


async def test_twenty_callers_with_one_key_make_one_campaign(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=100)
    recipients = to_members(await members(shop, 10)) + to_strangers(10)
    before = await shop.state()

    answers = await at_once(
        processes.do(
            CREATE_CAMPAIGN,
            name="Spring",
            poolId=pool["id"],
            recipients=recipients[turn:] + recipients[:turn],
            idempotencyKey="spring",
        )
        for turn in range(20)
    )

    assert kinds(answers) == {"CreateCampaignSuccess": 20}
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 19
    assert all(answer["campaign"] == answers[0]["campaign"] for answer in answers)
    assert (await shop.state()).since(before) == {
        "campaign": 1, "delivery": 20, "claim": 20, "code": 0, "wallet": 0, "address": 10, "stock_change": 1,
        "event": 21,
    }  # fmt: skip
    assert await breaches(shop) == {}


async def test_one_key_for_two_pools_at_once_is_one_campaign_and_a_refusal(shop: Shop, processes: Processes) -> None:
    pools = [await shop.pool(codes=20) for _ in range(2)]
    recipients = to_strangers(5)

    answers = await at_once(
        processes.do(
            CREATE_CAMPAIGN, name="Spring", poolId=pools[turn % 2]["id"], recipients=recipients, idempotencyKey="spring"
        )
        for turn in range(10)
    )

    assert kinds(answers) == {"CreateCampaignSuccess": 5, "IdempotencyKeyReused": 5}
    assert sorted([(await shop.stock(pool))["allocated"] for pool in pools]) == [0, 5]
    assert await breaches(shop) == {}


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_campaign_against_the_claims_of_its_recipients_gives_each_what_it_can_have(
    shop: Shop, processes: Processes, limit: int
) -> None:
    half = size(30, 100)
    pool = await shop.pool(codes=15 * half, claimsPerMember=limit)
    crowd = await members(shop, 2 * half)
    recipients = to_members(crowd) + to_strangers(half)
    campaign = {"name": "Spring", "poolId": pool["id"], "recipients": recipients}

    def claims() -> list[Any]:
        by_member = [processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in crowd]
        by_email = [processes.do(CLAIM_CODE, poolId=pool["id"], **recipient) for recipient in to_strangers(half)]
        return [call for pair in zip(by_member[:half], by_email, by_member[half:], strict=True) for call in pair]

    sending = [asyncio.ensure_future(processes.do(CREATE_CAMPAIGN, **campaign)) for _ in range(2)]
    answers = await at_once(claims(), most=60)
    sent = await asyncio.gather(*sending)

    assert kinds(sent) == {"CreateCampaignSuccess": 2}
    assert kinds(answers) == {"ClaimCodeSuccess": 3 * half}
    assert {each["campaign"]["recipientCount"] for each in sent} == {3 * half}
    assert await breaches(shop) == {}
    claimed = sum(not answer["replayed"] for answer in answers)
    allocated = sum(each["campaign"]["allocatedCount"] for each in sent) + claimed
    stock = await shop.stock(pool)
    assert stock["allocated"] == allocated
    assert 3 * half <= allocated <= 3 * half * limit
    assert stock["available"] == 15 * half - allocated


async def test_a_campaign_for_the_last_codes_gets_them_all_or_none(shop: Shop, processes: Processes) -> None:
    for _ in range(size(2, 5)):
        pool = await shop.pool(codes=60)
        crowd = await members(shop, 50)
        campaign = {"name": "Spring", "poolId": pool["id"], "recipients": to_members(await members(shop, 40))}

        sent, *answers = await at_once(
            [
                processes.do(CREATE_CAMPAIGN, **campaign),
                *(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in crowd),
            ]
        )

        stock = await shop.stock(pool)
        claimed = kinds(answers).get("ClaimCodeSuccess", 0)
        assert stock["available"] + stock["allocated"] == 60
        if sent["__typename"] == "CreateCampaignSuccess":
            assert (stock["allocated"], claimed) == (60, 20)
        else:
            assert (sent["__typename"], sent["poolsTried"]) == ("PoolExhausted", [pool["id"]])
            assert stock["allocated"] == claimed
            assert claimed > 20
    assert await breaches(shop) == {}


async def test_campaigns_to_overlapping_recipients_allocate_one_code_each(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=400)
    crowd = await members(shop, 100)
    lists = [
        to_members(crowd[:70]) + to_strangers(70),
        to_strangers(70, first=30) + to_members(crowd[30:]),
        to_members(crowd[::-1]) + to_strangers(100)[::-1],
    ]

    answers = await at_once(
        processes.do(CREATE_CAMPAIGN, name=f"{number}", poolId=pool["id"], recipients=recipients)
        for number, recipients in enumerate(lists)
    )

    assert kinds(answers) == {"CreateCampaignSuccess": 3}
    assert sum(answer["campaign"]["allocatedCount"] for answer in answers) == 200
    assert (await shop.stock(pool))["allocated"] == 200
    row = await database().row(SENT, shop.merchant_id)
    assert row is not None
    assert dict(row) == {"deliveries": 140 + 140 + 200, "codes": 200}
    assert await breaches(shop) == {}


async def test_campaigns_of_two_pools_to_the_same_people_in_other_orders_all_arrive(
    shop: Shop, processes: Processes
) -> None:
    pools = [await shop.pool(codes=300) for _ in range(2)]
    recipients = to_members(await members(shop, 100)) + to_strangers(100)

    answers = await at_once(
        processes.do(
            CREATE_CAMPAIGN, name=f"{turn}", poolId=pools[turn % 2]["id"], recipients=recipients[:: 1 - turn % 2 * 2]
        )
        for turn in range(6)
    )

    assert kinds(answers) == {"CreateCampaignSuccess": 6}
    assert [(await shop.stock(pool))["allocated"] for pool in pools] == [200, 200]
    assert await breaches(shop) == {}


async def test_recipients_that_are_verified_meanwhile_get_one_code(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=300)
    known = [await shop.member(email=f"stranger-{number}@example.com") for number in range(40)]
    recipients = to_strangers(40) + to_members([member["id"] for member in known])

    *verified, sent, again = await at_once(
        [
            *(processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]) for member in known),
            *(
                processes.do(CREATE_CAMPAIGN, name=name, poolId=pool["id"], recipients=recipients)
                for name in ("Spring", "Summer")
            ),
        ]
    )

    assert kinds(verified) == {"VerifyMemberEmailSuccess": 40}
    assert kinds([sent, again]) == {"CreateCampaignSuccess": 2}
    assert (await shop.stock(pool))["allocated"] == 40
    assert await breaches(shop) == {}


async def test_a_campaign_comes_whole_before_a_pause_or_not_at_all(shop: Shop, processes: Processes) -> None:
    outcomes: list[str] = []
    for turn in range(12):
        pool = await shop.pool(codes=30)
        calls = [
            processes.do(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=to_strangers(30)),
            processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"]),
        ]
        sent, paused = [*await at_once(calls)] if turn % 2 else [*await at_once(calls[::-1])][::-1]

        assert paused["__typename"] == "ChangePoolStatusSuccess"
        outcomes.append(sent["__typename"])
        if sent["__typename"] == "PoolNotActive":
            assert sent["status"] == "PAUSED"
        expected = 30 if sent["__typename"] == "CreateCampaignSuccess" else 0
        assert (await shop.stock(pool))["allocated"] == expected
    assert set(outcomes) <= {"CreateCampaignSuccess", "PoolNotActive"}
    assert await breaches(shop) == {}


async def test_of_the_claimants_of_a_chain_of_three_pools_three_in_four_get_its_codes(
    shop: Shop, processes: Processes
) -> None:
    half = size(30, 100)
    stock = half // 2
    last = await shop.pool(codes=stock)
    middle = await shop.pool(codes=stock, fallbackPoolId=last["id"])
    first = await shop.pool(codes=stock, fallbackPoolId=middle["id"])
    claimants: list[dict[str, str]] = [
        name for pair in zip(to_members(await members(shop, half)), to_strangers(half), strict=True) for name in pair
    ]

    answers = await at_once(
        (processes.do(CLAIM_CODE, poolId=first["id"], **claimant) for claimant in claimants), most=40
    )

    assert kinds(answers) == {"ClaimCodeSuccess": 3 * stock, "PoolExhausted": stock}
    claimed = [answer for answer in answers if answer["__typename"] == "ClaimCodeSuccess"]
    assert len({answer["code"]["id"] for answer in claimed}) == 3 * stock
    assert not any(answer["replayed"] for answer in claimed)
    for pool in (first, middle, last):
        assert sum(answer["servedBy"]["id"] == pool["id"] for answer in claimed) == stock
        assert await shop.stock(pool) == {
            "total": stock, "available": 0, "allocated": stock, "redeemed": 0, "expired": 0, "revoked": 0
        }  # fmt: skip
    refused = [answer["poolsTried"] for answer in answers if answer["__typename"] == "PoolExhausted"]
    assert refused == [[first["id"], middle["id"], last["id"]]] * stock
    assert await breaches(shop) == {}


async def test_one_claimant_that_asks_every_pool_of_a_chain_at_once_keeps_to_each_limit(
    shop: Shop, processes: Processes
) -> None:
    for name in ("memberId", "email"):
        last = await shop.pool(codes=10)
        middle = await shop.pool(codes=1, fallbackPoolId=last["id"])
        first = await shop.pool(codes=1, fallbackPoolId=middle["id"])
        for pool in (first, middle):
            await shop.claim(pool, await shop.member())
        claimant = {name: (await members(shop, 1))[0] if name == "memberId" else "stranger@example.com"}

        answers = await at_once(
            processes.do(CLAIM_CODE, poolId=pool["id"], **claimant) for _ in range(20) for pool in (last, first, middle)
        )

        assert kinds(answers) == {"ClaimCodeSuccess": 60}
        assert len({answer["code"]["id"] for answer in answers}) == 1
        assert {answer["servedBy"]["id"] for answer in answers} == {last["id"]}
        assert (await shop.stock(last))["allocated"] == 1
    assert await breaches(shop) == {}
