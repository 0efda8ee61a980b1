"""createWebhook: the merchant's events are told to an endpoint from now on; its secret is in this answer only."""

import asyncio
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, Refused, mutation
from app.config import settings
from app.storage.database import Tx, transaction
from app.storage.events import EVENTS, event
from app.storage.statements import columns, statement
from app.webhooks.addresses import URL_LENGTH_MAX, AddressRefusedError, HostUnknownError, read_url, resolve
from app.webhooks.rows import WebhookRow
from app.webhooks.signatures import new_secret
from app.webhooks.types import Webhook, WebhookLimitReached

#: How long looking the host up may take here. A host that isn't found in time is judged when something is sent.
_LOOKUP_SECONDS_MAX: Final = 2.0


@strawberry.input(description="A webhook to make.")
class CreateWebhookInput:
    """Where to, and of what."""

    url: str = strawberry.field(
        description="Where to post events: https (in development http too), a public host, no user, password or "
        f"fragment, at most {URL_LENGTH_MAX} characters. Stored encrypted."
    )
    event_types: list[str] | None = strawberry.field(
        default=None, description="The types of events to be told of, as `events` spells them; all when left out."
    )


@strawberry.type(description="The webhook was made. The first event that it is told of is `webhook.created`, its own.")
class CreateWebhookSuccess:
    webhook: Webhook = strawberry.field(description="The webhook.")
    secret: str = strawberry.field(
        description="What deliveries are signed with, as Standard Webhooks has it (`whsec_…`); shown only here."
    )


CreateWebhookResult = Annotated[
    CreateWebhookSuccess | InvalidInput | WebhookLimitReached,
    strawberry.union("CreateWebhookResult", description="The webhook, or why there is none."),
]


class AloneRow(TypedDict):
    """A snapshot of the database."""

    now: str


class CountRow(TypedDict):
    """How many webhooks are enabled."""

    webhooks: int


# Merchants' webhooks are counted one at a time. The snapshot is of before: the webhook's own event comes after it.
COUNT_ALONE: Final = statement(
    AloneRow,
    """
SELECT pg_current_snapshot()::text AS now FROM merchant WHERE merchant_id = :merchant_id FOR NO KEY UPDATE
""",
)
COUNT: Final = statement(
    CountRow,
    "SELECT count(*)::int AS webhooks FROM webhook WHERE merchant_id = :merchant_id AND disabled_at IS NULL",
)


async def refuse_beyond_limit(tx: Tx, merchant_id: UUID) -> str:
    """Make sure that one more webhook may be enabled, until the transaction ends. Returns the snapshot of before.

    Raises Refused(WebhookLimitReached).
    """
    alone = await tx.row(COUNT_ALONE, merchant_id=merchant_id)
    counted = await tx.row(COUNT, merchant_id=merchant_id)
    if alone is None or counted is None:
        raise RuntimeError("a viewer's merchant has no row")
    limit = settings().webhooks_max
    if counted["webhooks"] >= limit:
        raise Refused(WebhookLimitReached(message=f"There are {limit} webhooks already.", limit=limit))
    return alone["now"]


INSERT: Final = statement(
    WebhookRow,
    f"""
WITH w AS (
    INSERT INTO webhook (merchant_id, id, url, event_types, secret, created_at, feed_from)
    VALUES (:merchant_id, :webhook_id, :url, :event_types, :secret, now(), :feed_from) RETURNING *
), recorded AS (
    {event("webhook.created", subject="id", source="w")}
)
SELECT {columns(WebhookRow)} FROM w WHERE w.merchant_id = :merchant_id
""",
)


@mutation(
    description="Have events posted to an endpoint, from now on: at least once, in order for each subject, signed. "
    "ADMIN only."
)
async def create_webhook(
    info: Info, input: Annotated[CreateWebhookInput, strawberry.argument(description="The webhook to make.")]
) -> CreateWebhookResult:
    """Judge where the URL leads, then make the webhook. Where it leads is judged again whenever something is sent."""
    problems = Problems()
    url = input.url.strip()
    event_types = _checked_types(problems, input.event_types or [])
    await _check_url(problems, url)
    problems.refuse_if_any()
    viewer, webhook_id, secret = info.context.viewer, ids.new(), new_secret()
    keys = viewer.tenant.keys
    async with transaction(viewer.merchant_id) as tx:
        now = await refuse_beyond_limit(tx, viewer.merchant_id)
        row = await tx.row(
            INSERT,
            merchant_id=viewer.merchant_id,
            webhook_id=webhook_id,
            url=keys.encrypt(webhook_id, "url", url),
            event_types=event_types,
            secret=keys.encrypt(webhook_id, "secret", secret),
            feed_from=now,
            event_id=ids.new(),
            actor=viewer.actor,
        )
    if row is None:
        raise RuntimeError("INSERT returned no row")
    return CreateWebhookSuccess(webhook=Webhook.of(row), secret=secret)


def _checked_types(problems: Problems, asked: list[str]) -> list[str]:
    for place, event_type in enumerate(asked):
        if event_type not in EVENTS:
            problems.add(f"eventTypes.{place}", "must be a type of event")
    return sorted(set(asked))


async def _check_url(problems: Problems, url: str) -> None:
    configured = settings()
    try:
        target = read_url(url, plain=not configured.production)
    except ValueError as error:
        problems.add("url", str(error))
        return
    try:
        async with asyncio.timeout(_LOOKUP_SECONDS_MAX):
            await resolve(target, configured.private_networks)
    except AddressRefusedError:
        problems.add("url", "must not lead to a private, local or reserved address")
    except (HostUnknownError, TimeoutError):
        # It may be made tomorrow; until then deliveries fail, and say so.
        return
