"""revokeApiKey. Without these a leaked key could go on working, or a merchant revoke another one's key."""

import asyncio
import time

import pytest

from app import ids
from app.storage.database import database
from tests.conftest import Api, run_api
from tests.factories import CREATE_API_KEY, REVOKE_API_KEY, Shop

ROLE = "{ viewer { role } }"
STOPS_SECONDS_MAX = 5.0
ADMIN_KEYS = "SELECT id FROM api_key WHERE merchant_id = $1 AND role = 'ADMIN' AND label <> $2"


async def _stops(shop: Shop, secret: str, *, url: str, since: float) -> bool:
    """Ask until the key is refused, or until it should have been."""
    while time.monotonic() < since + STOPS_SECONDS_MAX:
        asked_at = time.monotonic()
        answer = await shop.post(ROLE, key=secret, url=url)
        if "errors" in answer:
            assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
            return True
        assert answer == {"data": {"viewer": {"role": "CHECKOUT"}}}
        await asyncio.sleep(max(0.0, asked_at + 0.05 - time.monotonic()))
    return False


async def test_a_revoked_key_stops_here_at_once_and_soon_everywhere(shop: Shop, api: Api, second_api: Api) -> None:
    made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")
    urls = [f"{running.url}/graphql" for running in (api, second_api)]
    for url in urls:
        assert await shop.data(ROLE, key=made["secret"], url=url) == {"viewer": {"role": "CHECKOUT"}}

    answer = await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])

    revoked_at = time.monotonic()
    assert await shop.error_code(ROLE, key=made["secret"]) == "UNAUTHENTICATED"
    assert answer["__typename"] == "RevokeApiKeySuccess"
    assert answer["apiKey"]["revokedAt"] is not None
    assert answer["apiKey"] == made["apiKey"] | {"revokedAt": answer["apiKey"]["revokedAt"]}
    stopped = await asyncio.gather(*(_stops(shop, made["secret"], url=url, since=revoked_at) for url in urls))
    assert stopped == [True, True]
    assert (await shop.event_types())[-1] == "api_key.revoked"


async def test_a_key_that_is_never_kept_stops_at_once(shop: Shop, worker_database: str) -> None:
    with run_api(worker_database, FLASH_API_KEY_CACHE_SECONDS="0") as uncached:
        url = f"{uncached.url}/graphql"
        made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")
        assert await shop.data(ROLE, key=made["secret"], url=url) == {"viewer": {"role": "CHECKOUT"}}

        await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])

        assert await shop.error_code(ROLE, key=made["secret"], url=url) == "UNAUTHENTICATED"


async def test_the_other_keys_go_on_working(shop: Shop) -> None:
    checkout = await shop.key("CHECKOUT")
    made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")

    await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])

    assert await shop.data(ROLE, key=checkout) == {"viewer": {"role": "CHECKOUT"}}
    assert await shop.data(ROLE) == {"viewer": {"role": "ADMIN"}}


async def test_revoking_again_changes_nothing(shop: Shop) -> None:
    made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")
    first = await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])
    before = await shop.state()

    assert await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"]) == first
    assert await shop.state() == before


async def test_ten_revocations_at_once_are_one(shop: Shop, api: Api, second_api: Api) -> None:
    made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")
    before = await shop.state()
    urls = [f"{running.url}/graphql" for running in (api, second_api)]

    answers = await asyncio.gather(
        *(shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"], url=urls[turn % 2]) for turn in range(10))
    )

    assert all(answer == answers[0] for answer in answers)
    assert (await shop.state()).since(before) == {"api_key": 0, "event": 1}


@pytest.mark.parametrize(
    "api_key_id",
    [
        ids.encode("apikey", ids.new()),
        ids.encode("pool", ids.new()),
        "apikey_",
        "apikey_" + "A" * 32,
        "apikey_" + "\u0661" * 32,
        "",
        "7",
        "\x00",
        f" {ids.encode('apikey', ids.new())} ",
    ],
    ids=["unknown", "other kind", "empty", "upper case", "Arabic digits", "nothing", "number", "NUL", "spaces"],
)
async def test_an_id_that_names_no_key_is_not_found(shop: Shop, api_key_id: str) -> None:
    answer = await shop.refused(REVOKE_API_KEY, apiKeyId=api_key_id)

    assert answer == {"__typename": "NotFound", "message": "There is no such API key.", "id": api_key_id}


async def test_an_id_in_other_letters_is_not_found(shop: Shop) -> None:
    made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")
    shouted = "apikey_" + made["apiKey"]["id"].removeprefix("apikey_").upper()

    assert (await shop.do(REVOKE_API_KEY, apiKeyId=shouted))["__typename"] == "NotFound"


async def test_another_merchants_key_is_not_found_and_goes_on_working(shop: Shop, other_shop: Shop) -> None:
    made = await other_shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")
    before = await other_shop.state()

    answer = await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])

    assert answer == {"__typename": "NotFound", "message": "There is no such API key.", "id": made["apiKey"]["id"]}
    assert await other_shop.state() == before
    assert await other_shop.data(ROLE, key=made["secret"]) == {"viewer": {"role": "CHECKOUT"}}


async def test_a_key_can_revoke_itself(shop: Shop) -> None:
    made = await shop.do(CREATE_API_KEY, label="second admin", role="ADMIN")

    answer = await shop.do(REVOKE_API_KEY, key=made["secret"], apiKeyId=made["apiKey"]["id"])

    assert answer["__typename"] == "RevokeApiKeySuccess"


async def test_the_last_admin_key_is_not_revoked(shop: Shop) -> None:
    await shop.key("CHECKOUT")
    made = await shop.do(CREATE_API_KEY, label="second admin", role="ADMIN")
    (first,) = await database().rows(ADMIN_KEYS, shop.merchant_id, "second admin")
    api_key_id = ids.encode("apikey", first["id"])
    await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])

    refusal = await shop.refused(REVOKE_API_KEY, apiKeyId=api_key_id)

    assert refusal == {
        "__typename": "LastAdminKey",
        "message": "The last ADMIN key can't be revoked; make another one first.",
    }
    assert await shop.data(ROLE) == {"viewer": {"role": "ADMIN"}}


async def test_another_merchants_admin_keys_do_not_count(shop: Shop, other_shop: Shop) -> None:
    await other_shop.do(CREATE_API_KEY, label="second admin", role="ADMIN")
    (first,) = await database().rows(ADMIN_KEYS, shop.merchant_id, "")

    refusal = await shop.refused(REVOKE_API_KEY, apiKeyId=ids.encode("apikey", first["id"]))

    assert refusal["__typename"] == "LastAdminKey"
