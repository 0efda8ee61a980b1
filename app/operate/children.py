"""A child process that is restarted when it dies, and that never outlives its supervisor."""

import asyncio
import contextlib
import ctypes
import functools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: From SIGTERM to SIGKILL; an API process gives its requests 8 seconds.
STOP_SECONDS_MAX: Final = 10.0
_RESTART_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_CALM_SECONDS: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
#: Loaded here, because between fork and exec nothing may be loaded.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Child:
    """A process to run. Without a `log` it writes to the supervisor's stderr."""

    name: str
    arguments: list[str]
    stop_signal: signal.Signals = signal.SIGTERM
    uid: int | None = None
    log: Path | None = None
    inherits: tuple[int, ...] = ()
    stopping: bool = False
    process: asyncio.subprocess.Process | None = None
    _keeper: "asyncio.Task[None] | None" = field(default=None, repr=False)

    async def start(self, tell: Callable[[str], None], ended: Callable[["Child", int, str], None]) -> None:
        """Start the process and keep it running. `ended` is told of each end: its number in a row, and the exit."""
        self.process = await self._spawn()
        self._keeper = asyncio.create_task(self._keep(self.process, tell, ended))

    async def run_once(self) -> int:
        self.process = await self._spawn()
        return await self.process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self.log.open("ab")) if self.log else sys.stderr
            return await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.uid,
                group=self.uid,
                pass_fds=self.inherits,
                # Ctrl-C in a terminal is for the supervisor, which stops its children in order.
                start_new_session=True,
                preexec_fn=functools.partial(_end_with_parent, self.stop_signal),
            )

    async def _keep(
        self,
        process: asyncio.subprocess.Process,
        tell: Callable[[str], None],
        ended: Callable[["Child", int, str], None],
    ) -> None:
        """Restart the process whenever it ends by itself. The pause grows with each end in a row."""
        ends = 0
        while True:
            started = time.monotonic()
            status = await process.wait()
            if self.stopping:
                return
            ends = 1 if time.monotonic() - started > _CALM_SECONDS else ends + 1
            pause = _RESTART_SECONDS[min(ends, len(_RESTART_SECONDS)) - 1]
            ended(self, ends, _ending(status))
            tell(f"{self.name} ended ({_ending(status)}); restarting it in {pause} s")
            await asyncio.sleep(pause)
            if self.stopping:
                return
            try:
                self.process = process = await self._spawn()
            except OSError as error:
                tell(f"{self.name} can't be started ({error})")

    async def stop(self, hurry: asyncio.Event) -> None:
        """Send the stop signal, then SIGKILL after STOP_SECONDS_MAX or as soon as `hurry` is set."""
        self.stopping = True
        process = self.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.stop_signal)
            gone, hurried = asyncio.create_task(process.wait()), asyncio.create_task(hurry.wait())
            await asyncio.wait({gone, hurried}, timeout=STOP_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not gone.done():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await gone
        if self._keeper is not None:
            self._keeper.cancel()

    def last_line(self) -> str:
        """Return the last line of the log, which usually says what went wrong."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines() if self.log else []
        except OSError:
            lines = []
        return lines[-1].strip() if lines else ""


def _end_with_parent(stop_signal: signal.Signals) -> None:
    """In the child: stop when the supervisor ends, even if it is killed. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, stop_signal)


def _ending(status: int) -> str:
    return f"exit {status}" if status >= 0 else signal.Signals(-status).name
