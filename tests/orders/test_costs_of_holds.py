"""What holds cost. Without these a cart could read all the others, or wait for the database again and again."""

from typing import Any
from uuid import UUID

import pytest

from app.orders.capture_hold import FIND_TO_CAPTURE
from app.orders.expire_holds import FIND_ASIDE
from app.orders.hold_checkout import READ
from app.orders.holds import CODES_OF_HOLDS, FIND_HOLD, FIND_HOLD_OF_ORDER
from app.storage.statements import Statement
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop
from tests.orders.documents import stackable
from tests.orders.holding import CAPTURE, HOLD, RELEASE, cart, hold
from tests.points.documents import grant
from tests.scratch import buffers_planned_on_nothing
from tests.sizes import size

HOLDS = size(1_000, 10_000)
#: Carts of one member, each with a code.
CARTS = f"""
WITH p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, gift_sku, claims_per_member, stacking, transferable,
                      created_at)
    VALUES ($1, gen_random_uuid(), 'x', 'DRAFT', 'GIFT', 'x', 1, 'STACKABLE', false, now()) RETURNING id
), b AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT $1, gen_random_uuid(), id, 5000, now() FROM p RETURNING id, pool_id
), m AS (
    INSERT INTO member (merchant_id, id, email_verified, source, joined_at)
    VALUES ($1, '00000000-0000-0000-0000-00000000abcd', false, 'STORE', now()) RETURNING id
), w AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT $1, id, 0 FROM m
), o AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, currency, version)
    SELECT $1, ('10000000-0000-0000-0000-' || lpad(each::text, 12, '0'))::uuid, 'STORE', each::text, 'USD', 1
    FROM generate_series(1, {HOLDS}) AS each RETURNING id
), h AS (
    INSERT INTO hold (merchant_id, id, sales_order_id, member_id, order_amount, currency, total_discount, points,
                      points_value, point_value, held_points, status, version, held_at, held_until, presented_by)
    SELECT $1, ('20000000' || substr(o.id::text, 9))::uuid, o.id, m.id, 100, 'USD', 0, 0, 0, 1, 0, 'HELD', 1, now(),
        now() + interval '1 hour', ''
    FROM o, m RETURNING id
), c AS (
    INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, member_id,
                      allocated_at, hold_id, held_until)
    SELECT $1, ('00000000' || substr(h.id::text, 9))::uuid, pool_id, b.id, 'ALLOCATED', '\\x00',
        sha256(h.id::text::bytea), 'AA', m.id, now(), h.id, now() + interval '1 hour'
    FROM b, m, h RETURNING id, pool_id, hold_id
)
INSERT INTO hold_code (merchant_id, hold_id, code_id, pool_id, position, terms_version, base, discount)
SELECT $1, hold_id, id, pool_id, 1, 1, 100, 0 FROM c
"""
ORDER = UUID("10000000-0000-0000-0000-000000000777")
ONE = UUID("20000000-0000-0000-0000-000000000777")
PRESENTED: dict[str, Any] = {
    "source": "STORE", "order_id": "777", "fingerprints": [], "email_index": None, "mailbox_index": None,
    "presenter": UUID(int=0xABCD), "key": b"key",
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "values", "rows"),
    [
        (FIND_HOLD, {"hold_id": ONE, "member_id": None}, 1),
        (FIND_TO_CAPTURE, {"hold_id": ONE}, 1),
        (FIND_HOLD_OF_ORDER, {"order_row_id": ORDER}, 1),
        (CODES_OF_HOLDS, {"hold_ids": [ONE]}, 1),
        (READ, PRESENTED, 1),
        (FIND_ASIDE, {"reward_ids": [ONE], "pool_ids": [ONE]}, 0),
    ],
    ids=["a hold", "to capture", "an order's", "codes", "what is presented", "late ones"],
)
async def test_one_hold_is_found_among_many(asked: Statement[Any], values: dict[str, Any], rows: int) -> None:
    values = {name: value for name, value in values.items() if name in asked.names}

    found, buffers = await buffers_planned_on_nothing(asked, CARTS, **values)

    assert found == rows
    assert buffers < 45


async def test_a_cart_is_few_round_trips(counter: Counter, counted_shop: Shop) -> None:
    shop = counted_shop
    member = await shop.member()
    await grant(shop, member, 1_000, "gift")
    codes = await stackable(shop, member, 12)

    async def waits(document: str, **input: Any) -> int:
        return len(await counter.during(lambda: shop.do(document, **input)))

    trips: list[tuple[int, ...]] = []
    for number in range(3):
        first, second = codes[number * 4 : number * 4 + 2], codes[number * 4 + 2 : number * 4 + 4]
        placed = await waits(HOLD, **cart(first, member, order=f"codes-{number}"))
        paid = await waits(HOLD, **cart(second, member, order=f"points-{number}", points=10))
        plain, with_points = [
            await hold(shop, each, member, order=f"{name}-{number}", points=points)
            for each, name, points in ((first, "codes", 0), (second, "points", 10))
        ]
        captured = await waits(CAPTURE, holdId=plain["id"])
        points = await waits(CAPTURE, holdId=with_points["id"])
        released = await waits(RELEASE, holdId=(await hold(shop, [], member, order=f"r-{number}", points=5))["id"])
        trips.append((placed, paid, captured, points, released))

    # Read, written, and its codes with their redemptions. Where points come free, between BEGIN and COMMIT.
    assert trips[-1] == (3, 3, 3, 3, 7)
