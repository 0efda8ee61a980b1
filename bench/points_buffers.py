"""Points: buffers for wallets with 10, 1,000 and 100,000 entries, and for the liability of 155,848 entries."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.points import rows
from app.points.ledger import CREDIT, DEBIT, PostedRow
from app.points.liability import LIABILITY
from app.storage.database import Tx, database, transaction
from app.storage.statements import Statement
from bench.world import add_members

CHUNK = 500
LAST = UUID(int=2**128 - 1)
#: Makes a history in bulk: each entry credits one point that expires, a second after the entry before.
HISTORY = """
WITH made AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, spendable_at,
                              expires_at, created_at)
    SELECT $1, gen_random_uuid(), $2::uuid, 1, n, 'ADJUSTMENT', $2::uuid::text || n, at, now() + interval '30 days', at
    FROM generate_series($3::int, $4::int) AS n
    CROSS JOIN LATERAL (SELECT '2026-01-01T00:00:00Z'::timestamptz + make_interval(secs => n) AS at) dated RETURNING *
), lots AS (
    INSERT INTO points_lot (merchant_id, entry_id, member_id, amount, remaining, is_open, is_pending, is_warned,
                            spendable_at, expires_at, created_at, last_entry_id)
    SELECT merchant_id, id, member_id, 1, 1, true, false, false, spendable_at, expires_at, created_at, id FROM made
)
UPDATE wallet SET points = $4 WHERE merchant_id = $1 AND member_id = $2
"""


async def add_history(merchant_id: UUID, member_id: UUID, length: int) -> None:
    """Give a new member `length` entries of one point each."""
    for first in range(1, length + 1, CHUNK):
        async with transaction(None) as tx:
            # No event names these entries.
            await tx.row("ALTER TABLE wallet DISABLE TRIGGER wallet_points_posted")
            await tx.row(HISTORY, merchant_id, member_id, first, min(first + CHUNK - 1, length))
            await tx.row("ALTER TABLE wallet ENABLE TRIGGER wallet_points_posted")


class _UndoneError(Exception):
    """Rolls a transaction back."""


@asynccontextmanager
async def _undone() -> AsyncIterator[Tx]:
    with contextlib.suppress(_UndoneError):
        async with transaction(None) as tx:
            yield tx
            raise _UndoneError


async def _buffers(sql: str, *args: object) -> int:
    """Return the buffers that a statement touches on its third run; each is undone."""
    touched = 0
    for _ in range(3):
        async with _undone() as tx:
            row = await tx.row(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *args)
            if row is None:
                raise RuntimeError("EXPLAIN returned no row")
            touched = touched_by(json.loads(row["QUERY PLAN"])[0]["Plan"])
    return touched


def touched_by(plan: dict[str, Any]) -> int:
    """Return the buffers of a plan: of its top, and of the parts that nothing reads and that it doesn't count."""
    nodes = list(_nodes(plan))
    read = {node.get("CTE Name") for node in nodes}
    unread = [
        node
        for node in nodes
        if node.get("Subplan Name", "").startswith("CTE ") and node["Subplan Name"].removeprefix("CTE ") not in read
    ]
    return sum(int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"]) for node in [plan, *unread])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def _posted(asked: Statement[PostedRow], viewer: Viewer, member_id: UUID, amount: int, **more: object) -> int:
    """Return the buffers that an entry touches on its third run."""
    values = {"merchant_id": viewer.merchant_id, "member_id": member_id, "entry_id": ids.new(), "amount": amount} | {
        "reason": "ADJUSTMENT", "origin": ids.new().hex, "reference": None, "event_id": ids.new(), "actor": "system",
        "told_reference": None, "reference_index": None, "told_of": None,
    }  # fmt: skip
    return await _buffers(asked.text, *asked.arguments(values | more))


async def measure(viewer: Viewer) -> list[str]:
    """Count a page of entries, a credit, and debits of one lot and of five for three histories, then the liability."""
    lines = [
        "| entries in the wallet | a page of 10 | a credit | a debit of 1 lot | of 5 lots |",
        "|---:|---:|---:|---:|---:|",
    ]
    lengths = (10, 1_000, 100_000, 54_838)
    members = await add_members(viewer, len(lengths))
    for member_id, length in zip(members, lengths, strict=True):
        await add_history(viewer.merchant_id, member_id, length)
    for table in ("points_entry", "points_lot", "wallet"):
        await database().row(f"VACUUM (ANALYZE) {table}")
    for member_id, length in zip(members, lengths, strict=True):
        asked = {
            "merchant_id": viewer.merchant_id,
            "member_ids": [member_id],
            "instant": datetime(9999, 1, 1, tzinfo=UTC),
            "before": LAST,
            "limit": 11,
        }
        page = await _buffers(rows.ENTRIES_OF_MEMBERS.text, *rows.ENTRIES_OF_MEMBERS.arguments(asked))
        given = await _posted(CREDIT, viewer, member_id, 1, spendable_at=None, expires_at=None)
        one, five = [await _posted(DEBIT, viewer, member_id, amount) for amount in (1, 5)]
        lines.append(f"| {length:,} | {page} | {given} | {one} | {five} |")
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
