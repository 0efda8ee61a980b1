"""A server that is dead or frozen is its own merchants' trouble. Without this it takes everybody's connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from tests.factories import CLAIM_CODE, ENROLL_MEMBER, Shop
from tests.servers.pair import Server
from tests.servers.router import Router
from tests.servers.world import WAIT_SECONDS_MAX, World, open_world

#: Of the merchant whose server is away: more than there are connections.
CALLS = 30


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(servers: tuple[Server, Server]) -> AsyncIterator[World]:
    """An engine with merchants on both servers."""
    async with open_world(*servers) as made:
        yield made


async def _until_ready(world: World, *, south: str) -> None:
    """Wait until the process says so: a busy server may be slow to say how it is."""
    wanted = {"database": "ok", "valkey": "ok", "servers": {"north": "ok", "south": south}}
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        answer = await world.north.http.get(f"{world.api.url}/readyz")
        if (answer.status_code, answer.json()) == (200, wanted):
            return
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.05)


async def _claims(shop: Shop, count: int) -> list[dict[str, Any]]:
    """Have members enrolled, which takes a transaction, and then claim, which is one statement."""
    pool = await shop.pool(codes=count)
    members = await asyncio.gather(*(shop.member() for _ in range(count)))
    return [{"input": {"poolId": pool["id"], "memberId": member["id"]}} for member in members]


async def _until_answered(shop: Shop, document: str, variables: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while "errors" in (answer := await shop.post(document, variables)):
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAVAILABLE"]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return answer


def _codes(answers: list[dict[str, Any]]) -> set[str]:
    return {error["extensions"]["code"] for answer in answers for error in answer["errors"]}


def _typenames(answers: list[dict[str, Any]]) -> set[str]:
    return {answer["data"]["answer"]["__typename"] for answer in answers}


async def test_each_merchant_is_served_from_its_own_server(world: World) -> None:
    for shop in (world.north, world.south):
        (claim,) = await _claims(shop, 1)
        assert _typenames([await shop.post(CLAIM_CODE, claim)]) == {"ClaimCodeSuccess"}

    await _until_ready(world, south="ok")
    metrics = (await world.north.http.get(f"{world.api.url}/metrics")).text.splitlines()
    assert [line for line in metrics if line.startswith("flash_server_up")] == [
        'flash_server_up{server="north"} 1.0', 'flash_server_up{server="south"} 1.0'
    ]  # fmt: skip
    # One pool at each.
    assert sum(float(line.split()[1]) for line in metrics if line.startswith("flash_pools{")) == 2
    assert {number for number, sql in world.way.sent if "INSERT INTO member" in sql} == {0, 1}


#: How the second server is taken away, and how it comes back.
_TROUBLES: dict[str, Callable[[Router, Server], tuple[Callable[[], None], Callable[[], None]]]] = {
    "frozen": lambda way, _: (partial(way.freeze, 1), partial(way.thaw, 1)),
    "refused": lambda way, _: (partial(way.refuse, 1), partial(way.accept, 1)),
    "killed": lambda _, server: (server.kill, server.start),
}


@pytest.mark.parametrize("trouble", _TROUBLES)
async def test_the_merchants_of_other_servers_notice_nothing(
    world: World, servers: tuple[Server, Server], trouble: str
) -> None:
    north, south = await asyncio.gather(_claims(world.north, CALLS), _claims(world.south, CALLS))
    begin, end = _TROUBLES[trouble](world.way, servers[1])
    begin()
    try:
        answers = await asyncio.gather(
            *(world.south.post(CLAIM_CODE, claim) for claim in south),
            *(world.north.post(CLAIM_CODE, claim) for claim in north),
            *(world.north.post(ENROLL_MEMBER, {"input": {"source": "STORE"}}) for _ in range(CALLS)),
        )
        await _until_ready(world, south="away")
        later = [await world.south.post(document, variables) for document, variables in (
            (CLAIM_CODE, south[0]), (ENROLL_MEMBER, {"input": {"source": "STORE"}})
        )]  # fmt: skip
    finally:
        end()
    back = [await _until_answered(world.south, CLAIM_CODE, claim) for claim in south]
    await _until_ready(world, south="ok")

    assert _codes(answers[:CALLS]) == _codes(later) == {"UNAVAILABLE"}
    assert _typenames(answers[CALLS:]) == {"ClaimCodeSuccess", "EnrollMemberSuccess"}
    assert _typenames(back) == {"ClaimCodeSuccess"}
