"""Wallets as the API shows them."""

from typing import Annotated

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.operations import Info, Node, field
from app.coupons.rows import codes_by_member
from app.coupons.types import Code, CodeState
from app.members.rows import MemberRow
from app.members.types import Member
from app.points.rows import entries_by_member
from app.points.types import PointsEntry
from app.storage.wallet_versions import ChangeRow


@strawberry.type(description="What a member holds.")
class Wallet(Node):
    """A wallet; its id spells the member's."""

    row: strawberry.Private[MemberRow]
    as_of: strawberry.Private[ChangeRow | None]
    version: int = strawberry.field(
        description="Grows by one with every change to this wallet, without gaps; 0 when the member is new."
    )
    points: int = strawberry.field(description="The member's points: the sum of its entries, never below 0.")

    @classmethod
    def of(cls, row: MemberRow, *, as_of: ChangeRow | None = None) -> "Wallet":
        """Return the wallet of a member's row, as a change to it left it if one is given."""
        version, points = row["wallet_version"], row["wallet_points"]
        if as_of is not None and as_of["event_wallet_version"] is not None and as_of["event_wallet_points"] is not None:
            version, points = as_of["event_wallet_version"], as_of["event_wallet_points"]
        node_id = strawberry.ID(ids.encode("wallet", row["member_id"]))
        return cls(id=node_id, row=row, as_of=as_of, version=version, points=points)

    @field(description="Whose wallet it is.")
    def member(self) -> Member:
        """The row is the member's too."""
        return Member.of(self.row, as_of=self.as_of)

    @field(description="The member's codes, the last one allocated first.")
    async def codes(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        state: Annotated[CodeState | None, strawberry.argument(description="Only codes in this state.")] = None,
    ) -> Connection[Code]:
        """Read the codes of all wallets of this page together."""
        asked = page(first, after, by_instant=True)
        wanted = None if state is None else state.value
        rows = await info.context.load(
            codes_by_member, self.row["member_id"], asked.instant, asked.id, asked.limit, wanted
        )
        return connect(rows, asked, Code.of, key="code_id", instant="code_allocated_at")

    @field(description="The changes of the member's points, newest first.")
    async def entries(self, info: Info, first: First = None, after: After = None) -> Connection[PointsEntry]:
        """Read the entries of all wallets of this page together."""
        asked = page(first, after, by_instant=True)
        rows = await info.context.load(entries_by_member, self.row["member_id"], asked.instant, asked.id, asked.limit)
        return connect(rows, asked, PointsEntry.of, key="entry_id", instant="entry_created_at")
