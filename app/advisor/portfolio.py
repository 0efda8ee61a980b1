"""How pools and audiences do: the formulas over their sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Final
from uuid import UUID

import strawberry

from app.api.scalars import described
from app.coupons.rows import PoolRow
from app.reports.runs import Report
from app.segments.definitions import DEFINITIONS, SegmentName
from app.storage.database import database
from app.storage.statements import columns, statement

#: The share of a sale that is taken for margin while the merchant hasn't said it (`marginRate` of configureMerchant).
MARGIN_RATE_DEFAULT: Final = Decimal("0.3")
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


class _PoolRow(PoolRow):
    """A pool, and the merchant's margin rate."""

    margin_rate: Decimal | None


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


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is of a merchant's figures: as of when, of pools, of segments, and of all members as one segment.

    Pools are in the order of their redemptions within 90 days, the newest of equals first. `reach` is how many codes of
    a pool the members of a segment hold, by the segment's number; everybody is the last one.
    """

    generated_at: datetime
    pools: list[Performance]
    segments: list[Segment]
    everybody: Segment
    reach: Mapping[tuple[UUID, int], int]


#: The pools as they are now.
POOLS: Final = statement(
    _PoolRow,
    f"""
SELECT {columns(PoolRow)}, (SELECT margin_rate FROM merchant WHERE merchant_id = :merchant_id) AS margin_rate
FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = ANY(:pool_ids::uuid[])
""",
)


async def figures(merchant_id: UUID, report: Report) -> Figures | None:
    """Return the figures of a report, with the pools that are still there as they are now; None of one without any."""
    if report.content is None or report.generated_at is None:
        return None
    sums = {UUID(each["pool_id"]): each for each in report.content["pools"]}
    found = await database().rows(POOLS, merchant_id=merchant_id, pool_ids=list(sums))
    rows = {row["pool_id"]: row for row in found}
    segments = report.content["segments"]
    names: list[SegmentName | None] = [*SegmentName, None]
    *named, everybody = (_segment(name, segments.get(str(number))) for number, name in enumerate(names, start=1))
    return Figures(
        generated_at=report.generated_at,
        pools=[
            _performance(rows[pool_id], {name: Decimal(sum_) for name, sum_ in each.items() if name != "pool_id"})
            for pool_id, each in sums.items()
            if pool_id in rows
        ],
        segments=named,
        everybody=everybody,
        reach={(UUID(pool_id), number): codes for pool_id, number, codes in report.content.get("reach", ())},
    )


def _segment(name: SegmentName | None, row: Mapping[str, str] | None) -> Segment:
    if row is None:
        return Segment(name, members=0, spend=0, orders=0, codes=0, redeemed=0)
    return Segment(
        name,
        members=int(row["members"]),
        spend=_whole(Decimal(row["spend"])),
        orders=_whole(Decimal(row["orders"])),
        codes=_whole(Decimal(row["codes"])),
        redeemed=_whole(Decimal(row["redeemed"])),
    )


def _performance(row: _PoolRow, sums: Mapping[str, Decimal]) -> Performance:
    share = _ratio(sums["of_90_days"], sums["of_90_days_max"])
    growth = growth_of(int(sums["of_30_days"]), int(sums["of_30_before"]))
    rate = MARGIN_RATE_DEFAULT if row["margin_rate"] is None else row["margin_rate"]
    return Performance(
        row=row,
        codes=int(sums["codes"]),
        held=int(sums["held"]),
        redeemed=int(sums["redeemed"]),
        redeemed_in_90_days=int(sums["of_90_days"]),
        claim_rate=_ratio(sums["held"], sums["codes"]),
        redemption_rate=_ratio(sums["redeemed"], sums["held"]),
        share=share,
        growth=growth,
        margin_impact=margin_impact(sums["orders"], rate, sums["discounts"]),
        quadrant=quadrant(share, growth, has_begun=bool(sums["of_30_days"])),
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
