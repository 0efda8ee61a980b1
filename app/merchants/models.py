"""Rows of merchants, API keys and wrapped data keys."""

from tortoise import fields
from tortoise.models import Model


class Merchant(Model):
    """A tenant and its settings. The column is called merchant_id, as in every other table.

    A point is worth `point_value` minor units; a lifetime of null means that points don't expire. The advisor proposes
    no discount over `advised_percent_max` or `advised_amount_max` (minor units), where they are set.
    """

    id = fields.UUIDField(primary_key=True, source_field="merchant_id")
    name = fields.CharField(max_length=200)
    currency = fields.CharField(max_length=3)
    points_per_unit = fields.DecimalField(max_digits=9, decimal_places=4, db_default=1)
    point_value = fields.DecimalField(max_digits=11, decimal_places=6, db_default=1)
    points_lifetime_days = fields.IntField(null=True)
    points_warning_days = fields.IntField(db_default=14)
    points_pending_days = fields.IntField(db_default=0)
    recover_shortfalls = fields.BooleanField(db_default=True)
    erasure_memory_days = fields.IntField(db_default=730)
    time_zone = fields.CharField(max_length=64, db_default="UTC")
    margin_rate = fields.DecimalField(max_digits=5, decimal_places=4, null=True)
    advised_percent_max = fields.DecimalField(max_digits=7, decimal_places=4, null=True)
    advised_amount_max = fields.BigIntField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "merchant"


class ApiKey(Model):
    """A key's role and the SHA-256 of its secret; the secret itself is shown once and not kept."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    label = fields.CharField(max_length=100)
    role = fields.CharField(max_length=10)
    secret_hash = fields.BinaryField()
    created_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "api_key"


class DataKey(Model):
    """A merchant's key for one purpose (ENCRYPTION, LOOKUP, TOKEN), wrapped by a master key.

    It is adopted when nothing is encrypted under an older version of it any more.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    purpose = fields.CharField(max_length=10)
    version = fields.SmallIntField()
    master_key = fields.CharField(max_length=50)
    wrapped = fields.BinaryField()
    created_at = fields.DatetimeField()
    adopted_at = fields.DatetimeField(null=True)

    class Meta:
        table = "data_key"
