"""Reading members."""

from typing import Annotated

import strawberry

from app.api.access import require_finder
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.node import refetches
from app.api.operations import Info, bad_user_input, query
from app.members.member_keys import MemberKeyInput, checked_key, member_of_key
from app.members.rows import LIST, find_member, find_tied_member, member_row
from app.members.types import Member, MemberSource
from app.storage.database import database


@refetches("member")
async def _member(viewer: Viewer, node_id: str) -> Member | None:
    row = await find_member(viewer, node_id) or await find_tied_member(viewer, node_id)
    return None if row is None else Member.of(row)


@query(
    description="A member by id, by a store's id or by a proven address: exactly one of them. A member sees itself "
    "only, and only keys that may enrol find by more than the id. Everyone."
)
async def member(
    info: Info,
    id: Annotated[strawberry.ID | None, strawberry.argument(description="The id of a member.")] = None,
    external_id: Annotated[str | None, strawberry.argument(description="A store's id of the member.")] = None,
    external_source: Annotated[
        MemberSource | None, strawberry.argument(description="Whose id `externalId` is; STORE unless told.")
    ] = None,
    email: Annotated[str | None, strawberry.argument(description="An address that the member has proved.")] = None,
) -> Member | None:
    viewer = info.context.viewer
    if (id is None) + (external_id is None) + (email is None) != 2:
        raise bad_user_input("Exactly one of `id`, `externalId` and `email` must be given.")
    if external_source is not None and external_id is None:
        raise bad_user_input("`externalSource` needs an `externalId`.")
    if id is not None:
        row = await find_member(viewer, id)
        return None if row is None else Member.of(row)
    require_finder(viewer)
    problems = Problems()
    given = MemberKeyInput(external_id=external_id, external_source=external_source, email=email)
    key = checked_key(problems, viewer, given, path="")
    if problems.found:
        raise bad_user_input(f"`{'.'.join(problems.found[0].path)}` {problems.found[0].message}.")
    member_id = await member_of_key(viewer, key)
    row = None if member_id is None else await member_row(viewer, member_id)
    return None if row is None else Member.of(row)


@query(description="All members, newest first. ADMIN, CHECKOUT and ANALYST.")
async def members(info: Info, first: First = None, after: After = None) -> Connection[Member]:
    asked = page(first, after)
    rows = await database().rows(LIST, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit)
    return connect(rows, asked, Member.of, key="member_id")
