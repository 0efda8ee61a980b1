"""redeemCodes. Without these a code could be spent twice, by a stranger, in part of an order, or for a wrong sum."""

import hashlib
from typing import Any

import pytest

from app import ids
from app.orders.presented_codes import READ
from app.storage.database import database
from tests.factories import CHANGE_STATUS, CLAIM_CODE, EDIT_MEMBER, REDEEM_CODES, Shop, problems, usd
from tests.orders.presented import IMPOSSIBLE, MALFORMED, NEVER_ISSUED, REFUSED, expire, order
from tests.scratch import buffers_planned_on_nothing

#: Codes, each with a fingerprint of its own.
CODES = """
WITH p AS (
    INSERT INTO pool (merchant_id, id, name, status, kind, gift_sku, claims_per_member, stacking, transferable,
                      created_at)
    VALUES ($1, gen_random_uuid(), 'x', 'DRAFT', 'GIFT', 'x', 1, 'EXCLUSIVE', false, now()) RETURNING id
), b AS (
    INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
    SELECT $1, gen_random_uuid(), id, 2000, now() FROM p RETURNING id, pool_id
)
INSERT INTO code (merchant_id, id, pool_id, batch_id, state, ciphertext, fingerprint, suffix)
SELECT $1, gen_random_uuid(), pool_id, b.id, 'AVAILABLE', '\\x00', sha256(each::text::bytea), 'AA'
FROM b, generate_series(1, 2000) AS each
"""


def shares(answer: Any) -> list[tuple[int, int, int]]:
    """Return position, base and discount of each redemption."""
    assert answer["__typename"] == "RedeemCodesSuccess", answer
    return [
        (each["position"], each["base"]["amountMinor"], each["discount"]["amountMinor"])
        for each in answer["redemptions"]
    ]


async def redeemed(shop: Shop, amount: int, **terms: Any) -> int | None:
    """Redeem one code of a pool with these terms on an order, and return what it took off; None if it can't."""
    code = await shop.claim(await shop.pool(codes=1, **terms), member := await shop.member())
    answer = await shop.redeem([code["text"]], member, amount=amount)
    if answer["__typename"] == "CodesRejected":
        assert answer["rejections"] == [{"masked": code["masked"], "reason": "NO_DISCOUNT"}]
        return None
    ((_, base, discount),) = shares(answer)
    assert base == amount
    assert answer["totalDiscount"] == usd(discount)
    return discount


# ---------------------------------------------------------------------------------------------------- successes


async def test_a_redemption_spends_the_code_and_tells_what_it_took_off(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    member = await shop.member()
    code = await shop.claim(pool, member)
    before = await shop.state()

    answer = await shop.do(REDEEM_CODES, **order([code["text"]], member, orderId="A-1", orderAmount=usd(19_999)))

    assert answer["__typename"] == "RedeemCodesSuccess"
    assert answer["replayed"] is False
    assert answer["totalDiscount"] == usd(2_000)
    (redemption,) = answer["redemptions"]
    assert redemption.pop("id").startswith("redemption_")
    redeemed_at = redemption.pop("redeemedAt")
    assert redemption == {
        "source": "STORE",
        "orderId": "A-1",
        "position": 1,
        "orderAmount": usd(19_999),
        "base": {"amountMinor": 19_999},
        "discount": {"amountMinor": 2_000},
        "reversedAt": None,
        "code": code
        | {
            "state": "REDEEMED",
            "text": None,
            "redeemedAt": redeemed_at,
            "owner": {"id": member["id"], "wallet": {"version": 2}},
        },
    }
    assert await shop.stock(pool) == {
        "total": 2, "available": 1, "allocated": 0, "redeemed": 1, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert (await shop.state()).since(before) == {
        "sales_order": 1, "redemption": 1, "code": 0, "wallet": 0, "stock_change": 1, "event": 1
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "code.redeemed"
    assert await shop.wallet_versions(member) == [1, 2]


async def test_what_was_answered_is_what_can_be_read(shop: Shop) -> None:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]
    answer = await shop.redeem([code["text"] for code in codes], member)
    fields = REDEEM_CODES.partition("redemptions {")[2].partition("redeemedAt reversedAt")[0]
    selection = f"{fields} redeemedAt reversedAt"

    read = await shop.data(f"{{ redemptions {{ edges {{ node {{ {selection} }} }} }} }}")

    by_position = sorted((edge["node"] for edge in read["redemptions"]["edges"]), key=lambda each: each["position"])
    answered = [{field: value for field, value in each.items() if field != "code"} for each in answer["redemptions"]]
    assert by_position == answered


@pytest.mark.parametrize(
    "typed",
    [
        lambda text: text.lower(),
        lambda text: f"  {text}  ",
        lambda text: text.replace("-", ""),
        " - ".join,
        lambda text: text[:4] + text[4:].replace("0", "O").replace("1", "l"),
        lambda text: text[:4] + text[4:].replace("0", "o").replace("1", "I"),
    ],
)
async def test_a_code_is_known_however_it_is_typed(shop: Shop, typed: Any) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())

    answer = await shop.redeem([typed(code["text"])], member)

    assert [each["code"]["id"] for each in answer["redemptions"]] == [code["id"]]


async def test_a_transferable_code_is_honoured_for_whoever_holds_it(shop: Shop) -> None:
    pool = await shop.pool(transferable=True)
    owner = await shop.member()
    first, second = await shop.claim(pool, owner), await shop.claim(await shop.pool(transferable=True), owner)

    unnamed = await shop.do(REDEEM_CODES, **order([first["text"]], owner, memberId=None))
    friend = await shop.redeem([second["text"]], await shop.member())

    assert unnamed["__typename"] == friend["__typename"] == "RedeemCodesSuccess"
    assert await shop.wallet_versions(owner) == [1, 2, 3, 4]


async def test_the_wallet_of_each_owner_grows_by_one_for_each_code(shop: Shop) -> None:
    first, second = await shop.member(), await shop.member()
    codes = [
        await shop.claim(await shop.pool(stacking="STACKABLE", transferable=True), owner)
        for owner in (first, second, first, first)
    ]

    answer = await shop.redeem([code["text"] for code in codes], first)

    versions = [each["code"]["owner"]["wallet"]["version"] for each in answer["redemptions"]]
    assert versions == [6, 2, 6, 6]
    assert await shop.wallet_versions(first) == [1, 2, 3, 4, 5, 6]
    assert await shop.wallet_versions(second) == [1, 2]
    rows = await database().rows(
        "SELECT subject_id FROM event WHERE merchant_id = $1 AND member_id = $2 AND wallet_version > 3 "
        "ORDER BY wallet_version",
        shop.merchant_id,
        ids.decode("member", first["id"]),
    )
    assert [ids.encode("code", row["subject_id"]) for row in rows] == [codes[0]["id"], codes[2]["id"], codes[3]["id"]]


async def test_a_code_is_honoured_until_its_lifetime_ends(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codeLifetimeDays=1), member := await shop.member())

    assert shares(await shop.redeem([code["text"]], member)) == [(1, 10_000, 1_000)]


async def test_two_merchants_may_have_an_order_of_the_same_id(shop: Shop, other_shop: Shop) -> None:
    for each in (shop, other_shop):
        code = await each.claim(await each.pool(), member := await each.member())

        assert shares(await each.redeem([code["text"]], member, order="A-1")) == [(1, 10_000, 1_000)]


async def test_twenty_codes_go_on_one_order(shop: Shop) -> None:
    member = await shop.member()
    pool = await shop.pool(codes=20, claimsPerMember=20, stacking="STACKABLE", kind="AMOUNT", amountOff=usd(520))
    codes = [await shop.claim(pool, member, idempotencyKey=f"k{number}") for number in range(20)]

    answer = await shop.redeem([code["text"] for code in codes], member, amount=10_000)

    taken = [520] * 19 + [120]
    bases = [10_000 - 520 * number for number in range(20)]
    assert shares(answer) == list(zip(range(1, 21), bases, taken, strict=True))
    assert answer["totalDiscount"] == usd(10_000)
    assert await shop.wallet_versions(member) == list(range(1, 41))


# -------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize(
    ("percent", "amount", "discount"),
    [
        (10.0, 0, None),
        (10.0, 4, None),
        (10.0, 5, 1),
        (10.0, 14, 1),
        (10.0, 15, 2),
        (50.0, 1, 1),
        (33.3333, 10_000, 3_333),
        (12.5, 4, 1),
        (0.0001, 499_999, None),
        (0.0001, 500_000, 1),
        (100.0, 12_345, 12_345),
        (99.9999, 10**15, 999_999_000_000_000),
    ],
)
async def test_a_share_is_rounded_half_up(shop: Shop, percent: float, amount: int, discount: int | None) -> None:
    assert await redeemed(shop, amount, percentOff=percent) == discount


@pytest.mark.parametrize(("amount", "discount"), [(4_999, 500), (5_000, 500), (5_010, 500), (4_990, 499)])
async def test_a_share_is_capped_by_the_maximum_discount(shop: Shop, amount: int, discount: int) -> None:
    assert await redeemed(shop, amount, percentOff=10.0, maximumDiscount=usd(500)) == discount


@pytest.mark.parametrize(("amount", "discount"), [(0, None), (499, 499), (500, 500), (501, 500)])
async def test_an_amount_takes_off_no_more_than_the_order(shop: Shop, amount: int, discount: int | None) -> None:
    assert await redeemed(shop, amount, kind="AMOUNT", amountOff=usd(500)) == discount


async def test_a_gift_takes_nothing_off(shop: Shop) -> None:
    assert await redeemed(shop, 10_000, kind="GIFT", giftSku="MUG-1") == 0


async def test_the_minimum_spend_itself_is_enough(shop: Shop) -> None:
    assert await redeemed(shop, 5_000, percentOff=10.0, minimumSpend=usd(5_000)) == 500


async def test_stacked_codes_apply_in_the_order_given_each_to_what_is_left(shop: Shop) -> None:
    member = await shop.member()
    percent = await shop.pool(stacking="STACKABLE", claimsPerMember=2)
    amount = await shop.pool(stacking="STACKABLE", claimsPerMember=2, kind="AMOUNT", amountOff=usd(2_500))
    first = [await shop.claim(pool, member, idempotencyKey=f"1-{pool['id']}") for pool in (percent, amount)]
    second = [await shop.claim(pool, member, idempotencyKey=f"2-{pool['id']}") for pool in (amount, percent)]

    percent_first = await shop.redeem([code["text"] for code in first], member, amount=10_000)
    amount_first = await shop.redeem([code["text"] for code in second], member, amount=10_000)

    assert shares(percent_first) == [(1, 10_000, 1_000), (2, 9_000, 2_500)]
    assert shares(amount_first) == [(1, 10_000, 2_500), (2, 7_500, 750)]
    assert percent_first["totalDiscount"] == usd(3_500)
    assert amount_first["totalDiscount"] == usd(3_250)


async def test_the_minimum_spend_of_a_stacked_code_is_that_of_the_order_before_discounts(shop: Shop) -> None:
    member = await shop.member()
    most = await shop.claim(await shop.pool(stacking="STACKABLE", percentOff=90.0), member)
    rest = await shop.claim(await shop.pool(stacking="STACKABLE", minimumSpend=usd(10_000)), member)

    answer = await shop.redeem([most["text"], rest["text"]], member, amount=10_000)

    assert shares(answer) == [(1, 10_000, 9_000), (2, 1_000, 100)]


async def test_discounts_never_take_an_order_below_zero(shop: Shop) -> None:
    member = await shop.member()
    pools = [
        await shop.pool(stacking="STACKABLE", kind="AMOUNT", amountOff=usd(7_000)),
        await shop.pool(stacking="STACKABLE", kind="AMOUNT", amountOff=usd(7_000)),
        await shop.pool(stacking="STACKABLE", kind="GIFT", giftSku="MUG-1"),
    ]
    codes = [await shop.claim(pool, member) for pool in pools]

    answer = await shop.redeem([code["text"] for code in codes], member, amount=10_000)

    assert shares(answer) == [(1, 10_000, 7_000), (2, 3_000, 3_000), (3, 0, 0)]
    assert answer["totalDiscount"] == usd(10_000)


async def test_a_code_that_finds_nothing_left_is_not_spent_for_nothing(shop: Shop) -> None:
    member = await shop.member()
    whole, more = [
        await shop.claim(await shop.pool(stacking="STACKABLE", percentOff=share), member) for share in (100.0, 5.0)
    ]

    refusal = await shop.refused(REDEEM_CODES, **order([whole["text"], more["text"]], member))
    other_way = await shop.do(REDEEM_CODES, **order([more["text"], whole["text"]], member))

    assert refusal["rejections"] == [{"masked": more["masked"], "reason": "NO_DISCOUNT"}]
    assert shares(other_way) == [(1, 10_000, 500), (2, 9_500, 9_500)]


# ----------------------------------------------------------------------------------------------------- replays


async def test_the_same_order_again_is_the_same_answer(shop: Shop) -> None:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(3)]
    texts = [code["text"] for code in codes]
    first = await shop.redeem(texts, member, order="A-1")
    before = await shop.state()

    again = await shop.redeem(texts, member, order="A-1")

    assert again == first | {"replayed": True}
    assert await shop.state() == before


async def test_a_replay_keeps_the_positions_of_the_first_call_whatever_its_own_order(shop: Shop) -> None:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(3)]
    texts = [code["text"] for code in codes]
    first = await shop.redeem(texts, member, order="A-1")

    again = await shop.redeem([text.lower() for text in reversed(texts)], member, order=" A-1 ")

    assert again == first | {"replayed": True}


async def test_a_replay_is_answered_whatever_became_of_the_pool_and_the_code(shop: Shop) -> None:
    pool = await shop.pool(codeLifetimeDays=1)
    code = await shop.claim(pool, member := await shop.member())
    first = await shop.redeem([code["text"]], member, order="A-1")
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])
    await expire(shop, code)

    again = await shop.redeem([code["text"]], member, order="A-1")

    assert again["replayed"] is True
    assert shares(again) == shares(first)
    assert again["redemptions"][0]["id"] == first["redemptions"][0]["id"]


async def test_a_replay_tells_a_stranger_nothing(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    await shop.redeem([code["text"]], member, order="A-1")

    for stranger in ((await shop.member())["id"], None):
        presented = order([code["text"]], member, orderId="A-1", memberId=stranger)
        refusal = await shop.refused(REDEEM_CODES, **presented)

        assert refusal["rejections"] == [{"masked": code["masked"], "reason": "NOT_OWNER"}]


@pytest.mark.parametrize(
    "key",
    [{"email": "jane@example.com"}, {"member": {"email": "jane@example.com"}}, {"member": {"externalId": "1001"}}],
)
async def test_a_replay_is_answered_whoever_its_presenters_address_or_number_has_become(
    shop: Shop, key: dict[str, Any]
) -> None:
    jane = "jane@example.com"
    member = await shop.member(email=jane, emailVerified=True, externalId="1001")
    code = await shop.claim(await shop.pool(), member)
    presented: dict[str, Any] = {"codes": [code["text"]], "orderId": "A-1", "orderAmount": usd(10_000)}
    first = await shop.do(REDEEM_CODES, **presented, **key)

    await shop.do(EDIT_MEMBER, memberId=member["id"], email="j@new.example", emailVerified=True, externalId="2002")
    nobodys = await shop.do(REDEEM_CODES, **presented, **key)
    await shop.member(email=jane, emailVerified=True, externalId="1001")
    heirs = await shop.do(REDEEM_CODES, **presented, **key)
    assert shares(nobodys) == shares(heirs) == shares(first)
    assert (nobodys["replayed"], heirs["replayed"]) == (True, True)

    # It is the call that is answered again: neither another order of this presenter's, nor this one by somebody else.
    other = await shop.refused(REDEEM_CODES, **presented | {"orderId": "A-2"}, **key)
    stranger = await shop.refused(REDEEM_CODES, **presented, email="stranger@example.com")
    assert [each["rejections"][0]["reason"] for each in (other, stranger)] == ["NOT_OWNER", "NOT_OWNER"]


async def test_an_order_of_an_address_is_replayed_when_its_code_has_got_and_left_a_member(shop: Shop) -> None:
    jane = "jane@example.com"
    code = (await shop.do(CLAIM_CODE, poolId=(await shop.pool())["id"], email=jane))["code"]
    presented: dict[str, Any] = {"codes": [code["text"]], "orderId": "A-1", "orderAmount": usd(10_000), "email": jane}
    await shop.do(REDEEM_CODES, **presented)
    member = await shop.member(email=jane, emailVerified=True)
    await shop.do(EDIT_MEMBER, memberId=member["id"], emailVerified=False)

    again = await shop.do(REDEEM_CODES, **presented)

    assert (again["__typename"], again.get("replayed")) == ("RedeemCodesSuccess", True)
    assert again["redemptions"][0]["code"]["text"] is None


async def test_another_currency_under_the_same_order_is_refused(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    await shop.redeem([code["text"]], member, order="order", amount=10_000)
    amount = {"amountMinor": 10_000, "currency": "EUR"}

    refusal = await shop.refused(REDEEM_CODES, **order([code["text"]], member, orderAmount=amount))

    assert refusal["rejections"] == [{"masked": code["masked"], "reason": "ALREADY_REDEEMED"}]


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("input", "expected"), IMPOSSIBLE)
async def test_an_order_without_sense_is_refused_with_every_problem(
    shop: Shop, input: dict[str, Any], expected: dict[str, str]
) -> None:
    member = await shop.member()

    refusal = await shop.refused(REDEEM_CODES, **(order([NEVER_ISSUED], member) | input))

    assert problems(refusal) == expected


@pytest.mark.parametrize("input", MALFORMED, ids=str)
async def test_a_value_of_the_wrong_type_is_bad_user_input(shop: Shop, input: dict[str, Any]) -> None:
    member = await shop.member()

    assert await shop.failed(REDEEM_CODES, **(order([NEVER_ISSUED], member) | input)) == "BAD_USER_INPUT"


@pytest.mark.parametrize("name", REFUSED)
async def test_codes_that_can_not_be_redeemed_are_refused_together(shop: Shop, name: str) -> None:
    scenario = await REFUSED[name](shop)

    refusal = await shop.refused(REDEEM_CODES, **scenario.input)

    assert refusal["__typename"] == "CodesRejected"
    assert refusal["rejections"] == scenario.rejections


async def test_a_good_code_refused_with_a_bad_one_can_still_be_redeemed(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(stacking="STACKABLE"), member := await shop.member())
    await shop.refused(REDEEM_CODES, **order([code["text"], NEVER_ISSUED], member))

    answer = await shop.do(REDEEM_CODES, **order([code["text"]], member))

    assert shares(answer) == [(1, 10_000, 1_000)]


async def test_another_merchants_code_is_unknown_and_its_member_nobody(shop: Shop, other_shop: Shop) -> None:
    foreign = await other_shop.claim(await other_shop.pool(), foreign_member := await other_shop.member())
    own = await shop.claim(await shop.pool(), member := await shop.member())
    before = await other_shop.state()

    no_code = await shop.refused(REDEEM_CODES, **order([foreign["text"]], member))
    no_member = await shop.refused(REDEEM_CODES, **order([own["text"]], foreign_member))

    assert no_code["rejections"] == [{"masked": foreign["masked"], "reason": "UNKNOWN"}]
    assert no_member["rejections"] == [{"masked": own["masked"], "reason": "NOT_OWNER"}]
    assert await other_shop.state() == before


@pytest.mark.parametrize("role", ["ANALYST", "MEMBER"])
async def test_only_an_admin_or_a_checkout_redeems(shop: Shop, role: str) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    key = await shop.token(member["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(REDEEM_CODES, key=key, **order([code["text"]], member)) == "FORBIDDEN"


async def test_a_checkout_redeems_and_sees_no_text(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    key = await shop.key("CHECKOUT")

    answer = await shop.do(REDEEM_CODES, key=key, **order([code["text"]], member))

    assert shares(answer) == [(1, 10_000, 1_000)]
    assert answer["redemptions"][0]["code"]["text"] is None


async def test_codes_are_found_by_their_fingerprints_whatever_the_planner_knew() -> None:
    fingerprints = [hashlib.sha256(b"2000").digest()]

    rows, buffers = await buffers_planned_on_nothing(
        READ, CODES, fingerprints=fingerprints, source="STORE", order_id="an order", presenter=None, email_index=None,
        mailbox_index=None, memory_pads=bytes(128),
    )  # fmt: skip

    assert rows == 1
    assert buffers < 40
