"""Strict scalars. Without these one value could have two spellings, or a number be taken for another one."""

from typing import Any

import pytest

from tests.factories import CREATE_POOL, Shop, usd

AMOUNT = {"name": "walked", "kind": "AMOUNT"}
FIRST = "query ($first: Int) { pools(first: $first) { edges { cursor } } }"
POOL = "query ($id: ID!) { pool(id: $id) { id } }"


async def _amount(shop: Shop, amount: Any) -> dict[str, Any]:
    money = {"amountMinor": amount, "currency": "USD"}
    return await shop.post(CREATE_POOL, {"input": AMOUNT | {"amountOff": money}})


def _codes(answer: dict[str, Any]) -> list[str]:
    return [error["extensions"]["code"] for error in answer.get("errors", [])]


@pytest.mark.parametrize("amount", [1, 2**31, 10**15])
async def test_an_amount_beyond_31_bits_is_exact(shop: Shop, amount: int) -> None:
    answer = await _amount(shop, amount)

    assert answer["data"]["answer"]["pool"]["amountOff"] == {"amountMinor": amount, "currency": "USD"}


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1, 2**63 - 1, -(2**63)])
async def test_an_amount_of_64_bits_out_of_bounds_is_a_refusal(shop: Shop, amount: int) -> None:
    before = await shop.state()

    answer = await _amount(shop, amount)

    assert answer["data"]["answer"]["problems"] == [
        {"path": ["amountOff", "amountMinor"], "message": "must be between 1 and 1000000000000000"}
    ]
    assert await shop.state() == before


NOT_BIG_INTS = [
    2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**30, 1.0, 1.5, 1e3, -0.0, True, False, "1", " 1 ", "", "1_0",
    "\u0661\u0662", "\uff11", "0x10", [1], {"value": 1}, None,
]  # fmt: skip


@pytest.mark.parametrize("amount", NOT_BIG_INTS, ids=ascii)
async def test_what_is_no_integer_of_64_bits_is_bad_user_input(shop: Shop, amount: Any) -> None:
    before = await shop.state()

    answer = await _amount(shop, amount)

    assert _codes(answer) == ["BAD_USER_INPUT"]
    assert "data" not in answer
    assert await shop.state() == before


@pytest.mark.parametrize(
    "literal", ["9223372036854775808", "1.0", "1e3", '"1"', "true", "null", "ONE", "[1]", "{}", "-" + "9" * 5000]
)
async def test_a_literal_that_is_no_integer_of_64_bits_is_bad_user_input(shop: Shop, literal: str) -> None:
    document = (
        'mutation { createPool(input: { name: "x", kind: AMOUNT, amountOff: { amountMinor: %s, currency: "USD" } }) '
        "{ __typename } }"
    )

    answer = await shop.post(document % literal)

    assert set(_codes(answer)) == {"BAD_USER_INPUT"}


async def test_a_literal_of_64_bits_is_exact(shop: Shop) -> None:
    answer = await shop.data(
        'mutation { createPool(input: { name: "x", kind: AMOUNT, amountOff: { amountMinor: 4294967297, '
        'currency: "USD" } }) { ... on CreatePoolSuccess { pool { amountOff { amountMinor } } } } }'
    )

    assert answer["createPool"]["pool"]["amountOff"]["amountMinor"] == 4294967297


@pytest.mark.parametrize("first", [1.5, "1", " 1 ", "\u0661", True, [], {}, 2**31, -(2**31) - 1, 2**64, 10**30])
async def test_what_is_no_int_is_bad_user_input(shop: Shop, first: Any) -> None:
    assert _codes(await shop.post(FIRST, {"first": first})) == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("node_id", [1.5, True, [], {}, None])
async def test_what_is_no_id_is_bad_user_input(shop: Shop, node_id: Any) -> None:
    assert _codes(await shop.post(POOL, {"id": node_id})) == ["BAD_USER_INPUT"]


async def test_an_id_has_one_spelling(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)
    digits = pool["id"].removeprefix("pool_")
    dashed = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    assert await shop.data(POOL, {"id": pool["id"]}) == {"pool": {"id": pool["id"]}}
    for spelling in (digits, pool["id"].upper(), f"pool_{digits.upper()}", f" {pool['id']}", f"{pool['id']} ",
                     f"pool_{dashed}", f"Pool_{digits}", f"pool__{digits}", f"pool_{{{digits}}}", 7):  # fmt: skip
        assert await shop.data(POOL, {"id": spelling}) == {"pool": None}


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ("2030-01-31T09:30:00Z", "2030-01-31T09:30:00Z"),
        ("2030-01-31T09:30:00+00:00", "2030-01-31T09:30:00Z"),
        ("2030-01-31T09:30:00-00:00", "2030-01-31T09:30:00Z"),
        ("2030-01-31T09:30:00+05:30", "2030-01-31T04:00:00Z"),
        ("2030-01-31T23:30:00-01:00", "2030-02-01T00:30:00Z"),
        ("2032-02-29T00:00:00.5Z", "2032-02-29T00:00:00.500000Z"),
        ("2030-01-31T09:30:00.123456Z", "2030-01-31T09:30:00.123456Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("9999-12-31T23:59:59.999998Z", "9999-12-31T23:59:59.999998Z"),
        ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001Z"),
    ],
)
async def test_an_instant_is_answered_in_utc(shop: Shop, given: str, answered: str) -> None:
    pool = await shop.pool(codes=0, active=False, endsAt=given)

    assert pool["endsAt"] == answered
    assert (await shop.data("query ($id: ID!) { pool(id: $id) { endsAt } }", {"id": pool["id"]})) == {
        "pool": {"endsAt": answered}
    }


@pytest.mark.parametrize(
    "given",
    [
        "", "now", "2030-01-31", "2030-01-31T09:30:00", "2030-01-31 09:30:00Z", "2030-01-31T09:30Z",
        "2030-01-31t09:30:00z", "2030-02-30T00:00:00Z", "2031-02-29T00:00:00Z", "2030-13-01T00:00:00Z",
        "2030-01-01T24:00:00Z", "2030-01-01T23:59:60Z", "2030-01-01T00:00:00+24:00", "2030-01-01T00:00:00+0530",
        "2030-01-01T00:00:00.1234567Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2030-01-01T00:00:00+00:60",
        "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z", "+2030-01-01T00:00:00Z", " 2030-01-01T00:00:00Z ",
        "2030-01-01T00:00:00Z\n", "2030-01-01T00:00:00Z\x00", "\u0662\u0660\u0663\u0660-01-01T00:00:00Z",
        "20300101T000000Z", "2030-W01-1T00:00:00Z", 1893456000, 1893456000.5, True, [], {},
    ],
    ids=ascii,
)  # fmt: skip
async def test_what_is_no_instant_is_bad_user_input(shop: Shop, given: Any) -> None:
    before = await shop.state()
    pool = {"name": "walked", "kind": "AMOUNT", "amountOff": usd(100), "endsAt": given}

    answer = await shop.post(CREATE_POOL, {"input": pool})

    assert _codes(answer) == ["BAD_USER_INPUT"]
    assert await shop.state() == before


@pytest.mark.parametrize("share", ["10", " 10 ", "1_0", "\u0661\u0660", True, [], {}])
async def test_what_is_no_float_is_bad_user_input(shop: Shop, share: Any) -> None:
    answer = await shop.post(CREATE_POOL, {"input": {"name": "walked", "kind": "PERCENT", "percentOff": share}})

    assert _codes(answer) == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("share", [1e308, -1e308, -1, 0, -0.0, 5e-324, 100.00001, 10.00001])
async def test_a_share_out_of_bounds_is_a_refusal(shop: Shop, share: float) -> None:
    answer = await shop.refused(CREATE_POOL, name="walked", kind="PERCENT", percentOff=share)

    (problem,) = answer["problems"]
    assert problem["path"] == ["percentOff"]
    assert problem["message"] in {"must be over 0 and at most 100", "must have at most 4 decimals"}


@pytest.mark.parametrize("literal", ["NaN", "Infinity", '"10"', "true"])
async def test_a_literal_that_is_no_float_is_bad_user_input(shop: Shop, literal: str) -> None:
    document = (
        f'mutation {{ createPool(input: {{ name: "x", kind: PERCENT, percentOff: {literal} }}) {{ __typename }} }}'
    )

    assert _codes(await shop.post(document)) == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("literal", ["1e999", "-1e999", "9" * 400])
async def test_a_literal_that_no_float_can_hold_is_not_taken(shop: Shop, literal: str) -> None:
    document = (
        f'mutation {{ createPool(input: {{ name: "x", kind: PERCENT, percentOff: {literal} }}) {{ __typename }} }}'
    )

    answer = await shop.post(document)

    assert answer == {"data": {"createPool": {"__typename": "InvalidInput"}}} or _codes(answer) == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("key", ["true", 1, None, []])
async def test_what_is_no_boolean_is_bad_user_input(shop: Shop, key: Any) -> None:
    pool = {"name": "walked", "kind": "AMOUNT", "amountOff": usd(100), "transferable": key}

    assert _codes(await shop.post(CREATE_POOL, {"input": pool})) == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("name", [7, 1.5, True, [], {}])
async def test_what_is_no_string_is_bad_user_input(shop: Shop, name: Any) -> None:
    pool = {"name": name, "kind": "AMOUNT", "amountOff": usd(100)}

    assert _codes(await shop.post(CREATE_POOL, {"input": pool})) == ["BAD_USER_INPUT"]
