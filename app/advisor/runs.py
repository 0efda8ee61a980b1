"""Runs of the advisor as rows: one statement each to ask for one, to take one on and to end it.

The table is the letter and Valkey the doorbell: a run that nobody was told of is found by the next sweep.
"""

from dataclasses import dataclass
from typing import Any, Final, TypedDict
from uuid import UUID

import orjson

from app import ids
from app.advisor.rows import RunRow
from app.storage import leases
from app.storage.database import database
from app.storage.events import event
from app.storage.fences import stands
from app.storage.leases import HeldRow
from app.storage.rings import ring
from app.storage.statements import NoRow, columns, statement

_STEPS: Final = ("RUNNING",)
#: Beyond the time for which a model may be asked: reading the facts, and storing what came of it.
SPARE_SECONDS: Final = 60
#: How long a run is put aside while its figures are computed.
_WAIT_SECONDS: Final = 20
KILLED: Final = "Every worker that tried ended while it was at it."


class _WaitingRow(TypedDict):
    runs: int


class _EndedRow(TypedDict):
    id: UUID


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a run: who proposed, and what, as JSON; the raw answer is a ciphertext."""

    source: str
    model: str | None
    prompt_version: str | None
    fallback_reason: str | None
    facts: dict[str, Any]
    suggestions: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    raw_answer: bytes | None


# A merchant that has a live run gets no other; the key advice_run_live decides between two that ask at once.
REQUEST: Final = statement(
    RunRow,
    f"""
WITH a AS (
    INSERT INTO advice_run (merchant_id, id, status, actor, attempts, requested_at)
    VALUES (:merchant_id, :run_id, 'QUEUED', :actor, 0, now())
    ON CONFLICT (merchant_id) WHERE status IN ('QUEUED', 'RUNNING') DO NOTHING
    RETURNING *
), recorded AS (
    {event("advice_run.requested", subject="a.id", source="a")}
)
SELECT {columns(RunRow)} FROM a WHERE a.merchant_id = :merchant_id
""",
)
LIVE: Final = statement(
    RunRow,
    f"""
SELECT {columns(RunRow)} FROM advice_run a WHERE a.merchant_id = :merchant_id AND a.status IN ('QUEUED', 'RUNNING')
""",
)
WAITING: Final = statement(
    _WaitingRow,
    f"""
SELECT count(*)::int AS runs FROM advice_run a
WHERE (status = 'QUEUED' OR (status = 'RUNNING' AND lease_until < now())) AND {stands("a")}
""",
)
TAKE: Final = leases.take("advice_run", _STEPS, HeldRow, seconds=":seconds")
RELEASE: Final = leases.release("advice_run", _STEPS)
WAIT: Final = statement(
    NoRow,
    f"""
UPDATE advice_run SET attempts = attempts - 1, lease_until = now() + interval '{_WAIT_SECONDS} seconds'
WHERE {leases.held(_STEPS)}
""",
)
ABANDONED: Final = leases.abandoned("advice_run", _STEPS)
# A worker that lost its lease finds another attempt, and changes nothing.
FINISH: Final = statement(
    _EndedRow,
    f"""
WITH a AS (
    UPDATE advice_run SET status = 'DONE', finished_at = now(), source = :source, model = :model,
        prompt_version = :prompt_version, fallback_reason = :fallback_reason, facts = :facts::text::jsonb,
        rejected = :rejected::text::jsonb, raw_answer = :raw_answer
    WHERE {leases.held(_STEPS)} RETURNING merchant_id, id, actor
), suggested AS (
    INSERT INTO suggestion (merchant_id, id, run_id, position, content)
    SELECT a.merchant_id, t.id, a.id, t.position, t.content::jsonb
    FROM a, unnest(:suggestion_ids::uuid[], :suggestions::text[]) WITH ORDINALITY AS t (id, content, position)
)
{event("advice_run.finished", subject="a.id", source="a", actor="a.actor")} RETURNING id
""",
)
FAIL: Final = statement(
    NoRow,
    f"""
WITH a AS (
    UPDATE advice_run SET status = 'FAILED', finished_at = now(), problem = :problem
    WHERE {leases.held(_STEPS)} RETURNING id
)
{event("advice_run.failed", subject="a.id", source="a", actor="'system'")}
""",
)


def channel(merchant_id: UUID, run_id: UUID) -> str:
    """Return where the changes of a run ring."""
    return f"flash:advice:{merchant_id.hex}:{run_id.hex}"


def _ring(run: HeldRow) -> None:
    ring(database(), channel(run["merchant_id"], run["id"]))


async def request(merchant_id: UUID, actor: str) -> tuple[RunRow, bool]:
    """Ask for a run. Returns a new one, or the one that lives, and whether it is new."""
    while True:
        asked = await database().row(
            REQUEST, merchant_id=merchant_id, run_id=ids.new(), actor=actor, event_id=ids.new()
        )
        if asked is not None:
            return asked, True
        # The one that lived may have ended in between.
        live = await database().row(LIVE, merchant_id=merchant_id)
        if live is not None:
            return live, False


async def waiting() -> int:
    """End what had all its attempts, and return how many runs wait or were left behind."""
    for run in await database().rows(ABANDONED):
        await fail(run, KILLED)
    counted = await database().row(WAITING)
    return 0 if counted is None else counted["runs"]


async def take(seconds: float) -> HeldRow | None:
    """Take the run on that has waited longest, if there is one, for so long."""
    run = await database().row(TAKE, seconds=seconds)
    if run is not None:
        _ring(run)
    return run


async def release(run: HeldRow) -> None:
    """Give a run back that can't be ended here, to whoever looks next."""
    await database().row(RELEASE, **leases.holder(run))


async def finish(run: HeldRow, answer: Answer) -> bool:
    """End a run with what came of it. Returns False when it is no longer ours."""
    ended = await database().row(
        FINISH,
        **leases.holder(run),
        event_id=ids.new(),
        source=answer.source,
        model=answer.model,
        prompt_version=answer.prompt_version,
        fallback_reason=answer.fallback_reason,
        facts=orjson.dumps(answer.facts).decode(),
        suggestion_ids=[ids.new() for _ in answer.suggestions],
        suggestions=[orjson.dumps(suggestion).decode() for suggestion in answer.suggestions],
        rejected=orjson.dumps(answer.rejected).decode(),
        raw_answer=answer.raw_answer,
    )
    _ring(run)
    return ended is not None


async def wait(run: HeldRow) -> None:
    """Put a run aside whose figures are being computed. This is none of its attempts: those figures come, or fail."""
    await database().row(WAIT, **leases.holder(run))


async def fail(run: HeldRow, problem: str) -> None:
    """End a run without an answer."""
    await database().row(FAIL, **leases.holder(run), event_id=ids.new(), problem=problem)
    _ring(run)
