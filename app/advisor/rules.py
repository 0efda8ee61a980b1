"""What the rules propose: the gaps in what a merchant runs, the most promising first. Pure, and the same every time.

A gap is a cell of (segment x kind x value band) that no live pool fills. What it promises is read from the facts: how
the segment's members redeem and what their orders are worth, how pools of its kind and of nearly its value were
redeemed, and in which quadrants those stand.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.advisor.checks import amount_cap, is_near, order_value_of, percent_cap, redemption_rate_of, runs_already
from app.advisor.facts import Facts, PoolFact, SegmentFact
from app.advisor.proposals import Proposal, ProposedKind

#: A band is this share of the highest discount that may be suggested; neighbours are not nearly the same.
BANDS: Final = {"low": 0.34, "middle": 0.67, "high": 1.0}
#: What fits whom, by judgement and not by measurement: who buys anyway needs little, who stopped needs more.
BAND_OF_SEGMENT: Final = {
    "new": "middle", "active": "low", "lapsed": "high", "high spend": "low", "advocates": "middle",
}  # fmt: skip
FIT: Final = 1.25
#: How much a pool's quadrant says for another one like it. What was never tried is worth a trial, less than a success.
QUADRANT_WEIGHTS: Final = {"STAR": 1.3, "QUESTION_MARK": 1.1, "CASH_COW": 1.0, "DOG": 0.6}
UNTRIED_WEIGHT: Final = 0.9
#: So many codes at the merchant's own rate are added to each kind's and band's count, so that one code proves nothing.
PRIOR_CODES: Final = 20
#: Added to both rates, so that the first few codes of a merchant don't decide.
RATE_PRIOR: Final = 0.02
#: How much more, or less, an order of a segment may count than one of all members.
WORTH_MAX: Final = 2.0
PROPOSALS_MAX: Final = 5
PER_SEGMENT_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """A gap, and what it promises."""

    segment: SegmentFact
    kind: ProposedKind
    band: str
    value: float | str | None
    score: float
    like: tuple[PoolFact, ...]


def propose(facts: Facts) -> list[Proposal]:
    """Return proposals for the best gaps: at most two for a segment, and never none.

    With no margin to give away, and every article given already, a gift of the person's own choice is left.
    """
    chosen: list[Cell] = []
    for cell in sorted(_gaps(facts), key=lambda cell: (-cell.score, cell.segment.name, cell.kind, cell.band)):
        beside = [other for other in chosen if other.segment == cell.segment]
        if len(beside) < PER_SEGMENT_MAX and cell.kind not in {other.kind for other in beside}:
            chosen.append(cell)
        if len(chosen) == PROPOSALS_MAX:
            break
    return [_proposal(facts, cell) for cell in chosen] or [_last_resort(facts)]


def _gaps(facts: Facts) -> Iterator[Cell]:
    for segment in facts.segments:
        if segment.members == 0 and segment.name != "new":
            continue
        for kind, band, value in _offers(facts, segment):
            if runs_already(facts, segment.name, kind, value) is None:
                like = tuple(pools_like(facts, kind, value))
                yield Cell(segment, kind, band, value, promise(facts, segment, kind, band, value), like)


def _offers(facts: Facts, segment: SegmentFact) -> Iterator[tuple[ProposedKind, str, float | str]]:
    """Yield kind, band and value of what could be given to a segment."""
    highest = percent_cap(facts)
    for band, share in BANDS.items():
        percent = math.floor(highest * share * 2) / 2
        if percent >= 1:
            yield "PERCENT", band, percent
    order_value = order_value_of(facts, segment)
    if order_value is not None:
        highest_amount = amount_cap(facts, order_value)
        for band, share in BANDS.items():
            amount = math.floor(highest_amount * share)
            # Whole units of the currency look like an offer; smaller amounts stay as they are.
            whole = amount - amount % facts.minor_units
            if amount >= 1:
                yield "AMOUNT", band, float(whole or amount)
    for sku in facts.gifts:
        yield "GIFT", "middle", sku


def pools_like(facts: Facts, kind: str, value: float | str | None) -> Iterator[PoolFact]:
    """Yield the pools of a kind and of nearly a value, live or archived."""
    for pool in facts.pools:
        if pool.kind == kind and is_near(value, pool.value):
            yield pool


def promise(facts: Facts, segment: SegmentFact, kind: str, band: str, value: float | str | None) -> float:
    """Return what an offer promises: (what a code brings) x (how such pools are redeemed and stand) x (what fits).

    What a code brings is how the segment redeems against all members, times what its orders are worth against theirs;
    its size counts by its root, for an offer is for those who will use it, not for as many as possible.
    """
    rate, _ = redemption_rate_of(facts, segment)
    brings = (rate + RATE_PRIOR) / (facts.redemption_rate + RATE_PRIOR)
    if segment.order_value is not None and facts.order_value is not None:
        brings *= min(WORTH_MAX, max(1 / WORTH_MAX, segment.order_value / facts.order_value))
    largest = max(1, *(each.members for each in facts.segments))
    size = 0.5 + 0.5 * math.sqrt(segment.members / largest)
    like = tuple(pools_like(facts, kind, value))
    fit = FIT if BAND_OF_SEGMENT[segment.name] == band else 1.0
    return brings * size * redemption_rate_like(facts, kind, like) * _standing(like) * fit


def redemption_rate_like(facts: Facts, kind: str, like: tuple[PoolFact, ...]) -> float:
    """Return how pools like these are redeemed: first of nearly the value, then of the kind, then of all."""
    of_kind = [pool for pool in facts.pools if pool.kind == kind]
    of_all = _smoothed(facts.pools, 0.1)
    return _smoothed(like, _smoothed(tuple(of_kind), of_all))


def _smoothed(pools: tuple[PoolFact, ...], prior: float) -> float:
    held, redeemed = sum(pool.held for pool in pools), sum(pool.redeemed for pool in pools)
    return (redeemed + PRIOR_CODES * prior) / (held + PRIOR_CODES)


def _standing(like: tuple[PoolFact, ...]) -> float:
    begun = [pool for pool in like if pool.held]
    if not begun:
        return UNTRIED_WEIGHT
    return sum(QUADRANT_WEIGHTS[pool.quadrant] for pool in begun) / len(begun)


def _proposal(facts: Facts, cell: Cell) -> Proposal:
    value = cell.value
    number = value if isinstance(value, float) else None
    order_value = order_value_of(facts, cell.segment)
    return Proposal(
        title="",
        rationale="",
        segment=cell.segment.name,
        pools=[pool.ref for pool in sorted(cell.like, key=lambda pool: -pool.redeemed) if pool.held][:2],
        kind=cell.kind,
        percent_off=number if cell.kind == "PERCENT" else None,
        amount_off=number if cell.kind == "AMOUNT" else None,
        gift_sku=value if isinstance(value, str) else None,
        # Who spends the most is asked for a little more than its usual order.
        minimum_spend=_rounded(facts, order_value) if order_value and cell.segment.name == "high spend" else None,
        maximum_discount=None,
        claims_per_member=1.0,
    )


def _rounded(facts: Facts, order_value: int) -> float:
    """Return a fifth more than an order is worth, in whole units of the currency."""
    return float(math.ceil(1.2 * order_value / facts.minor_units) * facts.minor_units)


def _last_resort(facts: Facts) -> Proposal:
    order_value = facts.order_value
    largest = max(facts.segments, key=lambda segment: segment.members)
    return Proposal(
        title="",
        rationale="",
        segment=largest.name if largest.members else "new",
        kind="GIFT",
        gift_sku=None,
        minimum_spend=float(order_value) if order_value else None,
    )
