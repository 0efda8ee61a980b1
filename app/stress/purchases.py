"""Purchases: recorded once for an order, and taken back in parts or whole, with what they earned."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.operations import Answer, Operation
from app.stress.order import Bought, Order, Refunded
from app.stress.points import ENTRY, is_shown
from app.stress.things import Leads, Move, Story, Then, earned, follows, given_back_some, spent, where
from app.stress.verb import Asked, Call, Facts, Says, Verb, mutation
from app.stress.wallet import Told, Wallet

if TYPE_CHECKING:
    from app.stress.worlds import World

SHOWN: Final = """
amount { amountMinor } paidPoints paidPointsValue { amountMinor } refunded { amountMinor } keptPoints reversedAt
"""
WALLET: Final = "wallet { points version shortfall }"
RECORD: Final = mutation(
    "recordPurchase",
    "RecordPurchaseInput",
    f"""... on RecordPurchaseSuccess {{ replayed purchase {{ id }} {ENTRY} }}
    ... on InvalidInput {{ problems {{ path }} }}""",
)


def _ask_record(world: "World") -> Asked | None:
    if world.facts["points_per_unit"] is None:
        return None
    money = {"amountMinor": world.rolls.choice([1000, 2000]), "currency": world.currency}
    return {"memberId": world.member(), "source": "STORE", "orderId": world.order(), "amount": money}, {}


def named(call: Call) -> str:
    """Return the name of the order that a call is about."""
    return f"order:{call.input['orderId']}"


def _recorded(call: Call) -> Sequence[Story]:
    order, member, amount = call.input["orderId"], call.input["memberId"], call.input["amount"]["amountMinor"]
    entry = call.answer.get("entry")
    told = None if entry is None else (entry["id"], entry["amount"], entry["balanceAfter"])
    if call.answer["replayed"]:

        def stands(bought: Bought) -> bool:
            is_same = (bought.member, bought.recorded) == (member, amount) and bought.entry in {None, told}
            return is_same and not bought.is_reversed

        return (((named(call), _open(stands)),),)
    # What a replay told of the wallet is how it was by then.
    version = None if entry is None or call.answer.get("was_replayed") else entry["member"]["wallet"]["version"]
    balance = None if entry is None else entry["balanceAfter"]

    def record(found: Order) -> Iterable[Then]:
        """What is paid with points earns none."""
        after = found._replace(bought=Bought(member, amount, amount, entry=told))
        points = after.earns(call.facts)
        is_told = "entry" not in call.answer or points == (entry or {"amount": 0})["amount"]
        if found.bought is not None or found.cancelled is not None or amount < found.paid.value or not is_told:
            return
        wallet = earned(points, order, recovers=call.facts["recovers"], points=balance, version=version)
        yield Then(after, ((f"wallet:{member}", wallet),) if points else ())

    return (((named(call), Leads(record, (f"wallet:{member}",))),),)


def paths(call: Call) -> list[str]:
    """Return what was told to be wrong with the input."""
    return [".".join(each["path"]) for each in call.answer["problems"]]


def _below_paid(call: Call) -> Sequence[Story]:
    """More than is recorded was paid with points."""
    amount = call.input["amount"]["amountMinor"]

    def is_below(order: Order) -> bool:
        return order.bought is None and order.cancelled is None and amount < order.paid.value

    return (((named(call), where(is_below)),),) if paths(call) == ["amount.amountMinor"] else ()


def _open(holds: Callable[[Bought], bool]) -> Move:
    """Something is true of what was recorded for an order that wasn't cancelled."""
    return where(lambda order: order.cancelled is None and order.bought is not None and holds(order.bought))


def _learn_purchase(world: "World", operation: Operation, answer: Answer) -> None:
    order, member = operation.input["orderId"], operation.input["memberId"]
    world.orders.setdefault(order, [])
    purchase = {"id": answer["purchase"]["id"], "order": order, "member": member}
    if purchase not in world.purchases:
        world.purchases.append(purchase)


def _recorded_before(call: Call) -> Sequence[Story]:
    told = (call.input["memberId"], call.input["amount"]["amountMinor"])
    return (((named(call), _open(lambda bought: (bought.member, bought.recorded) != told)),),)


def _recorded_and_returned(call: Call) -> Sequence[Story]:
    told = (call.input["memberId"], call.input["amount"]["amountMinor"])
    gone = _open(lambda bought: bought.is_reversed and (bought.member, bought.recorded) == told)
    return (((named(call), gone),),)


def cancelled(call: Call) -> Sequence[Story]:
    """The order was called off."""
    return (((named(call), where(lambda order: order.cancelled is not None)),),)


REFUND: Final = mutation(
    "refundPurchase",
    "RefundPurchaseInput",
    f"""... on RefundPurchaseSuccess {{
      replayed shortfall pointsReturned entries {{ id amount balanceAfter }} moneyReturned {{ amountMinor }}
      purchase {{ {SHOWN} member {{ id {WALLET} }} }}
    }}
    ... on RefundTooLarge {{ refundable {{ amountMinor }} }}""",
)


def _ask_refund(world: "World") -> Asked | None:
    if world.facts["points_per_unit"] is None:
        return None
    money = {"amountMinor": world.rolls.choice([500, 500, 1000]), "currency": world.currency}
    order = world.order_of([purchase["order"] for purchase in world.purchases])
    asked = {"source": "STORE", "orderId": order, "refundId": world.key(), "amount": money}
    return {**asked, "reason": "tried"}, {}


def _refunded(call: Call) -> Sequence[Story]:
    answer, key, part = call.answer, call.input["refundId"], call.input["amount"]["amountMinor"]
    told: Any = None
    if "entries" in answer:
        back = (answer["pointsReturned"], answer["moneyReturned"]["amountMinor"])
        told = (*back, answer["shortfall"], *(each["id"] for each in answer["entries"]))
    if answer["replayed"]:
        made = {Refunded(key, part, None), Refunded(key, part, told)}
        return (((named(call), _bought(lambda bought: not made.isdisjoint(bought.refunds))),),)
    # What a replay told of the purchase is how it was by then.
    shown = answer["purchase"] if told is not None and not answer.get("was_replayed") else None

    def refund(order: Order) -> Iterable[Then]:
        """Points that paid come back first, then earned ones are taken."""
        bought = order.bought
        if bought is None or bought.is_reversed or part > bought.stands or _has(bought, key):
            return
        after = order.refunded(Refunded(key, part, told))
        if told is not None and told[:2] != _back(order, after, part):
            return
        if shown is not None and (shown["member"]["id"] != bought.member or not is_as_shown(after, shown, call.facts)):
            return
        points = after.earns(call.facts)
        taken: Story = ()
        if told is not None or points != order.earns(call.facts):
            wallet = _taken(call, points, answer if told else None, shown and shown["member"]["wallet"])
            taken = ((f"wallet:{bought.member}", wallet),)
        yield Then(after, (*pays(call.input["orderId"], order, after), *taken))

    return (((named(call), Leads(refund, touches(call))),),)


def _back(before: Order, after: Order, part: int) -> tuple[int, int]:
    """Return the points and the money that come back with a part of a purchase."""
    return before.spent - after.spent, part - (after.back.value - before.back.value)


def pays(order: str, before: Order, after: Order) -> Story:
    """Points that pay for an order come back, or more are spent."""
    name, more = f"pay/{order}", after.spent - before.spent
    if more > 0:
        return ((f"wallet:{after.payer}", spent(more, f"{name}/{after.payments}")),)
    if more < 0:
        names = [f"{name}/{number}" for number in range(1, before.payments + 1)]
        return ((f"wallet:{before.payer}", given_back_some(names, -more)),)
    return ()


def _has(bought: Bought, key: str) -> bool:
    return any(each.key == key for each in bought.refunds)


def _bought(holds: Callable[[Bought], bool]) -> Move:
    return where(lambda order: order.bought is not None and holds(order.bought))


def touches(call: Call, order: str | None = None) -> Sequence[str]:
    """Return the names of what a change of an order may touch, of the call's unless told."""
    found: Sequence[str] = call.facts["touched"].get(order or call.input["orderId"], ())
    return found


def is_as_shown(order: Order, shown: dict[str, Any], facts: Facts) -> bool:
    """Whether the purchase of an order is what was shown of it."""
    bought = order.bought
    if bought is None:
        return False
    amounts = (shown["amount"]["amountMinor"], shown["refunded"]["amountMinor"], shown["keptPoints"])
    paid = (shown["paidPoints"], shown["paidPointsValue"]["amountMinor"])
    is_same = (bought.amount, bought.refunded, order.earns(facts)) == amounts and tuple(order.paid) == paid
    return is_same and bought.is_reversed == (shown["reversedAt"] is not None)


def _taken(call: Call, points: int, answer: Answer | None, shown: dict[str, int] | None) -> Move:
    """An order has earned so many points from now on, and a wallet loses what entries told, lacking the rest.

    What was shown of the wallet is how it was after that, if that changed it.
    """
    order = call.input["orderId"]

    def move(wallet: Wallet) -> Iterable[Wallet]:
        after, told = wallet.followed(order, points, recovers=call.facts["recovers"])
        if answer is not None:
            entries = answer["entries"]
            moved = sum(each["amount"] for each in entries)
            if told.shortfall != answer["shortfall"] or after.points - wallet.points != moved:
                return
            if entries and entries[-1]["balanceAfter"] != after.points:
                return
        if shown is None or after.version == wallet.version or is_shown(after, shown):
            yield after

    return move


CHECK: Final = """
query ($input: RefundPurchaseInput!) {
  answer: checkRefund(input: $input) {
    __typename ... on RefundPreview { points shortfall pointsReturned moneyReturned { amountMinor } }
    ... on RefundTooLarge { refundable { amountMinor } } ... on Refusal { message }
  }
}
"""


def _checked(call: Call) -> Sequence[Story]:
    """A refund at this instant would have brought back and taken so much, and lacked so much."""
    name, part, answer = call.input["orderId"], call.input["amount"]["amountMinor"], call.answer

    def tells(points: int, back: Story, wallet: Wallet) -> bool:
        for _, move in back:
            (wallet,) = move(wallet)
        after, told = wallet.followed(name, points, recovers=call.facts["recovers"])
        return (wallet.points - after.points, told.shortfall) == (answer["points"], answer["shortfall"])

    def check(order: Order) -> Iterable[Then]:
        bought = order.bought
        if bought is None or bought.is_reversed or part > bought.stands:
            return
        after = order.refunded(Refunded("", part, None))
        if _back(order, after, part) == (answer["pointsReturned"], answer["moneyReturned"]["amountMinor"]):
            back = pays(name, order, after) if order.payer == bought.member else ()
            told = where(partial(tells, after.earns(call.facts), back))
            yield Then(order, ((f"wallet:{bought.member}", told),))

    return (((named(call), Leads(check, touches(call))),),)


def _too_large(call: Call) -> Sequence[Story]:
    stands = call.answer["refundable"]["amountMinor"]
    if stands >= call.input["amount"]["amountMinor"]:
        return ()
    return (((named(call), _bought(lambda bought: not bought.is_reversed and bought.stands == stands)),),)


def _returned_before(call: Call) -> Sequence[Story]:
    order = call.about.get("order") or call.input["orderId"]
    return (((f"order:{order}", _bought(lambda bought: bought.is_reversed)),),)


def _not_recorded(call: Call) -> Sequence[Story]:
    return (((named(call), where(lambda order: order.bought is None)),),)


def _refunded_otherwise(call: Call) -> Sequence[Story]:
    key, part = call.input["refundId"], call.input["amount"]["amountMinor"]
    other = _bought(lambda bought: any(each.key == key and each.amount != part for each in bought.refunds))
    return (((named(call), other),),)


RETURN: Final = mutation(
    "reversePurchase",
    "ReversePurchaseInput",
    f"""... on ReversePurchaseSuccess {{
      shortfall entry {{ amount balanceAfter }} purchase {{ {SHOWN} member {{ {WALLET} }} }}
    }}""",
)


def _ask_return(world: "World") -> Asked | None:
    if not world.purchases:
        return None
    purchase = world.rolls.choice(world.purchases[-2:])
    return {"purchaseId": purchase["id"], "reason": "tried"}, purchase


def _returned(call: Call) -> Sequence[Story]:
    """All that stood goes back, and nothing was earned."""
    about, answer = call.about, call.answer
    wallet: Move = follows(about["order"], 0, recovers=call.facts["recovers"])
    if "purchase" in answer:
        entry = answer["entry"] or {"amount": 0, "balanceAfter": 0}
        told = Told(entry["amount"], entry["balanceAfter"], answer["shortfall"])
        wallet = _shown_after(about["order"], told, answer["purchase"]["member"]["wallet"])

    def give_up(order: Order) -> Iterable[Then]:
        if order.bought is not None and not order.bought.is_reversed:
            after = order.refunded(Refunded("", order.bought.stands, None))
            if "purchase" not in answer or is_as_shown(after, answer["purchase"], call.facts):
                yield Then(after, (*pays(about["order"], order, after), (f"wallet:{about['member']}", wallet)))

    return (((f"order:{about['order']}", Leads(give_up, touches(call, about["order"]))),),)


def _shown_after(order: str, told: Told, shown: dict[str, int]) -> Move:
    def move(wallet: Wallet) -> Iterable[Wallet]:
        for after in follows(order, 0, recovers=False, told=told)(wallet):
            if after.version == wallet.version or is_shown(after, shown):
                yield after

    return move


_REFUNDED: Final[dict[str, Says]] = {
    "RefundTooLarge": _too_large, "PurchaseAlreadyReversed": _returned_before, "NotFound": _not_recorded
}  # fmt: skip
VERBS: Final = (
    Verb("recordPurchase", RECORD, _ask_record, {
        "RecordPurchaseSuccess": _recorded, "IdempotencyKeyReused": _recorded_before,
        "PurchaseAlreadyReversed": _recorded_and_returned, "OrderNotOpen": cancelled, "InvalidInput": _below_paid,
    }, _learn_purchase, repeats=True, weight=2),
    Verb("refundPurchase", REFUND, _ask_refund, {
        "RefundPurchaseSuccess": _refunded, "IdempotencyKeyReused": _refunded_otherwise, **_REFUNDED,
    }, repeats=True, weight=2),
    Verb("checkRefund", CHECK, _ask_refund, {"RefundPreview": _checked, **_REFUNDED}, reads=True),
    Verb("reversePurchase", RETURN, _ask_return,
         {"ReversePurchaseSuccess": _returned, "PurchaseAlreadyReversed": _returned_before}, weight=0.7),
)  # fmt: skip
