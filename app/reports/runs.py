"""Reports that read everything a merchant has: computed at once while that is quick, and otherwise kept by workers.

A merchant has one row for each kind: how far its last run is, and what the last one that succeeded found. The table is
the letter and Valkey the doorbell: a run that nobody was told of is found by the next sweep.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, TypedDict
from uuid import UUID

import orjson
import strawberry

from app import ids
from app.api.scalars import described
from app.config import settings
from app.storage import doorbell, events, leases, nights
from app.storage.database import database, may_succeed_later, took_too_long, transaction
from app.storage.events import none_since
from app.storage.fences import stands
from app.storage.leases import HeldRow
from app.storage.nights import FIRST, PASSED_AT_ONCE, MerchantRow, night_began
from app.storage.statements import NoRow, statement

log = logging.getLogger("flash.reports")

#: The worker's function; the engine knows it by name only.
JOB: Final = "keep_reports"
INTEGRITY: Final = "INTEGRITY"
PORTFOLIO: Final = "PORTFOLIO"
#: When a night begins, in hours of UTC.
NIGHT_HOUR: Final = 3
#: A worker that is killed loses its run after so long; one that lives says so three times as often.
_LEASE_SECONDS: Final = 60
#: Of the night's runs so many are asked for together: whoever asks in the night waits for no more than these.
_PLANNED_AT_ONCE: Final = 50
#: A merchant in which nothing happens has a run every so many nights, one of its own.
NIGHTS_APART: Final = 7
_STEPS: Final = ("RUNNING",)
KILLED: Final = "Every worker that tried ended while it was at it."


@strawberry.enum(description="How far the last run of a report is.")
class CheckStatus(Enum):
    """The states of a run."""

    NEVER_RUN = described("NEVER_RUN", "There was none yet.")
    RUNNING = described("RUNNING", "It waits for a worker, or one is at it. What is shown is of the run before.")
    DONE = described("DONE", "It is what is shown.")
    FAILED = described("FAILED", "It ended without a result: `problem` says why. What is shown is of a run before.")


class _KeptRow(TypedDict):
    status: str
    problem: str | None
    generated_at: datetime | None
    seconds: float | None
    content: str | None


class _TakenRow(HeldRow):
    kind: str


@dataclass(frozen=True, slots=True)
class Computed:
    """What a report found, as JSON, and an event that it has to be on record with."""

    content: Any
    event: str | None = None


#: Computes a report of a merchant, each statement in at most so many seconds; None stands for the limits of a request.
Compute = Callable[[UUID, float | None], Awaitable[Computed]]


@dataclass(frozen=True, slots=True)
class Report:
    """What there is of a report: how far its last run is, and what was found last, when, and in how many seconds."""

    status: CheckStatus
    problem: str | None = None
    generated_at: datetime | None = None
    seconds: float | None = None
    content: Any = None


KEPT: Final = statement(
    _KeptRow,
    """
SELECT status, problem, generated_at, seconds, content FROM report_run
WHERE merchant_id = :merchant_id AND kind = :kind
""",
)
# A report whose run waits or runs gets no other: whoever asks meanwhile waits for that one.
_ASKED_FOR_ANEW: Final = """
ON CONFLICT (merchant_id, kind) DO UPDATE SET id = excluded.id, status = 'QUEUED', actor = excluded.actor, attempts = 0,
    requested_at = excluded.requested_at, started_at = NULL, lease_until = NULL, finished_at = NULL, problem = NULL
WHERE report_run.status IN ('DONE', 'FAILED')
"""
REQUEST: Final = statement(
    MerchantRow,
    f"""
INSERT INTO report_run (merchant_id, kind, id, status, actor, attempts, requested_at)
VALUES (:merchant_id, :kind, :run_id, 'QUEUED', :actor, 0, now())
{_ASKED_FOR_ANEW} RETURNING merchant_id
""",
)
# Small merchants whose promises are what they were: nothing broke them, and nothing has happened since. Promises follow
# from rows; none of them comes to be broken by time that passes. They count as asked for tonight. Whatever else may
# have changed rows is found in the merchant's own night. Returns the last merchant that was looked at.
PASS: Final = statement(
    MerchantRow,
    f"""
WITH night AS ({night_began(NIGHT_HOUR)}), looked AS MATERIALIZED (
    SELECT r.* FROM report_run r, night
    WHERE r.kind = '{INTEGRITY}' AND r.merchant_id > :after AND r.requested_at < night.began AND r.status = 'DONE'
        AND {stands("r")}
    ORDER BY r.merchant_id LIMIT {PASSED_AT_ONCE}
), passed AS (
    UPDATE report_run p SET requested_at = now() FROM looked r, night
    WHERE p.merchant_id = r.merchant_id AND p.kind = r.kind AND p.id = r.id AND p.status = 'DONE'
        AND r.seconds <= :quick_seconds AND NOT r.content @? '$[*][1] ? (@ > 0)'
        AND r.generated_at > night.began - interval '{NIGHTS_APART} days'
        AND (hashtext(r.merchant_id::text) & 2147483647) % {NIGHTS_APART}
            <> (extract(epoch FROM night.began)::bigint / 86400) % {NIGHTS_APART}
        AND {none_since("r.merchant_id", "r.generated_at")}
)
SELECT merchant_id FROM looked ORDER BY merchant_id DESC LIMIT 1
""",
)
# The night's: every merchant's promises, and the portfolios that somebody asked for or that can't be quick, because the
# promises weren't. One that fails waits for the next night. Who came after the night began has the next one. Returns
# the last merchant of those that are asked for.
PLAN: Final = statement(
    MerchantRow,
    f"""
WITH night AS ({night_began(NIGHT_HOUR)}), due AS (
    SELECT m.merchant_id, k.kind FROM night
    CROSS JOIN (VALUES ('{INTEGRITY}'), ('{PORTFOLIO}')) AS k (kind)
    JOIN merchant m ON m.created_at < night.began
    LEFT JOIN report_run r ON r.merchant_id = m.merchant_id AND r.kind = k.kind
    LEFT JOIN report_run i ON i.merchant_id = m.merchant_id AND i.kind = '{INTEGRITY}'
    WHERE m.merchant_id >= :after AND {stands("m")} AND CASE
        WHEN r.id IS NULL THEN k.kind = '{INTEGRITY}' OR i.seconds > :quick_seconds
        ELSE r.requested_at < night.began AND r.status IN ('DONE', 'FAILED') END
    ORDER BY m.merchant_id, k.kind LIMIT :limit
), asked AS (
    INSERT INTO report_run (merchant_id, kind, id, status, actor, attempts, requested_at)
    SELECT merchant_id, kind, uuidv7(), 'QUEUED', 'system', 0, now() FROM due
    {_ASKED_FOR_ANEW} RETURNING merchant_id
)
SELECT merchant_id FROM asked ORDER BY merchant_id DESC LIMIT 1
""",
)
TAKE: Final = leases.take("report_run", _STEPS, _TakenRow, seconds=str(_LEASE_SECONDS))
RENEW: Final = statement(
    NoRow,
    f"""
UPDATE report_run SET lease_until = now() + interval '{_LEASE_SECONDS} seconds' WHERE {leases.held(_STEPS)}
""",
)
RELEASE: Final = leases.release("report_run", _STEPS)
ABANDONED: Final = leases.abandoned("report_run", _STEPS)
# A worker that lost its lease finds another attempt, and changes nothing.
FINISH: Final = statement(
    MerchantRow,
    f"""
UPDATE report_run SET status = 'DONE', finished_at = now(), generated_at = :generated_at, seconds = :seconds,
    content = :content::text::jsonb
WHERE {leases.held(_STEPS)} RETURNING merchant_id
""",
)
FAIL: Final = statement(
    NoRow,
    f"UPDATE report_run SET status = 'FAILED', finished_at = now(), problem = :problem WHERE {leases.held(_STEPS)}",
)

_computing: "dict[tuple[UUID, Compute], asyncio.Task[Report]]" = {}


async def kept(merchant_id: UUID, kind: str) -> Report:
    """Return what there is of a report."""
    row = await database().row(KEPT, merchant_id=merchant_id, kind=kind)
    if row is None:
        return Report(CheckStatus.NEVER_RUN)
    return Report(
        status=CheckStatus.RUNNING if row["status"] == "QUEUED" else CheckStatus(row["status"]),
        problem=row["problem"],
        generated_at=row["generated_at"],
        seconds=row["seconds"],
        content=None if row["content"] is None else orjson.loads(row["content"]),
    )


async def request(merchant_id: UUID, kind: str, actor: str) -> Report:
    """Ask for a run, unless one waits or runs already, and return what there is of the report meanwhile."""
    asked = await database().row(REQUEST, merchant_id=merchant_id, kind=kind, run_id=ids.new(), actor=actor)
    if asked is not None:
        await doorbell.wake_workers(JOB)
    return await kept(merchant_id, kind)


async def at_once_or_kept(merchant_id: UUID, kind: str, compute: Compute) -> Report:
    """Return a report as of now if that is quick, and otherwise what is kept of it.

    What turns out not to be quick is asked for. Whoever asks while it is computed gets the same one: it reads
    everything, and mustn't be a way to keep a database busy.
    """
    found = await kept(merchant_id, kind)
    if not _is_quick(found):
        return found
    task = _computing.get((merchant_id, compute))
    if task is None:
        task = _computing[merchant_id, compute] = asyncio.create_task(_at_once(merchant_id, compute))
        task.add_done_callback(lambda _: _computing.pop((merchant_id, compute), None))
    try:
        return await asyncio.shield(task)
    except Exception as error:
        if not took_too_long(error):
            raise
    return await request(merchant_id, kind, "system")


def _is_quick(found: Report) -> bool:
    """Whether a report may be computed at once: what wasn't quick the last time isn't tried."""
    seconds_max = settings().report_at_once_seconds_max
    if found.status is CheckStatus.NEVER_RUN:
        return seconds_max > 0
    return found.status is CheckStatus.DONE and (found.seconds or 0) < seconds_max / 2


async def _at_once(merchant_id: UUID, compute: Compute) -> Report:
    generated_at, begun = datetime.now(UTC), time.monotonic()
    async with asyncio.timeout(settings().report_at_once_seconds_max):
        computed = await compute(merchant_id, None)
    return Report(CheckStatus.DONE, None, generated_at, time.monotonic() - begun, computed.content)


def is_older(report: Report, seconds: float) -> bool:
    """Whether what a report found is from so many seconds ago, and from ten times as long ago as it took to find."""
    if report.generated_at is None or report.seconds is None:
        return True
    return datetime.now(UTC) - report.generated_at > timedelta(seconds=max(seconds, report.seconds * 10))


async def carry_out(
    computations: Mapping[str, Compute],
    *,
    seconds_max: float,
    stopping: asyncio.Event | None = None,
    plans: bool = True,
) -> int:
    """Carry out runs that were asked for, one after the other, and the night's if `plans`. Returns how many ended.

    Safe to run at once, and to kill: a run that nobody has any more is taken up by another worker, and ended once three
    have tried.
    """
    ended, until = 0, time.monotonic() + seconds_max
    planned: UUID | None = None
    for abandoned in await database().rows(ABANDONED):
        await fail(abandoned, KILLED)
    while time.monotonic() < until and not (stopping is not None and stopping.is_set()):
        run = await database().row(TAKE)
        if run is not None:
            ended += await _carry_out(run, computations[run["kind"]])
            continue
        if not plans:
            break
        if planned is None:
            await pass_over()
        planned = await plan(planned or FIRST)
        if planned is None:
            break
    return ended


async def plan(after: UUID = FIRST, limit: int = _PLANNED_AT_ONCE) -> UUID | None:
    """Ask for runs of the night that haven't been asked for, from a merchant on, in the order of their ids.

    Returns where to go on, or None after the last one.
    """
    quick_seconds = settings().report_at_once_seconds_max / 2
    planned = await database().row(PLAN, quick_seconds=quick_seconds, after=after, limit=limit)
    return None if planned is None else planned["merchant_id"]


async def pass_over() -> None:
    """Let the night pass over merchants in which nothing has happened. Where that fails, it passes over nobody."""
    quick_seconds = settings().report_at_once_seconds_max / 2
    await nights.pass_over(PASS, log, "all promises are recomputed", quick_seconds=quick_seconds)


async def _carry_out(run: _TakenRow, compute: Compute) -> bool:
    """Carry out a run. Raises when the database is away: then the run is another worker's."""
    seconds_max = settings().report_seconds_max
    generated_at, begun = datetime.now(UTC), time.monotonic()
    living = asyncio.create_task(_say_that_we_live(run))
    try:
        async with asyncio.timeout(seconds_max):
            computed = await compute(run["merchant_id"], seconds_max)
        return await _finish(run, computed, generated_at, time.monotonic() - begun)
    except asyncio.CancelledError:
        await database().row(RELEASE, **leases.holder(run))
        raise
    except Exception as error:
        if took_too_long(error):
            await fail(run, f"It took longer than {seconds_max:,g} seconds (FLASH_REPORT_SECONDS_MAX).")
        elif may_succeed_later(error):
            raise
        else:
            reference = secrets.token_hex(8)
            log.exception("the report %s of %s failed: %s", run["kind"], _name(run), reference)
            await fail(run, f"It ended with an internal error; the worker's log has it as {reference}.")
        return True
    finally:
        living.cancel()


async def _say_that_we_live(run: HeldRow) -> None:
    while True:
        await asyncio.sleep(_LEASE_SECONDS / 3)
        try:
            await database().row(RENEW, **leases.holder(run))
        except Exception as error:
            # The next time is early enough.
            if not may_succeed_later(error):
                raise


async def _finish(run: HeldRow, computed: Computed, generated_at: datetime, seconds: float) -> bool:
    """Keep what was found. Returns False when the run is no longer ours."""
    merchant_id = run["merchant_id"]
    content = orjson.dumps(computed.content).decode()
    values = {"generated_at": generated_at, "seconds": seconds, "content": content}
    async with transaction(merchant_id) as tx:
        ended = await tx.row(FINISH, **leases.holder(run), **values)
        if ended is not None and computed.event is not None:
            await events.record(tx, merchant_id, computed.event, merchant_id, "system")
    return ended is not None


async def fail(run: HeldRow, problem: str) -> None:
    """End a run without a result; what was found before stays."""
    log.error("a report of %s failed: %s", _name(run), problem)
    await database().row(FAIL, **leases.holder(run), problem=problem)


def _name(run: HeldRow) -> str:
    return ids.encode("merchant", run["merchant_id"])
