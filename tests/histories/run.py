"""A run: a whole engine in trouble, small worlds on it whose histories are judged, and a table of what happened."""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import asyncpg

from app import ids
from app.operate.embedded import DataDirectory
from app.storage.database import dsn
from app.stress.campaigning import CampaignWorld
from app.stress.clients import Client, Fault, Http, Socket, Unanswered
from app.stress.operations import History
from app.stress.worlds import About, Bring, Terms, World, play
from tests.chaos.test_whole_engine import named, signalled
from tests.factories import usd
from tests.histories import meetings, streams, trouble
from tests.histories.clock import Clock
from tests.histories.judging import ILLEGAL, OK, UNKNOWN, Case, Judge, counterexample, timeline
from tests.histories.moving import Operator
from tests.histories.network import Network
from tests.histories.phones import play_followed
from tests.histories.provoked import ERRANDS, Errands, document, held_cart, wanted
from tests.operate.processes import Up, flash, up

#: Worlds at a time beside one of campaigns, and clients in each: the first over a WebSocket, the others over HTTP.
WORLDS_AT_ONCE: Final = 3
CLIENTS_EACH: Final = 3
#: What the worlds of each slot are about, one after the other.
ABOUT: Final = (
    (About.ANYTHING, About.HOLDS, About.HOLDS, About.PEOPLE), (About.ANYTHING, About.AIMS, About.TERMS),
    (About.PEOPLE, About.PEOPLE, About.PEOPLE, About.ANYTHING),
)  # fmt: skip
ERRAND_TRIES: Final = 8
#: How much longer than it was told, and as long again, a run waits for what hasn't happened yet.
LONGER_SECONDS: Final = 60.0
REPORT: Final = "{ answer: integrityReport { status checks { name violations } } }"
LOCK_WALLET: Final = "SELECT FROM wallet WHERE member_id = $1 FOR UPDATE"
LOCK_CODE: Final = "SELECT FROM code WHERE id = $1 FOR UPDATE"
#: What must have happened beside refusals and replays.
CIRCUMSTANCES: Final = frozenset({
    "claimCode: served by a fallback", "a deadlock: tried again", "a WebSocket: connected again", "the answer was lost",
    "a client crashed", "timed out", "unavailable", *trouble.KINDS,
    "holdCheckout: took over", "holdCheckout: a delayed repeat changed nothing",
    "redeemCodes: BUDGET_SPENT", "redeemCodes: NOT_FIRST_ORDER", "cancelJob: CANCELLED",
    "createCampaign: its job is done",
    "redeemCodes: HELD", "amendOrder: HELD", "captureHold: late",
    "captureHold: it was released", "captureHold: what it held is gone", "captureHold: rewards were had",
    "captureHold: killed before its answer", "captureHold: told again after its answer was lost",
    *meetings.WANTED,
})  # fmt: skip
#: So that what waits for a frozen database gives up before its clients do, and errands are few.
SETTINGS: Final = {
    "FLASH_OPERATION_SECONDS_MAX": "4", "FLASH_DATABASE_TIMEOUT_SECONDS": "3", "FLASH_WEBHOOKS_MAX": "2",
    "FLASH_WEBHOOK_NETWORKS": "127.0.0.1/32", "FLASH_DRAIN_SECONDS": "0",
}  # fmt: skip
#: What the merchant of the worlds has set.
TERMS: Final = Terms("USD", "1.0", quota=4, referral=(2, 1))
PROGRAM: Final[dict[str, Any]] = {
    "referrerPoints": TERMS.referral[0], "refereePoints": TERMS.referral[1],
    "invitesPerBatch": 1000, "invitesPerDay": 100_000, "invitesLifetime": TERMS.quota, "inviteLifetimeDays": 30,
    "convertsOn": "JOIN",
}  # fmt: skip


@dataclass
class Found:
    """What a run has found so far."""

    happened: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def missing(self) -> list[str]:
        """Return what must happen at least once and didn't."""
        return sorted(name for name in wanted() | CIRCUMSTANCES if not self.happened[name])


class Run:
    """A run on a running engine, through a network."""

    def __init__(
        self, seed: int, engine: Up, network: Network, judge: Judge, database: str, written: TextIO | None, bring: Bring
    ) -> None:
        self._seed = seed
        self._bring = bring
        self._clock = Clock(database)
        self._database = database
        self._engine = engine
        self._network = network
        self._judge = judge
        self._written = written
        self._judging = asyncio.Lock()
        self._url = f"http://127.0.0.1:{network.port}/graphql"
        self._over = asyncio.Event()
        self.found = Found()

    async def go(
        self, seconds: float, key: str, errands_key: str, errands_key_id: str,
        new_merchant: Callable[[str], Awaitable[str]],
    ) -> None:  # fmt: skip
        """Record and judge for so long, and as much longer as the errands take."""
        patient = Client("setup", Http(self._url, key))
        other = Client("errands", Http(self._url, errands_key))
        await patient.patiently(document("configureMerchant", ""), {"pointsPerUnit": 1.0})
        await patient.patiently(document("configureReferralProgram", ""), PROGRAM)
        review = {**PROGRAM, "invitesLifetime": 1_000_000, "reviewPolicy": "ALL"}
        await other.patiently(document("configureReferralProgram", ""), review)
        errands = Errands(other, self._as_member, errands_key_id, f"e{self._seed}")
        why_not = streams.missing()
        if why_not is not None:
            print(f"!!!! Wallets are NOT followed by JavaScript clients: {why_not}. !!!!")
        async with contextlib.AsyncExitStack() as stack:
            followed = []
            if why_not is None:
                name = f"f{self._seed}"
                followed = await stack.enter_async_context(streams.followers(self._url, key, patient, name))
                changes = streams.change(patient, followed, random.Random(self._seed), self._over, name)
                self._start(stack, changes)
            worlds = [self._start(stack, self._worlds(slot, key)) for slot in range(WORLDS_AT_ONCE)]
            worlds.append(self._start(stack, self._campaigns(new_merchant)))
            plan = self._start(stack, self._trouble())
            waited = [
                self._start(stack, work)
                for work in (self._errands(errands), self._deadlock(other), self._killed_capture(other))
            ]
            await asyncio.sleep(seconds)
            await asyncio.gather(*waited)
            await self._until_all_happened(seconds + LONGER_SECONDS)
            self._over.set()
            await asyncio.gather(*worlds, plan)
            if followed:
                self.found.wrong += await streams.all_told(patient, followed)
                self.found.outcomes["versions told"] += sum(len(follower.versions) for follower in followed)
        for client in (patient, other):
            await self._check_integrity(client)
            await client.close()

    async def _until_all_happened(self, seconds_max: float) -> None:
        """Go on for a while, if what worlds choose at random hasn't all been chosen."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds_max
        while loop.time() < until:
            if not self.found.missing():
                return
            await asyncio.sleep(0.5)

    @staticmethod
    def _start(stack: contextlib.AsyncExitStack, work: Any) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        stack.callback(task.cancel)
        return task

    def _as_member(self, token: str) -> Client:
        return Client("member", Http(self._url, token))

    async def _campaigns(self, new_merchant: Callable[[str], Awaitable[str]]) -> None:
        """Play worlds of campaigns, one after the other, each at a merchant of its own."""
        rolls = random.Random(f"{self._seed}/campaigns")
        for number in itertools.count(1):
            if self._over.is_set():
                break
            try:
                key = await new_merchant(f"Campaigns {number}")
            except (ValueError, subprocess.TimeoutExpired):
                # The database is away at this moment.
                await asyncio.sleep(0.5)
                continue
            clients = [Client(f"client c.{each} (HTTP)", Http(self._url, key)) for each in range(1, CLIENTS_EACH + 1)]
            world = CampaignWorld(f"c{self._seed}-{number}", TERMS, rolls)
            if await self._played(world, play(world, clients)):
                await self._check_integrity(clients[0])
            for client in clients:
                await client.close()

    async def _worlds(self, slot: int, key: str) -> None:
        """Play one world after the other."""
        rolls = random.Random(f"{self._seed}/{slot}")
        socket, opened = Socket(self._url, key), 1
        clients = [Client(f"client {slot + 1}.1 (WebSocket)", socket)]
        clients += [
            Client(f"client {slot + 1}.{number} (HTTP)", Http(self._url, key)) for number in range(2, CLIENTS_EACH + 1)
        ]
        for number in itertools.count(1):
            if self._over.is_set():
                break
            about = ABOUT[slot][number % len(ABOUT[slot])]
            world = World(f"h{self._seed}-{slot + 1}-{number}", TERMS, rolls, self._clock.lapse, about, self._bring)
            is_followed = about is About.PEOPLE
            playing = play_followed(world, clients, self._url) if is_followed else play(world, clients)
            if await self._played(world, playing):
                self.found.happened["a WebSocket: connected again"] += max(socket.opened - opened, 0)
                opened = max(socket.opened, 1)
        for client in clients:
            await client.close()

    async def _played(self, world: World, playing: Awaitable[object]) -> bool:
        """Have a world played, and judge it. Returns whether it could be made."""
        try:
            await playing
        except (Fault, Unanswered) as failed:
            self.found.wrong.append(f"{world.name} couldn't be made: {failed}")
            return False
        self._count(world)
        await self._judged(world.history)
        return True

    def _count(self, world: World) -> None:
        self.found.happened += world.counts
        self.found.happened += meetings.of(world.history)
        self.found.outcomes += Counter(each.outcome for each in world.history.operations if each.client != "time")
        self.found.wrong += world.faults
        if self._written is not None:
            world.history.write(self._written)

    async def _judged(self, history: History) -> None:
        async with self._judging:
            verdict = await asyncio.to_thread(self._judge.verdict, Case(history, history.operations))
            self.found.verdicts[verdict] += 1
            if verdict == UNKNOWN:
                print(f"{history.name} took too long to judge", flush=True)
            if verdict == ILLEGAL:
                shown = timeline(await asyncio.to_thread(counterexample, self._judge, history))
                print(shown, flush=True)
                self.found.wrong.append(shown.partition("\n")[0])

    async def _trouble(self) -> None:
        for each in trouble.plan(self._seed):
            if self._over.is_set():
                return
            await trouble.make(each, self._engine, self._network)
            self.found.happened[each.kind] += 1

    async def _errands(self, errands: Errands) -> None:
        """Run each errand until its outcome was seen, in an order that the seed repeats."""
        for errand in random.Random(self._seed).sample(ERRANDS, k=len(ERRANDS)):
            for _ in range(ERRAND_TRIES):
                try:
                    seen = await errand.run(errands)
                except (Fault, Unanswered, LookupError, TypeError) as failed:
                    print(f"the errand {errand.name} failed with {failed!r}", flush=True)
                    continue
                if seen:
                    self.found.happened[errand.name] += 1
                    break

    async def _deadlock(self, client: Client) -> None:
        """Lock a wallet, let a redemption that has its code wait for it, and want the code: PostgreSQL ends it."""
        errands = Errands(client, self._as_member, "", f"d{self._seed}")
        await self._until_so("a deadlock: tried again", lambda: self._deadlocked(errands, self._database))

    async def _killed_capture(self, client: Client) -> None:
        """Lock a wallet, let a capture wait for it in PostgreSQL, and kill whoever waits for its answer."""
        errands = Errands(client, self._as_member, "", f"k{self._seed}")
        await self._until_so("captureHold: killed before its answer", lambda: self._captured_unheard(errands))

    async def _until_so(self, name: str, attempt: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(ERRAND_TRIES):
            # A server that is killed at this very moment confuses the driver, too.
            with contextlib.suppress(
                OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
            ):
                async with asyncio.timeout(30):
                    if await attempt():
                        self.found.happened[name] += 1
                        return

    async def _captured_unheard(self, errands: Errands) -> bool:
        cart, hold = await held_cart(errands)
        connection = await asyncpg.connect(dsn(self._database), timeout=3)
        capture = asyncio.create_task(errands.do("captureHold", "... on CaptureHoldSuccess { replayed }", holdId=hold))
        try:
            async with connection.transaction():
                await connection.execute(LOCK_WALLET, ids.decode("member", cart["memberId"]))
                await _eventually(connection, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
                killed = await asyncio.to_thread(named, self._engine, "api")
                await asyncio.to_thread(signalled, killed, signal.SIGKILL, with_children=True)
            # PostgreSQL goes on with it all the same; whoever asked asks again.
            return bool((await capture).get("replayed"))
        finally:
            capture.cancel()
            connection.terminate()

    @staticmethod
    async def _deadlocked(errands: Errands, database: str) -> bool:
        member, pool = await errands.member(), await errands.pool()
        claim: dict[str, Any] = {"poolId": pool, "memberId": member, "idempotencyKey": errands.word()}
        code = (await errands.do("claimCode", "... on ClaimCodeSuccess { code { id text } }", **claim))["code"]
        order: dict[str, Any] = {"codes": [code["text"]], "orderId": errands.word(), "orderAmount": usd(100)}
        connection = await asyncpg.connect(dsn(database), timeout=3)
        try:
            before = await connection.fetchval("SELECT sum(deadlocks) FROM pg_stat_database")
            more = f"SELECT sum(deadlocks) > {before} FROM pg_stat_database"
            async with connection.transaction():
                # So that the other one is ended.
                await connection.execute("SET LOCAL deadlock_timeout = '60s'")
                await connection.execute(LOCK_WALLET, ids.decode("member", member))
                redeeming = asyncio.create_task(errands.do("redeemCodes", memberId=member, **order))
                await _eventually(connection, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
                await connection.execute(LOCK_CODE, ids.decode("code", code["id"]))
            answer = await redeeming
            # The process that met it tells of it a moment later.
            return await _eventually(connection, more) and answer["__typename"] == "RedeemCodesSuccess"
        finally:
            connection.terminate()

    async def _check_integrity(self, client: Client) -> None:
        report: dict[str, Any] = {"status": "RUNNING"}
        while report["status"] == "RUNNING":
            # On a busy machine it takes longer than a request may: then the worker makes it.
            report = await client.patiently(REPORT, {}, is_query=True)
            await asyncio.sleep(0.2)
        if report["status"] != "DONE":
            self.found.wrong.append("the promises couldn't be recomputed")
        self.found.wrong += [
            f"the promise {check['name']} is broken {check['violations']} times"
            for check in report["checks"] if check["violations"]
        ]  # fmt: skip


async def _eventually(connection: asyncpg.Connection, asked: str) -> bool:
    """Whether something is true within ten seconds."""
    for _ in range(500):
        if await connection.fetchval(asked):
            return True
        await asyncio.sleep(0.02)
    return False


async def run(seed: int, seconds: float, judge: Judge, written: TextIO | None = None) -> Found:
    """Start an engine, record and judge for so long, and return what was found."""
    with tempfile.TemporaryDirectory(prefix="flash-histories-", ignore_cleanup_errors=True) as directory:
        data, errors = Path(directory) / "data", Path(directory) / "errors.log"
        with up(data, "--api-processes", "2", "--no-demo", errors=errors, **SETTINGS) as engine:
            worlds, errands = [await asyncio.to_thread(_merchant, name, data) for name in ("Worlds", "Errands")]
            database = DataDirectory(data).database_url
            key_id = await _first_key(database, errands["merchantId"])
            port = int(engine.url.rpartition(":")[2])
            async with Network(port).running() as network:
                bring = Operator(worlds["merchantId"], data).bring
                going = Run(seed, engine, network, judge, database, written, bring)
                await going.go(seconds, worlds["apiKey"], errands["apiKey"], key_id, partial(_key_of_new, data))
    return going.found


def _merchant(name: str, data: Path) -> dict[str, str]:
    made = flash("merchant", "create", "--name", name, "--currency", "USD", "--json", "--data", str(data))
    answer: dict[str, str] = json.loads(made.stdout)
    return answer


async def _key_of_new(data: Path, name: str) -> str:
    return (await asyncio.to_thread(_merchant, name, data))["apiKey"]


async def _first_key(database: str, merchant: str) -> str:
    connection = await asyncpg.connect(dsn(database))
    try:
        merchant_id = ids.decode("merchant", merchant)
        return ids.encode(
            "apikey", await connection.fetchval("SELECT id FROM api_key WHERE merchant_id = $1", merchant_id)
        )
    finally:
        await connection.close()


def tell(seed: int, begun: float, found: Found) -> bool:
    """Print what a run has found, and return whether all is well."""
    outcomes = found.outcomes
    operations = outcomes["ok"] + outcomes["refused"] + outcomes["unknown"]
    print(f"seed {seed}, {time.monotonic() - begun:.0f} s")
    print(
        f"{operations:,} operations: {outcomes['ok']:,} done, {outcomes['refused']:,} refused, {outcomes['unknown']:,} "
        f"unanswered; {outcomes['versions told']:,} wallet versions told"
    )
    print(f"{sum(found.happened[kind] for kind in trouble.KINDS)} troubles")
    print("histories: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items())))
    print("\nhow often           what")
    for name in sorted(wanted() | CIRCUMSTANCES | found.happened.keys()):
        print(f"{found.happened[name]:>9,}           {name}")
    missing = found.missing()
    for name in missing:
        print(f"NEVER HAPPENED: {name}")
    for each in found.wrong:
        print(f"WRONG: {each}")
    well = not missing and not found.wrong and found.verdicts[OK] > 0
    print("Every history is explained, and everything happened." if well else "Not well.")
    return well
