"""checkCodes. Without these a basket could show a discount that the checkout then refuses, or a check could spend."""

from typing import Any

import pytest

from tests.factories import CHECK_CODES, REDEEM_CODES, Shop, problems, usd
from tests.orders.presented import IMPOSSIBLE, MALFORMED, NEVER_ISSUED, REFUSED, order


async def figures(shop: Shop, document: str, **input: Any) -> Any:
    """Return an answer without what can't be known before: ids, instants and the wallet's next version."""
    answer = await shop.do(document, **input)
    for each in answer.get("redemptions", []):
        for unknown in ("id", "redeemedAt"):
            del each[unknown]
        del each["code"]["redeemedAt"]
        del each["code"]["owner"]["wallet"]
    return answer


async def test_a_check_answers_what_redeeming_then_answers_and_writes_nothing(shop: Shop) -> None:
    member = await shop.member()
    pools = [
        await shop.pool(stacking="STACKABLE", percentOff=33.3333, maximumDiscount=usd(3_000)),
        await shop.pool(stacking="STACKABLE", kind="AMOUNT", amountOff=usd(1_234)),
        await shop.pool(stacking="STACKABLE", kind="GIFT", giftSku="MUG-1"),
    ]
    codes = [await shop.claim(pool, member) for pool in pools]
    presented = order([code["text"] for code in codes], member)
    before = await shop.state()

    checked = await figures(shop, CHECK_CODES, **presented)

    assert await shop.state() == before
    assert [(each["position"], each["base"]["amountMinor"], each["discount"]["amountMinor"])
            for each in checked["redemptions"]] == [(1, 10_000, 3_000), (2, 7_000, 1_234), (3, 5_766, 0)]  # fmt: skip
    assert checked["totalDiscount"] == usd(4_234)
    assert checked["replayed"] is False
    assert await figures(shop, REDEEM_CODES, **presented) == checked


async def test_a_check_leaves_the_code_as_it_is(shop: Shop) -> None:
    code = await shop.claim(pool := await shop.pool(), member := await shop.member())

    for _ in range(3):
        await shop.do(CHECK_CODES, **order([code["text"]], member))

    found = await shop.data("query ($id: ID!) { node(id: $id) { ... on Code { state redeemedAt } } }",
                            {"id": code["id"]})  # fmt: skip
    assert found["node"] == {"state": "ALLOCATED", "redeemedAt": None}
    assert (await shop.stock(pool))["allocated"] == 1
    assert await shop.wallet_versions(member) == [1]


async def test_the_redemptions_of_a_check_name_nothing(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())

    checked = await shop.do(CHECK_CODES, **order([code["text"]], member))

    found = await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": checked["redemptions"][0]["id"]})
    assert found == {"node": None}


async def test_a_check_of_what_was_redeemed_on_the_order_is_the_replay(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    presented = order([code["text"]], member)
    redeemed = await shop.do(REDEEM_CODES, **presented)

    assert await shop.do(CHECK_CODES, **presented) == redeemed | {"replayed": True}


@pytest.mark.parametrize(("input", "expected"), IMPOSSIBLE)
async def test_an_order_without_sense_is_refused_with_every_problem(
    shop: Shop, input: dict[str, Any], expected: dict[str, str]
) -> None:
    member = await shop.member()

    refusal = await shop.refused(CHECK_CODES, **(order([NEVER_ISSUED], member) | input))

    assert problems(refusal) == expected


@pytest.mark.parametrize("input", MALFORMED, ids=str)
async def test_a_value_of_the_wrong_type_is_bad_user_input(shop: Shop, input: dict[str, Any]) -> None:
    member = await shop.member()

    assert await shop.failed(CHECK_CODES, **(order([NEVER_ISSUED], member) | input)) == "BAD_USER_INPUT"


@pytest.mark.parametrize("name", REFUSED)
async def test_a_check_refuses_as_redeeming_does(shop: Shop, name: str) -> None:
    scenario = await REFUSED[name](shop)

    checked = await shop.refused(CHECK_CODES, **scenario.input)
    redeemed = await shop.refused(REDEEM_CODES, **scenario.input)

    assert checked == redeemed
    assert checked["rejections"] == scenario.rejections


@pytest.mark.parametrize("role", ["ANALYST", "MEMBER"])
async def test_only_an_admin_or_a_checkout_checks(shop: Shop, role: str) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    key = await shop.token(member["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(CHECK_CODES, key=key, **order([code["text"]], member)) == "FORBIDDEN"
