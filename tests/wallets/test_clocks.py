"""A clock that is set back. Without these what is new could stand below what is old, and balances seem to jump."""

from typing import Any

from app.storage.database import database
from tests.factories import CREATE_CAMPAIGN, Shop
from tests.points.documents import LIABILITY, broken, entries, grant, purchase, redeem, reward
from tests.unguarded import unguarded

WALLET = """
query ($codes: String, $entries: String) {
  wallet {
    codes(first: 2, after: $codes) { edges { cursor node { id allocatedAt expiresAt } } pageInfo { hasNextPage } }
    entries(first: 2, after: $entries) { edges { cursor node { id amount createdAt } } pageInfo { hasNextPage } }
  }
}
"""
#: What was written before was written by a clock that was an hour ahead of the present one.
DATED = {"code": "allocated_at", "points_entry": "created_at", "wallet": "changed_at"}


async def set_back(shop: Shop) -> None:
    """Set the clock back by an hour: what was dated until now is an hour ahead of it."""
    for table, column in DATED.items():
        async with unguarded(table) as tx:
            await tx.rows(
                f"UPDATE {table} SET {column} = {column} + interval '1 hour' WHERE merchant_id = $1", shop.merchant_id
            )


async def listed(shop: Shop, member: Any, name: str) -> list[Any]:
    """Return a list of a member's wallet, read in pages of two, oldest first."""
    key, after, found = await shop.token(member["id"]), None, []
    while True:
        page = (await shop.data(WALLET, {name: after}, key=key))["wallet"][name]
        found += [edge["node"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found[::-1]
        after = page["edges"][-1]["cursor"]


async def test_entries_are_in_the_order_of_their_balances(shop: Shop) -> None:
    member = await shop.member()
    made = [(await grant(shop, member, 100, "before"))["entry"]["id"]]
    await set_back(shop)

    made.append((await grant(shop, member, -30, "after"))["entry"]["id"])
    made.append((await purchase(shop, member, "order", 2_000))["entry"]["id"])
    mug = await reward(shop, cost=50)
    made.append((await redeem(shop, mug, member, "key"))["redemption"]["entry"]["id"])

    found = await listed(shop, member, "entries")
    assert [entry["id"] for entry in found] == made
    dates = [entry["createdAt"] for entry in found]
    assert dates == sorted(set(dates))
    assert [balance for _, balance, _ in await entries(shop, member)] == [100, 70, 90, 40]
    assert await broken(shop) == []


async def test_the_liability_of_a_date_is_never_below_what_anybody_had(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "before")
    await set_back(shop)
    await grant(shop, member, -30, "after")
    await grant(shop, member, 5, "later")

    dates = [entry["createdAt"] for entry in await listed(shop, member, "entries")]
    found = [(await shop.data(LIABILITY, {"asOf": date}))["pointsLiability"]["outstandingPoints"] for date in dates]

    assert found == [100, 70, 75]
    assert (await shop.data(LIABILITY))["pointsLiability"]["outstandingPoints"] == 75


async def test_codes_are_in_the_order_in_which_they_were_allocated(shop: Shop) -> None:
    member = await shop.member(email="clock@example.com", emailVerified=True)
    first, fallback = await shop.pool(codeLifetimeDays=2), await shop.pool()
    second, third = await shop.pool(), await shop.pool(codes=1, fallbackPoolId=fallback["id"])
    await shop.claim(third, await shop.member())
    made = [(await shop.claim(first, member))["id"]]
    await set_back(shop)

    made.append((await shop.claim(second, member))["id"])
    made.append((await shop.claim(third, member))["id"])
    sent = await shop.pool(codeLifetimeDays=1)
    await shop.do(CREATE_CAMPAIGN, name="Sent", poolId=sent["id"], recipients=[{"memberId": member["id"]}])
    made.append((await shop.claim(sent, member))["id"])
    backed = await reward(shop, cost=1, poolId=(await shop.pool())["id"])
    await grant(shop, member, 1, "for the reward")
    made.append((await redeem(shop, backed, member, "key"))["redemption"]["code"]["id"])

    found = await listed(shop, member, "codes")
    assert [code["id"] for code in found] == made
    dates = [code["allocatedAt"] for code in found]
    assert dates == sorted(set(dates))
    rows = await database().rows(
        "SELECT expires_at - allocated_at AS lifetime FROM code WHERE merchant_id = $1 AND expires_at IS NOT NULL",
        shop.merchant_id,
    )
    # The first one was dated anew, and not its end.
    assert sorted(row["lifetime"].total_seconds() for row in rows) == [86_400, 2 * 86_400 - 3_600]


async def test_a_code_in_nobodys_wallet_is_dated_by_the_clock(shop: Shop) -> None:
    pool = await shop.pool(codeLifetimeDays=3)
    document = 'mutation ($id: ID!) { claimCode(input: { poolId: $id, email: "c@example.com" }) { __typename } }'
    await shop.data(document, {"id": pool["id"]})
    await shop.do(CREATE_CAMPAIGN, name="Sent", poolId=pool["id"], recipients=[{"email": "d@example.com"}])

    rows = await database().rows(
        """
        SELECT expires_at - allocated_at AS lifetime, allocated_at <= now() AS is_past FROM code
        WHERE merchant_id = $1 AND state = 'ALLOCATED'
        """,
        shop.merchant_id,
    )

    assert [(row["lifetime"].days, row["is_past"]) for row in rows] == [(3, True), (3, True)]
