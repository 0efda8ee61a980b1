"""One order from two processes at once. Without these a discount could be given for codes that are spent elsewhere."""

import asyncio
import itertools

import pytest

from app.storage.database import transaction
from tests.conftest import Api
from tests.factories import REDEEM_CODES, Shop, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, order_of, stackable, stacked
from tests.orders.presented import order
from tests.orders.test_reverse_redemption import REVERSE
from tests.points.documents import RECORD, points, purchase
from tests.races.storm import Processes, at_once, kinds, until_somebody_waits

SHARE = "SELECT FROM sales_order WHERE merchant_id = $1 AND order_id = $2 FOR SHARE"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def discount_of(shop: Shop) -> int:
    """Return what the codes of order A-1 take off together."""
    return sum(each["discount"]["amountMinor"] for each in (await order_of(shop, "A-1"))["redemptions"])


async def test_fifty_equal_amendments_are_one(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)
    await purchase(shop, member, "A-1", 7_200)
    (more,) = await stackable(shop, member, 1)
    asked = amendment([codes[1], more], member, 20_000)
    before = await shop.state()

    answers = await at_once(processes.do(AMEND, **asked) for _ in range(50))

    assert kinds(answers) == {"AmendOrderSuccess": 50}
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 49
    assert all(answer | {"replayed": True} == answers[0] | {"replayed": True} for answer in answers)
    assert (await shop.state()).since(before)["order_amendment"] == 1
    assert await discount_of(shop) == 2_000 + 1_800
    # 200.00 less 38.00 in place of 100.00 less 28.00.
    assert answers[0]["purchase"]["amount"] == {"amountMinor": 16_200}
    assert await points(shop, member) == 162


async def test_different_amendments_of_one_order_take_turns(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0, 5.0)
    carts = [list(cart) for size in (0, 1, 2, 3) for cart in itertools.permutations(codes, size)]

    answers = await at_once(
        processes.do(AMEND, **amendment(cart, member, 1_000 * number)) for number, cart in enumerate(carts, start=1)
    )

    assert kinds(answers) == {"AmendOrderSuccess": len(carts)}
    assert [answer["replayed"] for answer in answers] == [False] * len(carts)
    assert await shop.count("order_amendment") == len(carts)


async def test_one_code_comes_to_one_of_many_orders(shop: Shop, processes: Processes) -> None:
    member = await shop.member()
    (wanted,) = await stackable(shop, member, 1)
    for number in range(6):
        (own,) = await stackable(shop, member, 1)
        await shop.redeem([own["text"]], member, order=f"order {number}")

    answers = await at_once(
        [
            *(processes.do(AMEND, **amendment([wanted], member, orderId=f"order {number}")) for number in range(6)),
            *(processes.do(REDEEM_CODES, **order([wanted["text"]], member, orderId=f"new {n}")) for n in range(6)),
        ]
    )

    done = kinds(answers)
    assert done.get("AmendOrderSuccess", 0) + done.get("RedeemCodesSuccess", 0) == 1
    assert done["CodesRejected"] == 11


async def test_what_a_purchase_is_worth_is_what_the_order_is_after_any_turns(shop: Shop, processes: Processes) -> None:
    for turn in range(4):
        member = await shop.member()
        codes = await stackable(shop, member, 3)
        name = {"orderId": f"order {turn}"}
        redeemed = await shop.redeem([code["text"] for code in codes], member, order=name["orderId"])
        total = redeemed["totalDiscount"]["amountMinor"]
        await purchase(shop, member, name["orderId"], 10_000 - total)

        answers = await at_once(
            [
                *(processes.do(REVERSE, redemptionId=each["id"], reason="x") for each in redeemed["redemptions"][:2]),
                *(processes.do(AMEND, **amendment(codes[2:], member, 10_000 + number) | name) for number in range(3)),
                *(processes.do(REVERSE, redemptionId=redeemed["redemptions"][0]["id"], reason="x") for _ in range(2)),
            ]
        )

        assert {each["__typename"] for each in answers} <= {
            "ReverseRedemptionSuccess", "AlreadyReversed", "AmendOrderSuccess"
        }  # fmt: skip
        found = await order_of(shop, name["orderId"])
        discount = sum(each["discount"]["amountMinor"] for each in found["redemptions"])
        amounts = {answer["redemptions"][0]["orderAmount"]["amountMinor"] for answer in answers
                   if answer["__typename"] == "AmendOrderSuccess"}  # fmt: skip
        assert found["purchase"]["amount"]["amountMinor"] in {amount - discount for amount in amounts}
        assert await points(shop, member) == found["purchase"]["amount"]["amountMinor"] // 100


async def test_a_purchase_follows_a_reversal_that_began_before_it_was_recorded(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    (code,) = await stackable(shop, member, 1)
    redeemed = await shop.redeem([code["text"]], member, order="A-1")

    async with transaction(shop.merchant_id) as tx:
        await tx.row(SHARE, shop.merchant_id, "A-1")
        reversing = asyncio.ensure_future(
            processes.do(REVERSE, redemptionId=redeemed["redemptions"][0]["id"], reason="x")
        )
        await until_somebody_waits(tx)
        await purchase(shop, member, "A-1", 9_000)

    assert (await reversing)["__typename"] == "ReverseRedemptionSuccess"
    assert (await order_of(shop, "A-1"))["purchase"]["amount"] == {"amountMinor": 10_000}
    assert await points(shop, member) == 100


async def test_a_purchase_follows_codes_that_are_redeemed_again_since_before_it_was_recorded(
    shop: Shop, processes: Processes
) -> None:
    member = await shop.member()
    (code,) = await stackable(shop, member, 1)
    redeemed = await shop.redeem([code["text"]], member, order="A-1")
    await shop.do(REVERSE, redemptionId=redeemed["redemptions"][0]["id"], reason="x")

    async with transaction(shop.merchant_id) as tx:
        await tx.row(SHARE, shop.merchant_id, "A-1")
        redeeming = asyncio.ensure_future(processes.do(REDEEM_CODES, **order([code["text"]], member, orderId="A-1")))
        await until_somebody_waits(tx)
        await purchase(shop, member, "A-1", 10_000)

    assert (await redeeming)["__typename"] == "RedeemCodesSuccess"
    assert (await order_of(shop, "A-1"))["purchase"]["amount"] == {"amountMinor": 9_000}
    assert await points(shop, member) == 90


async def test_an_order_is_called_off_whatever_else_is_done_with_it(shop: Shop, processes: Processes) -> None:
    for turn in range(8):
        member = await shop.member()
        codes = await stackable(shop, member, 3)
        name = {"orderId": f"order {turn}"}
        texts = [code["text"] for code in codes]
        redeemed = await shop.redeem(texts[:2], member, order=name["orderId"])
        bought = {"memberId": member["id"], "source": "STORE", "amount": usd(8_100)} | name

        answers = await at_once(
            [
                processes.do(RECORD, **bought),
                processes.do(AMEND, **amendment(codes[1:], member) | name),
                processes.do(CANCEL, **cancellation(**name)),
                processes.do(REVERSE, redemptionId=redeemed["redemptions"][0]["id"], reason="x"),
                processes.do(REDEEM_CODES, **order(texts[:2], member, **name)),
                processes.do(CANCEL, **cancellation(**name)),
                processes.do(RECORD, **bought),
            ]
        )

        cancelled = [answer for answer in answers if answer["__typename"] == "CancelOrderSuccess"]
        assert sorted(each["replayed"] for each in cancelled) == [False, True]
        found = await order_of(shop, name["orderId"])
        assert (found["cancelledAt"] is None, found["redemptions"]) == (False, [])
        assert found["purchase"] is None or found["purchase"]["reversedAt"] is not None
        assert await points(shop, member) == 0
        after = await at_once(
            [
                processes.do(RECORD, **bought),
                processes.do(AMEND, **amendment([], member) | name),
                processes.do(REDEEM_CODES, **order(texts, member, **name)),
            ]
        )
        assert kinds(after) == {"OrderNotOpen": 3}


async def test_a_recorded_order_that_is_called_off_while_it_is_redeemed_is_off(
    shop: Shop, processes: Processes
) -> None:
    for turn in range(8):
        member = await shop.member()
        (code,) = await stackable(shop, member, 1)
        name = {"orderId": f"order {turn}"}
        await purchase(shop, member, name["orderId"], 10_000)

        answers = await at_once(
            [
                processes.do(REDEEM_CODES, **order([code["text"]], member, **name)),
                processes.do(CANCEL, **cancellation(**name)),
            ]
        )

        assert answers[1]["__typename"] == "CancelOrderSuccess"
        assert answers[0]["__typename"] in {"RedeemCodesSuccess", "OrderNotOpen"}
        assert (await order_of(shop, name["orderId"]))["redemptions"] == []
        assert await points(shop, member) == 0
        other = await shop.redeem([code["text"]], member)
        assert other["__typename"] == "RedeemCodesSuccess"
