"""Sends events to webhooks, and deletes old deliveries."""

import asyncio
import logging
import time
from typing import Any, Final

from app.webhooks.deliver import deliver_waiting
from app.webhooks.forget_deliveries import forget_batch

log = logging.getLogger("flash.worker")

#: A run ends after this long and another begins, so that arq's timeout never cuts a delivery off.
SECONDS_MAX: Final = 300.0
TIMEOUT_SECONDS: Final = 900
FORGET_SECONDS_MAX: Final = 20.0

_delivering = asyncio.Lock()


async def deliver_webhooks(ctx: dict[Any, Any]) -> int:
    """Send what is due. One run at a time in each worker; it notices what others ring for meanwhile."""
    if _delivering.locked():
        return 0
    async with _delivering:
        attempts = await deliver_waiting(seconds_max=SECONDS_MAX, stopping=ctx["stopping"])
    if attempts:
        log.info("made %d attempts to deliver webhooks", attempts)
    return attempts


async def forget_webhook_deliveries(ctx: dict[Any, Any]) -> int:
    """Delete old deliveries. A run leaves the rest to the next minute's."""
    if not await ctx["clocks"].trusts():
        return 0
    forgotten, until = 0, time.monotonic() + FORGET_SECONDS_MAX
    while time.monotonic() < until and (batch := await forget_batch()):
        forgotten += batch
    if forgotten:
        log.info("deleted %d old webhook deliveries", forgotten)
    return forgotten
