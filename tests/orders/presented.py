"""Orders whose codes are refused, one for each reason, for redeemCodes and checkCodes alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app import ids
from app.merchants.tenants import tenant
from app.storage.database import database, transaction
from tests.factories import CHANGE_STATUS, Shop, usd

#: Well formed, with a right check character, and never issued.
NEVER_ISSUED = "PCT-0000000000000"


@dataclass
class Refused:
    """An input and the rejections it must get."""

    input: dict[str, Any]
    rejections: list[dict[str, str]]


async def expire(shop: Shop, code: Any) -> None:
    """Move the end of a code's lifetime into the past."""
    statement = "UPDATE code SET expires_at = now() - interval '1 second' WHERE merchant_id = $1 AND id = $2"
    await database().row(statement, shop.merchant_id, ids.decode("code", code["id"]))


async def set_state(shop: Shop, code: Any, state: str) -> None:
    """Give a code a state that no operation gives yet; one that is EXPIRED is past its own end."""
    statement = """
        UPDATE code SET state = $3::text, expires_at = CASE WHEN $3::text = 'EXPIRED' THEN now() ELSE expires_at END
        WHERE merchant_id = $1 AND id = $2
    """
    await database().row(statement, shop.merchant_id, ids.decode("code", code["id"]), state)


async def text_of_a_stocked_code(shop: Shop, pool: Any) -> str:
    """Return the text of a code that nobody has claimed."""
    owner = await tenant(shop.merchant_id)
    row = await database().row(
        "SELECT id, ciphertext FROM code WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' LIMIT 1",
        shop.merchant_id,
        ids.decode("pool", pool["id"]),
    )
    assert owner is not None
    assert row is not None
    return owner.keys.decrypt(row["id"], "code", row["ciphertext"])


def order(codes: list[str], member: Any, **input: Any) -> dict[str, Any]:
    """Return the input of an order worth 100.00."""
    return {"codes": codes, "orderId": "order", "orderAmount": usd(10_000), "memberId": member["id"]} | input


def rejected(code: Any, reason: str) -> list[dict[str, str]]:
    """Return the rejection of one claimed code."""
    return [{"masked": code["masked"], "reason": reason}]


async def _unknown(shop: Shop) -> Refused:
    return Refused(order([NEVER_ISSUED], await shop.member()), [{"masked": "PCT-••••00", "reason": "UNKNOWN"}])


async def _mistyped(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    wrong = code["text"][:-1] + ("0" if code["text"][-1] != "0" else "1")
    return Refused(order([wrong], member), [{"masked": f"PCT-••••{wrong[-2:]}", "reason": "UNKNOWN"}])


async def _not_a_code(shop: Shop) -> Refused:
    return Refused(
        order(["", "\x00", "SAVE10", "'; DROP TABLE code; --", "x" * 100, "\u017f" * 16], await shop.member()),
        [
            {"masked": "???-••••", "reason": "UNKNOWN"},
            {"masked": "???-••••", "reason": "UNKNOWN"},
            {"masked": "???-••••", "reason": "UNKNOWN"},
            {"masked": "???-••••E?", "reason": "UNKNOWN"},
            {"masked": "???-••••XX", "reason": "UNKNOWN"},
            {"masked": "???-••••SS", "reason": "UNKNOWN"},
        ],
    )


async def _nobodys(shop: Shop) -> Refused:
    text = await text_of_a_stocked_code(shop, await shop.pool(transferable=True))
    masked = f"PCT-••••{text[-2:]}"
    return Refused(order([text], await shop.member()), [{"masked": masked, "reason": "NOT_ALLOCATED"}])


async def _no_presenter(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    return Refused(order([code["text"]], member, memberId=None), rejected(code, "NOT_OWNER"))


async def _another_presenter(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), await shop.member())
    return Refused(order([code["text"]], await shop.member()), rejected(code, "NOT_OWNER"))


async def _presenter_that_does_not_exist(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    nobody = "member_0123456789abcdef0123456789abcdef"
    return Refused(order([code["text"]], member, memberId=nobody), rejected(code, "NOT_OWNER"))


async def _redeemed_and_not_owned(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    await shop.redeem([code["text"]], member)
    return Refused(order([code["text"]], await shop.member()), rejected(code, "NOT_OWNER"))


async def _redeemed(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    await shop.redeem([code["text"]], member)
    return Refused(order([code["text"]], member), rejected(code, "ALREADY_REDEEMED"))


async def _redeemed_for_another_amount(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    await shop.redeem([code["text"]], member, order="order", amount=10_000)
    return Refused(order([code["text"]], member, orderAmount=usd(10_001)), rejected(code, "ALREADY_REDEEMED"))


async def _redeemed_and_transferable(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(transferable=True), member := await shop.member())
    await shop.redeem([code["text"]], member)
    return Refused(order([code["text"]], member, memberId=None), rejected(code, "ALREADY_REDEEMED"))


async def _past_its_lifetime(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(codeLifetimeDays=1), member := await shop.member())
    await expire(shop, code)
    return Refused(order([code["text"]], member), rejected(code, "EXPIRED"))


async def _expired(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(codeLifetimeDays=1), member := await shop.member())
    await expire(shop, code)
    await set_state(shop, code, "EXPIRED")
    return Refused(order([code["text"]], member), rejected(code, "EXPIRED"))


async def _revoked(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    await set_state(shop, code, "REVOKED")
    return Refused(order([code["text"]], member), rejected(code, "REVOKED"))


async def _in_a_paused_pool(shop: Shop) -> Refused:
    code = await shop.claim(pool := await shop.pool(), member := await shop.member())
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    return Refused(order([code["text"]], member), rejected(code, "POOL_NOT_ACTIVE"))


async def _in_an_archived_pool(shop: Shop) -> Refused:
    code = await shop.claim(pool := await shop.pool(), member := await shop.member())
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])
    return Refused(order([code["text"]], member), rejected(code, "EXPIRED"))


async def _after_the_pools_end(shop: Shop) -> Refused:
    code = await shop.claim(pool := await shop.pool(endsAt="2999-01-01T00:00:00Z"), member := await shop.member())
    await end_pool(shop, pool)
    return Refused(order([code["text"]], member), rejected(code, "EXPIRED"))


async def end_pool(shop: Shop, pool: Any) -> None:
    """Let a pool's window end; as the trigger holds the terms, it is put aside for this transaction."""
    async with transaction(None) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        for table, key in (("pool", "id"), ("pool_terms", "pool_id")):
            statement = (
                f"UPDATE {table} SET ends_at = now() - interval '1 second' WHERE merchant_id = $1 AND {key} = $2"
            )
            await tx.row(statement, shop.merchant_id, ids.decode("pool", pool["id"]))


async def _in_another_currency(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    amount = {"amountMinor": 10_000, "currency": "EUR"}
    return Refused(order([code["text"]], member, orderAmount=amount), rejected(code, "CURRENCY_MISMATCH"))


async def _below_the_minimum_spend(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(minimumSpend=usd(5_000)), member := await shop.member())
    return Refused(order([code["text"]], member, orderAmount=usd(4_999)), rejected(code, "BELOW_MINIMUM_SPEND"))


async def _two_exclusive_ones(shop: Shop) -> Refused:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(), member) for _ in range(2)]
    return Refused(
        order([code["text"] for code in codes], member),
        [rejection for code in codes for rejection in rejected(code, "NOT_STACKABLE")],
    )


async def _exclusive_beside_stackable(shop: Shop) -> Refused:
    member = await shop.member()
    stackable = await shop.claim(await shop.pool(stacking="STACKABLE"), member)
    exclusive = await shop.claim(await shop.pool(), member)
    return Refused(order([stackable["text"], exclusive["text"]], member), rejected(exclusive, "NOT_STACKABLE"))


async def _more_codes_for_an_order_that_has_some(shop: Shop) -> Refused:
    member = await shop.member()
    first, second = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]
    await shop.redeem([first["text"]], member, order="order")
    return Refused(order([second["text"]], member), rejected(second, "NOT_STACKABLE"))


async def _one_code_more_than_the_order_had(shop: Shop) -> Refused:
    member = await shop.member()
    first, second = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]
    await shop.redeem([first["text"]], member, order="order")
    return Refused(
        order([first["text"], second["text"]], member),
        rejected(first, "ALREADY_REDEEMED") + rejected(second, "NOT_STACKABLE"),
    )


async def _fewer_codes_than_the_order_had(shop: Shop) -> Refused:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]
    await shop.redeem([code["text"] for code in codes], member, order="order")
    return Refused(order([codes[0]["text"]], member), rejected(codes[0], "ALREADY_REDEEMED"))


async def _one_bad_code_among_good_ones(shop: Shop) -> Refused:
    member = await shop.member()
    good = [await shop.claim(await shop.pool(stacking="STACKABLE"), member) for _ in range(2)]
    bad = await shop.claim(await shop.pool(stacking="STACKABLE"), await shop.member())
    texts = [good[0]["text"], bad["text"], good[1]["text"], NEVER_ISSUED]
    return Refused(order(texts, member), [*rejected(bad, "NOT_OWNER"), {"masked": "PCT-••••00", "reason": "UNKNOWN"}])


async def _nothing_to_take_off(shop: Shop) -> Refused:
    code = await shop.claim(await shop.pool(), member := await shop.member())
    return Refused(order([code["text"]], member, orderAmount=usd(4)), rejected(code, "NO_DISCOUNT"))


async def _nothing_left_to_take_off(shop: Shop) -> Refused:
    member = await shop.member()
    pools = [await shop.pool(stacking="STACKABLE", percentOff=share) for share in (50.0, 100.0, 50.0)]
    pools += [await shop.pool(stacking="STACKABLE", kind="AMOUNT", amountOff=usd(5))]
    codes = [await shop.claim(pool, member) for pool in pools]
    refused = rejected(codes[2], "NO_DISCOUNT") + rejected(codes[3], "NO_DISCOUNT")
    return Refused(order([code["text"] for code in codes], member), refused)


async def _nothing_to_take_off_and_not_stackable(shop: Shop) -> Refused:
    member = await shop.member()
    codes = [await shop.claim(await shop.pool(stacking=each), member) for each in ("EXCLUSIVE", "STACKABLE")]
    return Refused(
        order([code["text"] for code in codes], member, orderAmount=usd(0)), rejected(codes[0], "NOT_STACKABLE")
    )


async def _several_reasons_at_once(shop: Shop) -> Refused:
    pool = await shop.pool(minimumSpend=usd(5_000))
    code = await shop.claim(pool, member := await shop.member())
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    amount = {"amountMinor": 1, "currency": "EUR"}
    return Refused(order([code["text"]], member, orderAmount=amount), rejected(code, "POOL_NOT_ACTIVE"))


#: In the order in which reasons are checked.
REFUSED: dict[str, Callable[[Shop], Awaitable[Refused]]] = {
    scenario.__name__.strip("_"): scenario
    for scenario in (
        _unknown, _mistyped, _not_a_code, _nobodys, _no_presenter, _another_presenter, _presenter_that_does_not_exist,
        _redeemed_and_not_owned, _redeemed, _redeemed_for_another_amount, _redeemed_and_transferable,
        _past_its_lifetime, _expired, _revoked, _in_a_paused_pool, _in_an_archived_pool, _after_the_pools_end,
        _in_another_currency, _below_the_minimum_spend, _two_exclusive_ones, _exclusive_beside_stackable,
        _more_codes_for_an_order_that_has_some, _one_code_more_than_the_order_had, _fewer_codes_than_the_order_had,
        _one_bad_code_among_good_ones, _nothing_to_take_off, _nothing_left_to_take_off,
        _nothing_to_take_off_and_not_stackable, _several_reasons_at_once,
    )
}  # fmt: skip

#: Inputs that can't be carried out for any codes: what is put over a good order, and the problems.
IMPOSSIBLE: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"codes": []}, {"codes": "must be 1 to 20 codes"}),
    ({"codes": [NEVER_ISSUED] * 21}, {"codes": "must be 1 to 20 codes"}),
    ({"codes": ["x" * 101]}, {"codes.0": "must be at most 100 characters"}),
    ({"codes": ["PCT", "x" * 10_000]}, {"codes.1": "must be at most 100 characters"}),
    ({"codes": [NEVER_ISSUED, "PCT", NEVER_ISSUED]}, {"codes.2": "is listed twice"}),
    ({"codes": [NEVER_ISSUED, "pct ooo oooo-oooooo"]}, {"codes.1": "is listed twice"}),
    ({"orderId": ""}, {"orderId": "must not be blank"}),
    ({"orderId": "  "}, {"orderId": "must not be blank"}),
    ({"orderId": "x" * 101}, {"orderId": "must be at most 100 characters"}),
    ({"orderId": "x" * 10_000}, {"orderId": "must be at most 100 characters"}),
    ({"orderId": "a\x00b"}, {"orderId": "must not contain control characters"}),
    ({"orderId": "a\tb"}, {"orderId": "must not contain control characters"}),
    ({"orderAmount": usd(-1)}, {"orderAmount.amountMinor": "must be between 0 and 1000000000000000"}),
    ({"orderAmount": usd(10**15 + 1)}, {"orderAmount.amountMinor": "must be between 0 and 1000000000000000"}),
    ({"orderAmount": {"amountMinor": 1, "currency": "usd"}}, {"orderAmount.currency": "must be an ISO 4217 code"}),
    ({"orderAmount": {"amountMinor": 1, "currency": ""}}, {"orderAmount.currency": "must be an ISO 4217 code"}),
    ({"orderAmount": {"amountMinor": 1, "currency": "US\x00"}}, {"orderAmount.currency": "must be an ISO 4217 code"}),
    ({"orderAmount": {"amountMinor": 1, "currency": "US1"}}, {"orderAmount.currency": "must be an ISO 4217 code"}),
    ({"orderAmount": {"amountMinor": 1, "currency": "DOLLAR"}}, {"orderAmount.currency": "must be an ISO 4217 code"}),
    ({"memberId": ""}, {"memberId": "must be the id of a member"}),
    ({"memberId": "7"}, {"memberId": "must be the id of a member"}),
    ({"memberId": "pool_0123456789abcdef0123456789abcdef"}, {"memberId": "must be the id of a member"}),
    ({"memberId": "member_\x00"}, {"memberId": "must be the id of a member"}),
    (
        {"orderId": "", "orderAmount": {"amountMinor": -1, "currency": "?"}, "memberId": "?"},
        {
            "orderId": "must not be blank",
            "orderAmount.amountMinor": "must be between 0 and 1000000000000000",
            "orderAmount.currency": "must be an ISO 4217 code",
            "memberId": "must be the id of a member",
        },
    ),
]

MALFORMED: list[dict[str, Any]] = [
    {"codes": None},
    {"codes": [None]},
    {"codes": [5]},
    {"orderId": None},
    {"orderId": 7},
    {"orderAmount": None},
    {"orderAmount": 10},
    {"orderAmount": {"amountMinor": "10", "currency": "USD"}},
    {"orderAmount": {"amountMinor": 1.5, "currency": "USD"}},
    {"orderAmount": {"amountMinor": 2**63, "currency": "USD"}},
    {"memberId": 1.5},
    {"discount": 5},
]
