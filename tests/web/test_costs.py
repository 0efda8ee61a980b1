"""What documents cost. Without these a kilobyte could keep a process busy for minutes, or one request read a database.

Limits are met exactly: the greatest that is allowed is answered, one more is refused.
"""

import cProfile
import pstats
import re
from typing import Any

import pytest
from graphql import get_introspection_query, parse

from app.config import Settings
from app.web.document_costs import LONG_LISTS, measure_document
from app.web.graphql_documents import SCHEMA, Asked, Documents, judge_document
from tests.factories import Shop
from tests.wallets.sockets import address, joined
from tests.web.walk import operations

LIMITS = Settings()
NODES_MAX = 20_000
FIELDS_MAX = 50_000


async def _answer(shop: Shop, document: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {shop.admin}"}
    response = await shop.http.post(shop.url, json={"query": document, "variables": variables or {}}, headers=headers)
    answer: dict[str, Any] = response.json()
    return answer


async def _nodes(shop: Shop, document: str, variables: dict[str, Any] | None = None) -> int:
    """Return the cost that an answer tells, in its errors if it was refused for it."""
    answer = await _answer(shop, document, variables)
    cost: dict[str, int] = (answer.get("extensions") or answer["errors"][0]["extensions"])["cost"]
    assert cost["nodesMax"] == NODES_MAX
    return cost["nodes"]


def _refusal(document: str) -> list[tuple[str, str]]:
    return [(error.extensions["code"], error.message) for error in judge_document(document, LIMITS).errors]  # type: ignore[index]


def _aliases(count: int) -> str:
    return "{ " + " ".join(f"a{number}: viewer {{ role }}" for number in range(count)) + " }"


def _depth(depth: int) -> str:
    """Return a document this deep; a pool, its fallback, and so on."""
    return '{ pool(id: "x") { ' + "fallbackPool { " * (depth - 2) + "id" + " }" * depth


def _operations(count: int) -> str:
    return " ".join(f"query Q{number} {{ viewer {{ role }} }}" for number in range(count))


def _list(count: int) -> str:
    codes = " ".join('"x"' for _ in range(count))
    money = '{ amountMinor: 100, currency: "USD" }'
    return f'{{ checkCodes(input: {{ orderId: "o", codes: [{codes}], orderAmount: {money} }}) {{ __typename }} }}'


LIMITED = {
    "aliases": (_aliases, 30, "An operation has at most 30 aliases."),
    "depth": (_depth, 15, "Fields are nested at most 15 levels deep."),
    "operations": (_operations, 10, "A document holds at most 10 operations."),
    "list items": (_list, 250, "A list in an argument holds at most 250 items."),
}


@pytest.mark.parametrize("limited", LIMITED)
async def test_a_limit_is_met_exactly(shop: Shop, limited: str) -> None:
    document, most, sentence = LIMITED[limited]

    assert _refusal(document(most)) == []
    assert await _answer(shop, document(most + 1)) == {
        "errors": [{"message": sentence, "extensions": {"code": "COST_LIMIT_EXCEEDED"}}]
    }


def test_a_document_has_at_most_two_thousand_tokens() -> None:
    """Tokens are brackets and names, and the beginning of the file."""
    assert _refusal("{ viewer { " + "__typename role " * 20 + "} }") == []
    ((code, message),) = _refusal("{ viewer { " + "role " * 2_000 + "} }")

    assert code == "GRAPHQL_PARSE_FAILED"
    assert "2000 tokens" in message


@pytest.mark.parametrize("limited", ["aliases", "depth"])
def test_fragments_hide_nothing(limited: str) -> None:
    """What is spread counts where it is spread, wherever it stands."""
    bodies = {
        "aliases": ("{ x: viewer { ...V } y: viewer { ...V } }", "fragment V on Viewer { %s }", "a{0}: role"),
        "depth": ('{ pool(id: "x") { ...D0 } }', "%s fragment D14 on Pool { id }", ""),
    }
    document, fragment, alias = bodies[limited]
    if limited == "aliases":
        fits, beyond = (fragment % " ".join(alias.format(n) for n in range(count)) for count in (14, 15))
    else:
        chain = [f"fragment D{n} on Pool {{ fallbackPool {{ ...D{n + 1} }} }}" for n in range(14)]
        beyond = fragment % " ".join(chain)
        fits = beyond.replace("fallbackPool { ...D14 }", "id", 1).replace(" fragment D14 on Pool { id }", "")

    assert _refusal(f"{document} {fits}") == []
    assert _refusal(f"{document} {beyond}") == [("COST_LIMIT_EXCEEDED", LIMITED[limited][2])]


def test_a_fragment_is_counted_once_where_it_is_spread_twice() -> None:
    document = "{ ...A ...A ... { ...A } } fragment A on Query { " + " ".join(f"a{n}: __typename" for n in range(30))

    assert _refusal(document + " }") == []


def test_fields_are_counted_with_fragments_spread_out() -> None:
    """Fifteen levels of two are thirty thousand fields, in fewer than two hundred tokens."""
    doubling = " ".join(
        f"fragment F{n} on Referral {{ referrer {{ id ...M{n} }} referee {{ id ...M{n} }} }} "
        f"fragment M{n} on Member {{ referrals {{ edges {{ node {{ ...F{n + 1} }} }} }} }}"
        for n in range(2)
    )
    document = f"{{ referrals {{ edges {{ node {{ ...F0 }} }} }} }} {doubling} fragment F2 on Referral {{ id }}"
    operation = measure_document(parse(document), SCHEMA, LIMITS)[None]

    assert operation.measure.fields == 3 + 2 * (2 + 3 + 2 * (2 + 3 + 1))


def test_a_document_is_as_long_as_its_tokens_need_at_most() -> None:
    """A megabyte of empty lines, and a hundred errors behind them, each of which counts the lines: half a minute."""
    wrong = " ".join(f"a{number}" for number in range(1_900)) + " }"
    assert {code for code, _ in _refusal("{" + "\r\n" * 3_999 + wrong)} == {"GRAPHQL_VALIDATION_FAILED"}
    for ending in ("\n", "\r", "\r\n"):
        assert _refusal("{" + ending * 4_000 + wrong) == [("COST_LIMIT_EXCEEDED", "A document has at most 4000 lines.")]
    role = "{ viewer { role } }"
    assert _refusal(role.ljust(100_000)) == []
    assert _refusal(role.ljust(100_001)) == [("COST_LIMIT_EXCEEDED", "A document has at most 100000 characters.")]


@pytest.mark.parametrize("document", ["{ a b: pools }", "{ viewer { role }"], ids=["invalid", "no document"])
def test_what_is_kept_of_a_useless_document_is_its_errors_alone(document: str) -> None:
    judged = judge_document(document, LIMITS)

    assert judged.parsed is None
    assert judged.errors
    for error in judged.errors:
        assert error.locations
        assert (error.nodes, error.__traceback__, error.__context__) == (None, None, None)


def test_what_is_no_document_costs_nothing_and_is_told_as_what_it_is() -> None:
    for document in (
        "{ ...missing }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        '{ pool(id: "x") { ...A } } fragment A on Pool { fallbackPool { ...A } }',
        '{ pool(id: "x") { ...A } } fragment A on Nothing { fallbackPool { ...A } }',
        "{ nothing(first: 100) { nothing(first: 100) { nothing } } }",
    ):
        assert {code for code, _ in _refusal(document)} == {"GRAPHQL_VALIDATION_FAILED"}, document


def _within_a_kilobyte(beginning: str, part: str, end: str) -> str:
    """Return the longest document of less than 1,000 bytes; its parts are numbered, and its end knows how many."""
    documents = [
        beginning + "".join(part.format(n, n + 1, n + 2) for n in range(count)) + end.format(count)
        for count in range(1, 1_000)
    ]
    return max((document for document in documents if len(document) < 1_000), key=len)


POOL_ONE = "{pool(id:1){"
HOSTILE = {
    "fragments that double": (
        "{...a0}",
        "fragment a{0} on Query{{...a{1} ...a{1}}}",
        "fragment a{0} on Query{{viewer{{role}}}}",
    ),
    "fragments that double below aliases": (
        POOL_ONE + "...a0}}",
        "fragment a{0} on Pool{{x:fallbackPool{{...a{1}}}y:fallbackPool{{...a{1}}}}}",
        "fragment a{0} on Pool{{id}}",
    ),
    "fragments that spread the next two": (
        "{...a0}",
        "fragment a{0} on Query{{...a{1} ...a{2}}}",
        "fragment a{0} on Query{{viewer{{role}}}}",
    ),
    "a field again and again": ("{viewer{", "role ", "}}}}"),
    "an object again and again": ("{", "viewer{{role}}", "}}"),
    "an object again and again, deep": (POOL_ONE + "fallbackPool{", "fallbackPool{{id}}", "}}}}}}"),
    "unknown fields": ("{", "q{0} ", "}}"),
    "unknown types": ("{", "...on T{0}{{a}}", "}}"),
    "directives": ("{viewer", "@skip(if:true)", "{{role}}}}"),
    "variables": ("query(", "$a{0}:ID ", "){{viewer{{role}}}}"),
    "lists in lists": ("{pool(id:", "[", "){{id}}}}"),
    "braces": ("", "{{viewer", ""),
    "schemas": ("{", "s{0}:__schema{{types{{fields{{args{{name}}}}}}}}", "}}"),
}


@pytest.mark.parametrize("named", HOSTILE)
def test_a_kilobyte_is_judged_in_few_steps(named: str) -> None:
    """Counted in calls of Python functions, because times depend on the machine: 400,000 take about 40 ms."""
    document = _within_a_kilobyte(*HOSTILE[named])
    profile = cProfile.Profile()
    profile.runcall(judge_document, document, LIMITS)

    assert len(document) > 900
    assert pstats.Stats(profile).total_calls < 400_000  # type: ignore[attr-defined]


async def test_documents_are_kept_up_to_a_million_characters() -> None:
    documents = Documents(LIMITS)
    asked = [Asked("{ viewer { role } } #".ljust(19_998, "x") + f"{number:02}", None, {}) for number in range(51)]

    judged = [await documents.judged(each) for each in asked]

    assert await documents.judged(asked[50]) is judged[50]
    assert await documents.judged(asked[1]) is judged[1]
    assert await documents.judged(asked[0]) is not judged[0]


def test_ten_errors_of_a_document_are_told() -> None:
    told = _refusal(f"{{ {' '.join(f'x{number}' for number in range(50))} }}")

    assert [message for _, message in told[:10]] == [
        f"Cannot query field 'x{number}' on type 'Query'." for number in range(10)
    ]
    assert len(told) == 11


TOOLS = {
    "graphql-core": get_introspection_query(),
    "GraphiQL, Apollo and graphql-codegen": get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
        one_of=True,
    ),
    "Relay's node": "query Q($id: ID!) { node(id: $id) { __typename id ...P } } fragment P on Pool { name }",
}


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_tools_ask_is_answered(shop: Shop, tool: str) -> None:
    answer = await _answer(shop, TOOLS[tool], {"id": "x"} if "$id" in TOOLS[tool] else None)

    assert "errors" not in answer
    # With room for the schema to grow.
    assert answer["extensions"]["cost"]["nodes"] <= NODES_MAX * 3 / 4
    assert answer["extensions"]["cost"]["fields"] <= FIELDS_MAX * 3 / 4


async def test_the_schema_is_not_asked_for_again_and_again(shop: Shop) -> None:
    schema = get_introspection_query()
    body = schema[schema.index("__schema") : schema.index("fragment FullType")].rstrip().removesuffix("}")
    document = (
        "query I { "
        + " ".join(f"a{number}: {body}" for number in range(5))
        + " }"
        + schema[schema.index("fragment FullType") - 1 :]
    )

    assert (await _answer(shop, document))["errors"][0]["extensions"]["code"] == "COST_LIMIT_EXCEEDED"


CODES = "fragment P on Pool { codes(first: $n) { edges { cursor } } }"


@pytest.mark.parametrize(
    ("document", "variables", "nodes"),
    [
        ("{ viewer { role } }", {}, 1),
        ("{ viewer { role } a: viewer { role } }", {}, 2),
        ("{ pools { edges { node { id } } } }", {}, 51),
        ("{ pools(first: 3) { edges { cursor } } }", {}, 4),
        ("query ($n: Int) { pools(first: $n) { edges { cursor } } }", {"n": 7}, 8),
        ("query ($n: Int) { pools(first: $n) { edges { cursor } } }", {"n": 99.0}, 100),
        ("query ($n: Int = 9) { pools(first: $n) { edges { cursor } } }", {}, 10),
        ("query ($n: Int = 9) { pools(first: $n) { edges { cursor } } }", {"n": None}, 51),
        ("{ pools(first: 2) { edges { node { codes(first: 10) { edges { cursor } } } } } }", {}, 23),
        ("query ($n: Int) { pools(first: 2) { edges { node { ...P } } } } " + CODES, {"n": 5}, 13),
        ("query ($n: Int) { pools(first: $n) { edges { node { ...P ...P } } } } " + CODES, {"n": 5}, 31),
        ("{ pools(first: 100) { edges { node { codes(first: 100) { edges { cursor } } } } } }", {}, 10_101),
    ],
)
async def test_nodes_are_counted_through_lists_in_lists_and_told(
    shop: Shop, document: str, variables: dict[str, Any], nodes: int
) -> None:
    assert await _nodes(shop, document, variables) == nodes


async def test_more_nodes_than_allowed_are_refused_by_what_the_variables_say(shop: Shop) -> None:
    document = (
        "query ($n: Int!) { pools(first: $n) { edges { node { codes(first: $n) { edges { node { pool { ...P } } } } } "
        "} } } " + CODES
    )

    assert (await _answer(shop, document, {"n": 20}))["extensions"]["cost"] == {
        "nodes": 8_421, "nodesMax": NODES_MAX, "fields": 9_662, "fieldsMax": FIELDS_MAX
    }  # fmt: skip
    assert await _answer(shop, document, {"n": 100}) == {
        "errors": [
            {
                "message": "The operation asks for up to 1010101 nodes; at most 20000 are answered.",
                "extensions": {
                    "code": "COST_LIMIT_EXCEEDED",
                    "cost": {"nodes": 1_010_101, "nodesMax": NODES_MAX, "fields": 1_040_302, "fieldsMax": FIELDS_MAX},
                },
            }
        ]
    }


def _checked(count: int) -> dict[str, Any]:
    amount = {"amountMinor": 100, "currency": "USD"}
    return {"input": {"orderId": "o", "codes": ["x"] * count, "orderAmount": amount}}


CHECK = "query ($input: RedeemCodesInput!) { checkCodes(input: $input) { __typename } }"
INVITE = "mutation ($emails: [String!]!) { inviteMembers(input: { emails: $emails }) { __typename } }"


async def test_lists_in_variables_are_limited_but_for_those_that_hold_thousands_by_design(shop: Shop) -> None:
    """The verb refuses 21 codes, in words of its own; the edge 251, without asking it."""
    assert (await _answer(shop, CHECK, _checked(250)))["data"]["checkCodes"] == {"__typename": "InvalidInput"}
    assert (await _answer(shop, CHECK, _checked(251)))["errors"] == [
        {
            "message": "`$input` holds a list of 251; at most 250 are taken.",
            "extensions": {"code": "COST_LIMIT_EXCEEDED"},
        }
    ]
    key = await shop.token((await shop.member())["id"])
    for count in (251, 5_001):
        emails = [f"m{number}@example.com" for number in range(count)]
        answer = await shop.post(INVITE, {"emails": emails}, key=key)
        assert answer["data"]["inviteMembers"]["__typename"] != "InviteMembersSuccess"
    too_much: dict[str, tuple[str, dict[str, Any]]] = {
        "`$emails` holds a list of 10001; at most 10000 are taken.": (INVITE, {"emails": ["x"] * 10_001}),
        "`$input` holds 251 fields; at most 250 are taken.": (CHECK, {"input": {f"k{each}": 1 for each in range(251)}}),
    }
    for message, (document, variables) in too_much.items():
        (error,) = (await _answer(shop, document, variables))["errors"]
        assert error == {"message": message, "extensions": {"code": "COST_LIMIT_EXCEEDED"}}


def test_every_list_that_may_be_long_is_there() -> None:
    for coordinate in LONG_LISTS:
        kind, _, name = coordinate.partition(".")
        assert re.match(r"\[.*!\]", str(SCHEMA.get_type(kind).fields[name].type))  # type: ignore[union-attr]


async def test_sockets_refuse_what_requests_may_not_ask(shop: Shop) -> None:
    async with joined(address(shop), shop.admin) as socket:
        for document, variables in ((_aliases(31), {}), (_depth(16), {}), (CHECK, _checked(251))):
            await socket.subscribe(document, **variables)
            refused = await socket.receive()
            assert refused["type"] == "error"
            assert refused["payload"][0]["extensions"]["code"] == "COST_LIMIT_EXCEEDED"


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.coordinate)
def test_everything_can_be_asked_of_every_operation_at_once(operation: Any) -> None:
    assert _refusal(operation.document()) == []
