"""Running the process that draws: its memory and time are bounded, and it ends with whoever waits for it."""

import asyncio
import contextlib
import os
import signal
import sys
from typing import Final

#: Less than the lease of a job (jobs.LEASE): the process is nice to others, so on a busy machine it takes its time.
SECONDS_MAX: Final = 270.0
#: A drawing process gets rows and returns rows: it needs no key and no server.
_SECRET: Final = ("FLASH_", "DATABASE_", "REDIS_")
#: How the kernel ends a process that is over its limits, and what is said where memory isn't given.
_OVER: Final = (-signal.SIGXCPU, -signal.SIGKILL)
_NO_MEMORY: Final = ("MemoryError", "Out of memory")


class DrawingError(Exception):
    """A network couldn't be drawn; `failure` is a `GraphJobFailure`, the message has the end of what was said of it."""

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


async def drawn(message: bytes, *, seconds_max: float = SECONDS_MAX) -> bytes:
    """Return the answer of a drawing process to a message. Raises DrawingError. Cancelling kills the process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRET)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.graph.draw",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds_max):
            answer, said = await process.communicate(message)
    except TimeoutError:
        raise DrawingError("TOO_SLOW", f"drawing took longer than {seconds_max:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        last = said.decode(errors="replace").strip().rpartition("\n")[2][-200:]
        is_too_large = process.returncode in _OVER or any(each in last for each in _NO_MEMORY)
        raise DrawingError(
            "TOO_LARGE" if is_too_large else "FAULT", f"drawing ended with status {process.returncode}: {last}"
        )
    return answer
