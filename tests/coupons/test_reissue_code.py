"""reissueCode. Without these a customer could get two codes for one, or none after a leak."""

from typing import Any

import pytest

from app.coupons.expire_codes import expire_batch
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.ownership import send
from tests.coupons.test_issue_codes import issue, texts
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import (
    CHANGE_STATUS,
    CLAIM_CODE,
    DELIVERIES,
    REDEEM_CODES,
    REFUSALS,
    VERIFY_MEMBER_EMAIL,
    Shop,
    problems,
    usd,
)
from tests.orders.presented import end_pool, expire
from tests.points.documents import grant, redeem, reward
from tests.races.storm import Processes, at_once, kinds

REISSUE = f"""
mutation ($input: ReissueCodeInput!) {{
  answer: reissueCode(input: $input) {{
    __typename
    ... on ReissueCodeSuccess {{ replayed code {{ id state matchedBy text expiresAt owner {{ id }} }} }}
    {REFUSALS} ... on CodeNotReissuable {{ state }} ... on PoolNotActive {{ status }}
    ... on PoolExhausted {{ poolsTried }}
  }}
}}
"""


async def reissue(shop: Shop, code: Any, **more: Any) -> Any:
    return await shop.do(REISSUE, codeId=code["id"], reason="leaked", **more)


async def revoke(shop: Shop, code: Any) -> None:
    await shop.do(REVOKE, codeId=code["id"], reason="leaked", recycle=False)


async def test_a_fresh_code_takes_the_place_of_one_that_leaked(shop: Shop) -> None:
    pool, member = await shop.pool(codes=3), await shop.member()
    code = await shop.claim(pool, member)
    await revoke(shop, code)
    support = await shop.key("SUPPORT")

    answer = await reissue(shop, code, key=support)
    claimed = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])
    redeemed = await shop.redeem([claimed["code"]["text"]], member)

    fresh = answer["code"]
    assert (answer["replayed"], fresh["state"], fresh["matchedBy"], fresh["owner"]["id"], fresh["text"]) == (
        False, "ALLOCATED", "MEMBER_ID", member["id"], None
    )  # fmt: skip
    # A claim that comes again is answered by the code that can be spent.
    assert (claimed["replayed"], claimed["code"]["id"]) == (True, fresh["id"])
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert await shop.stock(pool) == {
        "total": 3, "available": 1, "allocated": 0, "redeemed": 1, "expired": 0, "revoked": 1
    }  # fmt: skip
    assert await shop.broken_promises() == []


async def test_asking_again_is_the_same_answer(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codes=3), await shop.member())
    await revoke(shop, code)
    first = await reissue(shop, code)
    before = await shop.state()

    again = await reissue(shop, code)

    assert again == first | {"replayed": True}
    assert await shop.state() == before


async def test_an_expired_code_gets_a_fresh_lifetime_before_and_after_the_job(shop: Shop) -> None:
    pool = await shop.pool(codes=4, codeLifetimeDays=30)
    codes = [await shop.claim(pool, await shop.member()) for _ in range(2)]
    for code in codes:
        await expire(shop, code)
    early = await reissue(shop, codes[0])
    await expire_batch(shop.merchant_id)
    late = await reissue(shop, codes[1])

    assert {each["code"]["state"] for each in (early, late)} == {"ALLOCATED"}
    assert all(each["code"]["expiresAt"] > code["expiresAt"] for each, code in zip((early, late), codes, strict=True))
    assert await expire_batch(shop.merchant_id) == 0
    assert await shop.broken_promises() == []


async def test_a_campaign_delivers_the_fresh_code_to_the_same_address(shop: Shop) -> None:
    pool = await shop.pool(codes=4)
    campaign = (await send(shop, pool, {"email": "jane@example.com"}))["campaign"]
    (edge,) = (await shop.data(DELIVERIES, {"id": campaign["id"]}))["campaign"]["deliveries"]["edges"]
    await revoke(shop, edge["node"]["code"])

    fresh = (await reissue(shop, edge["node"]["code"]))["code"]
    (after,) = (await shop.data(DELIVERIES, {"id": campaign["id"]}))["campaign"]["deliveries"]["edges"]
    member = await shop.member(email="jane@example.com")
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])

    assert (after["node"]["recipient"], after["node"]["code"]["id"]) == ("jane@example.com", fresh["id"])
    assert (await shop.redeem([after["node"]["code"]["text"]], member))["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_a_fallbacks_code_keeps_both_of_its_claims(shop: Shop) -> None:
    last = await shop.pool(codes=3)
    asked = await shop.pool(codes=1, fallbackPoolId=last["id"])
    await shop.claim(asked, await shop.member())
    member = await shop.member()
    code = await shop.claim(asked, member)
    await revoke(shop, code)

    fresh = (await reissue(shop, code))["code"]

    again = [await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]) for pool in (asked, last)]
    assert [(each["replayed"], each["code"]["id"]) for each in again] == [(True, fresh["id"])] * 2
    assert await shop.broken_promises() == []


async def test_a_rewards_code_is_replaced_for_the_reward_too(shop: Shop) -> None:
    pool, member = await shop.pool(codes=3), await shop.member()
    await grant(shop, member, 10, "a")
    bought = await redeem(shop, await reward(shop, cost=5, poolId=pool["id"]), member, "b")
    code = bought["redemption"]["code"]
    await revoke(shop, code)

    fresh = (await reissue(shop, code))["code"]

    (row,) = await database().rows("SELECT code_id FROM reward_redemption WHERE merchant_id = $1", shop.merchant_id)
    assert fresh["id"] == f"code_{row['code_id'].hex}"
    assert await shop.broken_promises() == []


async def test_what_lives_is_spent_is_nobodys_or_a_bearers_is_not_replaced(shop: Shop) -> None:
    pool, member = await shop.pool(codes=6, transferable=True, claimsPerMember=2), await shop.member()
    live = await shop.claim(pool, member, idempotencyKey="a")
    spent = await shop.claim(pool, member, idempotencyKey="b")
    await shop.redeem([spent["text"]], member)
    (bearer,) = await texts(shop, (await issue(shop, pool, 1))["batch"])
    await revoke(shop, bearer)
    page = await shop.data("{ codes(state: AVAILABLE) { edges { node { id } } } }")
    stock, other = page["codes"]["edges"][:2]
    await revoke(shop, stock["node"])

    for code, state in (
        (live, "ALLOCATED"), (spent, "REDEEMED"), (bearer, "REVOKED"), (stock["node"], "REVOKED"),
        (other["node"], "AVAILABLE"),
    ):  # fmt: skip
        refused = await shop.refused(REISSUE, codeId=code["id"], reason="leaked")
        assert (refused["__typename"], refused["state"]) == ("CodeNotReissuable", state)


@pytest.mark.parametrize("how", ["paused", "archived", "ended"])
async def test_a_pool_that_issues_nothing_replaces_nothing(shop: Shop, how: str) -> None:
    pool = await shop.pool(codes=2, endsAt="2999-01-01T00:00:00Z")
    code = await shop.claim(pool, await shop.member())
    await revoke(shop, code)
    if how == "ended":
        await end_pool(shop, pool)
    else:
        await shop.do(CHANGE_STATUS % {"paused": "pausePool", "archived": "archivePool"}[how], poolId=pool["id"])

    refused = await shop.refused(REISSUE, codeId=code["id"], reason="leaked")

    assert refused["__typename"] == "PoolNotActive"


async def test_an_empty_pool_replaces_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    code = await shop.claim(pool, await shop.member())
    await revoke(shop, code)

    refused = await shop.refused(REISSUE, codeId=code["id"], reason="leaked")

    assert (refused["__typename"], refused["poolsTried"]) == ("PoolExhausted", [pool["id"]])


async def test_bad_reasons_and_unknown_codes_are_refused(shop: Shop, other_shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codes=2), await shop.member())
    theirs = await other_shop.claim(await other_shop.pool(codes=2), await other_shop.member())

    blank = await shop.refused(REISSUE, codeId=code["id"], reason=" ")
    unknown = await shop.refused(REISSUE, codeId=theirs["id"], reason="leaked")

    assert problems(blank) == {"reason": "must not be blank"}
    assert (unknown["__typename"], unknown["id"]) == ("NotFound", theirs["id"])
    for role in ("CHECKOUT", "ANALYST"):
        key = await shop.key(role)
        assert await shop.failed(REISSUE, key=key, codeId=code["id"], reason="leaked") == "FORBIDDEN"


async def test_reissues_at_once_issue_one_and_meet_claims_proofs_and_redemptions(
    shop: Shop, api: Api, second_api: Api
) -> None:
    processes = Processes(shop, api, second_api)
    for turn in range(5):
        pool = await shop.pool(codes=30)
        email = f"jane-{turn}@example.com"
        member, owner = await shop.member(email=email), await shop.member()
        waiting = (await shop.do(CLAIM_CODE, poolId=pool["id"], email=email))["code"]
        code = await shop.claim(pool, owner)
        others = [await shop.member() for _ in range(5)]
        for each in (waiting, code):
            await revoke(shop, each)
        order = {"orderId": f"o-{turn}", "orderAmount": usd(1_000), "memberId": owner["id"]}

        answers = await at_once(
            [
                *(processes.do(REISSUE, codeId=code["id"], reason="leaked") for _ in range(4)),
                *(processes.do(REISSUE, codeId=waiting["id"], reason="leaked") for _ in range(4)),
                processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]),
                *(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=owner["id"]) for _ in range(3)),
                *(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=other["id"]) for other in others),
                processes.do(REDEEM_CODES, codes=[code["text"]], **order),
            ]
        )

        for reissued in (answers[:4], answers[4:8]):
            assert kinds(reissued) == {"ReissueCodeSuccess": 4}
            assert len({answer["code"]["id"] for answer in reissued}) == 1
            assert [answer["replayed"] for answer in reissued].count(False) == 1
    assert await shop.broken_promises() == []
