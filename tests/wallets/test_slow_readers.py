"""Readers that are too slow. Without these one could hold up all others, or never hear what it missed."""

import asyncio
import contextlib
import itertools
import json
import time
from pathlib import Path
from typing import Any

import websockets

from app.wallets.wallet_feed import _OF_ENTRY, WAITING_MAX, Watcher, _whole
from tests.conftest import run_api
from tests.factories import Shop
from tests.points.documents import grant
from tests.wallets.sockets import CHANGED, Socket, joined

#: About 16 KiB for each change: what a reader doesn't take soon fills the buffers below the engine, of megabytes.
LARGE = CHANGED.replace("entry {", "entry { " + " ".join(f"r{number}: reference" for number in range(25)))
REFERENCE = "\N{SNOWMAN}" * 200
OPERATIONS = 10
HISTORY = 40
LIVE = WAITING_MAX + 10
PATIENCE_SECONDS = 60


async def changes_until_closed(socket: Socket) -> dict[str, list[int]]:
    """Return the versions that each operation of a socket was told before the socket is closed."""
    versions: dict[str, list[int]] = {}
    with contextlib.suppress(websockets.ConnectionClosed):
        async for text in socket.connection:
            message: Any = json.loads(text)
            versions.setdefault(message["id"], []).append(message["payload"]["data"]["walletChanged"]["version"])
    return versions


def logged(log: Path, line: str) -> None:
    """Wait until a process has logged something."""
    until = time.monotonic() + PATIENCE_SECONDS
    while line not in log.read_text():
        assert time.monotonic() < until, f"it never logged {line!r}"
        time.sleep(0.05)


def test_what_rings_beyond_the_bound_is_left_to_the_table() -> None:
    watcher, change = Watcher(0), _whole(dict.fromkeys(_OF_ENTRY))
    watcher.is_behind = False

    for _ in range(WAITING_MAX):
        watcher.offer(change)
    assert (len(watcher.waiting), watcher.is_behind) == (WAITING_MAX, False)
    watcher.offer(change)
    assert (len(watcher.waiting), watcher.is_behind) == (0, True)


async def test_a_slow_reader_is_told_to_resume_misses_nothing_and_holds_up_nobody(
    shop: Shop, worker_database: str
) -> None:
    member, other = await shop.member(), await shop.member()
    token, others = await shop.token(member["id"]), await shop.token(other["id"])

    async def change(count: int, *members: Any) -> None:
        for _ in range(count):
            for each in members:
                await grant(shop, each, 1, f"{next(numbers)}", reference=REFERENCE)

    numbers = itertools.count(1)
    await change(HISTORY, member)
    everything = list(range(1, HISTORY + LIVE + 1))
    with run_api(worker_database, FLASH_STREAM_SEND_SECONDS="1") as api:
        url = f"{api.url.replace('http', 'ws')}/graphql"
        async with joined(url, token) as slow, joined(url, token) as quick, joined(url, others) as elsewhere:
            slow.connection.transport.pause_reading()
            for number in range(OPERATIONS):
                await slow.subscribe(LARGE, id=str(number), after=0)
            await quick.follow(0)
            await elsewhere.follow(0)

            await change(LIVE, member, other)

            assert [each["version"] for each in await quick.changes(HISTORY + LIVE)] == everything
            assert [each["version"] for each in await elsewhere.changes(LIVE)] == list(range(1, LIVE + 1))
            await asyncio.to_thread(logged, api.log, "its reader took nothing")
            slow.connection.transport.resume_reading()
            told = await changes_until_closed(slow)
            close = slow.connection.protocol.close_rcvd
            assert close is not None
            assert (close.code, close.reason) == (1013, "Too slow: resume after the last version that you have")

        async with joined(url, token) as resumed:
            for operation, versions in told.items():
                await resumed.subscribe(CHANGED, id=operation, after=versions[-1])
                while versions[-1] < everything[-1]:
                    versions.append((await resumed.change())["version"])
                await resumed.send(type="complete", id=operation)

    assert list(told.values()) == [everything] * len(told)
    assert "Traceback" not in api.log.read_text()
