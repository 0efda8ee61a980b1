"""The integrity report: the time to recompute each promise, for a million codes and for a tenth of that."""

import time

from app.api.context import Viewer
from app.integrity.promises import PROMISES
from app.storage.database import database
from bench.portfolio import SIZES, fill
from bench.world import add_merchant

REPORT_SECONDS_MAX = 120.0
#: `fill` makes codes that are claimed and redeemed; these add the claims and the wallet events that belong to them.
CLAIMS = """
INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, claimed_at)
SELECT merchant_id, id, pool_id, member_id, row_number() OVER (PARTITION BY pool_id, member_id), allocated_at
FROM code WHERE merchant_id = $1 AND pool_id = $2 AND member_id IS NOT NULL
"""
EVENTS = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, member_id, wallet_version,
                   wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall)
SELECT merchant_id, uuidv7(), type, 'code', id, 'system', now(), member_id,
    row_number() OVER (PARTITION BY member_id) + $3, 0, 0, 0, 0
FROM code, unnest(ARRAY['code.claimed', 'code.redeemed']) AS type
WHERE merchant_id = $1 AND pool_id = $2 AND member_id IS NOT NULL AND (type = 'code.claimed' OR state = 'REDEEMED')
"""
#: Several pools give codes to one wallet, so each pool gets a range of versions.
VERSIONS_PER_POOL = 1_000_000


async def measure(_viewer: Viewer) -> list[str]:
    """Fill two merchants in one database, and recompute each one's promises."""
    taken: dict[str, list[float]] = {}
    for name, size in SIZES.items():
        owner, _ = await add_merchant(name)
        await fill(owner, *size)
        pools = await database().rows("SELECT id FROM pool WHERE merchant_id = $1", owner.merchant_id)
        for number, pool in enumerate(pools):
            await database().many(CLAIMS, owner.merchant_id, pool["id"], seconds_max=REPORT_SECONDS_MAX)
            first = number * VERSIONS_PER_POOL
            await database().many(EVENTS, owner.merchant_id, pool["id"], first, seconds_max=REPORT_SECONDS_MAX)
        await database().row("ANALYZE")
        for promise in PROMISES:
            begun = time.perf_counter()
            await database().many(promise.count, merchant_id=owner.merchant_id, seconds_max=REPORT_SECONDS_MAX)
            taken.setdefault(promise.name, []).append((time.perf_counter() - begun) * 1000)
    lines = [f"| promise | {' | '.join(f'{name}, ms' for name in SIZES)} |", "|---|---:|---:|"]
    lines += [f"| {name} | {small:,.0f} | {large:,.0f} |" for name, (small, large) in taken.items()]
    small, large = (sum(column) for column in zip(*taken.values(), strict=True))
    codes = max(SIZES.values())[0]
    return [
        *lines,
        f"| all | {small:,.0f} | {large:,.0f} |",
        "",
        f"Ten times the rows take {large / small:.1f} times as long: {large * 1000 / codes:.1f} µs per code.",
    ]
