"""Answers in one write. Without these an answer could be cut, be two, or never end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.web.http_protocol import LimitedProtocol

REQUEST = b"GET / HTTP/1.1\r\nhost: flash\r\nconnection: close\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
TEXT = (b"content-type", b"text/plain")
FOUR = (b"content-length", b"4")
START = {"type": "http.response.start", "status": 200, "headers": [TEXT, FOUR]}
OTHER_START = {"type": "http.response.start", "status": 201, "headers": [FOUR]}
BODY = {"type": "http.response.body", "body": b"four"}
HALF = {"type": "http.response.body", "body": b"fo", "more_body": True}
OTHER_HALF = {"type": "http.response.body", "body": b"ur"}
FAULT = b"HTTP/1.1 500 Internal Server Error\r\n"


class Recording:
    """A transport that keeps what is written."""

    def __init__(self, transport: Any, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@contextlib.asynccontextmanager
async def serving(*messages: dict[str, Any] | Exception) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve an application that sends these. Yields the port, and what is written."""
    written: list[bytes] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await send(message)

    class Recorded(LimitedProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(Recording(transport, written))  # type: ignore[arg-type]

    config = uvicorn.Config(application, lifespan="off", access_log=False, log_config=None, log_level="critical")
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: Recorded(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], written


async def asked(port: int, request: bytes = REQUEST) -> bytes:
    """Return everything that is answered until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_an_answer_that_is_whole_leaves_in_one_write() -> None:
    async with serving(START, BODY) as (port, written):
        answer = await asked(port)

    assert written == [answer]
    assert answer == HEAD + b"content-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfour"


async def test_a_connection_that_stays_answers_again() -> None:
    stays = REQUEST.replace(b"connection: close\r\n", b"")
    async with serving(START, BODY) as (port, written):
        answers = await asked(port, stays + stays + REQUEST)

    whole = HEAD + b"content-type: text/plain\r\ncontent-length: 4\r\n\r\nfour"
    assert written == [whole, whole, whole.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")]
    assert answers == b"".join(written)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((START, HALF, OTHER_HALF), id="in two parts"),
        pytest.param(({**START, "headers": [TEXT, FOUR, (b"connection", b"close")]}, BODY), id="closing"),
    ],
)
async def test_other_answers_are_uvicorns(messages: tuple[dict[str, Any], ...]) -> None:
    async with serving(*messages) as (port, written):
        answer = await asked(port)

    assert len(written) == len(messages)
    assert answer == HEAD + b"content-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfour"


async def test_an_answer_to_head_has_no_body() -> None:
    async with serving(START, BODY) as (port, _):
        answer = await asked(port, REQUEST.replace(b"GET", b"HEAD"))

    assert answer == HEAD + b"content-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\n"


async def test_an_answer_without_a_length_is_sent_as_it_comes() -> None:
    begun = {"type": "http.response.start", "status": 200, "headers": []}
    async with serving(begun, HALF, OTHER_HALF) as (port, written):
        answer = await asked(port)

    assert written[0] == HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert answer == written[0] + b"2\r\nfo\r\n2\r\nur\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((START, ValueError("after the head")), id="fails after its head"),
        pytest.param((START,), id="ends after its head"),
    ],
)
async def test_what_isnt_a_whole_answer_is_a_fault(messages: tuple[dict[str, Any] | Exception, ...]) -> None:
    async with serving(*messages) as (port, _):
        answer = await asked(port)

    assert answer.startswith(FAULT)
    assert answer.endswith(b"\r\n\r\nInternal Server Error")


@pytest.mark.parametrize("value", [b"1\r\ncontent-length: 9", b"1\n", b"1\r"])
async def test_a_header_with_a_lines_end_in_it_is_never_sent(value: bytes) -> None:
    async with serving({**START, "headers": [(b"x", value), FOUR]}, BODY) as (port, _):
        answer = await asked(port)

    assert answer == b""


async def test_a_head_that_is_replaced_before_its_body_was_never_sent() -> None:
    async with serving(START, OTHER_START, BODY) as (port, _):
        answer = await asked(port)

    assert answer == b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfour"


@pytest.mark.parametrize(("length", "sent"), [(b"3", b""), (b"5", b"four")])
async def test_a_body_of_another_length_ends_the_connection(length: bytes, sent: bytes) -> None:
    async with serving({**START, "headers": [(b"content-length", length)]}, BODY) as (port, _):
        answer = await asked(port)

    assert answer == HEAD + b"content-length: " + length + b"\r\nconnection: close\r\n\r\n" + sent
