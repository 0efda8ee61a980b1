"""Rings. Without these a delivery could read the database, a lost ring lose a change, or Valkey hold up a claim."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as sized
from hypothesis import strategies as st
from redis.asyncio import Redis

from app import ids
from app.config import Settings, settings
from app.coupons.expire_codes import expire_batch
from app.storage import rings
from app.storage.database import database, transaction
from app.storage.events import WALLET_EVENTS
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, ring_wallet
from app.wallets import wallet_feed
from app.wallets.wallet_feed import BEGIN, READ, SWEEP, WalletFeed
from bench.wire import counting
from tests.conftest import run_api
from tests.factories import Shop, open_shop
from tests.members.test_revoke_member_tokens import Reads
from tests.wallets.sockets import Socket, joined
from tests.wallets.test_wallet_changed import AGE_CODES, MAKERS
from tests.wallets.valkeys import api_with_own_valkey
from tests.webhooks.documents import eventually

CLAIMED = statement(
    ChangeRow,
    f"SELECT {columns(ChangeRow)} FROM event ev WHERE merchant_id = :merchant_id AND type = 'code.claimed'",
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.text('abé\0😀"\\'),
    st.uuids(),
    st.binary(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.text("abé")),
)


# Nothing is slow here but the machine.
@sized(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from("abcdef"), VALUES))
def test_a_ring_says_exactly_what_the_row_said(row: dict[str, Any]) -> None:
    assert rings.decode(rings.encode(row)) == row


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"null",
        b"7",
        b'"x"',
        b"[{}]",
        b'{"a:z": "x"}',
        b'{"a:UUID": "x"}',
        b'{"a:UUID": 7}',
        b'{"a:Decimal": "x"}',
        b'{"a:datetime": null}',
        b'{"a:bytes": 7}',
    ],
)
def test_what_is_no_ring_is_an_error_that_listeners_expect(message: bytes) -> None:
    with pytest.raises(rings.NO_RING):
        rings.decode(message)


#: Told many at a time, or seldom, and so without the code or the entry: its watchers read it, together.
ALONE = {
    "code.adopted", "code.adopted_after_end", "code.discarded", "code.imported", "code.sent", "hold.captured",
    "code.moved", "code.moved_after_end", "hold.changed", "hold.expired", "hold.extended", "hold.placed",
    "hold.released", "member.merged", "points.fell_short", "points.matured", "points.shortfall_lowered",
}  # fmt: skip


@pytest.mark.parametrize("event_type", sorted(WALLET_EVENTS.keys() - ALONE))
async def test_a_delivery_reads_nothing(worker_database: str, database_pool: Any, event_type: str) -> None:
    async with counting(worker_database) as (through, waits), contextlib.AsyncExitStack() as stack:
        api = await _run(stack, through, FLASH_WALLET_SWEEP_SECONDS="3600")
        shop = await stack.enter_async_context(open_shop(f"{api.url}/graphql"))
        member = await shop.member()
        pool = await shop.pool(codeLifetimeDays=5)
        token = await shop.token(member["id"])
        socket = await stack.enter_async_context(joined(shop.url.replace("http", "ws"), token))
        await socket.follow(0)
        await _followed(socket, waits)
        # What jobs change rings from the process that they run in; here it is this one.
        await stack.enter_async_context(rings.ringing(settings().redis_url))
        await MAKERS[event_type](shop, member, pool)
        versions = await shop.wallet_versions(member)
        changes = await socket.changes(len(versions))

    assert [change["version"] for change in changes] == versions
    assert changes[-1]["event"]["type"] == event_type
    assert not {READ.text, SWEEP.text, BEGIN.text}.intersection(waits)


async def _run(stack: contextlib.AsyncExitStack, database_url: str, **environment: str) -> Any:
    """Run an API whose database is behind a proxy on this loop, which waiting for it must not block."""
    running = run_api(database_url, **environment)
    api = await asyncio.to_thread(running.__enter__)
    stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
    return api


async def _followed(socket: Socket, waits: list[str]) -> None:
    """Return once the subscription has read what it missed: a statement is prepared, then executed."""
    deadline = time.monotonic() + 20
    while waits.count(READ.text) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    waits.clear()


CLAIMED = statement(
    ChangeRow,
    f"SELECT {columns(ChangeRow)} FROM event ev WHERE merchant_id = :merchant_id AND type = 'code.claimed'",
)


async def test_a_ring_without_its_change_is_read_from_the_table(shop: Shop, database_pool: Any) -> None:
    member = await shop.member()
    await shop.claim(await shop.pool(), member)
    row = await database().row(CLAIMED, merchant_id=shop.merchant_id)
    assert row is not None
    async with joined(shop.url.replace("http", "ws"), await shop.token(member["id"])) as socket:
        await socket.follow(0)
        first = await socket.change()
        async with rings.ringing(settings().redis_url):
            # A ring that repeats what was told, and one that can't be read, tell nothing new.
            ring_wallet(database(), shop.merchant_id, row)
            await _publish(shop, member, b"no JSON")
            await shop.redeem([first["code"]["text"]], member)
            second = await socket.change()
            await socket.send(type="ping")
            assert await socket.receive() == {"type": "pong"}

    assert (first["version"], second["version"]) == (1, 2)


async def _publish(shop: Shop, member: Any, message: bytes) -> None:
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        channel = f"flash:wallet:{shop.merchant_id.hex}:{member['id'].removeprefix('member_')}"
        assert await redis.publish(channel, message) == 1


@contextlib.asynccontextmanager
async def _listening(*channels: str) -> AsyncIterator[asyncio.Queue[tuple[str, Mapping[str, Any]]]]:
    """Listen to channels for the length of the block. Yields what rings, by channel and row."""
    heard: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()
    began = asyncio.Event()
    listener = rings.Listener(os.environ["REDIS_URL"], lambda channel, row: heard.put_nowait((channel, row)), began.set)
    for channel in channels:
        await listener.listen(channel)
    listening = asyncio.create_task(listener.run())
    await began.wait()
    try:
        yield heard
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def test_nothing_rings_before_the_commit_or_after_a_rollback(shop: Shop, database_pool: Any) -> None:
    names = [f"{shop.merchant_id}:{name}" for name in ("committed", "rolled back", "at once")]
    async with _listening(*names) as heard, rings.ringing(settings().redis_url):
        with contextlib.suppress(ZeroDivisionError):
            async with transaction(None) as tx:
                rings.ring(tx, f"{shop.merchant_id}:rolled back")
                raise ZeroDivisionError
        outside = database()
        async with transaction(None) as tx:
            rings.ring(tx, f"{shop.merchant_id}:committed")
            rings.ring(outside, f"{shop.merchant_id}:at once")
            first, _ = await heard.get()
        second, _ = await heard.get()

    assert (first, second) == (f"{shop.merchant_id}:at once", f"{shop.merchant_id}:committed")
    assert heard.empty()


async def test_a_ring_that_nobody_hears_is_never_spelt(database_pool: Any) -> None:
    spelt: list[str] = []
    channels = [f"{uuid4()}:{number}" for number in range(3)]

    def carrying(channel: str) -> dict[str, str]:
        spelt.append(channel)
        return {"channel": channel}

    async with _listening(channels[1]) as heard, rings.ringing(settings().redis_url):
        for channel in [*channels, channels[1]]:
            rings.ring(database(), channel, partial(carrying, channel))
        told = [await heard.get(), await heard.get()]

    assert spelt == [channels[1]] * 2
    assert told == [(channels[1], {"channel": channels[1]})] * 2


async def test_whoever_begins_to_listen_while_the_connection_ends_hears_what_rings_later() -> None:
    url = os.environ["REDIS_URL"]
    heard: asyncio.Queue[str] = asyncio.Queue()
    began = asyncio.Event()
    listener = rings.Listener(url, lambda channel, _: heard.put_nowait(channel), began.set)
    listening = asyncio.create_task(listener.run())
    channels = [f"test:{uuid4()}" for _ in range(20)]
    try:
        async with asyncio.timeout(30), Redis.from_url(url) as valkey:
            await began.wait()
            began.clear()
            # What the library does when something can't be sent. `run` waits for what comes, and hasn't noticed.
            await listener._connection.disconnect(nowait=True)
            await asyncio.gather(*(listener.listen(channel) for channel in channels))
            await began.wait()
            for channel in channels:
                await valkey.publish(channel, b"{}")
            assert [await heard.get() for _ in channels] == channels
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_user_that_may_not_ask_who_listens_rings_all(database_pool: Any) -> None:
    name, url = f"ringer-{uuid4()}", os.environ["REDIS_URL"]
    async with _listening(name) as heard, Redis.from_url(url) as redis:
        commands = ["+publish", "+client", "+hello"]
        await redis.acl_setuser(name, enabled=True, passwords=["+secret"], channels=["*"], commands=commands)
        async with rings.ringing(url.replace("//", f"//{name}:secret@", 1)):
            rings.ring(database(), name)
            assert await heard.get() == (name, {})
        await redis.acl_deluser(name)


async def test_what_rings_is_encrypted(shop: Shop) -> None:
    member = await shop.member(email="ada@example.com", displayName="Ada Lovelace")
    channel = f"flash:wallet:{shop.merchant_id.hex}:{member['id'].removeprefix('member_')}"
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis, redis.pubsub() as listening:
        await listening.subscribe(channel)
        await listening.get_message(timeout=10)
        code = await shop.claim(await shop.pool(), member)
        message = await listening.get_message(timeout=10)

    assert message is not None
    row = rings.decode(message["data"])
    assert row["event_wallet_version"] == 1
    for secret in (code["text"], code["text"][4:-2], "ada@example.com", "Ada"):
        assert secret.encode() not in message["data"]
        assert not any(secret.encode() in value for value in row.values() if isinstance(value, bytes))


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
async def test_without_valkey_claims_go_on_and_changes_arrive(
    worker_database: str, database_pool: Any, trouble: str
) -> None:
    async with api_with_own_valkey(worker_database) as (api, valkey), open_shop(f"{api.url}/graphql") as shop:
        member = await shop.member()
        pool = await shop.pool(codes=9, claimsPerMember=9)
        token = await shop.token(member["id"])
        async with joined(shop.url.replace("http", "ws"), token) as socket:
            await socket.follow(0)
            await shop.claim(pool, member, idempotencyKey="before")
            versions = [(await socket.change())["version"]]
            if trouble == "killed":
                valkey.kill()
            else:
                valkey.send(signal.SIGSTOP)
            for number in range(4):
                await shop.claim(pool, member, idempotencyKey=f"without-{number}")
            versions += [change["version"] for change in await socket.changes(4)]
            async with joined(shop.url.replace("http", "ws"), token) as late:
                await late.follow(2)
                assert [change["version"] for change in await late.changes(3)] == [3, 4, 5]
            if trouble == "killed":
                valkey.start()
            else:
                valkey.send(signal.SIGCONT)
            for number in range(4):
                await shop.claim(pool, member, idempotencyKey=f"after-{number}")
            versions += [change["version"] for change in await socket.changes(4)]

    assert versions == list(range(1, 10))


async def test_listening_again_looks_at_once_for_what_rang_in_between(worker_database: str, database_pool: Any) -> None:
    running = api_with_own_valkey(worker_database, FLASH_WALLET_SWEEP_SECONDS="3600")
    async with running as (api, valkey), open_shop(f"{api.url}/graphql") as shop:
        member = await shop.member()
        pools = [await shop.pool() for _ in range(2)]
        async with joined(shop.url.replace("http", "ws"), await shop.token(member["id"])) as socket:
            await socket.follow(0)
            await shop.claim(pools[0], member)
            assert (await socket.change())["version"] == 1
            valkey.kill()
            await shop.claim(pools[1], member)
            valkey.start()

            assert (await socket.change())["version"] == 2


class LateFeed(WalletFeed):
    """A feed whose rings are held up until they are let in."""

    def __init__(self, configured: Settings) -> None:
        """Begin with none."""
        super().__init__(configured)
        self.late: list[tuple[str, Any]] = []

    def heard(self, channel: str, ring: Any) -> None:
        """Hold a ring up."""
        self.late.append((channel, ring))

    def let_in(self) -> None:
        """Let in what was held up."""
        while self.late:
            super().heard(*self.late.pop(0))


async def test_a_sweep_that_overtakes_a_ring_has_nothing_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    member, reads = await shop.member(), Reads()
    pools = [await shop.pool() for _ in range(3)]
    monkeypatch.setattr(wallet_feed, "database", lambda: reads)
    monkeypatch.setattr(wallet_feed, "_RINGING_SECONDS", 0)
    feed = LateFeed(settings().model_copy(update={"wallet_sweep_seconds": 3600.0}))
    async with feed.running():
        await eventually(lambda: feed.is_listening)
        await shop.claim(pools[0], member)
        changes = await feed.follow(shop.merchant_id, ids.decode("member", member["id"]) or shop.merchant_id, 0)
        versions = [(await anext(changes))["event_wallet_version"]]
        for pool in pools[1:]:
            following = asyncio.create_task(anext(changes))
            await shop.claim(pool, member)
            await eventually(lambda: feed.late)
            await feed.sweep(dict(feed._watchers.values()))
            feed.let_in()
            versions.append((await following)["event_wallet_version"])
        await changes.aclose()

    assert versions == [1, 2, 3]
    assert reads.made == {BEGIN.text: 1, READ.text: 1, SWEEP.text: 2}


async def test_without_a_ring_the_sweep_finds_what_changed(shop: Shop) -> None:
    member = await shop.member()
    pool = await shop.pool(codeLifetimeDays=5)
    async with joined(shop.url.replace("http", "ws"), await shop.token(member["id"])) as socket:
        await socket.follow(0)
        await shop.claim(pool, member)
        assert (await socket.change())["version"] == 1
        await database().row(AGE_CODES, shop.merchant_id)
        # This process doesn't ring.
        assert await expire_batch(shop.merchant_id) == 1
        change = await socket.change()

    assert (change["version"], change["event"]["type"]) == (2, "code.expired")
