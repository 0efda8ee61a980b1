"""Taking snapshots: edges are read, a process draws them, and everything is stored in one transaction.

A day on which nothing has changed shows the drawing of the one before: nothing is read, drawn or stored again.
"""

import asyncio
import logging
import time
from datetime import date, datetime
from typing import Final, TypedDict
from uuid import UUID

import orjson

from app import ids
from app.graph import jobs
from app.graph.draw import frame, parts_of
from app.graph.drawing import Drawer, DrawingError
from app.graph.forget_snapshots import drop_unshown
from app.storage import events
from app.storage.database import Tx, database, is_away, transaction
from app.storage.events import event
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

log = logging.getLogger("flash.graph")

STORE_SECONDS_MAX: Final = 120.0
#: So many snapshots that show a drawing again are stored by one statement.
_REPEATED_AT_ONCE: Final = 500


class _EdgeRow(TypedDict):
    """In the order of `draw.EDGE`."""

    referrer_id: UUID
    referee_id: UUID
    converted_at: datetime


class _StandingRow(TypedDict):
    """A snapshot that is that of today, too: what `STORE_AGAIN` takes of it."""

    compared_with: date
    drawing_id: UUID
    drawn_on: date
    member_count: int
    referral_count: int
    component_count: int
    community_count: int
    hub_count: int
    hub_degree: int
    side: float


class _PreviousRow(TypedDict):
    drawing_id: UUID
    taken_on: date
    side: float


class _PreviousNodeRow(TypedDict):
    """In the order of `draw.PREVIOUS_NODE`."""

    member_id: UUID
    x: float
    y: float
    is_hub: bool


class _PreviousEdgeRow(TypedDict):
    """In the order of `draw.PREVIOUS_EDGE`."""

    referrer_id: UUID
    referee_id: UUID


class _StoredRow(TypedDict):
    id: UUID


class _ReplacedRow(TypedDict):
    drawing_id: UUID


class _RepeatedRow(TypedDict):
    id: UUID


EDGES: Final = statement(
    _EdgeRow,
    f"""
SELECT r.referrer_id, r.referee_id, r.converted_at FROM referral r
WHERE r.merchant_id = :merchant_id AND {jobs.IS_EDGE}
""",
)
#: The newest snapshot of an earlier day, if its drawing shows nothing as new and no edge has come, gone or changed its
#: ends since. A change counts from the beginning of its transaction, so those that were open when the edges were read
#: are looked for an hour back; at worst a day is drawn once more. Nobody deletes the drawing meanwhile.
STANDING: Final = statement(
    _StandingRow,
    """
SELECT s.taken_on AS compared_with, s.drawing_id, s.drawn_on, s.member_count, s.referral_count, s.component_count,
    s.community_count, s.hub_count, s.hub_degree, s.side
FROM (
    SELECT * FROM graph_snapshot WHERE merchant_id = :merchant_id AND taken_on < :taken_on
    ORDER BY taken_on DESC LIMIT 1
) s JOIN graph_drawing d ON d.merchant_id = :merchant_id AND d.id = s.drawing_id
WHERE s.new_referral_count = 0 AND s.new_hub_count = 0 AND NOT EXISTS (
    SELECT FROM referral r WHERE r.merchant_id = :merchant_id AND r.changed_at > d.read_at - interval '1 hour'
)
FOR KEY SHARE OF d
""",
)
#: What a snapshot begins from and is compared with: the newest one of an earlier day.
PREVIOUS: Final = statement(
    _PreviousRow,
    """
SELECT drawing_id, taken_on, side FROM graph_snapshot
WHERE merchant_id = :merchant_id AND taken_on < :taken_on ORDER BY taken_on DESC LIMIT 1
""",
)
PREVIOUS_NODES: Final = statement(
    _PreviousNodeRow,
    "SELECT member_id, x, y, is_hub FROM graph_node WHERE merchant_id = :merchant_id AND drawing_id = :drawing_id",
)
PREVIOUS_EDGES: Final = statement(
    _PreviousEdgeRow,
    "SELECT referrer_id, referee_id FROM graph_edge WHERE merchant_id = :merchant_id AND drawing_id = :drawing_id",
)
#: A merchant has one snapshot of a day: a later one takes the place of an earlier one, whole.
REPLACE: Final = statement(
    _ReplacedRow,
    """
DELETE FROM graph_snapshot WHERE merchant_id = :merchant_id AND taken_on = :taken_on AND id < :snapshot_id
RETURNING drawing_id
""",
)
# The drawing has the snapshot's id. Its edges are read after the job was taken on.
STORE: Final = statement(
    _StoredRow,
    """
WITH s AS (
    INSERT INTO graph_snapshot (merchant_id, id, taken_on, taken_at, compared_with, drawing_id, drawn_on, member_count,
        referral_count, component_count, community_count, hub_count, hub_degree, new_referral_count,
        lost_referral_count, new_hub_count, side)
    VALUES (:merchant_id, :snapshot_id, :taken_on, now(), :compared_with, :snapshot_id, :taken_on, :member_count,
        :referral_count, :component_count, :community_count, :hub_count, :hub_degree, :new_referral_count,
        :lost_referral_count, :new_hub_count, :side)
    ON CONFLICT (merchant_id, taken_on) DO NOTHING RETURNING merchant_id, id
)
INSERT INTO graph_drawing (merchant_id, id, read_at)
SELECT :merchant_id, s.id, j.started_at FROM s JOIN graph_job j ON j.merchant_id = :merchant_id AND j.id = s.id
RETURNING id
""",
)
STORE_AGAIN: Final = statement(
    _StoredRow,
    """
INSERT INTO graph_snapshot (merchant_id, id, taken_on, taken_at, compared_with, drawing_id, drawn_on, member_count,
    referral_count, component_count, community_count, hub_count, hub_degree, new_referral_count, lost_referral_count,
    new_hub_count, side)
VALUES (:merchant_id, :snapshot_id, :taken_on, now(), :compared_with, :drawing_id, :drawn_on, :member_count,
    :referral_count, :component_count, :community_count, :hub_count, :hub_degree, 0, 0, 0, :side)
ON CONFLICT (merchant_id, taken_on) DO NOTHING RETURNING id
""",
)
_RECORDED: Final = event(
    "graph_snapshot.taken",
    subject="id",
    id="event_id",
    source="numbered",
    actor="actor",
    merchant="merchant_id",
)
#: What `STANDING` and `STORE_AGAIN` do for one job, for many that wait in a lane, each of another merchant. A day that
#: has a snapshot already is left to them: it has one to replace. So is a drawing that somebody holds.
REPEAT: Final = statement(
    _RepeatedRow,
    f"""
WITH standing AS MATERIALIZED (
    SELECT j.merchant_id, j.id, j.taken_on, j.actor, s.taken_on AS compared_with, s.drawing_id, s.drawn_on,
        s.member_count, s.referral_count, s.component_count, s.community_count, s.hub_count, s.hub_degree, s.side
    FROM graph_job j CROSS JOIN LATERAL (
        SELECT * FROM graph_snapshot g WHERE g.merchant_id = j.merchant_id ORDER BY g.taken_on DESC LIMIT 1
    ) s JOIN graph_drawing d ON d.merchant_id = j.merchant_id AND d.id = s.drawing_id
    WHERE j.status = 'QUEUED' AND j.is_large = :is_large AND j.attempts = 0 AND {stands("j")}
        AND s.taken_on < j.taken_on AND s.new_referral_count = 0 AND s.new_hub_count = 0 AND (
            SELECT true FROM referral r
            WHERE r.merchant_id = j.merchant_id AND r.changed_at > d.read_at - interval '1 hour' LIMIT 1
        ) IS NULL AND (
            SELECT true FROM graph_job r WHERE r.merchant_id = j.merchant_id AND r.status IN {jobs.RUNNING} LIMIT 1
        ) IS NULL
    LIMIT cardinality(:event_ids::uuid[]) FOR NO KEY UPDATE OF j SKIP LOCKED FOR KEY SHARE OF d SKIP LOCKED
), done AS (
    UPDATE graph_job j SET status = 'DONE', attempts = 1, started_at = now(), lease_until = now(), finished_at = now()
    FROM standing s WHERE j.merchant_id = s.merchant_id AND j.id = s.id
), stored AS (
    INSERT INTO graph_snapshot (merchant_id, id, taken_on, taken_at, compared_with, drawing_id, drawn_on, member_count,
        referral_count, component_count, community_count, hub_count, hub_degree, new_referral_count,
        lost_referral_count, new_hub_count, side)
    SELECT merchant_id, id, taken_on, now(), compared_with, drawing_id, drawn_on, member_count, referral_count,
        component_count, community_count, hub_count, hub_degree, 0, 0, 0, side
    FROM standing
), numbered AS (
    SELECT *, (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id FROM standing
), recorded AS (
    {_RECORDED}
)
SELECT id FROM standing
""",
)
STORE_FILES: Final = statement(
    NoRow,
    """
INSERT INTO graph_file (merchant_id, drawing_id, format, body) VALUES
    (:merchant_id, :drawing_id, 'svg', :svg), (:merchant_id, :drawing_id, 'json', :json),
    (:merchant_id, :drawing_id, 'hubs', :hubs)
""",
)
NODE_COLUMNS: Final = [
    "merchant_id", "drawing_id", "rank", "member_id", "label", "degree", "recruited", "is_hub", "is_new_hub",
    "community", "x", "y",
]  # fmt: skip
EDGE_COLUMNS: Final = [
    "merchant_id", "drawing_id", "rank", "referrer_id", "referee_id", "converted_at", "is_new",
]  # fmt: skip


async def take_waiting(*, is_large: bool, seconds_max: float) -> int:
    """Take the snapshots that wait in a lane for so long. Returns how many were taken.

    Those of networks that haven't changed are stored together, the others drawn one after the other. A process that
    draws small networks is shared by them, and ends with this.

    Safe to run twice and at once: a job is one worker's, its snapshot is stored once. A network that can't be drawn
    fails alone; when the database or this process goes away, another worker finds the job.
    """
    until = time.monotonic() + seconds_max
    taken = await _repeat_together(is_large=is_large, until=until)
    async with Drawer() as drawer:
        while time.monotonic() < until and (job := await jobs.take(is_large=is_large)) is not None:
            try:
                taken += await _take(job, drawer)
            except DrawingError as error:
                log.error("the network of %s can't be drawn: %s", ids.encode("merchant", job["merchant_id"]), error)  # noqa: TRY400
                await jobs.fail(job, error.failure)
            except asyncio.CancelledError:
                await jobs.release(job)
                raise
    return taken


async def _repeat_together(*, is_large: bool, until: float) -> int:
    """Store what shows a drawing again, many at once. Where that fails, each job is left to be taken by itself."""
    taken = 0
    while time.monotonic() < until:
        try:
            async with transaction(None) as tx:
                event_ids = [ids.new() for _ in range(_REPEATED_AT_ONCE)]
                repeated = await tx.rows(REPEAT, is_large=is_large, event_ids=event_ids)
        except Exception as error:
            if is_away(error):
                raise
            log.exception("snapshots that show a drawing again can't be stored together")
            break
        taken += len(repeated)
        if len(repeated) < _REPEATED_AT_ONCE:
            break
    return taken


async def _take(job: jobs.JobRow, drawer: Drawer) -> bool:
    return await _repeat(job) or await _draw(job, drawer)


async def _repeat(job: jobs.JobRow) -> bool:
    """Store a snapshot that shows what the one before it shows, if nothing has changed."""
    merchant_id, snapshot_id, taken_on = job["merchant_id"], job["id"], job["taken_on"]
    async with transaction(merchant_id) as tx:
        standing = await tx.row(STANDING, merchant_id=merchant_id, taken_on=taken_on)
        if standing is None:
            return False
        await _replace(tx, job, standing["drawing_id"])
        stored = await tx.row(
            STORE_AGAIN, merchant_id=merchant_id, snapshot_id=snapshot_id, taken_on=taken_on, **standing
        )
        await _end(tx, job, is_stored=stored is not None)
    return stored is not None


async def _draw(job: jobs.JobRow, drawer: Drawer) -> bool:
    merchant_id, snapshot_id = job["merchant_id"], job["id"]
    message, compared_with = await _message(job)
    if not await jobs.advance(database(), job, "DRAWING"):
        return False
    answer = await drawer.drawn(message)
    header, nodes, edges, svg, json, hubs = parts_of(answer)
    if not await jobs.advance(database(), job, "STORING"):
        return False
    async with transaction(merchant_id) as tx:
        await _replace(tx, job)
        stored = await tx.row(
            STORE,
            merchant_id=merchant_id,
            snapshot_id=snapshot_id,
            taken_on=job["taken_on"],
            compared_with=compared_with,
            **orjson.loads(header),
        )
        if stored is not None:
            await tx.copy_in("graph_node", NODE_COLUMNS, nodes, seconds_max=STORE_SECONDS_MAX)
            await tx.copy_in("graph_edge", EDGE_COLUMNS, edges, seconds_max=STORE_SECONDS_MAX)
            await tx.row(STORE_FILES, merchant_id=merchant_id, drawing_id=snapshot_id, svg=svg, json=json, hubs=hubs)
        await _end(tx, job, is_stored=stored is not None)
    return stored is not None


async def _replace(tx: Tx, job: jobs.JobRow, drawing_id: UUID | None = None) -> None:
    """Delete the day's earlier snapshot, and its drawing if no other shows it and it isn't this one."""
    merchant_id = job["merchant_id"]
    replaced = await tx.rows(REPLACE, merchant_id=merchant_id, taken_on=job["taken_on"], snapshot_id=job["id"])
    await drop_unshown(tx, [(merchant_id, row["drawing_id"]) for row in replaced if row["drawing_id"] != drawing_id])


async def _end(tx: Tx, job: jobs.JobRow, *, is_stored: bool) -> None:
    if is_stored:
        await events.record(tx, job["merchant_id"], "graph_snapshot.taken", job["id"], job["actor"])
    if not await jobs.advance(tx, job, "DONE"):
        raise LostLeaseError(ids.encode("graphjob", job["id"]))


class LostLeaseError(Exception):
    """Another worker has taken the job over: what this one did is rolled back."""


async def _message(job: jobs.JobRow) -> tuple[bytes, date | None]:
    """Return what a drawing process needs, and the day of the snapshot that it is compared with."""
    merchant_id = job["merchant_id"]
    previous = await database().row(PREVIOUS, merchant_id=merchant_id, taken_on=job["taken_on"])
    edges = await database().copy_out(EDGES, merchant_id=merchant_id)
    nodes_before = edges_before = b""
    if previous is not None:
        nodes_before = await database().copy_out(
            PREVIOUS_NODES, merchant_id=merchant_id, drawing_id=previous["drawing_id"]
        )
        edges_before = await database().copy_out(
            PREVIOUS_EDGES, merchant_id=merchant_id, drawing_id=previous["drawing_id"]
        )
    header = {
        "merchant_id": str(merchant_id),
        "snapshot_id": str(job["id"]),
        "taken_on": job["taken_on"].isoformat(),
        "side": None if previous is None else previous["side"],
    }
    compared_with = None if previous is None else previous["taken_on"]
    return frame([orjson.dumps(header), edges, nodes_before, edges_before]), compared_with
