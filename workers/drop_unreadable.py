"""Drops jobs that nobody of ours wrote."""

import logging
from typing import Any

log = logging.getLogger("flash.worker")


async def drop_unreadable(ctx: dict[Any, Any]) -> None:
    """Log one line. The job is gone from the queue when this ends, and isn't tried again."""
    log.warning("the job %s can't be read; it was dropped", ctx["job_id"])
