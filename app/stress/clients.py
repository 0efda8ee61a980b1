"""Clients that say what became of a call: answered, never sent, or unanswered, which may be either."""

import asyncio
import itertools
import json
from typing import Any, Final, Protocol

import httpx
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

ANSWER_SECONDS_MAX: Final = 6.0
CONNECT_SECONDS_MAX: Final = 2.0
PATIENCE_SECONDS: Final = 120.0
_WAIT_SECONDS: Final = 0.1


class Unsent(Exception):  # noqa: N818  (a state of the call)
    """Nobody was connected to."""


class Unanswered(Exception):  # noqa: N818  (a state of the call)
    """Sent, and nobody told what came of it; the message says how that was."""


class Fault(Exception):  # noqa: N818  (an answer: this one thing went wrong)
    """A top-level error that no server that is away explains; the message is its code."""


class Client:
    """Sends one operation after the other, as an API key."""

    def __init__(self, name: str, transport: "Transport", seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        """It waits so long for an answer."""
        self.name = name
        self._seconds_max = seconds_max
        self._transport = transport

    @property
    def takes_tokens(self) -> bool:
        """Whether it can ask as a member."""
        return isinstance(self._transport, Http)

    async def ask(self, document: str, variables: dict[str, Any], token: str | None = None) -> dict[str, Any]:
        """Return the field `answer` of the data; a token makes it a member's. Raises Unsent, Unanswered and Fault."""
        try:
            async with asyncio.timeout(self._seconds_max):
                answer = await self._transport.send({"query": document, "variables": variables}, token)
        except TimeoutError:
            await self._transport.drop()
            raise Unanswered("timed out") from None
        for error in answer.get("errors", ()):
            code = error["extensions"]["code"]
            if code in {"TIMEOUT", "UNAVAILABLE"}:
                raise Unanswered("unavailable: too long" if code == "TIMEOUT" else "unavailable")
            raise Fault(code)
        found: dict[str, Any] | None = answer["data"]["answer"]
        if found is None:
            raise Fault("nothing there")
        return found

    async def patiently(self, document: str, input: dict[str, Any], *, is_query: bool = False) -> dict[str, Any]:
        """Send an operation until it is answered. Raises Fault, and Unanswered when the server never comes back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                return await self.ask(document, input if is_query else {"input": input})
            except (Unsent, Unanswered):
                if loop.time() > deadline:
                    raise Unanswered("the server never came back") from None
                await asyncio.sleep(_WAIT_SECONDS)

    async def close(self) -> None:
        """Leave."""
        await self._transport.drop()


class Transport(Protocol):
    """A way to send a request. Raises Unsent and Unanswered."""

    async def send(self, body: dict[str, Any], token: str | None) -> dict[str, Any]:
        """Return the whole answer."""

    async def drop(self) -> None:
        """Close the connection; the next request opens another."""


class Http:
    """Over HTTP, with a connection of its own."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._client: httpx.AsyncClient | None = None

    async def send(self, body: dict[str, Any], token: str | None) -> dict[str, Any]:
        if self._client is None:
            timeout = httpx.Timeout(None, connect=CONNECT_SECONDS_MAX)
            limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
            # The certificates of the system take longer to load than most operations.
            verify = self._url.startswith("https")
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits, verify=verify)
        try:
            response = await self._client.post(self._url, json=body, headers=_authorization(token or self._key))
            answer = response.json()
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise Unsent from None
        except (httpx.TransportError, ValueError):
            await self.drop()
            raise Unanswered("the answer was lost") from None
        if not isinstance(answer, dict) or not ("data" in answer or "errors" in answer):
            raise Unanswered("the answer was lost")
        return answer

    async def drop(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class Socket:
    """Over a WebSocket (graphql-transport-ws), opened with the first operation."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.replace("http", "ws", 1)
        self._key = key
        self._connection: ClientConnection | None = None
        self._ids = itertools.count(1)
        self.opened = 0

    async def send(self, body: dict[str, Any], token: str | None) -> dict[str, Any]:
        if token is not None:
            raise ValueError("a socket has one caller")
        connection = await self._connected()
        number = str(next(self._ids))
        try:
            await connection.send(json.dumps({"type": "subscribe", "id": number, "payload": body}))
            while True:
                message = json.loads(await connection.recv())
                if message["type"] == "ping":
                    await connection.send('{"type":"pong"}')
                elif message.get("id") == number and message["type"] == "next":
                    answer: dict[str, Any] = message["payload"]
                    return answer
                elif message.get("id") == number and message["type"] == "error":
                    return {"errors": message["payload"]}
        except (websockets.ConnectionClosed, OSError):
            await self.drop()
            raise Unanswered("the answer was lost") from None

    async def _connected(self) -> ClientConnection:
        if self._connection is not None:
            return self._connection
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                connection = await websockets.connect(
                    self._url, subprotocols=[Subprotocol("graphql-transport-ws")], compression=None, proxy=None,
                    close_timeout=1,
                )  # fmt: skip
                init = {"type": "connection_init", "payload": _authorization(self._key)}
                await connection.send(json.dumps(init))
                if json.loads(await connection.recv())["type"] != "connection_ack":
                    raise Unsent
        except (websockets.WebSocketException, OSError, EOFError, TimeoutError):
            raise Unsent from None
        self._connection = connection
        self.opened += 1
        return connection

    async def drop(self) -> None:
        if self._connection is not None:
            self._connection.transport.abort()
            self._connection = None


def _authorization(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
