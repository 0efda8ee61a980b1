from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0016_keys_of_declined_referrals")]

    initial = False

    operations = [
        ops.AlterModelOptions(
            name="GraphFile",
            options={
                "table": "graph_file",
                "app": "flash",
                "pk_attr": "snapshot_id",
                "table_description": "A drawn snapshot, SVG or JSON, as it is sent (compressed with gzip); or its first nodes, read as they are.",
            },
        ),
    ]
