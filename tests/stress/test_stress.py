"""flash stress. Without these its verdict could be a compliment, or its races could leave a merchant changed."""

import asyncio
import re
from pathlib import Path

import pytest

from app.storage.database import database
from app.stress import histories, stress
from app.stress.operations import read
from app.stress.report import Outcome
from tests.conftest import Api, run_api
from tests.factories import Shop
from tests.histories.conftest import judging as judging  # noqa: PLC0414  (a fixture of this file, too)
from tests.histories.judging import Case, Judge, counterexample, timeline
from tests.operate.processes import flash
from tests.referrals.documents import program
from tests.unguarded import set_points, unguarded
from tests.webhooks.documents import eventually

MEMBERS = 60
LEFT = """
SELECT (SELECT count(*) FROM pool WHERE merchant_id = $1 AND status <> 'ARCHIVED') AS open_pools,
    (SELECT count(*) FROM invite WHERE merchant_id = $1 AND status = 'PENDING') AS open_invites,
    (SELECT sum(points) FROM wallet WHERE merchant_id = $1) AS points
"""
FIRST_POOL = """
SELECT id FROM (SELECT * FROM pool WHERE merchant_id = $1 ORDER BY id LIMIT 1) first WHERE status = $2
"""


async def test_two_processes_keep_every_promise_and_nothing_stays_open(
    shop: Shop, api: Api, worker_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await program(shop, invitesPerBatch=10, invitesPerDay=70, invitesLifetime=100)
    with run_api(worker_database) as second:
        status = await stress([shop.url, f"{second.url}/graphql"], shop.admin, MEMBERS)

    assert re.sub(r"[\d.]+ s\)", "s)", capsys.readouterr().out).splitlines() == [
        "held    one member taps (100 requests, s): 1 code, claimed 1 time",
        "held    members rush for codes (60 requests, s): 42 codes, 18 too late, stock 0 + 42",
        "held    checkouts, an order each (50 requests, s): 1 redeemed, 49 refused, 0 replayed",
        "held    checkouts, the same order (50 requests, s): 1 redeemed, 0 refused, 49 replayed",
        "held    more is spent than is there (70 requests, s): 20 spent, 30 refused, 20 replayed, 0 points left",
        "held    batches of invites (50 requests, s): 70 of 70 sent, 15 batches refused",
        "held    what the rows say (1 requests, s): 13 promises hold",
        "Every promise held.",
    ]
    assert status == 0
    (left,) = await database().rows(LEFT, shop.merchant_id)
    assert tuple(left.values()) == (0, 0, 0)


async def test_the_histories_of_small_worlds_are_written_and_can_be_judged(
    shop: Shop, api: Api, second_api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], judging: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await program(shop, invitesPerBatch=10, invitesPerDay=70, invitesLifetime=10)
    monkeypatch.setattr(histories, "WORLDS", 2)
    file = tmp_path / "histories.jsonl"

    held = await histories.record([f"{each.url}/graphql" for each in (api, second_api)], shop.admin, file)

    written = list(read(file.read_text().splitlines()))
    count = sum(len(history.operations) for history in written)
    assert held
    assert capsys.readouterr().out == f"{count:,} operations of 2 small worlds are written to {file}.\n"
    verdicts = [judging.verdict(Case(history, history.operations)) for history in written]
    assert verdicts == ["Ok", "Ok"], [timeline(counterexample(judging, history)) for history in written]
    (left,) = await database().rows(LEFT, shop.merchant_id)
    assert (left["open_pools"], left["open_invites"]) == (0, 0)


async def test_a_broken_promise_is_the_verdict(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    await shop.member()
    await set_points(5, shop.merchant_id)

    status = await stress([shop.url], shop.admin, 2)

    async with unguarded("wallet") as tx:
        await tx.rows("UPDATE wallet SET points = 0 WHERE merchant_id = $1 AND points = 5", shop.merchant_id)
    output = capsys.readouterr().out
    assert status == 1
    # Neither the entries nor the lots explain it.
    assert re.search(
        r"^BROKEN  what the rows say .*: EXACT_BALANCES: 2; expected: 13 promises hold$", output, re.MULTILINE
    )
    assert "Invites aren't raced for: a member may send 0 a day.\n" in output
    assert output.endswith("1 of 6 broke.\n")


async def test_stopped_it_tidies_up_and_has_no_verdict(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    stressing = asyncio.create_task(stress([shop.url], shop.admin, 2))

    async def has_begun() -> bool:
        return await database().row(FIRST_POOL, shop.merchant_id, "ACTIVE") is not None

    await eventually(has_begun)
    stressing.cancel()

    assert await stressing == 130
    assert await database().row(FIRST_POOL, shop.merchant_id, "ARCHIVED")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "flash: Stopped before the verdict; the pools that it activated are archived.\n"


def test_a_race_that_found_something_else_broke() -> None:
    assert Outcome("a race", 1, "1 code", "1 code", 0.1).held
    assert not Outcome("a race", 1, "1 code", "2 code", 0.1).held


async def test_only_an_admin_fires(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    before = await shop.state()
    checkout = await shop.key("CHECKOUT")

    assert await stress([shop.url], checkout, 2) == 1

    assert capsys.readouterr().err == "flash: The races need an ADMIN key, and the role of this one is CHECKOUT.\n"
    assert (await shop.state()).since(before) == {"api_key": 1, "event": 1}


async def test_without_a_yes_it_asks_for_one(shop: Shop, tmp_path: Path) -> None:
    before = await shop.state()

    refused = await asyncio.to_thread(flash, "stress", shop.url, "--key", shop.admin, FLASH_DATA=str(tmp_path))

    assert refused.returncode == 1
    assert refused.stderr == (
        "flash: This makes 1,000 members and some pools for the key's merchant, which stay; confirm by --yes.\n"
    )
    assert await shop.state() == before
