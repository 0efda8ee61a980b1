"""Real servers for every test: one PostgreSQL and one Valkey per run, a cloned database and an API per test worker.

`DATABASE_URL` and `REDIS_URL` replace the embedded servers; the database's role must be allowed to create databases.
"""

import asyncio
import contextlib
import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
from xdist.scheduler import LoadScopeScheduling

from app.config import Settings, settings
from app.operate.embedded import Command, DataDirectory
from app.operate.listening import bind
from app.operate.migrate import create_database, migrate
from app.storage.crypto import new_master_key
from app.storage.database import connected, dsn
from tests.factories import Shop, open_shop
from tests.starts import ADDRESS, FORKS, Process, start

# Until all tests are collected next to nothing becomes garbage, and looking for it takes a quarter of the time.
gc.disable()

pytest_plugins = ["tests.engines", "tests.recorded", "tests.refusals", "tests.servers.pair"]

#: Tests that share what takes long to start: one test worker runs all of a line, in this order and before all others.
SHARING = (
    ("tests/operate/test_up.py", "tests/chaos/test_whole_engine.py"),
    ("tests/operate/test_keys.py",),
    ("tests/servers/",),
    ("tests/pages/",),
    ("tests/reports/test_guide.py", "tests/operate/test_readme.py"),
    ("tests/clients/test_frontend.py",),
    ("tests/api/test_round_trips.py",),
    ("tests/telemetry/",),
    tuple(f"tests/replay/test_replay.py::test_{name}" for name in ("everything_in_the_data", "no_code_address")),
)
_SERVERS = pytest.StashKey[list["subprocess.Popen[bytes]"]]()
_DIRECTORY = pytest.StashKey[Path]()
_DATABASES = pytest.StashKey[str]()
_STARTER = pytest.StashKey["subprocess.Popen[bytes]"]()


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out one test at a time, but the tests that share something as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        line, _ = _place(nodeid)
        return str(line) if line < len(SHARING) else nodeid


def _place(nodeid: str) -> tuple[int, int]:
    """Return the line of SHARING that a test is in, and the place in it; after the last line for all others."""
    for line, paths in enumerate(SHARING):
        for place, path in enumerate(paths):
            if nodeid.startswith(path):
                return line, place
    return len(SHARING), 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that nobody waits for it at the end."""
    items.sort(key=lambda item: _place(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage from here on, but not among what has been imported and collected."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Return how many test workers `-n auto` means: one more than there are cores, because many tests wait."""
    return min(os.cpu_count() or 1, 8) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Say how tests are handed out to the test workers."""
    config.option.loadscopereorder = False
    return _Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once, before the test workers, which inherit the environment."""
    if hasattr(config, "workerinput"):
        return
    config.stash[_SERVERS] = []
    data = DataDirectory(Path(tempfile.mkdtemp(prefix="flash-test-")))
    config.stash[_DIRECTORY] = data.path
    data.create()
    if FORKS:
        os.environ[ADDRESS] = str(data.path / "starts")
        config.stash[_STARTER] = _start_starter(data)
    if config.option.basetemp is None:
        # Not in the folder of all runs, which each run of root's closes to the user that PostgreSQL runs as.
        config.option.basetemp = data.path / "pytest"
    os.environ["FLASH_MASTER_KEYS"] = new_master_key("tests")
    os.environ["FLASH_DATA"] = str(data.path)
    os.environ["FLASH_TEST_STATEMENTS"] = str(data.path / "statements")
    (data.path / "statements").mkdir()
    # Nobody is to wait for the end of the many processes that tests start; those that try it say so.
    os.environ["FLASH_DRAIN_SECONDS"] = "0"
    # A process plans its large statements on each connection anew; beside other tests that alone may take seconds.
    for patience in ("OPERATION", "STATEMENT"):
        os.environ[f"FLASH_{patience}_SECONDS_MAX"] = "30"
    os.environ["FLASH_DATABASE_TIMEOUT_SECONDS"] = "30"
    # Every shop of a test is small, so its reports are true of what just happened, however busy the machine is.
    os.environ["FLASH_REPORT_AT_ONCE_SECONDS_MAX"] = "30"
    # All tests come from one address.
    os.environ["FLASH_FAILED_AUTHENTICATIONS_MAX"] = "1000000"
    # Where the tests receive webhooks; everything else that isn't public is as closed as anywhere.
    os.environ["FLASH_WEBHOOK_NETWORKS"] = "127.0.0.1/32"
    if "REDIS_URL" not in os.environ:
        config.stash[_SERVERS].append(_start(data.valkey_command()))
        os.environ["REDIS_URL"] = data.redis_url
    if "DATABASE_URL" not in os.environ:
        command = data.postgres_command()
        # Nothing outlives the run, so nothing needs to survive a crash.
        careless = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal")
        chosen = (*careless, "max_wal_senders=0", "max_connections=400")
        command.arguments.extend(word for each in chosen for word in ("-c", each))
        config.stash[_SERVERS].append(_start(command))
        os.environ["DATABASE_URL"] = data.database_url
    template = f"flash_test_{os.getpid()}"
    config.stash[_DATABASES] = template
    os.environ["FLASH_TEST_TEMPLATE"] = template
    asyncio.run(_make_template(template))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started, and drop what was created on servers that stay."""
    if hasattr(config, "workerinput") or _DATABASES not in config.stash:
        return
    if not config.stash[_SERVERS]:
        asyncio.run(_drop_databases(config.stash[_DATABASES]))
    if _STARTER in config.stash:
        config.stash[_STARTER].communicate(timeout=20)
    for process in config.stash[_SERVERS]:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    shutil.rmtree(config.stash[_DIRECTORY], ignore_errors=True)


def _start(command: Command) -> "subprocess.Popen[bytes]":
    log = command.log.open("ab")
    return subprocess.Popen(command.arguments, stdout=log, stderr=log, user=command.uid, group=command.uid)


def _start_starter(data: DataDirectory) -> "subprocess.Popen[bytes]":
    with (data.logs / "starts.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.starts", os.environ[ADDRESS]],
            cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=log, stderr=log,
        )  # fmt: skip


def database_url(name: str) -> str:
    """Return the URL of another database on the same server."""
    parts = urlsplit(dsn(os.environ["DATABASE_URL"]))
    return urlunsplit(parts._replace(path=f"/{name}"))


async def _make_template(name: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            await create_database(os.environ["DATABASE_URL"], name)
            break
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
    await migrate(database_url(name))


async def _drop_databases(prefix: str) -> None:
    connection = await asyncpg.connect(dsn(os.environ["DATABASE_URL"]), database="postgres")
    try:
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()


@dataclass
class Api:
    """A running API process of this test worker."""

    url: str
    process: Process
    log: Path


@pytest.fixture(scope="session")
def worker_database(worker_id: str) -> str:
    """The URL of this worker's own database, cloned from the migrated template."""
    name = f"{os.environ['FLASH_TEST_TEMPLATE']}_{worker_id}"
    asyncio.run(_clone(os.environ["FLASH_TEST_TEMPLATE"], name))
    return database_url(name)


async def _clone(template: str, name: str) -> None:
    connection = await asyncpg.connect(dsn(os.environ["DATABASE_URL"]), database="postgres")
    try:
        # Two workers can't clone one template at the same instant.
        await connection.execute("SELECT pg_advisory_lock(7015226002)")
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()


@contextlib.contextmanager
def run_api(database: str, port: int = 0, /, **environment: str) -> Iterator[Api]:
    """Run one API process on a database until the block ends, at a free port unless told."""
    listening = bind("127.0.0.1", port)
    log = Path(os.environ["FLASH_DATA"]) / "logs" / f"api-{os.getpid()}-{time.monotonic_ns()}.log"
    with log.open("ab") as output:
        variables = os.environ | {"DATABASE_URL": database} | environment
        process = start("api", environment=variables, output=output, errors=output, listening=listening)
    port = listening.getsockname()[1]
    listening.close()
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, log)
        yield Api(url, process, log)
    except Exception as error:
        error.add_note(f"The API's status: {process.poll()}. The end of its log:\n{log.read_text()[-4_000:]}")
        raise
    finally:
        process.terminate()
        process.wait(timeout=20)


def own_valkey(number: int) -> str:
    """Return the URL of a database of the run's Valkey that no other test's worker looks into."""
    url = os.environ["REDIS_URL"]
    return f"{url}{'&' if '?' in url else '?'}db={number}"


@contextlib.contextmanager
def run_worker(redis_url: str, log: Path | None = None, /, **environment: str) -> Iterator[Process]:
    """Run one worker process on this test worker's database until the block ends."""
    log = log or Path(os.environ["FLASH_DATA"]) / "logs" / f"worker-{os.getpid()}-{time.monotonic_ns()}.log"
    with log.open("ab") as output:
        variables = os.environ | {"REDIS_URL": redis_url} | environment
        process = start("worker", environment=variables, output=output, errors=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(url: str, process: Process, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", verify=False, timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the API doesn't get ready: {log.read_text()}")


@pytest.fixture(scope="session")
def api(worker_database: str) -> Iterator[Api]:
    """The API process that most tests talk to."""
    with run_api(worker_database) as running:
        yield running


@pytest.fixture(scope="session")
def second_api(worker_database: str) -> Iterator[Api]:
    """Another API process on the same database."""
    with run_api(worker_database) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database_pool(worker_database: str) -> AsyncIterator[Settings]:
    """This process's own pool on the worker's database, for looking and for breaking things."""
    os.environ["DATABASE_URL"] = worker_database
    settings.cache_clear()
    # The promises are counted again and again, and the longest statement is 27 kB.
    asyncpg.create_pool = functools.partial(asyncpg.create_pool, max_cacheable_statement_size=1 << 16)
    async with connected(settings()):
        yield settings()


@pytest_asyncio.fixture(loop_scope="session")
async def shop(api: Api, database_pool: Settings) -> AsyncIterator[Shop]:
    """A merchant of its own, with an ADMIN key: tests don't see each other's rows."""
    async with open_shop(f"{api.url}/graphql") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def other_shop(api: Api, database_pool: Settings) -> AsyncIterator[Shop]:
    """Another merchant."""
    async with open_shop(f"{api.url}/graphql") as opened:
        yield opened
