"""Reports. Without these a BI tool could be shown wrong figures, a code or a person, or not understand the schema."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLField, GraphQLList, GraphQLObjectType, get_named_type, get_nullable_type

from app.api.access import ACCESS
from app.api.context import Role
from app.api.scalars import parse_date_time, serialize_date_time
from app.reports.tables import REPORTS, money_of
from app.storage.database import database
from app.web.graphql_documents import SCHEMA
from tests.factories import Shop
from tests.points.documents import grant
from tests.reports.documents import (
    SECRETS,
    expected,
    field_of,
    page_document,
    page_of,
    read,
    read_all,
    row_type,
    world,
)

#: What SQL over GraphQL knows and compares as what it is: of two Ints it takes 94 for the larger than 1,000.
SCALARS = {"ID", "String", "Float", "Boolean", "DateTime", "Date"}


def _query() -> dict[str, GraphQLField]:
    query: Any = SCHEMA.get_type("Query")
    fields: dict[str, GraphQLField] = query.fields
    return fields


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_has_the_shape_that_sql_over_graphql_finds(name: str) -> None:
    """It reads the names of types without looking into NON_NULL, but for columns."""
    connection: Any = _query()[field_of(name)].type
    edges = connection.fields["edges"].type
    node = edges.of_type.fields["node"].type
    columns = row_type(name).fields

    assert isinstance(connection, GraphQLObjectType)
    assert isinstance(edges, GraphQLList)
    assert isinstance(edges.of_type, GraphQLObjectType)
    assert node is row_type(name)
    assert next(iter(columns)) == "id"
    assert {str(get_nullable_type(column.type)) for column in columns.values()} <= SCALARS
    assert all(not column.args and "__" not in title for title, column in columns.items())
    assert ACCESS[f"Query.{field_of(name)}"].roles == {Role.ADMIN, Role.ANALYST}


def test_amounts_are_columns_in_units_and_in_minor_units() -> None:
    columns = {
        f"{name}.{title}": get_named_type(column.type).name
        for name in REPORTS
        for title, column in row_type(name).fields.items()
    }
    amounts = {title for title in columns if f"{title}Minor" in columns}

    assert len(amounts) == 12
    assert {columns[title] for title in amounts} | {columns[f"{title}Minor"] for title in amounts} == {"Float"}


async def test_reports_are_the_tables_row_by_row_and_show_no_code_name_or_address(shop: Shop, other_shop: Shop) -> None:
    texts = await world(shop)
    await other_shop.claim(await other_shop.pool(), await other_shop.member())

    reports, wanted = await read_all(shop), await expected(shop)

    for name in REPORTS:
        assert reports[name] == wanted[name], name
    assert [len(rows) for rows in reports.values()] == [3, 12, 4, 2, 7, 4, 3, 2]
    assert sum(row["discountMinor"] for row in reports["redemptions"]) == 625 + 799 + 799 + 799
    shown = json.dumps(reports, ensure_ascii=False)
    assert [secret for secret in (*SECRETS, *texts) if secret in shown] == []


async def test_pages_are_cut_by_where_the_last_one_ended(shop: Shop) -> None:
    await shop.pool(codes=7)
    whole = await read(shop, "codes")
    first = await page_of(shop, "codes", first=3)
    await shop.pool(codes=2)
    second = await page_of(shop, "codes", first=3, after=first["pageInfo"]["endCursor"])
    last = await page_of(shop, "codes", first=3, after=second["pageInfo"]["endCursor"])

    assert [edge["node"] for each in (first, second, last) for edge in each["edges"]] == whole
    stands = [(page["pageInfo"]["hasPreviousPage"], page["pageInfo"]["hasNextPage"]) for page in (first, second, last)]
    assert stands == [(False, True), (True, True), (True, False)]
    assert second["pageInfo"]["startCursor"] == second["edges"][0]["cursor"]
    nothing = await page_of(shop, "codes", after=last["pageInfo"]["endCursor"])
    assert nothing["edges"] == []
    assert (nothing["pageInfo"]["startCursor"], nothing["pageInfo"]["endCursor"]) == (None, None)


async def test_edges_may_be_asked_for_under_several_names(shop: Shop) -> None:
    await shop.pool(codes=25)
    document = "{ reportCodes { edges { cursor } again: edges { cursor node { id } } } }"

    answer = (await shop.data(document))["reportCodes"]

    assert len(answer["edges"]) == 25
    assert [edge["cursor"] for edge in answer["again"]] == [edge["cursor"] for edge in answer["edges"]]


async def test_since_and_until_are_met_to_the_millisecond(shop: Shop) -> None:
    for _ in range(3):
        await shop.member()
    newest, middle, oldest = await read(shop, "members")
    at = middle["insertedAt"]
    just_after = serialize_date_time(parse_date_time(at) + timedelta(microseconds=1))

    instants = [parse_date_time(each["insertedAt"]) for each in (oldest, middle, newest)]
    assert instants == sorted(set(instants))
    assert await read(shop, "members", since=at) == [newest, middle]
    assert await read(shop, "members", until=at) == [oldest]
    assert await read(shop, "members", since=at, until=newest["insertedAt"]) == [middle]
    assert await read(shop, "members", since=just_after) == [newest]
    assert await read(shop, "members", since=at, until=at) == []
    assert await read(shop, "members", since="0001-01-01T00:00:01Z", until="9999-12-31T23:59:59Z", first=2) == [
        newest, middle, oldest,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"first": 0}, "`first` must be between 1 and 1000."),
        ({"first": -1}, "`first` must be between 1 and 1000."),
        ({"first": 1001}, "`first` must be between 1 and 1000."),
        ({"after": "x"}, "`after` is not a cursor of this list."),
        ({"after": "é"}, "`after` is not a cursor of this list."),
        ({"after": ""}, "`after` is not a cursor of this list."),
        ({"since": "yesterday"}, None),
        ({"until": "2030-02-30T00:00:00Z"}, None),
    ],
)
async def test_arguments_that_cannot_be_are_the_users_mistake(
    shop: Shop, arguments: dict[str, Any], sentence: str | None
) -> None:
    answer = await shop.post(page_document("codes"), arguments)

    assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]
    assert sentence in {None, answer["errors"][0]["message"]}


@pytest.mark.filterwarnings("ignore:The dbapi:DeprecationWarning")
async def test_sql_over_graphql_sums_what_the_tables_sum(shop: Shop) -> None:
    """The dialect that Superset uses, by an ANALYST's key, in pages of two."""
    from sqlalchemy import create_engine, text

    await world(shop)
    key = await shop.key("ANALYST")
    counts = {
        "pool": 'SELECT count(*), sum(total) FROM "reportPools?iarg_first=2"',
        "code": "SELECT count(*), sum(state = 'REDEEMED') FROM \"reportCodes?iarg_first=2\"",
        "member": 'SELECT count(*), sum(points) FROM "reportMembers?iarg_first=2"',
        "purchase": 'SELECT count(*), sum(amountMinor) FROM "reportPurchases?iarg_first=2"',
        "points_entry": 'SELECT count(*), sum(amount) FROM "reportPointsEntries?iarg_first=2"',
        "redemption": 'SELECT count(*), sum(discountMinor) FROM "reportRedemptions?iarg_first=2"',
        "invite": 'SELECT count(*), sum(acceptedAt IS NOT NULL) FROM "reportInvites?iarg_first=2"',
        "referral": "SELECT count(*), sum(status = 'HELD') FROM \"reportReferrals?iarg_first=2\"",
    }
    wanted = {
        "pool": "(SELECT count(*) FROM code WHERE merchant_id = $1)",
        "code": "count(*) FILTER (WHERE state = 'REDEEMED')",
        "member": "(SELECT sum(points) FROM wallet WHERE merchant_id = $1)",
        "purchase": "sum(amount)",
        "points_entry": "sum(amount)",
        "redemption": "sum(discount)",
        "invite": "count(accepted_at)",
        "referral": "count(*) FILTER (WHERE released_at IS NULL)",
    }

    def by_the_dialect() -> dict[str, list[int]]:
        engine = create_engine(f"graphql://:{key}@{shop.url.removeprefix('http://')}?is_https=0")
        with engine.connect() as connection:
            return {name: list(connection.execute(text(sql)).one()) for name, sql in counts.items()}

    found = await asyncio.to_thread(by_the_dialect)

    for name, second in wanted.items():
        row = await database().row(
            f"SELECT count(*) AS a, {second} AS b FROM {name} WHERE merchant_id = $1", shop.merchant_id
        )
        assert row is not None
        assert found[name] == [row["a"], row["b"]], name


@pytest.mark.filterwarnings("ignore:The dbapi:DeprecationWarning")
async def test_sql_over_graphql_compares_numbers_as_numbers(shop: Shop) -> None:
    from sqlalchemy import create_engine, text

    await world(shop)
    for points in (94, 310, 1_000, 8):
        await grant(shop, await shop.member(), points, f"grant of {points}")
    reports = await read_all(shop)
    numbers = {
        name: [title for title, column in row_type(name).fields.items() if get_named_type(column.type).name == "Float"]
        for name in REPORTS
    }

    def by_the_dialect() -> tuple[dict[str, list[Any]], list[Any], list[Any]]:
        engine = create_engine(f"graphql://:{shop.admin}@{shop.url.removeprefix('http://')}?is_https=0")
        with engine.connect() as connection:
            extremes = {
                name: list(connection.execute(text(
                    f"SELECT {', '.join(f'min({title}), max({title})' for title in titles)} FROM {field_of(name)}"
                )).one())
                for name, titles in numbers.items() if titles
            }  # fmt: skip
            ordered = connection.execute(text("SELECT points FROM reportMembers ORDER BY points DESC LIMIT 3"))
            above = connection.execute(text("SELECT count(*) FROM reportMembers WHERE points > 95"))
            return extremes, [row[0] for row in ordered], list(above.one())

    extremes, ordered, above = await asyncio.to_thread(by_the_dialect)

    def known(name: str, title: str) -> list[Any]:
        return [row[title] for row in reports[name] if row[title] is not None] or [None]

    most = sorted(known("members", "points"), reverse=True)
    assert extremes == {
        name: [end(known(name, title)) for title in titles for end in (min, max)]
        for name, titles in numbers.items() if titles
    }  # fmt: skip
    assert ordered == most[:3]
    assert above == [sum(each > 95 for each in most)]
    # As text the greatest would be another one.
    assert max(most, key=str) != most[0]


async def test_a_deep_page_touches_what_the_first_one_does(shop: Shop) -> None:
    await shop.pool(codes=5000)
    page = REPORTS["codes"].page
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {page.text}"
    ends = await database().rows(
        "SELECT id FROM code WHERE merchant_id = $1 ORDER BY id DESC OFFSET 4800 LIMIT 1", shop.merchant_id
    )

    async def buffers(below: UUID) -> int:
        values = {"merchant_id": shop.merchant_id, "before": below, "from_id": UUID(int=0), "limit": 101}
        row = await database().row(explained, *page.arguments({**values, **money_of("USD")}))
        assert row is not None
        plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    first, deep = await buffers(UUID(int=2**128 - 1)), await buffers(ends[0]["id"])

    assert deep <= 1.3 * first + 5


async def test_a_report_costs_the_rows_that_its_page_may_have(shop: Shop) -> None:
    async def nodes(document: str, **variables: Any) -> int:
        headers = {"authorization": f"Bearer {await shop.key('ANALYST')}"}
        body = {"query": document, "variables": variables}
        answer = (await shop.http.post(shop.url, json=body, headers=headers)).json()
        cost: dict[str, int] = (answer.get("extensions") or answer["errors"][0]["extensions"])["cost"]
        return cost["nodes"]

    row = "{ edges { node { id } } }"
    by_variable = f"query ($n: Int = 300) {{ reportCodes(first: $n) {row} }}"

    assert await nodes(f"{{ reportCodes {row} }}") == 1_001
    assert await nodes(f"{{ reportCodes(first: 700) {row} pools(first: 700) {row} }}") == 802
    assert await nodes(by_variable) == 301
    assert await nodes(by_variable, n=900) == 901
    assert await nodes(by_variable, n=9_000) == 1_001
    assert await nodes(by_variable, n=None) == 1_001
    assert await nodes("{ " + " ".join(f"a{n}: reportCodes {row}" for n in range(20)) + " }") == 20_020
