from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0007_key_rotation")]

    initial = False

    operations = [
        ops.CreateModel(
            name="PointsDue",
            fields=[
                ("entry_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("member_id", fields.UUIDField()),
                ("mark", fields.BigIntField()),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("warned", fields.BooleanField()),
            ],
            options={
                "table": "points_due",
                "app": "flash",
                "pk_attr": "entry_id",
                "table_description": "A credit that will expire; the row goes when it has, whether anything was left of it or not.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="PointsEntry",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("member_id", fields.UUIDField()),
                ("amount", fields.IntField()),
                ("balance_after", fields.IntField()),
                ("reason", fields.CharField(max_length=20)),
                ("origin", fields.CharField(max_length=240)),
                ("reference", fields.CharField(null=True, max_length=200)),
                ("mark", fields.BigIntField(null=True)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "points_entry",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "A change of a balance, written once and never changed. `origin` is what caused it: once per reason.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Purchase",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("member_id", fields.UUIDField()),
                ("source", fields.CharField(max_length=10)),
                ("order_id", fields.CharField(max_length=100)),
                ("amount", fields.BigIntField()),
                ("currency", fields.CharField(max_length=3)),
                ("points", fields.IntField()),
                ("occurred_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("recorded_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("reversed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "purchase",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "An order as a source told it, once, and the points that it earned.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="PurchaseReversal",
            fields=[
                ("purchase_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("taken", fields.IntField()),
                ("shortfall", fields.IntField()),
                ("reversed_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "purchase_reversal",
                "app": "flash",
                "pk_attr": "purchase_id",
                "table_description": "That a purchase was taken back, once: how many of its points were there to take, and how many were not.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Reward",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("name", fields.CharField(max_length=200)),
                ("cost", fields.IntField()),
                ("stock", fields.IntField(null=True)),
                ("pool_id", fields.UUIDField(null=True)),
                ("active", fields.BooleanField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "reward",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "Something to have for points; a stock of null is unlimited, a pool gives a code with each redemption.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RewardRedemption",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("reward_id", fields.UUIDField()),
                ("member_id", fields.UUIDField()),
                ("code_id", fields.UUIDField(null=True)),
                ("entry_id", fields.UUIDField()),
                ("idempotency_key", fields.CharField(max_length=240)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "reward_redemption",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "That a member had a reward: the entry that paid for it and the code that it brought.",
            },
            bases=["Model"],
        ),
        ops.AlterModelOptions(
            name="Merchant",
            options={
                "table": "merchant",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "A tenant and its settings. The column is called merchant_id, as in every other table.",
            },
        ),
        ops.AddField(
            model_name="Merchant",
            name="margin_rate",
            field=fields.DecimalField(null=True, max_digits=5, decimal_places=4),
        ),
        ops.AddField(
            model_name="Merchant",
            name="point_value",
            field=fields.DecimalField(db_default=1, max_digits=11, decimal_places=6),
        ),
        ops.AddField(
            model_name="Merchant",
            name="points_lifetime_days",
            field=fields.IntField(null=True),
        ),
        ops.AddField(
            model_name="Merchant",
            name="points_per_unit",
            field=fields.DecimalField(db_default=1, max_digits=9, decimal_places=4),
        ),
        ops.AddField(
            model_name="Merchant",
            name="points_warning_days",
            field=fields.IntField(db_default=14),
        ),
        ops.AddField(
            model_name="Merchant",
            name="time_zone",
            field=fields.CharField(db_default="UTC", max_length=64),
        ),
        ops.AddField(
            model_name="Wallet",
            name="expiring_earned",
            field=fields.BigIntField(db_default=0),
        ),
        ops.AddField(
            model_name="Wallet",
            name="expiring_spent",
            field=fields.BigIntField(db_default=0),
        ),
        ops.AddField(
            model_name="Wallet",
            name="expiring_until",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="Wallet",
            name="points",
            field=fields.IntField(db_default=0),
        ),
        ops.AddField(
            model_name="Event",
            name="wallet_points",
            field=fields.IntField(null=True),
        ),
    ]
