"""Exports: rows per second and memory of a whole export, and the cost of claims beside one."""

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from uuid import UUID

import psutil
from strawberry.utils.str_converters import to_camel_case

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.reports.columns import columns_of
from app.reports.tables import REPORTS
from app.storage.database import database
from app.web.graphql_documents import Asked, Documents
from app.web.graphql_execution import answer
from bench.claim_buffers import BATCH, CLAIM_MANY, explained
from bench.world import add_filled_pool, add_members

SMALL, LARGE = 20_000, 200_000
#: One code in this many is claimed and spent before anything is measured.
SPENT_SHARE = 4
ROUNDS, CLAIMS = 4, 1000

SPEND_MANY = """
WITH spent AS (
    UPDATE code SET state = 'REDEEMED', redeemed_at = now()
    WHERE merchant_id = $1 AND pool_id = $2 AND state = 'ALLOCATED' RETURNING id
), numbered AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM spent), ordered AS (
    INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version)
    SELECT $1, gen_random_uuid(), 'STORE', 'order-' || id, 10000, 'USD', 1 FROM spent
)
INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position, order_amount,
                        base, discount, currency, redeemed_at)
SELECT $1, ids.id, $2, 1, numbered.id, 'STORE', 'order-' || numbered.id, 1, 10000, 10000, 1000, 'USD', now()
FROM numbered JOIN unnest($3::uuid[]) WITH ORDINALITY AS ids (id, n) USING (n)
"""


@dataclass(frozen=True)
class Exported:
    """What one `flash export` process took from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    written_bytes: int


async def measure(viewer: Viewer) -> list[str]:
    """Return the tables."""
    members = await add_members(viewer, LARGE // SPENT_SHARE + 2 * ROUNDS * CLAIMS)
    await _filled(viewer, SMALL, members)
    await database().row("ANALYZE")
    of_small = {kind: await asyncio.to_thread(_export, viewer, kind) for kind in ("csv", "parquet")}
    large = await _filled(viewer, LARGE - SMALL, members)
    await database().row("ANALYZE")
    of_large = {kind: await asyncio.to_thread(_export, viewer, kind) for kind in ("csv", "parquet")}
    page_cpu, stretch = await _page(viewer)
    lines = [
        f"A page of 1,000 codes by GraphQL: {page_cpu * 1000:.0f} ms of CPU, {stretch * 1000:.1f} ms at a time.",
        "",
        f"The table of codes: {SMALL:,} and {LARGE:,} of them, a quarter spent. Memory is that of the whole process.",
        "",
        "| what | rows | seconds | rows per second | CPU | file | peak memory | against the smaller |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in ("csv", "parquet"):
        for rows, found in ((SMALL, of_small[kind]), (LARGE, of_large[kind])):
            cells = (
                kind, f"{rows:,}", f"{found.seconds:.1f}", f"{rows / found.seconds:,.0f}", f"{found.cpu_seconds:.1f} s",
                f"{found.written_bytes / 2**20:.1f} MiB", f"{found.peak_bytes / 2**20:.0f} MiB",
                f"{found.peak_bytes / of_small[kind].peak_bytes:.2f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *await _beside(viewer, large, members[-2 * ROUNDS * CLAIMS :])]


async def _page(viewer: Viewer) -> tuple[float, float]:
    """Return the CPU seconds of a report's page, and those of its longest stretch without yielding."""
    columns = " ".join(to_camel_case(name) for name in columns_of(REPORTS["codes"].row_type))
    asked = Asked(f"{{ reportCodes {{ edges {{ node {{ {columns} }} }} }} }}", None, {})
    document = await Documents(settings()).judged(asked)
    operation = document.operation(None)
    if operation is None:
        raise RuntimeError("the document of a report isn't valid")
    pages, stretches = [], [0.0]
    over = False

    async def beat() -> None:
        last = time.process_time()
        while not over:
            await asyncio.sleep(0)
            stretches.append(time.process_time() - last)
            last = time.process_time()

    for _ in range(ROUNDS):
        begun = time.process_time()
        await answer(document, operation, asked, viewer, settings())
        pages.append(time.process_time() - begun)
    # As in an API process, which excludes objects from its start from garbage collection.
    gc.collect()
    gc.freeze()
    beating = asyncio.create_task(beat())
    await answer(document, operation, asked, viewer, settings())
    over = True
    await beating
    return median(pages), max(stretches)


async def _beside(viewer: Viewer, pool_id: UUID, members: list[UUID]) -> list[str]:
    """Claim in turns, without exports and beside one export after the other."""
    buffers: dict[bool, list[int]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    exports = 0
    await explained(viewer, pool_id, members.pop())
    for _ in range(ROUNDS):
        for beside in (False, True):
            over = threading.Event()
            exporting = asyncio.create_task(asyncio.to_thread(_export_until, viewer, over)) if beside else None
            backend = await _backend()
            before = sum(backend.cpu_times()[:2])
            turn = [members.pop() for _ in range(CLAIMS - 1)]
            buffers[beside] += [await explained(viewer, pool_id, member_id) for member_id in turn]
            cpu[beside].append((sum(backend.cpu_times()[:2]) - before) / len(turn))
            over.set()
            exports += 0 if exporting is None else await exporting
    found: list[tuple[str, float, float]] = [
        ("buffers per claim, median", median(buffers[False]), median(buffers[True])),
        ("buffers per claim, the most", max(buffers[False]), max(buffers[True])),
        ("CPU of the database per claim, µs", median(cpu[False]) * 1e6, median(cpu[True]) * 1e6),
    ]
    return [
        f"{ROUNDS} turns of {CLAIMS - 1} claims each way, beside {exports} exports of all {LARGE:,} codes.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| what | without | beside exports | ratio |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {without:.0f} | {beside:.0f} | {beside / without:.2f} |" for name, without, beside in found),
    ]


async def _backend() -> psutil.Process:
    """Return the database process behind this one's connection; one statement runs at a time."""
    row = await database().row("SELECT pg_backend_pid() AS pid")
    if row is None:
        raise RuntimeError("the database answered nothing")
    return psutil.Process(row["pid"])


async def _filled(viewer: Viewer, size: int, members: list[UUID]) -> UUID:
    """Make an active pool with a quarter of its codes spent."""
    pool_id = await add_filled_pool(viewer, size)
    for start in range(0, size // SPENT_SHARE, BATCH):
        chunk = members[start : start + BATCH]
        await database().row(CLAIM_MANY, viewer.merchant_id, pool_id, chunk, len(chunk))
        await database().row(SPEND_MANY, viewer.merchant_id, pool_id, [ids.new() for _ in chunk])
    return pool_id


def _export_until(viewer: Viewer, over: threading.Event) -> int:
    count = 0
    while not over.is_set():
        _export(viewer, "csv")
        count += 1
    return count


def _export(viewer: Viewer, kind: str) -> Exported:
    """Run `flash export` for the codes and return what it took."""
    scratch = Path(tempfile.mkdtemp(prefix="flash-bench-export-"))
    arguments = [sys.executable, "-m", "app", "export", str(scratch / "export"), "--table", "codes", "--format", kind]
    arguments += ["--merchant", ids.encode("merchant", viewer.merchant_id)]
    try:
        begun = time.monotonic()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError("an export failed")
        written = (scratch / "export" / f"codes.{kind}").stat().st_size
        seconds = time.monotonic() - begun
        return Exported(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, written)
    finally:
        shutil.rmtree(scratch)
