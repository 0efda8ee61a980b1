from tortoise import fields, migrations
from tortoise.migrations import operations as ops

# By hand: what exists is encrypted under the only version that there was.
ADOPTED = "UPDATE data_key SET adopted_at = created_at"


class Migration(migrations.Migration):
    dependencies = [("flash", "0006_keys_of_ownership")]

    initial = False

    operations = [
        ops.AddField(
            model_name="DataKey",
            name="adopted_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.RunSQL(ADOPTED),
    ]
