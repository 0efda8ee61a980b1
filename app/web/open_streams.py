"""What stays open at this process, sockets and event streams: how many, how slow, and until when."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Send

from app.telemetry.metrics import STREAMS

log = logging.getLogger("flash.streams")


class SlowReaderError(Exception):
    """The reader doesn't take what is sent; it is to come back and resume."""


class OpenStreams:
    """The count of open streams, and whether the process is ending."""

    def __init__(self, streams_max: int, send_seconds_max: float) -> None:
        """Start with none. A reader may take nothing of what is sent to it for so many seconds."""
        self._max = streams_max
        self._send_seconds_max = send_seconds_max
        self._open = 0
        self.ending = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether no other stream may open."""
        return self._open >= self._max

    @property
    def is_over(self) -> bool:
        """Whether more are open than may be: the last one has to go."""
        return self._open > self._max

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a stream for the length of the block."""
        self._open += 1
        STREAMS.inc()
        try:
            yield
        finally:
            self._open -= 1
            STREAMS.dec()

    async def send_in_time(self, send: Send, message: Message) -> None:
        """Send a message. Raises SlowReaderError when the reader has taken nothing for too long."""
        try:
            async with asyncio.timeout(self._send_seconds_max):
                await send(message)
        except TimeoutError:
            log.info("a stream ends: its reader took nothing for %g s", self._send_seconds_max)
            raise SlowReaderError from None
