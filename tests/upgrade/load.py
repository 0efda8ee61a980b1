"""Members who claim and redeem codes for as long as they are let, and what they were told."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from uuid import UUID

import asyncpg

from tests.factories import CHANGE_STATUS, CLAIM_CODE, CREATE_POOL, ENROLL_MEMBER, GENERATE_CODES, REDEEM_CODES, usd
from tests.wire import Wire

#: As many codes as one call makes.
BATCH: Final = 5_000
KEPT: Final = """
SELECT (SELECT count(*) FROM claim WHERE merchant_id = $1) AS claimed,
    (SELECT count(*) FROM redemption WHERE merchant_id = $1 AND reversed_at IS NULL) AS redeemed
"""


@dataclass
class Load:
    """A shop's members, who ask the API processes in `urls`, which may change meanwhile, one after the other."""

    wire: Wire
    urls: list[str]
    merchant_id: UUID
    key: str
    requests: int = 0
    #: Of each answer that wasn't what it had to be.
    failures: list[Any] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    seconds_max: float = 0.0
    #: How long each client waits before the next member.
    pause_seconds: float = 0.0

    async def run(self, clients: int, ends: asyncio.Event, *, codes: int) -> None:
        """Ask until the end, or until there are no more codes."""
        pool = (await self._ask(CREATE_POOL, name="Sale", kind="PERCENT", percentOff=10.0))["pool"]["id"]
        for made in range(0, codes, BATCH):
            await self._ask(GENERATE_CODES, poolId=pool, count=min(BATCH, codes - made))
        await self._ask(CHANGE_STATUS % "activatePool", poolId=pool)
        self.told.clear()
        await asyncio.gather(*(self._client(f"{number}", pool, ends) for number in range(clients)))

    async def more(self, requests: int, running: "asyncio.Task[None]") -> None:
        """Wait until so many more requests were answered, or nobody asks any more."""
        wanted = self.requests + requests
        while self.requests < wanted and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def lost(self, database_url: str) -> dict[str, tuple[int, int]]:
        """Return what the database has another number of than clients were told: that number, and theirs."""
        connection = await asyncpg.connect(database_url)
        try:
            (kept,) = await connection.fetch(KEPT, self.merchant_id)
        finally:
            await connection.close()
        pairs = {"claimed": self.told["ClaimCodeSuccess"], "redeemed": self.told["RedeemCodesSuccess"]}
        return {name: (kept[name], told) for name, told in pairs.items() if kept[name] != told}

    async def _client(self, name: str, pool: str, ends: asyncio.Event) -> None:
        for number in count():
            person = f"{name}-{number}"
            member = (await self._ask(ENROLL_MEMBER, source="STORE", externalId=person))["member"]["id"]
            code = (await self._ask(CLAIM_CODE, poolId=pool, memberId=member))["code"]["text"]
            await self._ask(REDEEM_CODES, codes=[code], orderId=person, orderAmount=usd(5_000), memberId=member)
            if ends.is_set():
                return
            await asyncio.sleep(self.pause_seconds)

    async def _ask(self, document: str, **values: Any) -> Any:
        """Return an answer. Raises AssertionError when it isn't a success."""
        url = self.urls[self.requests % len(self.urls)]
        began = time.monotonic()
        answer = await self.wire.post(
            f"{url}/graphql", {"query": document, "variables": {"input": values}}, f"Bearer {self.key}"
        )
        self.requests += 1
        self.seconds_max = max(self.seconds_max, time.monotonic() - began)
        found: Any = (answer.get("data") or {}).get("answer") or {}
        if not found.get("__typename", "").endswith("Success"):
            self.failures.append(answer)
            raise AssertionError(answer)
        self.told[found["__typename"]] += 1
        return found
