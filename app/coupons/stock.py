"""Folding the rows of a pool's stock: many small changes become one with the same sum."""

from typing import Final

from app.storage.database import database

#: Pools with fewer rows are left alone: reading them is cheap.
ROWS_MIN: Final = 50
ROWS_PER_STATEMENT_MAX: Final = 50_000

FIND: Final = """
SELECT merchant_id, pool_id, count(*) AS rows FROM stock_change GROUP BY merchant_id, pool_id HAVING count(*) >= $1
"""
# Two folds at once delete different rows or wait for each other; a reader sees the rows or their sum, never both.
FOLD: Final = """
WITH old AS (
    SELECT id FROM stock_change WHERE merchant_id = $1 AND pool_id = $2 LIMIT $3 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM stock_change USING old
    WHERE stock_change.merchant_id = $1 AND stock_change.pool_id = $2 AND stock_change.id = old.id
    RETURNING available, allocated, redeemed, expired, revoked
)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
SELECT $1, $2, gen_random_uuid(), sum(available), sum(allocated), sum(redeemed), sum(expired), sum(revoked)
FROM gone HAVING count(*) > 0
RETURNING id
"""


async def fold_stock() -> int:
    """Fold every pool that has many rows. Returns how many pools were folded. Safe to run twice and at once."""
    crowded = await database().rows(FIND, ROWS_MIN)
    for row in crowded:
        await database().row(FOLD, row["merchant_id"], row["pool_id"], ROWS_PER_STATEMENT_MAX)
    return len(crowded)
