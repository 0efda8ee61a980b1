"""GraphQL over WebSocket: https://github.com/enisdenjo/graphql-ws, subprotocol graphql-transport-ws.

What breaks the protocol closes the socket with the protocol's code; what is wrong with one operation is an `error`
for its id. Queries and mutations work here as they do over HTTP.
"""

import asyncio
import contextlib
import functools
import logging
from contextlib import aclosing
from typing import Any, Final, NamedTuple

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from app.config import Settings
from app.telemetry.observed import Observed, request_id
from app.web.authentication import TOO_MANY_FAILURES, Proof, TooManyFailuresError, Unproven, address_of, lapsed, prove
from app.web.graphql_documents import Asked, Documents, MalformedError
from app.web.graphql_errors import fault, presented, told
from app.web.graphql_execution import answers
from app.web.open_streams import NoRoomError, OpenStreams, SlowReaderError
from app.web.origins import Origins

log = logging.getLogger("flash.graphql")

PROTOCOL: Final = "graphql-transport-ws"
#: A close frame has room for so many.
_REASON_BYTES_MAX: Final = 123
_SLOW: Final = "Too slow: resume after the last version that you have"
_UNVERIFIED: Final = "The credential can't be verified now; try again"


class CloseError(Exception):
    """The socket must be closed with this code and reason. The reason is cut to what fits."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")


class SocketEndpoint:
    """The ASGI application for WebSockets at /graphql."""

    def __init__(self, settings: Settings, documents: Documents, streams: OpenStreams, origins: Origins) -> None:
        self._settings = settings
        self._origins = origins
        self._documents = documents
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket. A foreign page is answered 403 before its socket opens."""
        headers = Headers(scope=scope)
        if (await receive())["type"] != "websocket.connect" or not self._origins.are_ours(headers):
            await send({"type": "websocket.close"})
            return
        authorization = headers.get("authorization")
        offered = PROTOCOL in scope["subprotocols"]
        named = [(b"x-request-id", request_id.get().encode())]
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL if offered else None, "headers": named})
        socket = Socket(receive, send, address_of(scope), self._documents, self._streams, self._settings)
        if offered:
            await socket.serve(authorization)
        else:
            await socket.close(4406, f"The subprotocol is {PROTOCOL}")


class _Running(NamedTuple):
    """An operation of a socket."""

    task: asyncio.Task[None]
    observed: Observed


class Socket:
    """One open socket, its owner and its running operations."""

    __slots__ = (
        "_address", "_authorization", "_documents", "_goodbye", "_is_closed", "_operations", "_receive", "_send",
        "_settings", "_streams",
    )  # fmt: skip

    def __init__(
        self, receive: Receive, send: Send, address: str, documents: Documents, streams: OpenStreams, settings: Settings
    ) -> None:
        self._receive = receive
        self._send = send
        self._address = address
        self._documents = documents
        self._streams = streams
        self._settings = settings
        self._operations: dict[str, _Running] = {}
        self._authorization: str | None = None
        self._is_closed = False

    async def serve(self, authorization: str | None) -> None:
        """Serve messages until the peer leaves, breaks the protocol or loses its right to stay.

        The credential comes with `connection_init`, or else with the handshake's header.
        """
        try:
            await self._serve(authorization)
        except CloseError as close:
            log.info("refused to a caller: a socket was closed with %d", close.code)
            await self.close(close.code, close.reason)
        except SlowReaderError:
            await self.close(1013, _SLOW)

    async def _serve(self, authorization: str | None) -> None:
        proof = await self._proven(authorization)
        if proof is None:
            return
        try:
            with self._streams.one(proof.viewer, self._say_goodbye):
                await self._serve_proven(proof)
        except NoRoomError as full:
            raise CloseError(1012 if self._streams.ending.is_set() else 1013, str(full)) from None

    def _say_goodbye(self) -> None:
        self._goodbye = asyncio.create_task(self._close_when_answered())

    async def _close_when_answered(self) -> None:
        """Close the socket when its queries and mutations are answered. Subscriptions are resumed elsewhere."""
        answering = [each.task for each in self._operations.values() if each.observed.kind != "subscription"]
        if answering:
            await asyncio.wait(answering)
        await self.close(1012, "This process is ending; connect again")

    async def _proven(self, authorization: str | None) -> Proof | None:
        """Return who the peer is, or None when it left before. Raises CloseError if it may not stay."""
        try:
            async with asyncio.timeout(self._settings.socket_init_seconds_max) as patience:
                with self._streams.waiting(patience):
                    payload = await self._initialised()
        except TimeoutError:
            raise CloseError(4408, "Connection initialisation timeout") from None
        if payload is None:
            return None
        self._authorization = _credential(payload) or authorization
        try:
            async with asyncio.timeout(self._settings.socket_init_seconds_max):
                proof = await prove(self._authorization, self._address)
        except TooManyFailuresError:
            raise CloseError(1013, TOO_MANY_FAILURES) from None
        except Exception as error:
            told(error)
            raise CloseError(1013, _UNVERIFIED) from error
        if proof is Unproven.MISSING:
            raise CloseError(4401, "Unauthorized: send {authorization: Bearer …} with connection_init")
        if isinstance(proof, Unproven):
            raise CloseError(4403, _forbidden(proof))
        return proof

    async def _serve_proven(self, proof: Proof) -> None:
        await self._reply({"type": "connection_ack"})
        expiry = asyncio.create_task(self._expire(proof))
        try:
            while (message := await self._next()) is not None:
                await self._take(message)
                del message
        finally:
            tasks = [expiry, *(each.task for each in self._operations.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket. A slow reader is told after what is already on its way (app/web/socket_protocol.py)."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _initialised(self) -> dict[str, Any] | None:
        """Return the payload of `connection_init`, or None when the peer left before."""
        while (message := await self._next()) is not None:
            if message["type"] == "ping":
                await self._reply({"type": "pong"})
            elif message["type"] == "connection_init":
                payload = message.get("payload")
                if payload is not None and not isinstance(payload, dict):
                    raise CloseError(4400, "The payload of connection_init is an object")
                return payload or {}
            elif message["type"] != "pong":
                raise CloseError(4401, "Unauthorized")
        return None

    async def _expire(self, proof: Proof) -> None:
        """Close the socket when its credential stops being valid, or can't be verified any more."""
        try:
            reason = await lapsed(proof)
        except Exception as error:  # noqa: BLE001  (whatever it is, whoever may have been locked out must go)
            told(error)
            await self.close(1013, _UNVERIFIED)
            return
        await self.close(4403, _forbidden(reason))

    async def _next(self) -> dict[str, Any] | None:
        """Return the next message, or None when the peer left. Raises CloseError for anything else."""
        received = await self._receive()
        if received["type"] != "websocket.receive":
            return None
        try:
            message = orjson.loads(received["text"])
        except (KeyError, TypeError, orjson.JSONDecodeError):
            raise CloseError(4400, "Messages are JSON texts") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise CloseError(4400, "Messages are objects with a type")
        return message

    async def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribe":
                await self._subscribe(_id_of(message), message.get("payload"))
            case "complete":
                running = self._operations.pop(_id_of(message), None)
                if running is not None:
                    running.task.cancel()
            case "ping":
                await self._reply({"type": "pong"})
            case "pong":
                pass
            case "connection_init":
                raise CloseError(4429, "Too many initialisation requests")
            case kind:
                raise CloseError(4400, f"There is no message type {kind[:30]!r} for a server")

    async def _subscribe(self, operation_id: str, payload: Any) -> None:
        try:
            asked = Asked.of(payload)
        except MalformedError as malformed:
            raise CloseError(4400, str(malformed)) from None
        if self._streams.ending.is_set():
            # The socket is about to be closed, and the client will ask again at another process.
            return
        if operation_id in self._operations:
            raise CloseError(4409, f"Subscriber for {operation_id[:60]} already exists")
        if len(self._operations) >= self._settings.operations_per_socket_max:
            message = f"A socket runs {self._settings.operations_per_socket_max} operations at a time."
            busy = presented([fault("TOO_MANY_OPERATIONS", message)])
            await self._reply({"id": operation_id, "type": "error", "payload": busy})
            return
        observed = Observed("websocket")
        task = asyncio.create_task(self._operate(operation_id, asked, observed))
        self._operations[operation_id] = _Running(task, observed)
        task.add_done_callback(functools.partial(self._forget, operation_id))

    async def _operate(self, operation_id: str, asked: Asked, observed: Observed) -> None:
        """Run one operation to its end. Its id is free again before the peer is told."""
        with observed:
            ended: dict[str, Any] = {"id": operation_id, "type": "complete"}
            try:
                async with asyncio.timeout(self._settings.operation_seconds_max):
                    # Verified each time, so that a revoked key ends its socket with the next operation at the latest.
                    proof = await prove(self._authorization)
                if isinstance(proof, Unproven):
                    await self.close(4403, _forbidden(proof))
                    return
                bodies = await answers(self._documents, asked, proof.viewer)
                # A subscription stays for hours, and what asked for it needn't.
                del asked
                async with aclosing(bodies):
                    async for body in bodies:
                        await self._reply({"id": operation_id, "type": "next", "payload": orjson.Fragment(body)})
                        del body
            except SlowReaderError:
                await self.close(1013, _SLOW)
                return
            except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a masked answer)
                ended = {"id": operation_id, "type": "error", "payload": told(error)}
            self._forget(operation_id, asyncio.current_task())
            with contextlib.suppress(SlowReaderError):
                await self._reply(ended)

    def _forget(self, operation_id: str, operation: "asyncio.Task[None] | None") -> None:
        """Free an id, unless another operation uses it by now."""
        running = self._operations.get(operation_id)
        if running is not None and running.task is operation:
            del self._operations[operation_id]

    async def _reply(self, message: dict[str, Any]) -> None:
        """Send a message, unless the socket is closed. Raises SlowReaderError."""
        if self._is_closed:
            return
        try:
            text = orjson.dumps(message).decode()
            await self._streams.send_in_time(self._send, {"type": "websocket.send", "text": text})
        except OSError:
            self._is_closed = True


def _forbidden(reason: Unproven) -> str:
    return f"Forbidden: {reason.value}"


def _credential(payload: dict[str, Any]) -> str | None:
    """Return the credential in a payload, as an Authorization header spells it."""
    for name, prefix in (("authorization", ""), ("Authorization", ""), ("token", "Bearer ")):
        if isinstance(payload.get(name), str):
            return f"{prefix}{payload[name]}"
    return None


def _id_of(message: dict[str, Any]) -> str:
    operation_id = message.get("id")
    if not isinstance(operation_id, str) or not operation_id:
        raise CloseError(4400, "An operation's id is a text")
    return operation_id
