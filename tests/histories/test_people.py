"""Verdicts on people, by hand, and on their phones. Without these the judge could believe anything of them."""

from typing import Any

import pytest

from app.stress.operations import READ
from app.stress.things import Stock
from tests.histories.judging import Case, Judge
from tests.histories.phones import LAST, Phone
from tests.histories.test_judging import SECOND, Written, _verdict

ADDRESS = "waits@example.com"


class Peopled(Written):
    """A history of three members and a pool of which each may claim one code; one of them waits for an address."""

    def __init__(self) -> None:
        super().__init__()
        facts: dict[str, Any] = {
            "backing": [], "quota": 4, "recovers": True, "members": ["a", "b", "c"], "address": ADDRESS, "holder": "a"
        }  # fmt: skip
        self.history.facts |= facts
        self.history.facts["initial"] |= {"stock:p": list(Stock(available=9)), "people": ["a"]}

    def takes(self, code: str, **who: Any) -> None:
        """Claim a code of the pool."""
        told = {"id": code, "text": code, "masked": code}
        answer = {"__typename": "ClaimCodeSuccess", "replayed": False, "servedBy": {"id": "p"}, "code": told}
        self.call("claimCode", answer, poolId="p", idempotencyKey=code, **who)

    def merge(self, kept: str, merged: str, *, is_told: bool = True) -> None:
        """Merge two members."""
        answer = {"__typename": "MergeMembersSuccess", "replayed": False, "member": {"id": kept}}
        self.call("mergeMembers", answer if is_told else None, keptId=kept, mergedId=merged, dropReferrals=False)

    def give(self, member: str, balance: int, version: int) -> None:
        """Grant 10 points, after which the wallet is so."""
        entry = {
            "id": f"e{self.now}", "amount": 10, "balanceAfter": balance, "member": {"wallet": {"version": version}}
        }  # fmt: skip
        answer = {"__typename": "GrantPointsSuccess", "replayed": False, "entry": entry}
        self.call("grantPoints", answer, memberId=member, amount=10, idempotencyKey=f"k{self.now}")

    def bring(self, member: str, *, replayed: bool) -> None:
        """Bring a balance in, which was judged meanwhile."""
        answer = {"__typename": "BroughtInSuccess", "replayed": replayed, "is_same": replayed}
        self.call("bringBalance", answer, memberId=member, points=10)
        if not replayed:
            judged = {"number": self.history.operations[-1].number, "memberId": member}
            self.recorder.passes("judged", judged, self.now - 2 * SECOND, within_seconds=1)

    def sees(self, member: str, **states: str) -> None:
        """Read the codes of a member."""
        nodes = [
            {"node": {"id": code, "state": state, "heldUntil": None, "pool": {"id": "p"}}}
            for code, state in states.items()
        ]  # fmt: skip
        self.call("readCodes", {"__typename": READ, "wallet": {"codes": {"edges": nodes}}}, id=member)


@pytest.fixture
def people() -> Peopled:
    return Peopled()


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ({"x": "ALLOCATED", "y": "REVOKED"}, "Ok"),
        ({"x": "REVOKED", "y": "ALLOCATED"}, "Illegal"),
        ({"x": "ALLOCATED", "y": "ALLOCATED"}, "Illegal"),
        ({"x": "ALLOCATED"}, "Illegal"),
    ],
)
@pytest.mark.parametrize("pair", ["ab", "ba"])
def test_of_two_claims_the_later_one_goes(
    judging: Judge, people: Peopled, pair: str, states: dict[str, str], verdict: str
) -> None:
    people.takes("x", memberId="a")
    people.takes("y", memberId="b")
    people.merge(*pair)
    people.sees("b", **states)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(("balance", "version", "verdict"), [(20, 2, "Ok"), (30, 3, "Ok"), (30, 2, "Illegal")])
def test_a_merging_that_nobody_was_told_of_may_have_been_made(
    judging: Judge, people: Peopled, balance: int, version: int, verdict: str
) -> None:
    people.give("a", 10, 1)
    people.give("b", 10, 1)
    people.merge("a", "b", is_told=False)
    people.give("a", balance, version)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(("balance", "verdict"), [(30, "Ok"), (20, "Illegal")])
def test_whoever_names_a_merged_record_means_the_kept_one(
    judging: Judge, people: Peopled, balance: int, verdict: str
) -> None:
    people.give("a", 10, 1)
    people.give("b", 10, 1)
    people.merge("a", "b")
    people.merge("c", "a")
    people.give("b", balance, 3)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(("answer", "verdict"), [("NotFound", "Ok"), ("GrantPointsSuccess", "Illegal")])
def test_whoever_was_erased_is_nobody(judging: Judge, people: Peopled, answer: str, verdict: str) -> None:
    people.merge("a", "b")
    people.call("eraseMember", {"__typename": "EraseMemberSuccess", "member": {"id": "a"}}, memberId="b")
    if answer == "NotFound":
        people.call("grantPoints", {"__typename": answer}, memberId="a", amount=10, idempotencyKey="k")
    else:
        people.give("a", 10, 1)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(("answer", "verdict"), [("NotFound", "Illegal"), ("GrantPointsSuccess", "Ok")])
def test_whoever_is_there_is_found(judging: Judge, people: Peopled, answer: str, verdict: str) -> None:
    people.merge("a", "b")
    if answer == "NotFound":
        people.call("grantPoints", {"__typename": answer}, memberId="b", amount=10, idempotencyKey="k")
    else:
        people.give("b", 10, 1)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(
    ("states", "verdict"), [({"x": "ALLOCATED", "y": "REVOKED"}, "Ok"), ({"x": "ALLOCATED"}, "Illegal")]
)
def test_codes_that_wait_for_an_address_are_whoevers_proves_it(
    judging: Judge, people: Peopled, states: dict[str, str], verdict: str
) -> None:
    """Of what both have claimed it is the address's that goes."""
    people.takes("y", email=ADDRESS)
    people.takes("x", memberId="a")
    proved = {"__typename": "VerifyMemberEmailSuccess", "member": {"id": "a"}}
    people.call("verifyMemberEmail", proved, memberId="a", email=ADDRESS)
    people.sees("a", **states)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(("replayed", "verdict"), [(True, "Ok"), (False, "Illegal")])
def test_a_balance_of_a_merged_record_was_brought_in(
    judging: Judge, people: Peopled, replayed: bool, verdict: str
) -> None:
    people.bring("b", replayed=False)
    people.merge("a", "b")
    people.bring("b", replayed=replayed)
    assert _verdict(judging, people) == verdict


@pytest.mark.parametrize(
    ("versions", "last", "ended", "found", "wrong"),
    [
        ([3, 4, 5], "", "", {"id": "a", "erasedAt": None, "wallet": {"version": 5}}, None),
        ([3, 4], "", "", {"id": "a", "erasedAt": None, "wallet": {"version": 5}}, "a: told until 4 of 5"),
        ([3, 5], "", "", {"id": "a", "erasedAt": None, "wallet": {"version": 5}}, "a: told of versions [3, 5]"),
        ([3], "", "early", {"id": "a", "erasedAt": None, "wallet": {"version": 3}}, "a: told until 3 of 3 early"),
        ([3, 4], LAST, "so", {"id": "b", "erasedAt": None}, None),
        ([3, 4], "code.moved", "so", {"id": "b", "erasedAt": None}, "a: it ended with code.moved"),
        ([3, 4], LAST, "", {"id": "b", "erasedAt": None}, "a: it is gone, and its phone goes on"),
        ([3, 4], "", "so", {"id": "a", "erasedAt": "2026-11-30T12:00:00Z"}, None),
    ],
)  # fmt: skip
def test_a_phone_is_told_of_each_version_and_ends_with_its_member(
    versions: list[int], last: str, ended: str, found: dict[str, Any], wrong: str | None
) -> None:
    phone = Phone("a", versions[0])
    phone.versions, phone.last, phone.ended = versions, last, ended
    assert phone.wrong(found) == wrong


@pytest.mark.parametrize(("balance", "verdict"), [(20, "Ok"), (10, "Illegal")])
def test_the_points_of_a_merged_record_are_followed_without_its_codes(
    judging: Judge, people: Peopled, balance: int, verdict: str
) -> None:
    """How often a merging changes a wallet depends on codes; what the wallet has doesn't."""
    people.takes("y", memberId="b")
    people.give("b", 10, 2)
    people.merge("a", "b")
    people.give("a", balance, 7)
    assert _left_out(judging, people, "code:y") == verdict


@pytest.mark.parametrize(("state", "verdict"), [("REVOKED", "Ok"), ("ALLOCATED", "Illegal")])
def test_a_code_of_whoever_was_erased_is_followed_without_its_other_codes(
    judging: Judge, people: Peopled, state: str, verdict: str
) -> None:
    people.takes("x", memberId="a")
    people.takes("y", memberId="b")
    people.call("eraseMember", {"__typename": "EraseMemberSuccess", "member": {"id": "b"}}, memberId="b")
    people.sees("b", y=state)
    assert _left_out(judging, people, "code:x", "claims:p/a", "claims:p/b", "stock:p") == verdict


def test_an_order_that_is_left_out_may_have_anything_that_a_merging_would_pass_on(
    judging: Judge, people: Peopled
) -> None:
    told = {"codes": 0, "codesRevoked": 0, "points": 0, "purchases": 1, "holds": 0, "referralCount": 0}
    people.call("checkMerge", {"__typename": "MergePreview", **told}, keptId="a", mergedId="b")
    assert _left_out(judging, people) == "Illegal"
    assert _left_out(judging, people, "order:o") == "Ok"


def _left_out(judging: Judge, people: Peopled, *names: str) -> str:
    return judging.verdict(Case(people.history, people.history.operations, frozenset(names)))
