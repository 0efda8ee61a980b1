"""holdCheckout: codes, points and rewards are set aside for one order while its customer pays."""

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Final, TypedDict, cast
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import MoneyInput, Problems, node_id, stored_key
from app.api.operations import Info, InvalidInput, NotFound, OutpacedError, Refused, mutation, not_found
from app.coupons.rows import HONOURS, IS_HELD, IS_OVER_FOR
from app.members.member_keys import MemberKeyInput, checked_key
from app.members.rows import IS_HERE, lock_member
from app.members.types import MemberSource
from app.orders.budgets import within_budgets
from app.orders.expire_holds import end_aside, end_of_budgets
from app.orders.first_orders import NAMED_LAST, TAKE, named_person
from app.orders.held_rewards import (
    UNLIST,
    HeldRewardRow,
    OutOfStockError,
    Place,
    give_back,
    hold_with,
    holds_with,
    place_rewards,
    rewards_of,
    see_codes,
    set_aside,
)
from app.orders.hold_types import Hold, HoldNotOpen
from app.orders.holds import (
    JOIN_HOLDER,
    LOCK_HOLDS,
    Changed,
    ChangedHoldRow,
    Content,
    HeldCodeRow,
    WholeHoldRow,
    changed_hold,
    end_locked_hold,
    event_ids,
    hold_of_order,
    standing_hold,
)
from app.orders.locks import lock_held
from app.orders.order_changes import LOCK_ORDER
from app.orders.presented_codes import (
    FROM_SEEN,
    SEEN,
    Beside,
    Presentation,
    Seen,
    SeenHold,
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
from app.orders.rules import Paid, paid_with
from app.orders.types import OrderNotOpen, order_not_open, refuse_if_cancelled
from app.points.freeing import free_points
from app.points.holding import HOLD_LOTS, hold_points
from app.points.ledger import POINTS_MAX, InsufficientPoints, insufficient
from app.points.redeem_reward import RewardOutOfStock
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, raise_wallets

ATTEMPTS_MAX: Final = 20
REWARDS_MAX: Final = 20
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
        default=None, description="The member whose order it is. Points and rewards need it; an address is for codes."
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None,
        description="The member by a store's id or a proven address, in place of its id. An address is for codes.",
    )
    email: str | None = strawberry.field(
        default=None, description="The address that the presenter gave, as in redeemCodes."
    )
    codes: list[str] = strawberry.field(
        default_factory=list, description="The codes in the order they apply: 20 at most, as typed."
    )
    points: int = strawberry.field(
        default=0,
        description="At most so many points are paid with, at the merchant's value of a point: the fewest that cover "
        "what is left.",
    )
    reward_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list,
        description="Rewards to have with the order, for more points: 20 at most; one listed twice is had twice.",
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
    HoldCheckoutSuccess
    | InvalidInput
    | NotFound
    | OrderNotOpen
    | HoldNotOpen
    | CodesRejected
    | InsufficientPoints
    | RewardOutOfStock,
    strawberry.union("HoldCheckoutResult", description="The hold, or why nothing is held."),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request."""

    presented: Presentation
    points: int
    reward_ids: list[UUID]
    lifetime_seconds: int
    key: bytes | None


class SeenToHoldRow(SeenRow):
    """What is read of an order, its codes and who presents them, beside what a hold is made of."""

    is_member: bool
    is_key_used: bool
    point_value: Decimal


class PointsRow(TypedDict):
    """A hold of a member's points."""

    hold_id: UUID
    held_points: int


class TooFewPointsError(Exception):
    """Fewer points can be spent than a hold wants: other holds of the member have to end for it."""

    def __init__(self, holds: set[UUID]) -> None:
        """Take the holds that would end then."""
        super().__init__()
        self.holds = holds


@dataclass(slots=True)
class Others:
    """The presenter's other holds that have points which were lacking, or a reward or code, and which of these."""

    with_points: set[UUID] = field(default_factory=set)
    with_rewards: dict[UUID, OutOfStockError] = field(default_factory=dict)

    def tried(self, lacking: OutOfStockError) -> set[UUID]:
        """Return those that were found to have it before."""
        return {each for each, found in self.with_rewards.items() if found.reward_id == lacking.reward_id}


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
    EXISTS (SELECT FROM member WHERE merchant_id = :merchant_id AND id = :presenter AND {IS_HERE}) AS is_member,
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


# What both statements below begin with: the order, the hold that changes and the codes, locked in this order and read
# as they are then. Every condition that can change between reading and writing is checked again. What is held for the
# order already stays with it, by the terms that it is held under.
_LOCKED: Final = f"""
asked AS (
    SELECT * FROM unnest(
        :code_ids::uuid[], :terms_versions::int[], :places::int[], :bases::bigint[], :discounts::bigint[],
        :are_here::bool[], :eligible::bigint[]
    ) AS t (code_id, terms_version, position, base, discount, is_here, eligible)
), known AS MATERIALIZED (
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
), named AS MATERIALIZED (
    -- A new order begins after a purchase that is being recorded for it.
    SELECT lock_order_name(:merchant_id, :source, :order_id)
    WHERE :version = 0 AND (SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[])
), {
    TAKE.format("(SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[]) AND (SELECT count(*) FROM named) >= 0")
}, ready AS MATERIALIZED (
    SELECT FROM open WHERE (SELECT count(*) FROM locked) = cardinality(:code_ids::uuid[])
        AND (SELECT count(*) FROM firsts) = cardinality(:first_keys::bytea[])
)"""
# What both go on with, once the order is `on_order`: the hold, its codes and the request's key.
_WRITTEN: Final = f"""
h AS (
    INSERT INTO hold (merchant_id, id, sales_order_id, member_id, email_index, order_amount, currency, total_discount,
                      points, points_value, point_value, held_points, status, version, held_at, held_until,
                      presented_by)
    SELECT :merchant_id, :hold_id, on_order.id, :presenter, :email_index, :amount, :currency, :total_discount,
        :points, :points_value, :point_value, :held_points, 'HELD', 1, now(),
        now() + :lifetime_seconds * interval '1 second', :presented_by
    FROM on_order
    ON CONFLICT (merchant_id, id) DO UPDATE SET member_id = excluded.member_id, email_index = excluded.email_index,
        order_amount = excluded.order_amount, total_discount = excluded.total_discount, points = excluded.points,
        points_value = excluded.points_value, point_value = excluded.point_value, held_points = excluded.held_points,
        version = hold.version + 1, held_until = least(excluded.held_until, hold.held_at + {WHOLE_LIFETIME}),
        presented_by = excluded.presented_by
    RETURNING *
), held AS (
    UPDATE code SET hold_id = :hold_id, held_until = h.held_until FROM h
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(:code_ids::uuid[])
), listed AS (
    INSERT INTO hold_code (merchant_id, hold_id, code_id, pool_id, position, terms_version, base, discount, eligible)
    SELECT :merchant_id, h.id, asked.code_id, locked.pool_id, asked.position, asked.terms_version, asked.base,
        asked.discount, asked.eligible
    FROM h CROSS JOIN asked JOIN locked ON locked.id = asked.code_id
    ON CONFLICT (merchant_id, hold_id, code_id) DO UPDATE SET position = excluded.position, base = excluded.base,
        discount = excluded.discount, eligible = excluded.eligible
), requested AS (
    INSERT INTO hold_request (merchant_id, sales_order_id, idempotency_key)
    SELECT :merchant_id, sales_order_id, :key FROM h WHERE :key::bytea IS NOT NULL
)"""
_TOLD: Final = f"""
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)}
FROM h CROSS JOIN (SELECT :source::varchar AS source, :order_id::varchar AS order_id) o {JOIN_HOLDER}
LEFT JOIN recorded ev ON true ORDER BY ev.wallet_version
"""
# All codes or none. The order of locks is the order, its hold, codes by id, a new order's name, first orders, wallets
# by member.
HOLD: Final = statement(
    ChangedHoldRow,
    f"""
WITH {_LOCKED}, begun AS (
    -- Of two callers with one new order one begins it.
    INSERT INTO sales_order (merchant_id, id, source, order_id, currency, version, presenter_id, mailbox_index)
    SELECT :merchant_id, :order_row_id, :source, :order_id, :currency, 1, :person_id, :person_mailbox
    WHERE :version = 0 AND EXISTS (SELECT FROM ready)
    ON CONFLICT (merchant_id, order_id, source) DO NOTHING RETURNING id
), continued AS (
    -- Its version tells those who have read it without this hold.
    UPDATE sales_order SET version = version + 1, {NAMED_LAST}
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND version = :version
        AND EXISTS (SELECT FROM ready)
    RETURNING id
), on_order AS (
    SELECT id FROM begun UNION ALL SELECT id FROM continued
), {_WRITTEN}, leaving AS (
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
), unlisted AS (
    DELETE FROM hold_code
    WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM h) AND code_id <> ALL(:code_ids::uuid[])
), owners AS (
    -- Without the wallet whose points are held, or come free, which changes by that.
    SELECT DISTINCT member_id FROM (SELECT * FROM leaving UNION ALL SELECT id, member_id FROM locked) touched
    WHERE member_id IS NOT NULL AND member_id IS DISTINCT FROM :payer_id::uuid
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY owners.member_id)] AS event_id, h.id AS subject_id,
        owners.member_id, NULL::bytea AS reason
    FROM h LEFT JOIN owners ON true WHERE owners.member_id IS NOT NULL OR :payer_id IS NULL
), {raise_wallets([("hold.changed", ":hold_version > 0"), ("hold.placed", "")])}
{_TOLD}
""",
)
# A new hold with points, and codes of nobody but their owner, whose wallet has one change. The lots are read as they
# were when the statement began, so it writes nothing when the wallet has changed since. The order begins last: another
# caller's with the same id is an error, which undoes all of it.
HOLD_WITH_POINTS: Final = statement(
    ChangedHoldRow,
    f"""
WITH RECURSIVE {_LOCKED}, before AS MATERIALIZED (
    SELECT version, points - held_points - pending_points AS spendable FROM wallet
    WHERE merchant_id = :merchant_id AND member_id = :member_id
), w AS (
    UPDATE wallet SET version = wallet.version + 1, changed_at = {NEXT_DATE},
        held_points = wallet.held_points + :points
    FROM before
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = :member_id AND wallet.version = before.version
        AND before.spendable >= :points AND EXISTS (SELECT FROM ready)
    RETURNING wallet.*
), begun AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, currency, version, presenter_id, mailbox_index)
    SELECT :merchant_id, :order_row_id, :source, :order_id, :currency, 1, :person_id, :person_mailbox
    FROM w WHERE :version = 0 RETURNING id
), continued AS (
    UPDATE sales_order SET version = version + 1, {NAMED_LAST}
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND version = :version
        AND EXISTS (SELECT FROM w)
    RETURNING id
), on_order AS (
    SELECT id FROM begun UNION ALL SELECT id FROM continued
), {_WRITTEN}, {HOLD_LOTS}, recorded AS (
    {
        event(
            "hold.placed",
            id="(:event_ids::uuid[])[1]",
            subject=":hold_id",
            source="w",
            points=":points",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
{_TOLD}
""",
)
OTHER_HOLDS: Final = statement(
    PointsRow,
    """
SELECT id AS hold_id, held_points FROM hold
WHERE merchant_id = :merchant_id AND member_id = :member_id AND status = 'HELD' AND held_points > 0
    AND id <> ALL(:but::uuid[])
ORDER BY held_at, id
""",
)


class BudgetHeldRow(TypedDict):
    """What another hold of the presenter has of the budget of a pool."""

    hold_id: UUID
    pool_id: UUID
    discount: int


# Of whom the till names, of who has proved the address, or of the address. One whose time has passed has it until that
# is written down.
OTHER_HOLDS_OF_BUDGETS: Final = statement(
    BudgetHeldRow,
    """
SELECT h.id AS hold_id, x.pool_id, sum(x.discount)::bigint AS discount FROM (
    SELECT id, held_at FROM hold
    WHERE merchant_id = :merchant_id AND status = 'HELD' AND member_id = ANY(:people::uuid[])
    UNION
    SELECT id, held_at FROM hold
    WHERE merchant_id = :merchant_id AND status = 'HELD' AND email_index = ANY(ARRAY(
        SELECT :email_index::bytea
        UNION ALL
        SELECT email_index FROM member WHERE merchant_id = :merchant_id AND id = ANY(:people) AND email_verified
    ))
) h JOIN hold_code x ON x.merchant_id = :merchant_id AND x.hold_id = h.id
WHERE h.id <> ALL(:but::uuid[]) AND x.pool_id = ANY(:pool_ids::uuid[])
GROUP BY h.id, h.held_at, x.pool_id ORDER BY h.held_at, h.id
""",
)


async def _hold(
    where: Statements,
    viewer: Viewer,
    request: Asked,
    found: SeenToHold,
    verdict: Verdict,
    *,
    hold_id: UUID | None = None,
    payer_id: UUID | None = None,
    costs: int = 0,
) -> Changed | None:
    """Hold what a verdict accepted, and tell who watches the wallets that this changes.

    `payer_id` is whose wallet has changed already, by points that the hold has: to pay with, and what its rewards cost.
    Returns the hold, or None when something has changed since it was read.
    """
    written = _written(viewer, request, found, verdict, hold_id, costs=costs)
    rows = await where.rows(HOLD, **written, payer_id=payer_id)
    return _with_content(changed_hold(where, viewer.merchant_id, rows), verdict)


async def _hold_with_points(
    viewer: Viewer, request: Asked, found: SeenToHold, verdict: Verdict, member_id: UUID
) -> Changed | None:
    """Hold what a verdict accepted and a member's points for an order that isn't held; otherwise as `_hold`."""
    written = _written(viewer, request, found, verdict, None)
    try:
        rows = await database().rows(
            HOLD_WITH_POINTS, **written, member_id=member_id, positions=[0], amounts=[written["points"]]
        )
    except asyncpg.UniqueViolationError:
        # Somebody else has just begun the order.
        return None
    return _with_content(changed_hold(database(), viewer.merchant_id, rows), verdict)


def _with_content(changed: Changed | None, verdict: Verdict) -> Changed | None:
    """Return a hold with its codes as they were accepted and are held now: later it may have others."""
    if changed is None:
        return None
    now = {"held_hold_id": changed.row["hold_id"], "code_held_until": changed.row["hold_held_until"]}
    codes = [cast("HeldCodeRow", {**row, **now, "held_discount": share.discount}) for row, share in verdict.accepted]
    return changed._replace(content=Content(codes, [], changed.changes))


def _written(
    viewer: Viewer, request: Asked, found: SeenToHold, verdict: Verdict, hold_id: UUID | None, *, costs: int = 0
) -> dict[str, object]:
    """Return what both statements take that hold something."""
    presented, order, accepted = request.presented, found.codes, verdict.accepted
    here = order.live_hold
    paid = _paid(request, found, verdict)
    return {
        "merchant_id": viewer.merchant_id,
        "code_ids": [row["code_id"] for row, _ in accepted],
        "terms_versions": [row["pool_terms_version"] for row, _ in accepted],
        "places": list(range(1, len(accepted) + 1)),
        "bases": [share.base for _, share in accepted],
        "discounts": [share.discount for _, share in accepted],
        "are_here": [is_held_here(order, row) for row, _ in accepted],
        "eligible": [share.eligible for _, share in accepted],
        **named_person(order.person, [row for row, _ in accepted if not is_held_here(order, row)]),
        "presenter": presented.presenter,
        "email_index": presented.email_index,
        "order_row_id": ids.new(),
        "version": order.version,
        "source": presented.source.value,
        "order_id": presented.order_id,
        "amount": presented.amount,
        "currency": presented.currency,
        "total_discount": sum(share.discount for _, share in accepted),
        "points": paid.points,
        "held_points": paid.points + costs,
        "points_value": paid.value,
        "point_value": found.point_value,
        "hold_id": hold_id or (ids.new() if here is None else here.id),
        "hold_version": 0 if here is None else here.version,
        "lifetime_seconds": request.lifetime_seconds,
        "presented_by": presented.presented_by,
        "key": request.key,
        "event_ids": event_ids(),
        "actor": viewer.actor,
    }


def _paid(request: Asked, found: SeenToHold, verdict: Verdict) -> Paid:
    """Return how many points pay for what the codes leave of the order, and what they pay."""
    left = request.presented.amount - sum(share.discount for _, share in verdict.accepted)
    return paid_with(request.points, left, found.point_value)


@mutation(
    description="Hold codes, points and rewards for one order until it is paid, all of it or nothing. The same order "
    "again is the same hold, with what is asked now. What only other holds of the same presenter are in the way of is "
    "taken over from them: the earliest, whole, are EXPIRED at once. ADMIN and CHECKOUT."
)
async def hold_checkout(
    info: Info, input: Annotated[HoldCheckoutInput, strawberry.argument(description="The order and what to hold.")]
) -> HoldCheckoutResult:
    """Judge the codes, then hold them in one statement; under locks where points change or another hold has to end."""
    viewer = info.context.viewer
    request = await _checked(viewer, input)
    others = Others()
    for attempt in range(ATTEMPTS_MAX):
        found = await _read(database(), viewer, request)
        if found.is_key_used:
            return await _replayed(viewer, found)
        await _refuse_unless_open(database(), viewer, request, input, found)
        verdict = judged(viewer, request.presented, found.codes, Beside.HOLD)
        if attempt == 0:
            verdict = await limited(viewer, request.presented, verdict)
        verdict, for_budgets = await _beside_others(database(), viewer, request, found.codes, verdict)
        budgets = found.codes.budget_pools
        if verdict.lacks_budget and (await end_of_budgets(viewer.merchant_id, budgets) or attempt == 0):
            continue
        refuse_if_rejected(verdict)
        _refuse_if_empty(request, found, verdict)
        # Before the order is locked, because this locks wallets.
        await revive_accepted(viewer, verdict)
        needed = _ending(found.codes, verdict) | for_budgets
        ending = needed | others.with_points | others.with_rewards.keys()
        payer_id = _payer(request, found, verdict) if attempt == 0 and not ending else None
        within = within_budgets(viewer.merchant_id, verdict.accepted)
        try:
            if payer_id is None and _needs_locks(request, found, verdict, ending):
                async with within, transaction(viewer.merchant_id) as tx:
                    held, taken_over = await _hold_under_locks(tx, viewer, request, input, ending, others)
                return HoldCheckoutSuccess(hold=Hold.changed(held), taken_over=taken_over)
            async with within:
                if payer_id is None:
                    changed = await _hold(database(), viewer, request, found, verdict)
                else:
                    changed = await _hold_with_points(viewer, request, found, verdict, payer_id)
        except OutpacedError:
            continue
        except TooFewPointsError as lacking:
            others.with_points = lacking.holds
            continue
        except OutOfStockError as lacking:
            if await end_aside(viewer.merchant_id, [lacking.reward_id]):
                continue
            own = set() if found.codes.hold is None else {found.codes.hold.id}
            presenter = _known(request.presented.presenter)
            other = await hold_with(viewer, presenter, lacking, but=needed | own | others.tried(lacking))
            others.with_rewards[other] = lacking
            continue
        if changed is not None:
            return HoldCheckoutSuccess(hold=Hold.changed(changed), taken_over=False)
    raise RuntimeError("an order kept changing while it was held")


def _needs_locks(request: Asked, found: SeenToHold, verdict: Verdict, ending: Collection[UUID]) -> bool:
    """Whether holds have to end, or points to be held or come free."""
    here = found.codes.live_hold
    wanted = request.reward_ids or _paid(request, found, verdict).points
    return bool(ending or wanted or (here is not None and here.held_points))


def _payer(request: Asked, found: SeenToHold, verdict: Verdict) -> UUID | None:
    """Return the member whose points an order wants that isn't held, if no code that it wants is another's."""
    member_id = request.presented.presenter
    if found.codes.hold is not None or request.reward_ids or not _paid(request, found, verdict).points:
        return None
    return member_id if {row["code_member_id"] for row, _ in verdict.accepted} <= {member_id, None} else None


async def _checked(viewer: Viewer, input: HoldCheckoutInput) -> Asked:
    problems = Problems()
    problems.number("points", input.points, least=0, most=POINTS_MAX)
    problems.number("lifetimeSeconds", input.lifetime_seconds, least=LIFETIME_SECONDS_MIN, most=LIFETIME_SECONDS_MAX)
    key = problems.idempotency_key(input.idempotency_key)
    if not input.codes and not input.points and not input.reward_ids:
        problems.add("codes", "or points or rewardIds must hold something")
    if len(input.reward_ids) > REWARDS_MAX:
        problems.add("rewardIds", f"must be at most {REWARDS_MAX} rewards")
    if (
        (input.points or input.reward_ids)
        and input.member_id is None
        and (input.member is None or input.member.external_id is None)
    ):
        named = "points" if input.points else "rewardIds"
        problems.add(named, "need the member by its id or a store's id")
    if input.order_amount.currency != viewer.tenant.currency:
        problems.add("orderAmount.currency", f"must be {viewer.tenant.currency}, the merchant's currency")
    presented = await presentation(viewer, input, codes_min=0, problems=problems)
    reward_ids = [node_id("reward", "reward", each) for each in input.reward_ids]
    stored = None if key is None else stored_key(viewer, key)
    return Asked(presented, input.points, reward_ids, input.lifetime_seconds, stored)


def _refuse_if_empty(request: Asked, found: SeenToHold, verdict: Verdict) -> None:
    """Raise Refused(InvalidInput) when nothing is left of what was asked for."""
    problems = Problems()
    if not verdict.accepted and not request.reward_ids and not _paid(request, found, verdict).points:
        problems.add("points", "would pay nothing")
    problems.refuse_if_any()


async def _replayed(viewer: Viewer, found: SeenToHold) -> HoldCheckoutSuccess:
    """Return the order's hold as it stands."""
    order_row_id = found.codes.order_row_id
    standing = None if order_row_id is None else await standing_hold(viewer, order_row_id)
    if standing is None:
        raise RuntimeError("an order that was held has no hold")
    return HoldCheckoutSuccess(hold=Hold.of(*standing), taken_over=False)


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


async def _beside_others(
    where: Statements,
    viewer: Viewer,
    request: Asked,
    order: Seen,
    verdict: Verdict,
    *,
    among: Collection[UUID] | None = None,
) -> tuple[Verdict, set[UUID]]:
    """Judge codes that only budgets are in the way of as if the presenter's earliest other holds had ended.

    Returns the verdict, and as many of those holds, of `among` if given, as it takes; or the one it was given if all of
    them don't suffice.
    """
    if not verdict.lacks_budget:
        return verdict, set()
    presented = request.presented
    rows = {row["fingerprint"]: row for row in order.found}
    own = set() if order.hold is None else {order.hold.id}
    others = await where.rows(
        OTHER_HOLDS_OF_BUDGETS,
        merchant_id=viewer.merchant_id,
        people=[each for each in (presented.presenter, order.owner_of_email) if each is not None],
        email_index=presented.email_index,
        pool_ids=[rows[presented.fingerprints[place] or b""]["pool_id"] for place in verdict.rejections],
        # What these give back is counted already.
        but=list(own | {row["holder_id"] for row in order.found if row["holder_id"] is not None}),
    )
    freed: Counter[UUID] = Counter()
    taken: set[UUID] = set()
    for hold_id, budgets in groupby(others, key=itemgetter("hold_id")):
        if among is not None and hold_id not in among:
            continue
        taken.add(hold_id)
        for row in budgets:
            freed[row["pool_id"]] += row["discount"]
        beside = judged(viewer, presented, order, Beside.HOLD, freed=freed)
        if not beside.lacks_budget:
            return beside, taken
    return verdict, set()


def _taken_over(wanted: int, spendable: int, others: Sequence[PointsRow]) -> set[UUID]:
    """Return the member's earliest other holds that have as many points as are lacking.

    Raises Refused(InsufficientPoints) when all of them have too few.
    """
    taken: set[UUID] = set()
    left = spendable
    for other in others:
        if left >= wanted:
            break
        taken.add(other["hold_id"])
        left += other["held_points"]
    if left < wanted:
        raise insufficient(spendable, wanted)
    return taken


async def _hold_under_locks(
    tx: Tx,
    viewer: Viewer,
    request: Asked,
    input: HoldCheckoutInput,
    ending: Collection[UUID],
    others: Others,
) -> tuple[Changed, bool]:
    """End holds, as far as that is needed, then hold; all or nothing. Returns whether another order's was taken over.

    The `others` among them end only if they are still the presenter's: those with rewards if they have what was lacking
    yet, those with points if these are lacking still.
    Of another order only its hold's row is locked, never the order's. Raises OutpacedError when the order, a hold or a
    code isn't what it was before, and TooFewPointsError.
    """
    presented = request.presented
    name = {"merchant_id": viewer.merchant_id, "source": presented.source.value, "order_id": presented.order_id}
    if request.reward_ids:
        # What else it has of the pools that back rewards, and what it holds of them, stays as it is.
        await lock_member(tx, viewer.merchant_id, _known(presented.presenter))
    await tx.row(LOCK_ORDER, **name)
    seen_before = await _read(tx, viewer, request)
    here = seen_before.codes.hold
    locked = {*ending, *([] if here is None else [here.id])}
    rows = await tx.rows(LOCK_HOLDS, merchant_id=viewer.merchant_id, hold_ids=list(locked))
    found = await _read(tx, viewer, request)
    if found.is_key_used:
        # By the same request, while this one waited: its hold is told of, whatever became of the order since.
        raise OutpacedError
    await _refuse_unless_open(tx, viewer, request, input, found)
    verdict = judged(viewer, presented, found.codes, Beside.HOLD)
    verdict, for_budgets = await _beside_others(tx, viewer, request, found.codes, verdict, among=ending)
    _refuse_if_rejected(verdict)
    needed = _ending(found.codes, verdict) | for_budgets
    if not needed <= set(ending) or (found.codes.hold and found.codes.hold.id not in locked):
        raise OutpacedError
    await lock_held(
        tx, viewer, presented.source, presented.order_id, locked, reward_ids=request.reward_ids,
        code_ids=[row["code_id"] for row, _ in verdict.accepted], member_ids=_wanting(request),
        is_new=found.codes.order_row_id is None,
    )  # fmt: skip
    for hold_id in sorted(needed):
        await end_locked_hold(tx, viewer.merchant_id, viewer.actor, hold_id, "EXPIRED")
    # What has just been freed isn't held any more, and the order has no hold but a live one.
    version = found.codes.version
    found = await _read(tx, viewer, request)
    own = found.codes.live_hold
    if found.codes.version != version:
        # Nobody locks an order that isn't there: somebody else has just begun it.
        raise OutpacedError
    # Whoever had the codes' locks may have erased the presenter, whose codes are dead since.
    await _refuse_unless_open(tx, viewer, request, input, found)
    verdict = judged(viewer, presented, found.codes, Beside.HOLD)
    _refuse_if_rejected(verdict)
    hold_id = ids.new() if own is None else own.id
    before = await _rewards_so_far(tx, viewer, own, presented.presenter)
    may_end = {row["hold_id"] for row in rows if row["member_id"] == presented.presenter} - needed
    for each in await _with_rewards(tx, viewer, request, others, may_end):
        await end_locked_hold(tx, viewer.merchant_id, viewer.actor, each, "EXPIRED")
        needed.add(each)
    places = await place_rewards(tx, viewer, presented.presenter, request.reward_ids, before)
    may_end = (may_end & others.with_points) - needed
    change, ended = await _hold_points(tx, viewer, request, found, verdict, hold_id, places, needed, may_end)
    payer_id = None if change is None else change["event_member_id"]
    costs = sum(place["cost"] for place in places)
    changed = await _hold(tx, viewer, request, found, verdict, hold_id=hold_id, payer_id=payer_id, costs=costs)
    if changed is None:
        raise OutpacedError
    if places or before:
        await set_aside(
            tx, viewer, hold_id, _known(presented.presenter or (None if own is None else own.member_id)), places,
            had_some=bool(before),
        )  # fmt: skip
    rewards = await rewards_of(tx, viewer, [hold_id]) if places else []
    changes = {**changed.changes} if change is None or payer_id is None else {**changed.changes, payer_id: change}
    codes = [] if changed.content is None else changed.content.codes
    lapsed = set() if here is None or here.is_live else {here.id}
    held = changed._replace(change=change or changed.change, content=Content(codes, rewards, changes))
    return held, bool(ended - lapsed)


async def _with_rewards(tx: Tx, viewer: Viewer, request: Asked, others: Others, among: Collection[UUID]) -> list[UUID]:
    """Return those of the others that still have a reward or code which was lacking, the earliest first."""
    if not others.with_rewards:
        return []
    holds = await holds_with(tx, viewer, _known(request.presented.presenter), others.with_rewards.values())
    return [each for each in holds if each in others.with_rewards and each in among]


async def _rewards_so_far(tx: Tx, viewer: Viewer, own: SeenHold | None, presenter: UUID | None) -> list[HeldRewardRow]:
    """Return the rewards that the order's hold has; those of another member than the presenter are given back."""
    if own is None:
        return []
    rewards = await rewards_of(tx, viewer, [own.id])
    if not rewards or own.member_id == presenter:
        return rewards
    await give_back(tx, viewer.merchant_id, rewards)
    await tx.row(UNLIST, merchant_id=viewer.merchant_id, hold_id=own.id)
    return []


def _refuse_if_rejected(verdict: Verdict) -> None:
    """Raise Refused(CodesRejected), or OutpacedError for a budget, which still other holds may have."""
    if verdict.lacks_budget:
        raise OutpacedError
    refuse_if_rejected(verdict)


async def _hold_points(
    tx: Tx,
    viewer: Viewer,
    request: Asked,
    found: SeenToHold,
    verdict: Verdict,
    hold_id: UUID,
    places: Sequence[Place],
    ended: Collection[UUID],
    may_end: Collection[UUID],
) -> tuple[ChangeRow | None, set[UUID]]:
    """Let a hold have the points that it pays and has rewards with, for which other holds end as far as that is needed.

    Returns the wallet's change, if there is one, and the holds that ended, with those that had `ended` before.
    """
    here, member_id = found.codes.live_hold, request.presented.presenter
    points = _paid(request, found, verdict).points
    had = 0 if here is None else here.held_points
    ended = set(ended)
    if here is not None and had and here.member_id != member_id:
        # Another member's from now on, or nobody's.
        await free_points(
            tx, viewer.merchant_id, viewer.actor, _known(here.member_id), hold_id, event_type="hold.changed",
            reference=request.presented.order_id,
        )  # fmt: skip
        had = 0
    costs = [place["cost"] for place in places]
    wanted = points + sum(costs)
    if not wanted and not had:
        return None, ended
    waiting = deque(sorted(may_end))
    while True:
        holding = await hold_points(
            tx, viewer.merchant_id, viewer.actor, _known(member_id), hold_id, [points, *costs],
            event_type="hold.placed" if here is None else "hold.changed", reference=request.presented.order_id,
        )  # fmt: skip
        if holding.is_held:
            return holding.change, ended
        if not waiting:
            # Under the wallet's lock: no hold gets or loses points of the member meanwhile.
            others = await tx.rows(
                OTHER_HOLDS, merchant_id=viewer.merchant_id, member_id=member_id, but=[*ended, hold_id]
            )
            taken = _taken_over(wanted, holding.spendable, others)
            # One that has to end for a code may have enough points.
            await see_codes(tx, viewer, _known(member_id), places)
            raise TooFewPointsError(ended | taken)
        other = waiting.popleft()
        if await end_locked_hold(tx, viewer.merchant_id, viewer.actor, other, "EXPIRED") is not None:
            ended.add(other)


def _wanting(request: Asked) -> list[UUID]:
    """Return whose points are wanted, if any are."""
    member_id = request.presented.presenter
    return [member_id] if member_id is not None and (request.points or request.reward_ids) else []


def _known(member_id: UUID | None) -> UUID:
    if member_id is None:
        raise RuntimeError("nobody has points")
    return member_id
