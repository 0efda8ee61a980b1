"""Recomputes the promises of every merchant."""

import logging
from typing import Any

from app import ids
from app.integrity.audit import audit as audited
from app.integrity.audit import missing_constraints

log = logging.getLogger("flash.worker")


async def audit(_ctx: dict[Any, Any]) -> int:
    """Audit every merchant. Returns how many promises are broken; each is a line of the log."""
    for constraint in await missing_constraints():
        log.error("%s holds nothing: it was dropped or disabled, or isn't valid", constraint)
    broken = 0
    async for merchant_id, report in audited():
        name = ids.encode("merchant", merchant_id)
        if report is None:
            log.error("%s: its promises can't be recomputed in time", name)
            continue
        for check in report.checks:
            if not check.ok:
                broken += 1
                log.error("%s: %s is broken by %d rows", name, check.name, check.violations)
    return broken
