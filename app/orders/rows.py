"""What statements select of purchases, and what reads them."""

from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.members.rows import MEMBER_COLUMNS
from app.points.rows import (
    JOIN_MEMBER,
)
from app.storage.database import Row, database

PURCHASE_COLUMNS: Final = """
    b.id AS purchase_id, b.source AS purchase_source, b.order_id AS purchase_order_id, b.amount AS purchase_amount,
    b.currency AS purchase_currency, b.points AS purchase_points, b.occurred_at AS purchase_occurred_at,
    b.recorded_at AS purchase_recorded_at, b.reversed_at AS purchase_reversed_at
"""


FIND_PURCHASE: Final = f"""
SELECT {PURCHASE_COLUMNS}, {MEMBER_COLUMNS} FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = $1 AND b.id = $2 AND ($3::uuid IS NULL OR b.member_id = $3)
"""


async def find_purchase(viewer: Viewer, node_id: str) -> Row | None:
    """Return the purchase behind an id; a member sees its own only."""
    purchase_id = ids.decode("purchase", node_id)
    if purchase_id is None:
        return None
    return await purchase_row(viewer, purchase_id)


async def purchase_row(viewer: Viewer, purchase_id: UUID) -> Row | None:
    """Return a purchase of the viewer's merchant; a member's own only."""
    return await database().row(FIND_PURCHASE, viewer.merchant_id, purchase_id, viewer.member_id)
