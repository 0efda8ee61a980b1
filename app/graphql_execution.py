"""Judging and executing GraphQL documents, whatever brought them: a request, a socket or an event stream.

A document that was seen before is neither parsed nor validated again.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

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

from app.context import Context, Viewer
from app.database import is_away
from app.schema import schema

log = logging.getLogger("flash.graphql")

TOKENS_MAX: Final = 2000
OPERATION_SECONDS_MAX: Final = 10.0
DOCUMENTS_KEPT_MAX: Final = 1000
#: Longer documents are judged each time, so that the cache is bounded in bytes too.
DOCUMENT_KEPT_LENGTH_MAX: Final = 20_000

_INTROSPECTION: Final = frozenset({"__schema", "__type", "__typename"})

#: Wrong values are told apart from other validation errors: they are the user's input, not the client's document.
_VALUE_RULES: Final = (ValuesOfCorrectTypeRule,)
_DOCUMENT_RULES: Final = tuple(rule for rule in specified_rules if rule not in _VALUE_RULES)


class MalformedError(Exception):
    """What was sent isn't of the form of a GraphQL request; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A GraphQL request: a document, which of its operations, and the variables."""

    query: str
    operation_name: str | None
    variables: dict[str, Any]

    @classmethod
    def of(cls, given: Any) -> "Asked":
        """Read a parsed JSON value. Raises MalformedError when it isn't a request."""
        if not isinstance(given, dict):
            raise MalformedError("The request must be a JSON object.")
        query = given.get("query")
        if not isinstance(query, str) or not query:
            raise MalformedError("`query` must be a GraphQL document.")
        for name, kind in (("variables", dict), ("operationName", str), ("extensions", dict)):
            if given.get(name) is not None and not isinstance(given[name], kind):
                raise MalformedError(f"`{name}` must be {'a string' if kind is str else 'an object'}.")
        return cls(query, given.get("operationName"), given.get("variables") or {})


class NotExecutedError(Exception):
    """Nothing was executed, or a subscription can't go on: the errors say why."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        """Take the errors."""
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was parsed and validated: its operations, or the errors that make it useless."""

    parsed: DocumentNode | None
    operations: dict[str | None, OperationDefinitionNode]
    introspection_only: frozenset[str | None]
    errors: list[GraphQLError]

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        """Return the operation of this name, or the only one."""
        if name is not None:
            return self.operations.get(name)
        return next(iter(self.operations.values())) if len(self.operations) == 1 else None


class Documents:
    """The documents that were judged, the least lately used forgotten first."""

    def __init__(self) -> None:
        """Start with none."""
        self._kept: OrderedDict[str, Document] = OrderedDict()

    def judged(self, query: str) -> Document:
        """Return a document, parsed and validated now or before."""
        kept = self._kept.get(query)
        if kept is not None:
            self._kept.move_to_end(query)
            return kept
        document = judge_document(query)
        if len(query) <= DOCUMENT_KEPT_LENGTH_MAX:
            self._kept[query] = document
            if len(self._kept) > DOCUMENTS_KEPT_MAX:
                self._kept.popitem(last=False)
        return document


async def answers(documents: Documents, asked: Asked, viewer: Viewer) -> AsyncGenerator[dict[str, Any], None]:
    """Yield what clients are to see of an operation: one answer, or one per event of a subscription.

    Raises NotExecutedError, and whatever nobody expects; `told` turns both into errors for clients.
    """
    document = documents.judged(asked.query)
    if document.errors:
        raise NotExecutedError(document.errors)
    operation = document.operation(asked.operation_name)
    if operation is None:
        raise NotExecutedError([fault("BAD_USER_INPUT", "There is no such operation.")])
    if operation.operation is OperationType.SUBSCRIPTION:
        async with aclosing(_subscribe(document, operation, viewer, asked.variables)) as results:
            async for result in results:
                yield body_of(result)
        return
    async with asyncio.timeout(OPERATION_SECONDS_MAX):
        result = await run(document, operation, viewer, asked.variables)
    if is_unexecuted(result):
        raise NotExecutedError(coded(result.errors or [], "BAD_USER_INPUT"))
    yield body_of(result)


async def _subscribe(
    document: Document, operation: OperationDefinitionNode, viewer: Viewer, variables: dict[str, Any]
) -> AsyncGenerator[ExecutionResult, None]:
    """Yield one result per event. An event that can't be shown ends the stream: its reader resumes before it."""
    executor = schema.execution_context_class.build(
        schema._schema,
        _parsed(document),
        context_value=Context(viewer),
        raw_variable_values=variables,
        operation_name=operation.name.value if operation.name else None,
        operation_extensions=None,
        hide_suggestions=True,
    )
    if not isinstance(executor, Executor):
        raise NotExecutedError(coded(executor, "BAD_USER_INPUT"))
    async with asyncio.timeout(OPERATION_SECONDS_MAX):
        stream: Any = create_source_event_stream(executor)
        stream = await stream if executor.is_awaitable(stream) else stream
    if isinstance(stream, ExecutionResult):
        raise NotExecutedError(stream.errors or [])
    async with aclosing(stream):
        async for event in stream:
            each = executor.build_per_event_executor(event)
            # What an event's resolvers load is as of that event.
            each.context_value = Context(viewer)
            async with asyncio.timeout(OPERATION_SECONDS_MAX):
                result: Any = each.execute_operation(serially=False)
                result = await result if executor.is_awaitable(result) else result
            if result.data is None:
                raise NotExecutedError(result.errors or [])
            yield result


async def run(
    document: Document, operation: OperationDefinitionNode, viewer: Viewer | None, variables: dict[str, Any]
) -> ExecutionResult:
    """Execute one operation of a judged document."""
    result = execute(
        schema._schema,
        _parsed(document),
        context_value=Context(viewer),
        variable_values=variables,
        operation_name=operation.name.value if operation.name else None,
        executor_class=schema.execution_context_class,
        operation_extensions=None,
        hide_suggestions=True,
    )
    return result if isinstance(result, ExecutionResult) else await result


def is_unexecuted(result: ExecutionResult) -> bool:
    """Whether the variables were wrong, so that no resolver was called."""
    return result.data is None and bool(result.errors) and all(error.path is None for error in result.errors or [])


def body_of(result: ExecutionResult) -> dict[str, Any]:
    """Return a result as clients see it."""
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body["errors"] = [present(error) for error in result.errors]
    return body


def told(error: Exception) -> list[dict[str, Any]]:
    """Return what clients are told when an operation ends in an exception; what nobody expected is masked."""
    if isinstance(error, NotExecutedError):
        return [present(each) for each in error.errors]
    return [present(GraphQLError("", path=[], original_error=error))]


def judge_document(query: str) -> Document:
    """Parse and validate a document, once."""
    try:
        parsed = parse(query, max_tokens=TOKENS_MAX)
        errors = _invalid(parsed, _DOCUMENT_RULES, "GRAPHQL_VALIDATION_FAILED")
        errors = errors or _invalid(parsed, _VALUE_RULES, "BAD_USER_INPUT")
    except GraphQLSyntaxError as error:
        errors = coded([error], "GRAPHQL_PARSE_FAILED")
    except RecursionError:
        errors = [fault("GRAPHQL_PARSE_FAILED", "The document is nested too deeply.")]
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


def _invalid(parsed: DocumentNode, rules: Sequence[type[ASTValidationRule]], code: str) -> list[GraphQLError]:
    """Return what is wrong by these rules, without guesses at what was meant: they would spell the schema out."""
    return coded(validate(schema._schema, parsed, rules, hide_suggestions=True), code)


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
