"""Carries out the advisor's waiting runs."""

import logging
from typing import Any, Final

from app.advisor import runs
from app.advisor.advise import advise_waiting
from app.advisor.ask_advisor import JOB

log = logging.getLogger("flash.worker")

#: A worker takes no further run after this long, so that arq's timeout never cuts one off.
SECONDS_MAX: Final = 300.0
TIMEOUT_SECONDS: Final = 900
#: How many runs a worker carries out at once. Most of the time they wait for an endpoint.
AT_ONCE_MAX: Final = 4


async def sweep_advice(ctx: dict[Any, Any]) -> int:
    """End runs that have used all their attempts, and ring for those that wait."""
    waiting = await runs.waiting()
    for _ in range(min(waiting, AT_ONCE_MAX)):
        await ctx["redis"].enqueue_job(JOB)
    return waiting


async def advise(_ctx: dict[Any, Any]) -> int:
    ended = await advise_waiting(seconds_max=SECONDS_MAX)
    if ended:
        log.info("ended %d runs of the advisor", ended)
    return ended
