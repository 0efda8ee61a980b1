"""An order as its clients know it: its amount, codes and holds, what was recorded for it, and how each changes.

Codes take a percentage off, each of what those before it left. Amounts are in minor units.
"""

import itertools
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from app.stress.operations import UNSEEN


class Honoured(NamedTuple):
    """A code on an order: its redemption, whose it is, and how many percent its pool gave when it was redeemed.

    One whose pool has a budget takes off at most as much as before, when another one came back. `is_first` is one that
    is for a first order.
    """

    redemption: str
    code: str
    pool: str
    owner: str
    percent: float
    most: int | None = None
    is_first: bool = False


class Refunded(NamedTuple):
    """A part of a purchase that went back, under the shop's id, and what was told of it as far as it was."""

    key: str
    amount: int
    told: Any


class Bought(NamedTuple):
    """A purchase: who bought, the amount that was recorded and what it is now, what went back, and its entry."""

    member: str
    recorded: int
    amount: int
    refunds: tuple[Refunded, ...] = ()
    is_reversed: bool = False
    entry: Any = None

    @property
    def refunded(self) -> int:
        return sum(each.amount for each in self.refunds)

    @property
    def stands(self) -> int:
        return self.amount - self.refunded

    def earns(self, facts: Mapping[str, Any]) -> int:
        """Return the whole points that it has earned, for what stands."""
        return points_of(self.stands, facts)

    def returned(self, part: Refunded) -> "Bought":
        """Return it after a part went back; with the last of it, it is taken back."""
        return self._replace(refunds=(*self.refunds, part), is_reversed=part.amount == self.stands)


class Hold(NamedTuple):
    """What is held for an order, for whom, and what became of that; `until` is the last `heldUntil` that was told.

    Its codes have no redemptions until it is captured. HELD is one whose time hasn't passed.
    """

    id: str
    presenter: str
    amount: int
    codes: tuple[Honoured, ...]
    status: str = "HELD"
    until: str | None = None
    points: int = 0
    value: int = 0

    def codes_of(self, owner: str) -> tuple[str, ...]:
        """Return those of its codes that are somebody's."""
        return tuple(sorted(each.code for each in self.codes if each.owner == owner))

    def shown(self, told: Mapping[str, Any]) -> "Hold | None":
        """Return it if this is what was told of it; from now on its id and those of its redemptions are known.

        Its codes are read after it: those of one that is HELD may be others by then, and are read by themselves.
        """
        taken = discounts(self.amount, [each.percent for each in self.codes])
        amounts = (self.amount, sum(taken), self.amount - sum(taken) - self.value, self.value)
        is_it = self.id in {told["id"], UNSEEN} and (self.status, self.points) == (told["status"], told["points"])
        names = ("orderAmount", "totalDiscount", "amountDue", "pointsValue")
        is_same = amounts == tuple(told[name]["amountMinor"] for name in names)
        if not is_it or not is_same or (self.status == "HELD" and self.until not in {told["heldUntil"], None}):
            return None
        found = self._replace(id=told["id"], until=told["heldUntil"])
        return found if self.status == "HELD" else found.with_codes(told)

    def with_codes(self, told: Mapping[str, Any]) -> "Hold | None":
        """Return it if these are its codes, and the redemptions of one that was captured."""
        taken = discounts(self.amount, [each.percent for each in self.codes])
        codes = [(each["code"]["id"], each["discount"]["amountMinor"]) for each in told["codes"]]
        if codes != [(each.code, off) for each, off in zip(self.codes, taken, strict=True)]:
            return None
        if self.status != "CAPTURED":
            return None if told["redemptions"] else self
        # What they take off is told as it is now: when another of them is taken back, they are priced anew.
        redeemed = [(each["code"]["id"], each["id"]) for each in told["redemptions"]]
        found = dict(redeemed)
        if [code for code, _ in redeemed] != [each.code for each in self.codes] or any(
            each.redemption not in {found[each.code], UNSEEN} for each in self.codes
        ):
            return None
        return self._replace(codes=tuple(each._replace(redemption=found[each.code]) for each in self.codes))


class Order(NamedTuple):
    """An order. Without an amount it was never redeemed; once cancelled it knows the money and shortfall of that.

    Its holds are in the order in which they began, and `requests` are the keys that were used for them. `for_whom`
    are those for whom something was honoured or held; it is the order of the last one.
    """

    amount: int | None = None
    codes: tuple[Honoured, ...] = ()
    bought: Bought | None = None
    cancelled: tuple[int, int | None] | None = None
    holds: tuple[Hold, ...] = ()
    requests: tuple[str, ...] = ()
    for_whom: tuple[str, ...] = ()

    @property
    def live(self) -> int | None:
        """The place of the hold whose time hasn't passed, if there is one."""
        return next((place for place, hold in enumerate(self.holds) if hold.status == "HELD"), None)

    @property
    def hold(self) -> int | None:
        """The place of the hold that counts: the one that was captured, or else the newest."""
        captured = [place for place, hold in enumerate(self.holds) if hold.status == "CAPTURED"]
        return captured[0] if captured else len(self.holds) - 1 if self.holds else None

    @property
    def held(self) -> Mapping[str, Honoured]:
        """The codes that are held for it, by their ids."""
        return {} if self.live is None else {each.code: each for each in self.holds[self.live].codes}

    @property
    def is_open(self) -> bool:
        """Whether something can be held or captured for it."""
        return self.amount is None and self.cancelled is None

    def named(self, hold: str) -> Sequence[int]:
        """Return the place of the hold with an id; while nobody was told of that, any that it may be."""
        known = [place for place, each in enumerate(self.holds) if each.id == hold]
        return known or [place for place, each in enumerate(self.holds) if each.id == UNSEEN]

    def of(self, presenter: str) -> "Order":
        """Return it as the order of whoever has presented something for it."""
        if self.for_whom[-1:] == (presenter,):
            return self
        return self._replace(for_whom=(*self.for_whom, presenter))

    def with_hold(self, place: int, hold: Hold) -> "Order":
        """Return it with another hold at a place, or one more."""
        return self._replace(holds=(*self.holds[:place], hold, *self.holds[place + 1 :]))

    @property
    def discounts(self) -> tuple[int, ...]:
        """What each code takes off."""
        return discounts(self.amount or 0, [each.percent for each in self.codes], [each.most for each in self.codes])

    @property
    def worth(self) -> int:
        """What is left to pay."""
        return (self.amount or 0) - sum(self.discounts)

    def changed(self, amount: int | None, codes: tuple[Honoured, ...]) -> "Order | None":
        """Return it with other codes and another amount, which its purchase follows; None below what was refunded."""
        after = self._replace(amount=amount, codes=codes)
        if self.bought is None or self.bought.is_reversed:
            return after
        bought = self.bought._replace(amount=self.bought.amount + after.worth - self.worth)
        return None if bought.stands < 0 else after._replace(bought=bought)

    def shown(self, redemptions: Sequence[Mapping[str, Any]]) -> "Order | None":
        """Return it if these redemptions are what was told of it; from now on their ids are known."""
        codes = []
        if len(redemptions) != len(self.codes):
            return None
        for told, each, discount in zip(redemptions, self.codes, self.discounts, strict=True):
            is_it = told["code"]["id"] == each.code and told["discount"]["amountMinor"] == discount
            if not is_it or each.redemption not in {told["id"], UNSEEN}:
                return None
            codes.append(each._replace(redemption=told["id"]))
        return self._replace(codes=tuple(codes))


def discounts(amount: int, percents: Sequence[float], most: Sequence[int | None] = ()) -> tuple[int, ...]:
    """Return what codes take off an amount, one after the other, half up, and no more than the `most` of each."""
    taken: list[int] = []
    for percent, limit in itertools.zip_longest(percents, most):
        share = int((amount * Decimal(percent) / 100) + Decimal("0.5"))
        taken.append(share if limit is None else min(share, limit))
        amount -= taken[-1]
    return tuple(taken)


def paid_with(ceiling: int, left: int, facts: Mapping[str, Any]) -> tuple[int, int]:
    """Return the fewest points that pay for what is left, at most so many, and what they are worth, cut down."""
    rate = Decimal(facts["point_value"])
    points = min(ceiling, int((left / rate).to_integral_value(ROUND_CEILING))) if rate else 0
    return points, min(int(points * rate), left)


def points_of(amount: int, facts: Mapping[str, Any]) -> int:
    """Return the whole points that an amount earns."""
    return int(amount * Decimal(facts["points_per_unit"]) / facts["minor_units"])
