"""Huge pages. Without these a process could claim to use them and look its addresses up all the same."""

import ctypes
import re
from pathlib import Path

import pytest

from app.web.huge_pages import use_huge_pages

MIB = 1024 * 1024


def _in_huge_pages(address: int) -> int:
    """Return how many bytes of the region of an address are in huge pages."""
    found = 0
    is_it = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if region := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            is_it = int(region[1], 16) <= address < int(region[2], 16)
        elif is_it and line.startswith("AnonHugePages:"):
            found = int(line.split()[1]) * 1024
    return found


def test_what_is_in_memory_is_in_huge_pages_and_stays_what_it_is() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this system has no huge pages")
    kept = bytes(range(256)) * (64 * MIB // 256)
    before = _in_huge_pages(id(kept))
    use_huge_pages()

    assert before == 0
    # Not all of it, where memory is in too small pieces.
    assert _in_huge_pages(id(kept)) >= 2 * MIB
    assert kept == bytes(range(256)) * (64 * MIB // 256)


def test_memory_that_nobody_has_used_is_left_alone() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, *(ctypes.c_size_t,) * 2, *(ctypes.c_int,) * 2, ctypes.c_long)
    # PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS; a page between it and its neighbours can't be touched.
    address = libc.mmap(None, 64 * MIB, 0, 0x22, -1, 0)
    libc.mprotect(ctypes.c_void_p(address + MIB), ctypes.c_size_t(62 * MIB), 3)
    use_huge_pages()
    used = _in_huge_pages(address + 32 * MIB)
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(64 * MIB))

    assert used == 0


def test_a_system_that_tells_nothing_of_its_memory_has_none(tmp_path: Path) -> None:
    assert use_huge_pages(tmp_path / "smaps") == 0
