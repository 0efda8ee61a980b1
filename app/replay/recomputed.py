"""The integrity report of a server as of now, whether it is computed at once or by a worker."""

import asyncio
import time
from typing import Any, Final

from app.replay.engine import Engine

#: How long a worker may take.
WORK_SECONDS_MAX: Final = 1800.0
_LOOK_SECONDS: Final = 0.5

REPORT: Final = "query { report: integrityReport { status checkedAt ok checks { name violations } } }"
CHECK: Final = "mutation { checkIntegrity { __typename } }"


async def recomputed(engine: Engine) -> dict[str, Any] | None:
    """Return what the promises come to now; None if the worker fails, or takes too long."""
    seen, report = await _report(engine), await _report(engine)
    if report["status"] == "DONE" and report["checkedAt"] != seen["checkedAt"]:
        return report
    await engine.ask(CHECK, {})
    until = time.monotonic() + WORK_SECONDS_MAX
    while time.monotonic() < until:
        report = await _report(engine)
        if report["status"] != "RUNNING":
            return report if report["status"] == "DONE" else None
        await asyncio.sleep(_LOOK_SECONDS)
    return None


async def _report(engine: Engine) -> dict[str, Any]:
    report: dict[str, Any] = (await engine.ask(REPORT, {}))["report"]
    return report
