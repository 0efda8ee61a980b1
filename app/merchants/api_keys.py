"""API keys: `flash_`, the merchant, and 256 random bits, of which the database holds the SHA-256."""

import hashlib
import math
import secrets
from typing import Final, TypedDict
from uuid import UUID

from cachetools import TTLCache

from app import ids
from app.api.context import Role
from app.merchants.rows import ApiKeyRow
from app.storage import events
from app.storage.database import Tx, database
from app.storage.statements import NoRow, columns, statement

PREFIX: Final = "flash_"

#: The keys that this process revoked, by id: what it keeps of them doesn't stand any more. In ten minutes nothing is
#: kept of them, and nobody waits for an answer to an older question.
revoked_here: Final[TTLCache[str, None]] = TTLCache(math.inf, ttl=600)


class WorkingKeyRow(TypedDict):
    """An API key that works, as authentication needs it."""

    id: UUID
    role: str


INSERT: Final = statement(
    ApiKeyRow,
    f"""
INSERT INTO api_key AS k (merchant_id, id, label, role, secret_hash, created_at)
VALUES (:merchant_id, :id, :label, :role, :secret_hash, now())
RETURNING {columns(ApiKeyRow)}
""",
)
FIND: Final = statement(
    WorkingKeyRow,
    """
SELECT id, role FROM api_key WHERE merchant_id = :merchant_id AND secret_hash = :secret_hash AND revoked_at IS NULL
""",
)


async def insert(tx: Tx, merchant_id: UUID, *, label: str, role: Role, actor: str) -> tuple[ApiKeyRow, str]:
    """Make a key. Returns its row and its secret, which can't be read again."""
    secret = f"{PREFIX}{merchant_id.hex}_{secrets.token_urlsafe(32)}"
    row = await tx.row(
        INSERT, merchant_id=merchant_id, id=ids.new(), label=label, role=role.value, secret_hash=_hash(secret)
    )
    if row is None:
        raise RuntimeError("INSERT returned no row")
    await events.record(tx, merchant_id, "api_key.created", row["api_key_id"], actor)
    return row, secret


def merchant_of(secret: str) -> UUID | None:
    """Return the merchant that a key names, or None if it isn't of a key's form."""
    merchant, _, rest = secret.removeprefix(PREFIX).partition("_")
    if not secret.startswith(PREFIX) or not rest:
        return None
    return ids.decode("merchant", f"merchant_{merchant}")


async def find(merchant_id: UUID, secret: str) -> WorkingKeyRow | None:
    """Return the working key with this secret."""
    return await database().row(FIND, merchant_id=merchant_id, secret_hash=_hash(secret))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


FIND_REVOKED: Final = statement(
    NoRow, "SELECT FROM api_key WHERE merchant_id = :merchant_id AND secret_hash = :secret_hash"
)


async def was_revoked(merchant_id: UUID, secret: str) -> bool:
    """Whether a secret that no working key has was a key's once."""
    return await database().row(FIND_REVOKED, merchant_id=merchant_id, secret_hash=_hash(secret)) is not None
