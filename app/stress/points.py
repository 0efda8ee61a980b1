"""Points: a wallet earns and spends, and takes and gives back, each once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from app.stress.claims import CLOSED, EMPTY, OPEN, allocated, holds, key_used, one_more
from app.stress.operations import UNSEEN, Answer, Operation
from app.stress.things import (
    Code,
    Move,
    Story,
    becomes,
    changed,
    given_back,
    had,
    if_ended,
    spent,
    stocked,
    where,
)
from app.stress.verb import Asked, Call, Facts, Verb, ask_member, mutation, reading
from app.stress.wallet import Told, Wallet

if TYPE_CHECKING:
    from app.stress.worlds import World

ENTRY: Final = "entry { id amount balanceAfter member { wallet { version } } }"
GRANT: Final = mutation(
    "grantPoints",
    "GrantPointsInput",
    f"... on GrantPointsSuccess {{ replayed {ENTRY} }} ... on InsufficientPoints {{ balance required }}",
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
    # A hold that is late isn't waited for, when somebody else has it in hand.
    told = if_ended(lambda wallet: balance in {wallet.spendable, wallet.free} and balance < required)
    return (((f"wallet:{call.input['memberId']}", told),),)


def is_shown(wallet: Wallet, shown: dict[str, int]) -> bool:
    """Whether a wallet is what was shown of it."""
    found = {
        "points": wallet.points, "version": wallet.version if wallet.is_dated else shown.get("version"),
        "shortfall": wallet.shortfall, "spendablePoints": wallet.spendable,
        "heldPoints": wallet.points - wallet.spendable,
    }  # fmt: skip
    return shown.items() <= found.items()


EXCHANGE: Final = mutation(
    "redeemReward",
    "RedeemRewardInput",
    f"""... on RedeemRewardSuccess {{ replayed redemption {{ id code {{ id text masked }} {ENTRY} }} }}
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
    taken: Story = ((f"reward:{reward}", had(1)),)
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
    world.learn_exchange({
        "id": answer["redemption"]["id"], "key": key, "member": member, "reward": reward, "cost": facts["cost"],
        "pool": facts["pool"], "code": code and code["id"],
    })  # fmt: skip


def _out_of_stock(call: Call) -> Sequence[Story]:
    return not_to_be_had(call.input["rewardId"], call.input["memberId"], call.facts)


def not_to_be_had(reward: str, member: str, facts: Facts) -> Sequence[Story]:
    """None is left of a reward, or its pool gives the member no code."""
    pool = facts["rewards"][reward]["pool"]
    none: Story = ((f"reward:{reward}", where(lambda shelf: shelf.stock == 0)),)
    if pool is None:
        return (none,)
    limit = facts["limits"][pool]
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
    name, wallet = f"back:{about['key']}", f"wallet:{about['member']}"
    if call.answer["replayed"]:
        return (((name, where(lambda found: found is not None and found[-1] in {None, told})),),)
    given = given_back(about["key"], None if entry is None else Told(entry["amount"], entry["balanceAfter"]))
    stocked_again: Story = ((f"reward:{about['reward']}", had(-1)),)
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
    return (((f"code:{call.about['code']}", where(lambda code: code.order is not None or code.hold is not None)),),)


WALLET: Final = "member(id: $id) { wallet { points version shortfall heldPoints spendablePoints } }"


def _saw_wallet(call: Call) -> Sequence[Story]:
    return (((f"wallet:{call.input['id']}", where(lambda wallet: is_shown(wallet, call.answer["wallet"]))),),)


VERBS: Final = (
    Verb("grantPoints", GRANT, _ask_grant, {
        "GrantPointsSuccess": _granted, "InsufficientPoints": _insufficient,
        "IdempotencyKeyReused": key_used("key:grant/"),
    }, repeats=True, weight=4),
    Verb("redeemReward", EXCHANGE, _ask_exchange, {
        "RedeemRewardSuccess": _exchanged, "InsufficientPoints": _insufficient, "RewardOutOfStock": _out_of_stock,
        "IdempotencyKeyReused": key_used("key:reward/"),
    }, _learn_exchange, repeats=True, weight=3),
    Verb("reverseRewardRedemption", BACK, _ask_back, {
        "ReverseRewardRedemptionSuccess": _went_back, "RewardNotReversible": _not_reversible,
    }, repeats=True, weight=2),
    reading("readWallet", WALLET, ask_member, _saw_wallet),
)  # fmt: skip
