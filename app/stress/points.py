"""Points: a wallet earns and spends, and takes and gives back, each once."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.claims import CLOSED, EMPTY, OPEN, allocated, holds, key_used, one_more
from app.stress.operations import Answer, Operation
from app.stress.things import (
    Code,
    Move,
    Story,
    becomes,
    changed,
    earned,
    every,
    given_back,
    is_,
    spent,
    stocked,
    taken_back,
    where,
)
from app.stress.verb import UNSEEN, Asked, Call, Facts, Verb, ask_member, mutation, reading
from app.stress.wallet import Told, Wallet

if TYPE_CHECKING:
    from app.stress.worlds import World

_ENTRY: Final = "entry { id amount balanceAfter member { wallet { version } } }"
GRANT: Final = mutation(
    "grantPoints",
    "GrantPointsInput",
    f"... on GrantPointsSuccess {{ replayed {_ENTRY} }} ... on InsufficientPoints {{ balance required }}",
)


def _ask_grant(world: "World") -> Asked:
    amount = world.rolls.choice([10, 10, 20, -10, -20, -30])
    key = world.key()
    return {"memberId": world.member(), "amount": amount, "reference": key, "idempotencyKey": key}, {}


def _entered(
    name: str, member: str, amount: int, answer: Answer, *before: tuple[str, Move], move: Callable[..., Move]
) -> Sequence[Story]:
    """An entry is written once, under a name, after what comes before it; a replay tells the same entry.

    `move` makes the wallet's move of what was told of its balance and version.
    """
    entry = answer.get("entry")
    told = None if entry is None else (entry["id"], entry["amount"], entry["balanceAfter"])
    if answer["replayed"]:
        return (((name, where(lambda found: found is not None and found[-1] in {None, told})),),)
    if told is not None and told[1] != amount:
        return ()
    # What a replay told of the wallet is how it was by then.
    version = None if entry is None or answer.get("was_replayed") else entry["member"]["wallet"]["version"]
    wallet = move(points=None if entry is None else entry["balanceAfter"], version=version)
    return (((name, becomes(None, (member, amount, told))), *before, (f"wallet:{member}", wallet)),)


def _granted(call: Call) -> Sequence[Story]:
    key, member, amount = (call.input[name] for name in ("idempotencyKey", "memberId", "amount"))
    return _entered(f"key:grant/{key}", member, amount, call.answer, move=partial(changed, amount))


def _insufficient(call: Call) -> Sequence[Story]:
    balance, required = call.answer["balance"], call.answer["required"]
    told = where(lambda wallet: wallet.spendable == balance and balance < required)
    return (((f"wallet:{call.input['memberId']}", told),),)


RECORD: Final = mutation(
    "recordPurchase", "RecordPurchaseInput", f"... on RecordPurchaseSuccess {{ replayed purchase {{ id }} {_ENTRY} }}"
)


def _ask_record(world: "World") -> Asked | None:
    if world.facts["points_per_unit"] is None:
        return None
    money = {"amountMinor": world.rolls.choice([1000, 2000]), "currency": world.currency}
    return {"memberId": world.member(), "source": "STORE", "orderId": world.key(), "amount": money}, {}


def points_of(purchase: dict[str, Any], facts: Facts) -> int:
    """Return the whole points that a purchase earns."""
    return int(purchase["amount"]["amountMinor"] * Decimal(facts["points_per_unit"]) / facts["minor_units"])


def _recorded(call: Call) -> Sequence[Story]:
    order, member, amount = call.input["orderId"], call.input["memberId"], call.input["amount"]["amountMinor"]
    points, name = points_of(call.input, call.facts), f"purchase:{order}"
    if call.answer["replayed"]:
        stands: Story = ((f"returned:{order}", where(lambda found: _sum(found) < amount)),)
        entry = call.answer.get("entry")
        told = None if entry is None else (entry["id"], entry["amount"], entry["balanceAfter"])
        return (((name, where(lambda found: found is not None and found[-1] in {None, told, member})), *stands),)
    if points == 0:
        return (((name, becomes(None, (member,))),),)
    move = partial(earned, points, order, recovers=call.facts["recovers"])
    return _entered(name, member, points, call.answer, move=move)


def _learn_purchase(world: "World", operation: Operation, answer: Answer) -> None:
    points, amount = points_of(operation.input, world.facts), operation.input["amount"]["amountMinor"]
    order, member = operation.input["orderId"], operation.input["memberId"]
    purchase = {
        "id": answer["purchase"]["id"], "order": order, "points": points, "member": member, "amount": amount,
    }  # fmt: skip
    if purchase not in world.purchases:
        world.purchases.append(purchase)


def _recorded_before(call: Call) -> Sequence[Story]:
    return (((f"purchase:{call.input['orderId']}", where(lambda found: found is not None)),),)


def _sum(refunds: tuple[Any, ...] | None) -> int:
    """How much of a purchase went back: `returned` holds its refunds, each its id, amount and what it told."""
    return sum(part for _, part, _ in refunds or ())


def _whole(order: str, amount: int) -> Story:
    return ((f"returned:{order}", where(lambda found: _sum(found) == amount)),)


def _recorded_and_returned(call: Call) -> Sequence[Story]:
    return (_whole(call.input["orderId"], call.input["amount"]["amountMinor"]),)


REFUND: Final = mutation(
    "refundPurchase",
    "RefundPurchaseInput",
    """... on RefundPurchaseSuccess {
      replayed shortfall entries { id amount balanceAfter } purchase { member { wallet { points version shortfall } } }
    }
    ... on RefundTooLarge { refundable { amountMinor } }""",
)
#: How much of a purchase goes back at once; each is a multiple of the first.
PARTS: Final = (500, 1000)


def _ask_refund(world: "World") -> Asked | None:
    if not world.purchases:
        return None
    purchase = world.rolls.choice(world.purchases)
    money = {"amountMinor": world.rolls.choice(PARTS), "currency": world.currency}
    asked = {"source": "STORE", "orderId": purchase["order"], "refundId": world.key(), "amount": money}
    return {**asked, "reason": "tried"}, purchase


def _refunded(call: Call) -> Sequence[Story]:
    """What was taken depends on what had gone back before: a story for each sum that this can be."""
    about, answer, key, part = call.about, call.answer, call.input["refundId"], call.input["amount"]["amountMinor"]
    name, amount = f"returned:{about['order']}", about["amount"]
    told = None if "entries" not in answer else (answer["shortfall"], *(each["id"] for each in answer["entries"]))
    if answer["replayed"]:
        return (((name, where(lambda found: _told_by(found, key, part, told))),),)
    return [
        (
            (name, partial(_adds, (key, part, told), before)),
            *_taken_from_wallet(call, _earns(call, amount - before) - _earns(call, amount - before - part)),
        )
        for before in range(0, amount - part + 1, PARTS[0])
    ]


def _earns(call: Call, amount: int) -> int:
    return points_of({"amount": {"amountMinor": amount}}, call.facts)


def _told_by(refunds: tuple[Any, ...] | None, key: str, part: int, told: Any) -> bool:
    return any((each[0], each[1]) == (key, part) and told in {None, each[2]} for each in refunds or ())


def _adds(refund: tuple[str, int, Any], before: int, refunds: tuple[Any, ...] | None) -> Sequence[Any]:
    if _sum(refunds) != before or any(each[0] == refund[0] for each in refunds or ()):
        return ()
    return ((*(refunds or ()), refund),)


def _taken_from_wallet(call: Call, points: int) -> Story:
    """The first entry tells what was taken for this purchase; the wallet, how it was after all that followed."""
    about, answer = call.about, call.answer
    if points == 0:
        return ()
    wallet = f"wallet:{about['member']}"
    if "shortfall" not in answer or answer.get("was_replayed"):
        return ((wallet, taken_back(about["order"], None, points)),)
    entries = answer["entries"] if "entries" in answer else [answer["entry"]] if answer["entry"] else []
    entry = entries[0] if entries else {"amount": 0, "balanceAfter": 0}
    taken = taken_back(about["order"], Told(entry["amount"], entry["balanceAfter"], answer["shortfall"]), points)
    after = answer["purchase"]["member"]["wallet"]
    return ((wallet, every(taken, where(lambda wallet: _is(wallet, after)))),)


CHECK: Final = """
query ($input: RefundPurchaseInput!) {
  answer: checkRefund(input: $input) {
    __typename ... on RefundPreview { points shortfall } ... on RefundTooLarge { refundable { amountMinor } }
    ... on Refusal { message }
  }
}
"""


def _checked(call: Call) -> Sequence[Story]:
    """A refund at this instant would have taken so much, and lacked so much."""
    about, part = call.about, call.input["amount"]["amountMinor"]

    def tells(points: int, wallet: Wallet) -> bool:
        found = wallet.taken_back(about["order"], points)
        if found is None:
            return False
        after, told = found
        return (wallet.points - after.points, told.shortfall) == (call.answer["points"], call.answer["shortfall"])

    stories: list[Story] = []
    for before in range(0, about["amount"] - part + 1, PARTS[0]):
        stood: Story = ((f"returned:{about['order']}", where(partial(_sums_to, before))),)
        points = _earns(call, about["amount"] - before) - _earns(call, about["amount"] - before - part)
        if points:
            stories.append((*stood, (f"wallet:{about['member']}", where(partial(tells, points)))))
        elif call.answer["points"] == call.answer["shortfall"] == 0:
            stories.append(stood)
    return stories


def _sums_to(amount: int, refunds: tuple[Any, ...] | None) -> bool:
    return _sum(refunds) == amount


def _too_large(call: Call) -> Sequence[Story]:
    stands, amount = call.answer["refundable"]["amountMinor"], call.about["amount"]
    if not 0 < stands < call.input["amount"]["amountMinor"]:
        return ()
    return (((f"returned:{call.about['order']}", where(lambda found: _sum(found) == amount - stands)),),)


def _returned_before(call: Call) -> Sequence[Story]:
    return (_whole(call.about["order"], call.about["amount"]),)


RETURN: Final = mutation(
    "reversePurchase",
    "ReversePurchaseInput",
    """... on ReversePurchaseSuccess {
      shortfall entry { amount balanceAfter } purchase { member { wallet { points version shortfall } } }
    }""",
)


def _ask_return(world: "World") -> Asked | None:
    if not world.purchases:
        return None
    purchase = world.rolls.choice(world.purchases)
    return {"purchaseId": purchase["id"], "reason": "tried"}, purchase


def _returned(call: Call) -> Sequence[Story]:
    """All that stood goes back."""
    name, amount = f"returned:{call.about['order']}", call.about["amount"]
    return [
        (
            (name, partial(_adds, ("the rest", amount - before, None), before)),
            *_taken_from_wallet(call, _earns(call, amount - before)),
        )
        for before in range(0, amount, PARTS[0])
    ]


def _is(wallet: Wallet, shown: dict[str, int]) -> bool:
    """Whether a wallet is what was shown of it."""
    found = {
        "points": wallet.points, "version": wallet.version, "shortfall": wallet.shortfall,
        "spendablePoints": wallet.spendable,
    }  # fmt: skip
    return shown.items() <= found.items()


EXCHANGE: Final = mutation(
    "redeemReward",
    "RedeemRewardInput",
    f"""... on RedeemRewardSuccess {{ replayed redemption {{ id code {{ id text masked }} {_ENTRY} }} }}
    ... on InsufficientPoints {{ balance required }}""",
)


def _ask_exchange(world: "World") -> Asked:
    reward = world.rolls.choice(list(world.facts["rewards"]))
    return {"rewardId": reward, "memberId": world.member(), "idempotencyKey": world.key()}, {}


def _exchanged(call: Call) -> Sequence[Story]:
    key, member, reward = (call.input[name] for name in ("idempotencyKey", "memberId", "rewardId"))
    cost, pool = call.facts["rewards"][reward]["cost"], call.facts["rewards"][reward]["pool"]
    redemption = call.answer.get("redemption", {})
    told = {**call.answer, **({"entry": redemption["entry"]} if redemption else {})}
    taken: Story = ((f"reward:{reward}", lambda stock: (stock - 1,) if stock > 0 else ()),)
    name, move = f"key:reward/{key}", partial(spent, cost, key)
    if pool is None or call.answer["replayed"]:
        return _entered(name, member, -cost, told, *taken, move=move)
    codes = [redemption["code"]["id"]] if redemption else [*call.facts["codes"].get(pool, ()), UNSEEN]
    stories: list[Story] = []
    for code in codes:
        one: Story = ((f"pool:{pool}", OPEN), (holds(pool, member), one_more(code, call.facts["limits"][pool])))
        given = allocated(None if code == UNSEEN else code, pool, member)
        stories += _entered(name, member, -cost, told, *taken, *one, *given, move=move)
    return stories


def _learn_exchange(world: "World", operation: Operation, answer: Answer) -> None:
    key, member, reward = (operation.input[name] for name in ("idempotencyKey", "memberId", "rewardId"))
    code, facts = answer["redemption"]["code"], world.facts["rewards"][reward]
    if code is not None:
        world.learn_code(code, facts["pool"], member)
    exchange = {
        "id": answer["redemption"]["id"], "key": key, "member": member, "reward": reward, "cost": facts["cost"],
        "pool": facts["pool"], "code": code and code["id"],
    }  # fmt: skip
    if exchange not in world.exchanges:
        world.exchanges.append(exchange)


def _out_of_stock(call: Call) -> Sequence[Story]:
    reward, member = call.input["rewardId"], call.input["memberId"]
    pool = call.facts["rewards"][reward]["pool"]
    none: Story = ((f"reward:{reward}", is_(0)),)
    if pool is None:
        return (none,)
    limit = call.facts["limits"][pool]
    return (
        none,
        ((f"stock:{pool}", EMPTY),),
        ((f"pool:{pool}", CLOSED),),
        ((holds(pool, member), where(lambda codes: len(codes) >= limit)),),
    )


BACK: Final = mutation(
    "reverseRewardRedemption",
    "ReverseRewardRedemptionInput",
    "... on ReverseRewardRedemptionSuccess { replayed entry { id amount balanceAfter } }",
)


def _ask_back(world: "World") -> Asked | None:
    if not world.exchanges:
        return None
    exchange = world.rolls.choice(world.exchanges)
    return {"redemptionId": exchange["id"], "reason": "tried"}, exchange


def _went_back(call: Call) -> Sequence[Story]:
    """The points are where they were, the stock has one more, and a code that was alive is revoked."""
    about, entry = call.about, call.answer.get("entry")
    told = None if entry is None else (entry["id"], entry["amount"], entry["balanceAfter"])
    name, wallet = f"back:{about['id']}", f"wallet:{about['member']}"
    if call.answer["replayed"]:
        return (((name, where(lambda found: found is not None and found[-1] in {None, told})),),)
    given = given_back(about["key"], None if entry is None else Told(entry["amount"], entry["balanceAfter"]))
    stocked_again: Story = ((f"reward:{about['reward']}", lambda stock: (stock + 1,)),)
    first: Story = ((name, becomes(None, ("BACK", told))), *stocked_again)
    if about["code"] is None:
        return ((*first, (wallet, given)),)
    owner, code = about["member"], f"code:{about['code']}"
    revoked: Story = (
        (code, becomes(Code(owner), Code(owner, revoked=True))),
        (f"stock:{about['pool']}", stocked(allocated=-1, revoked=1)),
        (wallet, changed()),
    )
    dead = where(lambda code: code.revoked or code.expired)
    return ((*first, *revoked, (wallet, given)), (*first, (code, dead), (wallet, given)))


def _not_reversible(call: Call) -> Sequence[Story]:
    if call.about["code"] is None:
        return ()
    return (((f"code:{call.about['code']}", where(lambda code: code.order is not None)),),)


def _saw_wallet(call: Call) -> Sequence[Story]:
    return (((f"wallet:{call.input['id']}", where(lambda wallet: _is(wallet, call.answer["wallet"]))),),)


VERBS: Final = (
    Verb("grantPoints", GRANT, _ask_grant, {
        "GrantPointsSuccess": _granted, "InsufficientPoints": _insufficient,
        "IdempotencyKeyReused": key_used("key:grant/"),
    }, repeats=True, weight=4),
    Verb("recordPurchase", RECORD, _ask_record,
         {"RecordPurchaseSuccess": _recorded, "IdempotencyKeyReused": _recorded_before,
          "PurchaseAlreadyReversed": _recorded_and_returned}, _learn_purchase, repeats=True, weight=2),
    Verb("refundPurchase", REFUND, _ask_refund, {
        "RefundPurchaseSuccess": _refunded, "RefundTooLarge": _too_large, "PurchaseAlreadyReversed": _returned_before,
    }, repeats=True, weight=2),
    Verb("checkRefund", CHECK, _ask_refund, {
        "RefundPreview": _checked, "RefundTooLarge": _too_large, "PurchaseAlreadyReversed": _returned_before,
    }, reads=True),
    Verb("reversePurchase", RETURN, _ask_return,
         {"ReversePurchaseSuccess": _returned, "PurchaseAlreadyReversed": _returned_before}, weight=2),
    Verb("redeemReward", EXCHANGE, _ask_exchange, {
        "RedeemRewardSuccess": _exchanged, "InsufficientPoints": _insufficient, "RewardOutOfStock": _out_of_stock,
        "IdempotencyKeyReused": key_used("key:reward/"),
    }, _learn_exchange, repeats=True, weight=3),
    Verb("reverseRewardRedemption", BACK, _ask_back, {
        "ReverseRewardRedemptionSuccess": _went_back, "RewardNotReversible": _not_reversible,
    }, repeats=True, weight=2),
    reading("readWallet", "member(id: $id) { wallet { points version shortfall spendablePoints } }", ask_member,
            _saw_wallet),
)  # fmt: skip
