"""Budgets, first orders and audiences at two processes. Without these a pool could give too much, or to anybody."""

import asyncio
from typing import Any

import pytest

from app.segments.refresh import refresh
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.test_audience import claimed
from tests.factories import CLAIM_CODE, EDIT_POOL, REDEEM_CODES, Shop, usd
from tests.orders.documents import CANCEL
from tests.orders.holding import CAPTURE, HOLD, RELEASE, cart
from tests.orders.test_budgets import OK, left, redeemed, ten_off, why
from tests.orders.test_reverse_redemption import REVERSE
from tests.points.documents import REVERSE as REVERSE_PURCHASE
from tests.points.documents import purchase
from tests.races.storm import Processes, at_once, members

CHECKOUTS = 50
DISCOUNTS = 20
BUDGET = 1_000 * DISCOUNTS + 345
HELD = "HoldCheckoutSuccess"
# In one statement, so that it is one moment.
GIVEN = """
SELECT (SELECT coalesce(sum(discount), 0) FROM redemption
     WHERE merchant_id = $1 AND reversed_at IS NULL)::bigint AS stands,
    (SELECT coalesce(sum(k.discount), 0) FROM hold h JOIN hold_code k ON k.merchant_id = $1 AND k.hold_id = h.id
     WHERE h.merchant_id = $1 AND h.status = 'HELD')::bigint AS held,
    (SELECT coalesce(sum(remaining), 0) FROM pool_budget WHERE merchant_id = $1)::bigint AS remaining
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def crowd(shop: Shop, processes: Processes, pool: Any, count: int) -> list[tuple[Any, Any]]:
    """Let so many members claim a code each."""
    people = [{"id": each} for each in await members(shop, count)]
    claims = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]) for member in people)
    return [(member, answer["code"]) for member, answer in zip(people, claims, strict=True)]


def asked(code: Any, member: Any, order: str) -> dict[str, Any]:
    """Present a code for an order that is worth more than it takes off."""
    return {"codes": [code["text"]], "orderId": order, "orderAmount": usd(5_000), "memberId": member["id"]}


async def watched(shop: Shop, over: asyncio.Event) -> int:
    """Look at a budget until all is over: at each moment what stands, is held and is left is all of it."""
    looks = 0
    while not over.is_set():
        (row,) = await database().rows(GIVEN, shop.merchant_id)
        assert row["stands"] + row["held"] <= BUDGET
        assert row["stands"] + row["held"] + row["remaining"] == BUDGET
        looks += 1
    return looks


async def test_of_fifty_checkouts_as_many_redeem_as_the_budget_has_discounts(shop: Shop, processes: Processes) -> None:
    pool = await ten_off(shop, BUDGET, codes=CHECKOUTS)
    people = await crowd(shop, processes, pool, CHECKOUTS)

    answers = await at_once(
        processes.do(REDEEM_CODES, **asked(code, member, f"o-{number}")) for number, (member, code) in enumerate(people)
    )

    told = [why(answer) for answer in answers]
    assert (told.count(OK), told.count("BUDGET_SPENT")) == (DISCOUNTS, CHECKOUTS - DISCOUNTS)
    assert await left(shop) == 345


async def test_the_last_of_a_budget_survives_carts_reversals_and_cancellations(
    shop: Shop, processes: Processes
) -> None:
    """A third redeem, a third hold, and of both a part gives it back; then whoever was refused has what came back."""
    pool = await ten_off(shop, BUDGET, codes=CHECKOUTS)
    people = await crowd(shop, processes, pool, CHECKOUTS)

    async def shopping(number: int) -> str:
        member, code = people[number]
        if number % 3 == 0:
            answer = await processes.do(REDEEM_CODES, **asked(code, member, f"o-{number}"))
            if why(answer) == OK and number % 2:
                redemption = answer["redemptions"][0]["id"]
                await processes.do(REVERSE, redemptionId=redemption, reason="a return", reinstate=True)
                return "given back"
            return why(answer)
        answer = await processes.do(HOLD, **cart([code], member, order=f"o-{number}"))
        if answer["__typename"] != HELD:
            return why(answer)
        if number % 4 == 0:
            await processes.do(RELEASE, holdId=answer["hold"]["id"])
            return "given back"
        captured = await processes.do(CAPTURE, holdId=answer["hold"]["id"])
        if number % 5 == 0:
            await processes.do(CANCEL, orderId=f"o-{number}", reason="called off")
            return "given back"
        return OK if captured["__typename"] == "CaptureHoldSuccess" else why(captured)

    over = asyncio.Event()
    watching = asyncio.create_task(watched(shop, over))
    told = await at_once(shopping(number) for number in range(CHECKOUTS))
    over.set()

    assert await watching > 0
    assert set(told) <= {OK, "BUDGET_SPENT", "given back"}
    assert await left(shop) == BUDGET - 1_000 * told.count(OK)
    again = await at_once(
        processes.do(REDEEM_CODES, **asked(code, member, f"again-{number}"))
        for number, (member, code) in enumerate(people) if told[number] != OK
    )  # fmt: skip
    assert told.count(OK) + [why(answer) for answer in again].count(OK) == DISCOUNTS
    assert await left(shop) == 345


async def test_a_budget_that_rises_while_it_is_spent_has_all_of_it_given(shop: Shop, processes: Processes) -> None:
    pool = await ten_off(shop, 2_000, codes=30)
    people = await crowd(shop, processes, pool, 30)

    await at_once(
        [
            *(processes.do(REDEEM_CODES, **asked(code, member, f"o-{n}")) for n, (member, code) in enumerate(people)),
            *(processes.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(1_000 * n)) for n in range(3, 11)),
        ]
    )
    again = [why(await redeemed(shop, code, member, f"o-{n}")) for n, (member, code) in enumerate(people)]

    assert (again.count(OK), again.count("BUDGET_SPENT")) == (10, 20)
    assert await left(shop) == 0


async def test_of_the_first_orders_of_two_tabs_one_stands_at_a_time(shop: Shop, processes: Processes) -> None:
    """Two tabs redeem and hold at once, on two processes. Who gives back leaves it to the next."""
    pools = [await shop.pool(firstOrderOnly=True, codes=12) for _ in range(4)]
    people = [await shop.member() for _ in range(6)]
    codes = [[await shop.claim(pool, member) for pool in pools] for member in people]

    async def tabs(number: int) -> list[str]:
        member, own = people[number], codes[number]
        carts = [cart([code], member, order=f"h-{number}-{place}") for place, code in enumerate(own[:2])]
        orders = [asked(code, member, f"o-{number}-{place}") for place, code in enumerate(own[2:])]
        answers = await asyncio.gather(
            *(processes.do(HOLD, **each) for each in carts), *(processes.do(REDEEM_CODES, **each) for each in orders)
        )
        for answer in answers:
            if "hold" in answer and number % 2:
                await processes.do(RELEASE, holdId=answer["hold"]["id"])
            if answer["__typename"] == OK and number % 2:
                redemption = answer["redemptions"][0]["id"]
                await processes.do(REVERSE, redemptionId=redemption, reason="a return", reinstate=True)
        return [OK if answer["__typename"] == HELD else why(answer) for answer in answers]

    told = await at_once(tabs(number) for number in range(len(people)))

    assert [sorted(each) for each in told] == [sorted([OK, *["NOT_FIRST_ORDER"] * 3])] * len(people)
    for number, (member, own) in enumerate(zip(people, codes, strict=True)):
        code = next(code for code, answer in zip(own, told[number], strict=True) if answer != OK)
        expected = OK if number % 2 else "NOT_FIRST_ORDER"
        assert why(await redeemed(shop, code, member, f"later-{number}")) == expected


async def test_a_first_order_against_another_order_has_one_answer_that_some_order_explains(
    shop: Shop, processes: Processes
) -> None:
    """A plain order that is answered before a first order is sent is seen by it, whoever else buys."""
    welcome, plain = await shop.pool(firstOrderOnly=True, codes=20), await shop.pool(codes=20)
    people = [await shop.member() for _ in range(10)]
    codes = [(await shop.claim(welcome, member), await shop.claim(plain, member)) for member in people]

    async def shopping(number: int) -> None:
        member, (first, other) = people[number], codes[number]
        if number % 2:
            answers = await asyncio.gather(
                processes.do(REDEEM_CODES, **asked(other, member, f"p-{number}")),
                processes.do(REDEEM_CODES, **asked(first, member, f"f-{number}")),
            )
            assert why(answers[0]) == OK
            assert why(answers[1]) in {OK, "NOT_FIRST_ORDER"}
        else:
            await processes.do(REDEEM_CODES, **asked(other, member, f"p-{number}"))
        late = await processes.do(REDEEM_CODES, **asked(first, member, f"l-{number}"))
        assert why(late) in ({"ALREADY_REDEEMED", "NOT_FIRST_ORDER"} if number % 2 else {"NOT_FIRST_ORDER"})

    await at_once(shopping(number) for number in range(len(people)))


async def test_a_claim_is_for_whom_the_audience_is_when_it_is_sent(shop: Shop, processes: Processes) -> None:
    """Members buy, give back and claim at once, while the audience grows; nobody is told what was over or isn't yet."""
    pool = await shop.pool(audience=["ACTIVE"], codes=40)
    people = [await shop.member() for _ in range(12)]
    grown = asyncio.Event()

    async def life(number: int) -> None:
        member = people[number]
        is_grown = grown.is_set()
        before = await claimed(shop, pool, memberId=member["id"])
        assert before == "AUDIENCE" or before.startswith("code_")
        assert not (is_grown and before == "AUDIENCE")
        if number % 3 == 0:
            await purchase(shop, member, f"b-{number}")
            assert (await claimed(shop, pool, memberId=member["id"])).startswith("code_")
        elif number % 3 == 1:
            bought = await purchase(shop, member, f"b-{number}")
            await processes.do(REVERSE_PURCHASE, purchaseId=bought["purchase"]["id"], reason="a return")
            after = await claimed(shop, pool, memberId=member["id"])
            assert after == before or grown.is_set()

    async def grow() -> None:
        await processes.do(EDIT_POOL, poolId=pool["id"], audience=["ACTIVE", "NEW"])
        grown.set()

    await at_once([*(life(number) for number in range(6)), grow(), *(life(number) for number in range(6, 12))])

    assert all([(await claimed(shop, pool, memberId=member["id"])).startswith("code_") for member in people])


async def test_claims_under_a_refresh_see_the_segment_before_or_after_it(shop: Shop, processes: Processes) -> None:
    """Who spends the most changes under the claims. Who never was of them gets nothing."""
    people = [await shop.member() for _ in range(10)]
    for number, member in enumerate(people):
        await purchase(shop, member, f"b-{number}", 1_000 + number)
    await refresh(shop.merchant_id)
    pool = await shop.pool(audience=["HIGH_SPEND"], codes=40)
    # Two of ten are where the last tenth begins, or above it.
    before, stays, after = people[8], people[9], people[0]
    await purchase(shop, after, "more", 90_000)

    told = await at_once(
        [
            *(claimed(shop, pool, memberId=member["id"]) for member in people),
            refresh(shop.merchant_id), refresh(shop.merchant_id),
            *(claimed(shop, pool, memberId=member["id"]) for member in people),
        ]
    )  # fmt: skip

    answers = dict(zip([member["id"] for member in people], zip(told[:10], told[12:], strict=True), strict=True))
    for member in people:
        of_it = member in (before, stays, after)
        if member == stays:
            assert "AUDIENCE" not in answers[member["id"]]
        assert all(each == "AUDIENCE" or (of_it and each.startswith("code_")) for each in answers[member["id"]])
    assert (await claimed(shop, pool, memberId=after["id"])).startswith("code_")
    had = any(each.startswith("code_") for each in answers[before["id"]])
    assert (await claimed(shop, pool, memberId=before["id"])).startswith("code_" if had else "AUDIENCE")
