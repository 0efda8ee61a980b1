"""member, members, wallet. Without these a member could read another one, or an analyst read names and addresses."""

from typing import Any

import pytest

from app import ids
from tests.factories import Shop

FIELDS = "id externalId displayName maskedEmail emailVerified source joinedAt wallet { id version member { id } }"
MEMBER = f"query ($id: ID!) {{ member(id: $id) {{ {FIELDS} }} }}"
NODE = f"query ($id: ID!) {{ node(id: $id) {{ id ... on Member {{ {FIELDS} }} ... on Wallet {{ version }} }} }}"
MEMBERS = f"""
query ($first: Int, $after: String) {{
  members(first: $first, after: $after) {{
    edges {{ cursor node {{ {FIELDS} }} }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }}
  }}
}}
"""
WALLET = """
{ wallet { id version member { id displayName } codes { edges { node { id text state pool { id } owner { id } } } } } }
"""


async def _ada(shop: Shop) -> Any:
    return await shop.member(
        externalId="c-ada", email="ada@example.com", emailVerified=True, displayName="Ada", source="IMPORT"
    )


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT"])
async def test_a_till_sees_a_members_name_and_masked_address(shop: Shop, role: str) -> None:
    ada = await _ada(shop)

    seen = await shop.data(MEMBER, {"id": ada["id"]}, key=await shop.key(role))

    assert seen["member"] == ada | {"wallet": ada["wallet"] | {"member": {"id": ada["id"]}}}
    assert (seen["member"]["displayName"], seen["member"]["maskedEmail"]) == ("Ada", "a•••@example.com")


async def test_an_analyst_sees_names_and_addresses_masked(shop: Shop) -> None:
    ada = await _ada(shop)
    analyst = await shop.key("ANALYST")

    one = (await shop.data(MEMBER, {"id": ada["id"]}, key=analyst))["member"]
    node = (await shop.data(NODE, {"id": ada["id"]}, key=analyst))["node"]
    listed = (await shop.data(MEMBERS, key=analyst))["members"]["edges"][0]["node"]

    assert (one["displayName"], one["maskedEmail"]) == ("A•••", "a•••@example.com")
    assert node == one
    assert listed == one


async def test_a_member_without_name_and_address_has_none_for_anybody(shop: Shop) -> None:
    member = await shop.member()

    for key in (shop.admin, await shop.key("ANALYST"), await shop.token(member["id"])):
        seen = (await shop.data(MEMBER, {"id": member["id"]}, key=key))["member"]
        assert (seen["displayName"], seen["maskedEmail"]) == (None, None)


async def test_a_member_sees_itself_and_nobody_else(shop: Shop) -> None:
    ada, grace = await _ada(shop), await shop.member(displayName="Grace")
    token = await shop.token(ada["id"])

    assert (await shop.data(MEMBER, {"id": ada["id"]}, key=token))["member"]["displayName"] == "Ada"
    assert (await shop.data(NODE, {"id": ada["wallet"]["id"]}, key=token))["node"] == {
        "id": ada["wallet"]["id"],
        "version": 0,
    }
    for document in (MEMBER, NODE):
        for stranger in (grace["id"], grace["wallet"]["id"], ids.encode("member", ids.new())):
            assert list((await shop.data(document, {"id": stranger}, key=token)).values()) == [None]


async def test_a_member_cannot_list_members(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])

    assert await shop.error_code(MEMBERS, key=token) == "FORBIDDEN"


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT", "ANALYST"])
async def test_what_is_a_members_own_is_null_to_a_key_beside_the_rest(shop: Shop, role: str) -> None:
    document = "{ wallet { version } inviteQuota { perBatch } viewer { role member { id } } }"

    answer = await shop.data(document, key=await shop.key(role))

    assert answer == {"wallet": None, "inviteQuota": None, "viewer": {"role": role, "member": None}}


async def test_an_id_that_names_no_member_reads_as_null(shop: Shop) -> None:
    member = await shop.member()
    for member_id in (
        ids.encode("member", ids.new()),
        member["id"].upper(),
        f" {member['id']}",
        member["id"] + "0",
        member["wallet"]["id"],
        "\x00",
        "",
        "0",
    ):
        assert await shop.data(MEMBER, {"id": member_id}) == {"member": None}


async def test_members_are_listed_newest_first_page_by_page_without_gaps(shop: Shop, other_shop: Shop) -> None:
    made = [(await shop.member())["id"] for _ in range(7)]
    await other_shop.member()
    pages = []
    after = None

    while True:
        page = (await shop.data(MEMBERS, {"first": 3, "after": after}))["members"]
        pages.append([edge["node"]["id"] for edge in page["edges"]])
        info = page["pageInfo"]
        assert info["hasPreviousPage"] is (after is not None)
        assert (info["startCursor"], info["endCursor"]) == (page["edges"][0]["cursor"], page["edges"][-1]["cursor"])
        after = info["endCursor"]
        if not info["hasNextPage"]:
            break

    newest_first = made[::-1]
    assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]


async def test_a_member_enrolled_between_two_pages_shifts_nothing(shop: Shop) -> None:
    made = [(await shop.member())["id"] for _ in range(4)]
    first = (await shop.data(MEMBERS, {"first": 2}))["members"]
    await shop.member()

    second = (await shop.data(MEMBERS, {"first": 2, "after": first["pageInfo"]["endCursor"]}))["members"]

    assert [edge["node"]["id"] for edge in second["edges"]] == made[1::-1]


async def test_a_merchant_without_members_has_an_empty_page(shop: Shop) -> None:
    assert (await shop.data(MEMBERS))["members"] == {
        "edges": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


@pytest.mark.parametrize("first", [0, -1, 101, 2**31 - 1, -(2**31)])
async def test_a_page_size_out_of_bounds_is_bad_user_input(shop: Shop, first: int) -> None:
    assert await shop.error_code(MEMBERS, {"first": first}) == "BAD_USER_INPUT"


@pytest.mark.parametrize("after", ["", "x", "\x00", "é", "=" * 8, "A" * 10_000, "AAAAAAAAAAAAAAAAAAAAAA=="])
async def test_a_cursor_not_from_here_is_bad_user_input(shop: Shop, after: str) -> None:
    assert await shop.error_code(MEMBERS, {"after": after}) == "BAD_USER_INPUT"


async def test_a_member_reads_its_own_wallet(shop: Shop) -> None:
    pool, ada, grace = await shop.pool(codes=2), await _ada(shop), await shop.member()
    claimed = await shop.claim(pool, ada)
    await shop.claim(pool, grace)

    wallet = (await shop.data(WALLET, key=await shop.token(ada["id"])))["wallet"]

    assert wallet == {
        "id": ada["wallet"]["id"],
        "version": 1,
        "member": {"id": ada["id"], "displayName": "Ada"},
        "codes": {
            "edges": [
                {
                    "node": {
                        "id": claimed["id"],
                        "text": claimed["text"],
                        "state": "ALLOCATED",
                        "pool": {"id": pool["id"]},
                        "owner": {"id": ada["id"]},
                    }
                }
            ]
        },
    }


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT", "ANALYST"])
async def test_a_key_reads_a_members_codes_without_their_text(shop: Shop, role: str) -> None:
    ada = await _ada(shop)
    await shop.claim(await shop.pool(), ada)
    document = "query ($id: ID!) { member(id: $id) { wallet { codes { edges { node { text masked } } } } } }"

    seen = await shop.data(document, {"id": ada["id"]}, key=await shop.key(role))

    (edge,) = seen["member"]["wallet"]["codes"]["edges"]
    assert edge["node"]["text"] is None
    assert edge["node"]["masked"].startswith("PCT-••••")


async def test_a_members_pool_keeps_its_stock_and_its_codes_to_itself(shop: Shop) -> None:
    ada = await _ada(shop)
    await shop.claim(await shop.pool(), ada)
    token = await shop.token(ada["id"])

    for field in ("stock { total }", "codes { edges { cursor } }"):
        document = "{ wallet { codes { edges { node { pool { %s } } } } } }" % field  # noqa: UP031
        assert await shop.error_code(document, key=token) == "FORBIDDEN"
