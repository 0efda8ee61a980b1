"""After every race every promise of the merchant holds."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.factories import Shop


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def promises(shop: Shop) -> AsyncIterator[None]:
    """Recompute the promises from the rows that the race left."""
    yield
    assert await shop.broken_promises() == []
