from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0011_keys_of_referrals")]

    initial = False

    operations = [
        ops.CreateModel(
            name="GraphEdge",
            fields=[
                ("snapshot_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("rank", fields.IntField()),
                ("referrer_id", fields.UUIDField()),
                ("referee_id", fields.UUIDField()),
                ("converted_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("is_new", fields.BooleanField()),
            ],
            options={
                "table": "graph_edge",
                "app": "flash",
                "pk_attr": "snapshot_id",
                "table_description": "A converted referral in a snapshot. Ranks count from 0, the latest conversion first.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="GraphFile",
            fields=[
                ("snapshot_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("format", fields.CharField(max_length=4)),
                ("body", fields.BinaryField()),
            ],
            options={
                "table": "graph_file",
                "app": "flash",
                "pk_attr": "snapshot_id",
                "table_description": "A drawn snapshot, SVG or JSON, as it is sent: compressed with gzip.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="GraphJob",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("status", fields.CharField(max_length=10)),
                ("is_large", fields.BooleanField()),
                ("taken_on", fields.DateField()),
                ("actor", fields.CharField(max_length=60)),
                ("attempts", fields.SmallIntField()),
                ("requested_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("lease_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "graph_job",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "A snapshot to be taken. A merchant has at most one that waits and one that is being worked at.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="GraphNode",
            fields=[
                ("snapshot_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("rank", fields.IntField()),
                ("member_id", fields.UUIDField()),
                ("label", fields.CharField(max_length=40)),
                ("degree", fields.IntField()),
                ("recruited", fields.IntField()),
                ("is_hub", fields.BooleanField()),
                ("is_new_hub", fields.BooleanField()),
                ("community", fields.IntField()),
                ("x", fields.FloatField()),
                ("y", fields.FloatField()),
            ],
            options={
                "table": "graph_node",
                "app": "flash",
                "pk_attr": "snapshot_id",
                "table_description": "A member in a snapshot. Ranks count from 0, the highest degree first; the label tells no name.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="GraphSnapshot",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("taken_on", fields.DateField()),
                ("taken_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("compared_with", fields.DateField(null=True)),
                ("member_count", fields.IntField()),
                ("referral_count", fields.IntField()),
                ("component_count", fields.IntField()),
                ("community_count", fields.IntField()),
                ("hub_count", fields.IntField()),
                ("hub_degree", fields.IntField()),
                ("new_referral_count", fields.IntField()),
                ("lost_referral_count", fields.IntField()),
                ("new_hub_count", fields.IntField()),
                ("side", fields.FloatField()),
            ],
            options={
                "table": "graph_snapshot",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "A network as it was on a day of the merchant's; never changed, and replaced whole by a later one of the day.",
            },
            bases=["Model"],
        ),
    ]
