"""enableWebhook: a disabled webhook is told of events again, and of what waits for it."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.storage import doorbell
from app.storage.database import transaction
from app.webhooks.create_webhook import refuse_beyond_limit
from app.webhooks.deliver import JOB
from app.webhooks.deliveries import lease_seconds
from app.webhooks.disable_webhook import WhichWebhook
from app.webhooks.queries import find_webhook
from app.webhooks.types import WEBHOOK_COLUMNS, Webhook, WebhookLimitReached


@strawberry.type(description="The webhook is told of events. The first new one is `webhook.enabled`, its own.")
class EnableWebhookSuccess:
    """The enabled webhook."""

    webhook: Webhook = strawberry.field(description="The webhook.")


EnableWebhookResult = Annotated[
    EnableWebhookSuccess | NotFound | WebhookLimitReached,
    strawberry.union("EnableWebhookResult", description="The enabled webhook, or why it isn't."),
]

# What happened while it was disabled is behind the snapshot from which it goes on.
ENABLE: Final = f"""
WITH w AS (
    UPDATE webhook SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL, failures = 0,
        paused_until = NULL, feed_from = $3, feed_to = NULL, feed_txid = NULL, feed_event_id = NULL
    WHERE merchant_id = $1 AND id = $2 AND disabled_at IS NOT NULL RETURNING *
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $4, 'webhook.enabled', id, $5, now() FROM w
)
SELECT {WEBHOOK_COLUMNS} FROM w
"""
#: More would not be changed within the time that a statement has; they are attempted when it is their time.
RESUMED_MAX: Final = 5_000
# Whatever was never attempted is due. What was has its turn at once, however long its next attempt was away; what is
# being attempted has it within $3 seconds, and is left alone.
RESUME: Final = """
UPDATE webhook_delivery SET next_attempt_at = now()
WHERE merchant_id = $1 AND id = ANY(ARRAY(
    SELECT id FROM webhook_delivery
    WHERE merchant_id = $1 AND webhook_id = $2 AND next_attempt_at > now() + make_interval(secs => $3)
    ORDER BY next_attempt_at LIMIT $4 FOR UPDATE SKIP LOCKED
))
"""


@mutation(
    description="Send events to a disabled webhook again: those that waited when it was disabled, then those from now "
    "on, not those in between. Enabling one that is enabled changes nothing. ADMIN only."
)
async def enable_webhook(info: Info, input: WhichWebhook) -> EnableWebhookResult:
    """Count, change, record and resume in one transaction, then ring."""
    viewer = info.context.viewer
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    found = await find_webhook(viewer, input.webhook_id)
    if found is None:
        raise not_found("webhook", input.webhook_id)
    if found["webhook_disabled_at"] is not None:
        async with transaction() as tx:
            now = await refuse_beyond_limit(tx, viewer.merchant_id)
            row = await tx.row(ENABLE, viewer.merchant_id, webhook_id, now, ids.new(), viewer.actor)
            if row is not None:
                await tx.row(RESUME, viewer.merchant_id, webhook_id, lease_seconds(), RESUMED_MAX)
        await doorbell.wake_workers(JOB)
        found = row or await find_webhook(viewer, input.webhook_id) or found
    return EnableWebhookSuccess(webhook=Webhook.of(found))
