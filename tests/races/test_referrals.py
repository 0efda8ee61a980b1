"""Invites under races, on two processes. Without these a quota could be passed, or one conversion be paid twice."""

import asyncio
import time
from typing import Any

import pytest

from app import ids
from app.referrals.expire_invites import expire_batch
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import ENROLL_MEMBER, VERIFY_MEMBER_EMAIL, Shop, usd
from tests.points.documents import REVERSE, entries, points
from tests.points.documents import broken as broken_points
from tests.races.storm import Processes, at_once, kinds
from tests.referrals.documents import (
    ACCEPT_INVITE,
    CANCEL_INVITE,
    DECLINE_REFERRAL,
    HELD_REFERRALS,
    INVITE_MEMBERS,
    INVITES,
    RECORD_PURCHASE,
    RELEASE_REFERRAL,
    accepted,
    address,
    broken,
    invited,
    program,
    quota,
)

WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
HOLD_MEMBER = "SELECT FROM member WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE"
HOLD_INVITE = "SELECT id FROM invite WHERE merchant_id = $1 AND id = $2 FOR UPDATE NOWAIT"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def sound(shop: Shop) -> None:
    """Assert that what must always hold does."""
    assert await broken(shop) == []
    assert await broken_points(shop) == []


@pytest.mark.parametrize("limit", ["invitesPerDay", "invitesLifetime"])
async def test_of_fifty_batches_at_once_as_many_are_sent_as_the_quota_has_room_for(
    shop: Shop, processes: Processes, limit: str
) -> None:
    # The batch after the last that fits is one invite too large.
    await program(shop, **{limit: 98})
    member = await shop.member()

    answers = await at_once(
        processes.do(INVITE_MEMBERS, emails=[address() for _ in range(3)], memberId=member["id"]) for _ in range(50)
    )

    assert kinds(answers) == {"InviteMembersSuccess": 32, "InviteQuotaExceeded": 18}
    left = sorted(
        answer["quota"]["remainingToday" if limit == "invitesPerDay" else "remainingLifetime"]
        for answer in answers if answer["__typename"] == "InviteMembersSuccess"
    )  # fmt: skip
    assert left == list(range(2, 98, 3))
    assert await shop.count("invite") == 96
    await sound(shop)


async def test_one_batch_sent_by_twenty_callers_invites_each_address_once(shop: Shop, processes: Processes) -> None:
    await program(shop)
    members = [await shop.member() for _ in range(4)]
    emails = [address() for _ in range(20)]

    answers = await at_once(
        processes.do(INVITE_MEMBERS, emails=emails[turn:] + emails[:turn], memberId=members[turn % 4]["id"])
        for turn in range(20)
    )

    assert kinds(answers) == {"InviteMembersSuccess": 20}
    assert sum(len(answer["invites"]) for answer in answers) == 20
    assert sum([1000 - (await quota(shop, member))["remainingToday"] for member in members]) == 20
    await sound(shop)


async def test_of_two_referrers_of_one_address_one_invites_it(shop: Shop, processes: Processes) -> None:
    await program(shop)
    members = [await shop.member() for _ in range(2)]

    for _ in range(5):
        email = address()
        answers = await at_once(
            processes.do(INVITE_MEMBERS, emails=[email], memberId=member["id"]) for member in members
        )
        assert sorted(len(answer["invites"]) for answer in answers) == [0, 1]
        assert [each["reason"] for answer in answers for each in answer["skipped"]] == ["ALREADY_INVITED"]
    await sound(shop)


@pytest.mark.parametrize(("trigger", "status"), [("JOIN", "CONVERTED"), ("FIRST_PURCHASE", "PENDING")])
async def test_an_invite_that_twenty_accept_brings_one_member(
    shop: Shop, processes: Processes, trigger: str, status: str
) -> None:
    await program(shop, convertsOn=trigger)
    referrer = await shop.member()
    invite, email = await invited(shop, referrer)

    answers = await at_once(
        processes.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True) for _ in range(20)
    )

    assert kinds(answers) == {"AcceptInviteSuccess": 1, "InviteNotUsable": 19}
    assert {answer["status"] for answer in answers if "status" in answer} == {status}
    assert await points(shop, referrer) == (100 if trigger == "JOIN" else 0)
    assert await shop.count("member") == 2
    await sound(shop)


async def test_who_enrols_while_accepting_is_referred_or_was_a_member(shop: Shop, processes: Processes) -> None:
    await program(shop)
    referrer = await shop.member()

    for turn in range(10):
        invite, email = await invited(shop, referrer)
        joined, enrolled = await at_once([
            processes.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True),
            processes.do(ENROLL_MEMBER, email=email, emailVerified=True, source="STORE", externalId=f"race {turn}"),
        ])  # fmt: skip
        assert {joined["__typename"], enrolled["__typename"]} in (
            {"AcceptInviteSuccess", "MemberAlreadyExists"}, {"MemberAlreadyExists", "EnrollMemberSuccess"}
        )  # fmt: skip
    await sound(shop)


async def test_accepting_against_cancelling_has_one_winner(shop: Shop, processes: Processes) -> None:
    await program(shop)
    referrer = await shop.member()
    won = 0

    for _ in range(10):
        invite, email = await invited(shop, referrer)
        joined, cancelled = await at_once([
            processes.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True),
            processes.do(CANCEL_INVITE, inviteId=invite["id"]),
        ])  # fmt: skip
        success = joined["__typename"] == "AcceptInviteSuccess"
        assert (cancelled["__typename"] == "CancelInviteSuccess") is not success
        assert (cancelled if success else joined)["status"] == ("CONVERTED" if success else "CANCELLED")
        won += success
    assert await points(shop, referrer) == 100 * won
    await sound(shop)


@pytest.mark.parametrize("end", ["accept", "purchase"])
async def test_converting_against_expiry_has_one_winner(shop: Shop, processes: Processes, end: str) -> None:
    """The expiry runs as if an hour later, so it may take an invite that the conversion may still have."""
    await program(shop, convertsOn="JOIN" if end == "accept" else "FIRST_PURCHASE", inviteLifetimeDays=1)
    referrer = await shop.member()
    waiting = []
    for number in range(10):
        if end == "accept":
            invite, email = await invited(shop, referrer)
            waiting.append(processes.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True))
        else:
            member = (await accepted(shop, referrer))["member"]
            waiting.append(
                processes.do(
                    RECORD_PURCHASE, memberId=member["id"], source="STORE", orderId=f"o-{number}", amount=usd(1000)
                )
            )
    row = await database().row("SELECT now() + interval '25 hours' AS later")
    assert row is not None

    async def expire() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"__typename": "expired", "count": await expire_batch(shop.merchant_id, row["later"])}

    answers = await at_once([*waiting[:5], expire(), *waiting[5:], expire()])

    statuses = [edge["node"]["status"] for edge in (await shop.data(INVITES))["answer"]["edges"]]
    converted = statuses.count("CONVERTED")
    assert sum(answer.get("referral") is not None for answer in answers) == converted
    assert sum(answer.get("count", 0) for answer in answers) == statuses.count("EXPIRED")
    assert await points(shop, referrer) == 100 * converted
    assert (await quota(shop, referrer))["remainingLifetime"] == 10_000 - 10 + statuses.count("EXPIRED")
    await sound(shop)


async def test_a_purchase_delivered_by_twenty_converts_once(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    referrer = await shop.member()
    member = (await accepted(shop, referrer))["member"]

    answers = await at_once(
        processes.do(RECORD_PURCHASE, memberId=member["id"], source="STORE", orderId="o-1", amount=usd(1000))
        for _ in range(20)
    )

    assert kinds(answers) == {"RecordPurchaseSuccess": 20}
    assert len({answer["referral"]["id"] for answer in answers}) == 1
    assert await entries(shop, referrer) == [(100, 100, "REFERRAL_REFERRER")]
    assert await entries(shop, member) == [(50, 50, "REFERRAL_REFEREE"), (10, 60, "PURCHASE")]
    await sound(shop)


async def test_of_twenty_first_purchases_one_converts(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    referrer = await shop.member()
    member = (await accepted(shop, referrer))["member"]

    answers = await at_once(
        processes.do(RECORD_PURCHASE, memberId=member["id"], source="STORE", orderId=f"o-{n}", amount=usd(1000))
        for n in range(20)
    )

    assert sum(answer["referral"] is not None for answer in answers) == 1
    assert (await points(shop, referrer), await points(shop, member)) == (100, 250)
    await sound(shop)


async def test_releasing_against_declining_has_one_winner(shop: Shop, processes: Processes) -> None:
    await program(shop, reviewPolicy="ALL")
    referrer = await shop.member()
    released = 0

    for _ in range(10):
        await accepted(shop, referrer)
        (held,) = [edge["node"]["id"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]
        calls = [
            [processes.do(RELEASE_REFERRAL, referralId=held),
             processes.do(DECLINE_REFERRAL, referralId=held, reason="fake")]
            for _ in range(3)
        ]  # fmt: skip
        counted = kinds(await at_once(call for pair in calls for call in pair))
        assert counted in (
            {"ReleaseReferralSuccess": 1, "ReferralNotReleasable": 2, "ReferralNotDeclinable": 3},
            {"DeclineReferralSuccess": 3, "ReferralNotReleasable": 3},
        )
        released += counted.get("ReleaseReferralSuccess", 0)
    assert await points(shop, referrer) == 100 * released
    happened = await shop.event_types()
    assert (happened.count("referral.converted"), happened.count("referral.declined")) == (released, 10 - released)
    await sound(shop)


async def test_conversions_and_returns_along_a_chain_do_not_deadlock(shop: Shop, processes: Processes) -> None:
    """Each member's purchase credits the one above it, whose own purchase credits the next."""
    await program(shop, convertsOn="FIRST_PURCHASE")
    chain = [await shop.member()]
    for _ in range(6):
        chain.append((await accepted(shop, chain[-1]))["member"])

    def buy(place: int, order: str) -> Any:
        return processes.do(
            RECORD_PURCHASE, memberId=chain[place]["id"], source="STORE", orderId=order, amount=usd(1000)
        )

    answers = await at_once(buy(place, f"{place} {turn}") for turn in range(5) for place in range(1, 7))
    assert kinds(answers) == {"RecordPurchaseSuccess": 30}
    assert sum(answer["referral"] is not None for answer in answers) == 6
    converting = [answer["purchase"]["id"] for answer in answers if answer["referral"] is not None]
    returns = [processes.do(REVERSE, purchaseId=each, reason="returned") for each in converting * 3]
    answers = await at_once([*returns, *(buy(place, f"later {place}") for place in range(7))])

    assert kinds(answers) == {
        "ReversePurchaseSuccess": 6, "PurchaseAlreadyReversed": 12, "RecordPurchaseSuccess": 7
    }  # fmt: skip
    # Of each the other orders take the place of what went back, so that all are still paid.
    assert [await points(shop, member) for member in chain] == [110, *[200] * 5, 100]
    await sound(shop)


@pytest.mark.parametrize("comes", ["by the invite", "by another door"])
async def test_accepting_buying_and_proving_at_once_pay_once_whoever_comes_last(
    shop: Shop, processes: Processes, comes: str
) -> None:
    """None of the three knows of the others when it begins, and whoever ends last must convert."""
    await program(shop, convertsOn="FIRST_PURCHASE")
    referrer = await shop.member()
    referees = []

    for turn in range(12):
        invite, email = await invited(shop, referrer)
        if comes == "by the invite":
            member = (await shop.do(ACCEPT_INVITE, token=invite["token"], email=email))["member"]
            accepts = []
        else:
            member = await shop.member(email=email)
            accepts = [processes.do(ACCEPT_INVITE, token=invite["token"], email=email, memberId=member["id"])]
        order = {"source": "STORE", "amount": usd(1000), "memberId": member["id"]}
        answers = await at_once([
            *accepts,
            processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]),
            processes.do(RECORD_PURCHASE, orderId=f"first of {turn}", **order),
            processes.do(RECORD_PURCHASE, orderId=f"second of {turn}", **order),
        ])  # fmt: skip
        assert all(answer["__typename"].endswith("Success") for answer in answers), answers
        referees.append(member)
        assert await points(shop, referrer) == 100 * len(referees)
        assert await points(shop, member) == 70
    assert await shop.count("rewarded_mailbox") == 12
    await sound(shop)


async def test_of_ten_spellings_that_are_proven_at_once_one_is_paid(shop: Shop, processes: Processes) -> None:
    await program(shop)
    referrers = [await shop.member() for _ in range(10)]
    # All are invited before the first joins: otherwise the others would be customers.
    sent = [await invited(shop, who, f"eve+{number}@gmail.com") for number, who in enumerate(referrers)]
    members = [(await shop.do(ACCEPT_INVITE, token=invite["token"], email=email))["member"] for invite, email in sent]

    await at_once(processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]) for member in members)

    assert sorted([await points(shop, who) for who in referrers]) == [0] * 9 + [100]
    assert sorted([await points(shop, member) for member in members]) == [0] * 9 + [50]
    obstacles = [edge["node"]["obstacle"] for edge in (await shop.data(INVITES))["answer"]["edges"]]
    assert sorted(obstacles, key=str) == ["MAILBOX_REWARDED"] * 9 + [None]
    await sound(shop)


async def test_a_return_against_the_proof_leaves_nothing_paid(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    referrer = await shop.member()

    for turn in range(10):
        invite, email = await invited(shop, referrer)
        member = (await shop.do(ACCEPT_INVITE, token=invite["token"], email=email))["member"]
        bought = await shop.do(
            RECORD_PURCHASE, memberId=member["id"], source="STORE", orderId=f"o-{turn}", amount=usd(1000)
        )
        await at_once([
            processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]),
            processes.do(REVERSE, purchaseId=bought["purchase"]["id"], reason="returned"),
        ])  # fmt: skip
        assert (await points(shop, referrer), await points(shop, member)) == (0, 0)
    await sound(shop)


async def test_two_invites_that_one_member_accepts_at_once_bring_it_once(shop: Shop, processes: Processes) -> None:
    await program(shop)
    anna, ben = await shop.member(), await shop.member()

    for _ in range(8):
        sent = [await invited(shop, who) for who in (anna, ben)]
        member = await shop.member(email=address(), emailVerified=True)
        answers = await at_once(
            processes.do(ACCEPT_INVITE, token=invite["token"], email=email, memberId=member["id"])
            for invite, email in sent
        )
        assert kinds(answers) == {"AcceptInviteSuccess": 1, "InviteNotUsable": 1}
        assert await points(shop, member) == 50
    assert await points(shop, anna) + await points(shop, ben) == 800
    await sound(shop)


async def test_two_doors_that_tell_of_one_person_at_once_lock_members_before_the_invite(shop: Shop) -> None:
    """One names the member that wrote the address down, one enrols who proved it, which that member loses it by."""
    await program(shop)
    invite, email = await invited(shop, await shop.member())
    ben = await shop.member(email=email)
    ids_of = ids.decode("member", ben["id"]), ids.decode("invite", invite["id"])

    async with transaction(shop.merchant_id) as tx:
        await tx.row(HOLD_MEMBER, shop.merchant_id, ids_of[0])
        enrols = asyncio.create_task(shop.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True))
        deadline = time.monotonic() + 30
        while not await tx.rows(WAITING):
            assert time.monotonic() < deadline, "nobody waits"
            await asyncio.sleep(0.01)
        held = await tx.row(HOLD_INVITE, shop.merchant_id, ids_of[1])

    assert held is not None
    assert (await enrols)["__typename"] == "AcceptInviteSuccess"
    await sound(shop)
