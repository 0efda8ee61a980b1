"""Rows of webhooks and their deliveries."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Webhook(Model):
    """Where a merchant wants to be told of events; no types are all types. URL and secrets are ciphertexts.

    `feed_from` is the snapshot of the database up to which events have become deliveries. While those up to `feed_to`
    become them in batches, `feed_txid` and `feed_event_id` are the last that did. `position` is the last delivery's.
    `skipped` (a multirange) are the transactions of which it isn't told: those of the time while it is disabled.
    A webhook that isn't answered well has been failing since, and is paused for longer with each of its `failures`.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    url = fields.BinaryField()
    event_types: Any = ArrayField(element_type="text")
    secret = fields.BinaryField()
    previous_secret = fields.BinaryField(null=True)
    previous_secret_until = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    disabled_at = fields.DatetimeField(null=True)
    disabled_reason = fields.CharField(max_length=10, null=True)
    position = fields.BigIntField(db_default=0)
    feed_from = fields.TextField()
    feed_to = fields.TextField(null=True)
    feed_txid = fields.BigIntField(null=True)
    feed_event_id = fields.UUIDField(null=True)
    skipped = fields.TextField(db_default="{}")
    failing_since = fields.DatetimeField(null=True)
    failures = fields.IntField(db_default=0)
    paused_until = fields.DatetimeField(null=True)

    class Meta:
        table = "webhook"


class WebhookDelivery(Model):
    """That an event is to be told to a webhook, was, or wasn't. Of a subject's only the first that waits has its turn.

    That one is attempted at `next_attempt_at`. Whoever does moves that on by the time that it takes at most: until then
    the delivery is its own, and after that anybody's.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    webhook_id = fields.UUIDField()
    event_id = fields.UUIDField()
    subject_id = fields.UUIDField()
    position = fields.BigIntField()
    state = fields.CharField(max_length=10)
    attempts = fields.SmallIntField()
    next_attempt_at = fields.DatetimeField(null=True)
    last_status = fields.SmallIntField(null=True)
    last_failure = fields.CharField(max_length=20, null=True)
    created_at = fields.DatetimeField()
    settled_at = fields.DatetimeField(null=True)

    class Meta:
        table = "webhook_delivery"
