"""offers. Without these members would see offers that they can't have, or miss those that they can."""

from typing import Any

from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.coupons.ownership import claim_by_email
from tests.factories import CHANGE_STATUS, EDIT_POOL, Shop
from tests.points.documents import reward

OFFERS = """
query ($first: Int, $after: String) {
  offers(first: $first, after: $after) {
    edges { cursor node { claimable whyNot pool { id name audience stock: fallbackPool { id } }
                          code { id text owner { id wallet { version } } } } }
    pageInfo { hasNextPage endCursor }
  }
}
"""
POOL = "query ($id: ID!) { node(id: $id) { ... on Pool { name } } }"


async def offered(shop: Shop, token: str, **page: Any) -> dict[str, str | None]:
    """Return why the member of a token can't have each pool, by its name."""
    edges = (await shop.data(OFFERS, page, key=token))["offers"]["edges"]
    assert all(edge["node"]["claimable"] is (edge["node"]["whyNot"] is None) for edge in edges)
    return {edge["node"]["pool"]["name"]: edge["node"]["whyNot"] for edge in edges}


async def test_members_see_what_is_listed_and_why_they_cant_have_it(shop: Shop, other_shop: Shop) -> None:
    member = await shop.member(email="anna@example.com", emailVerified=True)
    token = await shop.token(member["id"])
    await shop.pool(name="unlisted")
    await other_shop.pool(name="theirs", listed=True)
    await shop.pool(name="draft", active=False, listed=True)
    await shop.pool(name="free", listed=True)
    mine = await shop.pool(name="mine", listed=True)
    await shop.claim(mine, member)
    later = await shop.pool(name="later", listed=True, startsAt="2090-01-01T00:00:00Z")
    paused = await shop.pool(name="paused", listed=True, audience=["LAPSED"])
    await shop.do(CHANGE_STATUS % "pausePool", poolId=paused["id"])
    await shop.pool(name="lapsed", listed=True, audience=["LAPSED"], codes=1)
    taken = await shop.pool(name="taken", listed=True)
    await claim_by_email(shop, taken, "anna+2@example.com")
    over = await shop.pool(name="over", listed=True, endsAt="2090-01-01T00:00:00Z")
    archived = await shop.pool(name="archived", listed=True)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=archived["id"])
    backing = await shop.pool(name="for points", listed=True)
    await reward(shop, poolId=backing["id"])
    empty = await shop.pool(name="empty", listed=True, codes=1)
    await shop.claim(empty, await shop.member())

    assert await offered(shop, token) == {
        "empty": "EXHAUSTED", "over": None, "taken": "MAILBOX", "lapsed": "AUDIENCE", "paused": "NOT_OPEN",
        "later": "NOT_OPEN", "mine": "HAS_ALL", "free": None,
    }  # fmt: skip
    assert {later["name"], over["name"]} == {"later", "over"}


async def test_an_empty_pool_is_offered_while_a_fallback_would_serve(shop: Shop) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    last = await shop.pool(name="last", codes=1)
    middle = await shop.pool(name="middle", audience=["LAPSED"], fallbackPoolId=last["id"])
    empty = await shop.pool(name="empty", listed=True, codes=1, fallbackPoolId=middle["id"])
    await shop.claim(empty, await shop.member())
    assert await offered(shop, token) == {"empty": None}

    await shop.claim(last, await shop.member())
    assert await offered(shop, token) == {"empty": "EXHAUSTED"}
    await shop.do(EDIT_POOL, poolId=middle["id"], audience=[])
    assert await offered(shop, token) == {"empty": None}


async def test_an_offer_shows_the_members_own_code_and_nothing_of_the_shops(shop: Shop) -> None:
    anna, ben = await shop.member(), await shop.member()
    pool = await shop.pool(listed=True, claimsPerMember=2, audience=["NEW"])
    codes = [await shop.claim(pool, anna, idempotencyKey=f"k{number}") for number in range(2)]
    unlisted = await shop.pool()

    (edge,) = (await shop.data(OFFERS, key=await shop.token(anna["id"])))["offers"]["edges"]
    assert edge["node"]["code"]["text"] == codes[1]["text"]
    assert edge["node"]["code"]["owner"] == {"id": anna["id"], "wallet": {"version": 2}}
    assert (edge["node"]["pool"]["audience"], edge["node"]["pool"]["stock"]) == (None, None)
    token = await shop.token(ben["id"])
    (edge,) = (await shop.data(OFFERS, key=token))["offers"]["edges"]
    assert (edge["node"]["code"], edge["node"]["claimable"]) == (None, True)
    assert (await shop.data(POOL, {"id": pool["id"]}, key=token))["node"] == {"name": pool["name"]}
    assert (await shop.data(POOL, {"id": unlisted["id"]}, key=token))["node"] is None


async def test_offers_are_for_members(shop: Shop) -> None:
    assert await shop.error_code(OFFERS) == "FORBIDDEN"


async def test_offers_come_in_pages(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])
    for number in range(5):
        await shop.pool(name=f"pool {number}", codes=1, listed=True)
    seen: list[str] = []
    after = None
    for _ in range(3):
        found = (await shop.data(OFFERS, {"first": 2, "after": after}, key=token))["offers"]
        seen += [edge["node"]["pool"]["name"] for edge in found["edges"]]
        after = found["pageInfo"]["endCursor"]

    assert seen == [f"pool {number}" for number in range(4, -1, -1)]
    assert found["pageInfo"]["hasNextPage"] is False


async def test_a_page_of_offers_is_three_round_trips_at_most(counter: Counter, counted_shop: Shop) -> None:
    member = await counted_shop.member()
    token = await counted_shop.token(member["id"])
    last = await counted_shop.pool()
    for number in range(6):
        pool = await counted_shop.pool(codes=2, listed=True, fallbackPoolId=last["id"])
        await counted_shop.claim(pool, await counted_shop.member())
        await counted_shop.claim(pool, member if number % 2 else await counted_shop.member())
    await counted_shop.data(OFFERS, key=token)

    one = await counter.during(lambda: counted_shop.data(OFFERS, {"first": 2}, key=token))
    all_of_them = await counter.during(lambda: counted_shop.data(OFFERS, {"first": 100}, key=token))

    assert (len(one), len(all_of_them)) == (3, 3)
