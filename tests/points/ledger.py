"""The ledger's own functions, each in a transaction, for what no operation does alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.points.give_back import GivenBack
from app.points.put_back import put_back
from app.points.take_back import EarnedMore, TakenBack, earn_more, take_back
from app.points.types import PointsReason
from app.storage.database import transaction
from tests.factories import Shop
from tests.points.documents import member_uuid


async def taken_back(
    shop: Shop, member: Any, reason: PointsReason, credited: Sequence[str], origin: str, points: int | None = None
) -> TakenBack:
    """Take points of a credit back."""
    async with transaction(shop.merchant_id) as tx:
        return await take_back(
            tx, shop.merchant_id, "system", member_uuid(member), reason=reason, credited=credited, points=points,
            origin=origin, reference="returned",
        )  # fmt: skip


async def put_back_again(shop: Shop, member: Any, reason: PointsReason, credited: str, origin: str) -> GivenBack | None:
    """Let a credit stand again."""
    async with transaction(shop.merchant_id) as tx:
        return await put_back(
            tx, shop.merchant_id, "system", member_uuid(member), credit=(reason, credited), origin=origin,
            reference="stands again",
        )  # fmt: skip


async def earned_more(
    shop: Shop,
    member: Any,
    points: int,
    credited: Sequence[str],
    origin: str,
    spendable_at: datetime | None = None,
) -> EarnedMore:
    """Let a purchase earn more."""
    async with transaction(shop.merchant_id) as tx:
        return await earn_more(
            tx, shop.merchant_id, "system", member_uuid(member), points, credited=credited, origin=origin,
            reference="more", spendable_at=spendable_at,
        )  # fmt: skip
