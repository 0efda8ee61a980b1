"""The changes of wallets, each version exactly once and in order: what was missed from the table, then what rings.

One statement reads for all subscribers of a process that have to.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from graphql import GraphQLError
from strawberry.dataloader import DataLoader

from app.config import Settings
from app.coupons.rows import CODE_COLUMNS, POOL_COLUMNS
from app.members.rows import MEMBER_COLUMNS
from app.points.rows import ENTRY_COLUMNS
from app.storage import feed
from app.storage.database import Row, database
from app.storage.events import WALLET_EVENTS
from app.storage.feed import Feed, Watched, read_patiently
from app.storage.wallet_versions import CHANGE_COLUMNS, wallet_channel

#: How many changes are read at a time, and how many rings wait for a subscriber that is busy; it reads what is beyond.
BATCH: Final = 50
WAITING_MAX: Final = 50
#: How many wallets one statement reads.
_WALLETS_MAX: Final = 100

# Each wallet's next changes, everything looked up by whole keys.
READ: Final = f"""
SELECT asked.position, {CHANGE_COLUMNS}, {CODE_COLUMNS}, {POOL_COLUMNS}, {ENTRY_COLUMNS}, {MEMBER_COLUMNS}
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS asked (merchant_id, member_id, after, position)
CROSS JOIN LATERAL (
    SELECT * FROM event
    WHERE merchant_id = asked.merchant_id AND member_id = asked.member_id AND wallet_version > asked.after
    ORDER BY wallet_version LIMIT {BATCH}
) ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = ev.merchant_id AND id = ev.member_id OFFSET 0) m
CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = ev.merchant_id AND member_id = ev.member_id OFFSET 0) w
LEFT JOIN LATERAL (
    SELECT code_id FROM redemption WHERE merchant_id = ev.merchant_id AND id = ev.subject_id OFFSET 0
) r ON ev.type = 'redemption.reversed'
LEFT JOIN LATERAL (
    SELECT * FROM code WHERE merchant_id = ev.merchant_id AND id = coalesce(r.code_id, ev.subject_id) OFFSET 0
) c ON true
LEFT JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = ev.merchant_id AND id = c.pool_id OFFSET 0) p ON true
LEFT JOIN LATERAL (
    SELECT * FROM points_entry WHERE merchant_id = ev.merchant_id AND id = ev.subject_id OFFSET 0
) e ON ev.type IN ('points.credited', 'points.debited')
ORDER BY ev.wallet_version
"""

# Which of the watched wallets have changes that their watchers weren't told.
SWEEP: Final = """
SELECT asked.merchant_id, asked.member_id, w.version
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS asked (merchant_id, member_id, version)
CROSS JOIN LATERAL (
    SELECT version FROM wallet WHERE merchant_id = asked.merchant_id AND member_id = asked.member_id OFFSET 0
) w
WHERE w.version > asked.version
"""

# Where a subscription begins: the wallet's version, and when the first change after $3 was.
BEGIN: Final = """
SELECT version, now() - (
    SELECT occurred_at FROM event WHERE merchant_id = $1 AND member_id = $2 AND wallet_version = $3::bigint + 1
) AS first_age
FROM wallet WHERE merchant_id = $1 AND member_id = $2
"""

#: What a change of codes or of points needs to be shown.
_OF_CODE: Final = frozenset(re.findall(r" AS (\w+)", CHANGE_COLUMNS + MEMBER_COLUMNS + CODE_COLUMNS + POOL_COLUMNS))
_OF_ENTRY: Final = frozenset(re.findall(r" AS (\w+)", CHANGE_COLUMNS + MEMBER_COLUMNS + ENTRY_COLUMNS))


def _is_whole(change: Row) -> bool:
    """Whether a ring tells all; one that lacks something (from another release, say) is read from the table."""
    return change.keys() >= _OF_CODE or change.keys() >= _OF_ENTRY


class Watcher(feed.Watcher):
    """One subscriber's place: the version it was given last, and what rang since."""

    __slots__ = ("is_behind", "version", "waiting")

    def __init__(self, version: int) -> None:
        """Begin after a version; what came between that and the first ring has to be read."""
        super().__init__()
        self.version = version
        self.is_behind = True
        self.waiting: deque[Row] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do until something rings."""
        return not (self.is_behind or self.waiting)

    def offer(self, change: Row) -> None:
        """Keep a change that rang, or notice that it has to be read."""
        if len(self.waiting) < WAITING_MAX and _is_whole(change):
            self.waiting.append(change)
        else:
            self.fall_behind()
        self.rung.set()

    def fall_behind(self) -> None:
        """Notice that the table knows more."""
        self.waiting.clear()
        self.is_behind = True
        self.rung.set()


class WalletFeed(Feed[Watcher]):
    """All wallets that this process's subscribers watch."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; `running` connects."""
        super().__init__(settings.redis_url, sweep_seconds=settings.wallet_sweep_seconds)
        self._history = timedelta(days=settings.wallet_history_days)
        self._reader: DataLoader[tuple[Watched, int], list[Row]] = DataLoader(
            load_fn=_read, max_batch_size=_WALLETS_MAX, cache=False
        )

    async def follow(self, merchant_id: UUID, member_id: UUID, after: int | None) -> AsyncGenerator[Row, None]:
        """Return the changes after a version, those to come included; from now on when no version is given.

        Raises GraphQLError with VERSION_UNKNOWN or HISTORY_GONE.
        """
        begun = await database().row(BEGIN, merchant_id, member_id, after)
        if begun is None:
            raise RuntimeError("a member has no wallet")
        version: int = begun["version"]
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

    async def _changes(self, wallet: Watched, after: int) -> AsyncGenerator[Row, None]:
        watcher = Watcher(after)
        async with self.watching(wallet, watcher):
            while True:
                if watcher.is_behind:
                    # What rings while the table is read is kept: it may be newer than what is read.
                    watcher.is_behind = False
                    rows = await self._read(wallet, watcher.version)
                    watcher.is_behind |= len(rows) == BATCH
                    for row in rows:
                        watcher.version = row["event_wallet_version"]
                        yield row
                elif not watcher.waiting:
                    watcher.rung.clear()
                    await watcher.rung.wait()
                else:
                    row = watcher.waiting.popleft()
                    if row["event_wallet_version"] == watcher.version + 1:
                        watcher.version += 1
                        yield row
                    elif row["event_wallet_version"] > watcher.version:
                        watcher.fall_behind()

    async def _read(self, wallet: Watched, after: int) -> list[Row]:
        """Return the next changes of a wallet, read together with those of others."""
        # A subscriber that leaves must not cancel what it waits for: a loader whose first waiters were all cancelled
        # before it began to read never reads again.
        return await read_patiently(lambda: asyncio.shield(self._reader.load((wallet, after))))

    def channel(self, watched: Watched) -> str:
        """Return where changes of a wallet ring."""
        return wallet_channel(*watched)

    def hear(self, watchers: set[Watcher], ring: Mapping[str, Any]) -> None:
        """Offer a change to the watchers of its wallet."""
        change = as_of_event(ring) if _is_whole(ring) else ring
        for watcher in watchers:
            watcher.offer(change)

    async def sweep(self, watchers: Mapping[Watched, set[Watcher]]) -> None:
        """Find the wallets that are ahead of watchers that wait for rings."""
        told = {
            wallet: min(watcher.version for watcher in its if watcher.is_idle)
            for wallet, its in watchers.items()
            if any(watcher.is_idle for watcher in its)
        }
        if not told:
            return
        merchants, members = zip(*told, strict=True)
        for row in await database().rows(SWEEP, merchants, members, list(told.values())):
            for watcher in watchers[row["merchant_id"], row["member_id"]]:
                if watcher.version < row["version"]:
                    watcher.fall_behind()


def as_of_event(row: Row) -> Row:
    """Return a change as it was: the wallet at its version and the code in the state that it left it in."""
    overlay: dict[str, Any] = {
        "wallet_version": row["event_wallet_version"],
        "wallet_points": row["event_wallet_points"],
    }
    if row.get("code_id") is not None:
        state = WALLET_EVENTS.get(row["event_type"]) or row["code_state"]
        overlay["code_state"] = state
        overlay["code_redeemed_at"] = _redeemed_at(row, state)
    return dict(row) | overlay


def _redeemed_at(row: Row, state: str) -> Any:
    """Return when a code was spent that is spent after this change."""
    if row["event_type"] == "code.redeemed":
        return row["event_occurred_at"]
    return row["code_redeemed_at"] if state == "REDEEMED" else None


async def _read(asked: list[tuple[Watched, int]]) -> list[list[Row]]:
    merchants = [merchant_id for (merchant_id, _), _ in asked]
    members = [member_id for (_, member_id), _ in asked]
    changes: list[list[Row]] = [[] for _ in asked]
    for row in await database().rows(READ, merchants, members, [after for _, after in asked]):
        changes[row["position"] - 1].append(as_of_event(row))
    return changes
