"""Live wallets under kills. Without this a subscriber that resumes could miss a version, or get one twice.

Each trouble comes once. `make chaos` and `make full` go on for longer: FLASH_CHAOS_SECONDS, FLASH_CHAOS_MEMBERS and
FLASH_CHAOS_RATE (changes per second) say how long, how many and how fast; FLASH_CHAOS_SEED repeats the order of events.
"""

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import websockets

from app import ids
from app.config import Settings
from app.coupons.claims import Claimant, claim
from app.operate.embedded import DataDirectory
from app.operate.listening import bind
from app.storage.database import database
from app.storage.rings import ringing
from app.web.authentication import authenticate
from tests.factories import Shop
from tests.sizes import size
from tests.starts import start
from tests.wallets.sockets import Socket, joined
from tests.wallets.valkeys import Valkey

SECONDS = float(os.environ.get("FLASH_CHAOS_SECONDS", size("0", "30")))
MEMBERS = int(os.environ.get("FLASH_CHAOS_MEMBERS", "20"))
RATE = float(os.environ.get("FLASH_CHAOS_RATE", "20"))
SEED = int(os.environ.get("FLASH_CHAOS_SEED", "0")) or secrets.randbits(32)
CATCH_UP_SECONDS = 60.0
TROUBLES = ("kill api", "kill valkey", "freeze valkey", "drop")

VERSIONS = "SELECT member_id, version FROM wallet WHERE merchant_id = $1"


class KilledApi:
    """An API process that is killed and started again behind one listening socket."""

    def __init__(self, database_url: str, redis_url: str, log: Path) -> None:
        """Start it."""
        self._listening = bind("127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._listening.getsockname()[1]}/graphql"
        self._environment = os.environ | {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        self.log = log
        self.start()

    def start(self) -> None:
        """Start it again."""
        with self.log.open("ab") as log:
            self._process = start(
                "api", environment=self._environment, output=log, errors=log, listening=self._listening
            )  # fmt: skip

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """Return the end of its log."""
        return self.log.read_text()[-4_000:]

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._listening.close()


class Follower:
    """A member's client: it resumes after the last version that it has, whatever happens to it."""

    def __init__(self, url: str, token: str) -> None:
        """Take the member's token."""
        self._url = url
        self._token = token
        self.versions: list[int] = []
        self.socket: Socket | None = None
        self.resumed = 0
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with joined(self._url, self._token) as self.socket:
                    await self.socket.follow(len(self.versions))
                    self.resumed += 1
                    while True:
                        self.versions.append((await self.socket.change())["version"])
                        self._arrived.set()
            except (websockets.WebSocketException, OSError, TimeoutError, EOFError):
                await asyncio.sleep(0.05)

    async def until(self, version: int) -> None:
        """Wait until so many versions have come."""
        while len(self.versions) < version:
            self._arrived.clear()
            await self._arrived.wait()

    def drop(self) -> None:
        """Lose the connection."""
        if self.socket is not None:
            self.socket.connection.transport.abort()


async def test_every_version_arrives_once_and_in_order_whatever_is_killed(
    shop: Shop, worker_database: str, database_pool: Settings
) -> None:
    print(f"seed {SEED}: FLASH_CHAOS_SEED={SEED} repeats this")
    rolls = random.Random(SEED)
    members = [await shop.member() for _ in range(MEMBERS)]
    pools = await _pools(shop)
    with tempfile.TemporaryDirectory(prefix="flash-chaos-", ignore_cleanup_errors=True) as directory:
        valkey = Valkey(DataDirectory(Path(directory)))
        api = KilledApi(worker_database, valkey.data.redis_url, Path(directory) / "api.log")
        followers = [Follower(api.url, await shop.token(member["id"])) for member in members]
        following = [asyncio.create_task(follower.run()) for follower in followers]
        try:
            async with ringing(valkey.data.redis_url):
                over = asyncio.Event()
                changing = asyncio.create_task(_change(shop, random.Random(rolls.random()), members, pools, over))
                await _trouble(rolls, api, valkey, followers)
                over.set()
                await changing
                for follower in followers:
                    follower.drop()
                await _caught_up(shop, members, followers, api)
        finally:
            for task in following:
                task.cancel()
            outcomes = await asyncio.gather(*following, return_exceptions=True)
            api.close()
            valkey.send(signal.SIGCONT)
            valkey.kill()

    assert [each for each in outcomes if not isinstance(each, asyncio.CancelledError)] == []
    versions = await _versions(shop)
    for member, follower in zip(members, followers, strict=True):
        assert follower.versions == list(range(1, versions[member["id"]] + 1))
    assert sum(versions.values()) > 0
    # How often depends on how fast the machine is; that it happened is what makes this a test.
    assert sum(follower.resumed for follower in followers) > 0


async def _pools(shop: Shop) -> list[Any]:
    """Return pools with a code for every change, whoever gets it."""
    pools = []
    for _ in range(2 + int(SECONDS * RATE / 4500)):
        pool = await shop.pool(codes=size(1000, 5000), claimsPerMember=1000, active=False)
        pools.append(pool)
        await shop.data(
            "mutation ($id: ID!) { activatePool(input: { poolId: $id }) { __typename } }", {"id": pool["id"]}
        )
    return pools


async def _change(shop: Shop, rolls: random.Random, members: list[Any], pools: list[Any], over: asyncio.Event) -> None:
    """Claim for random members at the rate, in this process, as an API process that isn't killed would."""
    viewer = await authenticate(f"Bearer {shop.admin}")
    assert viewer is not None
    claims = set()
    for number in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
        member_id = ids.decode("member", rolls.choice(members)["id"])
        pool_id = ids.decode("pool", pools[number % len(pools)]["id"])
        assert member_id is not None
        assert pool_id is not None
        key = f"chaos-{number}".encode()
        claims.add(asyncio.create_task(claim(database(), viewer, pool_id, Claimant(member_id), key)))
        await asyncio.sleep(1 / RATE)
    assert all(claimed is not None for claimed in await asyncio.gather(*claims))


async def _trouble(rolls: random.Random, api: KilledApi, valkey: Valkey, followers: list[Follower]) -> None:
    """Do one bad thing after the other: each once, then any for as long as it is told."""
    until = time.monotonic() + SECONDS
    first = rolls.sample(TROUBLES, k=len(TROUBLES))
    while first or time.monotonic() < until:
        match first.pop() if first else rolls.choice([*TROUBLES, "drop", "drop"]):
            case "kill api":
                api.kill()
                api.start()
                await asyncio.sleep(rolls.uniform(*size((0.5, 1), (1, 4))))
            case "kill valkey":
                valkey.kill()
                await asyncio.sleep(rolls.uniform(0, 1))
                valkey.start()
            case "freeze valkey":
                valkey.send(signal.SIGSTOP)
                await asyncio.sleep(rolls.uniform(*size((0.5, 1), (0, 3))))
                valkey.send(signal.SIGCONT)
            case _:
                for follower in rolls.sample(followers, k=max(1, len(followers) // 4)):
                    follower.drop()
        await asyncio.sleep(rolls.uniform(0, 0.5))


async def _caught_up(shop: Shop, members: list[Any], followers: list[Follower], api: KilledApi) -> None:
    versions = await _versions(shop)
    wanted = [versions[member["id"]] for member in members]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CATCH_UP_SECONDS):
            for follower, version in zip(followers, wanted, strict=True):
                await follower.until(version)
    late = [
        f"{len(follower.versions)} of {version} after resuming {follower.resumed} times"
        for follower, version in zip(followers, wanted, strict=True)
        if len(follower.versions) < version
    ]
    assert late == [], api.said()


async def _versions(shop: Shop) -> dict[str, int]:
    rows = await database().rows(VERSIONS, shop.merchant_id)
    return {ids.encode("member", row["member_id"]): row["version"] for row in rows}
