"""Working a run: facts are read, a model or the rules propose, what they propose is checked, and all is stored."""

import asyncio
import logging
import time
from dataclasses import asdict
from typing import Final

from app import ids
from app.advisor import rules, runs
from app.advisor.checks import check
from app.advisor.endpoint import Endpoint
from app.advisor.facts import Facts, FiguresMissingError, gather
from app.advisor.prompt import PROMPT_VERSION
from app.advisor.proposals import Unanswered
from app.advisor.suggestions import Rejection, Suggestion
from app.config import settings
from app.merchants.tenants import tenant
from app.storage.database import is_away, took_too_long
from app.storage.leases import HeldRow

log = logging.getLogger("flash.advisor")

PROBLEM_LENGTH_MAX: Final = 200
NOT_CONFIGURED: Final = "No endpoint is configured."
ENDED_EARLIER: Final = "An earlier attempt to ask the model ended without an answer."
NO_FIGURES: Final = "The figures that it starts from couldn't be computed."
TOO_LONG: Final = "The database took too long over what it reads."
BROKEN: Final = "It ended with an internal error, which the worker's log has."
NOTHING_LEFT: Final = "None of the model's suggestions passed the checks."


async def advise_waiting(*, seconds_max: float) -> int:
    """Work the runs that wait, one after the other, for so long. Returns how many were ended.

    Safe to run twice and at once: a run is one worker's, its answer is stored once. A run that can't be worked fails
    alone, and says why; one whose figures are being computed waits for them. When the database or this process goes
    away, another worker finds it.
    """
    ended, until = 0, time.monotonic() + seconds_max
    lease = settings().advisor_timeout_seconds + runs.SPARE_SECONDS
    while time.monotonic() < until and (run := await runs.take(lease)) is not None:
        try:
            ended += await _advise(run)
        except asyncio.CancelledError:
            await runs.release(run)
            raise
        except FiguresMissingError as missing:
            if missing.is_for_now:
                await runs.wait(run)
            else:
                await runs.fail(run, f"{NO_FIGURES} {missing}"[:PROBLEM_LENGTH_MAX])
        except Exception as error:
            if is_away(error):
                raise
            log.exception("run %s can't be worked", ids.encode("advicerun", run["id"]))
            await runs.fail(run, TOO_LONG if took_too_long(error) else BROKEN)
    return ended


async def _advise(run: HeldRow) -> bool:
    facts = await gather(run["merchant_id"])
    suggestions: list[Suggestion] = []
    rejections: list[Rejection] = []
    endpoint: Endpoint | None = None
    why = None
    if settings().advisor_base_url is None:
        why = NOT_CONFIGURED
    elif run["attempts"] > 1:
        # Whatever ended it may do so again: an answer by rules is better than none.
        why = ENDED_EARLIER
    else:
        endpoint = Endpoint(settings(), facts)
        try:
            suggestions, rejections = check(await endpoint.propose(), facts)
        except Unanswered as unanswered:
            why = str(unanswered)
        if not suggestions:
            why = why or NOTHING_LEFT
    if why is not None:
        suggestions, dropped = check(rules.propose(facts), facts)
        rejections += dropped
    return await runs.finish(run, await _answer(run, facts, suggestions, rejections, endpoint, why))


async def _answer(
    run: HeldRow,
    facts: Facts,
    suggestions: list[Suggestion],
    rejections: list[Rejection],
    endpoint: Endpoint | None,
    why: str | None,
) -> runs.Answer:
    """Return what is stored. The merchant's keys are read now: they may have changed while the model thought."""
    raw_answer = None
    if endpoint is not None and endpoint.said:
        owner = await tenant(run["merchant_id"])
        if owner is None:
            raise RuntimeError("a run's merchant has no row")
        said = "\n\n".join(endpoint.said).encode(errors="replace").decode()
        raw_answer = owner.keys.encrypt(run["id"], "raw_answer", said)
    return runs.Answer(
        source="LLM" if why is None else "RULES",
        model=None if endpoint is None else endpoint.model,
        prompt_version=None if endpoint is None else PROMPT_VERSION,
        fallback_reason=why,
        facts=facts.as_json() | {"pools_told": None if endpoint is None else endpoint.pools_told},
        suggestions=[asdict(suggestion) for suggestion in suggestions],
        rejected=[asdict(rejection) | {"reason": rejection.reason.value} for rejection in rejections],
        raw_answer=raw_answer,
    )
