"""A whole engine whose processes are killed and frozen. Without these an acknowledged effect could be lost or doubled.

Each part of the engine is killed or frozen once. `make chaos` and `make full` go on for longer: FLASH_CHAOS_SECONDS
says how long, FLASH_CHAOS_SEED repeats the order of events.
"""

import asyncio
import itertools
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.factories import (
    CHANGE_STATUS,
    CLAIM_CODE,
    CREATE_POOL,
    ENROLL_MEMBER,
    GENERATE_CODES,
    ISSUE_MEMBER_TOKEN,
    REDEEM_CODES,
    usd,
)
from tests.operate.processes import Up, eventually, up
from tests.points.documents import GRANT, RECORD
from tests.sizes import size
from tests.wallets.sockets import joined

SECONDS = float(os.environ.get("FLASH_CHAOS_SECONDS", size("0", "30")))
SEED = int(os.environ.get("FLASH_CHAOS_SEED", "0")) or secrets.randbits(32)
CLIENTS = size(4, 8)
#: Seconds between a client's effects: other tests need the machine.
PAUSE = size(0.1, 0.0)
CODES = size(1000, 5000)
MEMBERS = 10
CLAIMS_MAX = 1000
#: How long a client goes on asking while what it needs is dead, frozen or starting.
PATIENCE_SECONDS = 120.0

#: A part of each process's command line.
PARTS = {
    "api": ("app", "api"), "worker": ("app", "worker"), "valkey": ("valkey-server",), "postgres": ("postgres",),
}  # fmt: skip
FOUND = """
query ($pool: ID!) {
  pool(id: $pool) { stock { available allocated redeemed } }
  integrityReport { ok checks { name violations } }
}
"""

WALLET = "query ($member: ID!) { member(id: $member) { wallet { points version } } }"


@dataclass
class Effect:
    """Something that is to happen once: what is sent, and the answers that came."""

    document: str
    input: dict[str, Any]
    answers: list[Any] = field(default_factory=list)


@dataclass
class Client:
    """Sends what has a key until it is answered, whatever happens to the server."""

    http: httpx.AsyncClient
    url: str
    key: str

    async def try_once(self, document: str, variables: dict[str, Any]) -> Any:
        """Return the data, or None when the server didn't answer, or not in time, or said that it is UNAVAILABLE."""
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            response = await self.http.post(self.url, json={"query": document, "variables": variables}, headers=headers)
            answer = response.json()
        except (httpx.TransportError, ValueError):
            return None
        if "errors" in answer:
            assert {error["extensions"]["code"] for error in answer["errors"]} <= {"TIMEOUT", "UNAVAILABLE"}, answer
            return None
        return answer["data"]

    async def ask(self, document: str, variables: dict[str, Any]) -> Any:
        """Return the data, however often that takes."""
        until = time.monotonic() + PATIENCE_SECONDS
        while (data := await self.try_once(document, variables)) is None:
            assert time.monotonic() < until, "the server never came back"
            await asyncio.sleep(0.1)
        return data

    async def do(self, document: str, **input: Any) -> Any:
        """Return a mutation's answer."""
        return (await self.ask(document, {"input": input}))["answer"]


@asynccontextmanager
async def clients(engine: Up) -> AsyncIterator[Client]:
    """Open a client with the merchant's ADMIN key."""
    async with httpx.AsyncClient(timeout=30, verify=False, limits=httpx.Limits(max_connections=100)) as http:
        yield Client(http, engine.facts["url"], engine.facts["demo"]["admin"])


async def shop(client: Client, codes: int) -> tuple[str, str]:
    """Return a new pool and a new member."""
    pool = (await client.do(CREATE_POOL, name="chaos", kind="PERCENT", percentOff=1.0, claimsPerMember=CLAIMS_MAX))[
        "pool"
    ]["id"]
    await client.do(GENERATE_CODES, poolId=pool, count=codes)
    await client.do(CHANGE_STATUS % "activatePool", poolId=pool)
    return pool, await shop_member(client)


async def shop_member(client: Client) -> str:
    """Return a new member."""
    member: str = (await client.do(ENROLL_MEMBER, source="STORE"))["member"]["id"]
    return member


def named(engine: Up, part: str) -> list[psutil.Process]:
    """Return the engine's own processes of a kind, without what these started."""
    found = []
    for process in psutil.Process(engine.process.pid).children():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if all(any(word.endswith(name) for word in words) for name in PARTS[part]):
            found.append(process)
    return found


def signalled(processes: list[psutil.Process], number: signal.Signals, *, with_children: bool = True) -> None:
    """Send a signal to processes, and to what they started unless told."""
    for process in processes:
        try:
            family = [process, *(process.children(recursive=True) if with_children else [])]
        except psutil.Error:
            continue
        for each in family:
            try:
                each.send_signal(number)
            except psutil.Error:
                continue


def is_ready(engine: Up) -> bool:
    """Whether both servers answer."""
    return engine.ready() == {"database": "ok", "valkey": "ok"}


async def test_every_acknowledged_effect_is_there_once_whatever_is_killed(engine: Up) -> None:
    print(f"seed {SEED}: FLASH_CHAOS_SEED={SEED} repeats this")
    rolls = random.Random(SEED)
    async with clients(engine) as client:
        pool, member = await shop(client, CODES)
        members = [member, *[(await shop_member(client)) for _ in range(MEMBERS - 1)]]
        # One that there is however few others there will be.
        first = {"memberId": member, "amount": 1, "reference": "chaos-0", "idempotencyKey": "chaos-0"}
        effects = [Effect(GRANT, first, [await client.do(GRANT, **first)])]
        over = asyncio.Event()
        working = [
            asyncio.create_task(_work(client, random.Random(rolls.random()), pool, members, effects, over))
            for _ in range(CLIENTS)
        ]
        until = time.monotonic() + SECONDS
        parts, troubles = rolls.sample(list(PARTS), k=len(PARTS)), 0
        while parts or time.monotonic() < until:
            await _trouble(engine, parts.pop() if parts else rolls.choice(list(PARTS)), rolls)
            troubles += 1
        over.set()
        await asyncio.gather(*working)
        await asyncio.to_thread(eventually, lambda: is_ready(engine), within_seconds=PATIENCE_SECONDS)

        again = [await client.do(effect.document, **effect.input) for effect in effects]
        reused = await client.do(GRANT, **(first | {"amount": 2}))
        found = await client.ask(FOUND, {"pool": pool})
        wallets = [(await client.ask(WALLET, {"member": each}))["member"]["wallet"] for each in members]

    print(f"{len(effects)} effects under {troubles} troubles")
    for effect, replayed in zip(effects, again, strict=True):
        assert replayed["replayed"] is True, replayed
        assert {_what(answer) for answer in effect.answers} == {_what(replayed)}
    assert reused["__typename"] == "IdempotencyKeyReused"
    claims = [effect for effect in effects if effect.document == CLAIM_CODE]
    redeemed = [effect for effect in effects if effect.document == REDEEM_CODES]
    assert found["pool"]["stock"] == {
        "available": CODES - len(claims), "allocated": len(claims) - len(redeemed), "redeemed": len(redeemed),
    }  # fmt: skip
    purchases = [effect for effect in effects if effect.document == RECORD]
    earned = len(_grants(effects)) + len(purchases)
    assert sum(wallet["points"] for wallet in wallets) == earned
    assert sum(wallet["version"] for wallet in wallets) == len(claims) + len(redeemed) + earned
    assert [check for check in found["integrityReport"]["checks"] if check["violations"]] == []


def _grants(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if effect.document == GRANT]


def _what(answer: Any) -> str:
    """Return what an answer is about, apart from whether it was the first."""
    about = answer.get("code") or answer.get("entry") or answer["redemptions"][0]
    return str(about["id"])


_numbers = itertools.count(1)


async def _work(
    client: Client, rolls: random.Random, pool: str, members: list[str], effects: list[Effect], over: asyncio.Event
) -> None:
    """Do one effect after the other, each sent three times at once."""
    codes: list[tuple[str, str]] = []
    while not over.is_set():
        await asyncio.sleep(PAUSE)
        key, member = f"chaos-{next(_numbers)}", rolls.choice(members)
        match rolls.choice(["claim", "grant", "purchase", *(["redeem"] if codes else [])]):
            case "claim":
                effect = Effect(CLAIM_CODE, {"poolId": pool, "memberId": member, "idempotencyKey": key})
            case "grant":
                named_so = {"reference": key, "idempotencyKey": key}
                effect = Effect(GRANT, {"memberId": member, "amount": 1, **named_so})
            case "purchase":
                order = {"source": "STORE", "orderId": key, "amount": usd(100)}
                effect = Effect(RECORD, {"memberId": member, **order})
            case _:
                code, owner = codes.pop()
                order = {"orderId": key, "orderAmount": usd(100), "memberId": owner}
                effect = Effect(REDEEM_CODES, {"codes": [code], **order})
        effects.append(effect)
        effect.answers += await asyncio.gather(*(client.do(effect.document, **effect.input) for _ in range(3)))
        assert sum(answer["replayed"] is False for answer in effect.answers) <= 1, effect.answers
        if effect.document == CLAIM_CODE:
            codes.append((effect.answers[0]["code"]["text"], member))


async def _trouble(engine: Up, part: str, rolls: random.Random) -> None:
    """Kill or freeze one of the processes for a moment."""
    processes = await asyncio.to_thread(named, engine, part)
    hit = rolls.sample(processes, k=min(len(processes), 1))
    if rolls.random() < 0.6:
        # Of PostgreSQL only the first process is killed: the others end when they notice.
        await asyncio.to_thread(signalled, hit, signal.SIGKILL, with_children=part != "postgres")
        await asyncio.sleep(rolls.uniform(0.2, 2.5))
    else:
        await asyncio.to_thread(signalled, hit, signal.SIGSTOP)
        await asyncio.sleep(rolls.uniform(0.1, 2))
        await asyncio.to_thread(signalled, hit, signal.SIGCONT)
        await asyncio.sleep(rolls.uniform(0, 0.5))


async def test_while_valkey_is_frozen_everything_but_jobs_goes_on(engine: Up) -> None:
    async with clients(engine) as client:
        pool, member = await shop(client, 10)
        valkey = named(engine, "valkey")
        signalled(valkey, signal.SIGSTOP)
        try:
            claimed = await client.try_once(CLAIM_CODE, {"input": {"poolId": pool, "memberId": member}})
            redeemed = await client.try_once(
                REDEEM_CODES,
                {
                    "input": {
                        "codes": [claimed["answer"]["code"]["text"]], "orderId": "frozen", "memberId": member,
                        "orderAmount": usd(100),
                    }
                },
            )  # fmt: skip
        finally:
            signalled(valkey, signal.SIGCONT)
        await asyncio.to_thread(eventually, lambda: is_ready(engine))

    assert redeemed["answer"]["__typename"] == "RedeemCodesSuccess"


async def test_while_postgresql_is_frozen_every_request_is_answered_and_then_it_is_back(engine: Up) -> None:
    async with clients(engine) as client:
        pool, member = await shop(client, 10)
        postgres = named(engine, "postgres")
        signalled(postgres, signal.SIGSTOP)
        try:
            variables = {"input": {"poolId": pool, "memberId": member}}
            body = {"query": CLAIM_CODE, "variables": variables}
            headers = {"authorization": f"Bearer {client.key}"}
            asked = [client.http.post(client.url, json=body, headers=headers) for _ in range(20)]
            ready, alive, *answers = await asyncio.gather(
                client.http.get(f"{engine.url}/readyz"), client.http.get(f"{engine.url}/healthz"), *asked
            )
        finally:
            signalled(postgres, signal.SIGCONT)
        after = await client.ask(CLAIM_CODE, variables)

    assert (ready.status_code, alive.status_code) == (503, 200)
    assert {answer.json()["errors"][0]["extensions"]["code"] for answer in answers} == {"UNAVAILABLE"}
    assert after["answer"]["__typename"] == "ClaimCodeSuccess"


async def test_stopped_under_load_it_says_goodbye_and_loses_nothing(engine: Up) -> None:
    """The last one, as the engine is gone afterwards."""
    async with clients(engine) as client:
        pool, member = await shop(client, 1000)
        token = (await client.do(ISSUE_MEMBER_TOKEN, memberId=member))["token"]
        acknowledged: list[str] = []

        async def claim() -> None:
            for number in itertools.count():
                wanted = {"poolId": pool, "memberId": member, "idempotencyKey": f"last-{number}"}
                data = await client.try_once(CLAIM_CODE, {"input": wanted})
                if data is None:
                    return
                acknowledged.append(data["answer"]["code"]["id"])

        async with joined(engine.facts["url"].replace("http", "ws", 1), token) as socket:
            await socket.follow(0)
            claiming = asyncio.create_task(claim())
            for _ in range(20):
                await socket.change()
            status = asyncio.create_task(asyncio.to_thread(engine.end))
            code, _ = await socket.closed()
            await claiming
            assert await status == 0

    assert code in {1001, 1012}
    with up(Path(engine.facts["data"]), errors=engine.errors) as again:
        async with clients(again) as client:
            found = await client.ask(FOUND, {"pool": pool})
            replayed = await client.do(CLAIM_CODE, poolId=pool, memberId=member, idempotencyKey="last-0")
    assert replayed["code"]["id"] == acknowledged[0]
    assert found["pool"]["stock"]["allocated"] >= len(acknowledged) == len(set(acknowledged))
    assert found["integrityReport"]["ok"] is True
