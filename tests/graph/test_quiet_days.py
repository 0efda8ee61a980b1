"""Days on which nothing changes. Without these a year of them would be stored in full, or show what is no longer so."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.graph import jobs
from app.graph.drawing import DrawingError
from app.graph.forget_snapshots import drop_unshown
from app.graph.take_snapshots import STANDING, STORE_AGAIN
from app.storage.database import database, transaction
from app.storage.statements import NoRow, statement
from tests.factories import Shop
from tests.graph.documents import JOB, LATEST, TAKE, age, take_all, taken
from tests.people.documents import MERGE
from tests.referrals.documents import accepted, program

SECONDS_MAX = 60
STORED = """
SELECT (SELECT count(*) FROM graph_snapshot WHERE merchant_id = $1) AS snapshots,
    (SELECT count(*) FROM graph_drawing WHERE merchant_id = $1) AS drawings,
    (SELECT count(*) FROM graph_node WHERE merchant_id = $1) AS nodes,
    (SELECT count(*) FROM graph_edge WHERE merchant_id = $1) AS edges,
    (SELECT count(*) FROM graph_file WHERE merchant_id = $1) AS files
"""
#: A statement that has what REPEAT takes, and fails.
BROKEN = statement(NoRow, "SELECT :is_large::bool, 1 / (cardinality(:event_ids::uuid[]) * 0)")
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"


async def stored(shop: Shop) -> tuple[int, ...]:
    """Return how many snapshots, drawings, nodes, edges and files a shop has."""
    row = await database().row(STORED, shop.merchant_id)
    assert row is not None
    return tuple(row.values())


async def settled(shop: Shop) -> Any:
    """Take snapshots on two days, so that the next one has nothing to draw. Returns the second, which is a day old."""
    for _ in range(2):
        await taken(shop)
        await age(shop)
    return (await shop.data(LATEST))["latestGraphSnapshot"]


async def standing(shop: Shop) -> Any:
    """Return the drawing that a snapshot of today would show again, if there is one."""
    today = "SELECT (now() AT TIME ZONE time_zone)::date AS taken_on FROM merchant WHERE merchant_id = $1"
    (day,) = await database().rows(today, shop.merchant_id)
    row = await database().row(STANDING, merchant_id=shop.merchant_id, **day)
    return None if row is None else row["drawing_id"]


async def file(shop: Shop, snapshot: Any) -> str:
    """Return the text of a snapshot's picture."""
    return (await shop.http.get(shop.url.removesuffix("/graphql") + snapshot["svgUrl"])).text


async def test_a_day_without_changes_shows_the_drawing_of_the_one_before(shop: Shop) -> None:
    await program(shop)
    hub = await shop.member()
    for _ in range(3):
        await accepted(shop, hub)
    before = await settled(shop)
    assert await stored(shop) == (2, 2, 8, 6, 6)

    snapshot = await taken(shop)
    again = await taken(shop)

    assert await stored(shop) == (3, 2, 8, 6, 6)
    assert len({before["id"], snapshot["id"], again["id"]}) == 3
    assert again["takenOn"] > again["drawnOn"] == again["comparedWith"] == before["takenOn"]
    own = {"id", "takenOn", "takenAt", "drawnOn", "comparedWith", "svgUrl", "dataUrl"}
    assert {name: again[name] for name in again.keys() - own} == {name: before[name] for name in again.keys() - own}
    assert await file(shop, again) == await file(shop, before)
    assert (await shop.event_types())[-2:] == ["graph_job.requested", "graph_snapshot.taken"]


async def test_days_without_changes_are_stored_by_one_statement_or_each_by_itself(
    shop: Shop, other_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shops = (shop, other_shop)
    for each in shops:
        await program(each)
        await accepted(each, await each.member())
        await settled(each)
        await jobs.request(each.merchant_id, "system")
    with monkeypatch.context() as patched:
        patched.setattr("app.graph.take_snapshots._draw", None)
        patched.setattr("app.graph.take_snapshots._repeat", None)
        await take_all()
    together = [await stored(each) for each in shops]
    for each in shops:
        await age(each)
        await jobs.request(each.merchant_id, "system")
    monkeypatch.setattr("app.graph.take_snapshots.REPEAT", BROKEN)
    monkeypatch.setattr("app.graph.take_snapshots._draw", None)
    await take_all()

    assert together == [(3, 2, 4, 2, 6)] * 2
    assert [await stored(each) for each in shops] == [(4, 2, 4, 2, 6)] * 2
    assert "can't be stored together" in caplog.text
    for each in shops:
        assert (await each.event_types())[-2:] == ["graph_job.requested", "graph_snapshot.taken"]


async def test_a_day_after_one_with_news_is_drawn_without_them(shop: Shop) -> None:
    await program(shop)
    hub = await shop.member()
    await accepted(shop, hub)
    await settled(shop)
    await accepted(shop, hub)
    await accepted(shop, hub)
    news = await taken(shop)
    await age(shop)

    snapshot = await taken(shop)

    assert [(each["newReferralCount"], each["newHubCount"]) for each in (news, snapshot)] == [(2, 1), (0, 0)]
    assert snapshot["drawnOn"] == snapshot["takenOn"]
    assert snapshot["newEdges"]["edges"] == snapshot["newHubs"]["edges"] == []


async def test_whatever_changes_an_edge_ends_what_stands(shop: Shop) -> None:
    await program(shop)
    hub = await shop.member()
    one, other = [(await accepted(shop, hub))["member"] for _ in range(2)]
    await settled(shop)
    edge = "UPDATE referral SET {} WHERE merchant_id = $1 AND referee_id = $2"
    arguments = (shop.merchant_id, ids.decode("member", other["id"]))
    changes = (
        "reversed_at = now(), shortfall = 0, falls = 1",
        "reversed_at = NULL, shortfall = NULL",
    )
    for change in changes:
        assert await standing(shop) is not None
        await database().row(edge.format(change), *arguments)
        assert await standing(shop) is None
        await settled(shop)
    await database().row(edge.format("flags = '{SAME_DEVICE}'"), *arguments)
    assert await standing(shop) is not None
    await shop.do(MERGE, keptId=one["id"], mergedId=(await shop.member())["id"], reason="one person twice")
    assert await standing(shop) is not None
    await shop.do(MERGE, keptId=(await shop.member())["id"], mergedId=one["id"], reason="one person twice")
    assert await standing(shop) is None


async def test_a_drawing_stays_for_a_day_that_shows_it_while_it_is_to_go(shop: Shop) -> None:
    await program(shop)
    await accepted(shop, await shop.member())
    before = ids.decode("graph", (await settled(shop))["id"])
    job = await jobs.request(shop.merchant_id, "system")
    (day,) = await database().rows("SELECT taken_on FROM graph_job WHERE id = $1", job["id"])

    async def forget() -> None:
        await is_shown.wait()
        async with transaction(None) as tx:
            await tx.row("DELETE FROM graph_snapshot WHERE merchant_id = $1 AND id = $2", shop.merchant_id, before)
            await drop_unshown(tx, [(shop.merchant_id, shown["drawing_id"])])

    is_shown = asyncio.Event()
    forgetting = asyncio.create_task(forget())
    async with transaction(shop.merchant_id) as tx:
        shown: Any = await tx.row(STANDING, merchant_id=shop.merchant_id, **day)
        is_shown.set()
        async with asyncio.timeout(SECONDS_MAX):
            while not forgetting.done() and not await tx.rows(WAITING):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
        await tx.row(STORE_AGAIN, merchant_id=shop.merchant_id, snapshot_id=job["id"], **day, **shown)
    await forgetting

    latest = (await shop.data(LATEST))["latestGraphSnapshot"]
    assert (latest["id"], latest["memberCount"]) == (ids.encode("graph", job["id"]), 2)
    assert len(latest["nodes"]["edges"]) == 2


@pytest.mark.parametrize(("failure", "jobs_of_the_next_day"), [("TOO_LARGE", 0), ("FAULT", 0), ("TOO_SLOW", 1)])
async def test_a_network_that_could_not_be_drawn_is_not_tried_again_as_it_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, failure: str, jobs_of_the_next_day: int
) -> None:
    await program(shop)
    hub = await shop.member()
    await accepted(shop, hub)
    await age(shop)

    def refuse(*_args: object) -> bytes:
        raise DrawingError(failure, "it can't")

    monkeypatch.setattr("tests.graph.documents.draw", refuse)
    monkeypatch.setattr("app.graph.drawing.Drawer.drawn", refuse)
    job_id = (await shop.data(TAKE))["answer"]["jobId"]
    await take_all()
    job = (await shop.data(JOB, {"id": job_id}))["graphSnapshotJob"]
    await age(shop)

    await jobs.plan()
    planned = await jobs_waiting(shop)
    await accepted(shop, hub)
    await jobs.plan()

    assert (job["status"], job["failure"], job["snapshot"]) == ("FAILED", failure, None)
    assert [planned, await jobs_waiting(shop)] == [jobs_of_the_next_day, 1]


async def jobs_waiting(shop: Shop) -> int:
    """Return how many of the shop's jobs wait."""
    statement = "SELECT FROM graph_job WHERE merchant_id = $1 AND status = 'QUEUED'"
    return len(await database().rows(statement, shop.merchant_id))
