"""Fallback pools. Without these an empty pool could send its claimants in a circle, or give them a second code."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.coupons.ownership import breaches
from tests.factories import (
    CHANGE_STATUS,
    CLAIM_CODE,
    CREATE_POOL,
    EDIT_POOL,
    GENERATE_CODES,
    Shop,
    problems,
)
from tests.orders.presented import end_pool
from tests.races.storm import Processes, at_once, kinds

FALLBACK = "query ($id: ID!) { pool(id: $id) { fallbackPool { id fallbackPool { id } } } }"
NOWHERE = "pool_0123456789abcdef0123456789abcdef"
CHAIN_LENGTH_MAX = 10


async def chain(shop: Shop, *codes: int, active: bool = True, **terms: Any) -> list[Any]:
    """Make a pool for each number of codes, each falling back to the next one, and return them nearest first."""
    pools: list[Any] = []
    for number in reversed(codes):
        fallback = {"fallbackPoolId": pools[0]["id"]} if pools else {}
        pools.insert(0, await shop.pool(codes=number, active=active, **fallback, **terms))
    return pools


async def drained(shop: Shop, pool: Any) -> None:
    """Let others claim the one code of a pool."""
    await shop.claim(pool, await shop.member())


async def fallback_of(shop: Shop, pool: Any) -> str | None:
    """Return the id of the pool that a pool falls back to."""
    fallback = (await shop.data(FALLBACK, {"id": pool["id"]}))["pool"]["fallbackPool"]
    return None if fallback is None else fallback["id"]


async def test_a_chain_of_three_serves_in_order_and_then_is_exhausted(shop: Shop) -> None:
    pools = await chain(shop, 1, 1, 1)

    answers = [await shop.do(CLAIM_CODE, poolId=pools[0]["id"], memberId=(await shop.member())["id"]) for _ in pools]
    late = await shop.member()
    refused = await shop.refused(CLAIM_CODE, poolId=pools[0]["id"], memberId=late["id"])

    for answer, pool in zip(answers, pools, strict=True):
        assert answer["servedBy"] == answer["code"]["pool"] == {"id": pool["id"]}
        assert answer["replayed"] is False
    assert refused == {
        "__typename": "PoolExhausted",
        "message": "Neither the pool nor its fallbacks have a code left.",
        "poolsTried": [pool["id"] for pool in pools],
    }
    assert await breaches(shop) == {}


async def test_a_code_of_a_fallback_carries_the_fallbacks_terms(shop: Shop) -> None:
    last = await shop.pool(codes=1, kind="GIFT", giftSku="MUG-1", codeLifetimeDays=3)
    first = await shop.pool(codes=1, fallbackPoolId=last["id"])
    await drained(shop, first)
    member = await shop.member()

    code = await shop.claim(first, member)

    assert code["text"].startswith("GFT-")
    assert code["expiresAt"] is not None
    assert code["owner"] == {"id": member["id"], "wallet": {"version": 1}}


@pytest.mark.parametrize("claimant", ["memberId", "email"])
async def test_who_was_served_by_a_fallback_keeps_that_code(shop: Shop, claimant: str) -> None:
    first, last = await chain(shop, 1, 5)
    await drained(shop, first)
    who = {claimant: (await shop.member())["id"] if claimant == "memberId" else "stranger@example.com"}
    served = await shop.do(CLAIM_CODE, poolId=first["id"], **who)
    assert (served["servedBy"]["id"], served["replayed"]) == (last["id"], False)
    before = await shop.state()

    again = await shop.do(CLAIM_CODE, poolId=first["id"], **who)
    direct = await shop.do(CLAIM_CODE, poolId=last["id"], **who)
    with_a_key = await shop.do(CLAIM_CODE, poolId=first["id"], idempotencyKey="key", **who)

    assert again == direct == with_a_key == served | {"replayed": True}
    assert await shop.state() == before
    await shop.do(CHANGE_STATUS % "pausePool", poolId=first["id"])
    await shop.do(GENERATE_CODES, poolId=first["id"], count=5)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=first["id"])
    assert await shop.do(CLAIM_CODE, poolId=first["id"], **who) == served | {"replayed": True}
    assert (await shop.stock(first))["available"] == 5
    assert await breaches(shop) == {}


async def test_who_has_a_code_of_the_fallback_gets_it_again_from_the_empty_pool(shop: Shop) -> None:
    first, last = await chain(shop, 1, 5)
    member = await shop.member()
    direct = await shop.do(CLAIM_CODE, poolId=last["id"], memberId=member["id"])
    await drained(shop, first)
    before = await shop.state()

    answer = await shop.do(CLAIM_CODE, poolId=first["id"], memberId=member["id"])

    assert answer == direct | {"replayed": True}
    assert await shop.state() == before


async def test_the_limits_of_the_pool_and_of_its_fallback_both_hold(shop: Shop) -> None:
    last = await shop.pool(codes=10, claimsPerMember=2)
    first = await shop.pool(codes=1, claimsPerMember=3, fallbackPoolId=last["id"])
    member = await shop.member()

    async def claim(pool: Any, key: str) -> tuple[str, bool, str]:
        answer = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=key)
        return answer["servedBy"]["id"], answer["replayed"], answer["code"]["id"]

    own = await claim(first, "a")
    served = await claim(first, "b")
    direct = await claim(last, "c")

    assert (own[:2], served[:2], direct[:2]) == ((first["id"], False), (last["id"], False), (last["id"], False))
    assert len({own[2], served[2], direct[2]}) == 3
    # Below the limit of the first, at that of the last.
    assert await claim(first, "d") == (last["id"], True, direct[2])
    assert await claim(last, "e") == (last["id"], True, direct[2])
    assert await shop.wallet_versions(member) == [1, 2, 3]
    assert (await shop.stock(last))["allocated"] == 2
    assert await breaches(shop) == {}


async def test_a_claim_served_by_a_fallback_counts_against_the_pool_that_was_asked(shop: Shop) -> None:
    last = await shop.pool(codes=10, claimsPerMember=5)
    first = await shop.pool(codes=1, claimsPerMember=2, fallbackPoolId=last["id"])
    await drained(shop, first)
    member = await shop.member()

    answers = [
        await shop.do(CLAIM_CODE, poolId=first["id"], memberId=member["id"], idempotencyKey=key) for key in "abc"
    ]

    assert [answer["replayed"] for answer in answers] == [False, False, True]
    assert answers[2]["code"] == answers[1]["code"]
    assert (await shop.stock(last))["allocated"] == 2


async def test_a_key_is_one_claim_wherever_it_was_served(shop: Shop) -> None:
    first, last = await chain(shop, 1, 5, claimsPerMember=3)
    member = await shop.member()
    claim = {"memberId": member["id"], "idempotencyKey": "key"}
    await shop.claim(first, member)
    served = await shop.do(CLAIM_CODE, poolId=first["id"], **claim)

    again = await shop.do(CLAIM_CODE, poolId=first["id"], **claim)
    elsewhere = await shop.refused(CLAIM_CODE, poolId=last["id"], **claim)
    stranger = await shop.refused(CLAIM_CODE, poolId=first["id"], email="stranger@example.com", idempotencyKey="key")

    assert served["servedBy"] == {"id": last["id"]}
    assert again == served | {"replayed": True}
    assert elsewhere["__typename"] == stranger["__typename"] == "IdempotencyKeyReused"


@pytest.mark.parametrize("closed", ["paused", "archived", "draft", "ended"])
async def test_a_closed_pool_in_the_chain_is_skipped(shop: Shop, closed: str) -> None:
    last = await shop.pool(codes=1)
    ends = {"endsAt": "2999-01-01T00:00:00Z"} if closed == "ended" else {}
    middle = await shop.pool(codes=1, fallbackPoolId=last["id"], active=closed != "draft", **ends)
    first = await shop.pool(codes=1, fallbackPoolId=middle["id"])
    if closed == "ended":
        await end_pool(shop, middle)
    elif closed != "draft":
        await shop.do(CHANGE_STATUS % {"paused": "pausePool", "archived": "archivePool"}[closed], poolId=middle["id"])
    await drained(shop, first)

    answer = await shop.do(CLAIM_CODE, poolId=first["id"], memberId=(await shop.member())["id"])
    refused = await shop.refused(CLAIM_CODE, poolId=first["id"], memberId=(await shop.member())["id"])

    assert answer["servedBy"] == {"id": last["id"]}
    assert refused["poolsTried"] == [first["id"], last["id"]]
    assert (await shop.stock(middle))["available"] == 1


async def test_where_no_fallback_is_open_only_the_pool_was_tried(shop: Shop) -> None:
    first, last = await chain(shop, 1, 5)
    await drained(shop, first)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=last["id"])

    refused = await shop.refused(CLAIM_CODE, poolId=first["id"], memberId=(await shop.member())["id"])

    assert (refused["poolsTried"], refused["message"]) == ([first["id"]], "The pool has no code left.")


async def test_a_closed_pool_doesnt_fall_back(shop: Shop) -> None:
    first, _ = await chain(shop, 1, 5)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=first["id"])

    refused = await shop.refused(CLAIM_CODE, poolId=first["id"], memberId=(await shop.member())["id"])

    assert (refused["__typename"], refused["status"]) == ("PoolNotActive", "PAUSED")


async def test_the_longest_chain_serves_from_its_end(shop: Shop) -> None:
    pools = await chain(shop, *[1] * CHAIN_LENGTH_MAX)

    answers = [await shop.do(CLAIM_CODE, poolId=pools[0]["id"], email=f"stranger-{n}@example.com") for n in range(10)]
    refused = await shop.refused(CLAIM_CODE, poolId=pools[0]["id"], email="late@example.com")

    assert [answer["servedBy"]["id"] for answer in answers] == [pool["id"] for pool in pools]
    assert refused["poolsTried"] == [pool["id"] for pool in pools]


async def test_a_member_that_claims_for_itself_is_served_by_a_fallback(shop: Shop) -> None:
    first, last = await chain(shop, 1, 5)
    await drained(shop, first)
    token = await shop.token((await shop.member())["id"])

    answer = await shop.do(CLAIM_CODE, key=token, poolId=first["id"])

    assert answer["servedBy"] == {"id": last["id"]}
    assert answer["code"]["text"].startswith("PCT-")


# ----------------------------------------------------------------------------------------------- choosing the fallback


async def test_a_fallback_is_set_kept_changed_and_taken_away(shop: Shop) -> None:
    one, other = [await shop.pool(codes=1) for _ in range(2)]
    pool = await shop.pool(codes=1, active=False, fallbackPoolId=one["id"])
    assert await fallback_of(shop, pool) == one["id"]

    await shop.do(EDIT_POOL, poolId=pool["id"], name="Summer")
    assert await fallback_of(shop, pool) == one["id"]
    await shop.do(EDIT_POOL, poolId=pool["id"], fallbackPoolId=other["id"])
    assert await fallback_of(shop, pool) == other["id"]
    await shop.do(EDIT_POOL, poolId=pool["id"], fallbackPoolId=None)
    assert await fallback_of(shop, pool) is None


@pytest.mark.parametrize("named", ["", "7", NOWHERE, "member_0123456789abcdef0123456789abcdef", "pool_\x00"])
async def test_a_fallback_that_doesnt_exist_is_refused(shop: Shop, named: str) -> None:
    pool = await shop.pool(codes=0, active=False)
    values: dict[str, Any] = {"name": "Spring", "kind": "PERCENT", "percentOff": 10.0}

    created = await shop.refused(CREATE_POOL, fallbackPoolId=named, **values)
    edited = await shop.refused(EDIT_POOL, poolId=pool["id"], fallbackPoolId=named)

    assert problems(created) == {"fallbackPoolId": "names no pool"}
    assert (edited["__typename"], edited["id"]) == ("NotFound", named)


async def test_another_merchants_pool_is_no_fallback(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.pool(codes=5)
    pool = await shop.pool(codes=0, active=False)

    created = await shop.refused(
        CREATE_POOL, name="Spring", kind="PERCENT", percentOff=10.0, fallbackPoolId=theirs["id"]
    )
    edited = await shop.refused(EDIT_POOL, poolId=pool["id"], fallbackPoolId=theirs["id"])

    assert problems(created) == {"fallbackPoolId": "names no pool"}
    assert (edited["__typename"], edited["id"]) == ("NotFound", theirs["id"])
    assert await fallback_of(shop, pool) is None


async def test_an_archived_pool_is_no_fallback(shop: Shop) -> None:
    gone = await shop.pool(codes=1)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=gone["id"])
    pool = await shop.pool(codes=0, active=False)

    created = await shop.refused(CREATE_POOL, name="Spring", kind="PERCENT", percentOff=1.0, fallbackPoolId=gone["id"])
    edited = await shop.refused(EDIT_POOL, poolId=pool["id"], fallbackPoolId=gone["id"])

    assert problems(created) == problems(edited) == {"fallbackPoolId": "names a pool that is closed for good"}


@pytest.mark.parametrize("length", [1, 2, 3])
async def test_a_circle_is_refused(shop: Shop, length: int) -> None:
    pools = await chain(shop, *[0] * length, active=False)

    refused = await shop.refused(EDIT_POOL, poolId=pools[-1]["id"], fallbackPoolId=pools[0]["id"])

    assert problems(refused) == {"fallbackPoolId": "would make a circle"}
    assert await fallback_of(shop, pools[-1]) is None


async def test_a_chain_of_eleven_is_refused_when_it_is_made_longer_at_its_head(shop: Shop) -> None:
    pools = await chain(shop, *[0] * CHAIN_LENGTH_MAX, active=False)
    pool = await shop.pool(codes=0, active=False)
    values: dict[str, Any] = {"name": "Spring", "kind": "PERCENT", "percentOff": 10.0}

    created = await shop.refused(CREATE_POOL, fallbackPoolId=pools[0]["id"], **values)
    edited = await shop.refused(EDIT_POOL, poolId=pool["id"], fallbackPoolId=pools[0]["id"])

    assert problems(created) == problems(edited) == {"fallbackPoolId": "would make a chain of more than 10 pools"}


async def test_a_chain_of_eleven_is_refused_when_it_is_made_longer_at_its_end(shop: Shop) -> None:
    head = await chain(shop, *[0] * 6, active=False)
    tail = await chain(shop, *[0] * 5, active=False)

    refused = await shop.refused(EDIT_POOL, poolId=head[-1]["id"], fallbackPoolId=tail[0]["id"])
    fits = await shop.do(EDIT_POOL, poolId=head[-1]["id"], fallbackPoolId=tail[1]["id"])

    assert problems(refused) == {"fallbackPoolId": "would make a chain of more than 10 pools"}
    assert fits["__typename"] == "EditPoolSuccess"


async def test_the_fallback_of_a_pool_that_left_draft_can_change(shop: Shop) -> None:
    pool, other = [await shop.pool(codes=1) for _ in range(2)]

    edited = await shop.do(EDIT_POOL, poolId=pool["id"], fallbackPoolId=other["id"])
    claimed = [await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=(await shop.member())["id"]) for _ in range(2)]

    assert edited["__typename"] == "EditPoolSuccess"
    assert [answer["servedBy"]["id"] for answer in claimed] == [pool["id"], other["id"]]


async def test_edits_at_once_close_no_circle(shop: Shop, api: Api, second_api: Api) -> None:
    processes = Processes(shop, api, second_api)
    for _ in range(10):
        pools = [await shop.pool(codes=0, active=False) for _ in range(3)]

        answers = await at_once(
            processes.do(EDIT_POOL, poolId=pool["id"], fallbackPoolId=following["id"])
            for pool, following in zip(pools, pools[1:] + pools[:1], strict=True)
        )

        assert kinds(answers) == {"EditPoolSuccess": 2, "InvalidInput": 1}
        refused = next(answer for answer in answers if answer["__typename"] == "InvalidInput")
        assert problems(refused) == {"fallbackPoolId": "would make a circle"}
        assert sorted([await fallback_of(shop, pool) is None for pool in pools]) == [False, False, True]


async def test_the_fallback_is_no_members_business(shop: Shop) -> None:
    first, _ = await chain(shop, 1, 5)
    document = CLAIM_CODE.replace("servedBy { id }", "servedBy { fallbackPool { id } }")
    token = await shop.token((await shop.member())["id"])

    answer = await shop.do(document, poolId=first["id"], key=token)

    assert (answer["__typename"], answer["servedBy"]) == ("ClaimCodeSuccess", {"fallbackPool": None})
