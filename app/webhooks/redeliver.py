"""redeliver: a delivery that ended, or that waits for its next attempt, is made again."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refused, mutation, not_found
from app.storage import doorbell
from app.storage.database import Tx, transaction
from app.storage.events import event
from app.storage.statements import NoRow, statement
from app.webhooks.deliver import JOB
from app.webhooks.deliveries import lease_seconds
from app.webhooks.feed import FIRST_WAITING
from app.webhooks.rows import delivery_row
from app.webhooks.types import WebhookDelivery, WebhookDisabled


@strawberry.input(description="A delivery to make again.")
class RedeliverInput:
    delivery_id: strawberry.ID = strawberry.field(description="The delivery.")


@strawberry.type(description="The delivery is attempted soon, after those of its subject that were made before.")
class RedeliverSuccess:
    delivery: WebhookDelivery = strawberry.field(description="The delivery, PENDING.")


RedeliverResult = Annotated[
    RedeliverSuccess | NotFound | WebhookDisabled,
    strawberry.union("RedeliverResult", description="The delivery, or why it isn't made again."),
]


# What ended goes to the end of the line, in order.
REQUEUE: Final = statement(
    NoRow,
    f"""
WITH again AS (
    -- A merchant that sends many again may meet several of one subject.
    SELECT d.id, d.subject_id, row_number() OVER (ORDER BY d.position) AS place,
        row_number() OVER (PARTITION BY d.subject_id ORDER BY d.position) AS turn
    FROM webhook_delivery d
    WHERE d.merchant_id = :merchant_id AND d.id = ANY(:delivery_ids::uuid[]) AND d.state <> 'PENDING'
), moved AS (
    UPDATE webhook SET position = position + (SELECT count(*) FROM again)
    WHERE merchant_id = :merchant_id AND id = :webhook_id AND EXISTS (SELECT FROM again)
    RETURNING position - (SELECT count(*) FROM again) AS last
), requeued AS (
    -- Of a subject only the first has its turn, and that only while nothing of the subject waits.
    UPDATE webhook_delivery d
    SET state = 'PENDING', attempts = 0, settled_at = NULL, position = moved.last + again.place,
        next_attempt_at = CASE WHEN again.turn = 1 AND {FIRST_WAITING.format("again.subject_id")} IS NULL THEN now() END
    FROM again CROSS JOIN moved
    WHERE d.merchant_id = :merchant_id AND d.id = ANY(:delivery_ids::uuid[]) AND d.id = again.id
    RETURNING d.id
), recorded AS (
    {event("webhook.redelivered", subject=":webhook_id", source="moved")}
)
SELECT FROM requeued
""",
)


async def requeue(tx: Tx, merchant_id: UUID, webhook_id: UUID, delivery_ids: list[UUID], actor: str) -> int:
    """Put ended deliveries of a webhook that the caller holds in the line again. Returns how many ended ones."""
    requeued = await tx.many(
        REQUEUE,
        merchant_id=merchant_id,
        webhook_id=webhook_id,
        delivery_ids=delivery_ids,
        event_id=ids.new(),
        actor=actor,
    )
    return len(requeued)


class WebhookOfDeliveryRow(TypedDict):
    """The webhook of a delivery."""

    webhook_id: UUID


class HeldWebhookRow(TypedDict):
    """A webhook that is held, and since when nothing is sent to it."""

    disabled_at: datetime | None


FIND: Final = statement(
    WebhookOfDeliveryRow,
    "SELECT webhook_id FROM webhook_delivery WHERE merchant_id = :merchant_id AND id = :delivery_id",
)
#: As the feed, whoever puts deliveries in the line is alone with their webhook (`feed.HOLD`).
HOLD: Final = statement(
    HeldWebhookRow,
    "SELECT disabled_at FROM webhook WHERE merchant_id = :merchant_id AND id = :webhook_id FOR UPDATE",
)
# What is being attempted has its next attempt within the seconds of a lease, and is left alone.
HASTEN: Final = statement(
    NoRow,
    """
UPDATE webhook_delivery SET next_attempt_at = now()
WHERE merchant_id = :merchant_id AND id = :delivery_id
    AND next_attempt_at > now() + make_interval(secs => :lease_seconds)
""",
)


@mutation(
    description="Make a delivery again that is DEAD or was DELIVERED: it is PENDING again, with all its attempts. One "
    "that waits for its next attempt is attempted now. The event keeps its id. ADMIN only."
)
async def redeliver(
    info: Info, input: Annotated[RedeliverInput, strawberry.argument(description="What to make again.")]
) -> RedeliverResult:
    """Hold the webhook, put the delivery in the line and record it in one transaction, then ring."""
    viewer = info.context.viewer
    delivery_id = node_id("webhookdelivery", "delivery", input.delivery_id)
    async with transaction(viewer.merchant_id) as tx:
        found = await tx.row(FIND, merchant_id=viewer.merchant_id, delivery_id=delivery_id)
        if found is None:
            raise not_found("delivery", input.delivery_id)
        webhook_id = found["webhook_id"]
        webhook = await tx.row(HOLD, merchant_id=viewer.merchant_id, webhook_id=webhook_id)
        refuse_disabled(webhook)
        if not await requeue(tx, viewer.merchant_id, webhook_id, [delivery_id], viewer.actor):
            await tx.row(HASTEN, merchant_id=viewer.merchant_id, delivery_id=delivery_id, lease_seconds=lease_seconds())
        row = await delivery_row(tx, viewer, delivery_id)
    if row is None:
        raise not_found("delivery", input.delivery_id)
    await doorbell.wake_workers(JOB)
    return RedeliverSuccess(delivery=WebhookDelivery.of(row))


def refuse_disabled(webhook: HeldWebhookRow | None) -> None:
    """Raise Refused(WebhookDisabled) for a webhook to which nothing is sent."""
    if webhook is not None and webhook["disabled_at"] is not None:
        message = "The webhook is disabled; enable it first."
        raise Refused(WebhookDisabled(message=message, disabled_at=webhook["disabled_at"]))
