"""The HTTP client of the endpoint: it goes where it is told to, and reads no answer that doesn't end."""

from collections.abc import AsyncIterator
from typing import Final

import httpx2
import openai

from app.advisor.proposals import Unanswered
from app.config import Settings

#: What is read of an answer, whatever its status.
ANSWER_BYTES_MAX: Final = 524_288


class _Bounded(httpx2.AsyncByteStream):
    """A body that raises Unanswered beyond ANSWER_BYTES_MAX."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            if read > ANSWER_BYTES_MAX:
                raise Unanswered("The endpoint's answer doesn't end.")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Bound an answer before anybody reads it: the library reads the whole body of an error."""
    if response.headers.get("content-encoding", "identity") != "identity":
        # A few bytes could become more than this process can hold.
        raise Unanswered("The endpoint's answer is compressed, which nobody asked for.")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


def connect(configured: Settings) -> openai.AsyncOpenAI:
    """Return a client of the configured endpoint, which asks once for each request and follows no redirect."""
    key = configured.advisor_api_key
    return openai.AsyncOpenAI(
        api_key="none" if key is None else key.get_secret_value(),
        base_url=configured.advisor_base_url,
        timeout=configured.advisor_timeout_seconds,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(
            follow_redirects=False, headers={"accept-encoding": "identity"}, event_hooks={"response": [_bound]}
        ),
    )
