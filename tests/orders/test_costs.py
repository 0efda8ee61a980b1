"""What orders cost. Without these a look at one could read all of them, and only load would tell."""

from typing import Any
from uuid import UUID

import pytest

from app.coupons.claims import CLAIM
from app.orders.order_changes import FIND_BUYER, READ_STACK
from app.orders.presented_codes import READ
from app.orders.redeem_codes import REDEEM
from app.orders.rows import FIND_BY_ORDER, FIND_ORDER, REDEMPTIONS_OF_ORDER
from app.storage.statements import Statement
from tests.scratch import all_planned_on_nothing, buffers_planned_on_nothing

#: Two redemptions and a purchase on each of a thousand orders.
ORDERS = """
WITH p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, gift_sku, claims_per_member, stacking, transferable,
                      created_at)
    VALUES ($1, gen_random_uuid(), 'x', 'DRAFT', 'GIFT', 'x', 1, 'STACKABLE', false, now()) RETURNING id
), b AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT $1, gen_random_uuid(), id, 2000, now() FROM p RETURNING id, pool_id
), c AS (
    INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, email_index,
                      allocated_at, redeemed_at)
    SELECT $1, ('00000000-0000-0000-0000-' || lpad(each::text, 12, '0'))::uuid, pool_id, b.id, 'REDEEMED', '\\x00',
        sha256(each::text::bytea), 'AA', sha256(each::text::bytea), now(), now()
    FROM b, generate_series(1, 2000) AS each RETURNING id, pool_id
), o AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version)
    SELECT $1, gen_random_uuid(), 'STORE', each::text, 100, 'USD', 1 FROM generate_series(1, 1000) AS each
), m AS (
    INSERT INTO member (merchant_id, id, email_verified, source, joined_at)
    VALUES ($1, gen_random_uuid(), false, 'STORE', now()) RETURNING id
), w AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT $1, id, 0 FROM m
), b2 AS (
    INSERT INTO purchase (merchant_id, id, member_id, source, order_id, amount, recorded_amount, currency, points,
                          points_per_unit, minor_units, credits, occurred_at, recorded_at)
    SELECT $1, gen_random_uuid(), id, 'STORE', each::text, 100, 100, 'USD', 0, 1, 100, 0, now(), now()
    FROM m, generate_series(1, 1000) AS each
)
INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                        base, discount, currency, redeemed_at)
SELECT $1, id, pool_id, 1, id, 'STORE', ((right(id::text, 12)::int + 1) / 2)::text,
    2 - right(id::text, 12)::int % 2, 100, 100, 0, 'USD', now()
FROM c
"""
ORDER: dict[str, Any] = {"source": "STORE", "order_id": "777"}
NOBODY: dict[str, Any] = {
    "fingerprints": [], "presenter": None, "email_index": None, "mailbox_index": None,
    "memory_pads": bytes(128),
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "values", "rows"),
    [
        (READ, ORDER | NOBODY, 2),
        (READ, NOBODY | {"source": "STORE", "order_id": "nobody's"}, 1),
        (READ_STACK, {"redemption_id": UUID(int=0x1553)}, 2),
        (REDEMPTIONS_OF_ORDER, ORDER, 2),
        (FIND_ORDER, ORDER, 1),
        (FIND_BY_ORDER, ORDER, 1),
        (FIND_BUYER, ORDER, 1),
    ],
    ids=["what is presented", "nothing", "a stack", "redemptions", "an order", "its purchase", "its buyer"],
)
async def test_one_order_is_found_among_a_thousand(asked: Statement[Any], values: dict[str, Any], rows: int) -> None:
    found, buffers = await buffers_planned_on_nothing(asked, ORDERS, **values)

    assert found == rows
    assert buffers < 45


#: Two pools, of which the second asks everything, with codes in stock, and a code of each for each of many members.
OFFERS = """
WITH p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, amount_off, claims_per_member, stacking, transferable,
                      audience, one_claim_per_mailbox, first_order_only, maximum_total_discount, created_at)
    SELECT $1, ('10000000-0000-0000-0000-00000000000' || each)::uuid, 'x', 'DRAFT', 'AMOUNT', 5, 2, 'STACKABLE', false,
        CASE each WHEN 2 THEN ARRAY['ACTIVE'] ELSE '{}' END, each = 2, each = 2, CASE each WHEN 2 THEN 100000 END, now()
    FROM generate_series(1, 2) AS each RETURNING id
), b AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT $1, gen_random_uuid(), id, 2000, now() FROM p RETURNING id, pool_id
), m AS (
    INSERT INTO member (merchant_id, id, email, email_index, mailbox_index, email_verified, source, joined_at,
                        last_bought_at)
    SELECT $1, ('20000000-0000-0000-0000-' || lpad(each::text, 12, '0'))::uuid, 'x', sha256(each::text::bytea),
        sha256(each::text::bytea), true, 'STORE', now() - interval '99 days', now() - interval '9 days'
    FROM generate_series(1, 1000) AS each RETURNING id, email_index
), w AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT $1, id, 0 FROM m
), a AS (
    INSERT INTO address (merchant_id, email_index, member_id) SELECT $1, email_index, id FROM m
), stock AS (
    INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix)
    SELECT $1, gen_random_uuid(), pool_id, id, 'AVAILABLE', '\\x00', sha256((pool_id::text || each)::bytea), 'AA'
    FROM b, generate_series(1, 1000) AS each
)
INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, member_id, allocated_at)
SELECT $1, ('3000000' || right(pool_id::text, 1) || substr(m.id::text, 9))::uuid, pool_id, b.id, 'ALLOCATED', '\\x00',
    sha256((pool_id::text || m.id)::bytea), 'AA', m.id, now()
FROM b, m
"""
OPEN = "UPDATE pool SET status = 'ACTIVE' WHERE merchant_id = $1"


def claiming(pool: int, member: int) -> dict[str, Any]:
    """Return what a member's claim of a pool is made by."""
    return {
        "pool_id": UUID(f"10000000-0000-0000-0000-00000000000{pool}"), "key": None, "is_paid": False,
        "member_id": UUID(f"20000000-0000-0000-0000-{member:012}"), "after": UUID(int=0),
        "event_id": UUID(int=0xABC0 + member), "actor": "apikey_1", "memory_pads": bytes(128),
    }  # fmt: skip


def redeeming(pool: int, member: int) -> dict[str, Any]:
    """Return what a member's code of a pool is redeemed by."""
    owner = UUID(f"20000000-0000-0000-0000-{member:012}")
    return {
        "code_ids": [UUID(f"3000000{pool}-0000-0000-0000-{member:012}")], "redemption_ids": [UUID(int=0xABD0 + member)],
        "event_ids": [UUID(int=0xABE0 + member)], "bases": [100], "discounts": [5], "terms_versions": [1],
        "positions": [1], "eligible": [None], "presenter": owner, "email_index": None, "person_id": owner,
        "person_mailbox": None, "first_keys": [owner.bytes] if pool == 2 else [],
        "first_versions": [0] if pool == 2 else [], "order_row_id": UUID(int=0xABF0 + member), "version": 0,
        "source": "STORE", "order_id": f"{member}", "amount": 100, "currency": "USD", "presented_by": b"",
        "actor": "apikey_1",
    }  # fmt: skip


async def test_what_an_offer_asks_costs_little() -> None:
    # The first of each kind finds tables and indexes as no other does.
    asked = [
        *((CLAIM, claiming(pool, member)) for member, pool in enumerate((1, 2, 1, 2), start=1)),
        *((REDEEM, redeeming(pool, member)) for member, pool in enumerate((1, 2, 1, 2), start=5)),
    ]

    counted = await all_planned_on_nothing(asked, OFFERS, OPEN)

    assert [rows for rows, _ in counted] == [1] * 8
    _, _, claim, aimed_claim, _, _, redemption, aimed_redemption = (buffers for _, buffers in counted)
    # A split of a page now and then included.
    assert aimed_claim <= claim + 12
    assert aimed_redemption <= redemption + 20
