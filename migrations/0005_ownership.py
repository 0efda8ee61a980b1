from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0004_keys_of_endings")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Campaign",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("pool_id", fields.UUIDField()),
                ("name", fields.CharField(max_length=200)),
                ("recipient_count", fields.IntField()),
                ("allocated_count", fields.IntField()),
                ("idempotency_key", fields.CharField(null=True, max_length=200)),
                ("request_hash", fields.BinaryField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "campaign",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "One code of a pool for each of many recipients. The hash is of what was asked for, to know it again.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Delivery",
            fields=[
                ("code_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("campaign_id", fields.UUIDField()),
                ("recipient", fields.BinaryField(null=True)),
            ],
            options={
                "table": "delivery",
                "app": "flash",
                "pk_attr": "code_id",
                "table_description": "A code that a campaign sends to an address (a ciphertext), or to the member that owns it where there is none.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="StockAlert",
            fields=[
                ("pool_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("level", fields.SmallIntField()),
                ("raised_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "stock_alert",
                "app": "flash",
                "pk_attr": "pool_id",
                "table_description": "That a pool's stock fell to `level` percent, which is told once.",
            },
            bases=["Model"],
        ),
        ops.AlterModelOptions(
            name="Claim",
            options={
                "table": "claim",
                "app": "flash",
                "pk_attr": "code_id",
                "table_description": "That a claimant took its n-th code (`slot`) of a pool: a member, an address, or a member with its address.",
            },
        ),
        ops.AlterField(
            model_name="Claim",
            name="member_id",
            field=fields.UUIDField(null=True),
        ),
        ops.AddField(
            model_name="Claim",
            name="email_index",
            field=fields.BinaryField(null=True),
        ),
        ops.AddField(
            model_name="Code",
            name="email_index",
            field=fields.BinaryField(null=True),
        ),
        ops.AddField(
            model_name="Pool",
            name="fallback_pool_id",
            field=fields.UUIDField(null=True),
        ),
    ]
