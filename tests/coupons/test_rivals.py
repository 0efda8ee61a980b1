"""A rival between two looks of a verb. Without this a refusal could give a state that is no reason."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import strawberry

from app.coupons import revoke_code
from app.web.authentication import authenticate
from tests.factories import Shop
from tests.orders.test_reverse_redemption import REVERSE


async def test_a_code_that_a_rival_has_given_back_is_revoked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, member = await shop.pool(), await shop.member()
    code = await shop.claim(pool, member)
    (redemption,) = (await shop.redeem([code["text"]], member))["redemptions"]
    revoke, tries = revoke_code._revoke, 0

    async def before_a_rival(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        revoked = await revoke(*arguments)
        if tries == 1:
            await shop.do(REVERSE, redemptionId=redemption["id"], reason="rival")
        return revoked

    monkeypatch.setattr(revoke_code, "_revoke", before_a_rival)
    info = SimpleNamespace(context=SimpleNamespace(viewer=await authenticate(f"Bearer {shop.admin}")))
    asked = revoke_code.RevokeCodeInput(code_id=strawberry.ID(code["id"]), reason="lost", recycle=False)

    answer = await cast(Any, revoke_code.revoke_code).base_resolver.wrapped_func(info, asked)

    assert (type(answer).__name__, tries) == ("RevokeCodeSuccess", 2)
    assert (await shop.stock(pool))["revoked"] == 1
