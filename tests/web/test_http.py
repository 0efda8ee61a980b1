"""GraphQL over HTTP. Without these a request that is merely malformed could be a crash, or a forgery be let in."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.web.document_costs import BRACKETS_MAX
from tests.conftest import run_api
from tests.factories import ENROLL_MEMBER, Shop

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"
VIEWER = "{ viewer { role } }"
BODY_BYTES_MAX = 1_048_576


async def _send(
    shop: Shop, content: Any = None, *, method: str = "POST", params: dict[str, str] | None = None, **headers: str
) -> httpx.Response:
    """Send raw bytes as the shop's ADMIN; a header of value "" is left out."""
    given = {"authorization": f"Bearer {shop.admin}", "content-type": JSON}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in given.items() if value}
    return await shop.http.request(method, shop.url, content=content, headers=kept, params=params)


def _code(response: httpx.Response) -> str:
    """Return the code of an answer that is nothing but one error."""
    answer = response.json()
    assert answer.keys() == {"errors"}
    (error,) = answer["errors"]
    assert error["message"]
    code: str = error["extensions"]["code"]
    return code


def _asking(document: str = VIEWER, **more: Any) -> bytes:
    return json.dumps({"query": document} | more).encode()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused_and_told_which_are_allowed(shop: Shop, method: str) -> None:
    response = await _send(shop, _asking(), method=method)

    assert (response.status_code, response.headers["allow"], _code(response)) == (405, "GET, POST", "BAD_REQUEST")


async def test_head_is_refused_too(shop: Shop) -> None:
    response = await _send(shop, method="HEAD", params={"query": VIEWER})

    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


async def test_a_query_by_get_is_answered(shop: Shop) -> None:
    response = await _send(shop, method="GET", params={"query": VIEWER}, content_type="")

    assert response.status_code == 200
    assert response.json()["data"] == {"viewer": {"role": "ADMIN"}}


async def test_a_query_by_get_takes_variables_and_an_operation_name(shop: Shop) -> None:
    member = await shop.member()
    document = "query One { viewer { role } } query Two($id: ID!) { member(id: $id) { id } }"
    params = {"query": document, "operationName": "Two", "variables": json.dumps({"id": member["id"]})}

    response = await _send(shop, method="GET", params=params, content_type="")
    unnamed = await _send(shop, method="GET", params={"query": VIEWER, "operationName": ""}, content_type="")

    assert response.json()["data"] == {"member": {"id": member["id"]}}
    assert unnamed.json()["data"] == {"viewer": {"role": "ADMIN"}}


@pytest.mark.parametrize("variables", ["7", "[]", '"x"', "{", "", "NaN", "[" * 5_000, '{"a":' + "9" * 5_000 + "}"])
async def test_bad_variables_by_get_are_bad_requests(shop: Shop, variables: str) -> None:
    response = await _send(shop, method="GET", params={"query": VIEWER, "variables": variables}, content_type="")

    assert (response.status_code, _code(response)) == (400, "BAD_REQUEST")


async def test_get_without_a_document_is_a_bad_request(shop: Shop) -> None:
    response = await _send(shop, method="GET", content_type="")

    assert (response.status_code, _code(response)) == (400, "BAD_REQUEST")


async def test_a_mutation_by_get_is_refused_and_changes_nothing(shop: Shop) -> None:
    before = await shop.state()
    document = 'mutation { enrollMember(input: { source: STORE, externalId: "by-get" }) { __typename } }'

    response = await _send(shop, method="GET", params={"query": document}, content_type="")

    assert (response.status_code, response.headers["allow"], _code(response)) == (405, "POST", "BAD_REQUEST")
    assert await shop.state() == before


async def test_a_named_mutation_by_get_hides_behind_no_query(shop: Shop) -> None:
    before = await shop.state()
    document = "query A { viewer { role } } mutation B { enrollMember(input: { source: STORE }) { __typename } }"

    response = await _send(shop, method="GET", params={"query": document, "operationName": "B"}, content_type="")

    assert response.status_code == 405
    assert await shop.state() == before


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain",
        "image/png",
        "application/xml",
        "text/*",
        "text/html",
        ";",
        ",",
        "application/json;q=0",
        "*/*;q=0.0",
    ],
)
async def test_an_answer_that_cannot_be_given_is_not_acceptable(shop: Shop, accept: str) -> None:
    response = await _send(shop, _asking(), accept=accept)

    assert (response.status_code, _code(response)) == (406, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (JSON, JSON),
        (RESPONSE_JSON, RESPONSE_JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{RESPONSE_JSON}, {JSON};q=0.9", RESPONSE_JSON),
        (f"{RESPONSE_JSON}; charset=utf-8, {JSON}; charset=utf-8", RESPONSE_JSON),
        (f"{JSON}, text/event-stream", JSON),
        (f"{RESPONSE_JSON}, application/graphql+json, {JSON}, text/event-stream, multipart/mixed", RESPONSE_JSON),
        (RESPONSE_JSON.upper(), RESPONSE_JSON),
        (f"{RESPONSE_JSON};q=0.5, {JSON}", JSON),
        (f"text/event-stream;q=0, {JSON}; charset=utf-8; Q=0.1, {RESPONSE_JSON};q=0.2", RESPONSE_JSON),
        (f"{JSON};q=0, */*;q=0.1", RESPONSE_JSON),
        (f"{JSON};q=high", JSON),
    ],
)
async def test_the_answer_has_the_media_type_of_ours_that_weighs_most(shop: Shop, accept: str, answered: str) -> None:
    response = await _send(shop, _asking(), accept=accept)

    assert response.status_code == 200
    assert response.headers["content-type"] == f"{answered}; charset=utf-8"
    assert response.json()["data"] == {"viewer": {"role": "ADMIN"}}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/jsonx",
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        "text/plain; application/json",
    ],
)
async def test_a_body_of_another_type_is_refused_and_changes_nothing(shop: Shop, content_type: str) -> None:
    before = await shop.state()
    body = _asking(ENROLL_MEMBER, variables={"input": {"source": "STORE"}})

    response = await _send(shop, body, content_type=content_type)

    assert (response.status_code, _code(response)) == (415, "BAD_REQUEST")
    assert await shop.state() == before


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON", "application/json;charset=utf-8", 'application/json; charset="UTF-8"']
)
async def test_a_body_of_json_in_utf_8_is_taken(shop: Shop, content_type: str) -> None:
    assert (await _send(shop, _asking(), content_type=content_type)).status_code == 200


def _padded(length: int) -> bytes:
    """Return a body of exactly this many bytes."""
    bare = _asking()
    return bare[:-1] + b" " * (length - len(bare)) + b"}"


async def test_a_body_of_the_greatest_size_is_taken(shop: Shop) -> None:
    assert (await _send(shop, _padded(BODY_BYTES_MAX))).status_code == 200


async def test_a_body_over_the_limit_is_refused(shop: Shop) -> None:
    response = await _send(shop, _padded(BODY_BYTES_MAX + 1))

    assert (response.status_code, _code(response)) == (413, "BAD_REQUEST")


async def test_a_chunked_body_over_the_limit_is_refused(shop: Shop) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        whole = _padded(BODY_BYTES_MAX + 1)
        for start in range(0, len(whole), 65_536):
            yield whole[start : start + 65_536]

    response = await _send(shop, chunks())

    assert "content-length" not in response.request.headers
    assert (response.status_code, _code(response)) == (413, "BAD_REQUEST")


async def test_a_chunked_body_within_the_limit_is_taken(shop: Shop) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in _asking():
            yield bytes([byte])

    assert (await _send(shop, chunks())).json()["data"] == {"viewer": {"role": "ADMIN"}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b"true",
        b'"x"',
        b"[]",
        b"[" + _asking() + b"]",
        b"{}",
        b"{",
        b"\x00",
        b"NaN",
        b'{"query": NaN}',
        b'{"query": Infinity}',
        b"\xff\xfe\x00",
        _asking().decode().encode("utf-16"),
        _asking().decode().encode("utf-8-sig"),
        b'{"query": "\xff"}',
        b"\x1f\x8b\x08\x00garbage",
        b"[" * 50_000,
        b"[" * 50_000 + b"]" * 50_000,
        b'{"query":' * 50_000,
        b'{"query": ' + b"9" * 5_000 + b"}",
        b'{"query": "{ viewer { role } }", "variables": {"first": ' + b"9" * 5_000 + b"}}",
        b'{"query": "{ viewer { role } }", "variables": {"first": -' + b"9" * 5_000 + b"}}",
        b'{"query": "{ viewer { role } }", "variables": {"first": 1e' + b"9" * 5_000 + b"}}",
        b'{"query": null}',
        b'{"query": 7}',
        b'{"query": ""}',
        b'{"query": ["{ viewer { role } }"]}',
        b'{"query": "{ viewer { role } }",}',
        b'{"query": "{ viewer { role } }"} {}',
        _asking(variables=[]),
        _asking(variables="{}"),
        _asking(variables=7),
        _asking(variables=True),
        _asking(operationName=7),
        _asking(operationName=[]),
        _asking(extensions="x"),
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_a_body_that_is_no_request_is_a_bad_request(shop: Shop, body: bytes) -> None:
    for accept in (JSON, RESPONSE_JSON):
        response = await _send(shop, body, accept=accept)

        code = "COST_LIMIT_EXCEEDED" if body.count(b"[") + body.count(b"{") > BRACKETS_MAX else "BAD_REQUEST"
        assert (response.status_code, _code(response)) == (400, code)
        assert response.headers["content-type"] == f"{accept}; charset=utf-8"


@pytest.mark.parametrize("text", ["\\ud800", "a\\udc00", "\\ud83d\\ud83d", "\\ud800\\n"])
async def test_half_of_a_surrogate_pair_is_bad_user_input(shop: Shop, text: str) -> None:
    variables = f'{{"id": "{text}"}}'
    body = f'{{"query": "query ($id: ID!) {{ pool(id: $id) {{ id }} }}", "variables": {variables}}}'
    params = {"query": "query ($id: ID!) { pool(id: $id) { id } }", "variables": variables}

    for response in (await _send(shop, body.encode()), await _send(shop, method="GET", params=params, content_type="")):
        assert (response.status_code, _code(response)) == (400, "BAD_USER_INPUT")


async def test_a_compressed_body_is_a_bad_request(shop: Shop) -> None:
    response = await _send(shop, gzip.compress(_asking()), content_encoding="gzip")

    assert (response.status_code, _code(response)) == (400, "BAD_REQUEST")


async def test_null_and_missing_parameters_are_the_same(shop: Shop) -> None:
    response = await _send(shop, _asking(variables=None, operationName=None, extensions=None))

    assert response.json()["data"] == {"viewer": {"role": "ADMIN"}}


async def test_unknown_members_of_a_request_are_ignored(shop: Shop) -> None:
    assert (await _send(shop, _asking(doc_id="x"))).status_code == 200


TWO = "query One { viewer { role } } query Two { viewer { merchant { currency } } }"


async def test_the_named_operation_is_executed(shop: Shop) -> None:
    answer = (await _send(shop, _asking(TWO, operationName="Two"))).json()

    assert answer["data"] == {"viewer": {"merchant": {"currency": "USD"}}}


@pytest.mark.parametrize("name", [None, "", "Three", "one", "__proto__", "\x00", "x" * 10_000])
async def test_an_operation_that_is_not_there_is_bad_user_input(shop: Shop, name: str | None) -> None:
    body = _asking(TWO, operationName=name)

    strict = await _send(shop, body, accept=RESPONSE_JSON)
    lenient = await _send(shop, body, accept=JSON)

    assert (strict.status_code, _code(strict)) == (400, "BAD_USER_INPUT")
    assert (lenient.status_code, _code(lenient)) == (200, "BAD_USER_INPUT")


FAULTS = [
    ("{", "GRAPHQL_PARSE_FAILED", 400),
    ("query", "GRAPHQL_PARSE_FAILED", 400),
    ("\u0000", "GRAPHQL_PARSE_FAILED", 400),
    ('{ pool(id: "\\uD800") { id } }', "GRAPHQL_PARSE_FAILED", 400),
    ("{ " + "viewer " * 2_000 + "}", "GRAPHQL_PARSE_FAILED", 400),
    ("{ pool(id: " + "[" * 1_900 + ") { id } }", "GRAPHQL_PARSE_FAILED", 400),
    ("{" + "viewer{" * 1_900, "GRAPHQL_PARSE_FAILED", 400),
    ("{ nothing }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("{ viewer }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("{ viewer { role } } { viewer { role } }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("{ ...missing }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("query ($id: ID!) { viewer { role } }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("{ pool { id } }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("subscription { walletChanged { version } viewer { role } }", "GRAPHQL_VALIDATION_FAILED", 400),
    ("subscription { walletChanged { version } }", "BAD_USER_INPUT", 400),
    ("{ pools(first: 1.5) { edges { cursor } } }", "BAD_USER_INPUT", 400),
    ('{ pools(first: "1") { edges { cursor } } }', "BAD_USER_INPUT", 400),
    ("{ pools(status: NOWHERE) { edges { cursor } } }", "BAD_USER_INPUT", 400),
    ("{ pools(first: " + "9" * 5_000 + ") { edges { cursor } } }", "BAD_USER_INPUT", 400),
    ("query ($first: Int!) { pools(first: $first) { edges { cursor } } }", "BAD_USER_INPUT", 400),
]


@pytest.mark.parametrize(("document", "code", "status"), FAULTS, ids=[fault[0][:40] for fault in FAULTS])
async def test_a_document_that_cannot_be_executed_has_a_code(shop: Shop, document: str, code: str, status: int) -> None:
    strict = await _send(shop, _asking(document), accept=RESPONSE_JSON)
    lenient = await _send(shop, _asking(document), accept=JSON)

    for response, expected in ((strict, status), (lenient, 200)):
        assert response.status_code == expected
        answer = response.json()
        assert answer.keys() == {"errors"}
        assert {error["extensions"]["code"] for error in answer["errors"]} == {code}
        assert "Traceback" not in response.text
        assert "set_int_max_str_digits" not in response.text


#: The sentence, and what is suggested.
SUGGESTED = {
    "{ viewr { role } }": ("Cannot query field 'viewr' on type 'Query'.", "viewer"),
    "{ viewer }": ("Field 'viewer' of type 'Viewer!' must have a selection of subfields.", "viewer { ... }"),
    "{ rewards(frist: 1) { edges { cursor } } }": ("Unknown argument 'frist' on field 'Query.rewards'.", "first"),
}


async def test_what_was_meant_is_suggested_in_development_only(shop: Shop, worker_database: str) -> None:
    variables = {"input": {"memberId": "x", "poolld": "y"}}
    document = "mutation ($input: ClaimCodeInput!) { claimCode(input: $input) { __typename } }"
    told: dict[str, list[str]] = {}
    with run_api(worker_database, FLASH_ENV="production") as production:
        for url in (shop.url, f"{production.url}/graphql"):
            answers = [await shop.post(each, url=url) for each in SUGGESTED]
            answers.append(await shop.post(document, variables, url=url))
            told[url] = [answer["errors"][-1]["message"] for answer in answers]

    development, strict = told.values()
    assert development[:3] == [f"{said} Did you mean '{suggested}'?" for said, suggested in SUGGESTED.values()]
    assert strict[:3] == [said for said, _ in SUGGESTED.values()]
    assert "it has poolId, memberId" in development[3]
    assert "poolId" not in strict[3]


async def test_so_many_errors_in_variables_are_told_and_no_more(shop: Shop) -> None:
    document = "mutation ($input: PoolIdInput!) { pausePool(input: $input) { __typename } }"
    body = _asking(document, variables={"input": {f"unknown{number}": number for number in range(200)}})

    errors = (await _send(shop, body)).json()["errors"]

    assert len(errors) == 11
    assert {error["extensions"]["code"] for error in errors} == {"BAD_USER_INPUT"}
    assert errors[-1]["message"] == "Too many errors processing variables, error limit reached. Execution aborted."


async def test_a_deep_document_after_a_deep_one_is_still_judged(shop: Shop) -> None:
    """A parser that overflowed its stack must leave the process as it was."""
    for _ in range(3):
        assert _code(await _send(shop, _asking("{" + "viewer{" * 900))) == "GRAPHQL_PARSE_FAILED"
        assert (await _send(shop, _asking())).status_code == 200


async def test_fragments_that_spread_each_other_twice_are_judged_once_each(shop: Shop) -> None:
    """Sixty levels, walked anew at each spread, are more steps than the process could make."""
    spreads = "".join(f"fragment f{level} on Query {{ ...f{level + 1} ...f{level + 1} }}" for level in range(60))
    document = f"{{ ...f0 }} {spreads} fragment f60 on Query {{ viewer {{ role }} }}"

    assert (await _send(shop, _asking(document))).json()["data"] == {"viewer": {"role": "ADMIN"}}


async def test_a_field_that_fails_is_an_answer_with_data_under_both_media_types(shop: Shop) -> None:
    for accept in (JSON, RESPONSE_JSON):
        authorization = f"Bearer {await shop.key('CHECKOUT')}"
        content = _asking("{ viewer { role } latestAdviceRun { id } }")
        response = await _send(shop, content, accept=accept, authorization=authorization)

        answer = response.json()
        assert response.status_code == 200
        assert answer["data"] == {"viewer": {"role": "CHECKOUT"}, "latestAdviceRun": None}
        assert [error["path"] for error in answer["errors"]] == [["latestAdviceRun"]]


@pytest.mark.parametrize(
    "path", ["/graphql/x", "/graphql/", "/nowhere", "/.env", "/healthz/x", "/assets/../../main.py"]
)
async def test_what_is_not_there_is_not_found(shop: Shop, path: str) -> None:
    response = await shop.http.get(shop.url.removesuffix("/graphql") + path)

    assert response.status_code == 404
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/assets/%2e%2e/__init__.py", "/assets/..%2f__init__.py", "/assets//etc/passwd"])
async def test_nothing_beside_the_assets_is_served(shop: Shop, path: str) -> None:
    response = await shop.http.get(shop.url.removesuffix("/graphql") + path)

    assert response.status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/graphql"), ("PUT", "/graphql"), ("GET", "/healthz"), ("GET", "/readyz")]
)
async def test_every_answer_has_its_headers(shop: Shop, method: str, path: str) -> None:
    url = shop.url.removesuffix("/graphql") + path

    seen = set()
    for _ in range(2):
        response = await shop.http.request(method, url, content=_asking(), headers={"content-type": JSON})
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "server" not in response.headers
        if path == "/graphql":
            assert response.headers["cache-control"] == "no-store"
        seen.add(response.headers["x-request-id"])
    assert len(seen) == 2
    assert all(len(request_id) == 32 for request_id in seen)


async def test_a_cached_document_takes_new_variables(shop: Shop) -> None:
    first, second = await shop.member(), await shop.member()
    document = "query ($id: ID!) { member(id: $id) { id } }"

    for member in (first, second, first):
        assert await shop.data(document, {"id": member["id"]}) == {"member": {"id": member["id"]}}
