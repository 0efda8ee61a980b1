"""apiKeys. Without these a shop couldn't see who holds a key, or which key asked for a member's token."""

from typing import Any

from tests.factories import CREATE_API_KEY, ISSUE_MEMBER_TOKEN, REVOKE_API_KEY, Shop

KEYS = """
query ($first: Int, $after: String) {
  apiKeys(first: $first, after: $after) {
    edges { cursor node { id label role createdAt revokedAt } } pageInfo { hasNextPage hasPreviousPage endCursor }
  }
}
"""
LATEST_EVENT = "{ events(first: 1) { edges { node { type subjectId actor } } } }"


async def _listed(shop: Shop, **page: Any) -> Any:
    return (await shop.data(KEYS, page))["apiKeys"]


async def test_keys_are_listed_newest_first_with_those_that_were_revoked(shop: Shop) -> None:
    roles = ["CHECKOUT", "SUPPORT", "ANALYST"]
    made = [(await shop.do(CREATE_API_KEY, label=role.lower(), role=role))["apiKey"] for role in roles]
    revoked = (await shop.do(REVOKE_API_KEY, apiKeyId=made[0]["id"]))["apiKey"]

    nodes = [edge["node"] for edge in (await _listed(shop))["edges"]]

    assert nodes[:3] == [made[2], made[1], revoked]
    assert [(node["label"], node["role"]) for node in nodes[3:]] == [("first key", "ADMIN")]
    assert revoked["revokedAt"] is not None


async def test_keys_come_in_pages(shop: Shop) -> None:
    for number in range(3):
        await shop.do(CREATE_API_KEY, label=f"till {number}", role="CHECKOUT")

    first = await _listed(shop, first=2)
    rest = await _listed(shop, first=2, after=first["pageInfo"]["endCursor"])

    assert [edge["node"]["label"] for edge in (*first["edges"], *rest["edges"])] == [
        "till 2", "till 1", "till 0", "first key"
    ]  # fmt: skip
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)


async def test_no_list_shows_a_secret_or_another_merchants_key(shop: Shop, other_shop: Shop) -> None:
    made = await shop.do(CREATE_API_KEY, label="till", role="CHECKOUT")

    assert made["secret"] not in str(await _listed(shop))
    assert [edge["node"]["label"] for edge in (await _listed(other_shop))["edges"]] == ["first key"]


async def test_who_asked_for_a_members_token_is_one_of_the_keys(shop: Shop) -> None:
    member, till = await shop.member(), await shop.key("CHECKOUT")

    await shop.do(ISSUE_MEMBER_TOKEN, key=till, memberId=member["id"])

    (edge,) = (await shop.data(LATEST_EVENT))["events"]["edges"]
    keys = {edge["node"]["id"]: edge["node"] for edge in (await _listed(shop))["edges"]}
    assert (edge["node"]["type"], edge["node"]["subjectId"]) == ("member.token_issued", member["id"])
    assert keys[edge["node"]["actor"]]["label"] == "CHECKOUT key"
