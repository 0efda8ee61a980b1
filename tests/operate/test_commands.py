"""The other commands of `flash`, and what each says when something is configured wrong."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from app.operate.embedded import DataDirectory
from app.operate.listening import bind
from app.operate.migrate import create_database
from app.storage.crypto import KEY_BYTES, MasterKeyring, new_master_key
from tests.conftest import database_url
from tests.factories import Shop
from tests.operate.processes import environment, eventually, flash, refusal
from tests.starts import start

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
NOBODY = "postgresql://somebody:verysecret@127.0.0.1:1/flash"


@pytest.fixture(scope="module")
def keys() -> str:
    """A value for FLASH_MASTER_KEYS that nothing was made with."""
    return new_master_key("k1")


def test_a_command_starts_a_database_of_its_own_and_stops_it(tmp_path: Path) -> None:
    created = flash("merchant", "create", "--name", "N", "--currency", "EUR", "--json", "--data", "a b", cwd=tmp_path)

    assert created.returncode == 0, created.stderr
    assert set(json.loads(created.stdout)) == {"merchantId", "apiKey"}
    assert (tmp_path / "a b" / "master.keys").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "a b" / "postgres" / "postmaster.pid").exists()


def test_an_unmigrated_database_is_refused_until_it_is_migrated(
    worker_database: str, keys: str, tmp_path: Path
) -> None:
    name = f"{urlsplit(worker_database).path.removeprefix('/')}_empty"
    url = database_url(name)
    asyncio.run(create_database(url, name))

    unmigrated = refusal(
        "api", "--port", "0", DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1", FLASH_MASTER_KEYS=keys
    )
    migrated = flash("migrate", "--data", tmp_path, DATABASE_URL=url)

    assert re.fullmatch(r"The database lacks migrations \(0001_initial, .*\); run `flash migrate`.", unmigrated)
    assert migrated.stdout == "The database is up to date.\n", migrated.stderr


def test_a_database_of_somebody_else_is_one_sentence_and_gets_none_of_our_tables(worker_database: str) -> None:
    name = f"{urlsplit(worker_database).path.removeprefix('/')}_foreign"
    url = database_url(name)

    async def tables(statement: str = "SELECT") -> set[str]:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
            return {row["relname"] for row in await connection.fetch(TABLES)}
        finally:
            await connection.close()

    asyncio.run(create_database(url, name))
    asyncio.run(tables("CREATE TABLE IF NOT EXISTS member (id int)"))

    said = refusal("migrate", DATABASE_URL=url)

    assert said == (
        'The database can\'t be migrated: relation "member" already exists; '
        "DATABASE_URL must name a database of Flash's own, whose role may create tables in it."
    )
    assert asyncio.run(tables()) == {"member", "tortoise_migrations"}


def test_the_version_is_printed() -> None:
    assert flash("--version").stdout == f"flash {version('flash-engine')}\n"


def test_schema_prints_the_schema(tmp_path: Path) -> None:
    printed = flash("schema", "--data", tmp_path)

    assert printed.stdout == Path("schema.graphql").read_text()
    assert list(tmp_path.iterdir()) == []


def test_keys_new_prints_a_master_key(tmp_path: Path) -> None:
    printed = flash("keys", "new", "--name", "k7", "--data", tmp_path)

    assert len(MasterKeyring.parse(printed.stdout).keys["k7"]) == KEY_BYTES


def test_keys_new_refuses_a_name_that_would_not_parse() -> None:
    assert refusal("keys", "new", "--name", "a:b") == "A key's name is 1 to 50 letters and digits."


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_single_process_needs_both_servers(command: str) -> None:
    assert refusal(command) == (
        "Set DATABASE_URL and REDIS_URL, or use `flash up`, which starts embedded servers."
    )  # fmt: skip


def test_a_single_process_needs_a_master_key() -> None:
    assert refusal("api", "--port", "0", DATABASE_URL=NOBODY, REDIS_URL="redis://127.0.0.1:1") == (
        "Set FLASH_MASTER_KEYS to what `flash keys new` prints, the same for each process."
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"DATABASE_URL": "mysql://x:verysecret@y/z"}, "DATABASE_URL must look like postgresql://"),
        ({"DATABASE_URL": "postgresql://u:very/secret@h/d"}, "DATABASE_URL can't be read; it must look like"),
        ({"DATABASE_URL": NOBODY}, "The database can't be reached: "),
        ({"REDIS_URL": "bogus://x"}, "REDIS_URL can't be read; it must look like redis://"),
        ({"FLASH_MASTER_KEYS": "k1:verysecret"}, "FLASH_MASTER_KEYS must be `name:base64 of 32 bytes`"),
        ({"FLASH_DATABASE_CONNECTIONS_MAX": "verysecret"}, "The environment can't be read: FLASH_DATABASE_CONNEC"),
        ({"FLASH_ENV": "verysecret"}, "The environment can't be read: FLASH_ENV: Input should be 'development' or"),
        ({"FLASH_METRIC_TOKEN": "verysecret"}, "The environment can't be read: FLASH_METRIC_TOKEN: There is no such"),
    ],
)
def test_a_mistake_is_one_sentence_without_the_secret(variables: dict[str, str], sentence: str, keys: str) -> None:
    well = {"DATABASE_URL": NOBODY, "REDIS_URL": "redis://127.0.0.1:1", "FLASH_MASTER_KEYS": keys}

    said = refusal("api", "--port", "0", cwd=None, **(well | variables))

    assert said.startswith(sentence)
    assert "secret" not in said


@pytest.mark.parametrize(
    "command",
    [["up", "--port", "0"], ["migrate"], ["demo"], ["audit"], ["doctor"], ["worker"]],
    ids=lambda each: each[0],
)
def test_a_variable_that_is_no_setting_is_refused_by_every_command(command: list[str], tmp_path: Path) -> None:
    assert refusal(*command, FLASH_DATA=tmp_path, FLASH_LOG_LEVL="debug") == (
        "The environment can't be read: FLASH_LOG_LEVL: There is no such setting (the nearest is FLASH_LOG_LEVEL)."
    )


def test_an_api_port_in_use_is_one_sentence(worker_database: str, keys: str) -> None:
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]

        said = refusal(
            "api", "--port", str(port), DATABASE_URL=NOBODY, REDIS_URL="redis://127.0.0.1:1", FLASH_MASTER_KEYS=keys
        )

    assert said.startswith(f"Can't listen on 127.0.0.1:{port} (address already in use); ")


async def test_master_keys_that_do_not_fit_the_data_are_refused(worker_database: str, shop: Shop, keys: str) -> None:
    said = await asyncio.to_thread(
        lambda: refusal(
            "api", "--port", "0", DATABASE_URL=worker_database, REDIS_URL="redis://127.0.0.1:1", FLASH_MASTER_KEYS=keys
        )
    )

    assert said.startswith("The master keys don't fit this database: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "/dev/null/x"], "The data directory /dev/null/x can't be written (not a directory); "),
        (["--host", "no.such.host.invalid"], "Can't listen on no.such.host.invalid:0 ("),
    ],
)
def test_up_refuses_what_it_can_not_have(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    assert refusal("up", "--port", "0", *arguments, cwd=tmp_path).startswith(sentence)


def test_up_makes_no_keys_in_production(tmp_path: Path) -> None:
    said = refusal("up", "--port", "0", "--data", tmp_path, FLASH_ENV="production")

    assert said.startswith("No master key is configured and FLASH_ENV is production: set FLASH_MASTER_KEYS")
    assert list(tmp_path.iterdir()) == []


def test_up_refuses_a_redis_that_does_not_answer(tmp_path: Path, worker_database: str) -> None:
    said = refusal(
        "up", "--port", "0", "--data", tmp_path, DATABASE_URL=worker_database, REDIS_URL="redis://127.0.0.1:1"
    )

    assert said == "Valkey (or Redis) doesn't answer (ConnectionError); start it or correct REDIS_URL."


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[DataDirectory]:
    """A directory for a Valkey that a test starts when it likes."""
    data = DataDirectory(tmp_path / "data")
    data.create()
    yield data
    for process in psutil.Process().children():
        if str(data.valkey) in " ".join(process.cmdline()):
            process.terminate()


def test_a_worker_waits_for_valkey_and_says_so(worker_database: str, valkey: DataDirectory, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    variables = {
        "DATABASE_URL": worker_database,
        "REDIS_URL": valkey.redis_url,
        "FLASH_MASTER_KEYS": os.environ["FLASH_MASTER_KEYS"],
    }
    with log.open("w") as output:
        worker = start("worker", environment=environment(**variables), errors=output)
    eventually(lambda: "Valkey is away (ConnectionError); jobs wait for it" in log.read_text())

    command = valkey.valkey_command()
    with command.log.open("ab") as output:
        server = subprocess.Popen(command.arguments, stdout=output, stderr=output)
    eventually(lambda: "the worker has begun" in log.read_text())
    server.kill()
    server.wait()
    eventually(lambda: log.read_text().count("Valkey is away") == 2)
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(timeout=20) == 0
    assert "Traceback" not in log.read_text()
