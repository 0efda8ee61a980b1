"""Redemptions: codes are spent on an order together, given back and revoked."""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.aims import Budget, Standing, has_another
from app.stress.claims import looked
from app.stress.operations import UNSEEN, Answer, Operation
from app.stress.order import Hold, Honoured, Order, Reserved, discounts
from app.stress.purchases import pays
from app.stress.things import (
    BEARER,
    PERCENTS,
    Code,
    Leads,
    Move,
    Shelf,
    Story,
    Then,
    becomes,
    changed,
    ended,
    given_up,
    is_,
    stocked,
    unnamed,
    where,
)
from app.stress.verb import Asked, Call, Facts, Verb, ask_member, mutation, named, reading, who
from app.stress.wallet import Wallet

if TYPE_CHECKING:
    from app.stress.worlds import Seen, World

HONOURS: Final = where(lambda pool: pool.honours or pool.is_closing)
HOLDS: Final = where(lambda pool: not pool.honours)

#: What orders are worth; of the last no code takes anything off.
AMOUNTS: Final = (1000, 1000, 1000, 2000, 2000, 500, 500, 4)
REDEMPTIONS: Final = "redemptions { id discount { amountMinor } code { id } }"
REJECTED: Final = "... on CodesRejected { rejections { masked reason remedy { heldUntil } } }"
REDEEM: Final = mutation(
    "redeemCodes",
    "RedeemCodesInput",
    f"""... on RedeemCodesSuccess {{ replayed totalDiscount {{ amountMinor }} {REDEMPTIONS} }}
    {REJECTED} ... on InvalidInput {{ problems {{ path }} }}""",
)


def _ask_redeem(world: "World") -> Asked | None:
    codes = world.presented()
    if not codes:
        return None
    owner = world.presenter(codes[0])
    typed = [code.text for code in codes]
    money = {"amountMinor": world.rolls.choice(AMOUNTS), "currency": world.currency}
    return {"codes": typed, "orderId": world.order(), "orderAmount": money, **named(owner)}, {
        "codes": about_codes(codes)
    }


def about_codes(codes: Iterable["Seen"]) -> list[dict[str, str]]:
    """Return what a client knows of codes that it presents."""
    return [{"id": code.id, "pool": code.pool, "owner": code.owner, "masked": code.masked} for code in codes]


def priced(call: Call) -> list[tuple[Story, dict[str, float]]]:
    """Return what the pools of presented codes may give at the moment, with the percentage of each."""
    pools = sorted({code["pool"] for code in call.about["codes"]})
    found = []
    for percents in itertools.product(PERCENTS, repeat=len(pools)):
        given = dict(zip(pools, percents, strict=True))
        found.append((tuple((f"percent:{pool}", is_(percent)) for pool, percent in given.items()), given))
    return found


def _redeemed(call: Call) -> Sequence[Story]:
    answer, member, about = call.answer, who(call.input), call.about["codes"]
    order_id, amount = call.input["orderId"], call.input["orderAmount"]["amountMinor"]
    name = f"order:{order_id}"
    if answer["replayed"]:

        def again(order: Order) -> Iterable[Order]:
            is_same = order.amount == amount and {each.code for each in order.codes} == {each["id"] for each in about}
            if is_same and order.cancelled is None:
                yield from _as_told(order, answer)

        bound = [code for code in about if code["pool"] not in call.facts["transferable"]]
        return (((name, again), *(_owned(code, member) for code in bound)),)

    def redeem(percents: dict[str, float], order: Order) -> Iterable[Then]:
        after = _redeems(order, amount, _codes(call, percents), call.facts)
        is_free = order.cancelled is None and not order.codes and order.live is None
        if after is None or not is_free or 0 in after.discounts:
            return
        for told in _as_told(after.of(member), answer):
            yield Then(told, (*follow_order(order_id, order, told, call.facts), *first_order(call, told.codes)))

    spent = tuple(step for each in _codes(call, None) for step in spend(each, order_id))
    touches = call.facts["touched"].get(order_id, ())
    return [(*given, (name, Leads(partial(redeem, percents), touches)), *spent) for given, percents in priced(call)]


def first_order(call: Call, coming: Iterable[Honoured]) -> Story:
    """Codes for a first order come to one: no other has such codes by now, and it had found no other at all."""
    if not any(each.is_first for each in coming):
        return ()

    def is_first(person: Iterable[Standing]) -> bool:
        return not any(each.takes_turns and each.order != call.input["orderId"] for each in person)

    return ((f"person:{who(call.input)}", where(is_first)), *looked(call))


def look_of_order(world: "World", operation: Operation, answer: Answer) -> dict[str, Any] | None:
    """Codes for a first order look for another one."""
    codes = operation.about["codes"]
    if answer.get("replayed") or not any(code["pool"] in world.facts["first"] for code in codes):
        return None
    presented = [code["id"] for code in codes]
    return {"who": who(operation.input), "order": operation.input["orderId"], "codes": presented}


def _redeems(order: Order, amount: int, codes: tuple[Honoured, ...], facts: Facts) -> Order | None:
    """Return an order with codes that it hadn't; None where less would be left of its purchase than was refunded.

    What was recorded before the first of them was told after discounts. Later it follows.
    """
    return order._replace(amount=amount, codes=codes) if order.amount is None else order.changed(amount, codes, facts)


def _below_refunded(call: Call) -> Sequence[Story]:
    """Less would be left of what was recorded than was refunded."""
    if [".".join(each["path"]) for each in call.answer["problems"]] != ["orderAmount.amountMinor"]:
        return ()
    amount = call.input["orderAmount"]["amountMinor"]

    def refuses(percents: dict[str, float], order: Order) -> bool:
        is_free = order.cancelled is None and not order.codes
        return is_free and _redeems(order, amount, _codes(call, percents), call.facts) is None

    name = f"order:{call.input['orderId']}"
    return [(*given, (name, where(partial(refuses, percents)))) for given, percents in priced(call)]


def _codes(call: Call, percents: dict[str, float] | None) -> tuple[Honoured, ...]:
    """Return the codes that are asked for, as they would be on an order that has none."""
    return tuple(
        Honoured(
            UNSEEN,
            code["id"],
            code["pool"],
            owner_of(code, call),
            percents[code["pool"]] if percents else 0,
            is_first=code["pool"] in call.facts["first"],
        )
        for code in call.about["codes"]
    )


def owner_of(code: dict[str, Any], call: Call) -> str:
    """Return whose a code is that is honoured: its presenter's, unless its pool honours whoever holds it."""
    owner: str = code["owner"] if code["pool"] in call.facts["transferable"] else who(call.input)
    return owner


def wallet_changes(owner: str, move: Move | None = None) -> Story:
    """What is done to a code changes its owner's wallet; a bearer code is in none."""
    return () if owner == BEARER else ((f"wallet:{owner}", move or changed()),)


def _as_told(order: Order, answer: Answer) -> Iterable[Order]:
    if "redemptions" not in answer:
        yield order
    elif sum(order.discounts) == answer["totalDiscount"]["amountMinor"]:
        shown = order.shown(answer["redemptions"])
        if shown is not None:
            yield shown


def spend(each: Honoured, order: str) -> Story:
    """A code goes on an order."""
    return (
        (f"pool:{each.pool}", HONOURS),
        (f"code:{each.code}", becomes(Code(each.owner), Code(each.owner, order))),
        (f"stock:{each.pool}", stocked(allocated=-1, redeemed=1)),
        *wallet_changes(each.owner, unnamed(each.code)),
    )


def back(each: Honoured, order: str) -> Story:
    """A code comes back from an order, live."""
    return (
        (f"code:{each.code}", becomes(Code(each.owner, order), Code(each.owner))),
        (f"stock:{each.pool}", stocked(allocated=1, redeemed=-1)),
        *wallet_changes(each.owner),
    )


def frees(order: str, place: int, hold: Hold, but: Collection[str] = ()) -> Story:
    """The codes of a live hold are free, but for some of them."""
    here = (order, place)
    return tuple(
        (f"code:{each.code}", becomes(Code(each.owner, hold=here), Code(each.owner)))
        for each in hold.codes if each.code not in but
    )  # fmt: skip


def owners(codes: Iterable[Honoured]) -> list[str]:
    """Return whose wallets codes are in."""
    return sorted({each.owner for each in codes} - {BEARER})


def ends(order: str, place: int, hold: Hold) -> Story:
    """A hold ends, of which its wallets are told; of one that is over, if they weren't yet."""
    here = (order, place)
    if hold.status == "HELD":
        back = put_back(here, hold.presenter, hold.rewards)
        return (*frees(order, place, hold), *back, *((f"wallet:{owner}", given_up(here)) for owner in wallets(hold)))
    return tuple((f"wallet:{owner}", ended(here)) for owner in wallets(hold))


def wallets(hold: Hold) -> list[str]:
    """Return whose wallets have what a hold has."""
    return sorted({*owners(hold.codes), *([hold.presenter] if hold.held else [])})


def put_back(here: tuple[str, int], member: str, rewards: Iterable[Reserved]) -> Story:
    """What a hold of a member has of rewards is in stock again."""

    story: Story = ()
    for each in rewards:
        story = (*story, (f"reward:{each.reward}", left(here, 1)))
        if each.pool is not None:
            claims = (f"claims:{each.pool}/{member}", unclaimed(here))
            story = (*story, (f"stock:{each.pool}", stocked(available=1, allocated=-1)), claims)
    return story


def left(here: tuple[str, int], amount: int) -> Move:
    """A hold has a reward no more, of which so many are in stock again."""

    def move(shelf: Shelf) -> Iterable[Shelf]:
        if here in shelf.holders:
            yield Shelf(shelf.stock + amount, tuple(holder for holder in shelf.holders if holder != here))

    return move


def set_aside(here: tuple[str, int]) -> str:
    """Return what stands for a code that a hold has of a pool, among those that its member claimed."""
    return "/".join(map(str, here))


def is_set_aside(code: str) -> bool:
    """Whether it is such a one; the id of a code has no slash."""
    return "/" in code


def unclaimed(here: tuple[str, int], *instead: str) -> Move:
    """A hold has no code of a pool any more, or its member has one instead."""

    def move(codes: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
        if set_aside(here) in codes:
            yield (*(code for code in codes if code != set_aside(here)), *instead)

    return move


def _learn_redemptions(world: "World", operation: Operation, answer: Answer) -> None:
    world.learn_order(operation.input["orderId"], answer["redemptions"])


def _owned(code: dict[str, Any], member: str) -> tuple[str, Move]:
    return f"code:{code['id']}", where(lambda found: found.owner == member)


#: What a reason says of the code, by who presents it.
_AGAINST: Final[dict[str, Callable[[str], Move]]] = {
    "NOT_ALLOCATED": lambda _: where(lambda code: code.owner is None),
    "NOT_OWNER": lambda member: where(lambda code: code.owner != member),
    "ALREADY_REDEEMED": lambda _: where(lambda code: code.order is not None),
    "EXPIRED": lambda _: where(lambda code: code.expired),
    "REVOKED": lambda _: where(lambda code: code.revoked),
}


class Beside(Enum):
    """What codes are presented for: to be redeemed, checked, put in the place of an order's, or held for it."""

    ORDER = "ORDER"
    CHECK = "CHECK"
    AMENDMENT = "AMENDMENT"
    HOLD = "HOLD"


#: Those to whom what the order itself holds is an obstacle.
_BLOCKED: Final = frozenset({Beside.ORDER, Beside.AMENDMENT})
#: What isn't told of a code that is held.
_AFTER_HELD: Final = frozenset({
    "EXPIRED", "REVOKED", "POOL_NOT_ACTIVE", "NOT_FIRST_ORDER", "NOT_STACKABLE", "BUDGET_SPENT", "NO_DISCOUNT"
})  # fmt: skip
#: What is told only where nothing else is against any code.
_LAST: Final = frozenset({"BUDGET_SPENT", "NO_DISCOUNT", "TOO_MANY_ATTEMPTS"})


@dataclass
class _Against:
    """What rejections say of codes, apart from what depends on the order."""

    story: list[tuple[str, Move]] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    #: Those that are refused because they are held, and because their pools are paused.
    held: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    #: The masked texts of those that would take nothing off.
    worthless: list[str] = field(default_factory=list)
    #: Those for which a budget doesn't suffice, and those that aren't for a second order.
    dear: set[str] = field(default_factory=set)
    later: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)


def _against(call: Call) -> _Against | None:
    """Return what the rejections of an answer say, None where they can't be."""
    found, member = _Against(), who(call.input)
    for rejection in call.answer["rejections"]:
        codes = [each for each in call.about["codes"] if each["masked"] == rejection["masked"]]
        reason = rejection["reason"]
        found.reasons.add(reason)
        if (reason == "HELD") != bool(rejection["remedy"] and rejection["remedy"]["heldUntil"]):
            return None
        if reason == "NO_DISCOUNT":
            found.worthless.append(rejection["masked"])
        if len(codes) > 1 or reason in {"NO_DISCOUNT", "TOO_MANY_ATTEMPTS"}:
            # Two codes that end alike: it can be either.
            continue
        code = codes[0]
        found.codes.add(code["id"])
        if reason == "NOT_OWNER" and code["pool"] in call.facts["transferable"]:
            return None
        if reason in _AGAINST:
            found.story.append((f"code:{code['id']}", _AGAINST[reason](member)))
        elif reason == "POOL_NOT_ACTIVE":
            found.story.append((f"pool:{code['pool']}", HOLDS))
            found.paused.append(code["id"])
        elif reason == "HELD":
            found.held.append(code["id"])
        elif reason == "BUDGET_SPENT":
            found.dear.add(code["id"])
        elif reason == "NOT_FIRST_ORDER":
            found.later.append(code["id"])
            presented = [each["id"] for each in call.about["codes"]]
            another = partial(has_another, order=call.input["orderId"], codes=presented)
            found.story.append((f"person:{member}", where(another)))
        elif reason != "NOT_STACKABLE":
            return None
    return None if found.reasons & _LAST and found.reasons - _LAST else found


def rejected(
    call: Call, codes: Callable[[dict[str, float], Order], tuple[Honoured, ...]], beside: Beside = Beside.ORDER
) -> Sequence[Story]:
    """Each code that stands in the way does so at one instant. Too many attempts may be told at any time.

    `codes` are those that the order would have; of one that is amended, none stands in the way that it has already.
    What is held anew is HELD only by a hold of somebody else.
    """
    name, against = f"order:{call.input['orderId']}", _against(call)
    if against is None:
        return ()

    def is_possible(order: Order) -> bool:
        on_order = {each.code for each in order.codes}
        if order.cancelled is not None:
            return False
        match beside:
            case Beside.AMENDMENT:
                is_there = order.amount is not None or order.live is not None
                # What stays may take more now than its budget has.
                stays = on_order & (against.codes - against.dear)
                return is_there and not stays and "NOT_STACKABLE" not in against.reasons
            case Beside.HOLD:
                is_asked = call.input["idempotencyKey"] not in order.requests
                return is_asked and order.is_open and "NOT_STACKABLE" not in against.reasons
            case _:
                return "NOT_STACKABLE" not in against.reasons or bool(order.codes)

    def takes_nothing(percents: dict[str, float], order: Order) -> bool:
        amount = call.input["orderAmount"]["amountMinor"]
        taken = discounts(amount, [each.percent for each in codes(percents, order)])
        masks = [code["masked"] for code, discount in zip(call.about["codes"], taken, strict=True) if discount == 0]
        return all(masked in masks for masked in against.worthless)

    def refuse(percents: dict[str, float], order: Order) -> Iterable[Then]:
        is_blocked = order.live is not None and beside in _BLOCKED
        if not is_possible(order) or (against.worthless and not takes_nothing(percents, order)):
            return
        if is_blocked and against.reasons & _AFTER_HELD:
            return
        own = {} if beside in _BLOCKED else order.held
        if own.keys() & {*against.held, *against.paused, *against.later}:
            return
        elsewhere: Move = where(lambda code: code.hold is not None)
        if beside is Beside.HOLD:
            elsewhere = Leads(partial(_is_anothers, who(call.input)), call.facts["holding"])
        held = () if is_blocked else tuple((f"code:{code}", elsewhere) for code in against.held)
        spent = _beyond(call, against.dear, codes(percents, order), beside) if against.dear else ()
        yield Then(order, (*held, *spent))

    told, touched = tuple(against.story), call.facts["holding"]
    is_priced = against.worthless or against.dear
    moments: list[tuple[Story, dict[str, float]]] = priced(call) if is_priced else [((), {})]
    return [(*told, *given, (name, Leads(partial(refuse, percents), touched))) for given, percents in moments]


def _beyond(call: Call, dear: Collection[str], codes: Sequence[Honoured], beside: Beside) -> Story:
    """Codes don't fit into what is left of their budgets, with what they and an amended order have of it."""
    taken = discounts(call.input["orderAmount"]["amountMinor"], [each.percent for each in codes])
    amended = call.input["orderId"] if beside is Beside.AMENDMENT else ""

    def is_spent(pool: str, budget: Budget) -> bool:
        left = budget.left_for(amended, [each.code for each in codes])
        for each, amount in zip(codes, taken, strict=True):
            if each.pool == pool and amount <= left:
                left -= amount
                if each.code in dear:
                    return False
        return True

    pools = sorted({each.pool for each in codes if each.code in dear})
    return tuple((f"budget:{pool}", where(partial(is_spent, pool))) for pool in pools)


def _is_anothers(member: str, code: Code) -> Iterable[Then]:
    """A hold of somebody else has the code."""
    if code.hold is not None:
        order, place = code.hold
        yield Then(code, ((f"order:{order}", where(lambda found: found.holds[place].presenter != member)),))


def _rejected(call: Call) -> Sequence[Story]:
    return rejected(call, lambda percents, _: _codes(call, percents))


def _not_open(call: Call) -> Sequence[Story]:
    return (((f"order:{call.input['orderId']}", where(lambda order: order.cancelled is not None)),),)


CHECK: Final = REDEEM.replace("mutation", "query", 1).replace("redeemCodes", "checkCodes")


def held_or(call: Call, percents: dict[str, float], order: Order) -> tuple[Honoured, ...]:
    """Return the codes that are asked for: those that the order holds as they are held, the others as of now."""
    found = _codes(call, percents)
    return tuple(order.held.get(each.code, each) for each in found)


def _checked(call: Call) -> Sequence[Story]:
    """What redeeming would do can be done, but isn't; what the order itself holds is no obstacle."""
    if call.answer["replayed"]:
        return [tuple((name, _could(move)) for name, move in story) for story in _redeemed(call)]
    member, amount = who(call.input), call.input["orderAmount"]["amountMinor"]

    def check(percents: dict[str, float], order: Order) -> Iterable[Then]:
        codes = held_or(call, percents, order)
        after = _redeems(order, amount, codes, call.facts)
        if after is None or order.cancelled is not None or order.codes or 0 in after.discounts:
            return
        if any(True for _ in _as_told(after, call.answer)):
            free: Story = tuple(
                step for each in codes if each.code not in order.held
                for step in ((f"pool:{each.pool}", HONOURS), (f"code:{each.code}", is_(Code(each.owner))))
            )  # fmt: skip
            yield Then(order, (*free, *_fits(call, order, after)))

    owned = [_owned(code, member) for code in call.about["codes"] if code["pool"] not in call.facts["transferable"]]
    touched = [name for code in call.about["codes"] for name in (f"pool:{code['pool']}", f"code:{code['id']}")]
    name = f"order:{call.input['orderId']}"
    return [(*owned, *given, (name, Leads(partial(check, percents), touched))) for given, percents in priced(call)]


def _fits(call: Call, order: Order, after: Order) -> Story:
    """What codes would take off is left of their budgets, and those for a first order would be on one."""
    order_id, codes = call.input["orderId"], [each.code for each in after.codes]
    steps: list[tuple[str, Move]] = []
    for pool in call.facts["budgets"]:
        amount = sum(off for each, off in zip(after.codes, after.discounts, strict=True) if each.pool == pool)
        if amount:

            def is_left(amount: int, budget: Budget) -> bool:
                return budget.left_for(order_id, codes) >= amount

            steps.append((f"budget:{pool}", where(partial(is_left, amount))))
    if any(each.is_first and each.code not in order.held for each in after.codes):
        another = partial(has_another, order=order_id, codes=codes)
        steps.append((f"person:{who(call.input)}", where(lambda person: not another(person))))
    return tuple(steps)


def _check_rejected(call: Call) -> Sequence[Story]:
    return rejected(call, lambda percents, order: held_or(call, percents, order), Beside.CHECK)


def _could(move: Move) -> Move:
    return where(lambda state: bool(list(move(state))))


#: What no world sees.
NEW_END: Final = "2999-01-01T00:00:00Z"
REVERSE: Final = mutation("reverseRedemption", "ReverseRedemptionInput", "")


def _ask_reverse(world: "World") -> Asked | None:
    """Ask for one of the last, often for one that has others beside it on its order."""
    if not world.redemptions:
        return None
    known = list(world.redemptions.values())
    beside = [each for each in known[-8:] if len(world.orders[each["order"]]) > 1]
    redemption = world.rolls.choice(beside if beside and world.rolls.random() < 0.5 else known[-4:])
    reinstate = world.rolls.random() < 0.7
    asked = {"redemptionId": redemption["id"], "reason": "tried", "reinstate": reinstate}
    return asked | ({"expiresAt": NEW_END} if reinstate and world.rolls.random() < 0.3 else {}), redemption


def _reversed(call: Call) -> Sequence[Story]:
    """What is left of the stack is priced anew, and what was recorded follows."""
    about, order_id = call.about, call.about["order"]

    def reverse(order: Order) -> Iterable[Then]:
        gone = [each for each in order.codes if _is(each, about)]
        # One whose pool has a budget takes no more than before.
        left = [
            each._replace(most=off) if each.pool in call.facts["budgets"] else each
            for each, off in zip(order.codes, order.discounts, strict=True) if each not in gone
        ]  # fmt: skip
        # It needs no fewer points than before.
        after = order.changed(order.amount, tuple(left), call.facts, settles=False)
        if gone and after is not None:
            returned = back(gone[0], order_id) if call.input["reinstate"] else ()
            yield Then(after, (*follow_order(order_id, order, after, call.facts), *returned))

    return (((f"order:{order_id}", Leads(reverse, call.facts["touched"].get(order_id, ()))),),)


def _is(each: Honoured, redemption: dict[str, Any]) -> bool:
    return each.redemption == redemption["id"] or (each.redemption == UNSEEN and each.code == redemption["code"])


def follow_order(order: str, before: Order, after: Order, facts: Facts, *, shortfall: int | None = None) -> Story:
    """Points that pay for an order come back or are spent, and what was recorded for it follows."""
    return (*pays(order, before, after), *earns(order, before, after, facts, shortfall=shortfall))


def earns(order: str, before: Order, after: Order, facts: Facts, *, shortfall: int | None = None) -> Story:
    """What was recorded for an order has earned what it is worth now; what that lacks, as far as it was told."""
    points = after.earns(facts)
    if before.bought is None or after.bought is None or before.earns(facts) == points:
        return () if not shortfall else ((f"order:{order}", where(lambda _: False)),)

    def move(wallet: Wallet) -> Iterable[Wallet]:
        found, told = wallet.followed(order, points, recovers=facts["recovers"])
        if shortfall in {None, told.shortfall}:
            yield found

    return ((f"wallet:{after.bought.member}", move),)


def _reversed_before(call: Call) -> Sequence[Story]:
    redemption = call.about["id"]
    gone = where(lambda order: all(each.redemption != redemption for each in order.codes))
    return (((f"order:{call.about['order']}", gone),),)


REVOKE: Final = mutation(
    "revokeCode",
    "RevokeCodeInput",
    "... on RevokeCodeSuccess { code { id } replacement { id } } ... on CodeNotRevocable { state heldUntil }",
)


def _ask_revoke(world: "World") -> Asked | None:
    if not world.codes:
        return None
    code = world.rolls.choice(list(world.codes.values()))
    about = {"id": code.id, "pool": code.pool, "owner": code.owner}
    # A pool that falls back to another never gets codes: that it is empty stays so.
    recycle = code.pool not in world.facts["fallbacks"] and world.rolls.random() < 0.5
    return {"codeId": code.id, "reason": "tried", "recycle": recycle}, about


def _learn_revoked(world: "World", operation: Operation, _: Answer) -> None:
    world.dead.add(operation.input["codeId"])


def _revoked(call: Call) -> Sequence[Story]:
    about = call.about
    return [
        (
            (f"code:{about['id']}", becomes(Code(about["owner"]), Code(about["owner"], revoked=True))),
            (f"stock:{about['pool']}", stocked(available=fresh, allocated=-1, revoked=1)),
            *wallet_changes(about["owner"]),
        )
        for fresh in _replaced(call)
    ]


def _replaced(call: Call) -> list[int]:
    """Return how many codes took the place of a revoked one; in a pool that was archived none does."""
    if not call.input["recycle"]:
        return [0]
    if "code" not in call.answer:
        return [0, 1]
    return [0 if call.answer["replacement"] is None else 1]


def _not_revocable(call: Call) -> Sequence[Story]:
    """Only a code that has ended can't be, or one that an order holds."""
    told, is_held = call.answer["state"], call.answer["heldUntil"] is not None
    over = where(lambda code: code.hold is not None if is_held else told == ended_as(code))
    return (((f"code:{call.about['id']}", over),),)


def ended_as(code: Code) -> str | None:
    return "REVOKED" if code.revoked else "EXPIRED" if code.expired else code.order and "REDEEMED"


CODES: Final = "member(id: $id) { wallet { codes(first: 100) { edges { node { id state heldUntil pool { id } } } } } }"


def _saw_codes(call: Call) -> Sequence[Story]:
    member = call.input["id"]
    shown = [edge["node"] for edge in call.answer["wallet"]["codes"]["edges"]]
    states = {code["id"]: (code["state"], code["heldUntil"] is not None) for code in shown}
    seen = [code for codes in call.facts["codes"].values() for code in codes]
    return (tuple((f"code:{code}", _is_shown(member, states.get(code))) for code in seen),)


def _is_shown(member: str, shown: tuple[str, bool] | None) -> Move:
    """A code is in the member's wallet in this state, held or not, or not in it at all."""

    def holds(code: Code) -> bool:
        if code.owner != member:
            return shown is None
        return shown == (ended_as(code) or "ALLOCATED", code.hold is not None)

    return where(holds)


VERBS: Final = (
    Verb("redeemCodes", REDEEM, _ask_redeem, {
        "RedeemCodesSuccess": _redeemed, "CodesRejected": _rejected, "OrderNotOpen": _not_open,
        "InvalidInput": _below_refunded,
    }, _learn_redemptions, looks=look_of_order, repeats=True, once=False, weight=4),
    Verb("checkCodes", CHECK, _ask_redeem, {
        "RedeemCodesSuccess": _checked, "CodesRejected": _check_rejected, "OrderNotOpen": _not_open,
        "InvalidInput": _below_refunded,
    }, reads=True),
    Verb("reverseRedemption", REVERSE, _ask_reverse,
         {"ReverseRedemptionSuccess": _reversed, "AlreadyReversed": _reversed_before}),
    Verb("revokeCode", REVOKE, _ask_revoke, {"RevokeCodeSuccess": _revoked, "CodeNotRevocable": _not_revocable},
         _learn_revoked),
    reading("readCodes", CODES, ask_member, _saw_codes),
)  # fmt: skip
