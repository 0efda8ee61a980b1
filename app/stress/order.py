"""An order as its clients know it: its amount, codes and holds, what was recorded for it, and how each changes.

Codes take a percentage off, each of what those before it left. Amounts are in minor units.
"""

import itertools
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final, NamedTuple

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


class Paid(NamedTuple):
    """Points that pay for an order, and what they are worth."""

    points: int = 0
    value: int = 0


NOTHING: Final = Paid()


class Bought(NamedTuple):
    """A purchase: who bought, the amount that was recorded and what it is now, what went back, and its entry.

    What came `back` of the points that paid for it is shared out anew from the last change on, when so much was
    refunded and had come back.
    """

    member: str
    recorded: int
    amount: int
    refunds: tuple[Refunded, ...] = ()
    is_reversed: bool = False
    entry: Any = None
    back: Paid = NOTHING
    shares: tuple[int, Paid] = (0, NOTHING)

    @property
    def refunded(self) -> int:
        return sum(each.amount for each in self.refunds)

    @property
    def stands(self) -> int:
        return self.amount - self.refunded


class Reserved(NamedTuple):
    """A reward that a hold has, at its cost, and the pool that a code was set aside of; once it was had, what it is.

    That are the redemption's id and the code's, if it brought one; a name for what was spent for it.
    """

    reward: str
    cost: int
    pool: str | None
    redemption: str | None = None
    code: str | None = None
    name: str = ""


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
    paid: Paid = NOTHING
    rewards: tuple[Reserved, ...] = ()

    @property
    def points(self) -> int:
        return self.paid.points

    @property
    def held(self) -> int:
        """How many points it has, to pay with and for rewards."""
        return self.points + sum(each.cost for each in self.rewards)

    def codes_of(self, owner: str) -> tuple[str, ...]:
        """Return those of its codes that are somebody's."""
        return tuple(sorted(each.code for each in self.codes if each.owner == owner))

    def shown(self, told: Mapping[str, Any]) -> "Hold | None":
        """Return it if this is what was told of it; from now on its id and those of its redemptions are known.

        Its codes are read after it: those of one that is HELD may be others by then, and are read by themselves.
        """
        taken = discounts(self.amount, [each.percent for each in self.codes])
        amounts = (self.amount, sum(taken), self.amount - sum(taken) - self.paid.value, self.paid.value)
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
        asked = [(each["reward"]["id"], each["cost"]) for each in told["rewards"]]
        if asked != [(each.reward, each.cost) for each in self.rewards]:
            return None
        if self.status != "CAPTURED":
            had = [each for each in told["rewards"] if each["redemption"]]
            return None if told["redemptions"] or had else self
        # What they take off is told as it is now: when another of them is taken back, they are priced anew.
        redeemed = [(each["code"]["id"], each["id"]) for each in told["redemptions"]]
        found = dict(redeemed)
        if [code for code, _ in redeemed] != [each.code for each in self.codes] or any(
            each.redemption not in {found[each.code], UNSEEN} for each in self.codes
        ):
            return None
        rewards = []
        for each, of_it in zip(self.rewards, told["rewards"], strict=True):
            had = of_it["redemption"]
            code = had and had["code"] and had["code"]["id"]
            if had is None or each.redemption not in {had["id"], UNSEEN} or each.code not in {code, UNSEEN}:
                return None
            rewards.append(each._replace(redemption=had["id"], code=code))
        codes_now = tuple(each._replace(redemption=found[each.code]) for each in self.codes)
        return self._replace(codes=codes_now, rewards=tuple(rewards))


class Order(NamedTuple):
    """An order. Without an amount it was never redeemed; once cancelled it knows what that told.

    That is the money and the points that went back, and the shortfall.
    Its holds are in the order in which they began, and `requests` are the keys that were used for them. It is `paid`
    with points of the `payer` by so many `payments`, before refunds. `for_whom` are those for whom something was
    honoured or held; it is the order of the last one.
    """

    amount: int | None = None
    codes: tuple[Honoured, ...] = ()
    bought: Bought | None = None
    cancelled: tuple[int, int, int | None] | None = None
    holds: tuple[Hold, ...] = ()
    requests: tuple[str, ...] = ()
    paid: Paid = NOTHING
    payer: str | None = None
    payments: int = 0
    for_whom: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what isn't as it is of an order that nobody knows."""
        unknown = Order()._asdict()
        told = (f"{name}={value}" for name, value in self._asdict().items() if value != unknown[name])
        return f"Order({', '.join(told)})"

    def __str__(self) -> str:
        return "Order()" if self == Order() else repr(self)

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

    @property
    def back(self) -> Paid:
        """What came back of the points that paid for it."""
        return NOTHING if self.bought is None else self.bought.back

    @property
    def spent(self) -> int:
        """How many points that paid for it haven't come back."""
        return self.paid.points - self.back.points

    def earns(self, facts: Mapping[str, Any]) -> int:
        """Return the whole points that its purchase has earned, for what stands of it and is money."""
        if self.bought is None:
            return 0
        return points_of(self.bought.stands - self.paid.value + self.back.value, facts)

    def refunded(self, part: Refunded) -> "Order":
        """Return it after a part of its purchase went back; with the last of it, that is taken back."""
        bought = self.bought
        if bought is None:
            return self
        since, back = bought.shares
        gone, whole = bought.refunded + part.amount - since, bought.amount - since
        if gone:
            back = Paid(
                back.points + (self.paid.points - back.points) * gone // whole,
                back.value + (self.paid.value - back.value) * gone // whole,
            )
        is_reversed = part.amount == bought.stands
        after = bought._replace(refunds=(*bought.refunds, part), is_reversed=is_reversed, back=back)
        return self._replace(bought=after)

    def changed(
        self,
        amount: int | None,
        codes: tuple[Honoured, ...],
        facts: Mapping[str, Any],
        points: int | None = None,
        payer: str | None = None,
        *,
        settles: bool = True,
    ) -> "Order | None":
        """Return it with other codes, another amount, and paid with at most so many points, which its purchase follows.

        Points beyond what it needs come back if it `settles`. None below what was refunded, or is paid with points.
        """
        after = self._replace(amount=amount, codes=codes)
        bought, recorded, need = self.bought, 0, after.worth
        if bought is not None:
            recorded = bought.amount + after.worth - self.worth
            if not bought.is_reversed and recorded < bought.refunded:
                return None
            need = max(0, min(after.worth, recorded) - bought.refunded)
        paid = self.paid
        if points is not None or (settles and paid.value - self.back.value > need):
            paid = paid_with(paid.points if points is None else points, need, facts, self.back)
        after = after._replace(paid=paid)
        if paid.points > self.paid.points:
            after = after._replace(payer=payer or self.payer, payments=self.payments + 1)
        if bought is None or (bought.amount, self.paid) == (recorded, paid):
            return after
        stands = 0 if bought.is_reversed else recorded - bought.refunded
        if paid.value - bought.back.value > stands:
            return None
        if bought.is_reversed:
            return after
        return after._replace(bought=bought._replace(amount=recorded, shares=(bought.refunded, bought.back)))

    def captured(self, paid: Paid, payer: str) -> "Order | None":
        """Return it paid with points of a hold, which its purchase follows; None if less stands of that."""
        after = self._replace(paid=paid, payer=payer, payments=1) if paid.points else self
        bought = self.bought
        if bought is None or not paid.points:
            return after
        if bought.is_reversed or paid.value > bought.stands:
            return None
        return after._replace(bought=bought._replace(shares=(bought.refunded, bought.back)))

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


def paid_with(ceiling: int, need: int, facts: Mapping[str, Any], back: Paid = NOTHING) -> Paid:
    """Return the fewest points that pay for what is needed, at most so many, and what they are worth, cut down.

    What came back counts in the ceiling and in what is returned, and stays back.
    """
    rate = Decimal(facts["point_value"] or 0)
    if not rate:
        return back
    points = min(ceiling, int(((need + back.value) / rate).to_integral_value(ROUND_CEILING)))
    value = min(int(points * rate) - back.value, need)
    return back if points <= back.points or value <= 0 else Paid(points, back.value + value)


def points_of(amount: int, facts: Mapping[str, Any]) -> int:
    """Return the whole points that an amount earns."""
    return int(amount * Decimal(facts["points_per_unit"]) / facts["minor_units"])
