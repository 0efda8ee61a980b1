"""reversePurchase: a purchase is taken back, once and whole, and what it earned with it, as far as it is there."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.members.rows import MEMBER_COLUMNS
from app.members.types import MemberSource
from app.orders.record_purchase import FIND_BY_ORDER, ORDER_ID_LENGTH_MAX
from app.orders.rows import PURCHASE_COLUMNS, purchase_row
from app.orders.types import Purchase
from app.points.rows import JOIN_MEMBER
from app.points.take_back import take_back
from app.points.types import PointsEntry, PointsReason
from app.referrals.conversion import reverse
from app.storage.database import database, transaction


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
    """The reversed purchase and what was taken."""

    purchase: Purchase = strawberry.field(description="The purchase, with its `reversedAt`.")
    entry: PointsEntry | None = strawberry.field(description="The points that were taken; null when there were none.")
    shortfall: int = strawberry.field(
        description="How many of the points that it earned were spent already. They are not taken later."
    )


@strawberry.type(description="The purchase was taken back before.")
class PurchaseAlreadyReversed(Refusal):
    """A purchase is reversed once."""

    purchase: Purchase = strawberry.field(description="The purchase, with its `reversedAt`.")


ReversePurchaseResult = Annotated[
    ReversePurchaseSuccess | InvalidInput | NotFound | PurchaseAlreadyReversed,
    strawberry.union("ReversePurchaseResult", description="The reversed purchase, or why it stands."),
]

# The purchase's row is the guard: of two callers one finds it standing. The order of locks is purchase, wallet.
REVERSE: Final = f"""
WITH b AS (
    UPDATE purchase SET reversed_at = now() WHERE merchant_id = $1 AND id = $2 AND reversed_at IS NULL RETURNING *
)
SELECT {PURCHASE_COLUMNS}, {MEMBER_COLUMNS},
    (SELECT id FROM referral WHERE merchant_id = $1 AND purchase_id = b.id) AS referral_id
FROM b {JOIN_MEMBER.format("b")}
"""
FINISH: Final = """
WITH reversal AS (
    INSERT INTO purchase_reversal (merchant_id, purchase_id, taken, shortfall, reversed_at)
    VALUES ($1, $2, $3, $4, now())
)
INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, reason)
VALUES ($1, $5, 'purchase.reversed', $2, $6, now(), $7)
"""


@mutation(
    description="Take a purchase back, once and whole, with the points that it earned as far as the balance goes, and "
    "those of a referral that it converted some days ago at most. "
    "ADMIN and CHECKOUT."
)
async def reverse_purchase(
    info: Info, input: Annotated[ReversePurchaseInput, strawberry.argument(description="What to take back.")]
) -> ReversePurchaseResult:
    """Mark the purchase, take the points and write down the rest, in one transaction."""
    viewer = info.context.viewer
    _refuse_unless_named(input)
    event_id, reason = sealed(viewer, input.reason)
    purchase_id = await _named(viewer, input)
    async with transaction() as tx:
        purchase = await tx.row(REVERSE, viewer.merchant_id, purchase_id)
        if purchase is not None:
            # First, because it locks two wallets, and several are locked by member.
            if purchase["referral_id"] is not None:
                await reverse(tx, viewer.merchant_id, viewer.actor, purchase["referral_id"])
            origin = purchase_id.hex
            entry, shortfall = await take_back(
                tx, viewer.merchant_id, viewer.actor, purchase["member_id"], purchase["purchase_points"],
                credit=(PointsReason.PURCHASE, origin), origin=origin, reference=purchase["purchase_order_id"],
            )  # fmt: skip
            taken = 0 if entry is None else -entry["entry_amount"]
            await tx.row(FINISH, viewer.merchant_id, purchase_id, taken, shortfall, event_id, viewer.actor, reason)
    if purchase is None:
        stands = await purchase_row(viewer, purchase_id)
        if stands is None:
            raise not_found("purchase", input.purchase_id or input.order_id or "")
        message = "The purchase was taken back before."
        raise Refused(PurchaseAlreadyReversed(message=message, purchase=Purchase.of(stands)))
    # What was written last has the wallet as it is now: the entry, or a referral of a purchase that earned nothing.
    is_older = entry is None and purchase["referral_id"] is not None
    latest = await purchase_row(viewer, purchase_id) if is_older else entry
    return ReversePurchaseSuccess(
        purchase=Purchase.of(dict(purchase) | dict(latest or {})),
        entry=None if entry is None else PointsEntry.of(entry),
        shortfall=shortfall,
    )


def _refuse_unless_named(input: ReversePurchaseInput) -> None:
    """Raise Refused(InvalidInput) unless the purchase is named in exactly one of the two ways."""
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
    problems.refuse_if_any()


async def _named(viewer: Viewer, input: ReversePurchaseInput) -> UUID:
    if input.purchase_id is not None:
        return node_id("purchase", "purchase", input.purchase_id)
    source = input.source.value if input.source else None
    order_id = (input.order_id or "").strip()
    row = await database().row(FIND_BY_ORDER, viewer.merchant_id, source, order_id)
    if row is None:
        raise not_found("purchase", order_id)
    found: UUID = row["purchase_id"]
    return found
