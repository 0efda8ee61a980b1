"""What statements select of webhooks and their deliveries, and what reads them; ADMIN only."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.storage.database import Statements, database
from app.storage.statements import columns, row_of, statement


@row_of(w="webhook")
class WebhookRow(TypedDict):
    """A webhook `w`."""

    webhook_id: Annotated[UUID, "w.id"]
    webhook_url: Annotated[bytes, "w.url"]
    webhook_event_types: Annotated[list[str], "w.event_types"]
    webhook_created_at: Annotated[datetime, "w.created_at"]
    webhook_disabled_at: Annotated[datetime | None, "w.disabled_at"]
    webhook_disabled_reason: Annotated[str | None, "w.disabled_reason"]
    webhook_failing_since: Annotated[datetime | None, "w.failing_since"]
    webhook_paused_until: Annotated[datetime | None, "w.paused_until"]
    webhook_previous_secret_until: Annotated[
        datetime | None, "CASE WHEN w.previous_secret_until > now() THEN w.previous_secret_until END"
    ]


@row_of(d="webhook_delivery", w="webhook", e="event")
class WebhookDeliveryRow(TypedDict):
    """A delivery `d`, of an event `e` to a webhook `w`.

    What waits behind another of its subject, or for its webhook to be enabled, has no time yet.
    """

    delivery_id: Annotated[UUID, "d.id"]
    delivery_webhook_id: Annotated[UUID, "d.webhook_id"]
    delivery_state: Annotated[str, "d.state"]
    delivery_attempts: Annotated[int, "d.attempts"]
    delivery_last_status: Annotated[int | None, "d.last_status"]
    delivery_last_failure: Annotated[str | None, "d.last_failure"]
    delivery_created_at: Annotated[datetime, "d.created_at"]
    delivery_settled_at: Annotated[datetime | None, "d.settled_at"]
    delivery_next_attempt_at: Annotated[
        datetime | None, "CASE WHEN w.disabled_at IS NULL THEN greatest(d.next_attempt_at, w.paused_until) END"
    ]
    delivery_event_id: Annotated[UUID, "e.id"]
    delivery_event_type: Annotated[str, "e.type"]
    delivery_subject_kind: Annotated[str, "e.subject_kind"]
    delivery_subject_id: Annotated[UUID, "e.subject_id"]


#: Continues a FROM that has a delivery `d`: its webhook and its event, looked up by whole keys.
_JOIN_DELIVERY: Final = """
    CROSS JOIN LATERAL (SELECT * FROM webhook WHERE merchant_id = :merchant_id AND id = d.webhook_id OFFSET 0) w
    CROSS JOIN LATERAL (SELECT * FROM event WHERE merchant_id = :merchant_id AND id = d.event_id OFFSET 0) e
"""

FIND_WEBHOOK: Final = statement(
    WebhookRow,
    f"SELECT {columns(WebhookRow)} FROM webhook w WHERE w.merchant_id = :merchant_id AND w.id = :webhook_id",
)
LIST_WEBHOOKS: Final = statement(
    WebhookRow,
    f"""
SELECT {columns(WebhookRow)} FROM webhook w
WHERE w.merchant_id = :merchant_id AND w.id < :before ORDER BY w.id DESC LIMIT :limit
""",
)
FIND_DELIVERY: Final = statement(
    WebhookDeliveryRow,
    f"""
SELECT {columns(WebhookDeliveryRow)} FROM webhook_delivery d {_JOIN_DELIVERY}
WHERE d.merchant_id = :merchant_id AND d.id = :delivery_id
""",
)
LIST_DELIVERIES: Final = statement(
    WebhookDeliveryRow,
    f"""
WITH newest AS (
    -- The newest of each webhook in each state, of which the page is the newest. Bounds and order are those of one
    -- index, or else a plan may walk along all that was delivered, to find the few that are dead.
    SELECT each.* FROM webhook w CROSS JOIN unnest(:states::text[]) AS asked (state) CROSS JOIN LATERAL (
        SELECT * FROM webhook_delivery
        WHERE merchant_id = :merchant_id AND webhook_id = w.id AND (state, id) < (asked.state, :before)
            AND (state, id) >= (asked.state, '00000000-0000-0000-0000-000000000000')
        ORDER BY state DESC, id DESC LIMIT :limit
    ) each
    WHERE w.merchant_id = :merchant_id AND (:webhook_id::uuid IS NULL OR w.id = :webhook_id)
    ORDER BY each.id DESC LIMIT :limit
)
SELECT {columns(WebhookDeliveryRow)} FROM newest d {_JOIN_DELIVERY} ORDER BY d.id DESC
""",
)


async def find_webhook(viewer: Viewer, node_id: str) -> WebhookRow | None:
    """Return the webhook behind an id, if this viewer may see it."""
    webhook_id = ids.decode("webhook", node_id)
    if webhook_id is None or not may(viewer.role, "Webhook"):
        return None
    return await database().row(FIND_WEBHOOK, merchant_id=viewer.merchant_id, webhook_id=webhook_id)


async def find_delivery(viewer: Viewer, node_id: str) -> WebhookDeliveryRow | None:
    """Return the delivery behind an id, if this viewer may see it."""
    delivery_id = ids.decode("webhookdelivery", node_id)
    if delivery_id is None or not may(viewer.role, "WebhookDelivery"):
        return None
    return await delivery_row(database(), viewer, delivery_id)


async def delivery_row(where: Statements, viewer: Viewer, delivery_id: UUID) -> WebhookDeliveryRow | None:
    """Return a delivery of the viewer's merchant, read in a transaction or outside one."""
    return await where.row(FIND_DELIVERY, merchant_id=viewer.merchant_id, delivery_id=delivery_id)
