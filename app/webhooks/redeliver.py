"""redeliver: a delivery that ended, or that waits for its next attempt, is made again."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refused, mutation, not_found
from app.storage import doorbell
from app.storage.database import Row, Tx, transaction
from app.webhooks.deliver import JOB
from app.webhooks.deliveries import lease_seconds
from app.webhooks.feed import FIRST_WAITING
from app.webhooks.queries import FIND_DELIVERY
from app.webhooks.types import WebhookDelivery, WebhookDisabled


@strawberry.input(description="A delivery to make again.")
class RedeliverInput:
    """Which delivery."""

    delivery_id: strawberry.ID = strawberry.field(description="The delivery.")


@strawberry.type(description="The delivery is attempted soon, after those of its subject that were made before.")
class RedeliverSuccess:
    """The delivery."""

    delivery: WebhookDelivery = strawberry.field(description="The delivery, PENDING.")


RedeliverResult = Annotated[
    RedeliverSuccess | NotFound | WebhookDisabled,
    strawberry.union("RedeliverResult", description="The delivery, or why it isn't made again."),
]

FIND: Final = "SELECT webhook_id FROM webhook_delivery WHERE merchant_id = $1 AND id = $2"
#: As the feed, whoever puts deliveries in the line is alone with their webhook (`feed.HOLD`).
HOLD: Final = "SELECT disabled_at FROM webhook WHERE merchant_id = $1 AND id = $2 FOR UPDATE"
# What ended goes to the end of the line, in order. A merchant that sends many again may meet
# several of one subject: only the first has its turn, and that only while nothing of the subject waits.
REQUEUE: Final = f"""
WITH again AS (
    SELECT d.id, d.subject_id, row_number() OVER (ORDER BY d.position) AS place,
        row_number() OVER (PARTITION BY d.subject_id ORDER BY d.position) AS turn
    FROM webhook_delivery d
    WHERE d.merchant_id = $1 AND d.id = ANY($3::uuid[]) AND d.state <> 'PENDING'
), moved AS (
    UPDATE webhook SET position = position + (SELECT count(*) FROM again)
    WHERE merchant_id = $1 AND id = $2 AND EXISTS (SELECT FROM again)
    RETURNING position - (SELECT count(*) FROM again) AS last
), requeued AS (
    UPDATE webhook_delivery d
    SET state = 'PENDING', attempts = 0, settled_at = NULL, position = moved.last + again.place,
        next_attempt_at = CASE WHEN again.turn = 1 AND {FIRST_WAITING.format("again.subject_id")} IS NULL THEN now() END
    FROM again CROSS JOIN moved
    WHERE d.merchant_id = $1 AND d.id = ANY($3::uuid[]) AND d.id = again.id
    RETURNING d.id
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $4, 'webhook.redelivered', $2, $5, now() FROM moved
)
SELECT id FROM requeued
"""
# What is being attempted has its next attempt within $3 seconds, and is left alone.
HASTEN: Final = """
UPDATE webhook_delivery SET next_attempt_at = now()
WHERE merchant_id = $1 AND id = $2 AND next_attempt_at > now() + make_interval(secs => $3)
"""


async def requeue(tx: Tx, merchant_id: UUID, webhook_id: UUID, delivery_ids: list[UUID], actor: str) -> int:
    """Put ended deliveries of a webhook that the caller holds in the line again. Returns how many ended ones."""
    return len(await tx.many(REQUEUE, merchant_id, webhook_id, delivery_ids, ids.new(), actor))


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
    async with transaction() as tx:
        found = await tx.row(FIND, viewer.merchant_id, delivery_id)
        if found is None:
            raise not_found("delivery", input.delivery_id)
        webhook = await tx.row(HOLD, viewer.merchant_id, found["webhook_id"])
        refuse_disabled(webhook)
        if not await requeue(tx, viewer.merchant_id, found["webhook_id"], [delivery_id], viewer.actor):
            await tx.row(HASTEN, viewer.merchant_id, delivery_id, lease_seconds())
        row = await tx.row(FIND_DELIVERY, viewer.merchant_id, delivery_id)
    if row is None:
        raise not_found("delivery", input.delivery_id)
    await doorbell.wake_workers(JOB)
    return RedeliverSuccess(delivery=WebhookDelivery.of(row))


def refuse_disabled(webhook: Row | None) -> None:
    """Raise Refused(WebhookDisabled) for a webhook to which nothing is sent."""
    if webhook is not None and webhook["disabled_at"] is not None:
        message = "The webhook is disabled; enable it first."
        raise Refused(WebhookDisabled(message=message, disabled_at=webhook["disabled_at"]))
