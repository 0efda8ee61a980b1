"""docs/bi.md as it is written. Without this the tools that it names might not read the engine any more.

Every block is run against the demo shop, and what is below it is what it must print. dlt is too heavy to be installed
with the rest of development: `pip install 'dlt[duckdb]'` runs its block too.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engines import Demo
from tests.guides import blocks
from tests.operate.processes import environment
from tests.starts import path_with_flash

NODE_ID = re.compile(r"_[0-9a-f]{32}")


@dataclass(frozen=True)
class Guide:
    """The guide's blocks, and where they are run."""

    where: Path

    def printed(self, section: str, number: int = 0) -> tuple[str, str]:
        """Run the n-th block of a section. Returns what it printed, and what the guide says it does."""
        found = blocks("docs/bi.md", section)
        runs = [place for place, block in enumerate(found) if block.language in {"sh", "python"}]
        ran = found[runs[number]]
        below = found[runs[number] + 1 : runs[number] + 2]
        command = ["sh", "-euc"] if ran.language == "sh" else [sys.executable, "-W", "ignore", "-c"]
        variables = environment(PATH=path_with_flash(), DLT_DATA_DIR=self.where / "dlt", **self._demo())
        ended = subprocess.run(
            [*command, ran.text],
            cwd=self.where,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        said = below[0].text if below and below[0].language in {"", "json"} else ""
        return NODE_ID.sub("_ID", ended.stdout.strip()), NODE_ID.sub("_ID", said.strip())

    def _demo(self) -> dict[str, str]:
        lines = (self.where / ".flash" / "demo.env").read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def guide(demo: Demo) -> Guide:
    """The demo shop, from which nobody has claimed."""
    return Guide(demo.where)


def test_every_block_prints_what_the_guide_says(guide: Guide) -> None:
    for section, number in (
        ("BI: reports and exports", 0),
        ("Superset, and whatever speaks SQLAlchemy", 0),
        ("Tools that read the schema", 0),
        ("Exports", 0),
        ("pandas and DuckDB", 0),
        ("pandas and DuckDB", 1),
        ("pandas and DuckDB", 2),
    ):
        printed, said = guide.printed(section, number)
        if said:
            # An export tells of checksums and of now, too.
            assert printed.endswith(said), section
        else:
            assert "read from the primary." in printed


@pytest.mark.skipif(find_spec("dlt") is None, reason="dlt isn't installed: pip install 'dlt[duckdb]' to run its block")
def test_dlt_loads_reports_twice_without_doubling_them(guide: Guide) -> None:
    printed, said = guide.printed("dlt")
    again, _ = guide.printed("dlt")

    assert printed == again == said
