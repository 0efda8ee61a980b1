"""portfolio. Without these a merchant could be shown, and advised by, figures that aren't so."""

from typing import Any

import pytest

from app.advisor.portfolio import Quadrant, growth_of, quadrant
from app.coupons.expire_codes import expire_batch
from app.storage.database import database
from tests.advisor.documents import AGE_MEMBERS, AGE_PURCHASES, AGE_REDEMPTIONS, PORTFOLIO, age
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import CHANGE_STATUS, Shop, usd
from tests.graph.documents import taken
from tests.points.documents import CONFIGURE, purchase
from tests.referrals.documents import accepted, program

REVERSE = "mutation ($input: ReverseRedemptionInput!) { answer: reverseRedemption(input: $input) { __typename } }"
REVOKE = "mutation ($input: RevokeCodeInput!) { answer: revokeCode(input: $input) { __typename } }"
ISSUE = """mutation ($input: IssueCodesInput!) { answer: issueCodes(input: $input) {
    __typename ... on IssueCodesSuccess { batch { texts(first: 10) { edges { node { id text } } } } } } }"""
IMPORT = "mutation ($input: ImportCodesInput!) { answer: importCodes(input: $input) { __typename } }"
NOTHING = {"memberCount": 0, "redemptionRate": 0.0, "spend": usd(0)}


async def portfolio(shop: Shop, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a shop's pools and segments by name."""
    found = (await shop.data(PORTFOLIO, **how))["portfolio"]
    return (
        {each.pop("pool")["name"]: each for each in found["pools"]},
        {each.pop("name"): each for each in found["segments"]},
    )


async def spent(shop: Shop, pool: Any, *orders: str, amount: int = 10_000, days: int = 0) -> list[Any]:
    """Let a new member each claim and redeem a code of a pool, so many days ago."""
    redemptions = []
    for order in orders:
        member = await shop.member()
        code = await shop.claim(pool, member)
        redemptions += (await shop.redeem([code["text"]], member, order=order, amount=amount))["redemptions"]
    await age(AGE_REDEMPTIONS, shop, list(orders), days)
    return redemptions


async def test_pools_have_the_figures_of_the_formulas(shop: Shop, other_shop: Shop) -> None:
    await shop.do(CONFIGURE, marginRate=0.4)
    large = await shop.pool(name="large", codes=20)
    await spent(shop, large, "a1", "a2", "a3", days=5)
    await spent(shop, large, "a4", "a5", amount=333, days=40)
    small = await shop.pool(name="small", codes=8, kind="AMOUNT", amountOff=usd(5_000))
    await spent(shop, small, "b1", days=59)
    (returned,) = await spent(shop, small, "b2", days=1)
    await shop.do(REVERSE, redemptionId=returned["id"], reason="returned", reinstate=True)
    held = await shop.claim(small, await shop.member())
    await shop.do(REVOKE, codeId=held["id"], reason="stolen", recycle=False)
    await shop.pool(name="draft", codes=0, active=False)
    await spent(other_shop, await other_shop.pool(name="theirs"), "c1")

    pools, _ = await portfolio(shop)

    def impact(minor: int) -> dict[str, Any]:
        return {"amountMinor": minor, "currency": "USD"}

    assert list(pools) == ["large", "small", "draft"]
    assert pools["large"] == {
        "claimRate": 5 / 20, "redemptionRate": 1.0, "redemptionShare": 1.0, "redemptionGrowth": 0.5,
        # 0.4 of three orders of 100.00 and two of 3.33, less 10 % of each.
        "marginImpact": impact(round(30_666 * 0.4) - 3 * 1_000 - 2 * 33), "quadrant": "STAR",
    }  # fmt: skip
    # A revoked code was allocated once; a reversed redemption is none.
    assert pools["small"] == {
        "claimRate": 3 / 8, "redemptionRate": 1 / 3, "redemptionShare": 0.2, "redemptionGrowth": -1.0,
        "marginImpact": impact(4_000 - 5_000), "quadrant": "DOG",
    }  # fmt: skip
    assert pools["draft"] == {
        "claimRate": 0.0, "redemptionRate": 0.0, "redemptionShare": 0.0, "redemptionGrowth": None,
        "marginImpact": impact(0), "quadrant": "DOG",
    }  # fmt: skip


async def test_a_bearer_code_counts_once_it_is_redeemed(shop: Shop) -> None:
    pool = await shop.pool(name="printed", codes=10, transferable=True)
    issued = await shop.do(ISSUE, poolId=pool["id"], count=4, reason="flyers", idempotencyKey="k")
    printed = [edge["node"] for edge in issued["batch"]["texts"]["edges"]]
    await shop.claim(pool, await shop.member())
    drawer, _ = await portfolio(shop)
    member = await shop.member()
    (first,), (second,) = [(await shop.redeem([each["text"]], member))["redemptions"] for each in printed[:2]]
    await shop.do(REVOKE, codeId=printed[2]["id"], reason="misprinted", recycle=False)
    await shop.do(REVERSE, redemptionId=second["id"], reason="returned")
    spent, _ = await portfolio(shop)

    await shop.do(REVERSE, redemptionId=first["id"], reason="fraud", reinstate=False)
    kept, _ = await portfolio(shop)

    assert [(each["printed"]["claimRate"], each["printed"]["redemptionRate"]) for each in (drawer, spent, kept)] == [
        (1 / 10, 0.0), (2 / 10, 1 / 2), (2 / 10, 1 / 2)
    ]  # fmt: skip


async def test_stock_that_expired_was_never_allocated(shop: Shop) -> None:
    pool = await shop.pool(name="old", codes=2, active=False)
    imported = [{"text": "WINTER-2019-AB"}, {"text": "WINTER-2019-AC", "expiresAt": "2999-01-01T00:00:00Z"}]
    await shop.do(IMPORT, poolId=pool["id"], codes=imported, idempotencyKey="k")
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    await database().row(
        "UPDATE code SET expires_at = now() WHERE merchant_id = $1 AND expires_at IS NOT NULL", shop.merchant_id
    )
    assert await expire_batch(shop.merchant_id) == 1
    await shop.claim(pool, await shop.member())

    pools, _ = await portfolio(shop)

    assert pools["old"]["claimRate"] == 1 / 4


async def test_an_unknown_margin_is_taken_for_three_tenths(shop: Shop) -> None:
    await spent(shop, await shop.pool(name="pool"), "a1")

    pools, _ = await portfolio(shop)

    assert pools["pool"]["marginImpact"] == usd(3_000 - 1_000)


@pytest.mark.parametrize(
    ("share", "now", "before", "expected"),
    [
        (0.5, 11, 10, Quadrant.STAR),
        (1.0, 109, 100, Quadrant.CASH_COW),
        (0.49, 110, 100, Quadrant.QUESTION_MARK),
        (0.49, 109, 100, Quadrant.DOG),
        (0.0, 0, 0, Quadrant.DOG),
        (1.0, 0, 0, Quadrant.CASH_COW),
        (0.1, 1, 0, Quadrant.QUESTION_MARK),
        (1.0, 1, 0, Quadrant.STAR),
    ],
)
def test_a_quadrant_is_that_of_share_and_growth(share: float, now: int, before: int, expected: Quadrant) -> None:
    assert quadrant(share, growth_of(now, before), has_begun=now > 0) is expected


async def test_segments_are_who_they_say_they_are(shop: Shop) -> None:
    await program(shop)
    newcomer, regular, gone, hub = [await shop.member() for _ in range(4)]
    await age(AGE_MEMBERS, shop, [regular, gone, hub], 400)
    for member, order, amount, days in (
        (regular, "r1", 90_000, 89), (regular, "r2", 10_000, 366), (gone, "g1", 5_000, 91), (gone, "g2", 7_000, 364),
        (hub, "h1", 1_000, 1),
    ):  # fmt: skip
        await purchase(shop, member, order, amount)
        await age(AGE_PURCHASES, shop, [order], days)
    for _ in range(3):
        await accepted(shop, hub)
    await taken(shop)
    pool = await shop.pool(claimsPerMember=2)
    for number in range(2):
        code = await shop.claim(pool, regular, idempotencyKey=f"k{number}")
    await shop.redeem([code["text"]], regular)
    await shop.claim(pool, newcomer)

    _, segments = await portfolio(shop)

    assert segments == {
        "new": {"memberCount": 4, "redemptionRate": 0.0, "spend": usd(0)},
        "active": {"memberCount": 2, "redemptionRate": 0.5, "spend": usd(91_000)},
        "lapsed": {"memberCount": 1, "redemptionRate": 0.0, "spend": usd(12_000)},
        "high spend": {"memberCount": 1, "redemptionRate": 0.5, "spend": usd(90_000)},
        "advocates": {"memberCount": 1, "redemptionRate": 0.0, "spend": usd(1_000)},
    }


async def test_a_merchant_with_nothing_has_no_pools_and_empty_segments(shop: Shop) -> None:
    pools, segments = await portfolio(shop, key=await shop.key("ANALYST"))

    assert pools == {}
    assert segments == dict.fromkeys(("new", "active", "lapsed", "high spend", "advocates"), NOTHING)


async def test_sums_beyond_a_big_int_end_there(shop: Shop) -> None:
    await shop.do(CONFIGURE, marginRate=1)
    pool = await shop.pool(name="pool", codes=2, kind="AMOUNT", amountOff=usd(1))
    await spent(shop, pool, "a1", "a2")
    member = await shop.member()
    await purchase(shop, member, "o1", 1)
    most = 2**63 - 1
    await database().row("UPDATE redemption SET order_amount = $2 WHERE merchant_id = $1", shop.merchant_id, most)
    await database().row("UPDATE purchase SET amount = $2 WHERE merchant_id = $1", shop.merchant_id, most)
    await purchase(shop, member, "o2", 1)

    pools, segments = await portfolio(shop)

    assert pools["pool"]["marginImpact"] == usd(most)
    assert segments["active"]["spend"] == usd(most)


async def test_a_portfolio_is_four_round_trips_for_any_number_of_pools(counter: Counter, counted_shop: Shop) -> None:
    await portfolio(counted_shop)
    one = await counter.during(lambda: portfolio(counted_shop))
    for number in range(5):
        await counted_shop.pool(codes=1, name=f"pool {number}")
    many = await counter.during(lambda: portfolio(counted_shop))
    fields = "pools { quadrant } segments { name }"
    document = f"{{ a: portfolio {{ {fields} }} b: portfolio {{ {fields} }} }}"
    aliased = await counter.during(lambda: counted_shop.data(document))

    assert len(one) == len(many) == len(aliased) == 4
