"""Works out, every night, who is in the segments that a member's own row doesn't tell."""

import logging
from typing import Any

from app.segments import refresh

log = logging.getLogger("flash.worker")


async def refresh_segments(_ctx: dict[Any, Any]) -> int:
    merchants = await refresh.refresh_due()
    if merchants:
        log.info("refreshed the segments of %d merchants", merchants)
    return merchants
