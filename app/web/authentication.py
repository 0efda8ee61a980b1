"""Who sends an Authorization header: API keys are looked up, member tokens verified, and both kept for some seconds."""

import asyncio
import hashlib
import time
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final
from uuid import UUID

from cachetools import LRUCache, TTLCache
from starlette.types import Scope

from app import ids
from app.api.context import Role, Viewer
from app.config import settings
from app.members import token_feed, tokens
from app.members.token_feed import TokenFeed
from app.merchants import api_keys
from app.merchants.key_feed import KeyFeed
from app.merchants.tenants import tenant
from app.storage.lasting import Lasting

_KEPT_MAX: Final = 20_000
_CREDENTIAL_LENGTH_MAX: Final = 4096
#: How long an invalid credential is refused without another look-up, and how long failures are counted.
_REFUSED_SECONDS: Final = 10.0
_COUNTED_SECONDS: Final = 60.0
#: Whoever has one IPv6 address usually has a whole network of this size.
_IPV6_PREFIX: Final = 64

#: How long something is open at least before its API key is watched.
_UNWATCHED_SECONDS: Final = 1.0


class Unproven(Enum):
    """Why a header is refused. Only whoever had the credential can learn that it expired or was revoked."""

    MISSING = "Send a key or a token as `Authorization: Bearer …`."
    MALFORMED = "The Authorization header must be `Bearer`, a space, and a key or a token."
    UNKNOWN = "There is no such key, or the token wasn't issued here."
    EXPIRED = "The token has expired; get another one."
    REVOKED = "The key or the token was revoked."


@dataclass(frozen=True, slots=True)
class Proof:
    """Whose a credential is, and until when (monotonic seconds) an open stream may rely on it."""

    viewer: Viewer
    stands_until: float
    #: How long requests are answered without another look-up.
    kept_seconds: float
    #: Of a member token: the generation that it was issued in.
    generation: int = 0


TOO_MANY_FAILURES: Final = "Too many keys and tokens from this address proved nobody; try again in a minute."


class TooManyFailuresError(Exception):
    """Too many credentials from this address were unknown, and this one wasn't seen before, so it isn't looked up."""


#: By credential.
_kept: Lasting[str, Proof] = Lasting(_KEPT_MAX)
#: By SHA-256, because a mistyped credential is nearly a secret.
_refused: TTLCache[bytes, Unproven] = TTLCache(_KEPT_MAX, _REFUSED_SECONDS)
#: Keys (by SHA-256) and merchants that were found before. They are looked up however many failures their address had.
_found: LRUCache[Hashable, None] = LRUCache(_KEPT_MAX)
#: How many look-ups found nothing, by address. The count ends a minute after the first.
_failures: TTLCache[str, list[int]] = TTLCache(_KEPT_MAX, _COUNTED_SECONDS)


async def authenticate(authorization: str | None) -> Viewer | None:
    """Return who sends this header, or None."""
    proof = await prove(authorization)
    return proof.viewer if isinstance(proof, Proof) else None


def address_of(scope: Scope) -> str:
    """Return the address that a request or a handshake came from, as far as it is known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def proven(authorization: str | None) -> Proof | None:
    """Return whose credential is in this header, if it is known without a look-up."""
    kept = _kept.get(_credential(authorization))
    return None if kept is None or _was_revoked_here(kept) else kept


def _credential(authorization: str | None) -> str:
    """Return the credential in this header, empty if there is none that could be one."""
    scheme, _, credential = (authorization or "").partition(" ")
    return credential if scheme.lower() == "bearer" and len(credential) <= _CREDENTIAL_LENGTH_MAX else ""


async def prove(authorization: str | None, address: str = "") -> Proof | Unproven:
    """Return whose credential is in this header, which came from an address. Raises TooManyFailuresError.

    An API key is looked up again after `api_key_cache_seconds`. So a revoked key stops working within that time on
    every process, and at once on the one that revoked it. The same holds for a member token, until it expires.
    """
    if not authorization:
        return Unproven.MISSING
    credential = _credential(authorization)
    if not credential:
        return Unproven.MALFORMED
    known = proven(authorization)
    if known is not None:
        return known
    digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
    return _refused.get(digest) or await _look_up(credential, digest, _network(address))


async def _look_up(credential: str, digest: bytes, network: str) -> Proof | Unproven:
    """Look a credential up, and keep the result. Raises TooManyFailuresError."""
    is_key = credential.startswith(api_keys.PREFIX)
    merchant_id = api_keys.merchant_of(credential) if is_key else tokens.merchant_of(credential)
    if merchant_id is None:
        return Unproven.MALFORMED
    looked_up: Hashable = digest if is_key else merchant_id
    if looked_up not in _found and _failures.get(network, [0])[0] >= settings().failed_authentications_max:
        raise TooManyFailuresError
    proof = await (_api_key(merchant_id, credential) if is_key else _member(merchant_id, credential))
    if isinstance(proof, Proof):
        _kept.keep(credential, proof, time.monotonic() + proof.kept_seconds)
        _found[looked_up] = None
        return proof
    _kept.drop(credential)
    _refused[digest] = proof
    if looked_up not in _found:
        _failures.setdefault(network, [0])[0] += 1
    return proof


async def lapsed(proof: Proof) -> Unproven:
    """Wait until a credential is no longer valid. Returns why."""
    viewer = proof.viewer
    if viewer.member_id is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(proof.stands_until - time.monotonic(), 0) + 0.01):
                await TokenFeed.of_process().ended((viewer.merchant_id, viewer.member_id), proof.generation)
                return Unproven.REVOKED
        return Unproven.EXPIRED
    # What is open for a shorter time needs no look.
    await asyncio.sleep(max(proof.stands_until - time.monotonic(), 0) + 0.01)
    api_key_id = ids.decode("apikey", viewer.actor)
    if api_key_id is None:
        raise RuntimeError("a viewer that is neither a member nor a key")
    await KeyFeed.of_process().revoked((viewer.merchant_id, api_key_id))
    return Unproven.REVOKED


def _was_revoked_here(proof: Proof) -> bool:
    viewer = proof.viewer
    if viewer.member_id is None:
        return viewer.actor in api_keys.revoked_here
    return token_feed.has_ended((viewer.merchant_id, viewer.member_id), proof.generation)


async def _api_key(merchant_id: UUID, secret: str) -> Proof | Unproven:
    row = await api_keys.find(merchant_id, secret)
    if row is None:
        return Unproven.REVOKED if await api_keys.was_revoked(merchant_id, secret) else Unproven.UNKNOWN
    owner = await tenant(merchant_id)
    if owner is None:
        return Unproven.UNKNOWN
    viewer = Viewer(Role(row["role"]), owner, ids.encode("apikey", row["id"]))
    kept_seconds = settings().api_key_cache_seconds
    return Proof(viewer, time.monotonic() + max(kept_seconds, _UNWATCHED_SECONDS), kept_seconds)


async def _member(merchant_id: UUID, token: str) -> Proof | Unproven:
    owner = await tenant(merchant_id)
    if owner is None:
        return Unproven.UNKNOWN
    _found[merchant_id] = None
    verified = tokens.verify(token, owner)
    if verified is None:
        return Unproven.UNKNOWN
    if not verified.seconds_left > 0:
        return Unproven.EXPIRED
    known_until = await token_feed.stands_until((merchant_id, verified.member_id), verified.generation)
    if known_until is None:
        return Unproven.REVOKED
    viewer = Viewer(Role.MEMBER, owner, ids.encode("member", verified.member_id), verified.member_id)
    now = time.monotonic()
    kept_seconds = min(verified.seconds_left, known_until - now)
    return Proof(viewer, now + verified.seconds_left, kept_seconds, verified.generation)


def _network(address: str) -> str:
    with suppress(ValueError):
        parsed = ip_address(address)
        if isinstance(parsed, IPv6Address):
            return str(IPv6Network((parsed, _IPV6_PREFIX), strict=False))
    return address
