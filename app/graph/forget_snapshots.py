"""Old snapshots of the network go, whole and a bounded number of rows at a time; the newest of a merchant stays.

A drawing goes with the last snapshot that shows it.
"""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from app.storage.database import Tx, transaction
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

#: About how many nodes and edges one statement deletes: a snapshot is never seen in part, so the last one is whole.
ROWS_MAX: Final = 100_000
_MERCHANTS_MAX: Final = 100


class _ForgottenRow(TypedDict):
    merchant_id: UUID
    drawing_id: UUID


class _HeldRow(TypedDict):
    id: UUID


# The oldest of each merchant that has a newer one, with the jobs up to its day: each merchant is one look at an index.
FORGET: Final = statement(
    _ForgottenRow,
    f"""
WITH old AS (
    SELECT each.* FROM merchant m CROSS JOIN LATERAL (
        SELECT s.merchant_id, s.id, s.taken_on, s.member_count + s.referral_count AS rows FROM graph_snapshot s
        WHERE s.merchant_id = m.merchant_id AND s.taken_on < (now() AT TIME ZONE m.time_zone)::date - :history_days::int
            AND EXISTS (
                SELECT FROM graph_snapshot n WHERE n.merchant_id = m.merchant_id AND n.taken_on > s.taken_on
            )
        ORDER BY s.taken_on LIMIT 1
    ) each
    WHERE {stands("m")}
    LIMIT {_MERCHANTS_MAX}
), few AS (
    SELECT * FROM (SELECT old.*, sum(rows) OVER (ORDER BY merchant_id) - rows AS rows_before FROM old) counted
    WHERE rows_before < {ROWS_MAX}
), gone AS (
    DELETE FROM graph_snapshot WHERE (merchant_id, id) IN (SELECT merchant_id, id FROM few)
    RETURNING merchant_id, drawing_id
), done AS (
    DELETE FROM graph_job j USING few
    WHERE j.merchant_id = few.merchant_id AND j.taken_on <= few.taken_on AND j.status IN ('DONE', 'FAILED')
)
SELECT merchant_id, drawing_id FROM gone
""",
)
# Waits for a snapshot that is being stored to show one of them.
HOLD: Final = statement(
    _HeldRow,
    """
SELECT d.id FROM graph_drawing d JOIN unnest(:merchant_ids::uuid[], :drawing_ids::uuid[]) AS asked (merchant_id, id)
    ON d.merchant_id = asked.merchant_id AND d.id = asked.id
ORDER BY d.merchant_id, d.id FOR UPDATE OF d
""",
)
# A statement of its own, that sees what was stored meanwhile.
DROP: Final = statement(
    NoRow,
    """
DELETE FROM graph_drawing d USING unnest(:merchant_ids::uuid[], :drawing_ids::uuid[]) AS asked (merchant_id, id)
WHERE d.merchant_id = asked.merchant_id AND d.id = asked.id AND NOT EXISTS (
    SELECT FROM graph_snapshot s WHERE s.merchant_id = d.merchant_id AND s.drawing_id = d.id
)
""",
)


async def forget_batch(history_days: int) -> int:
    """Delete some snapshots that are older than so many days of their merchants'. Returns how many.

    Safe to run twice and at once.
    """
    async with transaction(None) as tx:
        gone = await tx.rows(FORGET, history_days=history_days)
        await drop_unshown(tx, [(row["merchant_id"], row["drawing_id"]) for row in gone])
    return len(gone)


async def drop_unshown(tx: Tx, drawings: Sequence[tuple[UUID, UUID]]) -> None:
    """Delete those of some drawings, named by merchant and id, that no snapshot shows any more."""
    if not drawings:
        return
    merchant_ids, drawing_ids = (list(each) for each in zip(*drawings, strict=True))
    await tx.rows(HOLD, merchant_ids=merchant_ids, drawing_ids=drawing_ids)
    await tx.row(DROP, merchant_ids=merchant_ids, drawing_ids=drawing_ids)
