"""redeliverDead: the dead deliveries of a webhook are made again, the oldest first."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.storage import doorbell
from app.storage.database import transaction
from app.storage.statements import statement
from app.webhooks.deliver import JOB
from app.webhooks.disable_webhook import WhichWebhook
from app.webhooks.redeliver import HOLD, refuse_disabled, requeue
from app.webhooks.types import WebhookDisabled

#: How many one call makes again.
DEAD_MAX: Final = 1_000


@strawberry.type(description="The deliveries are attempted soon, in order for each subject.")
class RedeliverDeadSuccess:
    count: int = strawberry.field(description="How many deliveries are PENDING again, at most 1,000.")
    has_more: bool = strawberry.field(description="Whether there are more that are DEAD; ask again for them.")


RedeliverDeadResult = Annotated[
    RedeliverDeadSuccess | NotFound | WebhookDisabled,
    strawberry.union("RedeliverDeadResult", description="How many are made again, or why none is."),
]


class DeadRow(TypedDict):
    """A delivery that is dead."""

    id: UUID


FIND_DEAD: Final = statement(
    DeadRow,
    """
SELECT id FROM webhook_delivery
WHERE merchant_id = :merchant_id AND webhook_id = :webhook_id AND state = 'DEAD' ORDER BY id LIMIT :limit
""",
)


@mutation(
    description="Make the dead deliveries of a webhook again, up to 1,000 of the oldest: they are PENDING again, with "
    "all their attempts. The events keep their ids. ADMIN only."
)
async def redeliver_dead(info: Info, input: WhichWebhook) -> RedeliverDeadResult:
    """Hold the webhook, put the deliveries in the line and record it in one transaction, then ring."""
    viewer = info.context.viewer
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    async with transaction(viewer.merchant_id) as tx:
        webhook = await tx.row(HOLD, merchant_id=viewer.merchant_id, webhook_id=webhook_id)
        if webhook is None:
            raise not_found("webhook", input.webhook_id)
        refuse_disabled(webhook)
        found = await tx.rows(FIND_DEAD, merchant_id=viewer.merchant_id, webhook_id=webhook_id, limit=DEAD_MAX + 1)
        dead = [row["id"] for row in found]
        count = await requeue(tx, viewer.merchant_id, webhook_id, dead[:DEAD_MAX], viewer.actor) if dead else 0
    if count:
        await doorbell.wake_workers(JOB)
    return RedeliverDeadSuccess(count=count, has_more=len(dead) > DEAD_MAX)
