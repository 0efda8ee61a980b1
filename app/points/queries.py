"""Reading entries, purchases and rewards: one statement per list, whatever is selected on its rows."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.operations import Info, query
from app.coupons.queries import FIND_CODE
from app.members.types import MEMBER_COLUMNS
from app.points.types import (
    ENTRY_COLUMNS,
    PURCHASE_COLUMNS,
    REWARD_COLUMNS,
    REWARD_REDEMPTION_COLUMNS,
    PointsEntry,
    Reward,
    RewardRedemption,
)
from app.storage.database import Row, Statements, database

#: Each row is looked up by its whole key, whatever the planner knows of the tables.
JOIN_MEMBER: Final = """
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = $1 AND id = {0}.member_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = $1 AND member_id = {0}.member_id OFFSET 0) w
"""
FIND_ENTRY: Final = f"""
SELECT {ENTRY_COLUMNS}, {MEMBER_COLUMNS} FROM points_entry e {JOIN_MEMBER.format("e")}
WHERE e.merchant_id = $1 AND e.id = $2 AND ($3::uuid IS NULL OR e.member_id = $3)
"""
FIND_ENTRY_BY_ORIGIN: Final = f"""
SELECT {ENTRY_COLUMNS}, {MEMBER_COLUMNS} FROM points_entry e {JOIN_MEMBER.format("e")}
WHERE e.merchant_id = $1 AND e.reason = $2 AND e.origin = $3
"""
LIST_ENTRIES: Final = f"""
SELECT {ENTRY_COLUMNS}, {MEMBER_COLUMNS} FROM points_entry e {JOIN_MEMBER.format("e")}
WHERE e.merchant_id = $1 AND (e.created_at, e.id) < ($2, $3)
ORDER BY e.created_at DESC, e.id DESC LIMIT $4
"""
ENTRIES_OF_MEMBERS: Final = f"""
WITH page AS (
    SELECT newest.id FROM unnest($2::uuid[]) AS asked (member_id) CROSS JOIN LATERAL (
        SELECT id FROM points_entry
        WHERE merchant_id = $1 AND member_id = asked.member_id AND (created_at, id) < ($3, $4)
        ORDER BY created_at DESC, id DESC LIMIT $5
    ) newest
)
SELECT {ENTRY_COLUMNS}, {MEMBER_COLUMNS} FROM points_entry e {JOIN_MEMBER.format("e")}
WHERE e.merchant_id = $1 AND e.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY e.created_at DESC, e.id DESC
"""
FIND_PURCHASE: Final = f"""
SELECT {PURCHASE_COLUMNS}, {MEMBER_COLUMNS} FROM purchase b {JOIN_MEMBER.format("b")}
WHERE b.merchant_id = $1 AND b.id = $2 AND ($3::uuid IS NULL OR b.member_id = $3)
"""
FIND_REWARD: Final = f"""
SELECT {REWARD_COLUMNS} FROM reward a WHERE a.merchant_id = $1 AND a.id = $2 AND (a.active OR NOT $3)
"""
LIST_REWARDS: Final = f"""
SELECT {REWARD_COLUMNS} FROM reward a
WHERE a.merchant_id = $1 AND a.id < $2 AND (a.active OR NOT $4) ORDER BY a.id DESC LIMIT $3
"""
#: Everything that a RewardRedemption can show but its code.
WHOLE_EXCHANGE: Final = f"""
SELECT {REWARD_REDEMPTION_COLUMNS}, x.code_id AS exchange_code_id, x.idempotency_key AS exchange_key,
    {REWARD_COLUMNS}, {ENTRY_COLUMNS}, {MEMBER_COLUMNS}
FROM reward_redemption x
CROSS JOIN LATERAL (SELECT * FROM reward WHERE merchant_id = $1 AND id = x.reward_id OFFSET 0) a
CROSS JOIN LATERAL (SELECT * FROM points_entry WHERE merchant_id = $1 AND id = x.entry_id OFFSET 0) e
{JOIN_MEMBER.format("x")}
"""
FIND_EXCHANGE: Final = f"""
{WHOLE_EXCHANGE} WHERE x.merchant_id = $1 AND x.id = $2 AND ($3::uuid IS NULL OR x.member_id = $3)
"""

Rows = list[Row]


async def find_entry(viewer: Viewer, node_id: str) -> Row | None:
    """Return the entry behind an id; a member sees its own only."""
    entry_id = ids.decode("entry", node_id)
    if entry_id is None:
        return None
    return await database().row(FIND_ENTRY, viewer.merchant_id, entry_id, viewer.member_id)


async def find_purchase(viewer: Viewer, node_id: str) -> Row | None:
    """Return the purchase behind an id; a member sees its own only."""
    purchase_id = ids.decode("purchase", node_id)
    if purchase_id is None:
        return None
    return await purchase_row(viewer, purchase_id)


async def purchase_row(viewer: Viewer, purchase_id: UUID) -> Row | None:
    """Return a purchase of the viewer's merchant; a member's own only."""
    return await database().row(FIND_PURCHASE, viewer.merchant_id, purchase_id, viewer.member_id)


async def find_reward(viewer: Viewer, node_id: str) -> Row | None:
    """Return the reward behind an id; members see those that are offered."""
    reward_id = ids.decode("reward", node_id)
    if reward_id is None:
        return None
    return await database().row(FIND_REWARD, viewer.merchant_id, reward_id, viewer.role is Role.MEMBER)


async def find_exchange(viewer: Viewer, node_id: str) -> RewardRedemption | None:
    """Return the redemption of a reward behind an id; a member sees its own only."""
    exchange_id = ids.decode("rewardredemption", node_id)
    if exchange_id is None:
        return None
    row = await database().row(FIND_EXCHANGE, viewer.merchant_id, exchange_id, viewer.member_id)
    return None if row is None else RewardRedemption.of(row, await code_of(database(), viewer, row))


async def code_of(where: Statements, viewer: Viewer, exchange: Row) -> Row | None:
    """Return the code that a redemption of a reward brought, if any."""
    code_id = exchange["exchange_code_id"]
    return None if code_id is None else await where.row(FIND_CODE, viewer.merchant_id, code_id, None)


async def entries_of_members(
    info: Info, member_id: UUID, first: int | None, after: str | None
) -> Connection[PointsEntry]:
    """Return a page of a member's entries, newest first, read together with those of its siblings."""
    asked = page(first, after, by_instant=True)
    rows = await info.context.load(_entries_by_member, member_id, asked.instant, asked.id, asked.limit)
    return connect(rows, asked, PointsEntry.of, key="entry_id", instant="entry_created_at")


async def _entries_by_member(
    viewer: Viewer, member_ids: list[UUID], instant: datetime, before: UUID, limit: int
) -> Mapping[UUID, Rows]:
    grouped: defaultdict[UUID, Rows] = defaultdict(list)
    for row in await database().rows(ENTRIES_OF_MEMBERS, viewer.merchant_id, member_ids, instant, before, limit):
        grouped[row["member_id"]].append(row)
    return grouped


@query(description="All changes of points, newest first. A member finds its own in its wallet.")
async def points_entries(info: Info, first: First = None, after: After = None) -> Connection[PointsEntry]:
    """Read a page of entries with their members."""
    asked = page(first, after, by_instant=True)
    rows = await database().rows(LIST_ENTRIES, info.context.viewer.merchant_id, asked.instant, asked.id, asked.limit)
    return connect(rows, asked, PointsEntry.of, key="entry_id", instant="entry_created_at")


@query(description="All rewards, newest first; members see those that are offered.")
async def rewards(info: Info, first: First = None, after: After = None) -> Connection[Reward]:
    """Read a page of rewards."""
    viewer = info.context.viewer
    asked = page(first, after)
    rows = await database().rows(LIST_REWARDS, viewer.merchant_id, asked.id, asked.limit, viewer.role is Role.MEMBER)
    return connect(rows, asked, Reward.of, key="reward_id")
