"""viewer: who is asking."""

import strawberry

from app.api.context import Role
from app.api.operations import Info, guarded, query
from app.members.rows import member_row
from app.members.types import Member
from app.merchants.types import Merchant


@strawberry.type(description="Who is asking.")
class Viewer:
    """The caller."""

    role: Role = strawberry.field(description="What the caller may do.")
    merchant: Merchant = strawberry.field(description="The merchant it belongs to.")

    @guarded("Viewer.member", description="The member whose token this is; for MEMBER, null to others.")
    async def member(self, info: Info) -> Member | None:
        caller = info.context.viewer
        row = await member_row(caller, caller.member_id) if caller.member_id is not None else None
        return None if row is None else Member.of(row)


@query(description="Who is asking. Everyone.")
def viewer(info: Info) -> Viewer:
    """Answer from what authentication knows."""
    caller = info.context.viewer
    return Viewer(role=caller.role, merchant=Merchant.of(caller.tenant))
