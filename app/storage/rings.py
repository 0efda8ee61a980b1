"""Doorbells: what was committed is told through Valkey; the table is the letter, and a lost ring costs one sweep.

Rings carry the change itself, so that a listener that misses nothing reads nothing. Texts and addresses are in them
as they are in the database: encrypted.
"""

import asyncio
import base64
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Final, cast
from uuid import UUID

import orjson
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from app.storage.database import Statements
from app.telemetry.metrics import RINGS_LOST

log = logging.getLogger("flash.rings")

#: Rings that wait for a slow Valkey; beyond these the oldest are lost.
WAITING_MAX: Final = 10_000
_BATCH: Final = 500
#: Rings that follow each other this closely are sent together: each sending costs as much as a tenth of a claim. The
#: first after a silence is sent at once.
_TOGETHER_SECONDS: Final = 0.02
_SECONDS_MAX: Final = 0.5
_PAUSE_SECONDS: Final = 0.5
#: After this silence a listener asks whether Valkey is there, and after as much again it connects anew.
_SILENCE_SECONDS: Final = 2.0
_CHANNELS_PER_COMMAND: Final = 1000
_BEGUN: Final = b"begun"
_NOTHING: Final = b"{}"
#: Where a process rings that has lost rings, once Valkey takes them again.
MISSED: Final = "flash:missed"

#: What `decode` raises: whatever lies in Valkey, listening goes on.
NO_RING: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "bytes": base64.b64decode,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "UUID": UUID,
}
#: Rows of one statement have few combinations of nulls.
_ROWS_KEPT_MAX: Final = 1_000

#: Returns the row that a ring carries.
Carrying = Callable[[], Mapping[str, Any]]


class Bell:
    """What this process rings with: one connection, written to by one task, never waited for.

    Valkey is asked first which channels somebody listens to, and the other rings are forgotten: most changes are of
    wallets that nobody watches, and spelling one costs as much as a tenth of a claim. Who begins to listen afterwards
    reads the table afterwards, where the change is committed.
    """

    def __init__(self, redis_url: str) -> None:
        """Take the URL; `run` connects."""
        self._connection = _connection(redis_url)
        self._waiting: deque[tuple[str, Carrying]] = deque(maxlen=WAITING_MAX)
        self._rung = asyncio.Event()
        self._has_lost = False

    def ring(self, channel: str, carrying: Carrying) -> None:
        """Leave a ring to be sent soon. Takes no time whatever Valkey does."""
        self._waiting.append((channel, carrying))
        self._rung.set()

    async def run(self) -> None:
        """Send rings until cancelled. What Valkey doesn't take in time is lost, and told by the sweep."""
        connection = self._connection
        try:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                # The first ring shouldn't wait for it; if it fails, that one tries again.
                await connection.connect()  # type: ignore[no-untyped-call]
            sent_at = 0.0
            while True:
                await self._rung.wait()
                early = sent_at + _TOGETHER_SECONDS - time.monotonic()
                if early > 0:
                    await asyncio.sleep(early)
                self._rung.clear()
                sent_at = time.monotonic()
                while self._waiting:
                    batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
                    try:
                        async with asyncio.timeout(_SECONDS_MAX):
                            await connection.connect()  # type: ignore[no-untyped-call]
                            await self._send(batch)
                        self._has_lost = False
                    except (RedisError, OSError, TimeoutError) as error:
                        log.warning("%d rings are lost: Valkey is away (%s)", len(batch), type(error).__name__)
                        self._has_lost = True
                        RINGS_LOST.inc(len(batch))
                        await connection.disconnect(nowait=True)
                        await asyncio.sleep(_PAUSE_SECONDS)
                        RINGS_LOST.inc(len(self._waiting))
                        self._waiting.clear()
        finally:
            await connection.disconnect(nowait=True)

    async def _send(self, batch: list[tuple[str, Carrying]]) -> None:
        heard = await self._heard({channel for channel, _ in batch})
        rings = [_publish(channel, _message(carrying)) for channel, carrying in batch if channel in heard]
        if self._has_lost:
            rings.append(_publish(MISSED, _NOTHING))
        if rings:
            await self._connection.send_packed_command(b"".join(rings), check_health=False)
            for _ in rings:
                await self._connection.read_response()

    async def _heard(self, channels: set[str]) -> set[str]:
        """Return those channels that somebody listens to; all of them where Valkey's user may not ask that."""
        await self._connection.send_command("PUBSUB", "NUMSUB", *channels, check_health=False)
        try:
            counts: list[Any] = await self._connection.read_response()
        except ResponseError:
            return channels
        return {channel.decode() for channel, count in zip(counts[::2], counts[1::2], strict=True) if count}


def _publish(channel: str, message: bytes) -> bytes:
    """Return the command as Valkey reads it. The library's own packing is for commands of any kind, and ten calls."""
    name = channel.encode()
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(message), message)


def _message(carrying: Carrying) -> bytes:
    try:
        return encode(carrying())
    except Exception:
        # What was done stays done; listeners that can't read a ring read the table.
        log.exception("a ring carries nothing")
        return _NOTHING


_bell: Bell | None = None


@asynccontextmanager
async def ringing(redis_url: str | None) -> AsyncIterator[None]:
    """Let this process ring for the length of the block; without a Valkey it stays silent."""
    global _bell  # noqa: PLW0603  (one bell per process)
    if redis_url is None:
        yield
        return
    _bell = Bell(redis_url)
    running = asyncio.create_task(_bell.run())
    try:
        yield
    finally:
        _bell = None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def nothing() -> Mapping[str, Any]:
    """Return what a ring carries that says only that there is something to read."""
    return {}


def ring(where: Statements, channel: str, carrying: Carrying = nothing) -> None:
    """Ring on a channel once what was written on `where` is committed; `carrying` is called if somebody listens."""
    if _bell is not None:
        where.after_commit(partial(_bell.ring, channel, carrying))


class Listener:
    """One subscription connection of this process, whatever number of channels it listens to."""

    def __init__(
        self, redis_url: str, heard: Callable[[str, Mapping[str, Any]], None], began: Callable[[], None]
    ) -> None:
        """Take who is told of rings, and of each time that listening begins: what rang before that was missed."""
        self._connection = _connection(redis_url)
        self._heard = heard
        self._began = began
        self._channels: set[str] = set()
        self._confirming: dict[str, asyncio.Future[None]] = {}
        self._is_connected = False
        #: Whether all that rings is heard.
        self.is_listening = False

    async def listen(self, channel: str) -> None:
        """Listen to a channel. Returns when rings are heard, or soon when Valkey is away or slow."""
        self._channels.add(channel)
        if not self._is_connected:
            return
        confirmed = self._confirming.setdefault(channel, asyncio.get_running_loop().create_future())
        await self._send("SUBSCRIBE", [channel])
        await asyncio.wait([confirmed], timeout=_SECONDS_MAX)

    async def ignore(self, channel: str) -> None:
        """Listen to a channel no longer."""
        self._channels.discard(channel)
        if self._is_connected:
            await self._send("UNSUBSCRIBE", [channel])

    async def run(self) -> None:
        """Listen until cancelled, connecting again whenever Valkey went away or silent."""
        is_new = True
        while True:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await self._connection.connect()  # type: ignore[no-untyped-call]
                    await self._greet()
                is_new = True
                await self._hear()
            except (RedisError, OSError, TimeoutError) as error:
                if is_new:
                    log.warning("listening is interrupted: Valkey is away (%s)", type(error).__name__)
                is_new = False
            finally:
                self._is_connected = self.is_listening = False
                await self._connection.disconnect(nowait=True)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _greet(self) -> None:
        """Listen to all channels again; Valkey echoes when it has begun."""
        self._is_connected = True
        channels = list(self._channels)
        for start in range(0, len(channels), _CHANNELS_PER_COMMAND):
            await self._command("SUBSCRIBE", *channels[start : start + _CHANNELS_PER_COMMAND])
        await self._command("PING", _BEGUN)

    async def _hear(self) -> None:
        is_asked = False
        while True:
            response: Any = await self._connection.read_response(timeout=_SILENCE_SECONDS)
            if response is None:
                if is_asked:
                    raise TimeoutError("Valkey is silent")
                await self._command("PING", b"")
            is_asked = response is None
            match response:
                case [b"message", channel, message]:
                    self._tell(channel.decode(), message)
                case [b"subscribe", channel, _]:
                    confirmed = self._confirming.pop(channel.decode(), None)
                    if confirmed is not None and not confirmed.done():
                        confirmed.set_result(None)
                case [b"pong", b"begun"] | b"begun":
                    self.is_listening = True
                    self._began()

    def _tell(self, channel: str, message: bytes) -> None:
        try:
            row = decode(message)
        except NO_RING:
            log.warning("a ring can't be read")
            row = {}
        self._heard(channel, row)

    async def _send(self, command: str, channels: Iterable[str]) -> None:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_SECONDS_MAX):
                await self._command(command, *channels)

    async def _command(self, *words: str | bytes) -> None:
        """Send a command. Raises ConnectionError when the connection is gone.

        The library would connect again, beside `run`, which may still be reading, and without the channels.
        """
        if not self._connection.is_connected:
            raise RedisConnectionError("the connection is gone")
        await self._connection.send_command(*words, check_health=False)


def encode(row: Mapping[str, Any]) -> bytes:
    """Return a row as JSON, in which names tell the types that JSON lacks: `code_id:UUID`.

    In lists they stay texts. Raises TypeError for a type that no ring carries.
    """
    names = _named(tuple(row), tuple(map(type, row.values())))
    return orjson.dumps(dict(zip(names, row.values(), strict=True)), default=_spelt)


def decode(message: bytes) -> Mapping[str, Any]:
    """Return the row that `encode` was given. Raises one of NO_RING for what it never returned."""
    row = {}
    for spelt, value in dict(orjson.loads(message)).items():
        name, _, kind = spelt.partition(":")
        row[name] = _READ[kind](value) if kind else value
    return row


@lru_cache(_ROWS_KEPT_MAX)
def _named(names: tuple[str, ...], kinds: tuple[type, ...]) -> list[str]:
    return [
        f"{name}:{kind.__name__}" if kind.__name__ in _READ else name for name, kind in zip(names, kinds, strict=True)
    ]


def _spelt(value: Any) -> str:
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"a ring can't carry a {type(value).__name__}")


def _connection(redis_url: str) -> AbstractConnection:
    """Return a connection of its own, not yet connected."""
    pool: Any = ConnectionPool.from_url(redis_url, socket_connect_timeout=1)
    return cast(AbstractConnection, pool.make_connection())
