"""Turns of the event loop: an operation that has completed its share of fields lets everybody else go first."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import cache
from inspect import iscoroutine
from itertools import chain
from types import GeneratorType
from typing import Any, Final, NamedTuple, TypeGuard, cast
from weakref import WeakKeyDictionary

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLField,
    GraphQLLeafType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    default_field_resolver,
    default_type_resolver,
    get_nullable_type,
    is_leaf_type,
    is_object_type,
)
from graphql.execution.collect_fields import FragmentDetails, collect_fields
from graphql.execution.executor import CollectedErrors
from graphql.execution.values import VariableValues
from graphql.pyutils import Path, Undefined, gather_with_cancel, is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.types import get_object_definition

from app.api.arguments import Arguments

#: What an operation completes at a time. A field takes about 10 µs, so that others wait for a few milliseconds.
FIELDS_PER_TURN: Final = 500
#: How many waiting fields of an operation go on at once; those that find the turn used up wait again.
_WOKEN_MAX: Final = 100

#: The operations that wait for their next turn, first come first served. One goes on per round of the loop, so that
#: ten large answers hold it no longer than one does.
_waiting: "Final[WeakKeyDictionary[asyncio.AbstractEventLoop, deque[Turn]]]" = WeakKeyDictionary()


class Turn:
    """What one operation may still complete before others have a turn. Who completes fields takes them from `left`."""

    __slots__ = ("_fields", "left", "waiting")

    def __init__(self) -> None:
        self.left = FIELDS_PER_TURN
        #: How many fields wait for the next turn, or have just been let go on.
        self.waiting = 0
        self._fields: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait until something is left."""
        self.waiting += 1
        try:
            while self.left <= 0:
                loop = asyncio.get_running_loop()
                if not self._fields:
                    _queue(loop, self)
                field = loop.create_future()
                self._fields.append(field)
                await field
        finally:
            self.waiting -= 1

    def begin(self) -> bool:
        """Let waiting fields go on. Returns whether some still wait."""
        self.left = FIELDS_PER_TURN
        woken = 0
        while self._fields and woken < _WOKEN_MAX:
            field = self._fields.popleft()
            if not field.done():
                field.set_result(None)
                woken += 1
        return bool(self._fields)


def _queue(loop: asyncio.AbstractEventLoop, turn: Turn) -> None:
    waiting = _waiting.setdefault(loop, deque())
    if not waiting:
        loop.call_soon(_give, loop, waiting)
    waiting.append(turn)


def _give(loop: asyncio.AbstractEventLoop, waiting: deque[Turn]) -> None:
    turn = waiting.popleft()
    if turn.begin():
        waiting.append(turn)
    if waiting:
        loop.call_soon(_give, loop, waiting)


class _Call(NamedTuple):
    """A field with a resolver."""

    definition: GraphQLField
    nodes: list[FieldNode]
    resolve: Callable[..., Any]
    arguments: Arguments


class _Field(NamedTuple):
    """A field of an object, as a document asks for it."""

    #: In the answer.
    name: str
    details: Any
    #: What it shows as it is: an attribute of the object.
    attribute: str
    #: The attribute's type, if that has no fields, and whether it may be null.
    leaf: GraphQLLeafType | None = None
    is_nullable: bool = False
    #: The names of an enum's members.
    names: Mapping[Any, str] | None = None
    #: The attribute's type and class, if that type has fields, and the type with what it says of null.
    object_type: GraphQLObjectType | None = None
    kind: type | None = None
    return_type: Any = None
    #: How its resolver is called, if it has one whose arguments are known.
    call: _Call | None = None


#: The type of the objects of a class, where an interface or a union is asked for.
_types: Final[dict[tuple[Any, type], GraphQLObjectType]] = {}
#: What is neither null nor an error.
_PLAIN: Final = frozenset({str, int, float, bool})
#: Whether the objects of a class can be awaited.
_awaitables: Final[dict[type, bool]] = {}


def _is_awaitable(value: Any) -> TypeGuard[Awaitable[Any]]:
    kind = value.__class__
    known = _awaitables.get(kind)
    if known is None:
        known = is_awaitable(value)
        if kind is not GeneratorType:
            _awaitables[kind] = known
    return known


class TurnTaking(StrawberryGraphQLCoreExecutionContext):
    """Executes an operation turn by turn, and stops completing fields when its answer is too large.

    Answers of less than a turn are completed in one go, as without it. `@defer` and `@stream` aren't in the schema, so
    what they need is left out. What a document asks for is found out once, if it has no directive that decides.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._is_same_each_time = False
        self._root_type = cast("GraphQLObjectType", self.schema.get_root_type(self.operation.operation))
        self._forget()
        if self.context_value is not None:
            self._begin()

    @classmethod
    def of(
        cls,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        *,
        is_same_each_time: bool,
        hide_suggestions: bool,
    ) -> "TurnTaking":
        """Return what the executions of an operation have in common; `for_request` begins one.

        `is_same_each_time` says that no variable decides which fields are asked for.
        """
        fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        executor = cls(
            schema,
            fragments,
            {name: FragmentDetails(fragment) for name, fragment in fragments.items()},
            None,
            None,
            operation,
            VariableValues({}, {}),
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            hide_suggestions=hide_suggestions,
            is_awaitable=_is_awaitable,
        )
        executor._is_same_each_time = is_same_each_time
        return executor

    def for_request(self, context: Any, variables: VariableValues) -> "TurnTaking":
        """Return what executes the operation once."""
        executor = object.__new__(TurnTaking)
        executor.__dict__.update(self.__dict__)
        executor.context_value = context
        executor.variable_values = variables
        executor.collected_errors = CollectedErrors()
        if not self._is_same_each_time:
            executor._forget()
        executor._begin()
        return executor

    def for_event(self, event: Any, context: Any, variables: VariableValues) -> "TurnTaking":
        """Return what executes a subscription for one of its events."""
        executor = self.for_request(context, variables)
        executor.root_value = event
        return executor

    def _forget(self) -> None:
        """Know nothing of what the document asks for."""
        #: By the type, and the identity of what is asked for it, which is kept with what was found.
        self._collected: dict[tuple[Any, int], tuple[Any, Any]] = {}
        self._planned: dict[tuple[Any, int], tuple[Any, list[_Field]]] = {}

    def _begin(self) -> None:
        self.turn: Turn = self.context_value.turn
        self._bytes_max: float = self.context_value.answer_bytes_max
        #: Of the texts in the answer so far, in characters.
        self._length = 0

    @property
    def is_too_large(self) -> bool:
        """Whether the answer is larger than it may be. It is incomplete then."""
        return self._length > self._bytes_max

    def execute_operation(self, serially: bool | None = None) -> Any:
        """Execute the operation, a mutation's root fields one after the other unless it is said otherwise."""
        kind = self.operation.operation
        root_type = self._root_type
        is_serial = kind is OperationType.MUTATION if serially is None else serially
        try:
            asked = self._collect(root_type)
            if is_serial:
                return self._executed_serially(root_type, asked)
            data: Any = self.execute_fields(root_type, self.root_value, None, asked, None)
        except GraphQLError as error:
            return self._failed(error)
        return self._executed(data) if self.is_awaitable(data) else self._done(data)

    async def _executed(self, data: Awaitable[dict[str, Any]]) -> ExecutionResult:
        try:
            return self._done(await data)
        except GraphQLError as error:
            return self._failed(error)

    async def _executed_serially(self, root_type: GraphQLObjectType, asked: Any) -> ExecutionResult:
        """Complete the fields of a mutation, each when the one before it is done."""
        data = {}
        try:
            for field in self._plan(root_type, asked):
                result = self._resolve(root_type, self.root_value, field, Path(None, field.name, root_type.name))
                if result is not Undefined:
                    data[field.name] = await result if self.is_awaitable(result) else result
        except GraphQLError as error:
            return self._failed(error)
        return self._done(data)

    def _done(self, data: dict[str, Any] | None) -> ExecutionResult:
        return ExecutionResult(data, self.collected_errors.errors or None)

    def _failed(self, error: GraphQLError) -> ExecutionResult:
        """Return the result of an operation that has no part to show."""
        self.collected_errors.add(error, None)
        return self._done(None)

    def execute_fields(
        self, parent_type: Any, source_value: Any, path: Any, grouped_field_set: Any, _context: Any
    ) -> Any:
        """Complete the fields of an object: those that are shown as they are at once, the others by graphql-core."""
        results: dict[str, Any] = {}
        waiting: list[str] = []
        try:
            for field in self._plan(parent_type, grouped_field_set):
                result = Undefined if field.leaf is None else self._shown(source_value, field)
                if result is Undefined:
                    at = Path(path, field.name, parent_type.name)
                    if (
                        field.kind is not None
                        and type(part := getattr(source_value, field.attribute, None)) is field.kind
                    ):
                        result = self._complete_part(part, field, at)
                    else:
                        result = self._resolve(parent_type, source_value, field, at)
                    if result is Undefined:
                        continue
                    if result.__class__ is not dict and self.is_awaitable(result):
                        waiting.append(field.name)
                results[field.name] = result
        except Exception:
            if waiting:
                self.settle_in_background([results[name] for name in waiting])
            raise
        return _awaited(results, waiting) if waiting else results

    def _shown(self, source: Any, field: _Field) -> Any:
        """Return an attribute as the answer shows it, Undefined where graphql-core must say what is wrong with it."""
        value = getattr(source, field.attribute, None)
        if value is None:
            return None if field.is_nullable else Undefined
        try:
            if field.names is None:
                return self.complete_leaf_value(field.leaf, value)
            shown = field.names[value]
        except Exception:  # noqa: BLE001  (it comes again)
            return Undefined
        self._length += len(shown)
        return shown

    def _resolve(self, parent_type: Any, source: Any, field: _Field, path: Path) -> Any:
        """Call a field's resolver, and complete what it returns."""
        call = field.call
        arguments = None if call is None else call.arguments.read(self.variable_values.coerced)
        if call is None or arguments is None:
            return self.execute_field(parent_type, source, field.details, path, None)
        info = self.build_resolve_info(call.definition, call.nodes, parent_type, path)
        try:
            result = call.resolve(source, info, **arguments)
            if self.is_awaitable(result):
                return self.complete_awaitable_value(field.return_type, field.details, info, path, result, None)
            completed: Any = self.complete_value(field.return_type, field.details, info, path, result, None)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the field's)
            self.handle_field_error(error, field.return_type, field.details, path)
            return None
        if completed.__class__ is dict or not self.is_awaitable(completed):
            return completed
        return self._awaited_part(completed, field, path)

    def _complete_part(self, part: Any, field: _Field, path: Path) -> Any:
        """Complete an object that is an attribute of another one."""
        try:
            kind = cast("GraphQLObjectType", field.object_type)
            result: Any = self.collect_and_execute_subfields(kind, field.details, path, part, None)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the field's)
            self.handle_field_error(error, field.return_type, field.details, path)
            return None
        if result.__class__ is dict or not self.is_awaitable(result):
            return result
        return self._awaited_part(result, field, path)

    async def _awaited_part(self, result: Awaitable[Any], field: _Field, path: Path) -> Any:
        try:
            return await result
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the field's)
            self.handle_field_error(error, field.return_type, field.details, path)
            return None

    def _plan(self, parent_type: GraphQLObjectType, grouped_field_set: Any) -> list[_Field]:
        """Return the fields that are asked of an object."""
        key = (parent_type, id(grouped_field_set))
        planned = self._planned.get(key)
        if planned is None:
            fields = [self._field(parent_type, name, details) for name, details in grouped_field_set.items()]
            planned = self._planned[key] = (grouped_field_set, fields)
        return planned[1]

    def _field(self, parent_type: GraphQLObjectType, name: str, details: Any) -> _Field:
        shown = parent_type.fields.get(details[0].node.name.value)
        field: Any = shown and shown.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
        if shown is None or field is None:
            return _Field(name, details, "")
        if not field.is_basic_field:
            return _Field(name, details, "", return_type=shown.type, call=self._call(shown, details))
        inner = get_nullable_type(shown.type)
        if is_leaf_type(inner):
            nullable = inner is shown.type
            return _Field(name, details, field.python_name, inner, is_nullable=nullable, names=_names(inner))
        if is_object_type(inner):
            kind = inner.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].origin
            return _Field(name, details, field.python_name, object_type=inner, kind=kind, return_type=shown.type)
        return _Field(name, details, "")

    def _call(self, shown: GraphQLField, details: Any) -> _Call | None:
        first = details[0]
        if not self._is_same_each_time or shown.resolve is None or first.fragment_variable_values is not None:
            return None
        declared = [each.variable.name.value for each in self.operation.variable_definitions or ()]
        arguments = Arguments.of(shown, first.node, declared)
        return None if arguments is None else _Call(shown, [each.node for each in details], shown.resolve, arguments)

    def _collect(self, root_type: GraphQLObjectType) -> Any:
        """Return the fields that a document asks of the root."""
        key = (root_type, id(self.operation))
        collected = self._collected.get(key)
        if collected is None:
            fields = collect_fields(
                self.schema, self.fragments, self.variable_values, root_type, self.operation, self.hide_suggestions
            )
            collected = self._collected[key] = (self.operation, fields)
        return collected[1].grouped_field_set

    def collect_subfields(self, return_type: GraphQLObjectType, field_details_list: Any) -> Any:
        """Return the fields that a document asks of what a field returns."""
        key = (return_type, id(field_details_list))
        collected = self._collected.get(key)
        if collected is None:
            fields = super().collect_subfields(return_type, field_details_list)
            collected = self._collected[key] = (field_details_list, fields)
        return collected[1]

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """Complete a value, at once if its class tells its type: a plain scalar, or of an interface or a union."""
        inner = return_type.of_type if return_type.__class__ is GraphQLNonNull else return_type
        if result.__class__ in _PLAIN and inner.__class__ is GraphQLScalarType:
            return self.complete_leaf_value(inner, result)
        object_type = _types.get((inner, result.__class__))
        if object_type is None:
            return super().complete_value(return_type, field_details_list, info, path, result, position_context)
        return self.collect_and_execute_subfields(object_type, field_details_list, path, result, None)

    def ensure_valid_runtime_type(
        self, runtime_type_name: Any, return_type: Any, field_details_list: Any, info: Any, result: Any
    ) -> GraphQLObjectType:
        """Return the type of an object, and remember it for its class."""
        found = super().ensure_valid_runtime_type(runtime_type_name, return_type, field_details_list, info, result)
        definition = get_object_definition(type(result))
        if definition is not None and definition.name == runtime_type_name:
            _types[return_type, type(result)] = found
        return found

    def execute_collected_subfields(
        self, parent_type: Any, source_value: Any, path: Any, grouped_field_set: Any, _defer: Any, _context: Any
    ) -> Any:
        """Complete the fields of an object."""
        self.turn.left -= len(grouped_field_set)
        if self._length > self._bytes_max:
            return {}
        return self.execute_fields(parent_type, source_value, path, grouped_field_set, None)

    def complete_leaf_value(self, return_type: Any, result: Any) -> Any:  # type: ignore[override]
        """Complete a scalar; a method here, because it counts."""
        value = return_type.coerce_output_value(result)
        if value is None or value is Undefined:
            # It says what is wrong.
            return super().complete_leaf_value(return_type, result)
        if value.__class__ is str:
            self._length += len(value)
        return value

    async def complete_awaitable_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        """Complete a field whose resolver is asynchronous."""
        turn = self.turn
        try:
            if turn.left <= 0:
                await _next(turn, result)
            resolved = await result
            if turn.left <= 0:
                await turn.next()
            completed = self.complete_value(return_type, field_details_list, info, path, resolved, position_context)
            if completed.__class__ is dict or not self.is_awaitable(completed):
                return completed
            return await completed
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the field's)
            self.handle_field_error(error, return_type, field_details_list, path)
            return None

    def complete_iterable_value(
        self, item_type: Any, field_details_list: Any, info: Any, path: Any, items: Iterable[Any], _context: Any
    ) -> Any:
        """Complete a list, at once if this turn is long enough for it."""
        turn = self.turn
        completing = _List(self, turn, item_type, field_details_list, info, path)
        numbered = enumerate(items)
        try:
            for index, item in numbered:
                if turn.left <= 0:
                    return completing.add_rest(chain(((index, item),), numbered))
                completing.add(index, item)
        except Exception:
            completing.abandon()
            raise
        return completing.all() if completing.awaitable else completing.completed


@cache
def _names(leaf: GraphQLLeafType) -> Mapping[Any, str] | None:
    """Return the names of an enum's members, None for another type."""
    if not isinstance(leaf, CustomGraphQLEnumType):
        return None
    members: Any = leaf.wrapped_cls
    return {member: leaf.coerce_output_value(member) for member in members}


async def _awaited(results: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    """Return the fields of an object when those are complete that are waited for."""
    if len(waiting) == 1:
        results[waiting[0]] = await results[waiting[0]]
    else:
        results.update(zip(waiting, await gather_with_cancel(*(results[name] for name in waiting)), strict=True))
    return results


async def _next(turn: Turn, awaitable: Any) -> None:
    """Wait for the next turn, before something is awaited that mustn't be forgotten when the operation is cancelled."""
    try:
        await turn.next()
    except BaseException:
        if iscoroutine(awaitable):
            awaitable.close()
        raise


class _List:
    """A list on its way to being complete."""

    __slots__ = ("_executor", "_how", "_path", "_turn", "awaitable", "completed")

    def __init__(self, executor: TurnTaking, turn: Turn, item_type: Any, fields: Any, info: Any, path: Any) -> None:
        self._executor = executor
        self._turn = turn
        self._how = (item_type, fields, info)
        self._path = path
        self.completed: list[Any] = []
        #: The places in `completed` of what is to be awaited.
        self.awaitable: list[int] = []

    def add(self, index: int, item: Any) -> None:
        """Complete an item, or begin to."""
        executor = self._executor
        self._turn.left -= 1
        path = self._path.add_key(index, None)
        if executor.is_awaitable(item):
            self.completed.append(executor.complete_awaitable_list_item_value(item, *self._how, path, None))
            self.awaitable.append(index)
        elif executor.complete_list_item_value(item, self.completed, *self._how, path, None):
            self.awaitable.append(index)

    async def add_rest(self, items: Iterator[tuple[int, Any]]) -> list[Any]:
        """Complete the other items, as many a turn as it has room for. Returns all."""
        turn = self._turn
        try:
            for index, item in items:
                if turn.left <= 0:
                    await turn.next()
                self.add(index, item)
        except Exception:
            self.abandon()
            raise
        except BaseException:
            for index in self.awaitable:
                self.completed[index].close()
            raise
        return await self.all() if self.awaitable else self.completed

    async def all(self) -> list[Any]:
        """Wait for what is to be awaited. Returns all items."""
        waiting = [self.completed[index] for index in self.awaitable]
        done = [await waiting[0]] if len(waiting) == 1 else await gather_with_cancel(*waiting)
        for index, value in zip(self.awaitable, done, strict=True):
            self.completed[index] = value
        return self.completed

    def abandon(self) -> None:
        """Let what has begun end by itself: an item that may not be null has failed."""
        if self.awaitable:
            self._executor.settle_in_background([self.completed[index] for index in self.awaitable])
