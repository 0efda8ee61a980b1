"""Orders and purchases as the API shows them."""

from datetime import datetime

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Money
from app.api.node import refetches
from app.api.operations import Info, Node, field
from app.api.scalars import BigInt
from app.coupons.types import Redemption
from app.members.types import Member, MemberSource
from app.orders.rows import WholePurchaseRow, find_purchase, purchase_by_order, redemptions_of_order
from app.storage.wallet_versions import ChangeRow


@strawberry.type(description="An order of a member, as a source told it, once.")
class Purchase(Node):
    member: Member = strawberry.field(description="Who bought.")
    source: MemberSource = strawberry.field(description="Where it comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    amount: Money = strawberry.field(description="What it was worth.")
    points: int = strawberry.field(description="How many points it earned.")
    occurred_at: datetime = strawberry.field(description="When it happened.")
    recorded_at: datetime = strawberry.field(description="When it was recorded.")
    reversed_at: datetime | None = strawberry.field(description="When it was taken back; null while it stands.")

    @classmethod
    def of(cls, row: WholePurchaseRow, *, as_of: ChangeRow | None = None) -> "Purchase":
        """Return the purchase of a row, its member's wallet as a change left it if one is given."""
        return cls(
            id=strawberry.ID(ids.encode("purchase", row["purchase_id"])),
            member=Member.of(row, as_of=as_of),
            source=MemberSource(row["purchase_source"]),
            order_id=row["purchase_order_id"],
            amount=Money(amount_minor=BigInt(row["purchase_amount"]), currency=row["purchase_currency"]),
            points=row["purchase_points"],
            occurred_at=row["purchase_occurred_at"],
            recorded_at=row["purchase_recorded_at"],
            reversed_at=row["purchase_reversed_at"],
        )


@refetches("purchase")
async def _purchase(viewer: Viewer, node_id: str) -> Purchase | None:
    row = await find_purchase(viewer, node_id)
    return None if row is None else Purchase.of(row)


@strawberry.type(description="One order of one channel: what was bought, and the codes that were honoured on it.")
class Order:
    source: MemberSource = strawberry.field(description="Where it comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    cancelled_at: datetime | None = strawberry.field(description="When it was called off; null while it stands.")

    @field(description="What was recorded for it; null before.")
    async def purchase(self, info: Info) -> Purchase | None:
        row = await purchase_by_order(info.context.viewer, self.source.value, self.order_id)
        return None if row is None else Purchase.of(row)

    @field(description="The redemptions that stand, in the order in which they apply: at most 20.")
    async def redemptions(self, info: Info) -> list[Redemption]:
        rows = await redemptions_of_order(info.context.viewer, self.source.value, self.order_id)
        return [Redemption.of(row) for row in rows]
