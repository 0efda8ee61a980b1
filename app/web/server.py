"""The server of an API process: uvicorn's, which says that it is going, answers what is still asked, and then goes."""

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

import uvicorn

from app.web.http_protocol import LimitedProtocol
from app.web.open_streams import OpenStreams

#: How long nobody may have been connected for there to be nobody to wait for.
_QUIET_SECONDS: Final = 0.5
#: For what comes over the connections that were accepted last.
_LAST_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05


class Server(uvicorn.Server):
    """One server. While it drains it is unready, answers with `Connection: close`, and ends what stays open."""

    def __init__(self, config: uvicorn.Config, streams: OpenStreams, drain_seconds: float) -> None:
        """Take what stays open, and how long connections that are idle may still ask something."""
        super().__init__(config)
        self._streams = streams
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and then close what is left: idle connections at once, others when they are answered."""
        self._streams.end()
        for connection in self.server_state.connections:
            if isinstance(connection, LimitedProtocol):
                connection.close_when_answered()
        if self._drain_seconds:
            # Whoever sends requests here needs time to notice.
            await self._go_on(self._drain_seconds, _QUIET_SECONDS)
            await self._accept_last(sockets or [])
            await self._go_on(_LAST_SECONDS, 0)
        await super().shutdown(sockets)

    async def _go_on(self, seconds: float, quiet_seconds: float) -> None:
        """Go on for so many seconds, or until nobody has been connected for some."""
        now = asyncio.get_running_loop().time
        until, seen = now() + seconds, now()
        while not self.force_exit and now() < until and (self.server_state.connections or now() - seen < quiet_seconds):
            if self.server_state.connections:
                seen = now()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _accept_last(self, sockets: list[socket.socket]) -> None:
        """Accept no more, but for who waits to be accepted: closing the socket would reset them."""
        loop = asyncio.get_running_loop()
        accepted = []
        for listening in sockets:
            listening.settimeout(0)
            with suppress(BlockingIOError):
                while True:
                    accepted.append(listening.accept()[0])
        for server in self.servers:
            server.close()
        for each in accepted:
            await loop.connect_accepted_socket(self._protocol, each)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
