"""The README's first query. Without this a newcomer's first ten minutes could be spent on an example that is wrong."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines import Demo
from tests.guides import blocks, run

CODE = re.compile(r"PCT-[0-9A-Z]{13}")


def answer(script: str, where: Path) -> Any:
    """Run a block in a shell and return its answer."""
    return json.loads(run(script, where).stdout)


def masked(said: Any) -> Any:
    """Return an answer without the one thing that differs between two runs: the code."""
    return json.loads(CODE.sub("a code", json.dumps(said)))


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples need curl")
def test_the_first_queries_answer_what_the_readme_says(demo: Demo) -> None:
    claim, claimed, redeem, redeemed = (block.text for block in blocks("README.md", "A first query"))
    first = answer(claim, demo.where)
    again = answer(claim, demo.where)
    code = first["data"]["claimCode"]["code"]["text"]
    own = ". .flash/demo.env\n" + CODE.sub(code, redeem)
    spent, replayed = answer(own, demo.where), answer(own, demo.where)
    refused = answer(own.replace("order-1", "order-2"), demo.where)

    assert masked(first) == masked(json.loads(claimed))
    assert again["data"]["claimCode"] == first["data"]["claimCode"] | {"replayed": True}
    assert spent == replayed == json.loads(redeemed)
    assert refused["data"]["redeemCodes"]["rejections"][0]["reason"] == "ALREADY_REDEEMED"


def test_the_links_that_are_printed_open_what_they_say(demo: Demo) -> None:
    links = [word for line in demo.printed for word in line.split() if "#" in word]
    graphiql, portfolio, wallet = links
    pages = [httpx.get(link, headers={"accept": "text/html"}, verify=False, timeout=30).text for link in links]
    key, token = graphiql.partition("#key=")[2], wallet.partition("#token=")[2]
    roles = [
        httpx.post(
            graphiql.partition("#")[0],
            json={"query": "{ viewer { role } }"},
            headers={"authorization": f"Bearer {credential}"},
            timeout=30,
        ).json()["data"]["viewer"]["role"]
        for credential in (key, token)
    ]

    titles = [page.partition("<title>")[2].partition("</title>")[0] for page in pages]
    assert titles == ["Flash · GraphiQL", "Flash · Portfolio", "Flash · Wallet"]
    assert portfolio.partition("#key=")[2] == key
    assert roles == ["ADMIN", "MEMBER"]
