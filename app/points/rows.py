"""What statements select of entries and rewards, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.coupons.rows import FIND_CODE
from app.members.rows import MEMBER_COLUMNS
from app.storage.database import Row, Statements, database

#: What a statement selects to make a PointsEntry, a Purchase, a Reward and a RewardRedemption; the tables are `e`,
#: `b` (bought), `w` and `m` for the member, `a` (award) and `x` (exchange).
ENTRY_COLUMNS: Final = """
    e.id AS entry_id, e.amount AS entry_amount, e.balance_after AS entry_balance_after, e.reason AS entry_reason,
    e.reference AS entry_reference, e.expires_at AS entry_expires_at, e.created_at AS entry_created_at
"""


REWARD_COLUMNS: Final = """
    a.id AS reward_id, a.name AS reward_name, a.cost AS reward_cost, a.stock AS reward_stock,
    a.pool_id AS reward_pool_id, a.active AS reward_active
"""


REWARD_REDEMPTION_COLUMNS: Final = "x.id AS exchange_id, x.created_at AS exchange_created_at"


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


async def find_reward(viewer: Viewer, node_id: str) -> Row | None:
    """Return the reward behind an id; members see those that are offered."""
    reward_id = ids.decode("reward", node_id)
    if reward_id is None:
        return None
    return await database().row(FIND_REWARD, viewer.merchant_id, reward_id, viewer.role is Role.MEMBER)


async def code_of(where: Statements, viewer: Viewer, exchange: Row) -> Row | None:
    """Return the code that a redemption of a reward brought, if any."""
    code_id = exchange["exchange_code_id"]
    return None if code_id is None else await where.row(FIND_CODE, viewer.merchant_id, code_id, None)


async def entries_by_member(
    viewer: Viewer, member_ids: list[UUID], instant: datetime, before: UUID, limit: int
) -> Mapping[UUID, Rows]:
    grouped: defaultdict[UUID, Rows] = defaultdict(list)
    for row in await database().rows(ENTRIES_OF_MEMBERS, viewer.merchant_id, member_ids, instant, before, limit):
        grouped[row["member_id"]].append(row)
    return grouped
