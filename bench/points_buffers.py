"""Points: buffers for wallets with 10 and with 100,000 entries, and for the liability of 155,848 entries."""

import json
from datetime import UTC, datetime
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.points import rows
from app.points.ledger import POST
from app.points.liability import LIABILITY
from app.storage.database import database, transaction
from bench.world import add_members

CHUNK = 500
LAST = UUID(int=2**128 - 1)
#: Makes a history in bulk: each entry credits one point that expires, a second after the entry before.
HISTORY = """
WITH made AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, mark, expires_at,
                              created_at)
    SELECT $1, gen_random_uuid(), $2::uuid, 1, n, 'ADJUSTMENT', $2::uuid::text || n, n, now() + interval '30 days',
        '2026-01-01T00:00:00Z'::timestamptz + make_interval(secs => n)
    FROM generate_series($3::int, $4::int) AS n RETURNING *
), due AS (
    INSERT INTO points_due (merchant_id, entry_id, member_id, mark, expires_at, warned)
    SELECT merchant_id, id, member_id, mark, expires_at, false FROM made
)
UPDATE wallet SET points = $4, expiring_earned = $4, expiring_until = now() + interval '30 days'
WHERE merchant_id = $1 AND member_id = $2
"""


async def add_history(merchant_id: UUID, member_id: UUID, length: int) -> None:
    """Give a new member `length` entries of one point each."""
    for first in range(1, length + 1, CHUNK):
        async with transaction(None) as tx:
            # No event names these entries.
            await tx.row("ALTER TABLE wallet DISABLE TRIGGER wallet_points_posted")
            await tx.row(HISTORY, merchant_id, member_id, first, min(first + CHUNK - 1, length))
            await tx.row("ALTER TABLE wallet ENABLE TRIGGER wallet_points_posted")


async def _buffers(sql: str, *args: object) -> int:
    """Return the buffers that a statement touches on its third run."""
    touched = 0
    for _ in range(3):
        async with transaction(None) as tx:
            row = await tx.row(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *args)
            if row is None:
                raise RuntimeError("EXPLAIN returned no row")
            plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
            touched = int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])
    return touched


async def measure(viewer: Viewer) -> list[str]:
    """Count a page of entries and a debit of half the balance for three histories, then the liability."""
    lines = ["| entries in the wallet | a page of 10 | a debit of half of it |", "|---:|---:|---:|"]
    lengths = (10, 100_000, 55_838)
    members = await add_members(viewer, len(lengths))
    for member_id, length in zip(members, lengths, strict=True):
        await add_history(viewer.merchant_id, member_id, length)
    await database().row("VACUUM (ANALYZE) points_entry")
    for member_id, length in zip(members, lengths, strict=True):
        asked = {
            "merchant_id": viewer.merchant_id,
            "member_ids": [member_id],
            "instant": datetime(9999, 1, 1, tzinfo=UTC),
            "before": LAST,
            "limit": 11,
        }
        page = await _buffers(rows.ENTRIES_OF_MEMBERS.text, *rows.ENTRIES_OF_MEMBERS.arguments(asked))
        posted = {
            "merchant_id": viewer.merchant_id,
            "member_id": member_id,
            "entry_id": ids.new(),
            "amount": -(length // 2),
            "reason": "ADJUSTMENT",
            "origin": ids.new().hex,
            "reference": None,
            "event_id": ids.new(),
            "actor": "system",
        }
        debit = await database().row(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {POST.text}", *POST.arguments(posted))
        if debit is None:
            raise RuntimeError("EXPLAIN returned no row")
        plan = json.loads(debit["QUERY PLAN"])[0]["Plan"]
        lines.append(f"| {length:,} | {page} | {plan['Shared Hit Blocks'] + plan['Shared Read Blocks']} |")
    now, half, whole = [
        await _buffers(LIABILITY.text, *LIABILITY.arguments({"merchant_id": viewer.merchant_id, "as_of": as_of}))
        for as_of in (None, datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC))
    ]
    lines += [
        "",
        f"The liability of {sum(lengths):,} entries takes {now} buffers as of now, {half} as of twelve hours after",
    ]
    lines += [f"the first entry, and {whole} as of a time before all entries."]
    return lines
