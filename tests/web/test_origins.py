"""Other origins. Without these a frontend team's page couldn't call, or a stranger's page could read answers."""

from collections.abc import Iterator

import httpx
import pytest
import websockets

from app import config
from app.config import ConfigurationError
from tests.conftest import Api, run_api
from tests.factories import Shop
from tests.wallets.sockets import opened

LISTED = "https://shop.example"
FOREIGN = [
    "https://evil.example",
    "https://shop.example.evil.example",
    "http://shop.example",
    "https://shop.example:8443",
    "null",
    "http://[",
]
BODY = {"query": "{ viewer { role } }"}


@pytest.fixture(scope="module")
def listing_api(worker_database: str) -> Iterator[Api]:
    """An API process in production that lists two origins."""
    with run_api(worker_database, FLASH_ENV="production", FLASH_CORS_ORIGINS=f"{LISTED}, https://b.example") as api:
        yield api


async def _preflight(shop: Shop, url: str, origin: str) -> httpx.Response:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return await shop.http.options(f"{url}/graphql", headers={"origin": origin} | asked)


async def _ask(shop: Shop, url: str, origin: str, *, key: str | None = None, **headers: str) -> httpx.Response:
    given = {"origin": origin, "authorization": f"Bearer {shop.admin if key is None else key}"} | headers
    return await shop.http.post(f"{url}/graphql", json=BODY, headers=given)


async def _opens(url: str, origin: str) -> bool:
    try:
        async with opened(f"{url.replace('http', 'ws')}/graphql", origin=origin):
            return True
    except websockets.InvalidStatus as refused:
        if refused.response.status_code != 403:
            raise
        return False


async def test_a_listed_page_may_ask_with_a_key_and_remembers_that_it_may(shop: Shop, listing_api: Api) -> None:
    preflight = await _preflight(shop, listing_api.url, LISTED)
    answer = await _ask(shop, listing_api.url, LISTED)

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == LISTED
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"
    assert preflight.headers["access-control-allow-headers"] == "Authorization, Content-Type, *"
    assert preflight.headers["access-control-max-age"] == "7200"
    assert preflight.headers["vary"] == "Origin"
    assert answer.json()["data"] == {"viewer": {"role": "ADMIN"}}
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert answer.headers["access-control-expose-headers"] == "X-Request-Id"
    assert answer.headers["vary"] == "Origin"
    for response in (preflight, answer):
        assert "access-control-allow-credentials" not in response.headers


async def test_a_listed_page_reads_refusals_too(shop: Shop, listing_api: Api) -> None:
    strict = {"accept": "application/graphql-response+json"}
    answers = [
        await _ask(shop, listing_api.url, LISTED, key="nobody", **strict),
        await _ask(shop, listing_api.url, LISTED, accept="text/plain"),
        await shop.http.get(f"{listing_api.url}/nowhere", headers={"origin": LISTED}),
    ]

    assert [answer.status_code for answer in answers] == [401, 406, 404]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {LISTED}


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_reads_nothing_and_opens_nothing(shop: Shop, listing_api: Api, origin: str) -> None:
    preflight = await _preflight(shop, listing_api.url, origin)
    answer = await _ask(shop, listing_api.url, origin)
    stream = await _ask(shop, listing_api.url, origin, accept="text/event-stream")

    assert preflight.status_code == 405
    assert (stream.status_code, stream.json()["errors"][0]["extensions"]) == (403, {"code": "FORBIDDEN"})
    for response in (preflight, answer, stream):
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert response.headers["vary"] == "Origin"
    assert not await _opens(listing_api.url, origin)


async def test_listed_pages_and_the_engines_own_open_sockets_and_streams(shop: Shop, listing_api: Api) -> None:
    for origin in (LISTED, "https://b.example", listing_api.url):
        assert await _opens(listing_api.url, origin)
        stream = await _ask(shop, listing_api.url, origin, accept="text/event-stream")
        assert stream.status_code == 200
        assert "event: complete" in stream.text


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:3000", True),
        ("http://localhost", True),
        ("https://127.0.0.1:5173", True),
        ("http://[::1]:8080", True),
        ("http://localhost.evil.example", False),
        ("http://evil.example:3000", False),
        ("https://192.168.0.5:3000", False),
        ("null", False),
    ],
)
async def test_in_development_any_page_of_this_machine_may_call(shop: Shop, origin: str, is_allowed: bool) -> None:
    url = shop.url.removesuffix("/graphql")

    assert (await _preflight(shop, url, origin)).status_code == (204 if is_allowed else 405)
    answer = await _ask(shop, url, origin)
    assert answer.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
    assert await _opens(url, origin) is is_allowed


@pytest.mark.parametrize("origins", ["shop.example", "https://shop.example/", "*", "https://*.example", "null", "x y"])
def test_what_is_no_origin_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("FLASH_CORS_ORIGINS", origins)
    config.settings.cache_clear()

    with pytest.raises(ConfigurationError, match=r"FLASH_CORS_ORIGINS: .*https://shop\.example"):
        config.settings()
    monkeypatch.undo()
    config.settings.cache_clear()
