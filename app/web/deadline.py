"""How long work for a request goes on: until it is done, its time is over, or its client has left."""

import asyncio
from types import TracebackType
from typing import Final

from starlette.types import Receive

#: Most work is done before this, and needs no watching task.
_LOOK_AFTER_SECONDS: Final = 0.1


class ClientLeftError(Exception):
    """The client closed its connection."""


class WhileWanted:
    """A block that ends with ClientLeftError when the client leaves, and with TimeoutError after so many seconds.

    What the block awaits is cancelled: a statement ends in the database too, and a transaction is rolled back. The
    request's body must have been received before.
    """

    __slots__ = ("_cancelling", "_ended", "_receive", "_seconds", "_task", "_timer", "_watch")

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._ended: type[Exception] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("work for a request outside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = loop.call_later(min(_LOOK_AFTER_SECONDS, self._seconds), self._look)

    async def __aexit__(self, _kind: type[BaseException] | None, error: BaseException | None,
                        _traceback: TracebackType | None) -> None:  # fmt: skip
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if (
            self._ended is not None
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise self._ended from error

    def _look(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._end_in_time())

    async def _end_in_time(self) -> None:
        try:
            async with asyncio.timeout(max(self._seconds - _LOOK_AFTER_SECONDS, 0)):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            self._ended = ClientLeftError
        except TimeoutError:
            self._ended = TimeoutError
        self._task.cancel()
