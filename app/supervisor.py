"""`flash up`: starts the servers, the migrations, the API and the worker, and keeps them running."""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from app.config import ConfigurationError, settings
from app.demo import Demo, ensure_demo
from app.embedded import Command, DataDirectory
from app.migrate import migrate
from app.running import adopt, ensure_master_keys, wait_for_postgres

READY_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 10.0
_RESTART_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Plan:
    """What to run and how to tell about it."""

    host: str
    port: int
    api_processes: int
    demo: bool
    as_json: bool


@dataclass
class Child:
    """A process that is started again when it dies, until it is stopped."""

    name: str
    arguments: list[str]
    stop_signal: signal.Signals = signal.SIGTERM
    uid: int | None = None
    log: Path | None = None
    inherits: tuple[int, ...] = ()
    stopping: bool = False
    process: asyncio.subprocess.Process | None = None
    keeper: "asyncio.Task[None] | None" = field(default=None, repr=False)

    async def start(self, tell: Callable[[str], None]) -> None:
        """Start the process, and a task that watches it."""
        await self._spawn()
        self.keeper = asyncio.create_task(self._keep(tell))

    async def _spawn(self) -> None:
        log: IO[bytes] | None = self.log.open("ab") if self.log else None
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.uid,
                group=self.uid,
                pass_fds=self.inherits,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        finally:
            if log is not None:
                log.close()

    async def _keep(self, tell: Callable[[str], None]) -> None:
        """Start the process again whenever it ends by itself, sooner the longer it had run."""
        deaths = 0
        while self.process is not None:
            started = time.monotonic()
            status = await self.process.wait()
            if self.stopping:
                return
            deaths = 1 if time.monotonic() - started > 30 else deaths + 1
            pause = _RESTART_SECONDS[min(deaths, len(_RESTART_SECONDS)) - 1]
            tell(f"{self.name} ended ({_ending(status)}); starting it again in {pause} s")
            await asyncio.sleep(pause)
            if self.stopping:
                return
            await self._spawn()

    async def stop(self) -> None:
        """Ask the process to stop, and make it stop after a while."""
        self.stopping = True
        process = self.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self.keeper is not None:
            self.keeper.cancel()


def _end_with_parent() -> None:
    """In the child: die with the supervisor, even when that is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ending(status: int) -> str:
    return f"exit {status}" if status >= 0 else signal.Signals(-status).name


def supervise(plan: Plan) -> int:
    """Run everything until SIGINT or SIGTERM. Returns the exit status."""
    return asyncio.run(_Supervisor(plan).run())


class _Supervisor:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._data = DataDirectory(settings().data)
        self._children: list[Child] = []
        self._stop = asyncio.Event()
        self._stopping = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._stop.set)
        begun = time.monotonic()
        listening = bind(self._plan.host, self._plan.port)
        try:
            starting = asyncio.create_task(self._start(listening))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return 0
            self._announce(listening, starting.result(), time.monotonic() - begun)
            await stopping
            self._tell("stopping")
        finally:
            await self._end()
            listening.close()
        return 0

    async def _start(self, listening: socket.socket) -> Demo | None:
        embedded = settings().database_url is None or settings().redis_url is None
        if embedded or settings().master_keys is None:
            if settings().production and settings().master_keys is None:
                ensure_master_keys(self._data)
            self._data.lock()
        adopt(FLASH_MASTER_KEYS=ensure_master_keys(self._data))
        postgres = settings().database_url is None
        if settings().redis_url is None:
            self._tell("starting Valkey")
            await self._server(self._data.valkey_command())
            adopt(REDIS_URL=self._data.redis_url)
        if postgres:
            self._tell("starting PostgreSQL")
            await self._server(await asyncio.to_thread(self._data.postgres_command))
            adopt(DATABASE_URL=self._data.database_url)
        logs = self._data.logs if embedded else None
        self._tell(f"starting {self._plan.api_processes} API process(es) and a worker")
        for number in range(1, self._plan.api_processes + 1):
            arguments = [sys.executable, "-m", "app", "api", "--fd", str(listening.fileno())]
            await self._child(f"api-{number}", arguments, logs, inherits=(listening.fileno(),))
        if postgres:
            await wait_for_postgres(self._data)
        self._tell("bringing the database up to date")
        await migrate(settings().database_url or "")
        await self._child("worker", [sys.executable, "-m", "app", "worker"], logs)
        demo = await ensure_demo(self._data) if self._plan.demo and not settings().production else None
        await self._ready(listening)
        return demo

    async def _server(self, command: Command) -> None:
        child = Child(command.name, command.arguments, command.stop_signal, command.uid, command.log)
        self._children.append(child)
        await child.start(self._tell)

    async def _child(self, name: str, arguments: list[str], logs: Path | None, inherits: tuple[int, ...] = ()) -> None:
        log = None if logs is None else logs / f"{name}.log"
        child = Child(name, arguments, log=log, inherits=inherits)
        self._children.append(child)
        await child.start(self._tell)

    async def _ready(self, listening: socket.socket) -> None:
        """Wait until the API answers that it is ready."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not await _says_ready(listening):
            if time.monotonic() > deadline:
                raise ConfigurationError(f"The API doesn't get ready; see the logs in {self._data.logs}.")
            await asyncio.sleep(0.05)

    async def _end(self) -> None:
        """Stop what serves first, then what it is served by."""
        self._stopping = True
        servers = [child for child in self._children if child.name in {"postgres", "valkey"}]
        await asyncio.gather(*(child.stop() for child in self._children if child not in servers))
        await asyncio.gather(*(child.stop() for child in servers))

    def _tell(self, sentence: str) -> None:
        print(f"flash: {sentence}", file=sys.stderr, flush=True)

    def _announce(self, listening: socket.socket, demo: Demo | None, seconds: float) -> None:
        address = _address(listening)
        url = f"http://{address}/graphql"
        if self._plan.as_json:
            facts: dict[str, Any] = {
                "url": url,
                "pid": os.getpid(),
                "data": str(self._data.path),
                "processes": {c.name: c.process.pid for c in self._children if c.process is not None},
                "demo": demo.as_dict() if demo else None,
            }
            print(json.dumps(facts), flush=True)
            return
        print(f"\nFlash is ready after {seconds:.1f} s.\n\n  GraphQL   {url}")
        print(f"  Health    http://{address}/readyz\n  Data      {self._data.path}")
        if demo:
            print("\nThe demo merchant's keys; send one as `Authorization: Bearer …`:\n")
            for label, secret in demo.secrets().items():
                print(f"  {label:<9} {secret}")
            print(f"\n  pool      {demo.pool_id}   (active, to claim from)\n  member    {demo.member_id}")
            print(f"\nTo try it in the browser: {url}#key={demo.admin}")
        print("\nCtrl-C stops everything.", flush=True)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError when the address can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        raise ConfigurationError(
            f"Can't listen on {host}:{port} ({(error.strerror or str(error)).lower()}); "
            "stop what does or choose another with --port."
        ) from None
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not bound)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _says_ready(listening: socket.socket) -> bool:
    """Ask /readyz in plain HTTP."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not bound)
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: flash\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
