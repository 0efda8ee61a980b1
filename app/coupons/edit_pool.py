"""editPool: other terms for a pool: any in DRAFT, later only what is better for who holds a code."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Final, TypedDict, TypeVar, cast
from uuid import UUID

import asyncpg
import strawberry
from strawberry import UNSET
from strawberry.utils.str_converters import to_camel_case

from app.api.context import Viewer
from app.api.inputs import MoneyInput, Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.scalars import BigInt
from app.coupons.create_pool import (
    KNOW_LENGTH,
    CreatePoolInput,
    chain_from,
    checked_fallback,
    checked_terms,
    know_audience,
)
from app.coupons.revive_codes import JOB as REVIVE_JOB
from app.coupons.rows import WAIT_FOR_POOL, PoolRow
from app.coupons.rules import may_change
from app.coupons.types import CodeKind, Pool, PoolStatus, StackingPolicy
from app.segments.definitions import SegmentName
from app.storage import doorbell, events
from app.storage.database import Tx, database, transaction
from app.storage.statements import NoRow, columns, statement

T = TypeVar("T")


@strawberry.input(description="What to change; what is left out stays, null takes an optional term away.")
class EditPoolInput:
    pool_id: strawberry.ID = strawberry.field(
        description="The pool. In DRAFT everything can change. Later name, listed, recycleExpired and fallbackPoolId "
        "can, and until it is ARCHIVED terms can improve for who holds a code: endsAt, codeLifetimeDays, percentOff, "
        "amountOff, maximumDiscount, maximumTotalDiscount and claimsPerMember go up only, startsAt and minimumSpend "
        "down only, null lifts a limit, audience takes more segments or everybody, and firstOrderOnly and "
        "oneClaimPerMailbox end."
    )
    name: str | None = strawberry.field(default=UNSET, description="Its name, at most 200 characters.")
    percent_off: float | None = strawberry.field(
        default=UNSET, description="PERCENT only: over 0, at most 100, at most 4 decimals."
    )
    amount_off: MoneyInput | None = strawberry.field(default=UNSET, description="AMOUNT only: over 0.")
    gift_sku: str | None = strawberry.field(
        default=UNSET, description="GIFT only: the article, at most 100 characters."
    )
    minimum_spend: MoneyInput | None = strawberry.field(
        default=UNSET, description="What an order must be worth before discounts; over 0."
    )
    maximum_discount: MoneyInput | None = strawberry.field(
        default=UNSET, description="PERCENT only: the most that a code takes off; over 0."
    )
    starts_at: datetime | None = strawberry.field(default=UNSET, description="From when it issues and honours codes.")
    ends_at: datetime | None = strawberry.field(
        default=UNSET,
        description="Until when, this instant not included; after startsAt. A later end, also of a pool that has "
        "ended, holds at once for every code; those that only the end before had expired are valid again.",
    )
    code_lifetime_days: int | None = strawberry.field(
        default=UNSET,
        description="How many days a code can be spent once allocated: 1 to 3,650. Holds for later claims.",
    )
    claims_per_member: int | None = strawberry.field(
        default=UNSET, description="How many codes of it one member can have: 1 to 1,000."
    )
    stacking: StackingPolicy | None = strawberry.field(
        default=UNSET, description="Whether its codes share an order with others."
    )
    transferable: bool | None = strawberry.field(default=UNSET, description="Whether it honours whoever holds a code.")
    recycle_expired: bool | None = strawberry.field(
        default=UNSET, description="Whether a code that expires unspent leaves its place to a fresh one."
    )
    code_pattern: str | None = strawberry.field(
        default=UNSET,
        description="Text of the codes that are generated from now on, as for createPool; in DRAFT only. Codes that "
        "exist keep theirs.",
    )
    audience: list[SegmentName] | None = strawberry.field(
        default=UNSET, description="Who may claim: members of one of these segments; empty or null: everybody."
    )
    first_order_only: bool | None = strawberry.field(
        default=UNSET, description="Whether its codes are for a presenter's first order only."
    )
    one_claim_per_mailbox: bool | None = strawberry.field(
        default=UNSET, description="Whether only the first person of a mailbox can claim."
    )
    maximum_total_discount: MoneyInput | None = strawberry.field(
        default=UNSET,
        description="PERCENT and AMOUNT only: the most that its codes take off together, held ones included.",
    )
    listed: bool | None = strawberry.field(default=UNSET, description="Whether members see it in `offers`.")
    fallback_pool_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="The pool that serves claims once this one is empty; chains must not be circles."
    )


@strawberry.type(description="The terms were changed.")
class EditPoolSuccess:
    pool: Pool = strawberry.field(description="The pool with its new terms.")


@strawberry.type(description="In this status the pool doesn't take such a change.")
class PoolNotEditable(Refusal):
    """After DRAFT terms only improve, codes come in DRAFT and PAUSED only, and only a DRAFT is discarded."""

    status: PoolStatus = strawberry.field(description="The pool's status.")
    fields: list[str] = strawberry.field(
        description="The fields of editPool that can't change so in this status; empty where it isn't about terms."
    )


EditPoolResult = Annotated[
    EditPoolSuccess | InvalidInput | NotFound | PoolNotEditable,
    strawberry.union("EditPoolResult", description="The edited pool, or why it stays as it was."),
]

# NO KEY: an edit that makes this pool another's fallback refers to its key, and must not wait while this one waits for
# that edit (ONE_AT_A_TIME).
LOCK: Final = statement(
    PoolRow,
    f"""
SELECT {columns(PoolRow)} FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = :pool_id FOR NO KEY UPDATE
""",
)
UPDATE: Final = statement(
    PoolRow,
    f"""
WITH p AS (
    UPDATE pool SET
        name = :name, kind = :kind, percent_off = :percent_off, amount_off = :amount_off, gift_sku = :gift_sku,
        minimum_spend = :minimum_spend, maximum_discount = :maximum_discount, starts_at = :starts_at,
        ends_at = :ends_at, code_lifetime_days = :code_lifetime_days, claims_per_member = :claims_per_member,
        stacking = :stacking, transferable = :transferable, recycle_expired = :recycle_expired,
        code_pattern = :code_pattern, audience = :audience::text[], first_order_only = :first_order_only,
        one_claim_per_mailbox = :one_claim_per_mailbox, listed = :listed,
        maximum_total_discount = :maximum_total_discount, fallback_pool_id = :fallback_pool_id
    WHERE merchant_id = :merchant_id AND id = :pool_id
    RETURNING *
), {KNOW_LENGTH}
SELECT {columns(PoolRow)} FROM p WHERE p.merchant_id = :merchant_id
""",
)
#: Codes that the end before had expired live again, by a job; one that is at it begins anew.
REVIVE: Final = statement(
    NoRow,
    """
INSERT INTO code_revival (merchant_id, pool_id) VALUES (:merchant_id, :pool_id)
ON CONFLICT (merchant_id, pool_id) DO UPDATE SET walked_to = NULL
""",
)
_NEVER_NULL: Final = (
    "name", "claims_per_member", "stacking", "transferable", "first_order_only", "one_claim_per_mailbox", "listed",
)  # fmt: skip


@mutation(
    description="Change the terms of a pool: any in DRAFT, later only what is better for who holds a code. ADMIN only."
)
async def edit_pool(
    info: Info, input: Annotated[EditPoolInput, strawberry.argument(description="What to change.")]
) -> EditPoolResult:
    viewer = info.context.viewer
    problems = Problems()
    for field in _NEVER_NULL:
        if getattr(input, field) is None:
            problems.add(to_camel_case(field), "must not be null")
    problems.refuse_if_any()
    pool_id = node_id("pool", "pool", input.pool_id)
    async with _naming_a_pool(input.fallback_pool_id), transaction(viewer.merchant_id) as tx:
        # The terms are checked as they would be, so two edits at once go one after the other.
        row = await tx.row(LOCK, merchant_id=viewer.merchant_id, pool_id=pool_id)
        if row is None:
            raise not_found("pool", input.pool_id)
        checked = checked_terms(_merged(row, input, viewer.tenant.currency), viewer.tenant.currency)
        fallback_id = await _fallback(tx, viewer, pool_id, row["pool_fallback_pool_id"], input.fallback_pool_id)
        _refuse_what_is_worse(row, checked)
        await _refuse_what_imports_rule_out(tx, viewer, row, checked)
        edited = await tx.row(
            UPDATE, merchant_id=viewer.merchant_id, pool_id=pool_id, fallback_pool_id=fallback_id, **checked
        )
        if edited is None:
            raise RuntimeError("a pool vanished under its lock")
        await events.record(tx, viewer.merchant_id, "pool.edited", pool_id, viewer.actor)
        is_extended = row["pool_status"] != "DRAFT" and row["pool_ends_at"] != edited["pool_ends_at"]
        if is_extended:
            await tx.row(REVIVE, merchant_id=viewer.merchant_id, pool_id=pool_id)
    if is_extended:
        await doorbell.wake_workers(REVIVE_JOB)
    if row["pool_status"] != "DRAFT":
        await database().row(WAIT_FOR_POOL, merchant_id=viewer.merchant_id, pool_id=pool_id)
    await know_audience(viewer, edited)
    return EditPoolSuccess(pool=Pool.of(edited))


@asynccontextmanager
async def _naming_a_pool(named: str | None) -> AsyncIterator[None]:
    """Raise Refused(NotFound) if the pool that is named is discarded at this moment."""
    try:
        yield
    except asyncpg.ForeignKeyViolationError:
        raise not_found("pool", named or "") from None


def _refuse_what_is_worse(row: PoolRow, terms: Mapping[str, object]) -> None:
    """Raise Refused(PoolNotEditable) with every term that may not change so once the pool has left DRAFT."""
    status, standing = row["pool_status"], cast("Mapping[str, object]", row)
    worse = [
        to_camel_case(term)
        for term, value in terms.items()
        if not may_change(status, term, standing[f"pool_{term}"], value)
    ]
    if not worse:
        return
    why = "are fixed" if status == "ARCHIVED" else "may only improve for who holds a code"
    message = f"The terms of a pool in {status} {why}; this can't change so: {', '.join(worse)}."
    raise Refused(PoolNotEditable(message=message, status=PoolStatus(status), fields=worse))


class _ImportedRow(TypedDict):
    has_bearers: bool
    claims: int


#: What imports have made of a draft.
LOOK: Final = statement(
    _ImportedRow,
    """
SELECT EXISTS (
        -- By the pool's batches: a merchant may have a million bearer codes in others.
        SELECT FROM code_batch b WHERE b.merchant_id = :merchant_id AND b.pool_id = :pool_id
            AND EXISTS (SELECT FROM bearer_code WHERE merchant_id = :merchant_id AND batch_id = b.id)
    ) AS has_bearers,
    coalesce((SELECT max(slot) FROM claim WHERE merchant_id = :merchant_id AND pool_id = :pool_id), 0) AS claims
""",
)


async def _refuse_what_imports_rule_out(tx: Tx, viewer: Viewer, row: PoolRow, terms: Mapping[str, object]) -> None:
    """Raise Refused(InvalidInput) for a draft's terms that codes which were imported into it rule out."""
    is_worse = not terms["transferable"] or row["pool_claims_per_member"] > cast("int", terms["claims_per_member"])
    if row["pool_status"] != "DRAFT" or not is_worse:
        return
    imported = await tx.row(LOOK, merchant_id=viewer.merchant_id, pool_id=row["pool_id"])
    problems = Problems()
    if imported is not None and imported["has_bearers"] and not terms["transferable"]:
        problems.add("transferable", "must stay: the pool has bearer codes")
    if imported is not None and imported["claims"] > cast("int", terms["claims_per_member"]):
        problems.add(
            "claimsPerMember", f"must be at least {imported['claims']}: somebody has so many codes of the pool"
        )
    problems.refuse_if_any()


class _AboveRow(TypedDict):
    pools: int


#: Fallbacks are changed one after another, so that two edits can't close a circle that neither of them sees.
ONE_AT_A_TIME: Final = statement(NoRow, "SELECT FROM merchant WHERE merchant_id = :merchant_id FOR NO KEY UPDATE")
#: How many pools come before this one, on the longest of the chains that lead to it.
COUNT_ABOVE: Final = statement(
    _AboveRow,
    """
WITH RECURSIVE above AS (
    SELECT :pool_id::uuid AS id, 0 AS distance
    UNION ALL
    SELECT p.id, distance + 1
    FROM above JOIN pool p ON p.fallback_pool_id = above.id
    WHERE p.merchant_id = :merchant_id AND distance < 100
)
SELECT max(distance) AS pools FROM above
""",
)


async def _fallback(tx: Tx, viewer: Viewer, pool_id: UUID, standing: UUID | None, named: str | None) -> UUID | None:
    """Return the fallback as it would be. Raises Refused with NotFound or InvalidInput."""
    if named is UNSET or named is None:
        return standing if named is UNSET else None
    await tx.row(ONE_AT_A_TIME, merchant_id=viewer.merchant_id)
    chain = await chain_from(tx, viewer, named)
    if not chain:
        raise not_found("pool", named)
    above = await tx.row(COUNT_ABOVE, merchant_id=viewer.merchant_id, pool_id=pool_id)
    return checked_fallback(chain, of=pool_id, above=0 if above is None else above["pools"])


def _merged(row: PoolRow, edit: EditPoolInput, currency: str) -> CreatePoolInput:
    """Return the terms as they would be: the row's, with what the edit sets in their place."""

    def amount(minor: int | None) -> MoneyInput | None:
        return None if minor is None else MoneyInput(amount_minor=BigInt(minor), currency=currency)

    percent_off = row["pool_percent_off"]
    return CreatePoolInput(
        name=_term(edit.name, row["pool_name"]),
        kind=CodeKind(row["pool_kind"]),
        percent_off=_term(edit.percent_off, None if percent_off is None else float(percent_off)),
        amount_off=_term(edit.amount_off, amount(row["pool_amount_off"])),
        gift_sku=_term(edit.gift_sku, row["pool_gift_sku"]),
        minimum_spend=_term(edit.minimum_spend, amount(row["pool_minimum_spend"])),
        maximum_discount=_term(edit.maximum_discount, amount(row["pool_maximum_discount"])),
        starts_at=_term(edit.starts_at, row["pool_starts_at"]),
        ends_at=_term(edit.ends_at, row["pool_ends_at"]),
        code_lifetime_days=_term(edit.code_lifetime_days, row["pool_code_lifetime_days"]),
        claims_per_member=_term(edit.claims_per_member, row["pool_claims_per_member"]),
        stacking=_term(edit.stacking, StackingPolicy(row["pool_stacking"])),
        transferable=_term(edit.transferable, row["pool_transferable"]),
        recycle_expired=_term(edit.recycle_expired, row["pool_recycle_expired"]),
        code_pattern=_term(edit.code_pattern, row["pool_code_pattern"]),
        audience=_term(edit.audience, [SegmentName(name) for name in row["pool_audience"]]),
        first_order_only=_term(edit.first_order_only, row["pool_first_order_only"]),
        one_claim_per_mailbox=_term(edit.one_claim_per_mailbox, row["pool_one_claim_per_mailbox"]),
        listed=_term(edit.listed, row["pool_listed"]),
        maximum_total_discount=_term(edit.maximum_total_discount, amount(row["pool_maximum_total_discount"])),
    )


def _term(asked: T | None, standing: T) -> T:
    """Return what the edit asks for, or what stands; null was refused where a term can't be."""
    return standing if asked is UNSET else cast("T", asked)
