"""The codes that are presented for an order: what stands of them, and whether they are honoured together."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Final
from uuid import UUID

import strawberry

from app.api import attempts
from app.api.context import Viewer
from app.api.inputs import Money
from app.api.scalars import BigInt
from app.coupons import code_text
from app.coupons.revive_codes import revive_needed
from app.coupons.rows import BUDGET_LEFT, IS_PAST_END, JOIN_CODE, PoolRow, WholeRedemptionRow
from app.coupons.rules import (
    Applied,
    CodeRejectionReason,
    Order,
    PresentedCode,
    Terms,
    honours,
    is_owner,
    owned_reason,
    reason,
    remedy,
    stack,
    takes_nothing,
)
from app.members.types import MemberSource
from app.orders.budgets import BudgetRow, beyond_budgets
from app.orders.first_orders import HAS_ANOTHER, KEYS, PERSON, VERSIONS, PersonRow
from app.storage.database import Statements, database
from app.storage.statements import columns, row_of, statement


@strawberry.type(description="What would make a code work, where something would.")
class Remedy:
    short_by: Money | None = strawberry.field(description="How much more the order must be worth.")
    valid_from: datetime | None = strawberry.field(description="From when its pool honours it.")
    held_until: datetime | None = strawberry.field(description="Until when another order holds it.")


@strawberry.type(description="Why one of the codes can't be redeemed.")
class CodeRejection:
    masked: str = strawberry.field(description="The code with its last two characters readable.")
    reason: CodeRejectionReason = strawberry.field(description="The first reason against it.")
    remedy: Remedy | None = strawberry.field(
        default=None, description="What would make it work, where something would."
    )


@dataclass(frozen=True, slots=True)
class Presentation:
    """A checked input: the order, and for each code what was typed and its fingerprint (None: not a code).

    `presented_by` is a hash of the order and of who presents it, as the caller named it.
    """

    typed: list[str]
    fingerprints: list[bytes | None]
    source: MemberSource
    order_id: str
    amount: int
    currency: str
    presenter: UUID | None
    email_index: bytes | None
    mailbox_index: bytes | None
    presented_by: bytes
    #: Of each code, how much of the order it may be applied to; None: the whole order.
    eligible: list[int | None]


@row_of(t="pool_terms?", p="pool")
class TermsRow(PoolRow):
    """A pool, and the terms `t` that a code of it was redeemed or is held under; null where it is neither."""

    terms_percent_off: Annotated[Decimal | None, "t.percent_off"]
    terms_amount_off: Annotated[int | None, "t.amount_off"]
    terms_minimum_spend: Annotated[int | None, "t.minimum_spend"]
    terms_maximum_discount: Annotated[int | None, "t.maximum_discount"]
    terms_stacking: Annotated[str | None, "t.stacking"]


class FoundRow(WholeRedemptionRow, TermsRow, PersonRow, BudgetRow):
    """A code that was presented or that the order has; its redemption's fields are null where none stands.

    The holder's are null where nobody holds it: the hold, its order, and whom it is for, as the till named them and as
    whoever has proved that address.
    """

    fingerprint: bytes
    stored_state: str
    is_past_end: bool
    holder_id: UUID | None
    holder_order_row_id: UUID | None
    holder_member_id: UUID | None
    holder_email_index: bytes | None
    holder_of_email: UUID | None
    email_index: bytes | None
    owner_of_email: UUID | None
    presented_by: bytes | None
    asked_at: datetime
    # Of a code that is for first orders; else null.
    has_another_order: bool | None


class SeenRow(FoundRow):
    """The order beside each code; there is one row without a code where none is found."""

    order_row_id: UUID | None
    order_version: int | None
    order_amount: int | None
    order_cancelled_at: datetime | None
    # What is written down as its hold, whether its time has passed or not.
    order_hold_id: UUID | None
    order_hold_version: int | None
    order_held_until: datetime | None
    order_held_points: int | None
    order_hold_member_id: UUID | None


#: A code, and what it takes off in its place on an order.
Placed = tuple[FoundRow, Applied]


@dataclass(frozen=True, slots=True)
class Seen:
    """An order as it was read: its version (0: none is known), and all codes that were presented or that it has."""

    order_row_id: UUID | None
    version: int
    amount: int | None
    cancelled_at: datetime | None
    owner_of_email: UUID | None
    #: Who presents.
    person: PersonRow
    hold: "SeenHold | None"
    found: Sequence[FoundRow]
    #: Those whose redemptions stand on it, in their order.
    on_order: Sequence[FoundRow]

    @property
    def budget_pools(self) -> list[UUID]:
        """The pools of its codes that have a budget."""
        return [row["pool_id"] for row in self.found if row["budget_left"] is not None]

    @property
    def live_hold(self) -> "SeenHold | None":
        """Its hold, unless that one's time has passed."""
        return self.hold if self.hold is not None and self.hold.is_live else None


@dataclass(frozen=True, slots=True)
class SeenHold:
    """What is written down as the hold of an order: its time may have passed."""

    id: UUID
    version: int
    held_until: datetime
    held_points: int
    member_id: UUID | None
    is_live: bool


class Beside(Enum):
    """What codes are presented for, and so which of those that an order has or holds are no obstacle."""

    #: Redeeming them all at once: nothing that it has may be in the way.
    ORDER = "ORDER"
    #: Checking that: as if its hold were this very request.
    CHECK = "CHECK"
    #: Replacing what was redeemed on it.
    AMENDMENT = "AMENDMENT"
    #: Holding them for it, in place of what it holds and of what others of the presenter's do.
    HOLD = "HOLD"


#: Those to whom what the order holds is no obstacle.
_IN_PLACE_OF_HOLD: Final = frozenset({Beside.CHECK, Beside.HOLD})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an order's codes come to, one of the three: why not, what an earlier call redeemed, or what each takes off.

    Codes are in the order in which they apply; rejections are by their code's place in it. `guesses` are the places of
    those that the limit on guessing is about. `short` are those of them that are short enough to be guessed, known or
    not; of the others so many are `unknown`.
    """

    rejections: dict[int, CodeRejection] = field(default_factory=dict)
    replayed: Sequence[FoundRow] = ()
    accepted: list[Placed] = field(default_factory=list)
    guesses: list[int] = field(default_factory=list)
    unknown: int = 0
    short: list[int] = field(default_factory=list)

    @property
    def lacks_budget(self) -> bool:
        """Whether nothing but budgets that are spent is in the way."""
        reasons = {rejection.reason for rejection in self.rejections.values()}
        return reasons == {CodeRejectionReason.BUDGET_SPENT}


#: What a hold {0} has of the budget of the pool `p`.
_HELD_OF_BUDGET: Final = """
    CASE WHEN p.maximum_total_discount IS NOT NULL THEN (
        SELECT coalesce(sum(discount), 0)::bigint FROM hold_code
        WHERE merchant_id = :merchant_id AND hold_id = {0}.id AND pool_id = p.id
    ) END
"""
# The order with its hold, the presented codes and those that it has already, each with its standing redemption or with
# the hold that has it, and the terms of that.
# UNION without ALL would let a plan that was made while there were few codes walk all of them by their ids.
SEEN: Final = f"""
    {columns(WholeRedemptionRow, TermsRow)}, c.fingerprint, c.state AS stored_state, {IS_PAST_END} AS is_past_end,
    c.email_index, h.id AS holder_id, h.sales_order_id AS holder_order_row_id, h.member_id AS holder_member_id,
    h.email_index AS holder_email_index, (
        SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = h.email_index
    ) AS holder_of_email, r.presented_by, now() AS asked_at,
    (SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index) AS owner_of_email,
    o.id AS order_row_id, o.version AS order_version, o.order_amount, o.cancelled_at AS order_cancelled_at,
    oh.id AS order_hold_id, oh.version AS order_hold_version, oh.held_until AS order_held_until,
    oh.held_points AS order_held_points, oh.member_id AS order_hold_member_id,
    person.id AS person_id, person.mailbox_index AS person_mailbox,
    CASE WHEN p.first_order_only THEN {HAS_ANOTHER} END AS has_another_order,
    CASE WHEN p.maximum_total_discount IS NOT NULL THEN {BUDGET_LEFT} END AS budget_left,
    {_HELD_OF_BUDGET.format("oh")} AS held_by_order, {_HELD_OF_BUDGET.format("h")} AS held_by_holder,
    CASE WHEN p.first_order_only THEN {KEYS} END AS first_keys,
    CASE WHEN p.first_order_only THEN {VERSIONS} END AS first_versions
"""
FROM_SEEN: Final = f"""
FROM {PERSON}
LEFT JOIN sales_order o ON o.merchant_id = :merchant_id AND o.source = :source AND o.order_id = :order_id
LEFT JOIN LATERAL (
    -- Of an order's holds, by the order: to a planner that saw the table empty, any index is as good.
    SELECT * FROM hold WHERE merchant_id = :merchant_id AND sales_order_id = ANY(ARRAY[o.id]) AND status = 'HELD'
    ORDER BY sales_order_id OFFSET 0
) oh ON true
LEFT JOIN (
    code c {JOIN_CODE}
    LEFT JOIN LATERAL (
        -- In an order that one index alone has: to a planner that saw the table empty any of them is as good.
        SELECT * FROM redemption
        WHERE merchant_id = :merchant_id AND code_id = ANY(ARRAY[c.id]) AND reversed_at IS NULL
        ORDER BY code_id OFFSET 0
    ) r ON true
    LEFT JOIN LATERAL (
        SELECT * FROM hold WHERE merchant_id = :merchant_id AND id = c.hold_id AND c.held_until > now() OFFSET 0
    ) h ON true
    LEFT JOIN LATERAL (
        SELECT terms_version FROM hold_code
        WHERE merchant_id = :merchant_id AND hold_id = h.id AND code_id = c.id OFFSET 0
    ) hc ON true
    LEFT JOIN LATERAL (
        SELECT * FROM pool_terms WHERE merchant_id = :merchant_id AND pool_id = c.pool_id
            AND version = coalesce(r.terms_version, hc.terms_version) OFFSET 0
    ) t ON true
) ON c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(
    SELECT id FROM code WHERE merchant_id = :merchant_id AND fingerprint = ANY(:fingerprints::bytea[])
    UNION ALL
    (SELECT code_id FROM redemption
     WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND reversed_at IS NULL
     ORDER BY position)
))
"""
READ: Final = statement(SeenRow, f"SELECT {SEEN} {FROM_SEEN}")


async def read(where: Statements, viewer: Viewer, presented: Presentation) -> Seen:
    """Read an order and its codes. Nothing is locked: what changes them checks again what can change in between."""
    return seen(presented, await where.rows(READ, **asked(viewer, presented)))


def asked(viewer: Viewer, presented: Presentation) -> dict[str, object]:
    """Return what FROM_SEEN reads by."""
    return {
        "merchant_id": viewer.merchant_id,
        "fingerprints": [fingerprint for fingerprint in presented.fingerprints if fingerprint is not None],
        "source": presented.source.value,
        "order_id": presented.order_id,
        "presenter": presented.presenter,
        "email_index": presented.email_index,
        "mailbox_index": presented.mailbox_index,
        "memory_pads": viewer.tenant.keys.memory_pads,
    }


def seen(presented: Presentation, rows: Sequence[SeenRow]) -> Seen:
    """Return the order and the codes of rows that were read together."""
    order, found = rows[0], [row for row in rows if row["code_id"] is not None]
    here = (presented.source.value, presented.order_id)
    on_order = [row for row in found if (row["redemption_source"], row["redemption_order_id"]) == here]
    return Seen(
        order_row_id=order["order_row_id"],
        version=order["order_version"] or 0,
        amount=order["order_amount"],
        cancelled_at=order["order_cancelled_at"],
        owner_of_email=order["owner_of_email"],
        person=order,
        hold=_hold(order),
        found=found,
        on_order=sorted(on_order, key=lambda row: row["redemption_position"]),
    )


def _hold(order: SeenRow) -> SeenHold | None:
    hold_id, version, held_until = order["order_hold_id"], order["order_hold_version"], order["order_held_until"]
    if hold_id is None or version is None or held_until is None:
        return None
    return SeenHold(
        hold_id, version, held_until, order["order_held_points"] or 0, order["order_hold_member_id"],
        is_live=held_until > order["asked_at"],
    )  # fmt: skip


def is_of_presenter(presented: Presentation, seen: Seen, row: FoundRow) -> bool:
    """Whether the hold that has a code is for the same person: by its id, by the address, or by who has proved it."""
    people = {presented.presenter, seen.owner_of_email} - {None}
    if people & {row["holder_member_id"], row["holder_of_email"]}:
        return True
    return presented.email_index is not None and presented.email_index == row["holder_email_index"]


#: Of no pool.
_NONE: Final[Mapping[UUID, int]] = {}


def judged(
    viewer: Viewer,
    presented: Presentation,
    seen: Seen,
    beside: Beside = Beside.ORDER,
    *,
    freed: Mapping[UUID, int] = _NONE,
) -> Verdict:
    """Decide about codes that are presented for an order at once, or in place of those that it has or holds.

    `freed` is what of the budgets of pools comes back by holds that end for it, beside those that have its codes.
    """
    amends, holds = beside is Beside.AMENDMENT, beside is Beside.HOLD
    by_fingerprint = {row["fingerprint"]: row for row in seen.found}
    rows = [None if each is None else by_fingerprint.get(each) for each in presented.fingerprints]
    staying = {row["code_id"] for row in seen.on_order} if amends else set()
    if presented.presenter is None and presented.email_index is None:
        # What can be guessed is honoured for whoever has a limit of its own.
        rows = [None if row is not None and _is_short(row) and row["code_id"] not in staying else row for row in rows]
    order = Order(
        amount=presented.amount,
        currency_matches=presented.currency == viewer.tenant.currency,
        presenter=presented.presenter,
        email_index=presented.email_index,
        member_of_email=seen.owner_of_email,
        has_other_codes=bool(seen.on_order) and not amends,
        held_until=_held_until(seen, beside),
    )
    codes = [
        None if row is None else presented_code(
            row, stays=row["code_id"] in staying, is_held_here=beside in _IN_PLACE_OF_HOLD and is_held_here(seen, row),
            is_free=holds and is_of_presenter(presented, seen, row), eligible=eligible,
        )
        for row, eligible in zip(rows, presented.eligible, strict=True)
    ]  # fmt: skip
    # What was done for this presenter is told again whoever its address or number has become since.
    if not (amends or holds) and _is_replay(presented, rows, seen.on_order) and all(
        (row is not None and row["presented_by"] == presented.presented_by) or not owned_reason(code, order)
        for row, code in zip(rows, codes, strict=True)
    ):  # fmt: skip
        return Verdict(replayed=seen.on_order)
    rejections, guesses, unknown, short = {}, [], 0, []
    for place, (typed, fingerprint, row, code) in enumerate(
        zip(presented.typed, presented.fingerprints, rows, codes, strict=True)
    ):
        # What can't be a code tells nothing about those that exist, and its owner may ask about a code at any time.
        if fingerprint is not None and (code is None or not (code.stays or is_owner(code, order))):
            guesses.append(place)
            is_short = code_text.is_short(typed) if row is None else _is_short(row)
            if is_short:
                short.append(place)
            else:
                unknown += code is None
        if row is None or code is None:
            rejections[place] = CodeRejection(masked=code_text.mask_typed(typed), reason=CodeRejectionReason.UNKNOWN)
            continue
        why = reason(code, order, codes_of_order=len(codes), now=row["asked_at"])
        if why is not None:
            rejections[place] = _rejection(row, why, _remedy(why, code, order, presented.currency))
    if rejections:
        return Verdict(rejections=rejections, guesses=guesses, unknown=unknown, short=short)
    applied = stack([(code.terms, code.eligible) for code in codes if code is not None], presented.amount)
    accepted = list(zip((row for row in rows if row is not None), applied, strict=True))
    known = [code for code in codes if code is not None]
    beyond = beyond_budgets(accepted, _coming_back(seen, accepted, beside) + Counter(freed))
    rejections = _unfit(known, accepted, beyond)
    if rejections:
        return Verdict(rejections=rejections, guesses=guesses, unknown=unknown, short=short)
    return Verdict(accepted=accepted, guesses=guesses, short=short)


async def revive_accepted(viewer: Viewer, verdict: Verdict) -> None:
    """Write down of the codes of a verdict that live again that they do, so that they can be redeemed."""
    due = [row["code_id"] for row, _ in verdict.accepted if row["stored_state"] == "EXPIRED"]
    await revive_needed(database(), viewer.merchant_id, due)


def _unfit(
    codes: Sequence[PresentedCode], accepted: Sequence[Placed], beyond: Collection[int]
) -> dict[int, CodeRejection]:
    """Return why codes that have their places in a stack are refused: for a budget, or because they take nothing."""
    rejections = {}
    for place, (row, share) in enumerate(accepted):
        if place in beyond:
            rejections[place] = _rejection(row, CodeRejectionReason.BUDGET_SPENT)
        elif takes_nothing(codes[place].terms, share):
            rejections[place] = _rejection(row, CodeRejectionReason.NO_DISCOUNT)
    return rejections


def _coming_back(seen: Seen, accepted: Sequence[Placed], beside: Beside) -> Counter[UUID]:
    """Return what of the budgets of pools comes back once codes are placed.

    What they replace, of redemptions or of the order's own hold, and all that the holds have which end for a code.
    """
    back: Counter[UUID] = Counter()
    if beside is Beside.AMENDMENT:
        for row in seen.on_order:
            back[row["pool_id"]] += row["redemption_discount"]
    if beside not in _IN_PLACE_OF_HOLD:
        return back
    held: dict[tuple[UUID, UUID], int | None] = {}
    for row, _ in accepted:
        if seen.hold is not None:
            held[seen.hold.id, row["pool_id"]] = row["held_by_order"]
        if row["holder_id"] is not None:
            held[row["holder_id"], row["pool_id"]] = row["held_by_holder"]
    for (_, pool_id), discount in held.items():
        back[pool_id] += discount or 0
    return back


def _is_short(row: FoundRow) -> bool:
    """Whether a code is short enough to be guessed: of such a one not even the end is shown."""
    return row["code_is_foreign"] and row["code_suffix"] == ""


def _is_replay(presented: Presentation, rows: list[FoundRow | None], on_order: Sequence[FoundRow]) -> bool:
    """Whether this order was redeemed with exactly these codes, of which each may take so much, and this amount."""
    asked = {
        row["code_id"]: eligible for row, eligible in zip(rows, presented.eligible, strict=True) if row is not None
    }
    return (
        bool(on_order)
        and asked == {row["code_id"]: row["redemption_eligible"] for row in on_order}
        and None not in rows
        and on_order[0]["redemption_order_amount"] == presented.amount
        and on_order[0]["redemption_currency"] == presented.currency
    )


def terms_of(row: TermsRow) -> Terms:
    """Return the terms that a code was redeemed under; its kind and whether it is transferable never change."""
    return Terms(
        kind=row["pool_kind"],
        percent_off=row["terms_percent_off"],
        amount_off=row["terms_amount_off"],
        minimum_spend=row["terms_minimum_spend"],
        maximum_discount=row["terms_maximum_discount"],
        stacking=row["terms_stacking"] or row["pool_stacking"],
        transferable=row["pool_transferable"],
    )


def _terms_now(row: PoolRow) -> Terms:
    return Terms(
        kind=row["pool_kind"],
        percent_off=row["pool_percent_off"],
        amount_off=row["pool_amount_off"],
        minimum_spend=row["pool_minimum_spend"],
        maximum_discount=row["pool_maximum_discount"],
        stacking=row["pool_stacking"],
        transferable=row["pool_transferable"],
    )


def is_held_here(seen: Seen, row: FoundRow) -> bool:
    """Whether the hold of the order itself has a code."""
    return seen.hold is not None and row["holder_id"] == seen.hold.id


def _held_until(seen: Seen, beside: Beside) -> datetime | None:
    """Return until when the hold of the order is in the way of everything that is presented beside it."""
    return seen.hold.held_until if seen.hold and seen.hold.is_live and beside not in _IN_PLACE_OF_HOLD else None


def presented_code(
    row: FoundRow, *, stays: bool, is_held_here: bool = False, is_free: bool = False, eligible: int | None = None
) -> PresentedCode:
    """Return a code by the terms of its pool, or by those that it was redeemed under and stays, or is held under.

    One that `is_free` is judged as if the hold that has it had ended.
    """
    starts_at, now = row["pool_starts_at"], row["asked_at"]
    is_elsewhere = row["holder_id"] is not None and not is_held_here
    return PresentedCode(
        terms=terms_of(row) if stays or is_held_here else _terms_now(row),
        state="EXPIRED" if is_elsewhere and is_free and row["is_past_end"] else row["code_state"],
        owner=row["code_member_id"],
        email_index=row["email_index"],
        expires_at=row["code_expires_at"],
        pool_open=honours(row["pool_status"], row["pool_pause_scope"], starts_at, now),
        opens_at=starts_at if row["pool_status"] == "ACTIVE" and starts_at is not None and now < starts_at else None,
        stays=stays,
        has_another_order=bool(row["has_another_order"]),
        eligible=eligible,
        is_held_here=is_held_here,
        held_until=row["code_held_until"] if is_elsewhere and not is_free else None,
    )


def _rejection(row: FoundRow, why: CodeRejectionReason, remedy: Remedy | None = None) -> CodeRejection:
    masked = code_text.mask(row["pool_kind"], row["code_suffix"], is_foreign=row["code_is_foreign"])
    return CodeRejection(masked=masked, reason=why, remedy=remedy)


def _remedy(why: CodeRejectionReason, code: PresentedCode, order: Order, currency: str) -> Remedy | None:
    found = remedy(why, code, order)
    if found is None:
        return None
    short_by = None if found.short_by is None else Money(amount_minor=BigInt(found.short_by), currency=currency)
    return Remedy(short_by=short_by, valid_from=found.valid_from, held_until=found.held_until)


async def limited(viewer: Viewer, presented: Presentation, verdict: Verdict) -> Verdict:
    """Count what was guessed; over the limit a guess is refused alike whether the code exists or not.

    A member that the checkout names has a limit of its own, and whoever it names by address only has the address's.
    Anybody can type an address: that its limit was reached says nothing about its owner, whose own codes pass.
    """
    if not verdict.guesses:
        return verdict
    presenter = presented.email_index if presented.presenter is None else presented.presenter.bytes
    unknown = verdict.unknown
    for place in verdict.short:
        # A short text counts as a guess, known or not, but the same one once a minute where somebody is named.
        fingerprint = presented.fingerprints[place]
        if presenter is None or fingerprint is None or await attempts.is_new(viewer, presenter, fingerprint):
            unknown += 1
    if not await attempts.exceeded(viewer, presenter, tried=len(verdict.guesses), unknown=unknown):
        return verdict
    refused = {
        place: CodeRejection(
            masked=code_text.mask_typed(presented.typed[place]), reason=CodeRejectionReason.TOO_MANY_ATTEMPTS
        )
        for place in verdict.guesses
    }
    return Verdict(rejections=dict(sorted((verdict.rejections | refused).items())))
