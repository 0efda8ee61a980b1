"""Reading snapshots of the network, and the jobs that take them; never for members or tills."""

from typing import Final

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.operations import Id, Info, query
from app.graph.types import SNAPSHOT_COLUMNS, GraphSnapshot, GraphSnapshotJob
from app.storage.database import Row, database

_READERS: Final = {Role.ADMIN, Role.ANALYST}

FIND: Final = f"SELECT {SNAPSHOT_COLUMNS} FROM graph_snapshot s WHERE s.merchant_id = $1 AND s.id = $2"
LATEST: Final = f"""
SELECT {SNAPSHOT_COLUMNS} FROM graph_snapshot s WHERE s.merchant_id = $1 ORDER BY s.taken_on DESC LIMIT 1
"""
LIST: Final = f"""
SELECT {SNAPSHOT_COLUMNS} FROM graph_snapshot s
WHERE s.merchant_id = $1 AND s.id < $2 ORDER BY s.id DESC LIMIT $3
"""
FIND_JOB: Final = f"""
SELECT j.id AS job_id, j.status, j.requested_at, j.started_at, j.finished_at, {SNAPSHOT_COLUMNS}
FROM graph_job j
LEFT JOIN LATERAL (SELECT * FROM graph_snapshot WHERE merchant_id = $1 AND id = j.id OFFSET 0) s ON true
WHERE j.merchant_id = $1 AND j.id = $2
"""


async def find_snapshot(viewer: Viewer, node_id: str) -> Row | None:
    """Return the snapshot behind an id, if this viewer may see it."""
    snapshot_id = ids.decode("graph", node_id)
    if snapshot_id is None or viewer.role not in _READERS:
        return None
    return await database().row(FIND, viewer.merchant_id, snapshot_id)


async def find_job(viewer: Viewer, node_id: str) -> Row | None:
    """Return the job behind an id, if this viewer may see it."""
    job_id = ids.decode("graphjob", node_id)
    if job_id is None or viewer.role not in _READERS:
        return None
    return await database().row(FIND_JOB, viewer.merchant_id, job_id)


@query(description="The latest snapshot of the network; null before the first one. ADMIN and ANALYST.")
async def latest_graph_snapshot(info: Info) -> GraphSnapshot | None:
    """Read the header."""
    row = await database().row(LATEST, info.context.viewer.merchant_id)
    return None if row is None else GraphSnapshot.of(row)


@query(description="All snapshots of the network, one a day, newest first. ADMIN and ANALYST.")
async def graph_snapshots(info: Info, first: First = None, after: After = None) -> Connection[GraphSnapshot]:
    """Read a page of headers."""
    asked = page(first, after)
    rows = await database().rows(LIST, info.context.viewer.merchant_id, asked.id, asked.limit)
    return connect(rows, asked, GraphSnapshot.of, key="snapshot_id")


@query(description="A snapshot that was asked for, and how far it is. ADMIN and ANALYST.")
async def graph_snapshot_job(info: Info, id: Id) -> GraphSnapshotJob | None:
    """Read one job."""
    row = await find_job(info.context.viewer, id)
    return None if row is None else GraphSnapshotJob.of(row)
