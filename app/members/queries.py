"""Reading members."""

from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Id, Info, query
from app.members.rows import LIST, find_member, find_tied_member
from app.members.types import Member
from app.storage.database import database


@refetches("member")
async def _member(viewer: Viewer, node_id: str) -> Member | None:
    row = await find_member(viewer, node_id) or await find_tied_member(viewer, node_id)
    return None if row is None else Member.of(row)


@query(description="A member by id; a member sees itself only. Everyone.")
async def member(info: Info, id: Id) -> Member | None:
    row = await find_member(info.context.viewer, id)
    return None if row is None else Member.of(row)


@query(description="All members, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
async def members(info: Info, first: First = None, after: After = None) -> Connection[Member]:
    asked = page(first, after)
    rows = await database().rows(LIST, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit)
    return connect(rows, asked, Member.of, key="member_id")
