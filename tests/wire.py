"""The requests that tests send by the ten thousand: httpx takes as much CPU for one as the engine does."""

import asyncio
import json
from typing import Any, Final
from urllib.parse import urlsplit

import httptools
import httpx

_LINES_MAX: Final = 200


class _Line(asyncio.Protocol):
    """A connection, which carries one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answered is not None and not self._answered.done():
            error = httpx.RemoteProtocolError("Server disconnected without sending a response.")
            self._answered.set_exception(error if exc is None else httpx.ReadError(str(exc)))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Take a part of the answer."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Take the end of the answer."""
        if not self._parser.should_keep_alive():
            self.end()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(b"".join(self._body))

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def end(self) -> None:
        """Close the connection."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


class Wire:
    """Sends JSON and receives it, over connections that are kept. Raises what httpx raises."""

    def __init__(self, seconds_max: float = 30.0) -> None:
        """Wait so long for an answer."""
        self._seconds_max = seconds_max
        self._kept: dict[str, list[_Line]] = {}
        self._places = asyncio.Semaphore(_LINES_MAX)

    async def post(self, url: str, body: Any, authorization: str) -> Any:
        """Send a body to a plain HTTP server and return what it answers."""
        parts = urlsplit(url)
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\naccept: */*\r\nauthorization: {authorization}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        kept = self._kept.setdefault(parts.netloc, [])
        async with self._places:
            line = None
            try:
                async with asyncio.timeout(self._seconds_max):
                    while kept and line is None:
                        line = found if (found := kept.pop()).is_open else None
                    line = line or await self._connect(parts.hostname or "", parts.port or 80)
                    answer = await line.ask(head.encode("ascii") + content)
            except TimeoutError:
                raise httpx.ReadTimeout("no answer in time") from None
            except OSError as error:
                raise httpx.ConnectError(str(error)) from error
            else:
                kept.append(line)
                line = None
            finally:
                if line is not None:
                    line.end()
        return json.loads(answer)

    async def _connect(self, host: str, port: int) -> _Line:
        _, line = await asyncio.get_running_loop().create_connection(_Line, host, port)
        return line

    async def aclose(self) -> None:
        """Close every connection."""
        for kept in self._kept.values():
            for line in kept:
                line.end()
