"""uvicorn's WebSocket protocol, which also closes sockets whose readers take nothing, and unreadable handshakes."""

import logging
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = logging.getLogger("flash.http")

_UNREADABLE: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\nx-content-type-options: nosniff\r\n\r\n"
)


class SocketProtocol(WebSocketsSansIOProtocol):
    """One socket. A close is written at once, behind what is already waiting to be sent.

    uvicorn would wait for the reader first. If the reader came back later, the socket would still be open, and nothing
    would ever come over it. A handshake that can't be read (with a body, or too many headers) is refused; uvicorn would
    leave it open without an answer.
    """

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
