"""Portfolios, runs of the advisor and their suggestions as the API shows them."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson
import strawberry

from app import ids
from app.advisor.portfolio import Figures, Performance, Quadrant, Segment
from app.advisor.rows import (
    RunRow,
    SuggestionRow,
    pools_by_suggestion,
    suggestions_by_pool,
    suggestions_by_run,
)
from app.advisor.suggestions import AdviceRejectionReason
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Tenant
from app.api.inputs import Money, money
from app.api.operations import Info, Node, extends, field, guarded
from app.api.scalars import BigInt, described
from app.coupons.types import CodeKind, Pool
from app.members.types import Member
from app.merchants.tenants import decrypted
from app.reports.runs import CheckStatus
from app.segments.definitions import BY_TITLE, SegmentName
from app.segments.rows import members_by_segment

_LIVE: Final = frozenset({"QUEUED", "RUNNING"})


@strawberry.enum(description="Who proposed a run's suggestions.")
class AdviceSource(Enum):
    """A model, or the rules."""

    LLM = described("LLM", "The model of the configured endpoint.")
    RULES = described("RULES", "The engine's own rules; `fallbackReason` says why.")


@strawberry.enum(description="How far a run of the advisor is.")
class AdviceStatus(Enum):
    """The steps of a run, and its two ends."""

    QUEUED = described("QUEUED", "It waits for a worker.")
    RUNNING = described("RUNNING", "A worker reads the figures, asks and checks.")
    DONE = described("DONE", "The suggestions are there.")
    FAILED = described("FAILED", "It ended without suggestions: `problem` says why.")


@strawberry.type(description="How a pool does.")
class PoolPerformance:
    """A pool's figures."""

    pool: Pool = strawberry.field(description="The pool.")
    claim_rate: float = strawberry.field(
        description="Codes that were ever allocated / all codes, 0 to 1; a bearer code counts once it is redeemed."
    )
    redemption_rate: float = strawberry.field(
        description="Codes redeemed / codes that were ever allocated, 0 to 1; a bearer code counts once it is redeemed."
    )
    redemption_share: float = strawberry.field(
        description="The pool's redemptions of the last 90 days / those of the pool with the most, 0 to 1."
    )
    redemption_growth: float | None = strawberry.field(
        description="Redemptions of the last 30 days against the 30 before: 0.1 is 10 % more; null after none."
    )
    margin_impact: Money = strawberry.field(
        description="Redeemed order amounts x margin rate - discounts given. While the merchant's `marginRate` is "
        "unknown it is taken for 0.3."
    )
    quadrant: Quadrant = strawberry.field(
        description="A share of at least 0.5 is high, and so is a growth of at least 10 %, or any after none."
    )

    @classmethod
    def of(cls, performance: Performance, currency: str) -> "PoolPerformance":
        """Return what is shown of a pool's figures."""
        return cls(
            pool=Pool.of(performance.row),
            claim_rate=performance.claim_rate,
            redemption_rate=performance.redemption_rate,
            redemption_share=performance.share,
            redemption_growth=performance.growth,
            margin_impact=Money(amount_minor=BigInt(performance.margin_impact), currency=currency),
            quadrant=performance.quadrant,
        )


@strawberry.type(description="A segment's members, and what they did; a member can be in several.")
class AudienceSegment:
    """A segment's figures."""

    segment: SegmentName = strawberry.field(description="Which segment.")
    name: str = strawberry.field(description="new, active, lapsed, high spend or advocates.")
    member_count: int = strawberry.field(description="How many members are in it now.")
    redemption_rate: float = strawberry.field(description="Codes they redeemed / codes they ever had, 0 to 1.")
    spend: Money = strawberry.field(
        description="What they bought within the last 365 days, less what was refunded or paid with points."
    )

    @classmethod
    def of(cls, name: SegmentName, segment: Segment, currency: str) -> "AudienceSegment":
        """Return what is shown of a segment."""
        return cls(
            segment=name,
            name=name.title,
            member_count=segment.members,
            redemption_rate=segment.redemption_rate,
            spend=Money(amount_minor=BigInt(segment.spend), currency=currency),
        )

    @field(description="Its members, newest first.")
    async def members(self, info: Info, first: First = None, after: After = None) -> Connection[Member]:
        """Read the members of all segments of this page together."""
        asked = page(first, after)
        rows = await info.context.load(members_by_segment, self.segment, asked.id, asked.limit)
        return connect(rows, asked, Member.of, key="member_id")


@strawberry.type(
    description="How a merchant's pools and audiences do: as of now where computing that takes no longer than a moment "
    "(FLASH_REPORT_AT_ONCE_SECONDS_MAX), and otherwise as a worker computed it last, every night and for whoever looks "
    "at figures older than a quarter of an hour."
)
class Portfolio:
    """Figures of one moment, and how far the next ones are."""

    figures: strawberry.Private[Figures]
    tenant: strawberry.Private[Tenant]
    generated_at: datetime = strawberry.field(description="As of when its figures are.")
    status: CheckStatus = strawberry.field(
        description="RUNNING while newer figures are computed, FAILED if the last that were asked for couldn't be."
    )
    problem: str | None = strawberry.field(description="Why newer figures couldn't be computed; null otherwise.")

    @field(
        description="Its pools in any status, the most redeemed within 90 days first, then the newest; 500 at most. "
        "A redemption that was reversed counts for nothing but the state that it left its code in. Terms and stock are "
        "as of now."
    )
    def pools(self) -> list[PoolPerformance]:
        return [PoolPerformance.of(each, self.tenant.currency) for each in self.figures.pools]

    @field(description="Its segments, always all five: new, active, lapsed, high spend, advocates.")
    def segments(self) -> list[AudienceSegment]:
        return [
            AudienceSegment.of(each.name, each, self.tenant.currency)
            for each in self.figures.segments
            if each.name is not None
        ]


@strawberry.type(
    description="The create form, prefilled: field for field what createPool takes. Nothing exists until someone calls "
    "createPool."
)
class PoolDraft:
    """Terms of a pool that doesn't exist."""

    name: str = strawberry.field(description="A name, at most 200 characters.")
    kind: CodeKind = strawberry.field(description="What its codes give.")
    percent_off: float | None = strawberry.field(description="PERCENT only: at most half of the margin.")
    amount_off: Money | None = strawberry.field(description="AMOUNT only: at most half of an average order's margin.")
    gift_sku: str | None = strawberry.field(
        description="GIFT only: an article that a pool of the merchant gave; null leaves the choice to the person."
    )
    minimum_spend: Money | None = strawberry.field(description="What an order must be worth before discounts.")
    maximum_discount: Money | None = strawberry.field(description="PERCENT only: the most that a code takes off.")
    claims_per_member: int = strawberry.field(description="How many codes of it one member can have.")
    audience: list[SegmentName] = strawberry.field(description="Who may claim: the segment that the offer is for.")

    @classmethod
    def of(cls, stored: Mapping[str, Any], audience: SegmentName | None, currency: str) -> "PoolDraft":
        """Return the draft of a stored suggestion."""
        return cls(
            name=stored["name"],
            kind=CodeKind(stored["kind"]),
            percent_off=stored["percent_off"],
            amount_off=money(stored["amount_off"], currency),
            gift_sku=stored["gift_sku"],
            minimum_spend=money(stored["minimum_spend"], currency),
            maximum_discount=money(stored["maximum_discount"], currency),
            claims_per_member=stored["claims_per_member"],
            audience=[] if audience is None else [audience],
        )


@strawberry.type(description="A number of a suggestion: as it was proposed, and as the engine computed it.")
class AdviceFigure:
    """One number and where it is from. Amounts are in minor units."""

    name: str = strawberry.field(
        description="percentOff, amountOff, minimumSpend, maximumDiscount, claimsPerMember, audience, redemptionRate "
        "or marginImpact; amounts are in minor units."
    )
    proposed: float = strawberry.field(description="What was proposed; the checked number where nothing was.")
    checked: float = strawberry.field(description="What stands.")
    cap: float | None = strawberry.field(description="The most that it may be; null where there is no such limit.")
    basis: str = strawberry.field(description="Where the checked number and the cap are from.")


@strawberry.type(
    description="An offer that the merchant doesn't run yet. Adopting it is calling createPool with its id, once."
)
class OfferSuggestion(Node):
    """A suggestion that passed the checks."""

    suggestion_id: strawberry.Private[UUID]
    title: str = strawberry.field(description="What it is.")
    rationale: str = strawberry.field(description="Why it may be missing; every number in it is a checked figure.")
    segment: str = strawberry.field(description="The name of the segment that it is for.")
    audience: SegmentName | None = strawberry.field(description="The segment that it is for.")
    draft: PoolDraft = strawberry.field(description="The pool to create.")
    figures: list[AdviceFigure] = strawberry.field(description="Its numbers, each checked.")

    @classmethod
    def of(cls, row: SuggestionRow, currency: str) -> "OfferSuggestion":
        """Return the suggestion of a row."""
        stored = orjson.loads(row["suggestion_content"])
        audience = BY_TITLE.get(stored["segment"])
        return cls(
            id=strawberry.ID(ids.encode("suggestion", row["suggestion_id"])),
            suggestion_id=row["suggestion_id"],
            title=stored["title"],
            rationale=stored["rationale"],
            segment=stored["segment"],
            audience=audience,
            draft=PoolDraft.of(stored["draft"], audience, currency),
            figures=[AdviceFigure(**figure) for figure in stored["figures"]],
        )

    @field(description="What was made of it; null until somebody adopts it, and again once that pool is discarded.")
    async def pool(self, info: Info) -> Pool | None:
        """Read the pools of all suggestions of this page together."""
        row = await info.context.load(pools_by_suggestion, self.suggestion_id)
        return None if row is None else Pool.of(row)


@extends(Pool)
class _Adopting:
    """What a pool shows of the advisor."""

    @guarded(
        "Pool.suggestion",
        description="The suggestion of the advisor that it was made of. For ADMIN and ANALYST, null to others.",
    )
    async def suggestion(self: Pool, info: Info) -> OfferSuggestion | None:
        """Read the suggestions of all pools of this page together."""
        row = await info.context.load(suggestions_by_pool, self.row["pool_id"])
        return None if row is None else OfferSuggestion.of(row, info.context.viewer.tenant.currency)


@strawberry.type(description="Something that was proposed and not shown.")
class RejectedSuggestion:
    """A proposal that didn't pass the checks."""

    title: str = strawberry.field(description="What it called itself, cut to 200 characters.")
    reason: AdviceRejectionReason = strawberry.field(description="Why it was dropped.")
    message: str = strawberry.field(description="The same for people.")


@strawberry.type(description="What a merchant asked the advisor, and what came of it.")
class AdviceRun(Node):
    """A row of advice_run."""

    row: strawberry.Private[RunRow]
    status: AdviceStatus = strawberry.field(description="How far it is.")
    source: AdviceSource | None = strawberry.field(
        description="Who proposed the suggestions; null until there are any."
    )
    model: str | None = strawberry.field(
        description="The model that was asked, as its endpoint calls it; null if none was, or until then."
    )
    prompt_version: str | None = strawberry.field(description="Which words it was asked with; null if none was.")
    fallback_reason: str | None = strawberry.field(
        description="Why rules answered instead of the model; null when the model answered."
    )
    requested_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker took it on last.")
    finished_at: datetime | None = strawberry.field(description="When it was done, or failed.")
    problem: str | None = strawberry.field(description="Why it failed; null otherwise.")

    @classmethod
    def of(cls, row: RunRow) -> "AdviceRun":
        """Return the run of a row."""
        source = row["run_source"]
        return cls(
            id=strawberry.ID(ids.encode("advicerun", row["run_id"])),
            row=row,
            status=AdviceStatus(row["run_status"]),
            source=None if source is None else AdviceSource(source),
            model=row["run_model"],
            prompt_version=row["run_prompt_version"],
            fallback_reason=row["run_fallback_reason"],
            requested_at=row["run_requested_at"],
            started_at=row["run_started_at"],
            finished_at=row["run_finished_at"],
            problem=row["run_problem"],
        )

    @staticmethod
    def is_live(row: RunRow) -> bool:
        """Whether a run may still change."""
        return row["run_status"] in _LIVE

    @field(description="Up to five offers, the best first; at least one when the run is DONE.")
    async def suggestions(self, info: Info) -> list[OfferSuggestion]:
        """Read the suggestions of all runs of this page together."""
        currency = info.context.viewer.tenant.currency
        rows = await info.context.load(suggestions_by_run, self.row["run_id"])
        return [OfferSuggestion.of(row, currency) for row in rows]

    @field(description="What was proposed and dropped, and why.")
    def rejected(self) -> list[RejectedSuggestion]:
        return [
            RejectedSuggestion(
                title=each["title"], reason=AdviceRejectionReason(each["reason"]), message=each["message"]
            )
            for each in orjson.loads(self.row["run_rejected"] or "[]")
        ]

    @field(description="The figures that it started from, as JSON: no person and no code is in them; null until then.")
    def facts(self) -> str | None:
        return self.row["run_facts"]

    @field(
        description="Of how many pools the model was told: 40 at most, and fewer if its context holds no more. Null "
        "until then, and if none was asked."
    )
    def pools_told(self) -> int | None:
        told: int | None = orjson.loads(self.row["run_facts"] or "{}").get("pools_told")
        return told

    @guarded(
        "AdviceRun.rawAnswer",
        description="What the model said, word for word; for ADMIN, null to others and if none was asked.",
    )
    async def raw_answer(self, info: Info) -> str | None:
        if self.row["run_raw_answer"] is None:
            return None
        return await decrypted(info.context.viewer.tenant, self.row["run_id"], "raw_answer", self.row["run_raw_answer"])
