"""Expires invites that didn't convert in their lifetime."""

import logging
from typing import Any

from app.referrals import expire_invites as expiry

log = logging.getLogger("flash.worker")


async def expire_invites(ctx: dict[Any, Any]) -> int:
    if not await ctx["clocks"].trusts():
        return 0
    invites = await expiry.expire_invites()
    if invites:
        log.info("expired %d invites", invites)
    return invites
