"""The operator's master keys: from FLASH_MASTER_KEYS, or from a file that may change while processes run."""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from app.config import ConfigurationError, settings
from app.storage.crypto import DecryptionError, MasterKeyring
from app.storage.files import sync_entries
from app.storage.folders import refuse_strangers


@dataclass(slots=True)
class _Known:
    keyring: MasterKeyring | None = None


_known = _Known()


def configured() -> MasterKeyring:
    """Return the master keys as they are configured at this moment.

    Raises ConfigurationError when there are none, when they are configured twice or when they can't be read.
    """
    text, path = settings().master_keys, settings().master_keys_file
    if text is not None and path is not None:
        raise ConfigurationError("Set FLASH_MASTER_KEYS or FLASH_MASTER_KEYS_FILE, not both.")
    if text is not None:
        return MasterKeyring.parse(text.get_secret_value())
    if path is None:
        raise ConfigurationError(
            "No master key is configured: set FLASH_MASTER_KEYS (`flash keys new` prints a value for it)."
        )
    return read_file(path)


def read_file(path: Path) -> MasterKeyring:
    """Return the master keys in a file. Raises ConfigurationError."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not text"
        raise ConfigurationError(f"The master keys in {path} can't be read ({reason.lower()}).") from None
    return MasterKeyring.parse(text, str(path))


def keyring() -> MasterKeyring:
    """Return the master keys that this process knows; they are read on first use."""
    return _known.keyring or read_again()


def read_again() -> MasterKeyring:
    """Read the configured keys and return them with all that this process knew before.

    A key that was removed stays known until the process ends, because rows that were read just before may need it.
    """
    fresh = configured()
    before = _known.keyring.keys if _known.keyring else {}
    _known.keyring = MasterKeyring(fresh.current, before | fresh.keys)
    return _known.keyring


def unwrap(name: str, wrapped: bytes, identity: bytes) -> bytes:
    """Return a data key. One that doesn't unwrap is tried again with the keys as they are configured by now.

    Raises DecryptionError when the master key is missing or another one.
    """
    tried = keyring()
    try:
        return tried.unwrap(name, wrapped, identity)
    except DecryptionError:
        if read_again() == tried:
            raise
    return keyring().unwrap(name, wrapped, identity)


def replace_file(path: Path, changed: MasterKeyring) -> None:
    """Replace the file of the master keys, whole or not at all; its owner, group and mode stay.

    Raises ConfigurationError when that isn't allowed. Not for two writers at once.
    """
    target = path.resolve()
    refuse_strangers(target.parent)
    fresh = target.with_name(f".{target.name}.new")
    try:
        found = target.stat()
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, found.st_uid, found.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
            file.write(changed.spelled() + "\n")
            file.flush()
            os.fsync(descriptor)
        fresh.replace(target)
        sync_entries(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise ConfigurationError(
            f"The master keys in {path} can't be changed here ({(error.strerror or str(error)).lower()}); "
            "change them where they are made, and run this again."
        ) from None
