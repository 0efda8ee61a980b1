"""What statements select of pools, codes, redemptions, batches and campaigns, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.members.rows import MEMBER_COLUMNS
from app.storage.database import Row, Statements, database

#: What a statement selects to make a Pool, a Code and a Redemption; the tables are `p`, `c` and `r`.
POOL_COLUMNS: Final = """
    p.id AS pool_id, p.name AS pool_name, p.status AS pool_status, p.kind AS pool_kind,
    p.percent_off AS pool_percent_off, p.amount_off AS pool_amount_off, p.gift_sku AS pool_gift_sku,
    p.minimum_spend AS pool_minimum_spend, p.maximum_discount AS pool_maximum_discount,
    p.starts_at AS pool_starts_at, p.ends_at AS pool_ends_at,
    p.code_lifetime_days AS pool_code_lifetime_days, p.claims_per_member AS pool_claims_per_member,
    p.stacking AS pool_stacking, p.transferable AS pool_transferable,
    p.recycle_expired AS pool_recycle_expired, p.fallback_pool_id AS pool_fallback_pool_id,
    p.created_at AS pool_created_at
"""


CODE_COLUMNS: Final = """
    c.id AS code_id, c.state AS code_state, c.ciphertext AS code_ciphertext, c.suffix AS code_suffix,
    c.matched_by AS code_matched_by, c.allocated_at AS code_allocated_at, c.expires_at AS code_expires_at,
    c.redeemed_at AS code_redeemed_at
"""


REDEMPTION_COLUMNS: Final = """
    r.id AS redemption_id, r.order_id AS redemption_order_id, r.position AS redemption_position,
    r.order_amount AS redemption_order_amount, r.base AS redemption_base, r.discount AS redemption_discount,
    r.currency AS redemption_currency, r.redeemed_at AS redemption_redeemed_at,
    r.reversed_at AS redemption_reversed_at
"""


#: A code with its pool and, where it has one, its owner: everything that a Code can show. Each row is looked up by
#: its whole key (OFFSET 0 keeps the planner from doing otherwise): a join that was planned before the first ANALYZE
#: reads all rows of the merchant for each row of the page.
WHOLE_CODE: Final = f"{CODE_COLUMNS}, {POOL_COLUMNS}, {MEMBER_COLUMNS}"


JOIN_CODE: Final = """
    CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = $1 AND id = c.pool_id OFFSET 0) p
    LEFT JOIN LATERAL (SELECT * FROM member WHERE merchant_id = $1 AND id = c.member_id OFFSET 0) m ON true
    LEFT JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = $1 AND member_id = c.member_id OFFSET 0) w ON true
"""


CODE_OF_REDEMPTION: Final = (
    "CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = $1 AND id = r.code_id OFFSET 0) c"
)


#: Whether the pool `p` issues and honours codes now; `rules.is_open` is the same in Python.
IS_OPEN: Final = """
    (p.status = 'ACTIVE' AND (p.starts_at IS NULL OR p.starts_at <= now()) AND (p.ends_at IS NULL OR now() < p.ends_at))
"""


#: The reward that a pool backs while it is offered (the newest of several): its codes are had for points then.
REWARD_OF_POOL: Final = """
    (SELECT id FROM reward WHERE reward.merchant_id = $1 AND reward.pool_id = {} AND active ORDER BY id DESC LIMIT 1)
"""


BACKS_REWARD: Final = f"EXISTS {REWARD_OF_POOL.format('p.id')}"


FIND_POOL: Final = f"SELECT {POOL_COLUMNS} FROM pool p WHERE p.merchant_id = $1 AND p.id = $2"


LIST_POOLS: Final = f"""
SELECT {POOL_COLUMNS} FROM pool p
WHERE p.merchant_id = $1 AND p.id < $2 AND ($4::text IS NULL OR p.status = $4)
ORDER BY p.id DESC LIMIT $3
"""


STOCK_OF_POOLS: Final = """
SELECT pool_id, sum(available)::int AS available, sum(allocated)::int AS allocated,
    sum(redeemed)::int AS redeemed, sum(expired)::int AS expired, sum(revoked)::int AS revoked
FROM stock_change WHERE merchant_id = $1 AND pool_id = ANY($2) GROUP BY pool_id
"""


POOLS_BY_ID: Final = f"SELECT {POOL_COLUMNS} FROM pool p WHERE p.merchant_id = $1 AND p.id = ANY($2::uuid[])"


FIND_CODE: Final = f"""
SELECT {WHOLE_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = $1 AND c.id = $2 AND ($3::uuid IS NULL OR c.member_id = $3)
"""


LIST_CODES: Final = f"""
SELECT {WHOLE_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = $1 AND c.id < $2 ORDER BY c.id DESC LIMIT $3
"""


# The index ends in (pool_id, state, id): asking each pool for its newest codes in a state, and merging, never
# sorts more than a page per pool.
LIST_CODES_IN_STATE: Final = f"""
WITH page AS (
    SELECT each.id FROM pool p CROSS JOIN LATERAL (
        SELECT id FROM code
        WHERE merchant_id = $1 AND pool_id = p.id AND state = $4 AND id < $2 ORDER BY id DESC LIMIT $3
    ) each
    WHERE p.merchant_id = $1 ORDER BY each.id DESC LIMIT $3
)
SELECT {WHOLE_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = $1 AND c.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY c.id DESC
"""


CODES_OF_POOLS: Final = f"""
WITH page AS (
    SELECT newest.id FROM unnest($2::uuid[]) AS asked (pool_id) CROSS JOIN LATERAL (
        SELECT each.id FROM unnest($5::text[]) AS wanted (state) CROSS JOIN LATERAL (
            SELECT id FROM code
            WHERE merchant_id = $1 AND pool_id = asked.pool_id AND state = wanted.state AND id < $3
            ORDER BY id DESC LIMIT $4
        ) each
        ORDER BY each.id DESC LIMIT $4
    ) newest
)
SELECT {WHOLE_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = $1 AND c.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY c.id DESC
"""


CODES_OF_MEMBERS: Final = f"""
WITH page AS (
    SELECT newest.id FROM unnest($2::uuid[]) AS asked (member_id) CROSS JOIN LATERAL (
        SELECT id FROM code
        WHERE merchant_id = $1 AND member_id = asked.member_id AND ($6::text IS NULL OR state = $6)
            AND (allocated_at, id) < ($3, $4)
        ORDER BY allocated_at DESC, id DESC LIMIT $5
    ) newest
)
SELECT {WHOLE_CODE} FROM code c {JOIN_CODE}
WHERE c.merchant_id = $1 AND c.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY c.allocated_at DESC, c.id DESC
"""


FIND_REDEMPTION: Final = f"""
SELECT {REDEMPTION_COLUMNS}, {WHOLE_CODE}
FROM redemption r {CODE_OF_REDEMPTION} {JOIN_CODE}
WHERE r.merchant_id = $1 AND r.id = $2
"""


LIST_REDEMPTIONS: Final = f"""
SELECT {REDEMPTION_COLUMNS}, {WHOLE_CODE}
FROM redemption r {CODE_OF_REDEMPTION} {JOIN_CODE}
WHERE r.merchant_id = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3
"""


FIND_BATCH: Final = f"""
SELECT b.id AS batch_id, b.size AS batch_size, b.created_at AS batch_created_at, {POOL_COLUMNS}
FROM code_batch b JOIN pool p ON p.merchant_id = b.merchant_id AND p.id = b.pool_id
WHERE b.merchant_id = $1 AND b.id = $2
"""


FIND_CAMPAIGN: Final = f"""
SELECT k.id AS campaign_id, k.name AS campaign_name, k.recipient_count AS campaign_recipient_count,
    k.allocated_count AS campaign_allocated_count, k.created_at AS campaign_created_at, {POOL_COLUMNS}
FROM campaign k JOIN pool p ON p.merchant_id = k.merchant_id AND p.id = k.pool_id
WHERE k.merchant_id = $1 AND k.id = $2
"""


# The event is written by the statement that reads the codes: no page is read off the record.
DELIVERIES: Final = f"""
WITH recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    VALUES ($1, $5, 'campaign.deliveries_read', $2, $6, now()) RETURNING subject_id
), page AS (
    SELECT * FROM delivery
    WHERE merchant_id = $1 AND campaign_id = (SELECT subject_id FROM recorded) AND code_id < $3
    ORDER BY code_id DESC LIMIT $4
)
SELECT d.recipient AS delivery_recipient, {WHOLE_CODE}
FROM page d
CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = $1 AND id = d.code_id OFFSET 0) c {JOIN_CODE}
ORDER BY d.code_id DESC
"""


Rows = list[Row]


async def find_pool(viewer: Viewer, node_id: str) -> Row | None:
    """Return the pool behind an id; members reach pools through their codes only."""
    pool_id = ids.decode("pool", node_id)
    if pool_id is None or viewer.role is Role.MEMBER:
        return None
    return await pool_row(database(), viewer, pool_id)


async def pool_row(where: Statements, viewer: Viewer, pool_id: UUID) -> Row | None:
    """Return a pool of the viewer's merchant, read in a transaction or outside one."""
    return await where.row(FIND_POOL, viewer.merchant_id, pool_id)


async def pools_by_id(viewer: Viewer, pool_ids: list[UUID]) -> Mapping[UUID, Row]:
    """Return the rows of pools that exist."""
    rows = await database().rows(POOLS_BY_ID, viewer.merchant_id, pool_ids)
    return {row["pool_id"]: row for row in rows}


async def find_code(viewer: Viewer, node_id: str) -> Row | None:
    """Return the code behind an id; a member sees its own only."""
    code_id = ids.decode("code", node_id)
    if code_id is None:
        return None
    return await database().row(FIND_CODE, viewer.merchant_id, code_id, viewer.member_id)


async def find_redemption(viewer: Viewer, node_id: str) -> Row | None:
    """Return the redemption behind an id; not for members."""
    redemption_id = ids.decode("redemption", node_id)
    if redemption_id is None or viewer.role is Role.MEMBER:
        return None
    return await database().row(FIND_REDEMPTION, viewer.merchant_id, redemption_id)


async def find_batch(viewer: Viewer, node_id: str) -> Row | None:
    """Return the batch behind an id; not for members."""
    batch_id = ids.decode("batch", node_id)
    if batch_id is None or viewer.role is Role.MEMBER:
        return None
    return await database().row(FIND_BATCH, viewer.merchant_id, batch_id)


async def codes_by_pool(
    viewer: Viewer, pool_ids: list[UUID], before: UUID, limit: int, states: tuple[str, ...]
) -> Mapping[UUID, Rows]:
    rows = await database().rows(CODES_OF_POOLS, viewer.merchant_id, pool_ids, before, limit, list(states))
    return _grouped(rows, "pool_id")


async def codes_by_member(
    viewer: Viewer, member_ids: list[UUID], instant: datetime, before: UUID, limit: int, state: str | None
) -> Mapping[UUID, Rows]:
    arguments = (viewer.merchant_id, member_ids, instant, before, limit, state)
    return _grouped(await database().rows(CODES_OF_MEMBERS, *arguments), "member_id")


async def find_campaign(viewer: Viewer, node_id: str) -> Row | None:
    """Return the campaign behind an id; not for members."""
    campaign_id = ids.decode("campaign", node_id)
    if campaign_id is None or viewer.role is Role.MEMBER:
        return None
    return await database().row(FIND_CAMPAIGN, viewer.merchant_id, campaign_id)


def _grouped(rows: list[Any], column: str) -> Mapping[UUID, Rows]:
    grouped: defaultdict[UUID, Rows] = defaultdict(list)
    for row in rows:
        grouped[row[column]].append(row)
    return grouped
