"""Turns of the event loop: an operation that has completed its share of fields lets everybody else go first."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from inspect import iscoroutine
from itertools import chain
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from graphql.pyutils import Undefined, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

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


class TurnTaking(StrawberryGraphQLCoreExecutionContext):
    """Executes an operation turn by turn, and stops completing fields when its answer is too large.

    Answers of less than a turn are completed in one go, as without it. `@defer` and `@stream` aren't in the schema, so
    what they need is left out.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._begin()

    def for_event(self, event: Any, context: Any) -> "TurnTaking":
        """Return what executes a subscription for one of its events."""
        executor = cast("TurnTaking", self.build_per_event_executor(event))
        executor.context_value = context
        executor._begin()
        return executor

    def _begin(self) -> None:
        self.turn: Turn = self.context_value.turn
        self._bytes_max: float = self.context_value.answer_bytes_max
        #: Of the texts in the answer so far, in characters.
        self._length = 0

    @property
    def is_too_large(self) -> bool:
        """Whether the answer is larger than it may be. It is incomplete then."""
        return self._length > self._bytes_max

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
            return await completed if self.is_awaitable(completed) else completed
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
