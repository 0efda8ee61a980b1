"""The server's end of a WebSocket, which can say goodbye to a reader that takes nothing, or never shook hands."""

import logging
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = logging.getLogger("flash.http")

_UNREADABLE: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\nx-content-type-options: nosniff\r\n\r\n"
)


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, except that a close is written behind what waits: it would wait for the reader, which may never come.

    Without this a socket whose reader comes back later would stay open and never tell anything again. A handshake that
    can't be read (one with a body, or with too many headers) is refused: uvicorn would leave it open, without a word.
    """

    def data_received(self, data: bytes) -> None:
        """Read what came, or end what can't become a socket."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            log.info("refused to a caller: a handshake that can't be read")
            self.transport.write(b"".join(self.conn.data_to_send()) or _UNREADABLE)
            self.transport.close()

    async def send(self, message: Any) -> None:
        """Send a message when the reader has room for it, and a close at once."""
        if message["type"] == "websocket.close":
            self.writable.set()
        # What waited for room while the close was written is for nobody.
        while not self.writable.is_set():
            await self.writable.wait()
        if not self.close_sent:
            await super().send(message)
