"""Huge pages for what a process keeps for good: its code, its schema, its modules.

A request touches a thousand small pages of memory, and where the process shares its cores with a database their
addresses have been forgotten each time: looking them up took an eighth of a claim's CPU (ADR 75).
"""

import ctypes
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

log = logging.getLogger("flash.memory")

_BYTES: Final = 2 * 1024 * 1024
#: Put these addresses into huge pages now (madvise(2), Linux 6.1). Python's `mmap` has it for memory of its own alone.
_COLLAPSE: Final = 25
#: Of memory that nobody has used yet, as most of a thread's stack, huge pages would be made of nothing.
_RESIDENT_SHARE_MIN: Final = 0.5
_REGION: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ ([0-9]+) *(.*)")
_RESIDENT: Final = re.compile(r"Rss: +([0-9]+) kB")


class _Region(NamedTuple):
    """Addresses of this process."""

    start: int
    end: int
    resident_bytes: int


def use_huge_pages(maps: Path = Path("/proc/self/smaps")) -> int:
    """Put what the process has in memory into huge pages. Returns how many bytes; 0 where the system has none."""
    if sys.platform != "linux":
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    done = 0
    for region in _regions(maps):
        start, end = -(-region.start // _BYTES) * _BYTES, region.end // _BYTES * _BYTES
        is_used = region.resident_bytes >= _RESIDENT_SHARE_MIN * (region.end - region.start)
        # Where memory is in too small pieces, a part stays as it is.
        if start < end and is_used and madvise(start, end - start, _COLLAPSE) == 0:
            done += end - start
    log.debug("%d MiB are in huge pages", done // 1024**2)
    return done


def _regions(maps: Path) -> Iterator[_Region]:
    """Yield the heap and the code, as smaps tells of them."""
    start = end = 0
    is_wanted = False
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if region := _REGION.fullmatch(line):
            start, end = int(region[1], 16), int(region[2], 16)
            is_file, name = region[4] != "0", region[5]
            is_heap = not is_file and region[3].startswith("rw-p") and (name in {"", "[heap]"} or name[:6] == "[anon:")
            is_wanted = is_heap or (is_file and "x" in region[3])
        elif is_wanted and (resident := _RESIDENT.match(line)):
            yield _Region(start, end, int(resident[1]) * 1024)
