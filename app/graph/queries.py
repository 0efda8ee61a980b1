"""Reading snapshots of the network, and the jobs that take them; never for members or tills."""

from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Id, Info, query
from app.graph.rows import LATEST, LIST, find_job, find_snapshot
from app.graph.types import GraphSnapshot, GraphSnapshotJob
from app.storage.database import database


@refetches("graph")
async def _snapshot(viewer: Viewer, node_id: str) -> GraphSnapshot | None:
    row = await find_snapshot(viewer, node_id)
    return None if row is None else GraphSnapshot.of(row)


@refetches("graphjob")
async def _job(viewer: Viewer, node_id: str) -> GraphSnapshotJob | None:
    row = await find_job(viewer, node_id)
    return None if row is None else GraphSnapshotJob.of(row)


@query(description="The latest snapshot of the network; null before the first one. ADMIN and ANALYST.")
async def latest_graph_snapshot(info: Info) -> GraphSnapshot | None:
    row = await database().row(LATEST, merchant_id=info.context.viewer.merchant_id)
    return None if row is None else GraphSnapshot.of(row)


@query(description="All snapshots of the network, one a day, newest first. ADMIN and ANALYST.")
async def graph_snapshots(info: Info, first: First = None, after: After = None) -> Connection[GraphSnapshot]:
    asked = page(first, after)
    rows = await database().rows(LIST, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit)
    return connect(rows, asked, GraphSnapshot.of, key="snapshot_id")


@query(description="A snapshot that was asked for, and how far it is. ADMIN and ANALYST.")
async def graph_snapshot_job(info: Info, id: Id) -> GraphSnapshotJob | None:
    return await _job(info.context.viewer, id)
