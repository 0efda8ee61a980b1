"""Signed addresses of a snapshot's files: a picture can't send an Authorization header, so its URL carries the proof.

The proof is an HMAC-SHA-256 of the merchant, the file's name and the end of its time, under a key derived from one of
the merchant's token keys.
"""

import hmac
import time
from typing import Final, Literal
from uuid import UUID

from app import ids
from app.api.context import Tenant

Format = Literal["svg", "json"]

#: A URL is good for one to two of these, and is the same within one: so are the caches that it is a key of.
SLOT_SECONDS: Final = 900


def signed_url(owner: Tenant, snapshot_id: UUID, form: Format) -> str:
    """Return the address of a snapshot's file on this server, good for 15 to 30 minutes."""
    expires = (int(time.time()) // SLOT_SECONDS + 2) * SLOT_SECONDS
    name = f"{ids.encode('graph', snapshot_id)}.{form}"
    merchant = ids.encode("merchant", owner.id)
    proof = signature(owner, owner.keys.token_keys[0], name, str(expires))
    return f"/graph/{name}?merchant={merchant}&expires={expires}&signature={proof}"


def is_signed(owner: Tenant, name: str, expires: str, given: str) -> bool:
    """Whether this is the signature of a file's name and an end that hasn't come."""
    proofs = (signature(owner, key, name, expires) for key in owner.keys.token_keys)
    return any(hmac.compare_digest(given.encode(), each.encode()) for each in proofs) and int(expires) > time.time()


def signature(owner: Tenant, token_key: bytes, name: str, expires: str) -> str:
    """Return the proof for a file's name until a second of Unix time."""
    key = hmac.digest(token_key, b"graph file", "sha256")
    return hmac.digest(key, f"{owner.id.hex}/{name}/{expires}".encode(), "sha256").hex()
