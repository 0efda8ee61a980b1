"""S13: CPU of the API process per claim over HTTP, behind a router and without one."""

import asyncio
import contextlib
import os
from functools import partial
from statistics import median
from typing import Any

import httpx

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.operate.embedded import DataDirectory
from app.storage.database import database
from bench.claim_cpu import CLIENTS, claim_all, claim_one
from bench.live_wallet import api_process, valkey
from bench.wire import counting
from bench.world import add_filled_pool, add_members, add_merchant, cpu_seconds
from tests.servers.router import router

ROUNDS = 5
CLAIMS = 500
#: The stand-in for the router shares a core with the clients: it isn't away when it is slow.
BEHIND = {"FLASH_ROUTER": "pgdog", "FLASH_SERVER_SECONDS_MAX": "60"}


async def measure(_viewer: Viewer) -> list[str]:
    """Claim from two processes in turns, one of them behind a router, and return the table."""
    data = DataDirectory(settings().data)
    viewer, key = await add_merchant("Claims")
    members = await add_members(viewer, CLAIMS * (1 + ROUNDS))
    pools = [await add_filled_pool(viewer, len(members)) for _ in range(2)]
    await database().row("ANALYZE")
    database_url = settings().database_url or ""
    async with contextlib.AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(valkey(data))
        # Through a proxy, too: answers that come later find fewer others to be read with.
        through, _ = await stack.enter_async_context(counting(database_url))
        direct = await stack.enter_async_context(api_process(data, through, redis_url))
        way = stack.enter_context(router([database_url]))
        routed = await stack.enter_async_context(api_process(data, way.url, redis_url, **BEHIND))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        spent: list[list[float]] = [[], []]
        for turn in range(1 + ROUNDS):
            crowd = members[turn * CLAIMS : (turn + 1) * CLAIMS]
            for place, (process, address) in enumerate((direct, routed)):
                one: Any = partial(claim_one, http, address, key, ids.encode("pool", pools[place]))
                before = cpu_seconds(process)
                waiting = iter(crowd)
                await asyncio.gather(*(claim_all(one, waiting) for _ in range(CLIENTS)))
                # The first turn warms both up: imports, query plans, and statements that connections learn.
                if turn:
                    spent[place].append((cpu_seconds(process) - before) / len(crowd) * 1000)
    ratios = [behind / without for without, behind in zip(*spent, strict=True)]
    return [
        f"{ROUNDS} turns of {CLAIMS:,} claims each, {CLIENTS} at a time; user and system time of the process.",
        "The router is the stand-in of `tests/servers`, in the process that measures, and so is a proxy that takes its",
        "place for the other one.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| | CPU per claim (median) |",
        "|---|---:|",
        f"| without a router | {median(spent[0]):.2f} ms |",
        f"| with FLASH_ROUTER | {median(spent[1]):.2f} ms |",
        "",
        f"The ratio is {median(ratios):.3f} (from {min(ratios):.2f} to {max(ratios):.2f} in the turns); goal ≤ 1.05.",
    ]
