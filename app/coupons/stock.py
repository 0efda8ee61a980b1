"""Folding the rows of a pool's stock: many small changes become one with the same sum."""

from typing import Final, TypedDict
from uuid import UUID

from app.storage.database import database
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

#: Pools with fewer rows are left alone: reading them is cheap.
ROWS_MIN: Final = 50
ROWS_PER_STATEMENT_MAX: Final = 50_000


class _CrowdedRow(TypedDict):
    merchant_id: UUID
    pool_id: UUID


FIND: Final = statement(
    _CrowdedRow,
    f"""
SELECT merchant_id, pool_id FROM stock_change s WHERE {stands("s")}
GROUP BY merchant_id, pool_id HAVING count(*) >= :rows_min
""",
)
# Two folds at once delete different rows; a reader sees the rows or their sum, never both.
FOLD: Final = statement(
    NoRow,
    """
WITH old AS (
    SELECT id FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = :pool_id
    LIMIT :limit FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM stock_change USING old
    WHERE stock_change.merchant_id = :merchant_id AND stock_change.pool_id = :pool_id AND stock_change.id = old.id
    RETURNING available, allocated, redeemed, expired, revoked
)
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
SELECT :merchant_id, :pool_id, gen_random_uuid(), sum(available), sum(allocated), sum(redeemed), sum(expired),
    sum(revoked)
FROM gone HAVING count(*) > 0
""",
)


async def fold_stock() -> int:
    """Fold every pool that has many rows. Returns how many pools were folded. Safe to run twice and at once."""
    crowded = await database().rows(FIND, rows_min=ROWS_MIN)
    for row in crowded:
        await database().row(FOLD, merchant_id=row["merchant_id"], pool_id=row["pool_id"], limit=ROWS_PER_STATEMENT_MAX)
    return len(crowded)
