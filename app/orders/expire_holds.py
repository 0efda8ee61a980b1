"""Expiry of holds: one whose time has passed is written down as EXPIRED, and what it held is free."""

from typing import Final, TypedDict
from uuid import UUID

from app.orders.holds import end_hold
from app.storage.database import database
from app.storage.statements import statement

BATCH: Final = 500


class _DueRow(TypedDict):
    merchant_id: UUID
    hold_id: UUID
    version: int


FIND: Final = statement(
    _DueRow,
    f"""
SELECT m.merchant_id, due.id AS hold_id, due.version FROM merchant m CROSS JOIN LATERAL (
    SELECT id, version FROM hold
    WHERE hold.merchant_id = m.merchant_id AND status = 'HELD' AND held_until <= now() ORDER BY held_until LIMIT {BATCH}
) due
""",
)


async def expire_holds() -> int:
    """Expire all holds whose time has passed, one by one. Returns how many. Safe to run twice and at once."""
    expired = 0
    while due := await database().rows(FIND):
        ended = 0
        for row in due:
            # One that was extended or captured meanwhile isn't of this version any more.
            done = await end_hold(
                database(), row["merchant_id"], "system", row["hold_id"], "EXPIRED", version=row["version"]
            )
            ended += done is not None
        expired += ended
        if not ended:
            break
    return expired
