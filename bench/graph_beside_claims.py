"""Snapshots beside claims: how long claims over HTTP take, in turns without and with snapshots being taken."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Any
from uuid import UUID

import httpx

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.merchants.create_merchant import create_merchant
from app.operate.embedded import DataDirectory
from app.storage.database import database
from bench.live_wallet import api_process, some_process, valkey
from bench.networks import grown, store
from bench.world import add_filled_pool, add_members, add_merchant

NETWORK = 20_000
ROUNDS = 4
#: Claims in each half of a round, and how many of them are sent per second.
CLAIMS, CLAIMS_PER_SECOND = 200, 20
WARM = 40
BATCH = 5000

CLAIM = """
mutation ($pool: ID!, $member: ID!) {
  answer: claimCode(input: { poolId: $pool, memberId: $member }) { ... on ClaimCodeSuccess { replayed } }
}
"""
TAKE = "mutation { answer: takeGraphSnapshot { ... on TakeGraphSnapshotSuccess { jobId } } }"
JOB = "query ($id: ID!) { answer: graphSnapshotJob(id: $id) { status } }"


async def measure(_viewer: Viewer) -> list[str]:
    """Return the table. The network is another merchant's, so only the machine, the database and the API are shared."""
    data = DataDirectory(settings().data)
    network = await create_merchant("Network", "USD")
    viewer, key = await add_merchant("Claims")
    await store(network.id, grown(NETWORK))
    members = await add_members(viewer, WARM + 2 * ROUNDS * CLAIMS)
    pool_id = ids.encode("pool", await add_filled_pool(viewer, BATCH))
    await database().row("ANALYZE")
    waits: dict[bool, list[float]] = {False: [], True: []}
    taken = 0
    async with contextlib.AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(valkey(data))
        database_url = settings().database_url or ""
        _, address = await stack.enter_async_context(api_process(data, database_url, redis_url))
        arguments, variables = [sys.executable, "-m", "app", "worker"], {"REDIS_URL": redis_url}
        variables["DATABASE_URL"] = database_url
        await stack.enter_async_context(some_process(arguments, data.logs / "worker.log", **variables))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        url = address.replace("ws", "http", 1)

        async def ask(key: str, document: str, **values: object) -> Any:
            headers = {"authorization": f"Bearer {key}"}
            answer = await http.post(url, json={"query": document, "variables": values}, headers=headers)
            return answer.json()["data"]["answer"]

        async def take(until: asyncio.Event) -> int:
            """Take snapshots until the event is set. Returns how many."""
            count = 0
            while not until.is_set():
                job = (await ask(network.api_key, TAKE))["jobId"]
                while (await ask(network.api_key, JOB, id=job))["status"] != "DONE":  # noqa: ASYNC110  (a worker's end)
                    await asyncio.sleep(0.2)
                count += 1
            return count

        async def claim_all(crowd: Sequence[UUID]) -> list[float]:
            """Claim for each member at a fixed pace. Returns the seconds from when each claim was due."""

            async def claim(member_id: UUID, due: float) -> float:
                await asyncio.sleep(max(due - time.monotonic(), 0))
                answer = await ask(key, CLAIM, pool=pool_id, member=ids.encode("member", member_id))
                if answer["replayed"]:
                    raise RuntimeError("a measured claim was made before")
                return time.monotonic() - due

            begun = time.monotonic()
            return await asyncio.gather(
                *(claim(member_id, begun + number / CLAIMS_PER_SECOND) for number, member_id in enumerate(crowd))
            )

        await claim_all(members[:WARM])
        places = iter(range(WARM, len(members), CLAIMS))
        for _ in range(ROUNDS):
            for beside in (False, True):
                over = asyncio.Event()
                taking = asyncio.create_task(take(over)) if beside else None
                start = next(places)
                waits[beside] += await claim_all(members[start : start + CLAIMS])
                over.set()
                taken += 0 if taking is None else await taking
    return _table(waits, taken)


def _table(waits: dict[bool, list[float]], taken: int) -> list[str]:
    cuts = {beside: quantiles([each * 1000 for each in found], n=100) for beside, found in waits.items()}
    asked = f"{len(waits[False]):,} claims each way, {CLAIMS_PER_SECOND} a second, in {ROUNDS} turns"
    lines = [
        f"{asked}; {taken} snapshots of {NETWORK:,} members.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; beyond that, times are waits.",
        "",
        "| a claim's wait | without | beside a snapshot | ratio |",
        "|---|---|---|---|",
    ]
    for name, place in (("p50", 49), ("p90", 89), ("p99", 98)):
        without, beside = cuts[False][place], cuts[True][place]
        lines.append(f"| {name} | {without:.1f} ms | {beside:.1f} ms | {beside / without:.2f} |")
    return lines
