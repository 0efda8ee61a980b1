"""The drawing process. Without these a network that is too large could take a worker's memory, time or keys with it."""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from uuid import UUID

import pytest

from app.graph import draw
from app.graph.binary_copy import instant, packed
from app.graph.draw import frame, parts_of
from app.graph.drawing import Drawer, DrawingError
from bench.networks import grown

HEADER = {
    "merchant_id": str(UUID(int=1)), "snapshot_id": str(UUID(int=2)), "taken_on": "2026-01-02", "side": None,
}  # fmt: skip


CUT_OFF = b"\0\0\0\0\0\0\0\7no"


def _message(members: int, seed: int = 1) -> bytes:
    rows = ((edge.referrer, edge.referee, instant(edge.converted_at)) for edge in grown(members, seed))
    return frame([json.dumps(HEADER).encode(), packed(rows, *draw.EDGE), b"", b""])


async def test_a_drawing_hangs_on_nothing_that_its_process_drew_before() -> None:
    """A process that dies is replaced; what it was given last is drawn all the same."""
    async with Drawer() as drawer:
        before = await drawer.drawn(_message(200, seed=2))
        process = drawer.pid
        shared = await drawer.drawn(_message(300))
        assert process is not None
        assert drawer.pid == process

        os.kill(process, signal.SIGKILL)
        fresh = await drawer.drawn(_message(300))

        assert drawer.pid not in {process, None}
    assert drawer.pid is None
    assert shared == fresh
    assert [json.loads(parts_of(answer)[0])["member_count"] // 2 for answer in (before, shared)] == [100, 150]


async def test_each_drawing_has_its_own_time_and_memory() -> None:
    async with Drawer() as drawer:
        await drawer.drawn(_message(30))
        assert drawer.pid is not None
        # As if it had drawn for long: less is left than one drawing may take.
        resource.prlimit(drawer.pid, resource.RLIMIT_CPU, (5, resource.RLIM_INFINITY))
        await drawer.drawn(_message(30))

        seconds, _ = resource.prlimit(drawer.pid, resource.RLIMIT_CPU)
        memory, _ = resource.prlimit(drawer.pid, resource.RLIMIT_AS)

    assert draw.CPU_SECONDS_MAX < seconds < draw.CPU_SECONDS_MAX + 60
    assert memory == draw.MEMORY_BYTES_MAX


@pytest.mark.parametrize("bound", ["SMALL_REFERRALS_MAX", "DRAWINGS_MAX"])
async def test_a_process_ends_with_a_large_network_and_after_many_small_ones(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(f"app.graph.drawing.{bound}", 1)
    async with Drawer() as drawer:
        await drawer.drawn(_message(30))

        assert drawer.pid is None


def test_memory_follows_the_network_up_to_a_limit() -> None:
    gibibytes = [draw.memory_bytes_max(referrals) >> 30 for referrals in (0, 100_000, 100_001, 300_000, 10**7)]

    assert gibibytes == [1, 1, 2, 3, 4]
    assert draw.referrals_in(_message(300)) == len(grown(300))


async def test_a_drawing_that_takes_too_long_is_killed() -> None:
    async with Drawer() as drawer:
        with pytest.raises(DrawingError, match="longer than 0 s") as raised:
            await drawer.drawn(_message(30), seconds_max=0.01)

        assert drawer.pid is None
    assert raised.value.failure == "TOO_SLOW"


async def test_a_drawing_that_fails_says_why_and_the_next_one_is_drawn() -> None:
    async with Drawer() as drawer:
        with pytest.raises(DrawingError, match=r"status 1: .*cut off") as raised:
            await drawer.drawn(CUT_OFF)

        assert await drawer.drawn(_message(30))
    assert raised.value.failure == "FAULT"


@pytest.mark.parametrize("end", ["kill -XCPU $$", "kill -KILL $$", "echo MemoryError >&2; exit 1"])
async def test_a_drawing_over_its_bounds_is_too_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, end)))

    async with Drawer() as drawer:
        with pytest.raises(DrawingError) as raised:
            await drawer.drawn(b"")

    assert raised.value.failure == "TOO_LARGE"


async def test_a_drawing_knows_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process is replaced by one that writes its environment down."""
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, 'env >"$0.told"')))
    monkeypatch.setenv("FLASH_MASTER_KEYS", "tests:QUJDREVG")

    async with Drawer() as drawer:
        with pytest.raises(DrawingError):
            await drawer.drawn(b"")
    told = (tmp_path / "script.told").read_text()

    assert "PATH=" in told
    assert "QUJDREVG" not in told
    assert "FLASH_" not in told
    assert "DATABASE_URL" not in told


def _script(directory: Path, line: str) -> str:
    path = directory / "script"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)
