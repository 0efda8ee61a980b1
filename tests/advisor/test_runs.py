"""Runs. Without these a merchant could wait for ever, pay for two models at once, or see another one's advice."""

import asyncio
import json
from typing import Any

import pytest

from app import ids
from app.advisor import advise, runs
from app.advisor.advise import advise_waiting
from app.advisor.checks import runs_already
from app.advisor.facts import gather
from app.config import Settings, settings
from app.storage import doorbell
from app.storage.database import database
from tests.advisor.documents import ADVICE_RUN, ASK, FOLLOW, advised, ask, read
from tests.conftest import own_valkey, run_api, run_worker
from tests.factories import CREATE_POOL, EDIT_POOL, Shop, open_shop
from tests.wallets.sockets import address, joined
from tests.web.test_event_streams import streaming

LATEST = "{ latestAdviceRun { id } }"
STATUS = "SELECT status, attempts FROM advice_run WHERE merchant_id = $1 ORDER BY id"
SECONDS_MAX = 60


async def _taken_on(shop: Shop) -> Any:
    """Take this shop's run on, whatever else waits."""
    statement = """
    UPDATE advice_run SET status = 'RUNNING', attempts = attempts + 1, started_at = now(),
        lease_until = now() + interval '5 minutes'
    WHERE merchant_id = $1 AND status IN ('QUEUED', 'RUNNING') RETURNING merchant_id, id, actor, attempts
    """
    row = await database().row(statement, shop.merchant_id)
    assert row is not None
    return row


async def _statuses(shop: Shop) -> list[tuple[str, int]]:
    return [(row["status"], row["attempts"]) for row in await database().rows(STATUS, shop.merchant_id)]


async def test_a_run_ends_with_suggestions_that_can_be_created(shop: Shop) -> None:
    await shop.pool(codes=2)
    before = await shop.state()

    run = await advised(shop)

    assert run["status"] == "DONE"
    assert run["requestedAt"] < run["startedAt"] <= run["finishedAt"]
    assert json.loads(run["facts"])["pools"][0]["ref"] == "P1"
    assert (await shop.state()).since(before) == {
        "advice_run": 1, "suggestion": len(run["suggestions"]), "event": 2
    }  # fmt: skip
    assert (await shop.event_types())[-2:] == ["advice_run.requested", "advice_run.finished"]
    for each in run["suggestions"]:
        draft = {name: value for name, value in each["draft"].items() if value is not None}
        assert (await shop.do(CREATE_POOL, **draft))["__typename"] == "CreatePoolSuccess"
    adopted = await advised(shop)
    first, again = ({(s["segment"], str(s["draft"])) for s in each["suggestions"]} for each in (run, adopted))
    assert again
    assert not first & again


async def test_a_pool_blocks_advice_for_its_audience_alone(shop: Shop) -> None:
    pool = await shop.pool(audience=["LAPSED"])
    member = await shop.member()
    facts = await gather(shop.merchant_id)
    (aimed,) = facts.pools
    await shop.do(EDIT_POOL, poolId=pool["id"], audience=[])
    await shop.claim(pool, member)
    (for_everybody,) = (await gather(shop.merchant_id)).pools

    assert aimed.reaches == ("lapsed",)
    assert for_everybody.reaches == ("new",)
    assert runs_already(facts, "lapsed", "PERCENT", 10.0) == aimed
    assert runs_already(facts, "new", "PERCENT", 10.0) is None


async def test_a_merchant_without_anything_is_advised_too(shop: Shop) -> None:
    run = await advised(shop)

    assert run["status"] == "DONE"
    assert {each["segment"] for each in run["suggestions"]} == {"new"}


async def test_of_ten_who_ask_at_once_all_get_one_run(shop: Shop, second_api: Any) -> None:
    urls = [shop.url, f"{second_api.url}/graphql"] * 5
    answers = await asyncio.gather(*(shop.data(ASK, url=url) for url in urls))

    (run_id,) = {answer["answer"]["run"]["id"] for answer in answers}
    assert (await shop.event_types()).count("advice_run.requested") == 1
    assert (await ask(shop))["id"] == run_id
    ended = await advised(shop)
    assert ended["id"] == run_id
    assert (await ask(shop))["id"] != run_id
    assert (await shop.data(LATEST))["latestAdviceRun"]["id"] == (await ask(shop))["id"]


async def test_a_run_that_is_worked_twice_at_once_is_answered_once(shop: Shop) -> None:
    await ask(shop)
    await asyncio.gather(*(advise_waiting(seconds_max=60) for _ in range(3)))
    await advised(shop)

    assert (await shop.event_types()).count("advice_run.finished") == 2
    assert [status for status, _ in await _statuses(shop)] == ["DONE", "DONE"]


async def test_a_worker_that_lost_its_run_stores_nothing_and_the_next_answers_by_rules(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ask(shop)
    held = await _taken_on(shop)
    await runs.release(held)

    with monkeypatch.context() as patched:
        patched.setenv("FLASH_ADVISOR_BASE_URL", "http://127.0.0.1:1/v1")
        settings.cache_clear()
        answered = await advised(shop)
    settings.cache_clear()

    await runs.fail(held, runs.KILLED)
    assert (answered["id"], answered["fallbackReason"]) == (run["id"], advise.ENDED_EARLIER)
    assert await _statuses(shop) == [("DONE", 2)]
    assert await runs.finish(held, _nothing()) is False
    assert (await read(shop, run))["suggestions"] == answered["suggestions"]


def _nothing() -> runs.Answer:
    return runs.Answer(
        source="RULES", model=None, prompt_version=None, fallback_reason="late", facts={}, suggestions=[], rejected=[],
        raw_answer=None,
    )  # fmt: skip


async def test_a_run_that_kills_every_worker_fails_after_three(shop: Shop) -> None:
    run = await ask(shop)
    for _ in range(3):
        await runs.release(await _taken_on(shop))
    await advise_waiting(seconds_max=60)
    await runs.waiting()

    assert (await read(shop, run))["status"] == "FAILED"
    assert (await shop.event_types())[-1] == "advice_run.failed"
    assert (await advised(shop))["status"] == "DONE"


async def test_a_run_that_can_not_be_worked_fails_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await ask(shop)

    async def broken(merchant_id: object) -> None:
        if merchant_id == shop.merchant_id:
            raise ArithmeticError("the facts make no sense")

    with monkeypatch.context() as patched:
        patched.setattr(advise, "gather", broken)
        while (await read(shop, run))["status"] != "FAILED":
            await advise_waiting(seconds_max=1)

    assert (await read(shop, run))["finishedAt"]


async def test_a_cancelled_worker_gives_its_run_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(shop)
    reached = asyncio.Event()

    async def slow(_merchant_id: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(advise, "gather", slow)
        working = asyncio.create_task(advise_waiting(seconds_max=60))
        await reached.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    assert (await advised(shop))["status"] == "DONE"


async def test_while_valkey_is_away_a_run_waits_in_the_table(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        settings.cache_clear()
        await doorbell.wake_workers("advise")
    settings.cache_clear()
    await ask(shop)

    assert await runs.waiting() >= 1
    assert (await advised(shop))["status"] == "DONE"


async def test_the_table_refuses_a_second_live_run_and_half_an_answer(database_pool: Settings, shop: Shop) -> None:
    import asyncpg

    await ask(shop)
    insert = """
    INSERT INTO advice_run (merchant_id, id, status, actor, attempts, requested_at)
    VALUES ($1, $2, 'QUEUED', 'x', 0, now())
    """
    with pytest.raises(asyncpg.UniqueViolationError, match="advice_run_live"):
        await database().row(insert, shop.merchant_id, ids.new())
    for changed in (
        "status = 'DONE'",
        "finished_at = now()",
        "source = 'RULES'",
        "status = 'LOST'",
        "fallback_reason = 'x'",
    ):
        with pytest.raises(asyncpg.CheckViolationError, match="advice_run_"):
            await database().row(f"UPDATE advice_run SET {changed} WHERE merchant_id = $1", shop.merchant_id)


async def test_a_run_is_followed_over_a_socket_from_its_state_to_its_end(shop: Shop) -> None:
    run = await ask(shop)
    async with joined(address(shop), await shop.key("ANALYST")) as socket:
        await socket.send(type="subscribe", id="live", payload={"query": FOLLOW, "variables": {"run": run["id"]}})
        first = (await socket.receive())["payload"]["data"]["adviceRunChanged"]
        await advised(shop)
        seen = []
        while (message := await socket.receive())["type"] == "next":
            seen.append(message["payload"]["data"]["adviceRunChanged"])

    assert (first["status"], first["suggestions"]) == ("QUEUED", [])
    assert message == {"type": "complete", "id": "live"}
    assert seen[-1]["status"] == "DONE"
    assert seen[-1]["suggestions"]
    assert [each["status"] for each in seen] in (["RUNNING", "DONE"], ["DONE"])


async def test_a_run_that_has_ended_is_told_once_over_an_event_stream(shop: Shop) -> None:
    run = await advised(shop)

    async with streaming(shop, shop.admin, FOLLOW, run=run["id"]) as events:
        kind, told = await events.next()
        last, _ = await events.next()

    assert (kind, told["data"]["adviceRunChanged"]["status"]) == ("next", "DONE")
    assert last == "complete"


async def test_what_is_not_ours_can_not_be_followed_or_read(shop: Shop, other_shop: Shop) -> None:
    foreign = (await ask(other_shop))["id"]
    async with joined(address(shop), shop.admin) as socket:
        for node_id in (foreign, ids.encode("advicerun", ids.new()), "nothing"):
            await socket.send(type="subscribe", id="x", payload={"query": FOLLOW, "variables": {"run": node_id}})
            error = await socket.error()
            assert (error["extensions"]["code"], error["message"]) == ("NOT_FOUND", "There is no such run.")
    assert (await shop.data(ADVICE_RUN, {"id": foreign}))["adviceRun"] is None
    async with joined(address(shop), await shop.key("CHECKOUT")) as socket:
        await socket.send(type="subscribe", id="x", payload={"query": FOLLOW, "variables": {"run": foreign}})
        assert (await socket.error())["extensions"]["code"] == "FORBIDDEN"


async def test_a_real_worker_works_what_is_asked_for_and_it_is_told_live(worker_database: str, shop: Shop) -> None:
    """Takes some seconds: an API and a worker of their own, so that no other test's worker answers."""
    url = own_valkey(10)
    starting = run_api(worker_database, REDIS_URL=url)
    api = await asyncio.to_thread(starting.__enter__)
    try:
        async with open_shop(f"{api.url}/graphql") as served:
            await served.pool(codes=1)
            with run_worker(url):
                run = await ask(served)
                following = streaming(served, served.admin, FOLLOW, run=run["id"])
                async with asyncio.timeout(SECONDS_MAX), following as events:
                    told = []
                    while (event := await events.next())[0] == "next":
                        told.append(event[1]["data"]["adviceRunChanged"]["status"])
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)

    assert told[-1] == "DONE"
    assert told == sorted(set(told), key=["QUEUED", "RUNNING", "DONE"].index)
