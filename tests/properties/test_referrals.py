"""Referrals against a model. Without these invites, joins, purchases and returns could pay for nothing."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.referrals.expire_invites import expire_batch
from tests.conftest import Api
from tests.factories import Shop, open_shop
from tests.points.documents import REVERSE, points
from tests.points.documents import broken as broken_points
from tests.referrals.documents import (
    ACCEPT_INVITE,
    CANCEL_INVITE,
    INVITE_MEMBERS,
    INVITES,
    REFERRALS,
    address,
    broken,
    invites_age,
    program,
)
from tests.referrals.test_conversions import buy
from tests.sizes import FULL, size

T = TypeVar("T")
REFERRER, REFEREE = 100, 50
DAY, LIFETIME, DAYS = 6, 9, 10
VERIFY = """
mutation ($input: VerifyMemberEmailInput!) {
  answer: verifyMemberEmail(input: $input) { ... on VerifyMemberEmailSuccess { referral { id } } }
}
"""


@dataclass
class Sent:
    """An invite as the model sees it."""

    by: int
    email: str
    token: str
    node: str
    status: str = "PENDING"
    ends_in: int = DAYS
    referee: int | None = None
    trigger: str = ""
    by_purchase: str | None = None
    is_reversed: bool = False


@dataclass
class Person:
    """A member as the model sees it."""

    node: dict[str, Any]
    points: int = 0
    sent: int = 0
    reclaimed: int = 0
    orders: list[str] = field(default_factory=list)
    #: Those that are worth something and stand, oldest first.
    worth: list[str] = field(default_factory=list)
    is_proven: bool = False


class Program(RuleBasedStateMachine):
    """Invite, cancel, accept, prove, buy, return and age in any order; each step is a call to the API."""

    loop: asyncio.AbstractEventLoop
    url: str

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the tests' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @initialize()
    def open(self) -> None:
        self.closing = open_shop(self.url)
        self.shop: Shop = self.do(self.closing.__aenter__())
        self.people = [Person(self.do(self.shop.member())) for _ in range(2)]
        self.invites: list[Sent] = []
        self.returned: set[str] = set()
        self.numbers = 0
        self.configure("JOIN")

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            assert self.do(broken(self.shop)) == []
            assert self.do(self.shop.broken_promises()) == []
            assert self.do(broken_points(self.shop)) == []
            self.do(self.closing.__aexit__(None, None, None))

    @rule(trigger=st.sampled_from(["JOIN", "FIRST_PURCHASE"]))
    def configure(self, trigger: str) -> None:
        limits = {"invitesPerBatch": 3, "invitesPerDay": DAY, "invitesLifetime": LIFETIME}
        self.do(program(self.shop, convertsOn=trigger, inviteLifetimeDays=DAYS, **limits))
        self.trigger = trigger

    @rule(data=st.data(), count=st.integers(1, 4))
    def invite(self, data: st.DataObject, count: int) -> None:
        who = data.draw(st.integers(0, len(self.people) - 1))
        person = self.people[who]
        emails = [address() for _ in range(count)]
        token = self.do(self.shop.token(person.node["id"]))
        answer = self.do(self.shop.do(INVITE_MEMBERS, emails=emails, key=token))
        # All days are today: ages are given to invites, not to the calendar.
        room = min(3, DAY - person.sent, LIFETIME - person.sent + person.reclaimed)
        assert answer["quota"]["remainingToday"] >= 0
        if count > room:
            assert (answer["__typename"], answer["requested"]) == ("InviteQuotaExceeded", count)
            return
        assert answer["skipped"] == []
        person.sent += count
        assert answer["quota"]["remainingToday"] == DAY - person.sent
        assert answer["quota"]["remainingLifetime"] == LIFETIME - person.sent + person.reclaimed
        self.invites += [
            Sent(who, email, each["token"], each["id"]) for email, each in zip(emails, answer["invites"], strict=True)
        ]

    @precondition(lambda self: bool(getattr(self, "invites", None)))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from(self.invites))
        answer = self.do(self.shop.do(CANCEL_INVITE, inviteId=sent.node))
        if sent.status == "PENDING" and sent.referee is None:
            assert answer["__typename"] == "CancelInviteSuccess"
            sent.status = "CANCELLED"
        else:
            assert (answer["__typename"], answer["status"]) == ("InviteNotCancellable", sent.status)

    @precondition(lambda self: bool(getattr(self, "invites", None)))
    @rule(data=st.data(), is_proven=st.booleans())
    def accept(self, data: st.DataObject, is_proven: bool) -> None:
        sent = data.draw(st.sampled_from(self.invites))
        answer = self.do(self.shop.do(ACCEPT_INVITE, token=sent.token, email=sent.email, emailVerified=is_proven))
        if sent.status != "PENDING" or sent.referee is not None:
            assert (answer["__typename"], answer["status"]) == ("InviteNotUsable", sent.status)
            return
        sent.referee, sent.trigger = len(self.people), self.trigger
        self.people.append(Person(answer["member"], is_proven=is_proven))
        assert answer["obstacle"] is None
        assert (answer["referral"] is not None) is (is_proven and self.trigger == "JOIN")
        if answer["referral"] is not None:
            self.convert(sent, None)

    @precondition(lambda self: any(sent.referee for sent in getattr(self, "invites", ())))
    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from([sent for sent in self.invites if sent.referee]))
        person = self.people[sent.referee or 0]
        answer = self.do(self.shop.do(VERIFY, memberId=person.node["id"]))
        is_due = sent.status == "PENDING" and not person.is_proven and (sent.trigger == "JOIN" or person.worth)
        person.is_proven = True
        assert (answer["referral"] is not None) is bool(is_due)
        if is_due:
            self.convert(sent, person.worth[0] if sent.trigger == "FIRST_PURCHASE" else None)

    def convert(self, sent: Sent, order: str | None) -> None:
        """Credit both, or give back what a fall had taken."""
        assert sent.referee is not None
        sent.status, sent.by_purchase, sent.is_reversed = "CONVERTED", order, False
        self.people[sent.by].points += REFERRER
        self.people[sent.referee].points += REFEREE

    @rule(data=st.data(), whole=st.booleans())
    def purchase(self, data: st.DataObject, whole: bool) -> None:
        who = data.draw(st.integers(0, len(self.people) - 1))
        self.numbers += 1
        order = f"o-{self.numbers}"
        answer = self.do(buy(self.shop, self.people[who].node, order, 1000 if whole else 0))
        waiting = [
            sent for sent in self.invites
            if sent.referee == who and (sent.status, sent.trigger) == ("PENDING", "FIRST_PURCHASE")
            and self.people[who].is_proven
        ]  # fmt: skip
        fallen = [sent for sent in self.invites if sent.referee == who and sent.is_reversed and sent.ends_in > 0]
        assert (answer["referral"] is not None) is bool((waiting or fallen) and whole)
        for sent in (*waiting, *fallen) if whole else ():
            self.convert(sent, answer["purchase"]["id"])
        self.people[who].points += 10 if whole else 0
        self.people[who].orders.append(answer["purchase"]["id"])
        if whole:
            self.people[who].worth.append(answer["purchase"]["id"])

    @precondition(lambda self: any(person.orders for person in getattr(self, "people", ())))
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        person = data.draw(st.sampled_from([person for person in self.people if person.orders]))
        order = data.draw(st.sampled_from(person.orders))
        answer = self.do(self.shop.do(REVERSE, purchaseId=order, reason="returned"))
        if order in self.returned:
            assert answer["__typename"] == "PurchaseAlreadyReversed"
            return
        self.returned.add(order)
        person.worth = [each for each in person.worth if each != order]
        person.points += answer["entry"]["amount"] if answer["entry"] else 0
        for sent in self.invites:
            if sent.by_purchase != order or sent.referee is None:
                continue
            if person.worth and sent.ends_in > 0:
                sent.by_purchase = person.worth[0]
            else:
                sent.is_reversed = True
                self.people[sent.by].points -= REFERRER
                self.people[sent.referee].points -= REFEREE

    @rule(days=st.integers(1, DAYS))
    def wait(self, days: int) -> None:
        self.do(invites_age(self.shop, days))
        gone = 0
        for sent in self.invites:
            sent.ends_in -= days
            if sent.status == "PENDING" and sent.ends_in <= 0:
                sent.status = "EXPIRED"
                self.people[sent.by].reclaimed += 1
                gone += 1
        assert self.do(expire_batch(self.shop.merchant_id)) == gone

    @invariant()
    def points_are_those_of_converted_invites_that_stand(self) -> None:
        if not hasattr(self, "shop"):
            return
        for person in self.people:
            assert self.do(points(self.shop, person.node)) == person.points
        listed = self.do(self.shop.data(REFERRALS, {"first": 100}))["answer"]["edges"]
        assert {
            (each["node"]["referrer"]["id"], each["node"]["referee"]["id"], each["node"]["reversedAt"] is not None)
            for each in listed
        } == {
            (self.people[sent.by].node["id"], self.people[sent.referee].node["id"], sent.is_reversed)
            for sent in self.invites if sent.status == "CONVERTED" and sent.referee is not None
        }  # fmt: skip
        statuses = self.do(self.shop.data(INVITES, {"first": 100}))["answer"]["edges"]
        assert {each["node"]["id"]: each["node"]["status"] for each in statuses} == {
            sent.node: sent.status for sent in self.invites
        }


async def test_any_walk_pays_for_conversions_that_stand_and_for_nothing_else(api: Api, shop: Shop) -> None:
    class OnThisLoop(Program):
        loop = asyncio.get_running_loop()
        url = f"{api.url}/graphql"

    how = settings(
        deadline=None,
        max_examples=size(4, 40),
        stateful_step_count=25,
        derandomize=not FULL,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, OnThisLoop, settings=how)
