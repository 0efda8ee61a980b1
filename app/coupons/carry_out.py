"""Carrying out the jobs of pools and campaigns."""

import asyncio
from collections.abc import Mapping
from typing import Final

from app.coupons.campaign_job import campaign_batch
from app.coupons.fill_pool import fill_batch
from app.coupons.revoke_codes import revoke_batch
from app.jobs import turns
from app.jobs.turns import Batch

#: What does a batch of a job, by its kind.
BATCHES: Final[Mapping[str, Batch]] = {"CAMPAIGN": campaign_batch, "FILL": fill_batch, "REVOKE": revoke_batch}


async def carry_out_jobs(*, seconds_max: float, stopping: asyncio.Event | None = None) -> int:
    """Give turns to the jobs that can go on. Returns how many. Safe to run at once, and to kill."""
    return await turns.carry_out(BATCHES, seconds_max=seconds_max, stopping=stopping)
