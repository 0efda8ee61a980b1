"""createPool. Without these a pool could exist whose terms make no sense, or that somebody else's role made."""

from typing import Any

import pytest

from tests.factories import CREATE_POOL, Shop, problems, usd

PERCENT: dict[str, Any] = {"name": "Spring", "kind": "PERCENT", "percentOff": 10.0}
AMOUNT: dict[str, Any] = {"name": "Spring", "kind": "AMOUNT", "amountOff": usd(500)}
GIFT: dict[str, Any] = {"name": "Spring", "kind": "GIFT", "giftSku": "MUG-1"}

MONEY_RANGE = "must be between 1 and 1000000000000000"
NOT_USD = "must be USD, the merchant's currency"
MEANINGLESS = "has no meaning in {} pools"

IMPOSSIBLE = [
    ({**PERCENT, "name": ""}, {"name": "must not be blank"}),
    ({**PERCENT, "name": " \t\n "}, {"name": "must not be blank"}),
    ({**PERCENT, "name": "x" * 201}, {"name": "must be at most 200 characters"}),
    ({**PERCENT, "name": "x" * 10_000}, {"name": "must be at most 200 characters"}),
    ({**PERCENT, "name": "a\x00b"}, {"name": "must not contain control characters"}),
    ({**PERCENT, "name": "a\nb"}, {"name": "must not contain control characters"}),
    ({**PERCENT, "name": "a\x1bb"}, {"name": "must not contain control characters"}),
    ({**PERCENT, "name": "a\x7fb"}, {"name": "must not contain control characters"}),
    ({**PERCENT, "percentOff": None}, {"percentOff": "is what PERCENT pools need"}),
    ({**PERCENT, "percentOff": 0}, {"percentOff": "must be over 0 and at most 100"}),
    ({**PERCENT, "percentOff": -0.0}, {"percentOff": "must be over 0 and at most 100"}),
    ({**PERCENT, "percentOff": -1}, {"percentOff": "must be over 0 and at most 100"}),
    ({**PERCENT, "percentOff": 101}, {"percentOff": "must be over 0 and at most 100"}),
    ({**PERCENT, "percentOff": 100.0001}, {"percentOff": "must be over 0 and at most 100"}),
    ({**PERCENT, "percentOff": 1e308}, {"percentOff": "must be over 0 and at most 100"}),
    ({**PERCENT, "percentOff": 12.34567}, {"percentOff": "must have at most 4 decimals"}),
    ({**PERCENT, "percentOff": 0.00001}, {"percentOff": "must have at most 4 decimals"}),
    ({**PERCENT, "percentOff": 5e-324}, {"percentOff": "must have at most 4 decimals"}),
    ({**PERCENT, "amountOff": usd(500)}, {"amountOff": MEANINGLESS.format("PERCENT")}),
    ({**PERCENT, "giftSku": "MUG-1"}, {"giftSku": MEANINGLESS.format("PERCENT")}),
    ({**AMOUNT, "amountOff": None}, {"amountOff": "is what AMOUNT pools need"}),
    ({**AMOUNT, "percentOff": 10.0}, {"percentOff": MEANINGLESS.format("AMOUNT")}),
    ({**AMOUNT, "amountOff": usd(0)}, {"amountOff.amountMinor": MONEY_RANGE}),
    ({**AMOUNT, "amountOff": usd(-1)}, {"amountOff.amountMinor": MONEY_RANGE}),
    ({**AMOUNT, "amountOff": usd(10**15 + 1)}, {"amountOff.amountMinor": MONEY_RANGE}),
    ({**AMOUNT, "amountOff": {"amountMinor": 5, "currency": "EUR"}}, {"amountOff.currency": NOT_USD}),
    ({**AMOUNT, "amountOff": {"amountMinor": 5, "currency": "usd"}}, {"amountOff.currency": NOT_USD}),
    ({**AMOUNT, "maximumDiscount": usd(5)}, {"maximumDiscount": MEANINGLESS.format("AMOUNT")}),
    ({**GIFT, "giftSku": None}, {"giftSku": "is what GIFT pools need"}),
    ({**GIFT, "giftSku": " "}, {"giftSku": "must not be blank"}),
    ({**GIFT, "giftSku": "x" * 101}, {"giftSku": "must be at most 100 characters"}),
    ({**GIFT, "giftSku": "MUG\x00"}, {"giftSku": "must not contain control characters"}),
    ({**GIFT, "maximumDiscount": usd(5)}, {"maximumDiscount": MEANINGLESS.format("GIFT")}),
    ({**PERCENT, "minimumSpend": usd(0)}, {"minimumSpend.amountMinor": MONEY_RANGE}),
    ({**PERCENT, "minimumSpend": usd(-500)}, {"minimumSpend.amountMinor": MONEY_RANGE}),
    ({**PERCENT, "minimumSpend": {"amountMinor": 5, "currency": "EUR"}}, {"minimumSpend.currency": NOT_USD}),
    ({**PERCENT, "maximumDiscount": usd(0)}, {"maximumDiscount.amountMinor": MONEY_RANGE}),
    ({**PERCENT, "maximumDiscount": {"amountMinor": 5, "currency": ""}}, {"maximumDiscount.currency": NOT_USD}),
    (
        {**PERCENT, "startsAt": "2026-05-02T00:00:00Z", "endsAt": "2026-05-01T00:00:00Z"},
        {"endsAt": "must be after startsAt"},
    ),
    (
        {**PERCENT, "startsAt": "2026-05-01T02:00:00+02:00", "endsAt": "2026-05-01T00:00:00Z"},
        {"endsAt": "must be after startsAt"},
    ),
    ({**PERCENT, "startsAt": "9900-01-01T00:00:00Z"}, {"startsAt": "must be before the year 9900"}),
    ({**PERCENT, "codeLifetimeDays": 0}, {"codeLifetimeDays": "must be between 1 and 3650"}),
    ({**PERCENT, "codeLifetimeDays": -1}, {"codeLifetimeDays": "must be between 1 and 3650"}),
    ({**PERCENT, "codeLifetimeDays": 3651}, {"codeLifetimeDays": "must be between 1 and 3650"}),
    ({**PERCENT, "claimsPerMember": 0}, {"claimsPerMember": "must be between 1 and 1000"}),
    ({**PERCENT, "claimsPerMember": -1}, {"claimsPerMember": "must be between 1 and 1000"}),
    ({**PERCENT, "claimsPerMember": 1001}, {"claimsPerMember": "must be between 1 and 1000"}),
    (
        {"name": "", "kind": "AMOUNT", "giftSku": "MUG-1", "claimsPerMember": 0},
        {
            "name": "must not be blank",
            "amountOff": "is what AMOUNT pools need",
            "giftSku": MEANINGLESS.format("AMOUNT"),
            "claimsPerMember": "must be between 1 and 1000",
        },
    ),
]

MALFORMED: list[dict[str, Any]] = [
    {**PERCENT, "name": None},
    {**PERCENT, "name": 5},
    {**PERCENT, "kind": "COUPON"},
    {**PERCENT, "kind": None},
    {**PERCENT, "percentOff": "10"},
    {**PERCENT, "percentOff": True},
    {**AMOUNT, "amountOff": 500},
    {**AMOUNT, "amountOff": {"amountMinor": 500}},
    {**AMOUNT, "amountOff": {"amountMinor": "500", "currency": "USD"}},
    {**AMOUNT, "amountOff": {"amountMinor": 5.5, "currency": "USD"}},
    {**AMOUNT, "amountOff": {"amountMinor": True, "currency": "USD"}},
    {**AMOUNT, "amountOff": {"amountMinor": 2**63, "currency": "USD"}},
    {**PERCENT, "startsAt": "2026-02-30T00:00:00Z"},
    {**PERCENT, "startsAt": "2026-13-01T00:00:00Z"},
    {**PERCENT, "startsAt": "2026-01-01T25:00:00Z"},
    {**PERCENT, "startsAt": "2026-01-01T00:00:00"},
    {**PERCENT, "startsAt": "2026-01-01"},
    {**PERCENT, "startsAt": "0000-01-01T00:00:00Z"},
    {**PERCENT, "endsAt": "9999-12-31T23:59:59-12:00"},
    {**PERCENT, "endsAt": "tomorrow"},
    {**PERCENT, "endsAt": 1767225600},
    {**PERCENT, "codeLifetimeDays": 1.5},
    {**PERCENT, "codeLifetimeDays": "30"},
    {**PERCENT, "claimsPerMember": None},
    {**PERCENT, "claimsPerMember": 2**31},
    {**PERCENT, "stacking": "ALWAYS"},
    {**PERCENT, "stacking": None},
    {**PERCENT, "transferable": "yes"},
    {**PERCENT, "status": "ACTIVE"},
]


async def test_a_new_pool_is_a_draft_with_the_terms_and_defaults_it_was_given(shop: Shop) -> None:
    answer = await shop.do(CREATE_POOL, **PERCENT)

    pool = answer["pool"]
    assert answer["__typename"] == "CreatePoolSuccess"
    assert pool.pop("id").startswith("pool_")
    assert pool.pop("createdAt").endswith("Z")
    assert pool == {
        "name": "Spring",
        "status": "DRAFT",
        "allowedTransitions": ["ACTIVE"],
        "kind": "PERCENT",
        "percentOff": 10.0,
        "amountOff": None,
        "giftSku": None,
        "minimumSpend": None,
        "maximumDiscount": None,
        "startsAt": None,
        "endsAt": None,
        "codeLifetimeDays": None,
        "claimsPerMember": 1,
        "stacking": "EXCLUSIVE",
        "transferable": False,
        "codePattern": None,
    }
    assert (await shop.event_types())[-1] == "pool.created"


async def test_every_term_is_kept_as_given(shop: Shop) -> None:
    terms: dict[str, Any] = {
        "kind": "PERCENT",
        "percentOff": 33.3333,
        "minimumSpend": usd(5_000),
        "maximumDiscount": usd(10**15),
        "codeLifetimeDays": 3650,
        "claimsPerMember": 1000,
        "stacking": "STACKABLE",
        "transferable": True,
    }

    answer = await shop.do(
        CREATE_POOL,
        name="  Frühling 春 🌱 ",
        startsAt="2026-05-01T02:00:00+02:00",
        endsAt="2026-05-31T23:59:59.123456Z",
        **terms,
    )

    pool = answer["pool"]
    assert {field: pool[field] for field in terms} == terms
    assert pool["name"] == "Frühling 春 🌱"
    assert pool["startsAt"] == "2026-05-01T00:00:00Z"
    assert pool["endsAt"] == "2026-05-31T23:59:59.123456Z"
    assert await shop.data("query ($id: ID!) { pool(id: $id) { name percentOff startsAt } }", {"id": pool["id"]}) == {
        "pool": {"name": "Frühling 春 🌱", "percentOff": 33.3333, "startsAt": "2026-05-01T00:00:00Z"}
    }


@pytest.mark.parametrize(
    ("terms", "field"),
    [(PERCENT, "percentOff"), (AMOUNT, "amountOff"), (GIFT, "giftSku")],
    ids=["percent", "amount", "gift"],
)
async def test_each_kind_has_exactly_its_own_value(shop: Shop, terms: dict[str, Any], field: str) -> None:
    pool = (await shop.do(CREATE_POOL, **terms))["pool"]

    values = {name: pool[name] for name in ("percentOff", "amountOff", "giftSku") if pool[name] is not None}
    assert values == {field: terms[field]}


@pytest.mark.parametrize("percent", [0.0001, 0.1, 12.3456, 99.9999, 100])
async def test_a_share_over_0_and_up_to_100_with_four_decimals_is_a_share(shop: Shop, percent: float) -> None:
    pool = (await shop.do(CREATE_POOL, **{**PERCENT, "percentOff": percent}))["pool"]

    assert pool["percentOff"] == percent


async def test_two_pools_may_have_one_name(shop: Shop) -> None:
    first = (await shop.do(CREATE_POOL, **PERCENT))["pool"]
    second = (await shop.do(CREATE_POOL, **PERCENT))["pool"]

    assert first["name"] == second["name"]
    assert first["id"] != second["id"]


@pytest.mark.parametrize(("input", "expected"), IMPOSSIBLE)
async def test_terms_without_sense_are_refused_with_every_problem(
    shop: Shop, input: dict[str, Any], expected: dict[str, str]
) -> None:
    refusal = await shop.refused(CREATE_POOL, **input)

    assert problems(refusal) == expected
    path, message = next(iter(expected.items()))
    assert refusal["message"] == f"{path} {message}."


@pytest.mark.parametrize("input", MALFORMED)
async def test_a_value_of_the_wrong_type_is_bad_user_input(shop: Shop, input: dict[str, Any]) -> None:
    assert await shop.failed(CREATE_POOL, **input) == "BAD_USER_INPUT"


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST"])
async def test_only_an_admin_creates_pools(shop: Shop, role: str) -> None:
    key = await shop.key(role)

    assert await shop.failed(CREATE_POOL, key=key, **PERCENT) == "FORBIDDEN"


async def test_a_member_creates_no_pool(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])

    assert await shop.failed(CREATE_POOL, key=token, **PERCENT) == "FORBIDDEN"
