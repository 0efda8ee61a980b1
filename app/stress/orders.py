"""Orders: amended and called off, with what that does to their codes and to what was recorded for them."""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.operations import READ, UNSEEN, Answer, Operation
from app.stress.order import NOTHING, Honoured, Order, Refunded, Reserved
from app.stress.points import is_shown
from app.stress.purchases import SHOWN, cancelled, is_as_shown, named, paths, touches
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
from app.stress.things import (
    Code,
    Leads,
    Move,
    Story,
    Then,
    becomes,
    changed,
    given_back,
    had,
    if_ended,
    stocked,
    where,
)
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
      replayed shortfall pointsReturned totalDiscount {{ amountMinor }} amountDue {{ amountMinor }} {REDEMPTIONS}
      purchase {{ {SHOWN} member {{ id {WALLET} }} }}
    }}
    {REJECTED} ... on InvalidInput {{ problems {{ path }} }} ... on InsufficientPoints {{ balance required }}""",
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
    asked: dict[str, Any] = {"orderId": order, "codes": [code.text for code in typed], "orderAmount": money}
    named = presenter(owner)
    if world.facts["point_value"] is not None and "memberId" in named and rolls.random() < 0.4:
        # Who types an address spends nobody's points.
        asked["points"] = rolls.choice([0, 5, 10, 30])
    return {**asked, "reason": "tried", "idempotencyKey": world.key(), **named}, {"codes": about_codes(typed)}


def _request(call: Call) -> tuple[Any, ...]:
    asked = call.input
    return asked["orderId"], tuple(asked["codes"]), asked["orderAmount"]["amountMinor"], who(asked), asked.get("points")


def _amended(call: Call) -> Sequence[Story]:
    answer, key = call.answer, f"key:amend/{call.input['idempotencyKey']}"
    told = (answer["shortfall"], answer["pointsReturned"]) if "shortfall" in answer else None
    if answer["replayed"]:
        made = {(_request(call), None), (_request(call), told)}

        def shown(order: Order) -> Iterable[Order]:
            found = _as_told(order, answer)
            return () if found is None else (found,)

        return (((key, where(lambda found: found in made)), (named(call), shown)),)
    written: Story = ((key, becomes(None, (_request(call), told))),)
    return [
        (*written, *given, (named(call), Leads(_amends(call, percents), touches(call))))
        for given, percents in priced(call)
    ]


def _as_told(order: Order, answer: Answer) -> Order | None:
    """Return the order if this was told of its codes and of what is due; from now on their ids are known."""
    shown = order.shown(answer["redemptions"])
    due = 0 if order.cancelled else max(0, order.worth - order.paid.value)
    told = (answer["totalDiscount"]["amountMinor"], answer["amountDue"]["amountMinor"])
    return shown if (sum(order.discounts), due) == told else None


def _as_asked(call: Call, percents: dict[str, float], order: Order) -> Order | None:
    """Return an order as it is asked for; None where it can't be that, apart from its codes and the points."""
    points, codes = call.input.get("points"), _codes(call, percents, order)
    if order.cancelled or order.amount is None or (points and order.paid.points and order.payer != who(call.input)):
        return None
    payer = who(call.input) if points else None
    return order.changed(call.input["orderAmount"]["amountMinor"], codes, call.facts, points, payer)


def _amends(call: Call, percents: dict[str, float]) -> Move:
    """The order has these codes and this amount, what was recorded follows, and all is as it was told."""
    answer, order_id = call.answer, call.input["orderId"]
    told = "shortfall" in answer and not answer.get("was_replayed")

    def amend(order: Order) -> Iterable[Then]:
        after = _as_asked(call, percents, order)
        if after is None or 0 in after.discounts:
            return
        if answer.get("pointsReturned") not in {None, max(0, order.spent - after.spent)}:
            return
        codes = after.codes
        coming = [each for each in codes if each.code not in {there.code for there in order.codes}]
        after = after.of(who(call.input)) if coming else after
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
    """Return an order if it is what an amendment told of it, and of its purchase."""
    shown, purchase = _as_told(order, call.answer), call.answer["purchase"]
    if shown is None or (purchase is None) != (shown.bought is None):
        return None
    return shown if purchase is None or is_as_shown(shown, purchase, call.facts) else None


def _too_few(call: Call) -> Sequence[Story]:
    """More points are to pay than can be spent."""
    member, balance, required = who(call.input), call.answer["balance"], call.answer["required"]
    told = if_ended(lambda wallet: balance in {wallet.spendable, wallet.free} and balance < required)

    def refuse(percents: dict[str, float], order: Order) -> Iterable[Then]:
        after = _as_asked(call, percents, order)
        # Less than it needs may stand of what was recorded, of which points are asked first.
        if after is None or after.spent - order.spent == required:
            yield Then(order, ((f"wallet:{member}", told),))

    touched = (f"wallet:{member}",)
    return [(*given, (named(call), Leads(partial(refuse, percents), touched))) for given, percents in priced(call)]


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


def _can_not_be(call: Call) -> Sequence[Story]:
    """Less would be left of what was recorded than was refunded, or is paid with points; or another member has paid."""
    found = paths(call)
    if found == ["memberId"]:
        return (((named(call), where(lambda order: bool(order.paid.points) and order.payer != who(call.input))),),)

    def refuses(percents: dict[str, float], order: Order) -> bool:
        is_open = order.cancelled is None and order.amount is not None
        return is_open and _as_asked(call, percents, order) is None

    if found != ["orderAmount.amountMinor"]:
        return ()
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
    "... on CancelOrderSuccess { replayed shortfall pointsReturned moneyReturned { amountMinor } kept { id } }",
)  # fmt: skip


def _ask_cancel(world: "World") -> Asked:
    return {"orderId": world.order(), "reason": "tried", "reinstate": world.rolls.random() < 0.8}, {}


def _called_off(call: Call) -> Sequence[Story]:
    """What is held is released, what stands goes back, and all codes."""
    answer, order_id = call.answer, call.input["orderId"]
    shortfall, told = answer.get("shortfall"), None
    if "moneyReturned" in answer:
        told = (answer["moneyReturned"]["amountMinor"], answer["pointsReturned"])
    if answer["replayed"] and told is not None:
        made = {(*told, None), (*told, shortfall)}
        return (((named(call), where(lambda order: order.cancelled in made)),),)

    def cancel(order: Order) -> Iterable[Then]:
        if order.cancelled or (order.amount is None and order.bought is None and not order.holds):
            return
        after, money = order._replace(codes=()), 0
        if order.bought is None:
            after = after._replace(paid=NOTHING)
        elif not order.bought.is_reversed:
            after = after.refunded(Refunded("", order.bought.stands, None))
            money = order.bought.stands - (after.back.value - order.back.value)
        returned = tuple(step for each in order.codes if call.input["reinstate"] for step in back(each, order_id))
        ended: Story = ()
        for place, hold in enumerate(order.holds):
            if hold.status in {"HELD", "EXPIRED"}:
                ended = (*ended, *ends(order_id, place, hold))
                after = after.with_hold(place, hold._replace(status="RELEASED"))
        rewards = next((hold.rewards for hold in order.holds if hold.status == "CAPTURED"), ())
        member = next((hold.presenter for hold in order.holds if hold.status == "CAPTURED"), "")
        for came_back, of_rewards in _of_rewards(rewards, member, len(answer["kept"]) if told else None):
            points = order.spent - after.spent + came_back
            if told in {None, (money, points)}:
                off = after._replace(cancelled=(money, points, shortfall))
                follows = follow_order(order_id, order, off, call.facts, shortfall=shortfall)
                yield Then(off, (*ended, *of_rewards, *follows, *returned))

    return (((named(call), Leads(cancel, touches(call))),),)


def _of_rewards(rewards: Sequence[Reserved], member: str, kept: int | None) -> Iterable[tuple[int, Story]]:
    """Return what may become of the rewards that an order brought, and how many points come back with that.

    So many of them are `kept`, if that was told: those whose codes are spent or held.
    """
    choices = [("back", "dead", "before", "kept") if each.code else ("back", "before") for each in rewards]
    for chosen in itertools.product(*choices):
        if kept not in {None, chosen.count("kept")}:
            continue
        story: Story = ()
        for each, what in zip(rewards, chosen, strict=True):
            story = (*story, *_of_reward(each, what, member))
        yield sum(each.cost for each, what in zip(rewards, chosen, strict=True) if what in {"back", "dead"}), story


def _of_reward(reward: Reserved, what: str, member: str) -> Story:
    """A reward goes back and its code is revoked, or is dead; or it went back before, or stays with a code in use."""
    name, code = f"back:{reward.name}", reward.code
    seen: list[tuple[str, Move]] = []
    if what == "before":
        return ((name, where(lambda found: found is not None)),)
    if what == "kept":
        in_use = where(lambda found: found.order is not None or found.hold is not None)
        seen = [(f"code:{code}", in_use)] if code not in {None, UNSEEN} else []
        return ((name, where(lambda found: found is None)), *seen)
    if what == "dead":
        seen = [(f"code:{code}", where(lambda found: found.revoked or found.expired))]
    elif code is not None:
        revoked = becomes(Code(member), Code(member, revoked=True))
        seen = [(f"stock:{reward.pool}", stocked(allocated=-1, revoked=1)), (f"wallet:{member}", changed())]
        seen = seen if code == UNSEEN else [(f"code:{code}", revoked), *seen]
    first: Story = ((name, becomes(None, ("BACK", None))), (f"reward:{reward.reward}", had(-1)))
    return (*first, *seen, (f"wallet:{member}", given_back(reward.name, None)))


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
        return bought is not None and bought.member == member["id"] and is_as_shown(order, shown, call.facts)

    def is_so(wallet: Wallet) -> bool:
        return is_shown(wallet, member["wallet"])

    return (((name, where(is_it)), (f"wallet:{member['id']}", where(is_so))),)


VERBS: Final = (
    Verb("amendOrder", AMEND, _ask_amend, {
        "AmendOrderSuccess": _amended, "OrderNotOpen": cancelled, "NotFound": _never_redeemed,
        "CodesRejected": _amend_rejected, "InvalidInput": _can_not_be, "InsufficientPoints": _too_few,
        "IdempotencyKeyReused": _amended_otherwise,
    }, _learn_amended, looks=look_of_order, repeats=True, weight=3),
    Verb("cancelOrder", CANCEL, _ask_cancel, {"CancelOrderSuccess": _called_off, "NotFound": _unknown},
         repeats=True, weight=0.7),
    Verb("readOrder", READ_ORDER, _ask_order, {READ: _saw_order}, _learn_seen, reads=True),
    Verb("readPurchase", READ_PURCHASE, _ask_order, {READ: _saw_purchase}, reads=True),
)  # fmt: skip
