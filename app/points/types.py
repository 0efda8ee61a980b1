"""Entries and rewards as the API shows them."""

from datetime import datetime
from enum import Enum

import strawberry

from app import ids
from app.api.access import is_another
from app.api.operations import Info, Node, field
from app.api.scalars import described
from app.coupons.rows import WholeCodeRow, pools_by_id
from app.coupons.types import Code, Pool
from app.members.types import Member
from app.merchants.tenants import decrypted
from app.points.rows import ExchangeRow, RewardRow, WholeEntryRow, WholeExchangeRow, remaining_by_entry
from app.storage.wallet_versions import ChangeRow


@strawberry.enum(description="Why a balance changed.")
class PointsReason(Enum):
    """What causes entries."""

    PURCHASE = described("PURCHASE", "A purchase earned them.")
    REFERRAL_REFERRER = described("REFERRAL_REFERRER", "The member's invite brought someone.")
    REFERRAL_REFEREE = described("REFERRAL_REFEREE", "The member came by an invite.")
    REWARD = described("REWARD", "They paid for a reward.")
    PAYMENT = described("PAYMENT", "They paid for an order.")
    ADJUSTMENT = described("ADJUSTMENT", "A person gave or took them.")
    REFUND = described("REFUND", "They had been spent and came back.")
    REVERSAL = described("REVERSAL", "The purchase that earned them, or others in their place, was taken back.")
    EXPIRY = described("EXPIRY", "Their lifetime ended.")
    ERASURE = described("ERASURE", "The member was erased; or they came back after that.")
    MERGE = described("MERGE", "Two records were merged: they left one, or came to the other as they were.")


@strawberry.type(description="A change of a member's points: written once, never changed.")
class PointsEntry(Node):
    """An entry of the ledger."""

    row: strawberry.Private[WholeEntryRow]
    member: Member = strawberry.field(description="Whose points.")
    amount: int = strawberry.field(description="How many: over 0 earned, below 0 spent.")
    reason: PointsReason = strawberry.field(description="Why.")
    spendable_at: datetime | None = strawberry.field(
        description="From when these points can be spent; null of a debit and of points that came back."
    )
    expires_at: datetime | None = strawberry.field(
        description="From when what is left of these points expires; null for ever."
    )
    created_at: datetime = strawberry.field(
        description="When the balance changed; later than the member's entry before it, even if a clock was set back."
    )

    @classmethod
    def of(cls, row: WholeEntryRow, *, as_of: ChangeRow | None = None) -> "PointsEntry":
        """Return the entry of a row, its member's wallet as a change left it if one is given."""
        return cls(
            id=strawberry.ID(ids.encode("entry", row["entry_id"])),
            row=row,
            member=Member.of(row, as_of=as_of),
            amount=row["entry_amount"],
            reason=PointsReason(row["entry_reason"]),
            spendable_at=row["entry_spendable_at"],
            expires_at=row["entry_expires_at"],
            created_at=row["entry_created_at"],
        )

    @field(
        description="What it refers to: an order's id, a reward's name, or what was given with the adjustment, until "
        "the member is erased."
    )
    async def reference(self, info: Info) -> str | None:
        """Decrypt what a person said of it."""
        sealed = self.row["entry_told"]
        if sealed is None:
            return self.row["entry_reference"]
        return await decrypted(info.context.viewer.tenant, self.row["entry_id"], "reference", sealed)

    @field(description="The member's points right after it, exactly; null to another member.")
    def balance_after(self, info: Info) -> int | None:
        """A referral shows a member what another one earned, and not what it has."""
        return None if is_another(info.context.viewer, self.row["member_id"]) else self.row["entry_balance_after"]

    @field(
        description="What is left of this credit, pending or not; null of a debit, of points that came back to other "
        "credits, and to another member."
    )
    async def remaining(self, info: Info) -> int | None:
        """Read what is left of all credits of this page together."""
        if self.row["entry_spendable_at"] is None or is_another(info.context.viewer, self.row["member_id"]):
            return None
        return await info.context.load(remaining_by_entry, self.row["entry_id"])


@strawberry.type(description="Something to have for points.")
class Reward(Node):
    """A reward of the Rewards Exchange."""

    row: strawberry.Private[RewardRow]
    name: str = strawberry.field(description="Its name.")
    cost: int = strawberry.field(description="What it costs, in points.")
    stock: int | None = strawberry.field(description="How often it can still be had; null without limit.")
    active: bool = strawberry.field(description="Whether it is offered; a retired reward isn't.")

    @classmethod
    def of(cls, row: RewardRow) -> "Reward":
        """Return the reward of a row."""
        return cls(
            id=strawberry.ID(ids.encode("reward", row["reward_id"])),
            row=row,
            name=row["reward_name"],
            cost=row["reward_cost"],
            stock=row["reward_stock"],
            active=row["reward_active"],
        )

    @field(description="The pool that gives a code with each redemption; null for rewards without a code.")
    async def pool(self, info: Info) -> Pool | None:
        """Read the pools of all rewards of this page together."""
        pool_id = self.row["reward_pool_id"]
        return None if pool_id is None else Pool.of(await info.context.load(pools_by_id, pool_id))


@strawberry.type(description="A reward that a member had: points, stock and code changed together.")
class RewardRedemption(Node):
    """A redemption of a reward."""

    reward: Reward = strawberry.field(description="The reward.")
    member: Member = strawberry.field(description="Who had it.")
    code: Code | None = strawberry.field(description="The code that it brought; null where the reward has no pool.")
    entry: PointsEntry = strawberry.field(description="What was paid.")
    created_at: datetime = strawberry.field(description="When.")
    reversed_at: datetime | None = strawberry.field(description="When it went back; null while it stands.")

    @classmethod
    def found(cls, row: WholeExchangeRow, code: WholeCodeRow | None) -> "RewardRedemption":
        """Return a redemption that was read whole, with the code that it brought."""
        return cls.of(row, reward=row, entry=row, code=None if code is None else Code.of(code))

    @classmethod
    def of(cls, row: ExchangeRow, *, reward: RewardRow, entry: WholeEntryRow, code: Code | None) -> "RewardRedemption":
        """Return the redemption of a row, of a reward, paid for by an entry; a WholeExchangeRow is all three."""
        return cls(
            id=strawberry.ID(ids.encode("rewardredemption", row["exchange_id"])),
            reward=Reward.of(reward),
            member=Member.of(entry),
            code=code,
            entry=PointsEntry.of(entry),
            created_at=row["exchange_created_at"],
            reversed_at=row["exchange_reversed_at"],
        )
