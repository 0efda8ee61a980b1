"""Looks at the constraints that hold the promises."""

import logging
from typing import Any

from app.integrity.audit import missing_constraints

log = logging.getLogger("flash.worker")


async def audit(_ctx: dict[Any, Any]) -> int:
    """Log each constraint that is missing. Returns how many; the rows are recomputed by `keep_reports`."""
    missing = await missing_constraints()
    for constraint in missing:
        log.error("%s holds nothing: it was dropped or disabled, or isn't valid", constraint)
    return len(missing)
