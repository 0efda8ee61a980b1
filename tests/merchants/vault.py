"""Keys and ciphertexts as they lie in a database, for tests that rotate them: read without the engine's caches."""

import base64
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from app import ids
from app.merchants.reencrypt import SEALED
from app.storage.crypto import KEY_BYTES, MasterKeyring, MerchantKeys, data_key_identity
from tests.operate.processes import flash

FIND_KEYS = "SELECT purpose, version, master_key, wrapped FROM data_key WHERE merchant_id = $1 ORDER BY version"
INSERT_KEY = """
INSERT INTO data_key (merchant_id, id, purpose, version, master_key, wrapped, created_at)
VALUES ($1, $2, 'ENCRYPTION', $3, $4, $5, now() - $6 * interval '1 second')
"""


@dataclass
class Vault:
    """A database and the file of its master keys."""

    url: str
    file: Path

    @property
    def variables(self) -> dict[str, str]:
        """What configures a process for this vault."""
        redis = os.environ["REDIS_URL"]
        return {"DATABASE_URL": self.url, "REDIS_URL": redis, "FLASH_MASTER_KEYS_FILE": str(self.file)}

    def keyring(self) -> MasterKeyring:
        """Return the master keys in the file."""
        return MasterKeyring.parse(self.file.read_text())

    def flash(self, *arguments: str) -> Any:
        """Run a command on this vault to its end."""
        return flash(*arguments, cwd=None, **self.variables)

    async def keys(self, merchant_id: UUID) -> MerchantKeys:
        """Return a merchant's keys, unwrapped with the master keys of the file only."""
        rows = await self.rows(FIND_KEYS, merchant_id)
        master = self.keyring()
        plain: dict[str, dict[int, bytes]] = {"ENCRYPTION": {}, "LOOKUP": {}, "TOKEN": {}}
        for row in rows:
            identity = data_key_identity(merchant_id, row["purpose"], row["version"])
            plain[row["purpose"]][row["version"]] = master.unwrap(row["master_key"], row["wrapped"], identity)
        return MerchantKeys(
            merchant_id, encryption=plain["ENCRYPTION"], lookup=plain["LOOKUP"][1], tokens=[*plain["TOKEN"].values()]
        )

    async def add_version(self, merchant_id: UUID, version: int, *, age_seconds: float = 3600.0) -> None:
        """Give a merchant another data key, as a run that was killed right after its start leaves it."""
        name, wrapped = self.keyring().wrap(
            os.urandom(KEY_BYTES), data_key_identity(merchant_id, "ENCRYPTION", version)
        )
        await self.rows(INSERT_KEY, merchant_id, ids.new(), version, name, wrapped, age_seconds)

    async def values(self, merchant_id: UUID) -> Counter[tuple[str, int]]:
        """Decrypt everything that a merchant has. Returns how many values each column has under each version."""
        keys = await self.keys(merchant_id)
        found: Counter[tuple[str, int]] = Counter()
        for sealed in SEALED:
            sql = f"SELECT {sealed.row_id} AS id, {sealed.column} AS value FROM {sealed.table} WHERE merchant_id = $1"
            for row in await self.rows(f"{sql} AND {sealed.column} IS NOT NULL", merchant_id):
                assert keys.decrypt(row["id"], sealed.identity, row["value"])
                found[f"{sealed.table}.{sealed.column}", int.from_bytes(row["value"][:2])] += 1
        return found

    async def rows(self, sql: str, *args: object) -> list[Any]:
        """Run one statement on a connection of its own."""
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()


def spellings(*keyrings: MasterKeyring) -> list[str]:
    """Return what must never be printed of master keys."""
    keys = [key for keyring in keyrings for key in keyring.keys.values()]
    return [spelling for key in keys for spelling in (base64.b64encode(key).decode().rstrip("="), key.hex())]
