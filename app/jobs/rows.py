"""What statements select of jobs, and what reads them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import columns, row_of, statement

#: The statuses of a job that hasn't ended.
OPEN: Final = "('QUEUED', 'RUNNING', 'WAITING')"


@row_of(j="bulk_job")
class BulkJobRow(TypedDict):
    """A job `j` as it is shown."""

    job_id: Annotated[UUID, "j.id"]
    job_kind: Annotated[str, "j.kind"]
    job_status: Annotated[str, "j.status"]
    job_total: Annotated[int, "j.total"]
    job_done: Annotated[int, "j.done"]
    job_failed: Annotated[int, "j.failed"]
    job_skipped_erased: Annotated[int, "j.skipped_erased"]
    job_skipped_mailbox: Annotated[int, "j.skipped_mailbox"]
    job_skipped_has_all: Annotated[int, "j.skipped_has_all"]
    job_problem: Annotated[str | None, "j.problem"]
    job_requested_at: Annotated[datetime, "j.requested_at"]
    job_finished_at: Annotated[datetime | None, "j.finished_at"]


class JobOfCampaignRow(BulkJobRow):
    """The job of a campaign."""

    job_campaign_id: Annotated[UUID, "j.campaign_id"]


class EarlierRow(BulkJobRow):
    """The job that a key asked for, and what was asked."""

    request_hash: Annotated[bytes, "j.request_hash"]


FIND: Final = statement(
    BulkJobRow, f"SELECT {columns(BulkJobRow)} FROM bulk_job j WHERE j.merchant_id = :merchant_id AND j.id = :job_id"
)
FIND_BY_KEY: Final = statement(
    EarlierRow,
    f"SELECT {columns(EarlierRow)} FROM bulk_job j WHERE j.merchant_id = :merchant_id AND j.idempotency_key = :key",
)
LIST: Final = statement(
    BulkJobRow,
    f"""
SELECT {columns(BulkJobRow)} FROM bulk_job j
WHERE j.merchant_id = :merchant_id AND j.id < :before AND (:status::text IS NULL OR j.status = :status)
ORDER BY j.id DESC LIMIT :limit
""",
)


JOBS_OF_CAMPAIGNS: Final = statement(
    JobOfCampaignRow,
    f"""
SELECT {columns(JobOfCampaignRow)} FROM bulk_job j
WHERE j.merchant_id = :merchant_id AND j.campaign_id = ANY(:campaign_ids::uuid[])
""",
)


async def jobs_by_campaign(viewer: Viewer, campaign_ids: list[UUID]) -> Mapping[UUID, BulkJobRow | None]:
    """Return the jobs of campaigns, None for those that were sent at once."""
    rows = await database().rows(JOBS_OF_CAMPAIGNS, merchant_id=viewer.merchant_id, campaign_ids=campaign_ids)
    return dict.fromkeys(campaign_ids) | {row["job_campaign_id"]: row for row in rows}


async def find_job(viewer: Viewer, node_id: str) -> BulkJobRow | None:
    """Return the job behind an id, for who may read jobs."""
    job_id = ids.decode("job", node_id)
    if job_id is None or not may(viewer.role, "BulkJob"):
        return None
    return await database().row(FIND, merchant_id=viewer.merchant_id, job_id=job_id)
