"""checkRefund: what refundPurchase would do, without doing it."""

from typing import Annotated

import strawberry

from app import ids
from app.api.inputs import Money, Problems
from app.api.operations import Info, InvalidInput, NotFound, query
from app.api.scalars import BigInt
from app.orders.refund_purchase import Asked, RefundPurchaseInput, RefundTooLarge, earlier
from app.orders.refunds import Returned, give_up
from app.orders.rows import WholeRefundRow
from app.orders.types import PurchaseAlreadyReversed
from app.storage.database import tried


@strawberry.type(description="What a refund would do.")
class RefundPreview:
    points: int = strawberry.field(description="How many points would be taken.")
    shortfall: int = strawberry.field(description="How many of those that the purchase earned could not be taken.")
    points_returned: int = strawberry.field(description="How many points that were paid would come back.")
    money_returned: Money = strawberry.field(description="What the shop would pay out.")
    ends_referral: bool = strawberry.field(
        description="Whether a referral would fall, because no other purchase stands."
    )


CheckRefundResult = Annotated[
    RefundPreview | InvalidInput | NotFound | RefundTooLarge | PurchaseAlreadyReversed,
    strawberry.union("CheckRefundResult", description="What would happen, or why nothing would go back."),
]


@query(
    description="What refundPurchase would do, without doing it; of a refund that was made before, what that did. "
    "ADMIN, CHECKOUT and SUPPORT."
)
async def check_refund(
    info: Info, input: Annotated[RefundPurchaseInput, strawberry.argument(description="What would go back.")]
) -> CheckRefundResult:
    """Refund in a transaction that is rolled back, so that the answer can't differ from what would happen."""
    viewer = info.context.viewer
    asked = Asked(viewer, input)
    purchase = await asked.purchase(viewer)
    if purchase["earlier_id"] is not None:
        return _made(await earlier(viewer, purchase["earlier_id"]), asked.amount)
    asked.refuse_unless_refundable(purchase)
    returned = await tried(
        viewer.merchant_id, lambda tx: give_up(tx, viewer, purchase, asked.amount, origin=ids.new().hex)
    )
    return _preview(returned)


def _preview(returned: Returned) -> RefundPreview:
    return RefundPreview(
        points=returned.points,
        shortfall=returned.taken.shortfall,
        points_returned=returned.back.points,
        money_returned=Money(amount_minor=BigInt(returned.money), currency=returned.purchase["purchase_currency"]),
        ends_referral=returned.ends_referral,
    )


def _made(told: WholeRefundRow, amount: int) -> RefundPreview:
    """Return what a refund did. Raises Refused(InvalidInput) if it was of another amount."""
    if told["refund_amount"] != amount:
        problems = Problems()
        problems.add("refundId", "was used for another amount")
        problems.refuse_if_any()
    return RefundPreview(
        points=told["refund_taken"],
        shortfall=told["refund_shortfall"],
        points_returned=told["refund_points_returned"],
        money_returned=Money(amount_minor=BigInt(told["refund_money_returned"]), currency=told["refund_currency"]),
        ends_referral=told["refund_ends_referral"],
    )
