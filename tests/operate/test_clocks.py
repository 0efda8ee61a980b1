"""Clocks that jump. Without these a wrong one could let codes, points and invites expire, which nobody can undo."""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from app.coupons import expire_codes as of_codes
from app.operate import clocks
from app.operate.clocks import FAR_SECONDS, KEY, Clocks, Look, Watch, accept, doubt_of, doubts, this_machine
from app.operate.embedded import DataDirectory
from app.points import expire_points as of_points
from app.referrals import expire_invites as of_invites
from tests.coupons.test_expire_codes import age, states
from tests.factories import Shop
from tests.operate.processes import eventually, flash, is_listening
from tests.wallets.valkeys import Valkey
from workers import deliver_webhooks, expire_codes, expire_invites, expire_points, forget_erased, take_graph_snapshots
from workers.seldom import Seldom
from workers.settings import CRON_JOBS

DAY = 86_400.0
#: Each cron that ends or deletes what is due, and what it does that for with.
EXPIRING: dict[str, tuple[Any, list[tuple[Any, str]]]] = {
    "expire_codes": (expire_codes.expire_codes, [(of_codes, "expire_codes")]),
    "expire_points": (
        expire_points.expire_points,
        [(expire_points, "mature_points"), (of_points, "warn_of_expiry"), (of_points, "expire_points")],
    ),
    "expire_invites": (expire_invites.expire_invites, [(of_invites, "expire_invites")]),
    "forget_erased": (forget_erased.forget_erased, [(forget_erased, "forget_batch")]),
    "plan_graph_snapshots": (take_graph_snapshots.plan_graph_snapshots, [(take_graph_snapshots, "forget_batch")]),
    "forget_webhook_deliveries": (deliver_webhooks.forget_webhook_deliveries, [(deliver_webhooks, "forget_batch")]),
}


class Machine:
    """Clocks that a test moves: two of a machine, which it can't set one without the other of, and the database's."""

    def __init__(self, name: str = "one") -> None:
        self.started = 1_000.0
        self.wall = self.database = 1_790_000_000.0
        self.slow = 0.0
        self.clocks = Clocks(name, lambda: self.wall, lambda: self.started, self._shown)

    async def _shown(self) -> float:
        shown = self.database
        self.passes(self.slow)
        return shown

    def passes(self, seconds: float) -> None:
        """Let time go by, for all of them."""
        self.started += seconds
        self.wall += seconds
        self.database += seconds

    def jumps(self, seconds: float) -> None:
        """Move the machine's clock, and the database's, which is on the same machine."""
        self.wall += seconds
        self.database += seconds


@pytest.fixture(scope="module")
def own_server() -> Iterator[DataDirectory]:
    """A Valkey of this file's: what somebody accepts counts for all who share one."""
    with tempfile.TemporaryDirectory(prefix="flash-valkey-", ignore_cleanup_errors=True) as directory:
        server = Valkey(DataDirectory(Path(directory)))
        eventually(lambda: is_listening(server.data.redis_url.removeprefix("unix://")))
        yield server.data
        server.kill()


@pytest.fixture
async def valkey(own_server: DataDirectory) -> AsyncIterator[Redis]:
    """An empty Valkey."""
    async with Redis.from_url(own_server.redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """What the log was told, by level."""
    caplog.set_level(logging.INFO, "flash.worker")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_clocks_that_agree_are_trusted_however_long_they_run(valkey: Redis) -> None:
    machine = Machine()
    watch = Watch(machine.clocks, valkey)
    machine.database += FAR_SECONDS - 1

    for _ in range(3):
        assert await watch.trusts()
        machine.passes(30 * DAY)


async def test_clock_that_drifts_is_trusted(valkey: Redis) -> None:
    machine = Machine()
    watch = Watch(machine.clocks, valkey)

    for _ in range(5):
        assert await watch.trusts()
        machine.passes(60)
        machine.jumps(FAR_SECONDS / 2)


@pytest.mark.parametrize("seconds", [2 * DAY, FAR_SECONDS + 1, -3_600.0])
async def test_clocks_that_jump_together_stop_it_until_they_are_right_again(
    seconds: float, valkey: Redis, told: Callable[[], list[tuple[str, str]]]
) -> None:
    machine = Machine()
    watch = Watch(machine.clocks, valkey)
    assert await watch.trusts()

    machine.passes(60)
    machine.jumps(seconds)
    assert [await watch.trusts() for _ in range(3)] == [False] * 3
    machine.jumps(-seconds)
    assert [await watch.trusts() for _ in range(2)] == [True] * 2

    (level, stopped), goes_on = told()
    assert level == "ERROR"
    direction = "forward" if seconds > 0 else "back"
    assert stopped.startswith(f"nothing expires any more: the database's clock was moved {direction} by ")
    assert goes_on == ("INFO", "what is due expires again: the database's clock is right, or accepted")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2 * DAY, "2 days, 0:00:00 ahead of"), (-3_600.0, "1:00:00 behind"), (FAR_SECONDS + 1, "0:05:01 ahead of")],
)
async def test_database_far_from_a_machine_that_begins_stops_it(
    seconds: float, said: str, valkey: Redis, told: Callable[[], list[tuple[str, str]]]
) -> None:
    machine = Machine()
    machine.database += seconds

    assert not await Watch(machine.clocks, valkey).trusts()

    assert told() == [
        (
            "ERROR",
            f"nothing expires any more: the database's clock is {said} a machine's; `flash doctor` says what to do",
        )
    ]


async def test_worker_that_begins_after_the_jump_is_not_fooled(valkey: Redis) -> None:
    machine = Machine()
    assert await Watch(machine.clocks, valkey).trusts()
    machine.jumps(2 * DAY)

    assert not await Watch(machine.clocks, valkey).trusts()
    # Another start of the machine, or another machine, has no such past.
    assert await Watch(Machine("other").clocks, valkey).trusts()


async def test_accepting_lets_all_go_on_and_the_next_jump_stops_them(valkey: Redis) -> None:
    machines = [Machine(name) for name in ("one", "two")]
    watches = [Watch(machine.clocks, valkey) for machine in machines]
    assert [await watch.trusts() for watch in watches] == [True, True]
    for machine in machines:
        machine.jumps(2 * DAY)
    assert [await watch.trusts() for watch in watches] == [False, False]

    await accept(machines[0].clocks, valkey)

    assert [await watch.trusts() for watch in watches] == [True, True]
    machines[1].jumps(-2 * DAY)
    assert [await watch.trusts() for watch in watches] == [True, False]


async def test_accepted_difference_is_believed_and_no_other(valkey: Redis) -> None:
    machine, near = Machine(), Machine("near")
    machine.database += DAY
    watch = Watch(machine.clocks, valkey)
    assert not await watch.trusts()

    seen = await accept(machine.clocks, valkey)

    assert seen.ahead == DAY
    assert await watch.trusts()
    assert await Watch(near.clocks, valkey).trusts()
    machine.database += DAY
    assert not await watch.trusts()


async def test_database_that_is_slow_to_answer_is_no_jump(valkey: Redis) -> None:
    machine = Machine()
    watch = Watch(machine.clocks, valkey)
    assert await watch.trusts()

    machine.slow = 3_600.0

    assert await watch.trusts()


async def test_without_valkey_nothing_expires_and_the_log_says_so_once(
    told: Callable[[], list[tuple[str, str]]],
) -> None:
    async with Redis.from_url("redis://127.0.0.1:1") as gone:
        watch = Watch(Machine().clocks, gone)
        assert [await watch.trusts() for _ in range(2)] == [False, False]

    (message,) = [message for _, message in told()]
    assert message == (
        "nothing expires any more: Valkey doesn't tell what the clocks showed last (ConnectionError); "
        "`flash doctor` says what to do"
    )


@pytest.mark.parametrize("planted", [b"x", b"nan", b"inf", b"[]", b"\xff"])
async def test_what_a_stranger_leaves_in_valkey_is_no_number(planted: bytes, valkey: Redis) -> None:
    machine = Machine()
    machine.database += DAY
    for field in (b"accepted", b"base:one", b"doubt:other", b"\xff"):
        await cast(Any, valkey).hset(KEY, field, planted)

    assert not await Watch(machine.clocks, valkey).trusts()
    _, found = await doubts(machine.clocks, valkey)
    assert [(doubt.has_moved, doubt.seconds) for doubt in found] == [(False, DAY)]


def test_edges_are_trusted() -> None:
    assert doubt_of(Look(ahead=FAR_SECONDS, base=FAR_SECONDS, late=0), base=0, accepted=0) is None
    assert doubt_of(Look(ahead=-FAR_SECONDS, base=-FAR_SECONDS, late=0), base=0, accepted=0) is None


@pytest.mark.parametrize("name", EXPIRING)
async def test_crons_expire_nothing_by_a_clock_that_is_not_trusted(
    name: str, shop: Shop, valkey: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, acts = EXPIRING[name]
    done: list[str] = []

    def acting(what: str) -> Any:
        async def act(*_arguments: Any) -> int:
            done.append(what)
            return 0

        return act

    for module, act in acts:
        monkeypatch.setattr(module, act, acting(act))
    machine = Machine()

    class _Queue:
        async def enqueue_job(self, *_arguments: Any) -> None:
            return None

    ctx = {"clocks": Watch(machine.clocks, valkey), "redis": _Queue(), "seldom": Seldom()}
    await job(ctx)
    assert done == [act for _, act in acts]
    machine.jumps(2 * DAY)
    await job(ctx)
    assert done == [act for _, act in acts]
    assert any(cron.coroutine is job for cron in CRON_JOBS)


async def test_an_operator_is_told_and_accepts(
    shop: Shop, worker_database: str, own_server: DataDirectory, valkey: Redis, tmp_path: Path
) -> None:
    pool = await shop.pool(codes=1, codeLifetimeDays=30)
    await age(shop, await shop.claim(pool, await shop.member()))
    # As if this machine had trusted a clock that was two days behind.
    watch = Watch(this_machine(), valkey)
    assert await watch.trusts()
    seen = await clocks.look(this_machine())
    await cast(Any, valkey).hset(KEY, f"base:{this_machine().machine}", repr(seen.base - 2 * DAY))
    variables: dict[str, Any] = {
        "DATABASE_URL": worker_database,
        "REDIS_URL": own_server.redis_url,
        "FLASH_MASTER_KEYS": os.environ["FLASH_MASTER_KEYS"],
        "FLASH_DATA": tmp_path,
    }

    def looked() -> dict[str, str]:
        printed = flash("doctor", "--json", **variables).stdout
        (found,) = [each for each in json.loads(printed) if each["what"] == "clocks"]
        return {"state": found["state"], "advice": found["advice"]}

    await expire_codes.expire_codes({"clocks": watch})
    assert await states(shop) == {"ALLOCATED": 1}
    doubted = await asyncio.to_thread(looked)
    accepted = await asyncio.to_thread(lambda: flash("clock", "accept", **variables))
    trusted = await asyncio.to_thread(looked)
    await expire_codes.expire_codes({"clocks": watch})

    assert doubted["state"] == "nothing expires: the database's clock was moved forward by 2 days, 0:00:00"
    assert "`flash clock accept`" in doubted["advice"]
    assert accepted.stdout.startswith("Accepted: the database's clock is ")
    assert trusted["state"].endswith(" s from this machine's")
    assert trusted["advice"] == ""
    assert await states(shop) == {"EXPIRED": 1}


async def test_accepting_without_valkey_is_one_sentence(worker_database: str, tmp_path: Path) -> None:
    said = await asyncio.to_thread(
        lambda: flash(
            "clock", "accept", DATABASE_URL=worker_database, REDIS_URL="redis://127.0.0.1:1", FLASH_DATA=tmp_path,
            FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"],
        )
    )  # fmt: skip

    assert said.returncode == 1
    assert said.stderr == "flash: Valkey (or Redis) doesn't answer (ConnectionError); nothing was accepted.\n"


def test_what_was_not_found_is_looked_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("workers.seldom.time.monotonic", lambda: now)
    seldom = Seldom()
    assert seldom.is_due("snapshots")
    assert seldom.found("snapshots", 3, idle_seconds=300.0) == 3
    assert seldom.is_due("snapshots")
    assert seldom.found("snapshots", 0, idle_seconds=300.0) == 0
    assert (seldom.is_due("snapshots"), seldom.is_due("old snapshots")) == (False, True)
    now += 300.0
    assert seldom.is_due("snapshots")
