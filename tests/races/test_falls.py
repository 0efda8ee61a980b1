"""Falls and comebacks under races, on two processes. Without these a referral could be lost to an exchange, or stay."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.api.context import Role, Viewer
from app.members.types import MemberSource
from app.merchants.tenants import tenant
from app.orders.record_purchase import record
from app.orders.refunds import refund_rest
from app.orders.rows import purchase_by_order
from app.referrals.conversion import convert
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import Shop, usd
from tests.orders.documents import AMEND, amendment, stacked
from tests.points.documents import CONFIGURE, REVERSE, member_uuid, points
from tests.points.documents import broken as broken_points
from tests.races.storm import Processes, at_once, kinds, until_somebody_waits
from tests.referrals.documents import (
    DECLINE_REFERRAL,
    HELD_REFERRALS,
    RECORD_PURCHASE,
    RELEASE_REFERRAL,
    accepted,
    broken,
    program,
)
from tests.referrals.test_conversions import buy

STANDS_BY = """
SELECT b.order_id, r.reversed_at IS NULL AS stands FROM referral r JOIN purchase b ON b.merchant_id = $1
    AND b.id = r.purchase_id
WHERE r.merchant_id = $1 AND r.referee_id = $2
"""
HOLD_WALLET = "SELECT FROM wallet WHERE merchant_id = $1 AND member_id = $2 FOR UPDATE NOWAIT"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def viewer_of(shop: Shop) -> Viewer:
    """Return the shop's admin as the engine sees it, to call what a test interrupts."""
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    return Viewer(Role.ADMIN, owner, "system")


async def stands_by(shop: Shop, referee: Any) -> tuple[str, bool]:
    """Return the order that a referral stands by or stood by, and whether it stands."""
    row = await database().row(STANDS_BY, shop.merchant_id, member_uuid(referee))
    assert row is not None
    return row["order_id"], row["stands"]


async def sound(shop: Shop) -> None:
    """Assert that what must always hold does."""
    assert await broken(shop) == await broken_points(shop) == await shop.broken_promises() == []


class Orders:
    """Calls of both processes about the orders of one referee."""

    def __init__(self, processes: Processes, referee: Any) -> None:
        """Take the processes and the member."""
        self.processes, self.referee = processes, referee

    def bought(self, order: str) -> Any:
        """Return a call that records an order."""
        return self.processes.do(
            RECORD_PURCHASE, memberId=self.referee["id"], source="STORE", orderId=f"{order} {self.referee['id']}",
            amount=usd(1000),
        )  # fmt: skip

    def returned(self, order: str) -> Any:
        """Return a call that takes an order back."""
        return self.processes.do(REVERSE, source="STORE", orderId=f"{order} {self.referee['id']}", reason="returned")


async def test_an_exchange_at_the_moment_of_the_return_keeps_the_referral(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    anna = await shop.member()

    for turn in range(1, 9):
        ben = (await accepted(shop, anna))["member"]
        orders = Orders(processes, ben)
        await orders.bought("first")
        answers = await at_once([orders.returned("first"), orders.bought("second"), orders.bought("third")])
        assert all(answer["__typename"].endswith("Success") for answer in answers), answers
        order, stands = await stands_by(shop, ben)
        assert (order.split()[0] in ("second", "third"), stands) == (True, True)
        assert (await points(shop, anna), await points(shop, ben)) == (100 * turn, 70)
    await sound(shop)


async def test_what_would_replace_it_may_go_back_at_the_same_moment(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    anna = await shop.member()

    for turn in range(8):
        ben = (await accepted(shop, anna))["member"]
        orders = Orders(processes, ben)
        for order in ("first", "second", "third"):
            await orders.bought(order)
        comes = [orders.bought("fourth")] if turn % 2 else []
        answers = await at_once([*(orders.returned(order) for order in ("first", "second", "third") * 2), *comes])
        assert kinds(answers) == {"ReversePurchaseSuccess": 3, "PurchaseAlreadyReversed": 3} | (
            {"RecordPurchaseSuccess": 1} if comes else {}
        )
        assert (await stands_by(shop, ben))[1] is bool(comes)
        assert (await points(shop, anna), await points(shop, ben)) == (100 * ((turn + 1) // 2), 60 if comes else 0)
    await sound(shop)


async def test_of_ten_orders_after_the_fall_one_brings_it_back(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    anna = await shop.member()
    ben = (await accepted(shop, anna))["member"]
    orders = Orders(processes, ben)
    await orders.bought("first")
    await orders.returned("first")

    answers = await at_once(orders.bought(f"{number}.") for number in range(10))

    assert sum(answer["referral"] is not None for answer in answers) == 1
    assert (await points(shop, anna), await points(shop, ben)) == (100, 150)
    await sound(shop)


@pytest.mark.parametrize("decision", ["release", "decline"])
async def test_a_decision_about_a_held_one_meets_its_fall_and_its_comeback(
    shop: Shop, processes: Processes, decision: str
) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE", reviewPolicy="ALL")
    anna = await shop.member()
    given = 0

    for _ in range(8):
        ben = (await accepted(shop, anna))["member"]
        orders = Orders(processes, ben)
        await orders.bought("first")
        (held, *_) = [edge["node"]["id"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]
        decided = (
            processes.do(RELEASE_REFERRAL, referralId=held)
            if decision == "release" else processes.do(DECLINE_REFERRAL, referralId=held, reason="invented")
        )  # fmt: skip
        *_, answer = await at_once([orders.returned("first"), orders.bought("second"), decided])

        success = answer["__typename"].endswith("Success")
        # Until the person decided it had fallen, or it hadn't; in the end the second order stands.
        assert success or answer["message"] == "The purchase that converted it was taken back."
        given += success and decision == "release"
        assert (await points(shop, anna), await points(shop, ben)) == (
            100 * given, 60 if success and decision == "release" else 10
        )  # fmt: skip
        if decision == "release" or not success:
            assert await stands_by(shop, ben) == (f"second {ben['id']}", True)
    await sound(shop)


async def test_a_purchase_that_waited_for_the_fall_sees_it(shop: Shop) -> None:
    """It began to look before the return was there."""
    await program(shop, convertsOn="FIRST_PURCHASE")
    anna = await shop.member()
    ben = (await accepted(shop, anna))["member"]
    await buy(shop, ben, "first")
    viewer = await viewer_of(shop)
    bought = await purchase_by_order(viewer, "STORE", "first")
    assert bought is not None

    async with transaction(shop.merchant_id) as tx:
        assert (await refund_rest(tx, viewer, bought, reason="returned")).ends_referral is True
        second = asyncio.create_task(buy(shop, ben, "second"))
        await until_somebody_waits(tx)

    assert (await second)["referral"]["reversedAt"] is None
    assert await stands_by(shop, ben) == ("second", True)
    assert (await points(shop, anna), await points(shop, ben)) == (100, 60)
    await sound(shop)


async def test_a_release_that_waited_for_the_comeback_knows_its_purchase(shop: Shop) -> None:
    """Otherwise points could be spent that are pending."""
    await program(shop, convertsOn="FIRST_PURCHASE", reviewPolicy="ALL")
    await shop.do(CONFIGURE, pointsPendingDays=14)
    ben = (await accepted(shop, await shop.member()))["member"]
    first = await buy(shop, ben, "first")
    (held,) = [edge["node"]["id"] for edge in (await shop.data(HELD_REFERRALS))["answer"]["edges"]]
    await shop.do(REVERSE, purchaseId=first["purchase"]["id"], reason="returned")
    viewer = await viewer_of(shop)

    async with transaction(shop.merchant_id) as tx:
        second = await record(tx, viewer, member_uuid(ben), MemberSource.STORE, "second", 99, None)
        assert second is not None
        assert second["invite_id"] is not None
        converted = await convert(tx, viewer.tenant.keys, "system", second["invite_id"])
        assert ids.encode("referral", converted.referral_id or ids.new()) == held
        release = asyncio.create_task(shop.do(RELEASE_REFERRAL, referralId=held))
        await until_somebody_waits(tx)

    entry = (await release)["referral"]["refereeEntry"]
    assert entry["spendableAt"] > entry["createdAt"]
    await sound(shop)


@pytest.mark.parametrize("waits", ["fallen", "not proven"])
async def test_a_changed_cart_that_may_pay_for_a_referral_locks_wallets_in_their_order(shop: Shop, waits: str) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE", minimumPurchase=usd(6_000))
    anna = await shop.member()
    ben = (await accepted(shop, anna, emailVerified=waits == "fallen"))["member"]
    if waits == "fallen":
        first = await buy(shop, ben, "first", 6_000)
        await shop.do(REVERSE, purchaseId=first["purchase"]["id"], reason="returned")
    codes, _ = await stacked(shop, ben, 20.0, amount=5_000)
    await buy(shop, ben, "A-1", 4_000)

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(HOLD_WALLET, shop.merchant_id, member_uuid(anna))
        amends = asyncio.create_task(shop.do(AMEND, **amendment(codes, ben, 10_000)))
        await until_somebody_waits(tx)
        # Anna's comes first, so Ben's isn't taken yet.
        assert len(await tx.rows(HOLD_WALLET, shop.merchant_id, member_uuid(ben))) == 1

    assert (await amends)["__typename"] == "AmendOrderSuccess"
    assert (await points(shop, anna), await points(shop, ben)) == ((100, 130) if waits == "fallen" else (0, 80))
    await sound(shop)
