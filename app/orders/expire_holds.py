"""Expiry of holds: one whose time has passed is written down as EXPIRED, and what it held is free."""

from typing import Final
from uuid import UUID

import asyncpg

from app.api.operations import RESTARTS_MAX
from app.orders.holds import HoldRow, end_hold
from app.storage.database import database
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


async def _expire(row: DueRow) -> bool:
    """Expire one hold; False for one that was extended or captured meanwhile, which isn't of this version any more."""
    restarts = 0
    while True:
        try:
            return await end_hold(row["merchant_id"], "system", row, "EXPIRED") is not None
        except asyncpg.DeadlockDetectedError:
            # What PostgreSQL ended so that another could go on has left nothing behind: it begins again.
            restarts += 1
            if restarts == RESTARTS_MAX:
                raise
