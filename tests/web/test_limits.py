"""Sizes and deadlines. Without these a peer that sends slowly, or leaves, could hold a process or a database busy.

All against one API process whose limits are short; what is slow is a statement that waits for a lock.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from app import ids
from app.storage.database import dsn
from tests.conftest import Api, run_api
from tests.factories import Shop
from tests.races.storm import at_once
from tests.wallets.sockets import joined

HEADER_BYTES_MAX = 32_768
PATIENCE_SECONDS = 30.0
ROLE = "{ viewer { role } }"
PAUSE = "mutation ($id: ID!) { pausePool(input: { poolId: $id }) { __typename } }"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
STATUS = "SELECT status FROM pool WHERE merchant_id = $1 AND id = $2"


@pytest.fixture(scope="module")
def strict_api(worker_database: str) -> Iterator[Api]:
    """An API process that waits for a second at most."""
    limits = {"FLASH_REQUEST_SECONDS_MAX": "1", "FLASH_SOCKET_INIT_SECONDS_MAX": "1"}
    with run_api(worker_database, **limits, FLASH_OPERATION_SECONDS_MAX="3") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def lock(worker_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the API's, to hold rows and to look at what waits for them."""
    connection = await asyncpg.connect(dsn(worker_database))
    try:
        yield connection
    finally:
        await connection.close()


async def _exchange(api: Api, *sent: bytes, answered: bytes = b"ok") -> tuple[int, bytes]:
    """Send raw bytes, each after an answer to those before. Returns the last answer's status and all that came."""
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    first, answer = b"", b""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for each in sent[:-1]:
                writer.write(each)
                first += await reader.readuntil(answered)
            writer.write(sent[-1])
            answer = await reader.read()
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0, first + answer


def _head(*lines: str, verb: str = "GET", path: str = "/healthz") -> bytes:
    return "\r\n".join([f"{verb} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def _padded(count: int) -> bytes:
    """Return a head of which uvicorn hands on this many bytes: the address and, for each header, four beside it."""
    bare = len("/healthz") + len("host") + len("localhost") + 4 + len("connection") + len("close") + 4
    return _head("Connection: close", "X: " + "x" * (count - bare - 5))


async def test_a_head_of_the_greatest_size_is_taken_and_a_larger_one_is_not(strict_api: Api) -> None:
    for count, status in ((HEADER_BYTES_MAX, 200), (HEADER_BYTES_MAX + 1, 431)):
        assert (await _exchange(strict_api, _padded(count)))[0] == status


@pytest.mark.parametrize(
    "sent",
    [
        _head(*(f"X{number}: {'x' * 300}" for number in range(120))),
        _head(path="/healthz?" + "x" * 40_000),
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 40_000,
        b"GET /" + b"x" * 40_000,
    ],
    ids=["many headers", "a long address", "a header without an end", "an address without an end"],
)
async def test_a_head_that_is_too_large_is_refused_however_it_is(strict_api: Api, sent: bytes) -> None:
    status, answer = await _exchange(strict_api, sent)

    assert status == 431
    assert b"x-content-type-options: nosniff" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}


async def test_what_is_no_http_is_a_bad_request(strict_api: Api) -> None:
    for sent in (b"\x16\x03\x01\x00\xa5\x01", b"x\r\n\r\n", _head("Content-Length: -5"), _head("No colon")):
        status, answer = await _exchange(strict_api, sent)
        assert (status, json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["message"]) == (
            400,
            "Invalid HTTP request received.",
        )


async def test_an_offer_of_another_protocol_is_passed_over(strict_api: Api, shop: Shop) -> None:
    """Clients of HTTP/2 make one with every request; the body behind it must be neither lost nor read as a request."""
    body = json.dumps({"query": ROLE}).encode()
    offer = ("Connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    asking = (f"Authorization: Bearer {shop.admin}", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = _head(*offer, *asking, "Expect: 100-continue", verb="POST", path="/graphql")
    last = _head("Connection: close")

    at_once = (await _exchange(strict_api, head + body + last))[1]
    body_apart = (await _exchange(strict_api, head, body + last, answered=b"Continue\r\n\r\n"))[1]
    # That it is an offer was seen too late: nothing behind it is read.
    head_in_pieces = await _exchange(strict_api, _head() + head[:100], head[100:] + body)

    assert (at_once.count(b"HTTP/1.1 200 OK"), at_once.count(b'"ADMIN"')) == (2, 1)
    assert (body_apart.count(b"HTTP/1.1 200 OK"), body_apart.count(b'"ADMIN"')) == (2, 1)
    assert head_in_pieces[0] == 400


@pytest.mark.parametrize(
    ("lines", "status"),
    [(["Content-Length: 2"], 400), ([f"X{number}: y" for number in range(130)], 431), (["X: " + "y" * 9_000], 431)],
    ids=["a body", "many headers", "a long header"],
)
async def test_a_handshake_that_cannot_be_read_is_refused(strict_api: Api, lines: list[str], status: int) -> None:
    shake = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    sent = _head(*shake, "Sec-WebSocket-Version: 13", *lines, path="/graphql")

    assert (await _exchange(strict_api, sent + b"{}"))[0] == status


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        (b"", "head"),
        (b"G", "head"),
        (b"\r\n", "head"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", "head"),
        (_head("Content-Length: 9", "Content-Type: application/json", verb="POST", path="/graphql") + b"{", "body"),
        (_head("Transfer-Encoding: chunked", "Content-Type: application/json", verb="POST", path="/graphql"), "body"),
    ],
    ids=["nothing", "a letter", "an empty line", "half a head", "half a body", "no chunk"],
)
async def test_a_request_that_does_not_come_in_time_is_told_so_and_closed(
    strict_api: Api, sent: bytes, part: str
) -> None:
    status, answer = await _exchange(strict_api, sent)

    assert status == 408
    assert f"The request's {part} must come within 1 seconds.".encode() in answer


async def test_a_connection_that_was_used_has_deadlines_too(strict_api: Api) -> None:
    status, answer = await _exchange(strict_api, _head(), _head(), b"GET /")

    assert status == 408
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_body_announced_as_too_large_is_refused_before_it_comes(strict_api: Api) -> None:
    head = _head("Content-Length: 1048577", "Content-Type: application/json", verb="POST", path="/graphql")
    status, answer = await _exchange(strict_api, head)

    assert status == 413
    assert b"100 Continue" not in answer


async def test_a_slow_sender_is_cut_off_however_steadily_it_sends(strict_api: Api) -> None:
    host, port = strict_api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answered = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        for byte in b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1_000:
            if answered.done():
                break
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await answered).startswith(b"HTTP/1.1 408 ")
    writer.close()


@asynccontextmanager
async def _held(lock: asyncpg.Connection, pool: Any) -> AsyncIterator[None]:
    """Hold a pool's row."""
    async with lock.transaction():
        await lock.execute("SELECT 1 FROM pool WHERE id = $1 FOR UPDATE", ids.decode("pool", pool["id"]))
        yield


async def _until_waiting(lock: asyncpg.Connection, count: int) -> None:
    """Wait until this many statements or more wait for a lock; with 0, none."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            # A transaction sees the connections of its first look until it looks afresh.
            await lock.execute("SELECT pg_stat_clear_snapshot()")
            waiting = await lock.fetchval(WAITING)
            if waiting >= count and (count or not waiting):
                return
            await asyncio.sleep(0.02)


async def _status(lock: asyncpg.Connection, shop: Shop, pool: Any) -> str:
    status: str = await lock.fetchval(STATUS, shop.merchant_id, ids.decode("pool", pool["id"]))
    return status


def _pausing(shop: Shop, pool: Any, **headers: str) -> dict[str, Any]:
    body = {"query": PAUSE, "variables": {"id": pool["id"]}}
    return {"json": body, "headers": {"authorization": f"Bearer {shop.admin}", **headers}}


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_client_that_leaves_ends_its_statement(
    shop: Shop, strict_api: Api, lock: asyncpg.Connection, accept: str
) -> None:
    pool = await shop.pool()
    async with _held(lock, pool):
        async with httpx.AsyncClient(verify=False) as leaving:
            asked = asyncio.create_task(
                leaving.post(f"{strict_api.url}/graphql", **_pausing(shop, pool, accept=accept))
            )
            await _until_waiting(lock, 1)
            asked.cancel()
            await asyncio.wait([asked])
        await _until_waiting(lock, 0)

    assert await _status(lock, shop, pool) == "ACTIVE"
    assert (await shop.post(ROLE, url=f"{strict_api.url}/graphql"))["data"] == {"viewer": {"role": "ADMIN"}}


async def test_a_socket_that_leaves_or_completes_ends_its_statement(
    shop: Shop, strict_api: Api, lock: asyncpg.Connection
) -> None:
    pool = await shop.pool()
    async with _held(lock, pool):
        async with joined(f"{strict_api.url.replace('http', 'ws')}/graphql", shop.admin) as socket:
            pausing = {"query": PAUSE, "variables": {"id": pool["id"]}}
            await socket.send(type="subscribe", id="1", payload=pausing)
            await _until_waiting(lock, 1)
            await socket.send(type="complete", id="1")
            await _until_waiting(lock, 0)
            await socket.send(type="subscribe", id="2", payload=pausing)
            await _until_waiting(lock, 1)
        await _until_waiting(lock, 0)

    assert await _status(lock, shop, pool) == "ACTIVE"


async def test_an_operation_that_takes_too_long_says_so_and_its_statement_is_ended(
    shop: Shop, strict_api: Api, lock: asyncpg.Connection
) -> None:
    pool = await shop.pool()
    async with _held(lock, pool):
        response = await shop.http.post(f"{strict_api.url}/graphql", **_pausing(shop, pool), timeout=PATIENCE_SECONDS)
        await _until_waiting(lock, 0)

    assert response.status_code == 503
    assert [error["extensions"]["code"] for error in response.json()["errors"]] == ["TIMEOUT"]
    assert await _status(lock, shop, pool) == "ACTIVE"


async def test_postgresql_itself_ends_long_statements(
    shop: Shop, worker_database: str, lock: asyncpg.Connection
) -> None:
    pool = await shop.pool()
    with run_api(worker_database, FLASH_STATEMENT_SECONDS_MAX="0.5") as api:
        async with _held(lock, pool):
            response = await shop.http.post(f"{api.url}/graphql", **_pausing(shop, pool), timeout=PATIENCE_SECONDS)
        log = api.log.read_text()

    assert [error["extensions"]["code"] for error in response.json()["errors"]] == ["TIMEOUT"]
    assert "statement timeout" in log


async def test_many_clients_that_leave_leave_nothing_behind(
    shop: Shop, strict_api: Api, lock: asyncpg.Connection
) -> None:
    """Forty at once, more than there are connections; afterwards all connections serve."""
    pool = await shop.pool()
    async with _held(lock, pool):
        async with httpx.AsyncClient(verify=False, limits=httpx.Limits(max_connections=None)) as leaving:
            asked = [
                asyncio.create_task(leaving.post(f"{strict_api.url}/graphql", **_pausing(shop, pool)))
                for _ in range(40)
            ]
            await _until_waiting(lock, 5)
            for each in asked:
                each.cancel()
            await asyncio.wait(asked)
        await _until_waiting(lock, 0)
    # Some at a time: each must have sent its head within a second.
    answers = await at_once((shop.post(ROLE, url=f"{strict_api.url}/graphql") for _ in range(40)), most=12)

    assert answers == [{"data": {"viewer": {"role": "ADMIN"}}}] * 40
    assert await _status(lock, shop, pool) == "ACTIVE"
    assert "Traceback" not in strict_api.log.read_text()
