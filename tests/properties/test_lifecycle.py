"""The lifecycle of a pool, as the API and as the database hold it. Without these a pool could leave its life's path."""

from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import ids
from app.storage.database import database
from tests.factories import CHANGE_STATUS, EDIT_POOL, GENERATE_CODES, Shop
from tests.sizes import FULL, size

NEXT = {"DRAFT": ["ACTIVE"], "ACTIVE": ["PAUSED", "ARCHIVED"], "PAUSED": ["ACTIVE", "ARCHIVED"], "ARCHIVED": []}
STEPS = {"activatePool": "ACTIVE", "pausePool": "PAUSED", "archivePool": "ARCHIVED"}
PATHS: dict[str, list[str]] = {
    "DRAFT": [],
    "ACTIVE": ["activatePool"],
    "PAUSED": ["activatePool", "pausePool"],
    "ARCHIVED": ["activatePool", "archivePool"],
}
SET_STATUS = """
UPDATE pool SET status = $3::text, pause_scope = CASE WHEN $3::text = 'PAUSED' THEN 'ALL' END
WHERE merchant_id = $1 AND id = $2 RETURNING status
"""
INSERT = """
INSERT INTO pool (merchant_id, id, name, status, kind, percent_off, claims_per_member, stacking, transferable,
                  created_at)
VALUES ($1, $2, 'Spring', $3, 'PERCENT', 10, 1, 'EXCLUSIVE', false, now()) RETURNING status
"""
#: Terms with a value that would make sense, and is worse for who holds a code or other than what it holds.
TERMS = {
    "percent_off": "5",
    "minimum_spend": "500",
    "maximum_discount": "500",
    "starts_at": "now()",
    "ends_at": "now()",
    "code_lifetime_days": "5",
    "stacking": "'STACKABLE'",
    "transferable": "true",
    "created_at": "created_at - interval '1 day'",
    "id": "gen_random_uuid()",
    "kind": "'AMOUNT', percent_off = NULL, amount_off = 500",
}


async def pool_in(shop: Shop, status: str) -> Any:
    """Make a pool and bring it into a status."""
    pool = await shop.pool(codes=1, active=False)
    for step in PATHS[status]:
        await shop.do(CHANGE_STATUS % step, poolId=pool["id"])
    return pool


@settings(
    deadline=None,
    max_examples=size(12, 100),
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    has_codes=st.booleans(),
    steps=st.lists(st.sampled_from([*STEPS, "generateCodes", "editPool"]), min_size=1, max_size=8),
)
async def test_any_walk_keeps_to_the_lifecycle(shop: Shop, has_codes: bool, steps: list[str]) -> None:
    pool = await shop.pool(codes=int(has_codes), active=False)
    status, codes, claims = "DRAFT", int(has_codes), 1
    for step in steps:
        if step == "generateCodes":
            answer = await shop.do(GENERATE_CODES, poolId=pool["id"], count=2)
            takes_codes = status in {"DRAFT", "PAUSED"}
            assert answer["__typename"] == ("GenerateCodesSuccess" if takes_codes else "PoolNotEditable")
            codes += 2 * takes_codes
        elif step == "editPool":
            answer = await shop.do(EDIT_POOL, poolId=pool["id"], claimsPerMember=claims + 1)
            assert answer["__typename"] == ("PoolNotEditable" if status == "ARCHIVED" else "EditPoolSuccess")
            claims += status != "ARCHIVED"
        else:
            answer = await shop.do(CHANGE_STATUS % step, poolId=pool["id"])
            if STEPS[step] not in NEXT[status]:
                assert (answer["__typename"], answer["from"], answer["to"], answer["allowed"]) == (
                    "PoolTransitionRejected", status, STEPS[step], NEXT[status]
                )  # fmt: skip
            elif not codes:
                assert answer["__typename"] == "PoolHasNoCodes"
            else:
                assert answer["__typename"] == "ChangePoolStatusSuccess"
                status = STEPS[step]
    read = await shop.data(
        "query ($id: ID!) { pool(id: $id) { status allowedTransitions stock { total } } }", {"id": pool["id"]}
    )
    assert read["pool"] == {"status": status, "allowedTransitions": NEXT[status], "stock": {"total": codes}}


@pytest.mark.parametrize(
    ("status", "to"), [(status, to) for status in NEXT for to in NEXT if to != status and to not in NEXT[status]]
)
async def test_the_database_rejects_any_other_change_of_status(shop: Shop, status: str, to: str) -> None:
    pool = await pool_in(shop, status)

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().row(SET_STATUS, shop.merchant_id, ids.decode("pool", pool["id"]), to)

    assert violation.value.constraint_name == "pool_lifecycle"
    row = await database().row("SELECT status FROM pool WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None
    assert row["status"] == status


@pytest.mark.parametrize(("status", "to"), [(status, to) for status in NEXT for to in NEXT[status]])
async def test_the_database_lets_the_lifecycle_pass(shop: Shop, status: str, to: str) -> None:
    pool = await pool_in(shop, status)

    row = await database().row(SET_STATUS, shop.merchant_id, ids.decode("pool", pool["id"]), to)

    assert row is not None
    assert row["status"] == to


@pytest.mark.parametrize("status", NEXT)
@pytest.mark.parametrize("to", ["", "active", "CLOSED"])
async def test_the_database_knows_no_other_status(shop: Shop, status: str, to: str) -> None:
    pool = await pool_in(shop, status)

    with pytest.raises(asyncpg.CheckViolationError):
        await database().row(SET_STATUS, shop.merchant_id, ids.decode("pool", pool["id"]), to)


@pytest.mark.parametrize("status", ["ACTIVE", "PAUSED", "ARCHIVED"])
async def test_the_database_takes_new_pools_in_draft_only(shop: Shop, status: str) -> None:
    before = await shop.state()

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().row(INSERT, shop.merchant_id, ids.new(), status)

    assert violation.value.constraint_name == "pool_lifecycle"
    assert await shop.state() == before
    row = await database().row(INSERT, shop.merchant_id, ids.new(), "DRAFT")
    assert row is not None
    assert row["status"] == "DRAFT"


@pytest.mark.parametrize("status", ["ACTIVE", "PAUSED", "ARCHIVED"])
@pytest.mark.parametrize("term", TERMS)
async def test_the_database_takes_no_worse_term_outside_draft(shop: Shop, status: str, term: str) -> None:
    await pool_in(shop, status)

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().row(f"UPDATE pool SET {term} = {TERMS[term]} WHERE merchant_id = $1", shop.merchant_id)

    assert violation.value.constraint_name == "pool_terms_improve"


async def test_a_term_can_not_be_slipped_in_with_an_allowed_change_of_status(shop: Shop) -> None:
    await pool_in(shop, "ACTIVE")

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().row(
            "UPDATE pool SET status = 'PAUSED', pause_scope = 'ALL', percent_off = 5 WHERE merchant_id = $1",
            shop.merchant_id,
        )

    assert violation.value.constraint_name == "pool_terms_improve"
