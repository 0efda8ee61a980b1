"""Reports that workers keep. Without these a large merchant could see none, wait for ever, or take old figures for new.

A report is one that isn't quick once its last run took long: that is what `_as_large` makes of a shop's.
"""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.advisor.advise import NO_FIGURES, advise_waiting
from app.advisor.figures import compute, compute_shown, report
from app.config import settings
from app.reports import runs
from app.reports.runs import CheckStatus, Computed
from app.storage import leases
from app.storage.database import database
from tests.advisor.documents import advised, ask, read
from tests.factories import Shop
from tests.unguarded import set_points
from workers.keep_reports import COMPUTATIONS

REPORT = "{ integrityReport { status problem checkedAt ok checks { name violations } } }"
CHECK = """
mutation { checkIntegrity { ... on CheckIntegritySuccess { report { status problem checkedAt ok } } } }
"""
PORTFOLIO = "{ portfolio { generatedAt status problem pools { pool { name } claimRate } segments { memberCount } } }"
ROW = "SELECT id, status, attempts, problem, content FROM report_run WHERE merchant_id = $1 AND kind = $2"
AS_LARGE = "UPDATE report_run SET seconds = 1000, generated_at = now() - interval '1 day' WHERE merchant_id = $1"
TAKE_ON = """
UPDATE report_run SET status = 'RUNNING', attempts = attempts + 1, started_at = now(), lease_until = now()
WHERE merchant_id = $1 RETURNING merchant_id, id, attempts, kind
"""
YESTERDAYS = "UPDATE merchant SET created_at = now() - interval '3 days' WHERE merchant_id = $1"
EARLIER = "UPDATE report_run SET requested_at = now() - interval '2 days' WHERE merchant_id = $1"
SECONDS_MAX = 60.0

KINDS = ("quiet", "drawn", "eventful", "old", "large", "broken", "failed")
#: Merchants whose own night is so many nights from now, with a run of their promises two nights ago.
MERCHANTS = """
WITH made AS MATERIALIZED (
    SELECT gen_random_uuid() AS id FROM generate_series(1, 500)
), placed AS (
    SELECT id, own, row_number() OVER (PARTITION BY own ORDER BY id) AS place
    FROM (SELECT id, (hashtext(id::text) & 2147483647) % 7 AS own FROM made) each
), chosen AS (
    SELECT k.kind, n.nights, p.id
    FROM unnest($1::text[]) WITH ORDINALITY AS k (kind, place), unnest('{0,1,3}'::int[]) AS n (nights), placed p
    WHERE p.place = k.place
        AND p.own = (extract(epoch FROM now() - interval '3 hours')::bigint / 86400 + n.nights) % 7
), m AS (
    INSERT INTO merchant (merchant_id, name, currency, created_at) SELECT id, kind, 'USD', now() FROM chosen
), r AS (
    INSERT INTO report_run (merchant_id, kind, id, status, problem, actor, attempts, requested_at, finished_at,
                            generated_at, seconds, content)
    SELECT id, 'INTEGRITY', gen_random_uuid(), CASE kind WHEN 'failed' THEN 'FAILED' ELSE 'DONE' END,
        CASE kind WHEN 'failed' THEN 'x' END, 'system', 1, now() - interval '2 days', now() - interval '2 days',
        now() - CASE kind WHEN 'old' THEN 8 ELSE 2 END * interval '1 day', CASE kind WHEN 'large' THEN 1000 ELSE 1 END,
        CASE kind WHEN 'broken' THEN '[["A", 0], ["B", 1]]' ELSE '[["A", 0], ["B", 0]]' END::jsonb
    FROM chosen
), e AS (
    INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
    SELECT id, uuidv7(), CASE kind WHEN 'drawn' THEN 'graph_snapshot.taken' ELSE 'member.edited' END, 'member',
        gen_random_uuid(), 'system', now()
    FROM chosen WHERE kind IN ('drawn', 'eventful')
    UNION ALL
    SELECT id, (left(event_first_id(now() - interval '3 days')::text, 24) || right(gen_random_uuid()::text, 12))::uuid,
        'merchant.created', 'merchant', id, 'system', now() - interval '3 days'
    FROM chosen
)
SELECT kind, nights, id FROM chosen
"""
PASSED = """
SELECT merchant_id FROM report_run WHERE merchant_id = ANY($1) AND requested_at > now() - interval '1 day'
"""


async def worked() -> None:
    """Carry out what waits, as a worker does."""
    while await runs.carry_out(COMPUTATIONS, seconds_max=SECONDS_MAX):
        pass


async def _kept(shop: Shop, kind: str = runs.INTEGRITY) -> Any:
    return await database().row(ROW, shop.merchant_id, kind)


async def _as_large(shop: Shop, kind: str) -> None:
    await runs.request(shop.merchant_id, kind, "system")
    await worked()
    await database().row(AS_LARGE, shop.merchant_id)


async def test_a_report_is_asked_for_once_and_a_worker_computes_it(shop: Shop) -> None:
    before, analyst = await shop.state(), await shop.key("ANALYST")

    first = (await shop.data(CHECK, key=analyst))["checkIntegrity"]["report"]
    row = await _kept(shop)
    again = (await shop.data(CHECK))["checkIntegrity"]["report"]
    meanwhile = (await shop.data(REPORT))["integrityReport"]
    (same,) = [await _kept(shop)]
    await worked()
    done = await runs.kept(shop.merchant_id, runs.INTEGRITY)

    assert first == again == {"status": "RUNNING", "problem": None, "checkedAt": None, "ok": False}
    assert meanwhile == first | {"checks": []}
    assert same["id"] == row["id"]
    assert (done.status, {rows for _, rows in done.content}) == (CheckStatus.DONE, {0})
    assert (await shop.state()).since(before)["report_run"] == 1
    # A small merchant's is of now.
    assert (await shop.data(REPORT))["integrityReport"]["checkedAt"] > done.generated_at.isoformat()  # type: ignore[union-attr]


async def test_of_many_who_ask_at_once_all_get_one_run(shop: Shop) -> None:
    await asyncio.gather(*(runs.request(shop.merchant_id, runs.INTEGRITY, "system") for _ in range(10)))

    assert (await _kept(shop))["attempts"] == 0
    assert await shop.count("report_run") == 1


async def test_a_large_merchants_promises_are_those_of_the_last_run(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.member()
    await _as_large(shop, runs.INTEGRITY)
    await set_points(5, shop.merchant_id)

    old = (await shop.data(REPORT))["integrityReport"]
    asked = (await shop.data(CHECK))["checkIntegrity"]["report"]
    await worked()
    found = (await shop.data(REPORT))["integrityReport"]
    await set_points(0, shop.merchant_id)

    assert (old["status"], old["ok"]) == ("DONE", True)
    assert (asked["status"], asked["ok"], asked["checkedAt"]) == ("RUNNING", True, old["checkedAt"])
    assert (found["status"], found["ok"]) == ("DONE", False)
    assert [check for check in found["checks"] if check["violations"]] == [{"name": "EXACT_BALANCES", "violations": 2}]
    assert "integrity.violated" in await shop.event_types()
    merchant = ids.encode("merchant", shop.merchant_id)
    assert f"{merchant}: EXACT_BALANCES is broken by 2 rows" in caplog.messages


async def test_a_run_that_takes_too_long_ends_and_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await _as_large(shop, runs.INTEGRITY)
    before = (await shop.data(REPORT))["integrityReport"]
    await shop.data(CHECK)
    with monkeypatch.context() as patched:
        patched.setenv("FLASH_REPORT_SECONDS_MAX", "0.001")
        settings.cache_clear()
        await worked()
    settings.cache_clear()
    failed = (await shop.data(REPORT))["integrityReport"]

    problem = "It took longer than 0.001 seconds (FLASH_REPORT_SECONDS_MAX)."
    assert failed == before | {"status": "FAILED", "problem": problem}
    assert (await shop.data(CHECK))["checkIntegrity"]["report"]["problem"] is None


async def test_a_run_that_fails_in_another_way_ends_alone(
    shop: Shop, other_shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(merchant_id: UUID, _seconds_max: float | None) -> Computed:
        if merchant_id == shop.merchant_id:
            raise ArithmeticError("the rows make no sense")
        return Computed([])

    for each in (shop, other_shop):
        await each.data(CHECK)
    while await runs.carry_out({**COMPUTATIONS, runs.INTEGRITY: broken}, seconds_max=SECONDS_MAX):
        pass

    row = await _kept(shop)
    assert row["status"] == "FAILED"
    assert row["problem"].startswith("It ended with an internal error; the worker's log has it as ")
    assert "the rows make no sense" in caplog.text
    assert (await _kept(other_shop))["status"] == "DONE"


async def test_a_run_whose_worker_was_killed_is_taken_up_and_ended_once_three_were(shop: Shop) -> None:
    await shop.data(CHECK)
    (left,) = await database().rows(TAKE_ON, shop.merchant_id)
    await worked()
    taken_up = await _kept(shop)
    await runs.fail(left, "It is no longer ours.")  # type: ignore[arg-type]
    await shop.data(CHECK)
    for _ in range(leases.ATTEMPTS_MAX):
        await database().rows(TAKE_ON, shop.merchant_id)
    await worked()
    ended = await _kept(shop)

    assert (taken_up["status"], taken_up["attempts"]) == ("DONE", 2)
    assert (ended["status"], ended["problem"]) == ("FAILED", runs.KILLED)
    assert ended["content"] == taken_up["content"]


async def test_a_worker_that_is_told_to_end_gives_its_run_back(shop: Shop) -> None:
    reached = asyncio.Event()

    async def slow(_merchant_id: UUID, _seconds_max: float | None) -> Computed:
        reached.set()
        await asyncio.Event().wait()
        return Computed([])

    await worked()
    await shop.data(CHECK)
    working = asyncio.create_task(runs.carry_out({runs.INTEGRITY: slow}, seconds_max=SECONDS_MAX))
    await reached.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await worked()

    assert (await _kept(shop))["status"] == "DONE"


async def test_every_night_has_a_run_of_each_merchants_promises_and_of_portfolios_that_are_large(shop: Shop) -> None:
    await database().row(YESTERDAYS, shop.merchant_id)

    await worked()
    promises, portfolio = await _kept(shop), await _kept(shop, runs.PORTFOLIO)
    await database().row(AS_LARGE, shop.merchant_id)
    await worked()
    once, large = await _kept(shop), await _kept(shop, runs.PORTFOLIO)
    await database().row(EARLIER, shop.merchant_id)
    await worked()
    next_night = await _kept(shop)

    assert (promises["status"], portfolio) == ("DONE", None)
    assert (once["id"], large["status"]) == (promises["id"], "DONE")
    assert next_night["id"] != promises["id"]


@pytest.mark.usefixtures("database_pool")
async def test_the_night_passes_over_promises_that_nothing_can_have_broken() -> None:
    made = {(row["kind"], row["nights"]): row["id"] for row in await database().rows(MERCHANTS, list(KINDS))}

    await runs.pass_over()
    passed = {row["merchant_id"] for row in await database().rows(PASSED, list(made.values()))}

    assert {kind for kind in KINDS if made[kind, 3] in passed} == {"quiet", "drawn"}
    # One of these nights is this one: the other is the next, or was the last before a night began just now.
    assert sorted(made["quiet", nights] in passed for nights in (0, 1)) == [False, True]


async def test_a_merchant_of_today_waits_for_its_first_night(shop: Shop) -> None:
    await worked()

    assert await _kept(shop) is None


async def test_a_portfolio_that_is_not_quick_is_asked_for_and_told_once_it_is_there(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(_merchant_id: UUID, _seconds_max: float | None) -> Computed:
        await asyncio.Event().wait()
        return Computed([])

    await shop.pool(codes=2, name="large")
    with monkeypatch.context() as patched:
        patched.setenv("FLASH_REPORT_AT_ONCE_SECONDS_MAX", "0.01")
        settings.cache_clear()
        found = await report(shop.merchant_id, slow)
    settings.cache_clear()
    missing = await shop.post(PORTFOLIO)
    await worked()
    await database().row("UPDATE report_run SET seconds = 1000 WHERE merchant_id = $1", shop.merchant_id)
    kept = (await shop.data(PORTFOLIO))["portfolio"]
    await shop.pool(codes=2, name="made since")
    again = (await shop.data(PORTFOLIO))["portfolio"]
    await database().row(AS_LARGE, shop.merchant_id)
    old = (await shop.data(PORTFOLIO))["portfolio"]

    assert (found.status, found.content) == (CheckStatus.RUNNING, None)
    (error,) = missing["errors"]
    assert error["extensions"]["code"] == "TIMEOUT"
    assert error["message"].startswith("Its figures are being computed")
    assert kept["status"] == "DONE"
    assert [each["pool"]["name"] for each in kept["pools"]] == ["large"]
    assert again == kept
    assert (old["status"], old["pools"], old["generatedAt"] < kept["generatedAt"]) == ("RUNNING", kept["pools"], True)


async def test_figures_are_the_same_at_once_and_kept(shop: Shop) -> None:
    pool = await shop.pool(codes=4)
    await shop.claim(pool, await shop.member())
    at_once = (await shop.data(PORTFOLIO))["portfolio"]
    await _as_large(shop, runs.PORTFOLIO)
    kept = (await shop.data(PORTFOLIO))["portfolio"]

    assert at_once["pools"] == kept["pools"] == [{"pool": {"name": pool["name"]}, "claimRate": 0.25}]
    assert at_once["segments"] == kept["segments"]
    assert (await compute(shop.merchant_id, None)).content.keys() - (
        await compute_shown(shop.merchant_id, None)
    ).content.keys() == {"reach"}


async def test_the_advisor_waits_for_figures_and_starts_from_those_that_are_kept(shop: Shop) -> None:
    await shop.pool(codes=2)
    await runs.request(shop.merchant_id, runs.PORTFOLIO, "system")
    run = await ask(shop)
    await advise_waiting(seconds_max=SECONDS_MAX)
    waiting = await read(shop, run)
    (held,) = await database().rows("SELECT attempts FROM advice_run WHERE merchant_id = $1", shop.merchant_id)
    await worked()
    await database().row("UPDATE advice_run SET lease_until = now() WHERE merchant_id = $1", shop.merchant_id)
    ended = await advised(shop)

    assert (waiting["status"], held["attempts"]) == ("RUNNING", 0)
    assert (ended["id"], ended["status"]) == (run["id"], "DONE")


async def test_the_advisor_says_that_there_are_no_figures_and_ends(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await runs.request(shop.merchant_id, runs.PORTFOLIO, "system")
    with monkeypatch.context() as patched:
        patched.setenv("FLASH_REPORT_SECONDS_MAX", "0.001")
        settings.cache_clear()
        await worked()
    settings.cache_clear()

    run = await advised(shop)
    shown = await shop.post(PORTFOLIO)

    why = "It took longer than 0.001 seconds (FLASH_REPORT_SECONDS_MAX)."
    assert (run["status"], run["problem"]) == ("FAILED", f"{NO_FIGURES} {why}")
    assert shown["errors"][0]["message"] == (f"Its figures couldn't be computed. {why} The next try is this night's.")
    assert shown["errors"][0]["extensions"]["code"] == "TIMEOUT"
