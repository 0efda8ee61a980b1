"""Expires points whose lifetime is over, ends the pending of others, and warns of those that expire soon."""

import logging
from typing import Any

from app.points import expire_points as expiry
from app.points.mature_points import mature_points

log = logging.getLogger("flash.worker")


async def expire_points(ctx: dict[Any, Any]) -> int:
    """Warn before anything expires, so that even late points have a warning."""
    if not await ctx["clocks"].trusts():
        return 0
    matured = await mature_points()
    if matured:
        log.info("the points of %d credits can be spent now", matured)
    warned = await expiry.warn_of_expiry()
    if warned:
        log.info("warned of %d credits that expire soon", warned)
    points = await expiry.expire_points()
    if points:
        log.info("expired %d points", points)
    return points
