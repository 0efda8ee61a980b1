"""The wheel. Without these an installed engine could lack its pages or migrations, and run from a checkout only."""

import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.guides import ROOT
from tests.operate.processes import environment, flash

PACKAGES = ("app", "workers", "migrations")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built as `uv build --wheel` does, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", "--offline", "--out-dir", str(folder)],
        cwd=ROOT,
        env=environment(VIRTUAL_ENV=sys.prefix, UV_PYTHON=sys.executable),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def site(wheel: Path) -> Path:
    """A folder with what the wheel installs."""
    folder = wheel.parent / "site"
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.mark.skipif(shutil.which("git") is None, reason="what the wheel holds is NOT compared: there is no git")
def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    information = f"flash_engine-{version('flash-engine')}.dist-info/"

    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(information)}

    assert names == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_installed_engine_runs_away_from_the_checkout(site: Path, tmp_path: Path) -> None:
    """Takes some seconds: it makes the files of a PostgreSQL of its own and migrates it."""
    where = "import app, workers, app.pages as pages; print(app.__file__, len(pages.Page.WALLET.response().body))"
    imported = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env=environment(PYTHONPATH=site),
        capture_output=True,
        text=True,
        check=True,
    )
    said = flash("--version", cwd=tmp_path, PYTHONPATH=site)
    printed = flash("schema", cwd=tmp_path, PYTHONPATH=site)
    made = flash("merchant", "create", "--name", "N", "--currency", "EUR", "--json", cwd=tmp_path, PYTHONPATH=site)

    assert imported.stdout == f"{site / 'app/__init__.py'} {(ROOT / 'app/pages/wallet.html').stat().st_size}\n"
    assert said.stdout == f"flash {version('flash-engine')}\n"
    assert printed.stdout == (ROOT / "schema.graphql").read_text()
    assert set(json.loads(made.stdout)) == {"merchantId", "apiKey"}, made.stderr
    assert (tmp_path / ".flash/postgres/PG_VERSION").exists()
