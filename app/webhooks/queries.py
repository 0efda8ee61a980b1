"""Reading webhooks and their deliveries; ADMIN only."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.storage.database import Row, database
from app.webhooks.types import DELIVERY_COLUMNS, WEBHOOK_COLUMNS, Webhook, WebhookDelivery, WebhookDeliveryState

FIND_WEBHOOK: Final = f"SELECT {WEBHOOK_COLUMNS} FROM webhook w WHERE w.merchant_id = $1 AND w.id = $2"
LIST_WEBHOOKS: Final = f"""
SELECT {WEBHOOK_COLUMNS} FROM webhook w WHERE w.merchant_id = $1 AND w.id < $2 ORDER BY w.id DESC LIMIT $3
"""
#: A delivery's webhook and event, looked up by whole keys.
JOIN_DELIVERY: Final = """
    CROSS JOIN LATERAL (SELECT * FROM webhook WHERE merchant_id = $1 AND id = d.webhook_id OFFSET 0) w
    CROSS JOIN LATERAL (SELECT * FROM event WHERE merchant_id = $1 AND id = d.event_id OFFSET 0) e
"""
FIND_DELIVERY: Final = f"""
SELECT {DELIVERY_COLUMNS} FROM webhook_delivery d {JOIN_DELIVERY} WHERE d.merchant_id = $1 AND d.id = $2
"""
# The newest of each webhook in each state, of which the page is the newest. Bounds and order are those of one index, or
# else a plan may walk along all that was delivered, to find the few that are dead.
LIST_DELIVERIES: Final = f"""
WITH newest AS (
    SELECT each.* FROM webhook w CROSS JOIN unnest($5::text[]) AS asked (state) CROSS JOIN LATERAL (
        SELECT * FROM webhook_delivery
        WHERE merchant_id = $1 AND webhook_id = w.id AND (state, id) < (asked.state, $2)
            AND (state, id) >= (asked.state, '00000000-0000-0000-0000-000000000000')
        ORDER BY state DESC, id DESC LIMIT $3
    ) each
    WHERE w.merchant_id = $1 AND ($4::uuid IS NULL OR w.id = $4)
    ORDER BY each.id DESC LIMIT $3
)
SELECT {DELIVERY_COLUMNS} FROM newest d {JOIN_DELIVERY} ORDER BY d.id DESC
"""


async def find_webhook(viewer: Viewer, node_id: str) -> Row | None:
    """Return the webhook behind an id, if this viewer may see it."""
    webhook_id = ids.decode("webhook", node_id)
    if webhook_id is None or viewer.role is not Role.ADMIN:
        return None
    return await database().row(FIND_WEBHOOK, viewer.merchant_id, webhook_id)


async def find_delivery(viewer: Viewer, node_id: str) -> Row | None:
    """Return the delivery behind an id, if this viewer may see it."""
    delivery_id = ids.decode("webhookdelivery", node_id)
    if delivery_id is None or viewer.role is not Role.ADMIN:
        return None
    return await database().row(FIND_DELIVERY, viewer.merchant_id, delivery_id)


@query(description="All webhooks, newest first, disabled ones too. ADMIN only.")
async def webhooks(info: Info, first: First = None, after: After = None) -> Connection[Webhook]:
    """Read a page of webhooks."""
    asked = page(first, after)
    rows = await database().rows(LIST_WEBHOOKS, info.context.viewer.merchant_id, asked.id, asked.limit)
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
    """Read a page of deliveries with their events. An id that names no webhook has none."""
    asked = page(first, after)
    named = None
    if webhook_id is not None:
        named = ids.decode("webhook", webhook_id)
        if named is None:
            return connect([], asked, WebhookDelivery.of)
    wanted = sorted({state.value for state in (WebhookDeliveryState if states is None else states)})
    arguments = (info.context.viewer.merchant_id, asked.id, asked.limit, named, wanted)
    return connect(await database().rows(LIST_DELIVERIES, *arguments), asked, WebhookDelivery.of, key="delivery_id")


@refetches("webhook")
async def _webhook(viewer: Viewer, node_id: str) -> Webhook | None:
    row = await find_webhook(viewer, node_id)
    return None if row is None else Webhook.of(row)


@refetches("webhookdelivery")
async def _webhook_delivery(viewer: Viewer, node_id: str) -> WebhookDelivery | None:
    row = await find_delivery(viewer, node_id)
    return None if row is None else WebhookDelivery.of(row)
