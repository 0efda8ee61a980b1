"""`flash up`: starts the servers, the migrations, the API and the worker, and keeps them running.

Imports take most of a start. So the API processes are spawned first, before this process has imported more than the
standard library, and this process does its checks without the ORM.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.errors import ConfigurationError
from app.operate.children import Child
from app.operate.embedded import Command, DataDirectory
from app.operate.listening import address_of, ask, bind

READY_SECONDS_MAX: Final = 60.0
#: A child that ends this often before everything was ready will never run. A server may first have to wait for what a
#: killed one left behind.
EARLY_ENDS_MAX: Final = 3
EARLY_SECONDS_MIN: Final = 3.0
_DEMO_SECRETS: Final = {
    "ADMIN": "admin", "CHECKOUT": "checkout", "SUPPORT": "support", "ANALYST": "analyst", "MEMBER": "member_token"
}  # fmt: skip
_FLASH: Final = (sys.executable, "-m", "app")

LOG_IN: Final = """
mutation ($memberId: ID!) {
  answer: issueMemberToken(input: {memberId: $memberId, lifetimeSeconds: 86400}) {
    ... on IssueMemberTokenSuccess { token }
  }
}
"""


@dataclass(frozen=True)
class Plan:
    """What to run, and how to report it."""

    host: str
    port: int
    api_processes: int
    demo: bool
    as_json: bool


def supervise(plan: Plan) -> int:
    """Run everything until SIGINT or SIGTERM. Returns the exit status."""
    return asyncio.run(_Supervisor(plan).run())


class _Supervisor:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._data = DataDirectory(Path(os.environ.get("FLASH_DATA") or ".flash"))
        self._counts = contextlib.ExitStack()
        self._embeds_postgres = not os.environ.get("DATABASE_URL")
        self._embeds_valkey = not os.environ.get("REDIS_URL")
        self._children: list[Child] = []
        self._servers: list[Child] = []
        self._logs: Path | None = self._data.logs if self._embeds_postgres or self._embeds_valkey else None
        self._begun = time.monotonic()
        self._ready = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failed: asyncio.Future[None]

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._on_signal)
        listening = bind(self._plan.host, self._plan.port)
        starting = asyncio.create_task(self._start(listening))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            watched: set[asyncio.Future[Any]] = {starting, stopping, self._failed}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            if starting.done():
                self._announce(listening, starting.result())
                await stopping
            self._tell("stopping")
        finally:
            starting.cancel()
            await asyncio.wait({starting})
            listening.close()
            await asyncio.gather(*(child.stop(self._hurry) for child in self._children if child not in self._servers))
            # The servers stop last, and may always finish writing.
            await asyncio.gather(*(child.stop(asyncio.Event()) for child in self._servers))
            self._counts.close()
        return 0

    def _on_signal(self) -> None:
        """Stop everything in order; at a second signal, without waiting for requests and jobs."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _start(self, listening: socket.socket) -> dict[str, str] | None:
        """Start everything. Returns the demo merchant, if there is one."""
        self._configure()
        if self._plan.api_processes > 1:
            # The processes share an address. Whichever answers /metrics adds up what all of them count in here.
            counts = self._counts.enter_context(tempfile.TemporaryDirectory(prefix="flash-metrics-"))
            os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", counts)
        self._tell(f"starting {self._plan.api_processes} API process(es)")
        for number in range(1, self._plan.api_processes + 1):
            await self._keep(f"api-{number}", "api", "--fd", str(listening.fileno()), inherits=(listening.fileno(),))
        if self._embeds_valkey:
            self._tell("starting Valkey")
            await self._serve(await asyncio.to_thread(self._data.valkey_command))
        if self._embeds_postgres:
            self._tell("starting PostgreSQL")
            await self._serve(await asyncio.to_thread(self._data.postgres_command))
        await self._prepare()
        self._tell("starting a worker")
        await self._keep("worker", "worker")
        if self._plan.demo and not self._data.demo.exists():
            await self._make_demo()
        await self._wait_until_ready(listening)
        demo = await self._demo(listening) if self._plan.demo else None
        if demo is not None:
            self._write_shell(listening, demo)
        self._ready = True
        return demo

    def _configure(self) -> None:
        """Lock the data directory if it is needed, and set the environment of the children."""
        configured = os.environ.get("FLASH_MASTER_KEYS") or os.environ.get("FLASH_MASTER_KEYS_FILE")
        production = os.environ.get("FLASH_ENV") == "production"
        if production and not configured:
            self._validate()
        if self._logs or self._plan.demo or not configured:
            self._data.lock()
        os.environ["FLASH_DATA"] = str(self._data.path)
        if not configured and not self._data.master_keys.exists():
            self._validate()
        if not configured:
            # The file, not its content: `flash keys rotate` changes it, and the children read it again.
            os.environ["FLASH_MASTER_KEYS_FILE"] = str(self._data.master_keys)
        if self._embeds_valkey:
            os.environ["REDIS_URL"] = self._data.redis_url
        if self._embeds_postgres:
            os.environ["DATABASE_URL"] = self._data.database_url

    def _validate(self) -> None:
        """Read the settings, and make a master key where that is allowed. Raises ConfigurationError."""
        from app.config import settings  # noqa: PLC0415
        from app.operate.running import ensure_master_keys  # noqa: PLC0415

        # This process has changed the environment since.
        settings.cache_clear()
        ensure_master_keys(self._data)

    async def _prepare(self) -> None:
        """Check the configuration, wait for the servers, and migrate the database."""
        self._validate()
        from app.operate.preflight import check_database, check_redis, missing_migrations, reach  # noqa: PLC0415
        from app.operate.running import wait_for_postgres  # noqa: PLC0415

        if not self._embeds_valkey:
            await check_redis(os.environ["REDIS_URL"])
        if self._embeds_postgres:
            await wait_for_postgres(self._data)
        connection = await reach(os.environ["DATABASE_URL"])
        missing = await missing_migrations(connection)
        await connection.close()
        if missing:
            self._tell("bringing the database up to date")
            await self._run("migrate", "The migrations failed")
        await check_database()

    async def _make_demo(self) -> None:
        self._tell("making a demo merchant")
        await self._run("demo", "The demo merchant can't be made (--no-demo goes without)")

    async def _demo(self, listening: socket.socket) -> dict[str, str]:
        """Return the demo merchant, with a fresh token for its member from the API."""
        demo = await self._demo_with_token(listening)
        if demo is None:
            # The demo was made in another database.
            await self._make_demo()
            demo = await self._demo_with_token(listening)
        if demo is None:
            raise ConfigurationError(
                f"The API refuses the demo merchant's keys; delete {self._data.demo}, or use --no-demo."
            )
        return demo

    def _write_shell(self, listening: socket.socket, demo: dict[str, str]) -> None:
        """Write the demo as shell assignments, so that examples can be pasted."""
        assignments = {label: demo[name] for label, name in _DEMO_SECRETS.items()}
        assignments |= {"POOL": demo["pool_id"], "MEMBER_ID": demo["member_id"], "MERCHANT": demo["merchant_id"]}
        assignments |= {"URL": f"http://{address_of(listening)}/graphql"}
        shell = "".join(f"{name}={value}\n" for name, value in assignments.items())
        self._data.write_secret(self._data.demo_shell, shell)

    async def _demo_with_token(self, listening: socket.socket) -> dict[str, str] | None:
        try:
            demo: dict[str, str] = json.loads(self._data.demo.read_text())
            body = json.dumps({"query": LOG_IN, "variables": {"memberId": demo["member_id"]}})
            _, answer = await ask(listening, "/graphql", body=body.encode(), key=demo["admin"], within_seconds=10)
            return demo | {"member_token": json.loads(answer)["data"]["answer"]["token"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    async def _serve(self, command: Command) -> None:
        child = Child(command.name, command.arguments, command.stop_signal, command.uid, command.log)
        self._servers.append(child)
        self._children.append(child)
        await child.start(self._tell, self._on_end)

    async def _keep(self, name: str, *arguments: str, inherits: tuple[int, ...] = ()) -> None:
        child = self._flash(name, *arguments, inherits=inherits)
        await child.start(self._tell, self._on_end)

    async def _run(self, command: str, failure: str) -> None:
        """Run a `flash` command to its end."""
        child = self._flash(command, command)
        if await child.run_once():
            raise ConfigurationError(f"{failure}{_why(child)}")

    def _flash(self, name: str, *arguments: str, inherits: tuple[int, ...] = ()) -> Child:
        log = self._data.open_log(name) if self._logs else None
        child = Child(name, [*_FLASH, *arguments], log=log, inherits=inherits)
        self._children.append(child)
        return child

    def _on_end(self, child: Child, times: int, ending: str) -> None:
        """Give up on a child that keeps ending before everything was ready."""
        hopeless = times >= EARLY_ENDS_MAX and time.monotonic() - self._begun > EARLY_SECONDS_MIN
        if hopeless and not self._ready and not self._failed.done():
            self._failed.set_exception(
                ConfigurationError(f"{child.name} ended {times} times before it was ready ({ending}){_why(child)}")
            )

    async def _wait_until_ready(self, listening: socket.socket) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while (await ask(listening, "/readyz"))[0] != 200:
            if time.monotonic() > deadline:
                where = f"; see its log, {self._logs / 'api-1.log'}" if self._logs else ""
                raise ConfigurationError(f"The API isn't ready after {READY_SECONDS_MAX:.0f} s{where}.")
            await asyncio.sleep(0.02)

    def _tell(self, sentence: str) -> None:
        print(f"flash: {sentence}", file=sys.stderr, flush=True)

    def _announce(self, listening: socket.socket, demo: dict[str, str] | None) -> None:
        address = address_of(listening)
        url = f"http://{address}/graphql"
        if self._plan.as_json:
            facts: dict[str, Any] = {
                "url": url,
                "pid": os.getpid(),
                "data": str(self._data.path),
                "processes": {
                    c.name: c.process.pid for c in self._children if c.process and c.process.returncode is None
                },
                "demo": demo,
            }
            print(json.dumps(facts), flush=True)
            return
        print(f"\nFlash is ready after {time.monotonic() - self._begun:.1f} s.\n\n  GraphQL   {url}")
        print(f"  Health    http://{address}/readyz\n  Data      {self._data.path}")
        if demo:
            print("\nThe demo merchant's keys; send one as `Authorization: Bearer …`:\n")
            for label, name in _DEMO_SECRETS.items():
                print(f"  {label:<9} {demo[name]}")
            print(f"\n  pool      {demo['pool_id']}   (active, to claim from)\n  member    {demo['member_id']}")
            print(f"\nGraphiQL: {url}#key={demo['admin']}")
            print(f"The portfolio and the advisor: http://{address}/portfolio#key={demo['admin']}")
            print(f"The member's wallet, live, for a day: http://{address}/wallet#token={demo['member_token']}")
        print("\nCtrl-C stops everything.", flush=True)


def _why(child: Child) -> str:
    """Return the end of a sentence: the last line of the child's log, and where the log is."""
    said = child.last_line().removeprefix("flash: ").rstrip(".")
    return f": {said}; see its log, {child.log}." if child.log else "; see its output above."
