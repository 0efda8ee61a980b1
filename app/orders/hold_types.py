"""Holds as the API shows them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from uuid import UUID

import strawberry

from app import ids
from app.api.access import is_another
from app.api.context import Viewer
from app.api.inputs import Money
from app.api.node import refetches
from app.api.operations import Info, Node, Refusal, field
from app.api.scalars import BigInt, described
from app.coupons.types import Code, Redemption
from app.members.rows import unnamed
from app.members.types import Member, MemberSource
from app.orders.held_rewards import HeldRewardRow, rewards_by_hold
from app.orders.holds import Changed, Content, HeldCodeRow, WholeHoldRow, codes_by_hold, find_hold, has_rewards
from app.orders.presented_codes import CodeRejection
from app.points.rows import exchanges_by_id
from app.points.types import Reward, RewardRedemption
from app.storage.wallet_versions import ChangeRow


@strawberry.enum(description="What became of a hold.")
class HoldStatus(Enum):
    """A hold ends once, but for one that expired."""

    HELD = described("HELD", "What it holds is there for its order, until `heldUntil`.")
    CAPTURED = described("CAPTURED", "What it held was redeemed and paid.")
    RELEASED = described("RELEASED", "It was given up, for good.")
    EXPIRED = described("EXPIRED", "Its time has passed; it is captured all the same if all that it held is there.")


@strawberry.type(description="A code of a hold.")
class HeldCode:
    code: Code = strawberry.field(description="The code.")
    discount: Money = strawberry.field(description="What it takes off the order, in its place among the others.")

    @classmethod
    def of(cls, row: HeldCodeRow, currency: str, *, as_of: ChangeRow | None = None) -> "HeldCode":
        """Return the held code of a row, its owner's wallet as a change left it if one is given."""
        discount = Money(amount_minor=BigInt(row["held_discount"]), currency=currency)
        return cls(code=Code.of(row, as_of=as_of), discount=discount)


@strawberry.type(description="A reward of a hold.")
class HeldReward:
    redemption_id: strawberry.Private[UUID | None]
    reward: Reward = strawberry.field(description="The reward.")
    cost: int = strawberry.field(description="What it costs, in points, which are held, too.")

    @classmethod
    def of(cls, row: HeldRewardRow, *, is_captured: bool) -> "HeldReward":
        """Return the held reward of a row, and what it became if its hold is captured."""
        redemption_id = row["held_redemption_id"] if is_captured else None
        return cls(redemption_id=redemption_id, reward=Reward.of(row), cost=row["held_cost"])

    @field(description="What it became when the hold was captured; null before.")
    async def redemption(self, info: Info) -> RewardRedemption | None:
        """Read the redemptions of all rewards of this page together."""
        if self.redemption_id is None:
            return None
        return RewardRedemption.found(*await info.context.load(exchanges_by_id, self.redemption_id))


@strawberry.type(description="What is set aside for one order while its customer pays.")
class Hold(Node):
    row: strawberry.Private[WholeHoldRow]
    as_of: strawberry.Private[ChangeRow | None]
    content: strawberry.Private[Content | None]
    status: HoldStatus = strawberry.field(description="What became of it.")
    source: MemberSource = strawberry.field(description="Where its order comes from.")
    order_id: str = strawberry.field(description="The source's own id of the order.")
    points: int = strawberry.field(
        description="How many points it pays with; once it is captured, those that were paid."
    )
    held_until: datetime = strawberry.field(
        description="Until when everything is there for the order; from then on the hold is EXPIRED, unless it ended."
    )

    @classmethod
    def of(cls, row: WholeHoldRow, content: Content | None = None, *, as_of: ChangeRow | None = None) -> "Hold":
        """Return the hold of a row, what it has and its member's wallet as a change left them if they are given."""
        return cls(
            id=strawberry.ID(ids.encode("hold", row["hold_id"])),
            row=row,
            as_of=as_of,
            content=content,
            status=HoldStatus(row["hold_status"]),
            source=MemberSource(row["hold_source"]),
            order_id=row["hold_order_id"],
            points=row["hold_points"],
            held_until=row["hold_held_until"],
        )

    @classmethod
    def changed(cls, changed: Changed) -> "Hold":
        """Return a hold that has just changed, with what that left of it and of its member's wallet."""
        return cls.of(changed.row, changed.content, as_of=changed.change)

    @property
    def _is_captured(self) -> bool:
        """What it has may be read after it: one that is told as EXPIRED may have been captured by then."""
        return self.status is HoldStatus.CAPTURED

    def _money(self, amount_minor: int) -> Money:
        return Money(amount_minor=BigInt(amount_minor), currency=self.row["hold_currency"])

    @field(description="Whom it is for; null where the till named an address or nobody.")
    def member(self) -> Member | None:
        """The statement that read the hold read its member."""
        return None if self.row["hold_member_id"] is None else Member.of(self.row, as_of=self.as_of)

    @field(description="What the order is worth before discounts: goods with tax, without shipping.")
    def order_amount(self) -> Money:
        return self._money(self.row["hold_order_amount"])

    @field(description="What its codes take off together.")
    def total_discount(self) -> Money:
        return self._money(self.row["hold_total_discount"])

    @field(description="What its points pay, at the value that a point had when they were held.")
    def points_value(self) -> Money:
        return self._money(self.row["hold_points_value"])

    @field(description="What is left to pay with money.")
    def amount_due(self) -> Money:
        row = self.row
        return self._money(row["hold_order_amount"] - row["hold_total_discount"] - row["hold_points_value"])

    @field(description="Its codes, in the order in which they apply: at most 20.")
    async def codes(self, info: Info) -> list[HeldCode]:
        """Read the codes of all holds of this page together."""
        changes: Mapping[UUID, ChangeRow] = {} if self.content is None else self.content.changes
        return [
            HeldCode.of(
                row,
                self.row["hold_currency"],
                as_of=None if row["code_member_id"] is None else changes.get(row["code_member_id"]),
            )
            for row in await self._codes(info)
        ]

    @field(description="Its rewards, in the order in which they were asked for: at most 20.")
    async def rewards(self, info: Info) -> list[HeldReward]:
        """Read the rewards of all holds of this page together. Each costs points, which are held, too."""
        if not has_rewards(self.row):
            return []
        rows = None if self.content is None else self.content.rewards
        if rows is None:
            rows = await info.context.load(rewards_by_hold, self.row["hold_id"])
        return [HeldReward.of(row, is_captured=self._is_captured) for row in rows]

    @field(description="What it redeemed, in the order in which it applied; empty until it is captured.")
    async def redemptions(self, info: Info) -> list[Redemption]:
        """The statement that reads the codes reads what redeemed them."""
        if not self._is_captured:
            return []
        return [Redemption.of(row) for row in await self._codes(info) if row["redemption_id"] is not None]

    async def _codes(self, info: Info) -> list[HeldCodeRow]:
        """A member sees the codes of its hold, and not who owns those that aren't its own."""
        rows: Sequence[HeldCodeRow]
        if self.content is not None:
            rows = self.content.codes
        else:
            rows = await info.context.load(codes_by_hold, self.row["hold_id"])
        owned = [(row, row["code_member_id"]) for row in rows]
        return [
            row if owner is None or not is_another(info.context.viewer, owner) else unnamed(row) for row, owner in owned
        ]


@refetches("hold")
async def _hold(viewer: Viewer, node_id: str) -> Hold | None:
    found = await find_hold(viewer, node_id)
    return None if found is None else Hold.of(*found)


@strawberry.type(description="The hold has ended, or what it held is gone.")
class HoldNotOpen(Refusal):
    hold: Hold = strawberry.field(description="The hold as it stands.")
    rejections: list[CodeRejection] = strawberry.field(description="Those of its codes that are missing, and why.")
    points_missing: int = strawberry.field(description="How many of its points can't be spent any more.")
    rewards_missing: list[strawberry.ID] = strawberry.field(description="Those of its rewards that can't be had.")

    @classmethod
    def of(
        cls,
        row: WholeHoldRow,
        why: str,
        *,
        rejections: Sequence[CodeRejection] = (),
        points_missing: int = 0,
        rewards_missing: Sequence[UUID] = (),
    ) -> "HoldNotOpen":
        """Return the refusal of a hold."""
        message = f"The hold can't be had: {why}."
        return cls(
            message=message,
            hold=Hold.of(row),
            rejections=list(rejections),
            points_missing=points_missing,
            rewards_missing=[strawberry.ID(ids.encode("reward", each)) for each in rewards_missing],
        )
