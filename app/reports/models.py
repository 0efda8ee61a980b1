"""Rows of reports that workers keep."""

from typing import Any

from tortoise import fields
from tortoise.models import Model


class ReportRun(Model):
    """The last run of a merchant's report of a kind, and what the last one that succeeded found.

    It was asked for, or found to need no other, at `requested_at`. A worker has it until `lease_until`. `content` is of
    `generated_at` and took `seconds`; a run that fails leaves it.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    kind = fields.CharField(max_length=10)
    status = fields.CharField(max_length=10)
    actor = fields.CharField(max_length=60)
    attempts = fields.SmallIntField()
    requested_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    lease_until = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    problem = fields.CharField(max_length=200, null=True)
    generated_at = fields.DatetimeField(null=True)
    seconds = fields.FloatField(null=True)
    content: Any = fields.JSONField(null=True)

    class Meta:
        table = "report_run"
