"""How pools and audiences do: one statement each, and the formulas over what they return."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Final, TypedDict
from uuid import UUID

import strawberry

from app.api.scalars import described
from app.coupons.rows import PoolRow
from app.members.rows import IS_HERE
from app.segments.definitions import BY_ROW, DEFINITIONS, KEPT, SegmentName
from app.segments.refresh import IS_STALE, refresh
from app.storage.database import database
from app.storage.statements import columns, statement

#: The share of a sale that is taken for margin while the merchant hasn't said it (`marginRate` of configureMerchant).
MARGIN_RATE_DEFAULT: Final = Decimal("0.3")
#: Of a merchant with more pools those that were redeemed most in 90 days are shown.
POOLS_MAX: Final = 500
SHARE_HIGH: Final = 0.5
GROWTH_HIGH: Final = 0.1
_BIGINT_MAX: Final = 2**63 - 1

#: The segments by their titles, in the order in which they are shown, and what makes a member one of them.
SEGMENTS: Final[Mapping[str, str]] = {name.title: definition for name, definition in DEFINITIONS.items()}


@strawberry.enum(description="Where a pool stands among a merchant's: its share of the redemptions, and its growth.")
class Quadrant(Enum):
    """The growth-share matrix: a share of at least 0.5 is high, a growth of at least 10 % is high."""

    STAR = described("STAR", "High share, high growth.")
    CASH_COW = described("CASH_COW", "High share, low growth.")
    QUESTION_MARK = described("QUESTION_MARK", "Low share, high growth.")
    DOG = described("DOG", "Low share, low growth.")


class FiguresRow(PoolRow):
    """A pool with its sums, those of the pool that was redeemed most, and the merchant's margin rate.

    `held` are the codes that somebody ever had. Whether somebody has a bearer code is known while it is redeemed.
    """

    codes: Decimal
    held: Decimal
    redeemed: Decimal
    orders: Decimal
    discounts: Decimal
    of_90_days: Decimal
    of_30_days: Decimal
    of_30_before: Decimal
    of_90_days_max: Decimal
    margin_rate: Decimal | None


class SegmentRow(TypedDict):
    """The sums of a segment, by its number, and whether the rows of those that are kept are older than a night."""

    is_stale: bool
    number: int
    members: int
    spend: Decimal
    orders: Decimal
    codes: Decimal
    redeemed: Decimal


@dataclass(frozen=True, slots=True)
class Performance:
    """A pool's figures; amounts in minor units.

    Claim rate = codes allocated ever / all codes; redemption rate = codes redeemed / codes allocated ever. A bearer
    code may lie in a drawer: in both it is allocated while it is redeemed. Stock that expired never was.
    """

    row: PoolRow
    codes: int
    held: int
    redeemed: int
    redeemed_in_90_days: int
    claim_rate: float
    redemption_rate: float
    share: float
    growth: float | None
    margin_impact: int
    quadrant: Quadrant


@dataclass(frozen=True, slots=True)
class Segment:
    """An audience, or everybody (None).

    `spend` (minor units) and `orders` are those of its members' purchases of the last 365 days, without what was paid
    with points; `codes` its members ever had, `redeemed` of them are spent.
    """

    name: SegmentName | None
    members: int
    spend: int
    orders: int
    codes: int
    redeemed: int

    @property
    def redemption_rate(self) -> float:
        """Codes that its members redeemed / codes that they ever had; 0 where they had none."""
        return _ratio(self.redeemed, self.codes)

    @property
    def order_value(self) -> int | None:
        """What an order of its members is worth on average; None where they ordered nothing of worth."""
        return (self.spend // self.orders or None) if self.orders else None


# Every part is summed by pool before it meets the others, and nothing is joined but the page of pools in the end, by
# whole keys: the cost grows with what is counted, whatever the planner knows of the tables. Stock is kept summed up by
# a job; standing redemptions are read from an index that has all that is summed, and so are the codes that the stock
# alone takes for allocated. A redemption on an order with another one of the same pool counts the order again.
# bench/portfolio.py counts the buffers.
POOLS: Final = statement(
    FiguresRow,
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
SELECT {columns(PoolRow)},
    f.codes, f.held, f.redeemed, f.orders, f.discounts, f.of_90_days, f.of_30_days, f.of_30_before, f.of_90_days_max,
    (SELECT margin_rate FROM merchant WHERE merchant_id = :merchant_id) AS margin_rate
FROM f CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = f.pool_id OFFSET 0) p
ORDER BY f.of_90_days DESC, p.id DESC
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


async def performances(merchant_id: UUID) -> list[Performance]:
    """Return the figures of the merchant's pools, those redeemed most within 90 days first, the newest of equals."""
    return [_performance(row) for row in await database().rows(POOLS, merchant_id=merchant_id)]


async def segments(merchant_id: UUID) -> tuple[list[Segment], Segment]:
    """Return the merchant's segments, in the order of SegmentName, and all of its members as one.

    Those that are kept as rows are refreshed first if they weren't last night.
    """
    rows = await database().rows(COUNTS, merchant_id=merchant_id)
    if rows and rows[0]["is_stale"]:
        await refresh(merchant_id)
        rows = await database().rows(COUNTS, merchant_id=merchant_id)
    found = {row["number"]: row for row in rows}
    names: list[SegmentName | None] = [*SegmentName, None]
    *named, everybody = (_segment(name, found.get(number)) for number, name in enumerate(names, start=1))
    return named, everybody


def _segment(name: SegmentName | None, row: SegmentRow | None) -> Segment:
    if row is None:
        return Segment(name, members=0, spend=0, orders=0, codes=0, redeemed=0)
    return Segment(
        name,
        members=row["members"],
        spend=_whole(row["spend"]),
        orders=_whole(row["orders"]),
        codes=_whole(row["codes"]),
        redeemed=_whole(row["redeemed"]),
    )


def _performance(row: FiguresRow) -> Performance:
    share = _ratio(row["of_90_days"], row["of_90_days_max"])
    growth = growth_of(int(row["of_30_days"]), int(row["of_30_before"]))
    rate = MARGIN_RATE_DEFAULT if row["margin_rate"] is None else row["margin_rate"]
    return Performance(
        row=row,
        codes=int(row["codes"]),
        held=int(row["held"]),
        redeemed=int(row["redeemed"]),
        redeemed_in_90_days=int(row["of_90_days"]),
        claim_rate=_ratio(row["held"], row["codes"]),
        redemption_rate=_ratio(row["redeemed"], row["held"]),
        share=share,
        growth=growth,
        margin_impact=margin_impact(row["orders"], rate, row["discounts"]),
        quadrant=quadrant(share, growth, has_begun=bool(row["of_30_days"])),
    )


def growth_of(of_30_days: int, of_30_before: int) -> float | None:
    """Return by which share the redemptions of the last 30 days exceed those of the 30 before; None after none."""
    return of_30_days / of_30_before - 1 if of_30_before else None


def margin_impact(orders: Decimal, margin_rate: Decimal, discounts: Decimal) -> int:
    """Return redeemed order amounts x margin rate - discounts given, in whole minor units, half of one to even."""
    return _whole(round(orders * margin_rate - discounts))


def quadrant(share: float, growth: float | None, *, has_begun: bool) -> Quadrant:
    """Return the quadrant. Redemptions (`has_begun`) after 30 days without any, so without a growth, are a high one."""
    is_growing = has_begun if growth is None else growth >= GROWTH_HIGH
    if share >= SHARE_HIGH:
        return Quadrant.STAR if is_growing else Quadrant.CASH_COW
    return Quadrant.QUESTION_MARK if is_growing else Quadrant.DOG


def _ratio(part: Decimal | int, whole: Decimal | int) -> float:
    return float(part / whole) if whole else 0.0


def _whole(value: Decimal | int) -> int:
    """Return a sum as a BigInt has it: the sums of a merchant that means harm end there."""
    return max(-_BIGINT_MAX, min(_BIGINT_MAX, int(value)))
