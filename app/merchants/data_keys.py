"""A merchant's data keys: made with the merchant, unwrapped once per process, kept in memory only."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.storage import events, master_keys
from app.storage.crypto import KEY_BYTES, MerchantKeys, data_key_identity
from app.storage.database import Tx, transaction
from app.storage.statements import NoRow, row_of, statement

PURPOSES = ("ENCRYPTION", "LOOKUP", "TOKEN")
#: A new version encrypts or signs only when it is this old, so that by then every process has read it (tenants are kept
#: for five seconds). A process that is slower than that looks again when it meets a ciphertext of a version that it
#: doesn't know.
SETTLING_SECONDS: Final = 10.0
#: How long a member token may live.
TOKEN_SECONDS_MAX: Final = 86_400
#: How long after the next one was made a token key is honoured: until what it signed last has ended. It may have signed
#: for half a minute (SETTLING_SECONDS, `reencrypt.DRAINING_SECONDS`), and clocks are some seconds apart.
HONOURED_SECONDS: Final = TOKEN_SECONDS_MAX + 60.0
#: Whoever makes data keys holds this lock (shared) from reading the master keys until its commit; whoever changes the
#: master keys takes it alone. So no data key is ever wrapped by a master key that was removed meanwhile.
WRAPPING_LOCK: Final = 7_015_226_004


@row_of(k="data_key")
class DataKeyRow(TypedDict):
    """A data key `k` as `unwrap` takes it, and how old it is."""

    key_purpose: Annotated[str, "k.purpose"]
    key_version: Annotated[int, "k.version"]
    key_master_key: Annotated[str, "k.master_key"]
    key_wrapped: Annotated[bytes, "k.wrapped"]
    key_age_seconds: Annotated[float, "extract(epoch FROM now() - k.created_at)::float8"]


class _NewestRow(TypedDict):
    version: int
    adopted_at: datetime | None


class _MadeRow(TypedDict):
    id: UUID


HOLD_MASTER_KEYS: Final = statement(NoRow, f"SELECT FROM pg_advisory_xact_lock_shared({WRAPPING_LOCK})")
INSERT: Final = statement(
    NoRow,
    """
INSERT INTO data_key (merchant_id, id, purpose, version, master_key, wrapped, created_at, adopted_at)
VALUES (:merchant_id, :id, :purpose, 1, :master_key, :wrapped, now(), now())
""",
)
NEWEST: Final = statement(
    _NewestRow,
    """
SELECT version, adopted_at FROM data_key
WHERE merchant_id = :merchant_id AND purpose = :purpose ORDER BY version DESC LIMIT 1
""",
)
# By the clock, because now() is when the transaction began, and others look at how old the row is.
INSERT_NEXT: Final = statement(
    _MadeRow,
    """
INSERT INTO data_key (merchant_id, id, purpose, version, master_key, wrapped, created_at)
VALUES (:merchant_id, :id, :purpose, :version, :master_key, :wrapped, clock_timestamp())
ON CONFLICT (merchant_id, purpose, version) DO NOTHING RETURNING id
""",
)


async def create_data_keys(tx: Tx, merchant_id: UUID) -> None:
    """Make the first key of each purpose, wrapped by the current master key."""
    await tx.row(HOLD_MASTER_KEYS)
    keyring = master_keys.read_again()
    for purpose in PURPOSES:
        master_key, wrapped = keyring.wrap(os.urandom(KEY_BYTES), data_key_identity(merchant_id, purpose, 1))
        await tx.row(
            INSERT, merchant_id=merchant_id, id=ids.new(), purpose=purpose, master_key=master_key, wrapped=wrapped
        )


async def next_key(merchant_id: UUID, purpose: str) -> int:
    """Make a merchant's next key of a purpose, unless the newest one isn't adopted yet.

    Returns the newest version. Safe to run at once: all callers return the same one.
    """
    async with transaction(merchant_id) as tx:
        await tx.row(HOLD_MASTER_KEYS)
        newest = await tx.row(NEWEST, merchant_id=merchant_id, purpose=purpose)
        if newest is None:
            raise RuntimeError("a merchant has no data key")
        if newest["adopted_at"] is None:
            return newest["version"]
        version = newest["version"] + 1
        identity = data_key_identity(merchant_id, purpose, version)
        master_key, wrapped = master_keys.read_again().wrap(os.urandom(KEY_BYTES), identity)
        made = await tx.row(
            INSERT_NEXT,
            merchant_id=merchant_id,
            id=ids.new(),
            purpose=purpose,
            version=version,
            master_key=master_key,
            wrapped=wrapped,
        )
        if made is not None:
            await events.record(tx, merchant_id, "merchant.data_key_created", merchant_id, "system")
        return version


def unwrap(merchant_id: UUID, rows: Sequence[DataKeyRow], *, current: int | None = None) -> MerchantKeys:
    """Return the keys of all of a merchant's rows, but for token keys of which nothing can stand any more.

    The version `current` encrypts, or else the newest that has settled. Raises DecryptionError when a master key is
    missing.
    """
    keys: dict[str, dict[int, bytes]] = {purpose: {} for purpose in PURPOSES}
    settled: dict[str, list[int]] = {purpose: [] for purpose in PURPOSES}
    for row in rows:
        purpose, version = row["key_purpose"], row["key_version"]
        if purpose == "TOKEN" and _is_over(version, rows):
            continue
        identity = data_key_identity(merchant_id, purpose, version)
        keys[purpose][version] = master_keys.unwrap(row["key_master_key"], row["key_wrapped"], identity)
        if row["key_age_seconds"] >= SETTLING_SECONDS:
            settled[purpose].append(version)
    # A merchant that is younger than that began with the lowest.
    first = {purpose: max(settled[purpose], default=min(keys[purpose])) for purpose in PURPOSES}
    signing = keys["TOKEN"].pop(first["TOKEN"])
    return MerchantKeys(
        merchant_id,
        encryption=keys["ENCRYPTION"],
        lookup=keys["LOOKUP"][max(keys["LOOKUP"])],
        tokens=[signing, *keys["TOKEN"].values()],
        current=current or first["ENCRYPTION"],
    )


def _is_over(version: int, rows: Sequence[DataKeyRow]) -> bool:
    """Whether all that a token key signed has ended, because a newer one signs for long enough."""
    return any(
        row["key_purpose"] == "TOKEN" and row["key_version"] > version and row["key_age_seconds"] >= HONOURED_SECONDS
        for row in rows
    )
