"""Running the processes that draw: their memory and time are bounded, and they end with whoever waits for them."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from types import TracebackType
from typing import Final, Self

from app.graph.draw import frame, referrals_in
from app.graph.jobs import SMALL_REFERRALS_MAX

#: Less than the lease of a job (jobs.LEASE): the process is nice to others, so on a busy machine it takes its time.
SECONDS_MAX: Final = 270.0
#: After so many a process is replaced, so that nothing that it may leave behind can add up.
DRAWINGS_MAX: Final = 500
#: A drawing process gets rows and returns rows: it needs no key and no server.
_SECRET: Final = ("FLASH_", "DATABASE_", "REDIS_")
#: How the kernel ends a process that is over its limits, and what is said where memory isn't given.
_OVER: Final = (-signal.SIGXCPU, -signal.SIGKILL)
_NO_MEMORY: Final = ("MemoryError", "Out of memory")
_SAID_BYTES_MAX: Final = 4096


class DrawingError(Exception):
    """A network couldn't be drawn; `failure` is a `GraphJobFailure`, the message has the end of what was said of it."""

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class Drawer:
    """Has networks drawn, one after the other. Small ones share a process, each large one has its own."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._said: asyncio.Task[bytes] | None = None
        self._drawings = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def pid(self) -> int | None:
        """The process that draws the next small network, unless one has to be started for it."""
        return None if self._process is None else self._process.pid

    async def drawn(self, message: bytes, *, seconds_max: float = SECONDS_MAX) -> bytes:
        """Return the answer of a drawing process to a message. Raises DrawingError. Cancelling kills the process.

        No network is blamed for what others left: where a process fails that has drawn some, a new one tries again.
        """
        try:
            async with asyncio.timeout(seconds_max):
                if referrals_in(message) > SMALL_REFERRALS_MAX:
                    await self._end()
                    return await self._answer(message, drawings_max=1)
                if self._drawings:
                    with contextlib.suppress(DrawingError):
                        return await self._answer(message)
                return await self._answer(message)
        except TimeoutError:
            raise DrawingError("TOO_SLOW", f"drawing took longer than {seconds_max:.0f} s") from None

    async def _answer(self, message: bytes, *, drawings_max: int | None = None) -> bytes:
        goes_on = False
        try:
            process, said = await self._running()
            answer = await _asked(process, message)
            if answer is None:
                raise _failure(await process.wait(), await said)
            self._drawings += 1
            goes_on = self._drawings < (drawings_max or DRAWINGS_MAX)
        finally:
            if not goes_on:
                await self._end()
        return answer

    async def _running(self) -> tuple[Process, asyncio.Task[bytes]]:
        if self._process is None or self._said is None:
            environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRET)}
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app.graph.draw",
                stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True,
            )  # fmt: skip
            self._said = asyncio.create_task(_end_of(self._process.stderr))
        return self._process, self._said

    async def _end(self) -> None:
        process, said = self._process, self._said
        self._process, self._said, self._drawings = None, None, 0
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if said is not None:
            await said


async def _asked(process: Process, message: bytes) -> bytes | None:
    """Return the answer of a process to a message, or None if it ended instead."""
    if process.stdin is None or process.stdout is None:
        return None
    try:
        process.stdin.write(frame([message]))
        await process.stdin.drain()
        length = await process.stdout.readexactly(8)
        return await process.stdout.readexactly(int.from_bytes(length))
    except (ConnectionError, asyncio.IncompleteReadError):
        return None


async def _end_of(stream: asyncio.StreamReader | None) -> bytes:
    """Read all that a process says, so that it never waits for a reader. Returns the end of it."""
    end = b""
    while stream is not None and (said := await stream.read(_SAID_BYTES_MAX)):
        end = (end + said)[-_SAID_BYTES_MAX:]
    return end


def _failure(status: int, said: bytes) -> DrawingError:
    last = said.decode(errors="replace").strip().rpartition("\n")[2][-200:]
    is_too_large = status in _OVER or any(each in last for each in _NO_MEMORY)
    return DrawingError("TOO_LARGE" if is_too_large else "FAULT", f"drawing ended with status {status}: {last}")
