"""S1, whose CPU: the packages whose code the API process runs while it serves claims, by samples of its CPU."""

import asyncio
import contextlib
import json
import signal
from functools import partial

import httpx

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.operate.embedded import DataDirectory
from app.storage.database import database
from bench.claim_cpu import CLIENTS, claim_all, claim_one
from bench.live_wallet import api_process, valkey
from bench.world import add_filled_pool, add_members, add_merchant

WARM = 1000
CLAIMS = 4000
SHARE_MIN = 0.02


async def measure(_viewer: Viewer) -> list[str]:
    """Return the table of samples by the package of their innermost Python frame."""
    data = DataDirectory(settings().data)
    viewer, key = await add_merchant("Claims")
    members = await add_members(viewer, WARM + CLAIMS)
    pool_id = ids.encode("pool", await add_filled_pool(viewer, len(members)))
    await database().row("ANALYZE")
    counts = data.path / "samples.json"
    async with contextlib.AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(valkey(data))
        starting = api_process(data, settings().database_url or "", redis_url, "bench.sampled", str(counts))
        process, address = await stack.enter_async_context(starting)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        claim = partial(claim_one, http, address, key, pool_id)
        await claim_all(claim, iter(members[:WARM]))
        process.send_signal(signal.SIGUSR1)
        waiting = iter(members[WARM:])
        await asyncio.gather(*(claim_all(claim, waiting) for _ in range(CLIENTS)))
    samples: dict[str, int] = json.loads(counts.read_text())
    total = sum(samples.values())
    shares = {name: count / total for name, count in sorted(samples.items(), key=lambda each: -each[1])}
    small = sum(share for share in shares.values() if share < SHARE_MIN)
    return [
        f"{total:,} samples over {CLAIMS:,} claims. C code counts for the Python code that called it.",
        "",
        "| whose code | share of the CPU |",
        "|---|---:|",
        *(f"| {name} | {share:.0%} |" for name, share in shares.items() if share >= SHARE_MIN),
        f"| others, each below {SHARE_MIN:.0%} | {small:.0%} |",
    ]
