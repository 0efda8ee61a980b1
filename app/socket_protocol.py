"""The server's end of a WebSocket, which can say goodbye to a reader that takes nothing."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, except that a close is written behind what waits: it would wait for the reader, which may never come.

    Without this a socket whose reader comes back later would stay open and never tell anything again.
    """

    async def send(self, message: Any) -> None:
        """Send a message when the reader has room for it, and a close at once."""
        if message["type"] == "websocket.close":
            self.writable.set()
        # What waited for room while the close was written is for nobody.
        while not self.writable.is_set():
            await self.writable.wait()
        if not self.close_sent:
            await super().send(message)
