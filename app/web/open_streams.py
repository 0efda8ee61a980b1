"""The sockets and event streams that are open at this process: their limits, their slow readers and their end."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Send

from app.api.context import Role, Viewer
from app.config import Settings
from app.telemetry.metrics import STREAMS

log = logging.getLogger("flash.streams")


class NoRoomError(Exception):
    """No further stream may be opened here; the message says why."""

    def __init__(self, message: str, *, is_own_fault: bool) -> None:
        super().__init__(message)
        #: Whether the caller itself has too many, and not everybody together.
        self.is_own_fault = is_own_fault


class SlowReaderError(Exception):
    """The reader takes nothing of what is sent; it should connect again and resume."""


class OpenStreams:
    """Counts open streams by owner, and sockets that aren't authenticated yet. Ends all when the process ends."""

    def __init__(self, limits: Settings) -> None:
        self._max = limits.streams_max
        self._per_member_max = limits.streams_per_member_max
        self._per_key_max = max(int(limits.streams_max * limits.streams_per_key_share), 1)
        self._waiting_max = limits.sockets_waiting_max
        self._send_seconds_max = limits.stream_send_seconds_max
        self._open: Counter[str] = Counter()
        #: The deadlines of sockets that aren't authenticated, the oldest first.
        self._waiting: dict[asyncio.Timeout, None] = {}
        self._goodbyes: set[Callable[[], None]] = set()
        self.ending = asyncio.Event()

    def end(self) -> None:
        """Note that the process is ending, and let every stream end."""
        self.ending.set()
        for say_goodbye in list(self._goodbyes):
            say_goodbye()

    def refuse_more(self, viewer: Viewer) -> None:
        """Raise NoRoomError unless the viewer may open another stream."""
        if self.ending.is_set():
            raise NoRoomError("This process is ending; try again.", is_own_fault=False)
        if viewer.role is Role.MEMBER:
            most, who = self._per_member_max, "member"
        else:
            most, who = self._per_key_max, "key"
        if self._open[viewer.actor] >= most:
            raise NoRoomError(f"This {who} has {most} streams open here; close one.", is_own_fault=True)
        if self._open.total() >= self._max:
            raise NoRoomError("Too many streams are open here; try again.", is_own_fault=False)

    @contextmanager
    def one(self, viewer: Viewer, say_goodbye: Callable[[], None]) -> Iterator[None]:
        """Count a stream for the length of the block. `say_goodbye` is called when the process ends.

        Raises NoRoomError.
        """
        self.refuse_more(viewer)
        self._open[viewer.actor] += 1
        self._goodbyes.add(say_goodbye)
        STREAMS.inc()
        try:
            yield
        finally:
            self._goodbyes.discard(say_goodbye)
            self._open[viewer.actor] -= 1
            if not self._open[viewer.actor]:
                del self._open[viewer.actor]
            STREAMS.dec()

    @contextmanager
    def waiting(self, patience: asyncio.Timeout) -> Iterator[None]:
        """Count a socket that hasn't said whose it is yet. If there are too many, the deadline of the oldest comes now.

        So a crowd of silent sockets doesn't keep out those that say it at once.
        """
        if len(self._waiting) >= self._waiting_max:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
        self._waiting[patience] = None
        try:
            yield
        finally:
            self._waiting.pop(patience, None)

    async def send_in_time(self, send: Send, message: Message) -> None:
        """Send a message. Raises SlowReaderError when the reader has taken nothing for too long."""
        try:
            async with asyncio.timeout(self._send_seconds_max):
                await send(message)
        except TimeoutError:
            log.info("a stream ends: its reader took nothing for %g s", self._send_seconds_max)
            raise SlowReaderError from None
