"""What subscribers cost behind a router. Without this every merchant of theirs would be asked for all the time."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from app.config import Settings
from app.members import token_feed
from app.members.token_feed import TokenFeed
from app.merchants import key_feed
from app.merchants.key_feed import KeyFeed
from app.operate.embedded import DataDirectory
from app.storage.feed import Watched, Watcher
from app.storage.rings import ringing
from app.wallets import wallet_feed
from tests.servers.pair import Server
from tests.servers.world import WAIT_SECONDS_MAX, World, open_world
from tests.wallets.sockets import Socket, address, joined
from tests.wallets.valkeys import Valkey

SWEEPS = (wallet_feed.SWEEP_MERCHANT.text, token_feed.SWEEP.text, key_feed.SWEEP.text)
READS = (wallet_feed.READ.text, wallet_feed.BEGIN.text)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def valkey() -> AsyncIterator[Valkey]:
    """A Valkey that only this engine's processes use."""
    with tempfile.TemporaryDirectory(prefix="flash-valkey-", ignore_cleanup_errors=True) as directory:
        running = Valkey(DataDirectory(Path(directory)))
        yield running
        running.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(servers: tuple[Server, Server], valkey: Valkey) -> AsyncIterator[World]:
    """An engine that would sweep fifty times a second if it had one server."""
    often = {"REDIS_URL": valkey.data.redis_url, "FLASH_WALLET_SWEEP_SECONDS": "0.02"}
    async with open_world(*servers, **often) as made:
        yield made


def _counted(world: World, *texts: str) -> Counter[int]:
    """Return how often each server was sent one of these statements."""
    return Counter(number for number, sql in list(world.way.sent) if sql in texts)


async def test_rings_tell_all_and_sweeps_come_when_they_were_interrupted(world: World, valkey: Valkey) -> None:
    shops = (world.north, world.south)
    async with AsyncExitStack() as stack:
        sockets: list[tuple[int, Socket]] = []
        members = [[await shop.member() for _ in range(3)] for shop in shops]
        pools = [[await shop.pool(codes=3) for _ in range(4)] for shop in shops]
        for place, shop in enumerate(shops):
            for member in members[place]:
                socket = await stack.enter_async_context(joined(address(shop), await shop.token(member["id"])))
                await socket.follow(0)
                sockets.append((place, socket))

        async def change_all(pool: int) -> None:
            for place, shop in enumerate(shops):
                for member in members[place]:
                    await shop.claim(pools[place][pool], member)

        async def told(version: int) -> None:
            for _, socket in sockets:
                assert (await socket.change())["version"] == version

        await change_all(0)
        await told(1)
        world.way.sent.clear()
        for number in (1, 2):
            await change_all(number)
            await told(1 + number)
        assert _counted(world, *SWEEPS, *READS) == {}

        valkey.kill()
        await change_all(3)
        await told(4)
        # One statement a merchant, though each has three subscribers: the servers take turns, save where one of them
        # wasn't in time.
        swept = [number for number, sql in list(world.way.sent) if sql == wallet_feed.SWEEP_MERCHANT.text]
        assert set(swept) == {0, 1}
        assert sum(first == second for first, second in pairwise(swept)) < len(swept) / 2
        # As often as sweeps found something: on a busy machine the first doesn't find all.
        assert _counted(world, wallet_feed.READ.text).keys() == {0, 1}

        valkey.start()
        for place, shop in enumerate(shops):
            pools[place].append(await shop.pool(codes=3))
        await change_all(4)
        await told(5)


async def test_while_a_server_is_away_those_of_the_other_are_swept(world: World, valkey: Valkey) -> None:
    async with AsyncExitStack() as stack:
        for shop in (world.south, world.north):
            member = await shop.member()
            pool = await shop.pool(codes=1)
            socket = await stack.enter_async_context(joined(address(shop), await shop.token(member["id"])))
            await socket.follow(0)
        valkey.kill()
        world.way.refuse(1)
        try:
            await world.north.claim(pool, member)
            assert (await socket.change())["version"] == 1
        finally:
            world.way.accept(1)
            valkey.start()


class _Unswept(TokenFeed):
    """Hears only what rings."""

    async def sweep(self, watchers: Mapping[Watched, set[token_feed.Watcher]]) -> None:
        pass


@pytest.mark.usefixtures("database_pool")
async def test_revoked_tokens_ring(world: World, valkey: Valkey) -> None:
    """Behind a router other processes would otherwise look a minute later."""
    member = (world.north.merchant_id, world.south.merchant_id)
    chosen = Settings(redis_url=valkey.data.redis_url, router="pgdog")
    here, there = _Unswept(chosen), _Unswept(chosen)
    async with ringing(chosen.redis_url), here.running(), there.running():
        ended = asyncio.create_task(there.ended(member, 0))
        newer = asyncio.create_task(there.ended(member, 1))
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not ended.done():
                # Again and again: nobody tells when a feed has begun to listen.
                here.end(member, 1)
                await asyncio.sleep(0.01)
        assert not newer.done()
        newer.cancel()


class _UnsweptKeys(KeyFeed):
    """Hears only what rings."""

    async def sweep(self, watchers: Mapping[Watched, set[Watcher]]) -> None:
        pass


@pytest.mark.usefixtures("database_pool")
async def test_revoked_keys_ring(world: World, valkey: Valkey) -> None:
    chosen = Settings(redis_url=valkey.data.redis_url, router="pgdog")
    here, there = _UnsweptKeys(chosen), _UnsweptKeys(chosen)
    revoked, other = [(world.north.merchant_id, uuid4()) for _ in range(2)]
    async with ringing(chosen.redis_url), here.running(), there.running():
        ended, stays = [asyncio.create_task(there.revoked(key)) for key in (revoked, other)]
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not ended.done():
                here.end(revoked)
                await asyncio.sleep(0.01)
        assert not stays.done()
        stays.cancel()
