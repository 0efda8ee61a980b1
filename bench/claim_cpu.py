"""S1: CPU of the API process per claim over HTTP, everything on, and that of a bare route with the same statement."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Any
from uuid import UUID

import httpx
import psutil

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.operate.embedded import DataDirectory
from app.operate.listening import ask, bind
from app.operate.running import START_SECONDS_MAX
from app.storage.database import database
from bench.live_wallet import api_process, some_process, valkey
from bench.world import add_filled_pool, add_members, add_merchant, cpu_seconds

ROUNDS = 5
CLAIMS = 1000
CLIENTS = 4
CLAIM = """
mutation ($pool: ID!, $member: ID!) {
  claimCode(input: { poolId: $pool, memberId: $member }) {
    ... on ClaimCodeSuccess { replayed code { id state text } } ... on Refusal { message }
  }
}
"""


@dataclass
class Server:
    """A process that claims are sent to, and what they cost."""

    name: str
    process: psutil.Process
    claim: Callable[[UUID], Awaitable[Any]]
    #: CPU per claim in each turn, in milliseconds.
    spent: list[float] = field(default_factory=list)
    #: How long each claim took, in milliseconds.
    waits: list[float] = field(default_factory=list)

    async def timed(self, member_id: UUID) -> Any:
        """Claim for a member."""
        begun = time.perf_counter()
        answer = await self.claim(member_id)
        self.waits.append((time.perf_counter() - begun) * 1000)
        return answer

    def against(self, other: "Server") -> str:
        """Return how many times the CPU of another server it needs, turn by turn."""
        ratios = [mine / its for mine, its in zip(self.spent, other.spent, strict=True)]
        return f"{median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f} in the turns)"


@dataclass
class Claims:
    """Who claims from the servers. Each server has a pool of its own, and every member claims once from each."""

    viewer: Viewer
    members: list[UUID]
    http: httpx.AsyncClient

    async def pool(self) -> UUID:
        """Fill a pool for one of them."""
        return await add_filled_pool(self.viewer, len(self.members))

    async def take_turns(self, servers: Sequence[Server]) -> None:
        """Claim from all servers, turn by turn."""
        await database().row("ANALYZE")
        for turn in range(1 + ROUNDS):
            crowd = self.members[turn * CLAIMS : (turn + 1) * CLAIMS]
            for server in servers:
                before = cpu_seconds(server.process)
                waiting = iter(crowd)
                await asyncio.gather(*(claim_all(server.timed, waiting) for _ in range(CLIENTS)))
                # The first turn warms them up: imports and query plans.
                if turn:
                    server.spent.append((cpu_seconds(server.process) - before) / len(crowd) * 1000)
                else:
                    server.waits.clear()


@contextlib.asynccontextmanager
async def engine_and_bare() -> AsyncIterator[tuple[Claims, Server, Server]]:
    """Run the engine and the bare route, each with a pool, for the length of the block."""
    data = DataDirectory(settings().data)
    viewer, key = await add_merchant("Claims")
    members = await add_members(viewer, CLAIMS * (1 + ROUNDS))
    database_url = settings().database_url or ""
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        claims = Claims(viewer, members, http)
        ours, theirs = await claims.pool(), await claims.pool()
        redis_url = await stack.enter_async_context(valkey(data))
        engine, address = await stack.enter_async_context(api_process(data, database_url, redis_url))
        bare, bare_url = await stack.enter_async_context(_bare_process(data, database_url))

        async def claim_bare(member_id: UUID) -> Any:
            asked = {"merchant": str(viewer.merchant_id), "pool": str(theirs), "member": str(member_id)}
            return (await http.post(bare_url, json=asked)).json()

        claim = partial(claim_one, http, address, key, ids.encode("pool", ours))
        yield (
            claims,
            Server("the engine: authentication, limits, GraphQL, event, ring", engine, claim),
            Server("Starlette and asyncpg, the same statement", bare, claim_bare),
        )


async def measure(_viewer: Viewer) -> list[str]:
    """Claim from both in turns and return the table."""
    async with engine_and_bare() as (claims, engine, bare):
        await claims.take_turns([engine, bare])
    return [
        *table([engine, bare]),
        "",
        f"The ratio is {engine.against(bare)}; goal ≤ 1.25.",
        "PostGraphile stands beside them in [the comparisons](comparisons/RESULTS.md); goal ≤ 0.85.",
    ]


def table(servers: Sequence[Server]) -> list[str]:
    """Return what was measured."""
    lines = [
        f"{ROUNDS} turns of {CLAIMS:,} claims each, {CLIENTS} at a time; user and system time of the process.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; beyond that, waits are its waits.",
        "",
        "| | CPU per claim (median) | a client waits, p50 | p95 | p99 |",
        "|---|---:|---:|---:|---:|",
    ]
    for server in servers:
        cuts = quantiles(server.waits, n=100)
        waits = " | ".join(f"{cuts[percent - 1]:.1f} ms" for percent in (50, 95, 99))
        lines.append(f"| {server.name} | {median(server.spent):.2f} ms | {waits} |")
    return lines


async def claim_one(http: httpx.AsyncClient, address: str, key: str, pool_id: str, member_id: UUID) -> Any:
    """Claim over HTTP from the process whose socket address is given. Returns the answer."""
    variables = {"pool": pool_id, "member": ids.encode("member", member_id)}
    headers = {"authorization": f"Bearer {key}"}
    asked = {"query": CLAIM, "variables": variables}
    answer = await http.post(address.replace("ws", "http", 1), json=asked, headers=headers)
    return answer.json()["data"]["claimCode"]


async def claim_all(one: Any, waiting: Iterator[UUID]) -> None:
    """Claim for each waiting member. Raises RuntimeError when a claim got no new code."""
    for member_id in waiting:
        if (await one(member_id)).get("replayed") is not False:
            raise RuntimeError("a measured claim got no code of its own")


@contextlib.asynccontextmanager
async def _bare_process(data: DataDirectory, database_url: str) -> AsyncIterator[tuple[psutil.Process, str]]:
    with contextlib.closing(bind("127.0.0.1", 0)) as listening:
        # Uvicorn takes a descriptor for a Unix socket, and asyncio then leaves Nagle's 40 ms on.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = listening.fileno()
        arguments = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--fd", str(descriptor), "--no-access-log"]
        async with some_process(arguments, data.logs / "bare.log", descriptor, DATABASE_URL=database_url) as process:
            async with asyncio.timeout(START_SECONDS_MAX):
                await ask(listening, "/", within_seconds=START_SECONDS_MAX)
            yield psutil.Process(process.pid), f"http://127.0.0.1:{listening.getsockname()[1]}/claim"
