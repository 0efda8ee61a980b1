"""Wallets as the API shows them."""

from datetime import datetime
from typing import Annotated

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.operations import Info, Node, field
from app.coupons.rows import codes_by_member
from app.coupons.types import Code, CodeState
from app.members.rows import MemberRow
from app.members.types import Member
from app.points.rows import PurseRow, entries_by_member, purse_by_member
from app.points.types import PointsEntry
from app.storage.wallet_versions import ChangeRow


@strawberry.type(description="Points that end together.")
class PointsExpiry:
    points: int = strawberry.field(description="How many of the member's points end then, as things stand.")
    expires_at: datetime = strawberry.field(description="When they end.")


@strawberry.type(description="What a member holds.")
class Wallet(Node):
    """A wallet; its id spells the member's."""

    row: strawberry.Private[MemberRow]
    as_of: strawberry.Private[ChangeRow | None]
    version: int = strawberry.field(
        description="Grows by one with every change to this wallet, without gaps; 0 when the member is new."
    )
    points: int = strawberry.field(description="The member's points: the sum of its entries, never below 0.")
    held_points: int = strawberry.field(description="Held for orders that aren't paid yet; part of `points`.")
    shortfall: int = strawberry.field(
        description="What returns could not take back, and later purchases make good where the merchant wants it."
    )

    @classmethod
    def of(cls, row: MemberRow, *, as_of: ChangeRow | None = None) -> "Wallet":
        """Return the wallet of a member's row, as a change to it left it if one is given."""
        if as_of is not None and as_of["event_wallet_version"] is None:
            as_of = None
        node_id = strawberry.ID(ids.encode("wallet", row["member_id"]))
        if as_of is None:
            return cls(
                id=node_id,
                row=row,
                as_of=None,
                version=row["wallet_version"],
                points=row["wallet_points"],
                held_points=row["wallet_held_points"] - row["wallet_late_points"],
                shortfall=row["wallet_shortfall"],
            )
        return cls(
            id=node_id,
            row=row,
            as_of=as_of,
            version=as_of["event_wallet_version"] or 0,
            points=as_of["event_wallet_points"] or 0,
            held_points=as_of["event_wallet_held_points"] or 0,
            shortfall=as_of["event_wallet_shortfall"] or 0,
        )

    @field(description="Whose wallet it is.")
    def member(self) -> Member:
        """The row is the member's too."""
        return Member.of(self.row, as_of=self.as_of)

    @field(description="Earned and not to be spent yet; part of `points`.")
    async def pending_points(self, info: Info) -> int:
        return await self._pending(info)

    @field(description="What can be spent: `points` less those that are held or pending.")
    async def spendable_points(self, info: Info) -> int:
        """Agrees with the other two of the same answer."""
        return self.points - self.held_points - await self._pending(info)

    async def _pending(self, info: Info) -> int:
        """Go by the clock where the row may be late; a change is shown as it left the wallet.

        The lots are read after the row. What was taken back or credited in between must not show as spendable.
        """
        if self.as_of is not None:
            return self.as_of["event_wallet_pending_points"] or 0
        pending = self.row["wallet_pending_points"]
        if pending == 0:
            return 0
        purse = await self._purse(info)
        return max(pending - purse["ripe"], 0)

    @field(description="Which of the points end next, without those that are held; null if none ends.")
    async def next_expiry(self, info: Info) -> PointsExpiry | None:
        """Read it for all wallets of this page together."""
        purse = await self._purse(info)
        if purse["expires_at"] is None:
            return None
        return PointsExpiry(points=purse["expiring"], expires_at=purse["expires_at"])

    async def _purse(self, info: Info) -> PurseRow:
        purse: PurseRow = await info.context.load(purse_by_member, self.row["member_id"])
        return purse

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
