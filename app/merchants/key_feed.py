"""Which API keys that have a socket or stream open were revoked, wherever that was done.

One statement per merchant asks now and then; behind a router that is seldom, and revoking rings.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, TypedDict
from uuid import UUID

from app import ids
from app.config import Settings
from app.merchants.api_keys import revoked_here
from app.storage.database import database
from app.storage.feed import Feed, Watched, Watcher, read_patiently
from app.storage.rings import ring
from app.storage.statements import statement

_SWEEP_SECONDS_MIN: Final = 1.0


class RevokedRow(TypedDict):
    """A key that doesn't work any more."""

    id: UUID


SWEEP: Final = statement(
    RevokedRow,
    """
SELECT id FROM api_key WHERE merchant_id = :merchant_id AND id = ANY(:api_key_ids::uuid[]) AND revoked_at IS NOT NULL
""",
)


class KeyFeed(Feed[Watcher]):
    """The API keys that have something open in this process."""

    def __init__(self, configured: Settings) -> None:
        """Take the settings. Behind a router, where looking takes a statement for each merchant, revoking rings."""
        super().__init__(
            configured.redis_url if configured.is_routed else None,
            sweep_seconds=max(configured.api_key_cache_seconds, _SWEEP_SECONDS_MIN),
            is_routed=configured.is_routed,
        )
        self._rings = configured.is_routed

    async def revoked(self, key: Watched) -> None:
        """Return when a key is revoked, or was before."""
        watcher = Watcher()
        async with self.watching(key, watcher):
            if not await read_patiently(lambda: _revoked(key[0], [key[1]])):
                await watcher.rung.wait()

    def end(self, key: Watched) -> None:
        """End what this process keeps and has open for a key that was revoked just now."""
        revoked_here[ids.encode("apikey", key[1])] = None
        self.heard(self.channel(key), {})
        if self._rings:
            ring(database(), self.channel(key))

    def channel(self, watched: Watched) -> str:
        """Return by what the watchers of a key are found, and where its end rings."""
        merchant_id, api_key_id = watched
        return f"flash:apikey:{merchant_id.hex}:{api_key_id.hex}"

    def hear(self, watchers: set[Watcher], _rung: Mapping[str, Any]) -> None:
        """End what is open."""
        for watcher in watchers:
            watcher.rung.set()

    async def sweep(self, watchers: Mapping[Watched, set[Watcher]]) -> None:
        """Find the keys that were revoked, by one statement a merchant."""
        open_here: defaultdict[UUID, list[UUID]] = defaultdict(list)
        for merchant_id, api_key_id in watchers:
            open_here[merchant_id].append(api_key_id)

        async def look(merchant_id: UUID) -> None:
            for api_key_id in await _revoked(merchant_id, open_here[merchant_id]):
                self.hear(watchers[merchant_id, api_key_id], {})

        await self.each_merchant(look, open_here)


async def _revoked(merchant_id: UUID, api_key_ids: list[UUID]) -> list[UUID]:
    return [row["id"] for row in await database().rows(SWEEP, merchant_id=merchant_id, api_key_ids=api_key_ids)]
