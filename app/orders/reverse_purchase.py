"""reversePurchase: all that stands of a purchase goes back, and what it earned with it, as far as it is there."""

from typing import Annotated

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.api.reasons import REASON_LENGTH_MAX
from app.members.types import MemberSource
from app.orders.record_purchase import ORDER_ID_LENGTH_MAX
from app.orders.refund_purchase import as_left
from app.orders.refunds import refund_rest
from app.orders.rows import StandingPurchaseRow, purchase_by_order, standing_purchase
from app.orders.types import Purchase, PurchaseAlreadyReversed
from app.points.types import PointsEntry
from app.storage.database import transaction


@strawberry.input(description="A purchase to take back, by its id or by source and orderId.")
class ReversePurchaseInput:
    """Which one and why."""

    purchase_id: strawberry.ID | None = strawberry.field(
        default=None, description="The purchase; without it, source and orderId name it."
    )
    source: MemberSource | None = strawberry.field(default=None, description="Where the order comes from.")
    order_id: str | None = strawberry.field(default=None, description="The source's own id of the order.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="The purchase doesn't stand any more.")
class ReversePurchaseSuccess:
    purchase: Purchase = strawberry.field(description="The purchase, with its `reversedAt`.")
    entry: PointsEntry | None = strawberry.field(description="The points that were taken; null when there were none.")
    shortfall: int = strawberry.field(
        description="How many of the points that it earned were spent already. Points that come back and, where the "
        "merchant wants it, those of later purchases make them good."
    )


ReversePurchaseResult = Annotated[
    ReversePurchaseSuccess | InvalidInput | NotFound | PurchaseAlreadyReversed,
    strawberry.union("ReversePurchaseResult", description="The reversed purchase, or why it stands."),
]


@mutation(
    description="Take all that stands of a purchase back, once, with the points that it earned: its own, pending or "
    "not, then others as far as the balance goes. A referral falls that stood by it, within the window of its "
    "conversion, unless another purchase takes its place. It is refundPurchase of the rest. "
    "ADMIN, CHECKOUT and SUPPORT."
)
async def reverse_purchase(
    info: Info, input: Annotated[ReversePurchaseInput, strawberry.argument(description="What to take back.")]
) -> ReversePurchaseResult:
    """Read the purchase, and refund the rest if it still is what was read; whoever was faster makes it read again."""
    viewer = info.context.viewer
    _check(input)
    purchase = await _named(viewer, input)
    if purchase["purchase_reversed_at"] is not None:
        raise Refused(PurchaseAlreadyReversed.of(purchase))
    async with transaction(viewer.merchant_id) as tx:
        returned = await refund_rest(tx, viewer, purchase, reason=input.reason)
    entry = returned.taken.entry
    return ReversePurchaseSuccess(
        purchase=Purchase.of(await as_left(viewer, returned), as_of=returned.latest),
        entry=None if entry is None else PointsEntry.of(entry, as_of=returned.latest),
        shortfall=returned.taken.shortfall,
    )


def _check(input: ReversePurchaseInput) -> None:
    """Raise Refused(InvalidInput) unless exactly one of the two ways names the purchase, and there is a reason."""
    problems = Problems()
    if input.purchase_id is not None:
        for path, value in (("source", input.source), ("orderId", input.order_id)):
            if value is not None:
                problems.add(path, "has no meaning beside purchaseId")
    elif input.source is None and input.order_id is None:
        problems.add("purchaseId", "or source and orderId must name the purchase")
    elif input.source is None:
        problems.add("source", "is needed beside orderId")
    elif input.order_id is None:
        problems.add("orderId", "is needed beside source")
    problems.optional_text("orderId", input.order_id, length_max=ORDER_ID_LENGTH_MAX)
    problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
    problems.refuse_if_any()


async def _named(viewer: Viewer, input: ReversePurchaseInput) -> StandingPurchaseRow:
    """Return the purchase. Raises Refused(NotFound)."""
    if input.purchase_id is not None:
        found = await standing_purchase(viewer, node_id("purchase", "purchase", input.purchase_id))
        if found is None:
            raise not_found("purchase", input.purchase_id)
        return found
    order_id = (input.order_id or "").strip()
    told = await purchase_by_order(viewer, input.source.value if input.source else "", order_id)
    if told is None:
        raise not_found("purchase", order_id)
    return told
