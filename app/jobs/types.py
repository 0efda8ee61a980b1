"""Jobs as the API shows them."""

from datetime import datetime
from enum import Enum

import strawberry

from app import ids
from app.api.operations import Node
from app.api.scalars import described
from app.jobs.rows import BulkJobRow


@strawberry.enum(description="Where a job is in its life.")
class JobStatus(Enum):
    """The life of a job."""

    QUEUED = described("QUEUED", "No worker has begun.")
    RUNNING = described("RUNNING", "Workers are at it.")
    WAITING = described("WAITING", "It goes on once what stands in `problem` has changed.")
    DONE = described("DONE", "Everything was done, failed or was skipped: total = done + failed + skipped.")
    FAILED = described("FAILED", "It ended before its time; `problem` says why. What was done stays done.")
    CANCELLED = described("CANCELLED", "Somebody called it off. What was done stays done.")


@strawberry.enum(description="What a job does.")
class BulkJobKind(Enum):
    """The kinds of jobs."""

    CAMPAIGN = described("CAMPAIGN", "It sends codes to a campaign's recipients.")
    FILL = described("FILL", "It makes codes until so many are available.")
    REVOKE = described("REVOKE", "It revokes codes.")


@strawberry.enum(description="Why a job passed over somebody.")
class JobSkipReason(Enum):
    """Why somebody gets no code."""

    ERASED = described("ERASED", "The person was erased meanwhile.")
    MAILBOX = described("MAILBOX", "Somebody with the same mailbox has a code of the pool.")
    HAS_ALL = described("HAS_ALL", "The member has had as many codes of the pool as it may.")


@strawberry.type(description="How many a job passed over for one reason.")
class JobSkip:
    """A reason that applied."""

    reason: JobSkipReason = strawberry.field(description="Why.")
    count: int = strawberry.field(description="How many; more than 0.")


@strawberry.type(description="Something that workers do batch by batch, and how far it is.")
class BulkJob(Node):
    """A job that somebody asked for."""

    kind: BulkJobKind = strawberry.field(description="What it does.")
    status: JobStatus = strawberry.field(description="Where it is in its life.")
    total: int = strawberry.field(
        description="How many it is about. Of a FILL that is how many codes it has made and has still to make, which "
        "changes with the stock."
    )
    done: int = strawberry.field(description="How many are done.")
    failed: int = strawberry.field(description="How many turned out not to be possible: a code spent meanwhile, say.")
    skipped: list[JobSkip] = strawberry.field(description="How many were passed over, by reason.")
    problem: str | None = strawberry.field(description="What it waits for, or why it failed; else null.")
    created_at: datetime = strawberry.field(description="When it was asked for.")
    finished_at: datetime | None = strawberry.field(description="When it ended; null before.")

    @classmethod
    def of(cls, row: BulkJobRow) -> "BulkJob":
        """Return the job of a row."""
        skipped = {
            JobSkipReason.ERASED: row["job_skipped_erased"],
            JobSkipReason.MAILBOX: row["job_skipped_mailbox"],
            JobSkipReason.HAS_ALL: row["job_skipped_has_all"],
        }
        return cls(
            id=strawberry.ID(ids.encode("job", row["job_id"])),
            kind=BulkJobKind(row["job_kind"]),
            status=JobStatus(row["job_status"]),
            total=row["job_total"],
            done=row["job_done"],
            failed=row["job_failed"],
            skipped=[JobSkip(reason=reason, count=count) for reason, count in skipped.items() if count],
            problem=row["job_problem"],
            created_at=row["job_requested_at"],
            finished_at=row["job_finished_at"],
        )
