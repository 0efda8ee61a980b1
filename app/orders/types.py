"""Orders, purchases and refunds as the API shows them."""

from datetime import datetime
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Money
from app.api.node import refetches
from app.api.operations import Info, Node, Refusal, Refused, field
from app.api.scalars import BigInt
from app.coupons.types import Redemption
from app.members.types import Member, MemberSource
from app.orders.hold_types import Hold
from app.orders.holds import standing_hold
from app.orders.rows import (
    OrderRow,
    PurchaseRow,
    WholePurchaseRow,
    WholeRefundRow,
    find_purchase,
    order_of_node,
    purchase_by_order,
    redemptions_of_order,
    refund_row,
    refunds_by_purchase,
)
from app.orders.rules import kept_points
from app.storage.wallet_versions import ChangeRow


@strawberry.type(description="A part of a purchase that went back.")
class Refund(Node):
    refund_id: str = strawberry.field(description="The shop's own id of it, once for each order.")
    amount: Money = strawberry.field(description="How much of the purchase's amount went back.")
    refunded_at: datetime = strawberry.field(description="When.")

    @classmethod
    def of(cls, row: WholeRefundRow) -> "Refund":
        """Return the refund of a row."""
        return cls(
            id=strawberry.ID(ids.encode("refund", row["refund_id"])),
            refund_id=row["refund_key"],
            amount=Money(amount_minor=BigInt(row["refund_amount"]), currency=row["refund_currency"]),
            refunded_at=row["refund_refunded_at"],
        )


@strawberry.type(description="An order of a member, as a source told it, once.")
class Purchase(Node):
    row: strawberry.Private[PurchaseRow]
    member: Member = strawberry.field(description="Who bought.")
    source: MemberSource = strawberry.field(description="Where it comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    amount: Money = strawberry.field(
        description="What it was worth: goods after discounts, with tax, without shipping; refunds aren't taken off."
    )
    paid_points: int = strawberry.field(
        description="How many points were paid for it; those that refunds brought back aren't taken off."
    )
    paid_points_value: Money = strawberry.field(
        description="What these points paid for: so much of its amount earns no points."
    )
    refunded: Money = strawberry.field(description="How much of the amount went back.")
    points: int = strawberry.field(
        description="How many points its amount less what was paid with points earns, at the rate of when it was "
        "recorded."
    )
    kept_points: int = strawberry.field(
        description="How many points it has earned after its refunds, those included that returns could not take back."
    )
    occurred_at: datetime = strawberry.field(description="When it happened.")
    recorded_at: datetime = strawberry.field(description="When it was recorded.")
    reversed_at: datetime | None = strawberry.field(
        description="When the last of it went back; null while something stands."
    )

    @field(description="The parts of it that went back, the oldest first.")
    async def refunds(self, info: Info) -> list[Refund]:
        """Read the refunds of all purchases of this page together."""
        rows = await info.context.load(refunds_by_purchase, self.row["purchase_id"])
        return [Refund.of(row) for row in rows]

    @classmethod
    def of(cls, row: WholePurchaseRow, *, as_of: ChangeRow | None = None) -> "Purchase":
        """Return the purchase of a row, its member's wallet as a change left it if one is given."""
        return cls(
            id=strawberry.ID(ids.encode("purchase", row["purchase_id"])),
            row=row,
            member=Member.of(row, as_of=as_of),
            source=MemberSource(row["purchase_source"]),
            order_id=row["purchase_order_id"],
            amount=Money(amount_minor=BigInt(row["purchase_amount"]), currency=row["purchase_currency"]),
            paid_points=row["purchase_paid_points"],
            paid_points_value=Money(amount_minor=BigInt(row["purchase_paid_value"]), currency=row["purchase_currency"]),
            refunded=Money(amount_minor=BigInt(row["purchase_refunded"]), currency=row["purchase_currency"]),
            points=row["purchase_points"],
            kept_points=kept_points(row),
            occurred_at=row["purchase_occurred_at"],
            recorded_at=row["purchase_recorded_at"],
            reversed_at=row["purchase_reversed_at"],
        )


@refetches("purchase")
async def _purchase(viewer: Viewer, node_id: str) -> Purchase | None:
    row = await find_purchase(viewer, node_id)
    return None if row is None else Purchase.of(row)


@refetches("refund")
async def _refund(viewer: Viewer, node_id: str) -> Refund | None:
    refund_id = ids.decode("refund", node_id)
    row = None if refund_id is None else await refund_row(viewer, refund_id)
    return None if row is None else Refund.of(row)


@strawberry.type(description="All of the purchase was taken back before.")
class PurchaseAlreadyReversed(Refusal):
    """Nothing stands that could go back."""

    purchase: Purchase = strawberry.field(description="The purchase, with its `reversedAt`.")

    @classmethod
    def of(cls, row: WholePurchaseRow) -> "PurchaseAlreadyReversed":
        """Return the refusal of a purchase that was taken back."""
        return cls(message="The purchase was taken back before.", purchase=Purchase.of(row))


@strawberry.type(
    description="One order of one channel: what was bought, the codes that were honoured on it, what is held for it."
)
class Order(Node):
    order_row_id: strawberry.Private[UUID]
    source: MemberSource = strawberry.field(description="Where it comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    cancelled_at: datetime | None = strawberry.field(description="When it was called off; null while it stands.")

    @classmethod
    def of(cls, row: OrderRow) -> "Order":
        """Return the order of a row."""
        return cls(
            id=strawberry.ID(ids.encode("order", row["order_row_id"])),
            order_row_id=row["order_row_id"],
            source=MemberSource(row["source"]),
            order_id=row["order_id"],
            cancelled_at=row["cancelled_at"],
        )

    @field(description="What was recorded for it; null before.")
    async def purchase(self, info: Info) -> Purchase | None:
        row = await purchase_by_order(info.context.viewer, self.source.value, self.order_id)
        return None if row is None else Purchase.of(row)

    @field(description="The redemptions that stand, in the order in which they apply: at most 20.")
    async def redemptions(self, info: Info) -> list[Redemption]:
        rows = await redemptions_of_order(info.context.viewer, self.source.value, self.order_id)
        return [Redemption.of(row) for row in rows]

    @field(description="What is held for it, or was captured; of several that ended otherwise the newest; null before.")
    async def hold(self, info: Info) -> Hold | None:
        found = await standing_hold(info.context.viewer, self.order_row_id)
        return None if found is None else Hold.of(*found)

    @field(description="The parts of its purchase that went back, the oldest first.")
    async def refunds(self, info: Info) -> list[Refund]:
        viewer = info.context.viewer
        purchase = await purchase_by_order(viewer, self.source.value, self.order_id)
        if purchase is None:
            return []
        rows = await info.context.load(refunds_by_purchase, purchase["purchase_id"])
        return [Refund.of(row) for row in rows]


@refetches("order")
async def _order(viewer: Viewer, node_id: str) -> Order | None:
    row = await order_of_node(viewer, node_id)
    return None if row is None else Order.of(row)


@strawberry.type(description="The order was cancelled, or redeemed before.")
class OrderNotOpen(Refusal):
    order: Order = strawberry.field(description="The order as it stands.")


def refuse_if_cancelled(
    order_row_id: UUID | None, source: MemberSource, order_id: str, cancelled_at: datetime | None
) -> None:
    """Raise Refused(OrderNotOpen) for an order that was called off."""
    if order_row_id is not None and cancelled_at is not None:
        raise order_not_open("it was cancelled", order_row_id, source, order_id, cancelled_at)


def order_not_open(
    why: str, order_row_id: UUID, source: MemberSource, order_id: str, cancelled_at: datetime | None = None
) -> Refused:
    """Return the refusal of an order."""
    node_id = strawberry.ID(ids.encode("order", order_row_id))
    order = Order(id=node_id, order_row_id=order_row_id, source=source, order_id=order_id, cancelled_at=cancelled_at)
    return Refused(OrderNotOpen(message=f"The order isn't open: {why}.", order=order))
