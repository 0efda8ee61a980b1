"""enrollMember. Without these one person could become two members, or an address be kept where it can be read."""

import asyncio
from typing import Any

import pytest

from app.api.inputs import Problems, normalise_email
from app.members.rows import FIND_EXISTING
from app.storage.database import database
from tests.conftest import Api
from tests.factories import ENROLL_MEMBER, Shop
from tests.scratch import buffers_planned_on_nothing

SAME_PERSON = "A member with this external id or address is enrolled already."
MEMBERS = """
WITH m AS (
    INSERT INTO member (merchant_id, id, external_id, email_verified, source, joined_at)
    SELECT $1, gen_random_uuid(), 'c-' || each, false, 'STORE', now() FROM generate_series(1, 2000) AS each
    RETURNING merchant_id, id, source, external_id
), named AS (
    INSERT INTO external_id (merchant_id, member_id, source, external_id)
    SELECT merchant_id, id, source, external_id FROM m
)
INSERT INTO wallet (merchant_id, member_id, version) SELECT merchant_id, id, 0 FROM m
"""


async def test_a_member_with_all_fields_is_enrolled_with_a_new_wallet(shop: Shop) -> None:
    before = await shop.state()

    answer = await shop.do(
        ENROLL_MEMBER,
        externalId=" c-1001 ",
        email="  Ada.Lovelace@Example.COM ",
        emailVerified=True,
        displayName=" Ada 🦋 ",
        source="SHOPIFY",
    )

    member = answer["member"]
    assert answer["__typename"] == "EnrollMemberSuccess"
    assert member["id"].startswith("member_")
    assert member == {
        "id": member["id"],
        "externalId": "c-1001",
        "displayName": "Ada 🦋",
        "maskedEmail": "a•••@example.com",
        "emailVerified": True,
        "source": "SHOPIFY",
        "joinedAt": member["joinedAt"],
        "wallet": {"id": member["id"].replace("member_", "wallet_"), "version": 0},
    }
    assert (await shop.state()).since(before) == {
        "member": 1, "external_id": 1, "wallet": 1, "address": 1, "event": 1
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "member.enrolled"


@pytest.mark.parametrize("source", ["STORE", "SHOPIFY", "RECEIPT", "REFERRAL", "IMPORT"])
async def test_a_source_is_all_that_a_member_needs(shop: Shop, source: str) -> None:
    member = (await shop.do(ENROLL_MEMBER, source=source))["member"]

    shown = (member["externalId"], member["displayName"], member["maskedEmail"], member["emailVerified"])
    assert shown == (None, None, None, False)
    assert member["source"] == source


async def test_members_without_id_and_address_are_different_people(shop: Shop) -> None:
    first = await shop.do(ENROLL_MEMBER, source="STORE")
    second = await shop.do(ENROLL_MEMBER, source="STORE")

    assert first["member"]["id"] != second["member"]["id"]


async def test_a_checkout_enrols_members(shop: Shop) -> None:
    answer = await shop.do(ENROLL_MEMBER, key=await shop.key("CHECKOUT"), source="STORE", externalId="c-2")

    assert answer["member"]["externalId"] == "c-2"


async def test_address_and_name_are_stored_encrypted(shop: Shop) -> None:
    await shop.do(ENROLL_MEMBER, source="STORE", email="grace.hopper@example.com", displayName="Grace Hopper")

    stored = await database().rows(
        "SELECT m::text AS row, email, email_index, display_name FROM member m WHERE merchant_id = $1",
        shop.merchant_id,
    )
    recorded = await database().rows("SELECT e::text AS row FROM event e WHERE merchant_id = $1", shop.merchant_id)
    for row in [*stored, *recorded]:
        for secret in ("grace", "hopper", "example", "Grace"):
            assert secret not in row["row"].lower()
            assert secret.encode().hex() not in row["row"].lower()
    assert len(stored[0]["email_index"]) == 32


@pytest.mark.parametrize(
    "spelling",
    [
        "jane.doe@example.com",
        "  jane.doe@example.com\t",
        "JANE.DOE@EXAMPLE.COM",
        "\uff4a\uff41\uff4e\uff45.doe@example.com",
        "jane.doe@example\uff0ecom",
        "\u00a0Jane.Doe@example.com\u3000",
    ],
    ids=["same", "spaces", "capitals", "full width", "full-width dot", "other spaces"],
)
async def test_a_proven_address_is_one_member_however_it_is_spelled(shop: Shop, spelling: str) -> None:
    first = await shop.member(email="jane.doe@example.com", emailVerified=True)

    answer = await shop.refused(ENROLL_MEMBER, source="SHOPIFY", externalId="another", email=spelling)

    assert answer == {"__typename": "MemberAlreadyExists", "message": SAME_PERSON, "existing": {"id": first["id"]}}


async def test_who_is_a_member_already_is_found_by_its_keys_whatever_the_planner_knew() -> None:
    rows, buffers = await buffers_planned_on_nothing(
        FIND_EXISTING, MEMBERS, external_source="STORE", external_id="c-2000", email_index=b"\x01"
    )

    assert rows == 1
    assert buffers < 40


@pytest.mark.parametrize("address", ["J\u030cane@example.com", "\u0130\u0316@example.com", "\u1e9e@example.com"])
def test_normalising_twice_is_normalising_once(address: str) -> None:
    once = normalise_email(address)

    assert normalise_email(once) == once


async def test_a_letter_that_composes_only_in_lower_case_is_the_same_address(shop: Shop) -> None:
    first = await shop.member(email="\u01f0ane@example.com", emailVerified=True)

    answer = await shop.do(ENROLL_MEMBER, source="STORE", email="J\u030cane@example.com")

    assert answer["existing"] == {"id": first["id"]}


async def test_the_same_external_id_is_the_same_member(shop: Shop) -> None:
    first = await shop.member(externalId="c-77", email="first@example.com")

    answer = await shop.refused(ENROLL_MEMBER, source="STORE", externalId=" c-77 ", email="second@example.com")

    assert answer == {"__typename": "MemberAlreadyExists", "message": SAME_PERSON, "existing": {"id": first["id"]}}


async def test_id_of_one_and_address_of_another_shows_the_one_enrolled_first(shop: Shop) -> None:
    first = await shop.member(email="one@example.com", emailVerified=True)
    second = await shop.member(externalId="c-two")

    answer = await shop.refused(ENROLL_MEMBER, source="STORE", externalId="c-two", email="one@example.com")

    assert second["id"] != first["id"]
    assert answer["existing"] == {"id": first["id"]}


async def test_external_ids_differ_by_case(shop: Shop) -> None:
    await shop.member(externalId="abc")

    assert (await shop.do(ENROLL_MEMBER, source="STORE", externalId="ABC"))["__typename"] == "EnrollMemberSuccess"


async def test_two_merchants_can_know_the_same_person(shop: Shop, other_shop: Shop) -> None:
    mine = await shop.member(externalId="c-1", email="shared@example.com")
    theirs = await other_shop.member(externalId="c-1", email="shared@example.com")

    assert mine["id"] != theirs["id"]


async def test_twenty_enrolments_of_one_proven_address_at_once_make_one_member(
    shop: Shop, api: Api, second_api: Api
) -> None:
    before = await shop.state()
    urls = [f"{running.url}/graphql" for running in (api, second_api)]

    person: dict[str, Any] = {"source": "STORE", "email": "rush@example.com", "emailVerified": True}
    answers = await asyncio.gather(
        *(shop.do(ENROLL_MEMBER, url=urls[turn % 2], displayName=f"{turn}", **person) for turn in range(20))
    )

    made = [answer["member"]["id"] for answer in answers if answer["__typename"] == "EnrollMemberSuccess"]
    found = [answer["existing"]["id"] for answer in answers if answer["__typename"] == "MemberAlreadyExists"]
    assert len(made) == 1
    assert found == made * 19
    assert (await shop.state()).since(before) == {"member": 1, "wallet": 1, "address": 1, "event": 1}


@pytest.mark.parametrize(
    "address",
    [
        "",
        " ",
        "nobody",
        "@example.com",
        "a@",
        "a@b",
        "a@b@example.com",
        "a b@example.com",
        "a@exa mple.com",
        "a@-example.com",
        "a@example-.com",
        "a@example..com",
        "a@.example.com",
        "a@example.com.",
        "Ada <ada@example.com>",
        "a@example.com, b@example.com",
        "a\x00@example.com",
        "a\n@example.com",
        "a\u200b@example.com",
        "a@example.com\x00",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64 + ".com",
        "a@" + "b." * 130 + "com",
        "a" * 10_000,
        "a@" + "b" * 10_000 + ".com",
        "a@" + "b." * 5_000 + "com",
        "\ufdfa" * 10_000,
        pytest.param("a" + "\u0301\u0323" * 100_000 + "@example.com", id="more accents than can be put in order"),
    ],
)
async def test_what_is_no_address_is_refused_and_nothing_is_written(shop: Shop, address: str) -> None:
    answer = await shop.refused(ENROLL_MEMBER, source="STORE", email=address)

    assert answer == {
        "__typename": "InvalidInput",
        "message": "email must be an e-mail address.",
        "problems": [{"path": ["email"], "message": "must be an e-mail address"}],
    }


@pytest.mark.parametrize(
    "address",
    [
        "a@b.co",
        "first.last+tag@sub.example.co.uk",
        "o'neill@example.ie",
        "käthe@bücher.example",
        "a" * 64 + "@example.com",
        "_@1and1.com",
    ],
)
async def test_what_is_an_address_is_taken(shop: Shop, address: str) -> None:
    answer = await shop.do(ENROLL_MEMBER, source="STORE", email=address)

    assert answer["member"]["maskedEmail"] == f"{address[0]}•••@{address.partition('@')[2]}"


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("externalId", "", "must not be blank"),
        ("externalId", "\u3000", "must not be blank"),
        ("externalId", "x" * 101, "must be at most 100 characters"),
        ("externalId", "x" * 10_000, "must be at most 100 characters"),
        ("externalId", "c\x00", "must not contain control characters"),
        ("displayName", "", "must not be blank"),
        ("displayName", "\u200b\u202e", "must not be blank"),
        ("displayName", "x" * 201, "must be at most 200 characters"),
        ("displayName", "x" * 10_000, "must be at most 200 characters"),
        ("displayName", "Ada\x00", "must not contain control characters"),
        ("displayName", "Ada\r\nBcc: all", "must not contain control characters"),
    ],
)
async def test_bad_text_is_refused_and_nothing_is_written(shop: Shop, field: str, value: str, problem: str) -> None:
    answer = await shop.refused(ENROLL_MEMBER, source="STORE", **{field: value})

    assert answer == {
        "__typename": "InvalidInput",
        "message": f"{field} {problem}.",
        "problems": [{"path": [field], "message": problem}],
    }


async def test_a_verified_address_must_be_there(shop: Shop) -> None:
    answer = await shop.refused(ENROLL_MEMBER, source="STORE", emailVerified=True)

    assert answer["problems"] == [{"path": ["emailVerified"], "message": "needs an address"}]


async def test_all_problems_are_told_at_once_and_before_a_member_is_looked_for(shop: Shop) -> None:
    await shop.member(externalId="c-5")

    answer = await shop.do(ENROLL_MEMBER, source="STORE", externalId="c-5", email="x", displayName="\x00")

    assert answer["__typename"] == "InvalidInput"
    assert [problem["path"] for problem in answer["problems"]] == [["displayName"], ["email"]]


async def test_a_refused_address_is_not_echoed(shop: Shop) -> None:
    answer = await shop.post(ENROLL_MEMBER, {"input": {"source": "STORE", "email": "secret address"}})

    assert "secret" not in str(answer)


async def test_a_source_that_is_not_one_is_bad_user_input(shop: Shop) -> None:
    assert await shop.error_code(ENROLL_MEMBER, {"input": {"source": "TELEPATHY"}}) == "BAD_USER_INPUT"


def test_what_is_too_long_is_refused_before_anything_looks_at_each_of_its_characters() -> None:
    problems = Problems()
    problems.text("name", "\u200b" * 201, length_max=200)

    assert [problem.message for problem in problems.found] == ["must be at most 200 characters"]
