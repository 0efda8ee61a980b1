"""A merchant's data keys: made with the merchant, unwrapped once per process, kept in memory only."""

import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from uuid import UUID

from app import ids
from app.config import ConfigurationError, settings
from app.crypto import KEY_BYTES, MasterKeyring, MerchantKeys, data_key_identity
from app.database import Tx

PURPOSES = ("ENCRYPTION", "LOOKUP", "TOKEN")

INSERT = """
INSERT INTO data_key (merchant_id, id, purpose, version, master_key, wrapped, created_at)
VALUES ($1, $2, $3, $4, $5, $6, now())
"""


@lru_cache(maxsize=1)
def keyring() -> MasterKeyring:
    """Return the operator's master keys. Raises ConfigurationError when there are none."""
    configured = settings().master_keys
    if configured is None:
        raise ConfigurationError(
            "No master key is configured: set FLASH_MASTER_KEYS (`flash keys new` prints a value for it)."
        )
    return MasterKeyring.parse(configured.get_secret_value())


async def create_data_keys(tx: Tx, merchant_id: UUID) -> None:
    """Make the first key of each purpose, wrapped by the current master key."""
    for purpose in PURPOSES:
        master_key, wrapped = keyring().wrap(os.urandom(KEY_BYTES), data_key_identity(merchant_id, purpose, 1))
        await tx.row(INSERT, merchant_id, ids.new(), purpose, 1, master_key, wrapped)


def unwrap(merchant_id: UUID, rows: Iterable[Any]) -> MerchantKeys:
    """Return the keys of the rows of `data_key`. Raises DecryptionError when a master key is missing."""
    keys: dict[str, dict[int, bytes]] = {purpose: {} for purpose in PURPOSES}
    for row in rows:
        identity = data_key_identity(merchant_id, row["purpose"], row["version"])
        keys[row["purpose"]][row["version"]] = keyring().unwrap(row["master_key"], row["wrapped"], identity)
    return MerchantKeys(
        merchant_id,
        encryption=keys["ENCRYPTION"],
        lookup=keys["LOOKUP"][max(keys["LOOKUP"])],
        token=keys["TOKEN"][max(keys["TOKEN"])],
    )
