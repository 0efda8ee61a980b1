"""cancelJob: a job goes no further; what it has done stays."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.jobs.rows import FIND, OPEN, BulkJobRow
from app.jobs.types import BulkJob
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import Statement, columns, statement


@strawberry.type(description="The job goes no further.")
class CancelJobSuccess:
    job: BulkJob = strawberry.field(description="The job; one that had ended before is as it was.")


CancelJobResult = Annotated[
    CancelJobSuccess | NotFound,
    strawberry.union("CancelJobResult", description="The job, or that there is none."),
]


def cancel_where(which: str) -> Statement[BulkJobRow]:
    """Return the statement that ends the jobs of a merchant that haven't ended and are `which` (a condition).

    It waits for the batch that is under way, which is done whole.
    """
    return statement(
        BulkJobRow,
        f"""
WITH j AS (
    UPDATE bulk_job SET status = 'CANCELLED', problem = NULL, finished_at = now()
    WHERE merchant_id = :merchant_id AND {which} AND status IN {OPEN} RETURNING *
), dropped AS (
    DELETE FROM bulk_job_page WHERE merchant_id = :merchant_id AND job_id = ANY(ARRAY(SELECT id FROM j))
), recorded AS (
    {event("job.cancelled", id="uuidv7()", subject="j.id", source="j")}
)
SELECT {columns(BulkJobRow)} FROM j WHERE j.merchant_id = :merchant_id
""",
    )


CANCEL: Final = cancel_where("id = :job_id")


@mutation(description="Call a job off; one that has ended is answered as it is. What was done stays done. ADMIN only.")
async def cancel_job(
    info: Info, job_id: Annotated[strawberry.ID, strawberry.argument(description="The job.")]
) -> CancelJobResult:
    viewer = info.context.viewer
    row_id = node_id("job", "job", job_id)
    row = await database().row(CANCEL, merchant_id=viewer.merchant_id, job_id=row_id, actor=viewer.actor)
    row = row or await database().row(FIND, merchant_id=viewer.merchant_id, job_id=row_id)
    if row is None:
        raise not_found("job", job_id)
    return CancelJobSuccess(job=BulkJob.of(row))
