"""disableWebhook: nothing more is sent to a webhook, until it is enabled again."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.storage.database import Row, Statements, database
from app.webhooks.queries import find_webhook
from app.webhooks.types import WEBHOOK_COLUMNS, Webhook, WebhookDisabledReason


@strawberry.input(description="A webhook.")
class WebhookIdInput:
    """Which webhook."""

    webhook_id: strawberry.ID = strawberry.field(description="The webhook.")


@strawberry.type(description="The webhook is disabled; what is on its way at this moment may still arrive.")
class DisableWebhookSuccess:
    """The disabled webhook."""

    webhook: Webhook = strawberry.field(description="The webhook.")


DisableWebhookResult = Annotated[
    DisableWebhookSuccess | NotFound,
    strawberry.union("DisableWebhookResult", description="The disabled webhook, or why there is none."),
]
WhichWebhook = Annotated[WebhookIdInput, strawberry.argument(description="The webhook.")]

DISABLE: Final = f"""
WITH w AS (
    UPDATE webhook SET disabled_at = now(), disabled_reason = $3
    WHERE merchant_id = $1 AND id = $2 AND disabled_at IS NULL RETURNING *
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $4, 'webhook.disabled', id, $5, now() FROM w
)
SELECT {WEBHOOK_COLUMNS} FROM w
"""


async def disable(
    where: Statements, merchant_id: UUID, webhook_id: UUID, reason: WebhookDisabledReason, event_id: UUID, actor: str
) -> Row | None:
    """Disable a webhook and record it, in one statement. Returns None where it is disabled already or isn't there."""
    return await where.row(DISABLE, merchant_id, webhook_id, reason.value, event_id, actor)


@mutation(
    description="Send nothing more to a webhook; what waits for it waits on. Events of the time while it is disabled "
    "are never sent to it. Disabling it again changes nothing. ADMIN only."
)
async def disable_webhook(info: Info, input: WhichWebhook) -> DisableWebhookResult:
    """Change the row and record it in one statement."""
    viewer = info.context.viewer
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    reason = WebhookDisabledReason.REQUESTED
    row = await disable(database(), viewer.merchant_id, webhook_id, reason, ids.new(), viewer.actor)
    if row is None:
        row = await find_webhook(viewer, input.webhook_id)
    if row is None:
        raise not_found("webhook", input.webhook_id)
    return DisableWebhookSuccess(webhook=Webhook.of(row))
