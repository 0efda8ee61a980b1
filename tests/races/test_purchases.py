"""Purchases that are recorded while their orders begin. Without these one could outlive its order, which is off."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.storage.database import transaction
from tests.conftest import Api
from tests.factories import REDEEM_CODES, Shop, usd
from tests.orders.documents import CANCEL, cancellation, order_of, stackable
from tests.orders.holding import CAPTURE, HOLD, cart
from tests.orders.presented import order
from tests.points.documents import RECORD, grant, points
from tests.races.storm import LOCK_WALLET, SECONDS_MAX, Processes, until_somebody_waits

LOCK_MEMBER = "SELECT FROM member WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE"
WAITERS = """
SELECT count(*)::int AS waiters FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def bought(member: Any) -> dict[str, Any]:
    """Return the input that records order A-1 for 200.00."""
    return {"source": "STORE", "orderId": "A-1", "memberId": member["id"], "amount": usd(20_000)}


async def test_no_purchase_is_recorded_for_an_order_that_began_and_was_called_off_meanwhile(
    shop: Shop, processes: Processes
) -> None:
    member, owner = await shop.member(), await shop.member()
    (code,) = await stackable(shop, owner, 1)

    async with transaction(shop.merchant_id) as tx:
        # Recording has begun, and waits for its buyer.
        await tx.rows(LOCK_MEMBER, shop.merchant_id, ids.decode("member", member["id"]))
        recording = asyncio.ensure_future(processes.do(RECORD, **bought(member)))
        await until_somebody_waits(tx)
        redeemed = await processes.do(REDEEM_CODES, **order([code["text"]], owner, orderId="A-1"))
        assert redeemed["__typename"] == "RedeemCodesSuccess"
        cancelled = await processes.do(CANCEL, **cancellation())
        assert cancelled["moneyReturned"]["amountMinor"] == 0

    assert (await recording)["__typename"] == "OrderNotOpen"
    assert (await order_of(shop, "A-1"))["purchase"] is None
    assert await points(shop, member) == 0


async def test_a_purchase_that_is_being_recorded_when_its_order_begins_goes_back_with_it(
    shop: Shop, processes: Processes
) -> None:
    member, owner = await shop.member(), await shop.member()
    (code,) = await stackable(shop, owner, 1)

    async def redeem_and_cancel() -> Any:
        redeemed = await processes.do(REDEEM_CODES, **order([code["text"]], owner, orderId="A-1"))
        assert redeemed["__typename"] == "RedeemCodesSuccess"
        return await processes.do(CANCEL, **cancellation())

    async with transaction(shop.merchant_id) as tx:
        # The purchase is written, and waits for its buyer's wallet.
        await tx.rows(LOCK_WALLET, shop.merchant_id, ids.decode("member", member["id"]))
        recording = asyncio.ensure_future(processes.do(RECORD, **bought(member)))
        await until_somebody_waits(tx)
        cancelling = asyncio.ensure_future(redeem_and_cancel())
        async with asyncio.timeout(SECONDS_MAX):
            while not cancelling.done() and not (await tx.rows(WAITERS))[0]["waiters"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert (await recording)["__typename"] == "RecordPurchaseSuccess"
    assert (await cancelling)["moneyReturned"]["amountMinor"] == 20_000
    assert (await order_of(shop, "A-1"))["purchase"]["reversedAt"] is not None
    assert await points(shop, member) == 0


async def test_a_purchase_earns_on_the_money_of_an_order_that_began_and_was_paid_meanwhile(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_MEMBER, shop.merchant_id, ids.decode("member", member["id"]))
        recording = asyncio.ensure_future(processes.do(RECORD, **bought(member)))
        await until_somebody_waits(tx)
        held = await processes.do(HOLD, **cart([], member, amount=20_000, points=100))
        captured = await processes.do(CAPTURE, holdId=held["hold"]["id"])
        assert captured["__typename"] == "CaptureHoldSuccess"

    assert (await recording)["purchase"]["points"] == 199
    assert await points(shop, member) == 199
