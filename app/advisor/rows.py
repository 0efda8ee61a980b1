"""What statements select of the advisor's runs and their suggestions, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.coupons.rows import PoolRow
from app.storage.database import database
from app.storage.statements import columns, row_of, statement


@row_of(a="advice_run")
class RunRow(TypedDict):
    """A run `a`; facts and rejections are JSON, the raw answer is a ciphertext."""

    run_merchant_id: Annotated[UUID, "a.merchant_id"]
    run_id: Annotated[UUID, "a.id"]
    run_status: Annotated[str, "a.status"]
    run_source: Annotated[str | None, "a.source"]
    run_model: Annotated[str | None, "a.model"]
    run_prompt_version: Annotated[str | None, "a.prompt_version"]
    run_fallback_reason: Annotated[str | None, "a.fallback_reason"]
    run_facts: Annotated[str | None, "a.facts"]
    run_rejected: Annotated[str | None, "a.rejected"]
    run_raw_answer: Annotated[bytes | None, "a.raw_answer"]
    run_requested_at: Annotated[datetime, "a.requested_at"]
    run_started_at: Annotated[datetime | None, "a.started_at"]
    run_finished_at: Annotated[datetime | None, "a.finished_at"]
    run_problem: Annotated[str | None, "a.problem"]
    run_attempts: Annotated[int, "a.attempts"]


@row_of(s="suggestion")
class SuggestionRow(TypedDict):
    """A suggestion `s`; its content is JSON."""

    suggestion_id: Annotated[UUID, "s.id"]
    suggestion_run_id: Annotated[UUID, "s.run_id"]
    suggestion_content: Annotated[str, "s.content"]


@row_of(s="suggestion", p="pool")
class AdoptedRow(SuggestionRow, PoolRow):
    """A suggestion and the pool that was made of it."""


FIND_RUN: Final = statement(
    RunRow, f"SELECT {columns(RunRow)} FROM advice_run a WHERE a.merchant_id = :merchant_id AND a.id = :run_id"
)
LATEST_RUN: Final = statement(
    RunRow,
    f"SELECT {columns(RunRow)} FROM advice_run a WHERE a.merchant_id = :merchant_id ORDER BY a.id DESC LIMIT 1",
)

FIND_SUGGESTION: Final = statement(
    SuggestionRow,
    f"SELECT {columns(SuggestionRow)} FROM suggestion s WHERE s.merchant_id = :merchant_id AND s.id = :suggestion_id",
)
SUGGESTIONS_OF_RUNS: Final = statement(
    SuggestionRow,
    f"""
SELECT {columns(SuggestionRow)} FROM suggestion s
WHERE s.merchant_id = :merchant_id AND s.run_id = ANY(:run_ids::uuid[]) ORDER BY s.run_id, s.position
""",
)
_ADOPTED: Final = f"""
SELECT {columns(AdoptedRow)} FROM suggestion s
JOIN pool p ON p.merchant_id = :merchant_id AND p.suggestion_id = s.id
WHERE s.merchant_id = :merchant_id
"""
ADOPTED_AS: Final = statement(AdoptedRow, f"{_ADOPTED} AND s.id = ANY(:suggestion_ids::uuid[])")
MADE_OF: Final = statement(AdoptedRow, f"{_ADOPTED} AND p.id = ANY(:pool_ids::uuid[])")


async def find_run(viewer: Viewer, node_id: str) -> RunRow | None:
    """Return the run behind an id, if this viewer may see it."""
    run_id = ids.decode("advicerun", node_id)
    if run_id is None or not may(viewer.role, "AdviceRun"):
        return None
    return await database().row(FIND_RUN, merchant_id=viewer.merchant_id, run_id=run_id)


async def find_suggestion(viewer: Viewer, node_id: str) -> SuggestionRow | None:
    """Return the suggestion behind an id, if this viewer may see it."""
    suggestion_id = ids.decode("suggestion", node_id)
    if suggestion_id is None or not may(viewer.role, "OfferSuggestion"):
        return None
    return await database().row(FIND_SUGGESTION, merchant_id=viewer.merchant_id, suggestion_id=suggestion_id)


async def suggestions_by_run(viewer: Viewer, run_ids: list[UUID]) -> Mapping[UUID, list[SuggestionRow]]:
    """Return the suggestions of each run in their order."""
    rows = await database().rows(SUGGESTIONS_OF_RUNS, merchant_id=viewer.merchant_id, run_ids=run_ids)
    grouped: defaultdict[UUID, list[SuggestionRow]] = defaultdict(list)
    for row in rows:
        grouped[row["suggestion_run_id"]].append(row)
    return grouped


async def pools_by_suggestion(viewer: Viewer, suggestion_ids: list[UUID]) -> Mapping[UUID, AdoptedRow | None]:
    """Return the pool that was made of each suggestion, None where there is none."""
    rows = await database().rows(ADOPTED_AS, merchant_id=viewer.merchant_id, suggestion_ids=suggestion_ids)
    return dict.fromkeys(suggestion_ids) | {row["suggestion_id"]: row for row in rows}


async def suggestions_by_pool(viewer: Viewer, pool_ids: list[UUID]) -> Mapping[UUID, AdoptedRow | None]:
    """Return the suggestion that each pool was made of, None where it was made of none."""
    rows = await database().rows(MADE_OF, merchant_id=viewer.merchant_id, pool_ids=pool_ids)
    return dict.fromkeys(pool_ids) | {row["pool_id"]: row for row in rows}
