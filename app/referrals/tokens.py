"""Tokens of invites: unguessable, found by their hash, and readable again only for who sent the invite."""

import hashlib
import re
import secrets
from typing import Final

_PREFIX: Final = "inv_"
_RANDOM_BYTES: Final = 24
_FORM: Final = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{32}}", re.ASCII)


def new_token() -> str:
    """Return a token of 192 random bits."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def token_hash(text: str) -> bytes | None:
    """Return the SHA-256 that a presented token is found by, or None if it can't be one. White space around is lost.

    A fast hash is enough: there is nothing to guess among 192 random bits.
    """
    token = text.strip()
    return hashlib.sha256(token.encode()).digest() if _FORM.fullmatch(token) else None
