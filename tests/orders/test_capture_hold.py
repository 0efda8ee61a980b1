"""captureHold. Without these a paid order could lose its discount, or one code could pay for two."""

from typing import Any

import pytest

from app.orders.expire_holds import expire_holds
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import REDEEM_CODES, Shop, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, order_of, stackable
from tests.orders.holding import CAPTURE, RELEASE, cart, hold, let_pass, read, reasons
from tests.orders.presented import expire, order
from tests.points.documents import purchase


async def test_what_is_held_is_redeemed_as_it_was_told(shop: Shop) -> None:
    member = await shop.member()
    codes = await stackable(shop, member, 2)
    held = await hold(shop, codes, member)
    before = await shop.state()

    answer = await shop.do(CAPTURE, holdId=held["id"])

    captured = answer.pop("hold")
    assert answer == {"__typename": "CaptureHoldSuccess", "replayed": False}
    assert (captured["status"], captured["amountDue"]) == ("CAPTURED", usd(8_100))
    assert captured["member"]["wallet"]["version"] == 5
    redemptions = captured["redemptions"]
    assert [
        (each["position"], each["base"]["amountMinor"], each["discount"]["amountMinor"], each["code"]["id"])
        for each in redemptions
    ] == [(1, 10_000, 1_000, codes[0]["id"]), (2, 9_000, 900, codes[1]["id"])]
    assert [each["code"]["state"] for each in captured["codes"]] == ["REDEEMED", "REDEEMED"]
    assert [each["code"]["heldUntil"] for each in captured["codes"]] == [None, None]
    assert (await shop.state()).since(before) == {
        "sales_order": 0, "hold": 0, "hold_code": 0, "redemption": 2, "code": 0, "stock_change": 1, "wallet": 0,
        "event": 3,
    }  # fmt: skip
    assert sorted((await shop.event_types())[-3:]) == ["code.redeemed", "code.redeemed", "hold.captured"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5]
    assert [each["id"] for each in (await order_of(shop, "A-1"))["redemptions"]] == [each["id"] for each in redemptions]
    assert await shop.broken_promises() == []


async def test_capturing_again_is_the_same_answer(shop: Shop) -> None:
    member = await shop.member()
    held = await hold(shop, await stackable(shop, member, 1), member)
    first = await shop.do(CAPTURE, holdId=held["id"])
    before = await shop.state()

    again = await shop.do(CAPTURE, holdId=held["id"])

    assert again == first | {"replayed": True}
    assert await shop.state() == before


async def test_a_captured_order_is_redeemed_amended_and_called_off_like_any_other(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    held = await hold(shop, [first], member)
    await purchase(shop, member, "A-1", 9_000)
    await shop.do(CAPTURE, holdId=held["id"])

    replayed = await shop.do(REDEEM_CODES, **order([first["text"]], member, orderId="A-1"))
    amended = await shop.do(AMEND, **amendment([first, second], member))
    cancelled = await shop.do(CANCEL, **cancellation())

    assert replayed["replayed"] is True
    assert amended["totalDiscount"] == usd(1_900)
    assert amended["purchase"]["amount"] == {"amountMinor": 8_100}
    assert cancelled["moneyReturned"] == usd(8_100)
    assert (await read(shop, held))["status"] == "CAPTURED"
    assert [each["reversedAt"] is None for each in (await read(shop, held))["redemptions"]] == [False]
    assert await shop.broken_promises() == []


# -------------------------------------------------------------------------------------------------------- late


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_hold_whose_time_has_passed_is_captured_if_all_is_there(shop: Shop, is_written: bool) -> None:
    member = await shop.member()
    held = await hold(shop, await stackable(shop, member, 2), member)
    await let_pass(shop, held)
    if is_written:
        await expire_holds()

    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert (captured["__typename"], captured["replayed"]) == ("CaptureHoldSuccess", False)
    assert captured["hold"]["status"] == "CAPTURED"
    assert captured["hold"]["totalDiscount"] == usd(1_900)
    assert await shop.broken_promises() == []


async def _redeemed(shop: Shop, member: Any, code: Any) -> None:
    await shop.redeem([code["text"]], member, order="B-1")


async def _held(shop: Shop, member: Any, code: Any) -> None:
    await hold(shop, [code], member, order="B-1")


async def _revoked(shop: Shop, _: Any, code: Any) -> None:
    await shop.do(REVOKE, codeId=code["id"], reason="lost", recycle=False)


async def _ended(shop: Shop, _: Any, code: Any) -> None:
    await expire(shop, code)


@pytest.mark.parametrize(
    ("happened", "reason"),
    [(_redeemed, "ALREADY_REDEEMED"), (_held, "HELD"), (_revoked, "REVOKED"), (_ended, "EXPIRED")],
)
async def test_a_late_capture_names_what_is_missing(shop: Shop, happened: Any, reason: str) -> None:
    member = await shop.member()
    codes = await stackable(shop, member, 2)
    held = await hold(shop, codes, member)
    await let_pass(shop, held)
    await happened(shop, member, codes[1])

    refused = await shop.refused(CAPTURE, holdId=held["id"])

    assert (refused["__typename"], refused["hold"]["status"]) == ("HoldNotOpen", "EXPIRED")
    assert [(each["masked"], each["reason"]) for each in refused["rejections"]] == [(codes[1]["masked"], reason)]


async def test_a_late_capture_releases_what_the_order_holds_since(shop: Shop) -> None:
    member = await shop.member()
    codes = await stackable(shop, member, 2)
    first = await hold(shop, codes, member)
    await let_pass(shop, first)
    second = await hold(shop, codes[:1], member)

    captured = await shop.do(CAPTURE, holdId=first["id"])
    refused = await shop.refused(CAPTURE, holdId=second["id"])

    assert captured["hold"]["totalDiscount"] == usd(1_900)
    assert refused["hold"]["status"] == "RELEASED"
    assert (await order_of(shop, "A-1"))["redemptions"][1]["code"]["id"] == codes[1]["id"]
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("ending", ["redeemed", "cancelled", "captured"])
async def test_a_late_capture_of_an_order_that_is_settled_is_refused(shop: Shop, ending: str) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    held = await hold(shop, [first], member)
    await let_pass(shop, held)
    if ending == "redeemed":
        await shop.redeem([second["text"]], member, order="A-1")
    elif ending == "cancelled":
        await shop.do(CANCEL, **cancellation())
    else:
        await shop.do(CAPTURE, holdId=(await hold(shop, [second], member))["id"])

    refused = await shop.refused(CAPTURE, holdId=held["id"])

    assert refused["__typename"] == "HoldNotOpen"
    assert refused["hold"]["status"] == ("RELEASED" if ending == "cancelled" else "EXPIRED")
    assert reasons(refused) == []


# ----------------------------------------------------------------------------------------------------- refusals


async def test_a_released_hold_is_not_captured(shop: Shop) -> None:
    member = await shop.member()
    held = await hold(shop, await stackable(shop, member, 1), member)
    await shop.do(RELEASE, holdId=held["id"])

    refused = await shop.refused(CAPTURE, holdId=held["id"])

    assert (refused["__typename"], refused["hold"]["status"]) == ("HoldNotOpen", "RELEASED")


async def test_a_hold_of_another_merchant_is_not_found(shop: Shop, other_shop: Shop) -> None:
    member = await other_shop.member()
    held = await hold(other_shop, await stackable(other_shop, member, 1), member)

    for hold_id in (held["id"], "hold_0123456789abcdef0123456789abcdef", "hold_1"):
        refused = await shop.refused(CAPTURE, holdId=hold_id)
        assert (refused["__typename"], refused["id"]) == ("NotFound", hold_id)


@pytest.mark.parametrize("role", ["SUPPORT", "ANALYST"])
async def test_only_the_till_captures(shop: Shop, role: str) -> None:
    assert await shop.failed(CAPTURE, key=await shop.key(role), holdId="hold_1") == "FORBIDDEN"


async def test_a_cart_is_no_order_until_it_is_captured(shop: Shop) -> None:
    member = await shop.member()
    held = await hold(shop, await stackable(shop, member, 1), member)

    found = await order_of(shop, "A-1")

    assert (found["redemptions"], found["purchase"]) == ([], None)
    assert (await shop.data("query ($id: String!) { order(orderId: $id) { hold { id } } }", {"id": "A-1"}))[
        "order"
    ] == {"hold": {"id": held["id"]}}
    assert cart([], member)["orderId"] == "A-1"
