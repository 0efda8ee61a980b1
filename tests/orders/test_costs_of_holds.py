"""What holds cost. Without these a cart could read all the others, or wait for the database again and again."""

from typing import Any
from uuid import UUID

import pytest

from app.orders import capture_hold, hold_checkout
from app.orders.capture_hold import FIND_TO_CAPTURE
from app.orders.expire_holds import FIND_ASIDE
from app.orders.hold_checkout import READ
from app.orders.holds import CODES_OF_HOLDS, FIND_HOLD, FIND_HOLD_OF_ORDER, FIND_WITH_CODES
from app.storage.database import database
from app.storage.statements import Statement
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop
from tests.orders.documents import stackable
from tests.orders.holding import CAPTURE, EXTEND, HOLD, RELEASE, cart, hold
from tests.points.documents import grant
from tests.scratch import all_planned_on_nothing, buffers_planned_on_nothing
from tests.sizes import size

HOLDS = size(1_000, 10_000)
#: Carts of one member, each with a code; {} says which.
_CARTS = """
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
    FROM generate_series(1, {}) AS each RETURNING id
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
CARTS = _CARTS.format(HOLDS)
#: The first cart is open; all others were paid.
PAST = """
WITH h AS (
    UPDATE hold SET status = 'CAPTURED', version = 2, ended_at = now(), captured_points = 0, captured_value = 0
    WHERE merchant_id = $1 AND id > '20000000-0000-0000-0000-000000000001' RETURNING id, sales_order_id
), o AS (
    UPDATE sales_order SET order_amount = 100, version = 2 FROM h
    WHERE sales_order.merchant_id = $1 AND sales_order.id = h.sales_order_id
    RETURNING h.id AS hold_id, sales_order.order_id
), c AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now(), hold_id = NULL, held_until = NULL FROM o
    WHERE code.merchant_id = $1 AND code.hold_id = o.hold_id RETURNING code.id, code.pool_id, o.order_id
)
INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                        base, discount, currency, redeemed_at)
SELECT $1, id, pool_id, 1, id, 'STORE', order_id, 1, 100, 100, 0, 'USD', now() FROM c
"""
#: Beside them a code of the member's that no cart has.
FREE = """
WITH p AS (UPDATE pool SET status = 'ACTIVE' WHERE merchant_id = $1 RETURNING id)
INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, member_id, allocated_at)
SELECT $1, '30000000-0000-0000-0000-000000000001', p.id, b.id, 'ALLOCATED', '\\x00', sha256('free'::bytea), 'AA',
    '00000000-0000-0000-0000-00000000abcd', now()
FROM p JOIN code_batch b ON b.merchant_id = $1 AND b.pool_id = p.id
"""
ORDER = UUID("10000000-0000-0000-0000-000000000777")
ONE = UUID("20000000-0000-0000-0000-000000000777")
PRESENTED: dict[str, Any] = {
    "source": "STORE", "order_id": "777", "fingerprints": [], "email_index": None, "mailbox_index": None,
    "presenter": UUID(int=0xABCD), "key": b"key", "memory_pads": bytes(128),
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "values", "rows"),
    [
        (FIND_HOLD, {"hold_id": ONE, "member_id": None}, 1),
        (FIND_WITH_CODES, {"hold_id": ONE, "member_id": None}, 1),
        (FIND_TO_CAPTURE, {"hold_id": ONE}, 1),
        (FIND_HOLD_OF_ORDER, {"order_row_id": ORDER}, 1),
        (CODES_OF_HOLDS, {"hold_ids": [ONE]}, 1),
        (READ, PRESENTED, 1),
        (FIND_ASIDE, {"reward_ids": [ONE], "pool_ids": [ONE]}, 0),
    ],
    ids=["a hold", "with its codes", "to capture", "an order's", "codes", "what is presented", "late ones"],
)
async def test_one_hold_is_found_among_many(asked: Statement[Any], values: dict[str, Any], rows: int) -> None:
    values = {name: value for name, value in values.items() if name in asked.names}

    found, buffers = await buffers_planned_on_nothing(asked, CARTS, **values)

    assert found == rows
    assert buffers < 45


MEMBER = PRESENTED["presenter"]
FIRST_ORDER = UUID("10000000-0000-0000-0000-000000000001")
FIRST = UUID("20000000-0000-0000-0000-000000000001")
NEW_IDS = [UUID(int=0xABC0000 + number) for number in range(21)]
HOLDING: dict[str, Any] = {
    "code_ids": [UUID("30000000-0000-0000-0000-000000000001")], "terms_versions": [1], "places": [1], "bases": [100],
    "discounts": [0], "are_here": [False], "eligible": [None], "person_id": MEMBER, "person_mailbox": None,
    "first_keys": [], "first_versions": [], "presenter": MEMBER, "email_index": None, "order_row_id": NEW_IDS[0],
    "version": 0, "source": "STORE", "order_id": "new", "amount": 100, "currency": "USD", "total_discount": 0,
    "points": 0, "held_points": 0, "points_value": 0, "point_value": 1, "hold_id": NEW_IDS[1], "hold_version": 0,
    "lifetime_seconds": 900, "presented_by": b"", "key": b"key", "event_ids": NEW_IDS, "actor": "apikey_1",
    "payer_id": None,
}  # fmt: skip
CAPTURING: dict[str, Any] = {
    "hold_id": FIRST, "version": 1, "order_row_id": FIRST_ORDER, "source": "STORE", "order_id": "1", "points": 0,
    "value": 0, "is_late": False, "redemption_ids": NEW_IDS[1:], "event_ids": NEW_IDS[1:],
    "event_id": UUID(int=0xABD0000), "actor": "apikey_1",
}  # fmt: skip


async def test_holding_and_capturing_cost_the_same_beside_any_others() -> None:
    asked = [(hold_checkout.HOLD, HOLDING), (capture_hold.CAPTURE, CAPTURING)]

    few = await all_planned_on_nothing(asked, _CARTS.format(HOLDS // 10), FREE)
    beside_open = await all_planned_on_nothing(asked, CARTS, FREE)
    beside_past = await all_planned_on_nothing(asked, CARTS, PAST, FREE)

    assert [rows for rows, _ in few + beside_open + beside_past] == [1] * 6
    assert few[0][1] < 135
    assert few[1][1] < 105
    for (_, buffers), (_, more), (_, later) in zip(few, beside_open, beside_past, strict=True):
        # Each index may be one level deeper.
        assert max(more, later) <= buffers + 20


async def test_a_cart_is_few_round_trips_however_many_others_are_open(counter: Counter, counted_shop: Shop) -> None:
    shop = counted_shop
    member = await shop.member()
    await grant(shop, member, 1_000, "gift")
    codes = await stackable(shop, member, 12)

    async def waits(document: str, **input: Any) -> int:
        return len(await counter.during(lambda: shop.do(document, **input)))

    await database().row(CARTS, shop.merchant_id)
    trips: list[tuple[int, ...]] = []
    for number in range(3):
        first, second = codes[number * 4 : number * 4 + 2], codes[number * 4 + 2 : number * 4 + 4]
        placed = await waits(HOLD, **cart(first, member, order=f"codes-{number}"))
        paid = await waits(HOLD, **cart(second, member, order=f"points-{number}", points=10))
        plain, with_points = [
            await hold(shop, each, member, order=f"{name}-{number}", points=points)
            for each, name, points in ((first, "codes", 0), (second, "points", 10))
        ]
        extended = await waits(EXTEND, holdId=plain["id"], lifetimeSeconds=1_000)
        captured = await waits(CAPTURE, holdId=plain["id"])
        points = await waits(CAPTURE, holdId=with_points["id"])
        released = await waits(RELEASE, holdId=(await hold(shop, [], member, order=f"r-{number}", points=5))["id"])
        trips.append((placed, paid, extended, captured, points, released))

    # Read and written; what was held is told as it was written. Where it is captured or released its codes are read
    # then, with their redemptions; where points come free, between BEGIN and COMMIT.
    assert trips[-1] == (2, 2, 2, 3, 3, 7)
