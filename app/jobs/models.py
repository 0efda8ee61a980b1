"""Rows of jobs, and the lists that they work through."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class BulkJob(Model):
    """Something that is done batch by batch, how far it is, and how it ended.

    A worker has it until `lease_until`; while it is WAITING, that is when it is looked at next. `attempts` counts the
    turns since its last batch. A FILL makes codes until `wanted` are available. A REVOKE goes for codes in `state`, or
    in any, and its reason is a ciphertext. What it was to work through is in its pages.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    kind = fields.CharField(max_length=10)
    status = fields.CharField(max_length=10)
    actor = fields.CharField(max_length=60)
    pool_id = fields.UUIDField(null=True)
    campaign_id = fields.UUIDField(null=True)
    wanted = fields.IntField(null=True)
    state = fields.CharField(max_length=10, null=True)
    recycle = fields.BooleanField(db_default=False)
    reason = fields.BinaryField(null=True)
    total = fields.IntField(db_default=0)
    done = fields.IntField(db_default=0)
    failed = fields.IntField(db_default=0)
    skipped_erased = fields.IntField(db_default=0)
    skipped_mailbox = fields.IntField(db_default=0)
    skipped_has_all = fields.IntField(db_default=0)
    problem = fields.CharField(max_length=200, null=True)
    idempotency_key = fields.BinaryField(null=True)
    request_hash = fields.BinaryField(null=True)
    attempts = fields.SmallIntField(db_default=0)
    requested_at = fields.DatetimeField()
    turn_at = fields.DatetimeField(null=True)
    lease_until = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "bulk_job"


class BulkJobPage(Model):
    """A part of what a job has still to work through: ids, which one batch takes on. It goes with that batch."""

    job_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    number = fields.IntField()
    ids = ArrayField(element_type="uuid")

    class Meta:
        table = "bulk_job_page"
