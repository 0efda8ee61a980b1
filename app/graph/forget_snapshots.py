"""Old snapshots of the network go, whole and a bounded number of rows at a time; the newest of a merchant stays."""

from typing import Final, TypedDict

from app.storage.database import database
from app.storage.fences import stands
from app.storage.statements import statement

#: About how many nodes and edges one statement deletes: a snapshot is never seen in part, so the last one is whole.
ROWS_MAX: Final = 100_000
_MERCHANTS_MAX: Final = 100


class _ForgottenRow(TypedDict):
    snapshots: int


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
    DELETE FROM graph_snapshot WHERE (merchant_id, id) IN (SELECT merchant_id, id FROM few) RETURNING merchant_id
), done AS (
    DELETE FROM graph_job j USING few
    WHERE j.merchant_id = few.merchant_id AND j.taken_on <= few.taken_on AND j.status IN ('DONE', 'FAILED')
)
SELECT count(*) AS snapshots FROM gone
""",
)


async def forget_batch(history_days: int) -> int:
    """Delete some snapshots that are older than so many days of their merchants'. Returns how many.

    Safe to run twice and at once.
    """
    row = await database().row(FORGET, history_days=history_days)
    return 0 if row is None else row["snapshots"]
