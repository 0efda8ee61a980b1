"""Carts that meet at two processes. Without these a code or a point could be held or spent for two of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app import ids
from app.orders.expire_holds import expire_holds
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import CHANGE_STATUS, CLAIM_CODE, REDEEM_CODES, Shop, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, stackable
from tests.orders.holding import CAPTURE, EXTEND, HOLD, RELEASE, cart, hold, let_pass, read
from tests.orders.presented import order
from tests.points.documents import RECORD, RETIRE_REWARD, grant, points, reward
from tests.races.storm import Processes, at_once, kinds, until_somebody_waits

ROUNDS = 12
SOON = "UPDATE hold SET held_until = now() + interval '20 milliseconds', version = version + 1 WHERE merchant_id = $1"
SOON_CODES = """
UPDATE code SET held_until = (
    SELECT held_until FROM hold h WHERE h.merchant_id = $1 AND h.id = code.hold_id
) WHERE merchant_id = $1 AND hold_id IS NOT NULL
"""
LOCK_HOLD = "SELECT FROM hold WHERE merchant_id = $1 AND id = $2 FOR UPDATE"
WAITING = """
SELECT count(*)::int AS sessions FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
LOCK_MEMBER = "SELECT FROM member WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE"
LOCK_CODE = "SELECT FROM code WHERE merchant_id = $1 AND id = $2 FOR UPDATE"
HELD = "SELECT count(*)::int AS holds FROM hold WHERE merchant_id = $1 AND status = 'HELD'"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def held_holds(shop: Shop) -> int:
    """Return how many holds are written down as HELD."""
    row = await database().row(HELD, shop.merchant_id)
    assert row is not None
    holds: int = row["holds"]
    return holds


async def test_of_thirty_carts_with_one_code_one_holds_it(shop: Shop, processes: Processes) -> None:
    owner = await shop.member()
    code = await shop.claim(await shop.pool(transferable=True), owner)

    answers = await at_once(
        processes.do(HOLD, **cart([code], order=f"cart-{n}", email=f"guest-{n}@example.com")) for n in range(30)
    )

    assert kinds(answers) == {"HoldCheckoutSuccess": 1, "CodesRejected": 29}
    assert await shop.wallet_versions(owner) == [1, 2]
    assert await shop.broken_promises() == []


async def test_one_order_at_once_is_one_hold(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    codes = await stackable(shop, member, 2)
    await grant(shop, member, 100, "gift")

    answers = await at_once(processes.do(HOLD, **cart(codes, member, points=n % 3)) for n in range(30))
    keyed = await at_once(
        processes.do(HOLD, **cart(codes, member, points=50, order="B-1", idempotencyKey="key")) for _ in range(30)
    )

    assert kinds(answers) == kinds(keyed) == {"HoldCheckoutSuccess": 30}
    assert len({answer["hold"]["id"] for answer in answers}) == 1
    assert len({answer["hold"]["id"] for answer in keyed}) == 1
    assert await held_holds(shop) == 1
    assert await shop.broken_promises() == []


async def test_an_answer_tells_one_state_of_a_hold_that_keeps_changing(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    codes = await stackable(shop, member, 3)
    mug = await reward(shop, cost=10)
    held = await hold(shop, codes, member)

    def call(number: int) -> Awaitable[Any]:
        if number % 3 == 0:
            return processes.do(EXTEND, holdId=held["id"], lifetimeSeconds=1_000 + number)
        asked: Any = {"points": 20 * (number % 2), "rewardIds": [mug["id"]] * (number % 2)}
        return processes.do(HOLD, **cart(codes[: 1 + number % 3], member, amount=10_000 + number, **asked))

    answers = [answer["hold"] for answer in await at_once(call(number) for number in range(18))]

    for told in [*answers, await read(shop, held)]:
        assert sum(each["discount"]["amountMinor"] for each in told["codes"]) == told["totalDiscount"]["amountMinor"]
        assert {each["code"]["heldUntil"] for each in told["codes"]} == {told["heldUntil"]}
        assert len(told["rewards"]) == (told["points"] > 0)


async def test_a_repeat_tells_one_state_of_a_hold_that_is_captured_meanwhile(shop: Shop, processes: Processes) -> None:
    told = []
    for number in range(ROUNDS):
        member = await shop.member()
        codes = await stackable(shop, member, 2)
        asked = cart(codes, member, order=f"cart-{number}", idempotencyKey=f"key-{number}")
        held = (await shop.do(HOLD, **asked))["hold"]
        _, *repeats = await asyncio.gather(
            processes.do(CAPTURE, holdId=held["id"]), *(processes.do(HOLD, **asked) for _ in range(6))
        )
        told += [answer["hold"] for answer in repeats]

    assert {(each["status"], len(each["redemptions"])) for each in told} <= {("HELD", 0), ("CAPTURED", 2)}


async def test_a_refusal_tells_one_state_of_a_hold_that_is_captured_late_meanwhile(
    shop: Shop, processes: Processes
) -> None:
    mug = await reward(shop, cost=10)
    told = []
    for number in range(ROUNDS):
        member = await shop.member()
        await grant(shop, member, 100, f"gift-{number}")
        codes = await stackable(shop, member, 2)
        held = await hold(shop, codes, member, order=f"cart-{number}", rewardIds=[mug["id"]])
        await let_pass(shop, held)
        _, *refused = await asyncio.gather(
            processes.do(CAPTURE, holdId=held["id"]),
            *(processes.do(EXTEND, holdId=held["id"], lifetimeSeconds=900) for _ in range(6)),
        )
        told += [answer["hold"] for answer in refused]

    states = {(each["status"], len(each["redemptions"]), bool(each["rewards"][0]["redemption"])) for each in told}
    assert states <= {("EXPIRED", 0, False), ("CAPTURED", 2, True)}


async def test_a_code_is_redeemed_or_held(shop: Shop, processes: Processes) -> None:
    outcomes = set()
    for number in range(ROUNDS):
        member = await shop.member()
        (code,) = await stackable(shop, member, 1)
        redeemed, held = await asyncio.gather(
            processes.do(REDEEM_CODES, **order([code["text"]], member, orderId=f"order-{number}")),
            processes.do(HOLD, **cart([code], member, order=f"cart-{number}")),
        )
        outcomes.add((redeemed["__typename"], held["__typename"]))

    assert outcomes <= {("RedeemCodesSuccess", "CodesRejected"), ("CodesRejected", "HoldCheckoutSuccess")}
    assert await shop.broken_promises() == []


async def test_an_order_is_redeemed_or_held(shop: Shop, processes: Processes) -> None:
    outcomes = set()
    for number in range(ROUNDS):
        member = await shop.member()
        first, second = await stackable(shop, member, 2)
        redeemed, held = await asyncio.gather(
            processes.do(REDEEM_CODES, **order([first["text"]], member, orderId=f"order-{number}")),
            processes.do(HOLD, **cart([second], member, order=f"order-{number}")),
        )
        outcomes.add((redeemed["__typename"], held["__typename"]))

    assert outcomes <= {("RedeemCodesSuccess", "OrderNotOpen"), ("CodesRejected", "HoldCheckoutSuccess")}
    assert await shop.broken_promises() == []


async def test_an_order_that_is_redeemed_while_another_cart_ends_for_it_is_not_open(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    phone = await hold(shop, [first], member, order="phone")

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_CODE, shop.merchant_id, ids.decode("code", first["id"]))
        laptop = asyncio.ensure_future(processes.do(HOLD, **cart([first], member, order="laptop")))
        await until_somebody_waits(tx)
        redeemed = await processes.do(REDEEM_CODES, **order([second["text"]], member, orderId="laptop"))

    assert (redeemed["__typename"], (await laptop)["__typename"]) == ("RedeemCodesSuccess", "OrderNotOpen")
    assert (await read(shop, phone))["status"] == "HELD"
    assert await shop.broken_promises() == []


async def test_a_cart_that_becomes_anothers_with_a_reward_is_not_taken_over(shop: Shop, processes: Processes) -> None:
    member, other = await shop.member(), await shop.member()
    await grant(shop, other, 100, "gift")
    (code,) = await stackable(shop, member, 1)
    mug = await reward(shop, cost=30, stock=1)
    phone = await hold(shop, [code], member, order="phone")

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_HOLD, shop.merchant_id, ids.decode("hold", phone["id"]))
        changed = asyncio.ensure_future(processes.do(HOLD, **cart([], other, order="phone", rewardIds=[mug["id"]])))
        await until_somebody_waits(tx)
        laptop = asyncio.ensure_future(processes.do(HOLD, **cart([code], member, order="laptop")))
        await until_waiting(2)

    assert (await changed)["hold"]["id"] == phone["id"]
    assert (await laptop)["takenOver"] is False
    assert (await read(shop, phone))["status"] == "HELD"
    assert await shop.broken_promises() == []


async def test_a_cart_that_has_another_reward_by_then_is_not_taken_over(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    mug, cup = await reward(shop, cost=30, stock=1), await reward(shop, cost=30)
    phone = await hold(shop, [], member, order="phone", rewardIds=[mug["id"]])

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK_MEMBER, shop.merchant_id, ids.decode("member", member["id"]))
        laptop = asyncio.ensure_future(processes.do(HOLD, **cart([], member, order="laptop", rewardIds=[mug["id"]])))
        await until_waiting(1)
        # It has its turn while the other one looks for who has the mug.
        changed = asyncio.ensure_future(processes.do(HOLD, **cart([], member, order="phone", rewardIds=[cup["id"]])))
        await until_waiting(2)

    assert (await changed)["hold"]["id"] == phone["id"]
    assert (await laptop)["takenOver"] is False
    assert (await read(shop, phone))["status"] == "HELD"
    assert await shop.broken_promises() == []


async def until_waiting(count: int) -> None:
    """Wait until so many sessions wait for locks."""
    waiting = 0
    while waiting < count:
        row = await database().row(WAITING)
        waiting = 0 if row is None else row["sessions"]
        await asyncio.sleep(0.01)


async def test_a_repeat_is_answered_alike_though_the_order_is_called_off_meanwhile(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    for number in range(ROUNDS):
        name = f"cart-{number}"
        await hold(shop, [], member, order=name, points=5)
        asked = cart([], member, order=name, points=8, idempotencyKey=f"key-{number}")
        first, cancelled, repeat = await asyncio.gather(
            processes.do(HOLD, **asked),
            processes.do(CANCEL, **cancellation(orderId=name)),
            processes.do(HOLD, **asked),
        )
        assert (cancelled["__typename"], first["__typename"]) == ("CancelOrderSuccess", repeat["__typename"])

    assert await shop.broken_promises() == []


@pytest.mark.parametrize("paid", [0, 40])
async def test_a_hold_is_captured_or_released(shop: Shop, processes: Processes, paid: int) -> None:
    outcomes = set()
    for number in range(ROUNDS):
        member = await shop.member()
        await grant(shop, member, 100, f"gift-{number}")
        held = await hold(shop, await stackable(shop, member, 1), member, order=f"cart-{number}", points=paid)
        captured, released = await asyncio.gather(
            processes.do(CAPTURE, holdId=held["id"]), processes.do(RELEASE, holdId=held["id"])
        )
        outcomes.add((captured["__typename"], released["__typename"]))

    assert outcomes <= {("CaptureHoldSuccess", "HoldNotOpen"), ("HoldNotOpen", "ReleaseHoldSuccess")}
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("paid", [0, 40])
async def test_a_capture_at_the_last_moment_is_a_capture(shop: Shop, processes: Processes, paid: int) -> None:
    member = await shop.member()
    await grant(shop, member, 1_000, "gift")
    codes = await stackable(shop, member, ROUNDS)
    carts = [await hold(shop, [code], member, order=f"cart-{number}", points=paid) for number, code in enumerate(codes)]
    await database().row(SOON, shop.merchant_id)
    await database().row(SOON_CODES, shop.merchant_id)

    answers, *_ = await asyncio.gather(
        at_once(processes.do(CAPTURE, holdId=each["id"]) for each in carts), expire_holds(), expire_holds()
    )

    assert kinds(answers) == {"CaptureHoldSuccess": ROUNDS}
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("paid", [0, 40])
async def test_captures_at_once_are_one(shop: Shop, processes: Processes, paid: int) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    held = await hold(shop, await stackable(shop, member, 2), member, points=paid)
    versions = len(await shop.wallet_versions(member))

    answers = await at_once(processes.do(CAPTURE, holdId=held["id"]) for _ in range(30))

    assert kinds(answers) == {"CaptureHoldSuccess": 30}
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 29
    assert len(await shop.wallet_versions(member)) == versions + 2 + bool(paid)
    assert await shop.broken_promises() == []


async def test_tabs_that_take_each_other_over_leave_one_hold(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    codes = await stackable(shop, member, 2)

    answers = await at_once(
        processes.do(HOLD, **cart(codes[:: 1 - 2 * (n % 2)], member, order=f"tab-{n % 4}", points=60))
        for n in range(24)
    )

    assert kinds(answers) == {"HoldCheckoutSuccess": 24}
    assert await held_holds(shop) == 1
    assert await shop.broken_promises() == []


async def test_a_cart_is_captured_or_taken_over(shop: Shop, processes: Processes) -> None:
    outcomes = set()
    for number in range(ROUNDS):
        member = await shop.member()
        codes = await stackable(shop, member, 1)
        held = await hold(shop, codes, member, order=f"phone-{number}")
        captured, laptop = await asyncio.gather(
            processes.do(CAPTURE, holdId=held["id"]),
            processes.do(HOLD, **cart(codes, member, order=f"laptop-{number}")),
        )
        outcomes.add((captured["__typename"], laptop["__typename"]))

    assert outcomes <= {("CaptureHoldSuccess", "CodesRejected"), ("HoldNotOpen", "HoldCheckoutSuccess")}
    assert await shop.broken_promises() == []


async def test_carts_never_hold_more_points_than_there_are(shop: Shop, processes: Processes) -> None:
    first, second = await shop.member(), await shop.member()
    for member in (first, second):
        await grant(shop, member, 100, f"gift of {member['id']}")

    answers = await at_once(
        processes.do(HOLD, **cart([], (first, second)[n % 2], order=f"cart-{n}", points=30)) for n in range(24)
    )

    assert kinds(answers) == {"HoldCheckoutSuccess": 24}
    assert await held_holds(shop) == 6
    assert await shop.broken_promises() == []


async def test_a_purchase_that_is_recorded_meanwhile_earns_on_the_money_alone(shop: Shop, processes: Processes) -> None:
    for number in range(ROUNDS):
        member = await shop.member()
        await grant(shop, member, 100, f"gift-{number}")
        held = await hold(shop, [], member, order=f"order-{number}", amount=20_000, points=100)
        bought = {"source": "STORE", "orderId": f"order-{number}", "memberId": member["id"], "amount": usd(20_000)}

        captured, recorded = await asyncio.gather(
            processes.do(CAPTURE, holdId=held["id"]), processes.do(RECORD, **bought)
        )

        assert (captured["__typename"], recorded["__typename"]) == ("CaptureHoldSuccess", "RecordPurchaseSuccess")
        # 199 for 199.00, at one point for each unit of the currency.
        assert await points(shop, member) == 199
    assert await shop.broken_promises() == []


async def test_rewards_are_held_once(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=2)
    mug, voucher = await reward(shop, cost=10, stock=3), await reward(shop, cost=10, poolId=pool["id"])
    members = [await shop.member() for _ in range(8)]
    for member in members:
        await grant(shop, member, 100, f"gift of {member['id']}")

    mugs = await at_once(
        processes.do(HOLD, **cart([], each, order=f"mug-{n}", rewardIds=[mug["id"]])) for n, each in enumerate(members)
    )
    vouchers = await at_once(
        processes.do(HOLD, **cart([], each, order=f"voucher-{n}", rewardIds=[voucher["id"]]))
        for n, each in enumerate(members)
    )

    assert kinds(mugs) == {"HoldCheckoutSuccess": 3, "RewardOutOfStock": 5}
    assert kinds(vouchers) == {"HoldCheckoutSuccess": 2, "RewardOutOfStock": 6}
    held = [answer["hold"]["id"] for answer in (*mugs, *vouchers) if "hold" in answer]
    answers = await at_once(processes.do((CAPTURE, RELEASE)[n % 2], holdId=each) for n, each in enumerate(held * 2))
    assert set(kinds(answers)) <= {"CaptureHoldSuccess", "ReleaseHoldSuccess", "HoldNotOpen"}
    assert await shop.broken_promises() == []


async def test_everything_at_once_keeps_every_promise(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    await grant(shop, member, 500, "gift")
    pool = await shop.pool(codes=6, claimsPerMember=6, stacking="STACKABLE")
    codes = [await shop.claim(pool, member, idempotencyKey=str(number)) for number in range(6)]
    orders = [f"order-{number}" for number in range(4)]
    carts = [await hold(shop, [code], member, order=name, points=20) for code, name in zip(codes, orders, strict=False)]

    async def storm(number: int) -> Any:
        some, name, held = codes[number % 6 : number % 6 + 2], orders[number % 4], carts[number % 4]["id"]
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: processes.do(HOLD, **cart(some, member, order=name, points=number % 90)),
            lambda: processes.do(CAPTURE, holdId=held),
            lambda: processes.do(RELEASE, holdId=held),
            lambda: processes.do(EXTEND, holdId=held, lifetimeSeconds=600 + number),
            lambda: processes.do(REDEEM_CODES, **order([each["text"] for each in some], member, orderId=name)),
            lambda: processes.do(AMEND, **amendment(some, member, orderId=name)),
            lambda: processes.do(CANCEL, **cancellation(orderId=name)),
            lambda: grant(shop, member, -1, f"{number}"),
            lambda: processes.do(CHANGE_STATUS % ("pausePool" if number % 2 else "activatePool"), poolId=pool["id"]),
        ]
        return await calls[(number * 7) % 9]()

    await at_once(storm(number) for number in range(90))

    assert [(await read(shop, each))["status"] for each in carts]
    assert await shop.broken_promises() == []


async def test_the_last_of_a_budget_goes_round_a_customers_carts(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    pool = await shop.pool(claimsPerMember=3, stacking="STACKABLE", percentOff=50.0, maximumTotalDiscount=usd(3_000))
    codes = [await shop.claim(pool, member, idempotencyKey=f"{number}") for number in range(3)]

    # Two of the codes, in this order or that, take the whole budget: one cart at a time has it.
    answers = await at_once(
        processes.do(
            HOLD, **cart([codes[n % 3], codes[(n + 1 + n % 2) % 3]], member, order=f"cart-{n % 4}", amount=4_000)
        )
        for n in range(12)
    )

    assert kinds(answers) == {"HoldCheckoutSuccess": 12}
    assert await held_holds(shop) == 1
    assert await shop.broken_promises() == []


async def test_a_claim_beside_a_cart_keeps_it_from_nothing(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=2 * ROUNDS, claimsPerMember=1)
    for number in range(ROUNDS // 2):
        member = await shop.member()
        await grant(shop, member, 100, f"gift-{number}")
        voucher = await reward(shop, cost=50, poolId=pool["id"])

        async def retired_and_claimed(voucher: Any = voucher, member: Any = member) -> Any:
            await processes.do(RETIRE_REWARD, rewardId=voucher["id"])
            return await processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

        held, claimed = await asyncio.gather(
            processes.do(HOLD, **cart([], member, order=f"cart-{number}", rewardIds=[voucher["id"]])),
            retired_and_claimed(),
        )

        assert held["__typename"] in {"HoldCheckoutSuccess", "RewardOutOfStock"}
        assert claimed["__typename"] in {"ClaimCodeSuccess", "NotEligible"}
        if "hold" in held:
            captured = await shop.do(CAPTURE, holdId=held["hold"]["id"])
            assert captured["__typename"] == "CaptureHoldSuccess"
        else:
            assert claimed["__typename"] == "ClaimCodeSuccess"
    assert await shop.broken_promises() == []


async def test_a_cart_is_read_as_it_was_at_one_moment(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    code, mug = await shop.claim(await shop.pool(), member), await reward(shop, cost=10)
    carts = [cart([], member, rewardIds=[mug["id"]]), cart([code], member)]
    placed = (await processes.do(HOLD, **carts[0]))["hold"]
    is_over, seen = asyncio.Event(), set()

    async def change() -> None:
        for number in range(1, 2 * ROUNDS):
            assert (await processes.do(HOLD, **carts[number % 2]))["__typename"] == "HoldCheckoutSuccess"
        is_over.set()

    async def watch() -> None:
        while not is_over.is_set():
            held = await read(shop, placed)
            seen.add((len(held["codes"]), len(held["rewards"])))

    await asyncio.gather(change(), *(watch() for _ in range(4)))

    assert seen <= {(0, 1), (1, 0)}
