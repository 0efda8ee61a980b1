"""Who an address belongs to. Without these whoever writes one down first could block its owner, or be its heir."""

from typing import Any

import pytest

from app import ids
from app.storage.database import database
from tests.coupons.ownership import breaches, claim_by_email, verify
from tests.coupons.test_ownership import present, wallet
from tests.factories import ENROLL_MEMBER, VERIFY_MEMBER_EMAIL, Shop, problems
from tests.people.documents import addresses

JANE = "jane.doe@example.com"
KIM = "kim@example.com"
NOBODY = (None, False, None)
EVENTS = "SELECT subject_id FROM event WHERE merchant_id = $1 AND type = $2 ORDER BY id"


async def subjects(shop: Shop, event_type: str) -> list[str]:
    """Return the members that events of a type are about."""
    rows = await database().rows(EVENTS, shop.merchant_id, event_type)
    return [ids.encode("member", row["subject_id"]) for row in rows]


# --------------------------------------------------------------------------------------------------- written down


async def test_any_number_of_members_may_write_an_address_down(shop: Shop) -> None:
    members = [await shop.member(email=JANE) for _ in range(3)]

    assert len({member["id"] for member in members}) == 3
    assert [await addresses(shop, member) for member in members] == [("j•••@example.com", False, None)] * 3
    assert await breaches(shop) == {}


async def test_an_address_that_another_has_proved_is_refused_proved_or_not(shop: Shop) -> None:
    owner = await shop.member(email=JANE, emailVerified=True)

    for verified in (False, True):
        refused = await shop.refused(ENROLL_MEMBER, source="STORE", email=JANE.upper(), emailVerified=verified)
        assert (refused["__typename"], refused["existing"]) == ("MemberAlreadyExists", {"id": owner["id"]})


async def test_whoever_wrote_an_address_down_first_gets_nothing_of_its_owners(shop: Shop) -> None:
    """A stranger enrols with Jane's address; Jane's codes wait for Jane all the same."""
    code = await claim_by_email(shop, await shop.pool(), JANE)
    stranger = await shop.member(email=JANE)

    jane = await shop.do(ENROLL_MEMBER, source="STORE", email=JANE, emailVerified=True)

    assert jane["displaced"] == [{"id": stranger["id"]}]
    assert [each["id"] for each in (await wallet(shop, jane["member"]))[1]] == [code["id"]]
    assert await wallet(shop, stranger) == (0, [])
    assert await present(shop, code, memberId=stranger["id"]) == "NOT_OWNER"
    assert await addresses(shop, stranger) == NOBODY
    assert await breaches(shop) == {}


# -------------------------------------------------------------------------------------------------------- proving


async def test_a_proof_takes_the_address_from_all_who_wrote_it_down(shop: Shop) -> None:
    first, second, other = [await shop.member(email=email) for email in (JANE, JANE, KIM)]
    jane = await shop.member(email=JANE)
    before = await shop.state()

    answer = await shop.do(VERIFY_MEMBER_EMAIL, memberId=jane["id"])

    assert (answer["member"]["emailVerified"], answer["displaced"]) == (
        True,
        [{"id": first["id"]}, {"id": second["id"]}],
    )
    assert (await shop.state()).since(before) == {"member": 0, "address": 0, "event": 3}
    assert await subjects(shop, "member.email_verified") == [jane["id"]]
    assert await subjects(shop, "member.email_displaced") == [first["id"], second["id"]]
    assert [await addresses(shop, member) for member in (first, second)] == [NOBODY] * 2
    assert await addresses(shop, other) == ("k•••@example.com", False, None)
    assert await addresses(shop, jane) == ("j•••@example.com", True, None)
    assert await breaches(shop) == {}


async def test_enrolling_with_a_proof_takes_the_address_too(shop: Shop) -> None:
    first = await shop.member(email=JANE)

    answer = await shop.do(ENROLL_MEMBER, source="STORE", email=JANE, emailVerified=True)

    assert answer["displaced"] == [{"id": first["id"]}]
    assert await subjects(shop, "member.email_displaced") == [first["id"]]
    assert (await shop.event_types())[-2:] == ["member.enrolled", "member.email_displaced"]
    assert await breaches(shop) == {}


async def test_the_first_to_prove_an_address_has_it(shop: Shop) -> None:
    first, second = await shop.member(email=JANE), await shop.member(email=JANE)
    await verify(shop, first)

    assert problems(await shop.refused(VERIFY_MEMBER_EMAIL, memberId=second["id"])) == {
        "memberId": "names a member without an address"
    }
    named = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=second["id"], email=JANE)
    assert (named["__typename"], named["existing"]) == ("MemberAlreadyExists", {"id": first["id"]})


@pytest.mark.parametrize("spelling", [JANE, f"  {JANE.upper()} "])
async def test_a_proof_may_name_its_address(shop: Shop, spelling: str) -> None:
    member = await shop.member(email=JANE)

    answer = await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], email=spelling)
    before = await shop.state()
    again = await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], email=spelling)

    assert answer["member"]["emailVerified"] is True
    assert again == answer
    assert await shop.state() == before


@pytest.mark.parametrize("held", [{}, {"email": JANE}, {"email": "own@example.com", "emailVerified": True}])
async def test_a_proof_of_an_address_that_is_not_the_members_counts_for_nothing(shop: Shop, held: Any) -> None:
    member = await shop.member(**held)

    refused = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=member["id"], email=KIM)

    assert problems(refused) == {"email": "must be the member's present or pending address"}


async def test_a_proof_of_what_is_no_address_is_refused(shop: Shop) -> None:
    member = await shop.member(email=JANE)

    refused = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=member["id"], email="jane")

    assert problems(refused) == {"email": "must be an e-mail address"}


# ------------------------------------------------------------------------------------------------------ at the till


async def test_a_code_that_has_a_member_answers_to_its_proven_address_only(shop: Shop) -> None:
    """However the member came by it: claimed as a member, by e-mail before the proof, and by e-mail after it."""
    pools = [await shop.pool() for _ in range(3)]
    before = await claim_by_email(shop, pools[0], JANE)
    jane = await shop.member(email=JANE)
    own = await shop.claim(pools[1], jane)
    assert await present(shop, own, email=JANE) == "NOT_OWNER"
    await verify(shop, jane)
    after = await claim_by_email(shop, pools[2], JANE)
    rows = await database().rows("SELECT email_index FROM code WHERE merchant_id = $1", shop.merchant_id)

    for code in (before, own, after):
        assert await present(shop, code, email=KIM) == "NOT_OWNER"
        assert await present(shop, code, email=JANE) == "REDEEMED"
    assert {row["email_index"] for row in rows} == {None}
    assert await breaches(shop) == {}
