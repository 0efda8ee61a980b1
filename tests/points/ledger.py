"""The ledger's own functions, each in a transaction, for what no operation does alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from app.api.context import Role, Viewer
from app.api.inputs import stored_key
from app.merchants.tenants import tenant
from app.orders.follow import Followed, follow
from app.orders.rows import purchase_by_order
from app.points.give_back import GivenBack, give_back
from app.points.put_back import put_back
from app.points.take_back import EarnedMore, TakenBack, earn_more, take_back
from app.points.types import PointsReason
from app.storage.database import transaction
from tests.factories import Shop
from tests.points.documents import member_uuid


async def granted(shop: Shop, key: str) -> str:
    """Return the origin of what was granted by an idempotency key."""
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    return f"grant/{stored_key(Viewer(Role.ADMIN, owner, 'system'), key).hex()}"


async def _stored(shop: Shop, origin: str) -> str:
    """Return an origin as it is stored: `grant/` is followed by a key as its caller knows it."""
    kind, _, key = origin.partition("/")
    return await granted(shop, key) if kind == "grant" else origin


async def taken_back(
    shop: Shop, member: Any, reason: PointsReason, credited: Sequence[str], origin: str, points: int | None = None
) -> TakenBack:
    """Take points of a credit back."""
    credited = [await _stored(shop, each) for each in credited]
    async with transaction(shop.merchant_id) as tx:
        return await take_back(
            tx, shop.merchant_id, "system", member_uuid(member), reason=reason, credited=credited, points=points,
            origin=origin, reference="returned",
        )  # fmt: skip


async def amended(shop: Shop, order: str, amount: int, origin: str) -> Followed:
    """Let a purchase be worth another amount, as if its order had changed."""
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    viewer = Viewer(Role.ADMIN, owner, "system")
    told = await purchase_by_order(viewer, "STORE", order)
    assert told is not None
    async with transaction(shop.merchant_id) as tx:
        return await follow(tx, viewer, told, amount, origin=origin, path="orderAmount.amountMinor")


async def put_back_again(shop: Shop, member: Any, reason: PointsReason, credited: str, origin: str) -> GivenBack | None:
    """Let a credit stand again."""
    credited = await _stored(shop, credited)
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
            reference="more", spendable_at=spendable_at, path="orderAmount.amountMinor",
        )  # fmt: skip


async def given_back(shop: Shop, member: Any, entry_id: UUID, origin: str) -> GivenBack | None:
    """Give back what a debit took."""
    async with transaction(shop.merchant_id) as tx:
        return await give_back(
            tx, shop.merchant_id, "system", member_uuid(member), entry_id, origin=origin, reference="refunded"
        )
