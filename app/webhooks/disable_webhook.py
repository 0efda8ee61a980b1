"""disableWebhook: nothing more is sent to a webhook, until it is enabled again."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.storage.database import Statements, database
from app.storage.events import event
from app.storage.statements import columns, statement
from app.webhooks.rows import WebhookRow, find_webhook
from app.webhooks.types import Webhook, WebhookDisabledReason


@strawberry.input(description="A webhook.")
class WebhookIdInput:
    webhook_id: strawberry.ID = strawberry.field(description="The webhook.")


@strawberry.type(description="The webhook is disabled; what is on its way at this moment may still arrive.")
class DisableWebhookSuccess:
    webhook: Webhook = strawberry.field(description="The webhook.")


DisableWebhookResult = Annotated[
    DisableWebhookSuccess | NotFound,
    strawberry.union("DisableWebhookResult", description="The disabled webhook, or why there is none."),
]
WhichWebhook = Annotated[WebhookIdInput, strawberry.argument(description="The webhook.")]

# The feed stays where it is, which may be behind. It is to skip this transaction, and whatever begins to write after it
# and is committed before the webhook is enabled; what others are writing at this moment is of before.
DISABLE: Final = statement(
    WebhookRow,
    f"""
WITH w AS (
    UPDATE webhook SET disabled_at = now(), disabled_reason = :reason, skipped = (
        skipped::int8multirange + int8multirange(int8range(pg_current_xact_id()::text::bigint, NULL))
    )::text
    WHERE merchant_id = :merchant_id AND id = :webhook_id AND disabled_at IS NULL RETURNING *
), recorded AS (
    {event("webhook.disabled", subject="id", source="w")}
)
SELECT {columns(WebhookRow)} FROM w
""",
)


async def disable(
    where: Statements, merchant_id: UUID, webhook_id: UUID, reason: WebhookDisabledReason, actor: str
) -> WebhookRow | None:
    """Disable a webhook and record it, in one statement. Returns None where it is disabled already or isn't there."""
    return await where.row(
        DISABLE,
        merchant_id=merchant_id,
        webhook_id=webhook_id,
        reason=reason.value,
        event_id=ids.new(),
        actor=actor,
    )


@mutation(
    description="Send nothing more to a webhook; what waits for it waits on. Events of the time while it is disabled "
    "are never sent to it. Disabling it again changes nothing. ADMIN only."
)
async def disable_webhook(info: Info, input: WhichWebhook) -> DisableWebhookResult:
    viewer = info.context.viewer
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    reason = WebhookDisabledReason.REQUESTED
    row = await disable(database(), viewer.merchant_id, webhook_id, reason, viewer.actor)
    if row is None:
        row = await find_webhook(viewer, input.webhook_id)
    if row is None:
        raise not_found("webhook", input.webhook_id)
    return DisableWebhookSuccess(webhook=Webhook.of(row))
