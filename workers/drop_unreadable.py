"""Drops jobs that can't be read."""

import logging
from typing import Any

log = logging.getLogger("flash.worker")


async def drop_unreadable(ctx: dict[Any, Any]) -> None:
    """Log one line. Then arq removes the job from the queue."""
    log.warning("the job %s can't be read; it was dropped", ctx["job_id"])
