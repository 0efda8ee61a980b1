"""createPool: a pool in DRAFT, with terms that make sense for its kind."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, NoReturn, TypedDict
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import MoneyInput, Problems
from app.api.operations import Info, InputProblem, InvalidInput, Refused, mutation
from app.coupons.claims import CHAIN_LENGTH_MAX
from app.coupons.code_text import BITS_OF_CHARACTER, HIDDEN_BITS_MIN, hidden_bits
from app.coupons.rows import PoolRow
from app.coupons.types import CodeKind, Pool, StackingPolicy
from app.segments.definitions import KEPT, SegmentName
from app.segments.refresh import refresh_if_stale
from app.storage.database import Statements, database
from app.storage.events import event
from app.storage.statements import columns, statement

NAME_LENGTH_MAX: Final = 200
SKU_LENGTH_MAX: Final = 100
#: Lifetimes count from a pool's begin, and no date has more than four digits.
STARTS_BEFORE_YEAR: Final = 9900
LIFETIME_DAYS_MAX: Final = 3650
CLAIMS_PER_MEMBER_MAX: Final = 1000
PATTERN_LENGTHS: Final = (4, 64)
_PATTERN: Final = re.compile("[0-9A-Za-z#-]*")

#: Which field holds the value of each kind.
VALUE_FIELDS: Final = {
    CodeKind.PERCENT: "percentOff",
    CodeKind.AMOUNT: "amountOff",
    CodeKind.GIFT: "giftSku",
}


@strawberry.input(description="A pool to create. Exactly one of percentOff, amountOff and giftSku, as the kind says.")
class CreatePoolInput:
    name: str = strawberry.field(description="Its name, at most 200 characters.")
    kind: CodeKind = strawberry.field(description="What its codes give.")
    percent_off: float | None = strawberry.field(
        default=None, description="PERCENT only: over 0, at most 100, at most 4 decimals."
    )
    amount_off: MoneyInput | None = strawberry.field(default=None, description="AMOUNT only: over 0.")
    gift_sku: str | None = strawberry.field(default=None, description="GIFT only: the article, at most 100 characters.")
    minimum_spend: MoneyInput | None = strawberry.field(
        default=None, description="What an order must be worth before discounts; over 0."
    )
    maximum_discount: MoneyInput | None = strawberry.field(
        default=None, description="PERCENT only: the most that a code takes off; over 0."
    )
    starts_at: datetime | None = strawberry.field(
        default=None, description="From when it issues and honours codes; at once unless told."
    )
    ends_at: datetime | None = strawberry.field(
        default=None,
        description="Until when, this instant not included; after startsAt; for ever unless told.",
    )
    code_lifetime_days: int | None = strawberry.field(
        default=None, description="How many days a code can be spent once allocated: 1 to 3,650."
    )
    claims_per_member: int = strawberry.field(
        default=1, description="How many codes of it one member can have: 1 to 1,000."
    )
    stacking: StackingPolicy = strawberry.field(
        default=StackingPolicy.EXCLUSIVE, description="Whether its codes share an order with others."
    )
    transferable: bool = strawberry.field(
        default=False, description="Whether it honours whoever holds a code, not only the code's owner."
    )
    recycle_expired: bool | None = strawberry.field(
        default=False, description="Whether a code that expires unspent leaves its place in the stock to a fresh one."
    )
    code_pattern: str | None = strawberry.field(
        default=None,
        description="Text of the codes that are generated for it, 4 to 64 characters: letters from A to Z, digits and "
        "dashes as they stand, # for a random character; at least 12 of those. Our own form unless told.",
    )
    audience: list[SegmentName] | None = strawberry.field(
        default=None,
        description="Who may claim: members of one of these segments; empty or null: everybody. Binds new claims and "
        "rewards, not campaigns.",
    )
    first_order_only: bool | None = strawberry.field(
        default=False, description="Whether its codes are for a presenter's first order only."
    )
    one_claim_per_mailbox: bool | None = strawberry.field(
        default=True,
        description="Whether only the first person of a mailbox can claim: a+x@ and dots are spellings of one. A "
        "member's address counts once it is proven.",
    )
    maximum_total_discount: MoneyInput | None = strawberry.field(
        default=None,
        description="PERCENT and AMOUNT only: the most that its codes take off together, held ones included; at least "
        "amountOff or maximumDiscount. A code that doesn't fit whole is BUDGET_SPENT.",
    )
    listed: bool | None = strawberry.field(default=False, description="Whether members see it in `offers`.")
    fallback_pool_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The pool that serves claims once this one is empty; it may have one itself, 10 in a row at most.",
    )
    suggestion_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The advisor's suggestion that it is made of, which no other pool was; its terms needn't be those.",
    )


@strawberry.type(description="The pool was created, in DRAFT.")
class CreatePoolSuccess:
    pool: Pool = strawberry.field(description="The new pool.")


CreatePoolResult = Annotated[
    CreatePoolSuccess | InvalidInput,
    strawberry.union("CreatePoolResult", description="The new pool, or why there is none."),
]


def checked_terms(terms: CreatePoolInput, currency: str) -> dict[str, object]:
    """Return the terms but the fallback, by their columns. Raises Refused(InvalidInput) with every problem."""
    problems = Problems()
    name = problems.text("name", terms.name, length_max=NAME_LENGTH_MAX)
    values: dict[str, object] = {
        "percentOff": terms.percent_off,
        "amountOff": terms.amount_off,
        "giftSku": terms.gift_sku,
    }
    for field, value in values.items():
        if field == VALUE_FIELDS[terms.kind] and value is None:
            problems.add(field, f"is what {terms.kind.value} pools need")
        if field != VALUE_FIELDS[terms.kind] and value is not None:
            problems.add(field, f"has no meaning in {terms.kind.value} pools")
    percent_off = _percent(problems, terms.percent_off)
    amount_off = problems.money("amountOff", terms.amount_off, currency=currency)
    gift_sku = problems.optional_text("giftSku", terms.gift_sku, length_max=SKU_LENGTH_MAX)
    minimum_spend = problems.money("minimumSpend", terms.minimum_spend, currency=currency)
    if terms.maximum_discount is not None and terms.kind is not CodeKind.PERCENT:
        problems.add("maximumDiscount", f"has no meaning in {terms.kind.value} pools")
    maximum_discount = problems.money("maximumDiscount", terms.maximum_discount, currency=currency)
    if terms.maximum_total_discount is not None and terms.kind is CodeKind.GIFT:
        problems.add("maximumTotalDiscount", "has no meaning in GIFT pools")
    budget = problems.money("maximumTotalDiscount", terms.maximum_total_discount, currency=currency)
    if budget is not None and budget < (amount_off or maximum_discount or 1):
        problems.add("maximumTotalDiscount", "must be at least what one code takes off")
    if terms.starts_at is not None and terms.starts_at.year >= STARTS_BEFORE_YEAR:
        problems.add("startsAt", f"must be before the year {STARTS_BEFORE_YEAR}")
    if terms.starts_at is not None and terms.ends_at is not None and terms.ends_at <= terms.starts_at:
        problems.add("endsAt", "must be after startsAt")
    problems.number("codeLifetimeDays", terms.code_lifetime_days, least=1, most=LIFETIME_DAYS_MAX)
    problems.number("claimsPerMember", terms.claims_per_member, least=1, most=CLAIMS_PER_MEMBER_MAX)
    code_pattern = _pattern(problems, terms.code_pattern)
    problems.refuse_if_any()
    return {
        "name": name,
        "kind": terms.kind.value,
        "percent_off": percent_off,
        "amount_off": amount_off,
        "gift_sku": gift_sku,
        "minimum_spend": minimum_spend,
        "maximum_discount": maximum_discount,
        "starts_at": terms.starts_at,
        "ends_at": terms.ends_at,
        "code_lifetime_days": terms.code_lifetime_days,
        "claims_per_member": terms.claims_per_member,
        "stacking": terms.stacking.value,
        "transferable": terms.transferable,
        "recycle_expired": bool(terms.recycle_expired),
        "code_pattern": code_pattern,
        "audience": audience_of(terms.audience or ()),
        "first_order_only": bool(terms.first_order_only),
        "one_claim_per_mailbox": terms.one_claim_per_mailbox is not False,
        "listed": bool(terms.listed),
        "maximum_total_discount": budget,
    }


def audience_of(segments: Collection[SegmentName]) -> list[str]:
    """Return segments as a pool's row has them: each once, in their order."""
    return [name.value for name in SegmentName if name in segments]


async def know_audience(viewer: Viewer, pool: PoolRow) -> None:
    """Work out who is in a pool's segments that nights keep, if the merchant has never looked at them."""
    if any(name.value in pool["pool_audience"] for name in KEPT):
        await refresh_if_stale(viewer.merchant_id)


class ChainedRow(TypedDict):
    """A pool of a chain."""

    id: UUID
    status: str


CHAIN: Final = statement(
    ChainedRow,
    """
WITH RECURSIVE chain AS (
    SELECT id, status, fallback_pool_id, 1 AS position FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id
    UNION ALL
    SELECT p.id, p.status, p.fallback_pool_id, position + 1
    FROM chain JOIN pool p ON p.merchant_id = :merchant_id AND p.id = chain.fallback_pool_id
    WHERE position < 100
)
SELECT id, status FROM chain ORDER BY position
""",
)


async def chain_from(where: Statements, viewer: Viewer, named: str) -> list[ChainedRow]:
    """Return the pool of this id and those it falls back to, nearest first; nothing if there is no such pool."""
    pool_id = ids.decode("pool", named)
    if pool_id is None:
        return []
    return await where.rows(CHAIN, merchant_id=viewer.merchant_id, pool_id=pool_id)


def checked_fallback(chain: Sequence[ChainedRow], *, of: UUID | None, above: int = 0) -> UUID:
    """Return the pool that starts a chain, if `of` (None: a new pool), to which `above` others lead, may have it.

    Raises Refused(InvalidInput) when there is no such pool, or when that would be a circle, a dead end or too long.
    """
    problems = Problems()
    if not chain:
        problems.add("fallbackPoolId", "names no pool")
    elif of in {row["id"] for row in chain}:
        problems.add("fallbackPoolId", "would make a circle")
    elif chain[0]["status"] == "ARCHIVED":
        problems.add("fallbackPoolId", "names a pool that is closed for good")
    elif above + 1 + len(chain) > CHAIN_LENGTH_MAX:
        problems.add("fallbackPoolId", f"would make a chain of more than {CHAIN_LENGTH_MAX} pools")
    problems.refuse_if_any()
    return chain[0]["id"]


def _percent(problems: Problems, share: float | None) -> Decimal | None:
    if share is None:
        return None
    exact = Decimal(str(share))
    if not 0 < exact <= 100:
        problems.add("percentOff", "must be over 0 and at most 100")
    elif exact != exact.quantize(Decimal("0.0001")):
        problems.add("percentOff", "must have at most 4 decimals")
    return exact


def _pattern(problems: Problems, text: str | None) -> str | None:
    if text is None:
        return None
    pattern = unicodedata.normalize("NFKC", text.strip())
    least, most = PATTERN_LENGTHS
    bits = hidden_bits(pattern)
    if not least <= len(pattern) <= most:
        problems.add("codePattern", f"must have {least} to {most} characters")
    elif not _PATTERN.fullmatch(pattern):
        problems.add("codePattern", "must be letters from A to Z, digits, dashes, and # for a random character")
    elif bits < HIDDEN_BITS_MIN:
        needed = HIDDEN_BITS_MIN // BITS_OF_CHARACTER + 2
        message = f"has {bits} random bits besides the two characters that masks show; it needs {HIDDEN_BITS_MIN}: "
        problems.add("codePattern", f"{message}{needed} times #")
    return pattern


def _refuse_suggestion(why: str) -> NoReturn:
    problem = InputProblem(path=["suggestionId"], message=why)
    raise Refused(InvalidInput(message=f"suggestionId {why}.", problems=[problem]))


#: Goes on after a pool `p` was written: of what length its codes will be, before there is one. What has a length that
#: none of the merchant's codes has is no code, and isn't looked for.
KNOW_LENGTH: Final = """known AS (
    INSERT INTO code_length (merchant_id, length)
    SELECT :merchant_id, length(replace(code_pattern, '-', '')) FROM p WHERE code_pattern IS NOT NULL
    ON CONFLICT DO NOTHING
)"""
INSERT: Final = statement(
    PoolRow,
    f"""
WITH p AS (
    INSERT INTO pool (
        merchant_id, id, name, status, kind, percent_off, amount_off, gift_sku, minimum_spend, maximum_discount,
        starts_at, ends_at, code_lifetime_days, claims_per_member, stacking, transferable, recycle_expired,
        code_pattern, audience, first_order_only, one_claim_per_mailbox, listed, maximum_total_discount,
        fallback_pool_id, suggestion_id, created_at
    )
    VALUES (
        :merchant_id, :pool_id, :name, 'DRAFT', :kind, :percent_off, :amount_off, :gift_sku, :minimum_spend,
        :maximum_discount, :starts_at, :ends_at, :code_lifetime_days, :claims_per_member, :stacking, :transferable,
        :recycle_expired, :code_pattern, :audience::text[], :first_order_only, :one_claim_per_mailbox, :listed,
        :maximum_total_discount, :fallback_pool_id, :suggestion_id, now()
    )
    RETURNING *
), {KNOW_LENGTH}, recorded AS (
    {event("pool.created", subject="id", source="p")}
)
SELECT {columns(PoolRow)} FROM p WHERE p.merchant_id = :merchant_id
""",
)


@mutation(description="Create a pool, in DRAFT. ADMIN only.")
async def create_pool(
    info: Info, input: Annotated[CreatePoolInput, strawberry.argument(description="The pool to create.")]
) -> CreatePoolResult:
    viewer = info.context.viewer
    checked = checked_terms(input, viewer.tenant.currency)
    named = input.fallback_pool_id
    fallback_id = None if named is None else checked_fallback(await chain_from(database(), viewer, named), of=None)
    suggestion_id = None if input.suggestion_id is None else ids.decode("suggestion", input.suggestion_id)
    if suggestion_id is None and input.suggestion_id is not None:
        _refuse_suggestion("names no suggestion")
    try:
        row = await database().row(
            INSERT,
            merchant_id=viewer.merchant_id,
            pool_id=ids.new(),
            fallback_pool_id=fallback_id,
            suggestion_id=suggestion_id,
            event_id=ids.new(),
            actor=viewer.actor,
            **checked,
        )
    except asyncpg.UniqueViolationError:
        _refuse_suggestion("was adopted already")
    except asyncpg.ForeignKeyViolationError as violation:
        if violation.constraint_name == "pool_suggestion":
            _refuse_suggestion("names no suggestion")
        # The fallback was discarded at this moment.
        checked_fallback([], of=None)
        raise
    if row is None:
        raise RuntimeError("INSERT returned no row")
    await know_audience(viewer, row)
    return CreatePoolSuccess(pool=Pool.of(row))
