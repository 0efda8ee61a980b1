"""Rotating the master key: another one becomes current, and every data key is wrapped again under it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypedDict
from uuid import UUID

from app.config import ConfigurationError, settings
from app.merchants.data_keys import WRAPPING_LOCK
from app.storage import master_keys
from app.storage.crypto import MasterKeyring, data_key_identity
from app.storage.database import database, transaction
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

#: One for the lock of changers, one for that of wrappers, one for statements.
_CONNECTIONS_MIN: Final = 3
#: Held by whoever changes the master keys, so that two take turns.
_CHANGING_LOCK: Final = 7_015_226_003
_TRY_SECONDS: Final = 0.2


class _LockRow(TypedDict):
    taken: bool


class _CountRow(TypedDict):
    master_key: str
    data_keys: int


class _MerchantRow(TypedDict):
    merchant_id: UUID


class _WrappedRow(TypedDict):
    id: UUID
    purpose: str
    version: int
    master_key: str
    wrapped: bytes


class _RewrappedRow(TypedDict):
    id: UUID


TRY_LOCK: Final = statement(_LockRow, f"SELECT pg_try_advisory_xact_lock({_CHANGING_LOCK}) AS taken")
WAIT_FOR_WRAPPERS: Final = statement(NoRow, f"SELECT FROM pg_advisory_xact_lock({WRAPPING_LOCK})")
COUNT: Final = statement(_CountRow, "SELECT master_key, count(*) AS data_keys FROM data_key GROUP BY 1 ORDER BY 1")
FIND_MERCHANTS: Final = statement(
    _MerchantRow,
    f"SELECT DISTINCT merchant_id FROM data_key k WHERE master_key <> :current AND {stands('k')} ORDER BY 1",
)
FIND_OTHERS: Final = statement(
    _WrappedRow,
    """
SELECT id, purpose, version, master_key, wrapped FROM data_key
WHERE merchant_id = :merchant_id AND master_key <> :current
""",
)
# A data key that somebody else has wrapped again meanwhile is left to them.
REWRAP: Final = statement(
    _RewrappedRow,
    """
UPDATE data_key k SET master_key = :current, wrapped = r.new
FROM unnest(:ids::uuid[], :old::bytea[], :new::bytea[]) AS r(id, old, new)
WHERE k.merchant_id = :merchant_id AND k.id = r.id AND k.wrapped = r.old
RETURNING k.id
""",
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation came to: the current master key, how many data keys were wrapped again, and who is idle now."""

    current: str
    is_new: bool
    rewrapped: int
    unused: list[str]


async def rotate(name: str | None) -> Rotation:
    """Wrap every data key under the current master key; when all are already, under a new one that is made for it.

    So a rotation that was killed is ended by the next one, and where the keys can't be written (FLASH_MASTER_KEYS, a
    read-only file) the operator's new first key is taken into use. Two at once take turns.
    Raises ConfigurationError, or DecryptionError when a master key is missing.
    """
    async with _changing():
        keyring = master_keys.read_again()
        path = settings().master_keys_file
        is_new = path is not None and not await _merchants_outside(keyring)
        if path is not None and is_new:
            await _change(path, master_keys.configured().led_by(await _free_name(name)))
            keyring = master_keys.read_again()
        rewrapped = 0
        while merchants := await _merchants_outside(keyring):
            for merchant_id in merchants:
                rewrapped += await _rewrap(keyring, merchant_id)
        in_use = await in_use_by_name()
    unused = [each for each in master_keys.configured().keys if each not in in_use and each != keyring.current]
    return Rotation(keyring.current, is_new, rewrapped, unused)


async def remove(name: str) -> None:
    """Take a master key that wraps nothing out of the file. Raises ConfigurationError when it must stay."""
    path = settings().master_keys_file
    if path is None:
        raise ConfigurationError(
            "The master keys are in FLASH_MASTER_KEYS: remove this one there, for every process, once "
            "`flash doctor` finds nothing under it."
        )
    async with _changing():
        keyring = master_keys.configured()
        if name not in keyring.keys:
            raise ConfigurationError(f"There is no master key {name!r} in {path}.")
        if name == keyring.current:
            raise ConfigurationError(f"{name!r} is the current master key; `flash keys rotate` makes another one.")
        await _change(path, keyring.without(name), unless_wrapped_by=name)


async def in_use_by_name() -> dict[str, int]:
    """Return how many data keys each master key wraps."""
    return {row["master_key"]: row["data_keys"] for row in await database().rows(COUNT)}


@asynccontextmanager
async def _changing() -> AsyncIterator[None]:
    """Hold the lock of changers for the block: it ends with the transaction, so with the process at the latest."""
    if settings().database_connections_max < _CONNECTIONS_MIN:
        raise ConfigurationError(f"This needs {_CONNECTIONS_MIN} connections: raise FLASH_DATABASE_CONNECTIONS_MAX.")
    async with transaction(None) as tx:
        # Waiting in the statement would end at the timeout of statements.
        while not (taken := await tx.row(TRY_LOCK)) or not taken["taken"]:  # noqa: ASYNC110
            await asyncio.sleep(_TRY_SECONDS)
        yield


async def _change(path: Path, changed: MasterKeyring, *, unless_wrapped_by: str | None = None) -> None:
    """Replace the file at a moment when nobody is between reading the master keys and storing a data key."""
    async with transaction(None) as tx:
        await tx.row(WAIT_FOR_WRAPPERS)
        if unless_wrapped_by is not None:
            wrapped = (await in_use_by_name()).get(unless_wrapped_by, 0)
            if wrapped:
                raise ConfigurationError(
                    f"The master key {unless_wrapped_by!r} still wraps {wrapped} data key(s); "
                    "run `flash keys rotate` first."
                )
        await asyncio.to_thread(master_keys.replace_file, path, changed)


async def _merchants_outside(keyring: MasterKeyring) -> list[UUID]:
    return [row["merchant_id"] for row in await database().rows(FIND_MERCHANTS, current=keyring.current)]


async def _rewrap(keyring: MasterKeyring, merchant_id: UUID) -> int:
    """Wrap a merchant's data keys again, in one statement. Returns how many."""
    rows = await database().rows(FIND_OTHERS, merchant_id=merchant_id, current=keyring.current)
    ids, old, new = [], [], []
    for row in rows:
        identity = data_key_identity(merchant_id, row["purpose"], row["version"])
        _, wrapped = keyring.wrap(keyring.unwrap(row["master_key"], row["wrapped"], identity), identity)
        ids.append(row["id"])
        old.append(row["wrapped"])
        new.append(wrapped)
    rewrapped = await database().rows(
        REWRAP, merchant_id=merchant_id, current=keyring.current, ids=ids, old=old, new=new
    )
    return len(rewrapped)


async def _free_name(name: str | None) -> str:
    """Return the name for a new master key: the instant, unless told. A name is never used for another key."""
    chosen = name or f"k{datetime.now(UTC):%Y%m%d%H%M%S}"
    if chosen in master_keys.configured().keys or chosen in await in_use_by_name():
        raise ConfigurationError(f"There is a master key {chosen!r} already; choose another --name.")
    return chosen
