"""Member tokens: short-lived JWTs (RFC 7519, HS256) under the merchant's own token keys.

Beside the registered claims each names the member's generation (`gen`) that it was issued in: token_feed.py says which
one stands.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt

from app import ids
from app.api.context import Tenant
from app.merchants.data_keys import TOKEN_SECONDS_MAX

_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ["iss", "sub", "iat", "exp"]
_SKEW_SECONDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """Whose token it is, of which generation, and for how long it still stands: not at all when that isn't over 0."""

    member_id: UUID
    generation: int
    seconds_left: float


def issue(tenant: Tenant, member_id: UUID, lifetime_seconds: int, *, generation: int) -> tuple[str, datetime]:
    """Return a token for a member and when it expires (UTC, to the millisecond).

    In whole seconds a token for a second would expire within it, perhaps before it arrives.
    """
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    expires_at = now + timedelta(seconds=lifetime_seconds)
    claims = {
        "iss": ids.encode("merchant", tenant.id),
        "sub": ids.encode("member", member_id),
        "iat": now.timestamp(),
        "exp": expires_at.timestamp(),
        "gen": generation,
    }
    return jwt.encode(claims, tenant.keys.token_keys[0], algorithm=_ALGORITHM), expires_at


def merchant_of(token: str) -> UUID | None:
    """Return the merchant that a token claims to be issued by; `verify` proves it."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    issuer = claims.get("iss")
    return ids.decode("merchant", issuer) if isinstance(issuer, str) else None


def verify(token: str, tenant: Tenant) -> VerifiedToken | None:
    """Return what a token proves, or None if it proves nothing (signature, issuer, lifetime, form).

    It may have expired.
    """
    claims = _signed_claims(token, tenant)
    if claims is None:
        return None
    member_id, generation = ids.decode("member", claims["sub"]), claims.get("gen", 0)
    issued_at, expires_at = claims["iat"], claims["exp"]
    if member_id is None or type(generation) is not int or generation < 0:
        return None
    if not all(isinstance(each, int | float) for each in (issued_at, expires_at)):
        return None
    # Whoever signed it: no token lives longer, and one that would says nothing.
    if not expires_at - issued_at <= TOKEN_SECONDS_MAX:
        return None
    return VerifiedToken(member_id, generation, expires_at - time.time())


def _signed_claims(token: str, tenant: Tenant) -> dict[str, Any] | None:
    """Return the claims of a token that one of the merchant's keys signed, of the right form and issuer."""
    for key in tenant.keys.token_keys:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                issuer=ids.encode("merchant", tenant.id),
                # The process that issued it may have been on a machine whose clock is ahead.
                leeway=_SKEW_SECONDS_MAX,
                # PyJWT would cut the expiry to whole seconds; `verify` looks at it.
                options={"require": _REQUIRED, "verify_exp": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidTokenError:
            return None
    return None
