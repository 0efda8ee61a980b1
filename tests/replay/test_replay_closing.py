"""How a replay ends. Without these a year could end in silence, or with a broken promise that nobody is told of."""

import asyncio
import io

import pytest
from rich.console import Console

from app.config import Settings
from app.replay import closing
from app.replay.engine import Engine
from tests.conftest import own_valkey, run_api, run_worker
from tests.factories import Shop, open_shop
from tests.referrals.documents import accepted, program
from tests.unguarded import set_points


async def test_a_year_ends_with_a_picture_and_advice(worker_database: str, database_pool: Settings) -> None:
    """Takes some seconds: an API and a worker of their own, so that no other test's worker answers."""
    url, said = own_valkey(11), io.StringIO()
    starting = run_api(worker_database, REDIS_URL=url)
    api = await asyncio.to_thread(starting.__enter__)
    try:
        async with open_shop(f"{api.url}/graphql") as shop:
            await program(shop, convertsOn="JOIN")
            await accepted(shop, await shop.member())
            with run_worker(url):
                async with Engine(shop.url, shop.admin, "a test") as engine:
                    assert await closing.told_insights(engine, Console(file=said, width=200)) is True
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)

    network, advice = said.getvalue().splitlines()
    assert network == "The network: 2 members, 1 referrals, 0 hubs."
    assert advice.startswith("The advice: ")
    assert advice.endswith(" offers, from RULES.")


async def test_a_worker_that_never_comes_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "WORK_SECONDS_MAX", 0.5)
    said = io.StringIO()

    async with Engine(shop.url, shop.admin, "a test") as engine:
        assert await closing.told_insights(engine, Console(file=said, width=200)) is False

    assert said.getvalue().startswith("No snapshot or no advice: ")


async def test_a_broken_promise_is_told(shop: Shop) -> None:
    await shop.member()
    said = io.StringIO()
    async with Engine(shop.url, shop.admin, "a test") as engine:
        assert await closing.told_integrity(engine, Console(file=said)) is True
        await set_points(5, shop.merchant_id)
        assert await closing.told_integrity(engine, Console(file=said)) is False
        await set_points(0, shop.merchant_id)

    assert said.getvalue() == "Every promise holds.\nbroken: EXACT_BALANCES by 2 rows\n"
