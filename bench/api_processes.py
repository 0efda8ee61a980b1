"""S10: claims per second through one API process and through two, in turns, with everything on this machine."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from statistics import median
from urllib.parse import urlsplit
from uuid import UUID

import orjson
import psutil

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.operate.embedded import DataDirectory
from app.storage.database import database
from bench.claim_cpu import CLAIM
from bench.live_wallet import api_process, valkey
from bench.world import add_filled_pool, add_members, add_merchant, cpu_seconds

ROUNDS = 4
CLAIMS = 1500
CLIENTS = 16


async def measure(_viewer: Viewer) -> list[str]:
    """Return the table. The clients are as light as possible, because they share the cores with the engine."""
    data = DataDirectory(settings().data)
    viewer, key = await add_merchant("Claims")
    turns = 2 * (1 + ROUNDS)
    members = iter(await add_members(viewer, CLAIMS * turns))
    pool_id = ids.encode("pool", await add_filled_pool(viewer, CLAIMS * turns))
    await database().row("ANALYZE")
    rates: dict[int, list[float]] = {1: [], 2: []}
    shares: dict[int, list[float]] = {1: [], 2: []}
    async with contextlib.AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(valkey(data))
        database_url = settings().database_url or ""
        running = [await stack.enter_async_context(api_process(data, database_url, redis_url)) for _ in range(2)]
        for turn in range(1 + ROUNDS):
            for count in (1, 2):
                asked, busy = running[:count], [cpu_seconds(process) for process, _ in running]
                begun = time.monotonic()
                waiting = iter([next(members) for _ in range(CLAIMS)])
                await asyncio.gather(
                    *(_claim_all(asked[number % count][1], key, pool_id, waiting) for number in range(CLIENTS))
                )
                seconds = time.monotonic() - begun
                if turn:
                    rates[count].append(CLAIMS / seconds)
                    used = sum(cpu_seconds(process) for process, _ in running) - sum(busy)
                    shares[count].append(used / seconds)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    asked_for = f"{ROUNDS} turns of {CLAIMS:,} claims each way over {CLIENTS} connections"
    return [
        f"{asked_for}; PostgreSQL, Valkey and the clients share {psutil.cpu_count()} cores with the API.",
        f"Load of the machine: {os.getloadavg()[0]:.1f}.",
        "",
        "| API processes | claims per second (median) | cores that they kept busy |",
        "|---|---:|---:|",
        *(f"| {count} | {median(rates[count]):,.0f} | {median(shares[count]):.2f} |" for count in (1, 2)),
        "",
        f"Two carry {median(ratios):.2f} times as much as one ({min(ratios):.2f} to {max(ratios):.2f} in the turns).",
    ]


async def _claim_all(address: str, key: str, pool_id: str, waiting: Iterator[UUID]) -> None:
    """Claim for each waiting member over one connection."""
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        for member_id in waiting:
            variables = {"pool": pool_id, "member": ids.encode("member", member_id)}
            body = orjson.dumps({"query": CLAIM, "variables": variables})
            head = (
                f"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answered = await reader.readuntil(b"\r\n\r\n")
            length = int(answered.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            answer = orjson.loads(await reader.readexactly(length))
            if answer["data"]["claimCode"]["replayed"] is not False:
                raise RuntimeError("a measured claim was made before")
    finally:
        writer.close()
