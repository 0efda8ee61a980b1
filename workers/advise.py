"""Works the advisor's runs that wait."""

import logging
from typing import Any, Final

from app.advisor import runs
from app.advisor.advise import advise_waiting
from app.advisor.ask_advisor import JOB

log = logging.getLogger("flash.worker")

#: A worker takes no further run on after this long, so that arq's timeout never cuts one off.
SECONDS_MAX: Final = 300.0
TIMEOUT_SECONDS: Final = 900
#: How many runs a worker works at once: they wait for an endpoint most of the time.
AT_ONCE_MAX: Final = 4


async def sweep_advice(ctx: dict[Any, Any]) -> int:
    """End runs that had all their attempts, and ring for those that wait and that nobody was told of."""
    waiting = await runs.waiting()
    for _ in range(min(waiting, AT_ONCE_MAX)):
        await ctx["redis"].enqueue_job(JOB)
    return waiting


async def advise(_ctx: dict[Any, Any]) -> int:
    """Work what waits."""
    ended = await advise_waiting(seconds_max=SECONDS_MAX)
    if ended:
        log.info("ended %d runs of the advisor", ended)
    return ended
