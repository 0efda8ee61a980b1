"""All merchants of a database, for its operator."""

from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app.storage.database import database
from app.storage.statements import statement


class MerchantRow(TypedDict):
    """A merchant, and how many ADMIN keys of it work."""

    merchant_id: UUID
    name: str
    currency: str
    created_at: datetime
    admin_keys: int


LIST: Final = statement(
    MerchantRow,
    """
SELECT m.merchant_id, m.name, m.currency, m.created_at, (
    SELECT count(*) FROM api_key k WHERE k.merchant_id = m.merchant_id AND k.role = 'ADMIN' AND k.revoked_at IS NULL
) AS admin_keys
FROM merchant m ORDER BY m.created_at, m.merchant_id
""",
)


async def list_merchants() -> list[MerchantRow]:
    """Return the merchants, the oldest first."""
    return await database().rows(LIST)
