"""Codes that come back with a new end. Without these support could promise a date that the till doesn't know."""

import asyncio
from typing import Any

import pytest

from app.coupons.expire_codes import expire_batch
from tests.coupons.test_expire_codes import states
from tests.coupons.test_pool_ends import CODES, LATER, REPORT, claimed, listed, over, revived, shown
from tests.coupons.test_reissue_code import REISSUE
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CHECK_CODES, EDIT_POOL, Shop
from tests.orders.documents import order_of, stacked
from tests.orders.presented import end_pool, expire, order
from tests.orders.test_reverse_redemption import REVERSE

NEW_END = "2998-06-01T00:00:00Z"
LATER_END = "2998-07-01T00:00:00Z"


async def given_back(shop: Shop, **terms: Any) -> tuple[Any, Any, str, Any]:
    """Return a pool that has ended, a member, its token and its code, which came back with a new end."""
    pool, member, token, code = await claimed(shop, **terms)
    redeemed = await shop.redeem([code["text"]], member, order="A-1")
    await end_pool(shop, pool)
    answer = await shop.do(
        REVERSE, redemptionId=redeemed["redemptions"][0]["id"], reason="it was broken", expiresAt=NEW_END
    )
    assert (answer["code"]["state"], answer["code"]["expiresAt"]) == ("ALLOCATED", NEW_END)
    assert answer["code"]["owner"]["wallet"]["version"] == 3
    return pool, member, token, code


async def again(shop: Shop, code: Any, member: Any, **how: Any) -> Any:
    """Redeem a code once more; returns the redemption."""
    return (await shop.redeem([code["text"]], member, **how))["redemptions"][0]


@pytest.mark.parametrize("lifetime", [None, 30])
async def test_a_code_that_outlives_its_pool_is_live_wherever_it_is_read(shop: Shop, lifetime: int | None) -> None:
    pool, member, token, code = await given_back(shop, codeLifetimeDays=lifetime, claimsPerMember=2)
    other = await shop.claim(await shop.pool(codes=1), member)
    before = await shop.state()

    lists = {
        state: await shop.data(CODES, {"id": pool["id"], "state": state}) for state in (None, "ALLOCATED", "EXPIRED")
    }

    assert await shown(shop, token) == await shown(shop, token, "ALLOCATED") == ["ALLOCATED", "ALLOCATED"]
    assert await shown(shop, token, "EXPIRED") == []
    assert listed(lists["ALLOCATED"]["pool"]["codes"]) == [code["id"]]
    assert set(listed(lists["ALLOCATED"]["codes"])) == {code["id"], other["id"]}
    assert code["id"] in listed(lists[None]["pool"]["codes"])
    assert listed(lists["EXPIRED"]["codes"]) == listed(lists["EXPIRED"]["pool"]["codes"]) == []
    replayed = await shop.claim(pool, member)
    assert (replayed["state"], replayed["expiresAt"]) == ("ALLOCATED", NEW_END)
    assert (await shop.do(CHECK_CODES, **order([code["text"]], member)))["__typename"] == "RedeemCodesSuccess"
    report = [edge["node"] for edge in (await shop.data(REPORT))["reportCodes"]["edges"]]
    assert {"state": "ALLOCATED", "expiresAt": NEW_END} in report
    assert await expire_batch(shop.merchant_id) == 0
    assert await shop.state() == before
    assert await shop.broken_promises() == []


async def test_beside_it_the_codes_of_its_pool_are_dead(shop: Shop) -> None:
    pool, member, _, code = await claimed(shop)
    others = [await shop.member(), await shop.member()]
    dead, spent = [await shop.claim(pool, other) for other in others]
    await shop.redeem([spent["text"]], others[1])
    redemption = await again(shop, code, member)
    await end_pool(shop, pool)
    await shop.do(REVERSE, redemptionId=redemption["id"], reason="broken", expiresAt=NEW_END)

    for _ in range(2):
        alive = await shop.data(CODES, {"id": pool["id"], "state": "ALLOCATED"})
        gone = await shop.data(CODES, {"id": pool["id"], "state": "EXPIRED"})
        assert listed(alive["pool"]["codes"]) == listed(alive["codes"]) == [code["id"]]
        assert listed(gone["pool"]["codes"]) == listed(gone["codes"]) == [dead["id"]]
        await expire_batch(shop.merchant_id)

    assert await states(shop) == {"ALLOCATED": 1, "EXPIRED": 1, "REDEEMED": 1}
    assert await expire_batch(shop.merchant_id) == 0


async def test_it_is_redeemed_and_comes_back_with_the_end_it_was_given(shop: Shop) -> None:
    pool, member, token, code = await given_back(shop)

    second = await again(shop, code, member, order="A-2")
    back = await shop.do(REVERSE, redemptionId=second["id"], reason="broken again")

    assert (back["code"]["state"], back["code"]["expiresAt"]) == ("ALLOCATED", NEW_END)
    third = await again(shop, code, member, order="A-3")
    back = await shop.do(REVERSE, redemptionId=third["id"], reason="and again", expiresAt=LATER_END)
    assert (back["code"]["state"], back["code"]["expiresAt"]) == ("ALLOCATED", LATER_END)
    assert await shown(shop, token) == ["ALLOCATED"]
    assert (await shop.stock(pool))["allocated"] == 1
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5, 6, 7]
    assert await shop.broken_promises() == []


async def test_its_own_end_ends_it_and_its_place_stays_free_after_its_pools(shop: Shop) -> None:
    pool, member, token, code = await given_back(shop, recycleExpired=True)
    await expire(shop, code)

    assert await shown(shop, token) == await shown(shop, token, "EXPIRED") == ["EXPIRED"]
    assert (await shop.redeem([code["text"]], member))["rejections"][0]["reason"] == "EXPIRED"
    assert await expire_batch(shop.merchant_id) == 1

    assert (await shop.stock(pool))["total"] == 3
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
    assert await revived(shop, pool) == 0
    assert await shown(shop, token) == ["EXPIRED"]
    assert await shop.broken_promises() == []


async def test_a_redemption_that_comes_back_after_the_new_end_is_expired(shop: Shop) -> None:
    _, member, token, code = await given_back(shop)
    second = await again(shop, code, member)
    await expire(shop, code)

    back = await shop.do(REVERSE, redemptionId=second["id"], reason="too late")

    assert back["code"]["state"] == "EXPIRED"
    assert await shown(shop, token) == ["EXPIRED"]
    assert await shop.broken_promises() == []


async def test_a_later_end_of_its_pool_leaves_it_as_it_is(shop: Shop) -> None:
    pool, member, token, code = await given_back(shop)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)

    assert await revived(shop, pool) == 0

    wallet = await shop.claim(pool, member)
    assert (wallet["state"], wallet["expiresAt"]) == ("ALLOCATED", NEW_END)
    assert await shown(shop, token, "ALLOCATED") == ["ALLOCATED"]
    await again(shop, code, member)
    assert await shop.broken_promises() == []


async def test_archiving_ends_it(shop: Shop) -> None:
    pool, member, token, code = await given_back(shop)

    await over(shop, pool, "archived")

    assert await shown(shop, token) == await shown(shop, token, "EXPIRED") == ["EXPIRED"]
    for state, expected in (("ALLOCATED", []), ("EXPIRED", [code["id"]])):
        assert listed((await shop.data(CODES, {"id": pool["id"], "state": state}))["pool"]["codes"]) == expected
    assert (await shop.redeem([code["text"]], member))["rejections"][0]["reason"] == "EXPIRED"
    assert await expire_batch(shop.merchant_id) == 1
    assert await shown(shop, token) == ["EXPIRED"]
    assert await shop.broken_promises() == []


async def test_in_an_archived_pool_no_end_brings_a_code_back(shop: Shop) -> None:
    pool, member, token, code = await claimed(shop)
    redemption = await again(shop, code, member)
    await over(shop, pool, "archived")

    answer = await shop.do(REVERSE, redemptionId=redemption["id"], reason="broken", expiresAt=NEW_END)

    assert answer["code"]["state"] == "EXPIRED"
    assert await shown(shop, token) == ["EXPIRED"]
    assert await expire_batch(shop.merchant_id) == 0
    assert await shop.broken_promises() == []


async def test_a_paused_pool_holds_it_until_only_issuing_is_paused(shop: Shop) -> None:
    pool, member, token, code = await given_back(shop)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    assert await shown(shop, token) == ["ALLOCATED"]
    assert (await shop.redeem([code["text"]], member))["rejections"][0]["reason"] == "POOL_NOT_ACTIVE"
    assert (await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]))["__typename"] == "PoolEnded"
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"], scope="ISSUING")

    await again(shop, code, member)


async def test_a_new_end_replaces_one_that_has_not_passed(shop: Shop) -> None:
    pool, member, token, code = await claimed(shop, codeLifetimeDays=30)
    redemption = await again(shop, code, member)

    answer = await shop.do(REVERSE, redemptionId=redemption["id"], reason="broken", expiresAt=NEW_END)
    await end_pool(shop, pool)

    assert answer["code"]["expiresAt"] == NEW_END
    assert await shown(shop, token) == ["ALLOCATED"]


async def test_a_code_of_a_stack_has_a_new_end_and_the_rest_is_priced_anew(shop: Shop) -> None:
    member = await shop.member()
    codes, redemptions = await stacked(shop, member, 50.0, 20.0)

    answer = await shop.do(REVERSE, redemptionId=redemptions[0]["id"], reason="broken", expiresAt=NEW_END)

    assert (answer["code"]["id"], answer["code"]["expiresAt"]) == (codes[0]["id"], NEW_END)
    assert [each["discount"]["amountMinor"] for each in (await order_of(shop, "A-1"))["redemptions"]] == [2_000]
    assert (await shop.do(CHECK_CODES, **order([codes[0]["text"]], member)))["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_it_is_revoked_and_its_ended_pool_replaces_nothing(shop: Shop) -> None:
    pool, _, token, code = await given_back(shop)

    revoked = await shop.do(REVOKE, codeId=code["id"], reason="leaked")

    assert revoked["replacement"] is None
    assert await shown(shop, token) == ["REVOKED"]
    assert (await shop.do(REISSUE, codeId=code["id"], reason="lost"))["__typename"] == "PoolNotActive"
    assert (await shop.stock(pool))["revoked"] == 1


async def test_a_repeat_is_told_of_the_first_reversal_however_late_it_comes(shop: Shop) -> None:
    _, member, token, code = await claimed(shop)
    redemption = await again(shop, code, member)
    await shop.do(REVERSE, redemptionId=redemption["id"], reason="broken", expiresAt=NEW_END)

    for end in (NEW_END, LATER_END, "2020-01-01T00:00:00Z", None):
        answer = await shop.refused(REVERSE, redemptionId=redemption["id"], reason="broken", expiresAt=end)
        assert answer["__typename"] == "AlreadyReversed"

    assert await shown(shop, token) == ["ALLOCATED"]


async def test_of_reversals_at_once_one_gives_the_end(shop: Shop) -> None:
    _, member, token, code = await claimed(shop)
    redemption = await again(shop, code, member)

    answers = await asyncio.gather(
        *(
            shop.do(REVERSE, redemptionId=redemption["id"], reason="broken", expiresAt=end)
            for end in (NEW_END, LATER_END, None) * 4
        )
    )

    (won,) = [answer for answer in answers if answer["__typename"] == "ReverseRedemptionSuccess"]
    found = await shop.claim(code["pool"], member)
    assert (found["state"], found["expiresAt"]) == ("ALLOCATED", won["code"]["expiresAt"])
    assert await shown(shop, token) == ["ALLOCATED"]


@pytest.mark.parametrize(
    ("input", "problem"),
    [
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "must be in the future"),
        ({"expiresAt": NEW_END, "reinstate": False}, "is for a code that is reinstated"),
    ],
)
async def test_a_new_end_that_could_help_nobody_is_refused(shop: Shop, input: dict[str, Any], problem: str) -> None:
    _, member, _, code = await claimed(shop)
    redemption = await again(shop, code, member)

    answer = await shop.refused(REVERSE, redemptionId=redemption["id"], reason="broken", **input)

    assert answer["problems"] == [{"path": ["expiresAt"], "message": problem}]
