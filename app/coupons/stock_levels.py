"""Stock levels: when a pool's stock falls to 50, 25, 10 or 0 % of its codes, that is an event, once."""

import time
from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.storage.database import Statements, database
from app.storage.events import event
from app.storage.fences import stands
from app.storage.lasting import Lasting
from app.storage.statements import NoRow, statement

#: In percent of all codes ever generated in the pool.
LEVELS: Final = (50, 25, 10, 0)
#: What other processes claim is noticed this late, at most, while this one claims from the pool too.
TRUSTED_SECONDS: Final = 2.0
POOLS_KEPT_MAX: Final = 10_000


class _StockRow(TypedDict):
    available: int
    total: int


class _PoolRow(TypedDict):
    merchant_id: UUID
    pool_id: UUID


#: Fresh codes were generated: levels that the stock is above again can be crossed again.
FORGET: Final = statement(
    NoRow,
    """
DELETE FROM stock_alert WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND level * (
    SELECT sum(available + allocated + redeemed + expired + revoked) FROM stock_change
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id
) < 100 * (SELECT sum(available) FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = :pool_id)
""",
)


@dataclass(slots=True)
class _Watch:
    """How many codes this process may still take from a pool before it looks at the stock again."""

    unwatched: int


_watches: Lasting[UUID, _Watch] = Lasting(POOLS_KEPT_MAX)


def is_due(pool_id: UUID) -> bool:
    """Take note that one code left a pool's stock. Returns whether a level may have been reached: then `check` looks.

    Looking reads every row of the pool's stock, so it is done rarely: a quarter of the codes down to the next level
    go unwatched. Up to four processes can't pass a level unseen that way, more of them for two seconds at most; what
    dies between the claim and the look is found by `check_missed`.
    """
    kept = _watches.get(pool_id)
    if kept is None or kept.unwatched <= 0:
        return True
    kept.unwatched -= 1
    return False


CHECK: Final = statement(
    _StockRow,
    f"""
WITH stock AS (
    SELECT coalesce(sum(available), 0) AS available,
        coalesce(sum(available + allocated + redeemed + expired + revoked), 0) AS total
    FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = :pool_id
), fallen AS (
    -- A level that is on record stays so: of two processes that see it crossed, one writes the event.
    INSERT INTO stock_alert (merchant_id, pool_id, level, raised_at)
    SELECT :merchant_id, :pool_id, level, now() FROM stock, unnest(:levels::smallint[]) AS level
    WHERE total > 0 AND available * 100 <= level * total
    ON CONFLICT DO NOTHING RETURNING level
), recorded AS (
    {
        event(
            [(f"pool.stock_fell_to_{level}", f"level = {level}") for level in LEVELS],
            id="(:event_ids::uuid[])[row_number() OVER (ORDER BY level DESC)]",
            subject=":pool_id",
            source="fallen",
        )
    }
)
SELECT available, total FROM stock
""",
)


async def check(where: Statements, merchant_id: UUID, pool_id: UUID, actor: str) -> None:
    """Look at a pool's stock and put the levels that it has fallen to on record."""
    row = await where.row(
        CHECK,
        merchant_id=merchant_id,
        pool_id=pool_id,
        levels=LEVELS,
        event_ids=[ids.new() for _ in LEVELS],
        actor=actor,
    )
    if row is None:
        raise RuntimeError("an aggregate returned no row")
    unwatched = _left_to_next(row["available"], row["total"]) // 4
    _watches.keep(pool_id, _Watch(unwatched), time.monotonic() + TRUSTED_SECONDS)


def _left_to_next(available: int, total: int) -> int:
    """Return how many codes can still leave the stock until it is at the next level."""
    return min((available - level * total // 100 for level in LEVELS if available * 100 > level * total), default=0)


# Pools with changes that aren't folded yet: folding looks at the levels, too.
MISSED: Final = statement(
    _PoolRow,
    f"""
SELECT s.merchant_id, s.pool_id FROM (
    SELECT merchant_id, pool_id FROM stock_change c WHERE NOT is_folded AND {stands("c")} GROUP BY merchant_id, pool_id
) changed CROSS JOIN LATERAL (
    SELECT changed.merchant_id, changed.pool_id, sum(available) AS available,
        sum(available + allocated + redeemed + expired + revoked) AS total
    FROM stock_change WHERE merchant_id = changed.merchant_id AND pool_id = changed.pool_id
) s
WHERE total > 0
    AND (SELECT count(*) FROM unnest(:levels::smallint[]) AS level WHERE available * 100 <= level * total)
        > (SELECT count(*) FROM stock_alert a WHERE a.merchant_id = s.merchant_id AND a.pool_id = s.pool_id)
""",
)


async def check_missed() -> int:
    """Record what claims left unrecorded: their process died, or others took the last codes. Returns how many pools."""
    missed = await database().rows(MISSED, levels=LEVELS)
    for row in missed:
        await check(database(), row["merchant_id"], row["pool_id"], "system")
    return len(missed)
