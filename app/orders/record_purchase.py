"""recordPurchase: an order of a member, once per source and order id, and the points that it earns."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import strawberry
from iso4217 import Currency

from app import ids
from app.api.context import Viewer
from app.api.inputs import MoneyInput, Problems
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.members.member_keys import MemberKey, MemberKeyInput, named_member
from app.members.rows import IS_HERE, JOIN_MEMBER, member_exists
from app.members.types import MemberSource
from app.orders.rows import OrderRow, StandingPurchaseRow, WholePurchaseRow, find_order, purchase_by_order, purchase_row
from app.orders.types import OrderNotOpen, Purchase, PurchaseAlreadyReversed, refuse_if_cancelled
from app.points.ledger import POINTS_MAX, PostedRow, credit, too_many
from app.points.rows import entry_by_origin
from app.points.take_back import make_good
from app.points.types import PointsEntry, PointsReason
from app.referrals.conversion import convert
from app.referrals.rows import referral_row
from app.referrals.types import Referral, released
from app.storage.database import Tx, transaction
from app.storage.events import event
from app.storage.statements import columns, statement

ORDER_ID_LENGTH_MAX: Final = 100
#: How far a till's clock may be ahead of ours.
SKEW_MAX: Final = timedelta(minutes=5)


@strawberry.input(description="A purchase. The same source, orderId, member and amount again is the same purchase.")
class RecordPurchaseInput:
    """Who bought what, where and when."""

    member_id: strawberry.ID | None = strawberry.field(default=None, description="Who bought; this or `member`.")
    member: MemberKeyInput | None = strawberry.field(
        default=None, description="Who bought, by a store's id or a proven address, in place of its id."
    )
    source: MemberSource = strawberry.field(description="Where the order comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order, at most 100 characters.")
    amount: MoneyInput = strawberry.field(
        description="What it was worth: goods after discounts, with tax, without shipping, and including what was paid "
        "with points; 0 or more."
    )
    occurred_at: datetime | None = strawberry.field(
        default=None, description="When it happened, not in the future; now unless told."
    )


@strawberry.type(description="The purchase is recorded.")
class RecordPurchaseSuccess:
    purchase: Purchase = strawberry.field(description="The purchase.")
    entry: PointsEntry | None = strawberry.field(description="The points that it earned; null when there were none.")
    referral: Referral | None = strawberry.field(
        description="The referral that it converted, or that had fallen and stands by it again; null when there is "
        "none, and while that is held for review."
    )
    replayed: bool = strawberry.field(description="Whether an earlier call recorded it.")


RecordPurchaseResult = Annotated[
    RecordPurchaseSuccess | InvalidInput | NotFound | IdempotencyKeyReused | PurchaseAlreadyReversed | OrderNotOpen,
    strawberry.union("RecordPurchaseResult", description="The purchase, or why it wasn't recorded."),
]


class RecordedRow(WholePurchaseRow):
    """A purchase that was just recorded, and the invite that its member came by, if that waits for a purchase.

    So does one whose referral has fallen.
    """

    invite_id: UUID | None


# The rate and the days of pending are read here, not from what this process remembers of the merchant: all processes
# agree from the instant at which they change. The purchase keeps what they were.
RECORD: Final = statement(
    RecordedRow,
    f"""
WITH buyer AS MATERIALIZED (
    -- Locked, and read as it is once the lock is had: of a purchase, a proof of the member's address and its accepting
    -- an invite, whoever comes last sees the others.
    SELECT id, accepted_invite_id FROM member
    WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE} FOR NO KEY UPDATE
), known AS MATERIALIZED (
    -- The order, if its codes were redeemed, and after its buyer: it isn't amended or cancelled meanwhile.
    SELECT cancelled_at, paid_points, paid_value FROM sales_order
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND EXISTS (SELECT FROM buyer)
    FOR SHARE
), unknown AS MATERIALIZED (
    -- One that isn't known doesn't begin meanwhile, and hasn't begun since this statement did: whatever is done with it
    -- later finds the purchase. Raises a serialization failure otherwise, and all of it begins again.
    SELECT lock_unknown_order(:merchant_id, :source, :order_id) FROM buyer WHERE NOT EXISTS (SELECT FROM known)
), paid AS (
    SELECT coalesce(max(paid_points), 0) AS points, coalesce(max(paid_value), 0) AS value FROM known
), earning AS (
    -- The whole points of what isn't paid with points x rate: `div` cuts exactly where `/` would round.
    SELECT points_per_unit, div((:amount::bigint - paid.value) * points_per_unit, :minor_units::int) AS points,
        CASE WHEN points_pending_days > 0
            THEN coalesce(:occurred_at, now()) + points_pending_days * interval '24 hours' END AS spendable_at
    FROM merchant, paid WHERE merchant_id = :merchant_id
), b AS (
    -- What makes it once: of two callers with one order one inserts nothing.
    INSERT INTO purchase (merchant_id, id, member_id, source, order_id, amount, recorded_amount, paid_points,
                          paid_value, currency, points, points_per_unit, minor_units, credits, spendable_at,
                          occurred_at, recorded_at, told_of)
    SELECT :merchant_id, :purchase_id, buyer.id, :source, :order_id, :amount, :amount, paid.points, paid.value,
        :currency, earning.points, earning.points_per_unit, :minor_units, sign(earning.points), earning.spendable_at,
        coalesce(:occurred_at, now()), now(), :told_of
    FROM earning, buyer, paid
    WHERE earning.points <= {POINTS_MAX} AND :amount >= paid.value
        AND NOT EXISTS (SELECT FROM known WHERE cancelled_at IS NOT NULL) AND (SELECT count(*) FROM unknown) >= 0
    ON CONFLICT DO NOTHING RETURNING *
), brought AS (
    -- Locked when the purchase is there, and read as it is then: a return that lets it fall sees the purchase, or this
    -- sees the fall.
    SELECT r.* FROM b CROSS JOIN buyer CROSS JOIN LATERAL (
        SELECT invite_id, reversed_at, declined_at FROM referral
        WHERE merchant_id = :merchant_id AND invite_id = buyer.accepted_invite_id OFFSET 0 FOR NO KEY UPDATE
    ) r
), bought AS (
    -- What the member bought last, unless this is of before that.
    UPDATE member SET last_bought_at = b.occurred_at FROM b
    WHERE member.merchant_id = :merchant_id AND member.id = :member_id
        AND (last_bought_at IS NULL OR last_bought_at < b.occurred_at)
), held AS (
    -- An order that is held, and neither redeemed nor captured, has another version: who captures it reads again.
    UPDATE sales_order SET version = version + 1
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND order_amount IS NULL
        AND cancelled_at IS NULL AND EXISTS (SELECT FROM b)
), recorded AS (
    {event("purchase.recorded", subject="id", source="b")}
)
SELECT {columns(WholePurchaseRow)},
    -- By its key first: to a planner that saw the table empty, any index of those that are pending is as good (3,200
    -- buffers instead of 3 after 100,000 invites).
    coalesce((SELECT id FROM (
        SELECT id, status, obstacle FROM invite
        WHERE merchant_id = :merchant_id AND id = (SELECT accepted_invite_id FROM buyer) OFFSET 0
    ) accepted WHERE status = 'PENDING' AND obstacle IS NULL), (
        SELECT invite_id FROM brought WHERE reversed_at IS NOT NULL AND declined_at IS NULL
    )) AS invite_id
FROM b {JOIN_MEMBER.format("b")}
""",
)


async def record(
    tx: Tx,
    viewer: Viewer,
    member_id: UUID,
    source: MemberSource,
    order_id: str,
    amount: int,
    at: datetime | None,
    told_of: bytes | None = None,
) -> RecordedRow | None:
    """Insert a purchase in the merchant's currency and return it, or None when it stands already or can't be.

    Waits for a rival that is inserting the same order.
    """
    currency = viewer.tenant.currency
    return await tx.row(
        RECORD,
        merchant_id=viewer.merchant_id,
        purchase_id=ids.new(),
        member_id=member_id,
        source=source.value,
        order_id=order_id,
        amount=amount,
        minor_units=10 ** (Currency(currency).exponent or 0),
        currency=currency,
        occurred_at=at,
        told_of=told_of,
        event_id=ids.new(),
        actor=viewer.actor,
    )


async def earn(tx: Tx, viewer: Viewer, purchase: WholePurchaseRow) -> tuple[PostedRow | None, PostedRow | None]:
    """Credit what a new purchase earned, and let it make good what returns lack.

    Returns the credit and the last of both. Raises Refused(InvalidInput) when the balance can't hold it.
    """
    if purchase["purchase_points"] == 0:
        return None, None
    origin = purchase["purchase_id"].hex
    entry = await credit(
        tx, viewer.merchant_id, viewer.actor, purchase["member_id"], purchase["purchase_points"],
        PointsReason.PURCHASE, origin=origin, reference=purchase["purchase_order_id"],
        spendable_at=purchase["purchase_spendable_at"],
    )  # fmt: skip
    if entry is None:
        raise too_many("amount.amountMinor")
    if entry["wallet_shortfall"] == 0:
        return entry, entry
    paid = await make_good(tx, viewer.merchant_id, viewer.actor, entry, origin=f"{origin}/earned")
    return entry, paid or entry


@mutation(
    description="Record a purchase and credit the points that it earns: its amount, less what was paid with points, x "
    "the merchant's points per unit, whole points only. It may convert the invite that the member came by, or bring "
    "its referral back. Idempotent on (source, orderId). "
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
    named = named_member(problems, viewer, input.member_id, input.member)
    problems.refuse_if_any()
    told_of = _told_of(viewer, input.source, order_id, named.key)
    try:
        member_id = await named.id(viewer)
    except Refused:
        stands = None if told_of is None else await purchase_by_order(viewer, input.source.value, order_id)
        if stands is None or (stands["told_of"], stands["purchase_recorded_amount"]) != (told_of, amount):
            raise
        if stands["order_cancelled_at"] is not None:
            await _refuse_if_cancelled(viewer, input.source, order_id)
        return await _replayed(viewer, stands)
    referral_id: UUID | None = None
    async with transaction(viewer.merchant_id) as tx:
        purchase = await record(tx, viewer, member_id, input.source, order_id, amount, input.occurred_at, told_of)
        if purchase is not None:
            if purchase["invite_id"] is not None:
                # First, because it locks two wallets, and several are locked by member.
                converted = await convert(tx, viewer.tenant.keys, viewer.actor, purchase["invite_id"])
                referral_id = converted.referral_id
            entry, change = await earn(tx, viewer, purchase)
    if purchase is None:
        return await _standing(viewer, input.source, order_id, member_id, told_of, named.shown(viewer), amount)
    latest: WholePurchaseRow = purchase
    if entry is None and referral_id is not None:
        # Nothing that this purchase wrote itself has the wallet as the referral left it.
        latest = await purchase_row(viewer, purchase["purchase_id"]) or purchase
    return RecordPurchaseSuccess(
        purchase=Purchase.of(latest, as_of=change),
        entry=None if entry is None else PointsEntry.of(entry, as_of=change),
        referral=await _referral(viewer, referral_id),
        replayed=False,
    )


def _told_of(viewer: Viewer, source: MemberSource, order_id: str, key: MemberKey | None) -> bytes | None:
    """Return a hash of the order and the key that names the buyer: a store's id or an address may be another's later.

    With the order in it, nobody's orders can be found by it.
    """
    if key is None:
        return None
    return viewer.tenant.keys.email_index(f"buyer\0{source.value}\0{order_id}\0{key.nobody()}")


async def _standing(
    viewer: Viewer,
    source: MemberSource,
    order_id: str,
    member_id: UUID,
    told_of: bytes | None,
    shown: str,
    amount: int,
) -> RecordPurchaseSuccess:
    """Return the purchase that an earlier call recorded. Raises Refused with why there is none."""
    stands = await purchase_by_order(viewer, source.value, order_id)
    order = None
    if stands is None or stands["order_cancelled_at"] is not None:
        order = await _refuse_if_cancelled(viewer, source, order_id)
    if stands is None:
        if not await member_exists(viewer, member_id):
            raise not_found("member", shown)
        if order is not None and order["paid_value"] > amount:
            problems = Problems()
            problems.add("amount.amountMinor", f"must be at least {order['paid_value']}, what was paid with points")
            problems.refuse_if_any()
        raise too_many("amount.amountMinor")
    is_buyer = stands["member_id"] == member_id or (told_of is not None and stands["told_of"] == told_of)
    if not is_buyer or stands["purchase_recorded_amount"] != amount:
        message = "This order of this source was recorded for another member or amount."
        raise Refused(IdempotencyKeyReused(message=message))
    return await _replayed(viewer, stands)


async def _refuse_if_cancelled(viewer: Viewer, source: MemberSource, order_id: str) -> OrderRow | None:
    order = await find_order(viewer, source.value, order_id)
    if order is not None:
        refuse_if_cancelled(order["order_row_id"], source, order_id, order["cancelled_at"])
    return order


async def _replayed(viewer: Viewer, stands: StandingPurchaseRow) -> RecordPurchaseSuccess:
    """Return what an earlier call recorded. Raises Refused(PurchaseAlreadyReversed) if it was taken back."""
    if stands["purchase_reversed_at"] is not None:
        raise Refused(PurchaseAlreadyReversed.of(stands))
    entry = await entry_by_origin(viewer, PointsReason.PURCHASE.value, stands["purchase_id"].hex)
    return RecordPurchaseSuccess(
        purchase=Purchase.of(stands),
        entry=None if entry is None else PointsEntry.of(entry),
        referral=await _referral(viewer, stands["referral_id"]),
        replayed=True,
    )


async def _referral(viewer: Viewer, referral_id: UUID | None) -> Referral | None:
    return None if referral_id is None else released(await referral_row(viewer, referral_id))
