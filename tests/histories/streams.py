"""Wallets followed under trouble by the clients that others use: each version must come exactly once, and in order."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from app.stress.clients import Client
from app.stress.points import GRANT
from app.stress.races import ENROL
from tests.clients.test_clients import HERE, MODULES, NODE
from tests.factories import ISSUE_MEMBER_TOKEN

CLIENTS: Final = ("graphql-ws", "apollo")
FOLLOWERS_EACH: Final = 2
CATCH_UP_SECONDS: Final = 90.0
CHANGE_SECONDS: Final = 0.15
TOKEN_SECONDS: Final = 30

WALLET: Final = "query ($id: ID!) { answer: member(id: $id) { wallet { version } } }"


def missing() -> str | None:
    """Return why these clients can't run here, None if they can."""
    if NODE is None:
        return "there is no Node"
    return None if MODULES.is_dir() else "run `npm ci --prefix tests/clients`"


@dataclass
class Follower:
    """A member's client in a process of its own, and the versions that it was told."""

    name: str
    member: str
    versions: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def at(self) -> int:
        """The last version that it was told, -1 before the first."""
        return self.versions[-1] if self.versions else -1

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        """Read what it prints until it ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            self.versions.append(json.loads(line)["version"])
        self.ended = True

    def wrong(self, version: int) -> str | None:
        """Return what is wrong with what it was told of a wallet that is at a version now; None if nothing is."""
        begun = self.versions[0] if self.versions else None
        expected = [] if begun is None else list(range(begun, version + 1))
        if begun is not None and self.versions == expected:
            return None
        place = next((n for n, (a, b) in enumerate(zip(self.versions, expected, strict=False)) if a != b), None)
        near = self.versions[max(0, (place or len(self.versions)) - 3) :][:8]
        dead = ", and it ended" if self.ended else ""
        return f"{self.name}: told of {len(self.versions)} versions of {version}{dead}, around {near}"


@asynccontextmanager
async def followers(url: str, key: str, client: Client, name: str) -> AsyncIterator[list[Follower]]:
    """Run each kind of client for members of its own. Each has read its wallet when the block begins."""
    async with AsyncExitStack() as stack:
        found = []
        for kind, number in itertools.product(CLIENTS, range(FOLLOWERS_EACH)):
            made = await client.patiently(ENROL, {"externalId": f"{name}-{kind}-{number}", "source": "IMPORT"})
            member = (made.get("member") or made["existing"])["id"]
            follower = Follower(f"{kind} {number + 1}", member)
            await stack.enter_async_context(_running(follower, kind, url, key))
            found.append(follower)
        await until(lambda: all(follower.versions for follower in found))
        yield found


@asynccontextmanager
async def _running(follower: Follower, kind: str, url: str, key: str) -> AsyncIterator[None]:
    asked = {"memberId": follower.member, "lifetimeSeconds": TOKEN_SECONDS}
    issue = {"query": ISSUE_MEMBER_TOKEN, "variables": {"input": asked}}
    told = {"name": kind, "url": url, "shop": url, "key": key, "issue": issue}
    process = await asyncio.create_subprocess_exec(
        NODE or "", str(HERE / "drive.mjs"), json.dumps(told), stdout=asyncio.subprocess.PIPE
    )
    listening = asyncio.create_task(follower.listen(process))
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def change(client: Client, found: list[Follower], rolls: random.Random, over: asyncio.Event, name: str) -> None:
    """Change one wallet after the other until it is over."""
    for number in itertools.count():
        if over.is_set():
            return
        grant = {
            "memberId": rolls.choice(found).member,
            "amount": 1,
            "reference": "r",
            "idempotencyKey": f"{name}-{number}",
        }
        await client.patiently(GRANT, grant)
        await asyncio.sleep(CHANGE_SECONDS)


async def all_told(client: Client, found: list[Follower]) -> list[str]:
    """Wait until everybody was told of the last version, and return what is wrong."""
    versions = [await _version(client, follower.member) for follower in found]
    await until(lambda: all(each.at >= last for each, last in zip(found, versions, strict=True)))
    wrong = [follower.wrong(version) for follower, version in zip(found, versions, strict=True)]
    return [each for each in wrong if each is not None]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, but not for ever: whoever asks looks again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CATCH_UP_SECONDS
    while not holds():
        if loop.time() > deadline:
            return
        await asyncio.sleep(0.05)


async def _version(client: Client, member: str) -> int:
    answer: dict[str, Any] = await client.patiently(WALLET, {"id": member}, is_query=True)
    return int(answer["wallet"]["version"])
