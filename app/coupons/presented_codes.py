"""The codes that are presented for an order: what stands of them, and whether they are honoured together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import strawberry

from app.api import attempts
from app.api.context import Viewer
from app.coupons import code_text
from app.coupons.rows import JOIN_CODE, WholeRedemptionRow
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
    stack,
)
from app.storage.database import database
from app.storage.statements import columns, statement


@strawberry.type(description="Why one of the codes can't be redeemed.")
class CodeRejection:
    masked: str = strawberry.field(description="The code with its last two characters readable.")
    reason: CodeRejectionReason = strawberry.field(description="The first reason against it.")


@dataclass(frozen=True, slots=True)
class Presentation:
    """A checked input: the order, and for each code what was typed and its fingerprint (None: not a code).

    `presented_by` is a hash of the order and of who presents it, as the caller named it.
    """

    typed: list[str]
    fingerprints: list[bytes | None]
    order_id: str
    amount: int
    currency: str
    presenter: UUID | None
    email_index: bytes | None
    presented_by: bytes


class FoundRow(WholeRedemptionRow):
    """A code that was presented or that the order has; its redemption's fields are null where none stands."""

    fingerprint: bytes
    email_index: bytes | None
    owner_of_email: UUID | None
    presented_by: bytes | None
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an order's codes come to, one of the three: why not, what an earlier call redeemed, or what each takes off.

    Codes are in the order in which they apply; rejections are by their code's place in it. `guesses` are the places of
    those that the limit on guessing is about, of which so many are `unknown`, and `short` those that are known and
    short enough to be guessed.
    """

    rejections: dict[int, CodeRejection] = field(default_factory=dict)
    replayed: list[FoundRow] = field(default_factory=list)
    accepted: list[tuple[FoundRow, Applied]] = field(default_factory=list)
    guesses: list[int] = field(default_factory=list)
    unknown: int = 0
    short: list[int] = field(default_factory=list)


# The presented codes and those that the order has already, each with its standing redemption. UNION without ALL would
# let a plan that was made while there were few codes walk all of them by their ids.
READ: Final = statement(
    FoundRow,
    f"""
SELECT {columns(WholeRedemptionRow)}, c.fingerprint, c.email_index, r.presented_by, now() AS asked_at,
    (SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index) AS owner_of_email
FROM code c {JOIN_CODE}
LEFT JOIN redemption r ON r.merchant_id = :merchant_id AND r.code_id = c.id AND r.reversed_at IS NULL
WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(
    SELECT id FROM code WHERE merchant_id = :merchant_id AND fingerprint = ANY(:fingerprints::bytea[])
    UNION ALL
    (SELECT code_id FROM redemption
     WHERE merchant_id = :merchant_id AND order_id = :order_id AND reversed_at IS NULL ORDER BY position)
))
""",
)


async def judged(viewer: Viewer, presented: Presentation) -> Verdict:
    """Read what stands and decide. Nothing is locked: redeeming checks again what can change in between."""
    found = await database().rows(
        READ,
        merchant_id=viewer.merchant_id,
        fingerprints=[fingerprint for fingerprint in presented.fingerprints if fingerprint is not None],
        order_id=presented.order_id,
        email_index=presented.email_index,
    )
    return _judge(viewer, presented, found)


def _judge(viewer: Viewer, presented: Presentation, found: Sequence[FoundRow]) -> Verdict:
    by_fingerprint = {row["fingerprint"]: row for row in found}
    is_named = presented.presenter is not None or presented.email_index is not None
    rows = [None if each is None else by_fingerprint.get(each) for each in presented.fingerprints]
    # What can be guessed is honoured for whoever has a limit of its own.
    rows = [None if row is not None and _is_short(row) and not is_named else row for row in rows]
    on_order = [row for row in found if row["redemption_order_id"] == presented.order_id]
    order = Order(
        amount=presented.amount,
        currency_matches=presented.currency == viewer.tenant.currency,
        presenter=presented.presenter,
        email_index=presented.email_index,
        member_of_email=found[0]["owner_of_email"] if found else None,
        has_other_codes=bool(on_order),
    )
    codes = [None if row is None else _presented_code(row) for row in rows]
    # What was done for this presenter is told again whoever its address or number has become since.
    if _is_replay(presented, rows, on_order) and (
        on_order[0]["presented_by"] == presented.presented_by or not any(owned_reason(code, order) for code in codes)
    ):
        return Verdict(replayed=sorted(on_order, key=lambda row: row["redemption_position"]))
    rejections, guesses, unknown, short = {}, [], 0, []
    for place, (typed, fingerprint, row, code) in enumerate(
        zip(presented.typed, presented.fingerprints, rows, codes, strict=True)
    ):
        # What can't be a code tells nothing about those that exist, and its owner may ask about a code at any time.
        if fingerprint is not None and (code is None or not is_owner(code, order)):
            guesses.append(place)
            unknown += code is None
            if row is not None and _is_short(row):
                short.append(place)
        if row is None:
            rejections[place] = CodeRejection(masked=code_text.mask_typed(typed), reason=CodeRejectionReason.UNKNOWN)
            continue
        why = reason(code, order, codes_of_order=len(codes), now=row["asked_at"])
        if why is not None:
            masked = code_text.mask(row["pool_kind"], row["code_suffix"], is_foreign=row["code_is_foreign"])
            rejections[place] = CodeRejection(masked=masked, reason=why)
    if rejections:
        return Verdict(rejections=rejections, guesses=guesses, unknown=unknown, short=short)
    applied = stack([code.terms for code in codes if code is not None], presented.amount)
    accepted = list(zip((row for row in rows if row is not None), applied, strict=True))
    return Verdict(accepted=accepted, guesses=guesses, short=short)


def _is_short(row: FoundRow) -> bool:
    """Whether a code is short enough to be guessed: of such a one not even the end is shown."""
    return row["code_is_foreign"] and row["code_suffix"] == ""


def _is_replay(presented: Presentation, rows: list[FoundRow | None], on_order: list[FoundRow]) -> bool:
    """Whether this order was redeemed with exactly these codes and this amount."""
    return (
        bool(on_order)
        and {row["code_id"] for row in rows if row is not None} == {row["code_id"] for row in on_order}
        and None not in rows
        and on_order[0]["redemption_order_amount"] == presented.amount
        and on_order[0]["redemption_currency"] == presented.currency
    )


def _presented_code(row: FoundRow) -> PresentedCode:
    return PresentedCode(
        terms=Terms(
            kind=row["pool_kind"],
            percent_off=row["pool_percent_off"],
            amount_off=row["pool_amount_off"],
            minimum_spend=row["pool_minimum_spend"],
            maximum_discount=row["pool_maximum_discount"],
            stacking=row["pool_stacking"],
            transferable=row["pool_transferable"],
        ),
        state=row["code_state"],
        owner=row["code_member_id"],
        email_index=row["email_index"],
        expires_at=row["code_expires_at"],
        pool_open=honours(row["pool_status"], row["pool_pause_scope"], row["pool_starts_at"], row["asked_at"]),
    )


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
        # A short code counts as a guess, known or not, but the same one once a minute.
        fingerprint = presented.fingerprints[place]
        if presenter is not None and fingerprint is not None:
            unknown += await attempts.is_new(viewer, presenter, fingerprint)
    if not await attempts.exceeded(viewer, presenter, tried=len(verdict.guesses), unknown=unknown):
        return verdict
    refused = {
        place: CodeRejection(
            masked=code_text.mask_typed(presented.typed[place]), reason=CodeRejectionReason.TOO_MANY_ATTEMPTS
        )
        for place in verdict.guesses
    }
    return Verdict(rejections=dict(sorted((verdict.rejections | refused).items())))
