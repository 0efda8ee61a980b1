"""`flash export --member`. Without these a person who asks for its data would get hashes, or another's addresses."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from app import ids
from app.config import ConfigurationError
from app.people.export_member import export_member
from tests.factories import Shop
from tests.operate.processes import flash
from tests.people.documents import merge
from tests.people.lives import EMAIL, PENDING, whole_life


async def test_a_member_gets_all_that_is_known_of_it_and_nothing_of_others(shop: Shop, other_shop: Shop) -> None:
    life = await whole_life(shop)

    found = await export_member(ids.encode("merchant", shop.merchant_id), life.member["id"])

    tables = found["tables"]
    (member,) = tables["member"]
    assert (member["email"], member["pending_email"], member["display_name"]) == (EMAIL, PENDING, "Ada Lovelace")
    assert sorted(row["external_id"] for row in tables["external_id"]) == ["card-1815", "shop-1815"]
    assert [row["reference"] for row in tables["entry_reference"]] == ["Goodwill for Ada Lovelace"]
    assert "Lovelace lost it" in {row["reason"] for row in tables["event"]}
    assert sorted(row["order_id"] for row in tables["purchase"]) == ["A-1815", "A-1816"]
    assert {row["email"] for row in tables["invite"] if "email" in row} == {EMAIL}
    assert all(len(row["ciphertext"]) > 10 and "\\x" not in row["ciphertext"] for row in tables["code"])
    assert {name for name, rows in tables.items() if not rows} == {"first_order", "import_row", "segment_member"}
    text = json.dumps(found)
    assert "\\\\x" not in text
    assert "friend@example.com" not in text
    assert "stranger@example.com" not in text
    with pytest.raises(ConfigurationError, match="no member"):
        await export_member(ids.encode("merchant", other_shop.merchant_id), life.member["id"])


async def test_a_merged_record_is_a_part_of_the_person(shop: Shop) -> None:
    kept, merged = await shop.member(displayName="Ada"), await shop.member(displayName="A. Lovelace")
    await merge(shop, kept, merged)

    found = [await export_member(ids.encode("merchant", shop.merchant_id), each["id"]) for each in (kept, merged)]

    assert [{row["display_name"] for row in each["tables"]["member"]} for each in found] == [{"Ada", "A. Lovelace"}] * 2


async def test_the_command_prints_json(shop: Shop, worker_database: str, tmp_path: Path) -> None:
    member = await shop.member(displayName="Grace")
    merchant = ids.encode("merchant", shop.merchant_id)

    ended = await asyncio.to_thread(
        flash, "export", "--merchant", merchant, "--member", member["id"], DATABASE_URL=worker_database,
        FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"], FLASH_DATA=tmp_path,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["tables"]["member"][0]["display_name"] == "Grace"
