"""Rows of the points ledger and of rewards."""

from tortoise import fields
from tortoise.models import Model


class PointsEntry(Model):
    """A change of a balance, written once and never changed. `origin` is what caused it: once per reason.

    What a person said of it is no part of it (EntryReference): `reference_index` knows that again, and `told_of` the
    key that named the member. A credit that makes a lot has the dates of it: from when its points can be spent, and
    when they end. So has one by which a lot of a merged member became the kept one's; it names the lot.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    amount = fields.IntField()
    balance_after = fields.IntField()
    reason = fields.CharField(max_length=20)
    origin = fields.CharField(max_length=240)
    reference = fields.CharField(max_length=200, null=True)
    reference_index = fields.BinaryField(null=True)
    told_of = fields.BinaryField(null=True)
    spendable_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    lot_id = fields.UUIDField(null=True)

    class Meta:
        table = "points_entry"


class EntryReference(Model):
    """What a person said of an entry (a ciphertext). It goes when its member is erased; the entry stays."""

    entry_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    reference = fields.BinaryField()

    class Meta:
        table = "entry_reference"


class PointsLot(Model):
    """What is left of a credit, which its entry names. An endless one ends at infinity.

    `held` is how much of that is held: nobody spends it, and it doesn't expire. `expired` is what expired of it,
    `returned` how much of the credit was taken back. `last_entry_id` is the entry that changed it last. `member_id` is
    whose it is by now: that of its entry may have been merged.
    """

    entry_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    amount = fields.IntField()
    remaining = fields.IntField()
    held = fields.IntField(db_default=0)
    is_open = fields.BooleanField()
    is_pending = fields.BooleanField()
    is_warned = fields.BooleanField()
    expired = fields.IntField(db_default=0)
    returned = fields.IntField(db_default=0)
    spendable_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    created_at = fields.DatetimeField()
    last_entry_id = fields.UUIDField()

    class Meta:
        table = "points_lot"


class PointsPart(Model):
    """What an entry took from a lot (below 0) or gave back to one, and how much of it has come back since.

    `held_at` is since when it was held, where it was held before it was taken.
    """

    entry_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    lot_id = fields.UUIDField()
    amount = fields.IntField()
    returned = fields.IntField(db_default=0)
    held_at = fields.DatetimeField(null=True)

    class Meta:
        table = "points_part"


class HoldPart(Model):
    """Points of a lot that a hold has set aside: at position 0 to pay with, at position n for its n-th reward.

    `held_at` is the date of the wallet's change that held them. The row goes when they are captured or freed.
    """

    hold_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    position = fields.IntField()
    lot_id = fields.UUIDField()
    amount = fields.IntField()
    held_at = fields.DatetimeField()

    class Meta:
        table = "hold_part"


class PointsReturn(Model):
    """A take-back of points of a lot: how much of its credit, how much of that had expired, and what is lacking.

    `since` is the date of the change of the wallet that took them.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    lot_id = fields.UUIDField()
    amount = fields.IntField()
    expired = fields.IntField()
    shortfall = fields.IntField()
    since = fields.DatetimeField()

    class Meta:
        table = "points_return"


class PointsCover(Model):
    """How many points a lot has paid for a take-back of another one, less what it got back for them."""

    lot_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    return_id = fields.UUIDField()
    amount = fields.IntField()

    class Meta:
        table = "points_cover"


class Reward(Model):
    """Something to have for points; a stock of null is unlimited, a pool gives a code with each redemption."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    name = fields.CharField(max_length=200)
    cost = fields.IntField()
    stock = fields.IntField(null=True)
    pool_id = fields.UUIDField(null=True)
    active = fields.BooleanField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "reward"


class RewardRedemption(Model):
    """That a member had a reward: the entry that paid for it and the code that it brought.

    One that is reversed gives back to the stock what it took from it.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    reward_id = fields.UUIDField()
    member_id = fields.UUIDField()
    code_id = fields.UUIDField(null=True)
    entry_id = fields.UUIDField()
    idempotency_key = fields.BinaryField()
    is_from_stock = fields.BooleanField()
    created_at = fields.DatetimeField()
    reversed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "reward_redemption"
