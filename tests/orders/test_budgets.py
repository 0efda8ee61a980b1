"""Budgets. Without these a pool could give away more than its merchant set aside, or less."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.integrity.recompute import recompute
from app.orders.expire_holds import expire_holds
from app.storage.database import database, transaction
from tests.coupons.test_audience import claimed
from tests.factories import CHECK_CODES, CREATE_CAMPAIGN, CREATE_POOL, EDIT_POOL, REDEEM_CODES, Shop, problems, usd
from tests.orders.documents import AMEND, CANCEL, amendment
from tests.orders.holding import CAPTURE, HOLD, RELEASE, cart, hold, let_pass, reasons
from tests.orders.test_reverse_redemption import REVERSE

OK = "RedeemCodesSuccess"
READ = """
query ($id: ID!) {
  node(id: $id) { ... on Pool { maximumTotalDiscount { amountMinor } discountGiven { amountMinor } } }
}
"""
SUM = "SELECT coalesce(sum(remaining), 0)::bigint AS amount FROM pool_budget WHERE merchant_id = $1"


async def left(shop: Shop) -> int:
    """Return what is left of the merchant's one budget."""
    (row,) = await database().rows(SUM, shop.merchant_id)
    amount: int = row["amount"]
    return amount


async def ten_off(shop: Shop, budget: int, **terms: Any) -> Any:
    """Return a pool whose codes take 10.00 off, up to so much in all."""
    return await shop.pool(
        kind="AMOUNT", amountOff=usd(1_000), maximumTotalDiscount=usd(budget), codes=terms.pop("codes", 30), **terms
    )


async def redeemed(
    shop: Shop, code: Any, member: Any, order: str, amount: int = 5_000, document: str = REDEEM_CODES
) -> Any:
    """Present a code for an order."""
    asked = {"codes": [code["text"]], "orderId": order, "orderAmount": usd(amount), "memberId": member["id"]}
    return (await shop.data(document, {"input": asked}))["answer"]


def why(answer: Any) -> str:
    """Return why a code was refused, or the answer's kind."""
    return str(answer["rejections"][0]["reason"] if "rejections" in answer else answer["__typename"])


async def crowd(shop: Shop, pool: Any, count: int) -> list[tuple[Any, Any]]:
    """Let so many members claim a code each."""
    members = [await shop.member() for _ in range(count)]
    return [(member, await shop.claim(pool, member)) for member in members]


async def sound(shop: Shop) -> None:
    """Fail unless every promise holds."""
    assert not any((await recompute(shop.merchant_id)).values())


async def test_what_stands_never_exceeds_the_budget(shop: Shop) -> None:
    pool = await ten_off(shop, 2_500)
    people = await crowd(shop, pool, 3)

    answers = [why(await redeemed(shop, code, member, f"o-{n}")) for n, (member, code) in enumerate(people)]

    assert answers == [OK, OK, "BUDGET_SPENT"]
    member, code = people[2]
    assert why(await redeemed(shop, code, member, "o-2", document=CHECK_CODES)) == "BUDGET_SPENT"
    # A smaller order fits whole.
    assert why(await redeemed(shop, code, member, "o-2", amount=500)) == OK
    assert (await shop.data(READ, {"id": pool["id"]}))["node"] == {
        "maximumTotalDiscount": {"amountMinor": 2_500}, "discountGiven": {"amountMinor": 2_500}
    }  # fmt: skip
    assert await left(shop) == 0
    await sound(shop)


async def test_a_check_reserves_nothing(shop: Shop) -> None:
    pool = await ten_off(shop, 1_000)
    (one, first), (two, second) = await crowd(shop, pool, 2)

    assert why(await redeemed(shop, first, one, "o-1", document=CHECK_CODES)) == OK
    assert why(await redeemed(shop, second, two, "o-2")) == OK


async def test_what_goes_back_can_be_given_again(shop: Shop) -> None:
    pool = await ten_off(shop, 2_000)
    people = await crowd(shop, pool, 4)
    made = [await redeemed(shop, code, member, f"o-{n}") for n, (member, code) in enumerate(people[:2])]
    member, code = people[2]
    assert why(await redeemed(shop, code, member, "o-2")) == "BUDGET_SPENT"

    await shop.do(REVERSE, redemptionId=made[0]["redemptions"][0]["id"], reason="a return", reinstate=False)
    assert why(await redeemed(shop, code, member, "o-2")) == OK
    await shop.do(CANCEL, orderId="o-1", reason="called off")
    last, another = people[3]
    assert why(await redeemed(shop, another, last, "o-3")) == OK
    assert await left(shop) == 0
    await sound(shop)


async def test_an_amendment_takes_and_gives_the_difference(shop: Shop) -> None:
    pool = await shop.pool(percentOff=50.0, maximumTotalDiscount=usd(3_000))
    ((member, code),) = await crowd(shop, pool, 1)
    await redeemed(shop, code, member, "A-1", amount=4_000)
    assert await left(shop) == 1_000

    more = await shop.do(AMEND, **amendment([code], member, amount=6_000))
    too_much = await shop.do(AMEND, **amendment([code], member, amount=6_100))
    less = await shop.do(AMEND, **amendment([code], member, amount=1_000))

    assert more["totalDiscount"]["amountMinor"] == 3_000
    assert why(too_much) == "BUDGET_SPENT"
    assert less["totalDiscount"]["amountMinor"] == 500
    assert await left(shop) == 2_500
    gone = await shop.do(AMEND, **amendment([], member, amount=1_000))
    assert gone["totalDiscount"]["amountMinor"] == 0
    assert await left(shop) == 3_000
    await sound(shop)


async def test_a_code_takes_no_more_because_another_came_back(shop: Shop) -> None:
    member = await shop.member()
    first = await shop.claim(await shop.pool(kind="AMOUNT", amountOff=usd(6_000), stacking="STACKABLE"), member)
    half = await shop.pool(percentOff=50.0, maximumTotalDiscount=usd(2_500), stacking="STACKABLE")
    second = await shop.claim(half, member)
    answer = await shop.redeem([first["text"], second["text"]], member, order="o-1")
    assert [each["discount"]["amountMinor"] for each in answer["redemptions"]] == [6_000, 2_000]

    await shop.do(REVERSE, redemptionId=answer["redemptions"][0]["id"], reason="a return", reinstate=True)

    assert await left(shop) == 500
    await sound(shop)


async def test_what_is_held_is_taken_until_it_is_released(shop: Shop) -> None:
    pool = await ten_off(shop, 1_000)
    (one, first), (two, second) = await crowd(shop, pool, 2)
    held = await hold(shop, [first], one)
    assert await left(shop) == 0
    assert why(await redeemed(shop, second, two, "o-2")) == "BUDGET_SPENT"

    # The same order again takes nothing more.
    again = await hold(shop, [first], one, amount=6_000)
    assert again["id"] == held["id"]
    await shop.do(RELEASE, holdId=held["id"])
    assert await left(shop) == 1_000
    held = await hold(shop, [second], two, order="A-2")
    captured = await shop.do(CAPTURE, holdId=held["id"])
    assert captured["__typename"] == "CaptureHoldSuccess"
    assert await left(shop) == 0
    await sound(shop)


async def test_a_hold_that_is_paid_late_needs_what_it_gave_back(shop: Shop) -> None:
    pool = await ten_off(shop, 1_000)
    (one, first), (two, second) = await crowd(shop, pool, 2)
    held = await hold(shop, [first], one)
    await let_pass(shop, held)
    await expire_holds()
    made = await redeemed(shop, second, two, "o-2")

    late = await shop.do(CAPTURE, holdId=held["id"])
    assert (late["__typename"], "budget" in late["message"]) == ("HoldNotOpen", True)
    await shop.do(REVERSE, redemptionId=made["redemptions"][0]["id"], reason="a return", reinstate=False)
    assert (await shop.do(CAPTURE, holdId=held["id"]))["__typename"] == "CaptureHoldSuccess"
    await sound(shop)


async def test_what_a_cart_had_whose_time_has_passed_is_free_at_once(shop: Shop) -> None:
    """Nobody waits for the job that writes it down: neither its own code, nor another's."""
    pool = await ten_off(shop, 1_000)
    (one, first), (two, second) = await crowd(shop, pool, 2)
    held = await hold(shop, [first], one)
    await let_pass(shop, held)

    assert why(await redeemed(shop, first, one, "o-1", document=CHECK_CODES)) == OK
    again = await hold(shop, [first], one, order="A-2")
    await let_pass(shop, again)
    third = await hold(shop, [second], two, order="A-3")
    await let_pass(shop, third)
    assert why(await redeemed(shop, first, one, "o-1")) == OK
    assert why(await redeemed(shop, second, two, "o-2")) == "BUDGET_SPENT"
    assert await left(shop) == 0
    await sound(shop)


async def test_a_cart_has_what_a_code_that_leaves_it_gives_back(shop: Shop) -> None:
    pool = await ten_off(shop, 2_000, claimsPerMember=3, stacking="STACKABLE")
    member = await shop.member()
    codes = [await shop.claim(pool, member, idempotencyKey=f"k-{number}") for number in range(3)]
    await hold(shop, codes[:2], member)

    assert why(await redeemed(shop, codes[2], member, "A-1", document=CHECK_CODES)) == OK
    changed = await hold(shop, [codes[2], codes[0]], member)
    assert [each["discount"]["amountMinor"] for each in changed["codes"]] == [1_000, 1_000]
    assert await left(shop) == 0
    too_many = await shop.do(HOLD, **cart(codes, member))
    assert reasons(too_many) == ["BUDGET_SPENT"]
    await sound(shop)


async def test_a_spent_budget_ends_claims_after_the_fallbacks(shop: Shop) -> None:
    last = await shop.pool(codes=1)
    pool = await ten_off(shop, 1_000, fallbackPoolId=last["id"])
    ((member, code),) = await crowd(shop, pool, 1)
    await redeemed(shop, code, member, "o-1")

    served = await claimed(shop, pool, memberId=(await shop.member())["id"])
    assert served.startswith("code_")
    assert await claimed(shop, pool, memberId=(await shop.member())["id"]) == "BUDGET_SPENT"
    assert await claimed(shop, pool, memberId=member["id"]) == code["id"]
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(2_000))
    assert (await claimed(shop, pool, memberId=(await shop.member())["id"])).startswith("code_")


async def test_a_spent_budget_ends_campaigns(shop: Shop) -> None:
    pool = await ten_off(shop, 1_000)
    ((member, code),) = await crowd(shop, pool, 1)
    await redeemed(shop, code, member, "o-1")
    document = CREATE_CAMPAIGN.replace("... on PoolNotActive", "... on NotEligible { reason } ... on PoolNotActive")

    refusal = await shop.refused(document, poolId=pool["id"], name="spring", recipients=[{"email": "a@example.com"}])

    assert (refusal["__typename"], refusal["reason"]) == ("NotEligible", "BUDGET_SPENT")


async def test_a_budget_only_grows_or_goes(shop: Shop) -> None:
    pool = await ten_off(shop, 3_000)
    ((member, code),) = await crowd(shop, pool, 1)
    await redeemed(shop, code, member, "o-1")

    assert (await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(2_000)))["fields"] == [
        "maximumTotalDiscount"
    ]
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(10_000))
    assert await left(shop) == 9_000
    await sound(shop)
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=None)
    assert await left(shop) == 0
    await sound(shop)


async def test_a_draft_has_any_budget(shop: Shop) -> None:
    pool = await ten_off(shop, 3_000, codes=0, active=False)
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(1_234))
    assert await left(shop) == 1_234
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=None)
    assert await left(shop) == 0
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(500_001))
    assert await left(shop) == 500_001


@pytest.mark.parametrize(
    "terms",
    [
        {"kind": "GIFT", "giftSku": "mug", "maximumTotalDiscount": usd(1)},
        {"kind": "AMOUNT", "amountOff": usd(1_000), "maximumTotalDiscount": usd(999)},
        {"kind": "PERCENT", "percentOff": 10.0, "maximumDiscount": usd(500), "maximumTotalDiscount": usd(499)},
        {"kind": "PERCENT", "percentOff": 10.0, "maximumTotalDiscount": usd(0)},
    ],
)
async def test_a_budget_below_one_discount_is_refused(shop: Shop, terms: dict[str, Any]) -> None:
    refusal = await shop.refused(CREATE_POOL, name="x", **terms)

    assert {path.split(".")[0] for path in problems(refusal)} == {"maximumTotalDiscount"}


async def test_the_last_of_a_budget_is_given_exactly(shop: Shop) -> None:
    """Checkouts, carts and reversals at once: what is given is what there is, whole discounts of it."""
    pool = await ten_off(shop, 12_345)
    people = await crowd(shop, pool, 24)

    async def shopping(number: int) -> str:
        member, code = people[number]
        if number % 3 == 0:
            held = await hold_or_not(shop, code, member, f"h-{number}")
            if held is None:
                return "BUDGET_SPENT"
            if number % 2:
                await shop.do(RELEASE, holdId=held["id"])
                return "released"
            return str((await shop.do(CAPTURE, holdId=held["id"]))["__typename"])
        answer = await redeemed(shop, code, member, f"o-{number}")
        if number % 7 == 0 and why(answer) == OK:
            await shop.do(REVERSE, redemptionId=answer["redemptions"][0]["id"], reason="a return", reinstate=False)
            return "reversed"
        return why(answer)

    answers = await asyncio.gather(*(shopping(number) for number in range(24)))

    assert set(answers) <= {OK, "BUDGET_SPENT", "released", "reversed", "CaptureHoldSuccess"}
    given = sum(answer in {OK, "CaptureHoldSuccess"} for answer in answers)
    assert given <= 12
    assert await left(shop) == 12_345 - 1_000 * given
    await sound(shop)


async def hold_or_not(shop: Shop, code: Any, member: Any, order: str) -> Any:
    """Hold a code, or return None when the budget is spent."""
    answer = await shop.do(HOLD, **cart([code], member, order=order))
    if "rejections" not in answer:
        return answer["hold"]
    assert reasons(answer) == ["BUDGET_SPENT"]
    return None


LIFT = "UPDATE pool SET maximum_total_discount = NULL WHERE merchant_id = $1 AND id = $2"


async def test_a_pool_whose_budget_goes_while_something_comes_back_has_none(shop: Shop) -> None:
    pool = await ten_off(shop, 2_000)
    people = await crowd(shop, pool, 4)
    first = (await redeemed(shop, people[0][1], people[0][0], "o-0"))["redemptions"][0]

    # The lifting has every slice; what comes back finds none that is free.
    async with transaction(shop.merchant_id) as tx:
        await tx.row(LIFT, shop.merchant_id, ids.decode("pool", pool["id"]))
        reversed_ = await shop.do(REVERSE, redemptionId=first["id"], reason="a return", reinstate=False)
    assert reversed_["__typename"] == "ReverseRedemptionSuccess"

    answers = [why(await redeemed(shop, code, member, f"o-{n}")) for n, (member, code) in enumerate(people[1:], 1)]
    assert answers == [OK, OK, OK]
    await sound(shop)
