"""Points: how many members a second a job expires, matures, and how long it lets somebody wait who spends meanwhile."""

import asyncio
import time
from uuid import UUID

from app.api.context import Viewer
from app.points.expire_points import expire_points_of
from app.points.ledger import debit
from app.points.mature_points import mature_points_of
from app.points.types import PointsReason
from app.storage.database import database, transaction
from bench.world import add_members

MEMBERS = 20_000
#: A second of them has points that are pending; the last hundred spend meanwhile.
SPENDERS = 100
#: Two credits for each member: one that is due, and one that stays.
LOTS = """
WITH made AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, spendable_at,
                              expires_at, created_at)
    SELECT $1, gen_random_uuid(), member_id, 10, 10 * n, 'ADJUSTMENT', member_id::text || n, now(),
        CASE WHEN n = 1 THEN now() - interval '1 second' ELSE now() + interval '30 days' END,
        now() + n * interval '1 ms'
    FROM unnest($2::uuid[]) AS member_id CROSS JOIN generate_series(1, 2) AS n RETURNING *
)
INSERT INTO points_lot (merchant_id, entry_id, member_id, amount, remaining, is_open, is_pending, is_warned,
                        spendable_at, expires_at, created_at, last_entry_id)
SELECT merchant_id, id, member_id, 10, 10, true, $3, true, now(), expires_at, created_at, id FROM made
"""


async def _filled(viewer: Viewer, *, is_pending: bool) -> list[UUID]:
    """Return new members with points that are due: for expiry, or for the end of pending."""
    members = await add_members(viewer, MEMBERS)
    async with transaction(None) as tx:
        await tx.row("ALTER TABLE wallet DISABLE TRIGGER wallet_points_posted")
        await tx.row(LOTS, viewer.merchant_id, members, is_pending)
        await tx.row(
            "UPDATE wallet SET points = 20, pending_points = $3 WHERE merchant_id = $1 AND member_id = ANY($2::uuid[])",
            viewer.merchant_id,
            members,
            20 if is_pending else 0,
        )
        await tx.row("ALTER TABLE wallet ENABLE TRIGGER wallet_points_posted")
    for table in ("points_entry", "points_lot", "wallet"):
        await database().row(f"VACUUM (ANALYZE) {table}")
    return members


async def measure(viewer: Viewer) -> list[str]:
    """Time both sweeps over many members, the expiry with spenders beside it."""
    await _filled(viewer, is_pending=True)
    begun = time.perf_counter()
    matured = await mature_points_of(viewer.merchant_id)
    maturing = time.perf_counter() - begun
    await expire_points_of(viewer.merchant_id)

    members = await _filled(viewer, is_pending=False)
    waits: list[float] = []
    is_over = asyncio.Event()

    async def spend() -> None:
        for number, member_id in enumerate(members[-SPENDERS:]):
            if is_over.is_set():
                return
            asked = time.perf_counter()
            await debit(
                database(), viewer.merchant_id, "system", member_id, 1, PointsReason.ADJUSTMENT,
                origin=f"bench {number}", reference=None,
            )  # fmt: skip
            waits.append(time.perf_counter() - asked)
            await asyncio.sleep(0.01)

    spending = asyncio.create_task(spend())
    begun = time.perf_counter()
    await expire_points_of(viewer.merchant_id)
    expiring = time.perf_counter() - begun
    is_over.set()
    await spending
    return [
        "| sweep | members | seconds | members a second |",
        "|---|---:|---:|---:|",
        f"| expiry | {MEMBERS:,} | {expiring:.2f} | {MEMBERS / expiring:,.0f} |",
        f"| the end of pending, two credits each | {matured // 2:,} | {maturing:.2f} | {matured / 2 / maturing:,.0f} |",
        "",
        f"Who spent beside the expiry waited {1000 * max(waits):.0f} ms at most ({len(waits)} debits).",
    ]
