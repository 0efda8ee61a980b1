"""mergeMembers: two records of one person become one. Without these a person would lose or double what it has."""

from typing import Any

import pytest

from app import ids
from tests.coupons.test_campaign_job import sent
from tests.coupons.test_import_codes import imported
from tests.factories import (
    CLAIM_CODE,
    CREATE_CAMPAIGN,
    EDIT_MEMBER,
    ENROLL_MEMBER,
    VERIFY_MEMBER_EMAIL,
    Shop,
    problems,
    usd,
)
from tests.jobs.documents import carried_out
from tests.orders.documents import stackable
from tests.orders.holding import CAPTURE, hold
from tests.people.documents import MERGE as MERGE_MEMBERS
from tests.people.documents import check_merge, merge
from tests.points.documents import (
    CONFIGURE,
    GRANT,
    RECORD,
    REVERSE_REWARD,
    entries,
    grant,
    purchase,
    refund,
    reward,
    wallet,
)
from tests.points.documents import points as points_of
from tests.points.documents import redeem as have
from tests.referrals.documents import ACCEPT_INVITE, HELD_REFERRALS, accepted, invited, program, quota
from tests.wallets.sockets import address as socket_of
from tests.wallets.sockets import joined

ENTRIES = """
query ($id: ID!) {
  member(id: $id) { wallet { entries { edges { node { reason amount remaining spendableAt expiresAt } } } } }
}
"""
CODES = "query ($id: ID!) { member(id: $id) { wallet { codes { edges { node { id state } } } } } }"
PEOPLE = """
query ($id: ID!) {
  member(id: $id) {
    id displayName maskedEmail emailVerified pendingMaskedEmail externalIds { source id }
    mergedFrom { id displayName maskedEmail emailVerified }
  }
}
"""
REFERRED = "query ($id: ID!) { member(id: $id) { referredBy { referrer { id } reversedAt } } }"
FOUND = "query ($externalId: String, $email: String) { member(externalId: $externalId, email: $email) { id } }"


async def _two(shop: Shop, **merged: Any) -> tuple[Any, Any]:
    return await shop.member(), await shop.member(**merged)


async def _codes(shop: Shop, member: Any) -> dict[str, str]:
    """Return the codes of a member, each with its state."""
    edges = (await shop.data(CODES, {"id": member["id"]}))["member"]["wallet"]["codes"]["edges"]
    return {edge["node"]["id"]: edge["node"]["state"] for edge in edges}


# ---------------------------------------------------------------------------------------------------------- the answer


async def test_merging_again_is_the_same_answer(shop: Shop) -> None:
    kept, merged = await _two(shop)
    other = await shop.member()

    first = await merge(shop, kept, merged)
    assert (first["replayed"], first["member"]["id"]) == (False, kept["id"])
    state = await shop.state()
    for again in ((kept, merged), (merged, kept)):
        answer = await merge(shop, *again)
        assert (answer["replayed"], answer["member"]["id"]) == (True, kept["id"])
    assert await shop.state() == state

    # The merged id stands for the kept member here, too, and the older one follows.
    further = await merge(shop, other, merged)
    assert (further["replayed"], further["member"]["id"]) == (False, other["id"])
    assert {each["id"] for each in further["member"]["mergedFrom"]} == {kept["id"], merged["id"]}
    for each in (kept, merged):
        assert (await shop.data(PEOPLE, {"id": each["id"]}))["member"]["id"] == other["id"]
    assert await shop.broken_promises() == []


async def test_what_cannot_be_merged_is_refused(shop: Shop) -> None:
    kept, merged = await _two(shop)
    nobody = ids.encode("member", ids.new())

    same = await shop.refused(MERGE_MEMBERS, keptId=kept["id"], mergedId=kept["id"], reason="r")
    blank = await shop.refused(MERGE_MEMBERS, keptId=kept["id"], mergedId=merged["id"], reason=" ")
    lacking = [
        await shop.refused(MERGE_MEMBERS, keptId=kept["id"], mergedId=nobody, reason="r"),
        await shop.refused(MERGE_MEMBERS, keptId=nobody, mergedId=merged["id"], reason="r"),
    ]

    assert problems(same) == {"mergedId": "must be another member than keptId"}
    assert problems(blank) == {"reason": "must not be blank"}
    assert [(each["__typename"], each["id"]) for each in lacking] == [("NotFound", nobody)] * 2
    for each in (kept, merged):
        await shop.do(GRANT, memberId=each["id"], amount=2**31 - 1, reference="r", idempotencyKey=each["id"])
    full = await shop.refused(MERGE_MEMBERS, keptId=kept["id"], mergedId=merged["id"], reason="r")
    assert problems(full) == {"mergedId": "has more points than fit into the kept member's balance"}


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST"])
async def test_only_admin_and_support_merge(shop: Shop, role: str) -> None:
    kept, merged = await _two(shop)
    key = await shop.key(role)

    asked = {"keptId": kept["id"], "mergedId": merged["id"], "reason": "r"}

    assert await shop.failed(MERGE_MEMBERS, **asked, key=key) == "FORBIDDEN"


# ---------------------------------------------------------------------------------------------------------- points


async def test_each_lot_changes_hands_with_its_dates(shop: Shop) -> None:
    await shop.do(CONFIGURE, pointsPendingDays=14)
    kept, merged = await _two(shop)
    await grant(shop, kept, 10, "kept")
    await grant(shop, merged, 500, "merged", expiresAt="2030-01-01T00:00:00Z")
    await purchase(shop, merged, "order", 2000)
    had = await have(shop, await reward(shop, cost=100), merged, "key")
    before = await wallet(shop, merged)

    preview = await check_merge(shop, kept, merged)
    done = await merge(shop, kept, merged)

    assert (preview["points"], preview["purchases"]) == (420, 1)
    after = await wallet(shop, kept)
    assert (after["points"], after["pendingPoints"], after["nextExpiry"]) == (430, 20, before["nextExpiry"])
    assert done["member"]["wallet"]["points"] == 430
    edges = (await shop.data(ENTRIES, {"id": kept["id"]}))["member"]["wallet"]["entries"]["edges"]
    assert [(each["node"]["reason"], each["node"]["amount"], each["node"]["remaining"]) for each in edges] == [
        ("MERGE", 20, 20),
        ("MERGE", 400, 400),
        ("ADJUSTMENT", 10, 10),
    ]
    assert edges[1]["node"]["expiresAt"] == "2030-01-01T00:00:00Z"
    # What was paid for with points of a lot goes back to it.
    back = await shop.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken")
    assert back["__typename"].endswith("Success"), back
    assert (await wallet(shop, kept))["points"] == 530
    assert (await wallet(shop, kept))["nextExpiry"]["points"] == 500
    assert await shop.broken_promises() == []


async def test_a_return_takes_the_lot_of_its_own_purchase(shop: Shop) -> None:
    kept, merged = await _two(shop)
    await grant(shop, kept, 50, "kept", expiresAt="2029-01-01T00:00:00Z")
    await purchase(shop, merged, "order", 2000)
    await merge(shop, kept, merged)

    returned = await refund(shop, "order", "all", 2000)

    assert (returned["shortfall"], returned["purchase"]["member"]["id"]) == (0, kept["id"])
    assert (await wallet(shop, kept))["nextExpiry"]["points"] == 50
    assert await shop.broken_promises() == []


async def test_a_shortfall_moves_along_and_is_made_good(shop: Shop) -> None:
    kept, merged = await _two(shop)
    await purchase(shop, merged, "returned", 10_000)
    had = await have(shop, await reward(shop, cost=100), merged, "key")
    await refund(shop, "returned", "all", 10_000)
    assert (await wallet(shop, merged))["shortfall"] == 100

    await merge(shop, kept, merged)

    assert (await wallet(shop, kept))["shortfall"] == 100
    assert await shop.broken_promises() == []
    await purchase(shop, kept, "next", 3_000)
    assert ((await wallet(shop, kept))["shortfall"], await points_of(shop, kept)) == (70, 0)
    # The reward brings its points back, which fill what the return lacks first.
    await shop.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken")
    assert ((await wallet(shop, kept))["shortfall"], await points_of(shop, kept)) == (0, 30)
    assert await shop.broken_promises() == []


async def test_what_was_spent_before_the_first_of_two_mergings_comes_back_to_the_last(shop: Shop) -> None:
    first, second = await _two(shop)
    last = await shop.member()
    await purchase(shop, first, "order", 10_000)
    had = await have(shop, await reward(shop, cost=100), first, "key")
    await merge(shop, second, first)

    await merge(shop, last, second)

    assert await shop.broken_promises() == []
    await shop.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="broken")
    assert await points_of(shop, last) == 100
    assert (await refund(shop, "order", "all", 10_000))["shortfall"] == 0
    assert await points_of(shop, last) == 0
    assert await shop.broken_promises() == []


async def test_keys_of_both_go_on_answering(shop: Shop) -> None:
    kept, merged = await _two(shop, externalId="1001")
    bought = await purchase(shop, merged, "order", 2000)
    given = await grant(shop, merged, 5, "given")
    mug = await reward(shop, cost=10)
    had = await have(shop, mug, merged, "key")
    await merge(shop, kept, merged)
    state = await shop.state()

    again = [
        await purchase(shop, merged, "order", 2000),
        await shop.do(RECORD, member={"externalId": "1001"}, source="STORE", orderId="order", amount=usd(2000)),
        await grant(shop, merged, 5, "given"),
        await have(shop, mug, merged, "key"),
    ]

    assert [answer["replayed"] for answer in again] == [True] * 4
    assert again[0]["purchase"]["id"] == bought["purchase"]["id"]
    assert again[2]["entry"]["id"] == given["entry"]["id"]
    assert again[3]["redemption"]["id"] == had["redemption"]["id"]
    assert await shop.state() == state


# ------------------------------------------------------------------------------------------------------ codes, holds


@pytest.mark.parametrize("is_later_kept", [True, False])
async def test_of_codes_beyond_the_limit_the_latest_is_revoked(shop: Shop, *, is_later_kept: bool) -> None:
    kept, merged = await _two(shop)
    pool, other = await shop.pool(), await shop.pool(recycleExpired=True)
    early, late = (merged, kept) if is_later_kept else (kept, merged)
    first, alone = await shop.claim(pool, early), await shop.claim(other, merged)
    second = await shop.claim(pool, late)
    before = await shop.stock(pool)

    preview = await check_merge(shop, kept, merged)
    await merge(shop, kept, merged)

    assert (preview["codes"], preview["codesRevoked"]) == (2, 1)
    assert await _codes(shop, kept) == {first["id"]: "ALLOCATED", second["id"]: "REVOKED", alone["id"]: "ALLOCATED"}
    after = await shop.stock(pool)
    assert (after["available"], after["revoked"]) == (before["available"] + 1, 1)
    # Whoever asks again, by either id, has the one that stayed.
    for each in (kept, merged):
        again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=each["id"])
        assert (again["code"]["id"], again["replayed"]) == (first["id"], True)
    assert (await shop.redeem([first["text"]], merged))["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_what_is_spent_held_or_paid_for_stays(shop: Shop) -> None:
    kept, merged = await _two(shop)
    pool, priced = await shop.pool(), await shop.pool()
    await grant(shop, kept, 100, "kept")
    await grant(shop, merged, 100, "merged")
    mug = await reward(shop, cost=100, poolId=priced["id"])
    paid = [(await have(shop, mug, each, each["id"]))["redemption"]["code"]["id"] for each in (kept, merged)]
    spent, held = await shop.claim(pool, merged), await shop.claim(pool, kept)
    await shop.redeem([spent["text"]], merged)
    holding = await hold(shop, [held], kept)

    preview = await check_merge(shop, kept, merged)
    await merge(shop, kept, merged)

    assert (preview["codes"], preview["codesRevoked"]) == (2, 0)
    assert await _codes(shop, kept) == {
        spent["id"]: "REDEEMED", held["id"]: "ALLOCATED", paid[0]: "ALLOCATED", paid[1]: "ALLOCATED"
    }  # fmt: skip
    assert (await shop.do(CAPTURE, holdId=holding["id"]))["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []


async def test_holds_of_both_can_be_captured(shop: Shop) -> None:
    await shop.do(CONFIGURE, pointValue=0.01)
    kept, merged = await _two(shop)
    await grant(shop, kept, 500, "kept")
    await grant(shop, merged, 500, "merged")
    codes = await stackable(shop, merged, 1)
    own = await hold(shop, [], kept, order="A-1", points=200)
    other = await hold(shop, codes, merged, order="A-2", points=300)

    preview = await check_merge(shop, kept, merged)
    await merge(shop, kept, merged)

    assert preview["holds"] == 1
    found = await wallet(shop, kept)
    assert (found["points"], found["heldPoints"], found["spendablePoints"]) == (1000, 500, 500)
    for each in (own, other):
        captured = await shop.do(CAPTURE, holdId=each["id"])
        assert captured["__typename"] == "CaptureHoldSuccess", captured
    assert await points_of(shop, kept) == 500
    # Points that paid come back to the lots that they came from.
    await purchase(shop, merged, "A-2", 7000)
    assert (await refund(shop, "A-2", "all", 7000))["pointsReturned"] == 300
    assert await points_of(shop, kept) == 800
    assert await shop.broken_promises() == []


async def test_who_is_listed_twice_by_two_records_gets_one_code(shop: Shop) -> None:
    kept, merged = await _two(shop)
    other = await shop.member()
    pool, named = await shop.pool(), await shop.pool()
    campaign = await sent(shop, pool)
    await merge(shop, kept, merged)

    job = await carried_out(shop, campaign["job"])
    both = await shop.do(
        CREATE_CAMPAIGN, name="Both", poolId=named["id"],
        recipients=[{"memberId": merged["id"]}, {"memberId": kept["id"]}, {"memberId": other["id"]}],
    )  # fmt: skip

    assert (job["status"], job["total"], job["done"]) == ("DONE", 3, 2)
    assert [each for each in job["skipped"] if each["count"]] == [{"reason": "HAS_ALL", "count": 1}]
    assert both["campaign"]["recipientCount"] == 2
    assert len(await _codes(shop, kept)) == 2
    assert await shop.broken_promises() == []


# ---------------------------------------------------------------------------------------------------------- people


async def test_ids_and_proven_addresses_of_both_find_the_kept_member(shop: Shop) -> None:
    kept = await shop.member(externalId="1001", email="kim@example.com", emailVerified=True, displayName="Kim")
    merged = await shop.member(externalId="1002", email="kim.roe@example.com", emailVerified=True, displayName="K. Roe")

    preview = await check_merge(shop, kept, merged)
    await merge(shop, kept, merged)

    assert (preview["displayName"], preview["maskedEmail"]) == ("Kim", "k•••@example.com")
    found = (await shop.data(PEOPLE, {"id": merged["id"]}))["member"]
    assert (found["id"], found["displayName"], found["pendingMaskedEmail"]) == (kept["id"], "Kim", None)
    assert found["externalIds"] == [{"source": "STORE", "id": "1001"}, {"source": "STORE", "id": "1002"}]
    assert [(each["id"], each["displayName"]) for each in found["mergedFrom"]] == [(merged["id"], "K. Roe")]
    for key in ({"externalId": "1002"}, {"email": "kim.roe@example.com"}, {"email": "kim@example.com"}):
        assert (await shop.data(FOUND, key))["member"]["id"] == kept["id"]
    # It may be proved again as the one that is shown.
    edited = await shop.do(EDIT_MEMBER, memberId=kept["id"], email="kim.roe@example.com", emailVerified=True)
    assert edited["__typename"] == "EditMemberSuccess", edited
    assert await shop.broken_promises() == []


@pytest.mark.parametrize(
    ("kept", "merged", "shown"),
    [
        ({}, {"email": "a@example.com"}, ("a•••@example.com", False, None)),
        ({"email": "a@example.com"}, {"email": "b@example.com"}, ("a•••@example.com", False, None)),
        ({"email": "a@example.com"}, {"email": "b@example.com", "emailVerified": True},
         ("b•••@example.com", True, "a•••@example.com")),
        ({"email": "a@example.com", "emailVerified": True}, {"email": "b@example.com"},
         ("a•••@example.com", True, "b•••@example.com")),
        ({"email": "a@example.com"}, {"email": "a@example.com"}, ("a•••@example.com", False, None)),
    ],
)  # fmt: skip
async def test_a_proven_address_goes_first(shop: Shop, kept: Any, merged: Any, shown: Any) -> None:
    first, second = await shop.member(**kept), await shop.member(**merged)

    done = (await merge(shop, first, second))["member"]

    assert (done["maskedEmail"], done["emailVerified"], done["pendingMaskedEmail"]) == shown
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("proven", [True, False])
async def test_an_address_that_the_merged_record_has_proved_stays_the_persons(shop: Shop, *, proven: bool) -> None:
    kept = await shop.member(email="new@example.com", emailVerified=True)
    merged = await shop.member(email="old@example.com", emailVerified=True)
    await merge(shop, kept, merged)
    state = await shop.state()
    again = await shop.do(VERIFY_MEMBER_EMAIL, memberId=merged["id"], email="old@example.com")
    assert (again["__typename"], again["member"]["id"]) == ("VerifyMemberEmailSuccess", kept["id"])
    assert await shop.state() == state

    # Support shows it in place of the other one, and then a third.
    shown: dict[str, Any] = {"emailVerified": True} if proven else {}
    await shop.do(EDIT_MEMBER, memberId=kept["id"], email="old@example.com", **shown)
    await shop.do(EDIT_MEMBER, memberId=kept["id"], email="third@example.com", emailVerified=True)

    assert (await shop.data(FOUND, {"email": "old@example.com"}))["member"] == {"id": kept["id"]}
    refused = await shop.refused(ENROLL_MEMBER, source="STORE", email="old@example.com", emailVerified=True)
    assert (refused["__typename"], refused["existing"]["id"]) == ("MemberAlreadyExists", kept["id"])
    assert await shop.broken_promises() == []


async def test_tokens_of_the_merged_record_end_and_its_stream_says_so_last(shop: Shop) -> None:
    kept, merged = await _two(shop)
    await grant(shop, merged, 5, "merged")
    tokens = [await shop.token(each["id"]) for each in (kept, merged)]
    async with joined(socket_of(shop), tokens[0]) as own, joined(socket_of(shop), tokens[1]) as other:
        await own.follow(0)
        await other.follow(0)
        await merge(shop, kept, merged)
        seen = [(await other.change())["event"]["type"] for _ in range(3)]
        assert (await other.receive())["type"] == "complete"
        got = await own.change()

    assert seen == ["points.credited", "points.debited", "member.merged"]
    assert (got["version"], got["entry"]["reason"]) == (1, "MERGE")


async def test_an_earlier_grant_is_answered_by_either_id_and_an_import_takes_the_merged_one(shop: Shop) -> None:
    kept, merged = await _two(shop)
    first = await grant(shop, merged, 5, "key")
    await merge(shop, kept, merged)

    again = [await grant(shop, each, 5, "key") for each in (merged, kept)]
    pool = await shop.pool(codes=0, active=False)
    owned = await imported(shop, pool, {"text": "OLD-0000-0001", "memberId": merged["id"]})

    assert [(each["replayed"], each["entry"]["id"]) for each in again] == [(True, first["entry"]["id"])] * 2
    other = await shop.refused(GRANT, memberId=kept["id"], amount=6, reference="goodwill", idempotencyKey="key")
    assert other["__typename"] == "IdempotencyKeyReused"
    assert owned["__typename"] == "ImportCodesSuccess"
    assert len((await shop.data(CODES, {"id": kept["id"]}))["member"]["wallet"]["codes"]["edges"]) == 1


# ---------------------------------------------------------------------------------------------------------- referrals


async def _brought(shop: Shop, referrer: Any, **how: Any) -> Any:
    answer = await accepted(shop, referrer, **how)
    assert answer["referral"] is not None, answer
    return answer


async def test_a_second_referrer_and_a_circle_keep_two_apart(shop: Shop) -> None:
    await program(shop)
    first, second = await shop.member(), await shop.member()
    kept, merged = (await _brought(shop, first))["member"], await _brought(shop, second)

    refused = await shop.refused(MERGE_MEMBERS, keptId=kept["id"], mergedId=merged["member"]["id"], reason="r")

    assert (refused["__typename"], [each["id"] for each in refused["referrals"]]) == (
        "MembersNotMergeable", [merged["referral"]["id"]]
    )  # fmt: skip
    assert (await check_merge(shop, kept, merged["member"]))["__typename"] == "MembersNotMergeable"
    # Itself, and by somebody that it brought.
    own = await shop.refused(MERGE_MEMBERS, keptId=kept["id"], mergedId=first["id"], reason="r")
    below = await _brought(shop, kept)
    circle = await shop.refused(MERGE_MEMBERS, keptId=below["member"]["id"], mergedId=first["id"], reason="r")
    assert [len(each["referrals"]) for each in (own, circle)] == [1, 1]
    assert circle["referrals"][0]["id"] == below["referral"]["id"]


@pytest.mark.parametrize("is_earlier_kept", [True, False])
async def test_a_dropped_referral_falls_and_never_comes_back(shop: Shop, *, is_earlier_kept: bool) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    first, second = await shop.member(), await shop.member()
    people = []
    for referrer, order in ((first, "one"), (second, "two")):
        person = (await accepted(shop, referrer))["member"]
        await purchase(shop, person, order, 1000)
        people.append(person)
    kept, merged = people if is_earlier_kept else reversed(people)
    assert [await points_of(shop, each) for each in (first, second)] == [100, 100]

    done = await merge(shop, kept, merged, dropReferrals=True)

    assert done["__typename"] == "MergeMembersSuccess", done
    assert [await points_of(shop, each) for each in (first, second, kept)] == [100, 0, 50 + 20]
    assert (await shop.data(REFERRED, {"id": kept["id"]}))["member"]["referredBy"]["referrer"]["id"] == first["id"]
    await purchase(shop, kept, "three", 1000)
    assert [await points_of(shop, each) for each in (first, second)] == [100, 0]
    # The one that stands still falls with the purchases that it could stand by, and comes back.
    for order in ("one", "two", "three"):
        await refund(shop, order, "all", 1000)
    assert await points_of(shop, first) == 0
    await purchase(shop, kept, "four", 1000)
    assert [await points_of(shop, each) for each in (first, second)] == [100, 0]
    assert await shop.broken_promises() == []


async def test_what_the_merged_member_brought_is_the_kept_ones(shop: Shop) -> None:
    await program(shop, invitesPerDay=5)
    kept, merged = await _two(shop)
    brought = await _brought(shop, merged)
    await invited(shop, kept)

    preview = await check_merge(shop, kept, merged)
    await merge(shop, kept, merged)

    assert preview["referralCount"] == 1
    referred = (await shop.data(REFERRED, {"id": brought["member"]["id"]}))["member"]["referredBy"]
    assert referred == {"referrer": {"id": kept["id"]}, "reversedAt": None}
    assert (await quota(shop, kept))["remainingToday"] == 3
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("is_sender_kept", [True, False])
async def test_an_own_invite_that_was_accepted_and_waits_expires(shop: Shop, *, is_sender_kept: bool) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    sender = await shop.member()
    person = (await accepted(shop, sender))["member"]
    kept, merged = (sender, person) if is_sender_kept else (person, sender)

    done = await merge(shop, kept, merged)

    assert done["__typename"] == "MergeMembersSuccess", done
    await purchase(shop, kept, "order", 1000)
    assert await points_of(shop, kept) == 10
    assert "invite.expired" in await shop.event_types()
    assert await shop.broken_promises() == []


async def test_a_referral_that_waits_for_a_review_just_ends(shop: Shop) -> None:
    await program(shop, reviewPolicy="ALL")
    kept = await shop.member()
    merged = (await accepted(shop, kept))["member"]

    done = await merge(shop, kept, merged)

    assert done["__typename"] == "MergeMembersSuccess"
    held = (await shop.data(HELD_REFERRALS))["answer"]["edges"]
    assert (held, await points_of(shop, kept)) == ([], 0)
    assert await shop.broken_promises() == []


async def test_an_invite_to_another_spelling_of_an_address_that_merging_dropped_is_to_oneself(shop: Shop) -> None:
    await program(shop)
    kept = await shop.member(email="kim@example.com", emailVerified=True)
    await shop.do(EDIT_MEMBER, memberId=kept["id"], email="waits@example.com")
    await merge(shop, kept, await shop.member(email="dropped@gmail.com"))

    own = await accepted(shop, kept, email="drop.ped@gmail.com")

    assert (own["referral"], own["obstacle"]) == (None, "SELF")


async def test_a_second_accepted_invite_expires_and_one_to_an_own_address_ends(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    first, second = await shop.member(), await shop.member()
    kept, merged = [(await accepted(shop, each))["member"] for each in (first, second)]
    other = await shop.member(email="kim@example.com", emailVerified=True)
    _, email = await invited(shop, other)
    invite, own = await invited(shop, kept, "kim+shop@example.com")
    third = await shop.member()
    later, again = await invited(shop, third, "kim+later@example.com")
    await merge(shop, kept, merged)
    await merge(shop, kept, other)
    # Whose address it is was merged before.
    await merge(shop, kept, third)

    late = [await shop.do(ACCEPT_INVITE, token=sent["token"], email=to) for sent, to in ((invite, own), (later, again))]

    assert [(each["__typename"], each["status"]) for each in late] == [("InviteNotUsable", "CANCELLED")] * 2
    bought = await purchase(shop, merged, "order", 1000)
    assert bought["__typename"] == "RecordPurchaseSuccess"
    assert [await points_of(shop, each) for each in (first, second)] == [100, 0]
    assert email
    assert await entries(shop, second) == []
    assert await shop.broken_promises() == []
