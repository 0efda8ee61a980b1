"""Asking a model: an OpenAI-compatible endpoint is told the facts and asked for proposals, and may do anything else."""

import asyncio
import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from app.advisor import prompt
from app.advisor.facts import Facts
from app.advisor.proposals import Proposal, read_answer
from app.advisor.wording import cleaned
from app.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: What is read of an answer, and kept of what the model said.
ANSWER_BYTES_MAX: Final = 1_048_576
KEPT_LENGTH_MAX: Final = 100_000
#: How often an endpoint that is busy or broken is asked again, and for how long it is waited for in between.
AGAIN_MAX: Final = 1
_PAUSE_SECONDS: Final = 0.5
RETRY_AFTER_SECONDS_MAX: Final = 30.0
_BUSY: Final = 429
#: What endpoints answer to a response_format that they don't know.
_REFUSES_FORMAT: Final = frozenset({400, 415, 422, 501})
_BRACES_MAX: Final = 50


class Unanswered(Exception):  # noqa: N818  (an endpoint without an answer is expected)
    """There are no proposals; the message says why, for people, and tells nothing that the endpoint said."""


class Endpoint:
    """The configured endpoint, for the length of one run; `said` is what its model said, `model` what it calls it."""

    def __init__(self, configured: Settings) -> None:
        """Take the settings; `propose` connects."""
        self._configured = configured
        self._format: dict[str, Any] | None = None
        self.model = configured.advisor_model
        self.said: list[str] = []

    async def propose(self, facts: Facts) -> list[Proposal]:
        """Ask, and ask once more with what is wrong with the answer. Raises Unanswered within the configured time.

        Of an answer that is wrong even then, what is right in it is taken.
        """
        # The library takes a second and a half to import, and only a worker with an endpoint needs it.
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415

        configured = self._configured
        fitting: list[Proposal] = []
        self._format = prompt.response_format(facts)
        key = configured.advisor_api_key
        try:
            client = openai.AsyncOpenAI(
                api_key="none" if key is None else key.get_secret_value(),
                base_url=configured.advisor_base_url,
                timeout=configured.advisor_timeout_seconds,
                max_retries=0,
            )
            async with asyncio.timeout(configured.advisor_timeout_seconds), client:
                conversation = prompt.messages(facts)
                said, problems = await self._complete(client, conversation)
                fitting, problems = _read(said, problems)
                if problems:
                    again, more = await self._complete(client, [*conversation, *prompt.repair(said, problems)])
                    repaired, problems = _read(again, more)
                    fitting = repaired or fitting
        except (TimeoutError, openai.APITimeoutError):
            seconds = f"{configured.advisor_timeout_seconds:g} seconds"
            raised = Unanswered(f"The endpoint didn't answer within {seconds}.")
        except openai.APIStatusError as error:
            raised = Unanswered(f"The endpoint answered with status {error.status_code}.")
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeError):
            # The last two are a configured address that is none, and a key that no header can hold.
            raised = Unanswered("The endpoint can't be reached, or broke off.")
        except Unanswered as unanswered:
            raised = unanswered
        else:
            raised = Unanswered(f"The model's answer can't be used, even when asked again: {problems[0]}."[:300]) if (
                problems
            ) else Unanswered("")  # fmt: skip
        if not fitting:
            raise raised
        return fitting

    async def _complete(self, client: "AsyncOpenAI", conversation: list[dict[str, str]]) -> tuple[str, list[str]]:
        """Return what the model says, and what is wrong with the way in which it was said."""
        import openai  # noqa: PLC0415

        again = 0
        while True:
            try:
                return self._content(await self._ask(client, conversation))
            except openai.APIStatusError as error:
                if self._format is not None and error.status_code in _REFUSES_FORMAT:
                    self._format = None
                    continue
                if again == AGAIN_MAX or not (error.status_code == _BUSY or error.status_code >= 500):
                    raise
                await asyncio.sleep(_pause(error.response.headers.get("retry-after")))
            except openai.APIConnectionError:
                if again == AGAIN_MAX:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            again += 1

    async def _ask(self, client: "AsyncOpenAI", conversation: list[dict[str, str]]) -> bytes:
        """Send one request and return its answer as it came: the library believes too much of what it is sent."""
        asked: dict[str, Any] = {
            "model": self._configured.advisor_model,
            "messages": conversation,
            "max_tokens": self._configured.advisor_tokens_max,
            "temperature": self._configured.advisor_temperature,
        }
        if self._format is not None:
            asked["response_format"] = self._format
        async with client.chat.completions.with_streaming_response.create(**asked) as response:
            answer = bytearray()
            async for part in response.iter_bytes():
                answer += part
                if len(answer) > ANSWER_BYTES_MAX:
                    raise Unanswered("The endpoint's answer doesn't end.")
            return bytes(answer)

    def _content(self, answer: bytes) -> tuple[str, list[str]]:
        """Return the text of a chat completion. Raises Unanswered when it isn't one."""
        try:
            completion = json.loads(answer)
            choice = completion["choices"][0]
            message = choice["message"]
            content = message["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Unanswered("The endpoint's answer is no chat completion.") from None
        named = completion.get("model")
        if isinstance(named, str) and cleaned(named, length_max=200):
            self.model = cleaned(named, length_max=200)
        if message.get("refusal"):
            raise Unanswered("The model refused to answer.")
        if not isinstance(content, str) or not content.strip():
            raise Unanswered("The model's answer is empty.")
        self.said.append(content[:KEPT_LENGTH_MAX])
        cut = choice.get("finish_reason") == "length"
        return content, ["the answer was cut off; make it shorter"] if cut else []


def _read(said: str, problems: list[str]) -> tuple[list[Proposal], list[str]]:
    """Return the proposals in a text and what is wrong with it. Of one that was cut off the whole ones are taken."""
    found = _json_in(said)
    return ([], problems or ["it is not JSON"]) if found is None else read_answer(found)


def _json_in(said: str) -> Any:
    """Return the JSON object of suggestions in a text, whatever is around it; else those objects that are suggestions.

    These are all that is left of an answer without its end, or of one that is a bare list.
    """
    decoder = json.JSONDecoder()
    objects: list[dict[str, Any]] = []
    at = said.find("{")
    for _ in range(_BRACES_MAX):
        if at < 0:
            break
        try:
            found, end = decoder.raw_decode(said, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if "suggestions" in found:
                return found
            objects.append(found)
        at = said.find("{", end)
    suggestions = [each for each in objects if "segment" in each]
    return {"suggestions": suggestions} if suggestions else next(iter(objects), None)


def _pause(retry_after: str | None) -> float:
    """Return how long to wait before asking again. Raises Unanswered when that is longer than a run may wait."""
    if retry_after is None:
        return _PAUSE_SECONDS
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return _PAUSE_SECONDS
    if not math.isfinite(seconds) or seconds > RETRY_AFTER_SECONDS_MAX:
        raise Unanswered("The endpoint is busy, and asks to be left alone for longer than a run waits.")
    return max(0.0, seconds)
