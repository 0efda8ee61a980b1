"""How members go, and what comes of them: merged into another, erased; an address is proved, a balance moved in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.stress.becoming import Passed, adopting, erasing, merging
from app.stress.operations import PASSED, UNAUTHENTICATED, Answer, Operation
from app.stress.people import PEOPLE, Change, People, as_standing
from app.stress.things import ANYTHING, Move, Story, Whole, becomes, is_, where
from app.stress.verb import NOTHING, Asked, Call, Facts, Verb, mutation

if TYPE_CHECKING:
    from app.stress.worlds import World

State = Mapping[str, Any]

#: What is done beside a merging, and beside an erasing, as often as it can be: each must have met.
BESIDE: Final = {
    "mergeMembers": (
        "claimCode", "redeemCodes", "holdCheckout", "captureHold", "grantPoints", "inviteMembers", "acceptInvite",
        "recordPurchase", "refundPurchase", "verifyMemberEmail", "bringBalance", "eraseMember", "mergeMembers",
    ),
    "eraseMember": ("claimCode", "redeemCodes", "holdCheckout", "captureHold", "grantPoints", "mergeMembers"),
}  # fmt: skip

MERGE: Final = mutation(
    "mergeMembers",
    "MergeMembersInput",
    "... on MergeMembersSuccess { replayed member { id } } ... on MembersNotMergeable { referrals { id } }",
)


def _ask_merge(world: "World") -> Asked | None:
    pair = world.pair()
    if pair is None:
        return None
    drops = pair in world.refused_pairs
    return {"keptId": pair[0], "mergedId": pair[1], "reason": "One person.", "dropReferrals": drops}, {}


def _pair(call: Call, people: People) -> tuple[str, str] | None:
    """Return who stands for both that are named, None if one of them was erased."""
    kept, gone = (people.standing(call.input[name]) for name in ("keptId", "mergedId"))
    return None if {kept, gone} & {*people.erased} else (kept, gone)


def _merged(call: Call) -> Sequence[Story]:
    if call.answer["replayed"]:
        return (((PEOPLE, where(partial(_are_one, call))),),)

    def merge(state: State) -> Iterable[State]:
        pair = _pair(call, state[PEOPLE])
        if pair is None or pair[0] == pair[1]:
            return
        left = state[PEOPLE].impossible(*pair)
        if left and not call.input["dropReferrals"]:
            return
        yield from (after for after, _ in merging(Change(state, call.facts, ANYTHING), *pair, left))

    return (((PEOPLE, Whole(merge)),),)


def _are_one(call: Call, people: People) -> bool:
    pair = _pair(call, people)
    return pair is not None and pair[0] == pair[1]


def _not_mergeable(call: Call) -> Sequence[Story]:
    """So many referrals stand that one person can't have."""

    def is_so(people: People) -> bool:
        pair = _pair(call, people)
        is_asked = pair is not None and pair[0] != pair[1] and not call.input.get("dropReferrals")
        return is_asked and len(people.impossible(*(pair or ("", "")))) == len(call.answer["referrals"])

    return (((PEOPLE, where(is_so)),),)


def _learn_merging(world: "World", operation: Operation, _: Answer) -> None:
    world.learn_gone(operation.input["mergedId"], operation.input["keptId"])


def _notes_of_merging(operation: Operation, answer: Answer) -> Iterable[str]:
    if answer["__typename"] == "MergeMembersSuccess" and not answer["replayed"]:
        yield "mergeMembers: referrals fell" if operation.input["dropReferrals"] else "mergeMembers: merged"


CHECK_MERGE: Final = """
query ($keptId: ID!, $mergedId: ID!) {
  answer: checkMerge(keptId: $keptId, mergedId: $mergedId) {
    __typename ... on MergePreview { codes codesRevoked points purchases holds referralCount }
    ... on MembersNotMergeable { referrals { id } } ... on Refusal { message }
  }
}
"""


def _ask_check(world: "World") -> Asked | None:
    pair = world.pair()
    return None if pair is None else ({"keptId": pair[0], "mergedId": pair[1]}, {})


def _checked(call: Call) -> Sequence[Story]:
    """A merging at this instant would have done just that."""
    names = ("codes", "codesRevoked", "points", "purchases", "holds", "referralCount")
    told = Passed(*(call.answer[name] for name in names))

    def would(state: State) -> Iterable[State]:
        pair = _pair(call, state[PEOPLE])
        if pair is None:
            return
        if pair[0] == pair[1]:
            if not any(call.answer[name] for name in names):
                yield state
            return
        if state[PEOPLE].impossible(*pair):
            return
        tried = (did for _, did in merging(Change(state, call.facts, ANYTHING), *pair, ()))
        if any(did in {None, told} for did in tried):
            yield state

    return (((PEOPLE, Whole(would)),),)


def _notes_of_check(_: Operation, answer: Answer) -> Iterable[str]:
    told = {"codesRevoked": "a code beyond a limit", "holds": "a hold", "purchases": "a purchase", "points": "points"}
    yield from (f"checkMerge: {what}" for name, what in told.items() if answer.get(name))


ERASE: Final = mutation("eraseMember", "EraseMemberInput", "... on EraseMemberSuccess { member { id } }")


def _ask_erase(world: "World") -> Asked | None:
    left = world.standing()
    if len(left) <= 1:
        return None
    holders = [member for member in world.holders() if member in left]
    among = holders if holders and world.rolls.random() < 0.6 else left
    return {"memberId": world.rolls.choice(among), "ground": "REQUEST"}, {}


def _erased(call: Call) -> Sequence[Story]:
    def erase(state: State) -> Iterable[State]:
        member = state[PEOPLE].standing(call.input["memberId"])
        if member not in state[PEOPLE].erased:
            yield erasing(Change(state, call.facts, ANYTHING), member, call.facts["address"])

    return (((PEOPLE, Whole(erase)),),)


def is_erased(*named: str) -> Story:
    """One of those that were named was erased."""
    return ((PEOPLE, where(lambda people: any(people.standing(each) in people.erased for each in named))),)


def _nobody(*names: str) -> Callable[[Call], Sequence[Story]]:
    return lambda call: (is_erased(*(call.input[name] for name in names)),)


def _learn_erasing(world: "World", operation: Operation, _: Answer) -> None:
    world.learn_gone(operation.input["memberId"], None)


PROVE: Final = mutation(
    "verifyMemberEmail",
    "VerifyMemberEmailInput",
    """... on VerifyMemberEmailSuccess { member { id } } ... on MemberAlreadyExists { existing { id } }
    ... on InvalidInput { problems { path } }""",
)


def _ask_prove(world: "World") -> Asked | None:
    address = world.facts["address"]
    if address is None:
        return None
    member = world.facts["holder"] if world.rolls.random() < 0.7 else world.member()
    return {"memberId": member, "email": address}, {}


def _proved(call: Call) -> Sequence[Story]:
    """The codes that wait for the address are the member's; again changes nothing."""

    def prove(state: State) -> Iterable[State]:
        people: People = state[PEOPLE]
        member = people.standing(call.input["memberId"])
        if member not in people.erased and people.holder == member:
            if people.is_proven:
                yield state
            else:
                yield from adopting(Change(state, call.facts, ANYTHING), call.input["email"])

    return (((PEOPLE, Whole(prove)),),)


def _anothers(call: Call) -> Sequence[Story]:
    def is_so(people: People) -> bool:
        member = people.standing(call.input["memberId"])
        return member not in people.erased and people.is_proven and people.holder != member

    return (((PEOPLE, where(is_so)),),)


def _not_its_own(call: Call) -> Sequence[Story]:
    def is_so(people: People) -> bool:
        member = people.standing(call.input["memberId"])
        return member not in people.erased and not people.is_proven and people.holder != member

    return (((PEOPLE, where(is_so)),),)


#: What comes of a file with one balance: it is credited, or was before; its member was erased; it differs from what was
#: credited; or its member went while the file was applied.
CREDITED, SKIPPED, DIFFERS, MISSED = "BroughtInSuccess", "SkippedSuccess", "Differs", "Missed"
AMOUNTS: Final = (10, 20)


def _ask_bring(world: "World") -> Asked | None:
    if world.bring is None:
        return None
    member = world.rolls.choice(world.members[:2])
    return {"memberId": member, "points": world.rolls.choice(AMOUNTS)}, {}


def _credited(call: Call) -> Sequence[Story]:
    """It is one credit; the same content again does nothing, also for whoever stands for a record that was merged.

    That there was none is judged before the file is applied: a record with one may be merged into it meanwhile.
    """
    points = call.input["points"]
    story: Story = ((f"look:{call.number}", is_("so")),) if call.number in call.facts["looked"] else ()

    def bring(state: State) -> Iterable[State]:
        people: People = state[PEOPLE]
        change = Change(state, call.facts, ANYTHING)
        member = people.standing(call.input["memberId"])
        name, wallet = f"brought:{member}", f"wallet:{member}"
        found = change.get(name)
        if member in people.erased:
            # Of the last file nobody says any more whom it passed over.
            if call.answer["replayed"] and not call.answer.get("is_same"):
                yield state
            return
        if call.answer["replayed"]:
            if found != ANYTHING and (found is None or (call.answer.get("is_same") and found != points)):
                return
        else:
            change.put(name, ANYTHING if found == ANYTHING else (found or 0) + points)
            if change.get(wallet) != ANYTHING:
                change.put(wallet, change.get(wallet).credited(points))
        yield change.state

    return ((*story, (PEOPLE, Whole(bring))),)


def _judged(call: Call) -> Sequence[Story]:
    """When the file was judged, nothing had been brought in for whoever it is of."""

    def look(state: State) -> Iterable[State]:
        member = state[PEOPLE].standing(call.input["memberId"])
        if state.get(f"brought:{member}", ANYTHING) in {None, ANYTHING}:
            yield state

    return (((PEOPLE, Whole(look)), (f"look:{call.input['number']}", becomes(None, "so"))),)


def _differs(call: Call) -> Sequence[Story]:
    def look(state: State) -> Iterable[State]:
        member = state[PEOPLE].standing(call.input["memberId"])
        found = state.get(f"brought:{member}", ANYTHING)
        is_other = found == ANYTHING or (found is not None and found != call.input["points"])
        if member not in state[PEOPLE].erased and is_other:
            yield state

    return (((PEOPLE, Whole(look)),),)


def _went(call: Call) -> Sequence[Story]:
    """Whoever it is of was merged or erased while the file was applied, and the file changed nothing."""
    return (((PEOPLE, where(lambda people: people.is_gone(call.input["memberId"]))),),)


def told_of(status: int, said: str) -> Answer | None:
    """Return what an exit status and what was said are as an answer; None if another import was under way."""
    if status == 0:
        if "skipped as erased" in said:
            return {"__typename": SKIPPED}
        if "Nothing to do" in said or "1 there already" in said:
            return {"__typename": CREDITED, "replayed": True, "is_same": "there already" in said}
        return {"__typename": CREDITED, "replayed": False}
    if status == 1 and "differs from" in said:
        return {"__typename": DIFFERS}
    return {"__typename": MISSED} if status == 3 else None


#: A file with a balance is brought in: whoever has a machine of the shop's in hand runs `flash import`.
BRING: Final = Verb("bringBalance", "", _ask_bring, {
    CREDITED: _credited, SKIPPED: _nobody("memberId"), DIFFERS: _differs, MISSED: _went,
}, repeats=True, weight=0)  # fmt: skip
#: A moment of that, between its call and its answer.
JUDGED: Final = Verb("judged", "", lambda _: None, {PASSED: _judged}, weight=0)
VERBS: Final = (
    BRING,
    JUDGED,
    Verb("mergeMembers", MERGE, _ask_merge, {
        "MergeMembersSuccess": _merged, "MembersNotMergeable": _not_mergeable,
        "NotFound": _nobody("keptId", "mergedId"),
    }, _learn_merging, _notes_of_merging, repeats=True, weight=0),
    Verb("checkMerge", CHECK_MERGE, _ask_check, {
        "MergePreview": _checked, "MembersNotMergeable": _not_mergeable, "NotFound": _nobody("keptId", "mergedId"),
    }, notes=_notes_of_check, reads=True, weight=0),
    Verb("eraseMember", ERASE, _ask_erase, {"EraseMemberSuccess": _erased, "NotFound": _nobody("memberId")},
         _learn_erasing, weight=0),
    Verb("verifyMemberEmail", PROVE, _ask_prove, {
        "VerifyMemberEmailSuccess": _proved, "MemberAlreadyExists": _anothers, "InvalidInput": _not_its_own,
        "NotFound": _nobody("memberId"),
    }, weight=0),
)  # fmt: skip
_OWN: Final = frozenset(verb.name for verb in VERBS)
#: What has no answer for somebody that isn't there: it says what is against each code.
_OF_CODES: Final = frozenset({"redeemCodes", "checkCodes"})


def stories(verb: Verb, operation: Operation, facts: Facts, people: People) -> Sequence[Story]:
    """Return the stories that can be true of an operation while some stand for others, and some are gone."""
    if verb.name in _OWN:
        return verb.stories(operation, facts)
    if verb.as_member:
        return _of_token(verb, operation, facts, people)
    standing = as_standing(operation, people)
    if standing.input.get("memberId") not in people.erased:
        return verb.stories(standing, facts)
    if verb.name in _OF_CODES:
        # A record that was merged into somebody that was erased since presents what isn't its own.
        return (*verb.stories(standing, facts), *verb.stories(operation, facts))
    return _of_nobody(verb, standing, facts)


def _of_nobody(verb: Verb, standing: Operation, facts: Facts) -> Sequence[Story]:
    """Return the stories of what names somebody that was erased: nothing, but for what was answered before."""
    answer = standing.answer
    if verb.reads:
        return verb.stories(standing, facts)
    if answer is None or answer["__typename"] == "NotFound":
        return (NOTHING,)
    if verb.name == "holdCheckout" and standing.outcome == "ok":
        # It doesn't say that it is a replay.
        return [(_was_asked(standing), *story) for story in verb.stories(standing, facts)]
    return verb.stories(standing, facts) if answer.get("replayed") else ()


def _was_asked(operation: Operation) -> tuple[str, Move]:
    """The same was asked for its order before."""
    key = operation.input["idempotencyKey"]
    return f"order:{operation.input['orderId']}", where(lambda order: key in order.requests)


def _of_token(verb: Verb, operation: Operation, facts: Facts, people: People) -> Sequence[Story]:
    """Return the stories of what a member asks: the token of one that is gone has ended, or stood when it asked."""
    answer, is_gone = operation.answer, people.is_gone(operation.about["as"])
    if is_gone:
        is_refused = answer is None or answer["__typename"] in {UNAUTHENTICATED, "NotFound"}
        return (NOTHING,) if is_refused else ()
    if answer is not None and answer["__typename"] == UNAUTHENTICATED:
        return ()
    return verb.stories(as_standing(operation, people), facts)
