"""Expiry of holds: one whose time has passed is written down as EXPIRED, and what it held is free.

A job does that each minute, and whoever lacks what such a hold has.
"""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from app.coupons.overdue import ends_what_is_aside
from app.orders.holds import HoldRow, end_hold
from app.storage.database import database
from app.storage.fences import stands
from app.storage.restarts import begun_anew
from app.storage.statements import columns, statement

BATCH: Final = 500


class DueRow(HoldRow):
    """A hold whose time has passed, and whose it is."""

    merchant_id: UUID


FIND: Final = statement(
    DueRow,
    f"""
SELECT m.merchant_id, {columns(HoldRow)} FROM merchant m CROSS JOIN LATERAL (
    SELECT * FROM hold
    WHERE hold.merchant_id = m.merchant_id AND status = 'HELD' AND held_until <= now() ORDER BY held_until LIMIT {BATCH}
) h JOIN sales_order o ON o.merchant_id = m.merchant_id AND o.id = h.sales_order_id
WHERE {stands("m")}
""",
)


async def expire_holds() -> int:
    """Expire all holds whose time has passed, one by one. Returns how many. Safe to run twice and at once."""
    expired = 0
    while due := await database().rows(FIND):
        ended = 0
        for row in due:
            ended += await _expire(row)
        expired += ended
        if not ended:
            break
    return expired


# Those that are late are few, so that each can be asked for what it has.
FIND_ASIDE: Final = statement(
    DueRow,
    f"""
SELECT h.merchant_id, {columns(HoldRow)} FROM (
    SELECT * FROM hold
    WHERE merchant_id = :merchant_id AND status = 'HELD' AND held_until <= now() AND held_points > 0
    ORDER BY held_until OFFSET 0
) h
CROSS JOIN LATERAL (
    SELECT * FROM sales_order WHERE merchant_id = :merchant_id AND id = ANY(ARRAY[h.sales_order_id])
    ORDER BY id OFFSET 0
) o
WHERE EXISTS (
    SELECT FROM hold_reward y WHERE y.merchant_id = :merchant_id AND y.hold_id = h.id AND (
        (y.is_from_stock AND y.reward_id = ANY(:reward_ids::uuid[]))
        OR (SELECT pool_id FROM code WHERE merchant_id = :merchant_id AND id = y.code_id) = ANY(ARRAY(
            SELECT unnest(:pool_ids::uuid[])
            UNION ALL SELECT pool_id FROM reward WHERE merchant_id = :merchant_id AND id = ANY(:reward_ids)
        ))
    )
)
""",
)


@ends_what_is_aside
async def end_aside(merchant_id: UUID, reward_ids: Collection[UUID], pool_ids: Collection[UUID] = ()) -> bool:
    """End holds whose time has passed that have such rewards from stock, or codes of such pools or the rewards' pools.

    Returns whether there was one. Each ends in a transaction of its own.
    """
    late = await database().rows(
        FIND_ASIDE, merchant_id=merchant_id, reward_ids=list(reward_ids), pool_ids=list(pool_ids)
    )
    return await _expire_all(late)


FIND_OF_BUDGETS: Final = statement(
    DueRow,
    f"""
SELECT h.merchant_id, {columns(HoldRow)} FROM (
    SELECT * FROM hold
    WHERE merchant_id = :merchant_id AND status = 'HELD' AND held_until <= now() ORDER BY held_until OFFSET 0
) h
CROSS JOIN LATERAL (
    SELECT * FROM sales_order WHERE merchant_id = :merchant_id AND id = ANY(ARRAY[h.sales_order_id])
    ORDER BY id OFFSET 0
) o
WHERE EXISTS (
    SELECT FROM hold_code k
    WHERE k.merchant_id = :merchant_id AND k.hold_id = h.id AND k.pool_id = ANY(:pool_ids::uuid[])
)
""",
)


async def end_of_budgets(merchant_id: UUID, pool_ids: Collection[UUID]) -> bool:
    """End holds whose time has passed that have something of the budgets of such pools, each by itself.

    Returns whether there was one. Where there was none, one may have ended since the budgets were read.
    """
    late = await database().rows(FIND_OF_BUDGETS, merchant_id=merchant_id, pool_ids=list(pool_ids))
    return await _expire_all(late)


async def _expire_all(late: Sequence[DueRow]) -> bool:
    """See that all have ended, whoever ends them. Returns whether there was one."""
    for row in late:
        await _expire(row)
    return bool(late)


async def _expire(row: DueRow) -> bool:
    """Expire one hold; False for one that isn't of this version any more: it was extended, captured or ended."""
    ended = await begun_anew(lambda: end_hold(row["merchant_id"], "system", row, "EXPIRED"))
    return ended is not None
