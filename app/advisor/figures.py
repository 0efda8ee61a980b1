"""The sums behind a portfolio: of pools, of segments, and of both together, each in one statement over all rows."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypedDict
from uuid import UUID

from app.members.rows import IS_HERE
from app.reports import runs
from app.reports.runs import CheckStatus, Computed, Report
from app.segments.definitions import BY_ROW, KEPT, SegmentName
from app.segments.refresh import IS_STALE, refresh
from app.storage.long_reads import long_rows
from app.storage.statements import statement

#: Of a merchant with more pools those that were redeemed most in 90 days are shown.
POOLS_MAX: Final = 500
#: Who looks at figures that are older than this has them computed anew for the next one who does.
OLD_SECONDS: Final = 900.0


class SumsRow(TypedDict):
    """The sums of a pool, and those of the pool that was redeemed most.

    `held` are the codes that somebody ever had. Whether somebody has a bearer code is known while it is redeemed.
    """

    pool_id: UUID
    codes: Decimal
    held: Decimal
    redeemed: Decimal
    orders: Decimal
    discounts: Decimal
    of_90_days: Decimal
    of_30_days: Decimal
    of_30_before: Decimal
    of_90_days_max: Decimal


class SegmentRow(TypedDict):
    """The sums of a segment, by its number, and whether the rows of those that are kept are older than a night."""

    is_stale: bool
    number: int
    members: int
    spend: Decimal
    orders: Decimal
    codes: Decimal
    redeemed: Decimal


class ReachRow(TypedDict):
    """How many codes of a pool the members of a segment hold, or held, by the segment's number."""

    pool_id: UUID
    number: int
    codes: int


# Every part is summed by pool before it meets the others, and nothing is joined: the cost grows with what is counted,
# whatever the planner knows of the tables. Stock is kept summed up by
# a job; standing redemptions are read from an index that has all that is summed, and so are the codes that the stock
# alone takes for allocated. A redemption on an order with another one of the same pool counts the order again.
# bench/portfolio.py counts the buffers.
POOLS: Final = statement(
    SumsRow,
    f"""
WITH part AS (
    SELECT id AS pool_id, 0 AS codes, 0 AS held, 0 AS redeemed, 0 AS orders, 0 AS discounts,
        0 AS of_90_days, 0 AS of_30_days, 0 AS of_30_before
    FROM pool WHERE merchant_id = :merchant_id
    UNION ALL
    SELECT pool_id, sum(available + allocated + redeemed + expired + revoked), sum(allocated + redeemed + expired),
        sum(redeemed), 0, 0, 0, 0, 0
    FROM stock_change WHERE merchant_id = :merchant_id GROUP BY pool_id
    UNION ALL
    SELECT pool_id, 0, count(*), 0, 0, 0, 0, 0, 0
    FROM code WHERE merchant_id = :merchant_id AND state = 'REVOKED' AND allocated_at IS NOT NULL GROUP BY pool_id
    UNION ALL
    SELECT pool_id, 0, -count(*), 0, 0, 0, 0, 0, 0
    FROM code
    WHERE merchant_id = :merchant_id
        AND ((bearer AND state <> 'REDEEMED') OR (state = 'EXPIRED' AND allocated_at IS NULL))
    GROUP BY pool_id
    UNION ALL
    SELECT pool_id, 0, 0, 0, sum(order_amount), sum(discount),
        count(*) FILTER (WHERE redeemed_at > now() - interval '90 days'),
        count(*) FILTER (WHERE redeemed_at > now() - interval '30 days'),
        count(*) FILTER (
            WHERE redeemed_at > now() - interval '60 days' AND redeemed_at <= now() - interval '30 days'
        )
    FROM redemption WHERE merchant_id = :merchant_id AND reversed_at IS NULL GROUP BY pool_id
), f AS (
    SELECT pool_id, sum(codes) AS codes, sum(held) AS held, sum(redeemed) AS redeemed, sum(orders) AS orders,
        sum(discounts) AS discounts, sum(of_90_days) AS of_90_days, sum(of_30_days) AS of_30_days,
        sum(of_30_before) AS of_30_before, max(sum(of_90_days)) OVER () AS of_90_days_max
    FROM part GROUP BY pool_id
    ORDER BY of_90_days DESC, pool_id DESC LIMIT {POOLS_MAX}
)
SELECT * FROM f ORDER BY of_90_days DESC, pool_id DESC
""",
)

# What says whether a member is in each segment: a column each.
_FLAGS: Final = [f"is_{name.value.lower()}" for name in SegmentName]


def _flags(told: Mapping[SegmentName, str]) -> str:
    """Return the columns of all segments: those that are told of, and false."""
    return ", ".join(f"{told.get(name, 'false')} AS is_{name.value.lower()}" for name in SegmentName)


#: CTEs: what each member of the merchant is and did, in one pass over members, purchases, codes and the segments that
#: are kept as rows. Nothing is joined, so nothing can be joined badly.
EACH_MEMBER: Final = f"""
told AS (
    SELECT id AS member_id, {_flags(BY_ROW)}, 0 AS spend, 0 AS orders, 0 AS codes, 0 AS redeemed
    FROM member m WHERE merchant_id = :merchant_id AND {IS_HERE}
    UNION ALL
    SELECT member_id, {_flags({})}, sum(amount - refunded - paid_value + returned_value), count(*), 0, 0
    FROM purchase
    WHERE merchant_id = :merchant_id AND reversed_at IS NULL AND occurred_at > now() - interval '365 days'
    GROUP BY member_id
    UNION ALL
    SELECT member_id, {_flags({})}, 0, 0, count(*), count(*) FILTER (WHERE state = 'REDEEMED')
    FROM code WHERE merchant_id = :merchant_id AND member_id IS NOT NULL GROUP BY member_id
    UNION ALL
    SELECT member_id, {_flags({name: f"segment = '{name.value}'" for name in KEPT})}, 0, 0, 0, 0
    FROM segment_member WHERE merchant_id = :merchant_id
), each_member AS (
    SELECT member_id, {", ".join(f"bool_or({flag}) AS {flag}" for flag in _FLAGS)}, sum(spend) AS spend,
        sum(orders) AS orders, sum(codes) AS codes, sum(redeemed) AS redeemed
    FROM told GROUP BY member_id
)
"""
#: In the order of SegmentName; everybody last.
OF_SEGMENTS: Final = f"""
(VALUES {", ".join(f"({number}, {flag})" for number, flag in enumerate([*_FLAGS, "true"], start=1))})
    AS segment (number, is_inside)
"""
#: The columns by which OF_SEGMENTS tells.
FLAGS: Final = ", ".join(_FLAGS)
NO_FLAGS: Final = ", ".join("NULL" for _ in _FLAGS)
FLAGS_OVER_MEMBER: Final = ", ".join(f"bool_or({flag}) OVER member AS {flag}" for flag in _FLAGS)
COUNTS: Final = statement(
    SegmentRow,
    f"""
WITH {EACH_MEMBER}
SELECT {IS_STALE} AS is_stale, segment.number, count(*) AS members, sum(spend) AS spend, sum(orders) AS orders,
    sum(codes) AS codes, sum(redeemed) AS redeemed
FROM each_member CROSS JOIN LATERAL {OF_SEGMENTS} WHERE segment.is_inside GROUP BY segment.number
""",
)
#: Of each pool that isn't archived; everybody is segment 6.
REACH: Final = statement(
    ReachRow,
    f"""
WITH {EACH_MEMBER}, holding AS (
    SELECT member_id, pool_id, count(*) AS codes FROM code
    WHERE merchant_id = :merchant_id AND member_id IS NOT NULL
        AND pool_id = ANY(ARRAY(SELECT id FROM pool WHERE merchant_id = :merchant_id AND status <> 'ARCHIVED'))
    GROUP BY member_id, pool_id
), met AS (
    SELECT member_id, {FLAGS}, NULL::uuid AS pool_id, 0::bigint AS codes FROM each_member
    UNION ALL
    SELECT member_id, {NO_FLAGS}, pool_id, codes FROM holding
), beside AS (
    SELECT pool_id, codes, {FLAGS_OVER_MEMBER} FROM met WINDOW member AS (PARTITION BY member_id)
)
SELECT pool_id, segment.number, sum(codes)::bigint AS codes
FROM beside CROSS JOIN LATERAL {OF_SEGMENTS}
WHERE pool_id IS NOT NULL AND segment.is_inside GROUP BY pool_id, segment.number
""",
)

_SUMS: Final = tuple(SumsRow.__annotations__)[1:]
_SEGMENT: Final = tuple(SegmentRow.__annotations__)[2:]


async def report(merchant_id: UUID, compute: runs.Compute) -> Report:
    """Return the figures of a merchant: as of now where that is quick, and otherwise those that are kept.

    There are none before a worker has computed the first ones. They are asked for, and old ones are anew.
    """
    found = await runs.at_once_or_kept(merchant_id, runs.PORTFOLIO, compute)
    is_due = found.status is CheckStatus.DONE and runs.is_older(found, OLD_SECONDS)
    if is_due or found.status is CheckStatus.NEVER_RUN:
        return await runs.request(merchant_id, runs.PORTFOLIO, "system")
    return found


async def compute_shown(merchant_id: UUID, seconds_max: float | None) -> Computed:
    """Sum up what a portfolio shows."""
    return Computed(await _shown(merchant_id, seconds_max))


async def compute(merchant_id: UUID, seconds_max: float | None) -> Computed:
    """Sum up what a portfolio shows and the advisor knows."""
    shown = await _shown(merchant_id, seconds_max)
    pools = {pool["pool_id"] for pool in shown["pools"]}
    reach = await long_rows(REACH, merchant_id=merchant_id, seconds_max=seconds_max)
    held = [[str(row["pool_id"]), row["number"], row["codes"]] for row in reach if str(row["pool_id"]) in pools]
    return Computed(shown | {"reach": held})


async def _shown(merchant_id: UUID, seconds_max: float | None) -> dict[str, Any]:
    """Sum up pools and segments. Those that are kept as rows are refreshed first if they weren't last night.

    Sums are texts: those of a merchant that means harm are longer than a number of JSON.
    """
    pools = await long_rows(POOLS, merchant_id=merchant_id, seconds_max=seconds_max)
    segments = await long_rows(COUNTS, merchant_id=merchant_id, seconds_max=seconds_max)
    if segments and segments[0]["is_stale"]:
        await refresh(merchant_id, seconds_max=seconds_max)
        segments = await long_rows(COUNTS, merchant_id=merchant_id, seconds_max=seconds_max)
    return {
        "pools": [{"pool_id": str(row["pool_id"])} | _texts(row, _SUMS) for row in pools],
        "segments": {str(row["number"]): _texts(row, _SEGMENT) for row in segments},
    }


def _texts(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name: str(row[name]) for name in names}
