"""Taking snapshots: edges are read, a process draws them, and everything is stored in one transaction."""

import asyncio
import logging
import time
from typing import Final
from uuid import UUID

import orjson

from app import ids
from app.graph import jobs
from app.graph.draw import frame, parts_of
from app.graph.drawing import DrawingError, drawn
from app.storage import events
from app.storage.database import Row, database, transaction

log = logging.getLogger("flash.graph")

STORE_SECONDS_MAX: Final = 120.0

EDGES: Final = f"SELECT r.referrer_id, r.referee_id, r.converted_at FROM {jobs.REFERRALS.format('$1')}"
#: What a snapshot begins from and is compared with: the newest one of an earlier day.
PREVIOUS: Final = """
SELECT id, taken_on, side FROM graph_snapshot WHERE merchant_id = $1 AND taken_on < $2 ORDER BY taken_on DESC LIMIT 1
"""
PREVIOUS_NODES: Final = "SELECT member_id, x, y, is_hub FROM graph_node WHERE merchant_id = $1 AND snapshot_id = $2"
PREVIOUS_EDGES: Final = "SELECT referrer_id, referee_id FROM graph_edge WHERE merchant_id = $1 AND snapshot_id = $2"
#: A merchant has one snapshot of a day: a later one takes the place of an earlier one, whole.
REPLACE: Final = "DELETE FROM graph_snapshot WHERE merchant_id = $1 AND taken_on = $2 AND id < $3"
STORE: Final = """
INSERT INTO graph_snapshot (merchant_id, id, taken_on, taken_at, compared_with, member_count, referral_count,
    component_count, community_count, hub_count, hub_degree, new_referral_count, lost_referral_count, new_hub_count,
    side)
VALUES ($1, $2, $3, now(), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (merchant_id, taken_on) DO NOTHING RETURNING id
"""
STORE_FILES: Final = """
INSERT INTO graph_file (merchant_id, snapshot_id, format, body)
SELECT $1, $2, format, body FROM unnest($3::text[], $4::bytea[]) AS t (format, body)
"""
NODE_COLUMNS: Final = [
    "merchant_id", "snapshot_id", "rank", "member_id", "label", "degree", "recruited", "is_hub", "is_new_hub",
    "community", "x", "y",
]  # fmt: skip
EDGE_COLUMNS: Final = [
    "merchant_id", "snapshot_id", "rank", "referrer_id", "referee_id", "converted_at", "is_new",
]  # fmt: skip
COUNTS: Final = (
    "member_count", "referral_count", "component_count", "community_count", "hub_count", "hub_degree",
    "new_referral_count", "lost_referral_count", "new_hub_count", "side",
)  # fmt: skip


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


async def _take(job: Row) -> bool:
    merchant_id, snapshot_id = job["merchant_id"], job["id"]
    message, compared_with = await _message(job)
    if not await jobs.advance(None, job, "DRAWING"):
        return False
    answer = await drawn(message)
    header, nodes, edges, svg, json, hubs = parts_of(answer)
    if not await jobs.advance(None, job, "STORING"):
        return False
    counts = orjson.loads(header)
    async with transaction() as tx:
        await tx.row(REPLACE, merchant_id, job["taken_on"], snapshot_id)
        values = [counts[name] for name in COUNTS]
        stored = await tx.row(STORE, merchant_id, snapshot_id, job["taken_on"], compared_with, *values)
        if stored is not None:
            await tx.copy_in("graph_node", NODE_COLUMNS, nodes, seconds_max=STORE_SECONDS_MAX)
            await tx.copy_in("graph_edge", EDGE_COLUMNS, edges, seconds_max=STORE_SECONDS_MAX)
            await tx.row(STORE_FILES, merchant_id, snapshot_id, ["svg", "json", "hubs"], [svg, json, hubs])
            await events.record(tx, merchant_id, "graph_snapshot.taken", snapshot_id, job["actor"])
        if not await jobs.advance(tx, job, "DONE"):
            raise LostLeaseError(ids.encode("graphjob", snapshot_id))
    return stored is not None


class LostLeaseError(Exception):
    """Another worker has taken the job over: what this one did is rolled back."""


async def _message(job: Row) -> tuple[bytes, object]:
    """Return what a drawing process needs, and the day of the snapshot that it is compared with."""
    merchant_id: UUID = job["merchant_id"]
    previous = await database().row(PREVIOUS, merchant_id, job["taken_on"])
    edges = await database().copy_out(EDGES, merchant_id)
    nodes_before = edges_before = b""
    if previous is not None:
        nodes_before = await database().copy_out(PREVIOUS_NODES, merchant_id, previous["id"])
        edges_before = await database().copy_out(PREVIOUS_EDGES, merchant_id, previous["id"])
    header = {
        "merchant_id": str(merchant_id),
        "snapshot_id": str(job["id"]),
        "taken_on": job["taken_on"].isoformat(),
        "side": None if previous is None else previous["side"],
    }
    compared_with = None if previous is None else previous["taken_on"]
    return frame([orjson.dumps(header), edges, nodes_before, edges_before]), compared_with
