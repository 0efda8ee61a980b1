"""S3: SQL round trips per operation, counted at the wire; a page costs the same for 1 and for 100 rows."""

from typing import Any

from app import ids
from app.api.context import Context, Viewer
from app.config import settings
from app.schema import schema
from app.storage.database import connected
from bench.wire import AUTHENTICATION, counting
from bench.world import activate, add_members, add_pool

CLAIM = """
mutation ($pool: ID!, $member: ID!) {
  claimCode(input: { poolId: $pool, memberId: $member }) { ... on ClaimCodeSuccess { code { id text } } }
}
"""
GENERATE = """
mutation ($pool: ID!) { generateCodes(input: { poolId: $pool, count: 150 }) { __typename } }
"""
REDEEM = """
mutation ($code: String!, $member: ID!, $order: String!) {
  redeemCodes(
    input: { codes: [$code], orderId: $order, memberId: $member, orderAmount: { amountMinor: 1000, currency: "USD" } }
  ) {
    __typename ... on RedeemCodesSuccess { redemptions { id } }
  }
}
"""
CODE = "id masked state pool { id name stock { available } } owner { id maskedEmail wallet { version } }"
CODES = f"codes(first: 3) {{ edges {{ node {{ {CODE} }} }} }}"
PAGES = {
    "pools, their stock and codes": f"pools(first: $first) {{ edges {{ node {{ id stock {{ total }} {CODES} }} }} }}",
    "codes, their pools and owners": f"codes(first: $first) {{ edges {{ node {{ {CODE} }} }} }}",
    "members and their codes": f"members(first: $first) {{ edges {{ node {{ wallet {{ version {CODES} }} }} }} }}",
    "redemptions and their codes": f"redemptions(first: $first) {{ edges {{ node {{ id code {{ {CODE} }} }} }} }}",
}


async def measure(viewer: Viewer) -> list[str]:
    """Return the table of S3."""
    database_url = settings().database_url
    if database_url is None:
        raise RuntimeError("the scratch engine has no database")
    async with counting(database_url) as (through, waits):
        watched = settings().model_copy(update={"database_url": through, "database_connections_max": 1})
        async with connected(watched):
            return await _counted(viewer, waits)


async def _counted(viewer: Viewer, waits: list[str]) -> list[str]:
    members = await add_members(viewer, 110)
    pool_id = await add_pool(viewer)
    await _do(viewer, GENERATE, pool=ids.encode("pool", pool_id))
    await activate(viewer, pool_id)

    async def count(document: str, **variables: Any) -> tuple[int, Any]:
        waits.clear()
        answer = await _do(viewer, document, **variables)
        return len([statement for statement in waits if statement not in AUTHENTICATION]), answer

    trips: dict[str, list[int]] = {"claim": [], "claim, again": [], "redeem": [], "redeem, again": []}
    for number, member in enumerate(members):
        who = {"pool": ids.encode("pool", pool_id), "member": ids.encode("member", member)}
        taken, answer = await count(CLAIM, **who)
        spent = {"code": answer["claimCode"]["code"]["text"], "member": who["member"], "order": f"order-{number}"}
        trips["claim"].append(taken)
        trips["claim, again"].append((await count(CLAIM, **who))[0])
        trips["redeem"].append((await count(REDEEM, **spent))[0])
        trips["redeem, again"].append((await count(REDEEM, **spent))[0])
    goals = {"claim": 2, "claim, again": 2, "redeem": 3, "redeem, again": 3}
    lines = ["| operation | round trips | goal |", "|---|---|---|"]
    lines += [f"| {name} | {max(counts[10:])} | ≤ {goals[name]} |" for name, counts in trips.items()]
    for name, fields in PAGES.items():
        document = f"query ($first: Int) {{ {fields} }}"
        counts = {first: (await _prepared(count, document, first)) for first in (1, 100)}
        lines.append(f"| page of {name} | {counts[1]} for 1 row, {counts[100]} for 100 | ≤ 3, the same |")
    return lines


async def _prepared(count: Any, document: str, first: int) -> int:
    await count(document, first=first)
    trips, _ = await count(document, first=first)
    return int(trips)


async def _do(viewer: Viewer, document: str, **variables: Any) -> Any:
    result = await schema.execute(document, variables, context_value=Context(viewer))
    if result.errors:
        raise RuntimeError(str(result.errors))
    return result.data
