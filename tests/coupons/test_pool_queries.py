"""pool, pools, codes, redemptions, wallet codes, stock. Without these a page could lose, repeat or leak a row."""

import asyncio
from typing import Any

import pytest

from tests.factories import CHANGE_STATUS, CREATE_POOL, GENERATE_CODES, POOL, Shop, usd
from tests.orders.presented import end_pool, expire, set_state

PAGE = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
#: Each list: how it is asked for, and where in the answer it is.
LISTS = {
    "pools": "query ($first: Int, $after: String) { list: pools(first: $first, after: $after) { %s } }",
    "codes": "query ($first: Int, $after: String) { list: codes(first: $first, after: $after) { %s } }",
    "redemptions": "query ($first: Int, $after: String) { list: redemptions(first: $first, after: $after) { %s } }",
    "wallet codes": (
        "query ($first: Int, $after: String) { wallet { list: codes(first: $first, after: $after) { %s } } }"
    ),
    "codes of pools": (
        "query ($first: Int, $after: String) "
        "{ pools { edges { node { list: codes(first: $first, after: $after) { %s } } } } }"
    ),
}
IDS = f"edges {{ cursor node {{ id }} }} {PAGE}"
CODES_IN_STATE = f"""
query ($state: CodeState, $after: String) {{ codes(first: 2, after: $after, state: $state) {{ {IDS} }} }}
"""
POOL_CODES = f"""
query ($id: ID!, $first: Int, $after: String, $state: CodeState) {{
  pool(id: $id) {{ codes(first: $first, after: $after, state: $state) {{ {IDS} }} }}
}}
"""


def found(data: Any) -> Any:
    """Return the one list of an answer of LISTS."""
    if "wallet" in data:
        return data["wallet"]["list"]
    if "pools" in data:
        return data["pools"]["edges"][0]["node"]["list"]
    return data["list"]


async def filled(shop: Shop) -> Any:
    """Fill every list with seven rows; return a token of the member whose codes they are."""
    member = await shop.member()
    token = await shop.token(member["id"])
    pool = await shop.pool(codes=7, claimsPerMember=7)
    for number in range(7):
        code = await shop.claim(pool, member, idempotencyKey=f"k{number}")
        await shop.redeem([code["text"]], member)
    return token


async def pages(shop: Shop, document: str, size: int, key: str | None = None) -> list[Any]:
    """Follow a list from page to page; return its pages."""
    followed: list[Any] = []
    after = None
    while not followed or followed[-1]["pageInfo"]["hasNextPage"]:
        data = await shop.data(document % IDS, {"first": size, "after": after}, key=key)
        followed.append(found(data))
        after = followed[-1]["pageInfo"]["endCursor"]
    return followed


def node_ids(connections: list[Any]) -> list[str]:
    """Return the ids on pages."""
    return [edge["node"]["id"] for connection in connections for edge in connection["edges"]]


# ------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("name", [name for name in LISTS if name != "pools"])
async def test_pages_follow_each_other_without_gap_or_repetition(shop: Shop, name: str) -> None:
    token = await filled(shop)
    key = token if name == "wallet codes" else None

    (whole,) = await pages(shop, LISTS[name], 7, key)
    followed = await pages(shop, LISTS[name], 3, key)

    assert len(set(node_ids([whole]))) == 7
    assert [len(each["edges"]) for each in followed] == [3, 3, 1]
    assert node_ids(followed) == node_ids([whole])
    assert [each["pageInfo"]["hasNextPage"] for each in followed] == [True, True, False]
    assert [each["pageInfo"]["hasPreviousPage"] for each in followed] == [False, True, True]
    for each in followed:
        assert each["pageInfo"]["startCursor"] == each["edges"][0]["cursor"]
        assert each["pageInfo"]["endCursor"] == each["edges"][-1]["cursor"]


async def test_pools_are_listed_newest_first(shop: Shop) -> None:
    made = [(await shop.pool(codes=0, active=False))["id"] for _ in range(5)]

    followed = await pages(shop, LISTS["pools"], 2)

    assert [len(each["edges"]) for each in followed] == [2, 2, 1]
    assert node_ids(followed) == made[::-1]


async def test_wallet_codes_are_listed_last_claimed_first_whatever_their_age(shop: Shop) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    pools = [await shop.pool(codes=1) for _ in range(5)]
    claimed = [(await shop.claim(pools[position], member))["id"] for position in (3, 0, 4, 1, 2)]

    followed = await pages(shop, LISTS["wallet codes"], 2, token)

    assert node_ids(followed) == claimed[::-1]


async def test_rows_that_come_in_while_paging_do_not_shift_the_pages(shop: Shop) -> None:
    made = [(await shop.pool(codes=0, active=False))["id"] for _ in range(4)]
    first = found(await shop.data(LISTS["pools"] % IDS, {"first": 2}))
    await shop.pool(codes=0, active=False)

    after = first["pageInfo"]["endCursor"]
    second = found(await shop.data(LISTS["pools"] % IDS, {"first": 2, "after": after}))

    assert node_ids([first, second]) == made[::-1]
    assert second["pageInfo"]["hasNextPage"] is False


@pytest.mark.parametrize("name", LISTS)
async def test_the_page_after_the_last_row_is_empty(shop: Shop, name: str) -> None:
    token = await filled(shop)
    key = token if name == "wallet codes" else None
    last = (await pages(shop, LISTS[name], 100, key))[-1]["pageInfo"]["endCursor"]

    empty = found(await shop.data(LISTS[name] % IDS, {"after": last}, key=key))

    assert empty == {
        "edges": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": True, "startCursor": None, "endCursor": None},
    }


async def test_fifty_is_the_size_of_a_page_and_a_hundred_the_most(shop: Shop) -> None:
    await shop.pool(codes=101, active=False)

    sizes = [
        len(found(await shop.data(LISTS["codes"] % IDS, variables))["edges"])
        for variables in ({}, {"first": None}, {"first": 1}, {"first": 100})
    ]

    assert sizes == [50, 50, 1, 100]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("first", [0, -1, 101, 2**31 - 1, 2**31, "5", 1.5, True])
async def test_a_page_size_outside_1_to_100_is_bad_user_input(shop: Shop, name: str, first: Any) -> None:
    await shop.pool(codes=0, active=False)
    key = await shop.token((await shop.member())["id"]) if name == "wallet codes" else None

    assert await shop.error_code(LISTS[name] % IDS, {"first": first}, key=key) == "BAD_USER_INPUT"


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "after",
    [
        "",
        "5",
        "not a cursor",
        "\x00",
        "é",
        "AAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAB",
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAA+",
        "AAAAAAAAAAAAAAAAAAAAAH__________",
        "A" * 10_000,
        5,
    ],
)
async def test_what_is_no_cursor_is_bad_user_input(shop: Shop, name: str, after: Any) -> None:
    await shop.pool(codes=0, active=False)
    key = await shop.token((await shop.member())["id"]) if name == "wallet codes" else None

    assert await shop.error_code(LISTS[name] % IDS, {"after": after}, key=key) == "BAD_USER_INPUT"


async def test_a_list_by_instant_and_a_list_by_id_refuse_each_others_cursors(shop: Shop) -> None:
    token = await filled(shop)
    by_id = (await pages(shop, LISTS["codes"], 7))[0]["pageInfo"]["startCursor"]
    by_instant = (await pages(shop, LISTS["wallet codes"], 7, token))[0]["pageInfo"]["startCursor"]

    for name in ("pools", "codes", "redemptions", "codes of pools"):
        assert await shop.error_code(LISTS[name] % IDS, {"after": by_instant}) == "BAD_USER_INPUT"
    assert await shop.error_code(LISTS["wallet codes"] % IDS, {"after": by_id}, key=token) == "BAD_USER_INPUT"


async def test_another_merchants_cursor_leads_to_own_rows_only(shop: Shop, other_shop: Shop) -> None:
    own = (await shop.pool(codes=0, active=False))["id"]
    foreign = await other_shop.pool(codes=0, active=False)
    after = found(await other_shop.data(LISTS["pools"] % IDS))["pageInfo"]["endCursor"]

    page = found(await shop.data(LISTS["pools"] % IDS, {"after": after}))

    assert node_ids([page]) == [own]
    assert foreign["id"] != own


async def test_codes_of_many_pools_are_paged_each_by_itself(shop: Shop) -> None:
    pools = [await shop.pool(codes=codes, active=False) for codes in (3, 0, 1, 5)]

    answer = await shop.data(f"{{ pools {{ edges {{ node {{ id codes(first: 2) {{ {IDS} }} }} }} }} }}")

    by_pool = {edge["node"]["id"]: edge["node"]["codes"] for edge in answer["pools"]["edges"]}
    assert [len(by_pool[pool["id"]]["edges"]) for pool in pools] == [2, 0, 1, 2]
    assert [by_pool[pool["id"]]["pageInfo"]["hasNextPage"] for pool in pools] == [True, False, False, True]
    for pool in pools:
        alone = await shop.data(POOL_CODES, {"id": pool["id"], "first": 2})
        assert alone["pool"]["codes"] == by_pool[pool["id"]]


# ----------------------------------------------------------------------------------------------------- filters


async def in_every_state(shop: Shop) -> tuple[list[Any], dict[str, set[str]]]:
    """Make two pools with codes in each state; return the pools and the ids of codes by state."""
    pools = [await shop.pool(codes=7), await shop.pool(codes=3)]
    by_state: dict[str, set[str]] = {"ALLOCATED": set(), "REDEEMED": set(), "EXPIRED": set(), "REVOKED": set()}
    for pool in pools:
        for state in ("ALLOCATED", "REDEEMED", "EXPIRED", "REVOKED") if pool is pools[0] else ("ALLOCATED",):
            member = await shop.member()
            code = await shop.claim(pool, member)
            if state == "REDEEMED":
                await shop.redeem([code["text"]], member)
            elif state != "ALLOCATED":
                await set_state(shop, code, state)
            by_state[state].add(code["id"])
    return pools, by_state


async def test_codes_can_be_listed_by_state(shop: Shop) -> None:
    _, by_state = await in_every_state(shop)
    everything = set(node_ids(await pages(shop, LISTS["codes"], 4)))
    by_state["AVAILABLE"] = everything - set().union(*by_state.values())

    for state, expected in by_state.items():
        listed: list[str] = []
        after, more = None, True
        while more:
            page = (await shop.data(CODES_IN_STATE, {"state": state, "after": after}))["codes"]
            listed += node_ids([page])
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        assert listed == sorted(expected, reverse=True)
    assert len(by_state["AVAILABLE"]) == 5


async def test_codes_of_one_pool_can_be_listed_by_state(shop: Shop) -> None:
    pools_made, by_state = await in_every_state(shop)

    allocated = [
        node_ids([(await shop.data(POOL_CODES, {"id": pool["id"], "state": "ALLOCATED"}))["pool"]["codes"]])
        for pool in pools_made
    ]

    assert [len(each) for each in allocated] == [1, 1]
    assert {each[0] for each in allocated} == by_state["ALLOCATED"]


async def test_wallet_codes_can_be_listed_by_state(shop: Shop) -> None:
    member = await shop.member()
    token = await shop.token(member["id"])
    pool = await shop.pool(codes=4, claimsPerMember=4)
    codes = [await shop.claim(pool, member, idempotencyKey=f"k{number}") for number in range(4)]
    await shop.redeem([codes[1]["text"]], member)
    document = f"query ($state: CodeState) {{ wallet {{ list: codes(state: $state) {{ {IDS} }} }} }}"

    listed = {
        state: node_ids([found(await shop.data(document, {"state": state}, key=token))])
        for state in ("ALLOCATED", "REDEEMED", "EXPIRED", None)
    }

    assert listed == {
        "ALLOCATED": [codes[3]["id"], codes[2]["id"], codes[0]["id"]],
        "REDEEMED": [codes[1]["id"]],
        "EXPIRED": [],
        None: [code["id"] for code in reversed(codes)],
    }


async def test_pools_can_be_listed_by_status(shop: Shop) -> None:
    made: dict[str, list[str]] = {status: [] for status in ("DRAFT", "ACTIVE", "PAUSED", "ARCHIVED")}
    for _ in range(2):
        for status, steps in (
            ("DRAFT", []), ("ACTIVE", ["activatePool"]), ("PAUSED", ["activatePool", "pausePool"]),
            ("ARCHIVED", ["activatePool", "archivePool"]),
        ):  # fmt: skip
            pool = await shop.pool(codes=1, active=False)
            for step in steps:
                await shop.do(CHANGE_STATUS % step, poolId=pool["id"])
            made[status].append(pool["id"])
    document = f"query ($status: PoolStatus) {{ list: pools(status: $status) {{ {IDS} }} }}"

    listed = {status: node_ids([found(await shop.data(document, {"status": status}))]) for status in made}

    assert listed == {status: pool_ids[::-1] for status, pool_ids in made.items()}
    assert await shop.error_code(document, {"status": "CLOSED"}) == "BAD_USER_INPUT"


# ------------------------------------------------------------------------------------------------ pools and stock


async def test_a_pool_is_read_by_its_id(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    document = f"query ($id: ID!) {{ pool(id: $id) {{ {POOL} }} node(id: $id) {{ ... on Pool {{ {POOL} }} }} }}"

    assert await shop.data(document, {"id": pool["id"]}) == {"pool": pool, "node": pool}


@pytest.mark.parametrize("pool_id", ["", "7", "pool_0123456789abcdef0123456789abcdef", "pool_\x00", "x" * 10_000])
async def test_an_id_that_names_no_pool_reads_as_null(shop: Shop, pool_id: str) -> None:
    document = "query ($id: ID!) { pool(id: $id) { id } node(id: $id) { id } }"

    assert await shop.data(document, {"id": pool_id}) == {"pool": None, "node": None}


async def test_nothing_of_another_merchant_can_be_read(shop: Shop, other_shop: Shop) -> None:
    token = await filled(other_shop)
    foreign = [
        *node_ids(await pages(other_shop, LISTS["pools"], 100)),
        *node_ids(await pages(other_shop, LISTS["codes"], 100)),
        *node_ids(await pages(other_shop, LISTS["redemptions"], 100)),
        (await other_shop.data("{ wallet { id } }", key=token))["wallet"]["id"],
    ]

    for name in ("pools", "codes", "redemptions"):
        assert node_ids(await pages(shop, LISTS[name], 100)) == []
    nodes = [await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": each}) for each in foreign]
    assert len(foreign) == 1 + 7 + 7 + 1
    assert nodes == [{"node": None}] * len(foreign)


@pytest.mark.parametrize("field", ["pools", "codes", "redemptions"])
async def test_a_member_lists_nothing_of_the_merchant(shop: Shop, field: str) -> None:
    token = await shop.token((await shop.member())["id"])

    assert await shop.error_code(f"{{ {field} {{ edges {{ node {{ id }} }} }} }}", key=token) == "FORBIDDEN"


async def test_a_member_reads_a_pool_through_its_code_and_never_the_stock(shop: Shop) -> None:
    pool, other = await shop.pool(codes=1), await shop.pool()
    member = await shop.member()
    await shop.claim(pool, member)
    token = await shop.token(member["id"])

    document = "query ($id: ID!) { node(id: $id) { id } }"
    by_node = [(await shop.data(document, {"id": each["id"]}, key=token))["node"] for each in (pool, other)]
    stock = "query ($id: ID!) { node(id: $id) { ... on Pool { stock { total } } } }"
    codes = "{ wallet { codes { edges { node { pool { name stock { total } } } } } } }"

    assert by_node == [{"id": pool["id"]}, None]
    assert (
        await shop.error_code("query ($id: ID!) { pool(id: $id) { id } }", {"id": pool["id"]}, key=token) == "FORBIDDEN"
    )
    assert await shop.error_code(stock, {"id": pool["id"]}, key=token) == "FORBIDDEN"
    assert await shop.error_code(codes, key=token) == "FORBIDDEN"


async def test_an_analyst_reads_everything_masked(shop: Shop) -> None:
    await filled(shop)
    key = await shop.key("ANALYST")

    answer = await shop.data(
        "{ pools { edges { node { stock { total } } } } codes { edges { node { masked text } } } "
        "redemptions { edges { node { orderId code { masked text } } } } }",
        key=key,
    )

    assert [edge["node"]["stock"]["total"] for edge in answer["pools"]["edges"]] == [7]
    assert [edge["node"]["text"] for edge in answer["codes"]["edges"]] == [None] * 7
    assert [edge["node"]["code"]["text"] for edge in answer["redemptions"]["edges"]] == [None] * 7
    assert all(edge["node"]["masked"].startswith("PCT-••••") for edge in answer["codes"]["edges"])


async def test_the_stock_counts_every_change(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    empty = await shop.pool(codes=0, active=False)
    member = await shop.member()
    code = await shop.claim(pool, member)
    await shop.claim(pool, await shop.member())
    await shop.redeem([code["text"]], member)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=10)

    document = "{ pools { edges { node { id stock { total available allocated redeemed expired revoked } } } } }"
    stocks = {edge["node"]["id"]: edge["node"]["stock"] for edge in (await shop.data(document))["pools"]["edges"]}

    nothing = {"total": 0, "available": 0, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 0}
    assert stocks == {
        pool["id"]: nothing | {"total": 15, "available": 13, "allocated": 1, "redeemed": 1},
        empty["id"]: nothing,
    }


async def test_money_is_in_the_merchants_currency_and_absent_terms_are_null(shop: Shop) -> None:
    made = await shop.do(CREATE_POOL, name="A", kind="AMOUNT", amountOff=usd(500), minimumSpend=usd(1))

    read = await shop.data(
        "query ($id: ID!) { pool(id: $id) { amountOff { amountMinor currency } minimumSpend { amountMinor } "
        "maximumDiscount { amountMinor } percentOff giftSku } }",
        {"id": made["pool"]["id"]},
    )

    assert read["pool"] == {
        "amountOff": usd(500), "minimumSpend": {"amountMinor": 1}, "maximumDiscount": None, "percentOff": None,
        "giftSku": None,
    }  # fmt: skip


async def test_a_code_past_its_lifetime_and_a_pool_past_its_end_are_still_read(shop: Shop) -> None:
    pool = await shop.pool(codes=1, codeLifetimeDays=1, endsAt="2999-01-01T00:00:00Z")
    code = await shop.claim(pool, member := await shop.member())
    await asyncio.gather(expire(shop, code), end_pool(shop, pool))
    token = await shop.token(member["id"])

    wallet = found(await shop.data(LISTS["wallet codes"] % "edges { node { id text state } }", key=token))

    assert wallet["edges"] == [{"node": {"id": code["id"], "text": code["text"], "state": "EXPIRED"}}]
