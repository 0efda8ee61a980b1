"""takeGraphSnapshot: the day's snapshot is taken now, or anew."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.operations import Info, mutation
from app.graph import jobs
from app.storage import doorbell

#: The worker's function; the engine knows it by name only.
JOB: Final = "take_graph_snapshots"


@strawberry.type(description="A snapshot will be taken.")
class TakeGraphSnapshotSuccess:
    """The job, to be followed by `graphSnapshotJob`."""

    job_id: strawberry.ID = strawberry.field(
        description="The job; one that waits already is joined, as it will see everything up to now."
    )


TakeGraphSnapshotResult = Annotated[
    TakeGraphSnapshotSuccess,
    strawberry.union("TakeGraphSnapshotResult", description="The job that takes the snapshot."),
]


@mutation(
    description="Take a snapshot of the network now; it takes the place of an earlier one of the same day. "
    "UNAVAILABLE, and nothing is asked for, while the workers' queue is away. ADMIN only."
)
async def take_graph_snapshot(info: Info) -> TakeGraphSnapshotResult:
    """Write the job and its event in one statement, then ring."""
    viewer = info.context.viewer
    await doorbell.require_workers("Snapshots")
    job = await jobs.request(viewer.merchant_id, viewer.actor)
    await doorbell.wake_workers(JOB, job["is_large"])
    return TakeGraphSnapshotSuccess(job_id=strawberry.ID(ids.encode("graphjob", job["id"])))
