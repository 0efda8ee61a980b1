"""Folding the rows of a pool's stock: many small changes become one with the same sum."""

import time
from typing import Final, TypedDict
from uuid import UUID

from app.coupons.stock_levels import check
from app.storage.database import database, transaction
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

#: Pools with fewer changes are left alone for a while: reading them is cheap.
ROWS_MIN: Final = 50
ROWS_PER_STATEMENT_MAX: Final = 50_000
#: How often a process folds pools with fewer changes, too: so what the jobs look at is what changed lately.
TIDY_SECONDS: Final = 300.0


class _CrowdedRow(TypedDict):
    merchant_id: UUID
    pool_id: UUID


FIND: Final = statement(
    _CrowdedRow,
    f"""
SELECT merchant_id, pool_id FROM stock_change s WHERE NOT is_folded AND {stands("s")}
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
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked, is_folded)
SELECT :merchant_id, :pool_id, gen_random_uuid(), sum(available), sum(allocated), sum(redeemed), sum(expired),
    sum(revoked), true
FROM gone HAVING count(*) > 0
""",
)

_tidied_at = time.monotonic()


async def fold_stock() -> int:
    """Fold pools with many changes, and now and then all that have some. Returns how many. Safe to run at once."""
    global _tidied_at  # noqa: PLW0603  (of this process)
    is_tidying = time.monotonic() - _tidied_at >= TIDY_SECONDS
    crowded = await database().rows(FIND, rows_min=1 if is_tidying else ROWS_MIN)
    for row in crowded:
        await fold(row["merchant_id"], row["pool_id"])
    if is_tidying:
        _tidied_at = time.monotonic()
    return len(crowded)


async def fold(merchant_id: UUID, pool_id: UUID) -> None:
    """Fold the changes of a pool's stock, and put on record what they brought: nobody looks at folded ones again."""
    async with transaction(merchant_id) as tx:
        await tx.row(FOLD, merchant_id=merchant_id, pool_id=pool_id, limit=ROWS_PER_STATEMENT_MAX)
        await check(tx, merchant_id, pool_id, "system")
