"""Expires holds whose time has passed."""

import logging
from typing import Any

from app.orders import expire_holds as expiry

log = logging.getLogger("flash.worker")


async def expire_holds(ctx: dict[Any, Any]) -> int:
    if not await ctx["clocks"].trusts():
        return 0
    holds = await expiry.expire_holds()
    if holds:
        log.info("expired %d holds", holds)
    return holds
