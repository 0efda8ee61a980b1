"""Points as money. Without these a shop could pay out money that it never had, or a member lose points by a return."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.factories import REDEEM_CODES, Shop, open_shop, problems, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, shares, stacked
from tests.orders.holding import CAPTURE, hold, let_pass
from tests.orders.test_reverse_redemption import REVERSE
from tests.points.documents import (
    CHECK_REFUND,
    CONFIGURE,
    RECORD,
    REFUND,
    asked_refund,
    broken,
    check_refund,
    days_later,
    entries,
    grant,
    purchase,
    redeem,
    refund,
    reward,
    wallet,
)
from tests.points.documents import REVERSE as REVERSE_PURCHASE
from tests.referrals.documents import accepted, program

LOTS = (
    "query ($id: ID!) { member(id: $id) { wallet { entries(first: 50) { edges { node { remaining expiresAt } } } } } }"
)

OTHER = {"member": {"externalId": "other"}}
NEED_A_MEMBER = {"points": "need the member by its id or a store's id"}


async def opened(shop: Shop, points: int = 1_000, amount: int = 10_000) -> tuple[Any, list[Any]]:
    """Give a member points, and redeem a code of 20 % on its order A-1. Returns both."""
    member = await shop.member()
    if points:
        await grant(shop, member, points, "to spend")
    codes, _ = await stacked(shop, member, 20.0, amount=amount)
    return member, codes


async def pay(shop: Shop, member: Any, codes: list[Any], points: int | None, amount: int = 10_000, **how: Any) -> Any:
    """Pay for order A-1 with points."""
    return await shop.do(AMEND, **amendment(codes, member, amount, points=points, **how))


async def lots(shop: Shop, member: Any) -> list[tuple[int, str | None]]:
    """Return what is left of each credit, and when it ends."""
    found = (await shop.data(LOTS, {"id": member["id"]}))["member"]["wallet"]["entries"]["edges"]
    nodes = [each["node"] for each in reversed(found)]
    return [(node["remaining"], node["expiresAt"]) for node in nodes if node["remaining"] is not None]


def told(answer: Any) -> tuple[int, int, int]:
    """Return what an amendment tells: the amount due, the points that came back, the shortfall."""
    assert answer["__typename"] == "AmendOrderSuccess", answer
    return answer["amountDue"]["amountMinor"], answer["pointsReturned"], answer["shortfall"]


# ------------------------------------------------------------------------------------------------------------- paying


async def test_points_pay_for_what_is_left_of_an_order(shop: Shop) -> None:
    member, codes = await opened(shop)
    before = await shop.state()

    answer = await pay(shop, member, codes, 300)

    assert told(answer) == (7_700, 0, 0)
    assert (answer["totalDiscount"], answer["purchase"]) == (usd(2_000), None)
    assert shares(answer) == [(1, 10_000, 2_000)]
    assert await entries(shop, member) == [(1_000, 1_000, "ADJUSTMENT"), (-300, 700, "PAYMENT")]
    assert (await shop.state()).since(before) == {
        "sales_order": 0, "order_amendment": 1, "points_entry": 1, "points_lot": 0, "points_part": 1,
        "wallet": 0, "event": 2,
    }  # fmt: skip
    assert await broken(shop) == await shop.broken_promises() == []


@pytest.mark.parametrize(
    ("value", "amount", "ceiling", "paid", "due"),
    [
        # 267 points of 3 cents pay 8.00.
        (3, 1_000, 1_000, 267, 0),
        (3, 1_000, 266, 266, 2),
        (0.5, 1_000, 5, 5, 798),
        (0.5, 1_000, 1, 0, 800),
        (0.3333, 100, 1_000, 241, 0),
        (0, 1_000, 500, 0, 800),
        (100, 1_000, 8, 8, 0),
        (300, 1_000, 1_000, 3, 0),
    ],
)  # fmt: skip
async def test_points_are_a_ceiling_and_their_value_is_cut(
    shop: Shop, value: float, amount: int, ceiling: int, paid: int, due: int
) -> None:
    await shop.do(CONFIGURE, pointValue=value)
    member, codes = await opened(shop, amount=amount)

    answer = await pay(shop, member, codes, ceiling, amount)

    assert told(answer) == (due, 0, 0)
    assert (await wallet(shop, member))["points"] == 1_000 - paid
    again = await pay(shop, member, codes, ceiling, amount)
    assert told(again) == (due, 0, 0)
    assert (await wallet(shop, member))["points"] == 1_000 - paid
    assert await shop.broken_promises() == []


async def test_the_value_of_a_point_is_fixed_while_points_are_paid(shop: Shop) -> None:
    member, codes = await opened(shop)
    await shop.do(CONFIGURE, pointValue=2)
    await pay(shop, member, codes, 100)
    await shop.do(CONFIGURE, pointValue=5)

    more = await pay(shop, member, codes, 200)
    none = await pay(shop, member, codes, 0)
    anew = await pay(shop, member, codes, 100)

    assert [told(each) for each in (more, none, anew)] == [(7_600, 0, 0), (8_000, 200, 0), (7_500, 0, 0)]
    assert await shop.broken_promises() == []


async def test_another_number_of_points_takes_or_gives_the_difference(shop: Shop) -> None:
    member, codes = await opened(shop)

    answers = [await pay(shop, member, codes, points) for points in (300, 500, 450, 0, 700)]

    assert [told(each) for each in answers] == [
        (7_700, 0, 0), (7_500, 0, 0), (7_550, 50, 0), (8_000, 450, 0), (7_300, 0, 0)
    ]  # fmt: skip
    assert await entries(shop, member) == [
        (1_000, 1_000, "ADJUSTMENT"), (-300, 700, "PAYMENT"), (-200, 500, "PAYMENT"), (50, 550, "REFUND"),
        (150, 700, "REFUND"), (300, 1_000, "REFUND"), (-700, 300, "PAYMENT"),
    ]  # fmt: skip
    assert await broken(shop) == await shop.broken_promises() == []


async def test_points_beyond_the_need_come_back_whatever_makes_it_less(shop: Shop) -> None:
    member, codes = await opened(shop, 10_000)
    await pay(shop, member, codes, 8_000)
    more = await shop.claim(await shop.pool(stacking="STACKABLE", percentOff=50.0), member)

    less = await pay(shop, member, codes, None, 5_000)
    coded = await pay(shop, member, [*codes, more], None, 5_000)
    richer = await pay(shop, member, [], None, 5_000)

    assert [told(each) for each in (less, coded, richer)] == [(0, 4_000, 0), (0, 2_000, 0), (3_000, 0, 0)]
    assert (await wallet(shop, member))["points"] == 8_000
    assert await shop.broken_promises() == []


async def test_points_come_back_when_codes_are_redeemed_again(shop: Shop) -> None:
    member, codes = await opened(shop, 10_000)
    await pay(shop, member, [], 10_000)
    made = await purchase(shop, member, "A-1", 10_000)

    again = await shop.redeem([codes[0]["text"]], member, order="A-1")

    assert (made["entry"], again["__typename"]) == (None, "RedeemCodesSuccess")
    assert (await wallet(shop, member))["points"] == 2_000
    assert await shop.broken_promises() == []


# ---------------------------------------------------------------------------------------------------------- replays


async def test_the_same_key_pays_once_and_other_points_are_another_request(shop: Shop) -> None:
    member, codes = await opened(shop)
    asked = amendment(codes, member, points=300)
    first = await shop.do(AMEND, **asked)
    before = await shop.state()

    again = await shop.do(AMEND, **asked)
    refusal = await shop.refused(AMEND, **asked | {"points": 301})

    assert again == first | {"replayed": True}
    assert refusal["__typename"] == "IdempotencyKeyReused"
    assert await shop.state() == before


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"points": -1}, {"points": "must be 0 or more"}),
        ({"email": "jane@example.com"}, NEED_A_MEMBER),
        ({"member": {"email": "jane@example.com"}}, NEED_A_MEMBER),
        ({}, NEED_A_MEMBER),
    ],
    ids=str,
)
async def test_points_need_a_member_that_is_named(shop: Shop, change: dict[str, Any], expected: dict[str, str]) -> None:
    jane = await shop.member(email="jane@example.com", emailVerified=True)
    await grant(shop, jane, 1_000, "to spend")
    codes, _ = await stacked(shop, jane, 20.0)

    refusal = await shop.refused(AMEND, **amendment(codes, points=100) | change)

    assert problems(refusal) == expected


async def test_more_than_can_be_spent_is_refused(shop: Shop) -> None:
    member, codes = await opened(shop, 99)

    refusal = await shop.refused(AMEND, **amendment(codes, member, points=100))

    assert (refusal["__typename"], refusal["balance"], refusal["required"]) == ("InsufficientPoints", 99, 100)


async def test_an_order_is_paid_by_one_member(shop: Shop) -> None:
    member, codes = await opened(shop)
    other = await shop.member(externalId="other")
    await grant(shop, other, 1_000, "also")
    await pay(shop, member, codes, 300)

    by_id = await shop.refused(AMEND, **amendment(codes, other, points=400))
    by_key = await shop.refused(AMEND, **amendment(codes, points=400) | OTHER)
    unnamed = await shop.do(AMEND, **amendment(codes, points=400))
    await pay(shop, member, codes, 0)
    afterwards = await shop.do(AMEND, **amendment(codes, points=500) | OTHER)

    assert problems(by_id) == {"memberId": "must be the member that has paid with points"}
    assert problems(by_key) == {"member": "must be the member that has paid with points"}
    assert (told(unnamed), told(afterwards)) == ((7_600, 0, 0), (7_500, 0, 0))
    assert [(await wallet(shop, each))["points"] for each in (member, other)] == [1_000, 500]
    assert await shop.broken_promises() == []


async def test_a_payer_that_is_unknown_is_not_found(shop: Shop, other_shop: Shop) -> None:
    _, codes = await opened(shop)
    stranger = await other_shop.member()

    by_id = await shop.refused(AMEND, **amendment(codes, stranger, points=1))
    by_key = await shop.refused(AMEND, **amendment(codes, points=1) | {"member": {"externalId": "nobody"}})

    assert (by_id["__typename"], by_id["id"]) == ("NotFound", stranger["id"])
    assert (by_key["__typename"], by_key["id"]) == ("NotFound", "nobody")


# ------------------------------------------------------------------------------------------- what a purchase earns


@pytest.mark.parametrize("is_recorded_first", [False, True], ids=["paid first", "recorded first"])
async def test_what_is_paid_with_points_earns_none_whatever_comes_first(shop: Shop, is_recorded_first: bool) -> None:
    member, codes = await opened(shop)

    if is_recorded_first:
        await purchase(shop, member, "A-1", 8_000)
    await pay(shop, member, codes, 1_000)
    made = await purchase(shop, member, "A-1", 8_000)

    bought = made["purchase"]
    assert made["replayed"] is is_recorded_first
    assert (bought["points"], bought["keptPoints"], bought["paidPoints"]) == (70, 70, 1_000)
    assert (bought["amount"], bought["paidPointsValue"]) == (usd(8_000), usd(1_000))
    assert (await wallet(shop, member))["points"] == 70
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_purchase_below_the_value_of_its_points_is_refused(shop: Shop) -> None:
    member, codes = await opened(shop)
    await pay(shop, member, codes, 1_000)

    refusal = await shop.refused(
        RECORD, memberId=member["id"], source="STORE", orderId="A-1", amount=usd(999)
    )  # fmt: skip
    exactly = await purchase(shop, member, "A-1", 1_000)

    assert problems(refusal) == {"amount.amountMinor": "must be at least 1000, what was paid with points"}
    assert (exactly["entry"], exactly["purchase"]["keptPoints"]) == (None, 0)


async def test_no_more_than_the_recorded_purchase_is_paid_with_points(shop: Shop) -> None:
    member, codes = await opened(shop)
    await purchase(shop, member, "A-1", 500)

    answer = await pay(shop, member, codes, 1_000)

    assert told(answer) == (7_500, 0, 0)
    assert (answer["purchase"]["paidPoints"], answer["purchase"]["keptPoints"]) == (500, 0)
    assert await shop.broken_promises() == []


async def test_a_referral_goes_by_what_was_paid_with_money(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE", minimumPurchase=usd(5_000))
    referrer = await shop.member()
    friend = (await accepted(shop, referrer))["member"]
    await grant(shop, friend, 9_000, "to spend")
    codes, _ = await stacked(shop, friend, 20.0)
    await pay(shop, friend, codes, 3_001)
    made = await purchase(shop, friend, "A-1", 8_000)
    assert (await wallet(shop, referrer))["points"] == 0

    await pay(shop, friend, codes, 3_000)
    converted = (await wallet(shop, referrer))["points"]
    await pay(shop, friend, codes, 3_001)

    assert (made["purchase"]["keptPoints"], converted) == (49, 100)
    assert (await wallet(shop, referrer))["points"] == 0
    assert await broken(shop) == await shop.broken_promises() == []


# ---------------------------------------------------------------------------------------------------------- refunds


async def test_points_come_back_with_what_they_paid_for_and_the_rest_is_money(shop: Shop) -> None:
    member, codes = await opened(shop)
    await pay(shop, member, codes, 1_000)
    await purchase(shop, member, "A-1", 8_000)

    checked = await check_refund(shop, "A-1", "r-1", 2_001)
    first = await refund(shop, "A-1", "r-1", 2_001)
    again = await refund(shop, "A-1", "r-1", 2_001)
    rest = await refund(shop, "A-1", "r-2", 5_999)

    # floor(1000 x 2001 / 8000) = 250; 70 - floor(52.49) = 18.
    assert (first["pointsReturned"], first["moneyReturned"], first["pointsExpired"]) == (250, usd(1_751), 0)
    assert [each["amount"] for each in first["entries"]] == [-18]
    assert (checked["points"], checked["pointsReturned"], checked["moneyReturned"]) == (18, 250, usd(1_751))
    assert (again["replayed"], again["pointsReturned"], again["moneyReturned"]) == (True, 250, usd(1_751))
    assert (rest["pointsReturned"], rest["moneyReturned"]) == (750, usd(5_249))
    assert rest["purchase"]["member"]["wallet"] == {"version": (await wallet(shop, member))["version"], "points": 1_000}
    assert (rest["purchase"]["paidPoints"], rest["purchase"]["keptPoints"]) == (1_000, 0)
    assert (await wallet(shop, member))["points"] == 1_000
    assert await broken(shop) == await shop.broken_promises() == []


async def test_an_order_paid_with_points_alone_returns_no_money(shop: Shop) -> None:
    member, codes = await opened(shop, 8_000)
    await pay(shop, member, codes, 8_000)
    await purchase(shop, member, "A-1", 8_000)

    answers = [await refund(shop, "A-1", f"r-{number}", part) for number, part in enumerate([1, 2_999, 5_000])]

    assert [(each["pointsReturned"], each["moneyReturned"]["amountMinor"]) for each in answers] == [
        (1, 0), (2_999, 0), (5_000, 0)
    ]  # fmt: skip
    assert answers[-1]["purchase"]["member"]["wallet"]["points"] == 8_000
    assert await shop.broken_promises() == []


async def test_the_last_spent_comes_back_first(shop: Shop) -> None:
    member, codes = await opened(shop, 0)
    for key, days in (("soon", 10), ("late", 20)):
        await shop.do(CONFIGURE, pointsLifetimeDays=days)
        await grant(shop, member, 100, key)
    begun = await lots(shop, member)
    await pay(shop, member, codes, 50)
    await pay(shop, member, codes, 150)
    await shop.do(CONFIGURE, pointsPerUnit=0)
    await purchase(shop, member, "A-1", 1_500)

    answer = await refund(shop, "A-1", "r-1", 750)
    half = [left for left, _ in await lots(shop, member)]
    await refund(shop, "A-1", "r-2", 750)

    assert (answer["pointsReturned"], half) == (75, [25, 100])
    assert await lots(shop, member) == begun
    assert await shop.broken_promises() == []


async def test_points_that_come_back_past_their_date_expire_at_once(shop: Shop) -> None:
    member, codes = await opened(shop, 0)
    await shop.do(CONFIGURE, pointsLifetimeDays=10)
    await grant(shop, member, 100, "soon")
    await pay(shop, member, codes, 100)
    await shop.do(CONFIGURE, pointsLifetimeDays=None)
    await purchase(shop, member, "A-1", 8_000)
    await days_later(shop, member, 11)

    answer = await refund(shop, "A-1", "r-1", 4_000)
    rest = await shop.do(CANCEL, **cancellation())

    assert (answer["pointsReturned"], answer["pointsExpired"], answer["moneyReturned"]) == (50, 50, usd(3_950))
    assert (rest["pointsReturned"], rest["pointsExpired"], rest["moneyReturned"]) == (50, 50, usd(3_950))
    assert (await wallet(shop, member))["points"] == 0
    assert await broken(shop) == await shop.broken_promises() == []


async def test_shares_begin_anew_when_the_order_changes(shop: Shop) -> None:
    member, codes = await opened(shop)
    await pay(shop, member, codes, 1_000)
    await purchase(shop, member, "A-1", 8_000)
    # 125 points come back, 875 stand of 7000.
    first = await refund(shop, "A-1", "r-1", 1_000)

    amended = await pay(shop, member, codes, None, 5_000)
    same = await pay(shop, member, codes, 1_000, 5_000)
    # 875 stand of 3000.
    second = await refund(shop, "A-1", "r-2", 1_000)
    fewer = await pay(shop, member, codes, 500, 5_000)
    # 84 stand of 2000.
    third = await refund(shop, "A-1", "r-3", 999)
    last = await refund(shop, "A-1", "r-4", 1_001)

    assert [each["pointsReturned"] for each in (first, second, third, last)] == [125, 291, 41, 43]
    assert [each["moneyReturned"]["amountMinor"] for each in (first, second, third, last)] == [875, 709, 958, 958]
    assert [told(each)[:2] for each in (amended, same, fewer)] == [(3_000, 0), (3_000, 0), (3_500, 500)]
    assert (last["purchase"]["paidPoints"], last["purchase"]["keptPoints"]) == (500, 0)
    assert (await wallet(shop, member))["points"] == 1_000
    assert await broken(shop) == await shop.broken_promises() == []


async def test_what_came_back_by_refunds_stays_back(shop: Shop) -> None:
    member, codes = await opened(shop)
    await pay(shop, member, codes, 1_000)
    await purchase(shop, member, "A-1", 8_000)
    await refund(shop, "A-1", "r-1", 4_000)

    none = await pay(shop, member, codes, 0)
    rest = await refund(shop, "A-1", "r-2", 4_000)
    after = await pay(shop, member, codes, 1_000)

    assert (told(none), none["purchase"]["paidPoints"]) == ((7_500, 500, 0), 500)
    assert (rest["pointsReturned"], rest["moneyReturned"]) == (0, usd(4_000))
    # Nothing stands that could be paid for.
    assert (told(after), after["purchase"]["paidPoints"]) == ((7_500, 0, 0), 500)
    assert (await wallet(shop, member))["points"] == 1_000
    assert await shop.broken_promises() == []


async def test_a_return_of_everything_leaves_balance_dates_and_pending_as_before(shop: Shop) -> None:
    await shop.do(CONFIGURE, pointsPendingDays=14, pointsLifetimeDays=365)
    member, codes = await opened(shop, 500)
    await purchase(shop, member, "before", 10_000)
    before, begun = await wallet(shop, member), await lots(shop, member)

    await pay(shop, member, codes, 400)
    await purchase(shop, member, "A-1", 8_000)
    for number, part in enumerate([3_333, 1, 4_666]):
        await refund(shop, "A-1", f"r-{number}", part)

    assert (await wallet(shop, member)) | {"version": 0} == before | {"version": 0}
    assert (await lots(shop, member))[:2] == begun
    assert await broken(shop) == await shop.broken_promises() == []


async def test_points_of_one_member_come_back_to_it_though_another_bought(shop: Shop) -> None:
    payer, codes = await opened(shop)
    await pay(shop, payer, codes, 1_000)
    buyer = await shop.member()
    await purchase(shop, buyer, "A-1", 8_000)

    answer = await refund(shop, "A-1", "r-1", 4_000)
    await pay(shop, payer, codes, 600)
    back = await shop.do(REVERSE_PURCHASE, source="STORE", orderId="A-1", reason="returned")

    assert (answer["pointsReturned"], [each["amount"] for each in answer["entries"]]) == (500, [-35])
    assert answer["purchase"]["member"] == {"id": buyer["id"], "wallet": {"version": 2, "points": 35}}
    assert back["purchase"]["member"]["wallet"]["points"] == 0
    assert [(await wallet(shop, each))["points"] for each in (payer, buyer)] == [1_000, 0]
    assert await broken(shop) == await shop.broken_promises() == []


async def test_returned_points_fill_what_the_return_lacks(shop: Shop) -> None:
    """What came back could pay: it does so in the same step."""
    member, codes = await opened(shop)
    await pay(shop, member, codes, 1_000)
    await purchase(shop, member, "A-1", 8_000)
    await redeem(shop, await reward(shop, cost=70), member, "all that was earned")

    answer = await refund(shop, "A-1", "r-1", 8_000)

    assert (answer["pointsReturned"], answer["shortfall"], answer["moneyReturned"]) == (1_000, 0, usd(7_000))
    assert [each["amount"] for each in answer["entries"]] == [-70]
    assert (await wallet(shop, member))["points"] == 930
    assert await shop.broken_promises() == []


async def test_no_refund_is_refused_otherwise_than_before(shop: Shop) -> None:
    member, codes = await opened(shop)
    await pay(shop, member, codes, 1_000)
    await purchase(shop, member, "A-1", 8_000)

    too_large = await shop.refused(REFUND, **asked_refund("A-1", "r-1", 8_001))
    checked = (await shop.data(CHECK_REFUND, {"input": asked_refund("A-1", "r-1", 8_001)}))["answer"]

    assert too_large["refundable"] == checked["refundable"] == usd(8_000)


# -------------------------------------------------------------------------------------------------------- cancelling


@pytest.mark.parametrize("is_recorded", [False, True])
async def test_a_cancelled_order_gives_points_back_recorded_or_not(shop: Shop, is_recorded: bool) -> None:
    member, codes = await opened(shop)
    await pay(shop, member, codes, 200)
    await pay(shop, member, codes, 300, idempotencyKey="last")
    if is_recorded:
        await purchase(shop, member, "A-1", 8_000)
        await refund(shop, "A-1", "r-1", 800)

    answer = await shop.do(CANCEL, **cancellation())
    again = await shop.do(CANCEL, **cancellation())
    amended = await pay(shop, member, codes, 300, idempotencyKey="last")

    assert (amended["replayed"], amended["amountDue"]) == (True, usd(0))
    money, back = (usd(6_930), 270) if is_recorded else (usd(0), 300)
    assert (answer["moneyReturned"], answer["pointsReturned"], answer["pointsExpired"]) == (money, back, 0)
    assert (answer["kept"], again) == ([], answer | {"replayed": True})
    assert (await wallet(shop, member))["points"] == 1_000
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_single_code_that_is_reversed_lets_a_paid_purchase_follow(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 1_000, "to spend")
    codes, redemptions = await stacked(shop, member, 20.0, 10.0)
    await pay(shop, member, codes, 1_000)
    await purchase(shop, member, "A-1", 7_200)

    await shop.do(REVERSE, redemptionId=redemptions[0]["id"], reason="a mistake")
    answer = await pay(shop, member, codes[1:], None)

    # 90.00 less 10.00 in points.
    assert (told(answer), answer["purchase"]["keptPoints"]) == ((8_000, 0, 0), 80)
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("currency", ["JPY", "USD", "KWD"])
async def test_parts_make_the_whole_in_any_currency(api: Api, currency: str) -> None:
    async with open_shop(f"{api.url}/graphql", currency) as shop:
        await shop.do(CONFIGURE, pointValue=0.7, pointsPerUnit=3)

        def money(amount: int) -> dict[str, Any]:
            return {"amountMinor": amount, "currency": currency}

        member = await shop.member()
        await grant(shop, member, 5_000, "to spend")
        code = await shop.claim(await shop.pool(), member)
        order = {"codes": [code["text"]], "orderId": "A-1", "orderAmount": money(1_111), "memberId": member["id"]}
        await shop.do(REDEEM_CODES, **order)
        await shop.do(AMEND, **amendment([code], member, orderAmount=money(1_111), points=701))
        bought = {"memberId": member["id"], "source": "STORE", "orderId": "A-1", "amount": money(1_000)}
        made = (await shop.do(RECORD, **bought))["purchase"]
        parts = [
            await shop.do(REFUND, **asked_refund("A-1", f"r-{part}", 0) | {"amount": money(part)})
            for part in (1, 2, 333, 7, 657, 5)
        ]

        assert made["paidPointsValue"] == money(490)
        assert parts[-1]["__typename"] == "PurchaseAlreadyReversed"
        assert sum(each["pointsReturned"] for each in parts[:-1]) == 701
        assert sum(each["moneyReturned"]["amountMinor"] for each in parts[:-1]) == 1_000 - 490
        assert await broken(shop) == await shop.broken_promises() == []


# ---------------------------------------------------------------------------------------------------------- captures


@pytest.mark.parametrize("is_recorded_first", [False, True], ids=["captured first", "recorded first"])
async def test_what_a_hold_paid_earns_none_and_comes_back(shop: Shop, is_recorded_first: bool) -> None:
    await shop.do(CONFIGURE, pointValue=2)
    member = await shop.member()
    await grant(shop, member, 1_000, "to spend")
    held = await hold(shop, [], member, points=600, amount=8_000)
    await shop.do(CONFIGURE, pointValue=5)
    if is_recorded_first:
        await purchase(shop, member, "A-1", 8_000)

    answer = await shop.do(CAPTURE, holdId=held["id"], points=500)
    made = (await purchase(shop, member, "A-1", 8_000))["purchase"]
    # The value of a point is that of the hold; the order has no codes.
    more = await pay(shop, member, [], 550, 8_000)
    refunded = await refund(shop, "A-1", "r-1", 4_000)

    assert answer["__typename"] == "CaptureHoldSuccess"
    assert (made["paidPoints"], made["paidPointsValue"], made["keptPoints"]) == (500, usd(1_000), 70)
    assert (told(more), more["purchase"]["keptPoints"]) == ((6_900, 0, 0), 69)
    assert (refunded["pointsReturned"], refunded["moneyReturned"]) == (275, usd(3_450))
    assert (await wallet(shop, member))["points"] == 1_000 - 550 + 275 + 34
    assert await broken(shop) == await shop.broken_promises() == []


async def test_a_capture_above_the_recorded_purchase_is_refused(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 1_000, "to spend")
    held = await hold(shop, [], member, points=1_000, amount=8_000)
    await purchase(shop, member, "A-1", 999)

    refusal = await shop.refused(CAPTURE, holdId=held["id"])
    fewer = await shop.do(CAPTURE, holdId=held["id"], points=999)

    assert problems(refusal) == {"points": "would leave less of the purchase than is paid with points"}
    assert fewer["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_a_hold_paid_comes_back_with_a_cancelled_order(shop: Shop, is_late: bool) -> None:
    member = await shop.member()
    await grant(shop, member, 1_000, "to spend")
    held = await hold(shop, [], member, points=1_000, amount=8_000)
    if is_late:
        await let_pass(shop, held)
    await shop.do(CAPTURE, holdId=held["id"])

    answer = await shop.do(CANCEL, **cancellation())

    assert (answer["pointsReturned"], answer["moneyReturned"]) == (1_000, usd(0))
    assert (await wallet(shop, member))["points"] == 1_000
    assert await broken(shop) == await shop.broken_promises() == []
