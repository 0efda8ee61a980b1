"""Naming a member as the caller knows it. Without these a till would ask twice, or act for somebody else."""

from typing import Any

import pytest

from app.members.member_keys import FIND_BY_KEY
from tests.factories import (
    CHECK_CODES,
    CLAIM_CODE,
    ENROLL_MEMBER,
    ISSUE_MEMBER_TOKEN,
    REDEEM_CODES,
    Shop,
    problems,
    usd,
)
from tests.people.test_enroll_member import MEMBERS
from tests.points.documents import GRANT, RECORD, REDEEM_REWARD, reward
from tests.points.documents import points as points_of
from tests.scratch import buffers_planned_on_nothing

JANE = "jane.doe@example.com"
FIND = """
query ($id: ID, $externalId: String, $externalSource: MemberSource, $email: String) {
  answer: member(id: $id, externalId: $externalId, externalSource: $externalSource, email: $email) {
    id externalId externalIds { source id }
  }
}
"""
#: Keys of the member that `_people` enrols first.
KEYS: list[dict[str, Any]] = [
    {"externalId": " 1001 "},
    {"externalId": "1001", "externalSource": "STORE"},
    {"email": " JANE.Doe@example.com"},
]
#: Keys that fit nobody there, and what NotFound shows of them.
NOBODY: list[tuple[dict[str, Any], str]] = [
    ({"externalId": "1002"}, "1002"),
    ({"externalId": "1001", "externalSource": "RECEIPT"}, "1001"),
    ({"email": "kim.roe@example.com"}, "k•••@example.com"),
]
#: What is wrong with a key, by the path below `member`.
WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"externalId": "or email must be given, and not both"}),
    ({"externalId": "1001", "email": JANE}, {"externalId": "or email must be given, and not both"}),
    ({"email": JANE, "externalSource": "STORE"}, {"externalSource": "needs an externalId"}),
    ({"externalId": ""}, {"externalId": "must not be blank"}),
    ({"externalId": "x" * 101}, {"externalId": "must be at most 100 characters"}),
    ({"email": "jane"}, {"email": "must be an e-mail address"}),
]
VERBS = ["claim", "redeem reward", "purchase", "grant", "token"]


def _takes(verb: str, key: dict[str, Any]) -> bool:
    """Whether a verb takes a key: an address may be typed by anybody, so it spends nobody's points."""
    return verb != "redeem reward" or "email" not in key


async def _people(shop: Shop) -> tuple[Any, Any]:
    """Enrol Jane, somebody whom another source calls as her store calls her, and somebody who wrote an address down."""
    jane = await shop.member(externalId="1001", email=JANE, emailVerified=True)
    other = await shop.member(externalId="1001", externalSource="SHOPIFY")
    await shop.member(email="kim.roe@example.com")
    return jane, other


async def _verb(shop: Shop, verb: str) -> tuple[str, dict[str, Any]]:
    """Return a document that names a member, and its other input."""
    if verb == "claim":
        return CLAIM_CODE, {"poolId": (await shop.pool())["id"]}
    if verb == "redeem reward":
        return REDEEM_REWARD, {"rewardId": (await reward(shop, cost=10))["id"], "idempotencyKey": "key"}
    if verb == "purchase":
        return RECORD, {"source": "STORE", "orderId": "order", "amount": usd(1000)}
    if verb == "grant":
        return GRANT, {"amount": 500, "reference": "welcome", "idempotencyKey": "grant"}
    return ISSUE_MEMBER_TOKEN, {}


# ----------------------------------------------------------------------------------------------------- external ids


async def test_ids_of_two_sources_are_apart_and_of_one_are_one(shop: Shop) -> None:
    jane, other = await _people(shop)

    assert jane["id"] != other["id"]
    for source in ("STORE", "SHOPIFY"):
        taken = {"source": "RECEIPT", "externalId": " 1001", "externalSource": source}
        refused = await shop.refused(ENROLL_MEMBER, **taken)
        assert (refused["__typename"], refused["existing"]) == (
            "MemberAlreadyExists", {"id": (jane if source == "STORE" else other)["id"]}
        )  # fmt: skip


async def test_a_member_shows_its_sources_id_and_all_of_them(shop: Shop) -> None:
    jane, other = await _people(shop)

    seen = [(await shop.data(FIND, {"id": member["id"]}))["answer"] for member in (jane, other)]

    assert [each["externalId"] for each in seen] == ["1001", None]
    assert [each["externalIds"] for each in seen] == [
        [{"source": "STORE", "id": "1001"}], [{"source": "SHOPIFY", "id": "1001"}]
    ]  # fmt: skip


async def test_the_source_of_an_id_needs_an_id(shop: Shop) -> None:
    refused = await shop.refused(ENROLL_MEMBER, source="STORE", externalSource="SHOPIFY")

    assert problems(refused) == {"externalSource": "needs an externalId"}


# ---------------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT"])
@pytest.mark.parametrize("key", KEYS)
async def test_a_member_is_found_by_what_the_caller_knows(shop: Shop, key: dict[str, Any], role: str) -> None:
    jane, _ = await _people(shop)

    found = await shop.data(FIND, key, key=await shop.key(role))

    assert found["answer"]["id"] == jane["id"]


@pytest.mark.parametrize("key", [key for key, _ in NOBODY])
async def test_nobody_is_found_by_an_id_of_another_source_or_an_address_that_isnt_proven(
    shop: Shop, other_shop: Shop, key: dict[str, Any]
) -> None:
    await _people(shop)
    await other_shop.member(externalId="1002", email="kim.roe@example.com", emailVerified=True)

    assert (await shop.data(FIND, key))["answer"] is None


@pytest.mark.parametrize("role", ["ANALYST", "MEMBER"])
async def test_who_has_an_address_or_an_id_is_not_for_everybody(shop: Shop, role: str) -> None:
    jane, _ = await _people(shop)
    key = await shop.token(jane["id"]) if role == "MEMBER" else await shop.key(role)

    for named in KEYS:
        assert await shop.error_code(FIND, named, key=key) == "FORBIDDEN"
        assert (await shop.data(FIND, named, key=await shop.key("SUPPORT")))["answer"] is not None
    assert (await shop.data(FIND, {"id": jane["id"]}, key=key))["answer"]["id"] == jane["id"]


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"id": "member_1", "email": JANE},
        {"externalId": "1", "email": JANE},
        {"id": "member_1", "externalId": "1"},
        {"id": "member_1", "externalSource": "STORE"},
        {"email": JANE, "externalSource": "STORE"},
        {"email": "jane"},
        {"externalId": "\x00"},
    ],
)
async def test_a_member_is_asked_for_in_one_way(shop: Shop, named: dict[str, Any]) -> None:
    assert await shop.error_code(FIND, named) == "BAD_USER_INPUT"


@pytest.mark.parametrize("key", [{"external_id": "c-2000", "external_source": "STORE"}, {"external_id": None}])
async def test_finding_by_a_key_reads_next_to_nothing_whatever_the_planner_knew(key: dict[str, Any]) -> None:
    values = {"external_source": None, "external_id": None, "proven_index": b"\x01"} | key
    rows, buffers = await buffers_planned_on_nothing(FIND_BY_KEY, MEMBERS, **values)

    assert rows == (1 if key["external_id"] else 0)
    assert buffers < 10


# ------------------------------------------------------------------------------------------------------------ verbs


@pytest.mark.parametrize(("verb", "key"), [(verb, key) for verb in VERBS for key in KEYS if _takes(verb, key)])
async def test_a_verb_takes_a_key_in_place_of_the_id(shop: Shop, verb: str, key: dict[str, Any]) -> None:
    jane, _ = await _people(shop)
    await shop.do(GRANT, member={"externalId": "1001"}, amount=50, reference="gift", idempotencyKey="gift")
    document, more = await _verb(shop, verb)

    answer = await shop.do(document, key=await shop.key("CHECKOUT") if verb != "grant" else None, member=key, **more)

    assert answer["__typename"].endswith("Success"), answer
    if verb == "claim":
        assert answer["code"]["owner"]["id"] == jane["id"]
    elif verb == "token":
        viewer = await shop.data("{ viewer { member { id } } }", key=answer["token"])
        assert viewer["viewer"]["member"] == {"id": jane["id"]}
    else:
        assert await points_of(shop, jane) == {"redeem reward": 40, "purchase": 60, "grant": 550}[verb]


@pytest.mark.parametrize(
    ("verb", "key", "shown"), [(verb, *nobody) for verb in VERBS for nobody in NOBODY if _takes(verb, nobody[0])]
)
async def test_a_key_that_fits_nobody_is_not_found(shop: Shop, verb: str, key: dict[str, Any], shown: str) -> None:
    await _people(shop)
    document, more = await _verb(shop, verb)

    refused = await shop.refused(document, member=key, **more)

    assert (refused["__typename"], refused["id"]) == ("NotFound", shown)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_takes_one_name_and_a_whole_key(shop: Shop, verb: str) -> None:
    jane, _ = await _people(shop)
    document, more = await _verb(shop, verb)
    one = {
        "memberId": "or member or email must be given, and only one of them"
        if verb == "claim"
        else "or member must be given, and not both"
    }

    assert problems(await shop.refused(document, **more)) == one
    assert problems(await shop.refused(document, memberId=jane["id"], member=KEYS[0], **more)) == one
    for key, wrong in WRONG:
        refused = await shop.refused(document, member=key, **more)
        assert problems(refused) == {f"member.{path}": message for path, message in wrong.items()}


@pytest.mark.parametrize("verb", ["claim", "redeem reward"])
async def test_a_member_names_nobody_by_a_key_not_even_itself(shop: Shop, verb: str) -> None:
    jane, _ = await _people(shop)
    document, more = await _verb(shop, verb)
    token = await shop.token(jane["id"])

    for key in KEYS:
        refused = await shop.refused(document, key=token, member=key, **more)
        assert problems(refused) == {"member": "is for API keys; a member acts for itself"}


# ------------------------------------------------------------------------------------------------------ at the till


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
async def test_a_presenter_is_named_by_a_key(shop: Shop, document: str) -> None:
    jane, other = await _people(shop)
    pool = await shop.pool()
    code, others = await shop.claim(pool, jane), await shop.claim(pool, other)

    async def present(code: Any, **by: Any) -> str:
        order: dict[str, Any] = {"codes": [code["text"]], "orderId": code["id"], "orderAmount": usd(1000)}
        answer = await shop.do(document, **order, **by)
        return str(answer["rejections"][0]["reason"] if "rejections" in answer else answer["__typename"])

    for key, _ in NOBODY:
        assert await present(code, member=key) == "NOT_OWNER"
    assert await present(code, member={"externalId": "1001", "externalSource": "SHOPIFY"}) == "NOT_OWNER"
    assert await present(others, member={"externalId": "1001", "externalSource": "SHOPIFY"}) == "RedeemCodesSuccess"
    for key in KEYS:
        assert await present(code, member=key) == "RedeemCodesSuccess"


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
async def test_a_presenter_has_one_name_and_a_whole_key(shop: Shop, document: str) -> None:
    jane, _ = await _people(shop)
    code = await shop.claim(await shop.pool(), jane)
    order: dict[str, Any] = {"codes": [code["text"]], "orderId": "order", "orderAmount": usd(1000)}

    both = await shop.refused(document, memberId=jane["id"], member=KEYS[0], **order)

    assert problems(both) == {"memberId": "or member may be given, and not both"}
    for key, wrong in WRONG:
        refused = await shop.refused(document, member=key, **order)
        assert problems(refused) == {f"member.{path}": message for path, message in wrong.items()}


async def test_an_unproven_address_presents_nothing_that_waits_for_it(shop: Shop) -> None:
    """`member` names a member; who has only written an address down isn't named by it."""
    await _people(shop)
    claimed = await shop.do(CLAIM_CODE, poolId=(await shop.pool())["id"], email="kim.roe@example.com")
    order: dict[str, Any] = {"codes": [claimed["code"]["text"]], "orderId": "order", "orderAmount": usd(1000)}

    refused = await shop.refused(REDEEM_CODES, member={"email": "kim.roe@example.com"}, **order)

    assert refused["rejections"][0]["reason"] == "NOT_OWNER"
