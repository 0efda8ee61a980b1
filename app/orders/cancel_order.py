"""cancelOrder: an order is called off, once: what is left of its purchase goes back, and so do its codes."""

from collections.abc import Sequence
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import Money, Problems
from app.api.operations import Info, InvalidInput, NotFound, OutpacedError, Refused, mutation, not_found
from app.api.reasons import REASON_LENGTH_MAX, seal
from app.api.scalars import BigInt
from app.coupons.end_returned import end_returned
from app.members.types import MemberSource
from app.orders.held_rewards import CapturedRewardRow, rewards_of_order
from app.orders.holds import end_locked_hold, open_holds_of_order
from app.orders.locks import lock_held, lock_wallets
from app.orders.order_changes import buyer_of, give_back, lock_order, standing_order
from app.orders.payments import PointsBack, give_back_paid
from app.orders.record_purchase import ORDER_ID_LENGTH_MAX
from app.orders.refunds import refund_rest
from app.orders.rows import REDEMPTIONS_OF_ORDER, OrderRow, find_order
from app.orders.types import Order
from app.points.reverse_reward_redemption import RewardNotReversible, reverse_reward
from app.points.rows import exchanges_by_id
from app.points.types import RewardRedemption
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="An order to call off.")
class CancelOrderInput:
    order_id: str = strawberry.field(description="The source's own id of the order.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    source: MemberSource = strawberry.field(default=MemberSource.STORE, description="Where the order comes from.")
    reinstate: bool = strawberry.field(default=True, description="Whether its codes are live again.")


@strawberry.type(description="The order is off.")
class CancelOrderSuccess:
    order: Order = strawberry.field(description="The order, with its `cancelledAt`.")
    money_returned: Money = strawberry.field(description="What the shop pays out for the purchase that was recorded.")
    points_returned: int = strawberry.field(description="Points that were paid and came back.")
    points_expired: int = strawberry.field(description="Those of them that were past their date.")
    shortfall: int = strawberry.field(description="Earned points that could not be taken back.")
    kept: list[RewardRedemption] = strawberry.field(description="Rewards of the order whose code was spent.")
    replayed: bool = strawberry.field(description="Whether an earlier call cancelled it.")


CancelOrderResult = Annotated[
    CancelOrderSuccess | InvalidInput | NotFound,
    strawberry.union("CancelOrderResult", description="The cancelled order, or why there is none."),
]


class _BegunRow(TypedDict):
    id: UUID


# An order that is known by its purchase alone begins here, and keeps the id that it was shown under.
BEGIN: Final = statement(
    _BegunRow,
    """
INSERT INTO sales_order (merchant_id, id, source, order_id, currency, version)
VALUES (:merchant_id, :order_row_id, :source, :order_id, :currency, 1)
ON CONFLICT (merchant_id, order_id, source) DO NOTHING RETURNING id
""",
)
CANCEL: Final = statement(
    NoRow,
    f"""
WITH o AS (
    UPDATE sales_order SET version = version + 1, cancelled_at = now(), money_returned = :money_returned,
        points_returned = :points_returned, points_expired = :points_expired, shortfall = :shortfall
    WHERE merchant_id = :merchant_id AND id = :order_row_id AND cancelled_at IS NULL RETURNING id
)
{event("order.cancelled", subject="id", source="o", reason=":reason")}
""",
)


@mutation(
    description="Call an order off, once: what is held for it is released, points that were paid for it come back, "
    "what is left of its purchase is refunded with the points that it earned, its redemptions are taken back, and "
    "nothing is held, redeemed, recorded or amended for it any more. Again, it is the same answer. ADMIN, CHECKOUT and "
    "SUPPORT."
)
async def cancel_order(
    info: Info, input: Annotated[CancelOrderInput, strawberry.argument(description="What to call off.")]
) -> CancelOrderResult:
    viewer = info.context.viewer
    problems = Problems()
    order_id = problems.text("orderId", input.order_id, length_max=ORDER_ID_LENGTH_MAX)
    reason = problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
    problems.refuse_if_any()
    found = await find_order(viewer, input.source.value, order_id)
    if found is None:
        raise not_found("order", order_id)
    if found["cancelled_at"] is not None:
        return await _answer(viewer, found, replayed=True)
    buyer = await buyer_of(viewer, input.source, order_id)
    async with transaction(viewer.merchant_id) as tx:
        await _cancel(tx, viewer, input, order_id, reason, buyer)
        cancelled = await standing_order(tx, viewer, input.source, order_id)
    return await _answer(viewer, cancelled, replayed=False)


async def _cancel(
    tx: Tx, viewer: Viewer, input: CancelOrderInput, order_id: str, reason: str, buyer: UUID | None
) -> None:
    """Call the order off under its lock. Raises OutpacedError when it isn't what it was before."""
    source = input.source
    purchase = await lock_order(tx, viewer, source, order_id, buyer)
    order = await standing_order(tx, viewer, source, order_id)
    if order["cancelled_at"] is not None:
        raise OutpacedError
    name = {"merchant_id": viewer.merchant_id, "source": source.value, "order_id": order_id}
    if order["version"] is None:
        currency = viewer.tenant.currency
        if await tx.row(BEGIN, **name, order_row_id=order["order_row_id"], currency=currency) is None:
            raise OutpacedError
    redeemed = await tx.rows(REDEMPTIONS_OF_ORDER, **name)
    holds = await open_holds_of_order(tx, viewer, order["order_row_id"])
    rewards = await rewards_of_order(tx, viewer, order["order_row_id"])
    code_ids = [row["code_id"] for row in redeemed]
    standing = None if purchase is None or purchase["purchase_reversed_at"] is not None else purchase
    is_paid = purchase is None and order["paid_points"] > 0
    if holds or rewards:
        await lock_held(
            tx, viewer, source, order_id, [hold["hold_id"] for hold in holds], purchase=standing,
            exchange_ids=[row["held_redemption_id"] for row in rewards], code_ids=code_ids,
            member_ids=[order["payer_id"]] if order["payer_id"] is not None else [],
        )  # fmt: skip
    elif standing is not None or is_paid:
        await lock_wallets(tx, viewer, standing, code_ids, payer_id=order["payer_id"])
    for hold in holds:
        await end_locked_hold(tx, viewer.merchant_id, viewer.actor, hold["hold_id"], "RELEASED")
    of_rewards = await _reverse_rewards(tx, viewer, rewards, reason)
    money, shortfall, back = 0, 0, PointsBack()
    if standing is not None:
        returned = await refund_rest(tx, viewer, standing, reason=reason)
        money, shortfall, back = returned.money, returned.taken.shortfall, returned.back
    elif is_paid:
        origin = f"{order['order_row_id'].hex}/cancelled"
        back = await give_back_paid(tx, viewer, order, order["paid_points"], origin=origin, path="orderId")
    if redeemed:
        await give_back(
            tx, viewer, source, order_id, redeemed,
            version=order["version"] or 1, amount=order["order_amount"], reason=reason, reinstate=input.reinstate,
        )  # fmt: skip
        await end_returned(tx, viewer, [row["code_id"] for row in redeemed if input.reinstate])
    event_id, sealed_reason = seal(viewer, reason)
    await tx.row(
        CANCEL,
        merchant_id=viewer.merchant_id,
        order_row_id=order["order_row_id"],
        money_returned=money,
        points_returned=back.points + of_rewards.points,
        points_expired=back.expired + of_rewards.expired,
        shortfall=shortfall,
        event_id=event_id,
        actor=viewer.actor,
        reason=sealed_reason,
    )


async def _reverse_rewards(tx: Tx, viewer: Viewer, rewards: Sequence[CapturedRewardRow], reason: str) -> PointsBack:
    """Reverse the rewards that the order's capture brought, but those whose code is spent or held elsewhere."""
    points, expired = 0, 0
    for row in rewards:
        try:
            async with tx.nested() as inner:
                back = await reverse_reward(inner, viewer, row["held_redemption_id"], reason=reason, path="orderId")
        except Refused as refused:
            if not isinstance(refused.refusal, RewardNotReversible):
                raise
            continue
        if back is not None:
            points, expired = points + row["held_cost"], expired + back.expired
    return PointsBack(points, expired)


async def _answer(viewer: Viewer, row: OrderRow, *, replayed: bool) -> CancelOrderSuccess:
    """Return what cancelling the order paid out, and the rewards that it left."""
    rewards = await rewards_of_order(database(), viewer, row["order_row_id"])
    kept = [each["held_redemption_id"] for each in rewards]
    found = await exchanges_by_id(viewer, kept) if kept else {}
    standing = [found[each] for each in kept if found[each][0]["exchange_reversed_at"] is None]
    return CancelOrderSuccess(
        order=Order.of(row),
        money_returned=Money(amount_minor=BigInt(row["money_returned"] or 0), currency=viewer.tenant.currency),
        points_returned=row["points_returned"] or 0,
        points_expired=row["points_expired"] or 0,
        shortfall=row["shortfall"] or 0,
        kept=[RewardRedemption.found(exchange, code) for exchange, code in standing],
        replayed=replayed,
    )
