"""Reading pools, codes and redemptions: one statement per list, whatever is selected on its rows."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.operations import Id, Info, query
from app.coupons.types import (
    CODE_COLUMNS,
    POOL_COLUMNS,
    REDEMPTION_COLUMNS,
    Campaign,
    Code,
    CodeState,
    Delivery,
    Pool,
    PoolStatus,
    PoolStock,
    Redemption,
)
from app.members.types import MEMBER_COLUMNS
from app.storage.database import Row, Statements, database

_STATES: Final = [state.value for state in CodeState]

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


async def stock_of_pools(viewer: Viewer, pool_ids: list[UUID]) -> Mapping[UUID, PoolStock]:
    """Return the exact stock of pools: the sum of what every change did to it."""
    rows = await database().rows(STOCK_OF_POOLS, viewer.merchant_id, pool_ids)
    stocks = {row["pool_id"]: {state.lower(): row[state.lower()] for state in _STATES} for row in rows}
    nothing = {state.lower(): 0 for state in _STATES}
    return {
        pool_id: PoolStock(total=sum(counts.values()), **counts)
        for pool_id, counts in ((pool_id, stocks.get(pool_id, nothing)) for pool_id in pool_ids)
    }


async def codes_of_pools(
    info: Info, pool_id: UUID, first: int | None, after: str | None, state: CodeState | None
) -> Connection[Code]:
    """Return a page of a pool's codes, newest first, read together with those of its siblings."""
    asked = page(first, after)
    states = _STATES if state is None else [state.value]
    rows = await info.context.load(_codes_by_pool, pool_id, asked.id, asked.limit, tuple(states))
    return connect(rows, asked, Code.of, key="code_id")


async def _codes_by_pool(
    viewer: Viewer, pool_ids: list[UUID], before: UUID, limit: int, states: tuple[str, ...]
) -> Mapping[UUID, Rows]:
    rows = await database().rows(CODES_OF_POOLS, viewer.merchant_id, pool_ids, before, limit, list(states))
    return _grouped(rows, "pool_id")


async def codes_of_members(
    info: Info, member_id: UUID, first: int | None, after: str | None, state: CodeState | None
) -> Connection[Code]:
    """Return a page of a member's codes, last allocated first, read together with those of its siblings."""
    asked = page(first, after, by_instant=True)
    rows = await info.context.load(
        _codes_by_member,
        member_id,
        asked.instant,
        asked.id,
        asked.limit,
        None if state is None else state.value,
    )
    return connect(rows, asked, Code.of, key="code_id", instant="code_allocated_at")


async def _codes_by_member(
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


async def deliveries_of_campaign(
    info: Info, campaign_id: UUID, first: int | None, after: str | None
) -> Connection[Delivery]:
    """Return a page of a campaign's deliveries, and put on record who read it."""
    asked = page(first, after)
    viewer = info.context.viewer
    arguments = (viewer.merchant_id, campaign_id, asked.id, asked.limit, ids.new(), viewer.actor)
    return connect(await database().rows(DELIVERIES, *arguments), asked, Delivery.of, key="code_id")


def _grouped(rows: list[Any], column: str) -> Mapping[UUID, Rows]:
    grouped: defaultdict[UUID, Rows] = defaultdict(list)
    for row in rows:
        grouped[row[column]].append(row)
    return grouped


@query(description="A pool by id.")
async def pool(info: Info, id: Id) -> Pool | None:
    """Read one pool."""
    row = await find_pool(info.context.viewer, id)
    return None if row is None else Pool.of(row)


@query(description="All pools, newest first.")
async def pools(
    info: Info,
    first: First = None,
    after: After = None,
    status: Annotated[PoolStatus | None, strawberry.argument(description="Only pools in this status.")] = None,
) -> Connection[Pool]:
    """Read a page of pools."""
    asked = page(first, after)
    wanted = None if status is None else status.value
    rows = await database().rows(LIST_POOLS, info.context.viewer.merchant_id, asked.id, asked.limit, wanted)
    return connect(rows, asked, Pool.of, key="pool_id")


@query(description="All codes of all pools, newest first.")
async def codes(
    info: Info,
    first: First = None,
    after: After = None,
    state: Annotated[CodeState | None, strawberry.argument(description="Only codes in this state.")] = None,
) -> Connection[Code]:
    """Read a page of codes with their pools and owners."""
    asked = page(first, after)
    arguments: list[object] = [info.context.viewer.merchant_id, asked.id, asked.limit]
    statement = LIST_CODES
    if state is not None:
        statement = LIST_CODES_IN_STATE
        arguments.append(state.value)
    return connect(await database().rows(statement, *arguments), asked, Code.of, key="code_id")


@query(description="All redemptions, newest first.")
async def redemptions(info: Info, first: First = None, after: After = None) -> Connection[Redemption]:
    """Read a page of redemptions with their codes."""
    asked = page(first, after)
    rows = await database().rows(LIST_REDEMPTIONS, info.context.viewer.merchant_id, asked.id, asked.limit)
    return connect(rows, asked, Redemption.of, key="redemption_id")


@query(description="A campaign by id.")
async def campaign(info: Info, id: Id) -> Campaign | None:
    """Read one campaign."""
    row = await find_campaign(info.context.viewer, id)
    return None if row is None else Campaign.of(row)
