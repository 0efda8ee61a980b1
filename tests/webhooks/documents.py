"""The documents of webhooks, and what their tests make and look at."""

import asyncio
from typing import Any, Final

from app import ids
from app.storage.database import database
from app.webhooks.deliver import deliver_waiting
from app.webhooks.feed import make_deliveries
from tests.factories import CHANGE_STATUS, REFUSALS, Shop

WEBHOOK: Final = """
  id url eventTypes createdAt disabledAt disabledReason failingSince pausedUntil previousSecretUntil
"""
DELIVERY: Final = """
  id webhookId eventId eventType subjectId state attempts lastStatus lastFailure nextAttemptAt createdAt settledAt
"""
_MORE: Final = f"{REFUSALS} ... on WebhookLimitReached {{ limit }}"
CREATE: Final = f"""
mutation ($input: CreateWebhookInput!) {{
  answer: createWebhook(input: $input) {{
    __typename ... on CreateWebhookSuccess {{ secret webhook {{ {WEBHOOK} }} }} {_MORE}
  }}
}}
"""
DISABLE: Final = f"""
mutation ($input: WebhookIdInput!) {{
  answer: disableWebhook(input: $input) {{
    __typename ... on DisableWebhookSuccess {{ webhook {{ {WEBHOOK} }} }} {REFUSALS}
  }}
}}
"""
ENABLE: Final = f"""
mutation ($input: WebhookIdInput!) {{
  answer: enableWebhook(input: $input) {{
    __typename ... on EnableWebhookSuccess {{ webhook {{ {WEBHOOK} }} }} {_MORE}
  }}
}}
"""
ROTATE: Final = f"""
mutation ($input: RotateWebhookSecretInput!) {{
  answer: rotateWebhookSecret(input: $input) {{
    __typename ... on RotateWebhookSecretSuccess {{ secret webhook {{ {WEBHOOK} }} }} {REFUSALS}
  }}
}}
"""
REDELIVER: Final = f"""
mutation ($input: RedeliverInput!) {{
  answer: redeliver(input: $input) {{
    __typename ... on RedeliverSuccess {{ delivery {{ {DELIVERY} }} }} {REFUSALS}
    ... on WebhookDisabled {{ disabledAt }}
  }}
}}
"""
REDELIVER_DEAD: Final = f"""
mutation ($input: WebhookIdInput!) {{
  answer: redeliverDead(input: $input) {{
    __typename ... on RedeliverDeadSuccess {{ count hasMore }} {REFUSALS} ... on WebhookDisabled {{ disabledAt }}
  }}
}}
"""
WEBHOOKS: Final = f"query ($first: Int) {{ webhooks(first: $first) {{ edges {{ node {{ {WEBHOOK} }} }} }} }}"
DELIVERIES: Final = f"""
query ($id: ID, $states: [WebhookDeliveryState!], $first: Int, $after: String) {{
  webhookDeliveries(webhookId: $id, states: $states, first: $first, after: $after) {{
    edges {{ node {{ {DELIVERY} }} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""
#: Time has passed: pauses of a shop's webhooks are over, and so are waits and leases.
RESUME: Final = "UPDATE webhook SET paused_until = NULL WHERE merchant_id = $1"
HASTEN: Final = """
UPDATE webhook_delivery SET next_attempt_at = now() WHERE merchant_id = $1 AND id = ANY(ARRAY(
    SELECT id FROM webhook_delivery WHERE merchant_id = $1 AND next_attempt_at IS NOT NULL FOR UPDATE SKIP LOCKED
))
"""
SECONDS_MAX: Final = 60.0


async def create(shop: Shop, url: str, **how: Any) -> Any:
    """Ask for a webhook, and return the answer."""
    return (await shop.data(CREATE, {"input": {"url": url} | how}))["answer"]


async def hook(shop: Shop, url: str, *event_types: str) -> Any:
    """Make a webhook, and return it with its secret."""
    made = await create(shop, url, eventTypes=list(event_types))
    assert made["__typename"] == "CreateWebhookSuccess", made
    return made["webhook"] | {"secret": made["secret"]}


async def read(shop: Shop, webhook: Any) -> Any:
    """Return a webhook as it is now."""
    edges = (await shop.data(WEBHOOKS))["webhooks"]["edges"]
    return next(edge["node"] for edge in edges if edge["node"]["id"] == webhook["id"])


async def deliveries(shop: Shop, webhook: Any = None, *states: str) -> list[Any]:
    """Return the newest deliveries, oldest first."""
    asked = {"id": webhook and webhook["id"], "states": list(states) or None, "first": 100}
    edges = (await shop.data(DELIVERIES, asked))["webhookDeliveries"]["edges"]
    return [edge["node"] for edge in reversed(edges)]


async def happen(shop: Shop, times: int = 1, pool: Any = None) -> Any:
    """Let a pool of the shop be paused and activated in turn, so many times; return the pool."""
    pool = pool or await shop.pool(codes=1)
    for _ in range(times):
        verb = "pausePool" if pool["status"] == "ACTIVE" else "activatePool"
        pool = (await shop.do(CHANGE_STATUS % verb, poolId=pool["id"]))["pool"]
    return pool


async def deliver(shop: Shop, *, rounds: int = 1) -> None:
    """Deliver what is due; with more rounds, let the time to the next attempt pass in between."""
    for turn in range(rounds):
        if turn:
            await hasten(shop)
        await deliver_waiting(seconds_max=SECONDS_MAX)


async def hasten(shop: Shop) -> None:
    """Let time pass."""
    await database().row(RESUME, shop.merchant_id)
    await database().row(HASTEN, shop.merchant_id)


async def eventually(condition: Any) -> None:
    """Wait until a condition holds; it may be a coroutine function."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)


async def delivery_made(shop: Shop) -> tuple[str, str]:
    """Return the ids of a webhook of the shop and of a delivery to it; it is disabled, so that nobody sends it."""
    webhook = await hook(shop, "https://hidden.invalid/hooks")
    await make_deliveries()
    await shop.do(DISABLE, webhookId=webhook["id"])
    (delivery,) = await deliveries(shop, webhook)
    assert ids.decode("webhookdelivery", delivery["id"])
    return webhook["id"], delivery["id"]
