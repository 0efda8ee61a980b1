"""What statements select of orders, purchases and their refunds, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.coupons.rows import CODE_OF_REDEMPTION, JOIN_CODE, WholeRedemptionRow
from app.members.rows import JOIN_MEMBER, MemberRow
from app.storage.database import database
from app.storage.statements import columns, row_of, statement


@row_of(b="purchase")
class PurchaseRow(TypedDict):
    """A purchase `b`; amounts are in minor units of its currency."""

    purchase_id: Annotated[UUID, "b.id"]
    purchase_source: Annotated[str, "b.source"]
    purchase_order_id: Annotated[str, "b.order_id"]
    purchase_amount: Annotated[int, "b.amount"]
    purchase_recorded_amount: Annotated[int, "b.recorded_amount"]
    purchase_refunded: Annotated[int, "b.refunded"]
    purchase_paid_points: Annotated[int, "b.paid_points"]
    purchase_paid_value: Annotated[int, "b.paid_value"]
    purchase_returned_points: Annotated[int, "b.returned_points"]
    purchase_returned_value: Annotated[int, "b.returned_value"]
    purchase_shares_from: Annotated[int, "b.shares_from"]
    purchase_shares_points: Annotated[int, "b.shares_points"]
    purchase_shares_value: Annotated[int, "b.shares_value"]
    purchase_currency: Annotated[str, "b.currency"]
    purchase_points: Annotated[int, "b.points"]
    purchase_points_per_unit: Annotated[Decimal, "b.points_per_unit"]
    purchase_minor_units: Annotated[int, "b.minor_units"]
    purchase_credits: Annotated[int, "b.credits"]
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


@row_of(f="refund")
class RefundRow(TypedDict):
    """A refund `f`, and what was told of it; money is in minor units of the purchase's currency."""

    refund_id: Annotated[UUID, "f.id"]
    refund_purchase_id: Annotated[UUID, "f.purchase_id"]
    refund_key: Annotated[str, "f.refund_id"]
    refund_amount: Annotated[int, "f.amount"]
    refund_taken: Annotated[int, "f.taken"]
    refund_shortfall: Annotated[int, "f.shortfall"]
    refund_points_returned: Annotated[int, "f.points_returned"]
    refund_points_expired: Annotated[int, "f.points_expired"]
    refund_points_forfeited: Annotated[int, "f.points_forfeited"]
    refund_money_returned: Annotated[int, "f.money_returned"]
    refund_ends_referral: Annotated[bool, "f.ends_referral"]
    refund_entry_ids: Annotated[list[UUID], "f.entry_ids"]
    refund_refunded_at: Annotated[datetime, "f.refunded_at"]


@row_of(f="refund", b="purchase")
class WholeRefundRow(RefundRow):
    """A refund with the currency of its purchase."""

    refund_currency: Annotated[str, "b.currency"]


class RefundableRow(StandingPurchaseRow):
    """A purchase of which a part goes back, and the refund that an earlier call made by the same id."""

    earlier_id: UUID | None


class ToldPurchaseRow(StandingPurchaseRow):
    """A purchase that a source tells again, and the hash of the key that named its buyer, if one did."""

    told_of: bytes | None
    order_cancelled_at: datetime | None


#: The referral that the purchase `b` converted.
REFERRAL_OF_PURCHASE: Final = "(SELECT id FROM referral WHERE merchant_id = :merchant_id AND purchase_id = b.id)"

FIND_PURCHASE: Final = statement(
    WholePurchaseRow,
    f"""
SELECT {columns(WholePurchaseRow)} FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = :merchant_id AND b.id = :purchase_id AND (:member_id::uuid IS NULL OR b.member_id = :member_id)
""",
)
#: The purchase of an order, asked for in an order that one index alone has: to a planner that saw the table empty any
#: index is as good.
OF_ORDER: Final = """
    merchant_id = :merchant_id AND source = :source AND order_id = ANY(ARRAY[:order_id::text]) ORDER BY order_id LIMIT 1
"""
FIND_BY_ORDER: Final = statement(
    ToldPurchaseRow,
    f"""
SELECT {columns(WholePurchaseRow)}, b.told_of, {REFERRAL_OF_PURCHASE} AS referral_id, (
    SELECT cancelled_at FROM sales_order
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id
) AS order_cancelled_at
FROM (SELECT * FROM purchase WHERE {OF_ORDER}) b {JOIN_MEMBER.format("b")}
""",
)


FIND_STANDING: Final = statement(
    StandingPurchaseRow,
    f"""
SELECT {columns(WholePurchaseRow)}, {REFERRAL_OF_PURCHASE} AS referral_id
FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = :merchant_id AND b.id = :purchase_id
""",
)
FIND_REFUNDABLE: Final = statement(
    RefundableRow,
    f"""
SELECT {columns(WholePurchaseRow)}, {REFERRAL_OF_PURCHASE} AS referral_id, (
    SELECT id FROM refund WHERE merchant_id = :merchant_id AND purchase_id = b.id AND refund_id = :refund_id
) AS earlier_id
FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = :merchant_id AND b.source = :source AND b.order_id = :order_id
""",
)
_JOIN_PURCHASE: Final = """
    CROSS JOIN LATERAL (SELECT * FROM purchase WHERE merchant_id = :merchant_id AND id = f.purchase_id OFFSET 0) b
"""
FIND_REFUND: Final = statement(
    WholeRefundRow,
    f"""
SELECT {columns(WholeRefundRow)} FROM refund f {_JOIN_PURCHASE}
WHERE f.merchant_id = :merchant_id AND f.id = :refund_id
    AND (:member_id::uuid IS NULL OR b.member_id = :member_id)
""",
)
REFUNDS_OF_PURCHASES: Final = statement(
    WholeRefundRow,
    f"""
SELECT {columns(WholeRefundRow)} FROM refund f {_JOIN_PURCHASE}
WHERE f.merchant_id = :merchant_id AND f.purchase_id = ANY(:purchase_ids::uuid[])
ORDER BY f.refunded_at, f.id
""",
)


async def standing_purchase(viewer: Viewer, purchase_id: UUID) -> StandingPurchaseRow | None:
    """Return a purchase and the referral that it converted, if it did."""
    return await database().row(FIND_STANDING, merchant_id=viewer.merchant_id, purchase_id=purchase_id)


async def refundable_purchase(viewer: Viewer, source: str, order_id: str, refund_id: str) -> RefundableRow | None:
    """Return the purchase that a source told by this id, and the refund that has this one, if there is one."""
    return await database().row(
        FIND_REFUNDABLE, merchant_id=viewer.merchant_id, source=source, order_id=order_id, refund_id=refund_id
    )


async def refund_row(viewer: Viewer, refund_id: UUID) -> WholeRefundRow | None:
    """Return a refund of the viewer's merchant; of a member's own purchase only."""
    return await database().row(
        FIND_REFUND, merchant_id=viewer.merchant_id, refund_id=refund_id, member_id=viewer.member_id
    )


async def refunds_by_purchase(viewer: Viewer, purchase_ids: list[UUID]) -> Mapping[UUID, list[WholeRefundRow]]:
    """Return the refunds of purchases, the oldest first."""
    rows = await database().rows(REFUNDS_OF_PURCHASES, merchant_id=viewer.merchant_id, purchase_ids=purchase_ids)
    grouped: defaultdict[UUID, list[WholeRefundRow]] = defaultdict(list)
    for row in rows:
        grouped[row["refund_purchase_id"]].append(row)
    return grouped


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
    """An order that is known by its codes or by a purchase, which then lends it its id, and what cancelling paid out.

    `version` is null for one that is known by a purchase alone. `paid_points` were paid for it with `payments` entries,
    before refunds. `point_value` is what a point pays for there: by the merchant's settings while none is paid.
    """

    order_row_id: UUID
    source: str
    order_id: str
    version: int | None
    order_amount: int | None
    payer_id: UUID | None
    paid_points: int
    paid_value: int
    point_value: Decimal
    payments: int
    cancelled_at: datetime | None
    money_returned: int | None
    points_returned: int | None
    points_expired: int | None
    shortfall: int | None


FIND_ORDER: Final = statement(
    OrderRow,
    f"""
SELECT coalesce(o.id, b.id) AS order_row_id, :source::text AS source, :order_id::text AS order_id, o.version,
    o.order_amount, o.payer_id, coalesce(o.paid_points, 0) AS paid_points, coalesce(o.paid_value, 0) AS paid_value,
    CASE WHEN o.paid_points > 0 THEN o.point_value
        ELSE (SELECT point_value FROM merchant WHERE merchant_id = :merchant_id) END AS point_value,
    coalesce(o.payments, 0) AS payments,
    o.cancelled_at, o.money_returned, o.points_returned, o.points_expired, o.shortfall
FROM (VALUES (1)) once
LEFT JOIN sales_order o ON o.merchant_id = :merchant_id AND o.source = :source AND o.order_id = :order_id
LEFT JOIN LATERAL (SELECT id FROM purchase WHERE {OF_ORDER}) b ON true
WHERE coalesce(o.id, b.id) IS NOT NULL
""",
)


class OrderNameRow(TypedDict):
    """What an order is called."""

    source: str
    order_id: str


NAME_ORDER: Final = statement(
    OrderNameRow,
    """
SELECT source, order_id FROM sales_order WHERE merchant_id = :merchant_id AND id = :order_row_id
UNION ALL
SELECT source, order_id FROM purchase WHERE merchant_id = :merchant_id AND id = :order_row_id
LIMIT 1
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


async def order_of_node(viewer: Viewer, node_id: str) -> OrderRow | None:
    """Return the order behind an id; for those who may see orders."""
    order_row_id = ids.decode("order", node_id)
    if order_row_id is None or not may(viewer.role, "Order"):
        return None
    name = await database().row(NAME_ORDER, merchant_id=viewer.merchant_id, order_row_id=order_row_id)
    return None if name is None else await find_order(viewer, name["source"], name["order_id"])


async def redemptions_of_order(viewer: Viewer, source: str, order_id: str) -> list[WholeRedemptionRow]:
    """Return the redemptions that stand on an order, in the order in which they apply."""
    return await database().rows(REDEMPTIONS_OF_ORDER, merchant_id=viewer.merchant_id, source=source, order_id=order_id)
