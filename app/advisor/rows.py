"""What statements select of the advisor's runs."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import columns, row_of, statement


@row_of(a="advice_run")
class RunRow(TypedDict):
    """A run `a`; facts, suggestions and rejections are JSON, the raw answer is a ciphertext."""

    run_merchant_id: Annotated[UUID, "a.merchant_id"]
    run_id: Annotated[UUID, "a.id"]
    run_status: Annotated[str, "a.status"]
    run_source: Annotated[str | None, "a.source"]
    run_model: Annotated[str | None, "a.model"]
    run_prompt_version: Annotated[str | None, "a.prompt_version"]
    run_fallback_reason: Annotated[str | None, "a.fallback_reason"]
    run_facts: Annotated[str | None, "a.facts"]
    run_suggestions: Annotated[str | None, "a.suggestions"]
    run_rejected: Annotated[str | None, "a.rejected"]
    run_raw_answer: Annotated[bytes | None, "a.raw_answer"]
    run_requested_at: Annotated[datetime, "a.requested_at"]
    run_started_at: Annotated[datetime | None, "a.started_at"]
    run_finished_at: Annotated[datetime | None, "a.finished_at"]
    run_attempts: Annotated[int, "a.attempts"]


FIND_RUN: Final = statement(
    RunRow, f"SELECT {columns(RunRow)} FROM advice_run a WHERE a.merchant_id = :merchant_id AND a.id = :run_id"
)
LATEST_RUN: Final = statement(
    RunRow,
    f"SELECT {columns(RunRow)} FROM advice_run a WHERE a.merchant_id = :merchant_id ORDER BY a.id DESC LIMIT 1",
)


async def find_run(viewer: Viewer, node_id: str) -> RunRow | None:
    """Return the run behind an id, if this viewer may see it."""
    run_id = ids.decode("advicerun", node_id)
    if run_id is None or not may(viewer.role, "AdviceRun"):
        return None
    return await database().row(FIND_RUN, merchant_id=viewer.merchant_id, run_id=run_id)
