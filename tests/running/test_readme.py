"""The README's first query. Without this a newcomer's first ten minutes could be spent on an example that is wrong."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.running.processes import environment, up

README = Path(__file__).parents[2] / "README.md"
CODE = re.compile(r"PCT-[0-9A-Z]{13}")


def section(title: str) -> list[tuple[str, str]]:
    """Return the code blocks of a section: their language and their text."""
    text = README.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


def run(script: str, where: Path) -> Any:
    """Run a block in a shell and return its answer."""
    ended = subprocess.run(
        ["sh", "-euc", script], cwd=where, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(ended.stdout)


def masked(answer: Any) -> Any:
    """Return an answer without the one thing that differs between two runs: the code."""
    return json.loads(CODE.sub("a code", json.dumps(answer)))


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples need curl")
def test_the_first_queries_answer_what_the_readme_says(tmp_path: Path) -> None:
    (_, claim), (_, claimed), (_, redeem), (_, redeemed) = section("A first query")
    with up(tmp_path / ".flash", errors=tmp_path / "errors.log"):
        first = run(claim, tmp_path)
        again = run(claim, tmp_path)
        code = first["data"]["claimCode"]["code"]["text"]
        own = ". .flash/demo.env\n" + CODE.sub(code, redeem)
        spent, replayed = run(own, tmp_path), run(own, tmp_path)
        refused = run(own.replace("order-1", "order-2"), tmp_path)

    assert masked(first) == masked(json.loads(claimed))
    assert again["data"]["claimCode"] == first["data"]["claimCode"] | {"replayed": True}
    assert spent == replayed == json.loads(redeemed)
    assert refused["data"]["redeemCodes"]["rejections"][0]["reason"] == "ALREADY_REDEEMED"
