"""What orders cost. Without these a look at one could read all of them, and only load would tell."""

from typing import Any
from uuid import UUID

import pytest

from app.orders.order_changes import FIND_BUYER, READ_STACK
from app.orders.presented_codes import READ
from app.orders.rows import FIND_BY_ORDER, FIND_ORDER, REDEMPTIONS_OF_ORDER
from app.storage.statements import Statement
from tests.scratch import buffers_planned_on_nothing

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
NOBODY: dict[str, Any] = {"fingerprints": [], "presenter": None, "email_index": None, "mailbox_index": None}


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
