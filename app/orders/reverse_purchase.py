"""reversePurchase: a purchase is taken back, once and whole, and what it earned with it, as far as it is there."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.members.rows import JOIN_MEMBER
from app.members.types import MemberSource
from app.orders.record_purchase import ORDER_ID_LENGTH_MAX
from app.orders.rows import (
    REFERRAL_OF_PURCHASE,
    StandingPurchaseRow,
    WholePurchaseRow,
    purchase_by_order,
    purchase_row,
)
from app.orders.types import Purchase
from app.points.take_back import take_back
from app.points.types import PointsEntry, PointsReason
from app.referrals.conversion import reverse
from app.storage.database import transaction
from app.storage.events import event
from app.storage.statements import columns, statement


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


@strawberry.type(description="The purchase was taken back before.")
class PurchaseAlreadyReversed(Refusal):
    """A purchase is reversed once."""

    purchase: Purchase = strawberry.field(description="The purchase, with its `reversedAt`.")


ReversePurchaseResult = Annotated[
    ReversePurchaseSuccess | InvalidInput | NotFound | PurchaseAlreadyReversed,
    strawberry.union("ReversePurchaseResult", description="The reversed purchase, or why it stands."),
]


class FinishedRow(TypedDict):
    """The referral that a returned purchase had converted, if it had."""

    referral_id: UUID | None


# The purchase's row is the guard: of two callers one finds it standing. The order of locks is purchase, wallet.
REVERSE: Final = statement(
    StandingPurchaseRow,
    f"""
WITH b AS (
    UPDATE purchase SET reversed_at = now()
    WHERE merchant_id = :merchant_id AND id = :purchase_id AND reversed_at IS NULL RETURNING *
)
SELECT {columns(WholePurchaseRow)}, {REFERRAL_OF_PURCHASE} AS referral_id
FROM b {JOIN_MEMBER.format("b")}
""",
)
# Says, too, which referral the purchase converts: a proof or an acceptance that had its lock before has just made one.
FINISH: Final = statement(
    FinishedRow,
    f"""
WITH reversal AS (
    INSERT INTO purchase_reversal (merchant_id, purchase_id, taken, shortfall, reversed_at)
    VALUES (:merchant_id, :purchase_id, :taken, :shortfall, now())
), recorded AS (
    {event("purchase.reversed", subject=":purchase_id", reason=":reason")}
)
SELECT (SELECT id FROM referral WHERE merchant_id = :merchant_id AND purchase_id = :purchase_id) AS referral_id
""",
)


@mutation(
    description="Take a purchase back, once and whole, with the points that it earned: its own, pending or not, then "
    "others as far as the balance goes, and those of a referral that it converted some days ago at most. "
    "ADMIN, CHECKOUT and SUPPORT."
)
async def reverse_purchase(
    info: Info, input: Annotated[ReversePurchaseInput, strawberry.argument(description="What to take back.")]
) -> ReversePurchaseResult:
    """Mark the purchase, take the points and write down the rest, in one transaction."""
    viewer = info.context.viewer
    _refuse_unless_named(input)
    event_id, reason = sealed(viewer, input.reason)
    purchase_id = await _named(viewer, input)
    async with transaction(viewer.merchant_id) as tx:
        purchase = await tx.row(REVERSE, merchant_id=viewer.merchant_id, purchase_id=purchase_id)
        if purchase is not None:
            # First, because it locks two wallets, and several are locked by member.
            if purchase["referral_id"] is not None:
                await reverse(tx, viewer.merchant_id, viewer.actor, purchase["referral_id"])
            origin = purchase_id.hex
            taken = await take_back(
                tx, viewer.merchant_id, viewer.actor, purchase["member_id"], reason=PointsReason.PURCHASE,
                credited=[origin], origin=origin, reference=purchase["purchase_order_id"],
            )  # fmt: skip
            entry = taken.entry
            finished = await tx.row(
                FINISH,
                merchant_id=viewer.merchant_id,
                purchase_id=purchase_id,
                taken=0 if entry is None else -entry["entry_amount"],
                shortfall=taken.shortfall,
                event_id=event_id,
                actor=viewer.actor,
                reason=reason,
            )
            late = None if finished is None else finished["referral_id"]
            if late is not None and late != purchase["referral_id"]:
                await reverse(tx, viewer.merchant_id, viewer.actor, late)
    if purchase is None:
        stands = await purchase_row(viewer, purchase_id)
        if stands is None:
            raise not_found("purchase", input.purchase_id or input.order_id or "")
        message = "The purchase was taken back before."
        raise Refused(PurchaseAlreadyReversed(message=message, purchase=Purchase.of(stands)))
    latest: WholePurchaseRow = purchase
    if taken.latest is None and purchase["referral_id"] is not None:
        # Nothing that this return wrote itself has the wallet as the referral's return left it.
        latest = await purchase_row(viewer, purchase_id) or purchase
    return ReversePurchaseSuccess(
        purchase=Purchase.of(latest, as_of=taken.latest),
        entry=None if entry is None else PointsEntry.of(entry, as_of=taken.latest),
        shortfall=taken.shortfall,
    )


def _refuse_unless_named(input: ReversePurchaseInput) -> None:
    """Raise Refused(InvalidInput) unless exactly one of the two ways names the purchase."""
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
    order_id = (input.order_id or "").strip()
    row = await purchase_by_order(viewer, input.source.value if input.source else "", order_id)
    if row is None:
        raise not_found("purchase", order_id)
    return row["purchase_id"]
