"""The end of a replay: a snapshot of the network, advice, and every promise recomputed."""

import asyncio
import time
from typing import Any, Final

from rich.console import Console

from app.replay.engine import Engine
from app.replay.recomputed import recomputed

#: How long a worker may take for the snapshot, and for the advice.
WORK_SECONDS_MAX: Final = 300.0
_LOOK_SECONDS: Final = 0.2

TAKE: Final = "mutation { answer: takeGraphSnapshot { ... on TakeGraphSnapshotSuccess { jobId } } }"
TAKEN: Final = """
query ($id: ID!) { work: graphSnapshotJob(id: $id) { status snapshot { memberCount referralCount hubCount } } }
"""
ASK: Final = "mutation { answer: askAdvisor { ... on AskAdvisorSuccess { run { id } } } }"
ADVISED: Final = "query ($id: ID!) { work: adviceRun(id: $id) { status source suggestions { __typename } } }"


async def told_insights(engine: Engine, console: Console) -> bool:
    """Ask for a snapshot and for advice, and print the results. Returns whether both were finished."""
    job = (await engine.ask(TAKE, {}))["answer"]["jobId"]
    run = (await engine.ask(ASK, {}))["answer"]["run"]["id"]
    taken, advised = await _worked(engine, TAKEN, job), await _worked(engine, ADVISED, run)
    if taken is None or advised is None:
        console.print("No snapshot or no advice: the server's worker didn't finish in time; see its log.")
        return False
    # It is null if a later snapshot of the same day has replaced ours, which is as good.
    if snapshot := taken["snapshot"]:
        console.print(
            f"The network: {snapshot['memberCount']:,} members, {snapshot['referralCount']:,} referrals, "
            f"{snapshot['hubCount']:,} hubs."
        )
    console.print(f"The advice: {len(advised['suggestions'])} offers, from {advised['source']}.")
    return True


async def _worked(engine: Engine, document: str, work_id: str) -> dict[str, Any] | None:
    """Return a job when it is done, or None when it has failed or takes too long."""
    until = time.monotonic() + WORK_SECONDS_MAX
    while time.monotonic() < until:
        work: dict[str, Any] = (await engine.ask(document, {"id": work_id}))["work"]
        if work["status"] in {"DONE", "FAILED"}:
            return work if work["status"] == "DONE" else None
        await asyncio.sleep(_LOOK_SECONDS)
    return None


async def told_integrity(engine: Engine, console: Console) -> bool:
    """Print the broken promises, or that every promise holds. Returns whether they do."""
    report = await recomputed(engine)
    if report is None:
        console.print("The promises weren't recomputed: the server's worker didn't finish in time; see its log.")
        return False
    for check in report["checks"]:
        if check["violations"]:
            console.print(f"broken: {check['name']} by {check['violations']:,} rows", markup=False)
    if report["ok"]:
        console.print("Every promise holds.")
    return bool(report["ok"])
