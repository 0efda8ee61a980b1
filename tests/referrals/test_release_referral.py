"""Held referrals. Without these points could be given before a person looked, or twice once it did."""

import asyncio

import pytest

from tests.factories import Shop
from tests.points.documents import broken as broken_points
from tests.points.documents import entries, grant, points
from tests.referrals.documents import (
    HELD_REFERRALS,
    REFERRALS,
    REFERRED_BY,
    RELEASE_REFERRAL,
    accepted,
    both_spellings,
    broken,
    happened,
    program,
)
from tests.referrals.test_conversions import FULL, buy, waiting

NODE = "query ($id: ID!) { node(id: $id) { __typename id } }"


async def test_a_held_conversion_is_no_referral_until_it_is_released(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    referrer = await shop.member()
    answer = await accepted(shop, referrer)
    referee = answer["member"]

    (held,) = [edge["node"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]

    assert (answer["referral"], answer["invite"]["status"]) == (None, "CONVERTED")
    assert (held["referrer"]["id"], held["referee"]["id"]) == (referrer["id"], referee["id"])
    assert (held["referrerPoints"], held["refereePoints"], held["reviewFlags"]) == (100, 50, [])
    assert (await shop.data(REFERRALS))["answer"]["edges"] == []
    assert (await shop.data(REFERRED_BY, {"id": referee["id"]}))["member"]["referredBy"] is None
    assert (await shop.data(NODE, {"id": held["id"]}))["node"]["__typename"] == "HeldReferral"
    assert (await shop.data(NODE, {"id": held["id"]}, key=await shop.token(referrer["id"])))["node"] is None
    assert (await points(shop, referrer), await points(shop, referee)) == (0, 0)
    assert (await happened(shop))[-1] == "referral.held"
    assert await broken(shop) == []


async def test_releasing_gives_what_the_conversion_was_to_bring(shop: Shop) -> None:
    referrer, referee = await waiting(shop, reviewPolicy="ALL")
    assert (await buy(shop, referee, "o-1"))["referral"] is None
    (held,) = [edge["node"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]
    await program(shop, referrerPoints=1, refereePoints=1)

    answer = await shop.do(RELEASE_REFERRAL, referralId=held["id"])

    referral = answer["referral"]
    assert (referral["id"], referral["convertedAt"]) == (held["id"], held["convertedAt"])
    assert referral["releasedAt"] > referral["convertedAt"]
    assert (referral["referrerEntry"]["amount"], referral["refereeEntry"]["amount"]) == (100, 50)
    assert await entries(shop, referrer) == [(100, 100, "REFERRAL_REFERRER")]
    assert (await shop.data(REFERRED_BY, {"id": referee["id"]}))["member"]["referredBy"] == referral
    assert (await buy(shop, referee, "o-1"))["referral"]["id"] == held["id"]
    assert (await happened(shop))[-1] == "referral.converted"
    assert await broken(shop) == await broken_points(shop) == []


async def test_only_flagged_ones_are_held_where_the_policy_says_so(shop: Shop) -> None:
    await program(shop, reviewPolicy="FLAGGED", oneRewardPerMailbox=False)
    referrer = await shop.member()

    first, second = await both_spellings(shop, referrer, "one")

    assert (first["referral"] is None, second["referral"] is None) == (False, True)
    (held,) = [edge["node"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]
    assert held["reviewFlags"] == ["ONE_MAILBOX"]


async def test_a_referral_is_released_once_however_many_ask(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    referrer = await shop.member()
    await accepted(shop, referrer)
    (held,) = [edge["node"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]

    answers = await asyncio.gather(*[shop.do(RELEASE_REFERRAL, referralId=held["id"]) for _ in range(10)])

    kinds = sorted(answer["__typename"] for answer in answers)
    assert kinds == ["ReferralNotReleasable"] * 9 + ["ReleaseReferralSuccess"]
    assert await points(shop, referrer) == 100
    assert await broken(shop) == await broken_points(shop) == []


async def test_points_that_a_balance_cannot_hold_are_released_when_it_can(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    await grant(shop, referrer, FULL, "rich")
    await accepted(shop, referrer)
    (held,) = [edge["node"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]

    refused = await shop.refused(RELEASE_REFERRAL, referralId=held["id"])
    await grant(shop, referrer, -100, "spent")
    answer = await shop.do(RELEASE_REFERRAL, referralId=held["id"])

    assert refused["__typename"] == "ReferralNotReleasable"
    assert answer["referral"]["reviewFlags"] == ["BALANCE_FULL"]
    assert await points(shop, referrer) == FULL


async def test_an_unknown_referral_is_not_found(shop: Shop, other_shop: Shop) -> None:
    await program(other_shop, reviewPolicy="ALL")
    await accepted(other_shop, await other_shop.member())
    (theirs,) = [edge["node"] for edge in (await other_shop.data(HELD_REFERRALS))["answer"]["edges"]]

    for node in (theirs["id"], f"referral_{'0' * 32}", "nonsense"):
        answer = await shop.refused(RELEASE_REFERRAL, referralId=node)
        assert answer == {"__typename": "NotFound", "message": "There is no such referral.", "id": node}


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST"])
async def test_only_admins_release(shop: Shop, role: str) -> None:
    key = await shop.key(role)

    assert await shop.failed(RELEASE_REFERRAL, referralId=f"referral_{'0' * 32}", key=key) == "FORBIDDEN"
