"""`flash archive`. Without these it could lose events, or take away what webhooks and the report still need."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from pyarrow import parquet

from app.config import ConfigurationError, Settings
from app.integrity.promises import PROMISES
from app.operate import archive as archiving
from app.operate import archive_files
from app.operate.archive import Archived, archive
from app.storage.database import dsn
from app.storage.event_partitions import after, make_partitions, months_of
from tests.guides import blocks, run
from tests.scratch import MERCHANT, scratch_database

GUIDE = "docs/operations.md"
NOW = datetime.now(UTC)
#: Three months that are over for a year, and more.
OLD = [after(NOW.date(), -months) for months in (16, 15, 14)]
KEPT = Settings(event_retention_days=366)
RECORD = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, reason, member_id,
    wallet_version, wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall)
VALUES ($1, $2, $3, $4, $5, 'system', $6, $7, $8, $9, $10, $10, $10, $10)
"""
WEBHOOK = """
INSERT INTO webhook (merchant_id, id, url, event_types, secret, created_at, feed_from, disabled_at, disabled_reason)
VALUES ($1, $2, '', '{}', '', now(), $3, $4::timestamptz, CASE WHEN $4 IS NOT NULL THEN 'FAILING' END)
"""
DELIVERY = """
INSERT INTO webhook_delivery (merchant_id, id, webhook_id, event_id, subject_id, position, state, attempts, created_at,
    settled_at, next_attempt_at)
SELECT merchant_id, gen_random_uuid(), $2, id, $3, $4::bigint, $5::text, 1, now(),
    CASE WHEN $5::text <> 'PENDING' THEN $6::timestamptz END,
    CASE WHEN $5::text = 'PENDING' AND $4::bigint = 1 THEN now() END
FROM event WHERE id = $1
"""


class World:
    """A merchant with a member whose wallet changed twice in each old month, and twice now."""

    def __init__(self, url: str, connection: asyncpg.Connection, folder: Path) -> None:
        self.url, self.connection, self.folder = url, connection, folder
        self.merchant_id, self.member_id = uuid4(), uuid4()
        self.said: list[str] = []

    async def fill(self) -> None:
        """Write what a merchant and a member have, with all events of it."""
        await make_partitions(self.connection, OLD[1:])
        await self.connection.execute(MERCHANT, self.merchant_id)
        async with self.connection.transaction():
            await self.connection.execute("SET LOCAL session_replication_role = replica")
            await self.connection.execute(
                "INSERT INTO member (merchant_id, id, email_verified, source, joined_at) "
                "VALUES ($1, $2, false, 'IMPORT', now())",
                self.merchant_id,
                self.member_id,
            )
            await self.connection.execute(
                "INSERT INTO wallet (merchant_id, member_id, version) VALUES ($1, $2, 8)",
                self.merchant_id,
                self.member_id,
            )
            await self.record(OLD[0], 1, "merchant.created", "merchant", self.merchant_id)
            await self.record(OLD[0], 2, "member.enrolled", "member", self.member_id, reason=b"\x00sealed")
            for version in range(1, 9):
                month = OLD[(version - 1) // 2] if version <= 6 else NOW.date().replace(day=1)
                await self.record(month, 10 + version, "member.edited", "member", self.member_id, version=version)

    async def record(
        self,
        month: date,
        number: int,
        event_type: str,
        kind: str,
        subject_id: UUID,
        *,
        version: int | None = None,
        reason: bytes | None = None,
    ) -> None:
        at = datetime(month.year, month.month, 1, tzinfo=UTC) + timedelta(seconds=number)
        await self.connection.execute(
            RECORD, self.merchant_id, event_id(month, number), event_type, kind, subject_id, at, reason,
            None if version is None else self.member_id, version, None if version is None else 0,
        )  # fmt: skip

    async def archive(self, **how: Any) -> Archived:
        return await archive(self.url, self.folder, KEPT, self.said.append, **how)

    async def months(self) -> list[date]:
        return [month for month in await months_of(self.connection) if month in OLD]

    async def violations(self) -> dict[str, int]:
        found = {
            promise.name: await self.connection.fetchval(
                promise.count.text, *promise.count.arguments({"merchant_id": self.merchant_id})
            )
            for promise in PROMISES
        }
        return {name: rows for name, rows in found.items() if rows}

    def in_files(self) -> int:
        """Return how many events are in the files that are there."""
        return len(
            {
                row["id"]
                for path in self.folder.glob("event-*.parquet")
                for row in parquet.read_table(path, columns=["id"]).to_pylist()
            }
        )


def _full() -> Path:
    return Path("/dev/full")


def event_id(month: date, number: int) -> UUID:
    at = datetime(month.year, month.month, 1, tzinfo=UTC) + timedelta(seconds=number)
    return UUID(int=(int(at.timestamp() * 1000) << 80) + number)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            made = World(url, connection, tmp_path / "archive")
            await made.fill()
            yield made
        finally:
            await connection.close()


async def test_old_months_go_to_files_and_the_report_finds_the_same(world: World) -> None:
    """A month of DEFAULT is one of them."""
    before = await world.violations()
    events = await world.connection.fetch("SELECT * FROM event WHERE id < $1 ORDER BY id", event_id(NOW.date(), 0))

    dry = await world.archive(is_dry=True)
    assert (dry, world.folder.exists(), await world.months()) == (Archived(), False, OLD[1:])

    run = await world.archive()

    assert [file.rows for file in run.files] == [4, 2, 2]
    assert await world.months() == []
    assert await world.connection.fetchval("SELECT count(*) FROM event") == 2
    assert (before, await world.violations()) == ({}, {})
    for file in run.files:
        manifest = json.loads((world.folder / file.file).with_suffix(".json").read_text())
        assert (manifest["rows"], manifest["digest"], manifest["sha256"]) == (file.rows, file.digest, file.sha256)
    written = [row for file in run.files for row in parquet.read_table(world.folder / file.file).to_pylist()]
    assert [(UUID(row["id"]), row["type"], row["reason"], row["occurred_at"]) for row in written] == [
        (row["id"], row["type"], row["reason"], row["occurred_at"]) for row in events
    ]
    assert await world.archive() == Archived()


async def test_what_is_broken_after_archiving_is_found(world: World) -> None:
    faults = {
        "UPDATE wallet SET version = 9": 1,
        "DELETE FROM event WHERE wallet_version = 7": 1,
        "UPDATE event SET wallet_version = 6 WHERE wallet_version = 7": 1,
        "UPDATE archived_wallet SET last_versions = '{5}' WHERE last_versions = '{6}'": 1,
        "DELETE FROM archived_event WHERE type = 'member.enrolled'": 1,
        "UPDATE event_archive SET dropped_at = NULL": 3,
    }
    await world.archive()
    await world.connection.execute("SET session_replication_role = replica")
    for fault, rows in faults.items():
        transaction = world.connection.transaction()
        await transaction.start()
        await world.connection.execute(fault)
        found = await world.violations()
        await transaction.rollback()
        assert (fault, found) == (fault, {"ON_RECORD": rows})


async def test_killed_at_any_step_it_goes_on_and_no_event_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each step, and right after it."""
    steps = [
        (archive_files, "_opened"), (archive_files, "_has"), (archive_files, "_publish"),
        (archive_files, "_described"), (archiving, "_keep_totals"), (archiving, "_refuse_changed"),
        (archiving, "_drop"),
    ]  # fmt: skip
    for module, step in steps:
        for is_done in (False, True):
            with monkeypatch.context() as patched:
                patched.setattr(module, step, _killed(getattr(module, step), is_done=is_done))
                with pytest.raises(asyncio.CancelledError):
                    await world.archive()
            left = await world.connection.fetchval("SELECT count(*) FROM event")
            assert (step, left) == (step, 6 if (step, is_done) == ("_drop", True) else 10)
            if module is archiving:
                assert await world.violations() == {}

    await world.archive()

    assert (await world.months(), world.in_files(), await world.violations()) == ([], 8, {})
    assert not [path for path in world.folder.iterdir() if path.name.startswith(".")]


def _killed(whole: Callable[..., Any], *, is_done: bool) -> Callable[..., Any]:
    """Return a step that ends its process, if it `is_done` once it has done what it does."""

    async def killed_later(*values: Any) -> Any:
        if is_done:
            await whole(*values)
        raise asyncio.CancelledError

    def killed(*values: Any) -> Any:
        if is_done:
            whole(*values)
        raise asyncio.CancelledError

    return killed_later if asyncio.iscoroutinefunction(whole) else killed


async def test_a_month_stays_until_webhooks_were_told_of_it(world: World) -> None:
    behind, over, gone = uuid4(), uuid4(), uuid4()
    # Of the last old month this one was told of nothing yet, and the second has a delivery of the first month.
    async with world.connection.transaction():
        await world.connection.execute("SET LOCAL session_replication_role = replica")
        txid = await world.connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        last = (event_id(OLD[2], 0), event_id(after(OLD[2], 1), 0))
        await world.connection.execute("UPDATE event SET txid = $1 WHERE id BETWEEN $2 AND $3", txid, *last)
    now = await world.connection.fetchval("SELECT pg_current_snapshot()::text")
    await world.connection.execute(WEBHOOK, world.merchant_id, behind, f"{txid}:{txid}:", None)
    await world.connection.execute(WEBHOOK, world.merchant_id, over, now, None)
    await world.connection.execute(WEBHOOK, world.merchant_id, gone, now, NOW - timedelta(days=400))
    await world.connection.execute(DELIVERY, event_id(OLD[0], 11), over, world.member_id, 1, "PENDING", None)
    for version in (3, 4, 7):
        month = OLD[1] if version < 7 else NOW.date().replace(day=1)
        await world.connection.execute(
            DELIVERY, event_id(month, 10 + version), gone, world.member_id, version - 2, "PENDING", None
        )

    run = await world.archive()

    kept = [f"{month:%Y-%m}" for month in (OLD[0], OLD[2])]
    assert (run.kept, [file.rows for file in run.files]) == (kept, [2, 2])
    assert run.files[1].file == f"webhook_delivery-{OLD[1]:%Y-%m}.parquet"
    waiting = "SELECT position, next_attempt_at IS NOT NULL AS has_turn FROM webhook_delivery WHERE webhook_id = $1"
    assert [tuple(row) for row in await world.connection.fetch(waiting, gone)] == [(5, True)]

    await world.connection.execute("UPDATE webhook SET feed_from = $1", now)
    dead = "UPDATE webhook_delivery SET state = 'DEAD', settled_at = $1, next_attempt_at = NULL WHERE webhook_id = $2"
    await world.connection.execute(dead, NOW - timedelta(days=31), over)
    assert (await world.archive()).kept == []
    assert (await world.months(), world.in_files()) == ([], 8)


async def test_what_cannot_be_is_refused_and_drops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refusal(**changed: Any) -> str:
        with pytest.raises(ConfigurationError) as refused:
            await archive(world.url, world.folder, KEPT.model_copy(update=changed), world.said.append)
        assert await world.connection.fetchval("SELECT count(*) FROM event") == 10
        return str(refused.value)

    assert (await refusal(event_retention_days=None)).startswith("Events are kept for ever: set FLASH_EVENT_")
    assert (await refusal(event_retention_days=90)).startswith("FLASH_EVENT_RETENTION_DAYS must be 91 or more")

    await world.connection.execute("SELECT pg_advisory_lock($1)", archiving._LOCK)
    assert await refusal() == "Another `flash archive` is at work here; nothing was archived."
    await world.connection.execute("SELECT pg_advisory_unlock($1)", archiving._LOCK)

    fence = "INSERT INTO fence (merchant_id, move, state, peer, since) VALUES ($1, $1, 'LEAVING', '', now())"
    await world.connection.execute(fence, world.merchant_id)
    assert (await refusal()).startswith("A merchant moves, or has left rows behind")
    await world.connection.execute("DELETE FROM fence")

    reader = await asyncpg.connect(dsn(world.url))
    async with reader.transaction():
        await reader.fetch("SELECT FROM event")
        monkeypatch.setattr(archiving, "_SECONDS_MAX", 0.0)
        assert (await refusal()).startswith("Somebody has read events for 0 s")
        assert await world.connection.fetchval("SELECT count(*) FROM event_archive WHERE dropped_at IS NOT NULL") == 0
    await reader.close()
    for path in world.folder.iterdir():
        path.unlink()

    world.folder.parent.joinpath("file").touch()
    monkeypatch.setattr(world, "folder", world.folder.parent / "file" / "archive")
    assert "can't be written" in await refusal()
    monkeypatch.undo()

    with monkeypatch.context() as full:
        full.setattr(archive_files, "_opened", lambda _path: _full().open("wb"))
        assert "No space left on device" in await refusal()
    assert list(world.folder.iterdir()) == []

    other = world.folder / f"event-{OLD[0]:%Y-%m}.parquet"
    other.write_bytes(b"something else")
    assert f"{other} has other rows than the database" in await refusal()
    other.unlink()
    assert [file.rows for file in (await world.archive()).files] == [4, 2, 2]


async def test_what_changes_after_it_was_written_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = archiving._keep_totals

    async def erased(*values: Any) -> UUID:
        await world.connection.execute("UPDATE event SET reason = NULL WHERE reason IS NOT NULL")
        return await keep(*values)

    monkeypatch.setattr(archiving, "_keep_totals", erased)
    with pytest.raises(ConfigurationError, match="were changed after they were written; nothing of it was dropped"):
        await world.archive()
    monkeypatch.undo()

    with pytest.raises(ConfigurationError, match="has other rows than the database"):
        await world.archive()
    (world.folder / f"event-{OLD[0]:%Y-%m}.parquet").unlink()
    assert [file.rows for file in (await world.archive()).files] == [4, 2, 2]


async def test_events_that_come_for_an_archived_month_have_a_file_of_their_own(world: World) -> None:
    await world.archive()
    await world.record(OLD[1], 99, "merchant.configured", "merchant", world.merchant_id)

    run = await world.archive()

    assert [(file.file, file.rows) for file in run.files] == [(f"event-{OLD[1]:%Y-%m}-2.parquet", 1)]
    assert (world.in_files(), await world.violations()) == (9, {})


async def test_what_is_kept_of_archived_months_stays(world: World) -> None:
    await world.archive()

    for table in ("event_archive", "archived_event", "archived_wallet"):
        with pytest.raises(asyncpg.CheckViolationError) as violation:
            await world.connection.execute(f"DELETE FROM {table}")
        assert violation.value.constraint_name == f"{table}_kept"


async def test_the_guide_archives_reads_a_month_and_loads_it_back(world: World) -> None:
    (python,) = blocks(GUIDE, "Archive old events", "python")
    archives, loads = blocks(GUIDE, "Archive old events", "sh")
    where, month = world.folder.parent, f"{OLD[0]:%Y-%m}"
    environment = {"DATABASE_URL": world.url, "FLASH_EVENT_RETENTION_DAYS": "366"}

    said = (await asyncio.to_thread(run, archives.text, where, **environment)).stdout.splitlines()
    reads = [sys.executable, "-c", python.text.replace("2025-10", month)]
    read = await asyncio.to_thread(subprocess.run, reads, cwd=where, capture_output=True, text=True, check=True)
    await asyncio.to_thread(run, loads.text, where, **environment)

    assert said[0] == f"{OLD[1]:%Y-%m} would be archived: 2 events."
    assert said[-3] == f"{month} is archived: 4 events are in event-{month}.parquet."
    assert re.findall(r"│ ([a-z.]+) +│ +(\d+) │", read.stdout) == [
        ("member.edited", "2"),
        ("member.enrolled", "1"),
        ("merchant.created", "1"),
    ]
    (loaded,) = await world.connection.fetch(
        "SELECT count(*) AS rows, sum(hash_record_extended(t, 0))::text AS digest FROM event_of_october t"
    )
    manifest = json.loads((world.folder / f"event-{month}.json").read_text())
    assert tuple(loaded) == (manifest["rows"], manifest["digest"])
