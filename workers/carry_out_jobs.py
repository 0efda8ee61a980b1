"""Carries out jobs over many rows."""

import asyncio
import logging
from typing import Any, Final

from app.coupons.carry_out import carry_out_jobs as carry_out

log = logging.getLogger("flash.worker")

#: A run ends after this long and another begins, so that arq's timeout never cuts a batch off.
SECONDS_MAX: Final = 300.0
TIMEOUT_SECONDS: Final = 900

_carrying_out = asyncio.Lock()


async def carry_out_jobs(ctx: dict[Any, Any]) -> int:
    """Give turns to what can go on. One run at a time in each worker."""
    if _carrying_out.locked():
        return 0
    async with _carrying_out:
        turns = await carry_out(seconds_max=SECONDS_MAX, stopping=ctx["stopping"])
    if turns:
        log.info("gave %d turns to jobs", turns)
    return turns
