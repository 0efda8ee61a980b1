"""`make clean`. Without this it could delete the data under a running engine."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.operate.embedded import DataDirectory
from tests.guides import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="the Makefile is NOT tried: there is no make")


def _clean(checkout: Path, answer: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "clean", f"PYTHON={sys.executable}"],
        cwd=checkout,
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and with data of an engine."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    DataDirectory(tmp_path / ".flash").create()
    return tmp_path


@pytest.fixture
def running(checkout: Path) -> Iterator[int]:
    """The process that holds the data, as `flash up` does."""
    lock = "import sys; from app.operate.embedded import DataDirectory; from pathlib import Path; "
    lock += "DataDirectory(Path(sys.argv[1])).lock(); print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", lock, str(checkout / ".flash")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process.pid


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "what?\n"])
def test_running_engine_keeps_its_data_unless_somebody_says_yes(answer: str, checkout: Path, running: int) -> None:
    said = _clean(checkout, answer)

    assert said.returncode != 0
    assert f"An engine runs on .flash (process {running}). Delete its data? [y/N] " in said.stdout
    assert "Nothing was removed." in said.stderr
    assert (checkout / ".flash").exists()


def test_running_engine_loses_its_data_if_somebody_says_yes(checkout: Path, running: int) -> None:
    assert _clean(checkout, "y\n").returncode == 0
    assert not (checkout / ".flash").exists()


def test_without_an_engine_nobody_is_asked(checkout: Path) -> None:
    (checkout / ".flash/flash.lock").write_text("1")

    assert "An engine runs" not in _clean(checkout, "").stdout
    assert not (checkout / ".flash").exists()
    assert _clean(checkout, "").returncode == 0
