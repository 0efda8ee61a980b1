"""Reading jobs; for ADMIN and ANALYST."""

from typing import Annotated

import strawberry

from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.jobs.rows import LIST, find_job
from app.jobs.types import BulkJob, JobStatus
from app.storage.database import database


@query(description="All jobs, newest first. ADMIN and ANALYST.")
async def jobs(
    info: Info,
    first: First = None,
    after: After = None,
    status: Annotated[JobStatus | None, strawberry.argument(description="Only jobs in this status.")] = None,
) -> Connection[BulkJob]:
    """Read a page of jobs."""
    asked = page(first, after)
    rows = await database().rows(
        LIST,
        merchant_id=info.context.viewer.merchant_id,
        before=asked.id,
        limit=asked.limit,
        status=None if status is None else status.value,
    )
    return connect(rows, asked, BulkJob.of, key="job_id")


@refetches("job")
async def _job(viewer: Viewer, node_id: str) -> BulkJob | None:
    row = await find_job(viewer, node_id)
    return None if row is None else BulkJob.of(row)
