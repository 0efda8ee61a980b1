"""uvicorn's HTTP protocol with limits that it lacks: the size of a request's head, and deadlines for head and body.

An offer of another protocol is passed over, as RFC 9110 has it: some clients of HTTP/2 make one with every request.
"""

import asyncio
import logging
import re
from typing import Any, Final

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app import ids
from app.config import settings
from app.telemetry.observed import request_id

log = logging.getLogger("flash.http")

_REASONS: Final = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
#: A body in chunks of one byte takes six times its size.
_CHUNKED_TIMES_MAX: Final = 8
#: The parser takes what follows such a header for the other protocol. The body would be lost, or read as a request.
_OFFER: Final = re.compile(rb"\r\nupgrade:(?![ \t]*websocket[ \t]*\r\n)[^\r\n]*(?=\r\n)", re.IGNORECASE)
#: What decides how an answer ends.
_OF_CONNECTIONS: Final = frozenset({b"connection", b"transfer-encoding"})
_OF_BODIES: Final = frozenset({b"content-length", b"transfer-encoding"})


#: Of every answer, beside the request's id: browsers don't guess its type, and links in it don't tell where it was.
HEADERS: Final = [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]


class WholeAnswers(RequestResponseCycle):
    """A request and its answer, which has the request's id.

    A head that tells how long its body is leaves with it: each write is a system call. uvicorn writes them one after
    the other, and does so here for whatever isn't usual.
    """

    _head: Any = None

    async def send(self, message: Any) -> None:
        """Send a part of the answer, or keep its head until the body comes."""
        if message["type"] == "http.response.start":
            if identified := request_id.get():
                headers = [*message["headers"], (b"x-request-id", identified.encode())]
                message = {**message, "headers": headers}
            self._head = message if not self.response_started and _comes_whole(message) else None
            if self._head is None:
                await super().send(message)
            return
        head, self._head = self._head, None
        if head is None:
            await super().send(message)
        elif not self._send_whole(head, message):
            await super().send(head)
            await super().send(message)

    def _send_whole(self, head: Any, message: Any) -> bool:
        """Send head and body. Returns false, and sends nothing, if that takes more."""
        body = message.get("body", b"")
        headers = head["headers"]
        values = b"".join([value for _, value in headers])
        if (
            message.get("more_body", False)
            or self.scope["method"] == "HEAD"
            or (b"content-length", b"%d" % len(body)) not in headers
            # A value with a line's end in it would begin a header, or another answer.
            or b"\r" in values
            or b"\n" in values
        ):
            return False
        return self.send_at_once(head["status"], b"".join([b"%b: %b\r\n" % header for header in headers]), body)

    def send_at_once(self, status: int, lines: bytes, body: bytes) -> bool:
        """Send an answer whose headers are spelt. Returns false, and sends nothing, if it must wait."""
        if self.response_started or self.access_log or self.disconnected or self.flow.write_paused:
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        usual = b"".join([b"%b: %b\r\n" % header for header in self.default_headers])
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], usual, lines, end, body)))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def _comes_whole(head: Any) -> bool:
    names = {name for name, _ in head["headers"]}
    return b"content-length" in names and names.isdisjoint(_OF_CONNECTIONS)


#: uvicorn offers no other way to say what a request and its answer are.
httptools_impl.RequestResponseCycle = WholeAnswers  # type: ignore[misc]


class LimitedProtocol(HttpToolsProtocol):
    """One connection. It is closed after a request beyond a limit, with an answer unless another one is due first.

    Its two timers aren't started and stopped with each request: they look whether what they wait for is over.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any],
                 _loop: asyncio.AbstractEventLoop | None = None) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        limits = settings()
        self._head_bytes_max = limits.header_bytes_max
        self._bytes_max = limits.header_bytes_max + _CHUNKED_TIMES_MAX * limits.body_bytes_max
        self._seconds_max = limits.request_seconds_max
        #: These three are of the request that is coming.
        self._bytes = 0
        self._is_in_head = True
        self._is_coming = True
        #: Whether what comes next begins a request.
        self._is_new = True
        self._is_too_large = False
        #: When what is coming is late, and when the last answer was sent, by the event loop's clock.
        self._late_at: float | None = None
        self._answered_at = 0.0
        #: Who looks at either of them. One timer does for many requests.
        self._deadline: asyncio.TimerHandle | None = None
        self._idling: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first request's head."""
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and start or stop the deadline of what is still to come."""
        if self._is_new and b"pgrade" in data:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _OFFER.sub(b"", head + end[:2]) + end[2:] + rest
        self._bytes += len(data)
        was_in_head = self._is_in_head
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._is_coming:
            if self._bytes > (self._head_bytes_max if self._is_in_head else self._bytes_max):
                self._refuse(431, self._too_large, f"a request of more than {self._bytes} bytes")
            elif self._late_at is None or was_in_head != self._is_in_head:
                self._start_deadline()
        else:
            self._stop_deadline()

    def close_when_answered(self) -> None:
        """Take no further request once an answer that is due has been sent."""
        if not self._is_idle:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection if it is idle. A request that has begun to come is answered first."""
        if self._is_new or not self._is_idle:
            super().shutdown()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the socket, which has its own deadlines."""
        self._stop_timers()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Start counting the next request."""
        self._is_in_head = True
        self._is_coming = True
        self._is_new = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, and an offer of another protocol that came in pieces.

        A head is measured only if so many bytes have come.
        """
        if self._bytes > self._head_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._head_bytes_max:
                self._is_too_large = True
                raise httptools.HttpParserError
        has_body = self.parser.should_upgrade() and not _OF_BODIES.isdisjoint(name for name, _ in self.headers)
        # A private method, because uvicorn decides by the same one.
        if has_body and not self._should_upgrade():
            raise httptools.HttpParserError
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._is_coming = False
        self._is_new = True
        self._is_in_head = True
        self._bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next request that has come, or wait for one."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._answered_at = self.loop.time()
        if self._idling is None:
            self._look_whether_idle_in(self.timeout_keep_alive)

    def _look_whether_idle_in(self, seconds: float) -> None:
        """Look then; uvicorn's own timer is stopped by whatever comes, and another one started with every answer."""
        self._idling = self.loop.call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        """Close the connection if it has been idle for so long, or look again later."""
        self._idling = None
        idle_seconds = self.loop.time() - self._answered_at if self._is_idle and not self._is_coming else 0
        if idle_seconds < self.timeout_keep_alive:
            self._look_whether_idle_in(self.timeout_keep_alive - idle_seconds)
        else:
            self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._deadline, self._idling):
            if timer is not None:
                timer.cancel()
        self._deadline = self._idling = None

    def send_400_response(self, msg: str) -> None:
        """Answer an unreadable request in the form of all answers."""
        if self._is_too_large:
            self._refuse(431, self._too_large)
        else:
            self._refuse(400, msg)

    @property
    def _too_large(self) -> str:
        return f"The headers must be at most {self._head_bytes_max} bytes."

    @property
    def _is_idle(self) -> bool:
        """Whether no answer is being made."""
        return self.cycle is None or self.cycle.response_complete

    def _start_deadline(self) -> None:
        self._late_at = self.loop.time() + self._seconds_max
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._seconds_max, self._look_whether_late)

    def _stop_deadline(self) -> None:
        """Expect nothing more. The timer runs on: heads and bodies come apart so often that each would need one."""
        self._late_at = None

    def _look_whether_late(self) -> None:
        self._deadline = None
        if self._late_at is None:
            return
        left = self._late_at - self.loop.time()
        if left > 0:
            self._deadline = self.loop.call_later(left, self._look_whether_late)
        else:
            self._time_is_over()

    def _time_is_over(self) -> None:
        part = "head" if self._is_in_head else "body"
        message = f"The request's {part} must come within {self._seconds_max:g} seconds."
        self._refuse(408, message, f"a request whose {part} takes too long")

    def _refuse(self, status: int, message: str, logged: str = "") -> None:
        """Answer, unless the peer would take it for another request's answer, and close the connection.

        An unreadable request is logged by uvicorn already, so `logged` is empty for it.
        """
        self._stop_deadline()
        identified = ids.new().hex
        if logged:
            log.info("refused to a caller: %s", logged, extra={"request_id": identified})
        if self._is_idle or not (self._is_in_head or self.cycle.response_started):
            body = orjson.dumps({"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]})
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json; charset=utf-8\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\ncache-control: no-store\r\n"
                f"x-content-type-options: nosniff\r\nx-request-id: {identified}\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
