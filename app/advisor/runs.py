"""Runs of the advisor as rows: one statement each to ask for one, to take one on and to end it.

The table is the letter and Valkey the doorbell: a run that nobody was told of is found by the next sweep.
"""

from typing import Any, Final
from uuid import UUID

import orjson

from app import ids
from app.storage import leases
from app.storage.database import Row, database
from app.storage.rings import ring

_STEPS: Final = ("RUNNING",)
#: Beyond the time for which a model may be asked: reading the facts, and storing what came of it.
SPARE_SECONDS: Final = 60

RUN_COLUMNS: Final = """
    a.merchant_id AS run_merchant_id, a.id AS run_id, a.status AS run_status, a.source AS run_source,
    a.model AS run_model, a.prompt_version AS run_prompt_version, a.fallback_reason AS run_fallback_reason,
    a.facts AS run_facts, a.suggestions AS run_suggestions, a.rejected AS run_rejected,
    a.raw_answer AS run_raw_answer, a.requested_at AS run_requested_at, a.started_at AS run_started_at,
    a.finished_at AS run_finished_at, a.attempts AS run_attempts
"""
#: A merchant that has a live run gets no other; the key advice_run_live decides between two that ask at once.
REQUEST: Final = f"""
WITH a AS (
    INSERT INTO advice_run (merchant_id, id, status, actor, attempts, requested_at)
    VALUES ($1, $2, 'QUEUED', $3, 0, now())
    ON CONFLICT (merchant_id) WHERE status IN ('QUEUED', 'RUNNING') DO NOTHING
    RETURNING *
), e AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT merchant_id, $4, 'advice_run.requested', id, actor, now() FROM a
)
SELECT {RUN_COLUMNS} FROM a
"""
LIVE: Final = f"SELECT {RUN_COLUMNS} FROM advice_run a WHERE a.merchant_id = $1 AND a.status IN ('QUEUED', 'RUNNING')"
WAITING: Final = """
SELECT count(*)::int AS runs FROM advice_run
WHERE status = 'QUEUED' OR (status = 'RUNNING' AND lease_until < now())
"""
TAKE: Final = leases.take("advice_run", _STEPS, seconds="$1", returning="merchant_id, id, actor, attempts")
RELEASE: Final = leases.release("advice_run", _STEPS)
ABANDONED: Final = leases.abandoned("advice_run", _STEPS)
# A worker that lost its lease finds another attempt, and changes nothing.
FINISH: Final = f"""
WITH a AS (
    UPDATE advice_run SET status = 'DONE', finished_at = now(), source = $5, model = $6, prompt_version = $7,
        fallback_reason = $8, facts = $9::text::jsonb, suggestions = $10::text::jsonb, rejected = $11::text::jsonb,
        raw_answer = $12
    WHERE {leases.held(_STEPS)} RETURNING id, actor
)
INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
SELECT $1, $4, 'advice_run.finished', id, actor, now() FROM a RETURNING id
"""
FAIL: Final = f"""
WITH a AS (
    UPDATE advice_run SET status = 'FAILED', finished_at = now() WHERE {leases.held(_STEPS)} RETURNING id
)
INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
SELECT $1, $4, 'advice_run.failed', id, 'system', now() FROM a RETURNING id
"""


def channel(merchant_id: UUID, run_id: UUID) -> str:
    """Return where the changes of a run ring."""
    return f"flash:advice:{merchant_id.hex}:{run_id.hex}"


def _ring(run: Row) -> None:
    ring(database(), channel(run["merchant_id"], run["id"]), {})


async def request(merchant_id: UUID, actor: str) -> tuple[Row, bool]:
    """Ask for a run. Returns RUN_COLUMNS of a new one, or of the one that lives, and whether it is new."""
    while True:
        asked = await database().row(REQUEST, merchant_id, ids.new(), actor, ids.new())
        if asked is not None:
            return asked, True
        # The one that lived may have ended in between.
        live = await database().row(LIVE, merchant_id)
        if live is not None:
            return live, False


async def waiting() -> int:
    """End what had all its attempts, and return how many runs wait or were left behind."""
    for run in await database().rows(ABANDONED):
        await fail(run)
    counted = await database().row(WAITING)
    return 0 if counted is None else int(counted["runs"])


async def take(seconds: float) -> Row | None:
    """Take the run on that has waited longest, if there is one, for so long."""
    run = await database().row(TAKE, seconds)
    if run is not None:
        _ring(run)
    return run


async def release(run: Row) -> None:
    """Give a run back that can't be ended here, to whoever looks next."""
    await database().row(RELEASE, run["merchant_id"], run["id"], run["attempts"])


async def finish(run: Row, answer: dict[str, Any]) -> bool:
    """End a run with what came of it: the values of FINISH, by name. Returns False when it is no longer ours."""
    stored = [answer[name] for name in ("source", "model", "prompt_version", "fallback_reason")]
    stored += [orjson.dumps(answer[name]).decode() for name in ("facts", "suggestions", "rejected")]
    arguments = (run["merchant_id"], run["id"], run["attempts"], ids.new(), *stored, answer["raw_answer"])
    is_ours = await database().row(FINISH, *arguments) is not None
    _ring(run)
    return is_ours


async def fail(run: Row) -> None:
    """End a run without an answer."""
    await database().row(FAIL, run["merchant_id"], run["id"], run["attempts"], ids.new())
    _ring(run)
