"""Whether the database's clock can be trusted. What a wrong clock lets expire is gone for good.

It is compared with the clock of each machine that runs workers, and with the time since that machine started, which
nobody can set: on one machine the first two jump together. What each machine saw last is in Valkey, for new workers
and for `flash doctor`.
"""

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, TypedDict
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.config import settings
from app.storage.database import database
from app.storage.statements import statement

log = logging.getLogger("flash.worker")

#: How far the database's clock may be off, or move between two looks.
FAR_SECONDS: Final = 300.0
#: A hash: for each machine its last trusted base and its doubt, and the difference that an operator accepted. Of many
#: servers each has its own.
KEY: Final = "flash:clocks"
_ACCEPTED: Final = "accepted"
_BASE: Final = "base:"
_DOUBT: Final = "doubt:"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class SecondsRow(TypedDict):
    """An instant in seconds since 1970."""

    seconds: float


NOW: Final = statement(SecondsRow, "SELECT extract(epoch FROM clock_timestamp())::float8 AS seconds")


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of a machine, in seconds: its own, the time since it started, and the database's."""

    machine: str
    wall: Callable[[], float]
    running: Callable[[], float]
    database: Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Look:
    """The database's clock, less the machine's clock (`ahead`) and less the time since its start (`base`).

    `late` is how long the database took to answer, and thus how wrong the others may be.
    """

    ahead: float
    base: float
    late: float


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the clock isn't trusted: it has moved by this many seconds, or is this far ahead of the machine's."""

    has_moved: bool
    seconds: float

    def __str__(self) -> str:
        length, is_later = timedelta(seconds=round(abs(self.seconds))), self.seconds > 0
        if self.has_moved:
            return f"the database's clock was moved {'forward' if is_later else 'back'} by {length}"
        return f"the database's clock is {length} {'ahead of' if is_later else 'behind'} a machine's"


def this_machine(database_seconds: Callable[[], Awaitable[float]] | None = None) -> Clocks:
    """Return the clocks of this machine. Without a function, the database is the one this process is connected to."""
    # It goes on while a laptop sleeps; Linux's monotonic clock doesn't.
    since_start = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    # The time since the start says nothing after the next one. Where starts have no id, each process is a machine.
    machine = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else uuid4().hex
    return Clocks(machine, time.time, lambda: time.clock_gettime(since_start), database_seconds or _database_seconds)


async def _database_seconds() -> float:
    row = await database().row(NOW)
    if row is None:
        raise RuntimeError("SELECT returned no row")
    return row["seconds"]


async def look(clocks: Clocks) -> Look:
    """Raises what the database raises."""
    wall, running = clocks.wall(), clocks.running()
    shown = await clocks.database()
    return Look(ahead=shown - wall, base=shown - running, late=clocks.running() - running)


def doubt_of(seen: Look, *, base: float | None, accepted: float) -> Doubt | None:
    """Return why the clock can't be trusted, or None. `base` is None for a machine that hasn't looked before."""
    far = FAR_SECONDS + seen.late
    if base is not None and abs(seen.base - base) > far:
        return Doubt(has_moved=True, seconds=seen.base - base)
    if min(abs(seen.ahead), abs(seen.ahead - accepted)) > far:
        return Doubt(has_moved=False, seconds=seen.ahead)
    return None


class Watch:
    """A worker's check of the clocks. Nothing may expire until they are right again, or an operator accepts them."""

    def __init__(self, clocks: Clocks, valkey: Redis) -> None:
        self._clocks = clocks
        self._valkey = valkey
        self._is_stopped = False

    async def trusts(self) -> bool:
        """Whether anything may expire now. Logs a line when that changes. Raises what the database raises."""
        try:
            doubt = await self._doubt()
            why = "" if doubt is None else str(doubt)
        except (RedisError, OSError) as error:
            why = f"Valkey doesn't tell what the clocks showed last ({type(error).__name__})"
        if why and not self._is_stopped:
            log.error("nothing expires any more: %s; `flash doctor` says what to do", why)
        if not why and self._is_stopped:
            log.info("what is due expires again: the database's clock is right, or accepted")
        self._is_stopped = bool(why)
        return not why

    async def _doubt(self) -> Doubt | None:
        machine = self._clocks.machine
        kept = await _kept(self._valkey)
        seen = await look(self._clocks)
        doubt = doubt_of(seen, base=_number(kept.get(_BASE + machine)), accepted=_number(kept.get(_ACCEPTED)) or 0.0)
        async with self._valkey.pipeline(transaction=True) as commands:
            if doubt is None:
                commands.hset(_key(), _BASE + machine, repr(seen.base))
                commands.hdel(_key(), _DOUBT + machine)
            else:
                # The base stays: the clock may be set right.
                commands.hset(_key(), _DOUBT + machine, json.dumps([doubt.has_moved, doubt.seconds]))
            await commands.execute()
        return doubt


async def accept(clocks: Clocks, valkey: Redis) -> Look:
    """Trust the clock everywhere: forget what the machines saw, and accept its difference from this machine's."""
    seen = await look(clocks)
    async with valkey.pipeline(transaction=True) as commands:
        commands.delete(_key())
        commands.hset(_key(), _ACCEPTED, repr(seen.ahead))
        await commands.execute()
    return seen


async def doubts(clocks: Clocks, valkey: Redis) -> tuple[Look, list[Doubt]]:
    """Return what the clocks show here, and why workers let nothing expire, or wouldn't on this machine."""
    kept = await _kept(valkey)
    seen = await look(clocks)
    found = [doubt for name, value in kept.items() if name.startswith(_DOUBT) and (doubt := _told(value))]
    here = doubt_of(seen, base=None, accepted=_number(kept.get(_ACCEPTED)) or 0.0)
    return seen, found or ([] if here is None else [here])


def _key() -> str:
    server = settings().server
    return KEY if server is None else f"{KEY}:{server}"


async def _kept(valkey: Redis) -> dict[str, bytes]:
    async with valkey.pipeline(transaction=False) as commands:
        commands.hgetall(_key())
        (kept,) = await commands.execute()
    return {name.decode(errors="replace"): value for name, value in kept.items()}


def _number(kept: bytes | None) -> float | None:
    try:
        number = float(kept) if kept is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _told(kept: bytes) -> Doubt | None:
    try:
        has_moved, seconds = json.loads(kept)
        return Doubt(bool(has_moved), float(seconds))
    except (ValueError, TypeError):
        return None
