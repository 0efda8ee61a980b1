"""Verdicts on budgets, first orders, audiences and jobs, by hand. Without these the judge could believe anything."""

from typing import Any

import pytest

from app.stress.things import Code, Pool, Stock
from tests.histories.judging import Judge
from tests.histories.test_judging import Written, _verdict

JOB: dict[str, Any] = {"id": "j", "done": 0, "failed": 0}


class Aimed(Written):
    """A history of a member with two codes, of a pool with a budget for one and a half discounts, and of another pool.

    The other one is for first orders, and for who has bought.
    """

    def __init__(self) -> None:
        super().__init__()
        pools = ("p", "q")
        self.history.facts |= {
            "limits": dict.fromkeys(pools, 3), "transferable": [], "points_per_unit": "1", "minor_units": 100,
            "recovers": True, "budgets": ["p"], "first": ["q"], "audiences": ["q"], "members": ["m"],
            "codes": {},
        }  # fmt: skip
        self.history.facts["initial"] = {
            "budget:p": [150], **{f"stock:{pool}": list(Stock(3, 2)) for pool in pools},
            **{f"pool:{pool}": list(Pool("ACTIVE")) for pool in pools},
            **{f"code:{pool}{number}": Code("m") for pool in pools for number in (1, 2)},
        }  # fmt: skip
        self.total = 0

    def redeem(self, code: str, order: str, answer: str = "", *, amount: int = 1000) -> None:
        """Redeem a code, or be told why not."""
        refused = {"__typename": "CodesRejected", "rejections": [{"masked": code, "reason": answer, "remedy": None}]}
        discount = {"amountMinor": amount // 10}
        made = {"__typename": "RedeemCodesSuccess", "replayed": False, "totalDiscount": discount,
                "redemptions": [{"id": f"r{order}", "discount": discount, "code": {"id": code}}]}  # fmt: skip
        about = {"codes": [{"id": code, "pool": code[0], "owner": "m", "masked": code}]}
        self.call("redeemCodes", refused if answer else made, about, codes=[code], orderId=order, memberId="m",
                  orderAmount={"amountMinor": amount})  # fmt: skip

    def buys(self, order: str) -> None:
        """Record a purchase."""
        entry = {"id": order, "amount": 10, "balanceAfter": 10, "member": {"wallet": {"version": 1}}}
        made = {"__typename": "RecordPurchaseSuccess", "replayed": False, "purchase": {"id": order}, "entry": entry}
        self.call("recordPurchase", made, memberId="m", orderId=order, amount={"amountMinor": 1000})

    def revokes(self, state: str | None = "ALLOCATED", total: int = 2) -> None:
        """Ask for codes to be revoked, which somebody does at some time."""
        self.total = total
        asked: dict[str, Any] = {
            "poolId": "p",
            "state": state,
            "expectedCount": 9,
            "recycle": False,
            "idempotencyKey": "k",
        }
        self.recorder.call("time", "carriedOut", asked, {}, self.now)
        self.call("revokeCodes", {"__typename": "RevokeCodesSuccess", "replayed": False, "job": JOB | {
            "status": "QUEUED", "total": total,
        }}, **asked)  # fmt: skip

    def job(self, status: str, done: int = 0, *, verb: str = "readJob") -> None:
        """Be told of the job."""
        failed = self.total - done if status == "DONE" else 0
        told = JOB | {"status": status, "total": self.total, "done": done, "failed": failed}
        answer = {"__typename": "Read", **told} if verb == "readJob" else {
            "__typename": "CancelJobSuccess", "job": told
        }  # fmt: skip
        self.call(verb, answer, {"key": "k"}, id="j")

    def claims(self, code: str | None) -> None:
        """Claim a code of the pool with the budget; without one the call is unanswered."""
        told = None if code is None else {
            "__typename": "ClaimCodeSuccess", "replayed": False, "servedBy": {"id": "p"},
            "code": {"id": code, "text": code, "masked": code},
        }  # fmt: skip
        self.call("claimCode", told, poolId="p", memberId="m", idempotencyKey="claim")

    def sees_stock(self, *stock: int) -> None:
        """Read the stock of the pool with the budget."""
        self.call("readStock", {"__typename": "Read", "stock": Stock(*stock)._asdict()}, id="p")

    def holds_reward(self) -> None:
        """Hold a reward that brings a code of the pool with the budget, for five points."""
        self.history.facts |= {"backing": ["p"], "rewards": {"r": {"cost": 5, "pool": "p"}}, "point_value": "1"}
        self.history.facts["initial"]["reward:r"] = [9]
        self.grant(10, "g", 10, 1)
        asked = {"orderId": "o", "memberId": "m", "orderAmount": {"amountMinor": 100}, "codes": [], "rewardIds": ["r"]}
        made = {"__typename": "HoldCheckoutSuccess", "takenOver": False, "hold": self._hold("HELD")}
        self.call("holdCheckout", made, {"codes": []}, **asked, idempotencyKey="h")

    def ends_hold(self, verb: str, code: str | None = None) -> None:
        """Capture the hold, which brings a code, or release it."""
        status = "RELEASED" if code is None else "CAPTURED"
        success = f"{verb[0].upper()}{verb[1:]}Success"
        self.call(verb, {"__typename": success, "replayed": False, "hold": self._hold(status, code)},
                  {"order": "o"}, holdId="h")  # fmt: skip

    @staticmethod
    def _hold(status: str, code: str | None = None) -> dict[str, Any]:
        amounts = {"orderAmount": 100, "totalDiscount": 0, "amountDue": 100, "pointsValue": 0}
        had = code and {"id": "x", "member": {"id": "m"}, "code": {"id": code, "text": code, "masked": code}}
        return {"id": "h", "status": status, "heldUntil": "then", "points": 0, "codes": [], "redemptions": [],
                "rewards": [{"cost": 5, "reward": {"id": "r"}, "redemption": had}],
                **{name: {"amountMinor": amount} for name, amount in amounts.items()}}  # fmt: skip

    def sees(self, *states: str) -> None:
        """Read the codes of the pool with the budget."""
        nodes: list[dict[str, Any]] = [
            {"node": {"id": f"p{number}", "state": state, "heldUntil": None, "pool": {"id": "p"}}}
            for number, state in enumerate(states, start=1)
        ]  # fmt: skip
        others: list[dict[str, Any]] = [
            {"node": {"id": f"q{number}", "state": "ALLOCATED", "heldUntil": None, "pool": {"id": "q"}}}
            for number in (1, 2)
        ]  # fmt: skip
        answer = {"__typename": "Read", "wallet": {"codes": {"edges": nodes + others}}}
        self.call("readCodes", answer, id="m")


@pytest.fixture
def aimed() -> Aimed:
    return Aimed()


@pytest.mark.parametrize(
    ("answer", "amount", "verdict"),
    [("BUDGET_SPENT", 1000, "Ok"), ("", 1000, "Illegal"), ("", 500, "Ok"), ("BUDGET_SPENT", 500, "Illegal")],
)
def test_a_budget_is_spent_once_a_discount_does_not_fit(
    judging: Judge, aimed: Aimed, answer: str, amount: int, verdict: str
) -> None:
    aimed.redeem("p1", "a")
    aimed.redeem("p2", "b", answer, amount=amount)
    assert _verdict(judging, aimed) == verdict


def test_what_comes_back_can_be_given_again(judging: Judge, aimed: Aimed) -> None:
    aimed.redeem("p1", "a")
    reversal: dict[str, Any] = {"redemptionId": "ra", "reinstate": True}
    about = {"id": "ra", "order": "a", "code": "p1"}
    aimed.call("reverseRedemption", {"__typename": "ReverseRedemptionSuccess"}, about, **reversal)
    aimed.redeem("p2", "b")
    assert _verdict(judging, aimed) == "Ok"
    aimed.redeem("p1", "c")
    assert _verdict(judging, aimed) == "Illegal"


@pytest.mark.parametrize(("answer", "verdict"), [("NOT_FIRST_ORDER", "Ok"), ("", "Illegal")])
def test_a_second_order_is_no_first_one(judging: Judge, aimed: Aimed, answer: str, verdict: str) -> None:
    aimed.redeem("q1", "a")
    aimed.redeem("q2", "b", answer)
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(("buys", "verdict"), [(True, "Ok"), (False, "Illegal")])
def test_who_is_told_to_have_another_order_has_one(judging: Judge, aimed: Aimed, buys: bool, verdict: str) -> None:
    if buys:
        aimed.buys("a")
    aimed.redeem("q1", "b", "NOT_FIRST_ORDER")
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(("buys", "verdict"), [(False, "Ok"), (True, "Illegal")])
def test_who_has_bought_is_one_of_those_that_have(judging: Judge, aimed: Aimed, buys: bool, verdict: str) -> None:
    if buys:
        aimed.buys("a")
    refused = {"__typename": "NotEligible", "reason": "AUDIENCE"}
    aimed.call("claimCode", refused, poolId="q", memberId="m", idempotencyKey="c")
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(
    ("told", "seen", "verdict"),
    [
        (("DONE", 2), ("REVOKED", "REVOKED"), "Ok"),
        (("DONE", 2), ("REVOKED", "ALLOCATED"), "Illegal"),
        (("DONE", 1), ("REVOKED", "ALLOCATED"), "Illegal"),
        (("QUEUED", 0), ("REVOKED", "REVOKED"), "Ok"),
        (("QUEUED", 0), ("ALLOCATED", "ALLOCATED"), "Ok"),
        (("QUEUED", 0), ("REVOKED", "ALLOCATED"), "Illegal"),
    ],
)
def test_a_job_is_carried_out_whole_at_some_time(
    judging: Judge, aimed: Aimed, told: tuple[str, int], seen: tuple[str, ...], verdict: str
) -> None:
    aimed.revokes()
    aimed.job(*told)
    aimed.sees(*seen)
    assert _verdict(judging, aimed) == verdict


def test_what_was_spent_before_its_turn_is_not_revoked(judging: Judge, aimed: Aimed) -> None:
    aimed.revokes()
    aimed.redeem("p1", "a")
    aimed.job("DONE", 1)
    aimed.sees("REDEEMED", "REVOKED")
    assert _verdict(judging, aimed) == "Ok"


@pytest.mark.parametrize(("state", "verdict"), [("ALLOCATED", "Ok"), ("REVOKED", "Illegal")])
def test_a_job_that_was_cancelled_does_nothing_any_more(judging: Judge, aimed: Aimed, state: str, verdict: str) -> None:
    aimed.revokes()
    aimed.job("CANCELLED", verb="cancelJob")
    aimed.sees(state, state)
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(
    ("state", "total", "done", "verdict"),
    [
        (None, 5, 5, "Ok"), ("AVAILABLE", 3, 2, "Ok"), ("AVAILABLE", 3, 3, "Illegal"), ("ALLOCATED", 2, 2, "Ok"),
    ],
)  # fmt: skip
def test_what_left_the_stock_unheard_is_revoked_with_all_others(
    judging: Judge, aimed: Aimed, state: str | None, total: int, done: int, verdict: str
) -> None:
    aimed.revokes(state, total)
    aimed.claims(None)
    aimed.sees_stock(2, 3)
    aimed.job("DONE", done)
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(
    ("seen", "done", "verdict"), [("REVOKED", 5, "Ok"), ("ALLOCATED", 4, "Ok"), ("ALLOCATED", 5, "Illegal")]
)
def test_what_lives_on_was_not_revoked_for_another(
    judging: Judge, aimed: Aimed, seen: str, done: int, verdict: str
) -> None:
    """It may have come to the pool after the others were written down, as far as the judge follows that."""
    aimed.revokes(None, 5)
    aimed.claims("p3")
    aimed.job("DONE", done)
    aimed.sees("REVOKED", "REVOKED", seen)
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(
    ("state", "total", "seen", "verdict"),
    [
        ("ALLOCATED", 3, "REVOKED", "Ok"), ("ALLOCATED", 3, "ALLOCATED", "Illegal"), (None, 5, "REVOKED", "Ok"),
        ("AVAILABLE", 2, "REVOKED", "Illegal"), ("AVAILABLE", 2, "ALLOCATED", "Ok"),
    ],
)  # fmt: skip
def test_what_was_set_aside_is_revoked_once_it_is_somebodys(
    judging: Judge, aimed: Aimed, state: str | None, total: int, seen: str, verdict: str
) -> None:
    aimed.holds_reward()
    aimed.revokes(state, total)
    aimed.ends_hold("captureHold", "p3")
    aimed.job("DONE", total)
    aimed.sees(*(["REVOKED"] * 2 if state != "AVAILABLE" else ["ALLOCATED"] * 2), seen)
    assert _verdict(judging, aimed) == verdict


@pytest.mark.parametrize(
    ("state", "total", "done", "verdict"),
    [(None, 5, 5, "Ok"), ("ALLOCATED", 3, 2, "Ok"), ("ALLOCATED", 3, 3, "Illegal"), ("AVAILABLE", 2, 2, "Ok")],
)
def test_what_was_set_aside_and_is_in_stock_again_is_revoked_with_all_others(
    judging: Judge, aimed: Aimed, state: str | None, total: int, done: int, verdict: str
) -> None:
    aimed.holds_reward()
    aimed.revokes(state, total)
    aimed.ends_hold("releaseHold")
    aimed.sees_stock(3, 2)
    aimed.job("DONE", done)
    assert _verdict(judging, aimed) == verdict
