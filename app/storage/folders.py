"""Folders that only their owner can fill or replace.

Whoever can put a folder, link or socket where root expects its own becomes root, or the database's user.
"""

import os
import stat
from pathlib import Path
from typing import Final

from app.errors import ConfigurationError

_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_LINKS_MAX: Final = 40


def refuse_strangers(path: Path) -> None:
    """As root, raise ConfigurationError if another user can change what a path leads to. It need not exist.

    Each step must belong to root. A folder that others can write to must be sticky, so that they can't replace its
    entries.
    """
    if os.geteuid() != 0:
        return
    leading, steps, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    while steps:
        step = leading / steps.pop()
        try:
            found = step.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if found.st_uid != 0:
            raise _untrusted(path, step, f"belongs to user {found.st_uid}")
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _LINKS_MAX:
                raise _untrusted(path, step, "is one of too many links")
            target = step.readlink()
            leading = Path("/") if target.is_absolute() else leading
            steps.extend(reversed([part for part in target.parts if part != "/"]))
        elif stat.S_ISDIR(found.st_mode) and found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX:
            raise _untrusted(path, step, "can be written by other users")
        else:
            leading = step


def make_private(path: Path) -> None:
    """Make a folder that only this user can write to, unless it exists.

    Raises ConfigurationError when something else exists there, and OSError when it can't be made.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    refuse_others(path)


def refuse_others(path: Path) -> None:
    """Raise ConfigurationError unless this user owns the folder and nobody else can write to it."""
    owner = owner_of(path)
    if owner != os.geteuid():
        raise ConfigurationError(f"{path} belongs to user {owner}; run this as that user, or choose another place.")


def owner_of(path: Path) -> int:
    """Return the owner of a folder. Raises ConfigurationError for a link, or if others can write to it."""
    descriptor = _open(path)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if found.st_mode & _WRITABLE:
        raise ConfigurationError(f"Other users can write to {path}; take that permission away (chmod go-w).")
    return found.st_uid


def give(path: Path, uid: int) -> None:
    """As root, give a folder to another user. Raises ConfigurationError for a link."""
    descriptor = _open(path)
    try:
        os.fchown(descriptor, uid, uid)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        if path.is_symlink():
            raise ConfigurationError(f"{path} is a link; it must be a folder.") from None
        raise


def _untrusted(path: Path, step: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"Root can't trust {path}: {step} {why}. Choose a place that only root can change.")
