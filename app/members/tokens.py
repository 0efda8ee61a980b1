"""Member tokens: short-lived JWTs (RFC 7519, HS256) under the merchant's own token key."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import jwt

from app import ids
from app.api.context import Tenant

_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ["iss", "sub", "iat", "exp"]
_SKEW_SECONDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """Whose token it is and for how long it still stands; it has expired when that isn't over 0."""

    member_id: UUID
    seconds_left: float


def issue(tenant: Tenant, member_id: UUID, lifetime_seconds: int) -> tuple[str, datetime]:
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
    }
    return jwt.encode(claims, tenant.keys.token_key, algorithm=_ALGORITHM), expires_at


def merchant_of(token: str) -> UUID | None:
    """Return the merchant that a token claims to be issued by; `verify` proves it."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    issuer = claims.get("iss")
    return ids.decode("merchant", issuer) if isinstance(issuer, str) else None


def verify(token: str, tenant: Tenant) -> VerifiedToken | None:
    """Return what a token proves, or None if it proves nothing (signature, issuer, form). It may have expired."""
    try:
        claims = jwt.decode(
            token,
            tenant.keys.token_key,
            algorithms=[_ALGORITHM],
            issuer=ids.encode("merchant", tenant.id),
            # The process that issued it may have been on a machine whose clock is ahead.
            leeway=_SKEW_SECONDS_MAX,
            # PyJWT would cut the expiry to whole seconds; it is looked at below.
            options={"require": _REQUIRED, "verify_exp": False},
        )
    except jwt.InvalidTokenError:
        return None
    member_id = ids.decode("member", claims["sub"])
    seconds_left = claims["exp"] - time.time() if isinstance(claims["exp"], int | float) else 0.0
    return VerifiedToken(member_id, seconds_left) if member_id is not None else None
