"""Old deliveries go, a bounded number of rows at a time, and so do secrets that aren't good any more."""

from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict

from app import ids
from app.config import settings
from app.storage.database import database
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

BATCH: Final = 5_000


class ForgottenRow(TypedDict):
    """How many deliveries were deleted."""

    deliveries: int


# Ids are in the order in which deliveries were made; one may have been accepted much later, and is kept from then on.
# What is being made again is left alone.
FORGET: Final = statement(
    ForgottenRow,
    f"""
WITH old AS (
    SELECT each.* FROM webhook w
    CROSS JOIN (VALUES
        ('DELIVERED', :delivered_before::uuid, :delivered_since::timestamptz), ('DEAD', :dead_before, :dead_since)
    ) AS kept (state, before, since)
    CROSS JOIN LATERAL (
        SELECT merchant_id, id FROM webhook_delivery
        WHERE merchant_id = w.merchant_id AND webhook_id = w.id AND state = kept.state AND id < kept.before
            AND settled_at < kept.since
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
    ) each
    WHERE {stands("w")}
    LIMIT :limit
), gone AS (
    DELETE FROM webhook_delivery d USING old WHERE d.merchant_id = old.merchant_id AND d.id = old.id RETURNING d.id
)
SELECT count(*)::int AS deliveries FROM gone
""",
)
FORGET_SECRETS: Final = statement(
    NoRow,
    f"""
UPDATE webhook w SET previous_secret = NULL, previous_secret_until = NULL
WHERE previous_secret_until < now() AND {stands("w")}
""",
)


async def forget_batch() -> int:
    """Delete some deliveries that ended longer ago than they are kept. Returns how many.

    Safe to run twice and at once.
    """
    await database().row(FORGET_SECRETS)
    now, limits = datetime.now(UTC), settings()
    delivered_since = now - timedelta(days=limits.webhook_history_days)
    dead_since = now - timedelta(days=limits.webhook_dead_history_days)
    (counted,) = await database().many(
        FORGET,
        delivered_before=ids.first_at(delivered_since),
        delivered_since=delivered_since,
        dead_before=ids.first_at(dead_since),
        dead_since=dead_since,
        limit=BATCH,
    )
    return counted["deliveries"]
