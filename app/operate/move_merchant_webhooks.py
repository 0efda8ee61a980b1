"""The webhooks of a merchant that moves: told of all that happened before, at the other server of all that comes after.

Which events a webhook was told of is known by transactions, which each server counts for itself. So at the source every
event becomes a delivery, deliveries are copied as they are, and the feed begins anew after the last row.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from app import ids
from app.webhooks.feed import BATCH, BEGIN_ANEW, STEP, unseen

#: Webhooks that are disabled, and since when.
Disabled = dict[UUID, datetime]

# A disabled one is told of what came before it was disabled.
FIND: Final = """
SELECT id, disabled_at FROM webhook w WHERE merchant_id = $1 AND NOT EXISTS (
    SELECT FROM unnest($2::uuid[], $3::timestamptz[]) AS told (id, disabled_at)
    WHERE told.id = w.id AND told.disabled_at = w.disabled_at
)
ORDER BY id
"""
HOLD: Final = "SELECT FROM webhook WHERE merchant_id = $1 AND id = $2 FOR UPDATE"
#: Lets this transaction write to a closed merchant.
MOVER: Final = "SELECT set_config('flash.mover', $1, true)"
BEGIN: Final = f"""
UPDATE webhook SET feed_from = now.seen::text, feed_to = NULL, feed_txid = NULL, feed_event_id = NULL,
    skipped = CASE WHEN disabled_at IS NULL THEN '{{}}' ELSE {unseen("now.seen")}::text END
FROM (SELECT pg_current_snapshot() AS seen) now WHERE merchant_id = $1
"""


async def make_deliveries(connection: asyncpg.Connection, merchant_id: UUID, told: Disabled | None = None) -> Disabled:
    """Turn all that webhooks weren't told of into deliveries, at the source. Returns the disabled webhooks.

    While they are disabled they have nothing more to be told of, and are passed over if they are in `told`. Safe beside
    workers that do the same.
    """
    told = told or {}
    disabled = {}
    for webhook in await connection.fetch(FIND, merchant_id, list(told), list(told.values())):
        is_enabled = webhook["disabled_at"] is None
        while not await _step(connection, merchant_id, webhook["id"], is_enabled=is_enabled):
            pass
        if not is_enabled:
            disabled[webhook["id"]] = webhook["disabled_at"]
    return disabled


async def _step(connection: asyncpg.Connection, merchant_id: UUID, webhook_id: UUID, *, is_enabled: bool) -> bool:
    """Take a step of a webhook's feed. Returns whether it was the last."""
    name = {"merchant_id": merchant_id, "webhook_id": webhook_id}
    async with connection.transaction():
        await connection.fetchval(MOVER, str(merchant_id))
        await connection.execute(HOLD, merchant_id, webhook_id)
        if is_enabled:
            now = await connection.fetchval("SELECT pg_current_snapshot()::text")
            await connection.execute(BEGIN_ANEW.text, *BEGIN_ANEW.arguments({**name, "now": now}))
        values = {**name, "batch": BATCH, "delivery_ids": [ids.new() for _ in range(BATCH)]}
        (row,) = await connection.fetch(STEP.text, *STEP.arguments(values))
    return bool(row["is_end"])


async def begin(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    """Let the feed begin after all that is committed at the target."""
    async with connection.transaction():
        await connection.fetchval(MOVER, str(merchant_id))
        await connection.execute(BEGIN, merchant_id)
