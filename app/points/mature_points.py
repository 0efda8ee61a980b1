"""The end of pending: points of a purchase become spendable, each credit by a change of the wallet.

A debit doesn't wait for the job: it looks at the clock, and ends what is over by the same statement.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app import ids
from app.points.sweep import DueMerchantRow, lock_due, sweep
from app.storage.database import Tx, database
from app.storage.events import event
from app.storage.fences import stands
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

LOTS_PER_STATEMENT: Final = 1000


FIND_RIPE: Final = statement(
    DueMerchantRow,
    f"""
SELECT merchant_id FROM merchant m WHERE {stands("m")} AND EXISTS (
    SELECT FROM points_lot l WHERE l.merchant_id = m.merchant_id AND l.is_pending AND l.spendable_at <= now()
)
""",
)


async def mature_points() -> int:
    """End the pending of all points whose time has come. Returns of how many credits. Safe to run twice and at once."""
    matured = 0
    for row in await database().rows(FIND_RIPE):
        matured += await mature_points_of(row["merchant_id"])
    return matured


async def mature_points_of(merchant_id: UUID) -> int:
    """End the pending of what is due of one merchant. Returns of how many credits."""
    return await sweep(merchant_id, LOCK_RIPE, WAIT_FOR_RIPE, mature)


_RIPE: Final = """
    SELECT member_id FROM points_lot
    WHERE merchant_id = :merchant_id AND is_pending AND spendable_at <= now() ORDER BY spendable_at LIMIT :credits
"""
LOCK_RIPE: Final = lock_due(_RIPE, skips=True)
WAIT_FOR_RIPE: Final = lock_due(_RIPE, skips=False)

MATURE: Final = statement(
    ChangeRow,
    f"""
WITH ripe AS (
    -- Those that have points come first: where fewer than asked for end, none is left.
    UPDATE points_lot SET is_pending = false
    WHERE merchant_id = :merchant_id AND entry_id = ANY(ARRAY(
        SELECT ripe.entry_id FROM unnest(:member_ids::uuid[]) AS asked (member_id) CROSS JOIN LATERAL (
            SELECT entry_id, is_open FROM points_lot
            WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND is_pending AND spendable_at <= now()
        ) ripe
        ORDER BY ripe.is_open DESC LIMIT cardinality(:event_ids::uuid[])
    ))
    RETURNING entry_id, member_id, remaining, spendable_at
), numbered AS (
    -- What was taken back while it was pending ends in silence.
    SELECT ripe.*, row_number() OVER (ORDER BY member_id, spendable_at, entry_id) AS place,
        row_number() OVER its AS number, sum(remaining) OVER its AS sum
    FROM ripe WHERE remaining > 0
    WINDOW its AS (PARTITION BY member_id ORDER BY spendable_at, entry_id)
), w AS (
    UPDATE wallet SET version = version + its.changes, changed_at = {NEXT_DATE},
        pending_points = pending_points - its.points
    FROM (SELECT member_id, count(*) AS changes, sum(remaining)::int AS points FROM numbered GROUP BY member_id) its
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = ANY(:member_ids)
        AND wallet.member_id = its.member_id
    RETURNING wallet.*, its.changes, its.points AS matured
), step AS (
    -- The wallet after each of them.
    SELECT numbered.*, w.version - w.changes + number AS version, w.points, w.held_points,
        w.pending_points + w.matured - sum AS pending_points, w.shortfall
    FROM numbered JOIN w ON w.member_id = numbered.member_id
), ev AS (
    {
        event(
            "points.matured",
            id="(:event_ids::uuid[])[place]",
            subject="entry_id",
            actor="'system'",
            source="step",
            points="remaining",
            member_id="member_id",
            wallet="step",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


async def mature(tx: Tx, merchant_id: UUID, member_ids: Sequence[UUID]) -> int:
    """End the pending of what is due in wallets that are locked. Returns of how many credits."""
    matured = 0
    while True:
        event_ids = [ids.new() for _ in range(LOTS_PER_STATEMENT)]
        changes = await tx.many(MATURE, merchant_id=merchant_id, member_ids=list(member_ids), event_ids=event_ids)
        for change in changes:
            ring_wallet(tx, merchant_id, change)
        matured += len(changes)
        if len(changes) < LOTS_PER_STATEMENT:
            return matured
