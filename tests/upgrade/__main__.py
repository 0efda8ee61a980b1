"""`make upgrade FROM=v0.2.0`: an older version serves under load while this one migrates, takes over and hands back.

Prints what it came to. Times are of a machine that does other things at once.
"""

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from app import ids
from app.operate.embedded import DataDirectory
from app.operate.migrate import create_database
from app.storage.crypto import new_master_key
from tests.guides import ROOT
from tests.operate.processes import environment
from tests.scale_out.engine import free_port, logged, wait_until_ready
from tests.servers.pair import Server
from tests.upgrade.load import Load
from tests.wire import Wire

API_PROCESSES: Final = 2
#: What holds a lock on a table while the migrations begin, as a report does.
REPORT_SECONDS: Final = 5.0
APPLIED: Final = "SELECT name FROM tortoise_migrations ORDER BY name"


class Version:
    """The engine of one commit, and how its commands are run."""

    def __init__(self, name: str, root: Path, python: Path) -> None:
        """Take the folder of its files, and a Python that has what its lock names."""
        self.name = name
        self._root = root
        self._python = python

    @classmethod
    def older(cls, revision: str, folder: Path) -> "Version":
        """Unpack a commit. It has an environment of its own unless it was locked as this one is."""
        root = folder / "older"
        root.mkdir()
        archive = subprocess.run(["git", "-C", ROOT, "archive", revision], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", root], input=archive, check=True)
        python = Path(sys.executable)
        if (root / "requirements.lock").read_bytes() != (ROOT / "requirements.lock").read_bytes():
            uv, python = str(python.with_name("uv")), folder / "venv" / "bin" / "python"
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", str(python)]
            subprocess.run([*install, "--require-hashes", "-r", str(root / "requirements.lock")], check=True)
            subprocess.run([*install, "--no-deps", "--no-build-isolation", str(root)], check=True)
        return cls(revision, root, python)

    def start(self, *arguments: str, log: Path, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a command, whose output is appended to a log."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [self._python, "-m", "app", *arguments],
                cwd=self._root, env=environment(**variables), stdout=output, stderr=output,
            )  # fmt: skip

    def done(self, *arguments: str, **variables: str) -> str:
        """Run a command that must succeed, and return what it prints."""
        ended = subprocess.run(
            [self._python, "-m", "app", *arguments],
            cwd=self._root, env=environment(**variables), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ended.returncode:
            raise RuntimeError(f"{self.name}: flash {' '.join(arguments)}: {ended.stderr[-2_000:]}")
        return ended.stdout


class Deployment:
    """The processes of one version after the other, on one database."""

    def __init__(self, folder: Path, **variables: str) -> None:
        """Take where logs are to be, and what every process has."""
        self._folder = folder
        self.variables = variables
        #: Those of the API processes that take requests, as a load balancer knows them.
        self.urls: list[str] = []
        self._apis: list[subprocess.Popen[bytes]] = []
        self._workers: list[subprocess.Popen[bytes]] = []

    async def replace(self, version: Version) -> None:
        """Replace the worker, then the API processes, one by one."""
        before = list(zip(self.urls, self._apis, strict=True))
        self._workers.append(version.start("worker", log=self._folder / "worker.log", **self.variables))
        for process in self._workers[:-1]:
            await _end(process)
            self._workers.remove(process)
        for _ in range(API_PROCESSES):
            port = str(free_port())
            process = version.start("api", "--port", port, log=self._folder / f"api-{port}.log", **self.variables)
            self._apis.append(process)
            url = f"http://127.0.0.1:{port}"
            await asyncio.to_thread(wait_until_ready, url)
            self.urls.append(url)
            if before:
                url, process = before.pop(0)
                self.urls.remove(url)
                await _end(process)
                self._apis.remove(process)

    def stop(self) -> None:
        """End what runs."""
        for process in (*self._apis, *self._workers):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


async def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 60)


@contextmanager
def _servers(folder: Path) -> Iterator[dict[str, str]]:
    """Run PostgreSQL and Valkey. Yields what configures a process."""
    postgres, valkey = Server("upgrade", folder), DataDirectory(folder / "valkey")
    valkey.create()
    command = valkey.valkey_command()
    with command.log.open("ab") as log, subprocess.Popen(command.arguments, stdout=log, stderr=log) as process:
        try:
            postgres.start()
            asyncio.run(create_database(postgres.url(), "flash"))
            yield {
                "DATABASE_URL": postgres.url(),
                "REDIS_URL": valkey.redis_url,
                "FLASH_MASTER_KEYS": new_master_key("upgrade"),
                "FLASH_DATA": str(folder / "data"),
            }
        finally:
            postgres.stop()
            process.send_signal(command.stop_signal)


async def _report(url: str) -> None:
    """Read for long, as a report does."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("SELECT FROM claim LIMIT 1; SELECT FROM member LIMIT 1")
            await asyncio.sleep(REPORT_SECONDS)
    finally:
        await connection.close()


async def _play(older: Version, newer: Version, deployment: Deployment, seconds: float, clients: int) -> list[str]:
    """Return what isn't as promised."""
    variables = deployment.variables
    older.done("migrate", **variables)
    made = json.loads(older.done("merchant", "create", "--name", "Shop", "--currency", "USD", "--json", **variables))
    merchant_id: UUID = ids.decode("merchant", made["merchantId"])  # type: ignore[assignment]
    await deployment.replace(older)
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(aclosing(Wire()))
        load, ends = Load(wire, deployment.urls, merchant_id, made["apiKey"], pause_seconds=0.02), asyncio.Event()
        running = asyncio.create_task(load.run(clients, ends, codes=20_000))

        async def watch(what: str) -> None:
            before = load.requests
            load.seconds_max = 0.0
            await asyncio.sleep(seconds)
            print(f"{what}: {load.requests - before:,} requests, {load.seconds_max * 1000:.0f} ms at most", flush=True)

        # The codes are made first.
        await load.more(20, running)
        await watch(f"{older.name} serves")
        reading, began, before = (
            asyncio.create_task(_report(variables["DATABASE_URL"])),
            time.monotonic(),
            load.requests,
        )
        load.seconds_max = 0.0
        await asyncio.to_thread(newer.done, "migrate", **variables)
        print(
            f"this version migrates, {time.monotonic() - began:.1f} s beside a report of {REPORT_SECONDS:.0f} s: "
            f"{load.requests - before:,} requests, {load.seconds_max * 1000:.0f} ms at most",
            flush=True,
        )
        await reading
        await watch(f"{older.name} serves on the new schema")
        await deployment.replace(newer)
        await watch("this version serves")
        await deployment.replace(older)
        await watch(f"{older.name} is back")
        await deployment.replace(newer)
        await watch("this version serves again")
        ends.set()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
    lost = await load.lost(variables["DATABASE_URL"])
    audited = await asyncio.to_thread(newer.done, "audit", **variables)
    print(f"{load.requests:,} requests, {len(load.failures)} failed, {sum(load.told.values()):,} told of success")
    print(audited.strip().splitlines()[-1])
    failed = [str(ended)] if ended is not None else []
    return [
        *failed,
        *map(str, load.failures),
        *(f"{name}: {kept} kept, {told} told" for name, (kept, told) in lost.items()),
    ]


async def _migrations(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["name"] for row in await connection.fetch(APPLIED)]
    finally:
        await connection.close()


def main() -> int:
    """Run it all. Returns 1 when something isn't as promised."""
    options = argparse.ArgumentParser(prog="python -m tests.upgrade", description=__doc__)
    options.add_argument("revision", help="the version before: a tag or another commit")
    options.add_argument("--seconds", type=float, default=5.0, help="how long each stage is watched")
    options.add_argument("--clients", type=int, default=4, help="how many members ask at once")
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="flash-upgrade-"))
    # PostgreSQL may run as another user.
    folder.chmod(0o755)
    try:
        older, newer = Version.older(asked.revision, folder), Version("this", ROOT, Path(sys.executable))
        with _servers(folder) as variables:
            deployment = Deployment(folder, **variables)
            try:
                wrong = asyncio.run(_play(older, newer, deployment, asked.seconds, asked.clients))
                print(f"migrations: {', '.join(asyncio.run(_migrations(variables['DATABASE_URL'])))}")
            finally:
                deployment.stop()
    except Exception:
        print(logged(folder), file=sys.stderr)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for each in wrong:
        print(f"FAIL  {each}")
    print("FAIL" if wrong else "ok    no request failed, nothing is lost")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
