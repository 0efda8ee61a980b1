"""How long work for a request goes on: until it is done, its time is over, or its client has left."""

import asyncio
from types import TracebackType
from typing import Final

from starlette.types import Receive

#: Most work is done before this, and needs no watching task.
_LOOK_AFTER_SECONDS: Final = 0.1


class ClientLeftError(Exception):
    """The client closed its connection."""


class Deadlines:
    """The work that is under way, all of it with the same time. One timer looks after all that isn't done soon."""

    def __init__(self, seconds: float) -> None:
        """Take how many seconds there are for each."""
        self._seconds = seconds
        self._look_after = min(_LOOK_AFTER_SECONDS, seconds)
        #: What nobody watches yet, the oldest first.
        self._new: dict[WhileWanted, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def while_wanted(self, receive: Receive) -> "WhileWanted":
        """Return a block that ends with ClientLeftError when the client leaves, and with TimeoutError when time is up.

        What the block awaits is cancelled: a statement ends in the database too, and a transaction is rolled back. The
        request's body must have been received before.
        """
        return WhileWanted(self, receive)

    def begun(self, block: "WhileWanted") -> None:
        """Learn of work."""
        self._new[block] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_after, self._look)

    def ended(self, block: "WhileWanted") -> None:
        """Learn that work is done."""
        self._new.pop(block, None)

    def _look(self) -> None:
        """Watch what has been under way for some time."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for block in list(self._new):
            if (early := block.since + self._look_after - now) > 0:
                self._timer = loop.call_later(early, self._look)
                break
            del self._new[block]
            block.watch(block.since + self._seconds)


class WhileWanted:
    """Work for one request; `Deadlines.while_wanted` makes it."""

    __slots__ = ("_cancelling", "_deadlines", "_ended", "_receive", "_task", "_watching", "since")

    def __init__(self, deadlines: Deadlines, receive: Receive) -> None:
        self._deadlines = deadlines
        self._receive = receive
        self._ended: type[Exception] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("work for a request outside a task")
        self._task = task
        self._cancelling = task.cancelling()
        #: By the clock of the event loop.
        self.since = loop.time()
        self._deadlines.begun(self)

    async def __aexit__(self, _kind: type[BaseException] | None, error: BaseException | None,
                        _traceback: TracebackType | None) -> None:  # fmt: skip
        self._deadlines.ended(self)
        if self._watching is not None:
            self._watching.cancel()
        if (
            self._ended is not None
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, asyncio.CancelledError)
        ):
            raise self._ended from error

    def watch(self, until: float) -> None:
        """Look from now on whether the client leaves, and end the work then, or at this time of the event loop."""
        self._watching = asyncio.get_running_loop().create_task(self._end_in_time(until))

    async def _end_in_time(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            self._ended = ClientLeftError
        except TimeoutError:
            self._ended = TimeoutError
        self._task.cancel()
