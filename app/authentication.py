"""From an Authorization header to a viewer: API keys are looked up, member tokens verified, both kept briefly."""

import time
from collections import OrderedDict
from typing import Final

from app import ids
from app.config import settings
from app.context import Role, Viewer
from app.members import tokens
from app.merchants import api_keys
from app.merchants.tenants import tenant

_KEPT_MAX: Final = 20_000
_CREDENTIAL_LENGTH_MAX: Final = 4096

#: By credential: until when (monotonic seconds) it stands for which viewer.
_kept: "OrderedDict[str, tuple[float, Viewer]]" = OrderedDict()


async def authenticate(authorization: str | None) -> Viewer | None:
    """Return who sends this header, or None if it proves nobody.

    An API key is looked up again after `api_key_cache_seconds`, so a revoked one stops within that time on every
    process; a member token stands until it expires.
    """
    scheme, _, credential = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not credential or len(credential) > _CREDENTIAL_LENGTH_MAX:
        return None
    kept = _kept.get(credential)
    if kept is not None and kept[0] > time.monotonic():
        return kept[1]
    viewer, lifetime_seconds = await (
        _api_key(credential) if credential.startswith(api_keys.PREFIX) else _member(credential)
    )
    if viewer is None:
        _kept.pop(credential, None)
        return None
    _kept[credential] = (time.monotonic() + lifetime_seconds, viewer)
    _kept.move_to_end(credential)
    if len(_kept) > _KEPT_MAX:
        _kept.popitem(last=False)
    return viewer


async def _api_key(secret: str) -> tuple[Viewer | None, float]:
    merchant_id = api_keys.merchant_of(secret)
    if merchant_id is None:
        return None, 0
    row = await api_keys.find(merchant_id, secret)
    owner = await tenant(merchant_id) if row is not None else None
    if row is None or owner is None:
        return None, 0
    viewer = Viewer(Role(row["role"]), owner, ids.encode("apikey", row["id"]))
    return viewer, settings().api_key_cache_seconds


async def _member(token: str) -> tuple[Viewer | None, float]:
    merchant_id = tokens.merchant_of(token)
    owner = await tenant(merchant_id) if merchant_id is not None else None
    verified = tokens.verify(token, owner) if owner is not None else None
    if owner is None or verified is None:
        return None, 0
    actor = ids.encode("member", verified.member_id)
    return Viewer(Role.MEMBER, owner, actor, verified.member_id), min(verified.seconds_left, 5.0)
