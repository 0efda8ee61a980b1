"""refundPurchase: a part of a purchase goes back, once, and what that had earned with it, as far as it is there."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import Money, MoneyInput, Problems
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import REASON_LENGTH_MAX
from app.api.scalars import BigInt
from app.members.types import MemberSource
from app.orders.record_purchase import ORDER_ID_LENGTH_MAX
from app.orders.refunds import Returned, refund
from app.orders.rows import (
    RefundableRow,
    WholePurchaseRow,
    WholeRefundRow,
    purchase_row,
    refund_row,
    refundable_purchase,
)
from app.orders.types import Purchase, PurchaseAlreadyReversed
from app.points.rows import entries_by_id
from app.points.types import PointsEntry
from app.storage.database import transaction

REFUND_ID_LENGTH_MAX: Final = 100


@strawberry.input(description="A part of a purchase that goes back. The same order, refundId and amount is the same.")
class RefundPurchaseInput:
    """Which purchase, how much of it, and why."""

    source: MemberSource = strawberry.field(description="Where the order comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    refund_id: str = strawberry.field(
        description="Your own id of this refund, once for each order, at most 100 characters."
    )
    amount: MoneyInput = strawberry.field(
        description="How much goes back: goods after discounts, with tax, without shipping, and including what was "
        "paid with points. Over 0, at most what stands of the purchase."
    )
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="The part went back.")
class RefundPurchaseSuccess:
    purchase: Purchase = strawberry.field(description="The purchase, with what was refunded of it.")
    entries: list[PointsEntry] = strawberry.field(
        description="The points that were taken: for this purchase, then again for others, in whose place it had paid."
    )
    money_returned: Money = strawberry.field(
        description="What the shop pays out: the amount less the value of the points that came back."
    )
    points_returned: int = strawberry.field(description="How many points that were paid came back.")
    points_expired: int = strawberry.field(description="How many of these were past their date, and expired at once.")
    points_forfeited: int = strawberry.field(description="How many of these were due to a person who was erased.")
    shortfall: int = strawberry.field(
        description="How many of the points that it had earned were spent already. Points that come back and, where "
        "the merchant wants it, those of later purchases make them good."
    )
    replayed: bool = strawberry.field(description="Whether an earlier call refunded it; then the answer is that one's.")


@strawberry.type(description="Less stands of the purchase than was to go back.")
class RefundTooLarge(Refusal):
    """How much could go back."""

    refundable: Money = strawberry.field(description="How much of the purchase's amount stands.")


RefundPurchaseResult = Annotated[
    RefundPurchaseSuccess | InvalidInput | NotFound | RefundTooLarge | PurchaseAlreadyReversed | IdempotencyKeyReused,
    strawberry.union("RefundPurchaseResult", description="The refund, or why nothing went back."),
]


class Asked:
    """A refund as it was asked for, checked."""

    def __init__(self, viewer: Viewer, input: RefundPurchaseInput) -> None:
        """Check the input. Raises Refused(InvalidInput)."""
        problems = Problems()
        self.source = input.source.value
        self.order_id = problems.text("orderId", input.order_id, length_max=ORDER_ID_LENGTH_MAX)
        self.refund_id = problems.text("refundId", input.refund_id, length_max=REFUND_ID_LENGTH_MAX)
        self.amount = problems.money("amount", input.amount, currency=viewer.tenant.currency) or 0
        self.reason = problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
        problems.refuse_if_any()

    async def purchase(self, viewer: Viewer) -> RefundableRow:
        """Return the purchase as it stands. Raises Refused(NotFound)."""
        found = await refundable_purchase(viewer, self.source, self.order_id, self.refund_id)
        if found is None:
            raise not_found("purchase", self.order_id)
        return found

    def refuse_unless_refundable(self, purchase: RefundableRow) -> None:
        """Raise Refused unless so much of the purchase stands."""
        if purchase["purchase_reversed_at"] is not None:
            raise Refused(PurchaseAlreadyReversed.of(purchase))
        stands = purchase["purchase_amount"] - purchase["purchase_refunded"]
        if self.amount > stands:
            raise Refused(
                RefundTooLarge(
                    message="Less stands of the purchase than was to go back.",
                    refundable=Money(amount_minor=BigInt(stands), currency=purchase["purchase_currency"]),
                )
            )


@mutation(
    description="Take a part of a purchase back, with the points that it earned, so that it has earned exactly what "
    "stands of it does: its own points, pending or not, then others as far as the balance goes. A referral falls for "
    "which too little stands, within the window of its conversion, unless another purchase takes its place. Idempotent "
    "on (source, orderId, refundId). ADMIN, CHECKOUT and SUPPORT."
)
async def refund_purchase(
    info: Info, input: Annotated[RefundPurchaseInput, strawberry.argument(description="What goes back.")]
) -> RefundPurchaseResult:
    """Read the purchase, and change it if it still is what was read; whoever was faster makes it read again."""
    viewer = info.context.viewer
    asked = Asked(viewer, input)
    purchase = await asked.purchase(viewer)
    if purchase["earlier_id"] is not None:
        return await _replayed(viewer, purchase, await earlier(viewer, purchase["earlier_id"]), asked.amount)
    asked.refuse_unless_refundable(purchase)
    async with transaction(viewer.merchant_id) as tx:
        returned = await refund(tx, viewer, purchase, asked.amount, refund_id=asked.refund_id, reason=asked.reason)
    return await _refunded(viewer, returned)


async def earlier(viewer: Viewer, refund_id: UUID) -> WholeRefundRow:
    """Return a refund that is there."""
    row = await refund_row(viewer, refund_id)
    if row is None:
        raise RuntimeError("a refund is gone")
    return row


async def _refunded(viewer: Viewer, returned: Returned) -> RefundPurchaseSuccess:
    currency = returned.purchase["purchase_currency"]
    return RefundPurchaseSuccess(
        purchase=Purchase.of(await as_left(viewer, returned), as_of=returned.latest),
        entries=[PointsEntry.of(entry, as_of=returned.latest) for entry in returned.taken.entries],
        money_returned=Money(amount_minor=BigInt(returned.money), currency=currency),
        points_returned=returned.back.points,
        points_expired=returned.back.expired,
        points_forfeited=returned.forfeited,
        shortfall=returned.taken.shortfall,
        replayed=False,
    )


async def as_left(viewer: Viewer, returned: Returned) -> WholePurchaseRow:
    """Return the purchase that a refund left, with its buyer's wallet if nothing else tells that."""
    if returned.taken.latest is None and returned.ends_referral:
        # Nothing that the refund wrote itself has the wallet as the referral's fall left it.
        return await purchase_row(viewer, returned.purchase["purchase_id"]) or returned.purchase
    return returned.purchase


async def _replayed(
    viewer: Viewer, purchase: RefundableRow, told: WholeRefundRow, amount: int
) -> RefundPurchaseSuccess:
    """Return what an earlier call told. Raises Refused(IdempotencyKeyReused) if that was of another amount."""
    if told["refund_amount"] != amount:
        raise Refused(IdempotencyKeyReused(message="This refundId of this order was used for another amount."))
    entries = await entries_by_id(viewer, told["refund_entry_ids"]) if told["refund_entry_ids"] else []
    return RefundPurchaseSuccess(
        purchase=Purchase.of(purchase),
        entries=[PointsEntry.of(entry) for entry in entries],
        money_returned=Money(amount_minor=BigInt(told["refund_money_returned"]), currency=told["refund_currency"]),
        points_returned=told["refund_points_returned"],
        points_expired=told["refund_points_expired"],
        points_forfeited=told["refund_points_forfeited"],
        shortfall=told["refund_shortfall"],
        replayed=True,
    )
