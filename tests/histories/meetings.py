"""What meets in worlds about people: a member goes while others give it something, or take it."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from app.stress.gone import BESIDE
from app.stress.operations import History, Operation
from app.stress.verbs import VERBS

#: What must have happened.
WANTED: Final = frozenset({
    *(f"{verb}: beside {other}" for verb, others in BESIDE.items() for other in others),
    "mergeMembers: merged", "mergeMembers: referrals fell", "checkMerge: a code beyond a limit",
    "mergeMembers: a hold went along", "eraseMember: a hold ended", "inviteMembers: Unauthenticated",
    "bringBalance: Differs", "verifyMemberEmail: an address was proved", "a phone: told of all",
    "a phone: its member was erased", "a phone: the last that it was told was the merging",
})  # fmt: skip


def of(history: History) -> "Counter[str]":
    """Return what met in a history, as the table of what happened calls it."""
    found: Counter[str] = Counter()
    for each in history.operations:
        answer = each.answer or {}
        if each.verb in BESIDE and each.outcome == "ok" and not answer.get("replayed"):
            found.update(f"{each.verb}: beside {other.verb}" for other in _beside(history, each))
        if each.verb == "mergeMembers" and each.outcome == "ok" and not answer["replayed"]:
            found["mergeMembers: a hold went along"] += _went_along(history, each)
        if each.verb == "verifyMemberEmail" and each.outcome == "ok":
            found["verifyMemberEmail: an address was proved"] += 1
    ended = {
        each.input["holdId"] for each in history.operations
        if "holdId" in each.input and _hold_of(each).get("status") == "RELEASED"
    }  # fmt: skip
    asked = {each.input["holdId"] for each in history.operations if each.verb == "releaseHold" and not _is_told(each)}
    # What nobody has released was by whoever was erased.
    if any(each.verb == "eraseMember" and each.outcome != "refused" for each in history.operations):
        found["eraseMember: a hold ended"] += len(ended - asked)
    return found


def _beside(history: History, one: Operation) -> Iterator[Operation]:
    for each in history.operations:
        is_other = each is not one and each.verb in BESIDE[one.verb] and not VERBS[each.verb].reads
        if is_other and one.returned and each.called < one.returned and (each.returned or one.returned) > one.called:
            yield each


def _went_along(history: History, merging: Operation) -> bool:
    """Whether something that the merged record held before was captured, extended or released afterwards."""
    held = {
        _hold_of(each).get("id") for each in history.operations
        if each.verb == "holdCheckout" and each.input.get("memberId") == merging.input["mergedId"]
        and each.returned and each.returned < merging.called
    }  # fmt: skip
    return any(
        each.outcome == "ok" and each.input.get("holdId") in held and not _is_told(each)
        and merging.returned and each.called > merging.returned
        for each in history.operations
    )  # fmt: skip


def _hold_of(operation: Operation) -> dict[str, str]:
    found: dict[str, str] = (operation.answer or {}).get("hold") or {}
    return found


def _is_told(operation: Operation) -> bool:
    """Whether somebody else had released the hold before."""
    return bool((operation.answer or {}).get("replayed"))
