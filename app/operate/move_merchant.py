"""`flash merchant move`: a merchant's rows go to another server while it is served, and it is served there afterwards.

Rows are copied as of one moment, and changed ones again, until few are left. Then the merchant is closed, for less than
a second: the last changes are copied, webhooks begin anew, and a program tells the router. Only after that is the
merchant open at the other server. Whatever fails before, it is opened again where it was; whatever fails after, it has
moved. What each server knows is in its fence, so that the next run takes up one that was killed, or undoes it.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from app.config import ConfigurationError
from app.merchants.tenants import KEPT_SECONDS
from app.operate import move_merchant_changes as changes
from app.operate import move_merchant_fence as fences
from app.operate import move_merchant_router as router
from app.operate import move_merchant_rows as rows
from app.operate import move_merchant_servers as servers
from app.operate import move_merchant_webhooks as webhooks
from app.operate.move_merchant_fence import Fence
from app.operate.move_merchant_rows import Table
from app.operate.move_merchant_servers import FAILED, Server
from app.storage.event_partitions import make_partitions, months_of
from app.storage.pulse import within

#: For how long a merchant may be closed; what takes longer is undone.
CLOSED_SECONDS_MAX: Final = 0.8
#: How often closing it is tried in one run, and how long it is open in between.
_TRIES: Final = 3
_TRY_AGAIN_SECONDS: Final = 1.0
#: Once a merchant is known to leave, each process learns it within this time, and asks before it answers.
SETTLING_SECONDS: Final = KEPT_SECONDS + 1
#: With fewer changed rows a round has caught up.
_FEW: Final = 500
#: A table with as many new rows is analysed at once.
_GROWN: Final = 500
_ROUND_SECONDS: Final = 0.25
#: How long a server may take to end what it was doing, or to take over.
_END_SECONDS_MAX: Final = 5.0
_WAIT_SECONDS: Final = 0.02
#: All that was committed without waiting for the disk is on it, too.
_FLUSH: Final = "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'flash', '')"
_NEXT: Final = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_OLDEST: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
#: A few keys are looked for in an index, whatever the planner knows of tables that have just grown.
_BY_INDEX: Final = """
SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off
"""

Say = Callable[[str], None]


@dataclass(slots=True)
class Moved:
    """What a run came to. A merchant that had moved before was closed for no time."""

    tables: int = 0
    rows: int = 0
    changes: int = 0
    seconds_copying: float = 0.0
    seconds_closed: float = 0.0


class _UndoneError(Exception):
    """The merchant was opened again where it was; the message says why."""


async def move(node_id: str, source_url: str, target_url: str, switch: str, say: Say) -> Moved:
    """Move a merchant, or go on with a move. Raises ConfigurationError when it can't, or was undone."""
    program = router.program(switch)
    async with servers.both(node_id, source_url, target_url) as (merchant_id, source, target):
        here, there = await servers.fences_of(merchant_id, source, target)
        await servers.refuse(node_id, merchant_id, source, target, here, there)
        if here is not None and here.state == "CLOSED" and there is None:
            await _tidy(merchant_id, source, target)
            return Moved()
        connect = partial(servers.connected, "--from", source_url)
        async with connect() as reader, connect() as opener:
            run = _Run(merchant_id, source, target, reader, opener, program, say)
            if here is not None and here.state == "CLOSED":
                await run.undo()
            is_copied = here is not None and there is not None and there.move == here.move and there.is_copied
            if not is_copied or not await changes.is_kept(source.connection, merchant_id):
                await servers.refuse_unable(source.connection, target.connection)
                await run.begin(here)
            await run.follow()
            await run.switch()
    return run.moved


async def abort(node_id: str, source_url: str, target_url: str, switch: str | None, say: Say) -> None:
    """Undo a move that isn't finished: the source is as it was, and the target has no row. It can be run again."""
    program = None if switch is None else router.program(switch)
    async with servers.both(node_id, source_url, target_url) as (merchant_id, source, target):
        here, there = await servers.fences_of(merchant_id, source, target)
        if here is None and there is None:
            raise ConfigurationError(f"No move of {node_id[:60]} is under way from --from to --to.")
        if (here is not None and (here.peer != target.identity or here.state == "ARRIVING")) or (
            there is not None and (there.peer != source.identity or there.state != "ARRIVING")
        ):
            raise ConfigurationError(f"{node_id[:60]} moves between other servers than --from and --to.")
        if here is not None and here.state == "CLOSED":
            if there is None:
                raise ConfigurationError(
                    f"{node_id[:60]} has moved: it is served at --to. Move it back, if you want that."
                )
            if program is None:
                raise ConfigurationError(
                    "The router may have been told of the move; name --switch, which tells it back."
                )
            await fences.change(source.connection, merchant_id, "LEAVING")
            await router.tell_back(program, merchant_id)
        await _clear_source(source.connection, merchant_id)
        if there is None:
            say("--from is as it was.")
            return
        deleted = await rows.delete_all(target.connection, merchant_id)
        await fences.unguard(target.connection, merchant_id)
        await fences.remove(target.connection, merchant_id)
        say(f"{deleted:,} rows were deleted at --to; --from is as it was.")


async def remove_moved(node_id: str, source_url: str, target_url: str, *, is_restored: bool = False) -> int:
    """Delete what a merchant that has moved left behind. Returns how many rows. It can be run again, and goes on.

    `is_restored` takes the operator's word for a copy of the source from before the move.
    """
    async with servers.both(node_id, source_url, target_url) as (merchant_id, source, target):
        here, there = await servers.fences_of(merchant_id, source, target)
        if (here is None or here.state != "CLOSED") and not (is_restored and await servers.is_at(source, merchant_id)):
            raise ConfigurationError(f"{node_id[:60]} hasn't moved away from --from; nothing was removed.")
        if there is not None or not await servers.is_at(target, merchant_id):
            raise ConfigurationError(f"{node_id[:60]} isn't served at --to; nothing was removed.")
        if here is None or here.state != "CLOSED":
            await fences.put(source.connection, merchant_id, uuid.uuid4(), "CLOSED", target.identity)
        await _tidy(merchant_id, source, target)
        deleted = await rows.delete_all(source.connection, merchant_id)
        await fences.unguard(source.connection, merchant_id)
        await fences.remove(source.connection, merchant_id)
    return deleted


@dataclass(slots=True)
class _Run:
    """A move from the copying on."""

    merchant_id: UUID
    source: Server
    target: Server
    #: At the source; it sees one moment at a time.
    reader: asyncpg.Connection
    #: At the source, and always free.
    opener: asyncpg.Connection
    program: list[str]
    say: Say
    moved: Moved = field(default_factory=Moved)
    tables: list[Table] = field(default_factory=list)
    _is_told: bool = False
    #: What was begun while the merchant is closed, and when.
    _steps: list[tuple[str, float]] = field(default_factory=list)

    async def begin(self, here: Fence | None) -> None:
        """Copy all rows as of one moment. What fails leaves both servers as they were."""
        began = time.monotonic()
        try:
            await self._begin(uuid.uuid4() if here is None else here.move)
        except BaseException as error:
            with contextlib.suppress(*FAILED):
                await _clear_source(self.source.connection, self.merchant_id)
            with contextlib.suppress(*FAILED):
                await fences.unguard(self.target.connection, self.merchant_id)
                await fences.remove(self.target.connection, self.merchant_id)
            if isinstance(error, asyncpg.DiskFullError):
                raise ConfigurationError("--to has no room for the merchant's rows; nothing was moved.") from None
            raise
        self.moved.seconds_copying = time.monotonic() - began
        self.say(f"{self.moved.rows:,} rows of {self.moved.tables} tables were copied, and are equal.")

    async def _begin(self, move_id: UUID) -> None:
        source, target = self.source.connection, self.target.connection
        await fences.put(target, self.merchant_id, move_id, "ARRIVING", self.source.identity)
        await fences.put(source, self.merchant_id, move_id, "LEAVING", self.target.identity)
        await rows.delete_all(target, self.merchant_id)
        self.tables = await rows.tables(source)
        # What comes from months that the target hasn't got any more, or never had, isn't to fill its DEFAULT.
        await make_partitions(target, await months_of(source))
        for connection in (source, target):
            await fences.guard(connection, self.merchant_id, [table.name for table in self.tables])
        await changes.keep(source, self.merchant_id, self.tables)
        await self._wait_for_all()
        async with self.reader.transaction(isolation="repeatable_read"), target.transaction():
            await target.execute("SET LOCAL session_replication_role = replica")
            transaction = await target.fetchval("SELECT pg_current_xact_id()::text::bigint")
            copied = {
                table: await rows.copy_all(self.reader, target, table, self.merchant_id, transaction)
                for table in self.tables
            }
            await self._refuse_differing(dict.fromkeys(self.tables))
            await target.execute("UPDATE fence SET copied_at = now() WHERE merchant_id = $1", self.merchant_id)
        self.moved.tables = sum(1 for count in copied.values() if count)
        self.moved.rows = sum(copied.values())
        # Whoever asks for these rows needs to know how many there are.
        grown = [table.name for table, count in copied.items() if count >= _GROWN]
        if grown:
            await target.execute(f"ANALYZE {', '.join(grown)}")

    async def _wait_for_all(self) -> None:
        """Wait for the transactions that may have committed before changes were kept, and be in no snapshot yet."""
        newest = await self.source.connection.fetchval(_NEXT)
        while await self.source.connection.fetchval(_OLDEST) < newest:  # noqa: ASYNC110
            await asyncio.sleep(_WAIT_SECONDS)

    async def follow(self) -> None:
        """Copy what changes, until little does and every process knows that the merchant may be closed."""
        self.tables = self.tables or await rows.tables(self.source.connection)
        while True:
            changed = await self._round()
            fence = await fences.read(self.source.connection, self.merchant_id)
            age = 0.0 if fence is None else fence.age
            if changed < _FEW and age >= SETTLING_SECONDS:
                return
            if changed < _FEW:
                await asyncio.sleep(min(_ROUND_SECONDS, SETTLING_SECONDS - age))

    async def _round(self, *, is_last: bool = False) -> int:
        """Bring the target to one moment of the source, and compare what changed. Returns how many rows that was."""
        source, target = self.source.connection, self.target.connection
        async with self.reader.transaction(isolation="repeatable_read"):
            self._step("write what was committed to the disk")
            # Whatever this moment sees is then on the disk, where decoding finds it.
            seen = await changes.moment(self.reader)
            await source.execute(_FLUSH)
            self._step("read which rows changed")
            found, lsn = await changes.changed(self.reader, self.merchant_id, self.tables, seen)
            self._step(f"copy and compare {sum(map(len, found.values())):,} rows")
            if found:
                await self.reader.execute(_BY_INDEX)
                async with target.transaction():
                    await target.execute(f"{_BY_INDEX}; SET LOCAL session_replication_role = replica")
                    transaction = await target.fetchval("SELECT pg_current_xact_id()::text::bigint")
                    for table, keys in found.items():
                        await rows.delete(target, table, self.merchant_id, keys)
                    for table, keys in found.items():
                        await rows.copy_again(self.reader, target, table, self.merchant_id, keys, transaction)
                    await self._refuse_differing(dict(found))
        if lsn is not None and not is_last:
            await changes.read_up_to(source, self.merchant_id, lsn)
        changed = sum(map(len, found.values()))
        self.moved.changes += changed
        return changed

    async def _refuse_differing(self, compared: "dict[Table, set[rows.Key] | None]") -> None:
        differing = await rows.differing(self.reader, self.target.connection, self.merchant_id, dict(compared))
        if differing:
            raise ConfigurationError(
                f"The rows of {', '.join(differing)} differ between --from and --to after they were copied; nothing "
                "was switched."
            )

    async def switch(self) -> None:
        """Close the merchant, copy the rest, tell the router, and open it at the target. Undone, it is tried again."""
        for tries_left in reversed(range(_TRIES)):
            # What is done here isn't left for while the merchant is closed.
            told = await webhooks.make_deliveries(self.source.connection, self.merchant_id)
            await self._round()
            try:
                await self._close_and_open(told)
            except _UndoneError as reason:
                if not tries_left:
                    raise ConfigurationError(
                        f"The move was undone {_TRIES} times, and the merchant is served at --from: {reason}. Run "
                        "this again, it goes on from there, or with --abort. Until then --from keeps its write-ahead "
                        "log."
                    ) from None
                self.say(f"Undone: {reason}. It is tried again.")
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
            else:
                break
        await _tidy(self.merchant_id, self.source, self.target)

    async def _close_and_open(self, told: webhooks.Disabled) -> None:
        """Raises _UndoneError when the merchant is open again where it was."""
        began = time.monotonic()
        self._steps.clear()
        closing = asyncio.create_task(self._close(told))
        try:
            await self._in_time(closing)
        except BaseException as error:
            closing.cancel()
            # Over a connection of its own: one of the others may wait for a server that doesn't answer.
            await fences.change(self.opener, self.merchant_id, "LEAVING")
            done, _ = await asyncio.wait([closing], timeout=_END_SECONDS_MAX)
            if self._is_told:
                await router.tell_back(self.program, self.merchant_id)
            if not done or not await _answers(self.target.connection):
                raise ConfigurationError(
                    "--to doesn't answer, and the merchant is served at --from. Run this again, it goes on from there, "
                    "or with --abort."
                ) from None
            if isinstance(error, router.NotToldError):
                raise _UndoneError(str(error)) from None
            raise
        try:
            self._step("open it at --to")
            async with asyncio.timeout(_END_SECONDS_MAX):
                await fences.remove(self.target.connection, self.merchant_id)
        except FAILED:
            raise ConfigurationError(
                "--to failed at the moment at which it took over, so nobody knows whether it has. The merchant stays "
                "closed until this is run again; it goes on from there once --to answers."
            ) from None
        self.moved.seconds_closed = time.monotonic() - began
        self.say(f"While it was closed it took {self._spent()}.")

    async def _in_time(self, closing: "asyncio.Task[None]") -> None:
        """Wait until all is done, and not for what takes too long to end. Raises _UndoneError."""
        done, _ = await asyncio.wait([closing], timeout=CLOSED_SECONDS_MAX)
        if not done:
            raise _UndoneError(f"it wasn't done within {CLOSED_SECONDS_MAX * 1000:.0f} ms; it took {self._spent()}")
        closing.result()

    def _step(self, what: str) -> None:
        self._steps.append((what, time.monotonic()))

    def _spent(self) -> str:
        """Say what has taken how long until now."""
        ends = [began for _, began in self._steps[1:]] + [time.monotonic()]
        return ", ".join(
            f"{(ended - began) * 1000:.0f} ms to {what}" for (what, began), ended in zip(self._steps, ends, strict=True)
        )

    async def _close(self, told: webhooks.Disabled) -> None:
        """Close the merchant, and do all that has to be done until it is opened at the target."""
        source = self.source.connection
        self._is_told = False
        self._step("wait for those who write")
        await fences.change(source, self.merchant_id, "CLOSED")
        await fences.wait_for_writers(source, self.merchant_id)
        self._step("make deliveries")
        await webhooks.make_deliveries(source, self.merchant_id, told)
        await self._round(is_last=True)
        self._step("begin webhooks anew")
        await webhooks.begin(self.target.connection, self.merchant_id)
        self._step("tell the router")
        self._is_told = True
        await router.tell(self.program, self.merchant_id, "to")

    async def undo(self) -> None:
        """Open a merchant that a run has left closed. It isn't open at the target, where nothing was written."""
        await fences.change(self.source.connection, self.merchant_id, "LEAVING")
        await router.tell_back(self.program, self.merchant_id)


async def _answers(connection: asyncpg.Connection) -> bool:
    try:
        return bool(await within(_END_SECONDS_MAX, connection.fetchval("SELECT true")))
    except FAILED:
        return False


async def _clear_source(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    """Leave the source as it was before the move. It can be run again."""
    await changes.forget(connection, merchant_id)
    await fences.unguard(connection, merchant_id)
    await fences.remove(connection, merchant_id)


async def _tidy(merchant_id: UUID, source: Server, target: Server) -> None:
    """Keep no more changes, once the merchant has moved. It can be run again."""
    await changes.forget(source.connection, merchant_id)
    await fences.unguard(target.connection, merchant_id)
