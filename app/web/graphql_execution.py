"""Executing GraphQL documents for requests, sockets and event streams."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from cachetools import LRUCache
from graphql import ExecutionResult, GraphQLError, OperationType, create_source_event_stream
from graphql.execution.values import VariableValues

from app.api.context import Context, Role, Viewer
from app.api.turns import Turn, TurnTaking
from app.config import Settings
from app.merchants.tenants import may_be_moving, tenant
from app.storage.fences import opened
from app.telemetry.observed import at_hand
from app.web.document_costs import Size, TooCostlyError, count_values, refuse_long_lists
from app.web.graphql_documents import (
    DOCUMENT_KEPT_LENGTH_MAX,
    ERRORS_MAX,
    SCHEMA,
    Asked,
    Document,
    Documents,
    Operation,
)
from app.web.graphql_errors import NotExecutedError, Presenting, coded, fault
from app.web.variable_errors import without_values

#: Variables with more values are read beside the event loop: ten thousand recipients take a tenth of a second.
_READ_AT_ONCE_MAX: Final = 1_000
_SCHEMA_ANSWERS_BYTES_MAX: Final = 16 * 1024 * 1024

#: Answers that are about the schema alone, by document and operation. Whether a caller may have one is decided before.
_schema_answers: LRUCache[tuple[str, str | None], bytes] = LRUCache(_SCHEMA_ANSWERS_BYTES_MAX, getsizeof=len)


class Admitted(NamedTuple):
    """The cost of an operation that may be executed."""

    size: Size
    #: Whether its variables hold few enough values to be read on the event loop.
    is_read_at_once: bool


def admit(operation: Operation, asked: Asked, viewer: Viewer | None, limits: Settings) -> Admitted:
    """Return the cost of an operation. Raises NotExecutedError unless it may be executed."""
    if operation.reads_schema and limits.production and (viewer is None or viewer.role is Role.MEMBER):
        raise NotExecutedError([fault("FORBIDDEN", "The schema is read with an API key.")])
    size = operation.cost.size(asked.variables)
    if size.nodes > limits.nodes_max:
        message = f"The operation asks for up to {size.nodes} nodes; at most {limits.nodes_max} are answered."
        raise NotExecutedError([fault("COST_LIMIT_EXCEEDED", message, cost=_told_cost(size, limits))])
    if size.fields > limits.fields_max:
        message = f"The operation asks for up to {size.fields} fields; at most {limits.fields_max} are answered."
        raise NotExecutedError([fault("COST_LIMIT_EXCEEDED", message, cost=_told_cost(size, limits))])
    try:
        values = count_values(asked.variables)
        refuse_long_lists(operation.cost, asked.variables, limits.list_items_max)
    except TooCostlyError as error:
        raise NotExecutedError([fault("COST_LIMIT_EXCEEDED", str(error))]) from None
    return Admitted(size, values <= _READ_AT_ONCE_MAX)


def _told_cost(size: Size, limits: Settings) -> dict[str, int]:
    return {
        "nodes": size.nodes, "nodesMax": limits.nodes_max, "fields": size.fields, "fieldsMax": limits.fields_max
    }  # fmt: skip


async def answers(documents: Documents, asked: Asked, viewer: Viewer) -> AsyncGenerator[bytes, None]:
    """Return the answers of an operation as JSON: one, or one per event of a subscription.

    It raises NotExecutedError and unexpected exceptions, and so does what it returns; `told` turns both into errors for
    clients.
    """
    limits = documents.limits
    observed = at_hand()
    if observed is not None:
        observed.is_by(viewer.role.value, viewer.actor, viewer.merchant_id)
    async with asyncio.timeout(limits.operation_seconds_max):
        document = await documents.judged(asked)
        operation = chosen(document, asked)
        if observed is not None:
            observed.is_of(operation.word, operation.field, operation.name)
        if operation.kind is OperationType.SUBSCRIPTION:
            return await _subscribed(operation, asked, viewer, limits)
        return _only(await answer(document, operation, asked, viewer, limits))


async def _only(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def chosen(document: Document, asked: Asked) -> Operation:
    """Return the requested operation of a document. Raises NotExecutedError."""
    if document.errors:
        raise NotExecutedError(document.errors)
    operation = document.operation(asked.operation_name)
    if operation is None:
        raise NotExecutedError([fault("BAD_USER_INPUT", "There is no such operation.")])
    return operation


async def answer(
    document: Document, operation: Operation, asked: Asked, viewer: Viewer | None, limits: Settings
) -> bytes:
    """Execute a query or a mutation and return its answer as JSON. Raises NotExecutedError."""
    admitted = admit(operation, asked, viewer, limits)
    name = (document.text, operation.name)
    tells_schema = (
        operation.is_introspection_only
        and not operation.node.variable_definitions
        and len(document.text) <= DOCUMENT_KEPT_LENGTH_MAX
    )
    if tells_schema and name in _schema_answers:
        return _schema_answers[name]
    if viewer is not None and may_be_moving(viewer.merchant_id):
        await _opened(viewer)
    context = Context(viewer, limits.answer_bytes_max)
    try:
        read = partial(_variables, operation, asked, limits)
        executor = _executor(operation, read() if admitted.is_read_at_once else await asyncio.to_thread(read), context)
        executed: Any = executor.execute_operation()
        result = await executed if executor.is_awaitable(executed) else executed
        errors = await _presented(result.errors, executor.turn) if result.errors else None
        body = _body(executor, result.data, errors, limits, {"cost": _told_cost(admitted.size, limits)})
    finally:
        context.stop()
    if tells_schema and not result.errors:
        _schema_answers[name] = body
    return body


async def _opened(viewer: Viewer) -> None:
    """Wait while the caller's merchant is between two servers.

    What is read after this, even at a server that the merchant has left since, was so at a moment of this operation. A
    viewer may be older than the move: that of a socket is of when it was opened.
    """
    owner = await tenant(viewer.merchant_id)
    if owner is not None and owner.is_moving:
        await opened(viewer.merchant_id)


def _variables(operation: Operation, asked: Asked, limits: Settings) -> VariableValues:
    """Return the variables of an operation. Raises NotExecutedError unless they fit. Safe to call in another thread."""
    variables = operation.variables.read(asked.variables, ERRORS_MAX, hide_suggestions=limits.production)
    if isinstance(variables, list):
        errors = without_values(variables, SCHEMA, names_hidden=limits.production)
        raise NotExecutedError(coded(errors, "BAD_USER_INPUT"))
    return variables


def _executor(operation: Operation, variables: VariableValues, context: Context) -> TurnTaking:
    """Return the executor of an operation. Raises NotExecutedError unless the viewer's role fits."""
    executor = operation.executor.for_request(context, variables)
    if operation.guarded is not None and context.caller is not None:
        try:
            operation.guarded.refuse(context.caller, executor.variable_values)
        except GraphQLError as error:
            raise NotExecutedError([error]) from None
    return executor


async def _subscribed(
    operation: Operation, asked: Asked, viewer: Viewer, limits: Settings
) -> AsyncGenerator[bytes, None]:
    """Return one answer per event. Raises NotExecutedError."""
    admitted = admit(operation, asked, viewer, limits)
    read = partial(_variables, operation, asked, limits)
    variables = read() if admitted.is_read_at_once else await asyncio.to_thread(read)
    executor = _executor(operation, variables, Context(viewer, limits.answer_bytes_max))
    stream: Any = create_source_event_stream(executor)
    stream = await stream if executor.is_awaitable(stream) else stream
    if isinstance(stream, ExecutionResult):
        raise NotExecutedError(stream.errors or [])
    return _shown(stream, operation, executor.variable_values, viewer, limits)


async def _shown(
    events: AsyncGenerator[Any, None], operation: Operation, variables: VariableValues, viewer: Viewer, limits: Settings
) -> AsyncGenerator[bytes, None]:
    """Yield one answer per event. An event that can't be shown ends the stream, and its reader resumes before it.

    Between two events nothing is kept of either: a thousand streams wait at a time, and JSON takes 4 KB at least.
    """
    async with aclosing(events):
        async for event in events:
            body = await _of_event(event, operation, variables, viewer, limits)
            del event
            yield body
            del body


async def _of_event(
    event: Any, operation: Operation, variables: VariableValues, viewer: Viewer, limits: Settings
) -> bytes:
    # What an event's resolvers load must be as of that event.
    context = Context(viewer, limits.answer_bytes_max)
    executor = operation.executor.for_event(event, context, variables)
    try:
        async with asyncio.timeout(limits.operation_seconds_max):
            executed: Any = executor.execute_operation(serially=False)
            result = await executed if executor.is_awaitable(executed) else executed
            if result.data is None:
                raise NotExecutedError(result.errors or [])
            errors = await _presented(result.errors, executor.turn) if result.errors else None
            return _body(executor, result.data, errors, limits)
    finally:
        context.stop()


def _body(
    executor: TurnTaking, data: Any, errors: list[dict[str, Any]] | None, limits: Settings,
    extensions: dict[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """Return a result as JSON. Raises NotExecutedError when it is too large."""
    body: dict[str, Any] = {"data": data}
    if errors is not None:
        body["errors"] = errors
    if extensions is not None:
        body["extensions"] = extensions
    text = b"" if executor.is_too_large else orjson.dumps(body)
    if executor.is_too_large or len(text) > limits.answer_bytes_max:
        done = " What it asked for was done." if executor.operation.operation is OperationType.MUTATION else ""
        message = f"The answer would be larger than {limits.answer_bytes_max} bytes; ask for less at a time.{done}"
        raise NotExecutedError([fault("ANSWER_TOO_LARGE", message)])
    return text


async def _presented(errors: list[GraphQLError], turn: Turn) -> list[dict[str, Any]]:
    """Return the errors of a result as clients see them, in turns: each field may have one."""
    presenting = Presenting()
    shown = []
    for error in errors:
        if turn.left <= 0:
            await turn.next()
        turn.left -= 1
        shown.append(presenting.one(error))
    return presenting.done(shown)
