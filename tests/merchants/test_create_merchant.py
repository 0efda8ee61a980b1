"""Making a merchant. Without these an operator could make one without keys, or with a currency that doesn't exist."""

import pytest

from app import ids
from app.config import ConfigurationError, Settings
from app.merchants.create_merchant import create_merchant
from app.storage.database import database
from tests.conftest import Api
from tests.factories import Shop

MERCHANTS = "SELECT count(*) AS rows FROM merchant WHERE name = $1"


async def test_a_merchant_has_a_key_of_each_purpose_and_an_admin_key(shop: Shop) -> None:
    made = await create_merchant("  Käse & Söhne 🧀 ", "eur")

    viewer = (await shop.data("{ viewer { role merchant { id name currency } } }", key=made.api_key))["viewer"]
    purposes = await database().rows(
        "SELECT purpose, version, master_key FROM data_key WHERE merchant_id = $1 ORDER BY purpose", made.id
    )
    assert viewer == {
        "role": "ADMIN",
        "merchant": {"id": ids.encode("merchant", made.id), "name": "Käse & Söhne 🧀", "currency": "EUR"},
    }
    assert [tuple(row.values()) for row in purposes] == [
        ("ENCRYPTION", 1, "tests"), ("LOOKUP", 1, "tests"), ("TOKEN", 1, "tests")
    ]  # fmt: skip
    others = Shop(shop.http, shop.wire, shop.url, made.id, made.api_key)
    assert await others.event_types() == ["api_key.created", "merchant.created"]
    assert (await others.state()).counts() == {
        "merchant": 1, "api_key": 1, "data_key": 3, "referral_program": 1, "event": 2
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "two\nlines", "nul\x00", "bell\x07", "\ud800"])
async def test_a_bad_name_is_refused(api: Api, database_pool: Settings, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^A merchant's name is 1 to 200 printable characters\.$"):
        await create_merchant(name, "USD")


async def test_a_name_of_200_characters_is_kept(database_pool: Settings) -> None:
    name = "ü" * 200

    await create_merchant(name, "USD")

    row = await database().row(MERCHANTS, name)
    assert row is not None
    assert row["rows"] >= 1


@pytest.mark.parametrize("currency", ["", "US", "USDX", "ZZZ", "$", " USD", "usd\x00", "840", "\uff35\uff33\uff24"])
async def test_a_currency_that_does_not_exist_is_refused_and_nothing_is_written(
    database_pool: Settings, currency: str
) -> None:
    name = f"refused for {currency.encode().hex()}"

    with pytest.raises(ConfigurationError, match="is not an ISO 4217 currency code"):
        await create_merchant(name, currency)

    row = await database().row(MERCHANTS, name)
    assert row is not None
    assert row["rows"] == 0
