"""uvicorn's WebSocket protocol, which also closes sockets whose readers take nothing, and unreadable handshakes.

An open socket is small: it keeps nothing of its handshake, and its queue and its flag are a twentieth of asyncio's.
"""

import asyncio
import logging
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from app.storage.flag import Flag

log = logging.getLogger("flash.http")

_UNREADABLE: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\nx-content-type-options: nosniff\r\n\r\n"
)


class _Inbox:
    """The part of asyncio.Queue that uvicorn needs for what came over a socket. One task takes it."""

    __slots__ = ("_came", "_messages")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._came = Flag()

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        self._came.set()

    def empty(self) -> bool:
        return not self._messages

    async def get(self) -> Any:
        while not self._messages:
            self._came.clear()
            await self._came.wait()
        return self._messages.pop(0)


class SocketProtocol(WebSocketsSansIOProtocol):
    """One socket. A close is written at once, behind what is already waiting to be sent.

    uvicorn would wait for the reader first. If the reader came back later, the socket would still be open, and nothing
    would ever come over it. A handshake that can't be read (with a body, or too many headers) is refused; uvicorn would
    leave it open without an answer.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any],
                 _loop: asyncio.AbstractEventLoop | None = None) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self.queue: Any = _Inbox()
        self.writable: Any = Flag()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Read what came, and refuse an unreadable handshake."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            log.info("refused to a caller: a handshake that can't be read")
            self.transport.write(b"".join(self.conn.data_to_send()) or _UNREADABLE)
            self.transport.close()

    async def send(self, message: Any) -> None:
        """Send a message when the reader has room for it; send a close at once."""
        if message["type"] == "websocket.close":
            self.writable.set()
        # After a close nothing may be sent, so what waited for room until then is dropped.
        while not self.writable.is_set():
            await self.writable.wait()
        if not self.close_sent:
            await super().send(message)
        if message["type"] == "websocket.accept":
            self._forget_handshake()

    def _forget_handshake(self) -> None:
        """Keep no headers while the socket is open: those of a browser are in three places, and take 10 KB.

        Whoever needs one in the application reads it before accepting the socket.
        """
        self.request.headers.clear()
        self.response.headers.clear()
        cast("list[Any]", self.scope["headers"]).clear()
