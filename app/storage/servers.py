"""The servers behind a router, as a process knows them: which merchants they have, and whether they answer.

One that is dead or frozen must not hold what others need. It has at most half of the process's connections, is asked
whether it is there as soon as somebody has waited a while, and whoever needs it is refused at once until it answers.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
from cachetools import TTLCache

from app.storage.in_turn import Turns
from app.storage.lasting import Lasting
from app.storage.pulse import DatabaseSilentError, Patience, Pulse, Waiting, Watch

log = logging.getLogger("flash.database")

T = TypeVar("T")

#: How a router learns where a transaction goes; it answers this itself.
OF_MERCHANT: Final = "SET LOCAL pgdog.sharding_key TO '{}'"
OF_NUMBER: Final = "SET LOCAL pgdog.shard TO '{}'"
#: What it says of a server that it doesn't have, and ends the connection.
NO_SUCH_SERVER: Final = "no such shard"

#: Shares of how long a server's own wait at most.
_SUSPECT, _ANSWER, _LOOK = 0.2, 0.65, 0.1
_UNKNOWN_SHARE: Final = 0.8
_AGAIN_SECONDS: Final = 1.0
#: How long a merchant is refused whose unknown server somebody has waited for in vain.
_REFUSED_SECONDS: Final = 1.0
#: For all whose server nobody knows.
_UNKNOWN_CONNECTIONS: Final = 2
#: Of all servers; those that were asked for longest ago are learned anew.
_MERCHANTS_MAX: Final = 50_000

#: The server of each merchant, by `cluster_name`. It is learned with the tenant, every few seconds.
_places: Final[Lasting[UUID, str]] = Lasting(_MERCHANTS_MAX)


def learn(merchant_id: UUID, name: str) -> None:
    """Note on which server a merchant is."""
    _places.keep(merchant_id, name, math.inf)


async def begin_at(connection: asyncpg.Connection, number: int) -> None:
    """Begin a transaction on a server by its number."""
    await connection.execute("BEGIN")
    await connection.execute(OF_NUMBER.format(number))
    # A router that doesn't reach it refuses what is prepared there in a way that asyncpg doesn't understand.
    await connection.execute("SELECT 1")


async def every(look: Callable[[int], Awaitable[T | None]], first: int = 0) -> list[T]:
    """Return what is seen of each server, by its number, up to the last: of the next one a look sees nothing."""
    found: list[T] = []
    while (seen := await look(first + len(found))) is not None:
        found.append(seen)
    return found


class Server:
    """One server: how many may wait for it at once, and who does."""

    def __init__(
        self,
        name: str,
        turns: int,
        connect: Callable[[float], Awaitable[asyncpg.Connection]],
        merchant_id: UUID,
        seconds_max: float,
    ) -> None:
        """Take how a router is reached beside the pool, a merchant that is there, and how long it may be silent."""
        self.turns = Turns(turns)
        #: Whose statements find it.
        self.merchant_id = merchant_id
        patience = Patience(_SUSPECT * seconds_max, _ANSWER * seconds_max, _LOOK * seconds_max, _AGAIN_SECONDS)
        self.pulse = Pulse(connect, self._ask, name=f"the server {name!r}", patience=patience)

    async def _ask(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute(OF_MERCHANT.format(self.merchant_id))
            await connection.execute("SELECT 1")


class _Unknown:
    """Who waits for a merchant whose server nobody knows: not for long, because it may be one that is away."""

    def __init__(self, refused: TTLCache[UUID, None], merchant_id: UUID | None, seconds_max: float) -> None:
        self._refused = refused
        self._seconds_max = seconds_max
        self._merchant_id = merchant_id
        self._timer: asyncio.TimerHandle | None = None

    def begun(self, waiting: Waiting[Any]) -> None:
        """Give it a while, unless this merchant's last one had it in vain."""
        if self._merchant_id in self._refused:
            raise DatabaseSilentError("the server of a merchant is silent")
        self._timer = asyncio.get_running_loop().call_later(self._seconds_max, waiting.end)

    def ended(self, waiting: Waiting[Any], _error: BaseException | None) -> None:
        """Note whether it waited in vain."""
        if self._timer is not None:
            self._timer.cancel()
        if waiting.is_ended and self._merchant_id is not None:
            self._refused[self._merchant_id] = None


class Servers:
    """The servers that a pool reaches through a router."""

    def __init__(
        self, connections_max: int, connect: Callable[[float], Awaitable[asyncpg.Connection]], seconds_max: float
    ) -> None:
        """Take how many connections the pool has, how the router is reached beside it, and how long silence lasts."""
        self._seconds_max = seconds_max
        self._turns = max(1, connections_max // 2)
        self._connect = connect
        self._known: dict[str, Server] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._unknown_turns = Turns(min(_UNKNOWN_CONNECTIONS, self._turns))
        self._refused: TTLCache[UUID, None] = TTLCache(_MERCHANTS_MAX, _REFUSED_SECONDS, time.monotonic)

    def of(self, merchant_id: UUID | None) -> tuple[Turns, Watch]:
        """Return the turns of a merchant's server, and who watches it."""
        name = None if merchant_id is None else _places.get(merchant_id)
        if merchant_id is None or name is None:
            return self._unknown_turns, _Unknown(self._refused, merchant_id, _UNKNOWN_SHARE * self._seconds_max)
        server = self._known.get(name)
        if server is None:
            server = self._begin(name, merchant_id)
        server.merchant_id = merchant_id
        return server.turns, server.pulse

    def named(self, name: str) -> Pulse | None:
        """Return the pulse of a server that merchants were asked for."""
        server = self._known.get(name)
        return None if server is None else server.pulse

    def silent(self) -> set[str]:
        """Return the names of those that don't answer."""
        return {name for name, server in self._known.items() if server.pulse.is_silent}

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Notice for the length of the block when one falls silent."""
        try:
            yield
        finally:
            for task in self._watching:
                task.cancel()
            if self._watching:
                await asyncio.wait(self._watching)

    def _begin(self, name: str, merchant_id: UUID) -> Server:
        if not name:
            log.warning("a server behind the router has no cluster_name: nobody can tell when it is away")
        server = self._known[name] = Server(name, self._turns, self._connect, merchant_id, self._seconds_max)
        self._watching.add(asyncio.create_task(server.pulse.watch()))
        return server
