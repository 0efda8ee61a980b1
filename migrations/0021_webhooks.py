from uuid import uuid4

from tortoise import fields, migrations
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0020_keys_of_advisor")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Webhook",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("url", fields.BinaryField()),
                ("event_types", ArrayField(element_type="TEXT")),
                ("secret", fields.BinaryField()),
                ("previous_secret", fields.BinaryField(null=True)),
                ("previous_secret_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("disabled_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("disabled_reason", fields.CharField(null=True, max_length=10)),
                ("position", fields.BigIntField(db_default=0)),
                ("feed_from", fields.TextField(unique=False)),
                ("feed_to", fields.TextField(null=True, unique=False)),
                ("feed_txid", fields.BigIntField(null=True)),
                ("feed_event_id", fields.UUIDField(null=True)),
                ("failing_since", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("failures", fields.IntField(db_default=0)),
                ("paused_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "webhook",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "Where a merchant wants to be told of events; no types are all types. URL and secrets are ciphertexts.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("webhook_id", fields.UUIDField()),
                ("event_id", fields.UUIDField()),
                ("subject_id", fields.UUIDField()),
                ("position", fields.BigIntField()),
                ("state", fields.CharField(max_length=10)),
                ("attempts", fields.SmallIntField()),
                ("next_attempt_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_status", fields.SmallIntField(null=True)),
                ("last_failure", fields.CharField(null=True, max_length=20)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("settled_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "webhook_delivery",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "That an event is to be told to a webhook, was, or wasn't. Of a subject's only the first that waits has its turn.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="Event",
            name="txid",
            field=fields.BigIntField(null=True),
        ),
    ]
