"""Points: a wallet earns, spends and gives back, each once."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from app.stress.claims import CLOSED, EMPTY, OPEN, allocated, holds, key_used, one_more
from app.stress.operations import Answer, Operation
from app.stress.things import Move, Story, Wallet, becomes, changed, every, is_, taken_back, where
from app.stress.verb import UNSEEN, Asked, Call, Facts, Verb, ask_member, mutation, reading

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


def _entered(name: str, member: str, amount: int, answer: Answer, *before: tuple[str, Move]) -> Sequence[Story]:
    """An entry is written once, under a name, after what comes before it; a replay tells the same entry."""
    entry = answer.get("entry")
    told = None if entry is None else (entry["id"], entry["amount"], entry["balanceAfter"])
    if answer["replayed"]:
        return (((name, where(lambda found: found is not None and found[-1] in {None, told})),),)
    wallet = changed(amount)
    if entry is not None:
        # What a replay told of the wallet is how it was by then.
        version = None if answer.get("was_replayed") else entry["member"]["wallet"]["version"]
        wallet = changed(amount, points=entry["balanceAfter"], version=version)
    return (((name, becomes(None, (member, amount, told))), *before, (f"wallet:{member}", wallet)),)


def _granted(call: Call) -> Sequence[Story]:
    key, member, amount = (call.input[name] for name in ("idempotencyKey", "memberId", "amount"))
    return _entered(f"key:grant/{key}", member, amount, call.answer)


def _insufficient(call: Call) -> Sequence[Story]:
    balance, required = call.answer["balance"], call.answer["required"]
    told = where(lambda wallet: wallet.spendable == balance and balance < required)
    return (((f"wallet:{call.input['memberId']}", told),),)


RECORD: Final = mutation(
    "recordPurchase", "RecordPurchaseInput", f"... on RecordPurchaseSuccess {{ replayed purchase {{ id }} {_ENTRY} }}"
)


def _ask_record(world: "World") -> Asked:
    money = {"amountMinor": world.rolls.choice([1000, 2000]), "currency": world.currency}
    return {"memberId": world.member(), "source": "STORE", "orderId": world.key(), "amount": money}, {}


def earned(purchase: dict[str, Any], facts: Facts) -> int:
    """Return the whole points that a purchase earns."""
    return int(purchase["amount"]["amountMinor"] * Decimal(facts["points_per_unit"]) / facts["minor_units"])


def _recorded(call: Call) -> Sequence[Story]:
    order, member = call.input["orderId"], call.input["memberId"]
    points, name = earned(call.input, call.facts), f"purchase:{order}"
    if points == 0:
        return (
            ((name, where(lambda found: found is not None) if call.answer["replayed"] else becomes(None, (member,))),),
        )
    return _entered(name, member, points, call.answer)


def _learn_purchase(world: "World", operation: Operation, answer: Answer) -> None:
    points = earned(operation.input, world.facts)
    purchase = {"id": answer["purchase"]["id"], "points": points, "member": operation.input["memberId"]}
    if purchase not in world.purchases:
        world.purchases.append(purchase)


def _recorded_before(call: Call) -> Sequence[Story]:
    return (((f"purchase:{call.input['orderId']}", where(lambda found: found is not None)),),)


RETURN: Final = mutation(
    "reversePurchase",
    "ReversePurchaseInput",
    "... on ReversePurchaseSuccess { shortfall entry { amount balanceAfter } }",
)


def _ask_return(world: "World") -> Asked | None:
    if not world.purchases:
        return None
    purchase = world.rolls.choice(world.purchases)
    return {"purchaseId": purchase["id"], "reason": "tried"}, purchase


def _returned(call: Call) -> Sequence[Story]:
    about = call.about
    taken = about["points"] - call.answer["shortfall"] if "shortfall" in call.answer else None
    entry = call.answer.get("entry")
    wallet = taken_back(about["points"], taken)
    if entry is not None:
        wallet = every(wallet, where(lambda after: after.points == entry["balanceAfter"]))
    return (((f"returned:{about['id']}", becomes(None, "RETURNED")), (f"wallet:{about['member']}", wallet)),)


def _returned_before(call: Call) -> Sequence[Story]:
    return (((f"returned:{call.about['id']}", is_("RETURNED")),),)


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
    name = f"key:reward/{key}"
    if pool is None or call.answer["replayed"]:
        return _entered(name, member, -cost, told, *taken)
    codes = [redemption["code"]["id"]] if redemption else [*call.facts["codes"].get(pool, ()), UNSEEN]
    stories: list[Story] = []
    for code in codes:
        one: Story = ((f"pool:{pool}", OPEN), (holds(pool, member), one_more(code, call.facts["limits"][pool])))
        given = allocated(None if code == UNSEEN else code, pool, member)
        stories += _entered(name, member, -cost, told, *taken, *one, *given)
    return stories


def _learn_exchange(world: "World", operation: Operation, answer: Answer) -> None:
    code, pool = answer["redemption"]["code"], world.facts["rewards"][operation.input["rewardId"]]["pool"]
    if code is not None:
        world.learn_code(code, pool, operation.input["memberId"])


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


def _saw_wallet(call: Call) -> Sequence[Story]:
    found = Wallet(call.answer["wallet"]["points"], call.answer["wallet"]["version"])
    return (((f"wallet:{call.input['id']}", is_(found)),),)


VERBS: Final = (
    Verb("grantPoints", GRANT, _ask_grant, {
        "GrantPointsSuccess": _granted, "InsufficientPoints": _insufficient,
        "IdempotencyKeyReused": key_used("key:grant/"),
    }, repeats=True, weight=4),
    Verb("recordPurchase", RECORD, _ask_record,
         {"RecordPurchaseSuccess": _recorded, "IdempotencyKeyReused": _recorded_before}, _learn_purchase,
         repeats=True, weight=2),
    Verb("reversePurchase", RETURN, _ask_return,
         {"ReversePurchaseSuccess": _returned, "PurchaseAlreadyReversed": _returned_before}, weight=0),
    Verb("redeemReward", EXCHANGE, _ask_exchange, {
        "RedeemRewardSuccess": _exchanged, "InsufficientPoints": _insufficient, "RewardOutOfStock": _out_of_stock,
        "IdempotencyKeyReused": key_used("key:reward/"),
    }, _learn_exchange, repeats=True, weight=3),
    reading("readWallet", "member(id: $id) { wallet { points version } }", ask_member, _saw_wallet),
)  # fmt: skip
