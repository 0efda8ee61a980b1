"""Takes network snapshots, the day's and those that were asked for, and deletes old ones."""

import logging
import time
from typing import Any, Final

from app.config import settings
from app.graph import jobs
from app.graph.forget_snapshots import forget_batch
from app.graph.take_snapshots import take_waiting

log = logging.getLogger("flash.worker")

#: A worker leaves a lane after this long, so that arq's timeout never cuts a snapshot off.
LANE_SECONDS_MAX: Final = 300.0
LANE_TIMEOUT_SECONDS: Final = 900
#: A run leaves the rest of the old snapshots to the next minute's.
FORGET_SECONDS_MAX: Final = 20.0

#: How long after a run found no merchant whose day has begun, or nothing old, the next one looks.
PLAN_SECONDS: Final = 300.0
FORGET_SECONDS: Final = 3600.0

_busy: set[bool] = set()


async def plan_graph_snapshots(ctx: dict[Any, Any]) -> int:
    """Ask for the day's snapshots that are due, ring for each lane in which one waits, and delete old ones."""
    seldom, planned = ctx["seldom"], 0
    if seldom.is_due("snapshots"):
        planned = seldom.found("snapshots", await jobs.plan(turns=jobs.TURNS), idle_seconds=PLAN_SECONDS)
    for is_large in await jobs.lanes():
        await ctx["redis"].enqueue_job("take_graph_snapshots", is_large)
    if not seldom.is_due("old snapshots") or not await ctx["clocks"].trusts():
        return planned
    forgotten, until = 0, time.monotonic() + FORGET_SECONDS_MAX
    while time.monotonic() < until and (batch := await forget_batch(settings().graph_history_days)):
        forgotten += batch
    if seldom.found("old snapshots", forgotten, idle_seconds=FORGET_SECONDS):
        log.info("deleted %d old network snapshots", forgotten)
    return planned


async def take_graph_snapshots(_ctx: dict[Any, Any], is_large: bool) -> int:
    """Take the waiting snapshots of a lane. A worker takes one small and one large network at a time."""
    if is_large in _busy:
        return 0
    _busy.add(is_large)
    try:
        taken = await take_waiting(is_large=is_large, seconds_max=LANE_SECONDS_MAX)
    finally:
        _busy.discard(is_large)
    if taken:
        log.info("took %d network snapshots", taken)
    return taken
