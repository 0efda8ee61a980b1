"""amendOrder. Without these a changed cart could keep a discount it has no right to, or lose a code for nothing."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.storage.database import database
from tests.factories import CHANGE_STATUS, REDEEM_CODES, Shop, problems, usd
from tests.orders.documents import AMEND, CANCEL, amendment, cancellation, order_of, shares, stacked, unguarded
from tests.orders.presented import NEVER_ISSUED, end_pool, expire
from tests.orders.test_reverse_redemption import REVERSE
from tests.points.documents import RECORD, REFUND, grant, purchase
from tests.points.documents import REVERSE as REVERSE_PURCHASE

EVENTS = "query { events(first: 3) { edges { node { type subjectId reason } } } }"


async def states(shop: Shop, *codes: Any) -> list[str]:
    """Return the states of codes."""
    found = [await shop.data("query ($id: ID!) { node(id: $id) { ... on Code { state } } }", {"id": code["id"]})
             for code in codes]  # fmt: skip
    return [each["node"]["state"] for each in found]


# ---------------------------------------------------------------------------------------------------- what it does


async def test_a_code_that_goes_is_live_again_and_the_others_are_priced_anew(shop: Shop) -> None:
    member = await shop.member()
    codes, redemptions = await stacked(shop, member, 50.0, 20.0, 10.0)
    before = await shop.state()

    answer = await shop.do(AMEND, **amendment([codes[2], codes[1]]))

    assert shares(answer) == [(1, 10_000, 1_000), (2, 9_000, 1_800)]
    assert answer["totalDiscount"] == usd(2_800)
    assert (answer["replayed"], answer["purchase"], answer["shortfall"]) == (False, None, 0)
    assert [each["id"] for each in answer["redemptions"]] == [redemptions[2]["id"], redemptions[1]["id"]]
    assert [each["redeemedAt"] for each in answer["redemptions"]] == [redemptions[2]["redeemedAt"]] * 2
    assert await states(shop, *codes) == ["ALLOCATED", "REDEEMED", "REDEEMED"]
    assert (await shop.state()).since(before) == {
        "sales_order": 0, "order_amendment": 1, "redemption": 0, "reversal": 1, "code": 0, "stock_change": 1,
        "wallet": 0, "event": 2,
    }  # fmt: skip
    # Nobody sees a change of those that stay.
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5, 6, 7]
    order = await order_of(shop, "A-1")
    told = [edge["node"] for edge in (await shop.data(EVENTS))["events"]["edges"][:2]]
    assert told == [
        {"type": "order.amended", "subjectId": order["id"], "reason": "a changed cart"},
        {"type": "redemption.reversed", "subjectId": redemptions[0]["id"], "reason": "a changed cart"},
    ]
    assert await shop.broken_promises() == []


async def test_a_code_that_comes_is_spent_in_its_place(shop: Shop) -> None:
    member = await shop.member()
    codes, redemptions = await stacked(shop, member, 20.0)
    more = await shop.claim(await shop.pool(stacking="STACKABLE"), member)

    answer = await shop.do(AMEND, **amendment([more, *codes], member, 20_000))

    assert shares(answer) == [(1, 20_000, 2_000), (2, 18_000, 3_600)]
    assert [each["orderAmount"]["amountMinor"] for each in answer["redemptions"]] == [20_000, 20_000]
    assert answer["redemptions"][1]["id"] == redemptions[0]["id"]
    assert answer["redemptions"][0]["code"]["owner"]["wallet"] == {"version": 4}
    assert await states(shop, more) == ["REDEEMED"]
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert await shop.broken_promises() == []


async def test_all_codes_may_be_replaced_or_go(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)
    other = await shop.claim(await shop.pool(), member)

    swapped = await shop.do(AMEND, **amendment([other], member))
    without = await shop.do(AMEND, **amendment([], amount=0))
    again = await shop.do(AMEND, **amendment(codes, member, 5_000))

    assert shares(swapped) == [(1, 10_000, 1_000)]
    assert (shares(without), without["totalDiscount"]) == ([], usd(0))
    assert shares(again) == [(1, 5_000, 1_000), (2, 4_000, 400)]
    assert await states(shop, *codes, other) == ["REDEEMED", "REDEEMED", "ALLOCATED"]
    assert await shop.broken_promises() == []


async def test_an_amended_order_is_replayed_as_it_is_and_not_as_it_was(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)
    texts = [code["text"] for code in codes]
    await shop.do(AMEND, **amendment(codes[::-1], amount=20_000))

    now = await shop.redeem(texts, member, order="A-1", amount=20_000)
    before = await shop.redeem(texts, member, order="A-1", amount=10_000)

    assert (now["replayed"], shares(now)) == (True, [(1, 20_000, 2_000), (2, 18_000, 3_600)])
    assert [each["reason"] for each in before["rejections"]] == ["ALREADY_REDEEMED"] * 2


async def test_codes_that_stay_are_judged_by_the_terms_and_the_time_of_their_redemption(shop: Shop) -> None:
    member = await shop.member()
    pools = [await shop.pool(stacking="STACKABLE", codeLifetimeDays=1, endsAt="2999-01-01T00:00:00Z") for _ in range(4)]
    codes = [await shop.claim(pool, member) for pool in pools]
    await shop.redeem([code["text"] for code in codes], member, order="A-1")
    await expire(shop, codes[0])
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pools[1]["id"])
    await end_pool(shop, pools[2])
    other = "UPDATE pool SET percent_off = 90, minimum_spend = 1000000, stacking = 'EXCLUSIVE'"
    await unguarded(shop, f"{other} WHERE merchant_id = $1 AND id = $2", ids.decode("pool", pools[3]["id"]))

    answer = await shop.do(AMEND, **amendment(codes, amount=5_000))

    assert shares(answer) == [(1, 5_000, 500), (2, 4_500, 450), (3, 4_050, 405), (4, 3_645, 365)]


async def test_codes_that_stay_need_no_presenter(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)

    answer = await shop.do(AMEND, **amendment(codes[:1], await shop.member()), key=await shop.key("SUPPORT"))

    assert shares(answer) == [(1, 10_000, 2_000)]
    assert answer["redemptions"][0]["code"]["text"] is None


@pytest.mark.parametrize("end", ["lifetime", "pool", "archived"])
async def test_a_code_that_goes_past_its_end_is_expired(shop: Shop, end: str) -> None:
    member = await shop.member()
    pool = await shop.pool(codes=1, codeLifetimeDays=1, endsAt="2999-01-01T00:00:00Z", recycleExpired=True)
    code = await shop.claim(pool, member)
    await shop.redeem([code["text"]], member, order="A-1")
    if end == "lifetime":
        await expire(shop, code)
    elif end == "pool":
        await end_pool(shop, pool)
    else:
        await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    answer = await shop.do(AMEND, **amendment([]))

    assert shares(answer) == []
    assert await states(shop, code) == ["EXPIRED"]
    fresh = 1 if end == "lifetime" else 0
    assert await shop.stock(pool) == {
        "total": 1 + fresh, "available": fresh, "allocated": 0, "redeemed": 0, "expired": 1, "revoked": 0
    }  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    types = [kind for kind in await shop.event_types() if kind.startswith(("code.", "redemption.", "order."))]
    assert types == ["code.claimed", "code.redeemed", "redemption.reversed", "code.expired", "order.amended"]
    # The pool's end was moved behind the back of its terms.
    assert end == "pool" or await shop.broken_promises() == []


async def test_each_owner_sees_its_own_changes(shop: Shop) -> None:
    owners = [await shop.member() for _ in range(3)]
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE", transferable=True), owner) for owner in owners]
    await shop.redeem([code["text"] for code in codes[:2]], owners[0], order="A-1")

    answer = await shop.do(AMEND, **amendment(codes[1:]))

    assert shares(answer) == [(1, 10_000, 1_000), (2, 9_000, 900)]
    assert [await shop.wallet_versions(owner) for owner in owners] == [[1, 2, 3], [1, 2], [1, 2]]


async def test_orders_of_two_channels_are_amended_apart(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    web = await shop.claim(await shop.pool(), member)
    await shop.do(REDEEM_CODES, codes=[web["text"]], orderId="A-1", source="SHOPIFY", orderAmount=usd(1_000),
                  memberId=member["id"])  # fmt: skip

    answer = await shop.do(AMEND, **amendment([], source="SHOPIFY"))

    assert shares(answer) == []
    assert await states(shop, *codes, web) == ["REDEEMED", "ALLOCATED"]


async def test_the_presenter_may_be_named_by_a_key_or_an_address(shop: Shop) -> None:
    member = await shop.member(externalId="1001", email="jane@example.com", emailVerified=True)
    await stacked(shop, member, 20.0)
    codes = [await shop.claim(await shop.pool(), member) for _ in range(3)]

    jane = "jane@example.com"
    named: list[dict[str, Any]] = [{"member": {"externalId": "1001"}}, {"member": {"email": jane}}, {"email": jane}]
    answers = [
        await shop.do(AMEND, **amendment([code]), **presenter) for code, presenter in zip(codes, named, strict=True)
    ]

    assert [shares(answer) for answer in answers] == [[(1, 10_000, 1_000)]] * 3


# ---------------------------------------------------------------------------------------------------------- replays


async def test_the_same_key_is_the_same_amendment_and_shows_the_order_as_it_stands(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)
    first = await shop.do(AMEND, **(asked := amendment(codes[:1])))
    before = await shop.state()

    again = await shop.do(AMEND, **asked | {"reason": "told again"})

    assert again == first | {"replayed": True}
    assert await shop.state() == before
    await shop.do(AMEND, **amendment(codes, member, 20_000))
    later = await shop.do(AMEND, **asked)
    assert (later["replayed"], shares(later)) == (True, [(1, 20_000, 4_000), (2, 16_000, 1_600)])
    await shop.do(CANCEL, **cancellation())
    off = await shop.do(AMEND, **asked)
    assert (off["replayed"], off["redemptions"]) == (True, [])


@pytest.mark.parametrize(
    "change",
    [{"orderAmount": usd(9_999)}, {"codes": []}, {"source": "SHOPIFY"}, {"orderId": "A-2"}, {"email": "x@example.com"}],
    ids=str,
)
async def test_another_request_under_the_key_is_refused(shop: Shop, change: dict[str, Any]) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)
    await shop.do(AMEND, **(asked := amendment(codes[:1])))

    refusal = await shop.refused(AMEND, **asked | change)

    assert refusal["__typename"] == "IdempotencyKeyReused"


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"codes": [NEVER_ISSUED] * 21}, {"codes": "must be 0 to 20 codes"}),
        ({"codes": [NEVER_ISSUED, "pct ooo oooo-oooooo"]}, {"codes.1": "is listed twice"}),
        ({"orderId": " "}, {"orderId": "must not be blank"}),
        ({"orderId": "x" * 101}, {"orderId": "must be at most 100 characters"}),
        ({"orderAmount": usd(-1)}, {"orderAmount.amountMinor": "must be between 0 and 1000000000000000"}),
        (
            {"orderAmount": {"amountMinor": 1, "currency": "EUR"}},
            {"orderAmount.currency": "must be USD, the merchant's currency"},
        ),
        ({"reason": " "}, {"reason": "must not be blank"}),
        ({"reason": "x" * 501}, {"reason": "must be at most 500 characters"}),
        ({"idempotencyKey": ""}, {"idempotencyKey": "must not be blank"}),
        ({"idempotencyKey": " k"}, {"idempotencyKey": "must not begin or end with white space"}),
        ({"memberId": "7"}, {"memberId": "must be the id of a member"}),
        ({"email": "nobody"}, {"email": "must be an e-mail address"}),
        (
            {"reason": "", "idempotencyKey": "", "orderId": "", "orderAmount": usd(-1)},
            {
                "reason": "must not be blank",
                "idempotencyKey": "must not be blank",
                "orderId": "must not be blank",
                "orderAmount.amountMinor": "must be between 0 and 1000000000000000",
            },
        ),
    ],
    ids=str,
)
async def test_an_amendment_without_sense_is_refused_with_every_problem(
    shop: Shop, change: dict[str, Any], expected: dict[str, str]
) -> None:
    refusal = await shop.refused(AMEND, **amendment([]) | change)

    assert problems(refusal) == expected
    assert len(refusal["problems"]) == len(expected)


async def test_an_order_that_was_never_redeemed_is_not_found(shop: Shop, other_shop: Shop) -> None:
    await stacked(other_shop, await other_shop.member(), 20.0)
    await purchase(shop, await shop.member(), "A-1", 10_000)

    changes: list[dict[str, Any]] = [{}, {"orderId": "A-2"}, {"source": "SHOPIFY"}]
    for change in changes:
        refusal = await shop.refused(AMEND, **amendment([], **change))
        assert refusal == {
            "__typename": "NotFound", "message": "There is no such order.", "id": change.get("orderId", "A-1")
        }  # fmt: skip


async def test_an_order_that_was_called_off_is_not_amended_or_redeemed(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    cancelled = (await shop.do(CANCEL, **cancellation()))["order"]

    for codes_asked in ([], codes):
        refusal = await shop.refused(AMEND, **amendment(codes_asked, member))
        assert refusal["__typename"] == "OrderNotOpen"
        assert refusal["order"] == {
            "id": cancelled["id"], "source": "STORE", "orderId": "A-1", "cancelledAt": cancelled["cancelledAt"],
            "redemptions": [],
        }  # fmt: skip


async def test_codes_that_can_not_be_had_are_refused_together(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    foreign = await shop.claim(await shop.pool(stacking="STACKABLE"), await shop.member())
    elsewhere = await shop.claim(await shop.pool(stacking="STACKABLE"), member)
    await shop.redeem([elsewhere["text"]], member, order="A-2")
    alone = await shop.claim(await shop.pool(), member)
    dear = await shop.claim(await shop.pool(stacking="STACKABLE", minimumSpend=usd(20_000)), member)

    refusal = await shop.refused(AMEND, **amendment([*codes, foreign, elsewhere, alone, dear], member))

    assert {each["masked"]: each["reason"] for each in refusal["rejections"]} == {
        foreign["masked"]: "NOT_OWNER",
        elsewhere["masked"]: "ALREADY_REDEEMED",
        alone["masked"]: "NOT_STACKABLE",
        dear["masked"]: "BELOW_MINIMUM_SPEND",
    }


async def test_a_new_amount_counts_for_codes_that_stay(shop: Shop) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(minimumSpend=usd(5_000)), member)
    await shop.redeem([code["text"]], member, order="A-1")

    below = await shop.refused(AMEND, **amendment([code], amount=4_999))
    nothing = await shop.refused(AMEND, **amendment([code], amount=0))
    enough = await shop.do(AMEND, **amendment([code], amount=5_000))

    assert [each["reason"] for each in below["rejections"]] == ["BELOW_MINIMUM_SPEND"]
    assert [each["reason"] for each in nothing["rejections"]] == ["BELOW_MINIMUM_SPEND"]
    assert shares(enough) == [(1, 5_000, 500)]


async def test_a_code_that_would_take_nothing_off_any_more_is_refused(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 100.0)
    more = await shop.claim(await shop.pool(stacking="STACKABLE"), member)

    small = await shop.refused(AMEND, **amendment(codes, amount=0))
    late = await shop.refused(AMEND, **amendment([*codes, more], member))

    assert [each["reason"] for each in small["rejections"]] == ["NO_DISCOUNT"]
    assert late["rejections"] == [{"masked": more["masked"], "reason": "NO_DISCOUNT"}]


async def test_an_exclusive_code_that_stays_goes_alone(shop: Shop) -> None:
    member = await shop.member()
    alone = await shop.claim(await shop.pool(), member)
    await shop.redeem([alone["text"]], member, order="A-1")
    more = await shop.claim(await shop.pool(stacking="STACKABLE"), member)

    refusal = await shop.refused(AMEND, **amendment([alone, more], member))

    assert refusal["rejections"] == [{"masked": alone["masked"], "reason": "NOT_STACKABLE"}]


@pytest.mark.parametrize("role", ["ANALYST", "MEMBER"])
async def test_only_who_stands_at_a_counter_amends(shop: Shop, role: str) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    key = await shop.token(member["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(AMEND, key=key, **amendment(codes)) == "FORBIDDEN"


async def test_an_amendment_is_written_down_with_what_it_changed(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0, 10.0)

    await shop.do(AMEND, **amendment(codes[:1], amount=5_000))

    (row,) = await database().rows("SELECT * FROM order_amendment WHERE merchant_id = $1", shop.merchant_id)
    totals = ("amount_before", "discount_before", "amount_after", "discount_after", "shortfall")
    assert [row[each] for each in totals] == [10_000, 2_800, 5_000, 1_000, 0]


# ------------------------------------------------------------------------------------------ a recorded purchase


async def earned(shop: Shop, member: Any) -> tuple[int, int]:
    """Return the points in a wallet and what returns lack there."""
    wallet = (await shop.data("query ($id: ID!) { member(id: $id) { wallet { points shortfall } } }",
                              {"id": member["id"]}))["member"]["wallet"]  # fmt: skip
    return wallet["points"], wallet["shortfall"]


async def test_a_purchase_follows_both_ways(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 50.0, 20.0)
    await purchase(shop, member, "A-1", 4_000)

    more = await shop.do(AMEND, **amendment(codes[1:], amount=20_000))
    less = await shop.do(AMEND, **amendment(codes, member, 5_000))
    same = await shop.do(AMEND, **amendment(codes[::-1], amount=5_000))

    # 100.00 less 60.00 is 40.00; 200.00 less 40.00 is 120.00 more; then 50.00 less 30.00.
    assert [each["purchase"]["amount"]["amountMinor"] for each in (more, less, same)] == [16_000, 2_000, 2_000]
    assert [each["purchase"]["points"] for each in (more, less, same)] == [160, 20, 20]
    assert [each["purchase"]["member"]["wallet"]["points"] for each in (more, less, same)] == [160, 20, 20]
    assert await earned(shop, member) == (20, 0)
    versions = await shop.wallet_versions(member)
    assert versions == list(range(1, len(versions) + 1))
    assert same["purchase"]["member"]["wallet"]["version"] == versions[-1]
    assert await shop.broken_promises() == []


async def test_what_was_spent_of_the_purchase_is_the_shortfall(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 50.0)
    await purchase(shop, member, "A-1", 5_000)
    await grant(shop, member, -45, "spent")

    asked = amendment(codes, amount=2_000)
    less = await shop.do(AMEND, **asked)
    again = await shop.do(AMEND, **asked)
    more = await shop.do(AMEND, **amendment(codes, amount=10_000))

    assert (less["shortfall"], again["shortfall"], again["replayed"]) == (35, 35, True)
    # More of the purchase stands: it fills what its own return lacks first.
    assert (more["shortfall"], more["purchase"]["points"]) == (0, 50)
    assert await earned(shop, member) == (5, 0)
    assert await shop.broken_promises() == []


async def test_a_purchase_told_again_is_known_by_what_was_told_first(shop: Shop) -> None:
    member = await shop.member()
    await stacked(shop, member, 50.0)
    first = await purchase(shop, member, "A-1", 5_000)
    await shop.do(AMEND, **amendment([]))

    again = await purchase(shop, member, "A-1", 5_000)
    reused = await shop.refused(
        RECORD, memberId=member["id"], source="STORE", orderId="A-1", amount=usd(10_000)
    )  # fmt: skip

    assert (again["replayed"], again["purchase"]["id"]) == (True, first["purchase"]["id"])
    assert again["purchase"]["amount"] == usd(10_000)
    assert reused["__typename"] == "IdempotencyKeyReused"


async def test_an_amount_below_what_was_refunded_is_refused(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 50.0)
    await purchase(shop, member, "A-1", 5_000)
    refunded: dict[str, Any] = {
        "source": "STORE",
        "orderId": "A-1",
        "refundId": "r-1",
        "amount": usd(3_000),
        "reason": "returned",
    }
    await shop.do(REFUND, **refunded)

    below = await shop.refused(AMEND, **amendment(codes, amount=5_999))
    least = await shop.do(AMEND, **amendment(codes, amount=6_000))

    assert problems(below) == {"orderAmount.amountMinor": "would leave less of the purchase than was refunded"}
    assert least["purchase"]["amount"] == {"amountMinor": 3_000}
    assert await earned(shop, member) == (0, 0)
    assert await shop.broken_promises() == []


async def test_a_purchase_that_was_taken_back_whole_stays_as_it_is(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 50.0)
    await purchase(shop, member, "A-1", 5_000)
    await shop.do(REVERSE_PURCHASE, source="STORE", orderId="A-1", reason="returned")

    answer = await shop.do(AMEND, **amendment(codes, amount=1_000))

    assert shares(answer) == [(1, 1_000, 500)]
    assert answer["purchase"]["amount"] == {"amountMinor": 5_000}
    assert await earned(shop, member) == (0, 0)
    assert await shop.broken_promises() == []


async def test_a_purchase_can_not_follow_beyond_what_a_balance_holds(shop: Shop) -> None:
    member = await shop.member()
    await stacked(shop, member, 50.0)
    await purchase(shop, member, "A-1", 5_000)

    refusal = await shop.refused(AMEND, **amendment([], amount=10**15))

    assert list(problems(refusal)) == ["orderAmount.amountMinor"]


async def test_a_code_whose_discount_a_full_balance_can_not_hold_is_not_taken_back(shop: Shop) -> None:
    member = await shop.member()
    _, (redemption,) = await stacked(shop, member, 20.0)
    await purchase(shop, member, "A-1", 8_000)
    await grant(shop, member, 2**31 - 1 - 80, "full")

    refusal = await shop.refused(REVERSE, redemptionId=redemption["id"], reason="returned")

    assert problems(refusal) == {"redemptionId": "would take the member's balance over 2147483647"}


async def test_the_reversal_of_a_code_lets_the_purchase_follow(shop: Shop) -> None:
    member = await shop.member()
    _, redemptions = await stacked(shop, member, 50.0, 20.0)
    await purchase(shop, member, "A-1", 4_000)

    for redemption, amount in zip(redemptions, (8_000, 10_000), strict=True):
        answer = await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned")
        assert answer["code"]["state"] == "ALLOCATED"
        assert (await order_of(shop, "A-1"))["purchase"]["amount"]["amountMinor"] == amount
        assert await earned(shop, member) == (amount // 100, 0)
    assert await shop.broken_promises() == []


async def test_codes_that_are_redeemed_again_let_the_purchase_follow(shop: Shop) -> None:
    """Taken back by mistake and redeemed again, as often as that happens, an order is worth what it was."""
    member = await shop.member()
    codes, (redemption,) = await stacked(shop, member, 20.0)
    await purchase(shop, member, "A-1", 8_000)

    for _ in range(2):
        await shop.do(REVERSE, redemptionId=redemption["id"], reason="the wrong order")
        again = await shop.redeem([codes[0]["text"]], member, order="A-1")
        (redemption,) = again["redemptions"]
        assert (await order_of(shop, "A-1"))["purchase"]["amount"]["amountMinor"] == 8_000
        assert await earned(shop, member) == (80, 0)
        assert (await shop.redeem([codes[0]["text"]], member, order="A-1"))["replayed"] is True
    await shop.do(AMEND, **amendment([], member))
    await shop.redeem([codes[0]["text"]], member, order="A-1", amount=5_000)

    assert (await order_of(shop, "A-1"))["purchase"]["amount"]["amountMinor"] == 4_000
    assert await earned(shop, member) == (40, 0)
    assert await shop.broken_promises() == []


async def test_codes_that_would_leave_less_than_was_refunded_are_not_redeemed_again(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    await purchase(shop, member, "A-1", 8_000)
    await shop.do(AMEND, **amendment([], member))
    await shop.do(REFUND, source="STORE", orderId="A-1", refundId="r-1", amount=usd(9_000), reason="returned")

    refused = await shop.refused(
        REDEEM_CODES, codes=[codes[0]["text"]], orderId="A-1", orderAmount=usd(10_000), memberId=member["id"]
    )

    assert problems(refused) == {"orderAmount.amountMinor": "would leave less of the purchase than was refunded"}


async def test_of_many_that_redeem_again_at_once_one_changes_the_purchase(shop: Shop) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    await purchase(shop, member, "A-1", 8_000)
    await shop.do(AMEND, **amendment([], member))

    answers = await asyncio.gather(
        *(shop.redeem([codes[0]["text"]], member, order="A-1", amount=10_000) for _ in range(10))
    )

    assert sorted(each["replayed"] for each in answers) == [False] + [True] * 9
    assert await earned(shop, member) == (80, 0)
    assert await shop.broken_promises() == []
