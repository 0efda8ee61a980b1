"""rotateWebhookSecret: a webhook gets another secret; for a while its deliveries are signed with both."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement
from app.webhooks.rows import WebhookRow
from app.webhooks.signatures import new_secret
from app.webhooks.types import Webhook

OVERLAP_HOURS: Final = 24
OVERLAP_HOURS_MAX: Final = 168


@strawberry.input(description="A webhook that is to have another secret.")
class RotateWebhookSecretInput:
    """Which one, and how long the present secret is still good."""

    webhook_id: strawberry.ID = strawberry.field(description="The webhook.")
    overlap_hours: int = strawberry.field(
        default=OVERLAP_HOURS,
        description="For how many hours deliveries are signed with the present secret too, 0 to 168; 0 ends it now.",
    )


@strawberry.type(description="Deliveries are signed with the new secret, first, and for a while with the one before.")
class RotateWebhookSecretSuccess:
    webhook: Webhook = strawberry.field(description="The webhook.")
    secret: str = strawberry.field(description="The new secret (`whsec_…`); shown only here.")


RotateWebhookSecretResult = Annotated[
    RotateWebhookSecretSuccess | InvalidInput | NotFound,
    strawberry.union("RotateWebhookSecretResult", description="The new secret, or why there is none."),
]

# Both columns are bound to the row alike, so that the ciphertext may move from one to the other.
ROTATE: Final = statement(
    WebhookRow,
    f"""
WITH w AS (
    UPDATE webhook SET secret = :secret,
        previous_secret = CASE WHEN :overlap_hours::int > 0 THEN secret END,
        previous_secret_until = CASE
            WHEN :overlap_hours::int > 0 THEN now() + make_interval(hours => :overlap_hours) END
    WHERE merchant_id = :merchant_id AND id = :webhook_id RETURNING *
), recorded AS (
    {event("webhook.secret_rotated", subject="id", source="w")}
)
SELECT {columns(WebhookRow)} FROM w
""",
)


@mutation(
    description="Give a webhook another secret. Each call is a new one: the present one is good for a while, and the "
    "one before that no longer. ADMIN only."
)
async def rotate_webhook_secret(
    info: Info, input: Annotated[RotateWebhookSecretInput, strawberry.argument(description="Which, and how.")]
) -> RotateWebhookSecretResult:
    """Move the present secret and put the new one in its place, in one statement."""
    problems = Problems()
    overlap = problems.number("overlapHours", input.overlap_hours, least=0, most=OVERLAP_HOURS_MAX)
    problems.refuse_if_any()
    viewer, secret = info.context.viewer, new_secret()
    webhook_id = node_id("webhook", "webhook", input.webhook_id)
    row = await database().row(
        ROTATE,
        merchant_id=viewer.merchant_id,
        webhook_id=webhook_id,
        secret=viewer.tenant.keys.encrypt(webhook_id, "secret", secret),
        overlap_hours=overlap,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if row is None:
        raise not_found("webhook", input.webhook_id)
    return RotateWebhookSecretSuccess(webhook=Webhook.of(row), secret=secret)
