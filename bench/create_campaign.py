"""S4, campaigns: sending a code to each of 5,000 recipients, against generating 5,000 codes; both as mutations."""

import time
from collections.abc import Awaitable
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import psutil

from app import ids
from app.api.context import Context, Viewer
from app.schema import schema
from app.storage.database import database
from app.web.application import collect_seldom
from bench.world import activate, add_members, add_pool

BATCH = 5000
ROUNDS = 9

GENERATE = """
mutation ($input: GenerateCodesInput!) { answer: generateCodes(input: $input) { __typename } }
"""
SEND = """
mutation ($input: CreateCampaignInput!) { answer: createCampaign(input: $input) { __typename } }
"""


async def measure(viewer: Viewer) -> list[str]:
    """Return the table. Generating, sending to members and sending to addresses take turns.

    CPU is that of this process and of the connections that it uses, which is what the calls cost: what PostgreSQL
    writes out and vacuums in between comes at times of its own.
    """
    stocked = await add_pool(viewer)
    for _ in range(2 * ROUNDS):
        await timed(viewer, GENERATE, poolId=ids.encode("pool", stocked), count=BATCH)
    await activate(viewer, stocked)
    members = await add_members(viewer, ROUNDS * BATCH)
    await database().row("ANALYZE")
    draft = await add_pool(viewer)
    # As in an API process.
    collect_seldom()

    generating: list[tuple[float, float]] = []
    to_members: list[tuple[float, float]] = []
    to_addresses: list[tuple[float, float]] = []
    for turn in range(ROUNDS):
        generating.append(await _spent(timed(viewer, GENERATE, poolId=ids.encode("pool", draft), count=BATCH)))
        known = [{"memberId": ids.encode("member", each)} for each in members[turn * BATCH : (turn + 1) * BATCH]]
        to_members.append(await _spent(send(viewer, stocked, known)))
        strangers = [{"email": f"recipient-{turn}-{number}@example.com"} for number in range(BATCH)]
        to_addresses.append(await _spent(send(viewer, stocked, strangers)))

    lines = ["| what | CPU ms, median | against generating | goal | median ms | against generating |", f"|{'---|' * 6}"]
    for name, turns in (
        ("generateCodes, 5,000", generating),
        ("createCampaign to 5,000 members", to_members),
        ("createCampaign to 5,000 addresses", to_addresses),
    ):
        seconds, cpu = (median(each[place] for each in turns) for place in (0, 1))
        took, cost = (
            median(each[place] / made[place] for each, made in zip(turns, generating, strict=True)) for place in (0, 1)
        )
        goal = "" if turns is generating else "≤ 2.50"
        lines.append(f"| {name} | {cpu * 1000:.0f} | {cost:.2f} | {goal} | {seconds * 1000:.0f} | {took:.2f} |")
    return lines


async def _spent(measured: Awaitable[float]) -> tuple[float, float]:
    """Return the seconds that something says it took, and those of CPU."""
    before = _cpu_seconds()
    seconds = await measured
    return seconds, _cpu_seconds() - before


def _cpu_seconds() -> float:
    """Return what this process and the backends of its connections have used; to the nanosecond."""
    backends = [each for each in psutil.Process().children(recursive=True) if _is_backend(each)]
    return time.process_time() + sum(
        int(Path(f"/proc/{each.pid}/schedstat").read_text().split()[0]) / 1e9 for each in backends
    )


def _is_backend(process: psutil.Process) -> bool:
    """Whether a process serves a connection, by the title that PostgreSQL gives it."""
    title = " ".join(process.cmdline())
    return title.startswith("postgres: ") and "[local]" in title


async def send(viewer: Viewer, pool_id: UUID, recipients: list[dict[str, str]]) -> float:
    return await timed(viewer, SEND, name="bench", poolId=ids.encode("pool", pool_id), recipients=recipients)


async def timed(viewer: Viewer, document: str, **input: Any) -> float:
    """Return the seconds that a mutation took."""
    begun = time.perf_counter()
    result = await schema.execute(document, variable_values={"input": input}, context_value=Context(viewer))
    seconds = time.perf_counter() - begun
    if result.errors or result.data is None or not result.data["answer"]["__typename"].endswith("Success"):
        raise RuntimeError(f"a measured mutation failed: {result}")
    return seconds
