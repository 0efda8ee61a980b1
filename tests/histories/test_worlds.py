"""Small worlds on two API processes, judged. Without these verbs that meet could answer what no order explains."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest_asyncio

from app.coupons.carry_out import carry_out_jobs
from app.stress.clients import Client, Http, Socket
from app.stress.verbs import VERBS
from app.stress.worlds import About, World, play
from tests.conftest import Api
from tests.factories import Shop
from tests.histories.clock import Clock
from tests.histories.judging import Case, Judge, counterexample, timeline
from tests.histories.moving import Mover
from tests.histories.phones import play_followed
from tests.histories.provoked import document
from tests.histories.run import PROGRAM, TERMS
from tests.sizes import size

WORLDS = size(5, 40)
SENT_AT_ONCE = size(4, 12)
ROUNDS = size(1, 10)


@pytest_asyncio.fixture(loop_scope="session")
async def clients(shop: Shop, api: Api, second_api: Api) -> AsyncIterator[list[Client]]:
    """Clients of both processes; every other one is over a WebSocket."""
    await shop.do(document("configureMerchant", ""), pointsPerUnit=1.0)
    await shop.do(document("configureReferralProgram", ""), **PROGRAM)
    urls = [f"{each.url}/graphql" for each in (api, second_api)]
    made = [
        Client(f"client {number}", (Http if number % 2 else Socket)(urls[number // 2 % 2], shop.admin))
        for number in range(1, SENT_AT_ONCE + 1)
    ]
    yield made
    for client in made:
        await client.close()


def innocent(judging: Judge, world: World) -> None:
    """Fail with a timeline unless some order explains what the world's clients were told."""
    assert world.faults == []
    verdict = judging.verdict(Case(world.history, world.history.operations))
    shown = timeline(counterexample(judging, world.history)) if verdict == "Illegal" else world.name
    assert verdict == "Ok", shown


async def test_some_order_explains_what_the_clients_of_a_world_are_told(
    clients: list[Client], shop: Shop, api: Api, worker_database: str, judging: Judge
) -> None:
    """They are about anything, holds, terms, aims and people in turn. A worker is there all the time."""
    async with at_work():
        for number in range(WORLDS):
            lapse, about = Clock(worker_database).lapse, tuple(About)[number % len(About)]
            world = World(f"world-{number}", TERMS, random.Random(number), lapse, about, Mover(shop).bring)
            if about is About.PEOPLE:
                await play_followed(world, clients, f"{api.url}/graphql")
            else:
                await play(world, clients)
            innocent(judging, world)


@asynccontextmanager
async def at_work() -> AsyncIterator[None]:
    """Carry out jobs as they come, as a worker does, for the length of the block; none is left for others."""
    over = asyncio.Event()

    async def work() -> None:
        while not over.is_set():
            await carry_out_jobs(seconds_max=1, stopping=over)
            await asyncio.sleep(0.02)
        await carry_out_jobs(seconds_max=30)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        over.set()
        await working


async def test_a_call_that_is_sent_many_times_at_once_is_one_operation(clients: list[Client], judging: Judge) -> None:
    """Every declared verb that repeats, in worlds of its own; campaigns have a test of theirs."""
    for number in range(ROUNDS):
        world = World(f"again-{number}", TERMS, random.Random(number))
        await world.prepare(clients[0])
        for _ in range(10):
            await world.call(clients[0], VERBS["grantPoints"], *_asked(world, "grantPoints"))
            await world.call(clients[0], VERBS["claimCode"], *_asked(world, "claimCode"))
            await world.call(clients[0], VERBS["redeemReward"], *_asked(world, "redeemReward"))
        while not world.holds:
            await world.call(clients[0], VERBS["holdCheckout"], *_asked(world, "holdCheckout"))
        for verb in [each for each in VERBS.values() if each.repeats and each.weight]:
            asked, about = _asked(world, verb.name)
            able = [client for client in clients if client.takes_tokens or not verb.as_member]
            await asyncio.gather(*(world.call(client, verb, asked, about) for client in able))
        innocent(judging, world)
    # None is left for others.
    await carry_out_jobs(seconds_max=30)


def _asked(world: World, name: str) -> tuple[dict[str, object], dict[str, object]]:
    asked = VERBS[name].ask(world)
    assert asked is not None
    return asked
