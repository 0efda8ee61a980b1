"""Holds of points, made at the ledger: each change in a transaction of its own."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app import ids
from app.points.capturing import Captured, capture_points
from app.points.freeing import Freed, HoldEvent, free_points
from app.points.holding import Holding, hold_points
from app.points.types import PointsReason
from app.storage.database import Tx, database, transaction
from tests.factories import Shop
from tests.points.documents import member_uuid
from tests.points.ledger import granted

# The rows of a hold that are beside its points. It stays HELD whatever becomes of them.
WRITE = """
WITH o AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, currency, version)
    VALUES ($1, $2, 'STORE', $2::uuid, 'USD', 1) ON CONFLICT DO NOTHING
)
INSERT INTO hold (merchant_id, id, sales_order_id, member_id, order_amount, currency, total_discount, points,
                  points_value, point_value, held_points, status, version, held_at, held_until, presented_by)
VALUES ($1, $2, $2, $3, 0, 'USD', 0, $4, 0, 1, $4, 'HELD', 1, now(), now() + interval '1 hour', '')
ON CONFLICT (merchant_id, id) DO UPDATE SET points = excluded.points,
    held_points = excluded.held_points, version = hold.version + 1
"""
SETTLE = """
UPDATE hold SET version = version + 1, points = parts.points, held_points = parts.points
FROM (SELECT coalesce(sum(amount), 0) AS points FROM hold_part WHERE merchant_id = $1 AND hold_id = $2) parts
WHERE merchant_id = $1 AND id = $2 AND held_points <> parts.points
"""
PARTS = """
SELECT p.position, e.origin, p.amount FROM hold_part p JOIN points_lot l ON l.merchant_id = $1 AND l.entry_id = p.lot_id
JOIN points_entry e ON e.merchant_id = $1 AND e.id = p.lot_id
WHERE p.merchant_id = $1 AND p.hold_id = $2 ORDER BY p.position, l.expires_at, l.created_at
"""


async def held(
    shop: Shop,
    member: Any,
    *amounts: int,
    hold_id: UUID | None = None,
    event_type: HoldEvent = "hold.placed",
) -> tuple[UUID, Holding]:
    """Let a hold have points of a member: a new one unless it is told."""
    hold_id = hold_id or ids.new()
    async with transaction(shop.merchant_id) as tx:
        holding = await hold_points(
            tx, shop.merchant_id, "system", member_uuid(member), hold_id, amounts, event_type=event_type,
            reference="order",
        )  # fmt: skip
        if holding.is_held:
            await tx.rows(WRITE, shop.merchant_id, hold_id, member_uuid(member), sum(amounts))
    return hold_id, holding


async def settle(tx: Tx, merchant_id: UUID, hold_id: UUID) -> None:
    """Write down how many points a hold has left."""
    await tx.rows(SETTLE, merchant_id, hold_id)


async def captured(
    shop: Shop,
    member: Any,
    hold_id: UUID,
    points: int,
    position: int = 0,
    reason: PointsReason = PointsReason.REWARD,
) -> Captured:
    """Let an entry take points that a hold has at a position."""
    async with transaction(shop.merchant_id) as tx:
        taken = await capture_points(
            tx, shop.merchant_id, "system", member_uuid(member), hold_id, position=position, points=points,
            reason=reason, origin=f"{hold_id.hex}/{position}", reference="order",
        )  # fmt: skip
        await settle(tx, shop.merchant_id, hold_id)
        return taken


async def freed(shop: Shop, member: Any, hold_id: UUID, event_type: HoldEvent = "hold.released") -> Freed | None:
    """Free all points of a hold."""
    async with transaction(shop.merchant_id) as tx:
        came_free = await free_points(
            tx, shop.merchant_id, "system", member_uuid(member), hold_id, event_type=event_type, reference="order"
        )
        await settle(tx, shop.merchant_id, hold_id)
        return came_free


async def parts(shop: Shop, hold_id: UUID, *keys: str) -> Sequence[tuple[Any, ...]]:
    """Return what a hold has: position, key of the grant or origin of the credit, points."""
    known = {await granted(shop, key): key for key in keys}
    rows = await database().rows(PARTS, shop.merchant_id, hold_id)
    return [(row["position"], known.get(row["origin"], row["origin"]), row["amount"]) for row in rows]
