"""A year of events, archived: sizes, seconds and memory, the integrity report before and after, one month by SQL."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from app.api.context import Viewer
from app.config import settings
from app.integrity.recompute import recompute
from app.storage.database import database, transaction
from app.storage.event_partitions import after
from bench.world import add_members

EVENTS = 1_000_000
MEMBERS = 50_000
_MONTHS = 12
FILL = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, member_id, wallet_version,
                   wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall)
SELECT $1, (left(event_first_id(made.at)::text, 13) || substr(gen_random_uuid()::text, 14))::uuid, 'code.revealed',
    'code', uuidv7(), 'member_' || replace(m.id::text, '-', ''), made.at, m.id, version, 0, 0, 0, 0
FROM generate_series(1, $3::int) version CROSS JOIN unnest($2::uuid[]) WITH ORDINALITY AS m (id, number)
CROSS JOIN LATERAL (
    SELECT $4::timestamptz + (version - 1 + m.number / cardinality($2::uuid[])::float) * ($5::interval / $3::int) AS at
) made
"""
VERSIONS = "UPDATE wallet SET version = $2 WHERE merchant_id = $1"
ENROLLED = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT $1, uuidv7(), 'member.enrolled', 'member', id, 'system', now() FROM member WHERE merchant_id = $1
"""
SIZES = """
SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'event'::regclass)::bigint
        AS events,
    pg_total_relation_size('archived_event') + pg_total_relation_size('archived_wallet') AS kept
"""


async def measure(viewer: Viewer) -> list[str]:
    """Fill a year that is over for a year, and archive it by the command."""
    now = datetime.now(UTC)
    first = after(now.date(), -_MONTHS - 14)
    begin, end = (datetime(day.year, day.month, 1, tzinfo=UTC) for day in (first, after(first, _MONTHS)))
    members = await add_members(viewer, MEMBERS)
    async with transaction(None) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        for month in range(_MONTHS):
            await tx.row("SELECT make_event_partition($1)", after(first, month))
        await tx.many(FILL, viewer.merchant_id, members, EVENTS // MEMBERS, begin, end - begin, seconds_max=600.0)
        await tx.row(VERSIONS, viewer.merchant_id, EVENTS // MEMBERS)
        await tx.row(ENROLLED, viewer.merchant_id)
    await database().row("ANALYZE")
    before, reported_before = await _report(viewer)
    (sizes_before,) = await database().rows(SIZES)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        files = await asyncio.to_thread(_archive, folder)
        seconds = time.perf_counter() - begun
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        size = _size(Path(folder))
        begun = time.perf_counter()
        types = duckdb.execute(f"SELECT count(*), count(DISTINCT actor) FROM '{folder}/{files[0]['file']}'").fetchall()
        read = time.perf_counter() - begun
    await database().row("ANALYZE")
    after_, reported_after = await _report(viewer)
    (sizes_after,) = await database().rows(SIZES)
    rows = sum(file["rows"] for file in files)
    return [
        f"| a year of {rows:,} events in {len(files)} months | before | after |",
        "|---|---:|---:|",
        f"| events in the database, MiB | {_mib(sizes_before['events'])} | {_mib(sizes_after['events'])} |",
        f"| what promises need of them, MiB | 0 | {_mib(sizes_after['kept'])} |",
        f"| files, MiB | 0 | {_mib(size)} |",
        f"| integrity report, s | {before:.1f} | {after_:.1f} |",
        f"| broken promises | {reported_before} | {reported_after} |",
        "",
        f"`flash archive` took {seconds:.0f} s, {seconds / rows * 1e6:.0f} µs an event, each of which it writes,",
        f"reads back and compares, and at most {memory:.0f} MiB. DuckDB counts a month of {types[0][0]:,} events in",
        f"{read * 1000:.0f} ms.",
    ]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _mib(size: int) -> str:
    return f"{size / 1_048_576:.0f}"


async def _report(viewer: Viewer) -> tuple[float, int]:
    begun = time.perf_counter()
    found = await recompute(viewer.merchant_id, seconds_max=600.0)
    return time.perf_counter() - begun, sum(found.values())


def _archive(folder: str) -> list[dict[str, int]]:
    ended = subprocess.run(
        [sys.executable, "-m", "app", "archive", folder, "--json"],
        env=os.environ | {"DATABASE_URL": settings().database_url or "", "FLASH_EVENT_RETENTION_DAYS": "366"},
        capture_output=True,
        text=True,
        check=True,
    )
    files: list[dict[str, int]] = json.loads(ended.stdout)["files"]
    return files
