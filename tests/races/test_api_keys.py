"""ADMIN keys that revoke each other. Without these a merchant could be locked out of what is its own."""

import asyncio
from typing import Any

from app import ids
from app.merchants.revoke_api_key import REVOKE
from app.storage import events
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import CREATE_API_KEY, REVOKE_API_KEY, Shop
from tests.races.storm import until_somebody_waits

ROUNDS = 20
WORKING = "SELECT id FROM api_key WHERE merchant_id = $1 AND role = 'ADMIN' AND revoked_at IS NULL"


async def _working(shop: Shop) -> list[str]:
    """Return the ids of the merchant's ADMIN keys that work."""
    return [ids.encode("apikey", row["id"]) for row in await database().rows(WORKING, shop.merchant_id)]


async def _revoke(shop: Shop, api: Api, secret: str, api_key_id: str) -> str:
    """Revoke a key by another one's secret. Returns the type of the answer, or the code of the error."""
    answer = await shop.post(REVOKE_API_KEY, {"input": {"apiKeyId": api_key_id}}, key=secret, url=f"{api.url}/graphql")
    if "errors" in answer:
        code: str = answer["errors"][0]["extensions"]["code"]
        return code
    kind: str = answer["data"]["answer"]["__typename"]
    return kind


async def test_two_admin_keys_that_revoke_each_other_leave_one(shop: Shop, api: Api, second_api: Api) -> None:
    (first_id,), first = await _working(shop), shop.admin
    for _ in range(ROUNDS):
        made = await shop.do(CREATE_API_KEY, key=first, label="the other", role="ADMIN")
        second, second_id = made["secret"], made["apiKey"]["id"]

        outcome = await asyncio.gather(
            _revoke(shop, api, first, second_id), _revoke(shop, second_api, second, first_id)
        )

        assert outcome.count("RevokeApiKeySuccess") == 1
        assert set(outcome) <= {"RevokeApiKeySuccess", "LastAdminKey", "UNAUTHENTICATED"}
        (left,) = await _working(shop)
        if left == second_id:
            first, first_id = second, second_id


async def test_of_two_revocations_under_way_the_second_one_is_refused(shop: Shop, second_api: Api) -> None:
    (first_id,) = await _working(shop)
    made = await shop.do(CREATE_API_KEY, label="the other", role="ADMIN")

    async with transaction(shop.merchant_id) as tx:
        second_id = ids.decode("apikey", made["apiKey"]["id"])
        assert second_id is not None
        assert await tx.row(REVOKE, merchant_id=shop.merchant_id, api_key_id=second_id) is not None
        await events.record(tx, shop.merchant_id, "api_key.revoked", second_id, "system")
        answering = asyncio.create_task(_revoke(shop, second_api, made["secret"], first_id))
        await until_somebody_waits(tx)

    assert await answering == "LastAdminKey"
    assert await _working(shop) == [first_id]


async def test_a_merchant_with_three_loses_two_at_once(shop: Shop, api: Api, second_api: Api) -> None:
    others: list[Any] = [await shop.do(CREATE_API_KEY, label="another", role="ADMIN") for _ in range(2)]

    outcome = await asyncio.gather(
        *(
            _revoke(shop, each, shop.admin, made["apiKey"]["id"])
            for made in others
            for each in (api, second_api, api, second_api)
        )
    )

    assert outcome == ["RevokeApiKeySuccess"] * 8
    assert len(await _working(shop)) == 1
