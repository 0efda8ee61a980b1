"""Making a merchant with its data keys and first ADMIN key; an operator's command, not part of the API."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from iso4217 import Currency

from app import ids
from app.api.context import Role
from app.config import ConfigurationError
from app.merchants import api_keys
from app.merchants.data_keys import create_data_keys
from app.storage import events
from app.storage.database import transaction
from app.storage.statements import NoRow, statement

# The last INSERT names the merchant in its VALUES: a router finds it there, and in no WITH.
INSERT: Final = statement(
    NoRow,
    """
WITH made AS (
    INSERT INTO merchant (merchant_id, name, currency, created_at) VALUES (:merchant_id, :name, :currency, now())
)
INSERT INTO referral_program (merchant_id) VALUES (:merchant_id)
""",
)


@dataclass(frozen=True, slots=True)
class NewMerchant:
    """A merchant just made; the key's secret can't be read again."""

    id: UUID
    api_key: str


async def create_merchant(name: str, currency: str) -> NewMerchant:
    """Make a merchant. Raises ConfigurationError for a blank or overlong name or a currency not in ISO 4217."""
    name = name.strip()
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise ConfigurationError("A merchant's name is 1 to 200 printable characters.")
    try:
        currency = Currency(currency.upper()).code
    except ValueError:
        raise ConfigurationError(f"{currency!r} is not an ISO 4217 currency code.") from None
    merchant_id = ids.new()
    async with transaction(merchant_id) as tx:
        await tx.row(INSERT, merchant_id=merchant_id, name=name, currency=currency)
        await create_data_keys(tx, merchant_id)
        _, secret = await api_keys.insert(tx, merchant_id, label="first key", role=Role.ADMIN, actor="system")
        await events.record(tx, merchant_id, "merchant.created", merchant_id, "system")
    return NewMerchant(merchant_id, secret)
