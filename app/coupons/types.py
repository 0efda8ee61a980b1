"""Pools, codes and redemptions as the API shows them."""

import functools
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Final, cast
from uuid import UUID

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.inputs import Money, money
from app.api.operations import Info, Node, field, guarded
from app.api.scalars import BigInt, described
from app.coupons import code_text
from app.coupons.campaign_results import results_by_campaign
from app.coupons.rows import (
    DELIVERIES,
    STOCK_OF_POOLS,
    TEXTS,
    BatchRow,
    CampaignRow,
    CodeRow,
    DeliveryRow,
    PoolRow,
    RedemptionRow,
    StockRow,
    WholeCodeRow,
    WholeRedemptionRow,
    batches_by_pool,
    codes_by_pool,
    discounts_by_pool,
    end_of,
    pools_by_id,
)
from app.coupons.rules import TRANSITIONS
from app.jobs.rows import jobs_by_campaign
from app.jobs.types import BulkJob
from app.members.types import ERASED, Member, MemberSource
from app.merchants.tenants import decrypted, decrypted_now
from app.segments.definitions import SegmentName
from app.storage.database import database
from app.storage.events import WALLET_EVENTS
from app.storage.wallet_versions import ChangeRow

POSITION_MAX: Final = 2**31 - 1


@strawberry.enum(description="Where a pool is in its life: DRAFT → ACTIVE ⇄ PAUSED, and from these two ARCHIVED.")
class PoolStatus(Enum):
    """Lifecycle of a pool."""

    DRAFT = described("DRAFT", "Being prepared: all terms can change, codes be generated.")
    ACTIVE = described("ACTIVE", "Issuing and honouring codes.")
    PAUSED = described("PAUSED", "A hold on issuing, and on honouring unless `pauseScope` says so; can be lifted.")
    ARCHIVED = described("ARCHIVED", "Closed for good.")


@strawberry.enum(description="What a pause stops.")
class PauseScope(Enum):
    """How far a pause goes."""

    ALL = described("ALL", "Issuing and honouring.")
    ISSUING = described("ISSUING", "Issuing alone: codes that are someone's are honoured.")


@strawberry.enum(description="What a code gives.")
class CodeKind(Enum):
    """Kinds, by the prefix of their codes."""

    PERCENT = described("PERCENT", "A share of the order (PCT-).")
    AMOUNT = described("AMOUNT", "A fixed amount off the order (AMT-).")
    GIFT = described("GIFT", "An article for free (GFT-).")


@strawberry.enum(description="Where a code is in its life.")
class CodeState(Enum):
    """Life of a code."""

    AVAILABLE = described("AVAILABLE", "In stock, nobody's.")
    ALLOCATED = described("ALLOCATED", "Someone's, not spent.")
    REDEEMED = described("REDEEMED", "Spent.")
    EXPIRED = described("EXPIRED", "Not spent before its end or its pool's; a later end of the pool revives it.")
    REVOKED = described("REVOKED", "Taken back.")


@strawberry.enum(description="What binds a code to its owner.")
class OwnershipMatch(Enum):
    """The three ways, strongest first."""

    MEMBER_ID = described("MEMBER_ID", "It was claimed by the member, or imported for it.")
    CAMPAIGN_RECIPIENT = described("CAMPAIGN_RECIPIENT", "A campaign sent it to the member.")
    CLAIM_EMAIL = described("CLAIM_EMAIL", "It was claimed with the member's address, or imported for that.")


@strawberry.enum(description="Whether a code shares an order with others.")
class StackingPolicy(Enum):
    """How codes combine."""

    EXCLUSIVE = described("EXCLUSIVE", "It goes alone.")
    STACKABLE = described(
        "STACKABLE",
        description="It applies to what the codes before it left, together with other stackable ones.",
    )


@strawberry.type(description="Exact counts; total = available + allocated + redeemed + expired + revoked.")
class PoolStock:
    """How many codes of a pool are in each state."""

    total: int = strawberry.field(description="All codes that it ever had, whatever became of them.")
    available: int = strawberry.field(description="Codes that can be claimed.")
    allocated: int = strawberry.field(
        description="Codes that are out of stock and not spent: someone's, or bearer codes."
    )
    redeemed: int = strawberry.field(description="Codes that are spent.")
    expired: int = strawberry.field(description="Codes that ended unspent: by their own end or their pool's.")
    revoked: int = strawberry.field(description="Codes that were taken back.")


async def stock_of_pools(viewer: Viewer, pool_ids: list[UUID]) -> Mapping[UUID, PoolStock]:
    """Return the exact stock of pools: the sum of what every change did to it."""
    rows = await database().rows(STOCK_OF_POOLS, merchant_id=viewer.merchant_id, pool_ids=pool_ids)
    stocks = {row["pool_id"]: _stock(row) for row in rows}
    return {
        pool_id: stocks.get(pool_id) or PoolStock(total=0, available=0, allocated=0, redeemed=0, expired=0, revoked=0)
        for pool_id in pool_ids
    }


def _stock(row: StockRow) -> PoolStock:
    available, allocated, redeemed = row["available"], row["allocated"], row["redeemed"]
    expired, revoked = row["expired"], row["revoked"]
    return PoolStock(
        total=available + allocated + redeemed + expired + revoked,
        available=available,
        allocated=allocated,
        redeemed=redeemed,
        expired=expired,
        revoked=revoked,
    )


@strawberry.type(description="The terms under which codes are issued and honoured, and the codes.")
class Pool(Node):
    """A pool; amounts are in the merchant's currency."""

    row: strawberry.Private[PoolRow]
    name: str = strawberry.field(description="Its name.")
    status: PoolStatus = strawberry.field(description="Where it is in its life.")
    pause_scope: PauseScope | None = strawberry.field(description="What its pause stops; null unless it is PAUSED.")
    kind: CodeKind = strawberry.field(description="What its codes give.")
    gift_sku: str | None = strawberry.field(description="The article that a GIFT code gives.")
    starts_at: datetime | None = strawberry.field(description="From when it issues and honours codes.")
    ends_at: datetime | None = strawberry.field(
        description="Until when; this instant is not included. From then on all its codes that aren't spent are "
        "EXPIRED, until it has a later end."
    )
    code_lifetime_days: int | None = strawberry.field(description="How long a code can be spent once allocated.")
    claims_per_member: int = strawberry.field(description="How many codes of it one member can have.")
    stacking: StackingPolicy = strawberry.field(description="Whether its codes share an order with others.")
    transferable: bool = strawberry.field(description="Honours whoever holds the code, not only its owner.")
    recycle_expired: bool = strawberry.field(
        description="Whether a code that expires unspent leaves its place in the stock to a fresh one."
    )
    code_pattern: str | None = strawberry.field(
        description="What the texts of its generated codes look like, # for a random character; null for our own form."
    )
    first_order_only: bool = strawberry.field(description="Whether its codes are for a presenter's first order only.")
    one_claim_per_mailbox: bool = strawberry.field(
        description="Whether only the first person of a mailbox, all its spellings, can claim."
    )
    listed: bool = strawberry.field(description="Whether members see it in `offers`.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def of(cls, row: PoolRow) -> "Pool":
        """Return the pool of a row."""
        return cls(
            id=strawberry.ID(ids.encode("pool", row["pool_id"])),
            row=row,
            name=row["pool_name"],
            status=PoolStatus(row["pool_status"]),
            pause_scope=None if row["pool_pause_scope"] is None else PauseScope(row["pool_pause_scope"]),
            kind=CodeKind(row["pool_kind"]),
            gift_sku=row["pool_gift_sku"],
            starts_at=row["pool_starts_at"],
            ends_at=row["pool_ends_at"],
            code_lifetime_days=row["pool_code_lifetime_days"],
            claims_per_member=row["pool_claims_per_member"],
            stacking=StackingPolicy(row["pool_stacking"]),
            transferable=row["pool_transferable"],
            recycle_expired=row["pool_recycle_expired"],
            code_pattern=row["pool_code_pattern"],
            first_order_only=row["pool_first_order_only"],
            one_claim_per_mailbox=row["pool_one_claim_per_mailbox"],
            listed=row["pool_listed"],
            created_at=row["pool_created_at"],
        )

    @field(description="The statuses it may go to from here.")
    def allowed_transitions(self) -> list[PoolStatus]:
        """Look the status up in the lifecycle."""
        return [PoolStatus(status) for status in TRANSITIONS[self.status.value]]

    @field(description="The share that a PERCENT code takes off, over 0 and at most 100.")
    def percent_off(self) -> float | None:
        """Return the exact decimal as a Float."""
        share = self.row["pool_percent_off"]
        return None if share is None else float(share)

    @field(description="What an AMOUNT code takes off.")
    def amount_off(self, info: Info) -> Money | None:
        """Return the amount in the merchant's currency."""
        return money(self.row["pool_amount_off"], info.context.viewer.tenant.currency)

    @field(description="What an order must be worth before discounts.")
    def minimum_spend(self, info: Info) -> Money | None:
        """Return the amount in the merchant's currency."""
        return money(self.row["pool_minimum_spend"], info.context.viewer.tenant.currency)

    @field(description="The most that a PERCENT code takes off.")
    def maximum_discount(self, info: Info) -> Money | None:
        """Return the amount in the merchant's currency."""
        return money(self.row["pool_maximum_discount"], info.context.viewer.tenant.currency)

    @guarded(
        "Pool.audience",
        description="Who may claim: members of one of these segments; empty: everybody. For ADMIN, CHECKOUT, SUPPORT "
        "and ANALYST, null to others.",
    )
    def audience(self, info: Info) -> list[SegmentName] | None:  # noqa: ARG002  (guarded looks at it)
        """Return the segments in their order."""
        return [SegmentName(name) for name in self.row["pool_audience"]]

    @guarded(
        "Pool.maximumTotalDiscount",
        description="The most that its codes take off together, held ones included. For ADMIN, CHECKOUT, SUPPORT and "
        "ANALYST, null to others.",
    )
    def maximum_total_discount(self, info: Info) -> Money | None:
        """Return the amount in the merchant's currency."""
        return money(self.row["pool_maximum_total_discount"], info.context.viewer.tenant.currency)

    @guarded(
        "Pool.discountGiven",
        description="What its codes took off by redemptions that stand, without holds. For ADMIN, CHECKOUT, SUPPORT "
        "and ANALYST, null to others.",
    )
    async def discount_given(self, info: Info) -> Money | None:
        """Sum the redemptions of all pools of this page together."""
        given = await info.context.load(discounts_by_pool, self.row["pool_id"])
        return Money(amount_minor=BigInt(given), currency=info.context.viewer.tenant.currency)

    @guarded(
        "Pool.fallbackPool",
        description="The pool that serves claims once this one is empty; for ADMIN, CHECKOUT, SUPPORT and ANALYST, "
        "null to others.",
    )
    async def fallback_pool(self, info: Info) -> "Pool | None":
        """Read the fallbacks of all pools of this page together."""
        fallback_id = self.row["pool_fallback_pool_id"]
        if fallback_id is None:
            return None
        return Pool.of(await info.context.load(pools_by_id, fallback_id))

    @guarded(
        "Pool.stock",
        description="How many of its codes are in each state, exactly. ADMIN, CHECKOUT, SUPPORT and ANALYST.",
    )
    async def stock(self, info: Info) -> PoolStock:
        """Read the stock of all pools of this page together."""

        return await info.context.load(stock_of_pools, self.row["pool_id"])

    @guarded("Pool.batches", description="Its batches, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
    async def batches(self, info: Info, first: First = None, after: After = None) -> Connection["CodeBatch"]:
        """Read the batches of all pools of this page together."""

        asked = page(first, after)
        rows = await info.context.load(batches_by_pool, self.row["pool_id"], asked.id, asked.limit)
        return connect(rows, asked, CodeBatch.of, key="batch_id")

    @guarded("Pool.codes", description="Its codes, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
    async def codes(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        state: Annotated[CodeState | None, strawberry.argument(description="Only codes in this state.")] = None,
    ) -> Connection["Code"]:
        """Read the codes of all pools of this page together."""

        asked = page(first, after)
        wanted = None if state is None else state.value
        rows = await info.context.load(codes_by_pool, self.row["pool_id"], asked.id, asked.limit, wanted)
        return connect(rows, asked, Code.of, key="code_id")


@strawberry.type(
    description="Codes that came into being together, or were issued together as bearer codes; all or none."
)
class CodeBatch(Node):
    """A batch."""

    pool: Pool = strawberry.field(description="The pool they belong to.")
    size: int = strawberry.field(description="How many codes, 1 to 5,000.")
    created_at: datetime = strawberry.field(description="When they were generated, imported or issued.")
    batch_id: strawberry.Private[UUID]

    @classmethod
    def of(cls, row: BatchRow) -> "CodeBatch":
        """Return the batch of a row."""
        return cls(
            id=strawberry.ID(ids.encode("batch", row["batch_id"])),
            pool=Pool.of(row),
            size=row["batch_size"],
            created_at=row["batch_created_at"],
            batch_id=row["batch_id"],
        )

    @guarded(
        "CodeBatch.texts",
        description="The batch's bearer codes with their texts, for whoever prints them; empty of other batches. ADMIN "
        "only; each page that is read is an audited event.",
    )
    async def texts(self, info: Info, first: First = None, after: After = None) -> Connection["Code"]:
        """Record, then read a page."""

        asked, viewer = page(first, after), info.context.viewer
        rows = await database().rows(
            TEXTS,
            merchant_id=viewer.merchant_id,
            batch_id=self.batch_id,
            before=asked.id,
            limit=asked.limit,
            event_id=ids.new(),
            actor=viewer.actor,
        )
        return connect(rows, asked, functools.partial(Code.of, revealed=True), key="code_id")


_STATES: Final = {each.value: each for each in CodeState}
_MATCHES: Final = {each.value: each for each in OwnershipMatch}


@strawberry.type(description="A code. Its text is encrypted and shown to its owner only.")
class Code(Node):
    """A code; `revealed` is set where this answer may show the text."""

    row: strawberry.Private[WholeCodeRow]
    as_of: strawberry.Private[ChangeRow | None]
    revealed: strawberry.Private[bool]
    state: CodeState = strawberry.field(description="Where it is in its life.")
    bearer: bool = strawberry.field(description="Whether it belongs to whoever holds it: printed, or a gift card.")
    matched_by: OwnershipMatch | None = strawberry.field(description="What binds it to its owner.")
    allocated_at: datetime | None = strawberry.field(
        description="When it became someone's; later than any before it in its wallet, even if a clock was set back."
    )
    expires_at: datetime | None = strawberry.field(
        description="Until when it can be spent: its own end or its pool's, the earlier of the two, or the end that it "
        "was given when it came back, which may be after its pool's."
    )
    redeemed_at: datetime | None = strawberry.field(description="When it was spent.")
    held_until: datetime | None = strawberry.field(
        description="Until when an order that isn't paid yet holds it; null while none does."
    )

    @classmethod
    def of(cls, row: WholeCodeRow, *, as_of: ChangeRow | None = None, revealed: bool = False) -> "Code":
        """Return the code of a row, as a change to it left it if one is given."""
        matched_by = row["code_matched_by"]
        state, redeemed_at = row["code_state"], row["code_redeemed_at"]
        if as_of is not None:
            state = WALLET_EVENTS.get(as_of["event_type"]) or state
            redeemed_at = _redeemed_at(row, state, as_of)
        known = _STATES[state]
        return cls(
            id=strawberry.ID(ids.encode("code", row["code_id"])),
            row=row,
            as_of=as_of,
            revealed=revealed,
            state=known,
            bearer=row["code_bearer"],
            matched_by=None if matched_by is None else _MATCHES[matched_by],
            allocated_at=row["code_allocated_at"],
            expires_at=end_of(row),
            redeemed_at=redeemed_at,
            held_until=row["code_held_until"] if known is CodeState.ALLOCATED else None,
        )

    @field(description="The pool whose terms it carries.")
    def pool(self) -> Pool:
        """The statement that read the code read the pool."""
        return Pool.of(self.row)

    @field(description="The code with only its kind and its last two random characters readable; less of other forms.")
    def masked(self) -> str:
        """Return prefix, dots and suffix."""
        return code_text.mask(self.row["pool_kind"], self.row["code_suffix"], is_foreign=self.row["code_is_foreign"])

    @field(
        description="The code itself: for its owner, to whoever claimed it, and right after revealCode; otherwise null."
    )
    def text(self, info: Info) -> str | None:
        """Decrypt the text where this viewer or this answer may show it."""
        viewer = info.context.viewer
        owner = self.row["code_member_id"]
        if not self.revealed and (owner is None or owner != viewer.member_id):
            return None
        text = decrypted_now(viewer.tenant, self.row["code_id"], "code", self.row["code_ciphertext"])
        return cast("str", text)

    @field(description="Whose it is; null while it is nobody's.")
    def owner(self) -> Member | None:
        """The statement that read the code read the owner."""
        return None if self.row["code_member_id"] is None else Member.of(self.row, as_of=self.as_of)


def _redeemed_at(row: CodeRow, state: str, change: ChangeRow) -> datetime | None:
    """Return when a code was spent that is spent after this change."""
    if change["event_type"] == "code.redeemed":
        return change["event_occurred_at"]
    return row["code_redeemed_at"] if state == "REDEEMED" else None


@strawberry.type(description="A code honoured on an order.")
class Redemption(Node):
    """A redemption: what it was applied to and what it took off."""

    code: Code = strawberry.field(description="The code.")
    source: MemberSource = strawberry.field(description="Where the order comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    position: int = strawberry.field(description="Which of the order's codes it was; 1 was applied first.")
    order_amount: Money = strawberry.field(description="What the order was worth before discounts.")
    base: Money = strawberry.field(
        description="What the codes before this one had left of the order, or what of it this one may be applied to, "
        "if that is less."
    )
    discount: Money = strawberry.field(description="What this code took off; never more than `base`.")
    redeemed_at: datetime = strawberry.field(description="When it was redeemed.")
    reversed_at: datetime | None = strawberry.field(description="When it was taken back; null while it stands.")

    @classmethod
    def of(cls, row: WholeRedemptionRow) -> "Redemption":
        """Return the redemption of a row."""
        return cls.of_code(Code.of(row), row)

    @classmethod
    def of_code(cls, code: Code, row: RedemptionRow) -> "Redemption":
        """Return the redemption of a code that was read on its own."""

        def amount(minor: int) -> Money:
            return Money(amount_minor=BigInt(minor), currency=row["redemption_currency"])

        return cls(
            id=strawberry.ID(ids.encode("redemption", row["redemption_id"])),
            code=code,
            source=MemberSource(row["redemption_source"]),
            order_id=row["redemption_order_id"],
            position=row["redemption_position"],
            order_amount=amount(row["redemption_order_amount"]),
            base=amount(row["redemption_base"]),
            discount=amount(row["redemption_discount"]),
            redeemed_at=row["redemption_redeemed_at"],
            reversed_at=row["redemption_reversed_at"],
        )


@strawberry.type(description="One code of a pool for each of many recipients.")
class Campaign(Node):
    """A campaign."""

    name: str = strawberry.field(description="Its name.")
    pool: Pool = strawberry.field(description="The pool whose codes were sent.")
    segment: SegmentName | None = strawberry.field(
        description="The segment whose members at the time of the call it is for; null where recipients were named."
    )
    recipient_count: int = strawberry.field(description="How many members and addresses it is for, each once.")
    allocated_count: int = strawberry.field(
        description="How many codes it has allocated; who had all its codes of the pool before gets none."
    )
    created_at: datetime = strawberry.field(description="When it was sent.")
    campaign_id: strawberry.Private[UUID]

    @classmethod
    def of(cls, row: CampaignRow) -> "Campaign":
        """Return the campaign of a row."""
        return cls(
            id=strawberry.ID(ids.encode("campaign", row["campaign_id"])),
            name=row["campaign_name"],
            pool=Pool.of(row),
            segment=None if row["campaign_segment"] is None else SegmentName(row["campaign_segment"]),
            recipient_count=row["campaign_recipient_count"],
            allocated_count=row["campaign_allocated_count"],
            created_at=row["campaign_created_at"],
            campaign_id=row["campaign_id"],
        )

    @guarded(
        "Campaign.job",
        description="The job that sends it, of a campaign to a segment. For ADMIN and ANALYST, null to others.",
    )
    async def job(self, info: Info) -> BulkJob | None:
        """Read the jobs of all campaigns of this page together."""

        row = await info.context.load(jobs_by_campaign, self.campaign_id)
        return None if row is None else BulkJob.of(row)

    @field(
        description="How many of the codes that it allocated, or that took their places, were redeemed, by redemptions "
        "that stand."
    )
    async def redeemed_count(self, info: Info) -> int:
        """Read the results of all campaigns of this page together."""
        return (await info.context.load(results_by_campaign, self.campaign_id))["redeemed"]

    @field(description="What these took off.")
    async def discount_given(self, info: Info) -> Money:
        """Read the results of all campaigns of this page together."""
        results = await info.context.load(results_by_campaign, self.campaign_id)
        return Money(amount_minor=BigInt(results["discount"]), currency=info.context.viewer.tenant.currency)

    @field(
        description="What the orders that these were redeemed on were worth, each once: after all their discounts, "
        "less what was refunded. An order with codes of two campaigns counts in both."
    )
    async def revenue(self, info: Info) -> Money:
        """Read the results of all campaigns of this page together."""
        results = await info.context.load(results_by_campaign, self.campaign_id)
        return Money(amount_minor=BigInt(results["revenue"]), currency=info.context.viewer.tenant.currency)

    @guarded(
        "Campaign.deliveries",
        description="What the merchant's mailer sends: recipients and code texts, in the order of allocation. While a "
        "job is sending, go on from the last cursor later: nobody is missed. ADMIN only; each page that is read is an "
        "audited event.",
    )
    async def deliveries(self, info: Info, first: First = None, after: After = None) -> Connection["Delivery"]:
        """Record, then read a page."""

        asked, viewer = page(first, after), info.context.viewer
        rows = await database().rows(
            DELIVERIES,
            merchant_id=viewer.merchant_id,
            campaign_id=self.campaign_id,
            # A cursor of another list is behind every position.
            after=0 if asked.is_first else min(asked.id.int, POSITION_MAX),
            limit=asked.limit,
            event_id=ids.new(),
            actor=viewer.actor,
        )
        return connect(rows, asked, Delivery.of, key="delivery_place")


@strawberry.type(description="A campaign's code and whom it goes to.")
class Delivery:
    """One of a campaign's deliveries."""

    code: Code = strawberry.field(description="The code, with its text.")
    row: strawberry.Private[DeliveryRow]

    @classmethod
    def of(cls, row: DeliveryRow) -> "Delivery":
        """Return the delivery of a row."""
        return cls(code=Code.of(row, revealed=True), row=row)

    @field(
        description="The address to send it to: as it was given, in lower case, or, once the code is a member's, the "
        "one that the member has proved. A member without one is named by its id."
    )
    async def recipient(self, info: Info) -> str:
        """Decrypt the address. What the campaign was sent to says nothing about a member that has left it since."""
        tenant, row = info.context.viewer.tenant, self.row
        if row["code_member_id"] is None and row["delivery_recipient"] is not None:
            return await decrypted(tenant, row["code_id"], "recipient", row["delivery_recipient"])
        if row["member_email_verified"] and row["member_email"] is not None:
            return await decrypted(tenant, row["member_id"], "email", row["member_email"])
        return ERASED if row["code_member_id"] is None else ids.encode("member", row["member_id"])
