"""Tenants by id: a merchant and its unwrapped keys, read once and kept for some seconds."""

import asyncio
import time
from typing import Annotated, Any, Final
from uuid import UUID

from app.api.context import Tenant
from app.merchants.data_keys import DataKeyRow, unwrap
from app.storage import servers
from app.storage.crypto import UnknownVersionError
from app.storage.database import database
from app.storage.lasting import Lasting
from app.storage.statements import columns, row_of, statement

KEPT_SECONDS: Final = 5.0
#: However many merchants there are, no more keys than theirs are in memory; those used longest ago are forgotten.
KEPT_MAX: Final = 5_000


@row_of(m="merchant", k="data_key")
class TenantRow(DataKeyRow):
    """A merchant `m` with one of its data keys."""

    merchant_name: Annotated[str, "m.name"]
    merchant_currency: Annotated[str, "m.currency"]
    merchant_is_moving: Annotated[bool, "EXISTS (SELECT FROM fence f WHERE f.merchant_id = m.merchant_id)"]


class _PlacedRow(TenantRow):
    """The same, and the server that it is on."""

    server_name: str


FIND: Final = statement(
    _PlacedRow,
    f"""
SELECT {columns(TenantRow)}, current_setting('cluster_name') AS server_name
FROM merchant m JOIN data_key k ON k.merchant_id = :merchant_id
WHERE m.merchant_id = :merchant_id
""",
)

#: Reads that are under way, which all who miss the same tenant share.
_reading: "dict[UUID, asyncio.Task[Tenant | None]]" = {}
_kept: Lasting[UUID, Tenant] = Lasting(KEPT_MAX)


async def tenant(merchant_id: UUID) -> Tenant | None:
    """Return the tenant, at most `KEPT_SECONDS` old, or None if there is no such merchant."""
    kept = _kept.get(merchant_id)
    return await _read_once(merchant_id) if kept is None else kept


def may_be_moving(merchant_id: UUID) -> bool:
    """Whether the merchant may be moving to another server: false if it wasn't, at most `KEPT_SECONDS` ago."""
    kept = _kept.get(merchant_id)
    return kept is None or kept.is_moving


def decrypted_now(owner: Tenant, row_id: UUID, column: str, ciphertext: bytes) -> Any:
    """Return a value for a field, at once unless its key has to be read: then what `decrypted` returns, to be awaited.

    Few fields wait for nothing, and one that does costs as much as three that don't.
    """
    try:
        return owner.keys.decrypt(row_id, column, ciphertext)
    except UnknownVersionError:
        return decrypted(owner, row_id, column, ciphertext)


async def decrypted(owner: Tenant, row_id: UUID, column: str, ciphertext: bytes) -> str:
    """Return a value. When `owner` is older than the data key, the tenant that is kept is asked, then a fresh one.

    Raises DecryptionError as `MerchantKeys.decrypt` does.
    """
    try:
        return owner.keys.decrypt(row_id, column, ciphertext)
    except UnknownVersionError as error:
        missing = error
    # A read that was under way may be older than the key; the one after it isn't.
    for look in (tenant, _read_once, _read_once):
        found = await look(owner.id)
        if found is None or found is owner:
            continue
        try:
            return found.keys.decrypt(row_id, column, ciphertext)
        except UnknownVersionError:
            continue
    raise missing


async def _read_once(merchant_id: UUID) -> Tenant | None:
    """Read a tenant, or wait for whoever reads it already: unwrapping keys is dear, and thousands may ask at once."""
    task = _reading.get(merchant_id)
    if task is None:
        task = _reading[merchant_id] = asyncio.create_task(_read(merchant_id))
        task.add_done_callback(lambda _: _reading.pop(merchant_id, None))
    return await asyncio.shield(task)


async def _read(merchant_id: UUID) -> Tenant | None:
    # The age of what is read counts from before it was asked for.
    until = time.monotonic() + KEPT_SECONDS
    rows = await database().rows(FIND, merchant_id=merchant_id)
    if not rows:
        return None
    servers.learn(merchant_id, rows[0]["server_name"])
    keys = unwrap(merchant_id, rows)
    row = rows[0]
    found = Tenant(merchant_id, row["merchant_name"], row["merchant_currency"], keys, row["merchant_is_moving"])
    _kept.keep(merchant_id, found, until)
    return found
