"""Which tokens of a member stand: those of its generation, which revokeMemberTokens raises.

A generation is read when a token comes, and kept as long as an API key is. Those of all open sockets and streams are
compared now and then, by one statement per merchant; behind a router that is seldom, and what ends rings.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict
from uuid import UUID

from cachetools import TLRUCache

from app.config import Settings, settings
from app.members.rows import IS_HERE
from app.storage import feed
from app.storage.database import database
from app.storage.feed import Feed, Watched
from app.storage.rings import ring
from app.storage.statements import statement

_KEPT_MAX: Final = 20_000
_SWEEP_SECONDS_MIN: Final = 1.0
#: Where there is no such member: no token is of this generation.
_NOBODY: Final = -1
#: The generation of a member whose tokens never stand again.
NEVER: Final = 2**31 - 1


class GenerationRow(TypedDict):
    """Of which generation a member's tokens stand."""

    token_generation: int


class EndedRow(TypedDict):
    """A member, and a generation that isn't its own."""

    id: UUID
    generation: int


FIND: Final = statement(
    GenerationRow,
    f"SELECT token_generation FROM member WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE}",
)
SWEEP: Final = statement(
    EndedRow,
    f"""
SELECT asked.id, asked.generation
FROM unnest(:member_ids::uuid[], :generations::int[]) AS asked (id, generation)
LEFT JOIN LATERAL (
    -- Who is gone is told so by its last change before what is open ends.
    SELECT token_generation FROM member
    WHERE merchant_id = :merchant_id AND id = asked.id AND ({IS_HERE} OR EXISTS (
        SELECT FROM wallet w WHERE w.merchant_id = :merchant_id AND w.member_id = asked.id
            AND w.closed_at > now() - interval '5 seconds'
    )) OFFSET 0
) m ON true
WHERE m.token_generation IS DISTINCT FROM asked.generation
""",
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A member's generation, and until when (monotonic seconds) that needs no other look."""

    generation: int
    until: float


_known: TLRUCache[Watched, _Known] = TLRUCache(_KEPT_MAX, lambda _member, known, _now: known.until)


async def stands_until(member: Watched, generation: int) -> float | None:
    """Return until when (monotonic seconds) a token of a generation needs no other look, or None if it doesn't stand.

    At most one read for each time that an answer is kept, and another one for a token that was issued since.
    """
    known = _known.get(member)
    if known is None or _NOBODY < known.generation < generation:
        asked_at = time.monotonic()
        row = await database().row(FIND, merchant_id=member[0], member_id=member[1])
        known = _keep(member, _NOBODY if row is None else row["token_generation"], asked_at)
    return known.until if known.generation == generation else None


def has_ended(member: Watched, generation: int) -> bool:
    """Whether this process knows that a generation isn't a member's any more."""
    known = _known.get(member)
    return known is not None and known.generation != generation


def _keep(member: Watched, generation: int, asked_at: float) -> _Known:
    """Keep a generation, unless this process knows of a later one by now. Returns what is known."""
    known = _known.get(member)
    if known is None or known.generation <= generation:
        known = _known[member] = _Known(generation, asked_at + settings().api_key_cache_seconds)
    return known


class Watcher(feed.Watcher):
    """A socket or stream, by the generation of the token that it was opened with."""

    __slots__ = ("generation",)

    def __init__(self, generation: int) -> None:
        """Begin with a token that stands."""
        super().__init__()
        self.generation = generation


class TokenFeed(Feed[Watcher]):
    """The members whose tokens have something open in this process."""

    def __init__(self, configured: Settings) -> None:
        """Take the settings. Nothing rings: other processes look within the time for which they keep a generation.

        Behind a router, where looking takes a statement for each merchant, it rings.
        """
        super().__init__(
            configured.redis_url if configured.is_routed else None,
            sweep_seconds=max(configured.api_key_cache_seconds, _SWEEP_SECONDS_MIN),
            is_routed=configured.is_routed,
        )
        self._rings = configured.is_routed

    async def ended(self, member: Watched, generation: int) -> None:
        """Return when tokens of a generation don't stand any more."""
        watcher = Watcher(generation)
        async with self.watching(member, watcher):
            if not has_ended(member, generation):
                await watcher.rung.wait()

    def end(self, member: Watched, generation: int) -> None:
        """End what this process keeps and has open for tokens of before a generation, which is the member's now."""
        _keep(member, generation, time.monotonic())
        ended = {"ended": generation - 1}
        self.heard(self.channel(member), ended)
        if self._rings:
            ring(database(), self.channel(member), lambda: ended)

    def channel(self, watched: Watched) -> str:
        """Return by what the watchers of a member are found, and where its end rings."""
        merchant_id, member_id = watched
        return f"flash:token:{merchant_id.hex}:{member_id.hex}"

    def hear(self, watchers: set[Watcher], rung: Mapping[str, Any]) -> None:
        """End what was opened with tokens of a generation that has ended, or of an older one."""
        ended = rung.get("ended")
        if not isinstance(ended, int):
            # Of another release, say: the next sweep tells.
            return
        for watcher in watchers:
            if watcher.generation <= ended:
                watcher.rung.set()

    async def sweep(self, watchers: Mapping[Watched, set[Watcher]]) -> None:
        """Find the generations that have ended, by one statement a merchant."""
        open_here: defaultdict[UUID, set[tuple[UUID, int]]] = defaultdict(set)
        for (merchant_id, member_id), its in watchers.items():
            open_here[merchant_id] |= {(member_id, watcher.generation) for watcher in its}

        async def look(merchant_id: UUID) -> None:
            member_ids, generations = zip(*open_here[merchant_id], strict=True)
            for row in await database().rows(
                SWEEP, merchant_id=merchant_id, member_ids=member_ids, generations=generations
            ):
                self.hear(watchers[merchant_id, row["id"]], {"ended": row["generation"]})

        await self.each_merchant(look, open_here)
