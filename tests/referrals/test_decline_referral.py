"""declineReferral. Without these points that a person refused could be given, or that be forgotten."""

from typing import Any

import pytest

from tests.factories import Shop, problems
from tests.points.documents import REVERSE, points
from tests.points.documents import broken as broken_points
from tests.referrals.documents import (
    DECLINE_REFERRAL,
    HELD_REFERRALS,
    INVITES,
    REFERRALS,
    REFERRED_BY,
    RELEASE_REFERRAL,
    accepted,
    broken,
    happened,
    program,
)
from tests.referrals.test_conversions import buy, waiting

NODE = "query ($id: ID!) { node(id: $id) { __typename ... on HeldReferral { declinedAt } } }"
WHY = "the same person twice"


async def held_by(shop: Shop, *, declined: bool = False) -> list[Any]:
    """Return the referrals that wait for a person, or those that one declined."""
    return [edge["node"] for edge in (await shop.data(HELD_REFERRALS, {"declined": declined}))["answer"]["edges"]]


async def test_declining_gives_nobody_anything_and_keeps_the_history(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    referrer = await shop.member()
    answer = await accepted(shop, referrer)
    referee = answer["member"]
    (held,) = await held_by(shop)

    declined = (await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason=WHY))["referral"]

    assert declined["declinedAt"] > declined["convertedAt"]
    assert declined | {"declinedAt": None} == held
    assert (await held_by(shop), await held_by(shop, declined=True)) == ([], [declined])
    assert (await shop.data(REFERRALS))["answer"]["edges"] == []
    assert (await shop.data(REFERRED_BY, {"id": referee["id"]}))["member"]["referredBy"] is None
    assert (await shop.data(NODE, {"id": held["id"]}))["node"]["declinedAt"] == declined["declinedAt"]
    (invite,) = [edge["node"] for edge in (await shop.data(INVITES))["answer"]["edges"]]
    assert invite["status"] == "CONVERTED"
    assert (await points(shop, referrer), await points(shop, referee)) == (0, 0)
    assert (await happened(shop))[-1] == "referral.declined"
    assert await broken(shop) == await broken_points(shop) == []


async def test_declining_again_changes_nothing(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    await accepted(shop, await shop.member())
    (held,) = await held_by(shop)
    first = await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason=WHY)
    before = await shop.state()

    assert await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason="another") == first
    assert await shop.state() == before


async def test_a_reason_must_be_given(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    await accepted(shop, await shop.member())
    (held,) = await held_by(shop)

    for reason, problem in ((" ", "must not be blank"), ("w" * 501, "must be at most 500 characters")):
        answer = await shop.refused(DECLINE_REFERRAL, referralId=held["id"], reason=reason)
        assert problems(answer) == {"reason": problem}
    assert await held_by(shop) == [held]


async def test_an_unknown_referral_is_not_found(shop: Shop, other_shop: Shop) -> None:
    await program(other_shop, reviewPolicy="ALL")
    await accepted(other_shop, await other_shop.member())
    (theirs,) = await held_by(other_shop)

    for node in (theirs["id"], f"referral_{'0' * 32}", "nonsense"):
        answer = await shop.refused(DECLINE_REFERRAL, referralId=node, reason=WHY)
        assert answer == {"__typename": "NotFound", "message": "There is no such referral.", "id": node}
    assert await held_by(other_shop) == [theirs]


async def test_what_was_released_is_not_declined_and_the_other_way_round(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    referrer = await shop.member()
    for _ in range(2):
        await accepted(shop, referrer)
    first, second = await held_by(shop)
    await shop.do(RELEASE_REFERRAL, referralId=first["id"])
    await shop.do(DECLINE_REFERRAL, referralId=second["id"], reason=WHY)

    assert await shop.refused(DECLINE_REFERRAL, referralId=first["id"], reason=WHY) == {
        "__typename": "ReferralNotDeclinable", "message": "The referral was released before."
    }  # fmt: skip
    assert await shop.refused(RELEASE_REFERRAL, referralId=second["id"]) == {
        "__typename": "ReferralNotReleasable", "message": "The referral was declined."
    }  # fmt: skip
    assert await points(shop, referrer) == 100


async def test_a_return_ends_a_held_referral_and_marks_a_declined_one(shop: Shop) -> None:
    referrer, referee = await waiting(shop, reviewPolicy="ALL")
    bought = await buy(shop, referee, "o-1")
    (held,) = await held_by(shop)
    await shop.do(REVERSE, purchaseId=bought["purchase"]["id"], reason="returned")
    refused = await shop.refused(DECLINE_REFERRAL, referralId=held["id"], reason=WHY)
    assert refused == {
        "__typename": "ReferralNotDeclinable", "message": "The purchase that converted it was taken back."
    }  # fmt: skip

    another = (await accepted(shop, referrer))["member"]
    bought = await buy(shop, another, "o-2")
    (held,) = await held_by(shop)
    declined = await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason=WHY)
    await shop.do(REVERSE, purchaseId=bought["purchase"]["id"], reason="returned")

    again = await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason=WHY)
    assert again["referral"]["reversedAt"] is not None
    assert again["referral"] | {"reversedAt": None} == declined["referral"]
    assert [await points(shop, each) for each in (referrer, referee, another)] == [0, 0, 0]
    assert await broken(shop) == await broken_points(shop) == []


async def test_who_came_by_a_declined_referral_is_brought_by_nobody_else(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    first, second = await shop.member(), await shop.member()
    email = "friend@example.com"
    await accepted(shop, first, email=email, emailVerified=True)
    (held,) = await held_by(shop)
    await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason=WHY)
    await program(shop, reviewPolicy="ALL", reportsMembers=False)

    again = await accepted(shop, second, email=email)

    assert again["__typename"] == "MemberAlreadyExists"
    assert await held_by(shop) == []


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST"])
async def test_only_admins_decline(shop: Shop, role: str) -> None:
    key, unknown = await shop.key(role), f"referral_{'0' * 32}"

    assert await shop.failed(DECLINE_REFERRAL, referralId=unknown, reason=WHY, key=key) == "FORBIDDEN"
