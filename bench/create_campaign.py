"""S4, campaigns: sending a code to each of 5,000 recipients, against generating 5,000 codes; both as mutations."""

import time
from statistics import median
from typing import Any
from uuid import UUID

from app import ids
from app.api.context import Context, Viewer
from app.schema import schema
from app.storage.database import database
from app.web.application import collect_seldom
from bench.world import activate, add_members, add_pool

BATCH = 5000
ROUNDS = 8

GENERATE = """
mutation ($input: GenerateCodesInput!) { answer: generateCodes(input: $input) { __typename } }
"""
SEND = """
mutation ($input: CreateCampaignInput!) { answer: createCampaign(input: $input) { __typename } }
"""


async def measure(viewer: Viewer) -> list[str]:
    """Return the table. Generating, sending to members and sending to addresses take turns."""
    stocked = await add_pool(viewer)
    for _ in range(2 * ROUNDS):
        await timed(viewer, GENERATE, poolId=ids.encode("pool", stocked), count=BATCH)
    await activate(viewer, stocked)
    members = await add_members(viewer, ROUNDS * BATCH)
    await database().row("ANALYZE")
    draft = await add_pool(viewer)
    # As in an API process.
    collect_seldom()

    generating: list[float] = []
    to_members: list[float] = []
    to_addresses: list[float] = []
    for turn in range(ROUNDS):
        generating.append(await timed(viewer, GENERATE, poolId=ids.encode("pool", draft), count=BATCH))
        known = [{"memberId": ids.encode("member", each)} for each in members[turn * BATCH : (turn + 1) * BATCH]]
        to_members.append(await send(viewer, stocked, known))
        strangers = [{"email": f"recipient-{turn}-{number}@example.com"} for number in range(BATCH)]
        to_addresses.append(await send(viewer, stocked, strangers))

    lines = ["| what | median ms | against generating | goal |", "|---|---|---|---|"]
    lines.append(f"| generateCodes, 5,000 | {median(generating) * 1000:.0f} | 1.00 | |")
    for name, times in (("members", to_members), ("addresses", to_addresses)):
        ratio = median(sent / made for sent, made in zip(times, generating, strict=True))
        lines.append(f"| createCampaign to 5,000 {name} | {median(times) * 1000:.0f} | {ratio:.2f} | ≤ 2.50 |")
    return lines


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
