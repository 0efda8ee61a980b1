"""redeliverDead: the dead deliveries of a webhook are made again, the oldest first."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.storage import doorbell
from app.storage.database import transaction
from app.webhooks.deliver import JOB
from app.webhooks.disable_webhook import WhichWebhook
from app.webhooks.redeliver import HOLD, refuse_disabled, requeue
from app.webhooks.types import WebhookDisabled

#: How many one call makes again.
DEAD_MAX: Final = 1_000


@strawberry.type(description="The deliveries are attempted soon, in order for each subject.")
class RedeliverDeadSuccess:
    """How many."""

    count: int = strawberry.field(description="How many deliveries are PENDING again, at most 1,000.")
    has_more: bool = strawberry.field(description="Whether there are more that are DEAD; ask again for them.")


RedeliverDeadResult = Annotated[
    RedeliverDeadSuccess | NotFound | WebhookDisabled,
    strawberry.union("RedeliverDeadResult", description="How many are made again, or why none is."),
]

FIND_DEAD: Final = """
SELECT id FROM webhook_delivery WHERE merchant_id = $1 AND webhook_id = $2 AND state = 'DEAD' ORDER BY id LIMIT $3
"""


@mutation(
    description="Make the dead deliveries of a webhook again, up to 1,000 of the oldest: they are PENDING again, with "
    "all their attempts. The events keep their ids. ADMIN only."
)
async def redeliver_dead(info: Info, input: WhichWebhook) -> RedeliverDeadResult:
    """Hold the webhook, put the deliveries in the line and record it in one transaction, then ring."""
    viewer = info.context.viewer
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    async with transaction() as tx:
        webhook = await tx.row(HOLD, viewer.merchant_id, webhook_id)
        if webhook is None:
            raise not_found("webhook", input.webhook_id)
        refuse_disabled(webhook)
        dead = [row["id"] for row in await tx.rows(FIND_DEAD, viewer.merchant_id, webhook_id, DEAD_MAX + 1)]
        count = await requeue(tx, viewer.merchant_id, webhook_id, dead[:DEAD_MAX], viewer.actor) if dead else 0
    if count:
        await doorbell.wake_workers(JOB)
    return RedeliverDeadSuccess(count=count, has_more=len(dead) > DEAD_MAX)
