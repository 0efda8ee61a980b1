"""What statements select of purchases, and what reads them."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.members.rows import MEMBER_COLUMNS
from app.points.rows import (
    JOIN_MEMBER,
)
from app.storage.database import Row, database
from app.storage.statements import columns, row_of


@row_of(b="purchase")
class PurchaseRow(TypedDict):
    """A purchase `b`; the amount is in minor units of its currency."""

    purchase_id: Annotated[UUID, "b.id"]
    purchase_source: Annotated[str, "b.source"]
    purchase_order_id: Annotated[str, "b.order_id"]
    purchase_amount: Annotated[int, "b.amount"]
    purchase_currency: Annotated[str, "b.currency"]
    purchase_points: Annotated[int, "b.points"]
    purchase_occurred_at: Annotated[datetime, "b.occurred_at"]
    purchase_recorded_at: Annotated[datetime, "b.recorded_at"]
    purchase_reversed_at: Annotated[datetime | None, "b.reversed_at"]


PURCHASE_COLUMNS: Final = columns(PurchaseRow)


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
