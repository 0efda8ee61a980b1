"""What the tests of webhooks share: none but a test's own are sent, and endpoints may be given little time."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from app.config import Settings, settings
from app.storage.database import database

DISABLE_ALL = "UPDATE webhook SET disabled_at = now(), disabled_reason = 'REQUESTED' WHERE disabled_at IS NULL"


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def forgetful(database_pool: Settings) -> AsyncIterator[None]:
    """Disable every webhook before the test and after it, so that what is delivered is its own."""
    await database().row(DISABLE_ALL)
    yield
    await database().row(DISABLE_ALL)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give endpoints half a second, in this process."""
    monkeypatch.setenv("FLASH_WEBHOOK_TIMEOUT_SECONDS", "0.5")
    settings.cache_clear()
    yield
    settings.cache_clear()
