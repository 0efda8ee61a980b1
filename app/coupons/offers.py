"""offers: what a member could claim now, of the pools that are listed, and why it can't have the others."""

from typing import Final, TypedDict
from uuid import UUID

import strawberry

from app.api.connections import After, Connection, First, connect, page
from app.api.operations import Info, field, query
from app.coupons.claims import CHAIN_LENGTH_MAX, CLAIMANT, IS_FOR, KEEPS, MAILBOX_IS_TAKEN, IneligibleReason
from app.coupons.rows import AVAILABLE_OF, BACKS_REWARD, BUDGET_IS_SPENT, IS_OPEN, LISTED, PoolRow, codes_by_id
from app.coupons.types import Code, Pool
from app.storage.database import database
from app.storage.statements import columns, statement


class OfferRow(PoolRow):
    """A pool, the member's latest code of it, and why the member can't claim of it, but for its stock."""

    own_code_id: UUID | None
    why_not: str | None
    is_budget_spent: bool
    in_stock: int


class _ServedRow(TypedDict):
    """A pool whose fallback would serve the member."""

    pool_id: UUID


# What the member has of the pool `p`.
_HELD: Final = """
    SELECT count(*) AS claims, (array_agg(code_id ORDER BY slot DESC))[1] AS code_id FROM (
        SELECT code_id, slot FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND member_id = :member_id ORDER BY slot
    ) own
"""
_IN_STOCK: Final = AVAILABLE_OF.format("p.id")
_WHY_NOT: Final = f"""
    CASE WHEN held.claims >= p.claims_per_member OR {KEEPS.format("held")} THEN 'HAS_ALL'
        WHEN NOT {IS_OPEN} THEN 'NOT_OPEN'
        WHEN NOT {IS_FOR} THEN 'AUDIENCE'
        WHEN {MAILBOX_IS_TAKEN} THEN 'MAILBOX' END
"""
LIST: Final = statement(
    OfferRow,
    f"""
SELECT {columns(PoolRow)}, held.code_id AS own_code_id, {_WHY_NOT} AS why_not, {_IN_STOCK} AS in_stock,
    {BUDGET_IS_SPENT} AS is_budget_spent
FROM pool p CROSS JOIN ({CLAIMANT}) m CROSS JOIN LATERAL ({_HELD}) held
WHERE p.merchant_id = :merchant_id AND {LISTED} AND NOT {BACKS_REWARD} AND p.id < :before
ORDER BY p.id DESC LIMIT :limit
""",
)
#: Which of some pools that are empty, or have spent their budgets, fall back to one that would serve the member.
SERVED: Final = statement(
    _ServedRow,
    f"""
WITH RECURSIVE chain AS (
    SELECT id AS start, fallback_pool_id AS id, 1 AS position FROM pool
    WHERE merchant_id = :merchant_id AND id = ANY(:pool_ids::uuid[]) AND fallback_pool_id IS NOT NULL
    UNION ALL
    SELECT chain.start, p.fallback_pool_id, position + 1
    FROM chain JOIN pool p ON p.merchant_id = :merchant_id AND p.id = chain.id
    WHERE p.fallback_pool_id IS NOT NULL AND position < {CHAIN_LENGTH_MAX}
)
SELECT DISTINCT chain.start AS pool_id FROM chain JOIN pool p ON p.merchant_id = :merchant_id AND p.id = chain.id
CROSS JOIN ({CLAIMANT}) m CROSS JOIN LATERAL ({_HELD}) held
WHERE {_WHY_NOT} IS NULL AND NOT {BACKS_REWARD} AND {_IN_STOCK} > 0 AND NOT {BUDGET_IS_SPENT}
""",
)


@strawberry.type(description="A listed pool as the viewing member sees it.")
class Offer:
    row: strawberry.Private[OfferRow]
    pool: Pool = strawberry.field(description="The pool.")
    claimable: bool = strawberry.field(description="Whether the member could claim a code now.")
    why_not: IneligibleReason | None = strawberry.field(description="Why it couldn't, the first reason; else null.")

    @field(description="The member's own code of this pool, the latest if it has several; null if it has none.")
    async def code(self, info: Info) -> Code | None:
        """Read the codes of all offers of this page together."""
        code_id = self.row["own_code_id"]
        return None if code_id is None else Code.of(await info.context.load(codes_by_id, code_id))


@query(
    description="The pools that are listed, ACTIVE or PAUSED and haven't ended, newest first, and whether the viewing "
    "member could claim of each now. Those that back a reward are had for points. MEMBER only."
)
async def offers(info: Info, first: First = None, after: After = None) -> Connection[Offer]:
    asked, viewer = page(first, after), info.context.viewer
    pads = viewer.tenant.keys.memory_pads
    named = {"merchant_id": viewer.merchant_id, "member_id": viewer.member_id, "memory_pads": pads}
    rows = await database().rows(LIST, **named, before=asked.id, limit=asked.limit)
    empty = [
        row["pool_id"] for row in rows
        if row["why_not"] is None and (row["in_stock"] <= 0 or row["is_budget_spent"])
    ]  # fmt: skip
    served: set[UUID] = set()
    if empty:
        served = {row["pool_id"] for row in await database().rows(SERVED, **named, pool_ids=empty)}

    def offer(row: OfferRow) -> Offer:
        reason = row["why_not"]
        if reason is None and row["pool_id"] in empty and row["pool_id"] not in served:
            spent, exhausted = IneligibleReason.BUDGET_SPENT, IneligibleReason.EXHAUSTED
            reason = (spent if row["is_budget_spent"] else exhausted).value
        why_not = None if reason is None else IneligibleReason(reason)
        return Offer(row=row, pool=Pool.of(row), claimable=why_not is None, why_not=why_not)

    return connect(rows, asked, offer, key="pool_id")
