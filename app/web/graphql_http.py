"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/): one request, one answer or event stream.

Requests are judged in this order: method, Accept, body type, size, JSON, form, caller, document, operation, cost.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
from graphql import GraphQLError, OperationType
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.config import Settings
from app.pages import Page
from app.storage.database import may_succeed_later
from app.telemetry.observed import Observed, request_id
from app.web.authentication import TOO_MANY_FAILURES, Proof, TooManyFailuresError, Unproven, address_of, prove, proven
from app.web.deadline import ClientLeftError, Deadlines
from app.web.document_costs import TooCostlyError, refuse_many_brackets
from app.web.graphql_documents import Asked, Document, Documents, MalformedError, Operation
from app.web.graphql_errors import NotExecutedError, fault, presented, told
from app.web.graphql_execution import answer, chosen
from app.web.graphql_sse import EVENT_STREAM, EventStream
from app.web.http_protocol import WholeAnswers
from app.web.open_streams import NoRoomError, OpenStreams
from app.web.origins import Origins

_JSON: Final = "application/json"
_RESPONSE_JSON: Final = "application/graphql-response+json"
#: Of answers, by their media type.
_ANSWERED: Final = {
    media_type: [(b"content-type", f"{media_type}; charset=utf-8".encode()), (b"cache-control", b"no-store")]
    for media_type in (_JSON, _RESPONSE_JSON)
}
#: The same as they leave.
_LINES: Final = {
    media_type: b"".join(b"%b: %b\r\n" % header for header in headers) for media_type, headers in _ANSWERED.items()
}
#: A client sends the same each time.
_ACCEPTS_KEPT_MAX: Final = 64
_WEIGHT: Final = re.compile(r";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|\Z)", re.ASCII | re.IGNORECASE)
_BEARER: Final = 'Bearer realm="flash"'
_REASONS: Final = {reason.name: reason for reason in Unproven}


class BadRequestError(Exception):
    """An answer below GraphQL: a status, one error and perhaps headers."""

    def __init__(
        self, status: int, message: str, *, code: str = "BAD_REQUEST", headers: Mapping[str, str] | None = None,
        **told: Any,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.error = fault(code, message, **told)
        self.headers = headers or {}


class GraphQLEndpoint:
    """The ASGI application for requests at /graphql."""

    def __init__(self, settings: Settings, documents: Documents, streams: OpenStreams, origins: Origins) -> None:
        self._settings = settings
        self._documents = documents
        self._streams = streams
        self._origins = origins
        self._deadlines = Deadlines(settings.operation_seconds_max)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, unless its client leaves before."""
        sent = _Sent(scope, receive)
        response: Response | _Answer | EventStream
        if sent.method == "GET" and self._wants_page(sent):
            await Page.GRAPHIQL.response()(scope, receive, send)
            return
        media_type = _JSON
        with Observed("http") as observed:
            try:
                if (media_type := _negotiated(sent)) == EVENT_STREAM:
                    observed.transport = "event-stream"
                    response = await self._stream(sent)
                else:
                    response = await self._answer(sent, media_type, observed)
            except BadRequestError as bad:
                observed.status = bad.status
                body = {"errors": presented([bad.error])}
                refusal = _response(body, bad.status, _RESPONSE_JSON if media_type == _RESPONSE_JSON else _JSON)
                refusal.headers.update(bad.headers)
                response = refusal
            except (ClientLeftError, ClientDisconnect):
                observed.client_left = True
                return
            except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a masked answer)
                answered = _JSON if media_type == EVENT_STREAM else media_type
                response = _response({"errors": told(error)}, 503 if may_succeed_later(error) else 500, answered)
            if isinstance(response, EventStream):
                await response(scope, receive, send)
                return
        await response(scope, receive, send)

    def _wants_page(self, sent: "_Sent") -> bool:
        return not self._settings.production and "text/html" in sent.header(b"accept", "")

    async def _answer(self, sent: "_Sent", media_type: str, observed: Observed) -> "Response | _Answer":
        asked = await self._asked(sent)
        authorization = _authorization(sent)
        try:
            async with self._deadlines.while_wanted(sent.receive):
                proof = proven(authorization) or await prove(authorization, address_of(sent.scope))
                viewer = proof.viewer if isinstance(proof, Proof) else None
                if viewer is not None:
                    observed.is_by(viewer.role.value, viewer.actor, viewer.merchant_id)
                if self._settings.production:
                    # The documents of strangers aren't even parsed.
                    _refuse_stranger(proof)
                document = self._documents.known(asked) or await self._documents.judged(asked)
                operation = self._operation(sent, document, asked, proof, observed)
                return _Answer(await answer(document, operation, asked, viewer, self._settings), media_type)
        except NotExecutedError as error:
            return _request_errors(error.errors, media_type)
        except TooManyFailuresError:
            raise _too_many_failures() from None

    @staticmethod
    def _operation(
        sent: "_Sent", document: Document, asked: Asked, proof: Proof | Unproven, observed: Observed
    ) -> Operation:
        """Return the query or the mutation to execute. Raises NotExecutedError."""
        operation = chosen(document, asked)
        observed.is_of(operation.word, operation.field, operation.name)
        if operation.kind is OperationType.SUBSCRIPTION:
            message = "Subscriptions are sent over a WebSocket, or with `Accept: text/event-stream`."
            raise NotExecutedError([fault("BAD_USER_INPUT", message)])
        _refuse_mutation_by_get(sent, operation)
        if not operation.is_introspection_only:
            _refuse_stranger(proof)
        return operation

    async def _stream(self, sent: "_Sent") -> "Response | EventStream":
        """Return a stream of events. GraphQL's errors are events too, because readers of streams see no other body."""
        if not self._origins.are_ours(Headers(scope=sent.scope)):
            raise BadRequestError(403, "Pages of this origin may open no streams.", code="FORBIDDEN")
        asked = await self._asked(sent)
        authorization = _authorization(sent)
        try:
            async with self._deadlines.while_wanted(sent.receive):
                proof = await prove(authorization, address_of(sent.scope))
                document = await self._documents.judged(asked) if isinstance(proof, Proof) else None
        except TooManyFailuresError:
            raise _too_many_failures() from None
        if isinstance(proof, Unproven):
            headers = _challenge(proof)
            raise BadRequestError(401, proof.value, code="UNAUTHENTICATED", reason=proof.name, headers=headers)
        operation = document.operation(asked.operation_name) if document is not None else None
        if operation is not None:
            _refuse_mutation_by_get(sent, operation)
        try:
            self._streams.refuse_more(proof.viewer)
        except NoRoomError as full:
            status, code = (429, "TOO_MANY_STREAMS") if full.is_own_fault else (503, "UNAVAILABLE")
            raise BadRequestError(status, str(full), code=code) from None
        is_resumed = operation is not None and operation.kind is OperationType.SUBSCRIPTION
        return EventStream(self._documents, asked, proof, self._streams, is_resumed=is_resumed)

    async def _asked(self, sent: "_Sent") -> Asked:
        if sent.method == "GET":
            given: Any = dict(QueryParams(sent.scope["query_string"]))
            # A URL has no null, so an empty name means that there is none.
            given["operationName"] = given.get("operationName") or None
            for name in ("variables", "extensions"):
                if name in given:
                    given[name] = _json(given[name].encode("utf-8", "surrogatepass"), f"`{name}`")
        else:
            content_type, _, charset = sent.header(b"content-type", "").partition(";")
            if content_type.strip().lower() != _JSON or (
                "charset" in charset.lower() and "utf-8" not in charset.lower()
            ):
                raise BadRequestError(415, "The body must be application/json in UTF-8.")
            raw = await _body(sent, self._settings.body_bytes_max)
            try:
                refuse_many_brackets(raw)
            except TooCostlyError as error:
                raise BadRequestError(400, str(error), code="COST_LIMIT_EXCEEDED") from None
            given = _json(raw, "The body")
        try:
            return Asked.of(given)
        except MalformedError as malformed:
            raise BadRequestError(400, str(malformed)) from None


class _Sent:
    """A request as it came."""

    __slots__ = ("_headers", "method", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        # Starlette's `headers` decodes all names for each look. The first of a name counts.
        self._headers: dict[bytes, bytes] = dict(scope["headers"][::-1])

    def header(self, name: bytes, default: str) -> str:
        """Return a header, the first of its name."""
        value = self._headers.get(name)
        return default if value is None else str(value, "latin-1")


def _authorization(sent: _Sent) -> str | None:
    authorizations = [value for name, value in sent.scope["headers"] if name == b"authorization"]
    if len(authorizations) > 1:
        raise BadRequestError(400, "Send one Authorization header.")
    return authorizations[0].decode("latin-1") if authorizations else None


def _refuse_mutation_by_get(sent: _Sent, operation: Operation) -> None:
    if sent.method == "GET" and operation.kind is OperationType.MUTATION:
        raise BadRequestError(405, "Mutations are sent by POST.", headers={"allow": "POST"})


def _negotiated(sent: _Sent) -> str:
    """Return the media type of ours that Accept prefers; of equals, the one listed first."""
    if sent.method not in {"GET", "POST"}:
        raise BadRequestError(405, "GraphQL is asked by GET or POST.", headers={"allow": "GET, POST"})
    preferred = _preferred(sent.header(b"accept", "*/*"))
    if preferred is None:
        raise BadRequestError(406, f"Answers are {_RESPONSE_JSON}, {_JSON} or {EVENT_STREAM}.")
    return preferred


@lru_cache(_ACCEPTS_KEPT_MAX)
def _preferred(accept: str) -> str | None:
    accepted = [_weighed(entry) for entry in accept.split(",")]
    if accepted[0][0] == EVENT_STREAM and accepted[0][1] > 0:
        # Only in the first place: some clients list it last on every request and expect JSON.
        return EVENT_STREAM
    ours = [each for each in (_JSON, _RESPONSE_JSON) if (each, 0) not in accepted]
    for media_type, weight in sorted(accepted, key=lambda each: -each[1]):
        meant = ours if media_type in {"*/*", "application/*"} else [each for each in ours if each == media_type]
        if meant and weight > 0:
            return meant[0]
    return None


def _weighed(entry: str) -> tuple[str, float]:
    """Return a media type of Accept and its weight: 1 unless given; 0 excludes it."""
    media_type, _, parameters = entry.partition(";")
    weight = _WEIGHT.search(f";{parameters}")
    return media_type.strip().lower(), float(weight[1]) if weight else 1.0


async def _body(sent: _Sent, bytes_max: int) -> bytes:
    body = bytearray()
    announced = sent.header(b"content-length", "0")
    if len(announced) > 15 or int(announced) > bytes_max:
        raise _too_large(bytes_max)
    more = True
    while more:
        message = await sent.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(bytes_max: int) -> BadRequestError:
    return BadRequestError(413, f"The body must be at most {bytes_max} bytes.")


def _json(raw: bytes, what: str) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "surrogate in string" in error.msg:
            # JSON's grammar allows it, so the mistake is in what a user entered and not in the request.
            message = f"{what} holds half of a surrogate pair, which is no text."
            raise BadRequestError(400, message, code="BAD_USER_INPUT") from None
        raise BadRequestError(400, f"{what} is not JSON.") from None


def _request_errors(errors: list[GraphQLError], media_type: str) -> Response:
    """Answer with errors alone. Under application/json the status is 200, as its clients expect."""
    body = {"errors": presented(errors)}
    if media_type != _RESPONSE_JSON:
        return _response(body, 200, media_type)
    reason = _REASONS.get(body["errors"][0]["extensions"].get("reason"))
    if reason is None:
        return _response(body, 400, media_type)
    response = _response(body, 401, media_type)
    response.headers.update(_challenge(reason))
    return response


def _refuse_stranger(proof: Proof | Unproven) -> None:
    if isinstance(proof, Unproven):
        raise NotExecutedError([fault("UNAUTHENTICATED", proof.value, reason=proof.name)])


def _challenge(reason: Unproven) -> dict[str, str]:
    """Return the header of a 401 (RFC 6750, section 3). It names no error if no credential was sent."""
    if reason is Unproven.MISSING:
        return {"www-authenticate": _BEARER}
    return {"www-authenticate": f'{_BEARER}, error="invalid_token", error_description="{reason.value}"'}


def _too_many_failures() -> BadRequestError:
    return BadRequestError(429, TOO_MANY_FAILURES, code="TOO_MANY_ATTEMPTS", headers={"retry-after": "60"})


def _response(body: dict[str, Any], status: int, media_type: str) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type=f"{media_type}; charset=utf-8",
        headers={"cache-control": "no-store"},
    )


class _Answer:
    """The answer of an operation that was executed. Its headers are the same each time."""

    __slots__ = ("_body", "_media_type")

    def __init__(self, body: bytes, media_type: str) -> None:
        self._body = body
        self._media_type = media_type

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self._is_sent_at_once(send):
            return
        headers = [*_ANSWERED[self._media_type], (b"content-length", b"%d" % len(self._body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})

    def _is_sent_at_once(self, send: Send) -> bool:
        """Whether it could be handed to the server as it leaves: nobody stands between who would change its headers."""
        server = getattr(send, "__self__", None)
        if not isinstance(server, WholeAnswers):
            return False
        of_this = (_LINES[self._media_type], len(self._body), request_id.get().encode())
        return server.send_at_once(200, b"%bcontent-length: %d\r\nx-request-id: %b\r\n" % of_this, self._body)
