"""Revives codes whose pool has a later end."""

import logging
from typing import Any

from app.coupons import revive_codes as revival

log = logging.getLogger("flash.worker")


async def revive_codes(_ctx: dict[Any, Any]) -> int:
    codes = await revival.revive_codes()
    if codes:
        log.info("revived %d codes", codes)
    return codes
