"""Works out who is in the segments that a member's own row doesn't tell: every night, and when it was never done."""

import logging
from typing import Final
from uuid import UUID

from app import ids
from app.config import settings
from app.graph.advocates import ADVOCATES, REFERRALS_MIN
from app.storage.database import database, is_away, took_too_long, transaction
from app.storage.events import none_since
from app.storage.fences import stands
from app.storage.long_reads import limit, rows_in
from app.storage.nights import PASSED_AT_ONCE, MerchantRow, night_began, pass_over
from app.storage.statements import NoRow, statement

log = logging.getLogger("flash.segments")

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


#: Merchants whose rows are as they would be if they were worked out now: nothing has happened, no snapshot was drawn,
#: and no purchase has become older than a year. Returns the last merchant that was looked at.
PASS: Final = statement(
    MerchantRow,
    f"""
WITH night AS ({night_began(NIGHT_HOUR)}), looked AS MATERIALIZED (
    SELECT r.* FROM segment_refresh r, night
    WHERE r.merchant_id > :after AND r.refreshed_at < night.began AND {stands("r")}
    ORDER BY r.merchant_id LIMIT {PASSED_AT_ONCE}
), passed AS (
    UPDATE segment_refresh p SET refreshed_at = now() FROM looked r
    WHERE p.merchant_id = r.merchant_id AND p.refreshed_at = r.refreshed_at AND CASE
        WHEN {none_since("r.merchant_id", "r.refreshed_at")} THEN NOT EXISTS (
            SELECT FROM purchase b WHERE b.merchant_id = r.merchant_id AND b.occurred_at <= now() - interval '365 days'
                AND b.occurred_at > r.refreshed_at - interval '365 days'
        ) AND ((
            SELECT d.read_at FROM graph_snapshot s
            JOIN graph_drawing d ON d.merchant_id = s.merchant_id AND d.id = s.drawing_id
            WHERE s.merchant_id = r.merchant_id ORDER BY s.taken_on DESC LIMIT 1
        ) > r.refreshed_at - interval '1 hour') IS NOT TRUE
        ELSE false END
)
SELECT merchant_id FROM looked ORDER BY merchant_id DESC LIMIT 1
""",
)
#: Merchants whose rows are from before the last night began.
DUE: Final = statement(
    MerchantRow,
    f"""
SELECT m.merchant_id
FROM ({night_began(NIGHT_HOUR)}) night
CROSS JOIN merchant m LEFT JOIN segment_refresh r ON r.merchant_id = m.merchant_id
WHERE {stands("m")} AND (r.refreshed_at IS NULL OR r.refreshed_at < night.began)
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


async def refresh(merchant_id: UUID, *, seconds_max: float | None = None) -> None:
    """Work out the members of the merchant's segments. Safe to run twice and at once.

    None stands for the time limits of a request.
    """
    async with transaction(merchant_id) as tx:
        if seconds_max is not None:
            await limit(tx, seconds_max)
        await tx.row(BEGIN, merchant_id=merchant_id)
        await rows_in(tx, REFRESH, seconds_max=seconds_max, merchant_id=merchant_id, referrals_min=REFERRALS_MIN)


async def refresh_if_stale(merchant_id: UUID) -> None:
    """Work out the members of the merchant's segments unless that was done last night."""
    if await database().row(STALE, merchant_id=merchant_id) is not None:
        await refresh(merchant_id)


async def refresh_due() -> int:
    """Refresh every merchant that wasn't since the last night began. Returns how many were; the others are a line each.

    Those whose rows would come out as they are keep them. One that fails keeps none of the others from theirs.
    """
    await pass_over(PASS, log, "all segments are worked out")
    refreshed = 0
    for row in await database().rows(DUE):
        try:
            await refresh(row["merchant_id"], seconds_max=settings().report_seconds_max)
        except Exception as error:
            if is_away(error):
                raise
            name = ids.encode("merchant", row["merchant_id"])
            if took_too_long(error):
                log.warning("%s: its segments can't be worked out in time", name)
            else:
                log.exception("%s: its segments can't be worked out", name)
        else:
            refreshed += 1
    return refreshed
