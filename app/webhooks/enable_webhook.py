"""enableWebhook: a disabled webhook is told of events again, and of what waits for it."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.storage import doorbell
from app.storage.database import transaction
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement
from app.webhooks.create_webhook import refuse_beyond_limit
from app.webhooks.deliver import JOB
from app.webhooks.deliveries import lease_seconds
from app.webhooks.disable_webhook import WhichWebhook
from app.webhooks.feed import BEGIN_ANEW, unseen
from app.webhooks.rows import WebhookRow, find_webhook
from app.webhooks.types import Webhook, WebhookLimitReached


@strawberry.type(description="The webhook is told of events. The first new one is `webhook.enabled`, its own.")
class EnableWebhookSuccess:
    webhook: Webhook = strawberry.field(description="The webhook.")


EnableWebhookResult = Annotated[
    EnableWebhookSuccess | NotFound | WebhookLimitReached,
    strawberry.union("EnableWebhookResult", description="The enabled webhook, or why it isn't."),
]

# The feed goes on where it was, and skips what was written and committed while the webhook was disabled.
ENABLE: Final = statement(
    WebhookRow,
    f"""
WITH w AS (
    UPDATE webhook SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL, failures = 0,
        paused_until = NULL, skipped = (skipped::int8multirange - {unseen("(:now::text::pg_snapshot)")})::text
    WHERE merchant_id = :merchant_id AND id = :webhook_id AND disabled_at IS NOT NULL RETURNING *
), recorded AS (
    {event("webhook.enabled", subject="id", source="w")}
)
SELECT {columns(WebhookRow)} FROM w
""",
)
#: More would not be changed within the time that a statement has; they are attempted when it is their time.
RESUMED_MAX: Final = 5_000
# Whatever was never attempted is due. What was has its turn at once, however long its next attempt was away; what is
# being attempted has it within the seconds of a lease, and is left alone.
RESUME: Final = statement(
    NoRow,
    """
UPDATE webhook_delivery SET next_attempt_at = now()
WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
    SELECT id FROM webhook_delivery
    WHERE merchant_id = :merchant_id AND webhook_id = :webhook_id
        AND next_attempt_at > now() + make_interval(secs => :lease_seconds)
    ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED
))
""",
)


@mutation(
    description="Send events to a disabled webhook again: those of before it was disabled, then those from now on, not "
    "those in between. Enabling one that is enabled changes nothing. ADMIN only."
)
async def enable_webhook(info: Info, input: WhichWebhook) -> EnableWebhookResult:
    """Count, change, record and resume in one transaction, then ring."""
    viewer = info.context.viewer
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    found = await find_webhook(viewer, input.webhook_id)
    if found is None:
        raise not_found("webhook", input.webhook_id)
    if found["webhook_disabled_at"] is not None:
        async with transaction(viewer.merchant_id) as tx:
            now = await refuse_beyond_limit(tx, viewer.merchant_id)
            await tx.row(BEGIN_ANEW, merchant_id=viewer.merchant_id, webhook_id=webhook_id, now=now)
            row = await tx.row(
                ENABLE,
                merchant_id=viewer.merchant_id,
                webhook_id=webhook_id,
                now=now,
                event_id=ids.new(),
                actor=viewer.actor,
            )
            if row is not None:
                await tx.row(
                    RESUME,
                    merchant_id=viewer.merchant_id,
                    webhook_id=webhook_id,
                    lease_seconds=lease_seconds(),
                    limit=RESUMED_MAX,
                )
        await doorbell.wake_workers(JOB)
        found = row or await find_webhook(viewer, input.webhook_id) or found
    return EnableWebhookSuccess(webhook=Webhook.of(found))
