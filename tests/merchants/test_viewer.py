"""viewer. Without these a client could take itself for another role, another merchant or another member."""

import pytest

from app import ids
from tests.factories import Shop

VIEWER = "{ viewer { role merchant { id name currency } member { id externalId wallet { id version } } } }"


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT", "ANALYST"])
async def test_a_key_sees_its_role_and_its_merchant_and_no_member(shop: Shop, role: str) -> None:
    seen = (await shop.data(VIEWER, key=await shop.key(role)))["viewer"]

    assert seen["role"] == role
    assert seen["merchant"]["id"] == ids.encode("merchant", shop.merchant_id)
    assert seen["merchant"]["name"].startswith("Shop ")
    assert seen["merchant"]["currency"] == "USD"
    assert seen["member"] is None


async def test_a_member_sees_itself(shop: Shop) -> None:
    member = await shop.member(externalId="c-viewer")
    await shop.member()

    seen = (await shop.data(VIEWER, key=await shop.token(member["id"])))["viewer"]

    assert seen["role"] == "MEMBER"
    assert seen["merchant"]["id"] == ids.encode("merchant", shop.merchant_id)
    assert seen["member"] == {
        "id": member["id"],
        "externalId": "c-viewer",
        "wallet": {"id": member["id"].replace("member_", "wallet_"), "version": 0},
    }


async def test_the_keys_of_two_merchants_see_two_merchants(shop: Shop, other_shop: Shop) -> None:
    mine = (await shop.data(VIEWER))["viewer"]["merchant"]
    theirs = (await other_shop.data(VIEWER))["viewer"]["merchant"]

    assert mine["id"] == ids.encode("merchant", shop.merchant_id)
    assert theirs["id"] == ids.encode("merchant", other_shop.merchant_id)
    assert mine["name"] != theirs["name"]
