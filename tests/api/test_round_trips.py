"""How often the engine asks PostgreSQL (S3). Without these a page could ask once per row, and only load would tell.

A proxy between an API process and PostgreSQL counts what the API waits for: each Sync, simple Query and Flush of
the wire protocol. Statements are prepared on first use, so each operation is done once before it is counted. What
authentication reads (a key at most every two seconds, a merchant every five) is shared by all requests of that time
and left out.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from app.config import Settings
from app.coupons import rows as coupons
from app.coupons import stock_levels
from app.members import rows as members
from app.reports.tables import REPORTS, money_of
from app.storage.database import database
from app.storage.statements import Statement
from bench.wire import AUTHENTICATION, counting
from tests.conftest import run_api
from tests.factories import CLAIM_CODE, ENROLL_MEMBER, GENERATE_CODES, REDEEM_CODES, Shop, open_shop, usd
from tests.orders.test_reverse_redemption import REVERSE

#: While the tables are small an index that starts with the merchant costs the planner as much as the right one, so
#: a look-up may read the merchant's few hundred rows; a join that reads them for each of the others touches millions.
BUFFERS_PER_PAGE_MAX = 100_000


@dataclass
class Counter:
    """Which statements the API waited for, in this order."""

    url: str
    waits: list[str] = field(default_factory=list)

    async def during(self, act: Callable[[], Awaitable[Any]]) -> list[str]:
        """Return the statements of one request, without those of authentication."""
        self.waits.clear()
        await act()
        return [statement for statement in self.waits if statement not in AUTHENTICATION]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def counter(worker_database: str) -> AsyncIterator[Counter]:
    """An API process with one connection, through the proxy, so that a statement is prepared once for all requests."""
    async with counting(worker_database) as (through, waits), contextlib.AsyncExitStack() as stack:
        running = run_api(through, FLASH_DATABASE_CONNECTIONS_MAX="1", FLASH_API_KEY_CACHE_SECONDS="5")
        # The proxy runs on this loop, so waiting for the process to get ready must not block it.
        api = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        yield Counter(f"{api.url}/graphql", waits)


@pytest_asyncio.fixture(loop_scope="session")
async def counted_shop(counter: Counter, database_pool: Settings) -> AsyncIterator[Shop]:
    """A shop that speaks to the counted API."""
    async with open_shop(counter.url) as opened:
        yield opened


async def test_the_counter_sees_a_statement_once_it_is_prepared(counter: Counter, counted_shop: Shop) -> None:
    document = "{ members { edges { cursor } } }"
    await counted_shop.data(document)

    waits = [await counter.during(lambda: counted_shop.data(document)) for _ in range(3)]
    nothing = await counter.during(lambda: counted_shop.data("{ viewer { role merchant { name } } }"))

    assert [len(each) for each in waits] == [1, 1, 1]
    assert "FROM member m" in waits[0][0]
    assert nothing == []


@pytest.mark.parametrize("claimant", ["memberId", "email"])
async def test_a_claim_is_one_round_trip_and_its_replay_two(
    counter: Counter, counted_shop: Shop, claimant: str
) -> None:
    pool = await counted_shop.pool(codes=10, claimsPerMember=3)
    members = [await counted_shop.member() for _ in range(4)]
    claimants = (
        [m["id"] for m in members] if claimant == "memberId" else [f"claimant-{n}@example.com" for n in range(4)]
    )

    async def claim(who: str, **more: Any) -> int:
        values = {"poolId": pool["id"], claimant: who} | more
        waits = await counter.during(lambda: counted_shop.do(CLAIM_CODE, **values))
        assert len(waits) <= 2
        # Now and then, and near a level of the stock, a claim is followed by a look at it.
        return len([statement for statement in waits if statement != stock_levels.CHECK.text])

    for _ in ("claims", "replays"):
        await counted_shop.do(CLAIM_CODE, **{"poolId": pool["id"], claimant: claimants[0]})

    assert [await claim(who) for who in claimants[1:]] == [1, 1, 1]
    assert [await claim(who) for who in claimants] == [2, 2, 2, 2]
    assert [await claim(claimants[0], idempotencyKey=key) for key in ("a", "b", "a")] == [1, 1, 2]


async def test_a_refused_claim_is_at_most_two_round_trips(counter: Counter, counted_shop: Shop) -> None:
    empty, member, late = await counted_shop.pool(codes=1), await counted_shop.member(), await counted_shop.member()
    await counted_shop.claim(empty, member)
    asked = {"poolId": empty["id"], "memberId": late["id"]}
    answer = await counted_shop.do(CLAIM_CODE, **asked)

    waits = await counter.during(lambda: counted_shop.do(CLAIM_CODE, **asked))

    assert answer["__typename"] == "PoolExhausted"
    assert len(waits) == 2


@pytest.mark.parametrize("claimant", ["memberId", "email"])
async def test_a_claim_that_the_first_fallback_serves_is_at_most_four_round_trips(
    counter: Counter, counted_shop: Shop, claimant: str
) -> None:
    last = await counted_shop.pool(codes=40)
    empty = await counted_shop.pool(codes=1, fallbackPoolId=last["id"])
    members = [await counted_shop.member() for _ in range(5)]
    claimants = (
        [m["id"] for m in members] if claimant == "memberId" else [f"claimant-{n}@example.com" for n in range(5)]
    )

    async def claim(who: str) -> list[str]:
        values = {"poolId": empty["id"], claimant: who}
        return await counter.during(lambda: counted_shop.do(CLAIM_CODE, **values))

    waits = [await claim(who) for who in claimants]
    replay = await claim(claimants[-1])

    # The claim that fails, why, and the one of the fallback; now and then a look at the stock.
    served = [[statement for statement in each if statement != stock_levels.CHECK.text] for each in waits[2:]]
    assert [len(each) for each in served] == [3, 3, 3]
    assert max(len(each) for each in waits[2:]) <= 4
    assert len(replay) == 2


@pytest.mark.parametrize("number", [1, 20])
async def test_redeeming_is_two_round_trips_and_a_replay_one(counter: Counter, counted_shop: Shop, number: int) -> None:
    pool = await counted_shop.pool(codes=60, claimsPerMember=60, stacking="STACKABLE", percentOff=1.0)
    member = await counted_shop.member()
    texts = [(await counted_shop.claim(pool, member, idempotencyKey=f"{turn}"))["text"] for turn in range(number * 2)]

    async def redeem(order: str, codes: list[str]) -> int:
        values = {"codes": codes, "orderId": order, "orderAmount": usd(10_000), "memberId": member["id"]}
        return len(await counter.during(lambda: counted_shop.do(REDEEM_CODES, **values)))

    await redeem("warm", texts[:number])
    assert await redeem("counted", texts[number:]) == 2
    assert await redeem("counted", texts[number:]) == 1
    assert await redeem("another", texts[number:]) == 1


async def test_taking_a_redemption_back_that_is_alone_on_its_order_is_six_round_trips(
    counter: Counter, counted_shop: Shop
) -> None:
    pool = await counted_shop.pool(codes=9, claimsPerMember=9)
    member = await counted_shop.member()
    redemptions = []
    for turn in range(4):
        code = await counted_shop.claim(pool, member, idempotencyKey=f"{turn}")
        redemptions += (await counted_shop.redeem([code["text"]], member))["redemptions"]

    async def reverse(redemption: Any) -> int:
        values = {"redemptionId": redemption["id"], "reason": "returned", "reinstate": redemption != redemptions[2]}
        return len(await counter.during(lambda: counted_shop.do(REVERSE, **values)))

    await reverse(redemptions[0])
    # The order is locked before anybody says that no purchase is recorded for it.
    assert [await reverse(each) for each in redemptions[1:]] == [6, 6, 6]
    assert await reverse(redemptions[1]) == 1


async def test_enrolling_is_one_round_trip_and_finding_the_same_person_two(
    counter: Counter, counted_shop: Shop
) -> None:
    async def enrol(external_id: str) -> int:
        values = {"source": "STORE", "externalId": external_id, "email": f"{external_id}@example.com"}
        return len(await counter.during(lambda: counted_shop.do(ENROLL_MEMBER, **values)))

    await enrol("warm")
    await enrol("warm")

    assert [await enrol("a"), await enrol("b")] == [1, 1]
    assert [await enrol("a"), await enrol("b")] == [2, 2]


async def test_a_claim_by_a_member_key_and_a_verified_enrolment_cost_no_more(
    counter: Counter, counted_shop: Shop
) -> None:
    pool = await counted_shop.pool(codes=10)

    async def trips(document: str, **values: Any) -> int:
        waits = await counter.during(lambda: counted_shop.do(document, **values))
        return len([statement for statement in waits if statement != stock_levels.CHECK.text])

    async def enrol(name: str) -> int:
        person = {"source": "STORE", "externalId": name, "email": f"{name}@example.com"}
        return await trips(ENROLL_MEMBER, emailVerified=True, **person)

    async def claim(**who: Any) -> int:
        return await trips(CLAIM_CODE, poolId=pool["id"], **who)

    await enrol("warm")
    await claim(member={"externalId": "warm"})

    # BEGIN, the member, its address, COMMIT.
    assert [await enrol(name) for name in "abc"] == [4, 4, 4]
    keys: list[dict[str, Any]] = [
        {"member": {"externalId": "a"}}, {"member": {"email": "b@example.com"}}, {"email": "c@example.com"}
    ]  # fmt: skip
    assert [await claim(**key) for key in keys] == [1, 1, 1]
    assert [await claim(**key) for key in keys] == [2, 2, 2]


POOL = "id name percentOff stock { total available allocated redeemed } allowedTransitions"
OWNER = "owner { id displayName maskedEmail wallet { id version } }"
CODE = f"id masked text state pool {{ {POOL} }} {OWNER}"
LISTS = {
    "pools": f"{POOL}",
    "pools with their codes": f"{POOL} codes(first: 3) {{ edges {{ cursor node {{ {CODE} }} }} }}",
    "codes": CODE,
    "codes in a state": CODE,
    "members": f"id displayName wallet {{ version codes(first: 3) {{ edges {{ cursor node {{ {CODE} }} }} }} }}",
    "redemptions": f"id orderId discount {{ amountMinor }} code {{ {CODE} }}",
    "events": "id type subjectId actor occurredAt",
    "reportCodes": "id poolId memberId masked state discount orderId",
    "reportPools": "id name available allocated redeemed",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled_shop(counter: Counter, database_pool: Settings) -> AsyncIterator[Shop]:
    """A shop with at least 100 rows of everything that can be listed."""
    async with open_shop(counter.url) as opened:
        await _fill(opened)
        yield opened


async def _fill(shop: Shop) -> None:
    pools = [await shop.pool(codes=4, claimsPerMember=4) for _ in range(3)]
    wide = await shop.pool(codes=110)
    members = [await shop.member(displayName=f"member {turn}") for turn in range(101)]
    for turn, member in enumerate(members):
        code = await shop.claim(wide, member)
        values = {"codes": [code["text"]], "orderId": f"o-{turn}", "orderAmount": usd(100), "memberId": member["id"]}
        assert (await shop.do(REDEEM_CODES, **values))["__typename"] == "RedeemCodesSuccess"
    for pool in pools:
        await shop.claim(pool, members[-1])
    for turn in range(98):
        draft = await shop.pool(codes=0, active=False)
        if turn % 10 == 0:
            await shop.do(GENERATE_CODES, poolId=draft["id"], count=2)


async def _buffers(sql: str, *args: object) -> int:
    """Return how many buffers a statement touches."""
    (row,) = await database().rows(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *args)
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def test_a_page_reads_its_own_rows_whatever_the_planner_knows(filled_shop: Shop) -> None:
    """Nothing has analysed these tables: what is planned badly here is planned badly in every new database."""
    merchant_id, last = filled_shop.merchant_id, UUID(int=2**128 - 1)
    member_ids = await database().rows("SELECT id FROM member WHERE merchant_id = $1", merchant_id)
    pool_ids = await database().rows("SELECT id FROM pool WHERE merchant_id = $1", merchant_id)
    instant = datetime(9999, 1, 1, tzinfo=UTC)
    pools = [row["id"] for row in pool_ids]
    of_members = {"member_ids": [row["id"] for row in member_ids], "instant": instant, "state": None}
    page, few = {"before": last, "limit": 101}, {"before": last, "limit": 4}
    pages: dict[str, tuple[Statement[Any], dict[str, object]]] = {
        "members": (members.LIST, page),
        "redemptions": (coupons.LIST_REDEMPTIONS, page),
        "codes": (coupons.LIST_CODES, page),
        "codes in a state": (coupons.LIST_CODES_IN_STATE, page | {"state": "REDEEMED"}),
        "pools": (coupons.LIST_POOLS, page | {"status": None}),
        "stock": (coupons.STOCK_OF_POOLS, {"pool_ids": pools}),
        "codes past an end": (coupons.LIST_CODES_IN_STATE, page | {"state": "EXPIRED"}),
        "codes of pools": (coupons.CODES_OF_POOLS, few | {"pool_ids": pools, "state": None}),
        "live codes of pools": (coupons.CODES_OF_POOLS, few | {"pool_ids": pools, "state": "ALLOCATED"}),
        "codes of members": (coupons.CODES_OF_MEMBERS, few | of_members),
        "live codes of members": (coupons.CODES_OF_MEMBERS, few | of_members | {"state": "ALLOCATED"}),
    }

    touched = {
        name: await _buffers(asked.text, *asked.arguments({"merchant_id": merchant_id} | values))
        for name, (asked, values) in pages.items()
    }
    for name, report in REPORTS.items():
        values = {"merchant_id": merchant_id, "from_id": UUID(int=0)} | page | dict(money_of("USD"))
        touched[f"report of {name}"] = await _buffers(report.page.text, *report.page.arguments(values))

    assert {name: buffers for name, buffers in touched.items() if buffers > BUFFERS_PER_PAGE_MAX} == {}


async def test_a_page_is_at_most_three_round_trips_and_the_same_for_1_and_100_rows(
    counter: Counter, filled_shop: Shop
) -> None:
    expected = {
        "pools": 2, "pools with their codes": 3, "codes": 2, "codes in a state": 2, "members": 3, "redemptions": 2,
        "events": 1, "reportCodes": 1, "reportPools": 1,
    }  # fmt: skip
    counted = {}

    for name, fields in LISTS.items():
        state = ", state: REDEEMED" if name == "codes in a state" else ""
        document = f"query ($first: Int) {{ answer: {name.split()[0]}(first: $first{state}) {{ edges {{ node {{ "
        document += f"{fields} }} }} }} }}"
        counts = []
        for first in (1, 100, 1, 100):
            answers: list[Any] = []

            async def ask(size: int = first, asked: str = document, to: list[Any] = answers) -> None:
                to.append(await filled_shop.data(asked, {"first": size}))

            counts.append(len(await counter.during(ask)))
            assert len(answers[0]["answer"]["edges"]) == first
        assert counts[2] == counts[3], name
        counted[name] = counts[3]

    assert counted == expected
    assert max(counted.values()) <= 3
