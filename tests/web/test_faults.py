"""Faults. Without these a driver's words or a stack trace could reach a client, or a fault leave no trace at all."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from app import ids
from app.config import Settings
from app.merchants.create_merchant import INSERT as INSERT_MERCHANT
from app.storage.database import Readiness, Standing, database, dsn
from app.web.application import readyz
from app.web.metrics_page import _look
from app.web.open_streams import OpenStreams
from tests.conftest import Api, run_api
from tests.factories import CREATE_POOL, ENROLL_MEMBER, Shop
from tests.scratch import scratch_database
from tests.wallets.sockets import address, joined

POOLS = "{ viewer { role } pools { edges { node { id name } } } }"
ROLE = "{ viewer { role } }"
INTERNAL = re.compile(r"^[0-9a-f]{16}$")
WAIT_SECONDS_MAX = 30.0


@asynccontextmanager
async def _own_api(shop: Shop) -> AsyncIterator[tuple[Api, str, asyncpg.Connection]]:
    """Run an API on a database of its own that knows the shop. Yields it, the database and a connection to that."""
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            await _copy_shop(shop, connection)
            with run_api(url, FLASH_API_KEY_CACHE_SECONDS="0", FLASH_DATABASE_TIMEOUT_SECONDS="2") as api:
                yield api, url, connection
        finally:
            await connection.close()


async def _copy_shop(shop: Shop, connection: asyncpg.Connection) -> None:
    await connection.execute(INSERT_MERCHANT.text, shop.merchant_id, "Shop", "USD")
    for table in ("data_key", "api_key"):
        rows = await database().rows(f"SELECT * FROM {table} WHERE merchant_id = $1", shop.merchant_id)
        columns = list(rows[0].keys())
        records = [tuple(row.values()) for row in rows]
        await connection.copy_records_to_table(table, columns=columns, records=records)


async def _ask(shop: Shop, url: str, document: str = ROLE, variables: dict[str, Any] | None = None) -> httpx.Response:
    return await shop.http.post(
        f"{url}/graphql",
        json={"query": document, "variables": variables or {}},
        headers={"authorization": f"Bearer {shop.admin}"},
    )


async def test_an_unexpected_fault_is_masked_with_a_reference_that_the_log_has(shop: Shop) -> None:
    async with _own_api(shop) as (api, _, connection):
        await connection.execute("ALTER TABLE pool RENAME COLUMN name TO secret_column_name")

        read = (await _ask(shop, api.url, POOLS)).json()
        variables = {"input": {"name": "Visible name", "kind": "PERCENT", "percentOff": 10.0}}
        written = (await _ask(shop, api.url, CREATE_POOL, variables)).json()

        log = api.log.read_text()
        assert (await _ask(shop, api.url)).json()["data"] == {"viewer": {"role": "ADMIN"}}
    for answer, path in ((read, "pools"), (written, "answer")):
        (error,) = answer["errors"]
        assert answer["data"] is None
        assert (error["message"], error["path"]) == ("Internal error.", [path])
        assert error["extensions"].keys() == {"code", "reference"}
        assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
        assert INTERNAL.match(error["extensions"]["reference"])
        assert error["extensions"]["reference"] in log
        assert "secret_column_name" not in str(answer)
        assert "UndefinedColumn" not in str(answer)
    assert read["errors"][0]["extensions"]["reference"] != written["errors"][0]["extensions"]["reference"]
    assert "UndefinedColumnError" in log
    assert "Visible name" not in log


async def test_a_fault_before_any_resolver_is_masked_too(shop: Shop) -> None:
    async with _own_api(shop) as (api, _, connection):
        await connection.execute("ALTER TABLE api_key RENAME COLUMN secret_hash TO other_name")

        response = await _ask(shop, api.url)

        log = api.log.read_text()
    (error,) = response.json()["errors"]
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert (error["message"], error["extensions"]["code"]) == ("Internal error.", "INTERNAL_SERVER_ERROR")
    assert error["extensions"]["reference"] in log
    assert "secret_hash" not in response.text
    assert shop.admin.split("_", 2)[2] not in log


async def test_a_fault_that_quotes_a_row_shows_no_personal_data_to_the_client(shop: Shop) -> None:
    async with _own_api(shop) as (api, _, connection):
        await connection.execute("ALTER TABLE member ADD CONSTRAINT broken CHECK (joined_at < '2000-01-01')")

        variables = {"input": {"source": "STORE", "email": "quoted@example.com", "displayName": "Quoted"}}
        response = await _ask(shop, api.url, ENROLL_MEMBER, variables)

        log = api.log.read_text()
    assert response.json()["errors"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    for secret in ("quoted@example.com", "Quoted", "broken"):
        assert secret not in response.text
    assert "quoted@example.com" not in log
    assert "Quoted" not in log


async def test_a_clients_mistake_is_one_short_line_in_the_log_that_quotes_nothing(shop: Shop, api: Api) -> None:
    member = await shop.token((await shop.member())["id"])
    before = len(api.log.read_bytes())

    await shop.post("{ secretWord otherWord viewer(secretWord: 1) { role } }")
    await shop.post("{ secretWord")
    await shop.post('{ pools(first: "secretWord") { edges { cursor } } }')
    await shop.post("{ pools(first: 0) { edges { cursor } } members(first: 101) { edges { cursor } } }")
    await shop.post("{ members { edges { cursor } } }", key=member)
    await shop.post("{ viewer { role } }", key="secretWord")
    await shop.http.post(shop.url, content=b"secretWord", headers={"content-type": "application/json"})
    async with joined(address(shop), shop.admin) as socket:
        await socket.subscribe("{ secretWord }")
        await socket.receive()
        await socket.connection.send("secretWord")
        await socket.closed()
    logged = api.log.read_bytes()[before:].decode()
    # On a busy machine Valkey may be slow, which is a line too.
    lines = [line for line in logged.splitlines() if "Valkey is away" not in line]

    assert [line.partition(" refused to ")[2].partition(": ")[2] for line in lines] == [
        "GRAPHQL_VALIDATION_FAILED",
        "GRAPHQL_PARSE_FAILED",
        "BAD_USER_INPUT",
        "BAD_USER_INPUT",
        "FORBIDDEN",
        "UNAUTHENTICATED",
        "BAD_REQUEST, 400",
        "GRAPHQL_VALIDATION_FAILED",
        "a socket was closed with 4400",
    ]
    assert " refused to member_" in lines[4]


async def _until(shop: Shop, api: Api, *, ready: int, code: str | None) -> tuple[httpx.Response, httpx.Response]:
    """Ask until /readyz has a status and an operation has a code (None: is answered). Returns the last answers."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        readiness = await shop.http.get(f"{api.url}/readyz")
        response = await _ask(shop, api.url)
        errors = response.json().get("errors", [])
        seen = errors[0]["extensions"]["code"] if errors else None
        if (readiness.status_code, seen) == (ready, code):
            return readiness, response
        assert seen in {None, "UNAVAILABLE"}, response.text
        assert time.monotonic() < deadline, (readiness.text, response.text)
        await asyncio.sleep(0.05)


REFUSE, TAKE = 'ALTER DATABASE "{0}" ALLOW_CONNECTIONS false', 'ALTER DATABASE "{0}" ALLOW_CONNECTIONS true'
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{0}'"
RENAME, RENAME_BACK = 'ALTER DATABASE "{0}" RENAME TO "{0}_away"', 'ALTER DATABASE "{0}_away" RENAME TO "{0}"'


@pytest.mark.parametrize(
    ("leave", "come_back"),
    [((REFUSE, END), (TAKE,)), ((REFUSE, END, RENAME), (RENAME_BACK, TAKE))],
    ids=["it takes no connections", "it is not there"],
)
async def test_a_database_that_goes_away_is_unavailable_until_it_is_back(
    shop: Shop, leave: tuple[str, ...], come_back: tuple[str, ...]
) -> None:
    async with _own_api(shop) as (api, url, connection):
        name = url.partition("?")[0].rpartition("/")[2]
        await connection.close()
        operator = await asyncpg.connect(dsn(url), database="postgres")
        try:
            for statement in leave:
                await operator.execute(statement.format(name))
            readiness, response = await _until(shop, api, ready=503, code="UNAVAILABLE")
            alive = await shop.http.get(f"{api.url}/healthz")
        finally:
            for statement in come_back:
                await operator.execute(statement.format(name))
            await operator.close()
        back, answered = await _until(shop, api, ready=200, code=None)
        log = api.log.read_text()
    assert response.status_code == 503
    assert response.json()["errors"] == [
        {
            "message": "The engine can't reach its database; try again.",
            "extensions": {"code": "UNAVAILABLE"},
        }
    ]
    assert readiness.json()["database"] == "away"
    assert (alive.status_code, alive.text) == (200, "ok")
    assert back.json()["database"] == "ok"
    assert answered.json()["data"] == {"viewer": {"role": "ADMIN"}}
    assert "the database is away" in log
    assert "internal error" not in log


async def test_connections_that_end_again_and_again_are_unavailable_and_nothing_else(shop: Shop) -> None:
    # A connection ends in two steps, words and then an end; a statement between them is neither's usual error.
    async with _own_api(shop) as (api, url, connection):
        name = url.partition("?")[0].rpartition("/")[2]
        await connection.close()
        seen = set()
        ending = asyncio.Event()

        async def ask() -> None:
            while not ending.is_set():
                seen.add((await shop.http.get(f"{api.url}/readyz")).status_code)
                seen.add((await _ask(shop, api.url)).status_code)

        async with asyncio.TaskGroup() as askers:
            operator = await asyncpg.connect(dsn(url), database="postgres")
            try:
                for _ in range(6):
                    askers.create_task(ask())
                for _ in range(60):
                    for statement in (REFUSE, END, TAKE):
                        await operator.execute(statement.format(name))
                    await asyncio.sleep(0.03)
            finally:
                ending.set()
                await operator.execute(TAKE.format(name))
                await operator.close()

    assert seen == {200, 503}


async def test_a_database_without_its_tables_is_told_as_a_fault(shop: Shop) -> None:
    picture = f"/graph/{ids.encode('graph', ids.new())}.svg?merchant={ids.encode('merchant', ids.new())}"
    async with _own_api(shop) as (api, _, connection):
        async with joined(f"{api.url.replace('http', 'ws')}/graphql", shop.admin) as socket:
            await connection.execute("DROP TABLE api_key, data_key CASCADE")
            # Nobody stays on a socket because nobody can tell whether its key was revoked.
            closed = await socket.closed()
        response = await _ask(shop, api.url)
        outside = await shop.http.get(f"{api.url}{picture}")
    log = api.log.read_text()

    assert closed == (1013, "The credential can't be verified now; try again")
    assert response.status_code == 500
    assert "api_key" not in response.text
    assert (outside.status_code, outside.json()) == (500, {"error": "Internal error."})
    assert outside.headers["x-content-type-options"] == "nosniff"
    assert outside.headers["cache-control"] == "no-store"
    assert f"[{outside.headers['x-request-id']}] Exception in ASGI application" in log


async def test_metrics_go_on_while_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending:
        async def everywhere(self, *_texts: str) -> None:
            raise asyncpg.InternalClientError("a connection is ending")

    monkeypatch.setattr("app.web.metrics_page.database", Ending)

    assert (await _look(None)).database_answers is False


async def test_readiness_asks_both_servers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, two that are silent would take twice as long as one may."""
    asked = asyncio.Event()

    class Valkey:
        async def ping(self) -> None:
            asked.set()

    async def ready(*, within_seconds: float) -> Standing:
        async with asyncio.timeout(within_seconds):
            await asked.wait()
        return Standing(Readiness.OK)

    monkeypatch.setattr("app.web.application.standing", ready)
    app = Starlette()
    app.state.redis = Valkey()
    app.state.streams = OpenStreams(Settings())

    answer = await readyz(Request({"type": "http", "app": app}))

    assert json.loads(bytes(answer.body)) == {"database": "ok", "valkey": "ok"}


async def test_health_and_readiness(shop: Shop, api: Api, database_pool: Settings) -> None:
    healthy = await shop.http.get(f"{api.url}/healthz")
    ready = await shop.http.get(f"{api.url}/readyz")

    assert (healthy.status_code, healthy.text) == (200, "ok")
    assert (ready.status_code, ready.json()) == (200, {"database": "ok", "valkey": "ok"})


async def test_a_missing_valkey_is_told_and_stops_nothing(shop: Shop, worker_database: str) -> None:
    with run_api(worker_database, REDIS_URL="redis://127.0.0.1:1/0") as api:
        ready = await shop.http.get(f"{api.url}/readyz")
        answer = await shop.post(ROLE, url=f"{api.url}/graphql")

    assert (ready.status_code, ready.json()) == (200, {"database": "ok", "valkey": "away"})
    assert answer == {"data": {"viewer": {"role": "ADMIN"}}}
