"""Verdicts on histories that were written by hand. Without these an answer that never came could excuse anything."""

import io
from typing import Any

import pytest

from app.stress.operations import History, Recorder, read
from app.stress.things import Pool, Stock
from tests.histories.judging import Case, Judge

SECOND = 1_000_000_000


class Written:
    """A history of one member, one operation a second unless told."""

    def __init__(self) -> None:
        self.history = History("by hand", {"limits": {"p": 1}, "fallbacks": {}, "backing": [], "initial": {
            "stock:p": list(Stock(available=1)), "pool:p": list(Pool("ACTIVE")),
        }})  # fmt: skip
        self.recorder = Recorder(self.history)
        self.now = 0

    def call(self, verb: str, answer: dict[str, Any] | None, about: dict[str, Any] | None = None, **input: Any) -> None:
        """Call a verb; without an answer the client gives up after a second."""
        operation = self.recorder.call("client", verb, input, about or {}, self.now)
        self.now += SECOND
        if answer is None:
            self.recorder.unanswered(operation, self.now)
        else:
            self.recorder.answered(operation, answer, self.now)
        self.now += SECOND

    def grant(self, amount: int, key: str, balance: int | None, version: int = 0, *, replayed: bool = False) -> None:
        """Grant points, and be told of the balance; without one the call is unanswered."""
        told = None if balance is None else {
            "__typename": "GrantPointsSuccess", "replayed": replayed,
            "entry": {"id": key, "amount": amount, "balanceAfter": balance, "member": {"wallet": {"version": version}}},
        }  # fmt: skip
        self.call("grantPoints", told, memberId="m", amount=amount, reference="r", idempotencyKey=key)

    def read(self, points: int, version: int) -> None:
        """Read the wallet."""
        shown = {"points": points, "version": version, "shortfall": 0, "heldPoints": 0, "spendablePoints": points}
        self.call("readWallet", {"__typename": "Read", "wallet": shown}, id="m")

    def begins(self, at: int) -> None:
        """Let the pool begin at an instant."""
        self.history.facts["initial"]["pool:p"] = list(Pool("ACTIVE", has_begun=False))
        self.recorder.passes("begin", {"poolId": "p"}, at, within_seconds=2)

    def claim(self, answer: dict[str, Any], key: str) -> None:
        """Claim a code of the pool."""
        self.call("claimCode", answer, poolId="p", memberId="m", idempotencyKey=key)


@pytest.fixture
def written() -> Written:
    return Written()


def _verdict(judging: Judge, written: Written) -> str:
    return judging.verdict(Case(written.history, written.history.operations))


@pytest.mark.parametrize(
    ("points", "version", "verdict"), [(10, 1, "Ok"), (30, 2, "Ok"), (20, 1, "Illegal"), (30, 1, "Illegal")]
)
def test_what_nobody_was_told_of_happened_or_did_not(
    judging: Judge, written: Written, points: int, version: int, verdict: str
) -> None:
    written.grant(10, "a", 10, 1)
    written.grant(20, "b", None)
    written.read(points, version)

    assert _verdict(judging, written) == verdict


def test_it_may_happen_late_but_once(judging: Judge, written: Written) -> None:
    written.grant(20, "a", None)
    written.read(0, 0)
    written.read(20, 1)
    assert _verdict(judging, written) == "Ok"

    written.read(0, 2)
    assert _verdict(judging, written) == "Illegal"


def test_what_a_later_call_was_told_of_has_happened(judging: Judge, written: Written) -> None:
    written.grant(20, "a", None)
    written.grant(20, "a", 20, 1, replayed=True)
    written.read(20, 1)
    written.grant(20, "a", None)
    assert _verdict(judging, written) == "Ok"
    assert [each.over for each in written.history.operations] == [3 * SECOND, 3 * SECOND, 5 * SECOND, 7 * SECOND]

    written.read(40, 2)
    assert _verdict(judging, written) == "Illegal"


def test_a_refusal_says_what_is_true(judging: Judge, written: Written) -> None:
    refusal = {"__typename": "InsufficientPoints", "balance": 0, "required": 5}
    written.call("grantPoints", refusal, memberId="m", amount=-5, reference="r", idempotencyKey="a")
    assert _verdict(judging, written) == "Ok"

    written.grant(10, "b", 10, 1)
    written.call("grantPoints", refusal, memberId="m", amount=-5, reference="r", idempotencyKey="c")
    assert _verdict(judging, written) == "Illegal"


@pytest.mark.parametrize(("after_seconds", "verdict"), [(1, "Ok"), (5, "Illegal")])
def test_what_begins_by_time_has_begun_from_then_on(
    judging: Judge, written: Written, after_seconds: int, verdict: str
) -> None:
    """A claim is under way for a second; nothing that was sent before the beginning may take longer than two."""
    written.begins(10 * SECOND)
    written.now = (10 + after_seconds) * SECOND
    written.claim({"__typename": "PoolNotActive", "status": "ACTIVE"}, "k")
    assert _verdict(judging, written) == verdict


def test_nothing_begins_before_its_time(judging: Judge, written: Written) -> None:
    written.begins(10 * SECOND)
    code = {"id": "c", "text": "t", "masked": "m"}
    written.claim({"__typename": "ClaimCodeSuccess", "replayed": False, "servedBy": {"id": "p"}, "code": code}, "k")

    assert _verdict(judging, written) == "Illegal"


def test_a_history_is_read_as_it_was_written(written: Written) -> None:
    written.grant(20, "a", None)
    written.grant(20, "a", 20, 1, replayed=True)
    file = io.StringIO()
    written.history.write(file)

    assert list(read(file.getvalue().splitlines())) == [written.history]


@pytest.mark.parametrize(("lapses", "status", "verdict"), [
    (True, "EXPIRED", "Ok"), (True, "HELD", "Illegal"), (False, "HELD", "Ok"), (False, "EXPIRED", "Illegal")
])  # fmt: skip
def test_a_hold_reads_expired_from_the_instant_on_when_its_time_has_passed(
    judging: Judge, written: Written, lapses: bool, status: str, verdict: str
) -> None:
    written.history.facts |= {"point_value": "1"}
    written.grant(20, "a", 20, 1)
    about = {"order": "o"}
    asked = {"orderId": "o", "memberId": "m", "orderAmount": {"amountMinor": 100}, "codes": [], "points": 15}
    written.call("holdCheckout", {"__typename": "HoldCheckoutSuccess", "takenOver": False, "hold": _hold("HELD")},
                 {"codes": []}, **asked, idempotencyKey="k")  # fmt: skip
    if lapses:
        written.call("lapse", {"__typename": "Passed"}, about, holdId="h")
    written.call("readHold", {"__typename": "Read", **_hold(status)}, about, id="h")
    assert _verdict(judging, written) == verdict


def _hold(status: str) -> dict[str, Any]:
    """Return what is told of a hold of 15 points that are worth as many minor units."""
    amounts = {"orderAmount": 100, "totalDiscount": 0, "amountDue": 85, "pointsValue": 15}
    told = {name: {"amountMinor": amount} for name, amount in amounts.items()}
    return {"id": "h", "status": status, "heldUntil": "then", "points": 15, "codes": [], "redemptions": [],
            "rewards": [], **told}  # fmt: skip
