"""S5: a thousand members watch their wallets on one API process while a hundred changes are committed per second."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import quantiles
from uuid import UUID

import orjson
import psutil
import websockets
from websockets.typing import Subprotocol

from app.api.context import Viewer
from app.config import settings
from app.coupons.claims import Claimant, claim
from app.members import token_feed, tokens
from app.operate.embedded import DataDirectory
from app.operate.listening import allow_many_sockets, ask, bind
from app.operate.running import START_SECONDS_MAX
from app.storage.database import database
from app.storage.rings import ringing
from app.wallets.wallet_feed import SWEEP
from app.web.graphql_socket import PROTOCOL
from bench.wire import AUTHENTICATION, counting
from bench.world import add_filled_pool, add_members, cpu_seconds

SUBSCRIBERS = 1000
CHANGES_PER_SECOND = 100
ROUNDS = 3
#: The first subscribers warm the process up; memory is counted for those after them.
WARM = 10
#: What a browser sends beside what a socket needs. Like browsers, these clients also offer to compress.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-US,en;q=0.9,de;q=0.8",
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Origin": "http://localhost:3000",
    "Cookie": f"session={'x' * 200}",
}

SUBSCRIPTION = """
subscription ($after: Int) {
  walletChanged(after: $after) {
    version wallet { version } event { id type occurredAt } code { id state masked text expiresAt pool { name } }
  }
}
"""


class Deliveries:
    """When each subscriber received each version, in monotonic seconds."""

    def __init__(self) -> None:
        """Start without deliveries."""
        self.at: dict[tuple[UUID, int], float] = {}
        self.over = asyncio.Event()
        self.connecting = asyncio.Semaphore(50)
        self._awaited = 0
        self._arrived = asyncio.Event()

    def note(self, member_id: UUID, version: int) -> None:
        """Note a version that has just arrived."""
        self.at[member_id, version] = time.monotonic()
        if len(self.at) == self._awaited:
            self._arrived.set()

    async def all(self, count: int) -> None:
        """Wait until `count` versions have arrived."""
        self._awaited = count
        self._arrived.clear()
        if len(self.at) < count:
            await self._arrived.wait()


async def measure(viewer: Viewer) -> list[str]:
    """Return the table of S5. This process commits the changes and rings, as another API process would."""
    allow_many_sockets()
    data = DataDirectory(settings().data)
    members = await add_members(viewer, SUBSCRIBERS)
    pools = [await add_filled_pool(viewer, SUBSCRIBERS) for _ in range(1 + ROUNDS)]
    await database().row("ANALYZE")
    async with contextlib.AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(valkey(data))
        through, waits = await stack.enter_async_context(counting(settings().database_url or ""))
        process, url = await stack.enter_async_context(api_process(data, through, redis_url))
        await stack.enter_async_context(ringing(redis_url))
        following = await stack.enter_async_context(asyncio.TaskGroup())
        deliveries = Deliveries()
        for member_id in members[:WARM]:
            following.create_task(_follow(viewer, member_id, url, deliveries))
        # The first change shows that a subscriber is connected, however long that took.
        for member_id in members:
            await claim(database(), viewer, pools[0], Claimant(member_id), None)
        await deliveries.all(WARM)
        resident = process.memory_info().rss
        for member_id in members[WARM:]:
            following.create_task(_follow(viewer, member_id, url, deliveries))
        await deliveries.all(SUBSCRIBERS)
        resident = process.memory_info().rss - resident

        waits.clear()
        busy = cpu_seconds(process)
        begun = time.monotonic()
        committed = await _change(viewer, members, pools[1:])
        await deliveries.all(SUBSCRIBERS * (1 + ROUNDS))
        seconds = time.monotonic() - begun
        busy = cpu_seconds(process) - busy
        read = [statement for statement in waits if statement not in AUTHENTICATION]
        deliveries.over.set()
    sweeps = sum(statement in {SWEEP.text, token_feed.SWEEP.text} for statement in read)
    late = sorted((deliveries.at[change] - at) * 1000 for change, at in committed.items())
    cuts = quantiles(late, n=100)
    changes = len(committed)
    return [
        f"{changes:,} changes to {SUBSCRIBERS:,} wallets in {seconds:.0f} s; all delivered once.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; beyond that, times are waits.",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
        f"| commit → delivery, p50 | {cuts[49]:.1f} ms | |",
        f"| commit → delivery, p99 | {cuts[98]:.1f} ms | ≤ 50 ms on a quiet machine |",
        f"| commit → delivery, the latest | {late[-1]:.1f} ms | |",
        f"| resident per subscriber | {resident / (SUBSCRIBERS - WARM) / 1000:.0f} KB | ≤ 60 KB |",
        f"| database reads per delivery | {(len(read) - sweeps) / changes:.3f} | 0 |",
        f"| sweeps: of all wallets, and of all tokens of a merchant | {sweeps / seconds:.2f} statements per second | |",
        f"| CPU of the API process per delivery | {busy / changes * 1000:.2f} ms | |",
    ]


async def _change(viewer: Viewer, members: list[UUID], pools: list[UUID]) -> dict[tuple[UUID, int], float]:
    """Claim for every member from each pool, at a fixed pace. Returns when each change was committed."""
    committed: dict[tuple[UUID, int], float] = {}
    claiming: set[asyncio.Task[None]] = set()

    async def claim_one(pool_id: UUID, member_id: UUID, version: int) -> None:
        await claim(database(), viewer, pool_id, Claimant(member_id), None)
        committed[member_id, version] = time.monotonic()

    due = time.monotonic()
    for version, pool_id in enumerate(pools, start=2):
        for member_id in members:
            claiming.add(asyncio.create_task(claim_one(pool_id, member_id, version)))
            due += 1 / CHANGES_PER_SECOND
            await asyncio.sleep(max(due - time.monotonic(), 0))
    await asyncio.gather(*claiming)
    return committed


async def _follow(viewer: Viewer, member_id: UUID, url: str, deliveries: Deliveries) -> None:
    """Watch a wallet from its beginning. Raises RuntimeError when a version comes twice or out of order."""
    token, _ = tokens.issue(viewer.tenant, member_id, 3600, generation=0)
    async with deliveries.connecting:
        socket = await websockets.connect(
            url, subprotocols=[Subprotocol(PROTOCOL)], additional_headers=BROWSER, user_agent_header=None
        )
    async with socket:
        await socket.send(orjson.dumps({"type": "connection_init", "payload": {"token": token}}).decode())
        await socket.recv()
        payload = {"query": SUBSCRIPTION, "variables": {"after": 0}}
        await socket.send(orjson.dumps({"type": "subscribe", "id": "1", "payload": payload}).decode())
        for version in range(1, 2 + ROUNDS):
            message = await socket.recv()
            deliveries.note(member_id, version)
            if orjson.loads(message)["payload"]["data"]["walletChanged"]["version"] != version:
                raise RuntimeError("a version came twice or out of order")
        await deliveries.over.wait()


@contextlib.asynccontextmanager
async def valkey(data: DataDirectory) -> AsyncIterator[str]:
    """Run Valkey for the length of the block. Yields its address."""
    command = data.valkey_command()
    async with some_process(command.arguments, command.log):
        yield data.redis_url


@contextlib.asynccontextmanager
async def api_process(
    data: DataDirectory, database_url: str, redis_url: str, *program: str, **environment: str
) -> AsyncIterator[tuple[psutil.Process, str]]:
    """Run one API process, directly or under another program. Yields it and the address of its sockets."""
    with contextlib.closing(bind("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        arguments = [sys.executable, "-m", *(program or ("app",)), "api", "--fd", str(descriptor)]
        variables = {"DATABASE_URL": database_url, "REDIS_URL": redis_url} | environment
        async with some_process(arguments, data.logs / "api.log", descriptor, **variables) as process:
            async with asyncio.timeout(START_SECONDS_MAX):
                await ask(listening, "/readyz", within_seconds=START_SECONDS_MAX)
            yield psutil.Process(process.pid), f"ws://127.0.0.1:{listening.getsockname()[1]}/graphql"


@contextlib.asynccontextmanager
async def some_process(
    arguments: list[str], log: Path, *descriptors: int, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process for the length of the block."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments, env=os.environ | variables, pass_fds=descriptors, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()
