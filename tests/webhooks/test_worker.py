"""Real workers that are killed. Without this what one had under way could be lost, or overtaken by what follows."""

import asyncio
import contextlib
import os
import random
import signal

from app.storage.database import database
from app.webhooks.deliver import JOB
from tests.conftest import own_valkey, run_worker
from tests.factories import Shop
from tests.webhooks.documents import deliveries, eventually, happen, hasten, hook, read
from tests.webhooks.receiver import receiving
from tests.webhooks.test_deliver import MOVES, _by_subject, _recorded
from workers.settings import JOBS


def test_workers_know_the_job_that_the_engine_rings_for() -> None:
    assert JOB in {job.name for job in JOBS}


async def test_killed_workers_lose_nothing_and_change_no_order(shop: Shop) -> None:
    """Takes some seconds: three workers of its own begin, two are killed, and one is stopped."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    valkey = own_valkey(13)
    async with receiving(is_open=False) as receiver, contextlib.AsyncExitStack() as stack:
        webhook = await hook(shop, receiver.url, *MOVES)
        workers = [stack.enter_context(run_worker(valkey)) for _ in range(2)]
        pools = [await shop.pool(codes=1) for _ in range(5)]
        pools = await asyncio.gather(*(happen(shop, 4, pool) for pool in pools))
        await eventually(lambda: receiver.at_once >= 4)
        os.kill(workers[0].pid, signal.SIGKILL)
        workers[0].wait()
        receiver.gate.set()
        pools = await asyncio.gather(*(happen(shop, 3, pool) for pool in pools))
        before = len(receiver.requests)
        await hasten(shop)
        await eventually(lambda: len(receiver.requests) >= before + dice.randint(2, 8))
        os.kill(workers[1].pid, signal.SIGKILL)
        workers[1].wait()
        third = stack.enter_context(run_worker(valkey))

        await hasten(shop)

        async def all_told() -> bool:
            await asyncio.sleep(0.2)
            return len(await deliveries(shop, webhook, "DELIVERED")) == 5 * 8

        await eventually(all_told)
        third.terminate()
        ended = await asyncio.to_thread(third.wait, 20)
        told = _by_subject(receiver.told())

    happened = await _recorded(shop, *MOVES)
    assert sum(len(events) for events in happened.values()) == 5 * 8
    assert told.keys() == happened.keys()
    for subject, events in happened.items():
        # Again and again perhaps, but the first time in order.
        assert list(dict.fromkeys(told[subject])) == events
    assert ended == 0
    assert (await read(shop, webhook))["disabledAt"] is None
    left = await database().row("SELECT count(*) AS rows FROM webhook_delivery WHERE merchant_id = $1 "
                                "AND state <> 'DELIVERED'", shop.merchant_id)  # fmt: skip
    assert left is not None
    assert left["rows"] == 0
