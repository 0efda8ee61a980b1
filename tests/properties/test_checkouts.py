"""The whole checkout beside a model. Without it holds, payments and refunds could each be right, and not together.

Any walk: carts are held, changed, taken over, extended, let lapse and captured, whole, in part and late; orders are
redeemed, amended, recorded, refunded and called off. Every answer, wallet, order and stock is compared.
"""

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app.orders.expire_holds import expire_holds
from tests.conftest import Api
from tests.factories import REDEEM_CODES, Shop, open_shop, usd
from tests.orders.documents import AMEND, CANCEL, cancellation
from tests.orders.holding import CAPTURE, EXTEND, HOLD, RELEASE, let_pass, reasons
from tests.orders.model import ModelCart, ModelCode, ModelOrder, ModelRefusedError, ModelReward, ModelShop, Told
from tests.points.documents import CONFIGURE, broken, grant, purchase, refund, reward
from tests.points.model import ModelWallet
from tests.sizes import FULL, size

T = TypeVar("T")
VALUE = 3
WHO = st.integers(0, 1)
NAMES = ("one", "two", "three")
#: Of each member one code of a tenth and one of a quarter; the last is one member's, and honoured for anybody.
PERCENTS = ((0, 10), (0, 25), (1, 10), (1, 25), (0, 10))
SHARED = len(PERCENTS) - 1
CODES = st.lists(st.sampled_from(["tenth", "quarter", "shared"]), max_size=2, unique=True)
REWARDS = st.lists(st.sampled_from(["mug", "voucher", "sticker"]), max_size=2)
POINTS = st.sampled_from([0, 0, 7, 60, 200, 400])
AMOUNTS = st.sampled_from([1_000, 1_001, 1_337])
ORDER = """
cancelledAt redemptions { discount { amountMinor } code { id } }
purchase {
  amount { amountMinor } paidPoints paidPointsValue { amountMinor } refunded { amountMinor } keptPoints reversedAt
}
hold {
  id status points pointsValue { amountMinor } amountDue { amountMinor } codes { code { id } } rewards { reward { id } }
}
"""
WALLET = """
wallet {
  points heldPoints spendablePoints shortfall
  entries(first: 100) { edges { node { amount balanceAfter reason } } }
}
"""
#: All that is compared after each step.
READ = f"""
query ($first: ID!, $second: ID!) {{
  first: member(id: $first) {{ {WALLET} }} second: member(id: $second) {{ {WALLET} }}
  {" ".join(f'{name}: order(orderId: "{name}") {{ {ORDER} }}' for name in NAMES)}
  rewards(first: 10) {{ edges {{ node {{ id stock pool {{ stock {{ available }} }} }} }} }}
}}
"""


#: What is done next, and how often beside others.
STEPS = (
    *["hold"] * 6, *["capture"] * 4, "release", "extend", "lapse", "lapse", *["redeem"] * 2, *["amend"] * 3,
    *["record"] * 2, *["refund"] * 2, "call_off", "adjust",
)  # fmt: skip


class Checkouts(RuleBasedStateMachine):
    """Three orders of two members, a few codes, and rewards: of a limited stock, with a code, and of any number."""

    loop: asyncio.AbstractEventLoop
    url: str

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the tests' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @initialize()
    def open(self) -> None:
        self.closing = open_shop(self.url)
        self.shop: Shop = self.do(self.closing.__aenter__())
        self.do(self.prepare())
        self.numbers = 0
        #: The ids of holds, by their numbers.
        self.holds: list[str] = []
        self.keys: list[str] = []

    async def prepare(self) -> None:
        await self.shop.do(CONFIGURE, pointValue=VALUE, pointsPerUnit=1.0)
        self.members = [await self.shop.member(), await self.shop.member()]
        self.codes: dict[str, Any] = {}
        for number, (who, percent) in enumerate(PERCENTS):
            pool = await self.shop.pool(
                codes=1, percentOff=float(percent), stacking="STACKABLE", transferable=number == SHARED
            )
            self.codes[str(number)] = await self.shop.claim(pool, self.members[who])
        pool = await self.shop.pool(codes=2, claimsPerMember=2)
        self.rewards = {
            "mug": await reward(self.shop, cost=30, stock=2),
            "voucher": await reward(self.shop, cost=40, poolId=pool["id"]),
            "sticker": await reward(self.shop, cost=5),
        }
        self.model = ModelShop(
            [ModelWallet(None), ModelWallet(None)],
            Decimal(VALUE),
            {
                str(number): ModelCode(who, percent, is_shared=number == SHARED)
                for number, (who, percent) in enumerate(PERCENTS)
            },
            {"mug": ModelReward(30, stock=2), "voucher": ModelReward(40, codes=2, limit=2), "sticker": ModelReward(5)},
            {name: ModelOrder(name) for name in NAMES},
        )
        for who, member in enumerate(self.members):
            await grant(self.shop, member, 300, f"gift {who}")
            self.model.adjust(who, 300)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            assert self.do(broken(self.shop)) == self.do(self.shop.broken_promises()) == []
            self.do(self.closing.__aexit__(None, None, None))

    def number(self) -> str:
        self.numbers += 1
        return f"n-{self.numbers}"

    def expected(self, step: Callable[[ModelShop], Told]) -> Told:
        """Return what the rules say of a step, and take it, unless it is refused."""
        after = self.model.tried()
        try:
            told = step(after)
        except ModelRefusedError as refused:
            return refused.told
        self.model = after
        return told

    @staticmethod
    def own(who: int, kinds: list[str]) -> list[str]:
        """Return the names of the codes that somebody may present."""
        return [{"tenth": str(2 * who), "quarter": str(2 * who + 1), "shared": str(SHARED)}[kind] for kind in kinds]

    def typed(self, codes: list[str]) -> list[str]:
        return [self.codes[each]["text"] for each in codes]

    @rule(data=st.data(), step=st.sampled_from(STEPS))
    def go_on(self, data: st.DataObject, step: str) -> None:
        getattr(self, step)(data)

    def adjust(self, data: st.DataObject) -> None:
        who, amount = data.draw(WHO), data.draw(st.sampled_from([100, -20, -150]))
        answer = self.do(grant(self.shop, self.members[who], amount, self.number()))
        told = self.expected(lambda model: model.adjust(who, amount))
        self.same(answer, told)
        if told["__typename"] == "InsufficientPoints":
            # What is late was ended for it all the same.
            self.model.room(who, -amount)

    def hold(self, data: st.DataObject) -> None:
        who, points, amount = data.draw(WHO), data.draw(POINTS), data.draw(AMOUNTS)
        codes, rewards = self.own(who, data.draw(CODES)), data.draw(REWARDS)
        if not codes and not points and not rewards:
            return
        name = self.order(data, lambda order: order.amount is None and not order.is_off)
        used = self.model.orders[name].requests
        key = used[-1] if used and data.draw(st.integers(0, 9)) == 0 else self.number()
        asked: dict[str, Any] = {
            "codes": self.typed(codes), "points": points, "rewardIds": [self.rewards[each]["id"] for each in rewards],
            "orderAmount": usd(amount),
        }  # fmt: skip
        named = {"memberId": self.members[who]["id"], "orderId": name, "idempotencyKey": key}
        answer = self.do(self.shop.do(HOLD, **asked, **named))
        try:
            self.model, told = self.model.hold(name, who, codes, points, rewards, amount, key)
        except ModelRefusedError as refused:
            told = refused.told
        self.same(answer, told)
        if len(self.model.carts) > len(self.holds):
            self.holds.append(answer["hold"]["id"])

    def cart(self, data: st.DataObject) -> ModelCart | None:
        """Choose a hold, mostly one that may still become something else."""
        fitting = [each for each in self.model.carts if each.status in {"HELD", "EXPIRED"}]
        carts = fitting if fitting and data.draw(st.integers(0, 5)) > 0 else self.model.carts
        return data.draw(st.sampled_from(carts)) if carts else None

    def order(self, data: st.DataObject, fits: Callable[[ModelOrder], bool]) -> str:
        """Choose an order, mostly one that fits."""
        fitting = [each.name for each in self.model.orders.values() if fits(each)]
        return data.draw(st.sampled_from(fitting if fitting and data.draw(st.integers(0, 5)) > 0 else list(NAMES)))

    def capture(self, data: st.DataObject) -> None:
        cart, points = self.cart(data), data.draw(st.sampled_from([None, None, None, None, 0, 5, 60]))
        if cart is None:
            return
        answer = self.do(self.shop.do(CAPTURE, holdId=self.holds[cart.number], points=points))
        told = self.expected(lambda model: model.capture(cart.number, points))
        if "rewardsMissing" in told:
            told["rewardsMissing"] = [self.rewards[each]["id"] for each in told["rewardsMissing"]]
        self.same(answer, told)

    def release(self, data: st.DataObject) -> None:
        if (cart := self.cart(data)) is not None:
            answer = self.do(self.shop.do(RELEASE, holdId=self.holds[cart.number]))
            self.same(answer, self.expected(lambda model: model.release(cart.number)))

    def extend(self, data: st.DataObject) -> None:
        if (cart := self.cart(data)) is not None:
            answer = self.do(self.shop.do(EXTEND, holdId=self.holds[cart.number], lifetimeSeconds=7_200))
            self.same(answer, self.expected(lambda model: model.extend(cart.number)))

    def lapse(self, data: st.DataObject) -> None:
        """The time of a hold passes; somebody writes that down, or nobody yet."""
        live = [each for each in self.model.carts if each.is_live]
        if live:
            cart = data.draw(st.sampled_from(live))
            self.do(let_pass(self.shop, {"id": self.holds[cart.number]}))
            self.model.lapse(cart.number)
        if data.draw(st.booleans()):
            self.do(expire_holds())
            self.model.end_late()

    def redeem(self, data: st.DataObject) -> None:
        who, amount = data.draw(WHO), data.draw(AMOUNTS)
        codes = self.own(who, data.draw(CODES))
        if not codes:
            return
        name = self.order(data, lambda order: not order.codes and order.live is None and not order.is_off)
        asked: dict[str, Any] = {"codes": self.typed(codes), "orderId": name, "orderAmount": usd(amount)}
        answer = self.do(self.shop.do(REDEEM_CODES, memberId=self.members[who]["id"], **asked))
        self.same(answer, self.expected(lambda model: model.redeem(name, who, codes, amount)))

    def amend(self, data: st.DataObject) -> None:
        who, points, amount = data.draw(WHO), data.draw(st.one_of(st.none(), POINTS)), data.draw(AMOUNTS)
        name = self.order(data, lambda order: order.amount is not None and not order.is_off)
        codes = self.own(who, data.draw(CODES))
        asked: dict[str, Any] = {"codes": self.typed(codes), "orderId": name, "orderAmount": usd(amount)}
        named = {"memberId": self.members[who]["id"], "reason": "a changed cart", "idempotencyKey": self.number()}
        answer = self.do(self.shop.do(AMEND, points=points, **asked, **named))
        self.same(answer, self.expected(lambda model: model.amend(name, who, codes, points, amount)))

    def record(self, data: st.DataObject) -> None:
        who, amount = data.draw(WHO), data.draw(st.sampled_from([300, 750, 1_000]))
        name = self.order(data, lambda order: order.is_known and order.buyer is None)
        answer = self.do(purchase(self.shop, self.members[who], name, amount))
        self.same(answer, self.expected(lambda model: model.record(name, who, amount)))

    def refund(self, data: st.DataObject) -> None:
        name, part = self.order(data, lambda order: order.stands > 0), data.draw(st.sampled_from([1, 99, 333, 500]))
        known = list(self.model.orders[name].refunds)
        key = known[-1] if known and data.draw(st.integers(0, 4)) == 0 else self.number()
        answer = self.do(refund(self.shop, name, key, part))
        self.same(answer, self.expected(lambda model: model.refund(name, key, part)))

    def call_off(self, data: st.DataObject) -> None:
        name = self.order(data, lambda order: order.amount is not None and not order.is_off)
        answer = self.do(self.shop.do(CANCEL, **cancellation(orderId=name)))
        self.same(answer, self.expected(lambda model: model.cancel(name)))
        assert answer.get("kept", []) == []

    def same(self, answer: Any, told: Told) -> None:
        """Compare an answer with what the rules say of it."""
        shown = {name: answer.get(name) for name in told if name != "reasons"}
        for name in ("amountDue", "moneyReturned", "refundable"):
            if name in told and shown[name] is not None:
                shown[name] = shown[name]["amountMinor"]
        if "reasons" in told:
            shown["reasons"] = reasons(answer) if "rejections" in answer else None
        assert shown == told

    @invariant()
    def all_is_as_the_rules_say(self) -> None:
        if not hasattr(self, "holds"):
            return
        first, second = self.members
        found = self.do(self.shop.data(READ, {"first": first["id"], "second": second["id"]}))
        for who, shown in enumerate([found["first"], found["second"]]):
            model = self.model.wallets[who]
            late = sum(cart.kept.points for cart in self.model.carts if cart.who == who and not cart.is_live)
            points = ("points", "heldPoints", "spendablePoints", "shortfall")
            assert tuple(shown["wallet"][name] for name in points) == (
                model.points, model.held - late, model.spendable + late, model.shortfall
            )  # fmt: skip
            entries = [edge["node"] for edge in reversed(shown["wallet"]["entries"]["edges"])]
            written = [(each["amount"], each["balanceAfter"], each["reason"]) for each in entries]
            assert written == model.history[-100:]
        for name in NAMES:
            assert _shown(found[name]) == self.shows(self.model.orders[name])
        left = {edge["node"]["id"]: edge["node"] for edge in found["rewards"]["edges"]}
        for name, has in self.model.rewards.items():
            shown = left[self.rewards[name]["id"]]
            assert (shown["stock"], shown["pool"] and shown["pool"]["stock"]["available"]) == (has.stock, has.codes)

    def shows(self, order: ModelOrder) -> Any:
        """Return what is to be shown of an order."""
        if not order.is_known and order.buyer is None:
            return None
        off = self.model.discounts(order.codes, order.amount or 0)
        redeemed = [(self.codes[code]["id"], taken) for code, taken in zip(order.codes, off, strict=True)]
        bought = None
        if order.buyer is not None:
            bought = (
                order.recorded, order.paid.points, order.paid.value, order.refunded, order.earned, order.is_reversed
            )  # fmt: skip
        cart = order.cart
        held = cart and (
            self.holds[cart.number], cart.shown, *cart.points,
            self.model.worth(cart.codes, cart.amount) - cart.points.value,
            [self.codes[code]["id"] for code in cart.codes], [self.rewards[each]["id"] for each in cart.rewards],
        )  # fmt: skip
        return order.is_off, redeemed, bought, held


def _shown(order: Any) -> Any:
    if order is None:
        return None
    bought, hold = order["purchase"], order["hold"]
    return (
        order["cancelledAt"] is not None,
        [(each["code"]["id"], each["discount"]["amountMinor"]) for each in order["redemptions"]],
        bought
        and (
            bought["amount"]["amountMinor"], bought["paidPoints"], bought["paidPointsValue"]["amountMinor"],
            bought["refunded"]["amountMinor"], bought["keptPoints"], bought["reversedAt"] is not None,
        ),
        hold
        and (
            hold["id"], hold["status"], hold["points"], hold["pointsValue"]["amountMinor"],
            hold["amountDue"]["amountMinor"], [each["code"]["id"] for each in hold["codes"]],
            [each["reward"]["id"] for each in hold["rewards"]],
        ),
    )  # fmt: skip


async def test_any_walk_through_the_checkout_goes_by_the_rules(api: Api, shop: Shop) -> None:
    class OnThisLoop(Checkouts):
        loop = asyncio.get_running_loop()
        url = f"{api.url}/graphql"

    how = settings(
        deadline=None,
        max_examples=size(2, 40),
        stateful_step_count=30,
        derandomize=not FULL,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, OnThisLoop, settings=how)
