"""Tenants by id: a merchant and its unwrapped keys, read once and kept for some seconds."""

import time
from typing import Final
from uuid import UUID

from app.context import Tenant
from app.database import database
from app.merchants.data_keys import unwrap

KEPT_SECONDS: Final = 5.0

FIND = """
SELECT m.name, m.currency, k.purpose, k.version, k.master_key, k.wrapped
FROM merchant m JOIN data_key k ON k.merchant_id = m.merchant_id
WHERE m.merchant_id = $1
"""

_kept: dict[UUID, tuple[float, Tenant]] = {}


async def tenant(merchant_id: UUID) -> Tenant | None:
    """Return the tenant, at most `KEPT_SECONDS` old, or None if there is no such merchant."""
    kept = _kept.get(merchant_id)
    if kept is not None and kept[0] > time.monotonic():
        return kept[1]
    rows = await database().rows(FIND, merchant_id)
    if not rows:
        return None
    found = Tenant(merchant_id, rows[0]["name"], rows[0]["currency"], unwrap(merchant_id, rows))
    _kept[merchant_id] = (time.monotonic() + KEPT_SECONDS, found)
    return found
