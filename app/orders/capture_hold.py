"""captureHold: what is held for an order is redeemed and paid, whole and once; late, too, if it is still there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, cast
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id
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
from app.coupons import code_text
from app.coupons.claims import NotEligible
from app.coupons.rows import IS_HELD, IS_PAST_END
from app.coupons.rules import CodeRejectionReason
from app.members.types import MemberSource
from app.orders.expire_holds import end_aside
from app.orders.follow import follow
from app.orders.held_rewards import HeldRewardRow, capture_rewards, key_of, name_redemption, rewards_of
from app.orders.hold_types import Hold, HoldNotOpen
from app.orders.holds import (
    CODES_MAX,
    CODES_OF_HOLDS,
    JOIN_HOLD,
    JOIN_HOLDER,
    Changed,
    ChangedHoldRow,
    HeldCodeRow,
    WholeHoldRow,
    changed_hold,
    end_locked_hold,
    open_holds_of_order,
)
from app.orders.locks import lock_held
from app.orders.order_changes import buyer_of, lock_order, standing_order
from app.orders.payments import write_paid
from app.orders.presented_codes import CodeRejection, Remedy
from app.orders.rows import OrderRow, StandingPurchaseRow
from app.orders.rules import Paid, paid_with
from app.points.capturing import CAPTURE_LOTS, capture_points
from app.points.freeing import free_points
from app.points.ledger import POINTS_MAX, RECORD_ENTRY, InsufficientPoints, debit
from app.points.redeem_reward import TAKE, RewardOutOfStock, TakenRewardRow, redeem
from app.points.types import PointsReason
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, raise_wallets

ATTEMPTS_MAX: Final = 20
REFERENCE_LENGTH_MAX: Final = 200


@strawberry.input(description="A hold whose order is paid.")
class CaptureHoldInput:
    hold_id: strawberry.ID = strawberry.field(description="The hold.")
    points: int | None = strawberry.field(
        default=None,
        description="How many points are paid: at most what it holds, which it is unless told; none if they are worth "
        "less than a minor unit.",
    )
    payment_reference: str | None = strawberry.field(
        default=None,
        description="What the payment is called, for the record: at most 200 characters; the order's id unless told.",
    )


@strawberry.type(description="The hold is CAPTURED.")
class CaptureHoldSuccess:
    hold: Hold = strawberry.field(description="The hold, with its redemptions.")
    replayed: bool = strawberry.field(description="Whether an earlier call captured it.")


CaptureHoldResult = Annotated[
    CaptureHoldSuccess | InvalidInput | NotFound | HoldNotOpen | IdempotencyKeyReused,
    strawberry.union("CaptureHoldResult", description="The captured hold, or why it isn't."),
]


class ToCaptureRow(WholeHoldRow):
    """A hold, the version of its order, and whether a purchase is recorded for that."""

    order_version: int
    is_recorded: bool


FIND_TO_CAPTURE: Final = statement(
    ToCaptureRow,
    f"""
SELECT {columns(WholeHoldRow)}, o.version AS order_version, EXISTS (
    SELECT FROM purchase
    WHERE merchant_id = :merchant_id AND source = o.source AND order_id = o.order_id
) AS is_recorded
FROM hold h {JOIN_HOLD} WHERE h.merchant_id = :merchant_id AND h.id = :hold_id
""",
)
# The codes of the `open` hold, and what they become.
_ASKED: Final = """
asked AS (
    SELECT x.*, (:redemption_ids::uuid[])[x.position] AS new_redemption_id, (:event_ids::uuid[])[x.position] AS event_id
    FROM hold_code x WHERE x.merchant_id = :merchant_id AND x.hold_id = (SELECT id FROM open)
)"""
# What becomes of the codes that are `locked`, once the hold `h` is captured.
_REDEEMED: Final = """
redeemed AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now(), hold_id = NULL, held_until = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM locked)) AND EXISTS (SELECT FROM h)
    RETURNING id, pool_id, member_id
), r AS (
    INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                            base, discount, currency, redeemed_at, presented_by, eligible)
    SELECT :merchant_id, asked.new_redemption_id, redeemed.pool_id, asked.terms_version, asked.code_id, :source,
        :order_id, asked.position, h.order_amount, asked.base, asked.discount, h.currency, now(), h.presented_by,
        asked.eligible
    FROM h CROSS JOIN asked JOIN redeemed ON redeemed.id = asked.code_id ORDER BY asked.position
), listed AS (
    UPDATE hold_code SET redemption_id = asked.new_redemption_id FROM asked, h
    WHERE hold_code.merchant_id = :merchant_id AND hold_code.hold_id = h.id AND hold_code.code_id = asked.code_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), count(*), 0, 0 FROM redeemed GROUP BY pool_id
)"""
# All codes or none, by the terms and at the amounts that the hold told; what became of their pools since is no matter.
# The order of locks is the order, the hold, codes by id, wallets by member. A hold whose time has passed is captured if
# its codes are still live and nobody else holds them.
CAPTURE: Final = statement(
    ChangedHoldRow,
    f"""
WITH known AS MATERIALIZED (
    SELECT id FROM sales_order
    WHERE merchant_id = :merchant_id AND id = :order_row_id AND source = :source AND order_id = :order_id
        AND cancelled_at IS NULL AND order_amount IS NULL
    FOR NO KEY UPDATE
), open AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND version = :version AND EXISTS (SELECT FROM known)
        AND CASE WHEN :is_late THEN status = 'EXPIRED' OR (status = 'HELD' AND held_until <= now())
            ELSE status = 'HELD' AND held_until > now() END
    FOR UPDATE
), {_ASKED}, locked AS (
    SELECT c.id FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(SELECT code_id FROM asked)) AND c.state = 'ALLOCATED'
        AND CASE WHEN {IS_HELD} THEN c.hold_id = :hold_id ELSE :is_late AND NOT {IS_PAST_END} END
    ORDER BY c.id FOR UPDATE OF c FOR KEY SHARE OF p
), h AS (
    UPDATE hold SET status = 'CAPTURED', version = version + 1, ended_at = now(), captured_points = :points,
        captured_value = :value
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM open)
        AND (SELECT count(*) FROM locked) = (SELECT count(*) FROM asked)
    RETURNING *
), continued AS (
    UPDATE sales_order SET version = sales_order.version + 1, order_amount = h.order_amount FROM h
    WHERE sales_order.merchant_id = :merchant_id AND sales_order.id = :order_row_id
        AND sales_order.source = :source AND sales_order.order_id = :order_id
), {_REDEEMED}, told AS (
    {event("hold.captured", subject="h.id", source="h")}
), changed AS (
    SELECT asked.event_id, redeemed.id AS subject_id, redeemed.member_id, NULL::bytea AS reason
    FROM redeemed JOIN asked ON asked.code_id = redeemed.id
), {raise_wallets("code.redeemed")}
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)}
FROM h CROSS JOIN (SELECT :source::varchar AS source, :order_id::varchar AS order_id) o {JOIN_HOLDER}
LEFT JOIN recorded ev ON true ORDER BY ev.wallet_version
""",
)


# The same with all the points of a hold that is still HELD, where no purchase follows and all its codes are in the
# wallet that pays, which changes by each code, and last by the payment. The lots are read as they were when the
# statement began, so it writes nothing when the wallet has changed since. Recording a purchase for an order that is
# held raises the order's version.
CAPTURE_WITH_POINTS: Final = statement(
    ChangedHoldRow,
    f"""
WITH known AS MATERIALIZED (
    SELECT id FROM sales_order
    WHERE merchant_id = :merchant_id AND id = :order_row_id AND source = :source AND order_id = :order_id
        AND version = :order_version AND cancelled_at IS NULL AND order_amount IS NULL
    FOR NO KEY UPDATE
), open AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND version = :version AND EXISTS (SELECT FROM known)
        AND status = 'HELD' AND held_until > now()
    FOR UPDATE
), {_ASKED}, locked AS (
    SELECT c.id, c.member_id FROM code c
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(SELECT code_id FROM asked)) AND c.state = 'ALLOCATED'
        AND c.hold_id = :hold_id AND {IS_HELD} AND (c.member_id IS NULL OR c.member_id = :member_id)
    ORDER BY c.id FOR UPDATE
), before AS MATERIALIZED (
    SELECT version FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id
), own AS (
    SELECT count(*) AS all_codes, count(member_id)::int AS codes FROM locked
), w AS (
    UPDATE wallet SET version = wallet.version + own.codes + 1, changed_at = {NEXT_DATE},
        points = wallet.points - :points, held_points = wallet.held_points - :points
    FROM before, own
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = :member_id AND wallet.version = before.version
        AND EXISTS (SELECT FROM open) AND own.all_codes = (SELECT count(*) FROM asked)
    RETURNING wallet.*, own.codes
), {CAPTURE_LOTS}, e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference, created_at)
    SELECT :merchant_id, :entry_id, member_id, -:points, points, 'PAYMENT', :origin, :reference, changed_at
    FROM w RETURNING *
), h AS (
    UPDATE hold SET status = 'CAPTURED', version = version + 1, ended_at = now(), captured_points = :points,
        captured_value = :value
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM open) AND EXISTS (SELECT FROM w)
    RETURNING *
), continued AS (
    UPDATE sales_order SET version = sales_order.version + 1, order_amount = h.order_amount, payer_id = h.member_id,
        paid_points = :points, paid_value = :value, point_value = h.point_value, payments = 1
    FROM h WHERE sales_order.merchant_id = :merchant_id AND sales_order.id = :order_row_id
        AND sales_order.source = :source AND sales_order.order_id = :order_id
), {_REDEEMED}, told AS (
    {event("hold.captured", id=":told_id", subject="h.id", source="h")}
), spent AS (
    SELECT asked.event_id, redeemed.id AS code_id, w.member_id, w.points + :points AS points,
        w.held_points + :points AS held_points, w.pending_points, w.shortfall,
        w.version - 1 - w.codes + row_number() OVER (ORDER BY asked.event_id) AS version
    FROM w CROSS JOIN redeemed JOIN asked ON asked.code_id = redeemed.id WHERE redeemed.member_id IS NOT NULL
), spent_told AS (
    {
        event(
            "code.redeemed",
            id="spent.event_id",
            subject="spent.code_id",
            source="spent",
            member_id="spent.member_id",
            wallet="spent",
        )
    }
    RETURNING *
), bearers_told AS (
    {
        event(
            "code.redeemed",
            id="asked.event_id",
            subject="redeemed.id",
            source="redeemed JOIN asked ON asked.code_id = redeemed.id AND redeemed.member_id IS NULL",
        )
    }
), paid_told AS (
    {RECORD_ENTRY} RETURNING *
), recorded AS (
    SELECT * FROM spent_told UNION ALL SELECT * FROM paid_told
)
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)}
FROM h CROSS JOIN (SELECT :source::varchar AS source, :order_id::varchar AS order_id) o {JOIN_HOLDER}
CROSS JOIN recorded ev ORDER BY ev.wallet_version
""",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is captured of a hold: these points, which pay `value`, and what the payment is called."""

    points: int
    value: int
    reference: str


async def _capture(
    where: Statements, viewer: Viewer, hold: WholeHoldRow, asked: Asked, *, is_late: bool
) -> Changed | None:
    """Capture a hold as it was read, and tell who watches the wallets; None when it or its order has changed."""
    rows = await where.rows(
        CAPTURE,
        merchant_id=viewer.merchant_id,
        hold_id=hold["hold_id"],
        version=hold["hold_version"],
        order_row_id=hold["hold_order_row_id"],
        source=hold["hold_source"],
        order_id=hold["hold_order_id"],
        points=asked.points,
        value=asked.value,
        is_late=is_late,
        redemption_ids=[ids.new() for _ in range(CODES_MAX)],
        event_id=ids.new(),
        event_ids=[ids.new() for _ in range(CODES_MAX)],
        actor=viewer.actor,
    )
    return changed_hold(where, viewer.merchant_id, rows)


async def _capture_with_points(viewer: Viewer, hold: ToCaptureRow, asked: Asked) -> Changed | None:
    """Capture a hold as it was read, with all its points, in one statement; None where that can't be."""
    rows = await database().rows(
        CAPTURE_WITH_POINTS,
        merchant_id=viewer.merchant_id,
        hold_id=hold["hold_id"],
        version=hold["hold_version"],
        order_row_id=hold["hold_order_row_id"],
        order_version=hold["order_version"],
        source=hold["hold_source"],
        order_id=hold["hold_order_id"],
        member_id=hold["hold_member_id"],
        points=asked.points,
        value=asked.value,
        position=0,
        entry_id=ids.new(),
        origin=hold["hold_order_row_id"].hex,
        reference=asked.reference,
        redemption_ids=[ids.new() for _ in range(CODES_MAX)],
        event_ids=[ids.new() for _ in range(CODES_MAX)],
        event_id=ids.new(),
        told_id=ids.new(),
        actor=viewer.actor,
    )
    return changed_hold(database(), viewer.merchant_id, rows)


@mutation(
    description="Redeem what is held and pay with its points, all of it or nothing, by the terms and at the amounts "
    "that the hold told. Fewer points may be paid; the others are free again. Again, it is the same answer. A hold "
    "that is EXPIRED is captured, too, if all that it held is still there. ADMIN and CHECKOUT."
)
async def capture_hold(
    info: Info, input: Annotated[CaptureHoldInput, strawberry.argument(description="The hold.")]
) -> CaptureHoldResult:
    viewer = info.context.viewer
    problems = Problems()
    problems.number("points", input.points, least=0, most=POINTS_MAX)
    problems.optional_text("paymentReference", input.payment_reference, length_max=REFERENCE_LENGTH_MAX)
    problems.refuse_if_any()
    hold_id = node_id("hold", "hold", input.hold_id)
    for attempt in range(ATTEMPTS_MAX):
        row = await database().row(FIND_TO_CAPTURE, merchant_id=viewer.merchant_id, hold_id=hold_id)
        if row is None:
            raise not_found("hold", input.hold_id)
        asked = _asked(row, input)
        if row["hold_status"] == "CAPTURED":
            if row["hold_points"] != asked.points:
                raise Refused(IdempotencyKeyReused(message="The hold was captured with other points."))
            return CaptureHoldSuccess(hold=Hold.of(row), replayed=True)
        if row["hold_status"] == "RELEASED":
            raise Refused(HoldNotOpen.of(row, "it was released"))
        try:
            captured = await _captured(viewer, row, asked, is_first=attempt == 0)
        except (OutpacedError, asyncpg.UniqueViolationError):
            # A claim of the member's own may have taken the slot that a reward's code was to have.
            continue
        except Refused as refused:
            if not await _end_overdue(viewer, refused):
                raise
            continue
        if captured is not None:
            return CaptureHoldSuccess(hold=Hold.changed(captured), replayed=False)
    raise RuntimeError("a hold kept changing while it was captured")


async def _captured(viewer: Viewer, row: ToCaptureRow, asked: Asked, *, is_first: bool) -> Changed | None:
    """Capture a hold by the shortest way that does; None where it has changed since it was read."""
    try:
        if row["hold_status"] == "HELD" and not row["hold_held_points"]:
            return await _capture(database(), viewer, row, asked, is_late=False)
        if is_first and _is_plain(row, asked):
            return await _capture_with_points(viewer, row, asked)
        buyer = await buyer_of(viewer, MemberSource(row["hold_source"]), row["hold_order_id"])
        async with transaction(viewer.merchant_id) as tx:
            return await _capture_under_locks(tx, viewer, row, asked, buyer)
    except asyncpg.CheckViolationError as violation:
        if violation.constraint_name != "pool_budget_spent":
            raise
        # Of a hold whose time has passed: any other gives back what it takes.
        raise Refused(HoldNotOpen.of(row, "the budget of its pool is spent since")) from None


async def _end_overdue(viewer: Viewer, refused: Refused) -> bool:
    """End holds whose time has passed too, and that have rewards which are missing. Returns whether there was one."""
    refusal = refused.refusal
    if not isinstance(refusal, HoldNotOpen) or not refusal.rewards_missing:
        return False
    missing = [node_id("reward", "reward", each) for each in refusal.rewards_missing]
    return await end_aside(viewer.merchant_id, missing)


def _is_plain(hold: ToCaptureRow, asked: Asked) -> bool:
    """Whether a hold that is still HELD is captured with all its points, and nothing else follows."""
    return hold["hold_status"] == "HELD" and 0 < asked.points == hold["hold_held_points"] and not hold["is_recorded"]


def _asked(hold: WholeHoldRow, input: CaptureHoldInput) -> Asked:
    """Return what is captured of a hold. Raises Refused(InvalidInput) for more points than it holds."""
    held, points = hold["hold_points_asked"], input.points
    problems = Problems()
    problems.number("points", points, least=0, most=held)
    problems.refuse_if_any()
    reference = (input.payment_reference or hold["hold_order_id"]).strip()
    if points is None or points == held:
        return Asked(held, hold["hold_value_asked"], reference)
    left = hold["hold_order_amount"] - hold["hold_total_discount"]
    return Asked(*paid_with(points, left, hold["hold_point_value"]), reference)


async def _capture_under_locks(tx: Tx, viewer: Viewer, seen: WholeHoldRow, asked: Asked, buyer: UUID | None) -> Changed:
    """Capture a hold with its points, or one whose time has passed: then what the order holds since is released.

    A purchase that is recorded follows. Raises OutpacedError when it has become something else, and Refused with
    HoldNotOpen when something is missing, or with InvalidInput when more is paid than the purchase is worth.
    """
    source = MemberSource(seen["hold_source"])
    purchase = await lock_order(tx, viewer, source, seen["hold_order_id"], buyer)
    order = await standing_order(tx, viewer, source, seen["hold_order_id"])
    holds = {row["hold_id"]: row for row in await open_holds_of_order(tx, viewer, seen["hold_order_row_id"])}
    hold = holds.pop(seen["hold_id"], None)
    if hold is None or hold["hold_version"] != seen["hold_version"]:
        raise OutpacedError
    if order["cancelled_at"] is not None or order["order_amount"] is not None:
        raise Refused(HoldNotOpen.of(hold, "its order was paid or called off since"))
    live = [row["hold_id"] for row in holds.values() if row["hold_stored_status"] == "HELD"]
    await lock_held(tx, viewer, source, hold["hold_order_id"], [hold["hold_id"], *live], purchase=purchase)
    for hold_id in live:
        await end_locked_hold(tx, viewer.merchant_id, viewer.actor, hold_id, "RELEASED")
    is_late = hold["hold_status"] == "EXPIRED"
    missing = Missing(await _missing_codes(tx, viewer, hold) if is_late else [])
    rewards = await rewards_of(tx, viewer, [hold["hold_id"]])
    change = await _have(tx, viewer, hold, asked, rewards, missing)
    change = await _pay(tx, viewer, hold, asked, missing) or change
    if missing.codes or missing.rewards:
        raise Refused(missing.refusal(hold))
    captured = await _capture(tx, viewer, hold, asked, is_late=is_late)
    if captured is None:
        raise OutpacedError
    followed = await _note(tx, viewer, order, purchase, hold, asked) if asked.points else None
    return captured._replace(change=followed or captured.change or change)


async def _note(
    tx: Tx,
    viewer: Viewer,
    order: OrderRow,
    purchase: StandingPurchaseRow | None,
    hold: WholeHoldRow,
    asked: Asked,
) -> ChangeRow | None:
    """Write down what the order is paid with, and let its purchase follow. Returns the last change of the wallet."""
    payer_id = hold["hold_member_id"]
    if payer_id is None:
        raise RuntimeError("nobody's points were captured")
    paid = Paid(asked.points, asked.value)
    await write_paid(tx, viewer, order, payer_id, paid, point_value=hold["hold_point_value"], payments=1)
    if purchase is None:
        return None
    followed = await follow(
        tx, viewer, purchase, purchase["purchase_amount"], paid=paid, origin=f"{order['order_row_id'].hex}/captured",
        path="points",
    )  # fmt: skip
    return followed.latest if followed.purchase["member_id"] == payer_id else None


@dataclass(slots=True)
class Missing:
    """What a hold whose time has passed can't have any more."""

    codes: list[CodeRejection]
    rewards: list[UUID] = field(default_factory=list)

    def refusal(self, hold: WholeHoldRow, points: int = 0) -> HoldNotOpen:
        """Return the refusal that names it, and how many points are missing."""
        return HoldNotOpen.of(
            hold, "some of it is gone", rejections=self.codes, points_missing=points, rewards_missing=self.rewards
        )

    def refuse_without_points(self, hold: WholeHoldRow, refused: Refused, more: int) -> Refused:
        """Return the refusal that stands for one of a debit, after which so many `more` points would be wanted."""
        if not isinstance(refused.refusal, InsufficientPoints):
            return refused
        return Refused(self.refusal(hold, refused.refusal.required + more - refused.refusal.balance))


async def _have(
    tx: Tx, viewer: Viewer, hold: WholeHoldRow, asked: Asked, rewards: Sequence[HeldRewardRow], missing: Missing
) -> ChangeRow | None:
    """Let the member have the rewards of a hold; returns the last change of the wallet, if there is one.

    Those of a hold that was written down as EXPIRED are had as any others are, at the cost that was told. Raises
    Refused(HoldNotOpen) when there are too few points.
    """
    member_id = hold["hold_member_id"]
    if member_id is None or not rewards:
        return None
    if hold["hold_stored_status"] == "HELD":
        return await capture_rewards(tx, viewer, hold["hold_id"], member_id, rewards)
    left = asked.points + sum(row["held_cost"] for row in rewards)
    for row in sorted(rewards, key=lambda row: row["reward_id"]):
        left -= row["held_cost"]
        taken = await tx.row(TAKE, merchant_id=viewer.merchant_id, reward_id=row["reward_id"], member_id=member_id)
        if taken is None or not taken["is_taken"]:
            missing.rewards.append(row["reward_id"])
            continue
        taken = cast("TakenRewardRow", {**taken, "reward_cost": row["held_cost"]})
        try:
            redemption = await redeem(tx, viewer, taken, member_id, key_of(viewer, hold["hold_id"], row))
        except Refused as refused:
            if not isinstance(refused.refusal, RewardOutOfStock | NotEligible):
                raise missing.refuse_without_points(hold, refused, left) from None
            missing.rewards.append(row["reward_id"])
            continue
        redemption_id = ids.decode("rewardredemption", redemption.id)
        code_id = None if redemption.code is None else ids.decode("code", redemption.code.id)
        if redemption_id is None:
            raise RuntimeError("a redemption has no id")
        await name_redemption(tx, viewer, hold["hold_id"], row, redemption_id, code_id)
    return None


async def _pay(tx: Tx, viewer: Viewer, hold: WholeHoldRow, asked: Asked, missing: Missing) -> ChangeRow | None:
    """Pay with points of a hold, the others are free again; returns the last change of the wallet, if there is one.

    Those of a hold that was written down as EXPIRED are free already: they are taken as any others are. Raises
    Refused(HoldNotOpen) when there are too few, which also tells what else is missing.
    """
    member_id, origin = hold["hold_member_id"], hold["hold_order_row_id"].hex
    if member_id is None or not hold["hold_held_points"]:
        return None
    if hold["hold_stored_status"] == "HELD" and not asked.points:
        freed = await free_points(
            tx, viewer.merchant_id, viewer.actor, member_id, hold["hold_id"], event_type="hold.captured",
            reference=asked.reference,
        )  # fmt: skip
        return None if freed is None else freed.latest
    if hold["hold_stored_status"] == "HELD":
        captured = await capture_points(
            tx, viewer.merchant_id, viewer.actor, member_id, hold["hold_id"], position=0, points=asked.points,
            reason=PointsReason.PAYMENT, origin=origin, reference=asked.reference,
        )  # fmt: skip
        return captured.latest
    if not asked.points:
        return None
    try:
        return await debit(
            tx, viewer.merchant_id, viewer.actor, member_id, asked.points, PointsReason.PAYMENT, origin=origin,
            reference=asked.reference,
        )  # fmt: skip
    except Refused as refused:
        raise missing.refuse_without_points(hold, refused, 0) from None


async def _missing_codes(tx: Tx, viewer: Viewer, hold: WholeHoldRow) -> list[CodeRejection]:
    """Return those codes of a hold that can't be redeemed any more, and why."""
    rows = await tx.rows(CODES_OF_HOLDS, merchant_id=viewer.merchant_id, hold_ids=[hold["hold_id"]])
    return [rejection for row in rows if (rejection := _missing(row)) is not None]


def _missing(row: HeldCodeRow) -> CodeRejection | None:
    """Return why a code of a hold whose time has passed can't be redeemed any more, or None."""
    held_until, state = row["code_held_until"], row["code_state"]
    if state == "ALLOCATED" and held_until is None:
        return None
    reason = {
        "ALLOCATED": CodeRejectionReason.HELD,
        "REDEEMED": CodeRejectionReason.ALREADY_REDEEMED,
        "REVOKED": CodeRejectionReason.REVOKED,
    }.get(state, CodeRejectionReason.EXPIRED)
    masked = code_text.mask(row["pool_kind"], row["code_suffix"], is_foreign=row["code_is_foreign"])
    remedy = None if held_until is None else Remedy(short_by=None, valid_from=None, held_until=held_until)
    return CodeRejection(masked=masked, reason=reason, remedy=remedy)
