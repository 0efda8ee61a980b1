"""redeemCodes and checkCodes: all codes of one order together or not at all, each exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api import attempts
from app.api.context import Viewer
from app.api.inputs import Money, MoneyInput, Problems
from app.api.operations import Info, InvalidInput, Refusal, Refused, mutation, query
from app.api.scalars import BigInt
from app.coupons import code_text
from app.coupons.rows import IS_OPEN, JOIN_CODE, REDEMPTION_COLUMNS, WHOLE_CODE
from app.coupons.rules import (
    Applied,
    CodeRejectionReason,
    Order,
    PresentedCode,
    Terms,
    is_open,
    owned_reason,
    reason,
    stack,
)
from app.coupons.types import Redemption
from app.storage.database import Row, database
from app.storage.wallet_versions import CHANGE_COLUMNS, raise_wallets, ring_wallet

CODES_PER_ORDER_MAX: Final = 20
CODE_LENGTH_MAX: Final = 100
ATTEMPTS_MAX: Final = 5


@strawberry.input(
    description="All codes of one order, redeemed together or not at all. "
    "The same order, codes and amount again is the same answer."
)
class RedeemCodesInput:
    """An order and the codes presented for it."""

    codes: list[str] = strawberry.field(description="The codes in the order they apply: 1 to 20, as typed.")
    order_id: str = strawberry.field(description="The shop's own id of the order, at most 100 characters.")
    order_amount: MoneyInput = strawberry.field(description="What the order is worth before discounts; 0 or more.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The member that presents the codes; it or an address is needed unless all are transferable.",
    )
    email: str | None = strawberry.field(
        default=None,
        description="The address that the presenter gave: compared with the one a code was claimed with or sent to, "
        "and with its owner's verified one. Where both are given and the code has an owner, memberId decides.",
    )


@strawberry.type(description="All codes are redeemed.")
class RedeemCodesSuccess:
    """The redemptions."""

    redemptions: list[Redemption] = strawberry.field(description="One per code, in the order they applied.")
    total_discount: Money = strawberry.field(description="What the codes take off together.")
    replayed: bool = strawberry.field(description="Whether an earlier call redeemed them on this order.")


@strawberry.type(description="Why one of the codes can't be redeemed.")
class CodeRejection:
    """A code, masked, and the reason."""

    masked: str = strawberry.field(description="The code with its last two characters readable.")
    reason: CodeRejectionReason = strawberry.field(description="The first reason against it.")


@strawberry.type(description="At least one code can't be redeemed, so none was.")
class CodesRejected(Refusal):
    """A reason for each code that stands in the way."""

    rejections: list[CodeRejection] = strawberry.field(description="The codes that stand in the way, as given.")


RedeemCodesResult = Annotated[
    RedeemCodesSuccess | InvalidInput | CodesRejected,
    strawberry.union("RedeemCodesResult", description="The redemptions, or why there are none."),
]
Presented = Annotated[RedeemCodesInput, strawberry.argument(description="The order and its codes.")]

# The presented codes and those that the order has already, each with its standing redemption. UNION without ALL would
# let a plan that was made while there were few codes walk all of them by their ids.
READ: Final = f"""
SELECT {WHOLE_CODE}, {REDEMPTION_COLUMNS}, c.fingerprint, c.email_index AS code_email_index, now() AS asked_at,
    (SELECT member_id FROM address WHERE merchant_id = $1 AND email_index = $4) AS member_of_email
FROM code c {JOIN_CODE}
LEFT JOIN redemption r ON r.merchant_id = c.merchant_id AND r.code_id = c.id AND r.reversed_at IS NULL
WHERE c.merchant_id = $1 AND c.id = ANY(ARRAY(
    SELECT id FROM code WHERE merchant_id = $1 AND fingerprint = ANY($2::bytea[])
    UNION ALL
    (SELECT code_id FROM redemption WHERE merchant_id = $1 AND order_id = $3 AND reversed_at IS NULL ORDER BY position)
))
"""

# Changes all codes or none: every condition that can change between reading and writing is checked again here, on
# locked rows. The order of locks is codes by id, then positions on the order, then wallets by member.
REDEEM: Final = f"""
WITH asked AS (
    SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[])
        WITH ORDINALITY AS t (code_id, redemption_id, event_id, base, discount, position)
), locked AS (
    SELECT c.id, c.pool_id, c.member_id
    FROM code c JOIN pool p ON p.merchant_id = c.merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = $1 AND c.id = ANY($2::uuid[]) AND c.state = 'ALLOCATED'
        AND (c.expires_at IS NULL OR c.expires_at > now()) AND {IS_OPEN}
        AND (p.transferable
            OR c.member_id = coalesce($7, (SELECT member_id FROM address WHERE merchant_id = $1 AND email_index = $12))
            OR (c.email_index = $12 AND (c.member_id IS NULL OR $7 IS NULL)))
    ORDER BY c.id FOR UPDATE OF c
), redeemed AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now()
    WHERE code.merchant_id = $1 AND code.id = ANY($2::uuid[])
        AND (SELECT count(*) FROM locked) = cardinality($2::uuid[])
    RETURNING code.id, code.pool_id, code.member_id
), inserted AS (
    INSERT INTO redemption (merchant_id, id, pool_id, code_id, order_id, position, order_amount, base, discount,
                            currency, redeemed_at)
    SELECT $1, asked.redemption_id, redeemed.pool_id, asked.code_id, $8, asked.position, $9, asked.base,
        asked.discount, $10, now()
    FROM asked JOIN redeemed ON redeemed.id = asked.code_id ORDER BY asked.position
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, pool_id, gen_random_uuid(), 0, -count(*), count(*), 0, 0 FROM redeemed GROUP BY pool_id
), changed AS (
    SELECT asked.event_id, redeemed.id AS subject_id, redeemed.member_id, NULL::bytea AS reason
    FROM redeemed JOIN asked ON asked.code_id = redeemed.id
), {raise_wallets("code.redeemed", actor="$11")}
SELECT redeemed.id, now() AS redeemed_at, raised.version AS wallet_version, {CHANGE_COLUMNS}
FROM redeemed LEFT JOIN raised ON raised.member_id = redeemed.member_id
LEFT JOIN recorded ev ON ev.subject_id = redeemed.id
"""


@dataclass(frozen=True, slots=True)
class Presentation:
    """A checked input: the order, and for each code what was typed and its fingerprint (None: not a code)."""

    typed: list[str]
    fingerprints: list[bytes | None]
    order_id: str
    amount: int
    currency: str
    presenter: UUID | None
    email_index: bytes | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an order's codes come to: rejections, or a row and its share of the discount per code."""

    rejections: list[CodeRejection]
    rows: list[Row]
    applied: list[Applied]
    replayed: bool


def presentation(viewer: Viewer, input: RedeemCodesInput) -> Presentation:
    """Check the input. Raises Refused(InvalidInput) with every problem."""
    problems = Problems()
    if not 1 <= len(input.codes) <= CODES_PER_ORDER_MAX:
        problems.add("codes", f"must be 1 to {CODES_PER_ORDER_MAX} codes")
        problems.refuse_if_any()
    parsed = [code_text.parse(typed[:CODE_LENGTH_MAX]) for typed in input.codes]
    for position, (typed, text) in enumerate(zip(input.codes, parsed, strict=True)):
        if len(typed) > CODE_LENGTH_MAX:
            problems.add(f"codes.{position}", f"must be at most {CODE_LENGTH_MAX} characters")
        if text is not None and text in parsed[:position]:
            problems.add(f"codes.{position}", "is listed twice")
    order_id = problems.text("orderId", input.order_id, length_max=100)
    currency = input.order_amount.currency
    amount = problems.money("orderAmount", input.order_amount, currency=currency, least=0) or 0
    if len(currency) != 3 or not (currency.isascii() and currency.isalpha() and currency.isupper()):
        problems.add("orderAmount.currency", "must be an ISO 4217 code")
    presenter = None if input.member_id is None else ids.decode("member", input.member_id)
    if input.member_id is not None and presenter is None:
        problems.add("memberId", "must be the id of a member")
    address = None if input.email is None else problems.email("email", input.email)
    problems.refuse_if_any()
    keys = viewer.tenant.keys
    fingerprints = [None if text is None else keys.code_fingerprint(text) for text in parsed]
    email_index = None if address is None else keys.email_index(address)
    return Presentation(input.codes, fingerprints, order_id, amount, currency, presenter, email_index)


async def read(viewer: Viewer, presented: Presentation) -> list[Row]:
    """Return the presented codes that exist and those already redeemed on this order."""
    known = [fingerprint for fingerprint in presented.fingerprints if fingerprint is not None]
    return await database().rows(READ, viewer.merchant_id, known, presented.order_id, presented.email_index)


def judge(viewer: Viewer, presented: Presentation, found: Sequence[Row]) -> Verdict:
    """Decide from what was read; the same for checking and redeeming."""
    by_fingerprint = {row["fingerprint"]: row for row in found}
    rows = [by_fingerprint.get(fingerprint) for fingerprint in presented.fingerprints]
    on_order = [row for row in found if row["redemption_order_id"] == presented.order_id]
    order = Order(
        amount=presented.amount,
        currency_matches=presented.currency == viewer.tenant.currency,
        presenter=presented.presenter,
        email_index=presented.email_index,
        member_of_email=found[0]["member_of_email"] if found else None,
        has_other_codes=bool(on_order),
    )
    codes = [None if row is None else _presented_code(row) for row in rows]
    if _is_replay(presented, rows, on_order) and not any(owned_reason(code, order) for code in codes):
        replayed = sorted(on_order, key=lambda row: row["redemption_position"])
        return Verdict(
            [],
            replayed,
            [Applied(row["redemption_base"], row["redemption_discount"]) for row in replayed],
            replayed=True,
        )
    rejections = []
    for typed, row, code in zip(presented.typed, rows, codes, strict=True):
        now = row["asked_at"] if row is not None else None
        why = CodeRejectionReason.UNKNOWN if now is None else reason(code, order, codes_of_order=len(codes), now=now)
        if why is not None:
            masked = (
                code_text.mask_typed(typed) if row is None else code_text.mask(row["pool_kind"], row["code_suffix"])
            )
            rejections.append(CodeRejection(masked=masked, reason=why))
    if rejections:
        return Verdict(rejections, [], [], replayed=False)
    applied = stack([code.terms for code in codes if code is not None], presented.amount)
    return Verdict([], [row for row in rows if row is not None], applied, replayed=False)


def _is_replay(presented: Presentation, rows: list[Row | None], on_order: list[Row]) -> bool:
    """Whether this order was redeemed with exactly these codes and this amount."""
    return (
        bool(on_order)
        and {row["code_id"] for row in rows if row is not None} == {row["code_id"] for row in on_order}
        and None not in rows
        and on_order[0]["redemption_order_amount"] == presented.amount
        and on_order[0]["redemption_currency"] == presented.currency
    )


def _presented_code(row: Row) -> PresentedCode:
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
        owner=row["member_id"],
        email_index=row["code_email_index"],
        expires_at=row["code_expires_at"],
        pool_open=is_open(row["pool_status"], row["pool_starts_at"], row["pool_ends_at"], row["asked_at"]),
    )


async def redeem(viewer: Viewer, presented: Presentation, verdict: Verdict) -> list[Row] | None:
    """Redeem all codes of an accepted order in one statement.

    Returns the codes' rows with their redemptions, or None when something changed since they were read.
    """
    redemption_ids = [ids.new() for _ in verdict.rows]
    try:
        redeemed = await database().rows(
            REDEEM,
            viewer.merchant_id,
            [row["code_id"] for row in verdict.rows],
            redemption_ids,
            [ids.new() for _ in verdict.rows],
            [share.base for share in verdict.applied],
            [share.discount for share in verdict.applied],
            presented.presenter,
            presented.order_id,
            presented.amount,
            presented.currency,
            viewer.actor,
            presented.email_index,
        )
    except asyncpg.UniqueViolationError:
        # Another call has redeemed codes on this order in the meantime: what stands now is read again.
        return None
    if not redeemed:
        return None
    by_code = {row["id"]: row for row in redeemed}
    for row in verdict.rows:
        ring_wallet(database(), viewer.merchant_id, dict(row) | dict(by_code[row["code_id"]]))
    made = zip(verdict.rows, redemption_ids, verdict.applied, strict=True)
    return [
        _with_redemption(row, redemption_id, share, position, presented, redeemed[0]["redeemed_at"])
        | {"wallet_version": by_code[row["code_id"]]["wallet_version"]}
        for position, (row, redemption_id, share) in enumerate(made, start=1)
    ]


def _with_redemption(
    row: Row,
    redemption_id: UUID,
    share: Applied,
    position: int,
    presented: Presentation,
    redeemed_at: datetime,
) -> dict[str, Any]:
    return dict(row) | {
        "redemption_id": redemption_id,
        "redemption_order_id": presented.order_id,
        "redemption_position": position,
        "redemption_order_amount": presented.amount,
        "redemption_base": share.base,
        "redemption_discount": share.discount,
        "redemption_currency": presented.currency,
        "redemption_redeemed_at": redeemed_at,
        "redemption_reversed_at": None,
        "code_state": "REDEEMED",
        "code_redeemed_at": redeemed_at,
    }


def _success(rows: Sequence[Row], currency: str, *, replayed: bool) -> RedeemCodesSuccess:
    total = sum(row["redemption_discount"] for row in rows)
    return RedeemCodesSuccess(
        redemptions=[Redemption.of(row) for row in rows],
        total_discount=Money(amount_minor=BigInt(total), currency=currency),
        replayed=replayed,
    )


async def _limited(viewer: Viewer, presented: Presentation, verdict: Verdict) -> Verdict:
    """Count the unknown codes of this call; over the limit every code is refused alike, known or not."""
    unknown = sum(rejection.reason is CodeRejectionReason.UNKNOWN for rejection in verdict.rejections)
    presenters = [presented.presenter and presented.presenter.bytes, presented.email_index]
    if not await attempts.exceeded(viewer, [each for each in presenters if each], unknown):
        return verdict
    rejections = [
        CodeRejection(masked=code_text.mask_typed(typed), reason=CodeRejectionReason.TOO_MANY_ATTEMPTS)
        for typed in presented.typed
    ]
    return Verdict(rejections, [], [], replayed=False)


def _refuse_if_rejected(verdict: Verdict) -> None:
    if verdict.rejections:
        count = len(verdict.rejections)
        message = f"{count} of the codes can't be redeemed; none was." if count > 1 else "A code can't be redeemed."
        raise Refused(CodesRejected(message=message, rejections=verdict.rejections))


@mutation(description="Redeem all codes of one order, or none of them. ADMIN and CHECKOUT.")
async def redeem_codes(info: Info, input: Presented) -> RedeemCodesResult:
    """Read, decide, and write under a guard; what a rival changed in between is read and decided again."""
    viewer = info.context.viewer
    presented = presentation(viewer, input)
    for attempt in range(ATTEMPTS_MAX):
        verdict = judge(viewer, presented, await read(viewer, presented))
        if attempt == 0:
            verdict = await _limited(viewer, presented, verdict)
        _refuse_if_rejected(verdict)
        if verdict.replayed:
            return _success(verdict.rows, presented.currency, replayed=True)
        redeemed = await redeem(viewer, presented, verdict)
        if redeemed is not None:
            return _success(redeemed, presented.currency, replayed=False)
    raise RuntimeError("codes kept changing while they were redeemed")


@query(
    description="What redeemCodes would answer, without changing anything. The redemptions are what it would make: "
    "their ids name nothing yet. ADMIN and CHECKOUT."
)
async def check_codes(info: Info, input: Presented) -> RedeemCodesResult:
    """Read and decide like redeemCodes, and leave it there."""
    viewer = info.context.viewer
    presented = presentation(viewer, input)
    verdict = await _limited(viewer, presented, judge(viewer, presented, await read(viewer, presented)))
    _refuse_if_rejected(verdict)
    if verdict.replayed:
        return _success(verdict.rows, presented.currency, replayed=True)
    rows = [
        _with_redemption(row, ids.new(), share, position, presented, row["asked_at"])
        for position, (row, share) in enumerate(zip(verdict.rows, verdict.applied, strict=True), start=1)
    ]
    return _success(rows, presented.currency, replayed=False)
