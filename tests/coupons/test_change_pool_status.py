"""activatePool, pausePool, archivePool. Without these a pool could leave its lifecycle, or issue from nothing."""

from typing import Any

import pytest

from tests.factories import CHANGE_STATUS, CLAIM_CODE, CREATE_POOL, EDIT_POOL, REFUSALS, Shop
from tests.orders.presented import end_pool

ALLOWED = {
    "DRAFT": ["ACTIVE"],
    "ACTIVE": ["PAUSED", "ARCHIVED"],
    "PAUSED": ["ACTIVE", "ARCHIVED"],
    "ARCHIVED": [],
}
TARGETS = {"activatePool": "ACTIVE", "pausePool": "PAUSED", "archivePool": "ARCHIVED"}
PATHS = {
    "DRAFT": [],
    "ACTIVE": ["activatePool"],
    "PAUSED": ["activatePool", "pausePool"],
    "ARCHIVED": ["activatePool", "archivePool"],
}
STEPS = [(status, step) for status in ALLOWED for step in TARGETS]
VERBS = {"activatePool": "pool.activated", "pausePool": "pool.paused", "archivePool": "pool.archived"}


async def pool_in(shop: Shop, status: str) -> str:
    """Make a pool with a code and bring it into a status."""
    pool_id: str = (await shop.pool(codes=1, active=False))["id"]
    for step in PATHS[status]:
        await shop.do(CHANGE_STATUS % step, poolId=pool_id)
    return pool_id


@pytest.mark.parametrize(("status", "step"), [case for case in STEPS if TARGETS[case[1]] in ALLOWED[case[0]]])
async def test_an_allowed_step_is_taken_and_recorded(shop: Shop, status: str, step: str) -> None:
    pool_id = await pool_in(shop, status)
    before = await shop.state()

    answer = await shop.do(CHANGE_STATUS % step, poolId=pool_id)

    assert answer["__typename"] == "ChangePoolStatusSuccess"
    assert answer["pool"]["id"] == pool_id
    assert answer["pool"]["status"] == TARGETS[step]
    assert answer["pool"]["allowedTransitions"] == ALLOWED[TARGETS[step]]
    assert (await shop.state()).since(before) == {"pool": 0, "event": 1}
    assert (await shop.event_types())[-1] == VERBS[step]


@pytest.mark.parametrize(("status", "step"), [case for case in STEPS if TARGETS[case[1]] not in ALLOWED[case[0]]])
async def test_any_other_step_is_rejected_with_what_is_allowed(shop: Shop, status: str, step: str) -> None:
    pool_id = await pool_in(shop, status)

    assert await shop.refused(CHANGE_STATUS % step, poolId=pool_id) == {
        "__typename": "PoolTransitionRejected",
        "message": f"A pool in {status} can't become {TARGETS[step]}.",
        "from": status,
        "to": TARGETS[step],
        "allowed": ALLOWED[status],
    }
    read = await shop.data("query ($id: ID!) { pool(id: $id) { status } }", {"id": pool_id})
    assert read == {"pool": {"status": status}}


@pytest.mark.parametrize("step", list(TARGETS))
@pytest.mark.parametrize("pool_id", ["", "7", "pool_0123456789abcdef0123456789abcdef", "pool_\x00", "x" * 10_000])
async def test_an_id_that_names_no_pool_is_not_found(shop: Shop, step: str, pool_id: str) -> None:
    assert await shop.refused(CHANGE_STATUS % step, poolId=pool_id) == {
        "__typename": "NotFound",
        "message": "There is no such pool.",
        "id": pool_id[:200],
    }


@pytest.mark.parametrize("step", list(TARGETS))
async def test_another_merchants_pool_is_not_found(shop: Shop, other_shop: Shop, step: str) -> None:
    pool = await other_shop.pool(codes=1, active=step != "activatePool")
    before = await other_shop.state()

    assert await shop.refused(CHANGE_STATUS % step, poolId=pool["id"]) == {
        "__typename": "NotFound",
        "message": "There is no such pool.",
        "id": pool["id"],
    }
    assert await other_shop.state() == before


async def test_a_pool_without_a_code_can_not_be_activated(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)

    assert await shop.refused(CHANGE_STATUS % "activatePool", poolId=pool["id"]) == {
        "__typename": "PoolHasNoCodes",
        "message": "The pool has no codes yet; generate some before activating it.",
    }


async def test_a_transition_that_is_never_allowed_is_told_before_the_missing_codes(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    assert refusal["__typename"] == "PoolTransitionRejected"


async def test_codes_of_another_pool_do_not_count(shop: Shop) -> None:
    await shop.pool(codes=5, active=False)
    empty = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(CHANGE_STATUS % "activatePool", poolId=empty["id"])

    assert refusal["__typename"] == "PoolHasNoCodes"


async def test_a_pool_whose_codes_are_all_claimed_can_be_activated_again(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    await shop.claim(pool, await shop.member())
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    answer = await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    assert answer["pool"]["status"] == "ACTIVE"


async def test_no_input_takes_a_status(shop: Shop) -> None:
    pool = await shop.pool(codes=1, active=False)
    terms: dict[str, Any] = {"name": "Spring", "kind": "PERCENT", "percentOff": 10.0}

    assert await shop.failed(CREATE_POOL, **terms, status="ACTIVE") == "BAD_USER_INPUT"
    assert await shop.failed(CHANGE_STATUS % "pausePool", poolId=pool["id"], status="ACTIVE") == "BAD_USER_INPUT"


@pytest.mark.parametrize("step", list(TARGETS))
@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST", "MEMBER"])
async def test_only_an_admin_moves_pools(shop: Shop, role: str, step: str) -> None:
    pool = await shop.pool(codes=1, active=step != "activatePool")
    key = await shop.token((await shop.member())["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(CHANGE_STATUS % step, key=key, poolId=pool["id"]) == "FORBIDDEN"


SCOPED = f"""
mutation ($input: PoolIdInput!) {{
  answer: pausePool(input: $input) {{
    __typename ... on ChangePoolStatusSuccess {{ pool {{ status pauseScope }} }} {REFUSALS}
    ... on PoolTransitionRejected {{ from to allowed }}
  }}
}}
"""
ACTIVATE = (CHANGE_STATUS % "activatePool").replace("... on PoolTr", "... on PoolEnded { endsAt } ... on PoolTr")


async def test_a_pause_of_issuing_goes_on_honouring(shop: Shop) -> None:
    pool, member = await shop.pool(codes=2), await shop.member()
    code = await shop.claim(pool, member)

    paused = await shop.do(SCOPED, poolId=pool["id"], scope="ISSUING")
    refused = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=(await shop.member())["id"])
    redeemed = await shop.redeem([code["text"]], member)

    assert paused["pool"] == {"status": "PAUSED", "pauseScope": "ISSUING"}
    assert (refused["__typename"], refused["status"]) == ("PoolNotActive", "PAUSED")
    assert redeemed["__typename"] == "RedeemCodesSuccess"


async def test_pausing_again_changes_the_scope_and_the_same_again_is_no_step(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()
    code = await shop.claim(pool, member)
    scopes = [(await shop.do(SCOPED, poolId=pool["id"], scope=scope))["pool"] for scope in ("ISSUING", "ALL")]

    again = await shop.refused(SCOPED, poolId=pool["id"])
    redeemed = await shop.redeem([code["text"]], member)
    activated = await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    assert [each["pauseScope"] for each in scopes] == ["ISSUING", "ALL"]
    assert (again["__typename"], again["from"], again["to"]) == ("PoolTransitionRejected", "PAUSED", "PAUSED")
    assert redeemed["rejections"][0]["reason"] == "POOL_NOT_ACTIVE"
    assert activated["pool"]["status"] == "ACTIVE"
    assert (await shop.event_types())[-3:] == ["pool.paused", "pool.pause_changed", "pool.activated"]
    assert await shop.broken_promises() == []


async def test_a_pool_whose_end_has_passed_can_not_be_activated_until_it_ends_later(shop: Shop) -> None:
    draft = await shop.pool(codes=1, active=False, endsAt="2020-01-01T00:00:00Z")
    paused = await shop.pool(codes=1, endsAt="2999-01-01T00:00:00Z")
    await shop.do(CHANGE_STATUS % "pausePool", poolId=paused["id"])
    await end_pool(shop, paused)

    refused = await shop.refused(ACTIVATE, poolId=draft["id"])
    also = await shop.refused(ACTIVATE, poolId=paused["id"])
    await shop.do(EDIT_POOL, poolId=paused["id"], endsAt="2999-01-01T00:00:00Z")

    assert refused == {
        "__typename": "PoolEnded",
        "message": "The pool's end has passed; give it a later one before activating it.",
        "endsAt": "2020-01-01T00:00:00Z",
    }
    assert also["__typename"] == "PoolEnded"
    assert (await shop.do(ACTIVATE, poolId=paused["id"]))["pool"]["status"] == "ACTIVE"


async def test_a_pool_that_is_over_can_still_be_paused_and_archived(shop: Shop) -> None:
    pool = await shop.pool(codes=1, endsAt="2999-01-01T00:00:00Z")
    await end_pool(shop, pool)

    for step in ("pausePool", "archivePool"):
        assert (await shop.do(CHANGE_STATUS % step, poolId=pool["id"]))["__typename"] == "ChangePoolStatusSuccess"
