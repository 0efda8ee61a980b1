"""`make scale-out PGDOG=path/to/pgdog`: does what docs/scaling.md says of many servers, and prints what it came to.

Times are compared within the run; on a machine that does other things at once, trust ratios and counts.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from statistics import median

import asyncpg
import httpx

from app import ids
from tests.scale_out.engine import FLASH, Engine, cpu_seconds, free_port, logged, wait_until_ready
from tests.scale_out.load import OK, Load, Shop, figures, fill
from tests.servers.pair import NAMES
from tests.wire import Wire

SKIPPED = "Many servers are NOT tried behind a real router: name PgDog by PGDOG=path/to/pgdog"
API_PROCESSES = 2
CLIENTS = 4
CLAIMS = 25_000
MEMBERS = 50
TURNS = 4
CLAIMS_OF_A_TURN = 500
MOVED_PER_SECOND = 200.0
MOVES_MAX = 5
NORTH, SOUTH = range(2)
WAIT_SECONDS_MAX = 60.0
TOLD = "SELECT count(*) FROM code WHERE merchant_id = $1 AND id = ANY($2) AND state = 'ALLOCATED'"


class WrongError(Exception):
    """Something isn't as promised."""


def right(is_so: bool, what: str) -> None:
    """Say what is so, and end the run if it isn't."""
    print(f"{'ok  ' if is_so else 'FAIL'}  {what}", flush=True)
    if not is_so:
        raise WrongError(what)


def main() -> int:
    """Run it all. Returns 1 when something isn't as promised."""
    options = argparse.ArgumentParser(prog="python -m tests.scale_out", description=__doc__)
    options.add_argument("pgdog", nargs="?", default="", help="the router's program")
    options.add_argument("--seconds", type=float, default=10.0, help="how long each trouble is watched")
    options.add_argument("--members", type=int, default=200, help="of the races of `flash stress`")
    asked = options.parse_args()
    if not asked.pgdog:
        print(f"!!!! {SKIPPED}. !!!!", file=sys.stderr)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="flash-scale-"))
    engine = Engine(Path(asked.pgdog).absolute(), folder)
    try:
        with engine.running():
            _Story(engine, asked.seconds, asked.members).play()
    except Exception:
        print(f"{logged(folder)}\nAll of it is in {folder}.", file=sys.stderr)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return 0


class _Story:
    def __init__(self, engine: Engine, seconds: float, members: int) -> None:
        self._engine = engine
        self._seconds = seconds
        self._members = members
        self._urls: list[str] = []
        self._apis: list[subprocess.Popen[bytes]] = []
        self._shops: list[Shop] = []

    def play(self) -> None:
        self._refused()
        self._populate()
        self._doctor()
        self._stress()
        asyncio.run(self._cost())
        asyncio.run(self._trouble())
        asyncio.run(self._router_killed())
        asyncio.run(self._move())
        self._doctor()
        for number, name in enumerate(NAMES):
            audited = self._engine.flash("audit", **self._engine.at(number))
            if audited.returncode:
                print(audited.stdout + audited.stderr)
            right(audited.returncode == 0, f"audit at {name}: {len(audited.stdout.splitlines())} merchants")

    def _refused(self) -> None:
        """What isn't strict is refused before it serves."""
        lax = self._engine.lax_router()
        lax.start()
        refused = self._engine.flash("api", "--port", "0", **self._engine.at_router() | {"DATABASE_URL": lax.url})
        lax.kill()
        right("The router isn't strict." in refused.stderr, f"an API process is refused: {refused.stderr.strip()}")

    def _populate(self) -> None:
        """Make merchants, and then more of them, which are on the second server."""
        engine = self._engine
        for number, name in enumerate(NAMES):
            engine.keep(f"worker-{name}", "worker", **engine.at(number))
        made = [engine.make_merchant() for _ in range(2)]
        engine.router.later = ids.new()
        asyncio.run(engine.router.reload())
        made += [engine.make_merchant() for _ in range(2)]
        self._shops = [Shop(merchant, number // 2) for number, merchant in enumerate(made)]
        listed = [engine.done("merchant", "list", "--json", **engine.at(number)) for number in range(2)]
        found = [[each["merchantId"] for each in json.loads(line)] for line in listed]
        placed = [[shop.merchant.id for shop in self._shops if shop.place == number] for number in range(2)]
        right(found == placed, "merchants are made where the range of their time leads")
        for number in range(API_PROCESSES):
            port = free_port()
            self._apis.append(engine.keep(f"api-{number}", "api", "--port", str(port), **engine.at_router()))
            self._urls.append(f"http://127.0.0.1:{port}")
        for url in self._urls:
            wait_until_ready(url)
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        async with aclosing(Wire(60)) as wire:
            for shop in self._shops:
                await fill(wire, self._urls[0], shop, MEMBERS, CLAIMS)

    def _doctor(self) -> None:
        looked = self._engine.flash("doctor", **self._engine.at_router())
        print(looked.stdout)
        right(looked.returncode == 0, "doctor at the router finds nothing wrong")

    def _stress(self) -> None:
        """Races and histories at a merchant of each server."""
        for shop in (self._shops[0], self._shops[-1]):
            history = self._engine.folder / f"history-{shop.place}"
            addresses = [f"{url}/graphql" for url in self._urls]
            options = ["--key", shop.merchant.key, "--yes", "--members", str(self._members), "--history", str(history)]
            raced = self._engine.flash("stress", *addresses, *options, **self._engine.shared())
            if raced.returncode:
                print(raced.stdout + raced.stderr)
            right(raced.returncode == 0, f"flash stress at {NAMES[shop.place]}")
            judging = [sys.executable, "-m", "tests.histories", "--judge", str(history)]
            judged = subprocess.run(judging, capture_output=True, text=True, check=False)
            lines = judged.stdout.splitlines()
            told = f"{len(lines)} histories judged" if lines else judged.stderr.strip()
            if judged.returncode:
                print(judged.stdout)
            right(judged.returncode == 0, f"{NAMES[shop.place]}: {told}")

    async def _cost(self) -> None:
        """CPU of an API process for a claim, with and without the router, in turns."""
        shop, engine = self._shops[0], self._engine
        port = free_port()
        without = {"DATABASE_URL": engine.servers[NORTH].url()}
        # Of a Valkey of its own: it would be refused where workers of many servers are known.
        direct = engine.keep("api-direct", "api", "--port", str(port), **engine.shared(valkey=1) | without)
        wait_until_ready(f"http://127.0.0.1:{port}")
        spent: dict[str, list[float]] = {"with": [], "without": [], "router": []}
        async with aclosing(Wire(60)) as wire:
            load = Load(wire, [])
            ways = [("with", self._apis[0], self._urls[0]), ("without", direct, f"http://127.0.0.1:{port}")]
            for turn in range(1 + TURNS):
                for name, process, url in ways if turn % 2 else reversed(ways):
                    before, routed = cpu_seconds(process), engine.router.cpu_seconds()
                    await _claim_all(load, shop, url)
                    # The first turn warms both up.
                    if turn:
                        spent[name].append((cpu_seconds(process) - before) / CLAIMS_OF_A_TURN * 1000)
                    if turn and name == "with":
                        spent["router"].append((engine.router.cpu_seconds() - routed) / CLAIMS_OF_A_TURN * 1000)
        direct.terminate()
        direct.wait()
        ratio = median(one / other for one, other in zip(spent["with"], spent["without"], strict=True))
        print(f"\nCPU a claim: API {median(spent['with']):.2f} ms behind the router, {median(spent['without']):.2f} ms "
              f"without, ratio {ratio:.2f} (goal ≤ 1.05); router {median(spent['router']):.2f} ms. "
              f"{TURNS} turns of {CLAIMS_OF_A_TURN}, load {os.getloadavg()[0]:.0f}.\n")  # fmt: skip

    async def _trouble(self) -> None:
        """One server dead, and then frozen, under the load of all."""
        south = self._engine.servers[SOUTH]
        async with AsyncExitStack() as stack:
            wire = await stack.enter_async_context(aclosing(Wire(30)))
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=10))
            load = Load(wire, self._urls)
            spans: dict[str, tuple[float, float]] = {}

            async def watch(name: str, readies: tuple[int, str]) -> None:
                begun = time.monotonic()
                await asyncio.sleep(self._seconds)
                spans[name] = (begun, time.monotonic())
                deadline = time.monotonic() + WAIT_SECONDS_MAX
                while (said := await readiness()) != readies and time.monotonic() < deadline:  # noqa: ASYNC110
                    # A machine that is busy may be slow to say so.
                    await asyncio.sleep(0.1)
                right(said == readies, f"{name}: /readyz says {said}")

            async def readiness() -> tuple[int, str]:
                ready = await http.get(f"{self._urls[0]}/readyz")
                return ready.status_code, ready.json().get("servers", {}).get(NAMES[SOUTH], "")

            async with load.clients(self._shops, CLIENTS):
                await asyncio.sleep(2)
                await watch("before", (200, "ok"))
                await asyncio.to_thread(south.kill_hard)
                await watch("dead", (200, "away"))
                await asyncio.to_thread(south.start)
                await self._until_served(load, SOUTH)
                await watch("back", (200, "ok"))
                south.freeze()
                await watch("frozen", (200, "away"))
                south.thaw()
                await self._until_served(load, SOUTH)
                await watch("thawed", (200, "ok"))
        print("\n| south is | of | claims/s | median ms | p99 ms | longest ms | errors |")
        print("|---|---|---:|---:|---:|---:|---|")
        for name, span in spans.items():
            for place in range(2):
                print(f"| {name} | {NAMES[place]} | {figures(load.answers, place, *span)} |")
        print()
        before = figures(load.answers, NORTH, *spans["before"])
        for name in ("dead", "frozen"):
            others = figures(load.answers, NORTH, *spans[name])
            share, slower = others.per_second / before.per_second, others.p99_ms / before.p99_ms
            right(set(others.outcomes) == {OK}, f"{name}: merchants of north see no error")
            right(share >= 0.9, f"{name}: they make {share:.2f} of the claims of before (goal ≥ 0.9)")
            right(slower <= 2, f"{name}: their p99 is {slower:.2f} of before (goal ≤ 2)")
            # The first second is what it takes to notice.
            own = figures(load.answers, SOUTH, spans[name][0] + 1, spans[name][1])
            right(set(own.outcomes) == {"UNAVAILABLE"}, f"{name}: merchants of south see {own}")
            right(own.longest_ms <= 1000, f"{name}: within {own.longest_ms:.0f} ms (goal ≤ 1000)")
        await self._kept()

    async def _until_served(self, load: Load, place: int) -> None:
        begun = time.monotonic()

        def served() -> bool:
            return any(
                each.outcome == OK and each.shop.place == place and each.at > begun for each in load.answers[-500:]
            )

        while not served():
            if time.monotonic() - begun > WAIT_SECONDS_MAX:
                raise WrongError(f"{NAMES[place]} is back, and isn't served from")
            await asyncio.sleep(0.02)
        print(f"      {NAMES[place]} serves again after {time.monotonic() - begun:.1f} s")

    async def _router_killed(self) -> None:
        """The router killed under load, and started again."""
        async with aclosing(Wire(30)) as wire:
            load = Load(wire, self._urls)
            async with load.clients(self._shops, CLIENTS):
                await asyncio.sleep(2)
                self._engine.router.kill()
                begun = time.monotonic()
                await asyncio.sleep(3)
                await asyncio.to_thread(self._engine.router.start)
                for place in range(2):
                    await self._until_served(load, place)
                ended = time.monotonic()
                await asyncio.sleep(2)
        for place in range(2):
            during = figures(load.answers, place, begun, ended)
            right(set(during.outcomes) <= {OK, "UNAVAILABLE"}, f"router killed: {NAMES[place]} sees {during}")
        await self._kept()

    async def _kept(self) -> None:
        """Each code that a client was told of is given to somebody."""
        for shop in self._shops:
            connection = await asyncpg.connect(self._engine.servers[shop.place].url())
            told = [ids.decode("code", each) for each in shop.told]
            found = await connection.fetchval(TOLD, shop.merchant.uuid, told)
            await connection.close()
            right(found == len(told), f"{NAMES[shop.place]}: {len(told):,} codes that clients were told of are theirs")

    async def _move(self) -> None:
        """A merchant moves from north to south while it is asked for 200 claims a second."""
        shop, engine = self._shops[1], self._engine
        addresses = ["--from", engine.servers[NORTH].url(), "--to", engine.servers[SOUTH].url()]
        command = [*FLASH, "merchant", "move", shop.merchant.id, *addresses, "--switch", str(engine.router.switch())]
        async with aclosing(Wire(30)) as wire:
            load = Load(wire, self._urls)
            async with load.paced(shop, MOVED_PER_SECOND), load.clients([self._shops[0], self._shops[2]], 1):
                await asyncio.sleep(2)
                begun = time.monotonic()
                for _ in range(MOVES_MAX):
                    moving = await asyncio.create_subprocess_exec(
                        *command, env=engine.shared(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                    )
                    said, _ = await moving.communicate()
                    print(said.decode())
                    # On a busy machine it takes too long, is undone, and goes on.
                    if moving.returncode == 0:
                        break
                ended = time.monotonic()
                await asyncio.sleep(3)
        right(moving.returncode == 0, f"{shop.merchant.id} has moved in {ended - begun:.1f} s")
        shop.place = SOUTH
        during = figures([each for each in load.answers if each.shop is shop], SOUTH, begun, time.monotonic())
        right(set(during.outcomes) == {OK}, f"of {during.outcomes.total():,} requests meanwhile none failed; {during}")
        await self._kept()
        removed = engine.done("merchant", "remove-moved", shop.merchant.id, *addresses, **engine.shared())
        print(f"      {removed.strip()}")


async def _claim_all(load: Load, shop: Shop, url: str) -> None:
    async def client(claims: int) -> None:
        for _ in range(claims):
            told = await load.claim(shop, url)
            if told.outcome != OK:
                raise WrongError(f"a measured claim came to {told.outcome}")

    await asyncio.gather(*(client(CLAIMS_OF_A_TURN // CLIENTS) for _ in range(CLIENTS)))


if __name__ == "__main__":
    sys.exit(main())
