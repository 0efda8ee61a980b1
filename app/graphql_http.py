"""GraphQL over HTTP: https://graphql.github.io/graphql-over-http/draft/, one request to one answer or event stream.

Requests are judged in this order: method, Accept, body type, size, JSON, form, document, caller, operation.
"""

import asyncio
from typing import Any, Final

import orjson
from graphql import GraphQLError, OperationDefinitionNode, OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.authentication import authenticate, lapsed, prove
from app.config import Settings
from app.database import is_away
from app.graphql_execution import (
    OPERATION_SECONDS_MAX,
    Asked,
    Documents,
    MalformedError,
    answers,
    body_of,
    coded,
    fault,
    is_unexecuted,
    present,
    run,
    told,
)
from app.graphql_sse import EVENT_STREAM, EventStream
from app.open_streams import OpenStreams
from app.pages import Page

_JSON: Final = "application/json"
_RESPONSE_JSON: Final = "application/graphql-response+json"
_UNAUTHENTICATED: Final = "Send a valid key or token as `Authorization: Bearer …`."


class BadRequestError(Exception):
    """An answer below GraphQL: a status, one error and perhaps headers."""

    def __init__(self, status: int, message: str, *, code: str = "BAD_REQUEST", allow: str | None = None) -> None:
        """Take the status and the sentence."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.allow = allow


class GraphQLEndpoint:
    """The ASGI application at /graphql, for requests."""

    def __init__(self, settings: Settings, documents: Documents, streams: OpenStreams) -> None:
        """Take the settings and what is shared with the sockets at the same address."""
        self._settings = settings
        self._documents = documents
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        media_type = _JSON
        response: Response | EventStream
        try:
            if request.method == "GET" and self._wants_page(request):
                response = Page.GRAPHIQL.response()
            elif (media_type := _negotiated(request)) == EVENT_STREAM:
                response = await self._stream(request)
            else:
                response = await self._answer(request, media_type)
        except BadRequestError as bad:
            body = {"errors": [{"message": str(bad), "extensions": {"code": bad.code}}]}
            response = _response(body, bad.status, _RESPONSE_JSON if media_type == _RESPONSE_JSON else _JSON)
            if bad.allow:
                response.headers["allow"] = bad.allow
        await response(scope, receive, send)

    def _wants_page(self, request: Request) -> bool:
        return not self._settings.production and "text/html" in request.headers.get("accept", "")

    async def _answer(self, request: Request, media_type: str) -> Response:
        asked = await self._asked(request)
        document = self._documents.judged(asked.query)
        if document.errors:
            return _request_errors(document.errors, media_type)
        operation = document.operation(asked.operation_name)
        if operation is None or operation.operation is OperationType.SUBSCRIPTION:
            message = "There is no such operation."
            if operation is not None:
                message = "Subscriptions are sent over a WebSocket, or with `Accept: text/event-stream`."
            return _request_errors([fault("BAD_USER_INPUT", message)], media_type)
        _refuse_mutation_by_get(request, operation)
        name = operation.name.value if operation.name else None
        authorization = _authorization(request)
        try:
            async with asyncio.timeout(OPERATION_SECONDS_MAX):
                viewer = await authenticate(authorization)
                if viewer is None and (self._settings.production or name not in document.introspection_only):
                    return _request_errors([fault("UNAUTHENTICATED", _UNAUTHENTICATED)], media_type, status=401)
                result = await run(document, operation, viewer, asked.variables)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a masked answer)
            return _response({"errors": told(error)}, 503 if is_away(error) else 500, media_type)
        if is_unexecuted(result):
            return _request_errors(coded(result.errors or [], "BAD_USER_INPUT"), media_type)
        return _response(body_of(result), 200, media_type)

    async def _stream(self, request: Request) -> "Response | EventStream":
        """Answer with a stream of events: GraphQL's errors are events too, because its readers see no other body."""
        asked = await self._asked(request)
        operation = self._documents.judged(asked.query).operation(asked.operation_name)
        if operation is not None:
            _refuse_mutation_by_get(request, operation)
        authorization = _authorization(request)
        try:
            async with asyncio.timeout(OPERATION_SECONDS_MAX):
                proof = await prove(authorization)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a masked answer)
            return _response({"errors": told(error)}, 503 if is_away(error) else 500, _JSON)
        if proof is None:
            raise BadRequestError(401, _UNAUTHENTICATED, code="UNAUTHENTICATED")
        if self._streams.is_full:
            raise BadRequestError(503, "Too many streams are open here; try again.", code="UNAVAILABLE")
        bodies = answers(self._documents, asked, proof.viewer)
        return EventStream(bodies, lapsed(authorization, proof), self._streams)

    async def _asked(self, request: Request) -> Asked:
        if request.method == "GET":
            given: Any = dict(request.query_params)
            for name in ("variables", "extensions"):
                if name in given:
                    given[name] = _json(given[name].encode("utf-8", "surrogatepass"))
        else:
            content_type, _, charset = request.headers.get("content-type", "").partition(";")
            if content_type.strip().lower() != _JSON or (
                "charset" in charset.lower() and "utf-8" not in charset.lower()
            ):
                raise BadRequestError(415, "The body must be application/json in UTF-8.")
            given = _json(await _body(request, self._settings.body_bytes_max))
        try:
            return Asked.of(given)
        except MalformedError as malformed:
            raise BadRequestError(400, str(malformed)) from None


def _authorization(request: Request) -> str | None:
    authorizations = request.headers.getlist("authorization")
    if len(authorizations) > 1:
        raise BadRequestError(400, "Send one Authorization header.")
    return authorizations[0] if authorizations else None


def _refuse_mutation_by_get(request: Request, operation: OperationDefinitionNode) -> None:
    if request.method == "GET" and operation.operation is OperationType.MUTATION:
        raise BadRequestError(405, "Mutations are sent by POST.", allow="POST")


def _negotiated(request: Request) -> str:
    """Return the media type of the answer: the first of ours that Accept lists."""
    if request.method not in {"GET", "POST"}:
        raise BadRequestError(405, "GraphQL is asked by GET or POST.", allow="GET, POST")
    accepted = request.headers.get("accept", "*/*")
    for position, entry in enumerate(accepted.split(",")):
        media_type = entry.partition(";")[0].strip().lower()
        if media_type == EVENT_STREAM and position == 0:
            # Only there: some clients list it last on every request and expect JSON.
            return EVENT_STREAM
        if media_type in {_JSON, _RESPONSE_JSON}:
            return media_type
        if media_type in {"*/*", "application/*"}:
            return _JSON
    raise BadRequestError(406, f"Answers are {_RESPONSE_JSON}, {_JSON} or {EVENT_STREAM}.")


async def _body(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise BadRequestError(413, f"The body must be at most {bytes_max} bytes.")
    return bytes(body)


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadRequestError(400, "The body is not JSON.") from None


def _request_errors(errors: list[GraphQLError], media_type: str, *, status: int = 400) -> Response:
    """Answer without data: nothing was executed. Under application/json the status is 200, as its clients expect."""
    body = {"errors": [present(error) for error in errors]}
    return _response(body, status if media_type == _RESPONSE_JSON else 200, media_type)


def _response(body: dict[str, Any], status: int, media_type: str) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type=f"{media_type}; charset=utf-8",
        headers={"cache-control": "no-store"},
    )
