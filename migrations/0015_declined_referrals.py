from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0014_rewards_of_pools")]

    initial = False

    operations = [
        ops.AddField(
            model_name="Referral",
            name="declined_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
    ]
