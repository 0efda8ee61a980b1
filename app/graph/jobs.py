"""Jobs that take snapshots: one statement each to ask for one, to plan the day's, to take one on and to end it.

The table is the letter and Valkey the doorbell: a job that nobody was told of is found by the next sweep.
"""

from datetime import date
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.storage import leases
from app.storage.database import Statements, database
from app.storage.events import event
from app.storage.fences import stands
from app.storage.leases import HeldRow
from app.storage.statements import NoRow, statement

#: Whether a referral `r` is an edge of the network: it converted and counts. One that is held for review was never
#: credited, and a reversed one no longer is: what is rewarded and what is seen agree.
IS_EDGE: Final = "(r.released_at IS NOT NULL AND r.reversed_at IS NULL)"
#: Networks with more referrals are drawn in a lane of their own, where no small one waits for them.
SMALL_REFERRALS_MAX: Final = 5000
LEASE_SECONDS: Final = "300"
#: The day's snapshots are taken in turns, from a merchant's midnight on. Merchants of a turn follow each other closely,
#: so that they share a drawing process. The last turn comes before four in the morning.
TURNS: Final = 24
_TURN_SECONDS: Final = 600

_STEPS: Final = ("READING", "DRAWING", "STORING")
RUNNING: Final = leases.listed(_STEPS)


class AskedRow(TypedDict):
    """A job that was asked for, and its lane."""

    id: UUID
    is_large: bool


class JobRow(HeldRow):
    """A job as its holder knows it: the day of its snapshot, and who asked for it."""

    taken_on: date
    actor: str


class _MerchantRow(TypedDict):
    merchant_id: UUID


class _PlannedRow(TypedDict):
    jobs: int


class _LaneRow(TypedDict):
    is_large: bool


class _EndedRow(TypedDict):
    id: UUID


# A merchant that has a job which waits gets no other: that one will see everything up to now.
REQUEST: Final = statement(
    AskedRow,
    f"""
WITH few AS (
    SELECT count(*) FROM (
        SELECT FROM referral r WHERE r.merchant_id = :merchant_id AND {IS_EDGE} LIMIT {SMALL_REFERRALS_MAX + 1}
    ) AS each
), j AS (
    INSERT INTO graph_job (merchant_id, id, status, is_large, taken_on, actor, attempts, requested_at)
    SELECT :merchant_id, :job_id, 'QUEUED', few.count > {SMALL_REFERRALS_MAX},
        (now() AT TIME ZONE m.time_zone)::date, :actor, 0, now()
    FROM merchant m CROSS JOIN few WHERE m.merchant_id = :merchant_id
    ON CONFLICT (merchant_id) WHERE status = 'QUEUED' DO NOTHING
    RETURNING merchant_id, id, is_large
), recorded AS (
    {event("graph_job.requested", subject="j.id", source="j")}
)
SELECT j.id, j.is_large FROM j WHERE j.merchant_id = :merchant_id
""",
)
WAITING_OF_MERCHANT: Final = statement(
    AskedRow, "SELECT id, is_large FROM graph_job WHERE merchant_id = :merchant_id AND status = 'QUEUED'"
)
#: Merchants with referrals whose local day has no snapshot yet and no job for one, and whose turn has come by their own
#: clocks. A merchant's turn follows from its id, so it is the same every day. Three failures end the day, and one that
#: comes of the network itself ends all days until an edge changes (`take_snapshots.STANDING` says how we know).
#: Each step is a look at an index for those that the one before has left, whatever the planner knows of the tables:
#: once the day's snapshots are there that is one look for each merchant, and nobody's old jobs are read.
DUE: Final = statement(
    _MerchantRow,
    f"""
WITH undone AS MATERIALIZED (
    SELECT m.merchant_id, m.today FROM (
        SELECT merchant_id, (now() AT TIME ZONE time_zone)::date AS today FROM merchant m
        WHERE {stands("m")} AND extract(epoch FROM (now() AT TIME ZONE time_zone)::time)
            >= {_TURN_SECONDS} * ((hashtext(merchant_id::text) & 2147483647) % :turns::int)::bigint
    ) m
    WHERE ((
        SELECT s.taken_on FROM graph_snapshot s WHERE s.merchant_id = m.merchant_id ORDER BY s.taken_on DESC LIMIT 1
    ) >= m.today) IS NOT TRUE
), idle AS MATERIALIZED (
    SELECT * FROM undone u
    WHERE (SELECT count(*) FROM graph_job j WHERE j.merchant_id = u.merchant_id AND j.status = 'QUEUED') = 0
        AND (SELECT count(*) FROM graph_job j WHERE j.merchant_id = u.merchant_id AND j.status IN {RUNNING}) = 0
)
SELECT merchant_id FROM idle i
WHERE (SELECT true FROM referral r WHERE r.merchant_id = i.merchant_id AND r.released_at IS NOT NULL LIMIT 1)
    AND (
        SELECT count(*) FROM graph_job j
        WHERE j.merchant_id = i.merchant_id AND j.status = 'FAILED' AND j.taken_on = i.today
    ) < {leases.ATTEMPTS_MAX}
    AND (
        SELECT j.status = 'FAILED' AND j.failure IN ('TOO_LARGE', 'FAULT') AND (
            SELECT true FROM referral r
            WHERE r.merchant_id = j.merchant_id AND r.changed_at > j.started_at - interval '1 hour' LIMIT 1
        ) IS NULL
        FROM graph_job j WHERE j.merchant_id = i.merchant_id ORDER BY j.id DESC LIMIT 1
    ) IS NOT TRUE
""",
)
#: Of so many merchants one statement counts the referrals, up to SMALL_REFERRALS_MAX of each.
_PLANNED_AT_ONCE: Final = 500
PLAN: Final = statement(
    _PlannedRow,
    f"""
WITH j AS (
    INSERT INTO graph_job (merchant_id, id, status, is_large, taken_on, actor, attempts, requested_at)
    SELECT m.merchant_id, asked.id, 'QUEUED', few.count > {SMALL_REFERRALS_MAX},
        (now() AT TIME ZONE m.time_zone)::date, 'system', 0, now()
    FROM unnest(:merchant_ids::uuid[], :job_ids::uuid[]) AS asked (merchant_id, id)
    JOIN merchant m ON m.merchant_id = asked.merchant_id
    CROSS JOIN LATERAL (
        SELECT count(*) FROM (
            SELECT FROM referral r WHERE r.merchant_id = m.merchant_id AND {IS_EDGE} LIMIT {SMALL_REFERRALS_MAX + 1}
        ) AS each
    ) few
    ON CONFLICT (merchant_id) WHERE status = 'QUEUED' DO NOTHING
    RETURNING id
)
SELECT count(*) AS jobs FROM j
""",
)
#: The lanes in which somebody waits, or was left behind by a worker that died.
LANES: Final = statement(
    _LaneRow,
    f"""
SELECT DISTINCT is_large FROM graph_job j
WHERE (status = 'QUEUED' OR (status IN {RUNNING} AND lease_until < now())) AND {stands("j")}
""",
)
TAKE: Final = leases.take("graph_job", _STEPS, JobRow, seconds=LEASE_SECONDS, where="j.is_large = :is_large")
# A worker that lost its lease finds another attempt, and changes nothing.
ADVANCE: Final = statement(
    _EndedRow,
    f"""
UPDATE graph_job SET status = :status::text, finished_at = CASE WHEN :status = 'DONE' THEN now() END
WHERE {leases.held(_STEPS)} RETURNING id
""",
)
RELEASE: Final = leases.release("graph_job", _STEPS)
FAIL: Final = statement(
    NoRow,
    f"""
WITH j AS (
    UPDATE graph_job SET status = 'FAILED', failure = :failure, finished_at = now()
    WHERE {leases.held(_STEPS)} RETURNING id
)
{event("graph_job.failed", subject="j.id", source="j", actor="'system'")}
""",
)
ABANDONED: Final = leases.abandoned("graph_job", _STEPS)


async def request(merchant_id: UUID, actor: str) -> AskedRow:
    """Ask for a snapshot of now. Returns a new job, or the one that waits already."""
    while True:
        asked = await database().row(
            REQUEST, merchant_id=merchant_id, job_id=ids.new(), actor=actor, event_id=ids.new()
        )
        job = asked or await database().row(WAITING_OF_MERCHANT, merchant_id=merchant_id)
        # The one that waited may have been taken on in between: then it doesn't see what happened since.
        if job is not None:
            return job


async def plan(*, turns: int = 1) -> int:
    """Ask for the day's snapshots of all merchants whose day has begun, of one turn or in so many.

    Returns how many. Safe to run twice at once.
    """
    for job in await database().rows(ABANDONED):
        await fail(job, "ABANDONED")
    due = [row["merchant_id"] for row in await database().rows(DUE, turns=turns)]
    planned = 0
    for start in range(0, len(due), _PLANNED_AT_ONCE):
        some = due[start : start + _PLANNED_AT_ONCE]
        (counted,) = await database().rows(PLAN, merchant_ids=some, job_ids=[ids.new() for _ in some])
        planned += counted["jobs"]
    return planned


async def lanes() -> list[bool]:
    """Return the lanes with work: False is that of small networks, True that of large ones."""
    return [row["is_large"] for row in await database().rows(LANES)]


async def take(*, is_large: bool) -> JobRow | None:
    """Take the job on that has waited longest in a lane, if there is one."""
    return await database().row(TAKE, is_large=is_large)


async def advance(where: Statements, job: HeldRow, status: str) -> bool:
    """Tell how far a job is. Returns False when it is no longer this worker's."""
    return await where.row(ADVANCE, **leases.holder(job), status=status) is not None


async def release(job: HeldRow) -> None:
    """Give a job back that can't be ended here, to whoever looks next."""
    await database().row(RELEASE, **leases.holder(job))


async def fail(job: HeldRow, failure: str) -> None:
    """End a job without a snapshot, for a reason that `GraphJobFailure` has."""
    await database().row(FAIL, **leases.holder(job), failure=failure, event_id=ids.new())
