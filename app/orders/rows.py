"""What statements select of orders and purchases, and what reads them."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons.rows import CODE_OF_REDEMPTION, JOIN_CODE, WholeRedemptionRow
from app.members.rows import JOIN_MEMBER, MemberRow
from app.storage.database import database
from app.storage.statements import columns, row_of, statement


@row_of(b="purchase")
class PurchaseRow(TypedDict):
    """A purchase `b`; the amount is in minor units of its currency."""

    purchase_id: Annotated[UUID, "b.id"]
    purchase_source: Annotated[str, "b.source"]
    purchase_order_id: Annotated[str, "b.order_id"]
    purchase_amount: Annotated[int, "b.amount"]
    purchase_currency: Annotated[str, "b.currency"]
    purchase_points: Annotated[int, "b.points"]
    purchase_spendable_at: Annotated[datetime | None, "b.spendable_at"]
    purchase_occurred_at: Annotated[datetime, "b.occurred_at"]
    purchase_recorded_at: Annotated[datetime, "b.recorded_at"]
    purchase_reversed_at: Annotated[datetime | None, "b.reversed_at"]


@row_of(b="purchase", m="member", w="wallet")
class WholePurchaseRow(PurchaseRow, MemberRow):
    """A purchase with its member."""


class StandingPurchaseRow(WholePurchaseRow):
    """A purchase, and the referral that it converted, if it did."""

    referral_id: UUID | None


class ToldPurchaseRow(StandingPurchaseRow):
    """A purchase that a source tells again, and the hash of the key that named its buyer, if one did."""

    told_of: bytes | None


#: The referral that the purchase `b` converted.
REFERRAL_OF_PURCHASE: Final = "(SELECT id FROM referral WHERE merchant_id = :merchant_id AND purchase_id = b.id)"

FIND_PURCHASE: Final = statement(
    WholePurchaseRow,
    f"""
SELECT {columns(WholePurchaseRow)} FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = :merchant_id AND b.id = :purchase_id AND (:member_id::uuid IS NULL OR b.member_id = :member_id)
""",
)
FIND_BY_ORDER: Final = statement(
    ToldPurchaseRow,
    f"""
SELECT {columns(WholePurchaseRow)}, b.told_of, {REFERRAL_OF_PURCHASE} AS referral_id
FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = :merchant_id AND b.source = :source AND b.order_id = :order_id
""",
)


async def find_purchase(viewer: Viewer, node_id: str) -> WholePurchaseRow | None:
    """Return the purchase behind an id; a member sees its own only."""
    purchase_id = ids.decode("purchase", node_id)
    if purchase_id is None:
        return None
    return await purchase_row(viewer, purchase_id)


async def purchase_row(viewer: Viewer, purchase_id: UUID) -> WholePurchaseRow | None:
    """Return a purchase of the viewer's merchant; a member's own only."""
    return await database().row(
        FIND_PURCHASE, merchant_id=viewer.merchant_id, purchase_id=purchase_id, member_id=viewer.member_id
    )


async def purchase_by_order(viewer: Viewer, source: str, order_id: str) -> ToldPurchaseRow | None:
    """Return the purchase that a source told by this id."""
    return await database().row(FIND_BY_ORDER, merchant_id=viewer.merchant_id, source=source, order_id=order_id)


class OrderRow(TypedDict):
    """An order that is known, by a purchase or by its codes."""

    cancelled_at: datetime | None


FIND_ORDER: Final = statement(
    OrderRow,
    """
SELECT o.cancelled_at FROM (VALUES (1)) once
LEFT JOIN sales_order o ON o.merchant_id = :merchant_id AND o.source = :source AND o.order_id = :order_id
WHERE o.id IS NOT NULL OR EXISTS (
    SELECT FROM purchase WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id
)
""",
)
REDEMPTIONS_OF_ORDER: Final = statement(
    WholeRedemptionRow,
    f"""
SELECT {columns(WholeRedemptionRow)} FROM redemption r {CODE_OF_REDEMPTION} {JOIN_CODE}
WHERE r.merchant_id = :merchant_id AND r.source = :source AND r.order_id = :order_id AND r.reversed_at IS NULL
ORDER BY r.position
""",
)


async def find_order(viewer: Viewer, source: str, order_id: str) -> OrderRow | None:
    """Return an order of which a purchase or codes are known."""
    return await database().row(FIND_ORDER, merchant_id=viewer.merchant_id, source=source, order_id=order_id)


async def redemptions_of_order(viewer: Viewer, source: str, order_id: str) -> list[WholeRedemptionRow]:
    """Return the redemptions that stand on an order, in the order in which they apply."""
    return await database().rows(REDEMPTIONS_OF_ORDER, merchant_id=viewer.merchant_id, source=source, order_id=order_id)
