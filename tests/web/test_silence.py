"""A database that is silent, full or not ready. Without these callers would wait for it, or be sent to an API in vain.

Everything that could end a wait by itself is set to ten minutes: what is answered here is answered because the silence
was noticed.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import httpx

from app.storage.database import dsn
from tests.conftest import Api, run_api
from tests.factories import CLAIM_CODE, ENROLL_MEMBER, Shop
from tests.operate.processes import flash
from tests.scratch import scratch_database
from tests.web.frozen import way_to
from tests.web.test_faults import _copy_shop
from tests.wire import Wire

UNHURRIED = {
    "FLASH_OPERATION_SECONDS_MAX": "600",
    "FLASH_STATEMENT_SECONDS_MAX": "600",
    "FLASH_DATABASE_TIMEOUT_SECONDS": "600",
    "FLASH_API_KEY_CACHE_SECONDS": "0",
}
WAIT_SECONDS_MAX = 60.0
ROLE = "{ viewer { role } }"


@asynccontextmanager
async def _running(database: str, port: int = 0, /, **environment: str) -> AsyncIterator[Api]:
    """Run an API while this loop goes on."""
    running = run_api(database, port, **environment)
    api = await asyncio.to_thread(running.__enter__)
    try:
        yield api
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def _until_answered(shop: Shop, url: str, document: str, variables: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        answer = await shop.post(document, variables, url=f"{url}/graphql")
        if "errors" not in answer:
            return answer
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAVAILABLE"]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_while_the_database_is_silent_everybody_is_answered_and_then_it_is_back(
    shop: Shop, worker_database: str
) -> None:
    pool, member = await shop.pool(), await shop.member()
    claim = {"input": {"poolId": pool["id"], "memberId": member["id"]}}
    async with (
        way_to(worker_database) as way,
        _running(way.url, 0, **UNHURRIED) as api,
        httpx.AsyncClient(timeout=WAIT_SECONDS_MAX, limits=httpx.Limits(max_connections=None)) as client,
        aclosing(Wire(WAIT_SECONDS_MAX)) as wire,
    ):
        patient = Shop(client, wire, f"{api.url}/graphql", shop.merchant_id, shop.admin)
        await _until_answered(patient, api.url, ROLE, {})
        way.flows.clear()
        ready, alive, metrics, *answers = await asyncio.gather(
            client.get(f"{api.url}/readyz"),
            client.get(f"{api.url}/healthz"),
            client.get(f"{api.url}/metrics"),
            # More than there are connections.
            *(patient.post(CLAIM_CODE, claim) for _ in range(30)),
        )
        again = await client.get(f"{api.url}/readyz"), await patient.post(CLAIM_CODE, claim)
        way.flows.set()
        claimed = await _until_answered(patient, api.url, CLAIM_CODE, claim)
        back = await client.get(f"{api.url}/readyz")

    assert (ready.status_code, ready.json()["database"]) == (503, "away")
    assert (alive.status_code, alive.text) == (200, "ok")
    assert "flash_database_up 0.0" in metrics.text
    for answer in (*answers, again[1]):
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"UNAVAILABLE"}
        assert {error["message"] for error in answer["errors"]} == {"The engine can't reach its database; try again."}
    assert again[0].status_code == 503
    assert claimed["data"]["answer"]["__typename"] == "ClaimCodeSuccess"
    assert (back.status_code, back.json()["database"]) == (200, "ok")


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE FUNCTION full_disk_too() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON member EXECUTE FUNCTION full_disk();
CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION full_disk_too();
"""
ROOM = "DROP EVENT TRIGGER full_disk; DROP TRIGGER full_disk ON member;"


async def test_a_full_disk_is_unavailable_and_not_ready_until_there_is_room(shop: Shop) -> None:
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            await _copy_shop(shop, connection)
            async with _running(url) as api:
                enroll = {"input": {"source": "STORE"}}
                await connection.execute(FULL)
                # Reading goes on, and so far nobody has noticed.
                before = await shop.http.get(f"{api.url}/readyz")
                refused = await shop.post(ENROLL_MEMBER, enroll, url=f"{api.url}/graphql")
                read = await shop.post("{ members { edges { cursor } } }", url=f"{api.url}/graphql")
                unready = [await shop.http.get(f"{api.url}/readyz") for _ in range(2)]
                await connection.execute(ROOM)
                ready = await shop.http.get(f"{api.url}/readyz")
                enrolled = await shop.post(ENROLL_MEMBER, enroll, url=f"{api.url}/graphql")
        finally:
            await connection.close()

    assert before.status_code == 200
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["UNAVAILABLE"]
    assert read == {"data": {"members": {"edges": []}}}
    assert [(each.status_code, each.json()["database"]) for each in unready] == [(503, "full")] * 2
    assert (ready.status_code, ready.json()["database"]) == (200, "ok")
    assert enrolled["data"]["answer"]["__typename"] == "EnrollMemberSuccess"


async def _until_said(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """Return what /readyz says first."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            with contextlib.suppress(httpx.TransportError):
                return await client.get(f"{url}/readyz")
            await asyncio.sleep(0.05)


async def test_an_api_without_its_tables_is_not_ready(shop: Shop) -> None:
    keys, data = os.environ["FLASH_MASTER_KEYS"], os.environ["FLASH_DATA"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with scratch_database(migrated=False) as url, AsyncExitStack() as stack:
        starting = asyncio.create_task(stack.enter_async_context(_running(url, port)))
        empty = await _until_said(shop.http, f"http://127.0.0.1:{port}")
        # In a process of its own: it would close this one's pool.
        migrated = await asyncio.to_thread(
            partial(flash, "migrate", DATABASE_URL=url, FLASH_MASTER_KEYS=keys, FLASH_DATA=data)
        )
        await starting
        ready = await shop.http.get(f"http://127.0.0.1:{port}/readyz")

    assert migrated.returncode == 0, migrated
    assert (empty.status_code, empty.json()["database"]) == (503, "not migrated")
    assert (ready.status_code, ready.json()["database"]) == (200, "ok")


async def test_an_api_that_lacks_one_migration_is_not_ready(shop: Shop) -> None:
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            async with _running(url) as api:
                row = await connection.fetchrow(
                    "DELETE FROM tortoise_migrations WHERE id = (SELECT max(id) FROM tortoise_migrations) RETURNING *"
                )
                lacking = await shop.http.get(f"{api.url}/readyz")
        finally:
            await connection.close()

    assert row is not None
    assert (lacking.status_code, lacking.json()["database"]) == (503, "not migrated")
