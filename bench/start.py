"""S8: from `flash up` to ready, on a new data directory and on an existing one, with the demo merchant in it."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from app.api.context import Viewer
from bench.whole import whole_engine

STARTS = 5


async def measure(_viewer: Viewer) -> list[str]:
    """Return the table of S8."""
    with tempfile.TemporaryDirectory(prefix="flash-bench-") as directory:
        data = Path(directory) / "data"
        cold, *warm = [await _seconds_to_ready(data) for _ in range(1 + STARTS)]
    return [
        f"From the start of the process until it reports that it is ready; {STARTS} starts.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| data directory | seconds | goal |",
        "|---|---:|---|",
        f"| new, including servers, tables and demo | {cold:.1f} | |",
        f"| existing (median) | {median(warm):.1f} | ≤ 3 on a quiet machine |",
        f"| existing (the slowest) | {max(warm):.1f} | |",
    ]


async def _seconds_to_ready(data: Path) -> float:
    begun = time.monotonic()
    async with whole_engine(data):
        return time.monotonic() - begun
