"""First come, first served: who waits for a connection has it before whoever asks later."""

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns:
    """How many may be at something at a time. The turn of who leaves is given to who has waited longest."""

    __slots__ = ("_left", "_waiting")

    def __init__(self, most: int) -> None:
        self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a turn, and return true, unless one must be waited for."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    async def acquire(self) -> None:
        """Wait for a turn."""
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It was given at the same moment.
                self.release()
            raise

    def release(self) -> None:
        """Give a turn back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._left += 1


class InTurn(Generic[T]):
    """A connection or a transaction for the length of a block, given to whoever asked first.

    asyncpg's pool wakes who has waited longest, but until that runs, a newcomer takes the connection, and the woken one
    waits again, as the last. Under many who ask at once, those who ask again and again would keep out all others.
    """

    __slots__ = ("_context", "_taken", "_turns")

    def __init__(self, context: AbstractAsyncContextManager[T], *turns: Turns) -> None:
        """Take the block's context, and how many may be in such a block; of several limits the first comes first."""
        self._context = context
        self._turns = turns
        self._taken: list[Turns] = []

    async def __aenter__(self) -> T:
        try:
            for each in self._turns:
                await each.acquire()
                self._taken.append(each)
            return await self._context.__aenter__()
        except BaseException:
            self._give_back()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._context.__aexit__(kind, error, traceback)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        for each in self._taken:
            each.release()
        self._taken.clear()
