"""Orders: amended and called off, with what that does to their codes and to what was recorded for them."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.operations import READ, UNSEEN, Answer, Operation
from app.stress.order import Honoured, Order, Refunded
from app.stress.points import is_shown
from app.stress.purchases import SHOWN, cancelled, is_as_shown, named, touches
from app.stress.redemptions import (
    AMOUNTS,
    REDEMPTIONS,
    REJECTED,
    Beside,
    about_codes,
    back,
    ends,
    first_order,
    follow_order,
    look_of_order,
    owner_of,
    priced,
    rejected,
    spend,
)
from app.stress.things import Leads, Move, Story, Then, becomes, given_back, where
from app.stress.verb import Asked, Call, Verb, mutation, who
from app.stress.verb import named as presenter
from app.stress.wallet import Wallet

if TYPE_CHECKING:
    from app.stress.worlds import World

WALLET: Final = "wallet { points version shortfall spendablePoints }"
AMEND: Final = mutation(
    "amendOrder",
    "AmendOrderInput",
    f"""... on AmendOrderSuccess {{
      replayed shortfall totalDiscount {{ amountMinor }} {REDEMPTIONS} purchase {{ {SHOWN} member {{ id {WALLET} }} }}
    }}
    {REJECTED} ... on InvalidInput {{ problems {{ path }} }}""",
)


def _ask_amend(world: "World") -> Asked | None:
    order, rolls = world.order_of(world.redeemed), world.rolls
    there = [world.codes[code] for code in world.orders.get(order, ())]
    codes = rolls.sample(there, k=rolls.randint(0, len(there)))
    others = [code for code in world.codes.values() if code not in there]
    coming = world.some(others, most=1) if rolls.random() < 0.4 else []
    owner = world.presenter(coming[0]) if coming else world.claimant()
    typed = [*codes, *coming][:3]
    money = {"amountMinor": rolls.choice(AMOUNTS), "currency": world.currency}
    asked = {"orderId": order, "codes": [code.text for code in typed], "orderAmount": money, "reason": "tried"}
    return {**asked, "idempotencyKey": world.key(), **presenter(owner)}, {"codes": about_codes(typed)}


def _request(call: Call) -> tuple[Any, ...]:
    asked = call.input
    return asked["orderId"], tuple(asked["codes"]), asked["orderAmount"]["amountMinor"], who(asked)


def _amended(call: Call) -> Sequence[Story]:
    answer, key = call.answer, f"key:amend/{call.input['idempotencyKey']}"
    if answer["replayed"]:
        made = {(_request(call), None), (_request(call), answer["shortfall"])}

        def shown(order: Order) -> Iterable[Order]:
            found = order.shown(answer["redemptions"])
            if found is not None and sum(found.discounts) == answer["totalDiscount"]["amountMinor"]:
                yield found

        return (((key, where(lambda found: found in made)), (named(call), shown)),)
    written: Story = ((key, becomes(None, (_request(call), answer.get("shortfall")))),)
    return [
        (*written, *given, (named(call), Leads(_amends(call, percents), touches(call))))
        for given, percents in priced(call)
    ]


def _amends(call: Call, percents: dict[str, float]) -> Move:
    """The order has these codes and this amount, what was recorded follows, and all is as it was told."""
    answer, order_id = call.answer, call.input["orderId"]
    told = "shortfall" in answer and not answer.get("was_replayed")

    def amend(order: Order) -> Iterable[Then]:
        codes = _codes(call, percents, order)
        after = order.changed(call.input["orderAmount"]["amountMinor"], codes)
        if order.cancelled or order.amount is None or after is None or 0 in after.discounts:
            return
        coming = [each for each in codes if each.code not in {there.code for there in order.codes}]
        if coming:
            after = after.of(who(call.input))
        if told:
            after = _shown(call, after)
            if after is None:
                return
        kept = {each.code for each in order.codes} & {each.code for each in codes}
        story = follow_order(order_id, order, after, call.facts, shortfall=answer.get("shortfall"))
        for each in order.codes:
            if each.code not in kept:
                story = (*story, *back(each, order_id))
        for each in codes:
            if each.code not in kept:
                story = (*story, *spend(each, order_id))
        if told and after.bought is not None:
            wallet = answer["purchase"]["member"]["wallet"]
            story = (*story, (f"wallet:{after.bought.member}", where(lambda found: is_shown(found, wallet))))
        yield Then(after, (*story, *first_order(call, coming)))

    return amend


def _shown(call: Call, order: Order) -> Order | None:
    """Return an order if it is what an amendment told of it."""
    answer = call.answer
    shown, purchase = order.shown(answer["redemptions"]), answer["purchase"]
    if shown is None or sum(order.discounts) != answer["totalDiscount"]["amountMinor"]:
        return None
    if (purchase is None) != (shown.bought is None):
        return None
    return shown if shown.bought is None or is_as_shown(shown.bought, purchase, call.facts) else None


def _codes(call: Call, percents: dict[str, float], order: Order) -> tuple[Honoured, ...]:
    """Return the codes that are asked for: those that stay as they were first redeemed, the others as of now."""
    there = {each.code: each._replace(most=None) for each in order.codes}
    return tuple(
        there.get(code["id"])
        or Honoured(
            UNSEEN, code["id"], code["pool"], owner_of(code, call), percents.get(code["pool"], 0),
            is_first=code["pool"] in call.facts["first"],
        )
        for code in call.about["codes"]
    )  # fmt: skip


def _learn_amended(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_order(operation.input["orderId"], answer["redemptions"])


def _below_refunded(call: Call) -> Sequence[Story]:
    """Less would be left of what was recorded than was refunded."""
    if [".".join(each["path"]) for each in call.answer["problems"]] != ["orderAmount.amountMinor"]:
        return ()

    def refuses(percents: dict[str, float], order: Order) -> bool:
        amount = call.input["orderAmount"]["amountMinor"]
        is_open = order.cancelled is None and order.amount is not None
        return is_open and order.changed(amount, _codes(call, percents, order)) is None

    return [(*given, (named(call), where(partial(refuses, percents)))) for given, percents in priced(call)]


def _amend_rejected(call: Call) -> Sequence[Story]:
    return rejected(call, lambda percents, order: _codes(call, percents, order), Beside.AMENDMENT)


def _never_redeemed(call: Call) -> Sequence[Story]:
    """Of an order that is held, codes would say what is in the way."""
    has_codes = bool(call.input["codes"])
    return (((named(call), where(lambda order: order.is_open and not (has_codes and order.live is not None))),),)


def _amended_otherwise(call: Call) -> Sequence[Story]:
    key = f"key:amend/{call.input['idempotencyKey']}"
    return (((key, where(lambda found: found is not None and found[0] != _request(call))),),)


CANCEL: Final = mutation(
    "cancelOrder", "CancelOrderInput",
    "... on CancelOrderSuccess { replayed shortfall moneyReturned { amountMinor } }",
)  # fmt: skip


def _ask_cancel(world: "World") -> Asked:
    return {"orderId": world.order(), "reason": "tried", "reinstate": world.rolls.random() < 0.8}, {}


def _called_off(call: Call) -> Sequence[Story]:
    """What is held is released, what stands goes back, and all codes."""
    answer, order_id = call.answer, call.input["orderId"]
    money, shortfall = answer.get("moneyReturned", {}).get("amountMinor"), answer.get("shortfall")
    if answer["replayed"]:
        told = where(lambda order: order.cancelled in {(money, None), (money, shortfall)})
        return (((named(call), told),),)

    def cancel(order: Order) -> Iterable[Then]:
        if order.cancelled or (order.amount is None and order.bought is None and not order.holds):
            return
        bought, returned = order.bought, 0
        if bought is not None and not bought.is_reversed:
            returned = bought.stands
            bought = bought.returned(Refunded("", returned, None))
        if money not in {None, returned}:
            return
        after = order._replace(codes=(), bought=bought, cancelled=(returned, shortfall))
        paid = next((hold for hold in order.holds if hold.status == "CAPTURED" and hold.points), None)
        story = follow_order(order_id, order, after, call.facts, shortfall=shortfall)
        for place, hold in enumerate(order.holds):
            if hold.status in {"HELD", "EXPIRED"}:
                story = (*ends(order_id, place, hold), *story)
                after = after.with_hold(place, hold._replace(status="RELEASED"))
        if paid is not None:
            story = ((f"wallet:{paid.presenter}", given_back(f"pay/{order_id}", None)), *story)
        for each in order.codes if call.input["reinstate"] else ():
            story = (*story, *back(each, order_id))
        yield Then(after, story)

    return (((named(call), Leads(cancel, touches(call))),),)


def _unknown(call: Call) -> Sequence[Story]:
    return (((named(call), where(lambda order: order == Order())),),)


READ_ORDER: Final = f"query ($id: String!) {{ answer: order(orderId: $id) {{ {REDEMPTIONS} }} }}"
READ_PURCHASE: Final = f"""
query ($id: String!) {{ answer: order(orderId: $id) {{ purchase {{ {SHOWN} member {{ id {WALLET} }} }} }} }}
"""


def _ask_order(world: "World") -> Asked | None:
    known = list(world.orders)[-3:]
    return ({"id": world.rolls.choice(known)}, {}) if known else None


def _saw_order(call: Call) -> Sequence[Story]:
    def shown(order: Order) -> Iterable[Order]:
        found = order.shown(call.answer["redemptions"])
        return () if found is None else (found,)

    return (((f"order:{call.input['id']}", shown),),)


def _learn_seen(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_order(operation.input["id"], answer["redemptions"])


def _saw_purchase(call: Call) -> Sequence[Story]:
    name, shown = f"order:{call.input['id']}", call.answer["purchase"]
    if shown is None:
        return (((name, where(lambda order: order.bought is None)),),)
    member = shown["member"]

    def is_it(order: Order) -> bool:
        bought = order.bought
        return bought is not None and bought.member == member["id"] and is_as_shown(bought, shown, call.facts)

    def is_so(wallet: Wallet) -> bool:
        return is_shown(wallet, member["wallet"])

    return (((name, where(is_it)), (f"wallet:{member['id']}", where(is_so))),)


VERBS: Final = (
    Verb("amendOrder", AMEND, _ask_amend, {
        "AmendOrderSuccess": _amended, "OrderNotOpen": cancelled, "NotFound": _never_redeemed,
        "CodesRejected": _amend_rejected, "InvalidInput": _below_refunded, "IdempotencyKeyReused": _amended_otherwise,
    }, _learn_amended, looks=look_of_order, repeats=True, weight=3),
    Verb("cancelOrder", CANCEL, _ask_cancel, {"CancelOrderSuccess": _called_off, "NotFound": _unknown},
         repeats=True, weight=0.7),
    Verb("readOrder", READ_ORDER, _ask_order, {READ: _saw_order}, _learn_seen, reads=True),
    Verb("readPurchase", READ_PURCHASE, _ask_order, {READ: _saw_purchase}, reads=True),
)  # fmt: skip
