"""The drawing process. Without these a network that is too large could take a worker's memory, time or keys with it."""

import json
import sys
from pathlib import Path
from uuid import UUID

import pytest

from app.graph import draw
from app.graph.binary_copy import instant, packed
from app.graph.draw import frame, parts_of
from app.graph.drawing import DrawingError, drawn
from bench.networks import grown

HEADER = {
    "merchant_id": str(UUID(int=1)), "snapshot_id": str(UUID(int=2)), "taken_on": "2026-01-02", "side": None,
}  # fmt: skip


def _message(members: int) -> bytes:
    rows = ((edge.referrer, edge.referee, instant(edge.converted_at)) for edge in grown(members))
    return frame([json.dumps(HEADER).encode(), packed(rows, *draw.EDGE), b"", b""])


async def test_a_network_is_drawn_by_another_process() -> None:
    answer = await drawn(_message(30))

    assert json.loads(parts_of(answer)[0])["member_count"] in {30, 31}


def test_memory_follows_the_network_up_to_a_limit() -> None:
    row = len(packed([(UUID(int=1), UUID(int=2), 0)], *draw.EDGE)) - len(packed([], *draw.EDGE))
    gibibytes = [draw.memory_bytes_max(row * referrals) >> 30 for referrals in (0, 100_000, 100_001, 300_000, 10**7)]

    assert gibibytes == [1, 1, 2, 3, 4]


async def test_a_drawing_that_takes_too_long_is_killed() -> None:
    with pytest.raises(DrawingError, match="longer than 0 s"):
        await drawn(_message(30), seconds_max=0.01)


async def test_a_drawing_that_fails_says_why_and_nothing_else() -> None:
    with pytest.raises(DrawingError, match=r"status 1: .*cut off") as raised:
        await drawn(b"\0\0\0\0\0\0\0\7no")

    assert raised.value.failure == "FAULT"


@pytest.mark.parametrize("end", ["kill -XCPU $$", "kill -KILL $$", "echo MemoryError >&2; exit 1"])
async def test_a_drawing_over_its_bounds_is_too_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, f"cat >/dev/null; {end}")))

    with pytest.raises(DrawingError) as raised:
        await drawn(b"")

    assert raised.value.failure == "TOO_LARGE"


async def test_a_drawing_knows_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process is replaced by one that tells its environment."""
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, "env")))
    monkeypatch.setenv("FLASH_MASTER_KEYS", "tests:QUJDREVG")

    told = (await drawn(b"")).decode()

    assert "PATH=" in told
    assert "QUJDREVG" not in told
    assert "FLASH_" not in told
    assert "DATABASE_URL" not in told


def _script(directory: Path, line: str) -> str:
    path = directory / "script"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)
