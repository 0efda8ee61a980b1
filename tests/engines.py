"""Whole engines that several files of tests share, because a start takes seconds."""

import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.operate.processes import Up, environment, up
from tests.starts import FLASH


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An engine with two API processes, durable as an operator's, in a directory whose name is long and not plain."""
    directory = tmp_path_factory.mktemp("up") / ("ein langer Name, größer als ein Socket erlaubt " * 3).strip()
    errors = tmp_path_factory.mktemp("errors") / "up.log"
    with up(directory, "--api-processes", "2", errors=errors) as running:
        yield running


@dataclass(frozen=True)
class Demo:
    """The demo shop: the directory whose `.flash` it is in, and what `flash up` printed for a person."""

    where: Path
    printed: list[str]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A newcomer's first `flash up`. Its rows are what the guides say, until somebody claims from it."""
    where = tmp_path_factory.mktemp("demo")
    arguments = [*FLASH, "up", "--port", "0"]
    with subprocess.Popen(arguments, cwd=where, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Demo(where, list(itertools.takewhile(lambda line: "Ctrl-C" not in line, process.stdout)))
        finally:
            process.terminate()
            process.communicate(timeout=40)
