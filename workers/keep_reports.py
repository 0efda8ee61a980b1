"""Computes reports that read everything a merchant has: every night's, and those that were asked for."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from app.advisor.figures import compute as portfolio
from app.integrity.recompute import check as integrity
from app.reports import runs
from app.reports.runs import Compute

log = logging.getLogger("flash.worker")

#: A worker begins no further report after this long; one may take as long as FLASH_REPORT_SECONDS_MAX, at most 7,200.
SECONDS_MAX: Final = 300.0
TIMEOUT_SECONDS: Final = 8000
#: How long after a run found none of the night's that wasn't done the next one looks for them.
PLAN_SECONDS: Final = 300.0
#: What computes a report, by its kind.
COMPUTATIONS: Final[Mapping[str, Compute]] = {runs.INTEGRITY: integrity, runs.PORTFOLIO: portfolio}

_keeping = asyncio.Lock()


async def keep_reports(ctx: dict[Any, Any]) -> int:
    """Carry out what waits, one report at a time in each worker."""
    if _keeping.locked():
        return 0
    async with _keeping:
        plans = ctx["seldom"].is_due("reports")
        ended = await runs.carry_out(COMPUTATIONS, seconds_max=SECONDS_MAX, stopping=ctx["stopping"], plans=plans)
    if plans:
        ctx["seldom"].found("reports", ended, idle_seconds=PLAN_SECONDS)
    if ended:
        log.info("ended %d runs of reports", ended)
    return ended
