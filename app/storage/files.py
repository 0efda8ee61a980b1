"""Files that survive a crash of the machine, and what tells them from others."""

import hashlib
import os
from pathlib import Path


def sync_entries(directory: Path) -> None:
    """Make the entries of a directory survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
