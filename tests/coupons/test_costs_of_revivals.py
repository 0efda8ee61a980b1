"""Lists of a pool that was extended. Without these a page could read all codes that wait for their revival."""

from typing import Final
from uuid import UUID

import pytest

from app.coupons.rows import CODES_OF_POOLS
from tests.scratch import buffers_planned_on_nothing
from tests.sizes import size

CODES: Final = size(3000, 100_000)
LAST: Final = UUID(int=2**128 - 1)
POOL: Final = UUID(int=7)
#: A pool with a later end whose codes were all written down as EXPIRED, and the row for the job that revives. The
#: oldest three died of their own end, the next three with the pool, and their own end has passed since. {0} says which
#: of the others died with the pool, and have an end of their own tomorrow.
EXTENDED: Final = f"""
WITH p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, gift_sku, claims_per_member, stacking, transferable,
                      created_at)
    VALUES ($1, '{POOL}', 'x', 'DRAFT', 'GIFT', 'x', 1, 'STACKABLE', false, now()) RETURNING id
), b AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT $1, gen_random_uuid(), id, 5000, now() FROM p RETURNING id, pool_id
), r AS (
    INSERT INTO code_revival (merchant_id, pool_id) SELECT $1, id FROM p
)
INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix, email_index,
                  allocated_at, expires_at, died_with_pool)
SELECT $1, ('00000000-0000-0000-0000-' || lpad(each::text, 12, '0'))::uuid, pool_id, b.id, 'EXPIRED', '\\x00',
    sha256(each::text::bytea), 'AA', sha256(each::text::bytea), now(),
    now() + interval '1 day' * CASE WHEN each > 6 AND {{0}} THEN 1 ELSE -1 END, each > 3 AND (each <= 6 OR {{0}})
FROM b, generate_series(1, {CODES}) AS each
"""


@pytest.mark.parametrize(
    ("with_the_pool", "state", "rows"),
    [("true", "ALLOCATED", 21), ("true", "EXPIRED", 6), ("each <= 9", "ALLOCATED", 3), ("each <= 9", "EXPIRED", 21)],
)
async def test_a_page_of_an_extended_pool_costs_what_any_page_does(with_the_pool: str, state: str, rows: int) -> None:
    found, buffers = await buffers_planned_on_nothing(
        CODES_OF_POOLS, EXTENDED.format(with_the_pool), pool_ids=[POOL], before=LAST, limit=21, state=state
    )

    assert found == rows
    assert buffers < 100
