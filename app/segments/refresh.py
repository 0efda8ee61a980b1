"""Works out who is in the segments that a member's own row doesn't tell: every night, and when it was never done."""

from typing import Final, TypedDict
from uuid import UUID

from app.graph.advocates import ADVOCATES, REFERRALS_MIN
from app.storage.database import database, transaction
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

#: When a night begins, in hours of UTC.
NIGHT_HOUR: Final = 2
#: Rows older than this weren't refreshed last night.
STALE_HOURS: Final = 36
#: Whether the merchant's rows are older than a night.
IS_STALE: Final = f"""
    NOT EXISTS (
        SELECT FROM segment_refresh
        WHERE merchant_id = :merchant_id AND refreshed_at > now() - interval '{STALE_HOURS} hours'
    )
"""


class _MerchantRow(TypedDict):
    merchant_id: UUID


#: Merchants whose rows are from before the last night began.
DUE: Final = statement(
    _MerchantRow,
    f"""
SELECT m.merchant_id FROM merchant m LEFT JOIN segment_refresh r ON r.merchant_id = m.merchant_id
WHERE {stands("m")} AND (
    r.refreshed_at IS NULL
    OR r.refreshed_at < date_trunc('day', now() - interval '{NIGHT_HOUR} hours', 'UTC') + interval '{NIGHT_HOUR} hours'
)
ORDER BY m.merchant_id
""",
)
STALE: Final = statement(NoRow, f"SELECT FROM merchant WHERE merchant_id = :merchant_id AND {IS_STALE}")
# Its row is the lock: a second refresh waits, and finds what the first one wrote.
BEGIN: Final = statement(
    NoRow,
    """
INSERT INTO segment_refresh (merchant_id, refreshed_at) VALUES (:merchant_id, now())
ON CONFLICT (merchant_id) DO UPDATE SET refreshed_at = excluded.refreshed_at
""",
)
# Who stays isn't written anew.
REFRESH: Final = statement(
    NoRow,
    f"""
WITH spent AS MATERIALIZED (
    SELECT member_id, sum(amount - refunded - paid_value + returned_value) AS spend FROM purchase
    WHERE merchant_id = :merchant_id AND reversed_at IS NULL AND occurred_at > now() - interval '365 days'
    GROUP BY member_id HAVING sum(amount - refunded - paid_value + returned_value) > 0
), high AS (
    SELECT percentile_disc(0.9) WITHIN GROUP (ORDER BY spend) AS spend FROM spent
), inside AS MATERIALIZED (
    SELECT member_id, 'HIGH_SPEND' AS segment FROM spent WHERE spend >= (SELECT spend FROM high)
    UNION ALL
    -- Who was merged since the snapshot stands in it for the kept member.
    SELECT DISTINCT coalesce(m.merged_into_id, m.id), 'ADVOCATES' FROM ({ADVOCATES}) AS advocate
    JOIN member m ON m.merchant_id = :merchant_id AND m.id = advocate.member_id
), gone AS (
    DELETE FROM segment_member
    WHERE merchant_id = :merchant_id AND (member_id, segment) NOT IN (SELECT member_id, segment FROM inside)
)
INSERT INTO segment_member (merchant_id, member_id, segment)
SELECT :merchant_id, member_id, segment FROM inside
ON CONFLICT (merchant_id, member_id, segment) DO NOTHING
""",
)


async def refresh(merchant_id: UUID) -> None:
    """Work out the members of the merchant's segments. Safe to run twice and at once."""
    async with transaction(merchant_id) as tx:
        await tx.row(BEGIN, merchant_id=merchant_id)
        await tx.many(REFRESH, merchant_id=merchant_id, referrals_min=REFERRALS_MIN)


async def refresh_if_stale(merchant_id: UUID) -> None:
    """Work out the members of the merchant's segments unless that was done last night."""
    if await database().row(STALE, merchant_id=merchant_id) is not None:
        await refresh(merchant_id)


async def refresh_due() -> int:
    """Refresh every merchant that wasn't since the last night began. Returns how many."""
    due = await database().rows(DUE)
    for row in due:
        await refresh(row["merchant_id"])
    return len(due)
