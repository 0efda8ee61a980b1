"""A merchant that moves while it is served. Without this requests could fail, or be answered by both servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest

from app import ids
from app.operate import move_merchant, move_merchant_router
from app.operate.move_merchant import move
from app.storage.fences import IS_CLOSED
from tests.factories import Shop
from tests.points.documents import GRANT
from tests.servers.pair import Server, fresh
from tests.servers.router import Router, router
from tests.servers.world import WAIT_SECONDS_MAX, make_merchant, run_routed_api
from tests.sizes import FULL
from tests.wire import Wire

CLIENTS = 10
#: Of all clients together, once the merchant may be closed; at the whole size from the beginning.
REQUESTS_PER_SECOND = 200
#: How many come before and after the switch.
MORE = 50
WALLET = "query ($id: ID!) { member(id: $id) { wallet { points } } }"


@dataclass
class Load:
    """Members who are granted points, and look at once at what they have."""

    shop: Shop
    is_hurried: asyncio.Event
    requests: int = 0
    errors: int = 0
    seconds_max: float = 0.0

    async def run(self, ends: asyncio.Event) -> None:
        """Ask until the end, each member for itself."""
        members = [await self.shop.member() for _ in range(CLIENTS)]
        await asyncio.gather(*(self._ask(member["id"], ends) for member in members))

    async def _ask(self, member_id: str, ends: asyncio.Event) -> None:
        for number in count(1):
            began = time.monotonic()
            grant = {"memberId": member_id, "amount": 1, "reference": "load"}
            granted = await self._send(GRANT, {"input": grant | {"idempotencyKey": f"{member_id} {number}"}})
            assert granted["data"]["answer"]["__typename"] == "GrantPointsSuccess", granted
            wallet = await self._send(WALLET, {"id": member_id})
            # What is read is never older than what was done before.
            assert wallet["data"]["member"]["wallet"]["points"] == number, wallet
            if ends.is_set():
                return
            if not self.is_hurried.is_set():
                await self.is_hurried.wait()
            await asyncio.sleep(max(0.0, began + 2 * CLIENTS / REQUESTS_PER_SECOND - time.monotonic()))

    async def _send(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        answer = await self.shop.post(document, variables)
        self.seconds_max = max(self.seconds_max, time.monotonic() - began)
        self.requests += 1
        self.errors += "errors" in answer
        return answer


@asynccontextmanager
async def _shop(url: str, merchant_id: UUID, admin: str) -> AsyncIterator[Shop]:
    http = httpx.AsyncClient(timeout=WAIT_SECONDS_MAX, verify=False)
    async with http, aclosing(Wire(WAIT_SECONDS_MAX)) as wire:
        yield Shop(http, wire, f"{url}/graphql", merchant_id, admin)


async def test_no_request_fails_while_a_merchant_moves(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a process whose router missed the move answers nothing until that knows it."""
    async with fresh(*servers) as urls:
        with router(urls) as way, run_routed_api(way) as api:
            async with _shop(api.url, *make_merchant(way, 0)) as shop:
                await _moved_under_load(shop, way, urls, monkeypatch)
                with router(urls) as late, run_routed_api(late) as behind:
                    late.places[shop.merchant_id] = 0
                    await _answers_nothing_stale(replace(shop, url=f"{behind.url}/graphql"), late)


async def _moved_under_load(shop: Shop, way: Router, urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(_command: list[str], merchant_id: UUID, server: str) -> None:
        assert server == "to"
        way.places[merchant_id] = 1

    is_hurried, ends = asyncio.Event(), asyncio.Event()
    follow: Callable[..., Any] = move_merchant._Run.follow

    async def hurry(run: Any) -> None:
        await follow(run)
        is_hurried.set()
        await more()

    async def more() -> None:
        before = load.requests
        while load.requests < before + MORE and not asking.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    monkeypatch.setattr(move_merchant_router, "tell", tell)
    monkeypatch.setattr(move_merchant._Run, "follow", hurry)
    # Two cores may be busy with other tests; that it is undone in time is another test's.
    monkeypatch.setattr(move_merchant, "CLOSED_SECONDS_MAX", WAIT_SECONDS_MAX)
    if FULL:
        is_hurried.set()
    load = Load(shop, is_hurried)
    asking = asyncio.create_task(load.run(ends))

    moved = await move(ids.encode("merchant", shop.merchant_id), urls[0], urls[1], "true", lambda _line: None)

    await more()
    ends.set()
    await asking
    print(f"{load.requests} requests, {load.errors} failed, {load.seconds_max * 1000:.0f} ms at most; {moved}")
    assert load.errors == 0
    assert moved.changes > 0


async def _answers_nothing_stale(shop: Shop, late: Router) -> None:
    late.sent.clear()
    asked = asyncio.create_task(shop.member())
    while sum(text == IS_CLOSED.text for _, text in late.sent) < 3:
        assert not asked.done()
        await asyncio.sleep(0.01)
    late.places[shop.merchant_id] = 1
    assert (await asked)["id"]
