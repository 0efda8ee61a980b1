"""Taking snapshots: edges are read, a process draws them, and everything is stored in one transaction."""

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
from app.graph.drawing import DrawingError, drawn
from app.storage import events
from app.storage.database import database, transaction
from app.storage.statements import NoRow, statement

log = logging.getLogger("flash.graph")

STORE_SECONDS_MAX: Final = 120.0


class _EdgeRow(TypedDict):
    """In the order of `draw.EDGE`."""

    referrer_id: UUID
    referee_id: UUID
    converted_at: datetime


class _PreviousRow(TypedDict):
    id: UUID
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


EDGES: Final = statement(
    _EdgeRow,
    f"""
SELECT r.referrer_id, r.referee_id, r.converted_at FROM referral r
WHERE r.merchant_id = :merchant_id AND {jobs.IS_EDGE}
""",
)
#: What a snapshot begins from and is compared with: the newest one of an earlier day.
PREVIOUS: Final = statement(
    _PreviousRow,
    """
SELECT id, taken_on, side FROM graph_snapshot
WHERE merchant_id = :merchant_id AND taken_on < :taken_on ORDER BY taken_on DESC LIMIT 1
""",
)
PREVIOUS_NODES: Final = statement(
    _PreviousNodeRow,
    "SELECT member_id, x, y, is_hub FROM graph_node WHERE merchant_id = :merchant_id AND snapshot_id = :snapshot_id",
)
PREVIOUS_EDGES: Final = statement(
    _PreviousEdgeRow,
    "SELECT referrer_id, referee_id FROM graph_edge WHERE merchant_id = :merchant_id AND snapshot_id = :snapshot_id",
)
#: A merchant has one snapshot of a day: a later one takes the place of an earlier one, whole.
REPLACE: Final = statement(
    NoRow,
    "DELETE FROM graph_snapshot WHERE merchant_id = :merchant_id AND taken_on = :taken_on AND id < :snapshot_id",
)
STORE: Final = statement(
    _StoredRow,
    """
INSERT INTO graph_snapshot (merchant_id, id, taken_on, taken_at, compared_with, member_count, referral_count,
    component_count, community_count, hub_count, hub_degree, new_referral_count, lost_referral_count, new_hub_count,
    side)
VALUES (:merchant_id, :snapshot_id, :taken_on, now(), :compared_with, :member_count, :referral_count,
    :component_count, :community_count, :hub_count, :hub_degree, :new_referral_count, :lost_referral_count,
    :new_hub_count, :side)
ON CONFLICT (merchant_id, taken_on) DO NOTHING RETURNING id
""",
)
STORE_FILES: Final = statement(
    NoRow,
    """
INSERT INTO graph_file (merchant_id, snapshot_id, format, body) VALUES
    (:merchant_id, :snapshot_id, 'svg', :svg), (:merchant_id, :snapshot_id, 'json', :json),
    (:merchant_id, :snapshot_id, 'hubs', :hubs)
""",
)
NODE_COLUMNS: Final = [
    "merchant_id", "snapshot_id", "rank", "member_id", "label", "degree", "recruited", "is_hub", "is_new_hub",
    "community", "x", "y",
]  # fmt: skip
EDGE_COLUMNS: Final = [
    "merchant_id", "snapshot_id", "rank", "referrer_id", "referee_id", "converted_at", "is_new",
]  # fmt: skip


async def take_waiting(*, is_large: bool, seconds_max: float) -> int:
    """Take the snapshots that wait in a lane, one after the other, for so long. Returns how many were taken.

    Safe to run twice and at once: a job is one worker's, its snapshot is stored once. A network that can't be drawn
    fails alone; when the database or this process goes away, another worker finds the job.
    """
    taken, until = 0, time.monotonic() + seconds_max
    while time.monotonic() < until and (job := await jobs.take(is_large=is_large)) is not None:
        try:
            taken += await _take(job)
        except DrawingError as error:
            log.error("the network of %s can't be drawn: %s", ids.encode("merchant", job["merchant_id"]), error)  # noqa: TRY400
            await jobs.fail(job)
        except asyncio.CancelledError:
            await jobs.release(job)
            raise
    return taken


async def _take(job: jobs.JobRow) -> bool:
    merchant_id, snapshot_id = job["merchant_id"], job["id"]
    message, compared_with = await _message(job)
    if not await jobs.advance(database(), job, "DRAWING"):
        return False
    answer = await drawn(message)
    header, nodes, edges, svg, json, hubs = parts_of(answer)
    if not await jobs.advance(database(), job, "STORING"):
        return False
    async with transaction(merchant_id) as tx:
        await tx.row(REPLACE, merchant_id=merchant_id, taken_on=job["taken_on"], snapshot_id=snapshot_id)
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
            await tx.row(STORE_FILES, merchant_id=merchant_id, snapshot_id=snapshot_id, svg=svg, json=json, hubs=hubs)
            await events.record(tx, merchant_id, "graph_snapshot.taken", snapshot_id, job["actor"])
        if not await jobs.advance(tx, job, "DONE"):
            raise LostLeaseError(ids.encode("graphjob", snapshot_id))
    return stored is not None


class LostLeaseError(Exception):
    """Another worker has taken the job over: what this one did is rolled back."""


async def _message(job: jobs.JobRow) -> tuple[bytes, date | None]:
    """Return what a drawing process needs, and the day of the snapshot that it is compared with."""
    merchant_id = job["merchant_id"]
    previous = await database().row(PREVIOUS, merchant_id=merchant_id, taken_on=job["taken_on"])
    edges = await database().copy_out(EDGES, merchant_id=merchant_id)
    nodes_before = edges_before = b""
    if previous is not None:
        nodes_before = await database().copy_out(PREVIOUS_NODES, merchant_id=merchant_id, snapshot_id=previous["id"])
        edges_before = await database().copy_out(PREVIOUS_EDGES, merchant_id=merchant_id, snapshot_id=previous["id"])
    header = {
        "merchant_id": str(merchant_id),
        "snapshot_id": str(job["id"]),
        "taken_on": job["taken_on"].isoformat(),
        "side": None if previous is None else previous["side"],
    }
    compared_with = None if previous is None else previous["taken_on"]
    return frame([orjson.dumps(header), edges, nodes_before, edges_before]), compared_with
