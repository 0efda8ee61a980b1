"""docs/bi.md as it is written. Without this the tools that it names might not read the engine any more.

Every block is run against the demo shop, and what is below it is what it must print. dlt is too heavy to be installed
with the rest of development: `pip install 'dlt[duckdb]'` runs its block too.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running.processes import environment, up

GUIDE = Path(__file__).parents[2] / "docs" / "bi.md"
NODE_ID = re.compile(r"_[0-9a-f]{32}")

pytestmark = pytest.mark.xdist_group("the guide to BI")


@dataclass(frozen=True)
class Guide:
    """The guide's blocks, and where they are run."""

    where: Path

    def printed(self, section: str, number: int = 0) -> tuple[str, str]:
        """Run the n-th block of a section. Returns what it printed, and what the guide says it does."""
        text = GUIDE.read_text().partition(f"# {section}\n")[2].partition("\n#")[0]
        blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
        runs = [place for place, (language, _) in enumerate(blocks) if language in {"sh", "python"}]
        language, code = blocks[runs[number]]
        below = blocks[runs[number] + 1 : runs[number] + 2]
        command = ["sh", "-euc"] if language == "sh" else [sys.executable, "-W", "ignore", "-c"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = environment(PATH=path, DLT_DATA_DIR=self.where / "dlt", **self._demo())
        ended = subprocess.run(
            [*command, code], cwd=self.where, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, ended.stderr
        said = below[0][1] if below and below[0][0] in {"", "json"} else ""
        return NODE_ID.sub("_ID", ended.stdout.strip()), NODE_ID.sub("_ID", said.strip())

    def _demo(self) -> dict[str, str]:
        lines = (self.where / ".flash" / "demo.env").read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    """The demo shop, served until the last block has run."""
    where = tmp_path_factory.mktemp("bi")
    with up(where / ".flash", errors=where / "errors.log"):
        yield Guide(where)


def test_a_report_is_a_query(guide: Guide) -> None:
    printed, said = guide.printed("BI: reports and exports")

    assert printed == said


def test_superset_reads_reports_by_sql_and_gets_the_sums_of_the_tables(guide: Guide) -> None:
    printed, said = guide.printed("Superset, and whatever speaks SQLAlchemy")

    assert printed == said


def test_dlt_loads_reports_twice_without_doubling_them(guide: Guide) -> None:
    pytest.importorskip("dlt", reason="dlt isn't installed: pip install 'dlt[duckdb]' to run its block")
    printed, said = guide.printed("dlt")
    again, _ = guide.printed("dlt")

    assert printed == again == said


def test_an_export_is_complete_and_pandas_and_duckdb_read_it(guide: Guide) -> None:
    exported, listed = guide.printed("Exports")
    guide.printed("pandas and DuckDB")
    counted, said_by_pandas = guide.printed("pandas and DuckDB", 1)
    summed, said_by_duckdb = guide.printed("pandas and DuckDB", 2)

    assert exported.endswith(f", read from the primary.\n{listed}")
    assert counted == said_by_pandas
    assert summed == said_by_duckdb
