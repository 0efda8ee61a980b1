from uuid import uuid4

from orjson import loads
from tortoise import fields, migrations
from tortoise.fields.data import JSON_DUMPS
from tortoise.migrations import operations as ops

# By hand: a redemption counts for its code's pool, without asking the code.
POOLS_OF_REDEMPTIONS = """
UPDATE redemption r SET pool_id = c.pool_id FROM code c WHERE c.merchant_id = r.merchant_id AND c.id = r.code_id
"""


class Migration(migrations.Migration):
    dependencies = [("flash", "0018_first_nodes_inline")]

    initial = False

    operations = [
        ops.CreateModel(
            name="AdviceRun",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("status", fields.CharField(max_length=10)),
                ("actor", fields.CharField(max_length=60)),
                ("attempts", fields.SmallIntField()),
                ("requested_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("lease_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("source", fields.CharField(null=True, max_length=5)),
                ("model", fields.CharField(null=True, max_length=200)),
                ("prompt_version", fields.CharField(null=True, max_length=20)),
                ("fallback_reason", fields.CharField(null=True, max_length=300)),
                ("facts", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("suggestions", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("rejected", fields.JSONField(null=True, encoder=JSON_DUMPS, decoder=loads)),
                ("raw_answer", fields.BinaryField(null=True)),
            ],
            options={
                "table": "advice_run",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "What a merchant asked the advisor, and all that came of it. A merchant has at most one that waits or runs.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="Merchant",
            name="advised_amount_max",
            field=fields.BigIntField(null=True),
        ),
        ops.AddField(
            model_name="Merchant",
            name="advised_percent_max",
            field=fields.DecimalField(null=True, max_digits=7, decimal_places=4),
        ),
        ops.AddField(
            model_name="Redemption",
            name="pool_id",
            field=fields.UUIDField(null=True),
        ),
        ops.RunSQL(POOLS_OF_REDEMPTIONS),
        ops.AlterField(
            model_name="Redemption",
            name="pool_id",
            field=fields.UUIDField(),
        ),
    ]
