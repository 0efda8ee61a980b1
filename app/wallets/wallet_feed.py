"""The changes of wallets, each version exactly once and in order: what was missed from the table, then what rings.

One feed per process serves all its subscribers: one listening connection, and one statement for all that have to read.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import Any, Final, TypedDict, cast
from uuid import UUID

from graphql import GraphQLError
from strawberry.dataloader import DataLoader

from app.config import Settings
from app.coupons.rows import WholeCodeRow
from app.points.rows import EntryRow, WholeEntryRow
from app.storage import feed
from app.storage.database import database
from app.storage.feed import Feed, Watched, read_patiently
from app.storage.statements import columns, columns_of, row_of, statement
from app.storage.wallet_versions import ChangeRow, wallet_channel

#: How many changes are read at a time, and how many rings wait for a subscriber that is busy; it reads what is beyond.
BATCH: Final = 50
WAITING_MAX: Final = 50
#: How long a ring may take. A sweep that overtakes one leaves it that time, instead of having its wallet read.
_RINGING_SECONDS: Final = 0.25
#: After these a wallet changes no more.
LAST_EVENTS: Final = frozenset({"member.merged"})
#: How many wallets one statement reads.
_WALLETS_MAX: Final = 100


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
SWEEP_MERCHANT: Final = statement(
    _AheadRow,
    """
SELECT :merchant_id::uuid AS merchant_id, asked.member_id, w.version
FROM unnest(:member_ids::uuid[], :versions::bigint[]) AS asked (member_id, version)
CROSS JOIN LATERAL (
    SELECT version FROM wallet WHERE merchant_id = :merchant_id AND member_id = asked.member_id OFFSET 0
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


def _whole(rung: Mapping[str, object]) -> WalletChangeRow | None:
    """Return a ring that tells all of a change; one that lacks something (of another release, say) is None."""
    is_whole = rung.keys() >= _OF_CODE or rung.keys() >= _OF_ENTRY
    return cast("WalletChangeRow", rung) if is_whole else None


class Watcher(feed.Watcher):
    """One subscriber's place: the version it was given last, and what rang since."""

    __slots__ = ("is_behind", "read", "version", "waiting")

    def __init__(self, version: int) -> None:
        """Begin after a version; what came between that and the first ring has to be read."""
        super().__init__()
        self.version = version
        self.is_behind = True
        #: What was read and is to be told, and what rang since. Both are short, and an empty deque takes 0.8 KB.
        self.read: list[WalletChangeRow] = []
        self.waiting: list[WalletChangeRow] = []

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do until something rings."""
        return not (self.is_behind or self.read or self.waiting)

    @property
    def known(self) -> int:
        """The version that it will have been given when it was given all that waits for it."""
        last = self.waiting or self.read
        return (last[-1]["event_wallet_version"] or 0) if last else self.version

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


class WalletFeed(Feed[Watcher]):
    """All wallets that this process's subscribers watch."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; `running` connects."""
        super().__init__(settings.redis_url, sweep_seconds=settings.wallet_sweep_seconds, is_routed=settings.is_routed)
        self._history = timedelta(days=settings.wallet_history_days)
        self._reader: DataLoader[tuple[Watched, int], list[WalletChangeRow]] = DataLoader(
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

    async def _changes(self, wallet: Watched, after: int) -> AsyncGenerator[WalletChangeRow, None]:
        watcher = Watcher(after)
        is_last = False
        async with self.watching(wallet, watcher):
            while not is_last:
                row = await self._next(wallet, watcher)
                watcher.version += 1
                is_last = row["event_type"] in LAST_EVENTS
                yield row
                # Nothing of it is kept until the next one.
                del row

    async def _next(self, wallet: Watched, watcher: Watcher) -> WalletChangeRow:
        """Return the change after those that a watcher was told, once there is one."""
        while not watcher.read:
            if watcher.is_behind:
                # What rings while the table is read is kept: it may be newer than what is read.
                watcher.is_behind = False
                watcher.read = await self._read(wallet, watcher.version)
                watcher.is_behind |= len(watcher.read) == BATCH
            elif not watcher.waiting:
                watcher.rung.clear()
                await watcher.rung.wait()
            else:
                row = watcher.waiting.pop(0)
                version = row["event_wallet_version"] or 0
                if version == watcher.version + 1:
                    return row
                if version > watcher.version:
                    watcher.fall_behind()
                del row
        return watcher.read.pop(0)

    async def _read(self, wallet: Watched, after: int) -> list[WalletChangeRow]:
        """Return the next changes of a wallet, read together with those of others."""
        # A subscriber that leaves must not cancel what it waits for: a loader whose first waiters were all cancelled
        # before it began to read never reads again.
        return await read_patiently(lambda: asyncio.shield(self._reader.load((wallet, after))))

    def channel(self, watched: Watched) -> str:
        """Return where changes of a wallet ring."""
        return wallet_channel(*watched)

    def hear(self, watchers: set[Watcher], ring: Mapping[str, Any]) -> None:
        """Offer a change to the watchers of its wallet."""
        change = _whole(ring)
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
        if not self.is_routed:
            merchants, members = zip(*told, strict=True)
            self._tell_soon(
                watchers,
                await database().rows(SWEEP, merchant_ids=merchants, member_ids=members, versions=list(told.values())),
            )
            return
        places: defaultdict[UUID, dict[UUID, int]] = defaultdict(dict)
        for (merchant_id, member_id), version in told.items():
            places[merchant_id][member_id] = version

        async def look(merchant_id: UUID) -> None:
            members = places[merchant_id]
            self._tell_soon(
                watchers,
                await database().rows(
                    SWEEP_MERCHANT,
                    merchant_id=merchant_id,
                    member_ids=list(members),
                    versions=list(members.values()),
                ),
            )

        await self.each_merchant(look, places)

    def _tell_soon(self, watchers: Mapping[Watched, set[Watcher]], ahead: list[_AheadRow]) -> None:
        """Have watchers read what they aren't told by then: at once, or when rings had time to come."""
        if not ahead:
            return
        seconds = _RINGING_SECONDS if self.is_listening else 0
        those = [(watchers[row["merchant_id"], row["member_id"]], row["version"]) for row in ahead]
        asyncio.get_running_loop().call_later(seconds, self._tell, those)

    def _tell(self, those: list[tuple[set[Watcher], int]]) -> None:
        for watchers, version in those:
            for watcher in watchers:
                if watcher.known < version:
                    watcher.fall_behind()


async def _read(asked: list[tuple[Watched, int]]) -> list[list[WalletChangeRow]]:
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
