"""The viewing member's own wallet."""

from app.api.operations import Info, query
from app.members.rows import member_row
from app.wallets.types import Wallet


@query(description="The viewing member's own wallet.")
async def wallet(info: Info) -> Wallet | None:
    """Read the wallet of the member whose token this is."""
    viewer = info.context.viewer
    row = await member_row(viewer, viewer.member_id) if viewer.member_id is not None else None
    return None if row is None else Wallet.of(row)
