"""Deletes what is remembered of who was erased once it is older than its merchant wants."""

import logging
from typing import Any

from app.people.erasure_memory import forget_batch

log = logging.getLogger("flash.worker")


async def forget_erased(ctx: dict[Any, Any]) -> int:
    if not await ctx["clocks"].trusts():
        return 0
    forgotten = 0
    while batch := await forget_batch():
        forgotten += batch
    if forgotten:
        log.info("forgot %d mailboxes, addresses and ids of the erased", forgotten)
    return forgotten
