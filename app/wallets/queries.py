"""The viewing member's own wallet."""

from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.members.rows import find_member, member_row
from app.wallets.types import Wallet


@query(description="The viewing member's own wallet; for MEMBER, null to others.")
async def wallet(info: Info) -> Wallet | None:
    viewer = info.context.viewer
    row = await member_row(viewer, viewer.member_id) if viewer.member_id is not None else None
    return None if row is None else Wallet.of(row)


@refetches("wallet")
async def _wallet(viewer: Viewer, node_id: str) -> Wallet | None:
    row = await find_member(viewer, node_id, "wallet")
    return None if row is None else Wallet.of(row)
