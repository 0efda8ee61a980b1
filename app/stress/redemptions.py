"""Redemptions: codes are spent on an order together, given back and revoked."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from app.stress.operations import Answer, Operation
from app.stress.things import ANYTHING, Code, Move, Story, becomes, changed, is_, stocked, where
from app.stress.verb import Asked, Call, Verb, ask_member, mutation, named, reading, who

if TYPE_CHECKING:
    from app.stress.worlds import World

HONOURS: Final = where(lambda pool: pool.honours or pool.is_closing)
HOLDS: Final = where(lambda pool: not pool.honours)

REDEEM: Final = mutation(
    "redeemCodes",
    "RedeemCodesInput",
    """... on RedeemCodesSuccess { replayed totalDiscount { amountMinor } redemptions { id code { id } } }
    ... on CodesRejected { rejections { masked reason } }""",
)


def _ask_redeem(world: "World") -> Asked | None:
    codes = world.some(list(world.codes.values()), most=2)
    if not codes:
        return None
    owner = codes[0].owner if world.rolls.random() < 0.9 else world.claimant()
    typed = [code.text for code in codes]
    money = {"amountMinor": 1000, "currency": world.currency}
    about = [{"id": code.id, "pool": code.pool, "owner": code.owner, "masked": code.masked} for code in codes]
    return {"codes": typed, "orderId": world.order(), "orderAmount": money, **named(owner)}, {"codes": about}


def _redeemed(call: Call) -> Sequence[Story]:
    order, member, about = call.input["orderId"], who(call.input), call.about["codes"]
    made = tuple((each["id"], each["code"]["id"]) for each in call.answer.get("redemptions", ()))
    what = tuple(code["id"] for code in about)
    if call.answer["replayed"]:
        told = (frozenset(what), call.answer["totalDiscount"]["amountMinor"], frozenset(made))
        owned: Story = tuple(_owned(code, member) for code in about)
        return (((f"order:{order}", where(lambda found: _is_same(found, told))), *owned),)
    result = (frozenset(what), call.answer["totalDiscount"]["amountMinor"] if made else None, frozenset(made))
    story: list[tuple[str, Move]] = [(f"order:{order}", becomes(None, result))]
    if made and len(about) == 1 and result[1] is not None:
        # What the code's pool gives, of an order of 1,000; its terms may have improved since they were looked at.
        given = result[1] / 10
        story.append((f"percent:{about[0]['pool']}", where(lambda percent: percent >= given)))
    for code in about:
        story += [
            (f"pool:{code['pool']}", HONOURS),
            (f"code:{code['id']}", becomes(Code(member), Code(member, order))),
            (f"stock:{code['pool']}", stocked(allocated=-1, redeemed=1)),
            (f"wallet:{member}", changed()),
        ]
    return (tuple(story),)


def _learn_redemptions(world: "World", operation: Operation, answer: Answer) -> None:
    about = {code["id"]: code for code in operation.about["codes"]}
    for made in answer["redemptions"]:
        code = about[made["code"]["id"]]
        world.redemptions.append({
            "id": made["id"], "order": operation.input["orderId"], "code": code["id"], "pool": code["pool"],
            "owner": who(operation.input),
        })  # fmt: skip


def _is_same(found: Any, told: Any) -> bool:
    """Whether a replay tells what was done; of what nobody was told only the codes are known."""
    return found is not None and (found == told or (found[1] is None and found[0] == told[0]))


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


def _rejected(call: Call) -> Sequence[Story]:
    """Each code that stands in the way does so at one instant. Too many attempts may be told at any time."""
    order, member = call.input["orderId"], who(call.input)
    story: list[tuple[str, Move]] = []
    for rejection in call.answer["rejections"]:
        found = [each for each in call.about["codes"] if each["masked"] == rejection["masked"]]
        if len(found) > 1:
            # Two codes that end alike: it can be either.
            continue
        code, reason = found[0], rejection["reason"]
        if reason in _AGAINST:
            story.append((f"code:{code['id']}", _AGAINST[reason](member)))
        elif reason == "POOL_NOT_ACTIVE":
            story.append((f"pool:{code['pool']}", HOLDS))
        elif reason == "NOT_STACKABLE":
            story.append((f"order:{order}", where(lambda found: found is not None)))
        elif reason != "TOO_MANY_ATTEMPTS":
            return ()
    return (tuple(story),)


CHECK: Final = REDEEM.replace("mutation", "query", 1).replace("redeemCodes", "checkCodes")


def _checked(call: Call) -> Sequence[Story]:
    """What redeeming would do can be done, but isn't."""
    return [tuple((name, _could(move)) for name, move in story) for story in _redeemed(call)]


def _could(move: Move) -> Move:
    return where(lambda state: bool(list(move(state))))


REVERSE: Final = mutation("reverseRedemption", "ReverseRedemptionInput", "")


def _ask_reverse(world: "World") -> Asked | None:
    if not world.redemptions:
        return None
    redemption = world.rolls.choice(world.redemptions)
    reinstate = world.rolls.random() < 0.7
    return {"redemptionId": redemption["id"], "reason": "tried", "reinstate": reinstate}, redemption


def _reversed(call: Call) -> Sequence[Story]:
    about = call.about
    story: Story = (
        (f"redemption:{about['id']}", becomes("STANDS", "REVERSED")),
        # What an order that was taken back in parts may be redeemed for again isn't followed.
        (f"order:{about['order']}", lambda _: (ANYTHING,)),
    )
    code = f"code:{about['code']}"
    if not call.input["reinstate"]:
        return ((*story, (code, where(lambda found: found.order == about["order"]))),)
    pool, owner = about["pool"], about["owner"]
    spent = Code(owner, about["order"])
    return [
        # Live again, unless its pool is over: then it comes back and expires, which its wallet tells one by one.
        (*story, (code, becomes(spent, after)), (f"pool:{pool}", is_so), (f"stock:{pool}", stock), *changes)
        for after, is_so, stock, changes in (
            (Code(owner), where(lambda pool: not pool.is_over), stocked(allocated=1, redeemed=-1),
             [(f"wallet:{owner}", changed())]),
            (Code(owner, expired=True), where(lambda pool: pool.is_over), stocked(redeemed=-1, expired=1),
             [(f"wallet:{owner}", changed())] * 2),
        )
    ]  # fmt: skip


def _reversed_before(call: Call) -> Sequence[Story]:
    return (((f"redemption:{call.about['id']}", is_("REVERSED")),),)


REVOKE: Final = mutation(
    "revokeCode",
    "RevokeCodeInput",
    "... on RevokeCodeSuccess { code { id } replacement { id } } ... on CodeNotRevocable { state }",
)


def _ask_revoke(world: "World") -> Asked | None:
    if not world.codes:
        return None
    code = world.rolls.choice(list(world.codes.values()))
    about = {"id": code.id, "pool": code.pool, "owner": code.owner}
    # A pool that falls back to another never gets codes: that it is empty stays so.
    recycle = code.pool not in world.facts["fallbacks"] and world.rolls.random() < 0.5
    return {"codeId": code.id, "reason": "tried", "recycle": recycle}, about


def _revoked(call: Call) -> Sequence[Story]:
    about = call.about
    return [
        (
            (f"code:{about['id']}", becomes(Code(about["owner"]), Code(about["owner"], revoked=True))),
            (f"stock:{about['pool']}", stocked(available=fresh, allocated=-1, revoked=1)),
            (f"wallet:{about['owner']}", changed()),
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
    """Only a code that has ended can't be."""
    told = call.answer["state"]
    ended = where(lambda code: told == _end(code))
    return (((f"code:{call.about['id']}", ended),),)


def _end(code: Code) -> str | None:
    return "REVOKED" if code.revoked else "EXPIRED" if code.expired else code.order and "REDEEMED"


CODES: Final = "member(id: $id) { wallet { codes(first: 100) { edges { node { id state pool { id } } } } } }"


def _saw_codes(call: Call) -> Sequence[Story]:
    member = call.input["id"]
    states = {edge["node"]["id"]: edge["node"]["state"] for edge in call.answer["wallet"]["codes"]["edges"]}
    seen = [code for codes in call.facts["codes"].values() for code in codes]
    return (tuple((f"code:{code}", _is_shown(member, states.get(code))) for code in seen),)


def _is_shown(member: str, state: str | None) -> Move:
    """A code is in the member's wallet in this state, or not in it at all."""

    def holds(code: Code) -> bool:
        if code.owner != member:
            return state is None
        return state == (_end(code) or "ALLOCATED")

    return where(holds)


VERBS: Final = (
    Verb("redeemCodes", REDEEM, _ask_redeem, {"RedeemCodesSuccess": _redeemed, "CodesRejected": _rejected},
         _learn_redemptions, repeats=True, weight=4),
    Verb("checkCodes", CHECK, _ask_redeem, {"RedeemCodesSuccess": _checked, "CodesRejected": _rejected},
         reads=True),
    Verb("reverseRedemption", REVERSE, _ask_reverse,
         {"ReverseRedemptionSuccess": _reversed, "AlreadyReversed": _reversed_before}),
    Verb("revokeCode", REVOKE, _ask_revoke, {"RevokeCodeSuccess": _revoked, "CodeNotRevocable": _not_revocable}),
    reading("readCodes", CODES, ask_member, _saw_codes),
)  # fmt: skip
