"""The end of a process under load. Without these a deployment would cost answers that were on their way."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest_asyncio

from app import ids
from app.storage.database import dsn
from tests.conftest import Api, run_api
from tests.factories import CLAIM_CODE, Shop
from tests.wallets.sockets import joined
from tests.web.test_event_streams import streaming

#: Longer than any of these takes: what ends before has ended by itself.
DRAIN = {"FLASH_DRAIN_SECONDS": "30"}
CLIENTS = 8
WAIT_SECONDS_MAX = 60.0
ROLE = "{ viewer { role } }"
PAUSE = "mutation ($id: ID!) { pausePool(input: { poolId: $id }) { __typename } }"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest_asyncio.fixture(loop_scope="session")
async def lock(worker_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the API's, to hold rows and to look at what waits for them."""
    connection = await asyncpg.connect(dsn(worker_database))
    try:
        yield connection
    finally:
        await connection.close()


async def _ask(client: httpx.AsyncClient, shop: Shop, api: Api, document: str, **variables: Any) -> httpx.Response:
    return await client.post(
        f"{api.url}/graphql",
        json={"query": document, "variables": variables},
        headers={"authorization": f"Bearer {shop.admin}"},
    )


async def _until_unready(api: Api) -> httpx.Response:
    """Return what /readyz says when it is unready, each time over a connection of its own."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            async with httpx.AsyncClient() as client:
                ready = await client.get(f"{api.url}/readyz")
            if ready.status_code == 503:
                return ready
            await asyncio.sleep(0.02)


async def _until_waiting(lock: asyncpg.Connection, count: int) -> None:
    """Wait until so many statements wait for a lock."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            # A transaction sees the connections of its first look until it looks afresh.
            await lock.execute("SELECT pg_stat_clear_snapshot()")
            if await lock.fetchval(WAITING) >= count:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _clients(count: int) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Open clients of one connection each."""
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=1)
        made = [httpx.AsyncClient(timeout=WAIT_SECONDS_MAX, limits=limits) for _ in range(count)]
        yield [await stack.enter_async_context(client) for client in made]


async def test_connections_that_go_on_asking_lose_no_answer(shop: Shop, worker_database: str) -> None:
    """Each has an answer for whatever it sent, the last of which says that the connection closes."""
    pool, member = await shop.pool(), await shop.member()
    claim = {"poolId": pool["id"], "memberId": member["id"]}
    asked = answered = 0
    going = asyncio.Event()

    async def go_on_claiming(client: httpx.AsyncClient) -> None:
        nonlocal asked, answered
        closes = False
        while not closes:
            asked += 1
            response = await _ask(client, shop, api, CLAIM_CODE, input=claim)
            assert response.json()["data"]["answer"]["__typename"] == "ClaimCodeSuccess"
            answered += 1
            if answered > 5 * CLIENTS:
                going.set()
            closes = response.headers.get("connection") == "close"

    with run_api(worker_database, **DRAIN) as api:
        async with _clients(CLIENTS) as clients, asyncio.timeout(WAIT_SECONDS_MAX):
            asking = [asyncio.create_task(go_on_claiming(client)) for client in clients]
            await going.wait()
            api.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*asking)
        status = await asyncio.to_thread(api.process.wait, WAIT_SECONDS_MAX)
        log = api.log.read_text()

    assert answered == asked
    assert status in {0, -signal.SIGTERM}
    assert "Traceback" not in log


async def test_a_process_that_drains_is_unready_and_answers_new_connections_too(
    shop: Shop, worker_database: str
) -> None:
    with run_api(worker_database, **DRAIN) as api:
        async with _clients(2) as (idle, other):
            before = await _ask(idle, shop, api, ROLE)
            await other.get(f"{api.url}/healthz")
            api.process.send_signal(signal.SIGTERM)
            unready = await _until_unready(api)
            async with httpx.AsyncClient() as late:
                new = await _ask(late, shop, api, ROLE)
                alive = await late.get(f"{api.url}/healthz")
            kept = await _ask(idle, shop, api, ROLE)
        await asyncio.to_thread(api.process.wait, WAIT_SECONDS_MAX)

    assert "connection" not in before.headers
    assert unready.json() == {"database": "ok", "valkey": "ok", "process": "ending"}
    for answer in (new, kept):
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert answer.json()["data"] == {"viewer": {"role": "ADMIN"}}
    assert (alive.status_code, alive.headers["connection"]) == (200, "close")


async def test_what_is_in_flight_is_answered_over_every_transport(
    shop: Shop, worker_database: str, lock: asyncpg.Connection
) -> None:
    pools = [await shop.pool() for _ in range(3)]
    # The connection of the event stream stays open, idle, until the process ends.
    with run_api(worker_database, FLASH_DRAIN_SECONDS="3") as api:
        url = f"{api.url}/graphql"
        async with AsyncExitStack() as stack:
            (client,) = await stack.enter_async_context(_clients(1))
            socket = await stack.enter_async_context(joined(url.replace("http", "ws"), shop.admin))
            held = lock.transaction()
            await held.start()
            await lock.execute(
                "SELECT 1 FROM pool WHERE id = ANY($1) FOR UPDATE", [ids.decode("pool", pool["id"]) for pool in pools]
            )
            by_http = asyncio.create_task(_ask(client, shop, api, PAUSE, id=pools[0]["id"]))
            pausing = {"query": PAUSE, "variables": {"id": pools[1]["id"]}}
            await socket.send(type="subscribe", id="1", payload=pausing)
            events = await stack.enter_async_context(streaming(shop, shop.admin, PAUSE, url=url, id=pools[2]["id"]))
            await _until_waiting(lock, 3)
            api.process.send_signal(signal.SIGTERM)
            await _until_unready(api)
            await held.rollback()
            answered = await by_http
            told = [await socket.receive(), await socket.receive()]
            closed = await socket.closed()
            streamed = [await events.next() for _ in range(3)]
        await asyncio.to_thread(api.process.wait, WAIT_SECONDS_MAX)

    success = {"__typename": "ChangePoolStatusSuccess"}
    assert (answered.json()["data"]["pausePool"], answered.headers["connection"]) == (success, "close")
    assert [message["type"] for message in told] == ["next", "complete"]
    assert told[0]["payload"]["data"]["pausePool"] == success
    assert closed[0] == 1012
    assert [kind for kind, _ in streamed] == ["next", "complete", "end"]
    assert streamed[0][1]["data"]["pausePool"] == success
