"""Reading webhooks and their deliveries; ADMIN only."""

from typing import Annotated

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.storage.database import database
from app.webhooks.rows import LIST_DELIVERIES, LIST_WEBHOOKS, find_delivery, find_webhook
from app.webhooks.types import Webhook, WebhookDelivery, WebhookDeliveryState


@query(description="All webhooks, newest first, disabled ones too. ADMIN only.")
async def webhooks(info: Info, first: First = None, after: After = None) -> Connection[Webhook]:
    asked = page(first, after)
    rows = await database().rows(
        LIST_WEBHOOKS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, Webhook.of, key="webhook_id")


@query(
    description="Deliveries to webhooks, newest first, for as long as they are kept: DELIVERED ones for 7 days and "
    "DEAD ones for 30, unless configured otherwise. ADMIN only."
)
async def webhook_deliveries(
    info: Info,
    first: First = None,
    after: After = None,
    webhook_id: Annotated[
        strawberry.ID | None, strawberry.argument(description="Only deliveries to this webhook.")
    ] = None,
    states: Annotated[
        list[WebhookDeliveryState] | None, strawberry.argument(description="Only deliveries in these states.")
    ] = None,
) -> Connection[WebhookDelivery]:
    """An id that names no webhook has no deliveries."""
    asked = page(first, after)
    named = None
    if webhook_id is not None:
        named = ids.decode("webhook", webhook_id)
        if named is None:
            return connect([], asked, WebhookDelivery.of)
    rows = await database().rows(
        LIST_DELIVERIES,
        merchant_id=info.context.viewer.merchant_id,
        before=asked.id,
        limit=asked.limit,
        webhook_id=named,
        states=sorted({state.value for state in (WebhookDeliveryState if states is None else states)}),
    )
    return connect(rows, asked, WebhookDelivery.of, key="delivery_id")


@refetches("webhook")
async def _webhook(viewer: Viewer, node_id: str) -> Webhook | None:
    row = await find_webhook(viewer, node_id)
    return None if row is None else Webhook.of(row)


@refetches("webhookdelivery")
async def _webhook_delivery(viewer: Viewer, node_id: str) -> WebhookDelivery | None:
    row = await find_delivery(viewer, node_id)
    return None if row is None else WebhookDelivery.of(row)
