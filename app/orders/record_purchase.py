"""recordPurchase: an order of a member, once per source and order id, and the points that it earns."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import strawberry
from iso4217 import Currency

from app import ids
from app.api.context import Viewer
from app.api.inputs import MoneyInput, Problems, node_id
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.members.rows import MEMBER_COLUMNS
from app.members.types import MemberSource
from app.orders.rows import PURCHASE_COLUMNS, purchase_row
from app.orders.types import Purchase
from app.points.grant_points import too_many
from app.points.ledger import POINTS_MAX, post
from app.points.rows import FIND_ENTRY_BY_ORIGIN, JOIN_MEMBER
from app.points.types import PointsEntry, PointsReason
from app.referrals.conversion import convert_by
from app.referrals.rows import referral_row
from app.referrals.types import Referral, released
from app.storage.database import Row, Tx, database, transaction

ORDER_ID_LENGTH_MAX: Final = 100
#: How far a till's clock may be ahead of ours.
SKEW_MAX: Final = timedelta(minutes=5)


@strawberry.input(description="A purchase. The same source, orderId, member and amount again is the same purchase.")
class RecordPurchaseInput:
    """Who bought what, where and when."""

    member_id: strawberry.ID = strawberry.field(description="Who bought.")
    source: MemberSource = strawberry.field(description="Where the order comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order, at most 100 characters.")
    amount: MoneyInput = strawberry.field(description="What it was worth; 0 or more.")
    occurred_at: datetime | None = strawberry.field(
        default=None, description="When it happened, not in the future; now unless told."
    )


@strawberry.type(description="The purchase is recorded.")
class RecordPurchaseSuccess:
    """The purchase and what it earned."""

    purchase: Purchase = strawberry.field(description="The purchase.")
    entry: PointsEntry | None = strawberry.field(description="The points that it earned; null when there were none.")
    referral: Referral | None = strawberry.field(
        description="The referral that it converted; null when it converted none, and while that is held for review."
    )
    replayed: bool = strawberry.field(description="Whether an earlier call recorded it.")


RecordPurchaseResult = Annotated[
    RecordPurchaseSuccess | InvalidInput | NotFound | IdempotencyKeyReused,
    strawberry.union("RecordPurchaseResult", description="The purchase, or why it wasn't recorded."),
]

# The rate is read here, not from what this process remembers of the merchant: all processes agree from the instant
# at which it changes. Points are the whole ones of amount x rate (`div` cuts exactly where `/` would round).
RECORD: Final = f"""
WITH earning AS (
    SELECT div($6::bigint * points_per_unit, $7::bigint) AS points FROM merchant WHERE merchant_id = $1
), b AS (
    INSERT INTO purchase (merchant_id, id, member_id, source, order_id, amount, currency, points, occurred_at,
                          recorded_at)
    SELECT $1, $2, m.id, $4, $5, $6, $8, earning.points, coalesce($9, now()), now()
    FROM earning, (SELECT id FROM member WHERE merchant_id = $1 AND id = $3) m
    WHERE earning.points <= {POINTS_MAX}
    ON CONFLICT DO NOTHING RETURNING *
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $10, 'purchase.recorded', id, $11, now() FROM b
)
SELECT {PURCHASE_COLUMNS}, {MEMBER_COLUMNS},
    (SELECT id FROM invite WHERE merchant_id = $1 AND referee_id = b.member_id AND status = 'PENDING') AS invite_id
FROM b {JOIN_MEMBER.format("b")}
"""
FIND_BY_ORDER: Final = f"""
SELECT {PURCHASE_COLUMNS}, {MEMBER_COLUMNS},
    (SELECT id FROM referral WHERE merchant_id = $1 AND purchase_id = b.id) AS referral_id
FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = $1 AND b.source = $2 AND b.order_id = $3
"""
MEMBER_EXISTS: Final = "SELECT FROM member WHERE merchant_id = $1 AND id = $2"


async def record(
    tx: Tx, viewer: Viewer, member_id: UUID, source: MemberSource, order_id: str, amount: int, at: datetime | None
) -> Row | None:
    """Insert a purchase in the merchant's currency and return it, or None when it stands already or can't be.

    Waits for a rival that is inserting the same order.
    """
    currency = viewer.tenant.currency
    minor_units = 10 ** (Currency(currency).exponent or 0)
    arguments = (source.value, order_id, amount, minor_units, currency, at, ids.new(), viewer.actor)
    return await tx.row(RECORD, viewer.merchant_id, ids.new(), member_id, *arguments)


async def earn(tx: Tx, viewer: Viewer, purchase: Row) -> Row | None:
    """Credit what a new purchase earned. Raises Refused(InvalidInput) when the balance can't hold it."""
    if purchase["purchase_points"] == 0:
        return None
    entry = await post(
        tx, viewer.merchant_id, viewer.actor, purchase["member_id"], purchase["purchase_points"],
        PointsReason.PURCHASE, origin=purchase["purchase_id"].hex, reference=purchase["purchase_order_id"],
    )  # fmt: skip
    if entry is None:
        raise too_many("amount.amountMinor")
    return entry


@mutation(
    description="Record a purchase and credit the points that it earns: amount x the merchant's points per unit, "
    "whole points only. The first one after joining by an invite may convert it. Idempotent on (source, orderId). "
    "ADMIN and CHECKOUT."
)
async def record_purchase(
    info: Info, input: Annotated[RecordPurchaseInput, strawberry.argument(description="The purchase.")]
) -> RecordPurchaseResult:
    """Insert the purchase, whose key makes it once, and what follows from it, in one transaction."""
    viewer = info.context.viewer
    problems = Problems()
    order_id = problems.text("orderId", input.order_id, length_max=ORDER_ID_LENGTH_MAX)
    amount = problems.money("amount", input.amount, currency=viewer.tenant.currency, least=0) or 0
    if input.occurred_at is not None and input.occurred_at > datetime.now(UTC) + SKEW_MAX:
        problems.add("occurredAt", "must not be in the future")
    problems.refuse_if_any()
    member_id = node_id("member", "member", input.member_id)
    async with transaction() as tx:
        purchase = await record(tx, viewer, member_id, input.source, order_id, amount, input.occurred_at)
        if purchase is not None:
            # First, because it locks two wallets, and several are locked by member.
            referral_id = await convert_by(tx, viewer, purchase)
            entry = await earn(tx, viewer, purchase)
    if purchase is None:
        return await _standing(viewer, input, member_id, order_id, amount)
    # What was written last has the wallet as it is now: the entry, or a referral of a purchase that earned nothing.
    latest = entry if entry is not None or referral_id is None else await purchase_row(viewer, purchase["purchase_id"])
    referral = await _referral(viewer, referral_id)
    return _success(dict(purchase) | dict(latest or {}), entry, referral, replayed=False)


async def _standing(
    viewer: Viewer, input: RecordPurchaseInput, member_id: UUID, order_id: str, amount: int
) -> RecordPurchaseSuccess:
    """Return the purchase that an earlier call recorded. Raises Refused with why there is none."""
    stands = await database().row(FIND_BY_ORDER, viewer.merchant_id, input.source.value, order_id)
    if stands is None:
        if await database().row(MEMBER_EXISTS, viewer.merchant_id, member_id) is None:
            raise not_found("member", input.member_id)
        raise too_many("amount.amountMinor")
    if (stands["member_id"], stands["purchase_amount"]) != (member_id, amount):
        message = "This order of this source was recorded for another member or amount."
        raise Refused(IdempotencyKeyReused(message=message))
    origin = stands["purchase_id"].hex
    entry = await database().row(FIND_ENTRY_BY_ORIGIN, viewer.merchant_id, PointsReason.PURCHASE.value, origin)
    return _success(stands, entry, await _referral(viewer, stands["referral_id"]), replayed=True)


async def _referral(viewer: Viewer, referral_id: UUID | None) -> Referral | None:
    return None if referral_id is None else released(await referral_row(viewer, referral_id))


def _success(purchase: Row, entry: Row | None, referral: Referral | None, *, replayed: bool) -> RecordPurchaseSuccess:
    return RecordPurchaseSuccess(
        purchase=Purchase.of(purchase),
        entry=None if entry is None else PointsEntry.of(entry),
        referral=referral,
        replayed=replayed,
    )
