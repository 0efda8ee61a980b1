"""Envelope encryption: master keys wrap each merchant's data keys, and data keys encrypt and fingerprint its values.

Every ciphertext is `version (2 bytes) | nonce (12) | AES-256-GCM ciphertext and tag`, bound to the identity of
its row (merchant, row, column) as associated data, so a ciphertext moved to another place does not decrypt.
Fingerprints and blind indexes are HMAC-SHA-256 (RFC 2104) under a key of their own per merchant.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.config import ConfigurationError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION_BYTES: Final = 2
# RFC 2104.
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(each ^ 0x36 for each in range(256))
_OUTER: Final = bytes(each ^ 0x5C for each in range(256))


class DecryptionError(Exception):
    """A value doesn't decrypt: a wrong key, a changed byte, or a ciphertext from another row."""


class UnknownVersionError(DecryptionError):
    """A value is encrypted under a data key that these keys lack: a newer one, perhaps, than when they were read."""


@dataclass(frozen=True, slots=True)
class MasterKeyring:
    """The operator's keys, by name. The current one wraps; all of them unwrap."""

    current: str
    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str, origin: str = "FLASH_MASTER_KEYS") -> "MasterKeyring":
        """Read `name:base64,name:base64`, the current key first. `origin` is where the text is from, for people.

        Raises ConfigurationError when an entry is not a name and 32 bytes; the message never shows a key.
        """
        keys: dict[str, bytes] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, _, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not name or len(name) > 50 or len(key) != KEY_BYTES or name in keys:
                raise ConfigurationError(
                    f"{origin} must be `name:base64 of 32 bytes`, comma separated, each name once; "
                    "`flash keys new` prints a valid one."
                )
            keys[name] = key
        if not keys:
            raise ConfigurationError(f"{origin} is empty; `flash keys new` prints a valid one.")
        return cls(next(iter(keys)), keys)

    def spelled(self) -> str:
        """Return the text that `parse` reads: secret."""
        names = sorted(self.keys, key=lambda name: name != self.current)
        return ",".join(f"{name}:{base64.b64encode(self.keys[name]).decode()}" for name in names)

    def led_by(self, name: str) -> "MasterKeyring":
        """Return these keys and a fresh one, which is the current one."""
        return MasterKeyring(name, {name: os.urandom(KEY_BYTES)} | self.keys)

    def without(self, name: str) -> "MasterKeyring":
        """Return these keys without one that isn't the current one."""
        return MasterKeyring(self.current, {kept: key for kept, key in self.keys.items() if kept != name})

    def wrap(self, key: bytes, identity: bytes) -> tuple[str, bytes]:
        """Return the current master key's name and the wrapped data key."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.current, nonce + AESGCM(self.keys[self.current]).encrypt(nonce, key, identity)

    def unwrap(self, name: str, wrapped: bytes, identity: bytes) -> bytes:
        """Return the data key. Raises DecryptionError when the master key is missing or another one."""
        if name not in self.keys:
            raise DecryptionError(f"a data key is wrapped by master key {name!r}, which is not configured")
        try:
            return AESGCM(self.keys[name]).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], identity)
        except (InvalidTag, ValueError):
            raise DecryptionError(f"a data key doesn't unwrap under master key {name!r}") from None


def new_master_key(name: str) -> str:
    """Return a fresh entry for FLASH_MASTER_KEYS."""
    return f"{name}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def data_key_identity(merchant_id: UUID, purpose: str, version: int) -> bytes:
    """Return what a wrapped data key is bound to."""
    return merchant_id.bytes + f"/{purpose}/{version}".encode()


class MerchantKeys:
    """One merchant's data keys, unwrapped: what encrypts, fingerprints and signs for it."""

    __slots__ = ("_ciphers", "_current", "_lookup", "memory_pads", "merchant_id", "token_keys")

    def __init__(
        self,
        merchant_id: UUID,
        *,
        encryption: dict[int, bytes],
        lookup: bytes,
        tokens: Sequence[bytes],
        current: int | None = None,
    ) -> None:
        """Take the encryption keys by version (`current`, or else the highest, encrypts), lookup key and token keys.

        What any of the token keys signed is honoured, and the first one signs.
        """
        self.merchant_id = merchant_id
        self.token_keys = tuple(tokens)
        self._ciphers = {version: AESGCM(key) for version, key in encryption.items()}
        self._current = max(encryption) if current is None else current
        self._lookup = lookup
        # A key that is derived, hashes other things and finds nothing that a blind index does. As the two blocks of
        # RFC 2104, since SQL hashes with it.
        memory = hmac.digest(lookup, b"erasure memory", "sha256").ljust(_BLOCK_BYTES, b"\0")
        #: By what is kept of who was erased: the inner and the outer block of an HMAC-SHA-256 key.
        self.memory_pads = memory.translate(_INNER) + memory.translate(_OUTER)

    def encrypt(self, row_id: UUID, column: str, text: str) -> bytes:
        """Return the ciphertext of a value that belongs to this row and column."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, text.encode(), self._identity(row_id, column))
        return self._current.to_bytes(_VERSION_BYTES) + nonce + sealed

    def decrypt(self, row_id: UUID, column: str, ciphertext: bytes) -> str:
        """Return the value. Raises DecryptionError for any other row, column, merchant or key.

        UnknownVersionError among them may mean that these keys are old: `tenants.decrypted` looks again.
        """
        cipher = self._ciphers.get(int.from_bytes(ciphertext[:_VERSION_BYTES]))
        if cipher is None:
            raise UnknownVersionError("a value is encrypted under a data key version that is not loaded")
        nonce = ciphertext[_VERSION_BYTES : _VERSION_BYTES + _NONCE_BYTES]
        sealed = ciphertext[_VERSION_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, self._identity(row_id, column)).decode()
        except (InvalidTag, ValueError):
            raise DecryptionError("a value doesn't decrypt in the row that holds it") from None

    def below_current(self) -> bytes:
        """Return what every ciphertext under an older version than the current one sorts before, and no other does."""
        return self._current.to_bytes(_VERSION_BYTES)

    def code_fingerprint(self, code: str) -> bytes:
        """Return the 32 bytes by which a code is found; equal codes of two merchants differ."""
        return hmac.digest(self._lookup, b"code\0" + code.encode(), "sha256")

    def email_index(self, address: str) -> bytes:
        """Return the 32 bytes by which a normalised address is found."""
        return hmac.digest(self._lookup, b"email\0" + address.encode(), "sha256")

    def request_index(self, told: str) -> bytes:
        """Return the 32 bytes by which a request is known again: of its idempotency key, or of what it asked for."""
        return hmac.digest(self._lookup, b"request\0" + told.encode("utf-8", "surrogatepass"), "sha256")

    def _identity(self, row_id: UUID, column: str) -> bytes:
        return self.merchant_id.bytes + row_id.bytes + column.encode()
