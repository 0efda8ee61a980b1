"""What statements select of entries and rewards, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.coupons.rows import FIND_CODE
from app.members.rows import MEMBER_COLUMNS
from app.storage.database import Row, Statements, database
from app.storage.statements import columns, row_of


@row_of(e="points_entry")
class EntryRow(TypedDict):
    """An entry `e` of the ledger."""

    entry_id: Annotated[UUID, "e.id"]
    entry_amount: Annotated[int, "e.amount"]
    entry_balance_after: Annotated[int, "e.balance_after"]
    entry_reason: Annotated[str, "e.reason"]
    entry_reference: Annotated[str | None, "e.reference"]
    entry_expires_at: Annotated[datetime | None, "e.expires_at"]
    entry_created_at: Annotated[datetime, "e.created_at"]


ENTRY_COLUMNS: Final = columns(EntryRow)


@row_of(a="reward")
class RewardRow(TypedDict):
    """A reward `a`."""

    reward_id: Annotated[UUID, "a.id"]
    reward_name: Annotated[str, "a.name"]
    reward_cost: Annotated[int, "a.cost"]
    reward_stock: Annotated[int | None, "a.stock"]
    reward_pool_id: Annotated[UUID | None, "a.pool_id"]
    reward_active: Annotated[bool, "a.active"]


REWARD_COLUMNS: Final = columns(RewardRow)


@row_of(x="reward_redemption")
class ExchangeRow(TypedDict):
    """A redemption `x` of a reward."""

    exchange_id: Annotated[UUID, "x.id"]
    exchange_created_at: Annotated[datetime, "x.created_at"]


REWARD_REDEMPTION_COLUMNS: Final = columns(ExchangeRow)


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
