"""What statements select of snapshots, the nodes and edges of their drawings, and the jobs that take them."""

from datetime import date, datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import columns, row_of, statement


@row_of(s="graph_snapshot")
class SnapshotRow(TypedDict):
    """The header of a snapshot `s`."""

    snapshot_id: Annotated[UUID, "s.id"]
    snapshot_taken_on: Annotated[date, "s.taken_on"]
    snapshot_taken_at: Annotated[datetime, "s.taken_at"]
    snapshot_drawing_id: Annotated[UUID, "s.drawing_id"]
    snapshot_drawn_on: Annotated[date, "s.drawn_on"]
    snapshot_compared_with: Annotated[date | None, "s.compared_with"]
    snapshot_member_count: Annotated[int, "s.member_count"]
    snapshot_referral_count: Annotated[int, "s.referral_count"]
    snapshot_component_count: Annotated[int, "s.component_count"]
    snapshot_community_count: Annotated[int, "s.community_count"]
    snapshot_hub_count: Annotated[int, "s.hub_count"]
    snapshot_hub_degree: Annotated[int, "s.hub_degree"]
    snapshot_new_referral_count: Annotated[int, "s.new_referral_count"]
    snapshot_lost_referral_count: Annotated[int, "s.lost_referral_count"]
    snapshot_new_hub_count: Annotated[int, "s.new_hub_count"]


@row_of(j="graph_job", s="graph_snapshot?")
class JobRow(SnapshotRow):
    """A job `j` and its snapshot, whose fields are null unless `job_has_snapshot`."""

    job_id: Annotated[UUID, "j.id"]
    job_status: Annotated[str, "j.status"]
    job_failure: Annotated[str | None, "j.failure"]
    job_requested_at: Annotated[datetime, "j.requested_at"]
    job_started_at: Annotated[datetime | None, "j.started_at"]
    job_finished_at: Annotated[datetime | None, "j.finished_at"]
    job_has_snapshot: Annotated[bool, "s.id IS NOT NULL"]


class PlacedRow(TypedDict):
    """Something of a drawing, and its place in its list: a rank, as wide as the ids that cursors are made of."""

    drawing_id: Annotated[UUID, "r.drawing_id"]
    place: Annotated[UUID, "lpad(to_hex(r.rank), 32, '0')::uuid"]


@row_of(r="graph_node")
class NodeRow(PlacedRow):
    """A node `r`."""

    node_member_id: Annotated[UUID, "r.member_id"]
    node_label: Annotated[str, "r.label"]
    node_degree: Annotated[int, "r.degree"]
    node_recruited: Annotated[int, "r.recruited"]
    node_is_hub: Annotated[bool, "r.is_hub"]
    node_is_new_hub: Annotated[bool, "r.is_new_hub"]
    node_community: Annotated[int, "r.community"]
    node_x: Annotated[float, "r.x"]
    node_y: Annotated[float, "r.y"]


@row_of(r="graph_edge")
class EdgeRow(PlacedRow):
    """An edge `r`."""

    edge_referrer_id: Annotated[UUID, "r.referrer_id"]
    edge_referee_id: Annotated[UUID, "r.referee_id"]
    edge_converted_at: Annotated[datetime, "r.converted_at"]
    edge_is_new: Annotated[bool, "r.is_new"]


FIND: Final = statement(
    SnapshotRow,
    f"SELECT {columns(SnapshotRow)} FROM graph_snapshot s WHERE s.merchant_id = :merchant_id AND s.id = :snapshot_id",
)
LATEST: Final = statement(
    SnapshotRow,
    f"""
SELECT {columns(SnapshotRow)} FROM graph_snapshot s
WHERE s.merchant_id = :merchant_id ORDER BY s.taken_on DESC LIMIT 1
""",
)
LIST: Final = statement(
    SnapshotRow,
    f"""
SELECT {columns(SnapshotRow)} FROM graph_snapshot s
WHERE s.merchant_id = :merchant_id AND s.id < :before ORDER BY s.id DESC LIMIT :limit
""",
)
FIND_JOB: Final = statement(
    JobRow,
    f"""
SELECT {columns(JobRow)}
FROM graph_job j
LEFT JOIN LATERAL (SELECT * FROM graph_snapshot WHERE merchant_id = :merchant_id AND id = j.id OFFSET 0) s ON true
WHERE j.merchant_id = :merchant_id AND j.id = :job_id
""",
)


async def find_snapshot(viewer: Viewer, node_id: str) -> SnapshotRow | None:
    """Return the snapshot behind an id, if this viewer may see it."""
    snapshot_id = ids.decode("graph", node_id)
    if snapshot_id is None or not may(viewer.role, "GraphSnapshot"):
        return None
    return await database().row(FIND, merchant_id=viewer.merchant_id, snapshot_id=snapshot_id)


async def find_job(viewer: Viewer, node_id: str) -> JobRow | None:
    """Return the job behind an id, if this viewer may see it."""
    job_id = ids.decode("graphjob", node_id)
    if job_id is None or not may(viewer.role, "GraphSnapshotJob"):
        return None
    return await database().row(FIND_JOB, merchant_id=viewer.merchant_id, job_id=job_id)
