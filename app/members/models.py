"""Rows of members and wallets."""

from tortoise import fields
from tortoise.models import Model


class Member(Model):
    """A member, one record whatever the source. Address and name are ciphertexts; the index finds the address.

    Its tokens name the `token_generation` that they were issued in, and stand as long as that is the member's.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    external_id = fields.CharField(max_length=100, null=True)
    email = fields.BinaryField(null=True)
    email_index = fields.BinaryField(null=True)
    email_verified = fields.BooleanField()
    display_name = fields.BinaryField(null=True)
    source = fields.CharField(max_length=10)
    joined_at = fields.DatetimeField()
    token_generation = fields.IntField(db_default=0)

    class Meta:
        table = "member"


class Wallet(Model):
    """A member's wallet: its version counts the changes to it, without gaps, and `changed_at` dates the last one.

    Of its points some may be held for orders, others pending; `shortfall` is what its lots lack together.
    """

    member_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    version = fields.BigIntField()
    points = fields.IntField(db_default=0)
    held_points = fields.IntField(db_default=0)
    pending_points = fields.IntField(db_default=0)
    shortfall = fields.IntField(db_default=0)
    changed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "wallet"
