"""The rows of the reports: flat, of scalars that SQL and CSV know, with other rows' ids as columns.

Nothing here is a secret or names a person: a report is read by keys of the role ANALYST, and ends in other tools.
"""

from datetime import datetime
from typing import Final

import strawberry

from app.coupons.code_text import PREFIXES, mask
from app.coupons.rows import SHOWN_STATE
from app.reports.columns import column, inserted_at, node_id, units, whole

_INSERTED: Final = "When the row came into being, to the millisecond: what `since` and `until` are compared with."
_MASKED: Final = (
    "CASE WHEN c.is_foreign THEN '••••' ELSE CASE p.kind "
    + " ".join(f"WHEN '{kind}' THEN '{mask(kind, '')}'" for kind in PREFIXES)
    + " END END || c.suffix"
)
#: What became of a conversion.
_STANDING: Final = """CASE
    WHEN r.declined_at IS NOT NULL THEN 'DECLINED' WHEN r.reversed_at IS NOT NULL THEN 'REVERSED'
    WHEN r.released_at IS NULL THEN 'HELD' ELSE 'RELEASED' END"""


@strawberry.type(description="A pool as a row: its terms, and how many of its codes are in each state.")
class ReportPool:
    """The pool `p` and its stock `s`."""

    id: strawberry.ID = column(node_id("pool", "p.id"), "The pool.")
    name: str = column("p.name", "Its name.")
    status: str = column("p.status", "DRAFT, ACTIVE, PAUSED or ARCHIVED.")
    kind: str = column("p.kind", "What its codes give: PERCENT, AMOUNT or GIFT.")
    percent_off: float | None = column("p.percent_off::float8", "The share that a PERCENT code takes off.")
    amount_off: float | None = column(units("p.amount_off"), "What an AMOUNT code takes off.")
    amount_off_minor: float | None = column(whole("p.amount_off"), "The same in minor units.")
    gift_sku: str | None = column("p.gift_sku", "The article that a GIFT code gives.")
    minimum_spend: float | None = column(units("p.minimum_spend"), "What an order must be worth before discounts.")
    minimum_spend_minor: float | None = column(whole("p.minimum_spend"), "The same in minor units.")
    maximum_discount: float | None = column(units("p.maximum_discount"), "The most that a PERCENT code takes off.")
    maximum_discount_minor: float | None = column(whole("p.maximum_discount"), "The same in minor units.")
    currency: str = column("money.currency", "ISO 4217 code of its amounts.")
    starts_at: datetime | None = column("p.starts_at", "From when it issues and honours codes.")
    ends_at: datetime | None = column("p.ends_at", "Until when; this instant is not included.")
    code_lifetime_days: float | None = column(
        whole("p.code_lifetime_days"), "How long a code can be spent once allocated."
    )
    claims_per_member: float = column(whole("p.claims_per_member"), "How many codes of it one member can have.")
    stacking: str = column("p.stacking", "Whether its codes share an order with others: EXCLUSIVE or STACKABLE.")
    transferable: bool = column("p.transferable", "Whether it honours whoever holds the code.")
    recycle_expired: bool = column("p.recycle_expired", "Whether expired codes are replaced by fresh ones.")
    fallback_pool_id: strawberry.ID | None = column(
        node_id("pool", "p.fallback_pool_id"), "The pool that serves claims once this one is empty."
    )
    total: float = column(whole("s.total"), "All codes that it ever had, whatever became of them.")
    available: float = column(whole("s.available"), "Codes that can be claimed.")
    allocated: float = column(whole("s.allocated"), "Codes that are out of stock and not spent, bearer codes included.")
    redeemed: float = column(whole("s.redeemed"), "Codes that are spent.")
    expired: float = column(whole("s.expired"), "Codes that ended unspent: by their own end or their pool's.")
    revoked: float = column(whole("s.revoked"), "Codes that were taken back.")
    created_at: datetime = column("p.created_at", "When it was created.")
    inserted_at: datetime = column(inserted_at("p.id"), _INSERTED)


@strawberry.type(description="A code as a row: masked, with its owner, its value and the order that it was spent on.")
class ReportCode:
    """The code `c`, its pool `p`, the redemption `r` that stands and the campaign's delivery `d`."""

    id: strawberry.ID = column(node_id("code", "c.id"), "The code.")
    pool_id: strawberry.ID = column(node_id("pool", "c.pool_id"), "The pool whose terms it carries.")
    batch_id: strawberry.ID = column(node_id("batch", "c.batch_id"), "The batch that it came into being with.")
    campaign_id: strawberry.ID | None = column(node_id("campaign", "d.campaign_id"), "The campaign that sent it.")
    member_id: strawberry.ID | None = column(node_id("member", "c.member_id"), "Whose it is; null while nobody's.")
    redemption_id: strawberry.ID | None = column(node_id("redemption", "r.id"), "The redemption that stands.")
    masked: str = column(_MASKED, "The code with only its kind and its last two characters readable.")
    kind: str = column("p.kind", "What it gives: PERCENT, AMOUNT or GIFT.")
    state: str = column(SHOWN_STATE, "AVAILABLE, ALLOCATED, REDEEMED, EXPIRED or REVOKED.")
    matched_by: str | None = column(
        "c.matched_by", "What binds it to its owner: MEMBER_ID, CAMPAIGN_RECIPIENT or CLAIM_EMAIL."
    )
    bearer: bool = column(
        "c.bearer", "Whether it belongs to whoever holds it: one that isn't redeemed may be in nobody's hands."
    )
    percent_off: float | None = column("p.percent_off::float8", "The share that it takes off, if it is a PERCENT code.")
    amount_off: float | None = column(units("p.amount_off"), "What it takes off, if it is an AMOUNT code.")
    amount_off_minor: float | None = column(whole("p.amount_off"), "The same in minor units.")
    gift_sku: str | None = column("p.gift_sku", "The article that it gives, if it is a GIFT code.")
    currency: str = column("money.currency", "ISO 4217 code of its amounts.")
    allocated_at: datetime | None = column("c.allocated_at", "When it became someone's: when it was claimed or sent.")
    expires_at: datetime | None = column(
        "CASE WHEN c.outlives_pool THEN c.expires_at ELSE least(c.expires_at, p.ends_at) END",
        "Until when it can be spent: its own end or its pool's.",
    )
    redeemed_at: datetime | None = column("c.redeemed_at", "When it was spent.")
    order_id: str | None = column("r.order_id", "The shop's own id of the order that it was spent on.")
    order_amount: float | None = column(units("r.order_amount"), "What that order was worth before discounts.")
    order_amount_minor: float | None = column(whole("r.order_amount"), "The same in minor units.")
    discount: float | None = column(units("r.discount"), "What it took off that order.")
    discount_minor: float | None = column(whole("r.discount"), "The same in minor units.")
    inserted_at: datetime = column(inserted_at("c.id"), _INSERTED)


@strawberry.type(description="A member as a row, without name and address.")
class ReportMember:
    """The member `m` and its wallet `w`."""

    id: strawberry.ID = column(node_id("member", "m.id"), "The member.")
    external_id: str | None = column("m.external_id", "The id for it of the source that it came from.")
    source: str = column("m.source", "Where the record came from: STORE, SHOPIFY, RECEIPT, REFERRAL or IMPORT.")
    email_verified: bool = column("m.email_verified", "Whether it has an address that is known to be its own.")
    points: float = column(whole("w.points"), "Its points.")
    joined_at: datetime = column("m.joined_at", "When it was enrolled.")
    inserted_at: datetime = column(inserted_at("m.id"), _INSERTED)


_MONEY_PART: Final = "(b.amount - b.refunded - b.paid_value + b.returned_value)"


@strawberry.type(description="A purchase as a row.")
class ReportPurchase:
    """The purchase `b`."""

    id: strawberry.ID = column(node_id("purchase", "b.id"), "The purchase.")
    member_id: strawberry.ID = column(node_id("member", "b.member_id"), "Who bought.")
    source: str = column("b.source", "Where it comes from: STORE, SHOPIFY, RECEIPT, REFERRAL or IMPORT.")
    order_id: str = column("b.order_id", "The source's own id of the order.")
    amount: float = column(units("b.amount"), "What it was worth; refunds aren't taken off.")
    amount_minor: float = column(whole("b.amount"), "The same in minor units.")
    refunded: float = column(units("b.refunded"), "How much of the amount went back.")
    refunded_minor: float = column(whole("b.refunded"), "The same in minor units.")
    currency: str = column("b.currency", "ISO 4217 code of its amount.")
    paid_points: float = column(whole("b.paid_points"), "How many points were paid for it; refunds aren't taken off.")
    money: float = column(units(_MONEY_PART), "What stands of its amount and was not paid with points.")
    money_minor: float = column(whole(_MONEY_PART), "The same in minor units.")
    points: float = column(whole("b.points"), "How many points its amount less what was paid with points earns.")
    kept_points: float = column(
        whole(f"div({_MONEY_PART} * b.points_per_unit, b.minor_units)"),
        "How many points it has earned after its refunds.",
    )
    occurred_at: datetime = column("b.occurred_at", "When it happened.")
    recorded_at: datetime = column("b.recorded_at", "When it was recorded.")
    reversed_at: datetime | None = column("b.reversed_at", "When the last of it went back; null while some stands.")
    inserted_at: datetime = column(inserted_at("b.id"), _INSERTED)


@strawberry.type(description="A change of a member's points as a row.")
class ReportPointsEntry:
    """The entry `e`, and the member `m` that it is of, or was merged into."""

    id: strawberry.ID = column(node_id("entry", "e.id"), "The entry.")
    member_id: strawberry.ID = column(node_id("member", "m.id"), "Whose points.")
    amount: float = column(whole("e.amount"), "How many: over 0 earned, below 0 spent.")
    balance_after: float = column(whole("e.balance_after"), "The member's points right after it.")
    reason: str = column(
        "e.reason",
        "PURCHASE, REFERRAL_REFERRER, REFERRAL_REFEREE, REWARD, PAYMENT, ADJUSTMENT, REFUND, REVERSAL, EXPIRY, MERGE "
        "or ERASURE.",
    )
    reference: str | None = column("e.reference", "An order's id or a reward's name; null of an adjustment.")
    expires_at: datetime | None = column("e.expires_at", "From when what is left of them expires; null for ever.")
    created_at: datetime = column("e.created_at", "When the balance changed.")
    inserted_at: datetime = column(inserted_at("e.id"), _INSERTED)


@strawberry.type(description="A redemption as a row; reversed ones stay, with their time.")
class ReportRedemption:
    """The redemption `r` and its code `c`."""

    id: strawberry.ID = column(node_id("redemption", "r.id"), "The redemption.")
    code_id: strawberry.ID = column(node_id("code", "r.code_id"), "The code.")
    pool_id: strawberry.ID = column(node_id("pool", "r.pool_id"), "The code's pool.")
    member_id: strawberry.ID | None = column(node_id("member", "c.member_id"), "Whose code it is; null for nobody's.")
    source: str = column("r.source", "Where the order comes from: STORE, SHOPIFY, RECEIPT, REFERRAL or IMPORT.")
    order_id: str = column("r.order_id", "The source's own id of the order.")
    position: float = column(whole("r.position"), "Which of the order's codes it was; 1 was applied first.")
    order_amount: float = column(units("r.order_amount"), "What the order was worth before discounts.")
    order_amount_minor: float = column(whole("r.order_amount"), "The same in minor units.")
    base: float = column(units("r.base"), "What the codes before this one had left of the order.")
    base_minor: float = column(whole("r.base"), "The same in minor units.")
    discount: float = column(units("r.discount"), "What this code took off.")
    discount_minor: float = column(whole("r.discount"), "The same in minor units.")
    currency: str = column("r.currency", "ISO 4217 code of its amounts.")
    redeemed_at: datetime = column("r.redeemed_at", "When it was redeemed.")
    reversed_at: datetime | None = column("r.reversed_at", "When it was taken back; null while it stands.")
    inserted_at: datetime = column(inserted_at("r.id"), _INSERTED)


@strawberry.type(description="An invite as a row, without its address and its token.")
class ReportInvite:
    """The invite `i`."""

    id: strawberry.ID = column(node_id("invite", "i.id"), "The invite.")
    referrer_id: strawberry.ID = column(node_id("member", "i.referrer_id"), "Who sent it.")
    referee_id: strawberry.ID | None = column(node_id("member", "i.referee_id"), "Who accepted it; null before.")
    status: str = column("i.status", "PENDING, CONVERTED, EXPIRED or CANCELLED.")
    created_at: datetime = column("i.created_at", "When it was sent.")
    expires_at: datetime = column("i.expires_at", "From when on it can't be accepted or convert.")
    accepted_at: datetime | None = column("i.accepted_at", "When the invited person joined; null before.")
    converted_at: datetime | None = column("i.converted_at", "When it converted; null before.")
    inserted_at: datetime = column(inserted_at("i.id"), _INSERTED)


@strawberry.type(description="A conversion as a row: held, declined and reversed ones too; `status` tells.")
class ReportReferral:
    """The referral `r`."""

    id: strawberry.ID = column(node_id("referral", "r.id"), "The referral.")
    invite_id: strawberry.ID = column(node_id("invite", "r.invite_id"), "The invite that converted.")
    referrer_id: strawberry.ID = column(node_id("member", "r.referrer_id"), "Who sent the invite.")
    referee_id: strawberry.ID = column(node_id("member", "r.referee_id"), "Whom it brought.")
    purchase_id: strawberry.ID | None = column(
        node_id("purchase", "r.purchase_id"), "The purchase that converted it; null where joining did."
    )
    status: str = column(
        _STANDING,
        "RELEASED (the points were given), HELD (they wait for a person), DECLINED by one, or REVERSED (by a return).",
    )
    referrer_points: float = column(
        whole("r.referrer_points"), "What the referrer earned, or is to earn once it is released."
    )
    referee_points: float = column(whole("r.referee_points"), "The same of the referee.")
    shortfall: float | None = column(
        whole("r.shortfall"), "How many points both had spent when it was reversed, together."
    )
    flags: str | None = column(
        "nullif(array_to_string(r.flags, ','), '')", "What a person might want to look at, comma separated."
    )
    converted_at: datetime = column("r.converted_at", "When the invite converted.")
    released_at: datetime | None = column("r.released_at", "When the points were given.")
    declined_at: datetime | None = column("r.declined_at", "When a person declined it.")
    reversed_at: datetime | None = column("r.reversed_at", "When a return took the points back.")
    inserted_at: datetime = column(inserted_at("r.id"), _INSERTED)
