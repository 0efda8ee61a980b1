"""Reports of whole merchants: what a worker takes for them, and what reading what it kept costs.

`FLASH_BENCH_REPORTS=400000,2000000,5000000` says of how many codes. Six in ten are claimed and a fifth redeemed, with a
purchase for every sixth, and a member for every four hundredth. Rows are filled in without their triggers.
"""

import os
import resource
import time
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.api.context import Viewer
from app.config import settings
from app.reports import runs
from app.segments.refresh import refresh
from app.storage.database import database, dsn
from bench.integrity import CLAIMS, EVENTS, VERSIONS_PER_POOL
from bench.portfolio import CODES, POOLS_COUNT, PURCHASES
from bench.world import add_members, add_merchant, add_pool
from workers.keep_reports import COMPUTATIONS

SIZES: Final = tuple(int(each) for each in os.environ.get("FLASH_BENCH_REPORTS", "20000,200000").split(","))
CHUNK: Final = 5_000
SECONDS_MAX: Final = 7_200.0
READS: Final = 50
SPILLED: Final = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
SIZE: Final = "SELECT pg_database_size(current_database()) AS bytes"


async def _fill(viewer: Viewer, codes: int) -> None:
    members = await add_members(viewer, max(50, codes // 400))
    pools = [await add_pool(viewer) for _ in range(POOLS_COUNT)]
    connection = await asyncpg.connect(dsn(settings().database_url or ""), command_timeout=SECONDS_MAX)
    try:
        await connection.execute("SET session_replication_role = replica")
        for number, pool_id in enumerate(pools):
            size = codes // POOLS_COUNT
            for start in range(0, size, CHUNK):
                rows = min(CHUNK, size - start)
                await connection.execute(CODES, viewer.merchant_id, pool_id, rows, members, len(members))
            await connection.execute(CLAIMS, viewer.merchant_id, pool_id)
            await connection.execute(EVENTS, viewer.merchant_id, pool_id, number * VERSIONS_PER_POOL)
        for start in range(0, codes // 6, CHUNK):
            rows = min(CHUNK, codes // 6 - start)
            await connection.execute(PURCHASES, viewer.merchant_id, members, len(members), rows)
    finally:
        await connection.close()
    await database().many("VACUUM (ANALYZE)", seconds_max=SECONDS_MAX)


async def _kept(merchant_id: UUID, kind: str) -> tuple[float, float]:
    """Let a worker compute a report. Returns its seconds, and the milliseconds of reading what it kept."""
    await runs.request(merchant_id, kind, "system")
    while await runs.carry_out(COMPUTATIONS, seconds_max=SECONDS_MAX, plans=False):
        pass
    report = await runs.kept(merchant_id, kind)
    if report.status is not runs.CheckStatus.DONE or report.seconds is None:
        raise RuntimeError(f"a measured report failed: {report.problem}")
    begun = time.perf_counter()
    for _ in range(READS):
        await runs.kept(merchant_id, kind)
    return report.seconds, (time.perf_counter() - begun) / READS * 1000


async def measure(_viewer: Viewer) -> list[str]:
    """Fill merchants in one database, and let a worker compute what is kept of each."""
    rows: dict[str, list[str]] = {}

    def note(what: str, figure: str) -> None:
        rows.setdefault(what, []).append(figure)

    for size in SIZES:
        owner, _ = await add_merchant(f"{size:,} codes")
        await _fill(owner, size)
        before = await _number(SPILLED)
        for kind, what in ((runs.INTEGRITY, "the promises"), (runs.PORTFOLIO, "the portfolio")):
            seconds, milliseconds = await _kept(owner.merchant_id, kind)
            note(f"{what}, seconds", f"{seconds:.1f}")
            note(f"reading {what}, ms", f"{milliseconds:.1f}")
        begun = time.monotonic()
        await refresh(owner.merchant_id, seconds_max=SECONDS_MAX)
        note("the segments, seconds", f"{time.monotonic() - begun:.1f}")
        note("PostgreSQL's temporary files, MB", f"{(await _number(SPILLED) - before) / 1e6:,.0f}")
        note("memory of the worker, MB", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
        note("database, GB", f"{await _number(SIZE) / 1e9:.1f}")
    return [
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        f"| codes | {' | '.join(f'{size:,}' for size in SIZES)} |",
        "|---|" + "---:|" * len(SIZES),
        *(f"| {what} | {' | '.join(each)} |" for what, each in rows.items()),
    ]


async def _number(query: str) -> Any:
    await database().row("SELECT pg_stat_force_next_flush()")
    (row,) = await database().rows(query)
    return next(iter(row.values()))
