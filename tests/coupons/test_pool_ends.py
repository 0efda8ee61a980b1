"""A pool's end. Without these a wallet could show a dead code as live, or an extension leave codes dead."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.coupons.expire_codes import BATCH, expire_batch
from app.coupons.revive_codes import revive_batch, revive_codes, revive_needed
from app.coupons.rows import LIST_CODES_IN_STATE, WALKED_MAX
from app.storage.database import database
from tests.coupons.test_expire_codes import states
from tests.coupons.test_reissue_code import REISSUE
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CHECK_CODES, EDIT_POOL, REDEEM_CODES, VERIFY_MEMBER_EMAIL, Shop
from tests.orders.documents import AMEND, amendment
from tests.orders.presented import NEVER_ISSUED, end_pool, expire, order
from tests.points.documents import REVERSE_REWARD, grant, redeem, reward
from tests.races.storm import members

LATER = "2999-01-01T00:00:00Z"
WALLET = (
    "query ($state: CodeState) { wallet { version codes(state: $state) { edges { node { id state expiresAt } } } } }"
)
CODES = """
query ($id: ID!, $state: CodeState) {
  codes(state: $state) { edges { node { id } } } pool(id: $id) { codes(state: $state) { edges { node { id } } } }
}
"""
GIVE_BACK = """mutation ($input: ReverseRedemptionInput!) { answer: reverseRedemption(input: $input) {
    __typename ... on ReverseRedemptionSuccess { code { state } } } }"""
PAGE = """
query ($id: ID!, $after: String) { pool(id: $id) { codes(state: ALLOCATED, first: 2, after: $after) {
  edges { node { id } } pageInfo { hasNextPage endCursor } } } }
"""
REPORT = "{ reportCodes(first: 10) { edges { node { state expiresAt } } } }"


def uuid(pool: Any) -> UUID:
    """Return the id of a pool as it is stored."""
    return ids.decode("pool", pool["id"]) or UUID(int=0)


async def claimed(shop: Shop, **terms: Any) -> tuple[Any, Any, str, Any]:
    """Return a pool that ends one day, a member, its token and its code."""
    pool, member = await shop.pool(codes=3, **{"endsAt": LATER} | terms), await shop.member()
    return pool, member, await shop.token(member["id"]), await shop.claim(pool, member)


async def shown(shop: Shop, token: str, state: str | None = None) -> list[str]:
    """Return the states of a member's codes as its wallet shows them."""
    wallet = (await shop.data(WALLET, {"state": state}, key=token))["wallet"]
    return [edge["node"]["state"] for edge in wallet["codes"]["edges"]]


async def over(shop: Shop, pool: Any, how: str) -> None:
    """Let a pool end, or archive it."""
    if how == "ended":
        await end_pool(shop, pool)
    else:
        await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])


async def revived(shop: Shop, pool: Any) -> int:
    """Work at a pool's revival until it is done; returns how many codes live again."""
    codes = 0
    while (batch := await revive_batch(shop.merchant_id, uuid(pool))) is not None:
        codes += batch
    return codes


@pytest.mark.parametrize("how", ["ended", "archived"])
async def test_a_code_of_a_pool_that_is_over_is_dead_at_once_wherever_it_is_read(shop: Shop, how: str) -> None:
    pool, member, token, code = await claimed(shop, codeLifetimeDays=30)
    await over(shop, pool, how)
    before = await shop.state()

    lists = {state: await shop.data(CODES, {"id": pool["id"], "state": state}) for state in ("ALLOCATED", "EXPIRED")}

    assert await shown(shop, token) == await shown(shop, token, "EXPIRED") == ["EXPIRED"]
    assert await shown(shop, token, "ALLOCATED") == []
    for state, expected in (("ALLOCATED", []), ("EXPIRED", [{"node": {"id": code["id"]}}])):
        assert lists[state]["codes"]["edges"] == lists[state]["pool"]["codes"]["edges"] == expected
    assert (await shop.claim(pool, member))["state"] == "EXPIRED"
    refused = await shop.redeem([code["text"]], member)
    assert refused["rejections"][0]["reason"] == "EXPIRED"
    report = (await shop.data(REPORT))["reportCodes"]["edges"]
    assert sorted(edge["node"]["state"] for edge in report) == ["AVAILABLE", "AVAILABLE", "EXPIRED"]
    # The stock follows the job.
    assert (await shop.stock(pool))["allocated"] == 1
    assert await shop.state() == before


@pytest.mark.parametrize("how", ["ended", "archived"])
async def test_the_job_expires_what_a_pool_that_is_over_leaves_and_replaces_nothing(shop: Shop, how: str) -> None:
    pool, member, _token, _ = await claimed(shop, recycleExpired=True)
    spender = await shop.member()
    await shop.redeem([(await shop.claim(pool, spender))["text"]], spender)
    await over(shop, pool, how)

    assert await expire_batch(shop.merchant_id) == 1

    assert await states(shop) == {"AVAILABLE": 1, "EXPIRED": 1, "REDEEMED": 1}
    assert await shop.wallet_versions(member) == [1, 2]
    assert (await shop.event_types())[-1] == "code.expired"
    assert await expire_batch(shop.merchant_id) == 0
    assert await shop.broken_promises() == []


async def test_the_end_that_is_shown_is_the_earlier_one(shop: Shop) -> None:
    _, _, token, code = await claimed(shop, codeLifetimeDays=30)
    _, _member, other, _ = await claimed(shop)

    own = (await shop.data(WALLET, key=token))["wallet"]["codes"]["edges"][0]["node"]["expiresAt"]
    pools = (await shop.data(WALLET, key=other))["wallet"]["codes"]["edges"][0]["node"]["expiresAt"]

    assert own == code["expiresAt"] < LATER
    assert pools == LATER


async def test_a_code_past_its_own_end_is_listed_as_expired_before_the_job(shop: Shop) -> None:
    pool, member, token, code = await claimed(shop, codeLifetimeDays=30, claimsPerMember=2)
    live = await shop.claim(pool, member, idempotencyKey="b")
    await expire(shop, code)

    found = {
        state: [
            edge["node"]["id"]
            for edge in (await shop.data(CODES, {"id": pool["id"], "state": state}))["codes"]["edges"]
        ]
        for state in ("ALLOCATED", "EXPIRED")
    }

    assert found == {"ALLOCATED": [live["id"]], "EXPIRED": [code["id"]]}
    assert await shown(shop, token, "EXPIRED") == ["EXPIRED"]
    assert await shown(shop, token) == ["ALLOCATED", "EXPIRED"]


async def test_a_sale_that_is_extended_after_its_end_gives_every_code_back(shop: Shop) -> None:
    """Some codes were expired by the job by then, and some were not."""
    pool, member, token, code = await claimed(shop)
    await end_pool(shop, pool)
    await expire_batch(shop.merchant_id)
    late = await shop.member()
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
    late_code = await shop.claim(pool, late)

    assert await shown(shop, token) == ["ALLOCATED"]
    assert await shop.wallet_versions(member) == [1, 2]
    assert await revived(shop, pool) == 1

    assert await shown(shop, token) == ["ALLOCATED"]
    assert await shop.wallet_versions(member) == [1, 2, 3]
    assert (await shop.stock(pool)) == {
        "total": 3, "available": 1, "allocated": 2, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    for text, owner in ((code["text"], member), (late_code["text"], late)):
        assert (await shop.redeem([text], owner))["__typename"] == "RedeemCodesSuccess"
    assert await shop.count("code_revival") == 0
    assert await shop.broken_promises() == []


async def test_a_code_that_no_job_has_expired_lives_again_with_the_edit(shop: Shop) -> None:
    pool, member, token, code = await claimed(shop)
    await end_pool(shop, pool)
    assert await shown(shop, token) == ["EXPIRED"]

    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=None)

    assert await shown(shop, token) == ["ALLOCATED"]
    assert await shop.wallet_versions(member) == [1]
    assert await revived(shop, pool) == 0
    assert (await shop.redeem([code["text"]], member))["__typename"] == "RedeemCodesSuccess"


async def extended(shop: Shop, **terms: Any) -> tuple[Any, Any, str, Any]:
    """Return what `claimed` does, of a pool whose codes the job had expired before it got a later end."""
    pool, member, token, code = await claimed(shop, **terms)
    await end_pool(shop, pool)
    assert await expire_batch(shop.merchant_id) == 1
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
    return pool, member, token, code


def listed(pages: Any) -> list[str]:
    return [edge["node"]["id"] for edge in pages["edges"]]


@pytest.mark.parametrize("lifetime", [None, 30])
async def test_a_code_that_the_job_had_expired_is_live_at_once_wherever_it_is_read(
    shop: Shop, lifetime: int | None
) -> None:
    pool, member, token, code = await extended(shop, codeLifetimeDays=lifetime)
    before = await shop.state()

    lists = {state: await shop.data(CODES, {"id": pool["id"], "state": state}) for state in ("ALLOCATED", "EXPIRED")}

    assert await shown(shop, token) == await shown(shop, token, "ALLOCATED") == ["ALLOCATED"]
    assert await shown(shop, token, "EXPIRED") == []
    for state, expected in (("ALLOCATED", [code["id"]]), ("EXPIRED", [])):
        assert listed(lists[state]["codes"]) == listed(lists[state]["pool"]["codes"]) == expected
    assert (await shop.claim(pool, member))["state"] == "ALLOCATED"
    checked = await shop.do(CHECK_CODES, **order([code["text"]], member))
    assert checked["__typename"] == "RedeemCodesSuccess"
    report = (await shop.data(REPORT))["reportCodes"]["edges"]
    assert sorted(edge["node"]["state"] for edge in report) == ["ALLOCATED", "AVAILABLE", "AVAILABLE"]
    # The stock follows the job.
    assert (await shop.stock(pool))["expired"] == 1
    assert await shop.state() == before


async def test_a_code_that_lives_again_is_redeemed_before_the_job(shop: Shop) -> None:
    pool, member, token, code = await extended(shop)
    before = await shop.state()

    redeemed = await shop.redeem([code["text"]], member, order="A-1")

    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert (await shop.state()).since(before) == {
        "code": 0, "sales_order": 1, "redemption": 1, "stock_change": 2, "wallet": 0, "event": 2
    }  # fmt: skip
    assert (await shop.event_types())[-2:] == ["code.revived", "code.redeemed"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert (await shop.stock(pool))["redeemed"] == 1
    assert (await shop.redeem([code["text"]], member, order="A-1"))["replayed"] is True
    assert await revived(shop, pool) == 0
    assert await shown(shop, token) == ["REDEEMED"]
    assert await shop.broken_promises() == []


async def test_a_refused_order_revives_nothing(shop: Shop) -> None:
    _, member, _, code = await extended(shop)

    refused = await shop.refused(REDEEM_CODES, **order([code["text"], NEVER_ISSUED], member))

    assert [each["reason"] for each in refused["rejections"]] == ["NOT_STACKABLE", "UNKNOWN"]


async def test_an_order_takes_a_code_that_lives_again_and_gives_it_back(shop: Shop) -> None:
    pool, member, token, code = await extended(shop)
    other = await shop.claim(await shop.pool(), member)
    await shop.redeem([other["text"]], member, order="A-1")

    answer = await shop.do(AMEND, **amendment([code], memberId=member["id"]))

    assert answer["__typename"] == "AmendOrderSuccess"
    assert await shown(shop, token, "REDEEMED") == ["REDEEMED"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5, 6, 7]
    assert await revived(shop, pool) == 0
    assert await shop.broken_promises() == []


async def test_a_code_that_lives_again_is_revoked_before_the_job(shop: Shop) -> None:
    pool, member, token, code = await extended(shop)

    answer = await shop.do(REVOKE, codeId=code["id"], reason="leaked", recycle=False)

    assert answer["__typename"] == "RevokeCodeSuccess"
    assert await shown(shop, token) == ["REVOKED"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert await revived(shop, pool) == 0
    assert (await shop.stock(pool))["revoked"] == 1
    assert await shop.broken_promises() == []


async def test_a_reward_whose_code_lives_again_is_taken_back(shop: Shop) -> None:
    pool, member = await shop.pool(codes=2, endsAt=LATER), await shop.member()
    await grant(shop, member, 100, "k")
    had = await redeem(shop, await reward(shop, cost=100, poolId=pool["id"]), member, "k")
    await end_pool(shop, pool)
    assert await expire_batch(shop.merchant_id) == 1
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    answer = await shop.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken")

    assert answer["replayed"] is False
    assert await states(shop) == {"AVAILABLE": 1, "REVOKED": 1}
    assert await shop.broken_promises() == []


async def test_a_code_that_lives_again_is_not_replaced_and_one_that_was_stays_dead(shop: Shop) -> None:
    pool, _member, token, code = await extended(shop, codeLifetimeDays=30)
    refused = await shop.refused(REISSUE, codeId=code["id"], reason="lost")
    await expire(shop, code)
    assert await revived(shop, pool) == 0

    answer = await shop.do(REISSUE, codeId=code["id"], reason="lost")

    assert (refused["__typename"], refused["state"]) == ("CodeNotReissuable", "ALLOCATED")
    assert answer["code"]["state"] == "ALLOCATED"
    assert await shown(shop, token) == ["ALLOCATED", "EXPIRED"]


async def test_an_address_takes_a_code_that_lives_again_before_the_job(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1, endsAt=LATER), await shop.member(email="soon@example.com")
    await shop.claim(pool, {"id": None}, email="soon@example.com")
    await end_pool(shop, pool)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])

    assert (await shop.event_types())[-2:] == ["code.revived", "code.adopted"]
    assert await shown(shop, await shop.token(member["id"])) == ["ALLOCATED"]
    assert await revived(shop, pool) == 0
    assert await shop.broken_promises() == []


async def test_pages_of_a_state_meet_each_code_once_however_far_the_job_is(shop: Shop) -> None:
    pool = await shop.pool(codes=9, endsAt=LATER, codeLifetimeDays=30)
    codes = [await shop.claim(pool, await shop.member()) for _ in range(6)]
    await expire(shop, codes[1])
    await end_pool(shop, pool)
    assert await expire_batch(shop.merchant_id) == 6
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
    codes.append(await shop.claim(pool, await shop.member()))
    await revive_needed(database(), shop.merchant_id, [ids.decode("code", codes[3]["id"]) or UUID(int=0)])
    live = sorted((code["id"] for code in codes if code is not codes[1]), reverse=True)

    met: list[str] = []
    after = None
    while True:
        page = (await shop.data(PAGE, {"id": pool["id"], "after": after}))["pool"]["codes"]
        met += listed(page)
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    newest = sorted(live, key=lambda each: ids.decode("code", each) or UUID(int=0), reverse=True)
    assert met == newest
    dead = (await shop.data(CODES, {"id": pool["id"], "state": "EXPIRED"}))["pool"]["codes"]
    assert listed(dead) == [codes[1]["id"]]


async def test_a_list_by_state_asks_the_pools_that_have_such_codes_when_the_newest_are_too_few(shop: Shop) -> None:
    of_pools = LIST_CODES_IN_STATE.text.replace(f"LIMIT {WALKED_MAX}", "LIMIT 0")
    await extended(shop)
    ended, *_ = await claimed(shop)
    await over(shop, ended, "ended")
    await expire(shop, (await claimed(shop))[3])
    _, member, _, spent = await claimed(shop)
    await shop.do(REDEEM_CODES, **order([spent["text"]], member))
    await shop.do(REVOKE, codeId=(await claimed(shop))[3]["id"], reason="x")
    counts = {}

    for state in ("AVAILABLE", "ALLOCATED", "REDEEMED", "EXPIRED", "REVOKED"):
        asked = {"merchant_id": shop.merchant_id, "before": UUID(int=2**128 - 1), "limit": 101, "state": state}
        rows = await database().rows(LIST_CODES_IN_STATE, **asked)
        assert [row["code_id"] for row in await database().rows(of_pools, *LIST_CODES_IN_STATE.arguments(asked))] == [
            row["code_id"] for row in rows
        ]
        counts[state] = len(rows)

    assert counts == {"AVAILABLE": 11, "ALLOCATED": 1, "REDEEMED": 1, "EXPIRED": 2, "REVOKED": 1}


async def test_what_died_of_its_own_end_stays_dead_and_its_place_is_taken_once(shop: Shop) -> None:
    pool, _member, token, code = await claimed(shop, codeLifetimeDays=30, recycleExpired=True)
    other = await shop.member()
    await shop.claim(pool, other)
    await expire(shop, code)
    await expire_batch(shop.merchant_id)
    await end_pool(shop, pool)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    assert await revived(shop, pool) == 1

    assert await shown(shop, token) == ["EXPIRED"]
    assert await states(shop) == {"AVAILABLE": 2, "ALLOCATED": 1, "EXPIRED": 1}


async def test_a_code_that_waits_for_an_address_lives_again_and_is_adopted(shop: Shop) -> None:
    pool = await shop.pool(codes=1, endsAt=LATER)
    member = await shop.member(email="later@example.com")
    await shop.claim(pool, {"id": None}, email="later@example.com")
    await end_pool(shop, pool)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    assert await revived(shop, pool) == 1
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])

    assert await shown(shop, await shop.token(member["id"])) == ["ALLOCATED"]
    assert await shop.broken_promises() == []


async def test_a_pool_that_was_archived_meanwhile_revives_nothing(shop: Shop) -> None:
    pool, _, token, _ = await claimed(shop)
    await end_pool(shop, pool)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    assert await revived(shop, pool) == 0

    assert await shown(shop, token) == ["EXPIRED"]
    assert await shop.count("code_revival") == 0


async def test_a_paused_pool_revives_its_codes_too(shop: Shop) -> None:
    pool, _, token, _ = await claimed(shop)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    await end_pool(shop, pool)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    await revive_codes()

    assert await shown(shop, token) == ["ALLOCATED"]


async def test_a_revival_goes_on_where_it_stopped_and_two_at_once_revive_once(shop: Shop) -> None:
    count = BATCH + 20
    pool = await shop.pool(codes=count, endsAt=LATER)
    many = await members(shop, count)
    recipients = [{"memberId": each} for each in many]
    document = "mutation ($input: CreateCampaignInput!) { answer: createCampaign(input: $input) { __typename } }"
    await shop.do(document, name="Sale", poolId=pool["id"], recipients=recipients)
    await end_pool(shop, pool)
    while await expire_batch(shop.merchant_id):
        pass
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    assert sum(await asyncio.gather(*(revived(shop, pool) for _ in range(2)))) == count

    assert (await shop.stock(pool))["allocated"] == count
    rows = await database().rows("SELECT version FROM wallet WHERE merchant_id = $1", shop.merchant_id)
    assert {row["version"] for row in rows} == {3}
    assert await shop.broken_promises() == []


async def test_after_the_end_nothing_is_recycled(shop: Shop) -> None:
    pool, _, _, _ = await claimed(shop)
    await end_pool(shop, pool)
    (code, *_) = (await shop.data(CODES, {"id": pool["id"], "state": "AVAILABLE"}))["codes"]["edges"]

    answer = await shop.do(REVOKE, codeId=code["node"]["id"], reason="leaked")

    assert answer["replacement"] is None
    assert (await shop.stock(pool))["available"] == 1


async def test_a_dead_code_that_is_given_back_stays_dead_until_its_pool_has_a_later_end(shop: Shop) -> None:
    pool, member, token, code = await claimed(shop, recycleExpired=True)
    redeemed = await shop.redeem([code["text"]], member)
    await end_pool(shop, pool)

    answer = await shop.do(GIVE_BACK, redemptionId=redeemed["redemptions"][0]["id"], reason="returned")

    assert answer["code"]["state"] == "EXPIRED"
    assert await shown(shop, token) == ["EXPIRED"]
    assert await expire_batch(shop.merchant_id) == 0
    # Its place isn't given away: it may live again.
    assert (await shop.stock(pool))["total"] == 3
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
    assert await shown(shop, token, "ALLOCATED") == ["ALLOCATED"]
    assert await revived(shop, pool) == 1
    assert await shop.broken_promises() == []


async def test_a_code_that_was_given_back_after_the_end_lives_again_once(shop: Shop) -> None:
    pool, member, token, code = await claimed(shop, recycleExpired=True)
    redeemed = await shop.redeem([code["text"]], member)
    await end_pool(shop, pool)
    await shop.do(GIVE_BACK, redemptionId=redeemed["redemptions"][0]["id"], reason="returned")
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    await revive_codes()

    # Nothing has taken its place meanwhile.
    assert await shown(shop, token) == ["ALLOCATED"]
    assert (await shop.stock(pool))["total"] == 3
