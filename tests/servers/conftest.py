"""What tests of many servers share."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.servers.pair import Server, fresh
from tests.servers.router import Router, router


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def databases(servers: tuple[Server, Server]) -> AsyncIterator[list[str]]:
    """One database on each server."""
    async with fresh(*servers) as urls:
        yield urls


@pytest.fixture
def way(databases: list[str]) -> Iterator[Router]:
    """A router before both."""
    with router(databases) as running:
        yield running
