"""A server on this machine that receives webhooks, or misbehaves as a test tells it to, and keeps all that it got."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

#: What the server does with a request: send these bytes and close; None: say nothing for ever.
Reply = bytes | None
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def status(code: int, *lines: str) -> bytes:
    """Return an answer with a status and perhaps more lines in its head."""
    return "\r\n".join([f"HTTP/1.1 {code} Whatever", *lines, "content-length: 0", "", ""]).encode()


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        """What it tells."""
        return json.loads(self.body)

    @property
    def id(self) -> str:
        """The event's id, by its header."""
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """A running server; `replies` are used in turn, the last one again and again."""

    url: str = ""
    replies: list[Reply | Callable[[Received], Reply]] = field(default_factory=lambda: [OK])
    requests: list[Received] = field(default_factory=list)
    #: Until this is set, answers wait.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    at_once_max: int = 0

    def told(self, *, besides: str = "webhook.created") -> list[Any]:
        """Return the events that came, in order, each as often as it came."""
        return [each.event for each in self.requests if each.event["type"] != besides]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the request of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            # Header values other than names keep their case.
            headers |= {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines[1:] if line}
            body = await reader.readexactly(int(headers["content-length"]))
            received = Received(lines[0].split()[1], headers, body)
            self.requests.append(received)
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
            try:
                await self.gate.wait()
                chosen = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                reply = chosen(received) if callable(chosen) else chosen
                if reply is None:
                    await reader.read()
                else:
                    writer.write(reply)
                    await writer.drain()
            finally:
                self.at_once -= 1
        writer.close()


@asynccontextmanager
async def receiving(*replies: Reply | Callable[[Received], Reply], tls: ssl.SSLContext | None = None,
                    is_open: bool = True) -> AsyncIterator[Receiver]:  # fmt: skip
    """Run a server for the length of the block."""
    server = Receiver()
    if replies:
        server.replies = list(replies)
    if is_open:
        server.gate.set()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/hooks"
    try:
        yield server
    finally:
        server.gate.set()
        listening.close()
