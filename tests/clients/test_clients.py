"""Clients of others. Without these docs/member-app.md could show code that loses a change, or the API be ours alone."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.pages import ASSETS
from tests.conftest import run_api
from tests.factories import ISSUE_MEMBER_TOKEN, Shop
from tests.guides import blocks

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
NODE = shutil.which("node")
PATIENCE_SECONDS = 60
TOKEN_SECONDS = 4
WALLET = "{ wallet { version codes { edges { node { text state } } } } }"

needs_node = pytest.mark.skipif(
    NODE is None or not MODULES.is_dir(),
    reason="the guide's clients are NOT tried: they need Node 20 and `npm ci --prefix tests/clients`",
)


class Client:
    """A running client, and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take the process."""
        self.process = process
        self.printed: list[Any] = []

    async def at_version(self, version: int) -> None:
        """Read on until the client was told of a version."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.printed or self.printed[-1]["version"] < version:
                line = await self.process.stdout.readline()
                assert line, "the client ended"
                self.printed.append(json.loads(line))


@asynccontextmanager
async def running(name: str, url: str, shop: Shop, member: Any) -> AsyncIterator[Client]:
    """Run a member's client for the length of the block; its tokens last for TOKEN_SECONDS each."""
    asked = {"memberId": member["id"], "lifetimeSeconds": TOKEN_SECONDS}
    issue = {"query": ISSUE_MEMBER_TOKEN, "variables": {"input": asked}}
    told = {"name": name, "url": f"{url}/graphql", "shop": shop.url, "key": await shop.key("CHECKOUT"), "issue": issue}
    process = await asyncio.create_subprocess_exec(
        NODE or "", str(HERE / "drive.mjs"), json.dumps(told), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@needs_node
@pytest.mark.parametrize("name", ["graphql-ws", "apollo"])
async def test_it_misses_nothing_when_its_token_ends_and_the_server_is_killed(
    shop: Shop, worker_database: str, name: str
) -> None:
    member = await shop.member()
    pool = await shop.pool(claimsPerMember=6)

    async def claim(number: int) -> Any:
        return await shop.claim(pool, member, idempotencyKey=f"k-{number}")

    with run_api(worker_database) as first:
        async with running(name, first.url, shop, member) as client:
            await client.at_version(0)
            # The token that the client began with is over by then.
            await asyncio.sleep(TOKEN_SECONDS + 1)
            code = await claim(1)
            await client.at_version(1)

            first.process.kill()
            first.process.wait(timeout=20)
            await claim(2)
            await shop.redeem([code["text"]], member)
            with run_api(worker_database, int(first.url.rpartition(":")[2])):
                await client.at_version(3)
                await claim(4)
                await client.at_version(4)
    wallet = (await shop.data(WALLET, key=await shop.token(member["id"])))["wallet"]

    assert [(told["version"], told["type"]) for told in client.printed] == [
        (0, None),
        (1, "code.claimed"),
        (2, "code.claimed"),
        (3, "code.redeemed"),
        (4, "code.claimed"),
    ]
    assert client.printed[-1]["states"] == {
        edge["node"]["text"]: edge["node"]["state"] for edge in wallet["codes"]["edges"]
    }
    assert wallet["version"] == 4


async def _said(script: str, **told: str) -> Any:
    """Run a script to its end and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        NODE or "", str(HERE / script), json.dumps(told), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@needs_node
async def test_the_suite_of_graphql_over_http_finds_nothing(shop: Shop) -> None:
    """Every MUST and every SHOULD of graphql-http's audits."""
    found = await _said("audit.mjs", url=shop.url, key=shop.admin)

    assert [audit for audit in found if audit["status"] != "ok"] == []
    assert len(found) > 50


@needs_node
async def test_apollo_sends_a_document_once_and_its_hash_from_then_on(shop: Shop) -> None:
    query = f"query Q{shop.merchant_id.hex} {{ viewer {{ role }} }}"

    said = await _said("persisted.mjs", url=shop.url, key=shop.admin, query=query)

    assert said["sent"] == [False, True, False]
    assert [answer["viewer"]["role"] for answer in said["answers"]] == ["ADMIN", "ADMIN"]


@pytest.mark.parametrize("file", ["follow_wallet.mjs", "apollo_wallet.mjs"])
def test_the_guide_shows_what_was_run(file: str) -> None:
    shown = [block.text for block in blocks("docs/member-app.md", language="js")]

    assert (HERE / file).read_text() in shown


@needs_node
def test_the_pages_have_the_same_graphql_ws() -> None:
    for vendored in (ASSETS / "graphql-ws").glob("*.js"):
        assert vendored.read_bytes() == (MODULES / "graphql-ws/dist" / vendored.name).read_bytes(), vendored.name


def test_the_lock_names_no_registry() -> None:
    assert "resolved" not in (HERE / "package-lock.json").read_text()
