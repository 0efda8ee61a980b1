"""GraphQL over HTTP: https://graphql.github.io/graphql-over-http/draft/, one request to one answer.

Requests are judged in this order: method, Accept, body type, size, JSON, form, document, caller, operation. A
document that was seen before is neither parsed nor validated again.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSyntaxError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    execute,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import ASTValidationRule, ValuesOfCorrectTypeRule
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tortoise.exceptions import BaseORMException

from app.authentication import authenticate
from app.config import Settings
from app.context import Context, Viewer
from app.pages import PAGES
from app.schema import schema

log = logging.getLogger("flash.graphql")

TOKENS_MAX: Final = 2000
OPERATION_SECONDS_MAX: Final = 10.0
DOCUMENTS_KEPT_MAX: Final = 1000
#: Longer documents are judged each time, so that the cache is bounded in bytes too.
DOCUMENT_KEPT_LENGTH_MAX: Final = 20_000

_JSON: Final = "application/json"
_RESPONSE_JSON: Final = "application/graphql-response+json"
_INTROSPECTION: Final = frozenset({"__schema", "__type", "__typename"})

#: Wrong values are told apart from other validation errors: they are the user's input, not the client's document.
_VALUE_RULES: Final = (ValuesOfCorrectTypeRule,)
_DOCUMENT_RULES: Final = tuple(rule for rule in specified_rules if rule not in _VALUE_RULES)

#: What asyncpg raises when the database is away. The last three are answers to connecting: no statement of the
#: engine names a database, a user or anything that isn't ready.
_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was parsed and validated: its operations, or the errors that make it useless."""

    parsed: DocumentNode | None
    operations: dict[str | None, OperationDefinitionNode]
    introspection_only: frozenset[str | None]
    errors: list[GraphQLError]


class BadRequestError(Exception):
    """An answer below GraphQL: a status, one error and perhaps headers."""

    def __init__(self, status: int, message: str, *, code: str = "BAD_REQUEST", allow: str | None = None) -> None:
        """Take the status and the sentence."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.allow = allow


class GraphQLEndpoint:
    """The ASGI application at /graphql."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings; the document cache starts empty."""
        self._settings = settings
        self._documents: OrderedDict[str, Document] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        media_type = _JSON
        try:
            if request.method == "GET" and self._wants_page(request):
                response = Response((PAGES / "graphiql.html").read_bytes(), media_type="text/html")
            else:
                media_type = _negotiated(request)
                response = await self._answer(request, media_type)
        except BadRequestError as bad:
            body = {"errors": [{"message": str(bad), "extensions": {"code": bad.code}}]}
            response = _response(body, bad.status, media_type)
            if bad.allow:
                response.headers["allow"] = bad.allow
        await response(scope, receive, send)

    def _wants_page(self, request: Request) -> bool:
        return not self._settings.production and "text/html" in request.headers.get("accept", "")

    async def _answer(self, request: Request, media_type: str) -> Response:
        parameters = await self._parameters(request)
        document = self._document(parameters["query"])
        if document.errors:
            return _request_errors(document.errors, media_type)
        operation = _operation(document, parameters["operationName"])
        if operation is None:
            return _request_errors([_fault("BAD_USER_INPUT", "There is no such operation.")], media_type)
        if request.method == "GET" and operation.operation is not OperationType.QUERY:
            raise BadRequestError(405, "Mutations are sent by POST.", allow="POST")
        name = operation.name.value if operation.name else None
        authorizations = request.headers.getlist("authorization")
        if len(authorizations) > 1:
            raise BadRequestError(400, "Send one Authorization header.")
        try:
            async with asyncio.timeout(OPERATION_SECONDS_MAX):
                viewer = await authenticate(authorizations[0] if authorizations else None)
                if viewer is None and (self._settings.production or name not in document.introspection_only):
                    message = "Send a valid key or token as `Authorization: Bearer …`."
                    return _request_errors([_fault("UNAUTHENTICATED", message)], media_type, status=401)
                result = await run(document, operation, viewer, parameters["variables"])
        except Exception as error:  # noqa: BLE001  (whatever it is, the client gets a masked answer)
            away = is_away(error)
            shown = present(GraphQLError("", path=[], original_error=error))
            return _response({"errors": [shown]}, 503 if away else 500, media_type)
        if result.data is None and result.errors and all(error.path is None for error in result.errors):
            return _request_errors(_coded(result.errors, "BAD_USER_INPUT"), media_type)
        body: dict[str, Any] = {"data": result.data}
        if result.errors:
            body["errors"] = [present(error) for error in result.errors]
        return _response(body, 200, media_type)

    async def _parameters(self, request: Request) -> dict[str, Any]:
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
        if not isinstance(given, dict):
            raise BadRequestError(400, "The body must be a JSON object.")
        query = given.get("query")
        if not isinstance(query, str) or not query:
            raise BadRequestError(400, "`query` must be a GraphQL document.")
        for name, kind in (("variables", dict), ("operationName", str), ("extensions", dict)):
            if given.get(name) is not None and not isinstance(given[name], kind):
                raise BadRequestError(400, f"`{name}` must be {'a string' if kind is str else 'an object'}.")
        return {
            "query": query,
            "variables": given.get("variables") or {},
            "operationName": given.get("operationName"),
        }

    def _document(self, query: str) -> Document:
        kept = self._documents.get(query)
        if kept is not None:
            self._documents.move_to_end(query)
            return kept
        document = judge_document(query)
        if len(query) <= DOCUMENT_KEPT_LENGTH_MAX:
            self._documents[query] = document
            if len(self._documents) > DOCUMENTS_KEPT_MAX:
                self._documents.popitem(last=False)
        return document


async def run(
    document: Document, operation: OperationDefinitionNode, viewer: Viewer | None, variables: dict[str, Any]
) -> ExecutionResult:
    """Execute one operation of a judged document."""
    if document.parsed is None:
        raise RuntimeError("a document with errors was executed")
    result = execute(
        schema._schema,
        document.parsed,
        context_value=Context(viewer),
        variable_values=variables,
        operation_name=operation.name.value if operation.name else None,
        executor_class=schema.execution_context_class,
        operation_extensions=None,
        hide_suggestions=True,
    )
    return result if isinstance(result, ExecutionResult) else await result


def judge_document(query: str) -> Document:
    """Parse and validate a document, once."""
    try:
        parsed = parse(query, max_tokens=TOKENS_MAX)
        errors = _invalid(parsed, _DOCUMENT_RULES, "GRAPHQL_VALIDATION_FAILED")
        errors = errors or _invalid(parsed, _VALUE_RULES, "BAD_USER_INPUT")
    except GraphQLSyntaxError as error:
        errors = _coded([error], "GRAPHQL_PARSE_FAILED")
    except RecursionError:
        errors = [_fault("GRAPHQL_PARSE_FAILED", "The document is nested too deeply.")]
    if errors:
        return Document(None, {}, frozenset(), errors)
    fragments = {d.name.value: d for d in parsed.definitions if isinstance(d, FragmentDefinitionNode)}
    operations = {
        d.name.value if d.name else None: d for d in parsed.definitions if isinstance(d, OperationDefinitionNode)
    }
    introspection_only = frozenset(
        name for name, each in operations.items() if _root_fields(each.selection_set, fragments) <= _INTROSPECTION
    )
    return Document(parsed, operations, introspection_only, [])


def present(error: GraphQLError) -> dict[str, Any]:
    """Return an error as clients see it: with a code, and without what is none of their business.

    A resolver's unexpected exception becomes "Internal error" with a reference that the log has too.
    """
    shown: dict[str, Any] = {"message": error.message}
    if error.locations:
        shown["locations"] = [location.formatted for location in error.locations]
    if error.path:
        shown["path"] = error.path
    extensions = error.extensions or {}
    if "code" in extensions:
        return shown | {"extensions": extensions}
    if is_away(error.original_error):
        log.warning("the database is away: %r", error.original_error)
        message = "The engine can't reach its database; try again."
        return shown | {"message": message, "extensions": {"code": "UNAVAILABLE"}}
    reference = secrets.token_hex(8)
    log.error("internal error %s at %s", reference, error.path, exc_info=error.original_error or error)
    code = {"code": "INTERNAL_SERVER_ERROR", "reference": reference}
    return shown | {"message": "Internal error.", "extensions": code}


def is_away(error: BaseException | None) -> bool:
    """Whether this is the database being away, as opposed to a statement being wrong."""
    if isinstance(error, BaseORMException):
        error = error.__cause__
    return isinstance(error, _AWAY) and not isinstance(error, ValueError)


def _invalid(parsed: DocumentNode, rules: Sequence[type[ASTValidationRule]], code: str) -> list[GraphQLError]:
    """Return what is wrong by these rules, without guesses at what was meant: they would spell the schema out."""
    return _coded(validate(schema._schema, parsed, rules, hide_suggestions=True), code)


def _coded(errors: list[GraphQLError], code: str) -> list[GraphQLError]:
    for error in errors:
        error.extensions = {"code": code} | (error.extensions or {})
    return errors


def _fault(code: str, message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": code})


def _operation(document: Document, name: str | None) -> OperationDefinitionNode | None:
    if name is not None:
        return document.operations.get(name)
    return next(iter(document.operations.values())) if len(document.operations) == 1 else None


def _root_fields(selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> set[str]:
    """Return the names of an operation's root fields. A fragment is walked once, however often it is spread."""
    fields: set[str] = set()
    walked: set[str] = set()
    waiting = [selections]
    while waiting:
        for selection in waiting.pop().selections:
            if isinstance(selection, FieldNode):
                fields.add(selection.name.value)
            elif isinstance(selection, InlineFragmentNode):
                waiting.append(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in walked:
                walked.add(selection.name.value)
                waiting.append(fragments[selection.name.value].selection_set)
    return fields


def _negotiated(request: Request) -> str:
    """Return the media type of the answer: the first of ours that Accept lists."""
    if request.method not in {"GET", "POST"}:
        raise BadRequestError(405, "GraphQL is asked by GET or POST.", allow="GET, POST")
    accepted = request.headers.get("accept", "*/*")
    for entry in accepted.split(","):
        media_type = entry.partition(";")[0].strip().lower()
        if media_type in {_JSON, _RESPONSE_JSON}:
            return media_type
        if media_type in {"*/*", "application/*"}:
            return _JSON
    raise BadRequestError(406, f"Answers are {_RESPONSE_JSON} or {_JSON}.")


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
