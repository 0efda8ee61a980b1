"""Credentials. Without these a malformed header could be a crash, or let somebody in."""

import pytest

from app import ids
from app.members import tokens
from app.merchants.tenants import tenant
from app.web.authentication import Unproven
from tests.conftest import Api, run_api
from tests.factories import CREATE_API_KEY, REVOKE_API_KEY, Shop

BODY = {"query": "{ viewer { role } }"}
RESPONSE_JSON = "application/graphql-response+json"
INTROSPECTION = "{ __schema { queryType { name } } __typename }"


def _headers(name: str, key: str) -> bytes | str:
    """Return a malformed Authorization header made of a working key."""
    made: dict[str, bytes | str] = {
        "empty": "",
        "no scheme": key,
        "other scheme": f"Basic {key}",
        "no credential": "Bearer",
        "two spaces": f"Bearer  {key}",
        "two credentials": f"Bearer {key} {key}",
        "comma": f"Bearer {key},",
        "quoted": f'Bearer "{key}"',
        "one letter less": f"Bearer {key[:-1]}",
        "one letter more": f"Bearer {key}A",
        "other letters": f"Bearer {key.swapcase()}",
        "non-ASCII": f"Bearer {key}é".encode(),
        "non-ASCII merchant": "Bearer flash_١٢٣_x".encode(),
        "latin-1": b"Bearer \xe9\xff",
        "not UTF-8": b"Bearer \xff\xfe",
        "non-ASCII token": "Bearer é.é.é".encode(),
        "long": "Bearer " + "x" * 5_000,
        "long key": f"Bearer {key}{'x' * 5_000}",
        "other merchant": f"Bearer flash_{'0' * 32}_{key.split('_', 2)[2]}",
    }
    return made[name]


REASONS = {
    "MISSING": ["empty"],
    "MALFORMED": [
        "no scheme", "other scheme", "no credential", "two spaces", "quoted", "other letters", "non-ASCII merchant",
        "latin-1", "not UTF-8", "non-ASCII token", "long", "long key",
    ],
    "UNKNOWN": ["two credentials", "comma", "one letter less", "one letter more", "non-ASCII", "other merchant"],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "name"), [(reason, name) for reason, names in REASONS.items() for name in names])
async def test_a_header_that_proves_nobody_is_told_why(shop: Shop, reason: str, name: str) -> None:
    given = _headers(name, shop.admin)
    value = given if isinstance(given, bytes) else given.encode()

    for accept, status in (("application/json", 200), (RESPONSE_JSON, 401)):
        headers = [(b"authorization", value), (b"accept", accept.encode())]
        response = await shop.http.post(shop.url, json=BODY, headers=headers)

        assert response.status_code == status
        (error,) = response.json()["errors"]
        assert error == {
            "message": Unproven[reason].value,
            "extensions": {"code": "UNAUTHENTICATED", "reason": reason},
        }


async def test_no_header_proves_nobody(shop: Shop) -> None:
    for accept, status in (("application/json", 200), (RESPONSE_JSON, 401)):
        response = await shop.http.post(shop.url, json=BODY, headers={"accept": accept})

        assert response.status_code == status
        assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_401_says_how_to_authenticate_and_what_was_wrong(shop: Shop) -> None:
    owner = await tenant(shop.merchant_id)
    member_id = ids.decode("member", (await shop.member())["id"])
    assert owner is not None
    assert member_id is not None
    revoked = await shop.do(CREATE_API_KEY, label="revoked", role="ANALYST")
    await shop.do(REVOKE_API_KEY, apiKeyId=revoked["apiKey"]["id"])
    expired, _ = tokens.issue(owner, member_id, -1, generation=0)
    credentials = {
        "MISSING": None,
        # Whoever can't sign a token doesn't learn that one would have expired.
        "UNKNOWN": expired.rpartition(".")[0] + "." + "A" * 43,
        "EXPIRED": expired,
        "REVOKED": revoked["secret"],
    }
    challenges = {}
    for reason, credential in credentials.items():
        for accept in (RESPONSE_JSON, "text/event-stream"):
            headers = {"accept": accept} | ({"authorization": f"Bearer {credential}"} if credential else {})
            response = await shop.http.post(shop.url, json=BODY, headers=headers)
            challenges[reason] = response.headers["www-authenticate"]

            assert response.status_code == 401
            assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED", "reason": reason}

    told = 'Bearer realm="flash", error="invalid_token", error_description="{}"'
    assert challenges == {
        "MISSING": 'Bearer realm="flash"',
        "UNKNOWN": told.format("There is no such key, or the token wasn't issued here."),
        "EXPIRED": told.format("The token has expired; get another one."),
        "REVOKED": told.format("The key or the token was revoked."),
    }


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_no_case(shop: Shop, scheme: str) -> None:
    response = await shop.http.post(shop.url, json=BODY, headers={"authorization": f"{scheme} {shop.admin}"})

    assert response.json()["data"] == {"viewer": {"role": "ADMIN"}}


@pytest.mark.parametrize("order", [1, -1])
async def test_two_headers_are_a_bad_request_even_if_one_is_good(shop: Shop, order: int) -> None:
    values = [shop.admin.encode(), b"flash_x"][::order]

    response = await shop.http.post(
        shop.url, json=BODY, headers=[(b"authorization", b"Bearer " + value) for value in values]
    )

    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_a_key_in_the_address_proves_nobody(shop: Shop) -> None:
    response = await shop.http.post(f"{shop.url}?authorization=Bearer%20{shop.admin}&key={shop.admin}", json=BODY)

    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_no_credential_reaches_the_log(shop: Shop, api: Api) -> None:
    await shop.post("{ viewer { role } }")
    await shop.post("{ viewer { role } }", key=shop.admin + "x")

    assert shop.admin.split("_", 2)[2] not in api.log.read_text()


async def test_in_development_the_schema_is_read_without_a_key_and_nothing_else_is(shop: Shop) -> None:
    async def ask(document: str, **more: str) -> object:
        answer = (await shop.http.post(shop.url, json={"query": document} | more)).json()
        assert answer.pop("extensions", {"cost": {}}).keys() == {"cost"}
        return answer

    unauthenticated = "Send a key or a token as `Authorization: Bearer …`."
    assert await ask(INTROSPECTION) == {"data": {"__schema": {"queryType": {"name": "Query"}}, "__typename": "Query"}}
    for document, more in (
        ("{ __typename viewer { role } }", {}),
        ("{ __typename ...f } fragment f on Query { viewer { role } }", {}),
        ("{ __typename ... { ... on Query { viewer { role } } } }", {}),
        ("{ __typename: viewer { role } }", {}),
        ("query A { __typename } query B { viewer { role } }", {"operationName": "B"}),
    ):
        answer = await ask(document, **more)
        assert isinstance(answer, dict)
        assert [error["message"] for error in answer["errors"]] in (
            [unauthenticated],
            ['Name "__typename" must not begin with "__", which is reserved by GraphQL introspection.'],
        )


async def test_in_production_the_schema_needs_a_key_and_there_are_no_pages(shop: Shop, worker_database: str) -> None:
    with run_api(worker_database, FLASH_ENV="production") as production:
        url = f"{production.url}/graphql"
        anonymous = await shop.http.post(url, json={"query": INTROSPECTION})
        known = await shop.post(INTROSPECTION, url=url)
        analyst = await shop.post(INTROSPECTION, url=url, key=await shop.key("ANALYST"))
        member = await shop.token((await shop.member())["id"])
        member_told = await shop.error_code(INTROSPECTION, key=member, url=url)
        named = await shop.data("{ viewer { __typename role } }", key=member, url=url)
        page = await shop.http.get(url, headers={"accept": "text/html"})
        statuses = {
            path: (await shop.http.get(production.url + path)).status_code
            for path in ("/", "/wallet", "/assets/graphiql/page.js", "/assets/", "/healthz", "/readyz")
        }

    assert anonymous.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert known["data"]["__schema"] == {"queryType": {"name": "Query"}}
    assert analyst == known
    # A member's token is in every copy of the app: it isn't a key.
    assert member_told == "FORBIDDEN"
    assert named == {"viewer": {"__typename": "Viewer", "role": "MEMBER"}}
    assert page.status_code == 406
    assert "<html" not in page.text
    assert statuses == dict.fromkeys(("/", "/wallet", "/assets/graphiql/page.js", "/assets/"), 404) | dict.fromkeys(
        ("/healthz", "/readyz"), 200
    )
