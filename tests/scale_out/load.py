"""Claims by clients of several merchants at once, and what they were told, when."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from tests.factories import CHANGE_STATUS, CREATE_POOL, ENROLL_MEMBER, GENERATE_CODES
from tests.scale_out.engine import Merchant
from tests.wire import Wire

CLAIM = """
mutation ($pool: ID!, $member: ID!, $key: String!) {
  answer: claimCode(input: {poolId: $pool, memberId: $member, idempotencyKey: $key}) {
    __typename ... on ClaimCodeSuccess { code { id } } ... on Refusal { message }
  }
}
"""
BATCH = 5_000
TRIES = 10
OK = "ok"


@dataclass(slots=True)
class Shop:
    """A merchant with members who claim, and the ids of the codes that clients were told of."""

    merchant: Merchant
    place: int
    pool: str = ""
    members: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    turns: Iterator[int] = field(default_factory=count)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to: `ok`, a code of an error, or the name of what the client itself met."""

    shop: Shop
    at: float
    seconds: float
    outcome: str


async def ask(wire: Wire, url: str, key: str, document: str, **variables: Any) -> Any:
    """Return the answer to a mutation that must succeed, now or when it is tried again."""
    for _ in range(TRIES):
        answer = await wire.post(f"{url}/graphql", {"query": document, "variables": variables}, f"Bearer {key}")
        if "errors" not in answer:
            return answer["data"]["answer"]
        if _outcome(answer) != "UNAVAILABLE":
            break
        await asyncio.sleep(1)
    raise RuntimeError(str(answer))


async def fill(wire: Wire, url: str, shop: Shop, members: int, claims: int) -> None:
    """Give a shop members, and a pool for so many claims."""
    key = shop.merchant.key
    for _ in range(members):
        made = await ask(wire, url, key, ENROLL_MEMBER, input={"source": "STORE"})
        shop.members.append(made["member"]["id"])
    terms = {"name": "Sale", "kind": "PERCENT", "percentOff": 10.0, "claimsPerMember": claims // members}
    made = await ask(wire, url, key, CREATE_POOL, input=terms)
    shop.pool = made["pool"]["id"]
    for _ in range(0, claims, BATCH):
        await ask(wire, url, key, GENERATE_CODES, input={"poolId": shop.pool, "count": BATCH})
    await ask(wire, url, key, CHANGE_STATUS % "activatePool", input={"poolId": shop.pool})


class Load:
    """Clients that claim, each as soon as it is answered, or at a pace."""

    def __init__(self, wire: Wire, urls: list[str]) -> None:
        """Take the addresses of the API processes."""
        self._wire = wire
        self._urls = urls
        self.answers: list[Answer] = []

    async def claim(self, shop: Shop, url: str) -> Answer:
        """Claim for the shop's next member."""
        turn = next(shop.turns)
        named = {"pool": shop.pool, "member": shop.members[turn % len(shop.members)], "key": str(turn)}
        asked = {"query": CLAIM, "variables": named}
        begun = time.monotonic()
        try:
            answer = await self._wire.post(f"{url}/graphql", asked, f"Bearer {shop.merchant.key}")
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            outcome = type(error).__name__
        else:
            outcome = _outcome(answer)
            if outcome == OK:
                shop.told.add(answer["data"]["answer"]["code"]["id"])
        told = Answer(shop, begun, time.monotonic() - begun, outcome)
        self.answers.append(told)
        return told

    @asynccontextmanager
    async def clients(self, shops: list[Shop], each: int) -> AsyncIterator[None]:
        """Let so many clients of each shop claim until the block ends. One that got an error waits a moment."""
        tasks = [
            asyncio.create_task(self._client(shop, self._urls[number % len(self._urls)]))
            for shop in shops
            for number in range(each)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, shop: Shop, url: str) -> None:
        while True:
            if (await self.claim(shop, url)).outcome != OK:
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def paced(self, shop: Shop, per_second: float) -> AsyncIterator[None]:
        """Let so many claims a second begin until the block ends, however long each takes. Waits for the last ones."""
        tasks: set[asyncio.Task[Answer]] = set()

        async def begin() -> None:
            begun = time.monotonic()
            for number in count():
                await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))
                task = asyncio.create_task(self.claim(shop, self._urls[number % len(self._urls)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        beginning = asyncio.create_task(begin())
        try:
            yield
        finally:
            beginning.cancel()
            await asyncio.gather(beginning, *tasks, return_exceptions=True)


def _outcome(answer: Any) -> str:
    if "errors" in answer:
        return str(answer["errors"][0]["extensions"].get("code"))
    kind = answer["data"]["answer"]["__typename"]
    return OK if kind == "ClaimCodeSuccess" else str(kind)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server's merchants saw in a span of time."""

    per_second: float
    median_ms: float
    p99_ms: float
    longest_ms: float
    outcomes: Counter[str]

    def __str__(self) -> str:
        """The cells of a table."""
        errors = ", ".join(f"{number} {name}" for name, number in self.outcomes.items() if name != OK) or "none"
        return f"{self.per_second:.0f} | {self.median_ms:.0f} | {self.p99_ms:.0f} | {self.longest_ms:.0f} | {errors}"


def figures(answers: list[Answer], place: int, begun: float, ended: float) -> Figures:
    """Return the figures of a server's merchants: of what was asked in a span of time."""
    within = [each for each in answers if each.shop.place == place and begun <= each.at < ended]
    outcomes = Counter(each.outcome for each in within)
    seconds = sorted(each.seconds * 1000 for each in within) or [0.0]
    return Figures(
        outcomes[OK] / (ended - begun),
        seconds[len(seconds) // 2],
        seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))],
        seconds[-1],
        outcomes,
    )
