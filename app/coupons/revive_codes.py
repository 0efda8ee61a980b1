"""Revival: codes that only their pool's end had expired live again once the pool has a later one.

They are shown as live from the edit on. What is left is to write that down.
"""

from collections.abc import Iterable
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.coupons.rows import DIED_WITH_POOL, IS_OVER, JOIN_CODE, LIVES_AGAIN, WholeCodeRow
from app.storage.database import Statements, database, transaction
from app.storage.fences import stands
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

#: What rings the workers.
JOB: Final = "revive_codes"
BATCH: Final = 1000
_FIRST: Final = UUID(int=0)


class _WaitingRow(TypedDict):
    merchant_id: UUID
    pool_id: UUID


class _HeldRow(TypedDict):
    walked_to: UUID | None
    is_over: bool


class RevivedRow(WholeCodeRow, ChangeRow):
    """A code that lives again, and its event."""


FIND: Final = statement(_WaitingRow, f"SELECT merchant_id, pool_id FROM code_revival r WHERE {stands('r')}")


async def revive_codes() -> int:
    """Revive all codes that wait for it, a batch per transaction. Returns how many. Safe to run twice and at once."""
    revived = 0
    for row in await database().rows(FIND):
        while (batch := await revive_batch(row["merchant_id"], row["pool_id"])) is not None:
            revived += batch
    return revived


# An edit holds the pool first and then writes the row of the revival. What it did is seen by the statement after this.
HOLD_POOL: Final = statement(NoRow, "SELECT FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR SHARE")
HOLD: Final = statement(
    _HeldRow,
    f"""
SELECT r.walked_to, {IS_OVER} AS is_over
FROM code_revival r JOIN pool p ON p.merchant_id = :merchant_id AND p.id = r.pool_id
WHERE r.merchant_id = :merchant_id AND r.pool_id = :pool_id FOR UPDATE OF r
""",
)
END: Final = statement(
    NoRow,
    """
DELETE FROM code_revival WHERE merchant_id = :merchant_id AND pool_id = :pool_id
""",
)
# Continues a WITH that has the ids of the codes that are `due`, locked in their order; wallets follow by member.
_REVIVED: Final = f"""
c AS (
    UPDATE code SET state = 'ALLOCATED' WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM due))
    RETURNING *
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, count(*), 0, -count(*), 0 FROM c GROUP BY pool_id
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id, id AS subject_id, member_id,
        NULL::bytea AS reason
    FROM c
), {raise_wallets("code.revived", actor="'system'")}
SELECT {columns(WholeCodeRow)}, {columns(ChangeRow)} FROM c {JOIN_CODE} JOIN recorded ev ON ev.subject_id = c.id
"""
# A code that died of its own end stays dead; it is those that are replaced. Nothing else expires by the pool's end
# while the pool is held, so that one walk finds all. It passes over those that somebody needed before.
REVIVE: Final = statement(
    RevivedRow,
    f"""
WITH due AS (
    SELECT c.id FROM code c
    WHERE c.merchant_id = :merchant_id AND c.pool_id = :pool_id AND c.id > :after AND {DIED_WITH_POOL}
    ORDER BY c.id LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE
), walked AS (
    UPDATE code_revival SET walked_to = (SELECT id FROM due ORDER BY id DESC LIMIT 1)
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND EXISTS (SELECT FROM due)
), {_REVIVED}
""",
)
# Archiving waits for those that found the pool going on.
REVIVE_NEEDED: Final = statement(
    RevivedRow,
    f"""
WITH due AS (
    SELECT c.id FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(:code_ids::uuid[]) AND {LIVES_AGAIN}
    ORDER BY c.id FOR UPDATE OF c FOR SHARE OF p
), {_REVIVED}
""",
)


async def revive_needed(where: Statements, merchant_id: UUID, code_ids: Iterable[UUID]) -> int:
    """Write down of those codes that live again that they do, before something else is done with them.

    Others stay as they are. Nothing is sent where there are none. Returns how many were revived.
    """
    needed = set(code_ids)
    if not needed:
        return 0
    rows = await where.rows(
        REVIVE_NEEDED, merchant_id=merchant_id, code_ids=needed, event_ids=[ids.new() for _ in needed]
    )
    for row in rows:
        ring_wallet(where, merchant_id, row)
    return len(rows)


async def revive_batch(merchant_id: UUID, pool_id: UUID) -> int | None:
    """Revive up to BATCH codes of a pool in one transaction. Returns None once there is nothing left to do."""
    async with transaction(merchant_id) as tx:
        await tx.row(HOLD_POOL, merchant_id=merchant_id, pool_id=pool_id)
        held = await tx.row(HOLD, merchant_id=merchant_id, pool_id=pool_id)
        rows = []
        # One that is over again, or closed, revives nothing more.
        if held is not None and not held["is_over"]:
            rows = await tx.rows(
                REVIVE,
                merchant_id=merchant_id,
                pool_id=pool_id,
                after=held["walked_to"] or _FIRST,
                event_ids=[ids.new() for _ in range(BATCH)],
            )
        if not rows:
            await tx.row(END, merchant_id=merchant_id, pool_id=pool_id)
            return None
        for row in rows:
            ring_wallet(tx, merchant_id, row)
    return len(rows)
