"""Expires points whose lifetime is over, and warns of those that expire soon."""

import logging
from typing import Any

from app.points import expire_points as expiry

log = logging.getLogger("flash.worker")


async def expire_points(ctx: dict[Any, Any]) -> int:
    """Warn first, so that even late points have a warning."""
    if not await ctx["clocks"].trusts():
        return 0
    warned = await expiry.warn_of_expiry()
    if warned:
        log.info("looked at %d credits that expire soon", warned)
    points = await expiry.expire_points()
    if points:
        log.info("expired %d points", points)
    return points
