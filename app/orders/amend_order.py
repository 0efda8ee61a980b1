"""amendOrder: the codes, the amount and the points of an order that was redeemed are replaced, in one step."""

import hashlib
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Money, MoneyInput, Problems, stored_key
from app.api.operations import (
    IdempotencyKeyReused,
    Info,
    InvalidInput,
    NotFound,
    OutpacedError,
    Refused,
    mutation,
    not_found,
)
from app.api.reasons import REASON_LENGTH_MAX, seal
from app.api.scalars import BigInt
from app.coupons.end_returned import end_returned
from app.coupons.types import Redemption
from app.members.member_keys import MemberKeyInput
from app.members.rows import member_exists
from app.members.types import MemberSource
from app.orders.budgets import within_budgets
from app.orders.expire_holds import end_of_budgets
from app.orders.locks import lock_wallets
from app.orders.order_changes import (
    LOCK_CODES,
    buyer_of,
    give_back,
    let_order_follow,
    lock_order,
    place,
    standing_order,
)
from app.orders.presented_codes import Beside, Presentation, Seen, judged, limited, read, revive_accepted
from app.orders.redeem_codes import CodesRejected, EligibleAmountInput, presentation, redeem, refuse_if_rejected
from app.orders.rows import FIND_BY_ORDER, FIND_ORDER, REDEMPTIONS_OF_ORDER, OrderRow
from app.orders.types import OrderNotOpen, Purchase, refuse_if_cancelled
from app.points.ledger import InsufficientPoints
from app.storage.database import ONE_MOMENT, Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import statement

ATTEMPTS_MAX: Final = 20


@strawberry.input(
    description="What an order is to be from now on. The same key and the same request again is the same amendment."
)
class AmendOrderInput:
    order_id: str = strawberry.field(description="The source's own id of the order, at most 100 characters.")
    codes: list[str] = strawberry.field(
        description="All its codes in the order they apply, as typed: 20 at most, none if it is to have none."
    )
    order_amount: MoneyInput = strawberry.field(
        description="What the order is worth before discounts and before refunds: goods with tax, without shipping."
    )
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    idempotency_key: str = strawberry.field(description="Makes a retry the same amendment; 1 to 200 characters.")
    source: MemberSource = strawberry.field(default=MemberSource.STORE, description="Where the order comes from.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member that presents the codes that come; those that stay need no presenter."
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None, description="The member by a store's id or a proven address, in place of its id."
    )
    email: str | None = strawberry.field(
        default=None, description="The address that the presenter gave, as in redeemCodes."
    )
    points: int | None = strawberry.field(
        default=None,
        description="How many points to pay with from now on, at most: the fewest that cover what the order is worth "
        "after discounts, before refunds. Those of the member that is named by its id or a store's id, or of who has "
        "paid already; an address spends nobody's. Without it the order is paid with as many as before, as far as it "
        "needs them.",
    )
    eligible: list[EligibleAmountInput] | None = strawberry.field(
        default=None,
        description="How much of the order each code may be applied to from now on, where that isn't the whole order.",
    )


@strawberry.type(description="The order is as it was asked for.")
class AmendOrderSuccess:
    redemptions: list[Redemption] = strawberry.field(description="Those that stand, in the order in which they apply.")
    total_discount: Money = strawberry.field(description="What the codes take off together.")
    purchase: Purchase | None = strawberry.field(description="What was recorded for the order, which followed.")
    amount_due: Money = strawberry.field(
        description="The order's amount less discounts and what is paid with points: what is to pay with money, before "
        "refunds. 0 once the order is cancelled."
    )
    points_returned: int = strawberry.field(description="How many points that had been paid came back.")
    shortfall: int = strawberry.field(description="How many points of the purchase could not be taken back.")
    replayed: bool = strawberry.field(
        description="Whether an earlier call did this; then everything is told as it stands now."
    )


AmendOrderResult = Annotated[
    AmendOrderSuccess
    | InvalidInput
    | NotFound
    | OrderNotOpen
    | CodesRejected
    | InsufficientPoints
    | IdempotencyKeyReused,
    strawberry.union("AmendOrderResult", description="The amended order, or why it is as it was."),
]


class _AmendmentRow(TypedDict):
    """An amendment that an earlier call made."""

    request_hash: bytes
    shortfall: int
    points_returned: int


FIND_BY_KEY: Final = statement(
    _AmendmentRow,
    """
SELECT request_hash, shortfall, points_returned FROM order_amendment
WHERE merchant_id = :merchant_id AND idempotency_key = :key
""",
)


class _WrittenRow(TypedDict):
    id: UUID


# Of two callers with one key, for one order or two, one writes it; the other rolls its event back.
WRITE: Final = statement(
    _WrittenRow,
    f"""
WITH recorded AS (
    {event("order.amended", subject=":order_row_id", reason=":reason")}
)
INSERT INTO order_amendment (merchant_id, id, sales_order_id, idempotency_key, request_hash, amount_before,
                             discount_before, amount_after, discount_after, shortfall, points_returned, amended_at)
VALUES (:merchant_id, :amendment_id, :order_row_id, :key, :request_hash, :amount_before, :discount_before,
        :amount_after, :discount_after, :shortfall, :points_returned, now())
ON CONFLICT (merchant_id, idempotency_key) DO NOTHING RETURNING id
""",
)


@mutation(
    description="Replace the codes, the amount and the points of an order that was redeemed, in one step. Codes that "
    "stay are judged by the terms and the time of their first redemption, those that go are live again, those that "
    "come are judged now; points beyond what it needs come back, and a recorded purchase follows. ADMIN, CHECKOUT and "
    "SUPPORT."
)
async def amend_order(
    info: Info, input: Annotated[AmendOrderInput, strawberry.argument(description="The order as it is to be.")]
) -> AmendOrderResult:
    """Judge the codes, then do it all under the order's lock, where they are judged once more."""
    viewer = info.context.viewer
    problems = Problems()
    reason = problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
    problems.idempotency_key(input.idempotency_key)
    if input.order_amount.currency != viewer.tenant.currency:
        problems.add("orderAmount.currency", f"must be {viewer.tenant.currency}, the merchant's currency")
    _check_points(problems, input)
    presented = await presentation(viewer, input, codes_min=0, problems=problems)
    key = stored_key(viewer, input.idempotency_key)
    request_hash, is_counted = _hash(presented, input.points), False
    for attempt in range(ATTEMPTS_MAX):
        earlier = await _earlier(database(), viewer, key, request_hash)
        if earlier is not None:
            async with transaction(viewer.merchant_id) as tx:
                # As of one moment, whatever else becomes of the order meanwhile.
                await tx.row(ONE_MOMENT)
                return await _answer(
                    tx, viewer, presented, earlier["points_returned"], earlier["shortfall"], replayed=True
                )
        seen = await read(database(), viewer, presented)
        _refuse_unless_open(presented, seen)
        if input.points and presented.presenter is not None and not await member_exists(viewer, presented.presenter):
            raise not_found("member", input.member_id or (input.member and input.member.external_id) or "")
        verdict = judged(viewer, presented, seen, Beside.AMENDMENT)
        if verdict.lacks_budget and (await end_of_budgets(viewer.merchant_id, seen.budget_pools) or attempt == 0):
            continue
        if not is_counted:
            verdict, is_counted = await limited(viewer, presented, verdict), True
        refuse_if_rejected(verdict)
        # Before the order is locked, because this locks wallets.
        await revive_accepted(viewer, verdict)
        buyer = await buyer_of(viewer, presented.source, presented.order_id)
        try:
            async with within_budgets(viewer.merchant_id, verdict.accepted), transaction(viewer.merchant_id) as tx:
                return await _amend(tx, viewer, presented, input, key, request_hash, reason, buyer)
        except OutpacedError:
            continue
    raise RuntimeError("an order kept changing while it was amended")


def _check_points(problems: Problems, input: AmendOrderInput) -> None:
    """Check how many points pay. Who types an address may be anybody: it spends nobody's points."""
    if input.points is not None and input.points < 0:
        problems.add("points", "must be 0 or more")
    is_named = input.member_id is not None or (input.member is not None and input.member.external_id is not None)
    if input.points and not is_named and (input.email is not None or input.member is not None):
        problems.add("points", "need the member by its id or a store's id")


def _payer(presented: Presentation, input: AmendOrderInput, order: OrderRow) -> UUID | None:
    """Return who pays with points: the member that is named, or the one that has paid. Raises Refused(InvalidInput)."""
    if not input.points:
        return order["payer_id"]
    problems = Problems()
    named, has_paid = presented.presenter, order["payer_id"] if order["paid_points"] else None
    if named is None and has_paid is None:
        problems.add("points", "need the member by its id or a store's id")
    if None not in (named, has_paid) and named != has_paid:
        problems.add("memberId" if input.member is None else "member", "must be the member that has paid with points")
    problems.refuse_if_any()
    return named or has_paid


def _hash(presented: Presentation, points: int | None) -> bytes:
    """Return a hash of what is asked for: the order, its amount, points, the codes in their order and who has them."""
    digest = hashlib.sha256(presented.presented_by)
    digest.update(f"{presented.amount} {presented.currency} {points}".encode())
    for typed, fingerprint in zip(presented.typed, presented.fingerprints, strict=True):
        digest.update(hashlib.sha256(fingerprint or typed.encode()).digest())
    if any(each is not None for each in presented.eligible):
        digest.update(repr(presented.eligible).encode())
    return digest.digest()


async def _earlier(where: Statements, viewer: Viewer, key: bytes, request_hash: bytes) -> _AmendmentRow | None:
    """Return the amendment that this key made before. Raises Refused when it was another request."""
    earlier = await where.row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is not None and earlier["request_hash"] != request_hash:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another amendment."))
    return earlier


def _refuse_unless_open(presented: Presentation, seen: Seen) -> None:
    refuse_if_cancelled(seen.order_row_id, presented.source, presented.order_id, seen.cancelled_at)
    # Of an order that is held, codes say what is in the way.
    is_held = seen.hold is not None and seen.hold.is_live
    if seen.amount is None and not (is_held and presented.typed):
        raise not_found("order", presented.order_id)


async def _amend(
    tx: Tx,
    viewer: Viewer,
    presented: Presentation,
    input: AmendOrderInput,
    key: bytes,
    request_hash: bytes,
    reason: str,
    buyer: UUID | None,
) -> AmendOrderSuccess:
    """Replace what the order has. Raises OutpacedError when the order or a code isn't what it was before."""
    purchase = await lock_order(tx, viewer, presented.source, presented.order_id, buyer)
    if await tx.row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key) is not None:
        raise OutpacedError
    seen = await read(tx, viewer, presented)
    _refuse_unless_open(presented, seen)
    verdict = judged(viewer, presented, seen, Beside.AMENDMENT)
    refuse_if_rejected(verdict)
    order = await standing_order(tx, viewer, presented.source, presented.order_id)
    payer_id = _payer(presented, input, order)
    stays = {row["code_id"] for row in seen.on_order}
    places = dict(enumerate(verdict.accepted, start=1))
    staying = {position: placed for position, placed in places.items() if placed[0]["code_id"] in stays}
    coming = {position: placed for position, placed in places.items() if position not in staying}
    kept = {row["code_id"] for row, _ in staying.values()}
    leaving = [row for row in seen.on_order if row["code_id"] not in kept]
    amount_before = seen.amount or 0
    discount_before = sum(row["redemption_discount"] for row in seen.on_order)
    discount_after = sum(share.discount for _, share in places.values())

    amendment_id = ids.new()
    moved = [row["code_id"] for row in leaving] + [row["code_id"] for row, _ in coming.values()]
    if purchase is not None or payer_id is not None:
        await lock_wallets(tx, viewer, purchase, moved, payer_id=payer_id)
    elif leaving and coming:
        # Those that come before the wallets of those that go.
        await tx.rows(LOCK_CODES, merchant_id=viewer.merchant_id, code_ids=moved)
    worth = presented.amount - discount_after
    followed = await let_order_follow(
        tx, viewer, order, purchase, worth, worth - (amount_before - discount_before),
        points=input.points, payer_id=payer_id, origin=amendment_id.hex,
    )  # fmt: skip
    order_row_id, _ = await give_back(
        tx, viewer, presented.source, presented.order_id, leaving,
        version=followed.version, amount=presented.amount, reason=reason, reinstate=True,
    )  # fmt: skip
    await end_returned(tx, viewer, [row["code_id"] for row in leaving])
    if coming and not await redeem(tx, viewer, presented, coming, version=followed.version + 1):
        raise OutpacedError
    await place(tx, viewer, staying, amount=presented.amount)
    event_id, sealed_reason = seal(viewer, reason)
    written = await tx.row(
        WRITE,
        merchant_id=viewer.merchant_id,
        amendment_id=amendment_id,
        order_row_id=order_row_id,
        key=key,
        request_hash=request_hash,
        amount_before=amount_before,
        discount_before=discount_before,
        amount_after=presented.amount,
        discount_after=discount_after,
        shortfall=followed.shortfall,
        points_returned=followed.points_returned,
        event_id=event_id,
        actor=viewer.actor,
        reason=sealed_reason,
    )
    if written is None:
        raise OutpacedError
    return await _answer(tx, viewer, presented, followed.points_returned, followed.shortfall, replayed=False)


async def _answer(
    tx: Tx,
    viewer: Viewer,
    presented: Presentation,
    points_returned: int,
    shortfall: int,
    *,
    replayed: bool,
) -> AmendOrderSuccess:
    """Return the order as it stands."""
    name = {"merchant_id": viewer.merchant_id, "source": presented.source.value, "order_id": presented.order_id}
    rows = await tx.rows(REDEMPTIONS_OF_ORDER, **name)
    purchase = await tx.row(FIND_BY_ORDER, **name)
    order = await tx.row(FIND_ORDER, **name)
    if order is None:
        raise RuntimeError("an amended order is gone")
    total = sum(row["redemption_discount"] for row in rows)
    left = max(0, (order["order_amount"] or 0) - total - order["paid_value"])
    due = left if order["cancelled_at"] is None else 0
    return AmendOrderSuccess(
        redemptions=[Redemption.of(row) for row in rows],
        total_discount=Money(amount_minor=BigInt(total), currency=viewer.tenant.currency),
        amount_due=Money(amount_minor=BigInt(due), currency=viewer.tenant.currency),
        purchase=None if purchase is None else Purchase.of(purchase),
        points_returned=points_returned,
        shortfall=shortfall,
        replayed=replayed,
    )
