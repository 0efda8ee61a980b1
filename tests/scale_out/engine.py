"""Two PostgreSQL servers, PgDog before them, and the processes of an engine, each as an operator starts it."""

import asyncio
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import psutil

from app import ids
from app.operate.embedded import DataDirectory, _postgres_binaries
from app.operate.listening import bind
from app.operate.migrate import create_database
from app.storage.crypto import new_master_key
from tests.guides import blocks
from tests.operate.processes import environment, eventually
from tests.servers.pair import NAMES, Server

FLASH = (sys.executable, "-m", "app")
USERS = """
[admin]
user = "admin"
password = "admin"

[[users]]
name = "postgres"
database = "flash"
password = "postgres"
"""


def free_port() -> int:
    """Return a port that nobody listens at."""
    listening = bind("127.0.0.1", 0)
    port: int = listening.getsockname()[1]
    listening.close()
    return port


class TcpServer(Server):
    """A server that a router reaches."""

    def __init__(self, name: str, folder: Path) -> None:
        """Take where its files are to be."""
        self.port = free_port()
        super().__init__(name, folder, "listen_addresses=127.0.0.1", f"port={self.port}")

    def url(self, database: str = "flash") -> str:
        """Return the URL of a database on this server, over TCP as all the others take it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def kill_hard(self) -> None:
        """Kill all its processes at once."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.kill()

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let them go on."""
        for process in self._processes():
            process.resume()

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children()]


class PgDog:
    """The real router, configured as docs/scaling.md tells, but for its addresses and rules."""

    def __init__(self, binary: Path, folder: Path, servers: tuple[TcpServer, TcpServer], **changes: Any) -> None:
        """Take the program and what is to be other than in the guide."""
        self._binary = binary
        self._folder = folder
        self._servers = servers
        self._changes = changes
        self.port = free_port()
        self.url = f"postgresql://postgres:postgres@127.0.0.1:{self.port}/flash?sslmode=disable"
        #: From which merchant on all are made on the second server.
        self.later: UUID | None = None
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "moved").mkdir(parents=True)

    def write(self) -> None:
        """Write its files."""
        (block,) = blocks("docs/scaling.md", "A router that is strict")
        general = tomllib.loads(block.text)["general"] | {"port": self.port, "host": "127.0.0.1"} | self._changes
        lines = ["[general]", *(f"{name} = {json.dumps(value)}" for name, value in general.items())]
        for number, server in enumerate(self._servers):
            lines += ["[[databases]]", 'name = "flash"', 'host = "127.0.0.1"', f"port = {server.port}"]
            lines += [f"shard = {number}"]
        lines += ["[[sharded_tables]]", 'database = "flash"', 'column = "merchant_id"', 'data_type = "uuid"']
        if self.later is not None:
            lines += ["[[sharded_tables.mapping]]", f'start = "{self.later}"', "shard = 1"]
        lines += ["[[sharded_tables.mapping]]", "shard = 0"]
        text = "\n".join(lines) + "\n"
        (self._folder / "base.toml").write_text(text)
        (self._folder / "pgdog.toml").write_text(text)
        (self._folder / "users.toml").write_text(USERS)

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.write()
        with (self._folder / "pgdog.log").open("ab") as log:
            files = [self._folder / "pgdog.toml", self._folder / "users.toml"]
            arguments = [str(self._binary), "-c", str(files[0]), "-u", str(files[1])]
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        eventually(lambda: asyncio.run(self._answers()))

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        connection.terminate()
        return True

    async def reload(self) -> None:
        """Have it read its rules again."""
        self.write()
        url = f"postgresql://admin:admin@127.0.0.1:{self.port}/admin?sslmode=disable"
        connection = await asyncpg.connect(url, timeout=5)
        try:
            await connection.execute("RELOAD")
        finally:
            connection.terminate()

    def switch(self) -> Path:
        """Return the guide's program that tells it of a merchant that moves."""
        _, block = blocks("docs/scaling.md", "Moving a merchant", "sh")
        program = self._folder / "switch"
        text = block.text.replace("/etc/pgdog", str(self._folder)).replace(":6432/", f":{self.port}/")
        program.write_text(text.replace("psql ", f"{_postgres_binaries() / 'psql'} "))
        program.chmod(0o700)
        return program

    def kill(self) -> None:
        """Kill it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU that it has taken."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@dataclass
class Merchant:
    """A merchant, and what it takes to be it."""

    id: str
    uuid: UUID
    key: str


class Engine:
    """All of it. `at_router` and `at(number)` are what configures processes there."""

    def __init__(self, binary: Path, folder: Path) -> None:
        """Take the router's program, and where all files are to be."""
        self.folder = folder
        self._binary = binary
        self._keys = new_master_key("scale")
        self._valkey = DataDirectory(folder / "valkey")
        self._valkey.create()
        self._children: list[subprocess.Popen[bytes]] = []
        north, south = (TcpServer(name, folder) for name in NAMES)
        self.servers = (north, south)
        self.router = PgDog(binary, folder / "router", self.servers)

    def lax_router(self) -> PgDog:
        """Return a router that isn't strict."""
        return PgDog(self._binary, self.folder / "lax", self.servers, cross_shard_disabled=False)

    def shared(self, valkey: int = 0) -> dict[str, str]:
        """Return what every process has."""
        return environment(
            FLASH_MASTER_KEYS=self._keys,
            REDIS_URL=f"{self._valkey.redis_url}?db={valkey}",
            FLASH_DATA=str(self.folder / "data"),
            FLASH_DRAIN_SECONDS="0",
            FLASH_STATEMENT_SECONDS_MAX="0",
        )

    def at_router(self) -> dict[str, str]:
        """Return what configures a process at the router."""
        return self.shared() | {"DATABASE_URL": self.router.url, "FLASH_ROUTER": "pgdog"}

    def at(self, number: int) -> dict[str, str]:
        """Return what configures a process at a server."""
        server = self.servers[number]
        return self.shared() | {"DATABASE_URL": server.url(), "FLASH_SERVER": server.name}

    def flash(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [*FLASH, *arguments], env=variables, capture_output=True, text=True, check=False, timeout=600
        )

    def done(self, *arguments: str, **variables: str) -> str:
        """Run a command that must succeed, and return what it prints."""
        ended = self.flash(*arguments, **variables)
        if ended.returncode:
            raise RuntimeError(f"flash {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr[-2_000:]}")
        return ended.stdout

    def make_merchant(self) -> Merchant:
        """Make a merchant at the router."""
        made = json.loads(
            self.done("merchant", "create", "--name", "Shop", "--currency", "USD", "--json", **self.at_router())
        )
        merchant_id = ids.decode("merchant", made["merchantId"])
        assert merchant_id is not None
        return Merchant(made["merchantId"], merchant_id, made["apiKey"])

    def keep(self, name: str, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a process that runs until the end, or until it is ended."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([*FLASH, *arguments], env=variables, stdout=log, stderr=log)
        self._children.append(process)
        return process

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the servers, the router and Valkey, until the block ends."""
        try:
            command = self._valkey.valkey_command()
            with command.log.open("ab") as log:
                self._children.append(subprocess.Popen(command.arguments, stdout=log, stderr=log))
            for number, server in enumerate(self.servers):
                server.start()
                asyncio.run(create_database(server.url(), "flash"))
                self.done("migrate", **self.at(number))
            self.router.start()
            yield
        finally:
            for process in reversed(self._children):
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            for process in self._children:
                process.wait(timeout=60)
            if self.router.process is not None:
                self.router.kill()
            for server in self.servers:
                server.stop()


def cpu_seconds(process: "subprocess.Popen[bytes]") -> float:
    """Return the CPU that a process has taken."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def wait_until_ready(url: str) -> None:
    """Wait until an API process is ready."""

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready)


def logged(folder: Path) -> str:
    """Return the ends of all logs, for whoever wonders."""
    return "\n".join(f"== {log.name}\n{log.read_text()[-1_500:]}" for log in sorted(folder.rglob("*.log")))
