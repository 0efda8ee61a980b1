"""createApiKey. Without these a key could be made with a role that no key has, or its secret be kept readable."""

import pytest

from app.storage.database import database
from tests.factories import CREATE_API_KEY, Shop

VIEWER = "{ viewer { role merchant { name currency } member { id } } }"


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT", "SUPPORT", "ANALYST"])
async def test_a_key_of_each_role_works_with_that_role(shop: Shop, role: str) -> None:
    before = await shop.state()

    answer = await shop.do(CREATE_API_KEY, label=f"  till of {role} ", role=role)

    key = answer["apiKey"]
    assert answer["__typename"] == "CreateApiKeySuccess"
    assert key["id"].startswith("apikey_")
    assert (key["label"], key["role"], key["revokedAt"]) == (f"till of {role}", role, None)
    assert (await shop.data(VIEWER, key=answer["secret"]))["viewer"]["role"] == role
    assert (await shop.state()).since(before) == {"api_key": 1, "event": 1}
    assert (await shop.event_types())[-1] == "api_key.created"


async def test_only_the_hash_of_a_secret_is_stored(shop: Shop) -> None:
    secret: str = (await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT"))["secret"]

    rows = await database().rows("SELECT k::text AS shown FROM api_key k WHERE merchant_id = $1", shop.merchant_id)
    events = await database().rows("SELECT e::text AS shown FROM event e WHERE merchant_id = $1", shop.merchant_id)

    random_part = secret.split("_", 2)[2]
    shown = " ".join(row["shown"] for row in [*rows, *events])
    assert random_part not in shown
    assert random_part.encode().hex() not in shown
    assert len(random_part) >= 43


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("", "must not be blank"),
        (" \t ", "must not be blank"),
        ("x" * 101, "must be at most 100 characters"),
        ("till\x00", "must not contain control characters"),
        ("till\nroom", "must not contain control characters"),
    ],
)
async def test_a_bad_label_is_refused_and_nothing_is_written(shop: Shop, label: str, problem: str) -> None:
    answer = await shop.refused(CREATE_API_KEY, label=label, role="ADMIN")

    assert answer == {
        "__typename": "InvalidInput",
        "message": f"label {problem}.",
        "problems": [{"path": ["label"], "message": problem}],
    }


async def test_a_label_of_100_characters_of_any_script_is_kept_as_it_is(shop: Shop) -> None:
    label = "収納係🛒" * 20

    assert (await shop.do(CREATE_API_KEY, label=label, role="ANALYST"))["apiKey"]["label"] == label


async def test_there_is_no_key_for_members_and_all_problems_are_told_at_once(shop: Shop) -> None:
    answer = await shop.refused(CREATE_API_KEY, label="", role="MEMBER")

    assert answer["__typename"] == "InvalidInput"
    assert answer["problems"] == [
        {"path": ["label"], "message": "must not be blank"},
        {"path": ["role"], "message": "must be ADMIN, CHECKOUT, SUPPORT or ANALYST; members use tokens"},
    ]
