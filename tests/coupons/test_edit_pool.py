"""editPool. Without these a term could change after codes were issued under it, or an edit could leave nonsense."""

from typing import Any

import pytest

from app import ids
from app.storage.database import database
from tests.factories import (
    CHANGE_STATUS,
    CREATE_POOL,
    EDIT_POOL,
    GENERATE_CODES,
    POOL,
    Shop,
    problems,
    usd,
)

READ = f"query ($id: ID!) {{ pool(id: $id) {{ {POOL} }} }}"
MONEY_RANGE = "must be between 1 and 1000000000000000"
#: Better and worse terms than those of `draft`, in the order of the input.
BETTER: dict[str, Any] = {
    "percentOff": 12.5,
    "minimumSpend": usd(4_000),
    "maximumDiscount": usd(3_000),
    "startsAt": "2026-04-30T00:00:00Z",
    "endsAt": "2096-01-01T00:00:00Z",
    "codeLifetimeDays": 60,
    "claimsPerMember": 3,
}
WORSE: dict[str, Any] = {
    "percentOff": 9.9999,
    "maximumDiscount": usd(1_999),
    "startsAt": "2026-05-01T00:00:01Z",
    "endsAt": "2094-01-01T00:00:00Z",
    "codeLifetimeDays": 29,
    "claimsPerMember": 1,
    "stacking": "STACKABLE",
    "transferable": True,
}
LIMITS = ("minimumSpend", "maximumDiscount", "startsAt", "endsAt", "codeLifetimeDays")
NOT_USD = "must be USD, the merchant's currency"

IMPOSSIBLE = [
    ({"name": None}, {"name": "must not be null"}),
    ({"claimsPerMember": None}, {"claimsPerMember": "must not be null"}),
    ({"stacking": None}, {"stacking": "must not be null"}),
    ({"transferable": None}, {"transferable": "must not be null"}),
    ({"name": ""}, {"name": "must not be blank"}),
    ({"name": "x" * 10_000}, {"name": "must be at most 200 characters"}),
    ({"name": "a\x00b"}, {"name": "must not contain control characters"}),
    ({"percentOff": None}, {"percentOff": "is what PERCENT pools need"}),
    ({"percentOff": 0}, {"percentOff": "must be over 0 and at most 100"}),
    ({"percentOff": 101}, {"percentOff": "must be over 0 and at most 100"}),
    ({"percentOff": -1}, {"percentOff": "must be over 0 and at most 100"}),
    ({"percentOff": 12.34567}, {"percentOff": "must have at most 4 decimals"}),
    ({"amountOff": usd(5)}, {"amountOff": "has no meaning in PERCENT pools"}),
    ({"giftSku": "MUG-1"}, {"giftSku": "has no meaning in PERCENT pools"}),
    ({"minimumSpend": usd(0)}, {"minimumSpend.amountMinor": MONEY_RANGE}),
    ({"minimumSpend": {"amountMinor": 5, "currency": "EUR"}}, {"minimumSpend.currency": NOT_USD}),
    ({"maximumDiscount": usd(-1)}, {"maximumDiscount.amountMinor": MONEY_RANGE}),
    ({"startsAt": "2026-06-01T00:00:00Z"}, {"endsAt": "must be after startsAt"}),
    ({"endsAt": "2026-04-30T00:00:00Z"}, {"endsAt": "must be after startsAt"}),
    ({"codeLifetimeDays": 0}, {"codeLifetimeDays": "must be between 1 and 3650"}),
    ({"claimsPerMember": 1001}, {"claimsPerMember": "must be between 1 and 1000"}),
]


async def draft(shop: Shop, **terms: Any) -> Any:
    """Create a pool whose window and optional terms are set."""
    values: dict[str, Any] = {
        "name": "Spring",
        "kind": "PERCENT",
        "percentOff": 10.0,
        "minimumSpend": usd(5_000),
        "maximumDiscount": usd(2_000),
        "startsAt": "2026-05-01T00:00:00Z",
        "endsAt": "2026-06-01T00:00:00Z",
        "codeLifetimeDays": 30,
    }
    return (await shop.do(CREATE_POOL, **(values | terms)))["pool"]


async def moved(shop: Shop, path: list[str]) -> Any:
    """Create a pool with a code and bring it somewhere in its life."""
    pool = await draft(shop, claimsPerMember=2, endsAt="2095-01-01T00:00:00Z")
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=1)
    for step in path:
        await shop.do(CHANGE_STATUS % step, poolId=pool["id"])
    return pool


async def test_an_edit_changes_what_it_names_and_leaves_the_rest(shop: Shop) -> None:
    pool = await draft(shop)

    answer = await shop.do(EDIT_POOL, poolId=pool["id"], name=" Summer ", percentOff=12.5, stacking="STACKABLE")

    assert answer["__typename"] == "EditPoolSuccess"
    assert answer["pool"] == pool | {"name": "Summer", "percentOff": 12.5, "stacking": "STACKABLE"}
    assert (await shop.data(READ, {"id": pool["id"]}))["pool"] == answer["pool"]
    assert (await shop.event_types())[-2:] == ["pool.created", "pool.edited"]


async def test_null_takes_an_optional_term_away(shop: Shop) -> None:
    pool = await draft(shop)
    taken_away: dict[str, Any] = dict.fromkeys(
        ("minimumSpend", "maximumDiscount", "startsAt", "endsAt", "codeLifetimeDays")
    )

    answer = await shop.do(EDIT_POOL, poolId=pool["id"], **taken_away)

    assert answer["pool"] == pool | taken_away


async def test_every_term_but_the_kind_can_be_edited(shop: Shop) -> None:
    pool = await draft(shop)
    terms: dict[str, Any] = {
        "name": "Autumn",
        "percentOff": 0.0001,
        "minimumSpend": usd(1),
        "maximumDiscount": usd(10**15),
        "startsAt": "2027-05-01T00:00:00Z",
        "endsAt": "2027-05-01T00:00:00.000001Z",
        "codeLifetimeDays": 3650,
        "claimsPerMember": 1000,
        "stacking": "STACKABLE",
        "transferable": True,
    }

    answer = await shop.do(EDIT_POOL, poolId=pool["id"], **terms)

    assert answer["pool"] == pool | terms


async def test_an_amount_pool_and_a_gift_pool_keep_their_own_values(shop: Shop) -> None:
    amount = (await shop.do(CREATE_POOL, name="A", kind="AMOUNT", amountOff=usd(500)))["pool"]
    gift = (await shop.do(CREATE_POOL, name="G", kind="GIFT", giftSku="MUG-1"))["pool"]

    assert (await shop.do(EDIT_POOL, poolId=amount["id"], amountOff=usd(700)))["pool"] == amount | {
        "amountOff": usd(700)
    }
    assert (await shop.do(EDIT_POOL, poolId=gift["id"], giftSku="CUP-1"))["pool"] == gift | {"giftSku": "CUP-1"}
    assert (await shop.do(EDIT_POOL, poolId=amount["id"], name="B"))["pool"]["amountOff"] == usd(700)


async def test_an_edit_of_nothing_is_still_on_record(shop: Shop) -> None:
    pool = await draft(shop)

    answer = await shop.do(EDIT_POOL, poolId=pool["id"])

    assert answer["pool"] == pool
    assert (await shop.event_types())[-1] == "pool.edited"


@pytest.mark.parametrize(("terms", "expected"), IMPOSSIBLE)
async def test_terms_without_sense_are_refused_and_the_pool_stays(
    shop: Shop, terms: dict[str, Any], expected: dict[str, str]
) -> None:
    pool = await draft(shop)

    refusal = await shop.refused(EDIT_POOL, poolId=pool["id"], **terms)

    assert problems(refusal) == expected
    assert (await shop.data(READ, {"id": pool["id"]}))["pool"] == pool


@pytest.mark.parametrize(
    "terms",
    [
        {"name": 5},
        {"kind": "AMOUNT"},
        {"status": "ACTIVE"},
        {"percentOff": "10"},
        {"startsAt": "2026-02-30T00:00:00Z"},
        {"endsAt": "2026-06-01T00:00:00"},
        {"claimsPerMember": 2**31},
        {"transferable": 1},
    ],
    ids=str,
)
async def test_a_value_of_the_wrong_type_is_bad_user_input(shop: Shop, terms: dict[str, Any]) -> None:
    pool = await draft(shop)

    assert await shop.failed(EDIT_POOL, poolId=pool["id"], **terms) == "BAD_USER_INPUT"
    assert (await shop.data(READ, {"id": pool["id"]}))["pool"] == pool


@pytest.mark.parametrize(
    "pool_id",
    [
        "",
        "pool_",
        "7",
        "pool_0123456789abcdef0123456789abcdef",
        "pool_0123456789ABCDEF0123456789ABCDEF",
        "pool_01234567-89ab-cdef-0123-456789abcdef",
        "code_0123456789abcdef0123456789abcdef",
        "pool_\x00",
        "pool_'; DROP TABLE pool; --",
    ],
)
async def test_an_id_that_names_no_pool_is_not_found(shop: Shop, pool_id: str) -> None:
    assert await shop.refused(EDIT_POOL, poolId=pool_id, name="Mine") == {
        "__typename": "NotFound",
        "message": "There is no such pool.",
        "id": pool_id,
    }


async def test_another_merchants_pool_is_not_found(shop: Shop, other_shop: Shop) -> None:
    pool = await draft(other_shop)

    assert await shop.refused(EDIT_POOL, poolId=pool["id"], name="Mine") == {
        "__typename": "NotFound",
        "message": "There is no such pool.",
        "id": pool["id"],
    }
    assert (await other_shop.data(READ, {"id": pool["id"]}))["pool"] == pool


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (["activatePool"], "ACTIVE"),
        (["activatePool", "pausePool"], "PAUSED"),
        (["activatePool", "archivePool"], "ARCHIVED"),
    ],
)
async def test_a_pool_that_left_draft_takes_no_worse_terms_and_names_them(
    shop: Shop, path: list[str], status: str
) -> None:
    pool = await moved(shop, path)
    why = "are fixed" if status == "ARCHIVED" else "may only improve for who holds a code"

    # What is better doesn't make up for what is worse.
    refusal = await shop.refused(EDIT_POOL, poolId=pool["id"], name="Summer", **WORSE, minimumSpend=usd(4_000))

    fields = ["percentOff", *["minimumSpend"] * (status == "ARCHIVED"), *list(WORSE)[1:]]
    assert refusal == {
        "__typename": "PoolNotEditable",
        "message": f"The terms of a pool in {status} {why}; this can't change so: {', '.join(fields)}.",
        "status": status,
        "fields": fields,
    }
    read = (await shop.data(READ, {"id": pool["id"]}))["pool"]
    assert read["name"] == pool["name"]


@pytest.mark.parametrize("path", [["activatePool"], ["activatePool", "pausePool"]], ids=["ACTIVE", "PAUSED"])
async def test_terms_improve_after_draft_and_the_rest_is_free(shop: Shop, path: list[str]) -> None:
    pool = await moved(shop, path)
    other = await shop.pool(codes=1)
    edit: dict[str, Any] = BETTER | {"name": "Summer"}

    answer = await shop.do(EDIT_POOL, poolId=pool["id"], **edit, recycleExpired=True, fallbackPoolId=other["id"])
    lifted = await shop.do(EDIT_POOL, poolId=pool["id"], **dict.fromkeys(LIMITS))

    assert answer["pool"] == pool | edit | {key: answer["pool"][key] for key in ("status", "allowedTransitions")}
    assert lifted["pool"] == answer["pool"] | dict.fromkeys(LIMITS)
    rows = await database().rows("SELECT version FROM pool_terms WHERE pool_id = $1", ids.decode("pool", pool["id"]))
    assert sorted(row["version"] for row in rows) == [1, 2, 3]


async def test_a_limit_that_was_lifted_does_not_come_back(shop: Shop) -> None:
    pool = await moved(shop, ["activatePool"])
    await shop.do(EDIT_POOL, poolId=pool["id"], **dict.fromkeys(LIMITS))

    refusal = await shop.refused(EDIT_POOL, poolId=pool["id"], **{key: BETTER[key] for key in LIMITS})

    assert sorted(refusal["fields"]) == sorted(LIMITS)


async def test_a_closed_pool_is_not_extended_but_can_be_named(shop: Shop) -> None:
    pool = await moved(shop, ["activatePool", "archivePool"])

    refusal = await shop.refused(EDIT_POOL, poolId=pool["id"], endsAt=None)
    named = await shop.do(EDIT_POOL, poolId=pool["id"], name="Spring, over")

    assert refusal["fields"] == ["endsAt"]
    assert named["pool"]["name"] == "Spring, over"


async def test_what_is_improved_applies_to_codes_that_were_issued_before(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    member = await shop.member()
    code = await shop.claim(pool, member)
    await shop.do(EDIT_POOL, poolId=pool["id"], percentOff=25.0)

    redeemed = await shop.redeem([code["text"]], member)

    assert redeemed["totalDiscount"]["amountMinor"] == 2_500


async def test_impossible_terms_are_told_before_the_status(shop: Shop) -> None:
    pool = await shop.pool(codes=1)

    assert problems(await shop.refused(EDIT_POOL, poolId=pool["id"], name="")) == {"name": "must not be blank"}


async def test_a_pool_with_codes_can_be_edited_while_it_is_a_draft(shop: Shop) -> None:
    pool = await shop.pool(codes=2, active=False)

    answer = await shop.do(EDIT_POOL, poolId=pool["id"], percentOff=20.0)

    assert answer["pool"] == pool | {"percentOff": 20.0}
    assert (await shop.stock(pool))["available"] == 2


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST"])
async def test_only_an_admin_edits_pools(shop: Shop, role: str) -> None:
    pool = await draft(shop)
    key = await shop.key(role)

    assert await shop.failed(EDIT_POOL, key=key, poolId=pool["id"], name="Mine") == "FORBIDDEN"
    rows = await database().rows("SELECT name FROM pool WHERE merchant_id = $1", shop.merchant_id)
    assert [row["name"] for row in rows] == ["Spring"]


TERMS = """
SELECT t.version, t.ends_at, t.claims_per_member, p.terms_version FROM pool_terms t
JOIN pool p ON p.merchant_id = t.merchant_id AND p.id = t.pool_id
WHERE t.merchant_id = $1 AND t.pool_id = $2 ORDER BY t.version
"""


async def versions(shop: Shop, pool: Any) -> list[tuple[int, int]]:
    """Return each version of a pool's terms with its limit of claims; the pool goes by the last one."""
    rows = await database().rows(TERMS, shop.merchant_id, ids.decode("pool", pool["id"]))
    assert {row["terms_version"] for row in rows} == {len(rows)}
    return [(row["version"], row["claims_per_member"]) for row in rows]


async def test_other_terms_are_the_next_version_and_the_first_one_stays(shop: Shop) -> None:
    pool = await draft(shop)

    await shop.do(EDIT_POOL, poolId=pool["id"], claimsPerMember=3)
    await shop.do(EDIT_POOL, poolId=pool["id"], claimsPerMember=2, endsAt="2026-07-01T00:00:00Z")

    assert await versions(shop, pool) == [(1, 1), (2, 3), (3, 2)]


@pytest.mark.parametrize("edit", [{}, {"name": "Summer"}, {"recycleExpired": True}, {"percentOff": 10.0}], ids=str)
async def test_an_edit_that_leaves_the_terms_makes_no_version(shop: Shop, edit: dict[str, Any]) -> None:
    pool = await draft(shop)

    await shop.do(EDIT_POOL, poolId=pool["id"], **edit)

    assert await versions(shop, pool) == [(1, 1)]


async def test_a_redemption_names_the_terms_that_its_discount_was_worked_out_by(shop: Shop) -> None:
    pool = await shop.pool(codes=1, active=False)
    await shop.do(EDIT_POOL, poolId=pool["id"], percentOff=20.0)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    member = await shop.member()

    await shop.redeem([(await shop.claim(pool, member))["text"]], member)

    rows = await database().rows("SELECT terms_version FROM redemption WHERE merchant_id = $1", shop.merchant_id)
    assert [row["terms_version"] for row in rows] == [2]
