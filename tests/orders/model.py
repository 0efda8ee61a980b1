"""The checkout as its rules say it, in plain Python and without a database: what orders and holds are compared with.

A few orders of a few members, each in hundredths of a unit, of which each earns a point. Points are the ledger's model.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import floor
from typing import Any

from app.orders.rules import NOTHING, Paid, paid_with
from tests.points.model import ModelDebit, ModelHold, ModelLot, ModelWallet

Told = dict[str, Any]


class ModelRefusedError(Exception):
    """A refusal, with what it tells."""

    def __init__(self, kind: str, **told: Any) -> None:
        """Take the refusal's type and its fields."""
        super().__init__(kind)
        self.told: Told = {"__typename": kind, **told}


class LackingPointsError(Exception):
    """A hold wants more points than can be spent beside other holds."""

    def __init__(self, wanted: int, spendable: int, ended: set[int]) -> None:
        """Take how many it wants, how many there are once these holds have ended."""
        super().__init__()
        self.wanted, self.spendable, self.ended = wanted, spendable, ended


class LackingRewardError(Exception):
    """A hold wants a reward that can't be had beside other holds."""

    def __init__(self, reward: str) -> None:
        """Take the reward."""
        super().__init__()
        self.reward = reward


@dataclass(eq=False)
class ModelCode:
    """A code that takes a percentage off, and what became of it; one that is shared is honoured for anybody."""

    owner: int
    percent: int
    is_shared: bool = False
    order: str | None = None
    hold: "ModelCart | None" = None
    is_revoked: bool = False

    @property
    def holder(self) -> "ModelCart | None":
        """Return the hold that has it, while the time of that lasts."""
        return self.hold if self.hold is not None and self.hold.is_live else None


@dataclass(eq=False)
class ModelReward:
    """A reward: what it costs, how many are left if that is limited, and the codes left in its pool if it has one."""

    cost: int
    stock: int | None = None
    codes: int | None = None
    #: How many of its pool each member may have, and has.
    limit: int = 0
    claims: dict[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class ModelCart:
    """What is held for an order. A late one is still HELD, and its time has passed."""

    number: int
    order: str
    who: int
    amount: int = 0
    codes: list[str] = field(default_factory=list)
    paid: Paid = NOTHING
    rewards: list[str] = field(default_factory=list)
    status: str = "HELD"
    #: Which hold, of those whose time has passed, it was.
    late: int | None = None
    kept: ModelHold = field(default_factory=ModelHold)
    captured: Paid | None = None

    @property
    def is_live(self) -> bool:
        return self.status == "HELD" and self.late is None

    @property
    def shown(self) -> str:
        return "EXPIRED" if self.status == "HELD" and self.late is not None else self.status

    @property
    def points(self) -> Paid:
        """Return what it pays; once it is captured, what was paid."""
        return self.captured or self.paid


@dataclass(eq=False)
class ModelOrder:
    """An order; `amount` is None until something is redeemed for it. What is recorded and paid is before refunds."""

    name: str
    amount: int | None = None
    codes: list[str] = field(default_factory=list)
    carts: list[ModelCart] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    is_known: bool = False
    is_off: bool = False
    paid: Paid = NOTHING
    payer: int | None = None
    debits: list[ModelDebit] = field(default_factory=list)
    #: Rewards that it brought, and what was spent for each.
    exchanges: list[tuple[str, ModelDebit]] = field(default_factory=list)
    buyer: int | None = None
    first_recorded: int = 0
    recorded: int = 0
    refunded: int = 0
    is_reversed: bool = False
    back: Paid = NOTHING
    shares: tuple[int, Paid] = (0, NOTHING)
    lots: list[ModelLot] = field(default_factory=list)
    refunds: dict[str, int] = field(default_factory=dict)

    @property
    def held(self) -> ModelCart | None:
        """Return the hold that is HELD, late or not."""
        return next((cart for cart in self.carts if cart.status == "HELD"), None)

    @property
    def live(self) -> ModelCart | None:
        return self.held if self.held is not None and self.held.is_live else None

    @property
    def cart(self) -> ModelCart | None:
        """Return the hold that counts: the one that was captured, or else the newest."""
        captured = [cart for cart in self.carts if cart.status == "CAPTURED"]
        return captured[0] if captured else self.carts[-1] if self.carts else None

    @property
    def stands(self) -> int:
        return self.recorded - self.refunded

    @property
    def earned(self) -> int:
        """Return the points that its purchase has earned: one for each unit that stands and is money."""
        return 0 if self.buyer is None else (self.stands - self.paid.value + self.back.value) // 100

    def returned(self, refunded: int) -> Paid:
        """Return what has come back of the points paid when so much is refunded."""
        since, back = self.shares
        if refunded == since:
            return back
        share = Fraction(refunded - since, self.recorded - since)
        return Paid(
            back.points + floor((self.paid.points - back.points) * share),
            back.value + floor((self.paid.value - back.value) * share),
        )


@dataclass
class ModelShop:
    """All of it. Each verb returns what is told of it or raises ModelRefusedError, and is tried on a copy (`tried`)."""

    wallets: list[ModelWallet]
    point_value: Decimal
    codes: dict[str, ModelCode]
    rewards: dict[str, ModelReward]
    orders: dict[str, ModelOrder]
    carts: list[ModelCart] = field(default_factory=list)
    lates: int = 0

    def tried(self) -> "ModelShop":
        """Return a copy, which takes the place of this one if what is tried on it isn't refused."""
        return copy.deepcopy(self)

    # What verbs have in common.

    def discounts(self, codes: list[str], amount: int) -> list[int]:
        """Return what codes take off, each of what those before it left."""
        taken: list[int] = []
        for code in codes:
            exact = Decimal(amount - sum(taken)) * self.codes[code].percent / 100
            taken.append(int(exact.quantize(Decimal(1), ROUND_HALF_UP)))
        return taken

    def worth(self, codes: list[str], amount: int) -> int:
        return amount - sum(self.discounts(codes, amount))

    def end(self, cart: ModelCart, status: str) -> None:
        """Let a hold be RELEASED or EXPIRED; what it had is free, if that wasn't so before."""
        if cart.status == "HELD":
            self._put_back(cart.rewards)
            for code in self.codes.values():
                code.hold = None if code.hold is cart else code.hold
            if cart.kept.points:
                self.wallets[cart.who].free(cart.kept)
        cart.status = status

    def _put_back(self, rewards: list[str]) -> None:
        for name in rewards:
            reward = self.rewards[name]
            reward.stock = None if reward.stock is None else reward.stock + 1
            reward.codes = None if reward.codes is None else reward.codes + 1

    def end_late(self, who: int | None = None) -> None:
        """Write down which holds have ended: all, or those that have points of a member."""
        self._end_late(lambda cart: who is None or (cart.who == who and cart.kept.points > 0))

    def _end_aside(self, reward: str) -> bool:
        """Write down which holds with a reward have ended, whatever comes of that. Returns whether there was one."""
        return self._end_late(lambda cart: reward in cart.rewards)

    def _end_late(self, is_meant: Callable[[ModelCart], bool]) -> bool:
        late = [cart for cart in self.carts if cart.status == "HELD" and cart.late is not None]
        ended = False
        for cart in sorted(late, key=lambda cart: cart.late or 0):
            if is_meant(cart):
                self.end(cart, "EXPIRED")
                ended = True
        return ended

    def room(self, who: int, points: int) -> int:
        """Return how many points of a member can be spent; if that is too few, once what is late has ended."""
        if points > self.wallets[who].spendable:
            self.end_late(who)
        return self.wallets[who].spendable

    def debit(self, who: int, points: int, reason: str) -> ModelDebit:
        spendable = self.room(who, points)
        if points > spendable:
            raise ModelRefusedError("InsufficientPoints", balance=spendable, required=points)
        return self.wallets[who].debit(points, reason)

    def take_back(self, order: ModelOrder, points: int) -> int:
        """Take back what a purchase doesn't earn any more. Returns what is lacking."""
        newest = max(order.lots, key=lambda lot: lot.number)
        assert order.buyer is not None
        if points > newest.free:
            self.end_late(order.buyer)
        return self.wallets[order.buyer].take_back(order.lots, points)[1]

    def give_back(self, order: ModelOrder, points: int) -> None:
        """Give back points that were paid, the last spent first."""
        if order.payer is not None:
            self.wallets[order.payer].give_back_some(order.debits, points)

    def _against(self, who: int, name: str, codes: list[str], *, beside: str) -> None:
        """Refuse codes that can't be had for an order: as it is, in place of its own, or held in place of its own."""
        order = self.orders[name]
        found = []
        for each in codes:
            code, own = self.codes[each], code_is_on(self.codes[each], order)
            holder = code.holder
            if beside == "HOLD" and holder is not None and (holder is order.live or holder.who == who):
                holder = None
            if code.order is not None and not (own and beside == "AMENDMENT"):
                found.append("ALREADY_REDEEMED")
            elif holder is not None or (order.live is not None and beside != "HOLD"):
                found.append("HELD")
            elif code.is_revoked:
                found.append("REVOKED")
            elif order.codes and beside == "ORDER":
                found.append("NOT_STACKABLE")
        if found:
            raise ModelRefusedError("CodesRejected", reasons=found)

    # Holds.

    def hold(
        self, name: str, who: int, codes: list[str], points: int, rewards: list[str], amount: int, key: str
    ) -> tuple["ModelShop", Told]:
        """Return the shop after a hold, or as it was for a key that was used, and what is told."""
        order = self.orders[name]
        if key in order.requests:
            return self, {"__typename": "HoldCheckoutSuccess", "takenOver": False}
        refuse_if_off(order)
        if order.amount is not None:
            is_captured = any(cart.status == "CAPTURED" for cart in order.carts)
            raise ModelRefusedError("HoldNotOpen" if is_captured else "OrderNotOpen")
        self._against(who, name, codes, beside="HOLD")
        paid = paid_with(points, self.worth(codes, amount), self.point_value)
        if not codes and not rewards and not paid.points:
            raise ModelRefusedError("InvalidInput")
        more: set[int] = set()
        while True:
            after = self.tried()
            try:
                taken_over = after._hold(name, who, codes, paid, rewards, amount, more)
            except LackingRewardError as lacking:
                if self._end_aside(lacking.reward):
                    continue
                more.add(self._with_reward(who, lacking.reward, {*more, *self._ending(name, codes)}, name))
                continue
            except LackingPointsError as lacking:
                more = self._with_points(who, lacking, name)
                continue
            after.orders[name].requests.append(key)
            return after, {"__typename": "HoldCheckoutSuccess", "takenOver": taken_over}

    def _ending(self, name: str, codes: list[str]) -> set[int]:
        """Return the holds that end for codes, and one of the order that is late."""
        order = self.orders[name]
        holders = {holder for code in codes if (holder := self.codes[code].holder) is not None}
        late = {order.held} if order.held is not None and not order.held.is_live else set()
        return {cart.number for cart in holders - {order.live} | late}

    def _with_reward(self, who: int, reward: str, but: set[int], name: str) -> int:
        """Return the member's earliest other hold that has a reward."""
        others = [
            cart for cart in self.carts
            if cart.who == who and cart.status == "HELD" and cart.number not in but
            and cart is not self.orders[name].held and reward in cart.rewards
        ]  # fmt: skip
        if not others:
            raise ModelRefusedError("RewardOutOfStock")
        # Whose time has passed began long before.
        return min(others, key=lambda cart: (cart.is_live, cart.number)).number

    def _with_points(self, who: int, lacking: LackingPointsError, name: str) -> set[int]:
        """Return the member's earliest other holds that have as many points as are lacking."""
        taken, spendable = set(lacking.ended), lacking.spendable
        for cart in self.carts:
            is_other = cart.who == who and cart.is_live and cart.number not in lacking.ended
            if is_other and cart is not self.orders[name].held and cart.kept.points and spendable < lacking.wanted:
                taken.add(cart.number)
                spendable += cart.kept.points
        if spendable < lacking.wanted:
            raise ModelRefusedError("InsufficientPoints", balance=lacking.spendable, required=lacking.wanted)
        return taken

    def _hold(
        self, name: str, who: int, codes: list[str], paid: Paid, rewards: list[str], amount: int, more: set[int]
    ) -> bool:
        """Hold all of it; returns whether another order's hold ended for it."""
        order = self.orders[name]
        own, needed = order.live, self._ending(name, codes)
        lapsed = set() if order.held is None or order.held is own else {order.held.number}
        ended = set(needed)
        self._end_all(needed)
        had = [] if own is None else own.rewards
        if own is not None and own.who != who:
            self._put_back(had)
            had = []
        for_rewards = {cart.number for cart in self.carts if cart.number in more - needed and cart.rewards}
        self._end_all(for_rewards)
        ended |= for_rewards
        fresh = self._take(rewards, list(had))
        costs = [self.rewards[each].cost for each in rewards]
        if own is not None and own.who != who and own.kept.points:
            self.wallets[own.who].free(own.kept)
            own.kept = ModelHold()
        cart = own or ModelCart(len(self.carts), name, who)
        wanted = paid.points + sum(costs)
        waiting = sorted(more - ended)
        while wanted or cart.kept.points:
            spendable = self.room(who, wanted - cart.kept.points) + cart.kept.points
            if self.wallets[who].hold(cart.kept, [paid.points, *costs]):
                break
            if not waiting:
                raise LackingPointsError(wanted, spendable, ended)
            if self.carts[waiting[0]].status == "HELD":
                ended.add(waiting[0])
                self.end(self.carts[waiting[0]], "EXPIRED")
            waiting.pop(0)
        self._set_aside(who, cart, fresh, rewards)
        if own is None:
            self.carts.append(cart)
            order.carts.append(cart)
        for code in self.codes.values():
            code.hold = None if code.hold is cart else code.hold
        for each in codes:
            self.codes[each].hold = cart
        cart.who, cart.amount, cart.codes, cart.paid, cart.rewards = who, amount, codes, paid, rewards
        order.is_known = True
        return bool(ended - lapsed)

    def _end_all(self, numbers: set[int]) -> None:
        for number in sorted(numbers):
            if self.carts[number].status == "HELD":
                self.end(self.carts[number], "EXPIRED")

    def _take(self, rewards: list[str], had: list[str]) -> list[str]:
        """Take from stock what a hold hasn't had, and return it; what it had and is not to have goes back."""
        fresh = []
        for name in rewards:
            if name in had:
                had.remove(name)
            else:
                fresh.append(name)
        self._put_back(had)
        for name in fresh:
            stock = self.rewards[name].stock
            if stock == 0:
                raise LackingRewardError(name)
            self.rewards[name].stock = None if stock is None else stock - 1
        return fresh

    def _set_aside(self, who: int, own: ModelCart, fresh: list[str], rewards: list[str]) -> None:
        """Set codes aside for rewards that bring one; what the member's holds have counts as claimed."""
        others = [cart for cart in self.carts if cart.who == who and cart.status == "HELD" and cart is not own]
        has = {name: rewards.count(name) - fresh.count(name) for name in fresh}
        for name in fresh:
            reward = self.rewards[name]
            if reward.codes is None:
                continue
            held = sum(cart.rewards.count(name) for cart in others) + has[name]
            if reward.codes == 0 or reward.claims.get(who, 0) + held >= reward.limit:
                raise LackingRewardError(name)
            reward.codes -= 1
            has[name] += 1

    def lapse(self, number: int) -> None:
        """Let the time of a hold pass that is HELD."""
        self.lates += 1
        self.carts[number].late = self.lates

    def release(self, number: int) -> Told:
        cart = self.carts[number]
        if cart.status == "CAPTURED":
            raise ModelRefusedError("HoldNotOpen")
        was_released = cart.status == "RELEASED"
        if not was_released:
            self.end(cart, "RELEASED")
        return {"__typename": "ReleaseHoldSuccess", "replayed": was_released}

    def extend(self, number: int) -> Told:
        if not self.carts[number].is_live:
            raise ModelRefusedError("HoldNotOpen")
        return {"__typename": "ExtendHoldSuccess"}

    def capture(self, number: int, points: int | None) -> Told:
        """Redeem, pay and have all of a hold; of one whose time has passed, if it is all still there."""
        cart = self.carts[number]
        order = self.orders[cart.order]
        if points is not None and points > cart.paid.points:
            raise ModelRefusedError("InvalidInput")
        paid = cart.paid
        if points is not None and points < cart.paid.points:
            paid = Paid(points, int(points * self.point_value))
        if cart.status == "CAPTURED":
            if paid.points != cart.points.points:
                raise ModelRefusedError("IdempotencyKeyReused")
            return {"__typename": "CaptureHoldSuccess", "replayed": True}
        missing: Told = {"reasons": [], "rewardsMissing": [], "pointsMissing": 0}
        if cart.status == "RELEASED" or order.is_off or order.amount is not None:
            raise ModelRefusedError("HoldNotOpen", **missing)
        if order.held is not None and order.held is not cart:
            self.end(order.held, "RELEASED")
        if not cart.is_live:
            missing["reasons"] = [why for code in cart.codes if (why := self._gone(code)) is not None]
        self._have(cart, order, paid, missing)
        self._pay(cart, order, paid, missing)
        if missing["reasons"] or missing["rewardsMissing"]:
            raise ModelRefusedError("HoldNotOpen", **missing)
        for each in cart.codes:
            self.codes[each].order, self.codes[each].hold = order.name, None
        cart.status, cart.captured = "CAPTURED", paid
        order.amount, order.codes = cart.amount, list(cart.codes)
        if paid.points:
            order.payer = cart.who
            self._follow(order, order.recorded, paid)
        return {"__typename": "CaptureHoldSuccess", "replayed": False}

    def _gone(self, name: str) -> str | None:
        """Return why a code can't be had any more by a hold whose time has passed."""
        code = self.codes[name]
        if code.order is not None:
            return "ALREADY_REDEEMED"
        return "HELD" if code.holder is not None else "REVOKED" if code.is_revoked else None

    def _have(self, cart: ModelCart, order: ModelOrder, paid: Paid, missing: Told) -> None:
        """Have the rewards of a hold; those of one that is written down as EXPIRED as any others are."""
        if cart.status == "HELD":
            for position, name in enumerate(cart.rewards, start=1):
                debit = self.wallets[cart.who].capture(cart.kept, position, self.rewards[name].cost, "REWARD")
                self._had(order, cart.who, name, debit)
            return
        left = paid.points + sum(self.rewards[name].cost for name in cart.rewards)
        others = [other for other in self.carts if other.who == cart.who and other.status == "HELD"]
        for name in sorted(cart.rewards, key=list(self.rewards).index):
            reward = self.rewards[name]
            left -= reward.cost
            held = sum(other.rewards.count(name) for other in others)
            is_beyond = reward.codes is not None and reward.claims.get(cart.who, 0) + held >= reward.limit
            if reward.stock == 0 or reward.codes == 0 or is_beyond:
                missing["rewardsMissing"].append(name)
                continue
            reward.stock = None if reward.stock is None else reward.stock - 1
            reward.codes = None if reward.codes is None else reward.codes - 1
            self._had(order, cart.who, name, self._debit_or(missing, cart.who, reward.cost, "REWARD", left))
        # They are had one reward after the other, and come back as the cart lists them.
        order.exchanges.sort(key=lambda exchange: cart.rewards.index(exchange[0]))

    def _had(self, order: ModelOrder, who: int, name: str, debit: ModelDebit) -> None:
        order.exchanges.append((name, debit))
        claims = self.rewards[name].claims
        claims[who] = claims.get(who, 0) + 1

    def _pay(self, cart: ModelCart, order: ModelOrder, paid: Paid, missing: Told) -> None:
        wallet = self.wallets[cart.who]
        if cart.status == "HELD" and paid.points:
            order.debits = [wallet.capture(cart.kept, 0, paid.points, "PAYMENT")]
        elif cart.status == "HELD" and cart.kept.points:
            wallet.free(cart.kept)
        elif paid.points:
            order.debits = [self._debit_or(missing, cart.who, paid.points, "PAYMENT", 0)]

    def _debit_or(self, missing: Told, who: int, points: int, reason: str, more: int) -> ModelDebit:
        """Take points, or refuse the capture that wants them, and so many more after them."""
        try:
            return self.debit(who, points, reason)
        except ModelRefusedError as refused:
            lacking = refused.told["required"] + more - refused.told["balance"]
            raise ModelRefusedError("HoldNotOpen", **{**missing, "pointsMissing": lacking}) from None

    # Orders.

    def redeem(self, name: str, who: int, codes: list[str], amount: int) -> Told:
        order = self.orders[name]
        refuse_if_off(order)
        if order.amount == amount and set(order.codes) == set(codes):
            return {"__typename": "RedeemCodesSuccess", "replayed": True}
        self._against(who, name, codes, beside="ORDER")
        if order.amount is not None:
            # What it had was given back: its purchase follows.
            self._change(order, self.worth(codes, amount), self.worth(codes, amount) - order.amount, None, order.payer)
        self._place(order, codes, amount)
        return {"__typename": "RedeemCodesSuccess", "replayed": False}

    def _place(self, order: ModelOrder, codes: list[str], amount: int) -> None:
        for each in order.codes:
            self.codes[each].order = None
        for each in codes:
            self.codes[each].order, self.codes[each].hold = order.name, None
        order.amount, order.codes, order.is_known = amount, list(codes), True

    def amend(self, name: str, who: int, codes: list[str], points: int | None, amount: int) -> Told:
        order = self.orders[name]
        refuse_if_off(order)
        if order.amount is None and not (order.live is not None and codes):
            raise ModelRefusedError("NotFound")
        self._against(who, name, codes, beside="AMENDMENT")
        has_paid = order.payer if order.paid.points else None
        if points and has_paid not in {None, who}:
            raise ModelRefusedError("InvalidInput")
        worth, before = self.worth(codes, amount), self.worth(order.codes, order.amount or 0)
        more, shortfall = self._change(order, worth, worth - before, points, who if points else order.payer)
        self._place(order, codes, amount)
        return {
            "__typename": "AmendOrderSuccess", "pointsReturned": max(0, -more), "shortfall": shortfall,
            "amountDue": max(0, worth - order.paid.value),
        }  # fmt: skip

    def _change(
        self, order: ModelOrder, worth: int, difference: int, points: int | None, payer: int | None
    ) -> tuple[int, int]:
        """Let what an order is paid with, and its purchase, follow what it is worth.

        Returns how many more points pay for it, and how many can't be taken back.
        """
        recorded = order.recorded if order.buyer is None or order.is_reversed else order.recorded + difference
        if recorded < order.refunded:
            raise ModelRefusedError("InvalidInput")
        need = worth if order.buyer is None else max(0, min(worth, recorded) - order.refunded)
        paid = order.paid
        if points is not None or paid.value - order.back.value > need:
            paid = paid_with(paid.points if points is None else points, need, self.point_value, order.back)
        more = 0 if payer is None else paid.points - order.paid.points
        if payer is None:
            paid = order.paid
        elif more > 0:
            order.payer = payer
            order.debits.append(self.debit(payer, more, "PAYMENT"))
        elif more < 0:
            self.give_back(order, -more)
        return more, self._follow(order, recorded, paid)

    def _follow(self, order: ModelOrder, recorded: int, paid: Paid) -> int:
        """Let a purchase be worth another amount and be paid with other points; returns what can't be taken back."""
        stands = 0 if order.is_reversed else recorded - order.refunded
        is_changed = (recorded, paid) != (order.recorded, order.paid)
        if order.buyer is not None and is_changed and paid.value - order.back.value > stands:
            raise ModelRefusedError("InvalidInput")
        before = order.earned
        order.recorded, order.paid = recorded, paid
        if is_changed:
            order.shares = order.refunded, order.back
        if order.buyer is None or order.earned == before:
            return 0
        if order.earned < before:
            return self.take_back(order, before - order.earned)
        _, lot = self.wallets[order.buyer].earn_more(order.lots, order.earned - before, lifetime=None, pending=0)
        order.lots += [lot] if lot else []
        return 0

    def record(self, name: str, who: int, amount: int) -> Told:
        order = self.orders[name]
        refuse_if_off(order)
        if order.buyer is not None:
            if (order.buyer, order.first_recorded) != (who, amount):
                raise ModelRefusedError("IdempotencyKeyReused")
            if order.is_reversed:
                raise ModelRefusedError("PurchaseAlreadyReversed")
            return {"__typename": "RecordPurchaseSuccess", "replayed": True}
        if amount < order.paid.value:
            raise ModelRefusedError("InvalidInput")
        order.buyer, order.first_recorded, order.recorded, order.shares = who, amount, amount, (0, NOTHING)
        if order.earned:
            order.lots.append(self.wallets[who].earn(order.earned, lifetime=None, pending=0))
        return {"__typename": "RecordPurchaseSuccess", "replayed": False}

    def refund(self, name: str, key: str, part: int) -> Told:
        order = self.orders[name]
        if order.buyer is None:
            raise ModelRefusedError("NotFound")
        if key in order.refunds:
            if order.refunds[key] != part:
                raise ModelRefusedError("IdempotencyKeyReused")
            return {"__typename": "RefundPurchaseSuccess", "replayed": True}
        if order.is_reversed:
            raise ModelRefusedError("PurchaseAlreadyReversed")
        if part > order.stands:
            raise ModelRefusedError("RefundTooLarge", refundable=order.stands)
        order.refunds[key] = part
        points, money, shortfall = self._return(order, part)
        return {
            "__typename": "RefundPurchaseSuccess", "replayed": False, "pointsReturned": points, "moneyReturned": money,
            "shortfall": shortfall,
        }  # fmt: skip

    def _return(self, order: ModelOrder, part: int) -> tuple[int, int, int]:
        """Let a part of a purchase go back; returns the points and the money that come back, and what is lacking."""
        before, back = order.earned, order.returned(order.refunded + part)
        points, money = back.points - order.back.points, part - (back.value - order.back.value)
        self.give_back(order, points)
        order.refunded, order.back = order.refunded + part, back
        order.is_reversed = order.stands == 0
        owed = before - order.earned
        return points, money, self.take_back(order, owed) if owed else 0

    def cancel(self, name: str) -> Told:
        """Call an order off: what it holds is free, what it brought and paid comes back, then what it earned goes."""
        order = self.orders[name]
        if order.is_off:
            return {"__typename": "CancelOrderSuccess", "replayed": True}
        if not order.is_known and order.buyer is None:
            raise ModelRefusedError("NotFound")
        for cart in order.carts:
            if cart.status in {"HELD", "EXPIRED"}:
                self.end(cart, "RELEASED")
        points, money, shortfall = 0, 0, 0
        for reward, debit in order.exchanges:
            points += self.wallets[order.cart.who if order.cart else 0].give_back(debit)
            stock = self.rewards[reward].stock
            self.rewards[reward].stock = None if stock is None else stock + 1
        if order.buyer is None:
            self.give_back(order, order.paid.points)
            points += order.paid.points
        elif not order.is_reversed:
            back, money, shortfall = self._return(order, order.stands)
            points += back
        self._place(order, [], order.amount or 0)
        order.is_off = True
        return {
            "__typename": "CancelOrderSuccess", "replayed": False, "pointsReturned": points, "moneyReturned": money,
            "shortfall": shortfall,
        }  # fmt: skip

    def adjust(self, who: int, amount: int) -> Told:
        """Give or take points at the counter."""
        if amount > 0:
            self.wallets[who].credit(amount, "ADJUSTMENT", lifetime=None)
        else:
            self.debit(who, -amount, "ADJUSTMENT")
        return {"__typename": "GrantPointsSuccess"}


def code_is_on(code: ModelCode, order: ModelOrder) -> bool:
    """Whether a code is on an order."""
    return code.order == order.name


def refuse_if_off(order: ModelOrder) -> None:
    """Refuse what can't be done for an order that was called off."""
    if order.is_off:
        raise ModelRefusedError("OrderNotOpen")
