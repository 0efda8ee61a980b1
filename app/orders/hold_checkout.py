"""holdCheckout: codes are set aside for one order while its customer pays."""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import MoneyInput, Problems
from app.api.operations import Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons.rows import HONOURS, IS_HELD, IS_OVER_FOR
from app.members.member_keys import MemberKeyInput, checked_key
from app.members.types import MemberSource
from app.orders.budgets import within_budgets
from app.orders.first_orders import NAMED_LAST, TAKE, named_person
from app.orders.hold_types import Hold, HoldNotOpen
from app.orders.holds import (
    JOIN_HOLDER,
    LOCK_HOLDS,
    ChangedHoldRow,
    WholeHoldRow,
    changed_hold,
    end_hold,
    event_ids,
    hold_of_order,
)
from app.orders.order_changes import LOCK_ORDER
from app.orders.presented_codes import (
    FROM_SEEN,
    SEEN,
    Beside,
    Presentation,
    Seen,
    SeenRow,
    Verdict,
    asked,
    is_held_here,
    judged,
    limited,
    revive_accepted,
    seen,
)
from app.orders.redeem_codes import CodesRejected, EligibleAmountInput, presentation, refuse_if_rejected
from app.orders.refunds import OutpacedError
from app.orders.types import OrderNotOpen, order_not_open, refuse_if_cancelled
from app.storage.database import Statements, Tx, database, transaction
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets

ATTEMPTS_MAX: Final = 20
LIFETIME_SECONDS_MIN: Final = 60
LIFETIME_SECONDS_MAX: Final = 604_800
#: A hold lives for 30 days at most, however often it is extended.
WHOLE_LIFETIME: Final = "interval '720 hours'"


@strawberry.input(
    description="What to hold for an order. The same order again is the same hold, with what is asked now."
)
class HoldCheckoutInput:
    order_id: str = strawberry.field(description="The source's own id of the order, at most 100 characters.")
    order_amount: MoneyInput = strawberry.field(
        description="What the order is worth before discounts: goods with tax, without shipping; 0 or more."
    )
    source: MemberSource = strawberry.field(default=MemberSource.STORE, description="Where the order comes from.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member whose order it is. An address presents codes as well."
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None, description="The member by a store's id or a proven address, in place of its id."
    )
    email: str | None = strawberry.field(
        default=None, description="The address that the presenter gave, as in redeemCodes."
    )
    codes: list[str] = strawberry.field(
        default_factory=list, description="The codes in the order they apply: 20 at most, as typed."
    )
    eligible: list[EligibleAmountInput] | None = strawberry.field(
        default=None,
        description="How much of the order each code may be applied to, where that isn't the whole order.",
    )
    lifetime_seconds: int = strawberry.field(
        default=900, description="How long they are held from now: 60 to 604,800 seconds, and 30 days in all."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Makes a retry change nothing: with a key that was used for this order the answer is its hold as "
        "it stands. 1 to 200 characters.",
    )


@strawberry.type(description="Everything that was asked for is held.")
class HoldCheckoutSuccess:
    hold: Hold = strawberry.field(description="The hold.")
    taken_over: bool = strawberry.field(description="Whether other holds of the same presenter ended for it.")


HoldCheckoutResult = Annotated[
    HoldCheckoutSuccess | InvalidInput | NotFound | OrderNotOpen | HoldNotOpen | CodesRejected,
    strawberry.union("HoldCheckoutResult", description="The hold, or why nothing is held."),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request."""

    presented: Presentation
    lifetime_seconds: int
    key: str | None


class SeenToHoldRow(SeenRow):
    """What is read of an order, its codes and who presents them, beside what a hold is made of."""

    is_member: bool
    is_key_used: bool
    point_value: Decimal


@dataclass(frozen=True, slots=True)
class SeenToHold:
    """An order and its codes, whether the presenter is a member, whether the key was used for it, and the rate."""

    codes: Seen
    is_member: bool
    is_key_used: bool
    point_value: Decimal


READ: Final = statement(
    SeenToHoldRow,
    f"""
SELECT {SEEN},
    EXISTS (SELECT FROM member WHERE merchant_id = :merchant_id AND id = :presenter) AS is_member,
    EXISTS (
        SELECT FROM hold_request WHERE merchant_id = :merchant_id AND sales_order_id = o.id AND idempotency_key = :key
    ) AS is_key_used,
    (SELECT point_value FROM merchant WHERE merchant_id = :merchant_id) AS point_value
{FROM_SEEN}
""",
)


async def _read(where: Statements, viewer: Viewer, request: Asked) -> SeenToHold:
    presented = request.presented
    rows = await where.rows(READ, **asked(viewer, presented), key=request.key)
    return SeenToHold(seen(presented, rows), rows[0]["is_member"], rows[0]["is_key_used"], rows[0]["point_value"])


# All codes or none. The order of locks is the order, its hold, codes by id, first orders, wallets by member. What is
# held for the order already stays with it, by the terms that it is held under.
HOLD: Final = statement(
    ChangedHoldRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(
        :code_ids::uuid[], :terms_versions::int[], :positions::int[], :bases::bigint[], :discounts::bigint[],
        :are_here::bool[], :eligible::bigint[]
    ) AS t (code_id, terms_version, position, base, discount, is_here, eligible)
), known AS MATERIALIZED (
    -- An order that is known is locked first, and read as it is then.
    SELECT version FROM sales_order
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND cancelled_at IS NULL
        AND order_amount IS NULL
    FOR NO KEY UPDATE
), here AS MATERIALIZED (
    -- The hold that is changed, as it was read, if there is one.
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND version = :hold_version AND status = 'HELD'
        AND held_until > now() AND (SELECT version FROM known) = :version
    FOR UPDATE
), open AS MATERIALIZED (
    SELECT FROM (VALUES (1)) once
    WHERE coalesce((SELECT version FROM known), 0) = :version AND (:hold_version = 0 OR EXISTS (SELECT FROM here))
), locked AS (
    -- Every condition that can change between reading and writing is checked again, on locked rows.
    SELECT c.id, c.pool_id, c.member_id FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
        JOIN asked ON asked.code_id = c.id
    WHERE EXISTS (SELECT FROM open) AND c.merchant_id = :merchant_id AND c.id = ANY(:code_ids::uuid[])
        AND c.state = 'ALLOCATED' AND CASE WHEN asked.is_here THEN c.hold_id = :hold_id
            ELSE asked.terms_version = p.terms_version AND NOT {IS_HELD} AND {HONOURS} AND NOT {IS_OVER_FOR.format("c")}
                AND (c.expires_at IS NULL OR c.expires_at > now()) END
        AND (p.transferable
            OR c.member_id = coalesce(:presenter, (
                SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index
            ))
            OR c.email_index = :email_index)
    ORDER BY c.id FOR UPDATE OF c FOR KEY SHARE OF p
), {TAKE.format("(SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[])")}, granted AS (
    SELECT WHERE (SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[])
        AND (SELECT count(*) FROM firsts) = cardinality(:first_keys::bytea[])
), begun AS (
    -- Of two callers with one new order one begins it.
    INSERT INTO sales_order (merchant_id, id, source, order_id, currency, version, presenter_id, mailbox_index)
    SELECT :merchant_id, :order_row_id, :source, :order_id, :currency, 1, :person_id, :person_mailbox
    FROM granted WHERE :version = 0
    ON CONFLICT (merchant_id, order_id, source) DO NOTHING RETURNING id
), continued AS (
    -- Its version tells those who have read it without this hold.
    UPDATE sales_order SET version = version + 1, {NAMED_LAST}
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND version = :version
        AND EXISTS (SELECT FROM open) AND EXISTS (SELECT FROM granted)
    RETURNING id
), on_order AS (
    SELECT id FROM begun UNION ALL SELECT id FROM continued
), h AS (
    INSERT INTO hold (merchant_id, id, sales_order_id, member_id, email_index, order_amount, currency, total_discount,
                      points, points_value, point_value, held_points, status, version, held_at, held_until,
                      presented_by)
    SELECT :merchant_id, :hold_id, on_order.id, :presenter, :email_index, :amount, :currency, :total_discount,
        0, 0, :point_value, 0, 'HELD', 1, now(), now() + :lifetime_seconds * interval '1 second', :presented_by
    FROM on_order
    ON CONFLICT (merchant_id, id) DO UPDATE SET member_id = excluded.member_id, email_index = excluded.email_index,
        order_amount = excluded.order_amount, total_discount = excluded.total_discount,
        version = hold.version + 1, held_until = least(excluded.held_until, hold.held_at + {WHOLE_LIFETIME}),
        presented_by = excluded.presented_by
    RETURNING *
), leaving AS (
    -- Nobody else wants what the hold has, so that these need not be locked in one order with the others.
    SELECT c.id, c.member_id FROM code c
    WHERE c.merchant_id = :merchant_id AND c.hold_id = :hold_id AND c.id = ANY(ARRAY(
        SELECT code_id FROM hold_code
        WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM h) AND code_id <> ALL(:code_ids::uuid[])
    ))
    ORDER BY c.id FOR UPDATE
), freed AS (
    UPDATE code SET hold_id = NULL, held_until = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM leaving))
), held AS (
    UPDATE code SET hold_id = :hold_id, held_until = h.held_until FROM h
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(:code_ids::uuid[])
), unlisted AS (
    DELETE FROM hold_code
    WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM h) AND code_id <> ALL(:code_ids::uuid[])
), listed AS (
    INSERT INTO hold_code (merchant_id, hold_id, code_id, pool_id, position, terms_version, base, discount, eligible)
    SELECT :merchant_id, h.id, asked.code_id, locked.pool_id, asked.position, asked.terms_version, asked.base,
        asked.discount, asked.eligible
    FROM h CROSS JOIN asked JOIN locked ON locked.id = asked.code_id
    ON CONFLICT (merchant_id, hold_id, code_id) DO UPDATE SET position = excluded.position, base = excluded.base,
        discount = excluded.discount, eligible = excluded.eligible
), requested AS (
    INSERT INTO hold_request (merchant_id, sales_order_id, idempotency_key)
    SELECT :merchant_id, sales_order_id, :key FROM h WHERE :key::varchar IS NOT NULL
), owners AS (
    SELECT DISTINCT member_id FROM (SELECT * FROM leaving UNION ALL SELECT id, member_id FROM locked) touched
    WHERE member_id IS NOT NULL
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY owners.member_id)] AS event_id, h.id AS subject_id,
        owners.member_id, NULL::bytea AS reason
    FROM h LEFT JOIN owners ON true
), {raise_wallets([("hold.changed", ":hold_version > 0"), ("hold.placed", "")])}
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)}
FROM h CROSS JOIN (SELECT :source::varchar AS source, :order_id::varchar AS order_id) o {JOIN_HOLDER}
CROSS JOIN recorded ev ORDER BY ev.wallet_version
""",
)


async def _hold(
    where: Statements, viewer: Viewer, request: Asked, found: SeenToHold, verdict: Verdict
) -> ChangedHoldRow | None:
    """Hold what a verdict accepted, and tell who watches the wallets that this changes.

    Returns the hold, or None when something has changed since it was read.
    """
    presented, order = request.presented, found.codes
    here = order.hold if order.hold is not None and order.hold.is_live else None
    accepted = verdict.accepted
    coming = [row["code_id"] for row, _ in accepted]
    budgeted = [row["pool_id"] for row, _ in accepted if row["budget_left"] is not None]
    async with within_budgets(where, viewer.merchant_id, budgeted):
        rows = await where.rows(
            HOLD,
            merchant_id=viewer.merchant_id,
            code_ids=coming,
            terms_versions=[row["pool_terms_version"] for row, _ in accepted],
            positions=list(range(1, len(accepted) + 1)),
            bases=[share.base for _, share in accepted],
            discounts=[share.discount for _, share in accepted],
            are_here=[is_held_here(order, row) for row, _ in accepted],
            eligible=[share.eligible for _, share in accepted],
            **named_person([row for row, _ in accepted], [row for row, _ in accepted if not is_held_here(order, row)]),
            presenter=presented.presenter,
            email_index=presented.email_index,
            order_row_id=ids.new(),
            version=order.version,
            source=presented.source.value,
            order_id=presented.order_id,
            amount=presented.amount,
            currency=presented.currency,
            total_discount=sum(share.discount for _, share in accepted),
            point_value=found.point_value,
            hold_id=ids.new() if here is None else here.id,
            hold_version=0 if here is None else here.version,
            lifetime_seconds=request.lifetime_seconds,
            presented_by=presented.presented_by,
            key=request.key,
            event_ids=event_ids(),
            actor=viewer.actor,
        )
    return changed_hold(where, viewer.merchant_id, rows)


@mutation(
    description="Hold codes for one order until it is paid, all of them or none. The same order again is the same "
    "hold, with what is asked now. What only other holds of the same presenter are in the way of is taken over from "
    "them: the earliest, whole, are EXPIRED at once. ADMIN and CHECKOUT."
)
async def hold_checkout(
    info: Info, input: Annotated[HoldCheckoutInput, strawberry.argument(description="The order and what to hold.")]
) -> HoldCheckoutResult:
    """Judge the codes, then hold them in one statement; under locks where another hold has to end for it."""
    viewer = info.context.viewer
    request = await _checked(viewer, input)
    for attempt in range(ATTEMPTS_MAX):
        found = await _read(database(), viewer, request)
        if found.is_key_used:
            return await _replayed(viewer, found)
        await _refuse_unless_open(database(), viewer, request, input, found)
        verdict = judged(viewer, request.presented, found.codes, Beside.HOLD)
        if attempt == 0:
            verdict = await limited(viewer, request.presented, verdict)
        refuse_if_rejected(verdict)
        # Before the order is locked, because this locks wallets.
        await revive_accepted(viewer, verdict)
        ending = _ending(found.codes, verdict)
        try:
            if ending:
                async with transaction(viewer.merchant_id) as tx:
                    held, taken_over = await _hold_under_locks(tx, viewer, request, input, ending)
                return HoldCheckoutSuccess(hold=Hold.changed(held), taken_over=taken_over)
        except OutpacedError:
            continue
        try:
            row = await _hold(database(), viewer, request, found, verdict)
        except OutpacedError:
            continue
        if row is not None:
            return HoldCheckoutSuccess(hold=Hold.changed(row), taken_over=False)
    raise RuntimeError("an order kept changing while it was held")


async def _checked(viewer: Viewer, input: HoldCheckoutInput) -> Asked:
    problems = Problems()
    problems.number("lifetimeSeconds", input.lifetime_seconds, least=LIFETIME_SECONDS_MIN, most=LIFETIME_SECONDS_MAX)
    problems.idempotency_key(input.idempotency_key)
    if not input.codes:
        problems.add("codes", "must hold something")
    if input.order_amount.currency != viewer.tenant.currency:
        problems.add("orderAmount.currency", f"must be {viewer.tenant.currency}, the merchant's currency")
    presented = await presentation(viewer, input, codes_min=0, problems=problems)
    return Asked(presented, input.lifetime_seconds, input.idempotency_key)


async def _replayed(viewer: Viewer, found: SeenToHold) -> HoldCheckoutSuccess:
    """Return the order's hold as it stands."""
    order_row_id = found.codes.order_row_id
    row = None if order_row_id is None else await hold_of_order(database(), viewer, order_row_id)
    if row is None:
        raise RuntimeError("an order that was held has no hold")
    return HoldCheckoutSuccess(hold=Hold.of(row), taken_over=False)


async def _refuse_unless_open(
    where: Statements, viewer: Viewer, request: Asked, input: HoldCheckoutInput, found: SeenToHold
) -> None:
    """Raise Refused with NotFound, OrderNotOpen or HoldNotOpen."""
    presented, order = request.presented, found.codes
    if presented.presenter is not None and not found.is_member:
        if input.member is None:
            raise not_found("member", input.member_id or "")
        raise not_found("member", checked_key(Problems(), viewer, input.member).shown)
    refuse_if_cancelled(order.order_row_id, presented.source, presented.order_id, order.cancelled_at)
    if order.order_row_id is None or order.amount is None:
        return
    captured = await hold_of_order(where, viewer, order.order_row_id)
    if captured is not None and captured["hold_status"] == "CAPTURED":
        raise Refused(HoldNotOpen.of(captured, "it was captured"))
    raise order_not_open(
        "it was redeemed, and can be amended", order.order_row_id, presented.source, presented.order_id
    )


def _ending(order: Seen, verdict: Verdict) -> set[UUID]:
    """Return the holds that end for this one: those that have its codes, and one of the order whose time has passed."""
    ending = {
        row["holder_id"] for row, _ in verdict.accepted if row["holder_id"] is not None and not is_held_here(order, row)
    }
    if order.hold is not None and not order.hold.is_live:
        ending.add(order.hold.id)
    return ending


async def _hold_under_locks(
    tx: Tx, viewer: Viewer, request: Asked, input: HoldCheckoutInput, ending: Collection[UUID]
) -> tuple[ChangedHoldRow, bool]:
    """End holds, then hold; all or nothing. Returns whether a hold of another order was taken over.

    Of another order only its hold's row is locked, never the order's. Raises OutpacedError when the order, a hold or a
    code isn't what it was before.
    """
    presented = request.presented
    name = {"merchant_id": viewer.merchant_id, "source": presented.source.value, "order_id": presented.order_id}
    await tx.row(LOCK_ORDER, **name)
    await tx.rows(LOCK_HOLDS, merchant_id=viewer.merchant_id, hold_ids=list(ending))
    found = await _read(tx, viewer, request)
    await _refuse_unless_open(tx, viewer, request, input, found)
    verdict = judged(viewer, presented, found.codes, Beside.HOLD)
    refuse_if_rejected(verdict)
    still = _ending(found.codes, verdict)
    if found.is_key_used or not still <= set(ending):
        raise OutpacedError
    own = found.codes.hold
    for hold_id in sorted(still):
        await end_hold(tx, viewer.merchant_id, viewer.actor, hold_id, "EXPIRED")
    # What has just been freed isn't held any more, and the order has no hold but a live one.
    after = await _read(tx, viewer, request)
    verdict = judged(viewer, presented, after.codes, Beside.HOLD)
    refuse_if_rejected(verdict)
    row = await _hold(tx, viewer, request, after, verdict)
    if row is None:
        raise OutpacedError
    return row, bool(still - ({own.id} if own is not None and not own.is_live else set()))
