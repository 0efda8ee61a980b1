"""Reading entries and rewards: one statement per list, whatever is selected on its rows."""

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.points.rows import FIND_EXCHANGE, LIST_ENTRIES, LIST_REWARDS, code_of, find_entry, find_reward
from app.points.types import PointsEntry, Reward, RewardRedemption
from app.storage.database import database


@refetches("rewardredemption")
async def find_exchange(viewer: Viewer, node_id: str) -> RewardRedemption | None:
    """Return the redemption of a reward behind an id; a member sees its own only."""
    exchange_id = ids.decode("rewardredemption", node_id)
    if exchange_id is None:
        return None
    row = await database().row(
        FIND_EXCHANGE, merchant_id=viewer.merchant_id, exchange_id=exchange_id, member_id=viewer.member_id
    )
    if row is None:
        return None
    return RewardRedemption.found(row, await code_of(database(), viewer, row))


@query(
    description="All changes of points, newest first; a member finds its own in its wallet. ADMIN, CHECKOUT, "
    "SUPPORT and ANALYST."
)
async def points_entries(info: Info, first: First = None, after: After = None) -> Connection[PointsEntry]:
    asked = page(first, after, by_instant=True)
    rows = await database().rows(
        LIST_ENTRIES,
        merchant_id=info.context.viewer.merchant_id,
        instant=asked.instant,
        before=asked.id,
        limit=asked.limit,
    )
    return connect(rows, asked, PointsEntry.of, key="entry_id", instant="entry_created_at")


@query(description="All rewards, newest first; members see those that are offered. Everyone.")
async def rewards(info: Info, first: First = None, after: After = None) -> Connection[Reward]:
    viewer = info.context.viewer
    asked = page(first, after)
    rows = await database().rows(
        LIST_REWARDS,
        merchant_id=viewer.merchant_id,
        before=asked.id,
        limit=asked.limit,
        active_only=viewer.role is Role.MEMBER,
    )
    return connect(rows, asked, Reward.of, key="reward_id")


@refetches("entry")
async def _entry(viewer: Viewer, node_id: str) -> PointsEntry | None:
    row = await find_entry(viewer, node_id)
    return None if row is None else PointsEntry.of(row)


@refetches("reward")
async def _reward(viewer: Viewer, node_id: str) -> Reward | None:
    row = await find_reward(viewer, node_id)
    return None if row is None else Reward.of(row)
