"""The README's first query. Without this a newcomer's first ten minutes could be spent on an example that is wrong."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.guides import blocks, run
from tests.operate.processes import up

CODE = re.compile(r"PCT-[0-9A-Z]{13}")


def answer(script: str, where: Path) -> Any:
    """Run a block in a shell and return its answer."""
    return json.loads(run(script, where).stdout)


def masked(said: Any) -> Any:
    """Return an answer without the one thing that differs between two runs: the code."""
    return json.loads(CODE.sub("a code", json.dumps(said)))


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples need curl")
def test_the_first_queries_answer_what_the_readme_says(tmp_path: Path) -> None:
    claim, claimed, redeem, redeemed = (block.text for block in blocks("README.md", "A first query"))
    with up(tmp_path / ".flash", errors=tmp_path / "errors.log"):
        first = answer(claim, tmp_path)
        again = answer(claim, tmp_path)
        code = first["data"]["claimCode"]["code"]["text"]
        own = ". .flash/demo.env\n" + CODE.sub(code, redeem)
        spent, replayed = answer(own, tmp_path), answer(own, tmp_path)
        refused = answer(own.replace("order-1", "order-2"), tmp_path)

    assert masked(first) == masked(json.loads(claimed))
    assert again["data"]["claimCode"] == first["data"]["claimCode"] | {"replayed": True}
    assert spent == replayed == json.loads(redeemed)
    assert refused["data"]["redeemCodes"]["rejections"][0]["reason"] == "ALREADY_REDEEMED"
