"""Two PostgreSQL servers with names of their own, started when a test first asks for them.

Only the tests in this folder do: one test worker runs all of them, so that the servers start once in a run.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from app.operate.embedded import DataDirectory
from app.storage.database import dsn
from tests.starts import run

NAMES = ("north", "south")
#: Made on each server when it first starts; `fresh` clones it.
MIGRATED = "flash"
#: What is committed outlives the server's crash, though not the machine's. Fit for logical replication.
SETTINGS = ("fsync=off", "full_page_writes=off", "wal_level=logical", "shared_buffers=48MB", "jit=off")
WAIT_SECONDS_MAX = 60.0


class Server:
    """A server, named by `cluster_name`, that can be killed and started again."""

    def __init__(self, name: str, folder: Path, *settings: str) -> None:
        """Take where its files are to be, and settings beside those of all."""
        self.name = name
        self._settings = settings
        self._directory = DataDirectory(folder / name)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = MIGRATED) -> str:
        """Return the URL of a database on this server."""
        return self._directory.database_url.replace("/flash?", f"/{database}?")

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._directory.create()
        command = self._directory.postgres_command()
        for setting in (*SETTINGS, *self._settings, f"cluster_name={self.name}"):
            command.arguments.extend(["-c", setting])
        with command.log.open("ab") as log:
            self._process = subprocess.Popen(
                command.arguments, stdout=log, stderr=log, user=command.uid, group=command.uid
            )
        with ThreadPoolExecutor() as threads:
            # In a loop of its own: the caller's may be running.
            threads.submit(asyncio.run, _wait_until_it_answers(self.url("postgres"))).result()

    def migrate(self) -> None:
        """Make the database that others are cloned from."""
        asyncio.run(_execute(self, f"CREATE DATABASE {MIGRATED}"))
        migrated = run("migrate", environment=os.environ | {"DATABASE_URL": self.url()})
        assert migrated.returncode == 0, migrated

    @property
    def pid(self) -> int:
        """The process that started its others. Raises RuntimeError unless it runs."""
        if self._process is None:
            raise RuntimeError(f"{self.name} doesn't run")
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would: connections are cut and nothing is put in order."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=WAIT_SECONDS_MAX)
            self._process = None


async def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            connection = await asyncpg.connect(dsn(url), timeout=5)
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            await connection.close()
            return


@pytest.fixture(scope="session")
def servers(worker_id: str) -> Iterator[tuple[Server, Server]]:
    """Two servers, each with a migrated database to clone."""
    folder = Path(os.environ["FLASH_DATA"]) / f"servers-{worker_id}"
    pair = tuple(Server(name, folder) for name in NAMES)

    def begin(server: Server) -> None:
        server.start()
        server.migrate()

    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(begin, pair))
        north, south = pair
        yield north, south
    finally:
        for server in pair:
            server.stop()


@asynccontextmanager
async def fresh(*servers: Server) -> AsyncIterator[list[str]]:
    """Return the URLs of new migrated databases, one on each server, of one name; dropped after the block."""
    name = f"flash_{uuid4().hex[:12]}"
    for server in servers:
        await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE {MIGRATED}')
    try:
        yield [server.url(name) for server in servers]
    finally:
        for server in servers:
            await _execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _execute(server: Server, sql: str) -> None:
    connection = await asyncpg.connect(dsn(server.url("postgres")))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
