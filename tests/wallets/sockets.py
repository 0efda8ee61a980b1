"""A bare client of graphql-transport-ws, which sends whatever a test tells it to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from app.web.graphql_socket import PROTOCOL
from tests.factories import Shop

CHANGED = """
subscription Live($after: Int) {
  walletChanged(after: $after) {
    version
    wallet { id version points member { id } }
    event { id type subjectId actor occurredAt reason }
    code { id masked text state matchedBy allocatedAt expiresAt redeemedAt pool { id } owner { id } }
    entry { id amount balanceAfter reason reference createdAt member { wallet { version points } } }
  }
}
"""
PATIENCE_SECONDS = 30
MESSAGE_SECONDS_MAX = 90


@dataclass
class Socket:
    """An open socket."""

    connection: ClientConnection

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self.connection.send(json.dumps(message))

    async def receive(self) -> Any:
        """Return the next message; one that never comes is a failure, and not a suite that never ends."""
        async with asyncio.timeout(MESSAGE_SECONDS_MAX):
            return json.loads(await self.connection.recv())

    async def subscribe(self, document: str, *, id: str = "1", **variables: Any) -> None:
        """Begin an operation."""
        await self.send(type="subscribe", id=id, payload={"query": document, "variables": variables})

    async def follow(self, after: int | None = None, *, id: str = "1") -> None:
        """Follow the wallet of the socket's member. Without `after`, returns once it is followed."""
        await self.subscribe(CHANGED, id=id, **({} if after is None else {"after": after}))

    async def change(self) -> Any:
        """Return the next change."""
        message = await self.receive()
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        return message["payload"]["data"]["walletChanged"]

    async def changes(self, count: int) -> list[Any]:
        """Return the next changes."""
        return [await self.change() for _ in range(count)]

    async def error(self) -> Any:
        """Return the first error of an operation that must end in one."""
        message = await self.receive()
        assert message["type"] == "error", message
        return message["payload"][0]

    async def closed(self) -> tuple[int, str]:
        """Return the code and reason with which the server closes the socket; messages before that are skipped."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.connection.recv()
        close = self.connection.protocol.close_rcvd
        assert close is not None, "the server dropped the connection"
        return close.code, close.reason


def address(shop: Shop) -> str:
    """Return the address of a shop's sockets."""
    return shop.url.replace("http", "ws", 1)


@asynccontextmanager
async def opened(
    url: str, *, protocol: str | None = PROTOCOL, origin: str | None = None, **headers: str
) -> AsyncIterator[Socket]:
    """Open a socket that has said nothing yet."""
    connecting = websockets.connect(
        url,
        subprotocols=None if protocol is None else [Subprotocol(protocol)],
        additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
        origin=None if origin is None else websockets.Origin(origin),
        compression=None,
        max_size=None,
        proxy=None,
        open_timeout=PATIENCE_SECONDS,
    )
    async with connecting as connection:
        yield Socket(connection)


@asynccontextmanager
async def joined(url: str, token: str) -> AsyncIterator[Socket]:
    """Open a socket and log in."""
    async with opened(url) as socket:
        await socket.send(type="connection_init", payload={"authorization": f"Bearer {token}"})
        assert await socket.receive() == {"type": "connection_ack"}
        yield socket
