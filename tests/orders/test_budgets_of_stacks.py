"""Budgets of orders that change. Without these a customer could be kept from a budget by its own codes."""

from typing import Any

import pytest

from tests.factories import CHECK_CODES, Shop, usd
from tests.orders.documents import AMEND, amendment, shares
from tests.orders.holding import CAPTURE, HOLD, cart, hold, read, reasons
from tests.orders.test_budgets import OK, left, sound, ten_off, why

TWO: dict[str, Any] = {"claimsPerMember": 3, "stacking": "STACKABLE"}


async def codes_of(shop: Shop, pool: Any, member: Any, count: int) -> list[Any]:
    """Let a member claim so many codes of a pool."""
    return [
        await shop.claim(pool, member, idempotencyKey=f"{pool['id']} {member['id']} {number}")
        for number in range(count)
    ]


async def halves(shop: Shop, member: Any) -> list[Any]:
    """Return two codes of a pool at 50 %, whose budget suffices for both on an order of 40.00 exactly."""
    pool = await shop.pool(percentOff=50.0, maximumTotalDiscount=usd(3_000), **TWO)
    return await codes_of(shop, pool, member, 2)


async def test_a_hold_that_changes_its_code_has_what_the_other_one_had(shop: Shop) -> None:
    member = await shop.member()
    first, second = await codes_of(shop, await ten_off(shop, 1_000, **TWO), member, 2)
    held = await hold(shop, [first], member)

    check = await shop.data(CHECK_CODES, {"input": cart([second], member)})
    changed = await hold(shop, [second], member)
    both = await shop.refused(HOLD, **cart([first, second], member))

    assert check["answer"]["__typename"] == OK
    assert changed["id"] == held["id"]
    assert reasons(both) == ["BUDGET_SPENT"]
    assert await left(shop) == 0
    assert (await shop.do(CAPTURE, holdId=held["id"]))["__typename"] == "CaptureHoldSuccess"
    await sound(shop)


async def test_a_budget_that_an_abandoned_cart_has_is_taken_over(shop: Shop) -> None:
    member = await shop.member()
    first, second = await codes_of(shop, await ten_off(shop, 1_000, **TWO), member, 2)
    phone = await hold(shop, [first], member, order="phone")

    laptop = await shop.do(HOLD, **cart([second], member, order="laptop"))

    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert (await read(shop, phone))["status"] == "EXPIRED"
    assert await left(shop) == 0
    await sound(shop)


async def test_the_earliest_carts_go_as_far_as_it_needs(shop: Shop) -> None:
    member = await shop.member()
    codes = await codes_of(shop, await ten_off(shop, 2_500, claimsPerMember=5, stacking="STACKABLE"), member, 4)
    early = await hold(shop, [codes[0]], member, order="early")
    late = await hold(shop, [codes[1]], member, order="late")

    # 5.00 are left, and 10.00 come back.
    taken = await shop.do(HOLD, **cart([codes[2]], member, order="now"))

    assert (taken["__typename"], taken["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert [(await read(shop, each))["status"] for each in (early, late)] == ["EXPIRED", "HELD"]
    assert await left(shop) == 500
    await sound(shop)


async def test_a_cart_that_is_taken_over_gives_back_all_that_it_has_of_a_budget(shop: Shop) -> None:
    member = await shop.member()
    first, second, third = await codes_of(shop, await ten_off(shop, 2_000, **TWO), member, 3)
    await hold(shop, [first, second], member, order="phone")

    laptop = await shop.do(HOLD, **cart([first, third], member, order="laptop"))

    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert await left(shop) == 0
    await sound(shop)


async def test_a_guests_cart_gives_its_budget_back_to_the_guest(shop: Shop) -> None:
    pool = await ten_off(shop, 1_000, transferable=True)
    first, second = [await shop.claim(pool, await shop.member()) for _ in range(2)]
    guest: dict[str, Any] = {"email": "guest@example.com"}
    phone = await hold(shop, [first], order="phone", **guest)

    other = await shop.refused(HOLD, **cart([second], order="other", email="another@example.com"))
    laptop = await shop.do(HOLD, **cart([second], order="laptop", **guest))

    assert reasons(other) == ["BUDGET_SPENT"]
    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert (await read(shop, phone))["status"] == "EXPIRED"
    await sound(shop)


async def test_carts_stay_that_would_not_suffice(shop: Shop) -> None:
    member, stranger = await shop.member(), await shop.member()
    pool = await ten_off(shop, 1_500, **TWO)
    first, second = await codes_of(shop, pool, member, 2)
    (other,) = await codes_of(shop, pool, stranger, 1)
    await hold(shop, [other], stranger, order="stranger")
    small = await hold(shop, [first], member, order="small", amount=500)

    refused = await shop.refused(HOLD, **cart([second], member, order="large"))

    assert reasons(refused) == ["BUDGET_SPENT"]
    assert (await read(shop, small))["status"] == "HELD"
    assert await left(shop) == 0
    await sound(shop)


async def test_discounts_that_swap_within_a_hold_need_nothing(shop: Shop) -> None:
    member = await shop.member()
    first, second = await halves(shop, member)
    held = await hold(shop, [first, second], member, amount=4_000)
    assert await left(shop) == 0

    again = await hold(shop, [second, first], member, amount=4_000)

    assert again["id"] == held["id"]
    assert [each["discount"]["amountMinor"] for each in again["codes"]] == [2_000, 1_000]
    assert [each["code"]["id"] for each in again["codes"]] == [second["id"], first["id"]]
    assert await left(shop) == 0
    await sound(shop)


async def test_discounts_that_swap_within_an_order_need_nothing(shop: Shop) -> None:
    member = await shop.member()
    first, second = await halves(shop, member)
    await shop.redeem([first["text"], second["text"]], member, order="A-1", amount=4_000)
    assert await left(shop) == 0

    amended = await shop.do(AMEND, **amendment([second, first], member, amount=4_000))

    assert shares(amended) == [(1, 4_000, 2_000), (2, 2_000, 1_000)]
    assert [each["code"]["id"] for each in amended["redemptions"]] == [second["id"], first["id"]]
    assert await left(shop) == 0
    await sound(shop)


@pytest.mark.parametrize("staying", [0, 1])
async def test_a_code_that_comes_has_what_those_that_stay_give_back(shop: Shop, staying: int) -> None:
    member = await shop.member()
    pool = await shop.pool(percentOff=50.0, maximumTotalDiscount=usd(3_000), **TWO)
    codes = await codes_of(shop, pool, member, 3)
    await shop.redeem([code["text"] for code in codes[:2]], member, order="A-1", amount=4_000)

    amended = await shop.do(AMEND, **amendment([codes[2], codes[staying]], member, amount=4_000))

    assert shares(amended) == [(1, 4_000, 2_000), (2, 2_000, 1_000)]
    assert await left(shop) == 0
    await sound(shop)


async def test_a_code_that_comes_to_an_order_waits_for_the_budget(shop: Shop) -> None:
    member = await shop.member()
    first, second = await codes_of(shop, await ten_off(shop, 1_000, **TWO), member, 2)
    await shop.redeem([first["text"]], member, order="A-1", amount=4_000)

    refused = await shop.do(AMEND, **amendment([first, second], member, amount=4_000))
    changed = await shop.do(AMEND, **amendment([second], member, amount=4_000))

    assert why(refused) == "BUDGET_SPENT"
    assert shares(changed) == [(1, 4_000, 1_000)]
    assert await left(shop) == 0
    await sound(shop)
