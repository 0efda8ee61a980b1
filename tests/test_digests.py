"""The digest that every refusal's test relies on. Without these "nothing was written" could be said of what was."""

import pytest

from app.storage.database import database
from tests.digests import OF_NO_MERCHANT, TABLES
from tests.factories import CREATE_POOL, Shop


async def test_a_table_belongs_to_a_merchant_or_is_exempt_for_a_reason(shop: Shop) -> None:
    tables = {row["name"]: row["is_merchants"] for row in await database().rows(TABLES)}

    assert {name for name, is_merchants in tables.items() if not is_merchants} == OF_NO_MERCHANT.keys()
    assert (await shop.state()).keys() == tables.keys() - OF_NO_MERCHANT.keys()


async def test_a_value_that_changes_is_seen_without_a_row_that_comes_or_goes(shop: Shop) -> None:
    await shop.member()
    before = await shop.state()

    await database().rows(
        "UPDATE member SET token_generation = token_generation + 1 WHERE merchant_id = $1", shop.merchant_id
    )

    assert (await shop.state()).since(before) == {"member": 0}


async def test_a_refusal_that_leaves_a_trace_fails_its_test(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.member()
    ask = shop.data

    async def ask_and_write(*arguments: object, **how: object) -> object:
        await database().rows(
            "UPDATE member SET token_generation = token_generation + 1 WHERE merchant_id = $1", shop.merchant_id
        )
        return await ask(*arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(shop, "data", ask_and_write)
    with pytest.raises(AssertionError):
        await shop.refused(CREATE_POOL, name="", kind="PERCENT")
