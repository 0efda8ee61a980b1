"""What an order's codes are worth and why some are refused: pure, and the same for checking and redeeming."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import strawberry

from app.api.scalars import described

#: From each status, where a pool may go. The trigger pool_guard holds the same table.
TRANSITIONS: Final[dict[str, tuple[str, ...]]] = {
    "DRAFT": ("ACTIVE",),
    "ACTIVE": ("PAUSED", "ARCHIVED"),
    "PAUSED": ("ACTIVE", "ARCHIVED"),
    "ARCHIVED": (),
}

#: Terms that may improve for who holds a code once their pool has left DRAFT, upwards or downwards. None is no limit.
IMPROVE_UPWARDS: Final = frozenset(
    {
        "ends_at",
        "code_lifetime_days",
        "percent_off",
        "amount_off",
        "maximum_discount",
        "claims_per_member",
        "maximum_total_discount",
    }
)
IMPROVE_DOWNWARDS: Final = frozenset({"starts_at", "minimum_spend"})
#: What holds for later claims and dead codes only.
FREE: Final = frozenset({"name", "recycle_expired", "fallback_pool_id", "listed"})
#: Limits that are there or not.
ENDS: Final = frozenset({"first_order_only", "one_claim_per_mailbox"})


def may_change(status: str, term: str, before: Any, after: Any) -> bool:
    """Whether a pool in this status takes another value of a term. The trigger pool_guard holds the same."""
    if status == "DRAFT" or before == after or term in FREE:
        return True
    if status == "ARCHIVED" or term not in IMPROVE_UPWARDS | IMPROVE_DOWNWARDS | ENDS | {"audience"}:
        return False
    if term == "audience":
        return not after or (bool(before) and set(before) <= set(after))
    if before is None or after is None or term in ENDS:
        return not after
    return bool(after > before if term in IMPROVE_UPWARDS else after < before)


@strawberry.enum(description="Why a code can't be redeemed on an order; of several reasons the first is told.")
class CodeRejectionReason(Enum):
    """In the order in which they are checked."""

    UNKNOWN = described("UNKNOWN", "No such code: mistyped, or never issued.")
    NOT_ALLOCATED = described("NOT_ALLOCATED", "Nobody has claimed it.")
    NOT_OWNER = described("NOT_OWNER", "It belongs to someone else than its presenter.")
    ALREADY_REDEEMED = described("ALREADY_REDEEMED", "It was redeemed before.")
    HELD = described("HELD", "An order that isn't paid yet holds it, or this order itself is held.")
    EXPIRED = described("EXPIRED", "Its lifetime is over, or its pool's: past its end, or archived.")
    REVOKED = described("REVOKED", "It was revoked.")
    POOL_NOT_ACTIVE = described("POOL_NOT_ACTIVE", "Its pool is paused, or hasn't begun.")
    CURRENCY_MISMATCH = described("CURRENCY_MISMATCH", "The order is not in the merchant's currency.")
    NOT_ELIGIBLE = described("NOT_ELIGIBLE", "Nothing of the order is what it may be applied to.")
    BELOW_MINIMUM_SPEND = described(
        "BELOW_MINIMUM_SPEND",
        "The order, or what of it the code may be applied to where that is given, is below the pool's minimum spend.",
    )
    TOO_MANY_ATTEMPTS = described(
        "TOO_MANY_ATTEMPTS",
        "Too many unknown codes were tried with this key or by this presenter; wait a minute. Its own codes pass.",
    )
    NOT_FIRST_ORDER = described(
        "NOT_FIRST_ORDER",
        "It is for a first order, and its presenter has another one that stands, or isn't named.",
    )
    NOT_STACKABLE = described("NOT_STACKABLE", "It goes alone, or the order's codes were redeemed in an earlier call.")
    BUDGET_SPENT = described("BUDGET_SPENT", "What its pool's codes may take off together doesn't suffice for it.")
    NO_DISCOUNT = described("NO_DISCOUNT", "It would take nothing off; GIFT codes may.")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pool grants; amounts in minor units."""

    kind: str
    percent_off: Decimal | None
    amount_off: int | None
    minimum_spend: int | None
    maximum_discount: int | None
    stacking: str
    transferable: bool


@dataclass(frozen=True, slots=True)
class PresentedCode:
    """A code as it stands when it is presented; `email_index` is the address that it waits for, if it has no owner."""

    terms: Terms
    state: str
    owner: UUID | None
    email_index: bytes | None
    expires_at: datetime | None
    pool_open: bool
    #: When its pool begins, of one that hasn't begun.
    opens_at: datetime | None = None
    #: Whether it was redeemed on the order before: then only what the order is now can speak against it.
    stays: bool = False
    #: Whether it is for a first order, and its presenter has another one, or isn't named.
    has_another_order: bool = False
    #: How much of the order it may be applied to, where that isn't the whole order.
    eligible: int | None = None
    #: Whether it is held for the order: then it is honoured whatever became of it or its pool since.
    is_held_here: bool = False
    #: Until when an order holds it that it isn't presented for.
    held_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What codes are presented for. The checkout names the presenter by member id, by address, by both or not at all.

    `member_of_email` is the member that has proved the address.
    """

    amount: int
    currency_matches: bool
    presenter: UUID | None
    email_index: bytes | None
    member_of_email: UUID | None
    has_other_codes: bool
    #: Until when a hold of the order itself is in the way of whoever presents codes beside it.
    held_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would make a refused code work: more on the order, or later."""

    short_by: int | None = None
    valid_from: datetime | None = None
    held_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What one code takes off: `discount` of `base`.

    The base is what the codes before it left, or what of the order it may be applied to (`eligible`), if that is less.
    """

    base: int
    discount: int
    eligible: int | None = None


def honours(status: str, pause_scope: str | None, starts_at: datetime | None, now: datetime) -> bool:
    """Whether a pool honours codes that haven't ended at this instant: `starts_at` included."""
    return (status == "ACTIVE" or pause_scope == "ISSUING") and (starts_at is None or starts_at <= now)


def discount(terms: Terms, base: int) -> int:
    """Return what a code takes off `base`, never more than it. A percentage rounds half up to a minor unit."""
    if terms.kind == "PERCENT" and terms.percent_off is not None:
        share = int((base * terms.percent_off / 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))
        return min(share, base) if terms.maximum_discount is None else min(share, base, terms.maximum_discount)
    return min(terms.amount_off or 0, base)


def stack(terms: Sequence[tuple[Terms, int | None]], amount: int) -> list[Applied]:
    """Apply codes in the order given, each to what is left of `amount`, and to no more than its eligible amount."""
    left = amount
    applied = []
    for each, eligible in terms:
        base = left if eligible is None else min(left, eligible)
        taken = discount(each, base)
        applied.append(Applied(base, taken, eligible))
        left -= taken
    return applied


def is_owner(code: PresentedCode, order: Order) -> bool:
    """Whether the presenter owns a code in one of the three ways.

    An address counts for a code that has an owner only if the owner has proved it, whatever address it was claimed
    with. A member id says more than an address, so where both are given the address is not asked then.
    """
    if code.owner is not None:
        return code.owner == (order.presenter or order.member_of_email)
    return code.email_index is not None and code.email_index == order.email_index


def owned_reason(code: PresentedCode | None, order: Order) -> CodeRejectionReason | None:
    """Return why this presenter may not even ask about a code, or None."""
    if code is None:
        return CodeRejectionReason.UNKNOWN
    if code.state == "AVAILABLE":
        return CodeRejectionReason.NOT_ALLOCATED
    # A code that was revoked in stock is nobody's: that it belongs to someone else wouldn't be true.
    is_owned = code.owner is not None or code.email_index is not None
    if is_owned and not code.terms.transferable and not is_owner(code, order):
        return CodeRejectionReason.NOT_OWNER
    return None


def reason(
    code: PresentedCode | None, order: Order, *, codes_of_order: int, now: datetime
) -> CodeRejectionReason | None:
    """Return the first reason against redeeming a code on an order of `codes_of_order` codes, or None."""
    refused = None if code is not None and code.stays else owned_reason(code, order)
    if refused is not None or code is None:
        return refused
    checks = (
        (CodeRejectionReason.ALREADY_REDEEMED, code.state == "REDEEMED" and not code.stays),
        (CodeRejectionReason.HELD, code.held_until is not None or order.held_until is not None),
        (
            CodeRejectionReason.EXPIRED,
            code.state == "EXPIRED"
            or (not (code.stays or code.is_held_here) and code.expires_at is not None and code.expires_at <= now),
        ),
        (CodeRejectionReason.REVOKED, code.state == "REVOKED"),
        (CodeRejectionReason.POOL_NOT_ACTIVE, not (code.pool_open or code.stays or code.is_held_here)),
        (CodeRejectionReason.CURRENCY_MISMATCH, not order.currency_matches),
        (CodeRejectionReason.NOT_ELIGIBLE, code.eligible == 0),
        (CodeRejectionReason.BELOW_MINIMUM_SPEND, _spend(code, order) < (code.terms.minimum_spend or 0)),
        (CodeRejectionReason.NOT_FIRST_ORDER, code.has_another_order and not (code.stays or code.is_held_here)),
        (
            CodeRejectionReason.NOT_STACKABLE,
            order.has_other_codes or (codes_of_order > 1 and code.terms.stacking == "EXCLUSIVE"),
        ),
    )
    return next((why for why, holds in checks if holds), None)


def _spend(code: PresentedCode, order: Order) -> int:
    """Return what a code's minimum spend is compared with."""
    return order.amount if code.eligible is None else code.eligible


def remedy(why: CodeRejectionReason, code: PresentedCode, order: Order) -> Remedy | None:
    """Return what would make a code work that is refused for this reason, or None."""
    if why is CodeRejectionReason.BELOW_MINIMUM_SPEND:
        return Remedy(short_by=(code.terms.minimum_spend or 0) - _spend(code, order))
    if why is CodeRejectionReason.POOL_NOT_ACTIVE and code.opens_at is not None:
        return Remedy(valid_from=code.opens_at)
    if why is CodeRejectionReason.HELD:
        return Remedy(held_until=code.held_until or order.held_until)
    return None


def takes_nothing(terms: Terms, applied: Applied) -> bool:
    """Whether a code that has its place in a stack would be spent for nothing. A gift isn't taken off."""
    return applied.discount == 0 and terms.kind != "GIFT"
