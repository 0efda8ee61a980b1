"""What has which locks while it waits for another. Without these two calls could each wait for what the other has."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from app import ids
from app.config import settings
from app.orders.expire_holds import expire_holds
from app.storage.database import Tx, dsn, transaction
from tests.conftest import Api
from tests.factories import Shop
from tests.orders.documents import CANCEL, cancellation, stackable
from tests.orders.holding import CAPTURE, HOLD, RELEASE, cart, hold, let_pass, read
from tests.points.documents import grant, reward
from tests.races.storm import LOCK_WALLET, SECONDS_MAX, WAITING, Processes, until_somebody_waits

LOCK = "SELECT FROM {} WHERE merchant_id = $1 AND {} = $2 FOR UPDATE"
LOCK_REWARD, LOCK_HOLD = [LOCK.format(table, "id") for table in ("reward", "hold")]
IS_FREE = f"{LOCK_WALLET} SKIP LOCKED"


@dataclass(frozen=True, slots=True)
class Held:
    """A hold of an order, with points of its payer, another owner's code, and a reward."""

    payer: Any
    owner: Any
    code: Any
    reward: Any
    hold: Any


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def held(shop: Shop, *, is_payer_first: bool) -> Held:
    """Hold such an order; members are in the order in which they joined."""
    members = [await shop.member(), await shop.member()]
    payer, owner = members if is_payer_first else reversed(members)
    await grant(shop, payer, 100, "gift")
    code = await shop.claim(await shop.pool(transferable=True, stacking="STACKABLE"), owner)
    mug = await reward(shop, cost=10, stock=5)
    placed = await hold(shop, [code], payer, points=40, rewardIds=[mug["id"]])
    return Held(payer, owner, code, mug, placed)


async def has_free_wallet(shop: Shop, tx: Tx, member: Any) -> bool:
    """Whether nobody else has a member's wallet."""
    return len(await tx.rows(IS_FREE, shop.merchant_id, ids.decode("member", member["id"]))) == 1


ENDS: dict[str, Callable[[Processes, Held], Awaitable[Any]]] = {
    "release": lambda processes, held: processes.do(RELEASE, holdId=held.hold["id"]),
    "cancel": lambda processes, held: processes.do(CANCEL, **cancellation()),
    "change": lambda processes, held: processes.do(HOLD, **cart([held.code], held.payer, points=30)),
    "take over": lambda processes, held: processes.do(HOLD, **cart([held.code], held.payer, order="B-1", points=90)),
    "capture": lambda processes, held: processes.do(CAPTURE, holdId=held.hold["id"], points=30),
}


@pytest.mark.parametrize("end", [end for end in ENDS if end != "capture"])
async def test_who_waits_for_a_reward_has_no_wallet(shop: Shop, processes: Processes, end: str) -> None:
    about = await held(shop, is_payer_first=True)

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_REWARD, shop.merchant_id, ids.decode("reward", about.reward["id"]))
        ending = asyncio.ensure_future(ENDS[end](processes, about))
        await until_somebody_waits(tx)
        assert await has_free_wallet(shop, tx, about.payer)
        assert await has_free_wallet(shop, tx, about.owner)

    assert (await ending)["__typename"].endswith("Success")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_payer_first", [True, False])
async def test_wallets_are_locked_by_member_whoever_pays(
    shop: Shop, processes: Processes, end: str, is_payer_first: bool
) -> None:
    about = await held(shop, is_payer_first=is_payer_first)
    first, second = (about.payer, about.owner) if is_payer_first else (about.owner, about.payer)

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_WALLET, shop.merchant_id, ids.decode("member", first["id"]))
        ending = asyncio.ensure_future(ENDS[end](processes, about))
        await until_somebody_waits(tx)
        assert await has_free_wallet(shop, tx, second)

    assert (await ending)["__typename"].endswith("Success")


async def test_a_cancelled_order_waits_for_its_rewards_before_it_has_a_wallet(shop: Shop, processes: Processes) -> None:
    about = await held(shop, is_payer_first=True)
    captured = await shop.do(CAPTURE, holdId=about.hold["id"])
    assert captured["__typename"] == "CaptureHoldSuccess"

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_REWARD, shop.merchant_id, ids.decode("reward", about.reward["id"]))
        cancelling = asyncio.ensure_future(processes.do(CANCEL, **cancellation()))
        await until_somebody_waits(tx)
        assert await has_free_wallet(shop, tx, about.payer)

    assert (await cancelling)["pointsReturned"] == 50


async def test_a_hold_expires_though_postgresql_ends_a_deadlock_at_its_cost(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    late = await hold(shop, await stackable(shop, member, 1), member, points=40)
    await let_pass(shop, late)
    rival = await asyncpg.connect(dsn(settings().database_url or ""))
    try:
        await rival.execute("BEGIN")
        # Whoever waits for so long finds no deadlock.
        await rival.execute("SET LOCAL deadlock_timeout = '1h'")
        await rival.fetch(LOCK_WALLET, shop.merchant_id, ids.decode("member", member["id"]))
        expiring = asyncio.ensure_future(expire_holds())
        async with asyncio.timeout(SECONDS_MAX):
            while not await rival.fetch(WAITING):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await rival.fetch(LOCK_HOLD, shop.merchant_id, ids.decode("hold", late["id"]))
        await rival.execute("COMMIT")
        # Others' holds may have been late, too.
        assert await expiring >= 1
    finally:
        await rival.close()

    assert (await read(shop, late))["status"] == "EXPIRED"
