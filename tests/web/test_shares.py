"""Shares. Without these one caller, or nobody in particular, could take what was meant for everybody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from app import ids
from app.merchants import api_keys
from bench.wire import counting
from tests.conftest import Api, run_api
from tests.factories import Shop
from tests.wallets.sockets import Socket, joined, opened

ROLE = "{ viewer { role } }"
WAIT_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def narrow_api(worker_database: str) -> Iterator[Api]:
    """An API process with room for few streams, where nobody is hurried who says nothing."""
    limits = {
        "FLASH_STREAMS_MAX": "10",
        "FLASH_STREAMS_PER_MEMBER_MAX": "2",
        "FLASH_STREAMS_PER_KEY_SHARE": "0.3",
        "FLASH_SOCKETS_WAITING_MAX": "3",
        "FLASH_SOCKET_INIT_SECONDS_MAX": "60",
    }
    with run_api(worker_database, **limits) as running:
        yield running


def _sockets(api: Api) -> str:
    return f"{api.url.replace('http', 'ws')}/graphql"


async def _refused(url: str, token: str) -> tuple[int, str]:
    """Return why a socket of this token is closed."""
    async with opened(url) as socket:
        await socket.send(type="connection_init", payload={"token": token})
        return await socket.closed()


async def _stream(shop: Shop, api: Api, key: str) -> Any:
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {key}"}
    return await shop.http.post(f"{api.url}/graphql", json={"query": ROLE}, headers=headers)


@asynccontextmanager
async def _joined(count: int, url: str, key: str) -> AsyncIterator[list[Socket]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(joined(url, key)) for _ in range(count)]


async def _until_joined(url: str, key: str) -> None:
    """Join as soon as there is room: that a socket has closed is heard of a little later."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            with contextlib.suppress(AssertionError):
                async with joined(url, key):
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("who", "most"), [("member", 2), ("key", 3)])
async def test_nobody_has_more_than_a_share_of_the_streams(shop: Shop, narrow_api: Api, who: str, most: int) -> None:
    token = await shop.token((await shop.member())["id"])
    other = await shop.token((await shop.member())["id"])
    url, key = _sockets(narrow_api), token if who == "member" else shop.admin
    full = f"This {who} has {most} streams open here; close one."
    async with _joined(most, url, key) as sockets:
        assert await _refused(url, key) == (1013, full)
        refused = await _stream(shop, narrow_api, key)
        async with joined(url, other):
            assert (await _stream(shop, narrow_api, other)).status_code == 200
        await sockets[0].connection.close()
        await _until_joined(url, key)

    assert refused.status_code == 429
    assert refused.json()["errors"] == [{"message": full, "extensions": {"code": "TOO_MANY_STREAMS"}}]


async def test_who_says_nothing_takes_no_stream_and_goes_when_others_come(shop: Shop, narrow_api: Api) -> None:
    token = await shop.token((await shop.member())["id"])
    url = _sockets(narrow_api)
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(opened(url)) for _ in range(20)]
        closed = [await socket.closed() for socket in silent[:17]]
        async with _joined(2, url, token), _joined(3, url, shop.admin):
            for _ in range(3):
                await stack.enter_async_context(opened(url))
            last = [await socket.closed() for socket in silent[17:]]

    assert {code for code, _ in (*closed, *last)} == {4408}


def _made_up(shop: Shop, number: int) -> str:
    return f"{api_keys.PREFIX}{shop.merchant_id.hex}_{number:043}"


async def _ask(shop: Shop, url: str, key: str, **headers: str) -> Any:
    sent = {"authorization": f"Bearer {key}", "accept": "application/graphql-response+json"} | headers
    return await shop.http.post(url, json={"query": ROLE}, headers=sent)


async def test_a_made_up_key_is_looked_up_once_in_a_while(shop: Shop, worker_database: str) -> None:
    async with counting(worker_database) as (through, waits), AsyncExitStack() as stack:
        running = run_api(through, FLASH_DATABASE_CONNECTIONS_MAX="1", FLASH_FAILED_AUTHENTICATIONS_MAX="5")
        # The proxy runs on this loop, so waiting for the process to get ready must not block it.
        api = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        url = f"{api.url}/graphql"
        await _ask(shop, url, _made_up(shop, 0))
        waits.clear()
        again = [(await _ask(shop, url, _made_up(shop, 0))).status_code for _ in range(20)]
        looked_up = len([each for each in waits if each in {api_keys.FIND.text, api_keys.FIND_REVOKED.text}])
        others = [(await _ask(shop, url, _made_up(shop, number))).status_code for number in range(1, 51)]
        finds = waits.count(api_keys.FIND.text)
        foreign = f"{api_keys.PREFIX}{ids.new().hex}_x"
        stranger = await _ask(shop, url, foreign)

    assert (set(again), looked_up) == ({401}, 0)
    assert (others, finds) == ([401] * 4 + [429] * 46, 4)
    assert stranger.status_code == 429


async def test_the_limit_of_an_address_stops_nobody_who_was_known_before(shop: Shop, worker_database: str) -> None:
    member = await shop.member()
    analyst = await shop.key("ANALYST")
    with run_api(worker_database, FLASH_FAILED_AUTHENTICATIONS_MAX="3", FLASH_API_KEY_CACHE_SECONDS="0") as api:
        url = f"{api.url}/graphql"
        assert (await _ask(shop, url, shop.admin)).status_code == 200
        assert (await _ask(shop, url, await shop.token(member["id"]))).status_code == 200
        for number in range(3):
            assert (await _ask(shop, url, _made_up(shop, number))).status_code == 401
        beyond = await _ask(shop, url, analyst)
        socket = await _refused(_sockets(api), analyst)
        known = await _ask(shop, url, shop.admin)
        # Its merchant is known, so that nothing is read for it.
        new_token = await _ask(shop, url, await shop.token(member["id"], lifetimeSeconds=100))
        elsewhere = [
            (await _ask(shop, url, analyst, **{"x-forwarded-for": address})).status_code
            for address in ("203.0.113.7", "2001:db8:1:2:3:4:5:6")
        ]

    message = "Too many keys and tokens from this address proved nobody; try again in a minute."
    assert (beyond.status_code, beyond.headers["retry-after"]) == (429, "60")
    assert beyond.json()["errors"] == [{"message": message, "extensions": {"code": "TOO_MANY_ATTEMPTS"}}]
    assert socket == (1013, message)
    assert (known.status_code, new_token.status_code) == (200, 200)
    assert elsewhere == [200, 200]


async def test_an_ipv6_network_is_one_address(shop: Shop, worker_database: str) -> None:
    with run_api(worker_database, FLASH_FAILED_AUTHENTICATIONS_MAX="2") as api:
        statuses = [
            (
                await _ask(shop, f"{api.url}/graphql", _made_up(shop, n), **{"x-forwarded-for": f"2001:db8::{n}"})
            ).status_code
            for n in range(1, 5)
        ]

    assert statuses == [401, 401, 429, 429]
