"""The record of coupon operations. Without these a change could go unrecorded, twice, or with a secret in it."""

from typing import Any

from app import ids
from app.storage.database import database
from tests.factories import CHANGE_STATUS, CREATE_POOL, EDIT_POOL, GENERATE_CODES, Shop

EVENTS = """
query ($first: Int, $after: String) {
  events(first: $first, after: $after) {
    edges { cursor node { id type subjectId actor occurredAt } } pageInfo { hasNextPage endCursor }
  }
}
"""


async def life(shop: Shop) -> list[tuple[str, str]]:
    """Do everything that can be done with a pool; return what must be on record, oldest first."""
    pool = (await shop.do(CREATE_POOL, name="Spring", kind="PERCENT", percentOff=10.0))["pool"]["id"]
    await shop.do(EDIT_POOL, poolId=pool, name="Summer")
    batch = (await shop.do(GENERATE_CODES, poolId=pool, count=3))["batch"]["id"]
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool)
    member = await shop.member(email="jo@example.com", displayName="Jo Doe")
    code = await shop.claim({"id": pool}, member)
    await shop.redeem([code["text"]], member, order="A-1")
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool)
    return [
        ("pool.created", pool),
        ("pool.edited", pool),
        ("codes.generated", batch),
        ("pool.activated", pool),
        ("member.enrolled", member["id"]),
        ("code.claimed", code["id"]),
        ("code.redeemed", code["id"]),
        ("pool.paused", pool),
        ("pool.activated", pool),
        ("pool.archived", pool),
    ]


async def test_each_change_has_one_event_that_names_its_subject_and_its_actor(shop: Shop) -> None:
    expected = await life(shop)

    edges = (await shop.data(EVENTS, {"first": 100}))["events"]["edges"]

    nodes = [edge["node"] for edge in reversed(edges)]
    assert [(node["type"], node["subjectId"]) for node in nodes[2:]] == expected
    assert [node["type"] for node in nodes[:2]] == ["api_key.created", "merchant.created"]
    assert len({node["actor"] for node in nodes[2:]}) == 1
    assert nodes[2]["actor"].startswith("apikey_")
    assert all(node["occurredAt"].endswith("Z") for node in nodes)
    for node in nodes:
        read = await shop.data("query ($id: ID!) { node(id: $id) { ... on Event { type } } }", {"id": node["id"]})
        assert read == {"node": {"type": node["type"]}}


async def test_the_subject_of_each_event_can_be_read(shop: Shop) -> None:
    await life(shop)
    edges = (await shop.data(EVENTS, {"first": 100}))["events"]["edges"]

    for edge in edges:
        subject = edge["node"]["subjectId"]
        assert await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": subject}) == {
            "node": {"id": subject}
        }


async def test_events_are_paged_without_gap_or_repetition(shop: Shop) -> None:
    await life(shop)
    whole = (await shop.data(EVENTS, {"first": 100}))["events"]
    followed: list[Any] = []
    after, more = None, True

    while more:
        page = (await shop.data(EVENTS, {"first": 5, "after": after}))["events"]
        followed += page["edges"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]

    assert followed == whole["edges"]
    assert len(followed) == 12


async def test_a_change_of_a_wallet_carries_the_member_and_the_version(shop: Shop) -> None:
    expected = await life(shop)

    rows = await database().rows(
        "SELECT type, subject_id, member_id, wallet_version FROM event WHERE merchant_id = $1 ORDER BY id",
        shop.merchant_id,
    )

    member_id = ids.decode("member", dict(expected)["member.enrolled"])
    code_id = ids.decode("code", dict(expected)["code.claimed"])
    assert [tuple(row.values()) for row in rows if row["member_id"] is not None] == [
        ("code.claimed", code_id, member_id, 1),
        ("code.redeemed", code_id, member_id, 2),
    ]


async def test_no_event_holds_personal_data_or_a_code(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    member = await shop.member(email="jo@example.com", displayName="Jo Doe", externalId="loyalty-4711")
    code = await shop.claim(pool, member)
    await shop.redeem([code["text"]], member, order="A-1")

    rows = await database().rows("SELECT * FROM event WHERE merchant_id = $1", shop.merchant_id)

    written = " ".join(str(value) for row in rows for value in row.values())
    for secret in ("jo@", "example.com", "Jo Doe", "loyalty-4711", code["text"], code["text"][4:], "PCT-"):
        assert secret not in written


async def test_a_checkout_and_a_member_read_no_events(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])
    own = (await shop.data(EVENTS))["events"]["edges"][0]["node"]["id"]

    for key in (await shop.key("CHECKOUT"), token):
        assert await shop.error_code(EVENTS, key=key) == "FORBIDDEN"
        assert await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": own}, key=key) == {"node": None}


async def test_an_analyst_reads_events_of_its_own_merchant_only(shop: Shop, other_shop: Shop) -> None:
    await life(other_shop)
    key = await shop.key("ANALYST")

    edges = (await shop.data(EVENTS, {"first": 100}, key=key))["events"]["edges"]

    assert [edge["node"]["type"] for edge in edges] == ["api_key.created", "merchant.created", "api_key.created"]
