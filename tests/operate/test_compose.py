"""docker-compose.yml. Without these it could start servers that anybody may write to, or lose a setting."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.config import VARIABLES, Settings
from app.operate.embedded import DataDirectory
from app.storage.crypto import MasterKeyring
from tests.conftest import run_worker
from tests.factories import Shop
from tests.guides import ROOT, blocks
from tests.operate.processes import eventually, is_listening

COMPOSE = "docker-compose.yml"
#: What it says itself.
OWN = {"DATABASE_URL", "FLASH_DATA", "FLASH_ENV", "REDIS_URL"}
#: `export NAME=$(…)` and so on, in the comment at its head.
EXPORTS = re.compile(r"^#   (export \w+=\S*\$\([^)]+\))", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="docker-compose.yml is NOT tried: it needs openssl"
)


def _exported() -> dict[str, str]:
    """Return what a shell has after the exports that the file begins with."""
    text = (ROOT / COMPOSE).read_text()
    exports = EXPORTS.findall(text)
    ended = subprocess.run(["sh", "-euc", "\n".join([*exports, "env"])], capture_output=True, text=True, check=True)
    names = {export.split()[1].partition("=")[0] for export in exports}
    variables = dict(line.split("=", 1) for line in ended.stdout.splitlines() if "=" in line)
    return {name: variables[name] for name in names}


def _services(**variables: str) -> dict[str, Any]:
    """Return the services as Compose sees them in this environment: it fills in what it has parsed."""

    def word(found: re.Match[str]) -> str:
        name, operator, default = found.groups()
        given = variables.get(name, "")
        assert given or operator != ":?", f"{name} is not set"
        return given or default or ""

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: filled(value) for name, value in part.items()}
        if isinstance(part, list):
            return [filled(value) for value in part]
        return re.sub(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}", word, part) if isinstance(part, str) else part

    return cast(dict[str, Any], filled(yaml.safe_load((ROOT / COMPOSE).read_text())["services"]))


def test_the_exports_at_its_head_are_all_that_it_needs() -> None:
    exported = _exported()

    flash = _services(**exported)["api"]["environment"]

    assert list(MasterKeyring.parse(flash["FLASH_MASTER_KEYS"]).keys) == ["k1"]
    for name in ("DATABASE_URL", "REDIS_URL"):
        assert re.fullmatch("[0-9a-f]{48}", urlsplit(flash[name]).password or ""), name


def test_every_setting_is_passed_on_and_those_that_are_not_set_have_their_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported = _exported()
    passed = _services(**exported)["api"]["environment"]
    given = {name: f"given for {name}" for name in passed}
    changed = _services(**exported | given)["api"]["environment"]
    for name in [*VARIABLES.values(), *passed]:
        monkeypatch.delenv(name, raising=False)
    default = Settings().model_dump()
    for name, value in passed.items():
        monkeypatch.setenv(name, value)
    composed = Settings().model_dump()

    assert passed.keys() == set(VARIABLES.values())
    assert {name for name in passed if changed[name] != given[name]} == OWN
    differing = {VARIABLES[name] for name, value in composed.items() if value != default[name]}
    assert differing == OWN | {"FLASH_MASTER_KEYS", "FLASH_LOG_FORMAT"}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Valkey with the arguments that Compose gives it: its URL without the password, and with that of REDIS_URL."""
    services = _services(**_exported())
    data = DataDirectory(tmp_path)
    data.create()
    command = data.valkey_command()
    arguments = [*command.arguments, *services["valkey"]["command"][1:]]
    with command.log.open("ab") as log, subprocess.Popen(arguments, stdout=log, stderr=log) as server:
        eventually(lambda: is_listening(urlsplit(data.redis_url).path))
        password = urlsplit(services["worker"]["environment"]["REDIS_URL"]).password
        yield data.redis_url, data.redis_url.replace("unix://", f"unix://:{password}@")
        server.terminate()


async def test_a_stranger_does_not_reach_valkey_and_a_worker_does(
    shop: Shop, valkey: tuple[str, str], tmp_path: Path
) -> None:
    bare, known = valkey
    log = tmp_path / "worker.log"

    async with Redis.from_url(bare) as stranger:
        with pytest.raises(RedisError, match="Authentication required"):
            await stranger.set("arq:job:x", b"x")
    with run_worker(known, log):
        await asyncio.to_thread(eventually, lambda: "the worker has begun" in log.read_text())


def test_upgrading_names_the_services_that_there_are() -> None:
    (block,) = blocks("docs/upgrading.md", "With Compose", "sh")
    named = {line.split()[-1] for line in block.text.splitlines()[1:]}

    assert named == {"migrate", "worker", "api"}
    assert named <= yaml.safe_load((ROOT / COMPOSE).read_text())["services"].keys()
