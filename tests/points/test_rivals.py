"""A rival between two statements of a verb. Without these a refusal could give a reason that was no longer true."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import strawberry

from app.points import grant_points, ledger, redeem_reward
from app.web.authentication import authenticate
from tests.factories import Shop
from tests.points.documents import grant, points, reward


async def _info(shop: Shop) -> Any:
    """Return what a resolver is told of a request of the shop's ADMIN key."""
    return SimpleNamespace(context=SimpleNamespace(viewer=await authenticate(f"Bearer {shop.admin}")))


def _after_a_rival(shop: Shop, member: Any, verb: Any) -> Any:
    """Return a function that lets a rival give points once, and then does what it did."""
    given: list[Any] = []

    async def rival(*arguments: Any) -> Any:
        if not given:
            given.append(await grant(shop, member, 40, "rival"))
        return await verb(*arguments)

    return rival


async def test_a_debit_that_a_rival_has_made_possible_is_made(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    member = await shop.member()
    monkeypatch.setattr(grant_points, "obstacle", _after_a_rival(shop, member, ledger.obstacle))
    asked = grant_points.GrantPointsInput(
        member_id=strawberry.ID(member["id"]), amount=-30, reference="r", idempotency_key="debit"
    )

    answer = await cast(Any, grant_points.grant_points).base_resolver.wrapped_func(await _info(shop), asked)

    assert (type(answer).__name__, answer.replayed) == ("GrantPointsSuccess", False)
    assert await points(shop, member) == 10


async def test_a_reward_that_a_rival_has_made_affordable_is_had(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    member, mug = await shop.member(), await reward(shop, cost=30)
    monkeypatch.setattr(redeem_reward, "lock_wallet", _after_a_rival(shop, member, ledger.lock_wallet))
    asked = redeem_reward.RedeemRewardInput(
        reward_id=strawberry.ID(mug["id"]), member_id=strawberry.ID(member["id"]), idempotency_key="mug"
    )

    answer = await cast(Any, redeem_reward.redeem_reward).base_resolver.wrapped_func(await _info(shop), asked)

    assert (type(answer).__name__, answer.replayed) == ("RedeemRewardSuccess", False)
    assert await points(shop, member) == 10
