from uuid import uuid4

from tortoise import fields, migrations
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "0009_keys_of_points")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Invite",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("referrer_id", fields.UUIDField()),
                ("status", fields.CharField(max_length=10)),
                ("email", fields.BinaryField()),
                ("email_index", fields.BinaryField()),
                ("mailbox_index", fields.BinaryField()),
                ("domain_index", fields.BinaryField(null=True)),
                ("token", fields.BinaryField()),
                ("token_hash", fields.BinaryField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("accepted_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("referee_id", fields.UUIDField(null=True)),
                ("converted_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "invite",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "An address that a member invited. Address and token are ciphertexts; the index and the hash find them.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="InviteQuota",
            fields=[
                ("member_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("day", fields.DateField()),
                ("sent_today", fields.IntField()),
                ("sent_lifetime", fields.IntField()),
                ("day_max", fields.IntField()),
                ("lifetime_max", fields.IntField()),
            ],
            options={
                "table": "invite_quota",
                "app": "flash",
                "pk_attr": "member_id",
                "table_description": "How many invites a member sent: on its latest day of sending, and ever, less those that expired.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Referral",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("merchant_id", fields.UUIDField()),
                ("invite_id", fields.UUIDField()),
                ("invite_status", fields.CharField(db_default="CONVERTED", max_length=10)),
                ("referrer_id", fields.UUIDField()),
                ("referee_id", fields.UUIDField()),
                ("purchase_id", fields.UUIDField(null=True)),
                ("referrer_points", fields.IntField()),
                ("referee_points", fields.IntField()),
                ("flags", ArrayField(element_type="TEXT")),
                ("referrer_entry_id", fields.UUIDField(null=True)),
                ("referee_entry_id", fields.UUIDField(null=True)),
                ("converted_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("released_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("reversed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("shortfall", fields.IntField(null=True)),
            ],
            options={
                "table": "referral",
                "app": "flash",
                "pk_attr": "id",
                "table_description": "Who brought whom: one row per converted invite. Without its entries it is held for a person's review.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ReferralProgram",
            fields=[
                ("merchant_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("referrer_points", fields.IntField(db_default=100)),
                ("referee_points", fields.IntField(db_default=100)),
                ("invites_per_batch", fields.IntField(db_default=0)),
                ("invites_per_day", fields.IntField(db_default=0)),
                ("invites_lifetime", fields.IntField(db_default=0)),
                ("invite_lifetime_days", fields.IntField(db_default=30)),
                ("converts_on", fields.CharField(db_default="FIRST_PURCHASE", max_length=20)),
                ("reports_members", fields.BooleanField(db_default=True)),
                ("review_policy", fields.CharField(db_default="NONE", max_length=10)),
                ("refund_window_days", fields.IntField(db_default=30)),
            ],
            options={
                "table": "referral_program",
                "app": "flash",
                "pk_attr": "merchant_id",
                "table_description": "A merchant's program, made with the merchant: closed (its quotas are 0) until somebody configures it.",
            },
            bases=["Model"],
        ),
    ]
