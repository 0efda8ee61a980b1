"""Carrying jobs out: a worker gives each merchant's job a turn, and each turn goes on by batches.

A batch is one transaction that also says how far the job is, so whatever kills a worker loses no batch and repeats
none. It locks the job's pool first and then the job; so do all who change both. That a worker has a job under a lease
only keeps others from trying the same.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.jobs.rows import OPEN
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.fences import stands
from app.storage.gone import MemberGoneError
from app.storage.restarts import begun_anew
from app.storage.statements import NoRow, statement

log = logging.getLogger("flash.jobs")

#: The worker's function; the engine knows it by name only.
WORKER_JOB: Final = "carry_out_jobs"
#: For so long a job keeps its turn while others may wait.
TURN_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 60
#: For so long a worker may say nothing while it looks for a turn.
SILENT_SECONDS_MAX: Final = 5
#: After so long a job that waits is looked at again.
LOOK_SECONDS: Final = 5
#: A job that so many turns in a row brought no further, whether they failed or their worker died, is given up.
ATTEMPTS_MAX: Final = 10


class TurnRow(TypedDict):
    """A job whose turn it is."""

    merchant_id: UUID
    id: UUID
    kind: str
    pool_id: UUID | None
    wanted: int | None


class HeldRow(TurnRow):
    """A job that is locked for a batch."""

    actor: str
    campaign_id: UUID | None
    state: str | None
    recycle: bool
    reason: bytes | None
    done: int
    remaining: int


class _PageRow(TypedDict):
    ids: list[UUID]


#: Does a batch of a job in a transaction of its own. Returns whether the job can go on at once.
Batch = Callable[[TurnRow], Awaitable[bool]]

#: Lets workers look for a turn one after the other: of two at once each would miss the other's. A worker that is frozen
#: or cut off at that moment would keep all others waiting: PostgreSQL ends what is silent for so long.
LOOK: Final = statement(
    NoRow,
    """
SELECT FROM set_config('idle_in_transaction_session_timeout', :silent_ms, true),
    pg_advisory_xact_lock(hashtext('bulk_job'))
""",
)
# The merchant whose last turn is longest ago, and of its jobs the one that has waited longest for its turn: neither a
# large job nor many small ones keep others waiting. A merchant's jobs run one by one.
TAKE: Final = statement(
    TurnRow,
    f"""
UPDATE bulk_job SET attempts = attempts + 1, turn_at = clock_timestamp(),
    lease_until = now() + make_interval(secs => {LEASE_SECONDS})
WHERE (merchant_id, id) = (
    SELECT j.merchant_id, j.id FROM bulk_job j
    WHERE j.status IN {OPEN} AND j.kind = ANY(:kinds::text[]) AND j.attempts < {ATTEMPTS_MAX}
        AND (j.lease_until IS NULL OR j.lease_until <= now())
        AND NOT EXISTS (
            SELECT FROM bulk_job r WHERE r.merchant_id = j.merchant_id AND r.id <> j.id
                AND r.status IN ('QUEUED', 'RUNNING') AND r.lease_until > now()
        )
        AND {stands("j")}
    ORDER BY (SELECT max(o.turn_at) FROM bulk_job o WHERE o.merchant_id = j.merchant_id) NULLS FIRST,
        j.turn_at NULLS FIRST, j.requested_at, j.id
    LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING merchant_id, id, kind, pool_id, wanted
""",
)
RELEASE: Final = statement(
    NoRow,
    """
UPDATE bulk_job SET lease_until = now()
WHERE merchant_id = :merchant_id AND id = :job_id AND status IN ('QUEUED', 'RUNNING')
""",
)
_ENDED: Final = """
), dropped AS (
    DELETE FROM bulk_job_page WHERE merchant_id = :merchant_id AND job_id = (SELECT id FROM j)
)
"""
ABANDON: Final = statement(
    NoRow,
    f"""
WITH j AS (
    UPDATE bulk_job SET status = 'FAILED', problem = :problem, finished_at = now()
    WHERE merchant_id = :merchant_id AND id = :job_id AND status IN {OPEN} AND attempts >= {ATTEMPTS_MAX}
        AND lease_until <= now()
    RETURNING id
{_ENDED}
{event("job.failed", subject="j.id", source="j", actor="'system'")}
""",
)
ABANDONED: Final = statement(
    TurnRow,
    f"""
SELECT merchant_id, id, kind, pool_id, wanted FROM bulk_job j
WHERE status IN {OPEN} AND attempts >= {ATTEMPTS_MAX} AND lease_until <= now() AND {stands("j")}
""",
)


async def carry_out(batches: Mapping[str, Batch], *, seconds_max: float, stopping: asyncio.Event | None = None) -> int:
    """Give turns to the jobs that can go on, until none can, the time is over or the worker stops. Returns how many.

    `batches` has what does a batch, by the kind of the job. Safe to run at once, and to kill.
    """
    for abandoned in await database().rows(ABANDONED):
        await _abandon(abandoned)
    turns, until = 0, time.monotonic() + seconds_max
    while time.monotonic() < until and not (stopping and stopping.is_set()):
        async with transaction(None) as tx:
            await tx.rows(LOOK, silent_ms=f"{SILENT_SECONDS_MAX * 1000}")
            job = await tx.row(TAKE, kinds=list(batches))
        if job is None:
            break
        turns += 1
        await _turn(batches[job["kind"]], job)
    return turns


async def _turn(batch: Batch, job: TurnRow) -> None:
    until = time.monotonic() + TURN_SECONDS
    try:
        # One that met a member which was merged or erased since it was read begins anew, too.
        while await begun_anew(lambda: batch(job), MemberGoneError) and time.monotonic() < until:
            pass
    except Exception:
        # Whatever it is, others have their turns; this one is tried again when its lease is over.
        log.exception("a batch of %s failed", ids.encode("job", job["id"]))
    except asyncio.CancelledError:
        await _release(job)
        raise
    else:
        await _release(job)


async def _release(job: TurnRow) -> None:
    await database().row(RELEASE, merchant_id=job["merchant_id"], job_id=job["id"])


async def _abandon(job: TurnRow) -> None:
    await database().row(
        ABANDON,
        merchant_id=job["merchant_id"],
        job_id=job["id"],
        problem="It failed again and again; the logs of the workers say why.",
        event_id=ids.new(),
    )


# Ended jobs aren't held: a batch that finds none does nothing.
HOLD: Final = statement(
    HeldRow,
    f"""
SELECT merchant_id, id, kind, actor, pool_id, campaign_id, wanted, state, recycle, reason, done,
    total - done - failed - skipped_erased - skipped_mailbox - skipped_has_all AS remaining
FROM bulk_job WHERE merchant_id = :merchant_id AND id = :job_id AND status IN {OPEN} FOR UPDATE
""",
)
TAKE_PAGE: Final = statement(
    _PageRow,
    """
DELETE FROM bulk_job_page WHERE merchant_id = :merchant_id AND job_id = :job_id AND number = (
    SELECT min(number) FROM bulk_job_page WHERE merchant_id = :merchant_id AND job_id = :job_id
)
RETURNING ids
""",
)


async def hold(tx: Tx, job: TurnRow) -> HeldRow | None:
    """Lock a job for a batch. Returns None once it has ended. The caller holds its pool."""
    return await tx.row(HOLD, merchant_id=job["merchant_id"], job_id=job["id"])


async def take_page(tx: Tx, job: TurnRow) -> list[UUID]:
    """Take the next part of what a job is to work through; an empty list when nothing is left."""
    page = await tx.row(TAKE_PAGE, merchant_id=job["merchant_id"], job_id=job["id"])
    return [] if page is None else page["ids"]


@dataclass(slots=True)
class Progress:
    """What a batch did; `total` where it has changed."""

    done: int = 0
    failed: int = 0
    skipped_erased: int = 0
    skipped_mailbox: int = 0
    skipped_has_all: int = 0
    total: int | None = None


_PROGRESS: Final = """
    total = coalesce(:total, total), done = done + :done, failed = failed + :failed,
    skipped_erased = skipped_erased + :skipped_erased, skipped_mailbox = skipped_mailbox + :skipped_mailbox,
    skipped_has_all = skipped_has_all + :skipped_has_all, attempts = 0
"""
GO_ON: Final = statement(
    NoRow,
    f"""
UPDATE bulk_job SET status = 'RUNNING', problem = NULL,
    lease_until = now() + make_interval(secs => {LEASE_SECONDS}), {_PROGRESS}
WHERE merchant_id = :merchant_id AND id = :job_id
""",
)
WAIT: Final = statement(
    NoRow,
    f"""
UPDATE bulk_job SET status = 'WAITING', problem = :problem, attempts = 0,
    lease_until = now() + make_interval(secs => {LOOK_SECONDS})
WHERE merchant_id = :merchant_id AND id = :job_id
""",
)
END: Final = statement(
    NoRow,
    f"""
WITH j AS (
    UPDATE bulk_job SET status = :status::text, problem = :problem, finished_at = now(), {_PROGRESS}
    WHERE merchant_id = :merchant_id AND id = :job_id RETURNING id
{_ENDED}
{event([("job.finished", ":status::text = 'DONE'"), ("job.failed", "")], subject="j.id", source="j", actor="'system'")}
""",
)


async def go_on(tx: Tx, job: HeldRow, progress: Progress) -> None:
    """Write down what a batch did of a job that has more to do."""
    await tx.row(GO_ON, merchant_id=job["merchant_id"], job_id=job["id"], **asdict(progress))


async def wait(tx: Tx, job: HeldRow, problem: str) -> None:
    """Let a job wait for what the problem says. It is looked at again after LOOK_SECONDS."""
    await tx.row(WAIT, merchant_id=job["merchant_id"], job_id=job["id"], problem=problem)


async def finish(tx: Tx, job: HeldRow, progress: Progress) -> None:
    """End a job with its last batch: everything was done, failed or was skipped."""
    await _end(tx, job, "DONE", None, progress)


async def fail(tx: Tx, job: HeldRow, problem: str) -> None:
    """End a job before its time."""
    await _end(tx, job, "FAILED", problem, Progress())


async def _end(tx: Tx, job: HeldRow, status: str, problem: str | None, progress: Progress) -> None:
    await tx.row(
        END,
        merchant_id=job["merchant_id"],
        job_id=job["id"],
        status=status,
        problem=problem,
        event_id=ids.new(),
        **asdict(progress),
    )
