"""S1: CPU of the API process per claim over HTTP, everything on, and that of a bare route with the same statement."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from statistics import median
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


async def measure(_viewer: Viewer) -> list[str]:
    """Claim from both in turns, each with its own pool, and return the table."""
    data = DataDirectory(settings().data)
    viewer, key = await add_merchant("Claims")
    members = await add_members(viewer, CLAIMS * (1 + ROUNDS))
    ours, theirs = [await add_filled_pool(viewer, len(members)) for _ in range(2)]
    await database().row("ANALYZE")
    database_url = settings().database_url or ""
    async with contextlib.AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(valkey(data))
        engine, address = await stack.enter_async_context(api_process(data, database_url, redis_url))
        bare, bare_url = await stack.enter_async_context(_bare_process(data, database_url))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))

        claim = partial(claim_one, http, address, key, ids.encode("pool", ours))

        async def claim_bare(member_id: UUID) -> Any:
            asked = {"merchant": str(viewer.merchant_id), "pool": str(theirs), "member": str(member_id)}
            return (await http.post(bare_url, json=asked)).json()

        spent: dict[str, list[float]] = {"engine": [], "bare": []}
        for turn in range(1 + ROUNDS):
            crowd = members[turn * CLAIMS : (turn + 1) * CLAIMS]
            for name, process, one in (("engine", engine, claim), ("bare", bare, claim_bare)):
                before = cpu_seconds(process)
                waiting = iter(crowd)
                await asyncio.gather(*(claim_all(one, waiting) for _ in range(CLIENTS)))
                # The first turn warms both up: imports and query plans.
                if turn:
                    spent[name].append((cpu_seconds(process) - before) / len(crowd) * 1000)
    engine_ms, bare_ms = median(spent["engine"]), median(spent["bare"])
    ratios = [mine / other for mine, other in zip(spent["engine"], spent["bare"], strict=True)]
    return [
        f"{ROUNDS} turns of {CLAIMS:,} claims each, {CLIENTS} at a time; user and system time of the process.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| | CPU per claim (median) |",
        "|---|---:|",
        f"| the engine: authentication, limits, GraphQL, event, ring | {engine_ms:.2f} ms |",
        f"| Starlette and asyncpg, the same statement | {bare_ms:.2f} ms |",
        "",
        f"The ratio is {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f} in the turns); goal ≤ 2.0.",
    ]


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
        descriptor = listening.fileno()
        arguments = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--fd", str(descriptor), "--no-access-log"]
        async with some_process(arguments, data.logs / "bare.log", descriptor, DATABASE_URL=database_url) as process:
            async with asyncio.timeout(START_SECONDS_MAX):
                await ask(listening, "/", within_seconds=START_SECONDS_MAX)
            yield psutil.Process(process.pid), f"http://127.0.0.1:{listening.getsockname()[1]}/claim"
