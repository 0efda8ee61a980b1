"""From an Authorization header to a viewer: API keys are looked up, member tokens verified, both kept briefly."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from cachetools import TLRUCache

from app import ids
from app.api.context import Role, Viewer
from app.config import settings
from app.members import tokens
from app.merchants import api_keys
from app.merchants.tenants import tenant
from app.storage.database import is_away

_KEPT_MAX: Final = 20_000
_CREDENTIAL_LENGTH_MAX: Final = 4096

#: What stays open asks again for its API key this often at most, and again this long after the database was away.
_ASK_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Proof:
    """Who a credential proves, and until when (monotonic seconds) that needs no other look."""

    viewer: Viewer
    stands_until: float
    #: How long requests are answered without another look.
    kept_seconds: float


#: By credential.
_kept: TLRUCache[str, Proof] = TLRUCache(_KEPT_MAX, lambda _credential, proof, now: now + proof.kept_seconds)


async def authenticate(authorization: str | None) -> Viewer | None:
    """Return who sends this header, or None if it proves nobody."""
    proof = await prove(authorization)
    return None if proof is None else proof.viewer


async def prove(authorization: str | None) -> Proof | None:
    """Return what this header proves, or None if it proves nobody.

    An API key is looked up again after `api_key_cache_seconds`, so a revoked one stops within that time on every
    process, and at once on the one that revoked it; a member token stands until it expires.
    """
    scheme, _, credential = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not credential or len(credential) > _CREDENTIAL_LENGTH_MAX:
        return None
    kept = _kept.get(credential)
    if kept is not None and kept.viewer.actor not in api_keys.revoked_here:
        return kept
    proof = await (_api_key(credential) if credential.startswith(api_keys.PREFIX) else _member(credential))
    if proof is None:
        _kept.pop(credential, None)
        return None
    _kept[credential] = proof
    return proof


async def lapsed(authorization: str | None, proof: Proof) -> None:
    """Wait until what this header proved doesn't stand any more: the token has expired or the key was revoked."""
    standing: Proof | None = proof
    while standing is not None:
        await asyncio.sleep(max(standing.stands_until - time.monotonic(), 0) + 0.01)
        try:
            standing = await prove(authorization)
        except Exception as error:
            if not is_away(error):
                raise
            await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def _api_key(secret: str) -> Proof | None:
    merchant_id = api_keys.merchant_of(secret)
    if merchant_id is None:
        return None
    row = await api_keys.find(merchant_id, secret)
    owner = await tenant(merchant_id) if row is not None else None
    if row is None or owner is None:
        return None
    viewer = Viewer(Role(row["role"]), owner, ids.encode("apikey", row["id"]))
    kept_seconds = settings().api_key_cache_seconds
    return Proof(viewer, time.monotonic() + max(kept_seconds, _ASK_AGAIN_SECONDS), kept_seconds)


async def _member(token: str) -> Proof | None:
    merchant_id = tokens.merchant_of(token)
    owner = await tenant(merchant_id) if merchant_id is not None else None
    verified = tokens.verify(token, owner) if owner is not None else None
    if owner is None or verified is None:
        return None
    viewer = Viewer(Role.MEMBER, owner, ids.encode("member", verified.member_id), verified.member_id)
    return Proof(viewer, time.monotonic() + verified.seconds_left, min(verified.seconds_left, 5.0))
