"""Rows of the advisor's runs."""

from typing import Any

from tortoise import fields
from tortoise.models import Model


class AdviceRun(Model):
    """What a merchant asked the advisor, and all that came of it. A merchant has at most one that waits or runs.

    A worker holds a run until `lease_until`; then another may take it. The raw answer is a ciphertext; facts and
    rejections name no member and no code.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    status = fields.CharField(max_length=10)
    actor = fields.CharField(max_length=60)
    attempts = fields.SmallIntField()
    requested_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    lease_until = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    problem = fields.CharField(max_length=200, null=True)
    source = fields.CharField(max_length=5, null=True)
    model = fields.CharField(max_length=200, null=True)
    prompt_version = fields.CharField(max_length=20, null=True)
    fallback_reason = fields.CharField(max_length=300, null=True)
    facts: Any = fields.JSONField(null=True)
    rejected: Any = fields.JSONField(null=True)
    raw_answer = fields.BinaryField(null=True)

    class Meta:
        table = "advice_run"


class Suggestion(Model):
    """An offer that a run ended with, in its place among the run's; positions count from 1.

    The pool that was made of it names it.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    run_id = fields.UUIDField()
    position = fields.SmallIntField()
    content: Any = fields.JSONField()

    class Meta:
        table = "suggestion"
