"""The changes of wallets, each version exactly once and in order: what was missed from the table, then what rings.

One feed per process serves all its subscribers: one listening connection, and one statement for all that have to read.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, TypedDict, cast
from uuid import UUID

from graphql import GraphQLError
from strawberry.dataloader import DataLoader

from app.config import Settings
from app.coupons.rows import WholeCodeRow
from app.points.rows import EntryRow, WholeEntryRow
from app.storage.database import database, is_away
from app.storage.rings import Listener
from app.storage.statements import columns, columns_of, row_of, statement
from app.storage.wallet_versions import ChangeRow, wallet_channel

log = logging.getLogger("flash.wallets")

#: How many changes are read at a time, and how many rings wait for a subscriber that is busy; it reads what is beyond.
BATCH: Final = 50
WAITING_MAX: Final = 50
#: How many wallets one statement reads.
_WALLETS_MAX: Final = 100
_AWAY_SECONDS: Final = 1.0


@row_of(ev="event", c="code?", p="pool?", e="points_entry?", m="member", w="wallet")
class WalletChangeRow(ChangeRow, WholeCodeRow, EntryRow):
    """A change of a wallet, and what changed: `code_id` is null where it was no code, `entry_id` where no entry."""


class _ReadRow(WalletChangeRow):
    """A change, and the place of its wallet among those asked for."""

    position: int


class _AheadRow(TypedDict):
    """A wallet that has changes of which its watchers weren't told."""

    merchant_id: UUID
    member_id: UUID
    version: int


class _BeginRow(TypedDict):
    """A wallet's version, and how long ago the first change after the one asked for was."""

    version: int
    first_age: timedelta | None


# The next changes of each of a merchant's wallets, everything looked up by whole keys.
READ: Final = statement(
    _ReadRow,
    f"""
SELECT asked.position, {columns(WalletChangeRow)}
FROM unnest(:member_ids::uuid[], :versions::bigint[]) WITH ORDINALITY AS asked (member_id, after, position)
CROSS JOIN LATERAL (
    SELECT * FROM event
    WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND wallet_version > asked.after
    ORDER BY wallet_version LIMIT {BATCH}
) ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = ev.member_id OFFSET 0) m
CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = ev.member_id OFFSET 0) w
LEFT JOIN LATERAL (
    SELECT code_id FROM redemption WHERE merchant_id = :merchant_id AND id = ev.subject_id OFFSET 0
) r ON ev.type = 'redemption.reversed'
LEFT JOIN LATERAL (
    SELECT * FROM code WHERE merchant_id = :merchant_id AND id = coalesce(r.code_id, ev.subject_id) OFFSET 0
) c ON true
LEFT JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = c.pool_id OFFSET 0) p ON true
LEFT JOIN LATERAL (
    SELECT * FROM points_entry WHERE merchant_id = :merchant_id AND id = ev.subject_id OFFSET 0
) e ON ev.type IN ('points.credited', 'points.debited')
ORDER BY ev.wallet_version
""",
)
SWEEP: Final = statement(
    _AheadRow,
    """
SELECT asked.merchant_id, asked.member_id, w.version
FROM unnest(:merchant_ids::uuid[], :member_ids::uuid[], :versions::bigint[]) AS asked (merchant_id, member_id, version)
CROSS JOIN LATERAL (
    SELECT version FROM wallet WHERE merchant_id = asked.merchant_id AND member_id = asked.member_id OFFSET 0
) w
WHERE w.version > asked.version
""",
)
BEGIN: Final = statement(
    _BeginRow,
    """
SELECT version, now() - (
    SELECT occurred_at FROM event
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND wallet_version = :after::bigint + 1
) AS first_age
FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id
""",
)

#: What a change of codes or of points needs to be shown.
_OF_CODE: Final = columns_of(ChangeRow).keys() | columns_of(WholeCodeRow).keys()
_OF_ENTRY: Final = columns_of(ChangeRow).keys() | columns_of(WholeEntryRow).keys()

Wallet = tuple[UUID, UUID]


def _whole(rung: Mapping[str, object]) -> WalletChangeRow | None:
    """Return a ring that tells all of a change; one that lacks something (of another release, say) is None."""
    is_whole = rung.keys() >= _OF_CODE or rung.keys() >= _OF_ENTRY
    return cast("WalletChangeRow", rung) if is_whole else None


class Watcher:
    """One subscriber's place: the version it was given last, and what rang since."""

    __slots__ = ("is_behind", "rung", "version", "waiting")

    def __init__(self, version: int) -> None:
        """Begin after a version; what came between that and the first ring has to be read."""
        self.version = version
        self.is_behind = True
        self.waiting: deque[WalletChangeRow] = deque()
        self.rung = asyncio.Event()

    def offer(self, change: WalletChangeRow | None) -> None:
        """Keep a change that rang, or notice that it has to be read."""
        if len(self.waiting) < WAITING_MAX and change is not None:
            self.waiting.append(change)
        else:
            self.fall_behind()
        self.rung.set()

    def fall_behind(self) -> None:
        """Notice that the table knows more."""
        self.waiting.clear()
        self.is_behind = True
        self.rung.set()


class WalletFeed:
    """All wallets that this process's subscribers watch."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; `running` connects."""
        self._history = timedelta(days=settings.wallet_history_days)
        self._sweep_seconds = settings.wallet_sweep_seconds
        self._watchers: dict[str, tuple[Wallet, set[Watcher]]] = {}
        self._listener = (
            None if settings.redis_url is None else Listener(settings.redis_url, self._heard, self._sweep_soon)
        )
        self._swept = asyncio.Event()
        self._reader: DataLoader[tuple[Wallet, int], list[WalletChangeRow]] = DataLoader(
            load_fn=_read, max_batch_size=_WALLETS_MAX, cache=False
        )

    async def follow(
        self, merchant_id: UUID, member_id: UUID, after: int | None
    ) -> AsyncGenerator[WalletChangeRow, None]:
        """Return the changes after a version, those to come included; from now on when no version is given.

        Raises GraphQLError with VERSION_UNKNOWN or HISTORY_GONE.
        """
        begun = await database().row(BEGIN, merchant_id=merchant_id, member_id=member_id, after=after)
        if begun is None:
            raise RuntimeError("a member has no wallet")
        version = begun["version"]
        if after is not None and not 0 <= after <= version:
            message = (
                f"This wallet has no version {after}: it is at version {version}. Read it anew and go on from there."
            )
            raise GraphQLError(message, extensions={"code": "VERSION_UNKNOWN", "version": version})
        if after is not None and after < version and (begun["first_age"] is None or begun["first_age"] > self._history):
            message = (
                f"Changes are kept for {self._history.days} days. Read the wallet anew and go on from its version."
            )
            raise GraphQLError(message, extensions={"code": "HISTORY_GONE", "version": version})
        return self._changes((merchant_id, member_id), version if after is None else after)

    async def _changes(self, wallet: Wallet, after: int) -> AsyncGenerator[WalletChangeRow, None]:
        async with self._watching(wallet, after) as watcher:
            while True:
                if watcher.is_behind:
                    # What rings while the table is read is kept: it may be newer than what is read.
                    watcher.is_behind = False
                    rows = await self._read(wallet, watcher.version)
                    watcher.is_behind |= len(rows) == BATCH
                    for row in rows:
                        watcher.version += 1
                        yield row
                elif not watcher.waiting:
                    watcher.rung.clear()
                    await watcher.rung.wait()
                else:
                    row = watcher.waiting.popleft()
                    version = row["event_wallet_version"] or 0
                    if version == watcher.version + 1:
                        watcher.version += 1
                        yield row
                    elif version > watcher.version:
                        watcher.fall_behind()

    @asynccontextmanager
    async def _watching(self, wallet: Wallet, after: int) -> AsyncIterator[Watcher]:
        """Watch a wallet for the length of the block; it rings from the beginning of the block on."""
        channel = wallet_channel(*wallet)
        watcher = Watcher(after)
        _, watchers = self._watchers.setdefault(channel, (wallet, set()))
        watchers.add(watcher)
        try:
            if self._listener is not None:
                await self._listener.listen(channel)
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers and self._watchers.pop(channel, None) is not None and self._listener is not None:
                await self._listener.ignore(channel)

    async def _read(self, wallet: Wallet, after: int) -> list[WalletChangeRow]:
        """Return the next changes of a wallet, read together with those of others; waits out an absent database."""
        while True:
            try:
                # A subscriber that leaves must not cancel what it waits for: a loader whose first waiters were all
                # cancelled before it began to read never reads again.
                return await asyncio.shield(self._reader.load((wallet, after)))
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(_AWAY_SECONDS)

    def _heard(self, channel: str, rung: Mapping[str, object]) -> None:
        if channel in self._watchers:
            change = _whole(rung)
            for watcher in self._watchers[channel][1]:
                watcher.offer(change)

    def _sweep_soon(self) -> None:
        self._swept.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and sweep for the length of the block."""
        tasks = [asyncio.create_task(self._sweep_always())]
        if self._listener is not None:
            tasks.append(asyncio.create_task(self._listener.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sweep_seconds):
                    await self._swept.wait()
            self._swept.clear()
            try:
                await self._sweep()
            except Exception as error:
                if not is_away(error):
                    log.exception("a sweep failed")

    async def _sweep(self) -> None:
        """Ask once for all wallets whether they are ahead of watchers that wait for rings."""
        waiting = {
            wallet: min(watcher.version for watcher in watchers if not (watcher.is_behind or watcher.waiting))
            for wallet, watchers in self._watchers.values()
            if any(not (watcher.is_behind or watcher.waiting) for watcher in watchers)
        }
        if not waiting:
            return
        merchants, members = zip(*waiting, strict=True)
        for row in await database().rows(
            SWEEP, merchant_ids=merchants, member_ids=members, versions=list(waiting.values())
        ):
            channel = wallet_channel(row["merchant_id"], row["member_id"])
            for watcher in self._watchers[channel][1] if channel in self._watchers else ():
                if watcher.version < row["version"]:
                    watcher.fall_behind()


async def _read(asked: list[tuple[Wallet, int]]) -> list[list[WalletChangeRow]]:
    """Return the next changes after each version, by one statement a merchant."""
    places: defaultdict[UUID, list[int]] = defaultdict(list)
    for place, ((merchant_id, _), _) in enumerate(asked):
        places[merchant_id].append(place)
    changes: list[list[WalletChangeRow]] = [[] for _ in asked]

    async def read(merchant_id: UUID, own: list[int]) -> None:
        for row in await database().rows(
            READ,
            merchant_id=merchant_id,
            member_ids=[asked[place][0][1] for place in own],
            versions=[asked[place][1] for place in own],
        ):
            changes[own[row["position"] - 1]].append(row)

    await asyncio.gather(*(read(merchant_id, own) for merchant_id, own in places.items()))
    return changes


_feed: WalletFeed | None = None


def wallet_feed() -> WalletFeed:
    """Return the feed of this process."""
    if _feed is None:
        raise RuntimeError("this process feeds no wallets")
    return _feed


@asynccontextmanager
async def feeding(settings: Settings) -> AsyncIterator[None]:
    """Feed this process's subscribers for the length of the block."""
    global _feed  # noqa: PLW0603  (one feed per process)
    _feed = WalletFeed(settings)
    try:
        async with _feed.running():
            yield
    finally:
        _feed = None
