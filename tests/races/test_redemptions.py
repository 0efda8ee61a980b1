"""Checkouts that present codes at once at two processes. Without these a code could be spent on two orders."""

import asyncio
import itertools
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from app import ids
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import CHANGE_STATUS, CLAIM_CODE, REDEEM_CODES, Shop
from tests.orders.documents import AMEND, amendment, stackable, stacked
from tests.orders.presented import order
from tests.points.documents import member_uuid
from tests.races.storm import Processes, at_once, kinds, until_somebody_waits

HOLD = "SELECT FROM code WHERE merchant_id = $1 AND id = $2 FOR UPDATE"
HOLD_WALLET = "SELECT FROM wallet WHERE merchant_id = $1 AND member_id = $2 FOR UPDATE NOWAIT"
BEGIN_ORDER = """
INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version)
VALUES ($1, $2, 'STORE', $3, 0, 'USD', 1)
"""
WAITING = """
SELECT count(*)::int AS sessions FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def reasons(answer: Any) -> list[str]:
    """Return why an order was refused."""
    return [rejection["reason"] for rejection in answer.get("rejections", [])]


async def test_of_fifty_checkouts_with_one_code_one_gets_it(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=1)
    code = await shop.claim(pool, member := await shop.member())
    before = await shop.state()

    answers = await at_once(
        processes.do(REDEEM_CODES, **order([code["text"]], member, orderId=f"order {number}")) for number in range(50)
    )

    assert kinds(answers) == {"RedeemCodesSuccess": 1, "CodesRejected": 49}
    refused = [reasons(answer) for answer in answers if answer["__typename"] == "CodesRejected"]
    assert refused == [["ALREADY_REDEEMED"]] * 49
    assert (await shop.state()).since(before) == {
        "sales_order": 1, "redemption": 1, "code": 0, "wallet": 0, "stock_change": 1, "event": 1
    }  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2]
    assert (await shop.stock(pool))["redeemed"] == 1


async def test_fifty_checkouts_of_one_order_get_one_answer(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    codes = await stackable(shop, member, 3)
    presented = order([code["text"] for code in codes], member)
    before = await shop.state()

    answers = await at_once(processes.do(REDEEM_CODES, **presented) for _ in range(50))

    assert kinds(answers) == {"RedeemCodesSuccess": 50}
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 49
    assert all(answer | {"replayed": True} == answers[0] | {"replayed": True} for answer in answers)
    assert (await shop.state()).since(before) == {
        "sales_order": 1, "redemption": 3, "code": 0, "wallet": 0, "stock_change": 1, "event": 3
    }  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5, 6]


async def test_orders_that_share_codes_in_opposite_order_neither_hang_nor_split(
    shop: Shop, processes: Processes
) -> None:
    for turn in range(12):
        member = await shop.member()
        first, second, third = await stackable(shop, member, 3)
        baskets = [(first, second), (second, third), (third, first), (second, first), (third, second), (first, third)]
        # Two orders of the same two codes in opposite order, and others that share one code with each.
        answers = await at_once(
            processes.do(
                REDEEM_CODES, **order([code["text"] for code in basket], member, orderId=f"order {turn}.{number}")
            )
            for number, basket in enumerate(baskets)
        )

        assert kinds(answers) == {"RedeemCodesSuccess": 1, "CodesRejected": 5}
        assert all(set(reasons(answer)) <= {"ALREADY_REDEEMED"} for answer in answers)
        assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5]


async def let_two_wait(*calls: Awaitable[Any]) -> Sequence["asyncio.Future[Any]"]:
    """Start two calls, and return once both wait for a lock."""
    started = [asyncio.ensure_future(call) for call in calls]
    waiting = 0
    while waiting < 2 and not any(each.done() for each in started):
        row = await database().row(WAITING)
        waiting = 0 if row is None else row["sessions"]
    assert waiting == 2
    return started


async def test_opposite_orders_that_meet_in_the_middle_do_not_lock_each_other_out(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    codes = sorted(await stackable(shop, member, 5), key=lambda code: str(code["id"]))
    texts = [code["text"] for code in codes]

    async with transaction(None) as tx:
        await tx.row(HOLD, shop.merchant_id, ids.decode("code", codes[2]["id"]))
        calls = await let_two_wait(
            processes.do(REDEEM_CODES, **order(texts, member, orderId="forwards")),
            processes.do(REDEEM_CODES, **order(texts[::-1], member, orderId="backwards")),
        )
    answers = await asyncio.gather(*calls)

    assert kinds(answers) == {"RedeemCodesSuccess": 1, "CodesRejected": 1}
    assert [reasons(answer) for answer in answers if reasons(answer)] == [["ALREADY_REDEEMED"] * 5]


async def test_calls_for_one_order_that_meet_in_the_middle_do_not_lock_each_other_out(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    codes = sorted(await stackable(shop, member, 10), key=lambda code: str(code["id"]))
    first, second = [code["text"] for code in codes[:5]], [code["text"] for code in codes[5:]]

    async with transaction(None) as tx:
        await tx.row(BEGIN_ORDER, shop.merchant_id, ids.new(), "order")
        calls = await let_two_wait(
            processes.do(REDEEM_CODES, **order(first, member)),
            processes.do(REDEEM_CODES, **order(second[::-1], member)),
        )
        await tx.rollback()
    answers = await asyncio.gather(*calls)

    assert kinds(answers) == {"RedeemCodesSuccess": 1, "CodesRejected": 1}
    assert [reasons(answer) for answer in answers if reasons(answer)] == [["NOT_STACKABLE"] * 5]


async def test_of_calls_for_one_order_with_different_codes_one_redeems_all_of_its_own(
    shop: Shop, processes: Processes
) -> None:
    for turn in range(10):
        member = await shop.member()
        codes = await stackable(shop, member, 9)
        baskets = [codes[0:3], codes[3:6], codes[6:9]]

        answers = await at_once(
            processes.do(REDEEM_CODES, **order([code["text"] for code in basket], member, orderId=f"order {turn}"))
            for basket in baskets
        )

        assert kinds(answers) == {"RedeemCodesSuccess": 1, "CodesRejected": 2}
        refused = [reasons(answer) for answer in answers if answer["__typename"] == "CodesRejected"]
        assert refused == [["NOT_STACKABLE"] * 3] * 2


async def test_claims_and_redemptions_of_one_wallet_number_its_versions_without_gaps(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    codes = await stackable(shop, member, 20)
    pool = await shop.pool(codes=20, claimsPerMember=20)
    redemptions = [
        processes.do(REDEEM_CODES, **order([one["text"], two["text"]], member, orderId=one["id"]))
        for one, two in zip(codes[::2], codes[1::2], strict=True)
    ]
    claims = [
        processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=f"k{number}")
        for number in range(20)
    ]

    answers = await at_once(itertools.chain.from_iterable(zip(claims[:10], redemptions, claims[10:], strict=True)))

    assert kinds(answers) == {"ClaimCodeSuccess": 20, "RedeemCodesSuccess": 10}
    assert await shop.wallet_versions(member) == list(range(1, 61))
    token = await shop.token(member["id"])
    assert await shop.data("{ wallet { version } }", key=token) == {"wallet": {"version": 60}}


async def test_no_redemption_that_is_sent_after_the_answer_of_a_pause_succeeds(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    pool = await shop.pool(codes=40, claimsPerMember=40)
    codes = [await shop.claim(pool, member, idempotencyKey=f"k{number}") for number in range(40)]

    def redeem(code: Any) -> Any:
        return processes.do(REDEEM_CODES, **order([code["text"]], member, orderId=code["id"]))

    during = await at_once([*(redeem(code) for code in codes[:20]),
                            processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])])  # fmt: skip
    after = await at_once(redeem(code) for code in codes[20:])

    assert during[-1]["__typename"] == "ChangePoolStatusSuccess"
    assert [reasons(answer) for answer in after] == [["POOL_NOT_ACTIVE"]] * 20
    succeeded = kinds(during[:-1]).get("RedeemCodesSuccess", 0)
    assert (await shop.stock(pool))["redeemed"] == succeeded
    assert all(reasons(answer) in ([], ["POOL_NOT_ACTIVE"]) for answer in during[:-1])


async def test_a_changed_cart_locks_the_codes_that_come_before_any_wallet(shop: Shop) -> None:
    member = await shop.member()
    await stacked(shop, member, 20.0)
    more = await shop.claim(await shop.pool(), member)

    async with transaction(shop.merchant_id) as tx:
        await tx.rows(HOLD, shop.merchant_id, ids.decode("code", more["id"]))
        amends = asyncio.create_task(shop.do(AMEND, **amendment([more], member)))
        await until_somebody_waits(tx)
        # Another checkout that has the code may still get its owner's wallet.
        assert len(await tx.rows(HOLD_WALLET, shop.merchant_id, member_uuid(member))) == 1

    assert (await amends)["__typename"] == "AmendOrderSuccess"
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5]
