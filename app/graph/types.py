"""Snapshots of the network as the API shows them."""

from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.connections import After, Connection, First
from app.api.context import Viewer
from app.api.operations import Info, Node, field
from app.api.scalars import described
from app.graph import advocates, pages
from app.graph.signing import signed_url
from app.members.rows import FROM, MEMBER_COLUMNS
from app.members.types import Member
from app.storage.database import Row, database

SNAPSHOT_COLUMNS: Final = """
    s.id AS snapshot_id, s.taken_on, s.taken_at, s.compared_with, s.member_count, s.referral_count, s.component_count,
    s.community_count, s.hub_count, s.hub_degree, s.new_referral_count, s.lost_referral_count, s.new_hub_count
"""
MEMBERS_BY_ID: Final = f"SELECT {MEMBER_COLUMNS} {FROM} WHERE m.merchant_id = $1 AND m.id = ANY($2::uuid[])"


async def _members_by_id(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, Row]:
    rows = await database().rows(MEMBERS_BY_ID, viewer.merchant_id, member_ids)
    return {row["member_id"]: row for row in rows}


async def _advocates(viewer: Viewer, snapshot_ids: list[UUID], referrals_min: int) -> Mapping[UUID, int]:
    rows = await database().rows(advocates.COUNT, viewer.merchant_id, snapshot_ids, referrals_min)
    return {row["snapshot_id"]: row["advocates"] for row in rows}


@strawberry.enum(description="How far a snapshot's job is.")
class GraphJobStatus(Enum):
    """The steps of a job, in order, and its two ends."""

    QUEUED = described("QUEUED", "It waits for a worker.")
    READING = described("READING", "A worker reads the referrals.")
    DRAWING = described("DRAWING", "The network is measured and drawn.")
    STORING = described("STORING", "The snapshot is being stored.")
    DONE = described("DONE", "The snapshot is there.")
    FAILED = described("FAILED", "There is no snapshot: the network couldn't be drawn within its bounds.")


@strawberry.type(description="A member in a snapshot of the network.")
class GraphNode:
    """A row of graph_node."""

    row: strawberry.Private[Row]
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
    def of(cls, row: Row) -> "GraphNode":
        """Return the node of a row of graph_node."""
        shown = ("label", "degree", "recruited", "is_hub", "is_new_hub", "community", "x", "y")
        return cls(row=row, **{name: row[name] for name in shown})

    @field(description="The member.")
    async def member(self, info: Info) -> Member:
        """Read the members of all nodes of this request together."""
        return Member.of(await info.context.load(_members_by_id, self.row["member_id"]))


@strawberry.type(description="A converted referral in a snapshot of the network.")
class GraphEdge:
    """A row of graph_edge."""

    referrer_id: strawberry.ID = strawberry.field(description="The member who brought the other.")
    referee_id: strawberry.ID = strawberry.field(description="The member who was brought.")
    converted_at: datetime = strawberry.field(description="When the invite converted.")
    is_new: bool = strawberry.field(description="Whether the snapshot before didn't have it.")

    @classmethod
    def of(cls, row: Row) -> "GraphEdge":
        """Return the edge of a row of graph_edge."""
        return cls(
            referrer_id=strawberry.ID(ids.encode("member", row["referrer_id"])),
            referee_id=strawberry.ID(ids.encode("member", row["referee_id"])),
            converted_at=row["converted_at"],
            is_new=row["is_new"],
        )


@strawberry.type(
    description="The network of converted referrals as it was on a day: who really brought whom. It never changes; a "
    "later one of the same day takes its place."
)
class GraphSnapshot(Node):
    """A row of graph_snapshot."""

    row: strawberry.Private[Row]
    taken_on: date = strawberry.field(description="The day, in the merchant's time zone.")
    taken_at: datetime = strawberry.field(description="When it was stored.")
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
    def of(cls, row: Row) -> "GraphSnapshot":
        """Return the snapshot of a row of SNAPSHOT_COLUMNS."""
        shown = (
            "taken_on", "taken_at", "compared_with", "member_count", "referral_count", "component_count",
            "community_count", "hub_count", "hub_degree", "new_referral_count", "lost_referral_count", "new_hub_count",
        )  # fmt: skip
        node_id = strawberry.ID(ids.encode("graph", row["snapshot_id"]))
        return cls(id=node_id, row=row, **{name: row[name] for name in shown})

    @field(description="Its members, the highest degree first.")
    async def nodes(self, info: Info, first: First = None, after: After = None) -> Connection[GraphNode]:
        """Read the pages of all snapshots of this request together."""
        return await pages.read(info, pages.NODES, self.row["snapshot_id"], first, after, GraphNode.of)

    @field(description="Its referrals, the latest conversion first.")
    async def edges(self, info: Info, first: First = None, after: After = None) -> Connection[GraphEdge]:
        """Read the pages of all snapshots of this request together."""
        return await pages.read(info, pages.EDGES, self.row["snapshot_id"], first, after, GraphEdge.of)

    @field(description="The hubs that were none in the snapshot before, the highest degree first.")
    async def new_hubs(self, info: Info, first: First = None, after: After = None) -> Connection[GraphNode]:
        """Read the pages of all snapshots of this request together."""
        return await pages.read(info, pages.NEW_HUBS, self.row["snapshot_id"], first, after, GraphNode.of)

    @field(description="The referrals that the snapshot before didn't have, the latest conversion first.")
    async def new_edges(self, info: Info, first: First = None, after: After = None) -> Connection[GraphEdge]:
        """Read the pages of all snapshots of this request together."""
        return await pages.read(info, pages.NEW_EDGES, self.row["snapshot_id"], first, after, GraphEdge.of)

    @field(description="How many members brought at least so many others: the advocates.")
    async def advocate_count(
        self,
        info: Info,
        referrals_min: Annotated[int, strawberry.argument(description="How many, at least; 3 unless told.")] = 3,
    ) -> int:
        """Count the advocates of all snapshots of this request together."""
        return await info.context.load(_advocates, self.row["snapshot_id"], max(1, referrals_min))

    @field(description="The picture: a path on this server, signed, good for 15 to 30 minutes; the file is immutable.")
    def svg_url(self, info: Info) -> str:
        """Sign the path."""
        return signed_url(info.context.viewer.tenant, self.row["snapshot_id"], "svg")

    @field(description="The whole network as compact columns, JSON: a path like that of the picture.")
    def data_url(self, info: Info) -> str:
        """Sign the path."""
        return signed_url(info.context.viewer.tenant, self.row["snapshot_id"], "json")


@strawberry.type(description="A snapshot that was asked for.")
class GraphSnapshotJob(Node):
    """A row of graph_job."""

    row: strawberry.Private[Row]
    status: GraphJobStatus = strawberry.field(description="How far it is.")
    requested_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When a worker took it on last.")
    finished_at: datetime | None = strawberry.field(description="When it was done, or failed.")

    @classmethod
    def of(cls, row: Row) -> "GraphSnapshotJob":
        """Return the job of a row that joins its snapshot."""
        return cls(
            id=strawberry.ID(ids.encode("graphjob", row["job_id"])),
            row=row,
            status=GraphJobStatus(row["status"]),
            requested_at=row["requested_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
        )

    @field(description="The snapshot, when it is done and no later one of the same day has taken its place.")
    def snapshot(self) -> GraphSnapshot | None:
        """The row has it."""
        return None if self.row["snapshot_id"] is None else GraphSnapshot.of(self.row)
