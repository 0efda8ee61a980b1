"""editMember. Without these an edit could lose somebody's codes, or hand them to whoever has the address next."""

from typing import Any

import pytest

from app import ids
from app.storage.database import database
from tests.coupons.ownership import breaches, claim_by_email, send, verify
from tests.coupons.test_ownership import NOBODY, present, wallet
from tests.factories import CLAIM_CODE, EDIT_MEMBER, ENROLL_MEMBER, VERIFY_MEMBER_EMAIL, Shop, problems
from tests.people.documents import addresses
from tests.points.documents import points
from tests.referrals.documents import ACCEPT_INVITE, invited, program

JANE = "jane.doe@example.com"
NEW = "new.doe@example.com"
DELIVERIES = """
query ($id: ID!) { campaign(id: $id) { deliveries { edges { node { recipient code { id } } } } } }
"""


async def edit(shop: Shop, member: Any, **input: Any) -> Any:
    """Edit a member and return the answer, which must be a success."""
    answer = await shop.do(EDIT_MEMBER, memberId=member["id"], **input)
    assert answer["__typename"] == "EditMemberSuccess", answer
    return answer


async def enrolled(shop: Shop, *, proven: bool = True) -> Any:
    """Enrol Jane."""
    return await shop.member(email=JANE, emailVerified=proven, displayName="Jane")


# ------------------------------------------------------------------------------------------------- name and ids


async def test_what_is_left_out_stays_and_null_removes(shop: Shop) -> None:
    jane = await shop.member(email=JANE, displayName="Jane", externalId="1001")
    untouched = (await edit(shop, jane))["member"]

    renamed = (await edit(shop, jane, displayName=" Jane Roe "))["member"]
    bare = (await edit(shop, jane, displayName=None, externalId=None, email=None))["member"]

    assert (untouched["displayName"], untouched["externalId"], untouched["maskedEmail"]) == (
        "Jane", "1001", "j•••@example.com"
    )  # fmt: skip
    assert renamed == untouched | {"displayName": "Jane Roe"}
    assert bare == untouched | {"displayName": None, "externalId": None, "externalIds": [], "maskedEmail": None}


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"displayName": "Jane"},
        {"externalId": " 1001 "},
        {"externalId": None, "externalSource": "SHOPIFY"},
        {"email": JANE.upper()},
        {"emailVerified": True},
        {"email": JANE, "emailVerified": True},
    ],
)
async def test_the_same_again_is_no_change(shop: Shop, same: dict[str, Any]) -> None:
    jane = await shop.member(email=JANE, emailVerified=True, displayName="Jane", externalId="1001")
    before = await shop.state()

    answer = await edit(shop, jane, **same)

    assert answer["displaced"] == []
    assert await shop.state() == before


async def test_each_source_has_an_id_of_its_own_and_an_edit_replaces_that_of_one(shop: Shop) -> None:
    jane = await shop.member(externalId="1001")

    await edit(shop, jane, externalId="gid-1", externalSource="SHOPIFY")
    answer = await edit(shop, jane, externalId="gid-2", externalSource="SHOPIFY")
    till = await edit(shop, jane, externalId="2002")

    assert answer["member"]["externalId"] == "1001"
    assert till["member"]["externalId"] == "2002"
    assert till["member"]["externalIds"] == [{"source": "SHOPIFY", "id": "gid-2"}, {"source": "STORE", "id": "2002"}]
    assert (await shop.event_types())[-3:] == ["member.edited"] * 3
    # What was given up is free.
    await shop.member(externalId="1001")
    await shop.member(externalId="gid-1", externalSource="SHOPIFY")


async def test_an_id_that_another_member_has_of_the_source_is_refused(shop: Shop) -> None:
    first, second = await shop.member(externalId="1001"), await shop.member(externalId="1002")

    refused = await shop.refused(EDIT_MEMBER, memberId=second["id"], externalId="1001", displayName="Kim")
    other = await edit(shop, second, externalId="1001", externalSource="SHOPIFY")

    assert (refused["__typename"], refused["existing"]) == ("MemberAlreadyExists", {"id": first["id"]})
    assert other["member"]["externalIds"] == [{"source": "SHOPIFY", "id": "1001"}, {"source": "STORE", "id": "1002"}]


async def test_an_edit_names_ids_and_no_person_in_its_event(shop: Shop) -> None:
    jane = await enrolled(shop)
    before = await shop.state()

    await edit(shop, jane, displayName="Jane Roe", email=NEW, externalId="77")

    assert (await shop.state()).since(before) == {"member": 0, "external_id": 0, "address": 1, "event": 1}
    (event,) = await database().rows(
        "SELECT e::text AS row, subject_id FROM event e WHERE merchant_id = $1 AND type = 'member.edited'",
        shop.merchant_id,
    )
    assert ids.encode("member", event["subject_id"]) == jane["id"]
    assert not any(secret in event["row"].lower() for secret in ("jane", "roe", "example.com"))


# -------------------------------------------------------------------------------------------------- a new address


async def test_a_new_address_waits_beside_a_proven_one(shop: Shop) -> None:
    jane = await enrolled(shop)

    answer = await edit(shop, jane, email=NEW)

    assert await addresses(shop, jane) == ("j•••@example.com", True, "n•••@example.com")
    assert answer["displaced"] == []
    assert await breaches(shop) == {}


async def test_a_new_address_takes_the_place_of_one_that_isnt_proven(shop: Shop) -> None:
    jane = await enrolled(shop, proven=False)

    await edit(shop, jane, email=NEW)

    assert await addresses(shop, jane) == ("n•••@example.com", False, None)
    assert await breaches(shop) == {}


async def test_the_present_address_again_ends_what_is_pending(shop: Shop) -> None:
    jane = await enrolled(shop)
    await edit(shop, jane, email=NEW)

    await edit(shop, jane, email=JANE)

    assert await addresses(shop, jane) == ("j•••@example.com", True, None)
    assert problems(await shop.refused(VERIFY_MEMBER_EMAIL, memberId=jane["id"], email=NEW)) == {
        "email": "must be the member's present or pending address"
    }


async def test_a_pending_address_that_is_proven_takes_the_others_place(shop: Shop) -> None:
    jane, other = await enrolled(shop), await shop.member(email=NEW)
    own = await shop.claim(await shop.pool(), jane)
    waiting = await claim_by_email(shop, await shop.pool(), NEW)
    await edit(shop, jane, email=NEW)

    answer = await shop.do(VERIFY_MEMBER_EMAIL, memberId=jane["id"], email=NEW)

    assert answer["displaced"] == [{"id": other["id"]}]
    assert await addresses(shop, jane) == ("n•••@example.com", True, None)
    assert {code["id"] for code in (await wallet(shop, jane))[1]} == {own["id"], waiting["id"]}
    assert await present(shop, own, email=JANE) == "NOT_OWNER"
    assert await present(shop, own, email=NEW) == "REDEEMED"
    assert await breaches(shop) == {}


async def test_another_may_write_down_and_prove_an_address_that_somebody_left(shop: Shop) -> None:
    """And gets none of the codes that were claimed under it, shown or spent."""
    pool = await shop.pool(codes=5)
    jane = await enrolled(shop)
    code = await claim_by_email(shop, pool, JANE)
    await edit(shop, jane, email=NEW, emailVerified=True)

    stranger = await shop.do(ENROLL_MEMBER, source="STORE", email=JANE, emailVerified=True)
    theirs = await claim_by_email(shop, pool, JANE)

    assert stranger["displaced"] == []
    assert theirs["id"] != code["id"]
    assert [each["id"] for each in (await wallet(shop, stranger["member"]))[1]] == [theirs["id"]]
    assert await present(shop, code, email=JANE) == "NOT_OWNER"
    assert await present(shop, code, email=NEW) == "REDEEMED"
    assert await breaches(shop) == {}


async def test_a_delivery_goes_where_its_member_is_now(shop: Shop) -> None:
    """The campaign went to an address that became Jane's, and that Jane has left since."""
    sent = await send(shop, await shop.pool(), {"email": JANE})
    jane = await enrolled(shop)

    async def recipient() -> str:
        found = await shop.data(DELIVERIES, {"id": sent["campaign"]["id"]})
        return str(found["campaign"]["deliveries"]["edges"][0]["node"]["recipient"])

    assert await recipient() == JANE
    await edit(shop, jane, email=NEW, emailVerified=True)
    assert await recipient() == NEW
    await edit(shop, jane, emailVerified=False)
    assert await recipient() == jane["id"]


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("verified", [{}, {"emailVerified": True}, {"emailVerified": False}])
async def test_an_address_that_another_has_proved_is_refused(
    shop: Shop, verified: dict[str, Any], *, proven: bool
) -> None:
    owner = await shop.member(email=NEW, emailVerified=True)
    jane = await enrolled(shop, proven=proven)

    refused = await shop.refused(EDIT_MEMBER, memberId=jane["id"], email=NEW.upper(), displayName="Kim", **verified)

    assert (refused["__typename"], refused["existing"]) == ("MemberAlreadyExists", {"id": owner["id"]})


# ------------------------------------------------------------------------------------------------ proofs by an edit


async def test_an_edit_may_prove_its_address_at_once(shop: Shop) -> None:
    jane, other = await enrolled(shop), await shop.member(email=NEW)

    answer = await edit(shop, jane, email=NEW, emailVerified=True)

    assert answer["displaced"] == [{"id": other["id"]}]
    assert await addresses(shop, jane) == ("n•••@example.com", True, None)
    assert (await shop.event_types())[-3:] == ["member.edited", "member.email_verified", "member.email_displaced"]
    assert await breaches(shop) == {}


@pytest.mark.parametrize("proven", [True, False])
async def test_verified_alone_proves_the_pending_address_else_the_present_one(shop: Shop, *, proven: bool) -> None:
    jane = await enrolled(shop, proven=proven)
    if proven:
        await edit(shop, jane, email=NEW)

    await edit(shop, jane, emailVerified=True)

    assert await addresses(shop, jane) == (f"{'n' if proven else 'j'}•••@example.com", True, None)


async def test_a_withdrawn_proof_frees_the_address_and_takes_no_code(shop: Shop) -> None:
    jane = await enrolled(shop)
    code = await claim_by_email(shop, await shop.pool(), JANE)

    answer = await edit(shop, jane, emailVerified=False)

    assert answer["member"]["emailVerified"] is False
    assert await addresses(shop, jane) == ("j•••@example.com", False, None)
    assert (await shop.event_types())[-1] == "member.email_unverified"
    assert [each["id"] for each in (await wallet(shop, jane))[1]] == [code["id"]]
    assert await present(shop, code, email=JANE) == "NOT_OWNER"
    other = await shop.do(ENROLL_MEMBER, source="STORE", email=JANE, emailVerified=True)
    assert other["displaced"] == [{"id": jane["id"]}]
    assert await present(shop, code, email=JANE) == "NOT_OWNER"
    assert await present(shop, code, memberId=jane["id"]) == "REDEEMED"
    assert await breaches(shop) == {}


async def test_what_is_pending_takes_the_place_of_an_address_whose_proof_is_withdrawn(shop: Shop) -> None:
    jane = await enrolled(shop)
    await edit(shop, jane, email=NEW)

    await edit(shop, jane, emailVerified=False)

    assert await addresses(shop, jane) == ("n•••@example.com", False, None)
    assert await breaches(shop) == {}


async def test_an_address_may_be_replaced_with_its_proof_withdrawn(shop: Shop) -> None:
    jane = await enrolled(shop)

    await edit(shop, jane, email=NEW, emailVerified=False)

    assert await addresses(shop, jane) == ("n•••@example.com", False, None)
    assert (await shop.do(ENROLL_MEMBER, source="STORE", email=JANE, emailVerified=True))["displaced"] == []
    assert await breaches(shop) == {}


async def test_removing_the_address_removes_both_and_frees_them(shop: Shop) -> None:
    jane = await enrolled(shop)
    await edit(shop, jane, email=NEW)

    await edit(shop, jane, email=None)

    assert await addresses(shop, jane) == (None, False, None)
    for email in (JANE, NEW):
        assert (await shop.do(ENROLL_MEMBER, source="STORE", email=email, emailVerified=True))["displaced"] == []
    assert await breaches(shop) == {}


# ------------------------------------------------------------------------------------------ proofs of an old address


@pytest.mark.parametrize("proven", [True, False])
async def test_a_proof_of_an_address_that_was_edited_meanwhile_counts_for_nothing(shop: Shop, *, proven: bool) -> None:
    """The link in the old mail is followed after the address was corrected."""
    old, jane = "jnae@example.com", await enrolled(shop, proven=proven)
    await edit(shop, jane, email=old)
    await edit(shop, jane, email=NEW)

    for named in ({"email": old}, {}):
        refused = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=jane["id"], **named)
        assert list(problems(refused)) == ["email"]
    await verify(shop, jane, email=NEW)
    assert await addresses(shop, jane) == ("n•••@example.com", True, None)


async def test_a_proof_without_an_address_counts_until_the_first_edit(shop: Shop) -> None:
    jane = await enrolled(shop, proven=False)
    await edit(shop, jane, displayName="Jane Roe", externalId="1")

    await verify(shop, jane)
    await edit(shop, jane, email=NEW)

    refused = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=jane["id"])
    assert problems(refused) == {"email": "must name the address that was proved, because the member's was edited"}


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("input", "wrong"),
    [
        ({"externalId": ""}, {"externalId": "must not be blank"}),
        ({"externalId": "x" * 101}, {"externalId": "must be at most 100 characters"}),
        ({"externalSource": "SHOPIFY"}, {"externalSource": "needs an externalId"}),
        ({"email": "jane"}, {"email": "must be an e-mail address"}),
        ({"email": None, "emailVerified": True}, {"emailVerified": "needs an address"}),
        ({"emailVerified": None}, {"emailVerified": "must be true or false"}),
        ({"emailVerified": True}, {"emailVerified": "needs an address"}),
        ({"displayName": "\u200b"}, {"displayName": "must not be blank"}),
        ({"displayName": "x" * 201}, {"displayName": "must be at most 200 characters"}),
        (
            {"displayName": "\x00", "email": "", "externalId": "\n1\n2"},
            {
                "externalId": "must not contain control characters",
                "email": "must be an e-mail address",
                "displayName": "must not contain control characters",
            },
        ),
    ],
)
async def test_a_bad_edit_is_refused_with_all_its_problems(
    shop: Shop, input: dict[str, Any], wrong: dict[str, str]
) -> None:
    member = await shop.member()

    assert problems(await shop.refused(EDIT_MEMBER, memberId=member["id"], **input)) == wrong


async def test_a_member_that_doesnt_exist_or_is_another_merchants_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member(email=JANE)

    for named in ("", "7", NOBODY, theirs["id"]):
        refused = await shop.refused(EDIT_MEMBER, memberId=named, email=NEW, externalId="1")
        assert (refused["__typename"], refused["id"]) == ("NotFound", named)


async def test_editing_is_for_who_repairs(shop: Shop) -> None:
    jane = await enrolled(shop)

    for key in (await shop.key("CHECKOUT"), await shop.key("ANALYST"), await shop.token(jane["id"])):
        assert await shop.failed(EDIT_MEMBER, key=key, memberId=jane["id"], displayName="Kim") == "FORBIDDEN"


async def test_an_edit_of_the_address_loses_no_claim_and_gives_no_second(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    jane = await enrolled(shop)
    code = await claim_by_email(shop, pool, JANE)
    await edit(shop, jane, email=NEW, emailVerified=True)
    before = await shop.state()

    names: list[dict[str, Any]] = [{"email": NEW}, {"memberId": jane["id"]}, {"member": {"email": NEW}}]
    for name in names:
        answer = await shop.do(CLAIM_CODE, poolId=pool["id"], **name)
        assert (answer["replayed"], answer["code"]["id"]) == (True, code["id"])
    assert await shop.state() == before


async def test_an_edit_that_proves_the_address_converts_the_invite_that_waited_for_it(shop: Shop) -> None:
    await program(shop)
    invite, email = await invited(shop, referrer := await shop.member())
    friend = (await shop.do(ACCEPT_INVITE, token=invite["token"], email=email))["member"]
    before = await points(shop, friend)

    edited = await shop.do(EDIT_MEMBER, memberId=friend["id"], emailVerified=True)

    assert (before, edited["member"]["emailVerified"]) == (0, True)
    assert (await points(shop, referrer), await points(shop, friend)) == (100, 50)


async def test_a_pending_address_takes_its_mailbox_along(shop: Shop) -> None:
    """Else a second invite to another spelling of the new address would be paid for."""
    await program(shop)
    first, email = await invited(shop, await shop.member())
    friend = (await shop.do(ACCEPT_INVITE, token=first["token"], email=email, emailVerified=True))["member"]
    await shop.do(EDIT_MEMBER, memberId=friend["id"], email="kim.roe@gmail.com", emailVerified=True)
    second, _ = await invited(shop, await shop.member())

    answer = await shop.do(ACCEPT_INVITE, token=second["token"], email="kimroe+shop@gmail.com", emailVerified=True)

    assert (answer["obstacle"], answer["referral"]) == ("EXISTING_CUSTOMER", None)
