"""GraphQL over server-sent events (https://github.com/enisdenjo/graphql-sse): distinct connections, one per operation.

`next` events carry what a socket would send; `complete` says that no more will come. A stream that ends without it
was cut off and is to be resumed.
"""

import asyncio
import contextlib
from contextlib import aclosing
from typing import Any, Final

import orjson
from starlette.types import Receive, Scope, Send

from app.web.authentication import Proof, Unproven, lapsed
from app.web.graphql_documents import Asked, Documents
from app.web.graphql_errors import fault, presented, told
from app.web.graphql_execution import answers
from app.web.open_streams import OpenStreams, SlowReaderError

EVENT_STREAM: Final = "text/event-stream"
#: Comments keep proxies from closing a quiet stream.
KEEP_ALIVE_SECONDS: Final = 12.0

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_COMPLETE: Final = b"event: complete\ndata:\n\n"


class EventStream:
    """The answer to one operation, as an ASGI application."""

    def __init__(
        self,
        documents: Documents,
        asked: Asked,
        proof: Proof,
        streams: OpenStreams,
        *,
        is_resumed: bool,
    ) -> None:
        """`is_resumed` says that the reader resumes at another process when this one ends, as for subscriptions."""
        self._is_resumed = is_resumed
        self._documents = documents
        self._asked = asked
        self._proof = proof
        self._streams = streams

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the operation, the reader, the credential or the process ends."""
        ending = asyncio.Event()
        say_goodbye = ending.set if self._is_resumed else _say_nothing
        with self._streams.one(self._proof.viewer, say_goodbye), contextlib.suppress(SlowReaderError):
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            sending = asyncio.create_task(self._send(send))
            lapsing = asyncio.create_task(lapsed(self._proof))
            leaving = asyncio.create_task(_left(receive))
            tasks: list[asyncio.Task[Any]] = [
                sending,
                lapsing,
                leaving,
                asyncio.create_task(ending.wait()),
            ]
            try:
                while not (await asyncio.wait(tasks, timeout=KEEP_ALIVE_SECONDS, return_when="FIRST_COMPLETED"))[0]:
                    await self._streams.send_in_time(send, _chunk(b":\n\n"))
                if sending.done():
                    sending.result()
                elif lapsing.done() and not leaving.done():
                    await _end(sending)
                    await self._streams.send_in_time(send, _chunk(_errors(_why(lapsing)) + _COMPLETE))
            finally:
                for task in tasks:
                    await _end(task)
            if leaving.cancelled():
                await self._streams.send_in_time(send, {"type": "http.response.body", "body": b""})

    async def _send(self, send: Send) -> None:
        try:
            async with aclosing(await answers(self._documents, self._asked, self._proof.viewer)) as bodies:
                async for body in bodies:
                    await self._streams.send_in_time(send, _chunk(_next(body)))
                    del body
        except SlowReaderError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a masked answer)
            await self._streams.send_in_time(send, _chunk(_errors(told(error))))
        await self._streams.send_in_time(send, _chunk(_COMPLETE))


def _why(lapsing: asyncio.Task[Unproven]) -> list[dict[str, Any]]:
    """Return why the caller's credential isn't valid any more, or why it can't be verified."""
    error = lapsing.exception()
    if isinstance(error, Exception):
        return told(error)
    reason = lapsing.result()
    return presented([fault("UNAUTHENTICATED", reason.value, reason=reason.name)])


def _say_nothing() -> None:
    """Do nothing: an answer is sent to its end even while the process is ending."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _next(body: bytes) -> bytes:
    return b"event: next\ndata: " + body + b"\n\n"


def _errors(errors: list[dict[str, Any]]) -> bytes:
    return _next(orjson.dumps({"errors": errors}))


def _chunk(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}
