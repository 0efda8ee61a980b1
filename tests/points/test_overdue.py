"""Holds that nobody has ended yet. Without these an abandoned cart would keep points until a job comes by."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from app.api.operations import Refused
from app.points import overdue
from app.points.freeing import free_points
from app.points.ledger import InsufficientPoints, PostedRow, debit
from app.points.types import PointsReason
from app.storage.database import Tx, database
from tests.factories import Shop
from tests.points.documents import broken, grant, member_uuid, wallet
from tests.points.holds import held, parts, settle
from tests.points.ledger import taken_back

EVENTS = "SELECT type FROM event WHERE merchant_id = $1 AND member_id = $2 ORDER BY wallet_version"


@pytest.fixture
def lapse(monkeypatch: pytest.MonkeyPatch) -> Callable[[UUID], None]:
    """Return what lets the time of a hold pass."""
    lapsed: list[UUID] = []

    async def end(tx: Tx, merchant_id: UUID, member_id: UUID) -> bool:
        ended = [
            await free_points(
                tx, merchant_id, "system", member_id, hold_id, event_type="hold.expired", reference="order"
            )
            for hold_id in lapsed
        ]
        for hold_id in lapsed:
            await settle(tx, merchant_id, hold_id)
        return any(ended)

    monkeypatch.setattr(overdue, "_endings", [])
    overdue.ends_overdue(end)
    return lapsed.append


async def spent(shop: Shop, member: Any, amount: int) -> PostedRow | None:
    """Take points from a member."""
    return await debit(
        database(), shop.merchant_id, "system", member_uuid(member), amount, PointsReason.ADJUSTMENT, origin="spent",
        reference=None,
    )  # fmt: skip


async def told(shop: Shop, member: Any) -> list[str]:
    """Return the types of the wallet's events."""
    return [row["type"] for row in await database().rows(EVENTS, shop.merchant_id, member_uuid(member))]


async def test_a_debit_that_lacks_points_ends_them_first(shop: Shop, lapse: Callable[[UUID], None]) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    lapsed, live = (await held(shop, member, 50))[0], (await held(shop, member, 20))[0]
    lapse(lapsed)

    entry = await spent(shop, member, 80)

    assert entry is not None
    assert (entry["entry_balance_after"], entry["wallet_held_points"]) == (20, 20)
    assert await told(shop, member) == [
        "points.credited", "hold.placed", "hold.placed", "hold.expired", "points.debited"
    ]  # fmt: skip
    assert (await parts(shop, lapsed), await parts(shop, live, "k-1")) == ([], [(0, "k-1", 20)])
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_debit_that_lacks_none_leaves_them(shop: Shop, lapse: Callable[[UUID], None]) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    lapse((await held(shop, member, 50))[0])

    await spent(shop, member, 50)

    assert await told(shop, member) == ["points.credited", "hold.placed", "points.debited"]
    assert (await wallet(shop, member))["heldPoints"] == 50


async def test_a_refused_debit_counts_what_is_held_too_long_as_spendable(
    shop: Shop, lapse: Callable[[UUID], None]
) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    lapse((await held(shop, member, 50))[0])
    await held(shop, member, 10)

    with pytest.raises(Refused) as refused:
        await spent(shop, member, 91)

    refusal = refused.value.refusal
    assert isinstance(refusal, InsufficientPoints)
    assert (refusal.balance, refusal.required) == (90, 91)
    assert await told(shop, member) == ["points.credited", "hold.placed", "hold.placed", "hold.expired"]


async def test_a_take_back_that_lacks_points_ends_them_first(shop: Shop, lapse: Callable[[UUID], None]) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    lapse((await held(shop, member, 50))[0])
    await held(shop, member, 20)

    taken = await taken_back(shop, member, PointsReason.ADJUSTMENT, ["grant/k-1"], "falls")

    assert taken.entry is not None
    assert (taken.entry["entry_amount"], taken.shortfall) == (-80, 20)
    assert await broken(shop) == await shop.broken_promises() == []


async def test_another_hold_that_lacks_points_ends_them_first(shop: Shop, lapse: Callable[[UUID], None]) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "k-1")
    lapse((await held(shop, member, 50))[0])

    hold_id, holding = await held(shop, member, 90)
    _, too_many = await held(shop, member, 11)

    assert (holding.is_held, holding.spendable, too_many.is_held, too_many.spendable) == (True, 100, False, 10)
    assert await parts(shop, hold_id, "k-1") == [(0, "k-1", 90)]
    assert await broken(shop) == await shop.broken_promises() == []
