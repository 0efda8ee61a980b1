"""Terms after DRAFT. Without these the API could refuse what the database takes, or the database what the API takes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import ids
from app.coupons.rules import ENDS, FREE, IMPROVE_DOWNWARDS, IMPROVE_UPWARDS, may_change
from app.storage.database import database
from tests.factories import Shop
from tests.properties.test_lifecycle import SET_STATUS
from tests.sizes import FULL, size

NOON = datetime(2095, 6, 1, 12, tzinfo=UTC)
#: What every pool has of its own, and what moves along its lifecycle.
OF_THE_POOL = {"merchant_id", "id", "kind", "status", "pause_scope", "terms_version", "suggestion_id", "created_at"}
COLUMNS = """
SELECT attname::text AS name FROM pg_attribute
WHERE attrelid = 'pool'::regclass AND attnum > 0 AND NOT attisdropped
"""
PATHS: dict[str, list[str]] = {
    "DRAFT": [],
    "ACTIVE": ["ACTIVE"],
    "PAUSED": ["ACTIVE", "PAUSED"],
    "ARCHIVED": ["ACTIVE", "ARCHIVED"],
}


def terms_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return terms that make sense for a kind, from few values, so that many stay as they are."""
    amounts = st.none() | st.integers(1, 3)
    days = st.integers(0, 2).map(lambda day: NOON + timedelta(days=day))
    return st.fixed_dictionaries(
        {
            "name": st.sampled_from("ab"),
            "percent_off": st.sampled_from([Decimal(5), Decimal("5.5")]) if kind == "PERCENT" else st.none(),
            "amount_off": st.integers(1, 3) if kind == "AMOUNT" else st.none(),
            "gift_sku": st.sampled_from(["mug", "cup"]) if kind == "GIFT" else st.none(),
            "minimum_spend": amounts,
            "maximum_discount": amounts if kind == "PERCENT" else st.none(),
            "starts_at": st.none() | days.map(lambda day: day - timedelta(days=9)),
            "ends_at": st.none() | days,
            "code_lifetime_days": amounts,
            "claims_per_member": st.integers(1, 3),
            "stacking": st.sampled_from(["EXCLUSIVE", "STACKABLE"]),
            "transferable": st.booleans(),
            "recycle_expired": st.booleans(),
            "code_pattern": st.sampled_from([None, "A-############"]),
            "audience": st.sampled_from([[], ["NEW"], ["NEW", "ADVOCATES"], ["ACTIVE"]]),
            "first_order_only": st.booleans(),
            "one_claim_per_mailbox": st.booleans(),
            "listed": st.booleans(),
            "maximum_total_discount": st.none() if kind == "GIFT" else st.none() | st.integers(3, 5),
            "fallback_pool_id": st.none(),
        }
    )


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a kind, terms, and the terms after an edit of some of them."""
    kind = draw(st.sampled_from(["PERCENT", "AMOUNT", "GIFT"]))
    before, other = draw(terms_of(kind)), draw(terms_of(kind))
    edited = draw(st.sets(st.sampled_from(sorted(before)), max_size=3))
    return kind, before, before | {term: other[term] for term in edited}


async def is_taken(shop: Shop, pool_id: UUID, terms: dict[str, Any]) -> bool:
    """Whether the database takes these terms."""
    values = ", ".join(f"{term} = ${place}" for place, term in enumerate(terms, start=3))
    try:
        await database().rows(
            f"UPDATE pool SET {values} WHERE merchant_id = $1 AND id = $2", shop.merchant_id, pool_id, *terms.values()
        )
    except asyncpg.CheckViolationError as violation:
        if violation.constraint_name != "pool_terms_improve":
            raise
        return False
    return True


@settings(
    deadline=None,
    max_examples=size(80, 2_000),
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(status=st.sampled_from(sorted(PATHS)), edit=edits())
async def test_the_api_and_the_database_allow_the_same_edits(
    shop: Shop, status: str, edit: tuple[str, dict[str, Any], dict[str, Any]]
) -> None:
    kind, before, after = edit
    pool_id = ids.new()
    row = {"merchant_id": shop.merchant_id, "id": pool_id, "kind": kind, "status": "DRAFT", "created_at": NOON} | before
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await database().rows(f"INSERT INTO pool ({', '.join(row)}) VALUES ({places})", *row.values())
    for step in PATHS[status]:
        await database().rows(SET_STATUS, shop.merchant_id, pool_id, step)

    allowed = all(may_change(status, term, before[term], after[term]) for term in before)

    assert await is_taken(shop, pool_id, after) is allowed
    (kept,) = await database().rows("SELECT * FROM pool WHERE merchant_id = $1 AND id = $2", shop.merchant_id, pool_id)
    assert {term: kept[term] for term in before} == (after if allowed else before)


@settings(deadline=None, max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(terms=terms_of("GIFT"))
async def test_every_term_is_tried(shop: Shop, terms: dict[str, Any]) -> None:
    columns = {row["name"] for row in await database().rows(COLUMNS)}

    assert columns == set(terms) | OF_THE_POOL
    assert columns > FREE | IMPROVE_UPWARDS | IMPROVE_DOWNWARDS | ENDS | {"audience"}
