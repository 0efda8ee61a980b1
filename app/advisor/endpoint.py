"""Asking a model: an OpenAI-compatible endpoint is told the facts and asked for proposals, and may do anything else."""

import asyncio
import json
import logging
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from app.advisor import prompt
from app.advisor.facts import Facts
from app.advisor.prompt import SIZES, Size
from app.advisor.proposals import Proposal, Unanswered, read_answer
from app.advisor.wording import cleaned, without_secrets
from app.config import Settings

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

log = logging.getLogger("flash.advisor")

#: What is looked at, and kept, of what the model said.
SAID_LENGTH_MAX: Final = 100_000
#: How often an endpoint that is busy or broken is asked again, and for how long it is waited for in between.
AGAIN_MAX: Final = 1
_PAUSE_SECONDS: Final = 0.5
RETRY_AFTER_SECONDS_MAX: Final = 30.0
#: Of the endpoint's reason for an error, and of the whole sentence.
REASON_LENGTH_MAX: Final = 200
WHY_LENGTH_MAX: Final = 300
#: Of what an endpoint says of an error, and of a pool's name for it to be told from any word.
_MESSAGE_LENGTH_MAX: Final = 2_000
_NAME_LENGTH_MIN: Final = 4
_BUSY: Final = 429
#: What endpoints answer to what they can't take: a response_format that they don't know, or too many tokens.
_REFUSES: Final = frozenset({400, 413, 415, 422, 501})
_OUTGROWN: Final = re.compile(r"context|too long|too many tokens|n_ctx", re.IGNORECASE)
_BRACES_MAX: Final = 50
_READINGS_MAX: Final = 4


class Endpoint:
    """The configured endpoint, for the length of one run; `said` is what its model said, `model` what it calls it."""

    def __init__(self, configured: Settings, facts: Facts) -> None:
        """Take the settings, and what the model is to be told; `propose` connects."""
        self._configured = configured
        self._facts = facts
        self._size = 0
        #: How many formats, of the strictest first, the endpoint has refused.
        self._formats_refused = 0
        self.model = configured.advisor_model
        self.said: list[str] = []

    @property
    def pools_told(self) -> int:
        """Of how many pools the model is told."""
        return len(prompt.told_pools(self._facts, self._asked))

    @property
    def _asked(self) -> Size:
        return SIZES[self._size]

    async def propose(self) -> list[Proposal]:
        """Ask, and ask once more with what is wrong with the answer. Raises Unanswered within the configured time.

        Of an answer that is wrong even then, what is right in it is taken. Facts that the model's context doesn't hold
        are told shorter.
        """
        # The library takes a second and a half to import, and only a worker with an endpoint needs it.
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415

        from app.advisor.http_client import connect  # noqa: PLC0415

        seconds = self._configured.advisor_timeout_seconds
        fitting: list[Proposal] = []
        why = ""
        try:
            client = connect(self._configured)
            async with asyncio.timeout(seconds), client:
                said, problems = await self._complete(client, [])
                fitting, problems = _read(said, problems)
                if problems:
                    again, more = await self._complete(client, prompt.repair(said, problems))
                    repaired, problems = _read(again, more)
                    fitting = repaired or fitting
                if problems:
                    why = f"The model's answer can't be used, even when asked again: {problems[0]}."
        except (TimeoutError, openai.APITimeoutError):
            why = f"The endpoint didn't answer within {seconds:g} seconds."
        except openai.APIStatusError as error:
            reason = self._reason(error)
            why = f"The endpoint answered with status {error.status_code}{f': {reason}' if reason else ''}."
            log.warning("%s", why)
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeError):
            # The last two are a configured address that is none, and a key that no header can hold.
            why = "The endpoint can't be reached, or broke off."
        except Unanswered as unanswered:
            why = str(unanswered)
        if not fitting:
            shrunk = self._shrunk()
            raise Unanswered(f"{why[: WHY_LENGTH_MAX - len(shrunk)]}{shrunk}")
        return fitting

    async def _complete(self, client: "AsyncOpenAI", repair: list[dict[str, str]]) -> tuple[str, list[str]]:
        """Return what the model says, and what is wrong with the way in which it was said.

        `repair` continues the conversation. It is left out with the first facts that have to be.
        """
        import openai  # noqa: PLC0415

        again = 0
        while True:
            conversation = [*prompt.messages(self._facts, self._asked), *repair]
            if self._is_outgrown_by(conversation) and self._shrink():
                repair = []
                continue
            try:
                return self._content(await self._ask(client, conversation))
            except openai.APIStatusError as error:
                if error.status_code in _REFUSES:
                    if _OUTGROWN.search(_message_of(error.body)) and self._shrink():
                        repair = []
                        continue
                    if self._refuse_format():
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
            "max_tokens": self._tokens_max,
            "temperature": self._configured.advisor_temperature,
        }
        response_format = self._formats()[self._formats_refused]
        if response_format is not None:
            asked["response_format"] = response_format
        async with client.chat.completions.with_streaming_response.create(**asked) as response:
            return b"".join([part async for part in response.iter_bytes()])

    @property
    def _tokens_max(self) -> int:
        return min(self._configured.advisor_tokens_max, self._asked.tokens)

    def _formats(self) -> list[dict[str, Any] | None]:
        return prompt.response_formats(self._facts, self._asked)

    def _refuse_format(self) -> bool:
        """Ask for the next format from now on. Returns False when there is none."""
        if self._formats_refused == len(self._formats()) - 1:
            return False
        self._formats_refused += 1
        return True

    def _is_outgrown_by(self, conversation: list[dict[str, str]]) -> bool:
        """Whether a conversation and its answer are more than the configured context holds."""
        context = self._configured.advisor_context_tokens
        return context is not None and prompt.tokens_of(conversation) + self._tokens_max > context

    def _shrink(self) -> bool:
        """Tell the facts shorter from now on. Returns False when they are as short as can be."""
        if self._size == len(SIZES) - 1:
            return False
        self._size += 1
        log.info("told the model of %d of %d pools: its context holds no more", self.pools_told, len(self._facts.pools))
        return True

    def _shrunk(self) -> str:
        if self._size == 0:
            return ""
        return f" It was told of {self.pools_told} of {len(self._facts.pools)} pools: its context holds no more."

    def _reason(self, error: "APIStatusError") -> str:
        """Return why the endpoint refuses, as it says itself: without credentials, and names that it was told."""
        key = self._configured.advisor_api_key
        hidden = [pool.name for pool in self._facts.pools if len(pool.name) >= _NAME_LENGTH_MIN]
        if key is not None:
            hidden.append(key.get_secret_value())
        said = _message_of(error.body)
        reason = without_secrets(said, hidden, known=self._configured.advisor_model, length_max=REASON_LENGTH_MAX)
        return reason.rstrip(" .")

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
        if isinstance(named, str) and cleaned(named[:1_000], length_max=200):
            self.model = cleaned(named[:1_000], length_max=200)
        if message.get("refusal"):
            raise Unanswered("The model refused to answer.")
        if not isinstance(content, str) or not content.strip():
            raise Unanswered("The model's answer is empty.")
        self.said.append(content[:SAID_LENGTH_MAX])
        # What a model thought before it answered isn't its answer.
        content = content.rpartition("</think>")[2]
        if len(content) > SAID_LENGTH_MAX:
            return content[:SAID_LENGTH_MAX], ["the answer is too long; make it shorter"]
        cut = choice.get("finish_reason") == "length"
        return content, ["the answer was cut off; make it shorter"] if cut else []


def _read(said: str, problems: list[str]) -> tuple[list[Proposal], list[str]]:
    """Return the proposals in a text and what is wrong with it. Of one that was cut off the whole ones are taken."""
    found = _json_in(said)
    return ([], problems or ["it is not JSON"]) if found is None else read_answer(found)


def _json_in(said: str) -> Any:
    """Return the JSON object of suggestions in a text, whatever is around it; else those objects that are suggestions.

    These are all that is left of an answer without its end, or of one that is a bare list. Reads the text a few times
    at most: one without its end is read to there from each brace that opens.
    """
    decoder = json.JSONDecoder()
    objects: list[dict[str, Any]] = []
    at = said.find("{")
    left = _READINGS_MAX * len(said)
    for _ in range(_BRACES_MAX):
        if at < 0 or left < 0:
            break
        try:
            found, end = decoder.raw_decode(said, at)
        except json.JSONDecodeError as error:
            left -= error.pos - at
            end = at + 1
        except (ValueError, RecursionError):
            left -= len(said)
            end = at + 1
        else:
            if "suggestions" in found:
                return found
            objects.append(found)
        at = said.find("{", end)
    suggestions = [each for each in objects if "segment" in each]
    return {"suggestions": suggestions} if suggestions else next(iter(objects), None)


def _message_of(body: object) -> str:
    """Return what the body of an error says; nothing of what is no message."""
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    if isinstance(body, dict):
        body = body.get("message")
    return body[:_MESSAGE_LENGTH_MAX] if isinstance(body, str) and not body.lstrip().startswith("<") else ""


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
