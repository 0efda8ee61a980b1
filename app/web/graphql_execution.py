"""Judging and executing GraphQL documents, whatever brought them: a request, a socket or an event stream.

A document that was seen before is neither parsed, measured nor validated again.
"""

import asyncio
import functools
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache
from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSyntaxError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    create_source_event_stream,
    execute,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import ASTValidationRule, ValuesOfCorrectTypeRule
from graphql.validation.rules import overlapping_fields_can_be_merged

from app.api.context import Context, Role, Viewer
from app.config import Settings
from app.schema import schema
from app.storage.database import is_away
from app.telemetry.observed import at_hand, failed
from app.web.document_costs import Cost, TooCostlyError, measure_document, refuse_long_lists, refuse_long_text
from app.web.trusted_documents import sha256_of

log = logging.getLogger("flash.graphql")

#: graphql-core's schema, which Strawberry keeps private: its own `execute` parses and validates each time.
SCHEMA: Final = schema._schema

DOCUMENTS_KEPT_MAX: Final = 1000
#: Longer documents are judged each time.
DOCUMENT_KEPT_LENGTH_MAX: Final = 20_000
#: Of all that are kept: parsed, a document takes a hundred times its text, so that a thousand could take a gigabyte.
DOCUMENTS_KEPT_LENGTH_MAX: Final = 1_000_000
#: How many errors are told of a document, and how many of variables. The former count the lines before them, the
#: latter quote the whole value: fifty of a large one take a second.
ERRORS_MAX: Final = 10

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SCHEMA_FIELDS: Final = frozenset({"__schema", "__type"})
_INTROSPECTION: Final = _SCHEMA_FIELDS | {"__typename"}

#: Comparing fields that may be one takes time that grows with the square of their number. Its own default lets a
#: document of a kilobyte take longer than all other rules together; no client of ours comes near to this.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 12_000

#: What rules add to their errors that is nobody's business: one guesses all the same, one quotes Python's own errors.
_ASIDES: Final = re.compile(r"( Did you mean |, but encountered error ).*", re.DOTALL)

#: Wrong values are told apart from other validation errors: they are the user's input, not the client's document.
_VALUE_RULES: Final = (ValuesOfCorrectTypeRule,)
_DOCUMENT_RULES: Final = tuple(rule for rule in specified_rules if rule not in _VALUE_RULES)


class MalformedError(Exception):
    """What was sent isn't of the form of a GraphQL request; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A GraphQL request: a document or its hash, which of its operations, and the variables."""

    query: str
    operation_name: str | None
    variables: dict[str, Any]
    #: Of `extensions.persistedQuery`: the SHA-256 of the document, which may stand for it.
    sha256: str | None = None

    @classmethod
    def of(cls, given: Any) -> "Asked":
        """Read a parsed JSON value. Raises MalformedError when it isn't a request."""
        if not isinstance(given, dict):
            raise MalformedError("The request must be a JSON object.")
        for name, kind in (("variables", dict), ("operationName", str), ("extensions", dict)):
            if given.get(name) is not None and not isinstance(given[name], kind):
                raise MalformedError(f"`{name}` must be {'a string' if kind is str else 'an object'}.")
        sha256 = _hash_in(given.get("extensions") or {})
        query = given.get("query")
        if query is None and sha256 is not None:
            query = ""
        elif not isinstance(query, str) or not query:
            raise MalformedError("`query` must be a GraphQL document.")
        return cls(query, given.get("operationName"), given.get("variables") or {}, sha256)


def _hash_in(extensions: dict[str, Any]) -> str | None:
    """Return the hash of a request that names its document by it. Raises MalformedError when it can't be one."""
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return None
    sha256 = persisted.get("sha256Hash") if isinstance(persisted, dict) and persisted.get("version") == 1 else None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise MalformedError("`extensions.persistedQuery` must be {version: 1, sha256Hash: 64 hexadecimal digits}.")
    return sha256


class NotExecutedError(Exception):
    """Nothing was executed, or a subscription can't go on: the errors say why."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        """Take the errors."""
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation of a judged document."""

    node: OperationDefinitionNode
    cost: Cost
    root_fields: frozenset[str]

    @property
    def name(self) -> str | None:
        """Its name, unless it has none."""
        return self.node.name.value if self.node.name else None

    @property
    def kind(self) -> OperationType:
        """Whether it is a query, a mutation or a subscription."""
        return self.node.operation

    @functools.cached_property
    def field(self) -> str:
        """Its root field, as counters name it: a word of the schema, whatever a client sends."""
        asked = self.root_fields - _INTROSPECTION
        if not asked:
            return "introspection"
        return next(iter(asked)) if len(asked) == 1 else "several"

    @property
    def is_introspection_only(self) -> bool:
        """Whether it asks for nothing but the schema."""
        return self.root_fields <= _INTROSPECTION

    @property
    def reads_schema(self) -> bool:
        """Whether it asks for the schema."""
        return not self.root_fields.isdisjoint(_SCHEMA_FIELDS)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was parsed, measured and validated: its operations, or the errors that make it useless."""

    parsed: DocumentNode | None
    operations: dict[str | None, Operation]
    errors: list[GraphQLError]
    #: Of its text, in characters.
    length: int

    def operation(self, name: str | None) -> Operation | None:
        """Return the operation of this name, or the only one."""
        if name is not None:
            return self.operations.get(name)
        return next(iter(self.operations.values())) if len(self.operations) == 1 else None


class Documents:
    """The documents that were judged, the least lately used forgotten first, and those that are trusted."""

    def __init__(self, limits: Settings, trusted: Mapping[str, str] | None = None) -> None:
        """Take the limits and the trusted documents by their hashes."""
        self.limits = limits
        self._trusted = trusted or {}
        self._kept: LRUCache[str, Document] = LRUCache(
            DOCUMENTS_KEPT_LENGTH_MAX, getsizeof=lambda document: document.length
        )
        #: The texts of documents that were sent with their hash, as clients do that send the hash alone afterwards.
        self._hashed: LRUCache[str, str] = LRUCache(DOCUMENTS_KEPT_MAX)

    def judged(self, asked: Asked) -> Document:
        """Return the document that is asked for, judged now or before."""
        if asked.sha256 is None and not self.limits.trusted_documents_required:
            return self._judged(asked.query)
        text = self._named(asked)
        return _useless([text], len(asked.query)) if isinstance(text, GraphQLError) else self._judged(text)

    def _named(self, asked: Asked) -> str | GraphQLError:
        """Return the text behind a hash, or of a document that may be trusted."""
        sha256 = asked.sha256
        if asked.query:
            sha256 = sha256_of(asked.query)
            if asked.sha256 not in {None, sha256}:
                return fault("BAD_USER_INPUT", "provided sha does not match query")
        known = self._trusted.get(sha256 or "")
        if known is not None:
            return known
        if not asked.query:
            text = self._hashed.get(sha256 or "")
            return text if text is not None else fault("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        if self.limits.trusted_documents_required:
            return fault("UNTRUSTED_DOCUMENT", "Only documents that the engine was told of are executed here.")
        if len(asked.query) <= DOCUMENT_KEPT_LENGTH_MAX:
            self._hashed[sha256 or ""] = asked.query
        return asked.query

    def _judged(self, query: str) -> Document:
        kept = self._kept.get(query)
        if kept is not None:
            return kept
        document = judge_document(query, self.limits)
        if len(query) <= DOCUMENT_KEPT_LENGTH_MAX:
            self._kept[query] = document
            if len(self._kept) > DOCUMENTS_KEPT_MAX:
                self._kept.popitem()
        return document


def observe(operation: Operation) -> None:
    """Say which operation is at hand."""
    observed = at_hand()
    if observed is not None:
        observed.is_of(operation.kind.value, operation.field, operation.name)


def observe_viewer(viewer: Viewer | None) -> None:
    """Say who asks for it."""
    observed = at_hand()
    if observed is not None and viewer is not None:
        observed.is_by(viewer.role.value, viewer.actor, viewer.merchant_id)


def admit(operation: Operation, asked: Asked, viewer: Viewer | None, limits: Settings) -> int:
    """Return how many nodes an operation may answer with. Raises NotExecutedError unless it may be executed."""
    if operation.reads_schema and limits.production and (viewer is None or viewer.role is Role.MEMBER):
        raise NotExecutedError([fault("FORBIDDEN", "The schema is read with an API key.")])
    nodes = operation.cost.nodes(asked.variables)
    if nodes > limits.nodes_max:
        message = f"The operation asks for up to {nodes} nodes; at most {limits.nodes_max} are answered."
        raise NotExecutedError([_too_costly(message, cost=_told_cost(nodes, limits))])
    try:
        refuse_long_lists(operation.cost, asked.variables, limits.list_items_max)
    except TooCostlyError as error:
        raise NotExecutedError([_too_costly(str(error))]) from None
    return nodes


def _too_costly(message: str, **told: Any) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "COST_LIMIT_EXCEEDED", **told})


def _told_cost(nodes: int, limits: Settings) -> dict[str, int]:
    return {"nodes": nodes, "nodesMax": limits.nodes_max}


async def answers(documents: Documents, asked: Asked, viewer: Viewer) -> AsyncGenerator[dict[str, Any], None]:
    """Yield what clients are to see of an operation: one answer, or one per event of a subscription.

    Raises NotExecutedError, and whatever nobody expects; `told` turns both into errors for clients.
    """
    observe_viewer(viewer)
    document = documents.judged(asked)
    if document.errors:
        raise NotExecutedError(document.errors)
    operation = document.operation(asked.operation_name)
    if operation is None:
        raise NotExecutedError([fault("BAD_USER_INPUT", "There is no such operation.")])
    observe(operation)
    if operation.kind is OperationType.SUBSCRIPTION:
        admit(operation, asked, viewer, documents.limits)
        subscribed = _subscribe(document, operation, viewer, asked.variables, documents.limits.operation_seconds_max)
        async with aclosing(subscribed) as results:
            async for result in results:
                yield body_of(result)
        return
    async with asyncio.timeout(documents.limits.operation_seconds_max):
        body = await answer(document, operation, asked, viewer, documents.limits)
    yield body


async def answer(
    document: Document, operation: Operation, asked: Asked, viewer: Viewer | None, limits: Settings
) -> dict[str, Any]:
    """Execute a query or a mutation and return what clients are to see. Raises NotExecutedError."""
    nodes = admit(operation, asked, viewer, limits)
    executed = execute(
        SCHEMA,
        _parsed(document),
        context_value=Context(viewer),
        variable_values=asked.variables,
        operation_name=operation.name,
        executor_class=schema.execution_context_class,
        operation_extensions=None,
        max_coercion_errors=ERRORS_MAX,
        hide_suggestions=True,
    )
    result = executed if isinstance(executed, ExecutionResult) else await executed
    if result.data is None and result.errors and all(error.path is None for error in result.errors):
        # The variables were wrong: no resolver was called.
        raise NotExecutedError(coded(result.errors, "BAD_USER_INPUT"))
    return body_of(result) | {"extensions": {"cost": _told_cost(nodes, limits)}}


async def _subscribe(
    document: Document, operation: Operation, viewer: Viewer, variables: dict[str, Any], seconds_max: float
) -> AsyncGenerator[ExecutionResult, None]:
    """Yield one result per event. An event that can't be shown ends the stream: its reader resumes before it."""
    executor = schema.execution_context_class.build(
        SCHEMA,
        _parsed(document),
        context_value=Context(viewer),
        raw_variable_values=variables,
        operation_name=operation.name,
        operation_extensions=None,
        max_coercion_errors=ERRORS_MAX,
        hide_suggestions=True,
    )
    if not isinstance(executor, Executor):
        raise NotExecutedError(coded(executor, "BAD_USER_INPUT"))
    async with asyncio.timeout(seconds_max):
        stream: Any = create_source_event_stream(executor)
        stream = await stream if executor.is_awaitable(stream) else stream
    if isinstance(stream, ExecutionResult):
        raise NotExecutedError(stream.errors or [])
    async with aclosing(stream):
        async for event in stream:
            each = executor.build_per_event_executor(event)
            # What an event's resolvers load is as of that event.
            each.context_value = Context(viewer)
            async with asyncio.timeout(seconds_max):
                result: Any = each.execute_operation(serially=False)
                result = await result if executor.is_awaitable(result) else result
            if result.data is None:
                raise NotExecutedError(result.errors or [])
            yield result


def body_of(result: ExecutionResult) -> dict[str, Any]:
    """Return a result as clients see it."""
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body["errors"] = presented(result.errors)
    return body


def told(error: Exception) -> list[dict[str, Any]]:
    """Return what clients are told when an operation ends in an exception; what nobody expected is masked."""
    if isinstance(error, NotExecutedError):
        return presented(error.errors)
    return presented([GraphQLError("", path=[], original_error=error)])


def judge_document(query: str, limits: Settings) -> Document:
    """Parse, measure and validate a document, once."""
    try:
        refuse_long_text(query, limits)
        parsed = parse(query, max_tokens=limits.tokens_max)
        costs = measure_document(parsed, SCHEMA, limits)
        errors = _invalid(parsed, _DOCUMENT_RULES, "GRAPHQL_VALIDATION_FAILED")
        errors = errors or _invalid(parsed, _VALUE_RULES, "BAD_USER_INPUT")
    except GraphQLSyntaxError as error:
        errors = coded([error], "GRAPHQL_PARSE_FAILED")
    except RecursionError:
        errors = [fault("GRAPHQL_PARSE_FAILED", "The document is nested too deeply.")]
    except TooCostlyError as error:
        errors = [_too_costly(str(error))]
    if errors:
        return _useless(errors, len(query))
    fragments = {d.name.value: d for d in parsed.definitions if isinstance(d, FragmentDefinitionNode)}
    operations = {}
    for node in parsed.definitions:
        if isinstance(node, OperationDefinitionNode):
            name = node.name.value if node.name else None
            operations[name] = Operation(node, costs[name], _root_fields(node.selection_set, fragments))
    return Document(parsed, operations, [], len(query))


def _useless(errors: list[GraphQLError], length: int) -> Document:
    """Return a document of errors. These hold on to no part of what was parsed: kept ones would take 0.7 MB each."""
    for error in errors:
        error.nodes = error.__traceback__ = error.__context__ = None
    return Document(None, {}, errors, length)


def presented(errors: Sequence[GraphQLError]) -> list[dict[str, Any]]:
    """Return errors as clients see them; their codes are what the operation at hand came to."""
    shown = [_present(error) for error in errors]
    failed({each["extensions"]["code"] for each in shown})
    return shown


def _present(error: GraphQLError) -> dict[str, Any]:
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
    log.error("internal error %s at %.200s", reference, error.path, exc_info=error.original_error or error)
    code = {"code": "INTERNAL_SERVER_ERROR", "reference": reference}
    return shown | {"message": "Internal error.", "extensions": code}


def _invalid(parsed: DocumentNode, rules: Sequence[type[ASTValidationRule]], code: str) -> list[GraphQLError]:
    """Return what is wrong by these rules, without guesses at what was meant: they would spell the schema out."""
    errors = validate(SCHEMA, parsed, rules, ERRORS_MAX, hide_suggestions=True)
    for error in errors:
        error.message = _ASIDES.sub("", error.message)
    return coded(errors, code)


def coded(errors: list[GraphQLError], code: str) -> list[GraphQLError]:
    """Give a code to errors that have none."""
    for error in errors:
        error.extensions = {"code": code} | (error.extensions or {})
    return errors


def fault(code: str, message: str) -> GraphQLError:
    """Return an error with a code."""
    return GraphQLError(message, extensions={"code": code})


def _parsed(document: Document) -> DocumentNode:
    if document.parsed is None:
        raise RuntimeError("a document with errors was executed")
    return document.parsed


def _root_fields(selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> frozenset[str]:
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
    return frozenset(fields)
