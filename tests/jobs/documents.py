"""Documents of jobs, and workers to order: what one does, and what one does that is killed."""

from typing import Any, Final

import pytest

from app import ids
from app.coupons.carry_out import BATCHES, carry_out_jobs
from app.jobs import turns
from app.storage.database import database
from tests.factories import REFUSALS, Shop

JOB = "id kind status total done failed skipped { reason count } problem createdAt finishedAt"
FILL = f"""
mutation ($input: FillPoolInput!) {{
  answer: fillPool(input: $input) {{
    __typename ... on FillPoolSuccess {{ replayed job {{ {JOB} }} }}
    {REFUSALS} ... on PoolNotEditable {{ status fields }}
  }}
}}
"""
CANCEL = f"""
mutation ($input: ID!) {{
  answer: cancelJob(jobId: $input) {{ __typename ... on CancelJobSuccess {{ job {{ {JOB} }} }} {REFUSALS} }}
}}
"""
REVOKE_CODES = f"""
mutation ($input: RevokeCodesInput!) {{
  answer: revokeCodes(input: $input) {{
    __typename ... on RevokeCodesSuccess {{ replayed job {{ {JOB} }} }} {REFUSALS} ... on CountDiffers {{ count }}
  }}
}}
"""
JOBS = f"""
query ($first: Int, $after: String, $status: JobStatus) {{
  jobs(first: $first, after: $after, status: $status) {{
    edges {{ node {{ {JOB} }} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""
# Numbers after those that there were: a page is never written twice.
_CUT: Final = """
WITH gone AS (
    DELETE FROM bulk_job_page WHERE merchant_id = $1 RETURNING job_id, number, ids
), listed AS (
    SELECT job_id, id, (row_number() OVER (PARTITION BY job_id ORDER BY number, place) - 1) / $2::int AS page
    FROM gone CROSS JOIN unnest(ids) WITH ORDINALITY AS t (id, place)
)
INSERT INTO bulk_job_page (merchant_id, job_id, number, ids)
SELECT $1, job_id, 1000 + page, array_agg(id ORDER BY id) FROM listed GROUP BY job_id, page
RETURNING number, cardinality(ids) AS rows
"""
_LEASES_ARE_OVER: Final = "UPDATE bulk_job SET lease_until = NULL WHERE merchant_id = $1"


async def job_row(shop: Shop, job: Any) -> Any:
    """Read a job again."""
    return (await shop.data(f"query ($id: ID!) {{ node(id: $id) {{ ... on BulkJob {{ {JOB} }} }} }}",
                            {"id": job["id"]}))["node"]  # fmt: skip


async def carried_out(shop: Shop, job: Any) -> Any:
    """Let a worker do whatever can be done now, whoever had the job before, and read it again."""
    await look_again(shop)
    await carry_out_jobs(seconds_max=30)
    return await job_row(shop, job)


async def look_again(shop: Shop) -> None:
    """Let the time pass until the leases of the shop's jobs are over."""
    await database().rows(_LEASES_ARE_OVER, shop.merchant_id)


async def paged(shop: Shop, size: int) -> list[int]:
    """Cut the lists of the shop's jobs into pages of a few. Returns how long each is."""
    rows = await database().rows(_CUT, shop.merchant_id, size)
    return [row["rows"] for row in sorted(rows, key=lambda row: row["number"])]


def progress(job: Any) -> dict[str, Any]:
    """Return how far a job is."""
    return {name: job[name] for name in ("status", "total", "done", "failed")}


class Killed(BaseException):
    """Ends a worker where it stands."""


async def killed_everywhere(shop: Shop, job: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Carry a job out by workers of which each does one batch.

    Each batch is tried by a worker that is killed before its commit, and then by one that is killed right after it. A
    worker may also come by jobs that other tests have left. Returns how many batches this one took.
    """
    job_id = ids.decode("job", job["id"])
    commits = rounds = 0
    while (before := await _far(shop, job_id))["finished_at"] is None:
        with monkeypatch.context() as patched:
            for ending in ("go_on", "finish"):
                patched.setattr(turns, ending, _killed_before(getattr(turns, ending)))
            await _killed(shop)
        with monkeypatch.context() as patched:
            for kind, batch in BATCHES.items():
                patched.setitem(BATCHES, kind, _killed_after(batch))
            await _killed(shop)
        commits += await _far(shop, job_id) != before
        rounds += 1
        assert rounds < 100
    return commits


async def _far(shop: Shop, job_id: Any) -> dict[str, Any]:
    """Return how far a job is."""
    (row,) = await database().rows(
        "SELECT done, failed, skipped_erased + skipped_mailbox + skipped_has_all AS skipped, finished_at FROM bulk_job "
        "WHERE merchant_id = $1 AND id = $2", shop.merchant_id, job_id,
    )  # fmt: skip
    return dict(row)


async def _killed(shop: Shop) -> None:
    await look_again(shop)
    with pytest.raises(Killed):
        await carry_out_jobs(seconds_max=30)


def _killed_before(ending: Any) -> Any:
    async def killed(*arguments: Any) -> None:
        await ending(*arguments)
        raise Killed

    return killed


def _killed_after(batch: Any) -> Any:
    async def killed(job: Any) -> bool:
        await batch(job)
        raise Killed

    return killed
