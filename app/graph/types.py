"""Snapshots of the network as the API shows them."""

from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Annotated
from uuid import UUID

import strawberry

from app import ids
from app.api.connections import After, Connection, First
from app.api.context import Viewer
from app.api.operations import Info, Node, field
from app.api.scalars import described
from app.graph import advocates, pages
from app.graph.rows import EdgeRow, JobRow, NodeRow, SnapshotRow
from app.graph.signing import signed_url
from app.members.rows import members_by_id
from app.members.types import Member
from app.storage.database import database


async def _advocates(viewer: Viewer, drawing_ids: list[UUID], referrals_min: int) -> Mapping[UUID, int]:
    rows = await database().rows(
        advocates.COUNT, merchant_id=viewer.merchant_id, drawing_ids=drawing_ids, referrals_min=referrals_min
    )
    return {row["drawing_id"]: row["advocates"] for row in rows}


@strawberry.enum(description="How far a snapshot's job is.")
class GraphJobStatus(Enum):
    """The steps of a job, in order, and its two ends."""

    QUEUED = described("QUEUED", "It waits for a worker.")
    READING = described("READING", "A worker reads the referrals.")
    DRAWING = described("DRAWING", "The network is measured and drawn.")
    STORING = described("STORING", "The snapshot is being stored.")
    DONE = described("DONE", "The snapshot is there.")
    FAILED = described("FAILED", "There is no snapshot; `failure` says why.")


@strawberry.enum(description="Why there is no snapshot.")
class GraphJobFailure(Enum):
    """What ended a job without one."""

    TOO_LARGE = described(
        "TOO_LARGE",
        "The network needs more memory or processor time than drawing may take. It is tried again once it changes.",
    )
    TOO_SLOW = described("TOO_SLOW", "It took longer than it may, by the clock: the machine was busy.")
    ABANDONED = described("ABANDONED", "Each worker that took it on went away before its end.")
    FAULT = described(
        "FAULT",
        "The engine couldn't draw it; its log says why. It is tried again once the network changes.",
    )


@strawberry.type(description="A member in a snapshot of the network.")
class GraphNode:
    """A row of graph_node."""

    row: strawberry.Private[NodeRow]
    label: str = strawberry.field(
        description="What the member is called in pictures: the end of its id. Fixed when taken; it tells no name."
    )
    degree: int = strawberry.field(description="How many converted referrals the member made or joined by.")
    recruited: int = strawberry.field(description="How many members it brought: the converted referrals that it made.")
    is_hub: bool = strawberry.field(
        description="Whether its degree is at least 3 and fewer than one percent of the members have a higher one."
    )
    is_new_hub: bool = strawberry.field(description="Whether it is a hub, and wasn't one in the snapshot before.")
    community: int = strawberry.field(
        description="The group of closely tied members that it belongs to; 0 is the largest."
    )
    x: float = strawberry.field(description="Where it is drawn, from 0 (left) to 1,000.")
    y: float = strawberry.field(description="Where it is drawn, from 0 (top) to 1,000.")

    @classmethod
    def of(cls, row: NodeRow) -> "GraphNode":
        """Return the node of a row."""
        return cls(
            row=row,
            label=row["node_label"],
            degree=row["node_degree"],
            recruited=row["node_recruited"],
            is_hub=row["node_is_hub"],
            is_new_hub=row["node_is_new_hub"],
            community=row["node_community"],
            x=row["node_x"],
            y=row["node_y"],
        )

    @field(description="The member.")
    async def member(self, info: Info) -> Member:
        return Member.of(await info.context.load(members_by_id, self.row["node_member_id"]))


@strawberry.type(description="A converted referral in a snapshot of the network.")
class GraphEdge:
    """A row of graph_edge."""

    referrer_id: strawberry.ID = strawberry.field(description="The member who brought the other.")
    referee_id: strawberry.ID = strawberry.field(description="The member who was brought.")
    converted_at: datetime = strawberry.field(description="When the invite converted.")
    is_new: bool = strawberry.field(description="Whether the snapshot before didn't have it.")

    @classmethod
    def of(cls, row: EdgeRow) -> "GraphEdge":
        """Return the edge of a row."""
        return cls(
            referrer_id=strawberry.ID(ids.encode("member", row["edge_referrer_id"])),
            referee_id=strawberry.ID(ids.encode("member", row["edge_referee_id"])),
            converted_at=row["edge_converted_at"],
            is_new=row["edge_is_new"],
        )


@strawberry.type(
    description="The network of converted referrals as it was on a day: who really brought whom. It never changes; a "
    "later one of the same day takes its place."
)
class GraphSnapshot(Node):
    """A row of graph_snapshot."""

    row: strawberry.Private[SnapshotRow]
    taken_on: date = strawberry.field(description="The day, in the merchant's time zone.")
    taken_at: datetime = strawberry.field(description="When it was stored.")
    drawn_on: date = strawberry.field(
        description="The day of the drawing that it shows, which its picture and its data name: an earlier one where "
        "nothing has changed since."
    )
    compared_with: date | None = strawberry.field(
        description="The day of the snapshot that what is new is counted against; null for the first one."
    )
    member_count: int = strawberry.field(description="How many members are in the network.")
    referral_count: int = strawberry.field(description="How many converted referrals tie them.")
    component_count: int = strawberry.field(description="How many groups have no tie to each other.")
    community_count: int = strawberry.field(description="How many groups of closely tied members there are.")
    hub_count: int = strawberry.field(description="How many members are hubs.")
    hub_degree: int = strawberry.field(description="The degree from which a member is a hub.")
    new_referral_count: int = strawberry.field(description="How many referrals the snapshot before didn't have.")
    lost_referral_count: int = strawberry.field(description="How many referrals of the one before were reversed since.")
    new_hub_count: int = strawberry.field(description="How many hubs were none in the snapshot before.")

    @classmethod
    def of(cls, row: SnapshotRow) -> "GraphSnapshot":
        """Return the snapshot of a row."""
        return cls(
            id=strawberry.ID(ids.encode("graph", row["snapshot_id"])),
            row=row,
            taken_on=row["snapshot_taken_on"],
            taken_at=row["snapshot_taken_at"],
            drawn_on=row["snapshot_drawn_on"],
            compared_with=row["snapshot_compared_with"],
            member_count=row["snapshot_member_count"],
            referral_count=row["snapshot_referral_count"],
            component_count=row["snapshot_component_count"],
            community_count=row["snapshot_community_count"],
            hub_count=row["snapshot_hub_count"],
            hub_degree=row["snapshot_hub_degree"],
            new_referral_count=row["snapshot_new_referral_count"],
            lost_referral_count=row["snapshot_lost_referral_count"],
            new_hub_count=row["snapshot_new_hub_count"],
        )

    @field(description="Its members, the highest degree first.")
    async def nodes(self, info: Info, first: First = None, after: After = None) -> Connection[GraphNode]:
        return await pages.first_nodes(info, self.row["snapshot_drawing_id"], first, after, GraphNode.of)

    @field(description="Its referrals, the latest conversion first.")
    async def edges(self, info: Info, first: First = None, after: After = None) -> Connection[GraphEdge]:
        return await pages.read(info, pages.EDGES, self.row["snapshot_drawing_id"], first, after, GraphEdge.of)

    @field(description="The hubs that were none in the snapshot before, the highest degree first.")
    async def new_hubs(self, info: Info, first: First = None, after: After = None) -> Connection[GraphNode]:
        return await pages.read(info, pages.NEW_HUBS, self.row["snapshot_drawing_id"], first, after, GraphNode.of)

    @field(description="The referrals that the snapshot before didn't have, the latest conversion first.")
    async def new_edges(self, info: Info, first: First = None, after: After = None) -> Connection[GraphEdge]:
        return await pages.read(info, pages.NEW_EDGES, self.row["snapshot_drawing_id"], first, after, GraphEdge.of)

    @field(description="How many members brought at least so many others: the advocates.")
    async def advocate_count(
        self,
        info: Info,
        referrals_min: Annotated[int, strawberry.argument(description="How many, at least; 3 unless told.")] = 3,
    ) -> int:
        """Count the advocates of all snapshots of this request together."""
        return await info.context.load(_advocates, self.row["snapshot_drawing_id"], max(1, referrals_min))

    @field(description="The picture: a path on this server, signed, good for 15 to 30 minutes; the file is immutable.")
    def svg_url(self, info: Info) -> str:
        return signed_url(info.context.viewer.tenant, self.row["snapshot_id"], "svg")

    @field(description="The whole network as compact columns, JSON: a path like that of the picture.")
    def data_url(self, info: Info) -> str:
        return signed_url(info.context.viewer.tenant, self.row["snapshot_id"], "json")


@strawberry.type(description="A snapshot that was asked for.")
class GraphSnapshotJob(Node):
    """A row of graph_job."""

    row: strawberry.Private[JobRow]
    status: GraphJobStatus = strawberry.field(description="How far it is.")
    failure: GraphJobFailure | None = strawberry.field(description="Why it failed; null unless it did.")
    requested_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker took it on last.")
    finished_at: datetime | None = strawberry.field(description="When it was done, or failed.")

    @classmethod
    def of(cls, row: JobRow) -> "GraphSnapshotJob":
        """Return the job of a row."""
        return cls(
            id=strawberry.ID(ids.encode("graphjob", row["job_id"])),
            row=row,
            status=GraphJobStatus(row["job_status"]),
            failure=None if row["job_failure"] is None else GraphJobFailure(row["job_failure"]),
            requested_at=row["job_requested_at"],
            started_at=row["job_started_at"],
            finished_at=row["job_finished_at"],
        )

    @field(description="The snapshot, when it is done and no later one of the same day has taken its place.")
    def snapshot(self) -> GraphSnapshot | None:
        return GraphSnapshot.of(self.row) if self.row["job_has_snapshot"] else None
