"""The code in the guides: what is in which block, and how a reader's shell runs it."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.operate.embedded import _postgres_binaries
from tests.operate.processes import environment
from tests.starts import path_with_flash

ROOT: Path = Path(__file__).parents[1]
_HEADING = re.compile(r"^(#{1,6}) ([^\n]+)$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code, and the heading it is under."""

    section: str
    language: str
    text: str


def blocks(guide: str, section: str | None = None, language: str | None = None) -> list[Block]:
    """Return a guide's blocks in order, all of them unless told which."""
    found, heading = [], ""
    for marks, title, spoken, text in _HEADING.findall((ROOT / guide).read_text()):
        if marks:
            heading = title
        elif section in {None, heading} and language in {None, spoken}:
            found.append(Block(heading, spoken, text))
    return found


def files(guide: str) -> dict[str, str]:
    """Return the blocks that a guide gives the name of a file, by these names."""
    return dict(_FILE.findall((ROOT / guide).read_text()))


def run(script: str, where: Path, **variables: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a block as a reader would who has `flash` and PostgreSQL's programs on the path. It must succeed."""
    path = os.pathsep.join([str(_postgres_binaries()), path_with_flash()])
    ended = subprocess.run(
        ["sh", "-euc", script],
        cwd=where,
        env=environment(**variables) | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
    return ended
