"""S9: the retailer's year through GraphQL over HTTP, for the first households only: all of them take minutes."""

import os
import tempfile
import time
from pathlib import Path

from app.api.context import Viewer
from bench.whole import flash, whole_engine

#: Of 2,469 households; about a tenth of the baskets.
HOUSEHOLDS = int(os.environ.get("FLASH_BENCH_HOUSEHOLDS", "250"))
API_PROCESSES = 2


async def measure(_viewer: Viewer) -> list[str]:
    """Return the end of the replay's report, and what a second replay does."""
    with tempfile.TemporaryDirectory(prefix="flash-bench-") as directory:
        data = Path(directory) / "data"
        async with whole_engine(data, "--api-processes", str(API_PROCESSES)) as engine:
            first = await _played(engine["url"], data)
            begun = time.monotonic()
            again = await _played(engine["url"], data)
            seconds = time.monotonic() - begun
    done_again = sum(int(line.split()[2].replace(",", "")) for line in again if _is_step(line))
    return [
        f"{HOUSEHOLDS:,} households, {API_PROCESSES} API processes; `FLASH_BENCH_HOUSEHOLDS=2469` plays them all.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "```",
        *first,
        "```",
        "",
        f"A second replay wrote {done_again} things anew in {seconds:.0f} s and ended with: {again[-1]}",
    ]


async def _played(url: str, data: Path) -> list[str]:
    """Run the replay. Returns its table and what follows it; raises RuntimeError when anything was refused."""
    replay = await flash("replay", "--url", url, "--data", str(data), "--households", str(HOUSEHOLDS))
    printed, _ = await replay.communicate()
    lines = printed.decode().rstrip().splitlines()
    if replay.returncode != 0:
        raise RuntimeError(f"the replay ended with {replay.returncode}: {lines[-3:]}")
    return lines[next(number for number, line in enumerate(lines) if line.split()[:2] == ["wanted", "new"]) :]


def _is_step(line: str) -> bool:
    """Whether a line of the report counts writes; `found` counts codes that every run reads."""
    words = line.split()
    return len(words) >= 7 and words[1].replace(",", "").isdecimal() and words[0] != "found"
