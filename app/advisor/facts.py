"""What a run of the advisor knows: figures of pools and segments, and the merchant's limits; no person, no code."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final, TypedDict
from uuid import UUID

from iso4217 import Currency

from app.advisor.figures import compute, report
from app.advisor.portfolio import MARGIN_RATE_DEFAULT, SEGMENTS, Performance, Segment, figures
from app.reports.runs import CheckStatus
from app.segments.definitions import SegmentName
from app.storage.database import database
from app.storage.statements import statement

NAME_LENGTH_MAX: Final = 80
#: A pool reaches a segment whose members hold at least this share of its codes.
REACH_SHARE_MIN: Final = 0.1
#: Addresses, codes and long numbers: what a careless name may hold, and no model needs.
_PERSONAL: Final = re.compile(r"\S+@\S+|\b(?:PCT|AMT|GFT)[-\s]?\w{4,}|\+?\d[\d\s()/.-]{5,}\d", re.IGNORECASE)
_NAMES: Final = tuple(SEGMENTS)


class _LimitsRow(TypedDict):
    currency: str
    margin_rate: Decimal | None
    advised_percent_max: Decimal | None
    advised_amount_max: int | None


LIMITS: Final = statement(
    _LimitsRow,
    """
SELECT currency, margin_rate, advised_percent_max, advised_amount_max FROM merchant WHERE merchant_id = :merchant_id
""",
)


@dataclass(frozen=True, slots=True)
class PoolFact:
    """A pool as the advisor sees it; `ref` is how suggestions cite it. Amounts are in minor units.

    `held` and the rates are those of the portfolio. `reaches` names the segments that it is for; of a pool that is for
    everybody, those whose members hold at least a tenth of its codes: all of them while nobody holds any.
    """

    ref: str
    name: str
    status: str
    is_live: bool
    kind: str
    percent_off: float | None
    amount_off: int | None
    gift_sku: str | None
    minimum_spend: int | None
    codes: int
    held: int
    redeemed: int
    redeemed_in_90_days: int
    claim_rate: float
    redemption_rate: float
    share: float
    growth: float | None
    margin_impact: int
    quadrant: str
    reaches: tuple[str, ...]

    @property
    def value(self) -> float | str | None:
        """What the kind gives."""
        return {"PERCENT": self.percent_off, "AMOUNT": self.amount_off, "GIFT": self.gift_sku}[self.kind]


@dataclass(frozen=True, slots=True)
class SegmentFact:
    """A segment as the advisor sees it; amounts in minor units."""

    name: str
    definition: str
    members: int
    spend: int
    orders: int
    order_value: int | None
    codes: int
    redemption_rate: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a run starts from, and is stored with it. `order_value` is that of all members' orders."""

    currency: str
    minor_units: int
    margin_rate: float
    margin_rate_is_known: bool
    percent_max: float | None
    amount_max: int | None
    order_value: int | None
    redemption_rate: float
    pools: tuple[PoolFact, ...]
    segments: tuple[SegmentFact, ...]
    as_of: str | None = None

    @property
    def live_pools(self) -> list[PoolFact]:
        """The pools that the merchant runs or prepares."""
        return [pool for pool in self.pools if pool.is_live]

    @property
    def gifts(self) -> list[str]:
        """The articles that pools gave, live or archived."""
        return sorted({pool.gift_sku for pool in self.pools if pool.gift_sku is not None and "@" not in pool.gift_sku})

    def segment(self, name: str) -> SegmentFact | None:
        """Return the segment of a name."""
        return next((segment for segment in self.segments if segment.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """Return what is stored."""
        return asdict(self)


class FiguresMissingError(Exception):
    """There are no figures of the merchant: why not, and whether there will be some."""

    def __init__(self, why: str, *, is_for_now: bool) -> None:
        super().__init__(why)
        self.is_for_now = is_for_now


async def gather(merchant_id: UUID) -> Facts:
    """Read the facts: as of now where that is quick, and otherwise as they are kept. Raises FiguresMissingError."""
    limits = await database().row(LIMITS, merchant_id=merchant_id)
    if limits is None:
        raise RuntimeError("a run's merchant has no row")
    found = await report(merchant_id, compute)
    known = await figures(merchant_id, found)
    if known is None:
        raise FiguresMissingError(found.problem or "", is_for_now=found.status is CheckStatus.RUNNING)
    margin_rate = limits["margin_rate"]
    return Facts(
        currency=limits["currency"],
        minor_units=10 ** (Currency(limits["currency"]).exponent or 0),
        margin_rate=float(MARGIN_RATE_DEFAULT if margin_rate is None else margin_rate),
        margin_rate_is_known=margin_rate is not None,
        percent_max=_float(limits["advised_percent_max"]),
        amount_max=limits["advised_amount_max"],
        order_value=known.everybody.order_value,
        redemption_rate=known.everybody.redemption_rate,
        pools=tuple(_pool(number, pool, known.reach) for number, pool in enumerate(known.pools, start=1)),
        segments=tuple(_segment(segment.name, segment) for segment in known.segments if segment.name is not None),
        as_of=known.generated_at.isoformat(),
    )


def _pool(number: int, pool: Performance, reach: Mapping[tuple[UUID, int], int]) -> PoolFact:
    row = pool.row
    held = reach.get((row["pool_id"], len(_NAMES) + 1), 0)
    inside = [reach.get((row["pool_id"], position), 0) for position in range(1, len(_NAMES) + 1)]
    # One with an audience reaches that, whoever had its codes before.
    aimed_at = [SegmentName(name).title for name in row["pool_audience"]]
    reaches = aimed_at or [name for name, codes in zip(_NAMES, inside, strict=True) if codes >= held * REACH_SHARE_MIN]
    return PoolFact(
        ref=f"P{number}",
        name=without_persons(row["pool_name"]),
        status=row["pool_status"],
        is_live=row["pool_status"] != "ARCHIVED",
        kind=row["pool_kind"],
        percent_off=_float(row["pool_percent_off"]),
        amount_off=row["pool_amount_off"],
        gift_sku=row["pool_gift_sku"],
        minimum_spend=row["pool_minimum_spend"],
        codes=pool.codes,
        held=pool.held,
        redeemed=pool.redeemed,
        redeemed_in_90_days=pool.redeemed_in_90_days,
        claim_rate=pool.claim_rate,
        redemption_rate=pool.redemption_rate,
        share=pool.share,
        growth=pool.growth,
        margin_impact=pool.margin_impact,
        quadrant=pool.quadrant.value,
        reaches=tuple(reaches),
    )


def _segment(name: SegmentName, segment: Segment) -> SegmentFact:
    return SegmentFact(
        name=name.title,
        definition=SEGMENTS[name.title],
        members=segment.members,
        spend=segment.spend,
        orders=segment.orders,
        order_value=segment.order_value,
        codes=segment.codes,
        redemption_rate=segment.redemption_rate,
    )


def without_persons(name: str) -> str:
    """Return a pool's name without addresses, codes and long numbers, in one line of at most 80 characters."""
    return _PERSONAL.sub("…", " ".join(name.split()))[:NAME_LENGTH_MAX]


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
