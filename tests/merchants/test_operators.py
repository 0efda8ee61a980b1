"""What an operator does without a key. Without these who lost the last ADMIN key would be locked out for good."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from app import ids
from app.config import ConfigurationError
from app.merchants.create_admin_key import create_admin_key
from app.merchants.list_merchants import list_merchants
from app.storage.database import database
from tests.factories import CREATE_API_KEY, REVOKE_API_KEY, Shop
from tests.operate.processes import flash, refusal

ACTOR = "SELECT actor FROM event WHERE merchant_id = $1 ORDER BY id DESC LIMIT 1"


async def test_a_new_admin_key_works_and_is_on_record(shop: Shop) -> None:
    before = await shop.state()

    secret = await create_admin_key(ids.encode("merchant", shop.merchant_id), " lost and found ")

    assert await shop.data("{ viewer { role merchant { id } } }", key=secret) == {
        "viewer": {"role": "ADMIN", "merchant": {"id": ids.encode("merchant", shop.merchant_id)}}
    }
    assert (await shop.state()).since(before) == {"api_key": 1, "event": 1}
    assert (await shop.event_types())[-1] == "api_key.created"
    (last,) = await database().rows(ACTOR, shop.merchant_id)
    assert last["actor"] == "system"


@pytest.mark.parametrize("named", ["", "7", f"merchant_{7:032x}", f"pool_{7:032x}"])
async def test_a_merchant_that_is_not_there_gets_no_key(shop: Shop, named: str) -> None:
    before = await shop.state()

    with pytest.raises(ConfigurationError, match=f"^There is no merchant {named}; `flash merchant list` names them.$"):
        await create_admin_key(named, "key")

    assert await shop.state() == before


@pytest.mark.parametrize("label", ["", "  ", "x" * 101, "two\nlines"])
async def test_a_bad_label_is_refused(shop: Shop, label: str) -> None:
    before = await shop.state()

    with pytest.raises(ConfigurationError, match=r"^A key's label is 1 to 100 printable characters\.$"):
        await create_admin_key(ids.encode("merchant", shop.merchant_id), label)

    assert await shop.state() == before


async def test_merchants_are_listed_with_the_admin_keys_that_work(shop: Shop, other_shop: Shop) -> None:
    await shop.key("CHECKOUT")
    made = await shop.do(CREATE_API_KEY, label="gone", role="ADMIN")
    await shop.do(REVOKE_API_KEY, apiKeyId=made["apiKey"]["id"])
    await other_shop.do(CREATE_API_KEY, label="second", role="ADMIN")

    found = {row["merchant_id"]: row["admin_keys"] for row in await list_merchants()}

    assert (found[shop.merchant_id], found[other_shop.merchant_id]) == (1, 2)
    assert list(found).index(shop.merchant_id) < list(found).index(other_shop.merchant_id)


async def test_the_commands_let_an_operator_in_again(shop: Shop, worker_database: str, tmp_path: Path) -> None:
    named = ids.encode("merchant", shop.merchant_id)
    variables: dict[str, Any] = {
        "DATABASE_URL": worker_database,
        "FLASH_DATA": tmp_path,
        "FLASH_MASTER_KEYS": os.environ["FLASH_MASTER_KEYS"],
    }

    listed = await asyncio.to_thread(lambda: flash("merchant", "list", "--json", **variables))
    made = await asyncio.to_thread(lambda: flash("merchant", "key", named, "--json", **variables))
    lines = await asyncio.to_thread(lambda: flash("merchant", "list", **variables))
    said = await asyncio.to_thread(lambda: refusal("merchant", "key", "merchant_7", **variables))

    (own,) = [each for each in json.loads(listed.stdout) if each["merchantId"] == named]
    assert set(own) == {"merchantId", "name", "currency", "createdAt", "adminKeys"}
    assert (own["currency"], own["adminKeys"]) == ("USD", 1)
    secret = json.loads(made.stdout)["apiKey"]
    assert await shop.data("{ viewer { role } }", key=secret) == {"viewer": {"role": "ADMIN"}}
    assert f"{named}  USD  2 ADMIN keys  {own['name']}\n" in lines.stdout
    assert said == "There is no merchant merchant_7; `flash merchant list` names them."
