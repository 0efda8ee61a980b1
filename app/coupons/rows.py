"""What statements select of pools, codes, redemptions, batches and campaigns, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.members.rows import MemberRow
from app.storage.database import Statements, database
from app.storage.events import event
from app.storage.statements import NoRow, columns, row_of, statement

#: Whether all codes of the pool `p` that aren't spent are dead, whatever ends of their own they have.
IS_OVER: Final = "(p.status = 'ARCHIVED' OR coalesce(p.ends_at <= now(), false))"
#: Whether that is the end of the code {}: one that outlives its pool dies with an archived pool only.
IS_OVER_FOR: Final = "(p.status = 'ARCHIVED' OR (NOT {}.outlives_pool AND coalesce(p.ends_at <= now(), false)))"
_IS_OVER_FOR_CODE: Final = IS_OVER_FOR.format("c")
#: Whether a hold has the code `c`. One whose time has passed hasn't, though the code may still name it.
IS_HELD: Final = "coalesce(c.held_until > now(), false)"
#: Whether the code `c` of the pool `p` would be past its own end or the pool's if nobody held it.
IS_PAST_END: Final = f"""
    ((c.state IN ('AVAILABLE', 'ALLOCATED') AND coalesce(c.expires_at <= now(), false))
    OR (c.state = 'ALLOCATED' AND {_IS_OVER_FOR_CODE}))
"""
#: Whether the code `c` of the pool `p` is past its own end or the pool's. A job writes that down later.
HAS_ENDED: Final = f"({IS_PAST_END} AND NOT {IS_HELD})"
#: Whether the code `c` was written down as dead though it isn't past its own end: only its pool's had expired it. One
#: that was replaced stays dead.
DIED_WITH_POOL: Final = """
    (c.state = 'EXPIRED' AND c.died_with_pool AND (c.expires_at IS NULL OR c.expires_at > now())
    AND c.reissued_as IS NULL)
"""
#: Whether such a code of the pool `p` lives again, because the pool has a later end. A job writes that down later.
LIVES_AGAIN: Final = f"({DIED_WITH_POOL} AND NOT {_IS_OVER_FOR_CODE})"
#: The state of the code `c` of the pool `p` as everybody is shown it.
SHOWN_STATE: Final = f"""
    CASE WHEN {HAS_ENDED} THEN 'EXPIRED' WHEN c.state = 'SET_ASIDE' OR {LIVES_AGAIN} THEN 'ALLOCATED' ELSE c.state END
"""


@row_of(p="pool")
class PoolRow(TypedDict):
    """A pool `p`."""

    pool_id: Annotated[UUID, "p.id"]
    pool_name: Annotated[str, "p.name"]
    pool_status: Annotated[str, "p.status"]
    pool_pause_scope: Annotated[str | None, "p.pause_scope"]
    pool_kind: Annotated[str, "p.kind"]
    pool_percent_off: Annotated[Decimal | None, "p.percent_off"]
    pool_amount_off: Annotated[int | None, "p.amount_off"]
    pool_gift_sku: Annotated[str | None, "p.gift_sku"]
    pool_minimum_spend: Annotated[int | None, "p.minimum_spend"]
    pool_maximum_discount: Annotated[int | None, "p.maximum_discount"]
    pool_starts_at: Annotated[datetime | None, "p.starts_at"]
    pool_ends_at: Annotated[datetime | None, "p.ends_at"]
    pool_code_lifetime_days: Annotated[int | None, "p.code_lifetime_days"]
    pool_claims_per_member: Annotated[int, "p.claims_per_member"]
    pool_stacking: Annotated[str, "p.stacking"]
    pool_transferable: Annotated[bool, "p.transferable"]
    pool_recycle_expired: Annotated[bool, "p.recycle_expired"]
    pool_code_pattern: Annotated[str | None, "p.code_pattern"]
    pool_audience: Annotated[list[str], "p.audience"]
    pool_first_order_only: Annotated[bool, "p.first_order_only"]
    pool_one_claim_per_mailbox: Annotated[bool, "p.one_claim_per_mailbox"]
    pool_listed: Annotated[bool, "p.listed"]
    pool_maximum_total_discount: Annotated[int | None, "p.maximum_total_discount"]
    pool_fallback_pool_id: Annotated[UUID | None, "p.fallback_pool_id"]
    pool_terms_version: Annotated[int, "p.terms_version"]
    pool_created_at: Annotated[datetime, "p.created_at"]


@row_of(c="code", p="pool")
class CodeRow(TypedDict):
    """A code `c` of the pool `p`."""

    code_id: Annotated[UUID, "c.id"]
    code_state: Annotated[str, SHOWN_STATE]
    code_ciphertext: Annotated[bytes, "c.ciphertext"]
    code_suffix: Annotated[str, "c.suffix"]
    code_is_foreign: Annotated[bool, "c.is_foreign"]
    code_bearer: Annotated[bool, "c.bearer"]
    code_matched_by: Annotated[str | None, "c.matched_by"]
    code_allocated_at: Annotated[datetime | None, "c.allocated_at"]
    code_expires_at: Annotated[datetime | None, "c.expires_at"]
    code_outlives_pool: Annotated[bool, "c.outlives_pool"]
    code_redeemed_at: Annotated[datetime | None, "c.redeemed_at"]
    code_held_until: Annotated[datetime | None, f"CASE WHEN {IS_HELD} THEN c.held_until END"]
    code_member_id: Annotated[UUID | None, "c.member_id"]


@row_of(r="redemption")
class RedemptionRow(TypedDict):
    """A redemption `r`; amounts are in minor units of its currency."""

    redemption_id: Annotated[UUID, "r.id"]
    redemption_source: Annotated[str, "r.source"]
    redemption_order_id: Annotated[str, "r.order_id"]
    redemption_position: Annotated[int, "r.position"]
    redemption_order_amount: Annotated[int, "r.order_amount"]
    redemption_base: Annotated[int, "r.base"]
    redemption_eligible: Annotated[int | None, "r.eligible"]
    redemption_discount: Annotated[int, "r.discount"]
    redemption_currency: Annotated[str, "r.currency"]
    redemption_redeemed_at: Annotated[datetime, "r.redeemed_at"]
    redemption_reversed_at: Annotated[datetime | None, "r.reversed_at"]


@row_of(c="code", p="pool", m="member?", w="wallet?")
class WholeCodeRow(CodeRow, PoolRow, MemberRow):
    """A code with its pool and its owner: all that a Code can show.

    The owner's fields are null where `code_member_id` is.
    """


@row_of(r="redemption", c="code", p="pool", m="member?", w="wallet?")
class WholeRedemptionRow(RedemptionRow, WholeCodeRow):
    """A redemption with its code."""


@row_of(b="code_batch", p="pool")
class BatchRow(PoolRow):
    """A batch `b` and its pool."""

    batch_id: Annotated[UUID, "b.id"]
    batch_kind: Annotated[str, "b.kind"]
    batch_size: Annotated[int, "b.size"]
    batch_created_at: Annotated[datetime, "b.created_at"]


@row_of(k="campaign", p="pool")
class CampaignRow(PoolRow):
    """A campaign `k` and its pool."""

    campaign_id: Annotated[UUID, "k.id"]
    campaign_name: Annotated[str, "k.name"]
    campaign_segment: Annotated[str | None, "k.segment"]
    campaign_recipient_count: Annotated[int, "k.recipient_count"]
    campaign_allocated_count: Annotated[int, "k.allocated_count"]
    campaign_created_at: Annotated[datetime, "k.created_at"]


@row_of(d="delivery", c="code", p="pool", m="member?", w="wallet?")
class DeliveryRow(WholeCodeRow):
    """A delivery `d` of a campaign and its code."""

    delivery_place: Annotated[UUID, "lpad(to_hex(d.position), 32, '0')::uuid"]
    delivery_recipient: Annotated[bytes | None, "d.recipient"]


class StockRow(TypedDict):
    """How many codes of a pool are in each state."""

    pool_id: UUID
    available: int
    allocated: int
    redeemed: int
    expired: int
    revoked: int


class DiscountRow(TypedDict):
    """What a pool's codes took off."""

    pool_id: UUID
    discount: int


#: Continues a FROM that has a code `c`: its pool, and its owner if it has one. Each row is looked up by its whole key
#: (OFFSET 0 keeps the planner from doing otherwise): a join that was planned before the first ANALYZE reads all rows of
#: the merchant for each row of the page.
JOIN_CODE: Final = """
    CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = c.pool_id OFFSET 0) p
    LEFT JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = c.member_id OFFSET 0) m ON true
    LEFT JOIN LATERAL (
        SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = c.member_id OFFSET 0
    ) w ON true
"""
CODE_OF_REDEMPTION: Final = (
    "CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = r.code_id OFFSET 0) c"
)
#: Whether the pool `p` issues codes now.
IS_OPEN: Final = """
    (p.status = 'ACTIVE' AND (p.starts_at IS NULL OR p.starts_at <= now()) AND (p.ends_at IS NULL OR now() < p.ends_at))
"""
#: Whether the pool `p` issues codes that somebody is sent or that are printed, which may be before it begins.
ISSUES_AHEAD: Final = "(p.status = 'ACTIVE' AND (p.ends_at IS NULL OR now() < p.ends_at))"
#: Whether the pool `p` honours codes that haven't ended; `rules.honours` is the same in Python.
HONOURS: Final = """
    ((p.status = 'ACTIVE' OR p.pause_scope = 'ISSUING') AND (p.starts_at IS NULL OR p.starts_at <= now()))
"""
#: Whether members see the pool `p` among their offers.
LISTED: Final = f"(p.listed AND p.status IN ('ACTIVE', 'PAUSED') AND NOT {IS_OVER})"
#: What is left of the budget of the pool `p`.
BUDGET_LEFT: Final = """
    (SELECT coalesce(sum(remaining), 0)::bigint FROM pool_budget WHERE merchant_id = :merchant_id AND pool_id = p.id)
"""
#: Whether the pool `p` has a budget that doesn't suffice for another code. A slice that does tells without a sum.
BUDGET_IS_SPENT: Final = f"""
    (p.maximum_total_discount IS NOT NULL AND NOT EXISTS (
        SELECT FROM pool_budget
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND remaining >= coalesce(p.amount_off, 1)
    ) AND {BUDGET_LEFT} < coalesce(p.amount_off, 1))
"""
#: How many codes the pool {} has in stock. Those past an end of their own count until the job comes by.
AVAILABLE_OF: Final = """
    (SELECT coalesce(sum(available), 0)::int FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = {})
"""
#: The reward that a pool backs while it is offered (the newest of several): its codes cost points then.
REWARD_OF_POOL: Final = """
    (SELECT id FROM reward
     WHERE reward.merchant_id = :merchant_id AND reward.pool_id = {} AND active ORDER BY id DESC LIMIT 1)
"""
BACKS_REWARD: Final = f"EXISTS {REWARD_OF_POOL.format('p.id')}"
#: Whether some answer shows the reward `a` to the member `:member_id`: it is offered, or the member had it.
SHOWN_TO_MEMBER: Final = """
    (a.active OR EXISTS (
        SELECT FROM reward_redemption x
        WHERE x.merchant_id = :merchant_id AND x.member_id = :member_id AND x.reward_id = a.id
    ))
"""

_POOL: Final = columns(PoolRow)
_CODE: Final = columns(WholeCodeRow)
_REDEMPTION: Final = columns(WholeRedemptionRow)

FIND_POOL: Final = statement(
    PoolRow, f"SELECT {_POOL} FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = :pool_id"
)
#: One of which the member has a code, that backs a reward that it sees, or that is among its offers.
#: Waits for claims, redemptions and holds that found a pool as it was before. After a change is committed, not before
#: it: those that come then find the pool changed, so that there is an end of them.
WAIT_FOR_POOL: Final = statement(
    NoRow, "SELECT FROM pool, wait_for_pool(merchant_id, id) WHERE merchant_id = :merchant_id AND id = :pool_id"
)
FIND_POOL_OF_MEMBER: Final = statement(
    PoolRow,
    f"""
SELECT {_POOL} FROM pool p
WHERE p.merchant_id = :merchant_id AND p.id = :pool_id AND (
    p.id = ANY(ARRAY(SELECT pool_id FROM code WHERE merchant_id = :merchant_id AND member_id = :member_id))
    OR EXISTS (SELECT FROM reward a WHERE a.merchant_id = :merchant_id AND a.pool_id = p.id AND {SHOWN_TO_MEMBER})
    OR {LISTED}
)
""",
)
LIST_POOLS: Final = statement(
    PoolRow,
    f"""
SELECT {_POOL} FROM pool p
WHERE p.merchant_id = :merchant_id AND p.id < :before AND (:status::text IS NULL OR p.status = :status)
ORDER BY p.id DESC LIMIT :limit
""",
)
STOCK_OF_POOLS: Final = statement(
    StockRow,
    """
SELECT pool_id, sum(available)::int AS available, sum(allocated)::int AS allocated,
    sum(redeemed)::int AS redeemed, sum(expired)::int AS expired, sum(revoked)::int AS revoked
FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = ANY(:pool_ids) GROUP BY pool_id
""",
)
DISCOUNTS_OF_POOLS: Final = statement(
    DiscountRow,
    """
SELECT pool_id, sum(discount)::bigint AS discount FROM redemption
WHERE merchant_id = :merchant_id AND pool_id = ANY(:pool_ids::uuid[]) AND reversed_at IS NULL GROUP BY pool_id
""",
)
POOLS_BY_ID: Final = statement(
    PoolRow, f"SELECT {_POOL} FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = ANY(:pool_ids::uuid[])"
)
#: Of one member only, or of anybody's where `member_id` is null.
FIND_CODE: Final = statement(
    WholeCodeRow,
    f"""
SELECT {_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = :merchant_id AND c.id = :code_id AND (:member_id::uuid IS NULL OR c.member_id = :member_id)
""",
)
CODES_BY_ID: Final = statement(
    WholeCodeRow,
    f"""
SELECT {_CODE} FROM code c {JOIN_CODE} WHERE c.merchant_id = :merchant_id AND c.id = ANY(:code_ids::uuid[])
""",
)
FIND_CODE_BY_TEXT: Final = statement(
    WholeCodeRow,
    f"""
SELECT {_CODE} FROM code c {JOIN_CODE} WHERE c.merchant_id = :merchant_id AND c.fingerprint = :fingerprint
""",
)
LIST_CODES: Final = statement(
    WholeCodeRow,
    f"""
SELECT {_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = :merchant_id AND c.id < :before ORDER BY c.id DESC LIMIT :limit
""",
)
#: Of how many of the newest codes a list in a state looks at each.
WALKED_MAX: Final = 1_000
# The newest codes of the pool `p` that are shown in `:state`, or in any. The index ends in (pool_id, state, id): asking
# for the newest codes in each state that is stored, and merging, never sorts more than a page of each. A state is shown
# that isn't stored between a code's end and the job that writes it down: all that live of a pool that is over but the
# few that outlive it or are held, which have an index, and the few that are past an end of their own, which have one,
# too. It is so, too, between a pool's later end and the job that revives its codes, which a row waits for: then EXPIRED
# codes are read by their mark, and so are the few with it whose own end has passed since. All are read in an order that
# one index alone has: a plan that walks all codes of the merchant would look as good.
_IS_REVIVING: Final = f"""
    (NOT {IS_OVER} AND EXISTS (SELECT FROM code_revival WHERE merchant_id = :merchant_id AND pool_id = p.id))
"""
_NEWEST_OF_POOL: Final = f"""
    SELECT each.id FROM unnest(CASE
        WHEN :state::text IS NULL THEN ARRAY['AVAILABLE', 'SET_ASIDE', 'ALLOCATED', 'REDEEMED', 'EXPIRED', 'REVOKED']
        WHEN {IS_OVER} AND :state = 'EXPIRED' THEN ARRAY['EXPIRED', 'ALLOCATED']
        WHEN {IS_OVER} AND :state = 'ALLOCATED' THEN ARRAY['SET_ASIDE']
        WHEN :state = 'ALLOCATED' THEN ARRAY['SET_ASIDE', 'ALLOCATED']
        WHEN :state = 'EXPIRED' AND {_IS_REVIVING} THEN '{{}}'
        ELSE ARRAY[:state]
    END) AS stored (state) CROSS JOIN LATERAL (
        SELECT id FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND state = ANY(ARRAY[stored.state]) AND id < :before
            AND (:state IS NULL OR :state = {SHOWN_STATE})
        ORDER BY state DESC, id DESC LIMIT :limit
    ) each
    UNION
    SELECT each.id FROM unnest(CASE
        WHEN :state IN ('ALLOCATED', 'EXPIRED') AND {_IS_REVIVING} THEN ARRAY[:state = 'ALLOCATED'] ELSE '{{}}'
    END) AS stored (died_with_pool) CROSS JOIN LATERAL (
        SELECT id FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND state = 'EXPIRED'
            AND died_with_pool = ANY(ARRAY[stored.died_with_pool]) AND :state = {SHOWN_STATE} AND id < :before
        ORDER BY died_with_pool DESC, id DESC LIMIT :limit
    ) each
    UNION
    (SELECT id FROM (
        SELECT id FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND state = 'EXPIRED' AND died_with_pool
            AND expires_at <= now() AND :state = 'EXPIRED' AND {_IS_REVIVING}
        ORDER BY expires_at OFFSET 0
     ) lapsed WHERE id < :before ORDER BY id DESC LIMIT :limit)
    UNION
    (SELECT id FROM code c
     WHERE merchant_id = :merchant_id AND pool_id = p.id AND outlives_pool AND state = 'ALLOCATED'
        AND :state = 'ALLOCATED' AND :state = {SHOWN_STATE} AND id < :before
     ORDER BY id DESC LIMIT :limit)
    UNION
    (SELECT id FROM code c
     WHERE merchant_id = :merchant_id AND pool_id = p.id AND hold_id IS NOT NULL AND state = 'ALLOCATED'
        AND :state = 'ALLOCATED' AND :state = {SHOWN_STATE} AND id < :before
     ORDER BY id DESC LIMIT :limit)
    UNION
    (SELECT id FROM (
        SELECT id FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND state IN ('AVAILABLE', 'ALLOCATED')
            AND expires_at <= now() AND NOT {IS_HELD} AND :state = 'EXPIRED'
        ORDER BY expires_at OFFSET 0
     ) past WHERE id < :before ORDER BY id DESC LIMIT :limit)
    ORDER BY 1 DESC LIMIT :limit
"""
# Among the newest codes there are mostly enough in a state: then nothing is asked of each pool, however many there are.
# Of a state that few codes have only those pools are asked whose stock says that they have such codes: that is a row
# for each, and what happened since the last fold. What is SET_ASIDE counts as allocated there. As EXPIRED those are
# shown, too, that aren't stored as that yet, and as ALLOCATED those that are still stored as EXPIRED in a pool that
# revives.
LIST_CODES_IN_STATE: Final = statement(
    WholeCodeRow,
    f"""
WITH walked AS MATERIALIZED (
    SELECT c.id FROM (
        SELECT * FROM code WHERE merchant_id = :merchant_id AND id < :before ORDER BY id DESC LIMIT {WALKED_MAX}
    ) c
    JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE :state = {SHOWN_STATE} ORDER BY c.id DESC LIMIT :limit
), page AS (
    SELECT id FROM walked
    UNION
    (SELECT newest.id FROM (
        SELECT * FROM pool p
        WHERE merchant_id = :merchant_id AND (SELECT count(*) FROM walked) < :limit
            AND (id = ANY(ARRAY(
                SELECT pool_id FROM stock_change WHERE merchant_id = :merchant_id GROUP BY pool_id
                HAVING sum(CASE :state WHEN 'AVAILABLE' THEN available WHEN 'ALLOCATED' THEN allocated
                    WHEN 'REDEEMED' THEN redeemed WHEN 'REVOKED' THEN revoked ELSE expired END) > 0
            )) OR (:state = 'ALLOCATED' AND id = ANY(ARRAY(
                SELECT pool_id FROM code_revival WHERE merchant_id = :merchant_id
            ))) OR (:state = 'EXPIRED' AND ({IS_OVER} OR id = ANY(ARRAY(
                SELECT pool_id FROM code
                WHERE merchant_id = :merchant_id AND state IN ('AVAILABLE', 'ALLOCATED') AND expires_at <= now()
                    AND :state = 'EXPIRED'
            ))))) OFFSET 0
     ) p CROSS JOIN LATERAL ({_NEWEST_OF_POOL}) newest
     ORDER BY newest.id DESC LIMIT :limit)
)
SELECT {_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY c.id DESC
""",
)
CODES_OF_POOLS: Final = statement(
    WholeCodeRow,
    f"""
WITH page AS (
    SELECT newest.id FROM unnest(:pool_ids::uuid[]) AS asked (pool_id)
    CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = asked.pool_id OFFSET 0) p
    CROSS JOIN LATERAL ({_NEWEST_OF_POOL}) newest
)
SELECT {_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY c.id DESC
""",
)
CODES_OF_MEMBERS: Final = statement(
    WholeCodeRow,
    f"""
WITH page AS (
    SELECT newest.id FROM unnest(:member_ids::uuid[]) AS asked (member_id) CROSS JOIN LATERAL (
        SELECT id FROM code
        WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND (allocated_at, id) < (:instant, :before)
            -- The code's own row is read for those that have ended or may live again; the index has what tells that.
            AND (:state::text IS NULL OR :state = CASE WHEN state = 'ALLOCATED' AND (
                expires_at <= now() OR EXISTS (
                    SELECT FROM pool p
                    WHERE p.merchant_id = :merchant_id AND p.id = code.pool_id AND {IS_OVER_FOR.format("code")}
                )
            ) AND NOT EXISTS (
                SELECT FROM code c WHERE c.merchant_id = :merchant_id AND c.id = code.id AND {IS_HELD}
            ) THEN 'EXPIRED'
            WHEN state = 'EXPIRED' AND (expires_at IS NULL OR expires_at > now()) AND EXISTS (
                SELECT FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
                WHERE c.merchant_id = :merchant_id AND c.id = code.id AND {LIVES_AGAIN}
            ) THEN 'ALLOCATED' ELSE state END)
        ORDER BY allocated_at DESC, id DESC LIMIT :limit
    ) newest
)
SELECT {_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY c.allocated_at DESC, c.id DESC
""",
)
FIND_REDEMPTION: Final = statement(
    WholeRedemptionRow,
    f"""
SELECT {_REDEMPTION} FROM redemption r {CODE_OF_REDEMPTION} {JOIN_CODE}
WHERE r.merchant_id = :merchant_id AND r.id = :redemption_id
""",
)
LIST_REDEMPTIONS: Final = statement(
    WholeRedemptionRow,
    f"""
SELECT {_REDEMPTION} FROM redemption r {CODE_OF_REDEMPTION} {JOIN_CODE}
WHERE r.merchant_id = :merchant_id AND r.id < :before ORDER BY r.id DESC LIMIT :limit
""",
)
FIND_BATCH: Final = statement(
    BatchRow,
    f"""
SELECT {columns(BatchRow)}
FROM code_batch b JOIN pool p ON p.merchant_id = :merchant_id AND p.id = b.pool_id
WHERE b.merchant_id = :merchant_id AND b.id = :batch_id
""",
)
BATCHES_OF_POOLS: Final = statement(
    BatchRow,
    f"""
SELECT {columns(BatchRow)} FROM unnest(:pool_ids::uuid[]) AS asked (pool_id)
CROSS JOIN LATERAL (
    SELECT * FROM code_batch WHERE merchant_id = :merchant_id AND pool_id = asked.pool_id AND id < :before
    ORDER BY id DESC LIMIT :limit
) b
CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = asked.pool_id OFFSET 0) p
ORDER BY b.id DESC
""",
)
# The statement that reads the codes writes the event: no page is read off the record.
TEXTS: Final = statement(
    WholeCodeRow,
    f"""
WITH recorded AS (
    {event("codes.texts_read", subject=":batch_id")} RETURNING subject_id
), page AS (
    SELECT * FROM bearer_code
    WHERE merchant_id = :merchant_id AND batch_id = (SELECT subject_id FROM recorded) AND code_id < :before
    ORDER BY code_id DESC LIMIT :limit
)
SELECT {_CODE} FROM page
CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = page.code_id OFFSET 0) c {JOIN_CODE}
ORDER BY page.code_id DESC
""",
)
FIND_CAMPAIGN: Final = statement(
    CampaignRow,
    f"""
SELECT {columns(CampaignRow)}
FROM campaign k JOIN pool p ON p.merchant_id = :merchant_id AND p.id = k.pool_id
WHERE k.merchant_id = :merchant_id AND k.id = :campaign_id
""",
)
LIST_CAMPAIGNS: Final = statement(
    CampaignRow,
    f"""
SELECT {columns(CampaignRow)}
FROM campaign k JOIN pool p ON p.merchant_id = :merchant_id AND p.id = k.pool_id
WHERE k.merchant_id = :merchant_id AND k.id < :before ORDER BY k.id DESC LIMIT :limit
""",
)
# The statement that reads the codes writes the event: no page is read off the record. A job appends while a mailer
# reads, and commits in the order of the positions: who pages misses none.
DELIVERIES: Final = statement(
    DeliveryRow,
    f"""
WITH recorded AS (
    {event("campaign.deliveries_read", subject=":campaign_id")} RETURNING subject_id
), page AS (
    SELECT * FROM delivery
    WHERE merchant_id = :merchant_id AND campaign_id = (SELECT subject_id FROM recorded) AND position > :after
    ORDER BY position LIMIT :limit
)
SELECT {columns(DeliveryRow)}
FROM page d
CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = d.code_id OFFSET 0) c {JOIN_CODE}
ORDER BY d.position
""",
)


def end_of(row: WholeCodeRow) -> datetime | None:
    """Return until when a code can be spent, if its pool isn't archived before."""
    own, pools = row["code_expires_at"], row["pool_ends_at"]
    return own if row["code_outlives_pool"] else min(filter(None, (own, pools)), default=None)


async def find_pool(viewer: Viewer, node_id: str) -> PoolRow | None:
    """Return the pool behind an id; a member sees those of its codes, its rewards and its offers."""
    pool_id = ids.decode("pool", node_id)
    if pool_id is None:
        return None
    if viewer.member_id is None:
        return await pool_row(database(), viewer, pool_id)
    return await database().row(
        FIND_POOL_OF_MEMBER, merchant_id=viewer.merchant_id, pool_id=pool_id, member_id=viewer.member_id
    )


async def pool_row(where: Statements, viewer: Viewer, pool_id: UUID) -> PoolRow | None:
    """Return a pool of the viewer's merchant, read in a transaction or outside one."""
    return await where.row(FIND_POOL, merchant_id=viewer.merchant_id, pool_id=pool_id)


async def pools_by_id(viewer: Viewer, pool_ids: list[UUID]) -> Mapping[UUID, PoolRow]:
    """Return the rows of pools that exist."""
    rows = await database().rows(POOLS_BY_ID, merchant_id=viewer.merchant_id, pool_ids=pool_ids)
    return {row["pool_id"]: row for row in rows}


async def find_code(viewer: Viewer, node_id: str) -> WholeCodeRow | None:
    """Return the code behind an id; a member sees its own only."""
    code_id = ids.decode("code", node_id)
    if code_id is None:
        return None
    return await database().row(FIND_CODE, merchant_id=viewer.merchant_id, code_id=code_id, member_id=viewer.member_id)


async def find_redemption(viewer: Viewer, node_id: str) -> WholeRedemptionRow | None:
    """Return the redemption behind an id; not for members."""
    redemption_id = ids.decode("redemption", node_id)
    if redemption_id is None or not may(viewer.role, "Redemption"):
        return None
    return await database().row(FIND_REDEMPTION, merchant_id=viewer.merchant_id, redemption_id=redemption_id)


async def batch_row(viewer: Viewer, batch_id: UUID) -> BatchRow:
    """Return a batch that is committed."""
    row = await database().row(FIND_BATCH, merchant_id=viewer.merchant_id, batch_id=batch_id)
    if row is None:
        raise RuntimeError("a committed batch can't be read")
    return row


async def find_batch(viewer: Viewer, node_id: str) -> BatchRow | None:
    """Return the batch behind an id; not for members."""
    batch_id = ids.decode("batch", node_id)
    if batch_id is None or not may(viewer.role, "CodeBatch"):
        return None
    return await database().row(FIND_BATCH, merchant_id=viewer.merchant_id, batch_id=batch_id)


async def batches_by_pool(
    viewer: Viewer, pool_ids: list[UUID], before: UUID, limit: int
) -> Mapping[UUID, list[BatchRow]]:
    """Return the newest batches of each pool, those after `before`, at most `limit` of each."""
    rows = await database().rows(
        BATCHES_OF_POOLS, merchant_id=viewer.merchant_id, pool_ids=pool_ids, before=before, limit=limit
    )
    grouped: defaultdict[UUID, list[BatchRow]] = defaultdict(list)
    for row in rows:
        grouped[row["pool_id"]].append(row)
    return grouped


async def discounts_by_pool(viewer: Viewer, pool_ids: list[UUID]) -> Mapping[UUID, int]:
    """Return what each pool's codes took off by redemptions that stand."""
    rows = await database().rows(DISCOUNTS_OF_POOLS, merchant_id=viewer.merchant_id, pool_ids=pool_ids)
    return dict.fromkeys(pool_ids, 0) | {row["pool_id"]: row["discount"] for row in rows}


async def codes_by_id(viewer: Viewer, code_ids: list[UUID]) -> Mapping[UUID, WholeCodeRow]:
    """Return codes that exist, whosever they are."""
    rows = await database().rows(CODES_BY_ID, merchant_id=viewer.merchant_id, code_ids=code_ids)
    return {row["code_id"]: row for row in rows}


async def codes_by_pool(
    viewer: Viewer, pool_ids: list[UUID], before: UUID, limit: int, state: str | None
) -> Mapping[UUID, list[WholeCodeRow]]:
    """Return the newest codes of each pool, those after `before`, at most `limit` of each."""
    rows = await database().rows(
        CODES_OF_POOLS,
        merchant_id=viewer.merchant_id,
        pool_ids=pool_ids,
        before=before,
        limit=limit,
        state=state,
    )
    grouped: defaultdict[UUID, list[WholeCodeRow]] = defaultdict(list)
    for row in rows:
        grouped[row["pool_id"]].append(row)
    return grouped


async def codes_by_member(
    viewer: Viewer, member_ids: list[UUID], instant: datetime, before: UUID, limit: int, state: str | None
) -> Mapping[UUID, list[WholeCodeRow]]:
    """Return the codes last allocated to each member, those after (`instant`, `before`), at most `limit` of each."""
    rows = await database().rows(
        CODES_OF_MEMBERS,
        merchant_id=viewer.merchant_id,
        member_ids=member_ids,
        instant=instant,
        before=before,
        limit=limit,
        state=state,
    )
    grouped: defaultdict[UUID, list[WholeCodeRow]] = defaultdict(list)
    for row in rows:
        grouped[row["member_id"]].append(row)
    return grouped


async def find_campaign(viewer: Viewer, node_id: str) -> CampaignRow | None:
    """Return the campaign behind an id; not for members."""
    campaign_id = ids.decode("campaign", node_id)
    if campaign_id is None or not may(viewer.role, "Campaign"):
        return None
    return await database().row(FIND_CAMPAIGN, merchant_id=viewer.merchant_id, campaign_id=campaign_id)
