"""Wallets as the API shows them."""

from typing import Annotated
from uuid import UUID

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.operations import Info, Node, field
from app.coupons.rows import codes_by_member
from app.coupons.types import Code, CodeState
from app.members.types import Member
from app.points.rows import entries_by_member
from app.points.types import PointsEntry
from app.storage.database import Row


async def codes_of_members(
    info: Info, member_id: UUID, first: int | None, after: str | None, state: CodeState | None
) -> Connection[Code]:
    """Return a page of a member's codes, last allocated first, read together with those of its siblings."""
    asked = page(first, after, by_instant=True)
    rows = await info.context.load(
        codes_by_member,
        member_id,
        asked.instant,
        asked.id,
        asked.limit,
        None if state is None else state.value,
    )
    return connect(rows, asked, Code.of, key="code_id", instant="code_allocated_at")


async def entries_of_members(
    info: Info, member_id: UUID, first: int | None, after: str | None
) -> Connection[PointsEntry]:
    """Return a page of a member's entries, newest first, read together with those of its siblings."""
    asked = page(first, after, by_instant=True)
    rows = await info.context.load(entries_by_member, member_id, asked.instant, asked.id, asked.limit)
    return connect(rows, asked, PointsEntry.of, key="entry_id", instant="entry_created_at")


@strawberry.type(description="What a member holds.")
class Wallet(Node):
    """A wallet; its id spells the member's."""

    row: strawberry.Private[Row]
    version: int = strawberry.field(
        description="Grows by one with every change to this wallet, without gaps; 0 when the member is new."
    )
    points: int = strawberry.field(description="The member's points: the sum of its entries, never below 0.")

    @classmethod
    def of(cls, row: Row) -> "Wallet":
        """Return the wallet of a row of MEMBER_COLUMNS."""
        node_id = strawberry.ID(ids.encode("wallet", row["member_id"]))
        return cls(id=node_id, row=row, version=row["wallet_version"], points=row["wallet_points"])

    @field(description="Whose wallet it is.")
    def member(self) -> Member:
        """The row is the member's too."""
        return Member.of(self.row)

    @field(description="The member's codes, the last one allocated first.")
    async def codes(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        state: Annotated[CodeState | None, strawberry.argument(description="Only codes in this state.")] = None,
    ) -> Connection[Code]:
        """Read the codes of all wallets of this page together."""
        member_id: UUID = self.row["member_id"]
        return await codes_of_members(info, member_id, first, after, state)

    @field(description="The changes of the member's points, newest first.")
    async def entries(self, info: Info, first: First = None, after: After = None) -> Connection[PointsEntry]:
        """Read the entries of all wallets of this page together."""
        member_id: UUID = self.row["member_id"]
        return await entries_of_members(info, member_id, first, after)
