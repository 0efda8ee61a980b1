"""docs/frontend.md, tried. Without this its code could be a sketch, or the schema one that Relay or Apollo refuses."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.web.trusted_documents import trusted_documents
from tests.clients.test_clients import HERE, MODULES, NODE
from tests.conftest import run_api
from tests.factories import Shop
from tests.guides import ROOT, blocks, files, run
from tests.sizes import FULL

GUIDE = "docs/frontend.md"
#: Where the files that the guide names are.
FILES = {
    "src/operations.graphql": "frontend/src/operations.graphql",
    "codegen.ts": "frontend/codegen.ts",
    "src/client.ts": "frontend/src/client.ts",
    "src/claim.ts": "frontend/src/claim.ts",
    "src/pages.ts": "frontend/src/pages.ts",
    "src/again.ts": "frontend/src/again.ts",
    "src/apollo.ts": "frontend/src/apollo.ts",
    "relay.config.json": "relay/relay.config.json",
    "src/CodeList.js": "relay/CodeList.js",
}
#: The sections whose blocks are files, or what installs what they need.
SECTIONS = (
    "Generate types", "A typed client", "Refusals", "Pages", "Once, whatever happens", "Apollo Client", "Relay",
)  # fmt: skip
#: What npm says where there is no registry.
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")
#: What strict types must not let pass.
WRONG = """
import type { Ask } from "./client.js";
import { ClaimDocument } from "./gql/graphql.js";
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
    return _node(where, "node_modules/typescript/bin/tsc", "--project", ".").stdout.splitlines()


def _generate(where: Path) -> None:
    """Generate types from schema.graphql, as `npx graphql-codegen` does."""
    shutil.copy(ROOT / "schema.graphql", where)
    generated = _node(where, "node_modules/.bin/graphql-codegen")
    assert generated.returncode == 0, generated.stdout + generated.stderr


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled project of the guide's files, with what is installed for all of these tests."""
    folder = tmp_path_factory.mktemp("frontend") / "project"
    shutil.copytree(HERE / "frontend", folder)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    _generate(folder)
    assert _tsc(folder) == []
    return folder


@needs_node
def test_generated_types_are_strict_and_let_no_mistake_pass(frontend: Path) -> None:
    (frontend / "src/wrong.ts").write_text(WRONG)
    wrong = _tsc(frontend)
    (frontend / "src/wrong.ts").unlink()

    assert [line.partition(",")[0] for line in wrong if not line.startswith(" ")] == [
        "src/wrong.ts(4",
        "src/wrong.ts(5",
    ]


@needs_node
@pytest.mark.skipif(not FULL, reason="`make full` installs the frontend guide's packages as a newcomer would")
@pytest.mark.timeout(600)
def test_a_newcomers_project_is_installed_generated_and_compiled_as_the_guide_says(tmp_path: Path) -> None:
    """Takes a minute where npm has nothing at hand: everything is installed once more, as a reader would."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text((HERE / "frontend/tsconfig.json").read_text())
    for name, text in files(GUIDE).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    installs = [block.text for block in blocks(GUIDE, language="sh") if "npm install" in block.text]
    script = "".join(installs).replace("npm install", "npm install --prefer-offline --no-audit --no-fund")

    installed = subprocess.run(
        ["sh", "-euc", script], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    if installed.returncode and any(code in installed.stderr for code in NO_NETWORK):
        pytest.skip("installing as the frontend guide says is NOT tried: npm reaches no registry")
    assert installed.returncode == 0, installed.stderr
    _generate(tmp_path)

    assert _tsc(tmp_path) == []


@pytest.mark.parametrize(("guide", "count"), [(GUIDE, 10), ("docs/member-app.md", 5)])
def test_the_guide_pins_what_is_tested(guide: str, count: int) -> None:
    pinned = re.findall(r"(?<=\s)(@?[\w./-]+)@(\d[\w.]*)", (ROOT / guide).read_text())
    tested = json.loads((HERE / "package.json").read_text())["dependencies"]

    assert len(pinned) == count
    assert dict(pinned).items() <= tested.items()


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
async def test_an_engine_that_trusts_the_generated_documents_executes_no_others(
    shop: Shop, worker_database: str, frontend: Path
) -> None:
    manifest = frontend / "src/gql/persisted-documents.json"
    member, pool = await shop.member(), await shop.pool()
    token = await shop.token(member["id"])
    running = run_api(worker_database, FLASH_TRUSTED_DOCUMENTS=str(manifest), FLASH_TRUSTED_DOCUMENTS_REQUIRED="true")
    api = await asyncio.to_thread(running.__enter__)
    try:
        asked = {"url": f"{api.url}/graphql", "token": token, "pool": pool["id"]}
        ended = await asyncio.to_thread(_node, frontend, "trusted.mjs", json.dumps(asked))
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["byHash"].startswith("Your code: PCT-")
    assert told["byText"] == "UNTRUSTED_DOCUMENT"
    trusted = trusted_documents(Settings(trusted_documents=manifest))
    assert [re.findall(r"(?:mutation|query) \w+", document) for document in trusted.values()] == [
        ["mutation Claim"],
        ["query Codes"],
    ]


def test_the_guide_shows_what_was_run() -> None:
    assert files(GUIDE) == {name: (HERE / file).read_text() for name, file in FILES.items()}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_block_is_a_file_or_installs_something(section: str) -> None:
    shown = blocks(GUIDE, section)

    assert shown
    assert all(block.text in files(GUIDE).values() or "npm install" in block.text for block in shown)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's first question needs curl")
async def test_the_first_question_is_answered_as_the_guide_says(shop: Shop, tmp_path: Path) -> None:
    ask, answer = blocks(GUIDE, "Ask")
    member = await shop.member()
    secrets = {"URL": shop.url, "MEMBER": await shop.token(member["id"])}
    (tmp_path / ".flash").mkdir()
    (tmp_path / ".flash/demo.env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))

    said = await asyncio.to_thread(run, ask.text, tmp_path)

    assert json.loads(said.stdout) == json.loads(answer.text)
