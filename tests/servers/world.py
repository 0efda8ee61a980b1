"""An engine behind a router: two merchants, one on each server."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx

from app import ids
from tests.conftest import Api, run_api
from tests.factories import Shop
from tests.servers.pair import Server, fresh
from tests.servers.router import Router, router
from tests.starts import run
from tests.wire import Wire

#: What could end a wait by itself is far away: what ends here ends because a server was found to be away.
UNHURRIED = {
    "FLASH_OPERATION_SECONDS_MAX": "600",
    "FLASH_STATEMENT_SECONDS_MAX": "600",
    "FLASH_DATABASE_TIMEOUT_SECONDS": "600",
    # Beside other tests the stand-in for the router may take seconds to answer.
    "FLASH_SERVER_SECONDS_MAX": "5",
}
WAIT_SECONDS_MAX = 60.0


@dataclass
class World:
    """A router before two databases, and a shop at each."""

    way: Router
    api: Api
    north: Shop
    south: Shop


@contextmanager
def run_routed_api(way: Router, **environment: str) -> Iterator[Api]:
    """Run an API process behind a router."""
    with run_api(way.url, 0, FLASH_ROUTER="pgdog", **UNHURRIED, **environment) as running:
        yield running


def make_merchant(way: Router, number: int) -> tuple[UUID, str]:
    """Make a merchant at a server by the command. Returns its id and its ADMIN key."""
    way.others = number
    variables = os.environ | {"DATABASE_URL": way.url, "FLASH_ROUTER": "pgdog"}
    made = run("merchant", "create", "--name", "Shop", "--currency", "USD", "--json", environment=variables)
    assert made.returncode == 0, made
    answer = json.loads(made.stdout)
    merchant_id = ids.decode("merchant", answer["merchantId"])
    assert merchant_id is not None
    way.places[merchant_id] = number
    way.others = 0
    return merchant_id, answer["apiKey"]


@asynccontextmanager
async def open_world(*servers: Server, **environment: str) -> AsyncIterator[World]:
    """Make two merchants, one at each server, and run an API process for them."""
    async with AsyncExitStack() as stack:
        way = stack.enter_context(router(await stack.enter_async_context(fresh(*servers))))
        made = [make_merchant(way, number) for number in range(2)]
        api = stack.enter_context(run_routed_api(way, **environment))
        limits = httpx.Limits(max_connections=None)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=WAIT_SECONDS_MAX, limits=limits, verify=False))
        wire = await stack.enter_async_context(aclosing(Wire(WAIT_SECONDS_MAX)))
        shops = [Shop(http, wire, f"{api.url}/graphql", merchant_id, key) for merchant_id, key in made]
        yield World(way, api, *shops)
