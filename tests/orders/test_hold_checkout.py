"""holdCheckout. Without these two carts could spend a code, or an abandoned one could lock its customer out."""

from typing import Any

import pytest

from tests.factories import CHANGE_STATUS, CHECK_CODES, REDEEM_CODES, Shop, problems, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, order_of, stackable
from tests.orders.holding import CAPTURE, HOLD, RELEASE, cart, hold, let_pass, read, reasons
from tests.orders.presented import NEVER_ISSUED, expire, order


async def one(shop: Shop, member: Any = None, **terms: Any) -> tuple[Any, Any]:
    """Return a member and a code of its own."""
    member = member or await shop.member()
    return member, await shop.claim(await shop.pool(**terms), member)


# ---------------------------------------------------------------------------------------------------- successes


async def test_a_hold_tells_what_it_holds_and_what_is_due(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    before = await shop.state()

    answer = await shop.do(HOLD, **cart([first, second], member))

    held = answer.pop("hold")
    assert answer == {"__typename": "HoldCheckoutSuccess", "takenOver": False}
    held_id, held_until = held.pop("id"), held["heldUntil"]
    assert held_id.startswith("hold_")
    assert held == {
        "status": "HELD", "source": "STORE", "orderId": "A-1", "heldUntil": held_until, "points": 0,
        "pointsValue": usd(0),
        "member": {"id": member["id"], "wallet": {"version": 3}},
        "orderAmount": usd(10_000), "totalDiscount": usd(1_900), "amountDue": usd(8_100), "redemptions": [],
        "rewards": [],
        "codes": [
            {
                "discount": usd(discount),
                "code": each | {
                    "heldUntil": held_until, "text": None, "owner": {"id": member["id"], "wallet": {"version": 3}}
                },
            }
            for each, discount in ((first, 1_000), (second, 900))
        ],
    }  # fmt: skip
    assert (await shop.state()).since(before) == {
        "sales_order": 1, "hold": 1, "hold_code": 2, "code": 0, "wallet": 0, "event": 1
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "hold.placed"
    assert await shop.wallet_versions(member) == [1, 2, 3]
    assert await read(shop, {"id": held_id}) == held | {"id": held_id}
    assert await shop.broken_promises() == []


async def test_the_same_order_again_is_the_same_hold_with_what_is_asked_now(shop: Shop) -> None:
    member = await shop.member()
    first, second, third = await stackable(shop, member, 3)
    held = await hold(shop, [first, second], member)

    again = await hold(shop, [third, second], member, amount=20_000, lifetimeSeconds=3600)

    assert again["id"] == held["id"]
    assert again["heldUntil"] > held["heldUntil"]
    assert [each["code"]["id"] for each in again["codes"]] == [third["id"], second["id"]]
    assert [each["discount"] for each in again["codes"]] == [usd(2_000), usd(1_800)]
    assert again["amountDue"] == usd(16_200)
    redeemed = await shop.redeem([first["text"]], member, order="B-1")
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert (await shop.event_types())[-2:] == ["hold.changed", "code.redeemed"]
    assert await shop.count("hold_code") == 2
    assert await shop.broken_promises() == []


async def test_a_seen_key_changes_nothing_however_late_it_comes(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    held = await hold(shop, [first], member, idempotencyKey="one")
    changed = await hold(shop, [second], member, idempotencyKey="two")
    before = await shop.state()

    late = await hold(shop, [first], member, idempotencyKey="one")

    assert late == changed
    assert late["id"] == held["id"]
    assert await shop.state() == before
    await shop.do(RELEASE, holdId=held["id"])
    assert (await hold(shop, [first], member, idempotencyKey="two"))["status"] == "RELEASED"
    fresh = await hold(shop, [first], member, idempotencyKey="three")
    assert fresh["id"] != held["id"]


async def test_a_key_is_of_its_order(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)

    one, other = [
        await hold(shop, [code], member, order=each, idempotencyKey="key")
        for code, each in ((first, "A-1"), (second, "B-1"))
    ]

    assert one["id"] != other["id"]


async def test_two_channels_hold_for_orders_of_one_id(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)

    store, online = await hold(shop, [first], member), await hold(shop, [second], member, source="SHOPIFY")

    assert store["id"] != online["id"]
    assert (await order_of(shop, "A-1", "SHOPIFY"))["redemptions"] == []


async def test_after_a_release_a_new_hold_begins(shop: Shop) -> None:
    member, code = await one(shop)
    held = await hold(shop, [code], member)
    await shop.do(RELEASE, holdId=held["id"])

    again = await hold(shop, [code], member)

    assert again["id"] != held["id"]
    assert (await read(shop, held))["status"] == "RELEASED"


async def test_after_its_time_a_new_hold_begins_before_the_job_comes(shop: Shop) -> None:
    member, code = await one(shop)
    held = await hold(shop, [code], member)
    await let_pass(shop, held)
    assert (await read(shop, held))["status"] == "EXPIRED"

    answer = await shop.do(HOLD, **cart([code], member))

    assert answer["takenOver"] is False
    assert answer["hold"]["id"] != held["id"]
    assert (await shop.event_types())[-2:] == ["hold.expired", "hold.placed"]
    assert await shop.broken_promises() == []


async def test_a_hold_of_transferable_codes_raises_the_wallet_of_each_owner_by_one(shop: Shop) -> None:
    first, second, buyer = [await shop.member() for _ in range(3)]
    codes = [
        await shop.claim(await shop.pool(stacking="STACKABLE", transferable=True), owner)
        for owner in (first, second, first)
    ]

    held = await hold(shop, codes, buyer)

    assert held["member"] == {"id": buyer["id"], "wallet": {"version": 0}}
    assert await shop.wallet_versions(first) == [1, 2, 3]
    assert await shop.wallet_versions(second) == [1, 2]


async def test_a_shared_code_is_held_for_a_guest(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(transferable=True), await shop.member())

    held = await hold(shop, [code], email="guest@example.com")

    assert held["member"] is None
    assert (await shop.do(CAPTURE, holdId=held["id"]))["hold"]["status"] == "CAPTURED"


async def test_a_gift_is_held_though_it_takes_nothing_off(shop: Shop) -> None:
    member, code = await one(shop, kind="GIFT", giftSku="mug")

    assert (await hold(shop, [code], member))["amountDue"] == usd(10_000)


# ----------------------------------------------------------------------------------------------- what is held


@pytest.mark.parametrize("other", ["the same presenter", "somebody else", "the order itself"])
async def test_what_is_held_is_redeemed_by_nobody_beside_its_hold(shop: Shop, other: str) -> None:
    owner, code = await one(shop, transferable=True)
    held = await hold(shop, [code], owner)
    presenter = await shop.member() if other == "somebody else" else owner
    order_id = "A-1" if other == "the order itself" else "B-1"

    refused = await shop.refused(
        REDEEM_CODES.replace("masked reason", "masked reason remedy { heldUntil }"),
        **order([code["text"]], presenter, orderId=order_id),
    )

    rejection = {"masked": code["masked"], "reason": "HELD", "remedy": {"heldUntil": held["heldUntil"]}}
    assert refused["rejections"] == [rejection]


async def test_nothing_is_redeemed_beside_the_hold_of_an_order(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    held = await hold(shop, [first], member)

    refused = await shop.refused(REDEEM_CODES, **order([second["text"]], member, orderId="A-1"))

    assert reasons(refused) == ["HELD"]
    await shop.do(RELEASE, holdId=held["id"])
    redeemed = await shop.redeem([first["text"], second["text"]], member, order="A-1")
    assert redeemed["__typename"] == "RedeemCodesSuccess"


async def test_an_order_takes_no_code_that_another_one_holds(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    await shop.redeem([first["text"]], member, order="A-1")
    await hold(shop, [second], member, order="B-1")

    refused = await shop.refused(AMEND, **amendment([first, second], member))

    assert reasons(refused) == ["HELD"]


async def test_an_order_that_is_held_is_not_amended(shop: Shop) -> None:
    member, code = await one(shop)
    await hold(shop, [code], member)

    assert reasons(await shop.refused(AMEND, **amendment([code], member))) == ["HELD"]
    assert (await shop.refused(AMEND, **amendment([], member)))["__typename"] == "NotFound"


async def test_checking_ignores_the_hold_of_the_order_and_no_other(shop: Shop) -> None:
    member, code = await one(shop)
    await hold(shop, [code], member)

    own = await shop.do(CHECK_CODES, **order([code["text"]], member, orderId="A-1"))
    other = await shop.do(CHECK_CODES, **order([code["text"]], member, orderId="B-1"))

    assert own["__typename"] == "RedeemCodesSuccess"
    assert reasons(other) == ["HELD"]


async def test_a_hold_whose_time_has_passed_blocks_nobody(shop: Shop) -> None:
    member, code = await one(shop)
    held = await hold(shop, [code], member)
    await let_pass(shop, held)

    redeemed = await shop.redeem([code["text"]], member, order="B-1")

    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert redeemed["redemptions"][0]["code"]["state"] == "REDEEMED"
    assert await shop.broken_promises() == []


# --------------------------------------------------------------------------------------------------- take-over


async def test_an_abandoned_cart_is_taken_over_by_the_next(shop: Shop) -> None:
    member, code = await one(shop)
    phone = await hold(shop, [code], member, order="phone")

    answer = await shop.do(HOLD, **cart([code], member, order="laptop"))

    assert (answer["__typename"], answer["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert (await read(shop, phone))["status"] == "EXPIRED"
    assert (await shop.event_types())[-2:] == ["hold.expired", "hold.placed"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert await shop.broken_promises() == []


async def test_the_cart_that_was_taken_over_is_captured_late_only_if_its_code_is_free(shop: Shop) -> None:
    member, code = await one(shop)
    phone = await hold(shop, [code], member, order="phone")
    laptop = await hold(shop, [code], member, order="laptop")

    refused = await shop.refused(CAPTURE, holdId=phone["id"])

    assert refused["__typename"] == "HoldNotOpen"
    assert refused["rejections"] == [
        {"masked": code["masked"], "reason": "HELD", "remedy": {"heldUntil": laptop["heldUntil"]}}
    ]
    await shop.do(RELEASE, holdId=laptop["id"])
    captured = await shop.do(CAPTURE, holdId=phone["id"])
    assert captured["hold"]["status"] == "CAPTURED"


async def test_only_holds_that_are_in_the_way_are_taken_over_and_whole(shop: Shop) -> None:
    member = await shop.member()
    first, second, third, fourth = await stackable(shop, member, 4)
    one, other = await hold(shop, [first, second], member, order="one"), await hold(shop, [third], member, order="two")

    await hold(shop, [fourth, second], member, order="three")

    assert (await read(shop, one))["status"] == "EXPIRED"
    assert (await read(shop, other))["status"] == "HELD"
    redeemed = await shop.redeem([first["text"]], member, order="four")
    assert redeemed["__typename"] == "RedeemCodesSuccess"


async def test_a_refused_request_takes_nothing_over(shop: Shop) -> None:
    member, code = await one(shop, stacking="STACKABLE")
    await hold(shop, [code], member, order="phone")

    refused = await shop.refused(HOLD, **cart([code, {"text": NEVER_ISSUED}], member, order="laptop"))

    assert reasons(refused) == ["UNKNOWN"]


async def test_a_guest_takes_over_by_its_address_and_nobody_else_does(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(transferable=True), await shop.member())
    held = await hold(shop, [code], email="guest@example.com", order="one")

    friend = await shop.refused(HOLD, **cart([code], email="friend@example.com", order="two"))
    nobody = await shop.refused(HOLD, **cart([code], order="two"))
    again = await shop.do(HOLD, **cart([code], email="Guest@example.com ", order="two"))

    assert reasons(friend) == reasons(nobody) == ["HELD"]
    assert friend["rejections"][0]["remedy"] == {"heldUntil": held["heldUntil"]}
    assert again["takenOver"] is True


async def test_a_guest_who_has_proved_the_address_is_the_member(shop: Shop) -> None:
    member = await shop.member(email="anna@example.com", emailVerified=True)
    _, code = await one(shop, member)
    guest = await hold(shop, [code], email="anna@example.com", order="guest")

    as_member = await shop.do(HOLD, **cart([code], member, order="member"))
    as_guest = await shop.do(HOLD, **cart([code], email="anna@example.com", order="guest again"))

    assert as_member["takenOver"] is as_guest["takenOver"] is True
    assert (await read(shop, guest))["status"] == "EXPIRED"


async def test_a_code_that_ended_while_it_was_held_is_not_taken_over(shop: Shop) -> None:
    member, code = await one(shop)
    await hold(shop, [code], member, order="phone")
    await expire(shop, code)

    assert reasons(await shop.refused(HOLD, **cart([code], member, order="laptop"))) == ["EXPIRED"]


# ------------------------------------------------------------------------------------------- what breaks no hold


@pytest.mark.parametrize("change", ["pausePool", "archivePool"])
async def test_a_pool_that_closes_breaks_no_hold(shop: Shop, change: str) -> None:
    member = await shop.member()
    pool = await shop.pool()
    code = await shop.claim(pool, member)
    held = await hold(shop, [code], member)
    await shop.do(CHANGE_STATUS % change, poolId=pool["id"])

    again = await hold(shop, [code], member, amount=20_000)
    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert again["codes"][0]["discount"] == usd(2_000)
    assert again["codes"][0]["code"]["state"] == "ALLOCATED"
    assert captured["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []


async def test_the_same_order_may_name_another_presenter(shop: Shop) -> None:
    owner, code = await one(shop, transferable=True)
    _, own = await one(shop, owner)
    held = await hold(shop, [code], email="guest@example.com")

    again = await hold(shop, [code], owner)
    refused = await shop.refused(HOLD, **cart([own], email="guest@example.com"))

    assert (again["id"], again["member"]["id"]) == (held["id"], owner["id"])
    assert reasons(refused) == ["NOT_OWNER"]


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("input", "complaints"),
    [
        ({"codes": []}, {"codes": "or points or rewardIds must hold something"}),
        ({"lifetimeSeconds": 59}, {"lifetimeSeconds": "must be between 60 and 604800"}),
        ({"lifetimeSeconds": 604_801}, {"lifetimeSeconds": "must be between 60 and 604800"}),
        ({"lifetimeSeconds": -1}, {"lifetimeSeconds": "must be between 60 and 604800"}),
        ({"idempotencyKey": ""}, {"idempotencyKey": "must not be blank"}),
        ({"orderAmount": {"amountMinor": -1, "currency": "USD"}},
         {"orderAmount.amountMinor": f"must be between 0 and {10**15}"}),
        ({"orderAmount": {"amountMinor": 1, "currency": "EUR"}},
         {"orderAmount.currency": "must be USD, the merchant's currency"}),
        ({"orderId": " "}, {"orderId": "must not be blank"}),
        ({"email": "nobody"}, {"email": "must be an e-mail address"}),
        ({"memberId": "member_1"}, {"memberId": "must be the id of a member"}),
        ({"codes": ["x"] * 21}, {"codes": "must be 0 to 20 codes"}),
        ({"codes": [NEVER_ISSUED, NEVER_ISSUED]}, {"codes.1": "is listed twice"}),
    ],
)  # fmt: skip
async def test_an_impossible_request_is_refused(shop: Shop, input: Any, complaints: dict[str, str]) -> None:
    refused = await shop.refused(HOLD, **cart([{"text": NEVER_ISSUED}]) | input)

    assert problems(refused) == complaints


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ({"memberId": "member_0123456789abcdef0123456789abcdef"}, "member_0123456789abcdef0123456789abcdef"),
        ({"member": {"externalId": "nobody"}}, "nobody"),
        ({"member": {"email": "nobody@example.com"}}, "n•••@example.com"),
    ],
)
async def test_a_member_that_is_not_there_is_not_found(shop: Shop, key: Any, shown: str) -> None:
    refused = await shop.refused(HOLD, **cart([{"text": NEVER_ISSUED}]) | key)

    assert (refused["__typename"], refused["id"]) == ("NotFound", shown)


async def test_a_redeemed_or_cancelled_order_is_not_held(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    await shop.redeem([first["text"]], member, order="A-1")

    redeemed = await shop.refused(HOLD, **cart([second], member))
    await shop.do(CANCEL, **cancellation())
    cancelled = await shop.refused(HOLD, **cart([second], member))

    assert redeemed["__typename"] == cancelled["__typename"] == "OrderNotOpen"
    assert redeemed["order"]["cancelledAt"] is None
    assert cancelled["order"]["cancelledAt"] is not None


async def test_a_captured_order_is_not_held_again(shop: Shop) -> None:
    member = await shop.member()
    first, second = await stackable(shop, member, 2)
    held = await hold(shop, [first], member)
    await shop.do(CAPTURE, holdId=held["id"])

    refused = await shop.refused(HOLD, **cart([second], member))

    assert (refused["__typename"], refused["hold"]["id"]) == ("HoldNotOpen", held["id"])
    assert (refused["hold"]["status"], refused["rejections"]) == ("CAPTURED", [])


async def test_a_refused_change_leaves_the_hold_as_it_was(shop: Shop) -> None:
    member, code = await one(shop, minimumSpend=usd(5_000))
    held = await hold(shop, [code], member)

    refused = await shop.refused(HOLD, **cart([code], member, amount=4_999))

    assert reasons(refused) == ["BELOW_MINIMUM_SPEND"]
    assert await read(shop, held) == held


@pytest.mark.parametrize("role", ["SUPPORT", "ANALYST"])
async def test_only_the_till_holds(shop: Shop, role: str) -> None:
    assert await shop.failed(HOLD, key=await shop.key(role), **cart([{"text": NEVER_ISSUED}])) == "FORBIDDEN"
