"""Reading members."""

from typing import Final
from uuid import UUID

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.operations import Id, Info, query
from app.members.types import MEMBER_COLUMNS, Member, Wallet
from app.storage.database import Row, database

#: A member's wallet is looked up by its whole key, whatever the planner knows of the tables.
FROM: Final = """
    FROM member m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = $1 AND member_id = m.id OFFSET 0) w
"""
FIND: Final = f"SELECT {MEMBER_COLUMNS} {FROM} WHERE m.merchant_id = $1 AND m.id = $2"
LIST: Final = f"""
SELECT {MEMBER_COLUMNS} {FROM} WHERE m.merchant_id = $1 AND m.id < $2 ORDER BY m.id DESC LIMIT $3
"""


async def find_member(viewer: Viewer, node_id: str, kind: ids.Kind = "member") -> Row | None:
    """Return the row behind a member's or wallet's id, if this viewer may see it: a member sees itself only."""
    member_id = ids.decode(kind, node_id)
    if member_id is None or (viewer.role is Role.MEMBER and member_id != viewer.member_id):
        return None
    return await member_row(viewer, member_id)


async def member_row(viewer: Viewer, member_id: UUID) -> Row | None:
    """Return a member of the viewer's merchant."""
    return await database().row(FIND, viewer.merchant_id, member_id)


@query(description="A member by id; a member sees itself only.")
async def member(info: Info, id: Id) -> Member | None:
    """Read one member."""
    row = await find_member(info.context.viewer, id)
    return None if row is None else Member.of(row)


@query(description="All members, newest first.")
async def members(info: Info, first: First = None, after: After = None) -> Connection[Member]:
    """Read a page of members with their wallets."""
    asked = page(first, after)
    rows = await database().rows(LIST, info.context.viewer.merchant_id, asked.id, asked.limit)
    return connect(rows, asked, Member.of, key="member_id")


@query(description="The viewing member's own wallet.")
async def wallet(info: Info) -> Wallet | None:
    """Read the wallet of the member whose token this is."""
    viewer = info.context.viewer
    row = await member_row(viewer, viewer.member_id) if viewer.member_id is not None else None
    return None if row is None else Wallet.of(row)
