"""S11, jobs: a million codes filled in and revoked, 200,000 members sent to, by one worker, beside claims."""

import asyncio
import resource
import time
from statistics import median
from typing import Any
from uuid import UUID

from app import ids
from app.api.context import Context, Viewer
from app.coupons.carry_out import carry_out_jobs
from app.schema import schema
from app.storage.database import database
from bench.world import activate, add_filled_pool, add_members, add_pool

CODES = 1_000_000
RECIPIENTS = 200_000
CLAIMED = 20_000
CLAIMS_MAX = 5000
FILL = "mutation ($input: FillPoolInput!) { answer: fillPool(input: $input) { __typename } }"
REVOKE = """
mutation ($input: RevokeCodesInput!) {
  answer: revokeCodes(input: $input) { __typename ... on RevokeCodesSuccess { job { total } } }
}
"""
SEND = """
mutation ($input: CreateCampaignInput!) {
  answer: createCampaign(input: $input) { __typename ... on CreateCampaignSuccess { campaign { recipientCount } } }
}
"""
CLAIM = "mutation ($input: ClaimCodeInput!) { answer: claimCode(input: $input) { __typename } }"
SIZE = """
SELECT pg_table_size('code') AS codes, pg_indexes_size('code') AS indexes, pg_table_size('bulk_job_page') AS pages,
    (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'code') AS dead
"""


async def measure(viewer: Viewer) -> list[str]:
    """Return the table of what each step took and left."""
    pool_id = await add_pool(viewer)
    lines = [
        "| step | call ms | seconds | codes, MB | indexes, MB | dead rows | pages, MB | claims meanwhile, ms (99 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    called, _ = await do(viewer, FILL, poolId=ids.encode("pool", pool_id), available=CODES, idempotencyKey="fill")
    lines.append(await carried_out("fillPool", called, []))
    await activate(viewer, pool_id)
    other = await add_filled_pool(viewer, CLAIMED)
    members = await add_members(viewer, CLAIMS_MAX)
    await database().row("ANALYZE")
    called, answer = await do(
        viewer, REVOKE, poolId=ids.encode("pool", pool_id), expectedCount=CODES, reason="leaked", idempotencyKey="all"
    )
    if answer["job"]["total"] != CODES:
        raise RuntimeError("some codes don't match")
    claims: list[float] = []
    claiming = asyncio.create_task(claim(viewer, other, members, claims))
    lines.append(await carried_out("revokeCodes", called, claims))
    claiming.cancel()
    await asyncio.wait([claiming])
    await database().rows("VACUUM code")
    lines.append(await row("after VACUUM", 0, 0, []))
    members = await add_members(viewer, RECIPIENTS - CLAIMS_MAX)
    stocked = await add_filled_pool(viewer, RECIPIENTS)
    await database().row("ANALYZE")
    called, answer = await do(
        viewer, SEND, name="bench", poolId=ids.encode("pool", stocked), segment="NEW", idempotencyKey="send"
    )
    if answer["campaign"]["recipientCount"] != RECIPIENTS:
        raise RuntimeError("some members aren't in the segment")
    claims = []
    claiming = asyncio.create_task(claim(viewer, other, members, claims))
    lines.append(await carried_out(f"createCampaign to {RECIPIENTS:,}", called, claims))
    claiming.cancel()
    await asyncio.wait([claiming])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*lines, "", f"{CODES:,} codes; the process that is caller and worker in one took {memory:.0f} MB at most."]


async def do(viewer: Viewer, document: str, **input: Any) -> tuple[float, Any]:
    """Return the seconds that a mutation took, and its answer."""
    begun = time.perf_counter()
    result = await schema.execute(document, variable_values={"input": input}, context_value=Context(viewer))
    if result.errors or result.data is None or not result.data["answer"]["__typename"].endswith("Success"):
        raise RuntimeError(f"a measured mutation failed: {result}")
    return time.perf_counter() - begun, result.data["answer"]


async def claim(viewer: Viewer, pool_id: UUID, members: list[UUID], seconds: list[float]) -> None:
    """Claim for one member after the other, with a short rest in between."""
    for member in members:
        asked = {"poolId": ids.encode("pool", pool_id), "memberId": ids.encode("member", member)}
        seconds.append((await do(viewer, CLAIM, **asked))[0])
        await asyncio.sleep(0.05)


async def carried_out(name: str, called: float, claims: list[float]) -> str:
    begun = time.perf_counter()
    while await carry_out_jobs(seconds_max=3600):
        pass
    return await row(name, called, time.perf_counter() - begun, claims)


async def row(name: str, called: float, seconds: float, claims: list[float]) -> str:
    """Return a line of the table."""
    size = await database().row(SIZE)
    if size is None:
        raise RuntimeError("the sizes can't be read")
    codes, indexes, pages = (size[each] / 1e6 for each in ("codes", "indexes", "pages"))
    ordered = sorted(claims)
    meanwhile = f"{median(ordered) * 1000:.1f}, {ordered[len(ordered) * 99 // 100] * 1000:.0f}" if ordered else ""
    return (
        f"| {name} | {called * 1000:.0f} | {seconds:.0f} | {codes:.0f} | {indexes:.0f} | {size['dead']:,} "
        f"| {pages:.1f} | {meanwhile} |"
    )
