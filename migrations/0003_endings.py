from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0002_keys_and_promises")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Reversal",
            fields=[
                ("redemption_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("reinstated", fields.BooleanField()),
                ("reason", fields.BinaryField()),
                ("reversed_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "reversal",
                "app": "flash",
                "pk_attr": "redemption_id",
                "table_description": "That a redemption was taken back, once, and whether its code is live again. The reason is a ciphertext.",
            },
            bases=["Model"],
        ),
        ops.AlterModelOptions(
            name="Event",
            options={
                "table": "event",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "A change to one subject, with a person's reason (a ciphertext) where one was asked for.",
            },
        ),
        ops.AddField(
            model_name="Event",
            name="reason",
            field=fields.BinaryField(null=True),
        ),
        ops.AddField(
            model_name="Pool",
            name="recycle_expired",
            field=fields.BooleanField(db_default=False),
        ),
    ]
