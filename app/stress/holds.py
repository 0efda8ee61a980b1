"""Holds: codes are set aside for an order, captured, released, extended and taken over, each as it is told."""

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.aims import Budget, Share, shares_of_hold
from app.stress.claims import OPEN, allocated, one_more
from app.stress.claims import holds as holds_of
from app.stress.operations import PASSED, READ, UNSEEN, Answer, Operation
from app.stress.order import Hold, Honoured, Order, Paid, Reserved, discounts, paid_with
from app.stress.points import not_to_be_had
from app.stress.purchases import named, paths
from app.stress.redemptions import (
    AMOUNTS,
    HONOURS,
    REDEMPTIONS,
    REJECTED,
    Beside,
    about_codes,
    earns,
    ends,
    first_order,
    frees,
    held_or,
    left,
    look_of_order,
    owners,
    priced,
    put_back,
    rejected,
    set_aside,
    unclaimed,
    wallet_changes,
    wallets,
)
from app.stress.things import (
    BEARER,
    Code,
    Leads,
    Move,
    Shelf,
    Story,
    Then,
    becomes,
    changed,
    had,
    if_ended,
    stocked,
    unnamed,
    where,
)
from app.stress.verb import Asked, Call, Verb, mutation, who
from app.stress.verb import named as presenter
from app.stress.wallet import Wallet

if TYPE_CHECKING:
    from app.stress.worlds import World

CODES: Final = f"""
codes {{ discount {{ amountMinor }} code {{ id masked }} }} {REDEMPTIONS}
rewards {{ cost reward {{ id }} redemption {{ id member {{ id }} code {{ id text masked }} }} }}
"""
HOLD: Final = f"""
id status heldUntil orderAmount {{ amountMinor }} totalDiscount {{ amountMinor }} amountDue {{ amountMinor }} points
pointsValue {{ amountMinor }} {CODES}
"""
NOT_OPEN: Final = f"""
... on HoldNotOpen {{
  pointsMissing rewardsMissing hold {{ {HOLD} }} rejections {{ masked reason remedy {{ heldUntil }} }}
}}
"""
PLACE: Final = mutation(
    "holdCheckout",
    "HoldCheckoutInput",
    f"""... on HoldCheckoutSuccess {{ takenOver hold {{ {HOLD} }} }} {REJECTED} {NOT_OPEN}
    ... on InsufficientPoints {{ balance required }}""",
)


def _ask_hold(world: "World") -> Asked | None:
    if world.facts["point_value"] is not None and world.rolls.random() < 0.5:
        return _ask_to_pay(world)
    codes = world.presented()
    bearers = [code for code in world.codes.values() if code.owner == BEARER]
    if bearers and world.rolls.random() < 0.3:
        # What anybody may hold, others hold already.
        codes = [world.rolls.choice(bearers)]
    if not codes:
        return None
    owner = world.presenter(codes[0])
    money = {"amountMinor": world.rolls.choice(AMOUNTS), "currency": world.currency}
    asked: dict[str, Any] = {
        "orderId": world.order(new=0.35), "orderAmount": money, "codes": [code.text for code in codes],
        "lifetimeSeconds": world.rolls.choice([900, 1800, 3600]), "idempotencyKey": world.key(),
    }  # fmt: skip
    return {**asked, **presenter(owner)}, {"codes": about_codes(codes)}


def _ask_to_pay(world: "World") -> Asked:
    """Ask for points, and now and then a code or a reward."""
    member = world.member()
    own = [code for code in world.codes.values() if code.owner == member]
    codes = world.rolls.sample(own, k=1) if own and world.rolls.random() < 0.3 else []
    money = {"amountMinor": world.rolls.choice([1000, 500, 15]), "currency": world.currency}
    asked: dict[str, Any] = {
        "orderId": world.order(new=0.35), "orderAmount": money, "codes": [code.text for code in codes],
        "points": world.rolls.choice([5, 10, 10, 20, 30]), "memberId": member, "lifetimeSeconds": 900,
        "idempotencyKey": world.key(),
    }  # fmt: skip
    if world.facts["rewards"] and world.rolls.random() < 0.4:
        asked["rewardIds"] = world.some(list(world.facts["rewards"]), most=2)
        asked["points"] = world.rolls.choice([0, 5, 10])
    return asked, {"codes": about_codes(codes)}


def _held(call: Call) -> Sequence[Story]:
    """All of it is held for the order, in place of what it held; or its key was used, and nothing changes."""
    return [
        (*given, (named(call), Leads(partial(_holds, call, percents), call.facts["holding"])))
        for given, percents in priced(call)
    ]


def _holds(call: Call, percents: dict[str, float], order: Order) -> Iterable[Then]:
    key, order_id, told = call.input["idempotencyKey"], call.input["orderId"], call.answer.get("hold")
    taken_over = call.answer.get("takenOver")
    if key in order.requests:
        if order.hold is not None and not taken_over:
            for after in _as_told(order, order.hold, told):
                yield Then(after, ())
        return
    codes, amount = held_or(call, percents, order), call.input["orderAmount"]["amountMinor"]
    taken = discounts(amount, [each.percent for each in codes])
    if not order.is_open or 0 in taken:
        return
    paid = paid_with(call.input.get("points", 0), amount - sum(taken), call.facts)
    place = len(order.holds) if order.live is None else order.live
    hold_id = UNSEEN if order.live is None else order.holds[place].id
    rewards, fresh, gone = _rewards(call, None if order.live is None else order.holds[place])
    hold = Hold(hold_id, who(call.input), amount, codes, paid=paid, rewards=rewards)
    coming = [each for each in codes if each.code not in order.held]
    for lacks, short, *took in itertools.product((False, True), repeat=len(coming) + len(fresh) + 2):
        if taken_over not in {None, lacks or short or any(took)} or (short and not call.facts["budgets"]):
            continue
        here = (order_id, place)
        takes: Story = () if order.live is None else put_back(here, order.holds[place].presenter, gone)
        for each, is_elsewhere in zip(coming, took, strict=False):
            code = _takes(call, each, here, is_elsewhere=is_elsewhere)
            takes = (*takes, (f"pool:{each.pool}", HONOURS), code)
        for reward, is_elsewhere in zip(fresh, took[len(coming) :], strict=True):
            takes = (*takes, *_has_reward(call, reward, here, is_elsewhere=is_elsewhere))
        for after in _as_told(order.with_hold(place, hold).of(hold.presenter), place, told):
            story = (*_places(call, order, place, hold, takes, lacks=lacks), *first_order(call, coming))
            story = (*story, *(_room(call, pool) for pool in call.facts["budgets"] if short))
            yield Then(after._replace(requests=(*order.requests, key)), story)


def _rewards(call: Call, own: Hold | None) -> tuple[tuple[Reserved, ...], list[Reserved], list[Reserved]]:
    """Return the rewards that are asked for, which of them an order's hold hasn't had, and which it is not to have."""
    gone = [] if own is None else list(own.rewards)
    kept = gone if own is not None and own.presenter == who(call.input) else []
    rewards, fresh = [], []
    for reward in call.input.get("rewardIds", ()):
        own_one = next((each for each in kept if each.reward == reward), None)
        if own_one is None:
            facts = call.facts["rewards"][reward]
            fresh.append(Reserved(reward, facts["cost"], facts["pool"]))
        else:
            gone.remove(own_one)
        rewards.append(own_one or fresh[-1])
    return tuple(rewards), fresh, gone


def _has_reward(call: Call, reward: Reserved, here: tuple[str, int], *, is_elsewhere: bool) -> Story:
    """A hold has a reward, of which there is one less; or another hold of the member ends, and it has that one's."""
    name, member = f"reward:{reward.reward}", who(call.input)

    def takes(shelf: Shelf) -> Iterable[Shelf]:
        if shelf.stock > 0:
            yield Shelf(shelf.stock - 1, (*shelf.holders, here))

    def takes_over(shelf: Shelf) -> Iterable[Then]:
        for other in shelf.holders:
            if other[0] != here[0]:
                ended = (f"order:{other[0]}", Leads(partial(_gives_way, member, other), ()))
                yield Then(shelf, (ended, (name, takes)))

    move: Move = Leads(takes_over, call.facts["holding"]) if is_elsewhere else takes
    if reward.pool is None:
        return ((name, move),)
    code = one_more(set_aside(here), call.facts["limits"][reward.pool])
    return (
        (name, move), (f"pool:{reward.pool}", OPEN), (f"stock:{reward.pool}", stocked(available=-1, allocated=1)),
        (holds_of(reward.pool, member), code),
    )  # fmt: skip


def _gives_way(member: str, other: tuple[str, int], order: Order) -> Iterable[Then]:
    """Another hold of a member ends."""
    name, place = other
    hold = order.holds[place]
    if hold.status == "HELD" and hold.presenter == member:
        yield Then(order.with_hold(place, hold._replace(status="EXPIRED")), ends(name, place, hold))


def _places(call: Call, order: Order, place: int, hold: Hold, takes: Story, *, lacks: bool) -> Story:
    """What a hold leaves is free, one whose time has passed is over, and wallets change.

    It has its codes by what it `takes`, and if points are lacking for it, other holds end.
    """
    order_id = call.input["orderId"]
    here, before = (order_id, place), order.holds[place] if order.live is not None else None
    story: Story = ()
    coming, touched = [each.code for each in hold.codes], list(hold.codes)
    payers = {hold.presenter} if hold.held else set()
    if before is not None:
        story = frees(order_id, place, before, but=coming)
        touched += before.codes
        payers |= {before.presenter} if before.held else set()
    elif order.holds and order.holds[-1].status == "EXPIRED":
        story = ends(order_id, place - 1, order.holds[-1])
    story = (*story, *takes)
    for payer in sorted(payers):
        is_owner = payer in owners(touched)
        if payer != hold.presenter:
            leaves = partial(_gives_up, here, coming, is_owner)
            story = (*story, (f"wallet:{payer}", leaves))
            continue
        wanted = partial(_has_points, here, payer, hold.held, coming, is_owner, lacks)
        story = (*story, (f"wallet:{payer}", Leads(wanted, call.facts["holding"])))
    if lacks and hold.presenter not in payers:
        return (*story, (f"order:{order_id}", where(lambda _: False)))
    return (*story, *((f"wallet:{owner}", unnamed(*coming)) for owner in owners(touched) if owner not in payers))


def _gives_up(here: tuple[str, int], codes: Sequence[str], is_owner: bool, wallet: Wallet) -> Iterable[Wallet]:
    """What another member's hold was before is free again: its points, and by a change of its own its codes."""
    after = wallet.given_up(here).unnamed(codes)
    yield after
    if is_owner:
        yield after.changed()


def _has_points(
    here: tuple[str, int], member: str, points: int, codes: Sequence[str], is_owner: bool, lacks: bool, wallet: Wallet
) -> Iterable[Then]:
    """A hold has its points, for which the member's earliest other holds end as far as that is needed."""
    name = f"wallet:{member}"
    if not lacks:
        after = wallet.holds(here, points)
        if after is None:
            return
        if after.version == wallet.version and is_owner:
            after = after.changed()
        yield Then(after.unnamed(codes), ())
        return
    late = {each.hold for each in wallet.endings}
    others = [each.hold for each in wallet.held if each.hold not in {here, *late}]
    if points - wallet.points_of(here) <= wallet.spendable or not others:
        return
    other, place = others[0]

    def give_way(order: Order) -> Iterable[Then]:
        hold = order.holds[place]
        if hold.status == "HELD":
            yield Then(order.with_hold(place, hold._replace(status="EXPIRED")), ends(other, place, hold))

    for again in (False, True):
        more = partial(_has_points, here, member, points, codes, is_owner, again)
        yield Then(wallet, ((f"order:{other}", Leads(give_way, ())), (name, Leads(more, ()))))


def _room(call: Call, pool: str) -> tuple[str, Move]:
    """Other holds of the same presenter end whose budget a hold needs, no more of them than it takes."""
    name, presented_by = f"budget:{pool}", who(call.input)

    def give_way(other: str, place: int, order: Order) -> Iterable[Then]:
        hold = order.holds[place]
        if hold.status == "HELD" and hold.presenter == presented_by:
            yield Then(order.with_hold(place, hold._replace(status="EXPIRED")), ends(other, place, hold))

    def end_others(budget: Budget) -> Iterable[Then]:
        if budget.left >= 0:
            yield Then(budget, ())
            return
        held = {(each.order, each.place) for each in budget.shares if each.order != call.input["orderId"]}
        for other, place in held:
            if place is not None:
                ending = Leads(partial(give_way, other, place), ())
                yield Then(budget, ((f"order:{other}", ending), (name, Leads(end_others, ()))))

    return name, Leads(end_others, call.facts["holding"])


def _takes(call: Call, each: Honoured, here: tuple[str, int], *, is_elsewhere: bool) -> tuple[str, Move]:
    name = f"code:{each.code}"
    if is_elsewhere:
        return name, Leads(partial(_takes_over, who(call.input), each, here), call.facts["holding"])
    return name, becomes(Code(each.owner), Code(each.owner, hold=here))


def _takes_over(member: str, each: Honoured, here: tuple[str, int], code: Code) -> Iterable[Then]:
    """A code that another order holds for the same presenter is this one's; what else it held is free."""
    if code.owner != each.owner or code.hold is None or code.hold[0] == here[0]:
        return
    ended = (f"order:{code.hold[0]}", Leads(partial(_gives_way, member, code.hold), ()))
    # It is free with all the others, and taken then.
    took = becomes(Code(each.owner), Code(each.owner, hold=here))
    yield Then(code, (ended, (f"code:{each.code}", took)))


def _as_told(order: Order, place: int, told: dict[str, Any] | None) -> Iterable[Order]:
    """Return the order if this was told of one of its holds."""
    if told is None:
        yield order
    elif (hold := order.holds[place].shown(told)) is not None:
        yield order.with_hold(place, hold)


def _learn_hold(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_hold(operation.input["orderId"], answer["hold"])


def _notes_of_hold(operation: Operation, answer: Answer) -> Iterable[str]:
    if answer.get("takenOver"):
        yield "holdCheckout: took over"
    if answer["__typename"] == "HoldCheckoutSuccess":
        hold = answer["hold"]
        is_it = hold["orderAmount"]["amountMinor"] == operation.input["orderAmount"]["amountMinor"]
        if not is_it or hold["status"] != "HELD":
            yield "holdCheckout: a delayed repeat changed nothing"


def _hold_rejected(call: Call) -> Sequence[Story]:
    return rejected(call, lambda percents, order: held_or(call, percents, order), Beside.HOLD)


def _too_few(call: Call) -> Sequence[Story]:
    """All that the member could spend, if all its other holds ended, is less than the fewest points."""
    member, balance, required = call.input["memberId"], call.answer["balance"], call.answer["required"]
    name = f"wallet:{member}"

    def refuse(order: Order) -> Iterable[Then]:
        if not order.is_open or not _not_asked_before(call, order):
            return
        here = (call.input["orderId"], order.live if order.live is not None else -1)

        def lacks(wallet: Wallet) -> bool:
            own, late = wallet.points_of(here), {each.hold for each in wallet.endings}
            balances = {wallet.spendable, wallet.spendable + own, wallet.free, wallet.free + own}
            for other in [each.hold for each in wallet.held if each.hold not in {here, *late}]:
                # What comes free may fill what take-backs lack, and be no use.
                wallet = wallet.given_up(other)
                balances |= {wallet.spendable, wallet.spendable + own}
            is_told = bool(call.input["codes"]) or balance in balances
            return bool(is_told and wallet.spendable + own < required)

        yield Then(order, ((name, if_ended(lacks)),))

    costs = sum(call.facts["rewards"][reward]["cost"] for reward in call.input.get("rewardIds", ()))
    if required > call.input["points"] + costs:
        return ()
    return (((named(call), Leads(refuse, (name,))),),)


def _reward_gone(call: Call) -> Sequence[Story]:
    """A reward can't be had, though others may end for it."""

    def refuses(order: Order) -> bool:
        return order.is_open and _not_asked_before(call, order)

    return [
        ((named(call), where(refuses)), *story) for reward in call.input["rewardIds"]
        for story in not_to_be_had(reward, who(call.input), call.facts)
    ]  # fmt: skip


def _not_asked_before(call: Call, order: Order) -> bool:
    return call.input["idempotencyKey"] not in order.requests


def _redeemed_or_off(call: Call) -> Sequence[Story]:
    """The order was called off, or redeemed without a hold."""

    def is_so(order: Order) -> bool:
        redeemed = order.amount is not None and not any(hold.status == "CAPTURED" for hold in order.holds)
        return _not_asked_before(call, order) and (order.cancelled is not None or redeemed)

    return (((named(call), where(is_so)),),)


def _captured_before(call: Call) -> Sequence[Story]:
    def shown(order: Order) -> Iterable[Order]:
        place, may = order.hold, _not_asked_before(call, order) and not call.answer["rejections"]
        if may and order.cancelled is None and place is not None and order.holds[place].status == "CAPTURED":
            yield from _as_told(order, place, call.answer["hold"])

    return (((named(call), shown),),)


def _ask_of_hold(world: "World", holds: Sequence[dict[str, str]] | None = None) -> Asked | None:
    """Ask for one of the last, of those that are given or of all."""
    holds = holds or world.holds
    if not holds:
        return None
    known = world.rolls.choice(holds[-3:])
    return {"holdId": known["id"]}, {"order": known["order"]}


def _ask_capture(world: "World") -> Asked | None:
    """Ask for any, or often for one that is late."""
    return _ask_of_hold(world, world.late if world.rolls.random() < 0.4 else None)


CAPTURE: Final = mutation(
    "captureHold",
    "CaptureHoldInput",
    f"""... on CaptureHoldSuccess {{ replayed hold {{ {HOLD} }} }} {NOT_OPEN}
    ... on InvalidInput {{ problems {{ path }} }}""",
)


def _of(call: Call) -> str:
    return f"order:{call.about['order']}"


def _about(call: Call, status: str) -> Sequence[Story]:
    """The hold is so, and stays so."""

    def shown(order: Order) -> Iterable[Order]:
        for place in order.named(call.input["holdId"]):
            if order.holds[place].status == status:
                yield from _as_told(order, place, call.answer.get("hold"))

    return (((_of(call), shown),),)


def _captured(call: Call) -> Sequence[Story]:
    if call.answer["replayed"]:
        return _about(call, "CAPTURED")
    return (((_of(call), Leads(partial(_captures, call), call.facts["holding"])),),)


def _captures(call: Call, order: Order) -> Iterable[Then]:
    """All of it is redeemed at the amounts that were told; late, too, if it is free, or held for this order again."""
    order_id = call.about["order"]
    for place in order.named(call.input["holdId"]) if order.is_open else ():
        hold = order.holds[place]
        if hold.status not in {"HELD", "EXPIRED"}:
            continue
        here = (order_id, place) if hold.status == "HELD" else None
        redeemed = tuple(step for each in hold.codes for step in _redeems(each, order_id, here))
        points = call.input.get("points", hold.points)
        if points > hold.points:
            continue
        paid = hold.paid if points == hold.points else Paid(points, int(points * Decimal(call.facts["point_value"])))
        costs = [(each.cost, f"{call.input['holdId']}/{number}") for number, each in enumerate(hold.rewards)]
        if here is None:
            # As any others are had.
            costs = [costs[number] for number in sorted(range(len(costs)), key=lambda at: hold.rewards[at].reward)]
        if hold.held:
            pays = partial(_pays, (order_id, place), points, f"pay/{order_id}/1", costs)
            redeemed = ((f"wallet:{hold.presenter}", pays), *redeemed)
        for (others, released), (rewards, exchanged) in itertools.product(
            _releases(order, order_id, place) if here is None else [((), order)], _had(call, hold, here)
        ):
            redeemed_too = (*exchanged, *redeemed)
            captured = released.with_hold(place, hold._replace(status="CAPTURED", paid=paid, rewards=rewards))
            followed = captured.captured(paid, hold.presenter)
            if followed is None:
                continue
            told = None if call.answer.get("was_replayed") else call.answer.get("hold")
            for after in _as_told(followed, place, told):
                codes = after.holds[place].codes
                taken = earns(order_id, order, after, call.facts)
                yield Then(after._replace(amount=hold.amount, codes=codes), (*others, *redeemed_too, *taken))


def _above_recorded(call: Call) -> Sequence[Story]:
    """More would be paid with points than stands of what was recorded."""

    def refuses(order: Order) -> bool:
        holds = [order.holds[place] for place in order.named(call.input["holdId"])] if order.is_open else []
        return any(order.captured(hold.paid, hold.presenter) is None for hold in holds)

    return (((_of(call), where(refuses)),),) if paths(call) == ["points"] else ()


def _had(call: Call, hold: Hold, here: tuple[str, int] | None) -> Iterable[tuple[tuple[Reserved, ...], Story]]:
    """Return the rewards of a hold as they may have been had, and what becomes of their stocks, pools and codes."""
    told = (call.answer.get("hold") or {}).get("rewards") or [None] * len(hold.rewards)
    if len(told) != len(hold.rewards):
        return
    found: list[list[tuple[Reserved, Story]]] = []
    for number, (each, shown) in enumerate(zip(hold.rewards, told, strict=True)):
        name, pool, member = f"{call.input['holdId']}/{number}", each.pool, hold.presenter
        stock: Story = ((f"reward:{each.reward}", had(1) if here is None else left(here, 0)),)
        redemption = UNSEEN if shown is None else shown["redemption"]["id"]
        if pool is None:
            found.append([(each._replace(redemption=redemption, name=name), stock)])
            continue
        if shown is not None and shown["redemption"]["code"] is None:
            # It had others: those that were told have no pool at this place.
            return
        codes = [*call.facts["codes"].get(pool, ()), UNSEEN] if shown is None else [shown["redemption"]["code"]["id"]]
        found.append([])
        for code in codes:
            known = None if code == UNSEEN else code
            if here is None:
                one = one_more(code, call.facts["limits"][pool])
                taken: Story = ((f"pool:{pool}", OPEN), (holds_of(pool, member), one), *allocated(known, pool, member))
            else:
                # It was counted as allocated when it was set aside.
                taken = ((holds_of(pool, member), unclaimed(here, code)), (f"wallet:{member}", changed()))
                taken = taken if known is None else (*taken, (f"code:{code}", becomes(Code(), Code(member))))
            found[-1].append((each._replace(redemption=redemption, code=code, name=name), (*stock, *taken)))
    for chosen in itertools.product(*found):
        yield tuple(each for each, _ in chosen), tuple(step for _, story in chosen for step in story)


def _pays(
    hold: tuple[str, int], points: int, name: str, costs: Sequence[tuple[int, str]], wallet: Wallet
) -> Iterable[Wallet]:
    if not points and not costs and not wallet.points_of(hold):
        yield wallet
    elif (after := wallet.paid(hold, points, name, costs)) is not None:
        yield after


def _redeems(each: Honoured, order: str, hold: tuple[str, int] | None) -> Story:
    """A code that a hold has, or that is free, goes on its order."""
    return (
        (f"code:{each.code}", becomes(Code(each.owner, hold=hold), Code(each.owner, order))),
        (f"stock:{each.pool}", stocked(allocated=-1, redeemed=1)),
        *wallet_changes(each.owner, unnamed(each.code)),
    )


def _releases(order: Order, order_id: str, place: int) -> Iterable[tuple[Story, Order]]:
    """A late capture releases what the order has held since. Of what has expired since, what isn't written down."""
    newest = len(order.holds) - 1
    hold = order.holds[newest]
    if newest == place or hold.status not in {"HELD", "EXPIRED"}:
        yield (), order
        return
    yield ends(order_id, newest, hold), order.with_hold(newest, hold._replace(status="RELEASED"))
    if hold.status == "EXPIRED":

        def is_written(wallet: Wallet) -> bool:
            return all(ending.hold != (order_id, newest) for ending in wallet.endings)

        yield tuple((f"wallet:{owner}", where(is_written)) for owner in wallets(hold)), order


def _learn_capture(world: "World", operation: Operation, answer: Answer) -> None:
    hold = answer["hold"]
    if not answer["replayed"]:
        world.learn_order(operation.about["order"], hold["redemptions"])
    for number, each in enumerate(hold["rewards"]):
        of_it, facts = each["redemption"], world.facts["rewards"][each["reward"]["id"]]
        if of_it is None:
            continue
        code, member = of_it["code"], of_it["member"]["id"]
        if code is not None and code["text"] is not None:
            world.learn_code(code, facts["pool"], member)
        world.learn_exchange({
            "id": of_it["id"], "key": f"{hold['id']}/{number}", "member": member, "reward": each["reward"]["id"],
            "cost": each["cost"], "pool": facts["pool"], "code": code and code["id"],
        })  # fmt: skip


def _notes_of_capture(_: Operation, answer: Answer) -> Iterable[str]:
    hold = answer.get("hold")
    if hold is None:
        return
    if answer["__typename"] == "HoldNotOpen":
        if answer["pointsMissing"]:
            yield "captureHold: points are missing"
        if answer["rewardsMissing"]:
            yield "captureHold: rewards are missing"
        why = {"RELEASED": "it was released", "EXPIRED": "what it held is gone"}
        yield f"captureHold: {why.get(hold['status'], 'it is as it is')}"
    elif not answer["replayed"] and hold["rewards"]:
        yield "captureHold: rewards were had"
    if (
        hold is not None
        and not answer.get("replayed", True)
        and datetime.fromisoformat(hold["heldUntil"]) < datetime.now(UTC)
    ):
        yield "captureHold: late"


def _not_captured(call: Call) -> Sequence[Story]:
    """It was released, or its time has passed and it can't be had any more: each reason is told."""
    hold, rejections, missing = (call.answer[name] for name in ("hold", "rejections", "pointsMissing"))
    gone = call.answer["rewardsMissing"]
    if hold["status"] != "EXPIRED":
        return () if rejections or missing or gone or hold["status"] != "RELEASED" else _about(call, "RELEASED")

    def refuse(order: Order) -> Iterable[Then]:
        for place in order.named(call.input["holdId"]):
            for after in _as_told(order, place, hold):
                if not rejections and not missing and not gone:
                    if order.amount is not None and order.cancelled is None:
                        yield Then(after, ())
                    elif order.is_open:
                        yield from (Then(after, spent) for spent in _beyond_budget(call, order, place))
                elif order.is_open:
                    member = order.holds[place].presenter
                    for why in itertools.product(*(not_to_be_had(reward, member, call.facts) for reward in gone)):
                        lacks = tuple(step for story in why for step in story)
                        yield Then(after, (*_missing(call, order.live), *_lacking(call, order, place), *lacks))

    return (((_of(call), Leads(refuse, call.facts["holding"])),),)


def _beyond_budget(call: Call, order: Order, place: int) -> Iterable[Story]:
    """A late capture needs what the hold gave back of a budget; what the order holds now it would have."""
    order_id = call.about["order"]
    for pool in call.facts["budgets"]:
        wanted = shares_of_hold(order_id, order, place, pool)

        def is_spent(budget: Budget, wanted: Sequence[Share] = wanted) -> bool:
            return budget.left_for(order_id, ()) < sum(each.amount for each in wanted)

        if wanted:
            yield ((f"budget:{pool}", where(is_spent)),)


def _lacking(call: Call, order: Order, place: int) -> Story:
    """Its points were free again, and so many of them can't be spent any more; what the order holds now would be."""
    hold, missing, live = order.holds[place], call.answer["pointsMissing"], order.live
    own = [] if live is None else [(call.about["order"], live)]

    def lacks(wallet: Wallet) -> bool:
        if wallet.points_of((call.about["order"], place)):
            return bool(missing == 0)
        spendable = wallet.spendable + sum(wallet.points_of(each) for each in own)
        return bool(max(call.input.get("points", hold.points) + costs - spendable, 0) == missing)

    # What can't be had costs nothing.
    costs = sum(each.cost for each in hold.rewards if each.reward not in call.answer["rewardsMissing"])
    return ((f"wallet:{hold.presenter}", if_ended(lacks)),) if hold.held else ()


def _missing(call: Call, live: int | None) -> Story:
    """What a late capture lacks; what the order holds now it would have."""
    story: list[tuple[str, Move]] = []
    own = (call.about["order"], live)
    for each in call.answer["hold"]["codes"]:
        code = each["code"]
        reasons = {
            rejection["reason"] for rejection in call.answer["rejections"] if rejection["masked"] == code["masked"]
        }
        ambiguous = [other for other in call.answer["hold"]["codes"] if other["code"]["masked"] == code["masked"]]
        if len(ambiguous) == 1:
            story.append((f"code:{code['id']}", where(partial(_is_gone, own, reasons))))
    return tuple(story)


def _is_gone(own: tuple[str, int | None], reasons: set[str], code: Code) -> bool:
    found = {
        "ALREADY_REDEEMED": code.order is not None, "REVOKED": code.revoked, "EXPIRED": code.expired,
        "HELD": code.hold is not None and code.hold != own,
    }  # fmt: skip
    return reasons == {reason for reason, is_so in found.items() if is_so}


RELEASE: Final = mutation(
    "releaseHold", "ReleaseHoldInput", f"... on ReleaseHoldSuccess {{ replayed hold {{ {HOLD} }} }} {NOT_OPEN}"
)


def _released(call: Call) -> Sequence[Story]:
    if call.answer["replayed"]:
        return _about(call, "RELEASED")
    order_id, told = call.about["order"], call.answer.get("hold")

    def release(order: Order) -> Iterable[Then]:
        for place in order.named(call.input["holdId"]):
            hold = order.holds[place]
            if hold.status in {"HELD", "EXPIRED"}:
                after = order.with_hold(place, hold._replace(status="RELEASED"))
                for shown in _as_told(after, place, None if call.answer.get("was_replayed") else told):
                    yield Then(shown, ends(order_id, place, hold))

    return (((_of(call), Leads(release, call.facts["holding"])),),)


def _stands(call: Call) -> Sequence[Story]:
    return _about(call, "CAPTURED")


EXTEND: Final = mutation(
    "extendHold", "ExtendHoldInput", f"... on ExtendHoldSuccess {{ hold {{ {HOLD} }} }} {NOT_OPEN}"
)


def _ask_extend(world: "World") -> Asked | None:
    asked = _ask_of_hold(world)
    if asked is None:
        return None
    return {**asked[0], "lifetimeSeconds": world.rolls.choice([60, 1800, 7200])}, asked[1]


def _extended(call: Call) -> Sequence[Story]:
    """It is HELD for longer, of which the wallets of its codes are told; or it was long enough."""
    told = call.answer.get("hold")

    def extend(order: Order) -> Iterable[Then]:
        for place in order.named(call.input["holdId"]):
            before = order.holds[place]
            if before.status != "HELD":
                continue
            for after in _as_told(order.with_hold(place, before._replace(until=None)), place, told):
                until = after.holds[place].until
                longer: Story = tuple((f"wallet:{owner}", changed()) for owner in wallets(before))
                if None in {until, before.until} or _later(until, before.until):
                    yield Then(after, longer)
                if None in {until, before.until} or until == before.until:
                    yield Then(after, ())

    return (((_of(call), Leads(extend, call.facts["holding"])),),)


def _later(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and datetime.fromisoformat(one) > datetime.fromisoformat(other)


def _not_extended(call: Call) -> Sequence[Story]:
    status = call.answer["hold"]["status"]
    return () if status == "HELD" else _about(call, status)


READ_HOLD: Final = f"query ($id: ID!) {{ answer: hold(id: $id) {{ {HOLD} }} }}"
READ_HELD: Final = f"query ($id: ID!) {{ answer: hold(id: $id) {{ {CODES} }} }}"


def _ask_read(world: "World") -> Asked | None:
    asked = _ask_of_hold(world)
    return None if asked is None else ({"id": asked[0]["holdId"]}, asked[1])


def _saw_hold(call: Call) -> Sequence[Story]:
    def shown(order: Order) -> Iterable[Order]:
        for place in order.named(call.input["id"]):
            yield from _as_told(order, place, call.answer)

    return (((_of(call), shown),),)


def _saw_held(call: Call) -> Sequence[Story]:
    def shown(order: Order) -> Iterable[Order]:
        for place in order.named(call.input["id"]):
            hold = order.holds[place].with_codes(call.answer)
            if hold is not None:
                yield order.with_hold(place, hold)

    return (((_of(call), shown),),)


def _ask_lapse(world: "World") -> Asked | None:
    return None if world.lapse is None else _ask_of_hold(world)


def _lapsed(call: Call) -> Sequence[Story]:
    """Its time has passed: it holds nothing any more, and somebody writes that down."""
    order_id = call.about["order"]

    def lapse(order: Order) -> Iterable[Then]:
        for place in order.named(call.input["holdId"]):
            hold = order.holds[place]
            if hold.status == "HELD" and not hold.rewards:
                over = tuple(
                    (f"wallet:{owner}", _overdue((order_id, place), hold.codes_of(owner))) for owner in wallets(hold)
                )
                expired = order.with_hold(place, hold._replace(status="EXPIRED"))
                late = tuple(
                    (f"budget:{pool}", _late(shares_of_hold(order_id, order, place, pool)))
                    for pool in call.facts["budgets"]
                )
                yield Then(expired, (*frees(order_id, place, hold), *over, *late))

    return (((_of(call), Leads(lapse, call.facts["holding"])),),)


def _overdue(hold: tuple[str, int], codes: tuple[str, ...]) -> Move:
    return lambda wallet: (wallet.overdue(hold, codes),)


def _late(shares: Sequence[Share]) -> Move:
    """What a hold has of a budget is free once its end is written down."""
    return lambda budget: (budget._replace(late=(*budget.late, *shares)),)


#: The time of a hold passes: whoever has the database's clock in hand lets it. Not of one with rewards, which are back
#: when somebody writes that down, and who does isn't told.
LAPSE: Final = Verb("lapse", "", _ask_lapse, {PASSED: _lapsed}, weight=0.7)
VERBS: Final = (
    LAPSE,
    Verb("holdCheckout", PLACE, _ask_hold, {
        "HoldCheckoutSuccess": _held, "CodesRejected": _hold_rejected, "OrderNotOpen": _redeemed_or_off,
        "HoldNotOpen": _captured_before, "InsufficientPoints": _too_few, "RewardOutOfStock": _reward_gone,
    }, _learn_hold, _notes_of_hold, look_of_order, repeats=True, weight=3),
    Verb("captureHold", CAPTURE, _ask_capture, {
        "CaptureHoldSuccess": _captured, "HoldNotOpen": _not_captured, "InvalidInput": _above_recorded,
    }, _learn_capture, _notes_of_capture, repeats=True, weight=1.5),
    Verb("releaseHold", RELEASE, _ask_of_hold, {"ReleaseHoldSuccess": _released, "HoldNotOpen": _stands},
         repeats=True, weight=0.7),
    Verb("extendHold", EXTEND, _ask_extend, {"ExtendHoldSuccess": _extended, "HoldNotOpen": _not_extended}, weight=0.7),
    Verb("readHold", READ_HOLD, _ask_read, {READ: _saw_hold}, reads=True),
    Verb("readHeldCodes", READ_HELD, _ask_read, {READ: _saw_held}, reads=True),
)  # fmt: skip
