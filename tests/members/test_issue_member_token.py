"""issueMemberToken. Without these a token could outlive its day, or be for somebody who isn't a member here."""

from datetime import UTC, datetime, timedelta

import pytest

from app import ids
from app.storage.database import database
from tests.factories import ISSUE_MEMBER_TOKEN, Shop

VIEWER = "{ viewer { role member { id } } }"


LATEST_EVENT = "SELECT type, subject_id, actor FROM event WHERE merchant_id = $1 ORDER BY id DESC LIMIT 1"
KEY_OF_ROLE = "SELECT id FROM api_key WHERE merchant_id = $1 AND role = $2"


async def _id_of_key(shop: Shop, role: str) -> str:
    row = await database().row(KEY_OF_ROLE, shop.merchant_id, role)
    assert row is not None
    return ids.encode("apikey", row["id"])


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT"])
async def test_a_token_makes_its_bearer_the_member(shop: Shop, role: str) -> None:
    member = await shop.member()
    before = await shop.state()
    asked_at = datetime.now(UTC)

    answer = await shop.do(ISSUE_MEMBER_TOKEN, key=await shop.key(role), memberId=member["id"])

    answered_at = datetime.now(UTC)
    lifetime = timedelta(seconds=3600)
    assert answer["__typename"] == "IssueMemberTokenSuccess"
    assert asked_at + lifetime - timedelta(seconds=1) <= _instant(answer["expiresAt"]) <= answered_at + lifetime
    assert await shop.data(VIEWER, key=answer["token"]) == {
        "viewer": {"role": "MEMBER", "member": {"id": member["id"]}}
    }
    made = 1 if role == "CHECKOUT" else 0
    assert (await shop.state()).since(before) == {"event": 1 + made} | ({"api_key": made} if made else {})
    # Whoever has a token reads the texts of a member's codes: which key asked for it is on record.
    row = await database().row(LATEST_EVENT, shop.merchant_id)
    assert row is not None
    assert (row["type"], row["subject_id"]) == ("member.token_issued", ids.decode("member", member["id"]))
    assert row["actor"] == await _id_of_key(shop, role)


@pytest.mark.parametrize("lifetime", [1, 60, 86_400])
async def test_a_lifetime_in_bounds_is_taken(shop: Shop, lifetime: int) -> None:
    member = await shop.member()
    asked_at = datetime.now(UTC) - timedelta(milliseconds=1)

    answer = await shop.do(ISSUE_MEMBER_TOKEN, memberId=member["id"], lifetimeSeconds=lifetime)

    expires_at = _instant(answer["expiresAt"])
    assert asked_at <= expires_at - timedelta(seconds=lifetime) <= datetime.now(UTC)


@pytest.mark.parametrize("lifetime", [0, -1, 86_401, 2**31 - 1, -(2**31)])
async def test_a_lifetime_out_of_bounds_is_refused_and_nothing_is_written(shop: Shop, lifetime: int) -> None:
    member = await shop.member()

    answer = await shop.refused(ISSUE_MEMBER_TOKEN, memberId=member["id"], lifetimeSeconds=lifetime)

    assert answer == {
        "__typename": "InvalidInput",
        "message": "lifetimeSeconds must be between 1 and 86400.",
        "problems": [{"path": ["lifetimeSeconds"], "message": "must be between 1 and 86400"}],
    }


@pytest.mark.parametrize("lifetime", [2**31, 1.5, "60", True, None])
async def test_a_lifetime_that_is_no_int_is_bad_user_input(shop: Shop, lifetime: object) -> None:
    member = await shop.member()
    variables = {"input": {"memberId": member["id"], "lifetimeSeconds": lifetime}}

    assert await shop.error_code(ISSUE_MEMBER_TOKEN, variables) == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    "member_id",
    [ids.encode("member", ids.new()), ids.encode("wallet", ids.new()), "member_", "", "\x00", "7"],
    ids=["unknown", "wallet", "empty", "nothing", "NUL", "number"],
)
async def test_an_id_that_names_no_member_is_not_found(shop: Shop, member_id: str) -> None:
    answer = await shop.refused(ISSUE_MEMBER_TOKEN, memberId=member_id)

    assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": member_id}


async def test_another_merchants_member_is_not_found_and_nothing_is_written(shop: Shop, other_shop: Shop) -> None:
    member = await other_shop.member()
    before = await shop.state(), await other_shop.state()

    answer = await shop.do(ISSUE_MEMBER_TOKEN, memberId=member["id"])

    assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": member["id"]}
    assert (await shop.state(), await other_shop.state()) == before


async def test_the_missing_member_is_told_before_the_bad_lifetime(shop: Shop) -> None:
    answer = await shop.do(ISSUE_MEMBER_TOKEN, memberId=ids.encode("member", ids.new()), lifetimeSeconds=0)

    assert answer["__typename"] == "NotFound"
