"""Rows of the points ledger, purchases and rewards; amounts are in minor units of the merchant's currency."""

from tortoise import fields
from tortoise.models import Model


class PointsEntry(Model):
    """A change of a balance, written once and never changed. `origin` is what caused it: once per reason.

    `mark` places it among the member's points that expire: what was ever earned of them up to a credit that has a
    lifetime, what was ever spent of them up to an EXPIRY.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    amount = fields.IntField()
    balance_after = fields.IntField()
    reason = fields.CharField(max_length=20)
    origin = fields.CharField(max_length=240)
    reference = fields.CharField(max_length=200, null=True)
    mark = fields.BigIntField(null=True)
    expires_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "points_entry"


class PointsDue(Model):
    """A credit that will expire; the row goes when it has, whether anything was left of it or not."""

    entry_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    mark = fields.BigIntField()
    expires_at = fields.DatetimeField()
    warned = fields.BooleanField()

    class Meta:
        table = "points_due"


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
    """That a member had a reward: the entry that paid for it and the code that it brought."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    reward_id = fields.UUIDField()
    member_id = fields.UUIDField()
    code_id = fields.UUIDField(null=True)
    entry_id = fields.UUIDField()
    idempotency_key = fields.CharField(max_length=240)
    created_at = fields.DatetimeField()

    class Meta:
        table = "reward_redemption"
