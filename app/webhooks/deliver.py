"""Delivering: what is due is sent, some of each webhook at once, so that nobody waits for somebody else's server."""

import asyncio
import logging
import time
from collections import Counter
from typing import Any, Final
from uuid import UUID

import orjson
from cachetools import LRUCache

from app import ids
from app.api.scalars import serialize_date_time
from app.config import settings
from app.merchants.tenants import decrypted, tenant
from app.storage.database import may_succeed_later
from app.webhooks import deliveries
from app.webhooks.addresses import read_url
from app.webhooks.deliveries import TakenRow
from app.webhooks.feed import make_deliveries
from app.webhooks.posting import Outcome, WebhookFailure, post
from app.webhooks.signatures import sign

log = logging.getLogger("flash.webhooks")

#: The worker's function; the engine knows it by name only.
JOB: Final = "deliver_webhooks"
#: What one worker sends to one webhook at once, and to one whose last answer took long.
PER_WEBHOOK: Final = 4
SLOW_SECONDS: Final = 1.0
#: How often a worker that waits for answers looks for what is new.
LOOK_SECONDS: Final = 0.5
_WEBHOOKS_KEPT_MAX: Final = 10_000


class _Worker:
    """What one worker has under way: a task for each delivery."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], TakenRow] = {}
        self._under_way: Counter[UUID] = Counter()
        self._slow: LRUCache[UUID, None] = LRUCache(_WEBHOOKS_KEPT_MAX)
        self.attempts = 0

    @property
    def is_idle(self) -> bool:
        return not self._tasks

    async def take(self) -> int:
        """Begin what is due and has room. Returns how many deliveries."""
        most = settings().webhook_connections_max - len(self._tasks)
        if most <= 0:
            return 0
        known = self._under_way.keys() | self._slow.keys()
        room = {each: max(0, (1 if each in self._slow else PER_WEBHOOK) - self._under_way[each]) for each in known}
        taken = await deliveries.take(room, per_webhook=PER_WEBHOOK, most=most)
        for delivery in taken:
            self._under_way[delivery["webhook_id"]] += 1
            self._tasks[asyncio.create_task(self._deliver(delivery))] = delivery
        self.attempts += len(taken)
        return len(taken)

    async def wait(self) -> None:
        """Wait until something has ended, or for a moment. Raises what kept a worker from storing what came of it."""
        ended, _ = await asyncio.wait(self._tasks, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            webhook_id = self._tasks.pop(task)["webhook_id"]
            self._under_way[webhook_id] -= 1
            if not self._under_way[webhook_id]:
                del self._under_way[webhook_id]
        errors = [error for task in ended if (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    async def stop(self) -> None:
        """End what is under way; it is given back, and attempted again by whoever looks next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, delivery: TakenRow) -> None:
        try:
            began = time.monotonic()
            outcome = await _outcome(delivery)
            self._note_pace(delivery["webhook_id"], time.monotonic() - began)
            await deliveries.settle(delivery, outcome)
        except asyncio.CancelledError:
            await deliveries.release(delivery)
            raise

    def _note_pace(self, webhook_id: UUID, seconds: float) -> None:
        """Remember who is slow: it gets less at once, so that many slow ones don't take all there is."""
        if seconds < SLOW_SECONDS:
            self._slow.pop(webhook_id, None)
        else:
            self._slow[webhook_id] = None


async def deliver_waiting(*, seconds_max: float, stopping: asyncio.Event | None = None) -> int:
    """Send what is due until nothing is, or for so long, or until `stopping`. Returns how many attempts were made.

    Safe to run twice and at once: a delivery is one worker's for the time that an attempt takes at most. Cancelled, it
    gives back what is under way; killed, that is attempted again when its time is over.
    """
    worker, until = _Worker(), time.monotonic() + seconds_max
    look_at = 0.0
    try:
        while True:
            made = taken = 0
            goes_on = time.monotonic() < until and not (stopping is not None and stopping.is_set())
            if goes_on and time.monotonic() >= look_at:
                made, has_more = await make_deliveries()
                look_at = 0.0 if has_more else time.monotonic() + LOOK_SECONDS
            if goes_on:
                taken = await worker.take()
            if worker.is_idle and not taken and (not goes_on or (not made and look_at)):
                return worker.attempts
            if not worker.is_idle:
                await worker.wait()
    finally:
        await worker.stop()


async def _outcome(delivery: TakenRow) -> Outcome:
    """Send a delivery. One that can't be made fails alone; raises when the database is away."""
    try:
        return await _attempt(delivery)
    except Exception as error:
        if may_succeed_later(error):
            raise
        log.exception("the delivery %s can't be made", ids.encode("webhookdelivery", delivery["id"]))
        return Outcome(failure=WebhookFailure.NOT_SENT)


async def _attempt(delivery: TakenRow) -> Outcome:
    message_id, body = message(delivery)
    url, *secrets = await _unsealed(delivery)
    timestamp = int(time.time())
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, message_id, timestamp, body) for secret in secrets),
    }
    limits = settings()
    # What was http in development stays what it is.
    target = read_url(url, plain=True)
    return await post(
        target, headers, body, networks=limits.private_networks, seconds_max=limits.webhook_timeout_seconds
    )


async def _unsealed(delivery: TakenRow) -> list[str]:
    """Return the webhook's URL, its secret, and the one before while that is good."""
    owner = await tenant(delivery["merchant_id"])
    if owner is None:
        raise RuntimeError("a delivery's merchant has no row")
    sealed = [("url", delivery["url"]), ("secret", delivery["secret"])]
    if delivery["previous_secret"] is not None:
        sealed.append(("secret", delivery["previous_secret"]))
    return [await decrypted(owner, delivery["webhook_id"], identity, ciphertext) for identity, ciphertext in sealed]


def message(delivery: TakenRow) -> tuple[str, bytes]:
    """Return the id of a delivery's event and what is posted of it: ids, never personal data."""
    event_id = ids.encode("event", delivery["event_id"])
    data: dict[str, Any] = {
        "id": event_id,
        "merchantId": ids.encode("merchant", delivery["merchant_id"]),
        "subjectId": f"{delivery['subject_kind']}_{delivery['subject_id'].hex}",
        "actor": delivery["actor"],
    }
    if delivery["member_id"] is not None:
        data |= {"memberId": ids.encode("member", delivery["member_id"]), "walletVersion": delivery["wallet_version"]}
    if delivery["points"] is not None:
        data["points"] = delivery["points"]
    told = {"type": delivery["type"], "timestamp": serialize_date_time(delivery["occurred_at"]), "data": data}
    return event_id, orjson.dumps(told)
