"""Webhooks and their deliveries as the API shows them."""

from datetime import datetime
from enum import Enum

import strawberry

from app import ids
from app.api.operations import Info, Node, Refusal, field
from app.api.scalars import described
from app.merchants.tenants import decrypted
from app.webhooks.posting import WebhookFailure
from app.webhooks.rows import WebhookDeliveryRow, WebhookRow


@strawberry.enum(description="Why a webhook is disabled.")
class WebhookDisabledReason(Enum):
    """Who or what disabled it."""

    REQUESTED = described("REQUESTED", "Somebody asked for it.")
    GONE = described("GONE", "The endpoint answered 410 Gone.")
    FAILING = described(
        "FAILING", "A delivery had all its attempts, three days of them, and nothing was accepted since it was made."
    )


@strawberry.enum(description="Where a delivery stands.")
class WebhookDeliveryState(Enum):
    """One way leads from PENDING to each of the ends, and redelivering leads back."""

    PENDING = described("PENDING", "It waits for its first attempt, for its next one, or for one before it.")
    DELIVERED = described("DELIVERED", "The endpoint accepted it.")
    DEAD = described("DEAD", "It had all its attempts, and is not attempted again unless somebody asks for it.")


@strawberry.type(description="Where a merchant is told of events. Its secret is shown when it is made or rotated.")
class Webhook(Node):
    """A webhook; its URL is decrypted when it is asked for."""

    row: strawberry.Private[WebhookRow]
    event_types: list[str] = strawberry.field(description="The types that it is told of; empty: all of them.")
    created_at: datetime = strawberry.field(description="When it was made.")
    disabled_at: datetime | None = strawberry.field(
        description="When it was disabled; null while it is told of events."
    )
    disabled_reason: WebhookDisabledReason | None = strawberry.field(
        description="Why it is disabled; null if it isn't."
    )
    failing_since: datetime | None = strawberry.field(
        description="Since when nothing was accepted although something was sent; null when all is well."
    )
    paused_until: datetime | None = strawberry.field(
        description="Until when nothing is sent, because the endpoint failed or asked for it; null or past: no pause."
    )
    previous_secret_until: datetime | None = strawberry.field(
        description="Until when deliveries are signed with the previous secret too; null when with one only."
    )

    @classmethod
    def of(cls, row: WebhookRow) -> "Webhook":
        """Return the webhook of a row."""
        reason = row["webhook_disabled_reason"]
        return cls(
            id=strawberry.ID(ids.encode("webhook", row["webhook_id"])),
            row=row,
            event_types=row["webhook_event_types"],
            created_at=row["webhook_created_at"],
            disabled_at=row["webhook_disabled_at"],
            disabled_reason=None if reason is None else WebhookDisabledReason(reason),
            failing_since=row["webhook_failing_since"],
            paused_until=row["webhook_paused_until"],
            previous_secret_until=row["webhook_previous_secret_until"],
        )

    @field(description="Where events are posted to.")
    async def url(self, info: Info) -> str:
        """Decrypt the URL: what is in its path may be a secret."""
        return await decrypted(info.context.viewer.tenant, self.row["webhook_id"], "url", self.row["webhook_url"])


@strawberry.type(description="An event on its way to a webhook. Deliveries of one subject are made in order.")
class WebhookDelivery(Node):
    """A delivery."""

    webhook_id: strawberry.ID = strawberry.field(description="The webhook.")
    event_id: strawberry.ID = strawberry.field(description="The event; also what the header webhook-id says.")
    event_type: str = strawberry.field(description="What happened.")
    subject_id: strawberry.ID = strawberry.field(description="The node it happened to.")
    state: WebhookDeliveryState = strawberry.field(description="Where it stands.")
    attempts: int = strawberry.field(description="How often it was attempted since it was made or asked for again.")
    last_status: int | None = strawberry.field(description="The status of the last answer; null when there was none.")
    last_failure: WebhookFailure | None = strawberry.field(
        description="Why the last attempt failed; null when it didn't, or before the first one has ended."
    )
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is attempted next, if not accepted before; null when it waits for one of its subject "
        "before it or for its webhook to be enabled, and when it is PENDING no more."
    )
    created_at: datetime = strawberry.field(description="When the event was put on its way.")
    settled_at: datetime | None = strawberry.field(description="When it was accepted or given up; null while PENDING.")

    @classmethod
    def of(cls, row: WebhookDeliveryRow) -> "WebhookDelivery":
        """Return the delivery of a row."""
        failure = row["delivery_last_failure"]
        return cls(
            id=strawberry.ID(ids.encode("webhookdelivery", row["delivery_id"])),
            webhook_id=strawberry.ID(ids.encode("webhook", row["delivery_webhook_id"])),
            event_id=strawberry.ID(ids.encode("event", row["delivery_event_id"])),
            event_type=row["delivery_event_type"],
            subject_id=strawberry.ID(f"{row['delivery_subject_kind']}_{row['delivery_subject_id'].hex}"),
            state=WebhookDeliveryState(row["delivery_state"]),
            attempts=row["delivery_attempts"],
            last_status=row["delivery_last_status"],
            last_failure=None if failure is None else WebhookFailure(failure),
            next_attempt_at=row["delivery_next_attempt_at"],
            created_at=row["delivery_created_at"],
            settled_at=row["delivery_settled_at"],
        )


@strawberry.type(description="The merchant has as many webhooks as it may; disable one first.")
class WebhookLimitReached(Refusal):
    """Disabled ones don't count."""

    limit: int = strawberry.field(description="How many there may be.")


@strawberry.type(description="The webhook is disabled; enable it first.")
class WebhookDisabled(Refusal):
    """Nothing is sent to it."""

    disabled_at: datetime = strawberry.field(description="Since when.")
