"""Expires codes whose lifetime is over."""

import logging
from typing import Any

from app.coupons import expire_codes as expiry

log = logging.getLogger("flash.worker")


async def expire_codes(ctx: dict[Any, Any]) -> int:
    if not await ctx["clocks"].trusts():
        return 0
    codes = await expiry.expire_codes()
    if codes:
        log.info("expired %d codes", codes)
    return codes
