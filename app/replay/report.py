"""What the replay prints: how the data maps onto the engine, and then the results."""

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from app.replay.journey import PERCENT_OFF, REFEREE_POINTS, REFERRER_POINTS, RETURNED_EVERY, REWARD_COST, Journey


@dataclass
class Tally:
    """The result of a step. Each wanted thing ends as exactly one of the others."""

    wanted: int
    new: int = 0
    replayed: int = 0
    untried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def count(self, things: int = 1, *, replayed: bool) -> None:
        """Count a success, of this run or, if replayed, of an earlier one."""
        if replayed:
            self.replayed += things
        else:
            self.new += things

    def refuse(self, reason: str, things: int = 1) -> None:
        self.refused[reason] += things

    @property
    def ended(self) -> int:
        """How many of the wanted things have ended."""
        return self.new + self.replayed + self.untried + self.refused.total()

    @property
    def clean(self) -> bool:
        """Whether everything was tried, and succeeded or was replayed."""
        return not self.refused and not self.untried


def tell_mapping(console: Console, journey: Journey) -> None:
    """Print what is played and what is left out, and why."""
    percents = ", ".join(f"{share:g} % for {kind}" for kind, share in PERCENT_OFF.items())
    played = (
        f"All {journey.households_total:,} households are enrolled"
        if len(journey.households) == journey.households_total
        else f"The first {len(journey.households):,} of {journey.households_total:,} households are enrolled"
    )
    lines = {
        "data": "The Complete Journey: a retailer's year of 2017, in US dollars.",
        "members": f"{played} as members named household-N, with an address and a name made from the number: the data "
        f"has neither. {journey.households_concerned:,} of them received a campaign or redeemed a coupon.",
        "pools": f"One for each of the {len(journey.campaigns):,} campaigns that reached them, with a code for every "
        "household that received it, played or not. The data has no discounts; a code takes off "
        f"{percents}. The campaigns' dates are left out: they are past, and such a pool would issue no codes.",
        "sent": f"A campaign for each pool, {len(journey.receipts):,} codes in all: one for each household that it "
        "reached. Three households in ten are only an address then. They are enrolled afterwards (latecomers) and "
        "must find their codes in their wallets (found).",
        "referrals": "The data doesn't say who knows whom. The referrer of a latecomer is the household of a lower "
        "number that was last in the store of its first purchase before it; if there is none, nobody is. Invites "
        f"convert by joining, for {REFERRER_POINTS} and {REFEREE_POINTS} points; the merchant's program is set to "
        f"that. {len(journey.brought):,} join by an invite.",
        "redemptions": f"{journey.redemption_rows:,} rows, one per coupon. A household has one code of a campaign, so "
        f"{journey.redemption_rows_merged:,} rows are merged into the first one of their household and campaign. "
        f"{journey.redemption_rows_strange:,} rows are of households that didn't receive the campaign, and "
        f"{journey.redemption_rows_worthless:,} of orders that were worth nothing: both are skipped. That leaves "
        f"{len(journey.spendings):,}, each an order of its own, worth the household's largest basket of that day.",
        "purchases": f"{len(journey.baskets):,} baskets, each a purchase of its household at the time of the basket.",
        "rewards": f"The data has none. Each household redeems a reward for every {REWARD_COST:,} points that its "
        f"baskets earn, at a point per dollar: {len(journey.prizes):,}.",
        "returns": f"The data has none. One basket in {RETURNED_EVERY} goes back after that, by its number, every "
        f"second one of these whole and of the others half: {len(journey.returns):,}.",
    }
    grid = Table.grid(padding=(0, 2))
    for name, sentence in lines.items():
        grid.add_row(name, sentence)
    console.print(grid)
    console.print()


def tell_outcome(console: Console, tallies: dict[str, Tally], reopened: int, seconds: float) -> None:
    """Print the figures of each step, then the refusals by reason."""
    headings = ("wanted", "new", "replayed", "refused", "untried", "time", "per second")
    table = Table("", *headings, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[0].min_width = 11
    for column in table.columns[1:]:
        column.justify = "right"
    for name, tally in tallies.items():
        figures = (tally.wanted, tally.new, tally.replayed, tally.refused.total(), tally.untried)
        rate = _rate(tally.new + tally.replayed, tally.seconds)
        table.add_row(name, *(f"{figure:,}" for figure in figures), f"{tally.seconds:.1f} s", rate)
    console.print(table)
    if reopened:
        console.print(f"{reopened} pools were paused and are active again.")
    for name, tally in tallies.items():
        for reason, count in tally.refused.most_common():
            console.print(f"refused: {count:,} {name}: {reason}", markup=False)
    if all(tally.clean for tally in tallies.values()):
        console.print(f"Nothing was refused. {seconds:.1f} s in all.")


def tell_points(console: Console, wanted: Counter[int], found: Counter[int]) -> bool:
    """Print what the households have, and whether it is what baskets, returns, referrals and rewards come to."""
    has, lacks = sum(max(points, 0) for points in found.values()), sum(max(-points, 0) for points in found.values())
    other = sum(points != wanted[household] for household, points in found.items())
    console.print(f"The households have {has:,} points, and lack {lacks:,} that returns could not take.")
    if other:
        console.print(f"{other:,} have others than their baskets, returns, referrals and rewards come to.")
    return other == 0


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if count and seconds else "-"
