"""docs/frontend.md, tried. Without this its code could be a sketch, or the schema one that Relay or Apollo refuses."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.web.trusted_documents import trusted_documents
from tests.clients.test_clients import HERE, MODULES, NODE
from tests.factories import Shop
from tests.guides import ROOT, blocks, run

GUIDE = "docs/frontend.md"
FILES = {
    "Generate types": ["operations.graphql", "codegen.mjs"],
    "A typed client": ["client.ts"],
    "Refusals": ["claim.ts"],
    "Pages": ["pages.ts"],
    "Once, whatever happens": ["again.ts"],
    "Apollo Client": ["apollo.mjs"],
    "Relay": ["../relay/relay.config.json", "../relay/CodeList.js"],
}
#: What strict types must not let pass.
WRONG = """
import type { Ask } from "./client.js";
import { ClaimDocument } from "./graphql.js";
export const misspelt = (ask: Ask) => ask(ClaimDocument, { input: { pool: "x" } });
export const unasked = async (ask: Ask) => (await ask(ClaimDocument, { input: { poolId: "x" } })).claimCode.code;
"""

needs_node = pytest.mark.skipif(
    NODE is None or not (MODULES / "relay-compiler").is_dir(),
    reason="the frontend guide is NOT tried: it needs Node 20 and `npm ci --prefix tests/clients`",
)


def _node(where: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([NODE or "", *arguments], cwd=where, capture_output=True, text=True, timeout=120, check=False)


def _tsc(where: Path) -> list[str]:
    """Return what the compiler complains about."""
    return _node(where, str(MODULES / "typescript/bin/tsc"), "--project", ".").stdout.splitlines()


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the guide's files, its types generated from schema.graphql."""
    folder = tmp_path_factory.mktemp("frontend") / "project"
    shutil.copytree(HERE / "frontend", folder)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    generated = _node(folder, "codegen.mjs", str(ROOT / "schema.graphql"), "operations.graphql", ".")
    assert generated.returncode == 0, generated.stderr
    return folder


@needs_node
def test_generated_types_are_strict_and_let_no_mistake_pass(frontend: Path) -> None:
    right = _tsc(frontend)
    (frontend / "wrong.ts").write_text(WRONG)
    wrong = _tsc(frontend)
    (frontend / "wrong.ts").unlink()

    assert right == []
    assert [line.partition(",")[0] for line in wrong if not line.startswith(" ")] == ["wrong.ts(4", "wrong.ts(5"]


@needs_node
async def test_the_guides_client_and_apollo_do_what_it_says(shop: Shop, frontend: Path) -> None:
    member = await shop.member()
    pools = [await shop.pool() for _ in range(5)]
    empty = await shop.pool(codes=1)
    await shop.claim(empty, await shop.member())
    asked = {
        "url": shop.url, "token": await shop.token(member["id"]),
        "pools": [pool["id"] for pool in pools], "empty": empty["id"],
    }  # fmt: skip
    assert await asyncio.to_thread(_tsc, frontend) == []

    ended = await asyncio.to_thread(_node, frontend, "drive.mjs", json.dumps(asked))

    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    texts = [said.removeprefix("Your code: ") for said in told["claimed"]]
    assert len(set(texts)) == len(pools)
    assert all(text.startswith("PCT-") for text in texts)
    assert told["again"] == told["answered"] == told["claimed"][0]
    assert told["empty"] == "All codes are gone."
    assert told["missing"] == "There is no such pool."
    assert sorted(told["listed"]) == sorted(texts)
    assert told["isFlashError"]
    assert (told["problem"]["code"], len(told["problem"]["requestId"])) == ("UNAUTHENTICATED", 32)
    assert (told["tries"], told["refusedAtOnce"]) == (3, "UNAUTHENTICATED")
    assert told["apolloRefusal"] == {"__typename": "PoolExhausted", "message": "The pool has no code left."}
    assert told["apolloMerged"] == told["listed"][:4]


@needs_node
def test_relays_compiler_takes_the_schema_and_the_engine_its_documents(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    shutil.copy(HERE / "relay/CodeList.js", tmp_path / "src")
    shutil.copy(HERE / "relay/relay.config.json", tmp_path)
    shutil.copy(ROOT / "schema.graphql", tmp_path)
    (tmp_path / "trusted.json").write_text("{}")

    compiled = _node(tmp_path, str(MODULES / "relay-compiler/cli.js"), "relay.config.json")

    assert compiled.returncode == 0, compiled.stdout
    trusted = trusted_documents(Settings(trusted_documents=tmp_path / "trusted.json"))
    assert sorted(document.split("(")[0].split(" {")[0] for document in trusted.values()) == [
        "mutation CodeListClaimMutation",
        "query CodeListPageQuery",
        "query CodeListQuery",
        "subscription CodeListChangesSubscription",
    ]


@needs_node
def test_the_manifest_of_the_generated_documents_is_trusted(frontend: Path) -> None:
    trusted = trusted_documents(Settings(trusted_documents=frontend / "trusted.json"))

    assert [document.split("(")[0] for document in trusted.values()] == ["mutation Claim", "query Codes"]


@pytest.mark.parametrize("section", FILES)
def test_the_guide_shows_what_was_run(section: str) -> None:
    shown = [block.text for block in blocks(GUIDE, section) if block.language != "sh"]

    assert shown == [(HERE / "frontend" / file).read_text() for file in FILES[section]]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's first question needs curl")
async def test_the_first_question_is_answered_as_the_guide_says(shop: Shop, tmp_path: Path) -> None:
    ask, answer = blocks(GUIDE, "Ask")
    member = await shop.member()
    secrets = {"URL": shop.url, "MEMBER": await shop.token(member["id"])}
    (tmp_path / ".flash").mkdir()
    (tmp_path / ".flash/demo.env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))

    said = await asyncio.to_thread(run, ask.text, tmp_path)

    assert json.loads(said.stdout) == json.loads(answer.text)
