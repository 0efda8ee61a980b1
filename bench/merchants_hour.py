"""The merchants' hour: what many small merchants cost a minute, idle and busy, and what a night of them costs.

`FLASH_BENCH_MERCHANTS=10000` says how many there are, `FLASH_BENCH_MINUTES=10` how long each is looked at. All are
copies of the demo merchant: members, pools, a few codes, claims, redemptions, purchases, points and referrals. Every
tenth has a webhook that waits for something else than what happens. CPU is that of all processes of a kind, whatever
they do: PostgreSQL's vacuums are in it. Before a night with news something happened in every merchant, and before one
without in none.
"""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import httpx
import psutil

from app import ids
from app.api.context import Viewer
from app.config import settings
from app.coupons.expire_codes import expire_codes
from app.graph import jobs
from app.graph.take_snapshots import take_waiting
from app.integrity.audit import missing_constraints
from app.merchants.create_merchant import NewMerchant, create_merchant
from app.operate.embedded import DataDirectory
from app.operate.running import wait_for_postgres
from app.points.expire_points import expire_points, warn_of_expiry
from app.points.mature_points import mature_points
from app.reports import runs
from app.segments.refresh import refresh_due
from app.storage.database import database, transaction
from app.storage.statements import Statement
from app.web.authentication import authenticate
from bench.live_wallet import api_process, some_process, valkey
from bench.world import add_filled_pool, tree_seconds
from workers.keep_reports import COMPUTATIONS

MERCHANTS: Final = int(os.environ.get("FLASH_BENCH_MERCHANTS", "500"))
MERCHANTS_MIN: Final = 50
MINUTES: Final = float(os.environ.get("FLASH_BENCH_MINUTES", "1"))
#: Of the merchants so many have customers in the busy minutes, of whom so many come a second. Each claims a code; every
#: other one redeems it.
BUSY: Final = 100
CUSTOMERS_PER_SECOND: Final = 5.0
CODES_OF_BUSY: Final = 100
#: A worker looks at everything as it begins.
WARM_SECONDS: Final = 75.0
LISTED: Final = 6
CLAIM: Final = """
mutation ($input: ClaimCodeInput!) { answer: claimCode(input: $input) { ... on ClaimCodeSuccess { code { text } } } }
"""
REDEEM: Final = """
mutation ($input: RedeemCodesInput!) {
  answer: redeemCodes(input: $input) { ... on RedeemCodesSuccess { totalDiscount { amountMinor } } }
}
"""
#: What `create_merchant` makes, what is made at night, and what nobody copies.
NOT_COPIED: Final = (
    "merchant", "api_key", "data_key", "referral_program", "report_run", "segment_refresh", "segment_member", "fence",
)  # fmt: skip
COLUMNS: Final = """
SELECT c.relname AS table, a.attname AS column, a.atttypid = 'uuid'::regtype AS is_id
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
    AND c.relname NOT LIKE 'tortoise%' AND c.relname NOT LIKE 'graph%' AND c.relname <> ALL($1::text[])
UNION ALL
SELECT c.relname, a.attname, a.atttypid = 'uuid'::regtype
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'p' AND c.relnamespace = 'public'::regnamespace
ORDER BY 1
"""
#: A merchant's own id for what the copied one has by another: in the same order.
OWN_ID: Final = "(left({0}::text, 24) || right(md5({0}::text || m.merchant_id), 12))::uuid"
#: Some origins of entries begin with the id of what they come from.
OWN_ORIGIN: Final = """
CASE WHEN origin ~ '^[0-9a-f]{32}'
    THEN replace(
        left(left(origin, 32)::uuid::text, 24) || right(md5(left(origin, 32)::uuid::text || m.merchant_id), 12), '-', ''
    ) || substr(origin, 33)
    ELSE origin END
"""
#: A small merchant has few codes.
FEWER: Final = (
    """
    DELETE FROM code WHERE merchant_id = $1 AND id = ANY(ARRAY(
        SELECT id FROM (
            SELECT id, row_number() OVER (PARTITION BY pool_id ORDER BY id) AS number FROM code
            WHERE merchant_id = $1 AND state = 'AVAILABLE'
        ) each WHERE number > 10
    ))
    """,
    """
    UPDATE code_batch b SET size = (SELECT count(*) FROM code c WHERE c.merchant_id = $1 AND c.batch_id = b.id)
    WHERE merchant_id = $1
    """,
    "DELETE FROM stock_change WHERE merchant_id = $1",
    """
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked, is_folded)
    SELECT merchant_id, pool_id, gen_random_uuid(), count(*) FILTER (WHERE state = 'AVAILABLE'),
        count(*) FILTER (WHERE state = 'ALLOCATED'), count(*) FILTER (WHERE state = 'REDEEMED'), 0, 0, true
    FROM code WHERE merchant_id = $1 GROUP BY merchant_id, pool_id
    """,
)
WEBHOOKS: Final = """
WITH w AS (
    INSERT INTO webhook (merchant_id, id, url, event_types, secret, created_at, feed_from)
    SELECT merchant_id, uuidv7(), 'x', '{pool.archived}', 'x', now(), pg_current_snapshot()::text
    FROM unnest($1::uuid[]) WITH ORDINALITY AS t (merchant_id, number) WHERE number % 10 = 0
    RETURNING merchant_id, id
)
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT merchant_id, uuidv7(), 'webhook.created', 'webhook', id, 'system', now() FROM w
"""
#: Nothing has happened for days: so copies are made of what is older, and what comes with a merchant is made so.
OLDER: Final = (
    "UPDATE merchant SET created_at = now() - interval '30 days' WHERE merchant_id = ANY($1::uuid[])",
    "UPDATE referral SET changed_at = now() - interval '3 days' WHERE merchant_id = ANY($1::uuid[])",
    """
    UPDATE event SET occurred_at = occurred_at - interval '3 days', id = (
        left(event_first_id(to_timestamp(
            ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0
        ) - interval '3 days')::text, 13) || right(id::text, 23)
    )::uuid
    WHERE merchant_id = ANY($1::uuid[])
    """,
)
TEMPLATE: Final = "SELECT merchant_id FROM merchant WHERE name = 'Demo store'"
MEMBERS: Final = """
SELECT id FROM member WHERE merchant_id = $1 AND merged_into_id IS NULL AND erased_at IS NULL ORDER BY id
"""
RESET: Final = "SELECT pg_stat_statements_reset()"
COUNTED: Final = """
SELECT query, calls, shared_blks_hit + shared_blks_read AS buffers, total_exec_time AS milliseconds
FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'
"""
SIZE: Final = "SELECT pg_database_size(current_database()) AS bytes"
_LIST: Final = re.compile(r"\?(,\?|,)*")
_SPACE: Final = re.compile(r"/\*.*?\*/|--[^\n]*|\s+", re.DOTALL)
_CONSTANT: Final = re.compile(r"-?\$\d+|'[^']*'|-?\b\d+(\.\d+)?\b|\b(true|false|NULL)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Counted:
    """What was counted in a time: statements, the buffers that they touched, and seconds of CPU by kind of process."""

    statements: int
    buffers: int
    cpu: dict[str, float]
    top: list[tuple[str, int, int]]


def _own_seconds() -> float:
    """Return the CPU seconds of this process and of the children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _shape(text: str) -> str:
    """Return a statement without its constants, which the server replaces by numbers, and lists of them by one."""
    return _LIST.sub("?", _CONSTANT.sub("?", _SPACE.sub(" ", text)).replace(" ", ""))


def _names() -> dict[str, str]:
    """Return where the statement of a shape stands."""
    return {
        _shape(value.text): f"{module.__name__.removeprefix('app.')}.{name}"
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith(("app.", "workers."))
        for name, value in vars(module).items()
        if isinstance(value, Statement)
    }


@contextlib.asynccontextmanager
async def _counted_postgres(data: DataDirectory) -> AsyncIterator[psutil.Process]:
    """Run PostgreSQL anew, with its extension that counts statements, until the block ends."""
    first = psutil.Process(int((data.postgres / "postmaster.pid").read_text().splitlines()[0]))
    first.send_signal(signal.SIGINT)
    await asyncio.to_thread(first.wait)
    command = data.postgres_command()
    with command.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command.arguments, "-c", "shared_preload_libraries=pg_stat_statements",
            stdout=log, stderr=log, user=command.uid, group=command.uid, start_new_session=True,
        )  # fmt: skip
    try:
        await wait_for_postgres(data)
        await database().row("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(command.stop_signal)
        await process.wait()


async def _made(count: int) -> list[NewMerchant]:
    """Make merchants with keys of their own, some at a time."""
    waiting, made = iter(range(count)), list[NewMerchant]()

    async def some() -> None:
        for number in waiting:
            made.append(await create_merchant(f"small {number}", "USD"))

    await asyncio.gather(*(some() for _ in range(8)))
    return made


async def _copies() -> tuple[str, ...]:
    """Return the statements that give merchants ($1) what the demo merchant ($2) has."""
    columns: dict[str, list[tuple[str, bool]]] = {}
    for row in await database().rows(COLUMNS, list(NOT_COPIED)):
        columns.setdefault(row["table"], []).append((row["column"], row["is_id"]))
    found = []
    for table, each in columns.items():
        if "merchant_id" not in dict(each):
            continue
        values = [
            "m.merchant_id" if name == "merchant_id"
            else OWN_ID.format(f"t.{name}") if is_id
            else OWN_ORIGIN if (table, name) == ("points_entry", "origin")
            else f"t.{name}"
            for name, is_id in each
        ]  # fmt: skip
        found.append(
            f"INSERT INTO {table} ({', '.join(name for name, _ in each)}) SELECT {', '.join(values)} "
            f"FROM unnest($1::uuid[]) AS m (merchant_id) CROSS JOIN {table} t WHERE t.merchant_id = $2"
            + (" AND t.subject_kind NOT IN ('merchant', 'apikey', 'graphjob')" if table == "event" else "")
        )
    return tuple(found)


async def _fill(template: UUID, count: int) -> list[NewMerchant]:
    """Add small merchants that are like the template."""
    made = await _made(count)
    copies = await _copies()
    for start in range(0, count, 250):
        chunk = [merchant.id for merchant in made[start : start + 250]]
        async with transaction(None) as tx:
            await tx.row("SET LOCAL session_replication_role = replica")
            await tx.row(WEBHOOKS, chunk)
            for older in OLDER:
                await tx.row(older, chunk)
            for copy in copies:
                await tx.row(copy, chunk, template)
    await database().many("VACUUM (ANALYZE)", seconds_max=3600)
    return made


async def _counting(work: Awaitable[Any], processes: dict[str, psutil.Process], names: dict[str, str]) -> Counted:
    """Count what happens until some work of this process is done."""
    await database().row(RESET)
    before = {name: tree_seconds(process) for name, process in processes.items()}
    own = _own_seconds()
    await work
    cpu = {name: tree_seconds(process) - before[name] for name, process in processes.items()}
    cpu["this process"] = _own_seconds() - own
    statements = buffers = 0
    top: dict[str, tuple[int, int]] = {}
    for row in await database().rows(COUNTED):
        statements += row["calls"]
        buffers += int(row["buffers"])
        name = names.get(_shape(row["query"])) or f"`{' '.join(row['query'].split())[:60]}`"
        calls, touched = top.get(name, (0, 0))
        top[name] = (calls + row["calls"], touched + int(row["buffers"]))
    most = sorted(((name, *counted) for name, counted in top.items()), key=lambda each: -each[2])
    return Counted(statements, buffers, cpu, most[:LISTED])


async def _snapshots() -> None:
    await jobs.plan()
    while await take_waiting(is_large=False, seconds_max=300):
        pass


async def _reports() -> None:
    while await runs.carry_out(COMPUTATIONS, seconds_max=300):
        pass


async def _points() -> None:
    await mature_points()
    await warn_of_expiry()
    await expire_points()


#: What a night has to do, besides what happens every minute.
NIGHT: Final[dict[str, Callable[[], Awaitable[Any]]]] = {
    "network snapshots": _snapshots,
    "reports: promises": _reports,
    "segments": refresh_due,
    "points that end": _points,
    "codes that end": expire_codes,
    "constraints": missing_constraints,
}
#: Lets a night begin before which something happened in every merchant, as none had one yet.
EVENTFUL: Final = (
    "DELETE FROM graph_job",
    "DELETE FROM graph_snapshot",
    "DELETE FROM graph_file",
    "DELETE FROM graph_edge",
    "DELETE FROM graph_node",
    "DELETE FROM graph_drawing",
    "DELETE FROM report_run",
    "DELETE FROM segment_refresh",
    "DELETE FROM segment_member",
)
#: Lets a night begin a day after the last one, in which nothing happened; that one had nothing to draw either.
QUIET: Final = (
    "UPDATE graph_job SET taken_on = taken_on - 1, started_at = started_at - interval '1 day'",
    "UPDATE graph_snapshot SET taken_on = taken_on - 1, drawn_on = drawn_on - 1",
    "UPDATE graph_drawing SET read_at = read_at - interval '2 days'",
    """
    UPDATE report_run SET requested_at = requested_at - interval '1 day', started_at = started_at - interval '1 day',
        generated_at = generated_at - interval '1 day'
    """,
    "UPDATE segment_refresh SET refreshed_at = refreshed_at - interval '1 day'",
)


async def _nights(processes: dict[str, psutil.Process], names: dict[str, str]) -> dict[str, dict[str, Counted]]:
    """Count a night before which something happened in every merchant, and the one after it."""
    found = {}
    for kind, before in (("with news", EVENTFUL), ("without", QUIET)):
        async with transaction(None) as tx:
            await tx.row("SET LOCAL session_replication_role = replica")
            for statement in before:
                await tx.many(statement, seconds_max=3600)
        await database().many("VACUUM (ANALYZE)", seconds_max=3600)
        found[kind] = {name: await _counting(part(), processes, names) for name, part in NIGHT.items()}
    return found


class _Crowd:
    """Customers of some merchants, who come one after the other."""

    def __init__(self, http: httpx.AsyncClient, address: str) -> None:
        """Take where the API is."""
        self._http, self._address = http, address.replace("ws", "http", 1)
        self._waiting: Iterator[tuple[str, str, str]] = iter(())
        self.claims = 0

    async def gather(self, merchants: list[NewMerchant]) -> None:
        """Give merchants a pool each, from which each of their members can claim once."""
        lists = []
        for merchant in merchants:
            viewer = await authenticate(f"Bearer {merchant.api_key}")
            if viewer is None:
                raise RuntimeError("a key that was just made proves nobody")
            pool_id = ids.encode("pool", await add_filled_pool(viewer, CODES_OF_BUSY))
            members = await database().rows(MEMBERS, merchant.id)
            lists.append([(merchant.api_key, pool_id, ids.encode("member", row["id"])) for row in members])
        self._waiting = itertools.chain.from_iterable(zip(*lists, strict=True))

    async def come(self, seconds: float) -> None:
        """Let customers come for so long."""
        begun, coming = time.monotonic(), set[asyncio.Task[None]]()
        for number, customer in enumerate(self._waiting):
            due = begun + number / CUSTOMERS_PER_SECOND
            if due > begun + seconds:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            coming.add(asyncio.create_task(self._serve(number, *customer)))
        await asyncio.gather(*coming)

    async def _serve(self, number: int, key: str, pool_id: str, member_id: str) -> None:
        claimed = await self._ask(CLAIM, key, poolId=pool_id, memberId=member_id)
        self.claims += 1
        if number % 2:
            await self._ask(
                REDEEM, key, codes=[claimed["code"]["text"]], orderId=f"{pool_id}-{member_id}", memberId=member_id,
                orderAmount={"amountMinor": 5000, "currency": "USD"},
            )  # fmt: skip

    async def _ask(self, document: str, key: str, **values: object) -> Any:
        asked = {"query": document, "variables": {"input": values}}
        answered = await self._http.post(self._address, json=asked, headers={"authorization": f"Bearer {key}"})
        answer = answered.json()["data"]["answer"]
        if not answer:
            raise RuntimeError("a customer was refused")
        return answer


async def measure(_viewer: Viewer) -> list[str]:
    """Add merchants twice, and count a night and the minutes after it."""
    data = DataDirectory(settings().data)
    names = _names()
    sizes = [size for size in (MERCHANTS // 10, MERCHANTS) if size >= MERCHANTS_MIN]
    nights: dict[int, dict[str, dict[str, Counted]]] = {}
    minutes: dict[str, Counted] = {}
    async with contextlib.AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(_counted_postgres(data))
        redis_url = await stack.enter_async_context(valkey(data))
        template = await _template(redis_url)
        merchants: list[NewMerchant] = []
        for size in sizes:
            merchants += await _fill(template, size - len(merchants))
            nights[size] = await _nights({"PostgreSQL": postgres}, names)
            if size < MERCHANTS // 10:
                continue
            async with _engine(data, redis_url) as (processes, address):
                processes |= {"PostgreSQL": postgres}
                await asyncio.sleep(WARM_SECONDS)
                minutes[f"{size:,}, idle"] = await _counting(asyncio.sleep(MINUTES * 60), processes, names)
                if size != sizes[-1]:
                    continue
                async with httpx.AsyncClient(timeout=60) as http:
                    crowd = _Crowd(http, address)
                    await crowd.gather(merchants[: min(BUSY, size)])
                    busy = await _counting(crowd.come(MINUTES * 60), processes, names)
                minutes[f"{size:,}, {crowd.claims / MINUTES:.0f} claims a minute"] = busy
        gigabytes = (await database().rows(SIZE))[0]["bytes"] / 1e9
    return _report(gigabytes, minutes, nights)


async def _template(redis_url: str) -> UUID:
    """Make the demo merchant, with fewer codes."""
    variables = os.environ | {"DATABASE_URL": settings().database_url or "", "REDIS_URL": redis_url}
    made = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", "demo", env=variables)
    if await made.wait():
        raise RuntimeError("the demo merchant can't be made")
    (row,) = await database().rows(TEMPLATE)
    template: UUID = row["merchant_id"]
    async with transaction(None) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        for statement in FEWER:
            await tx.row(statement, template)
        for statement in OLDER:
            await tx.row(statement, [template])
    return template


@contextlib.asynccontextmanager
async def _engine(data: DataDirectory, redis_url: str) -> AsyncIterator[tuple[dict[str, psutil.Process], str]]:
    """Run an API process and a worker. Yields them and Valkey, and the address of the first."""
    url = settings().database_url or ""
    worker = partial(some_process, [sys.executable, "-m", "app", "worker"], data.logs / "worker.log")
    async with (
        api_process(data, url, redis_url) as (api, address),
        worker(DATABASE_URL=url, REDIS_URL=redis_url) as working,
    ):
        store = psutil.Process(int((data.valkey / "valkey.pid").read_text()))
        yield {"worker": psutil.Process(working.pid), "API": api, "Valkey": store}, address


def _report(
    gigabytes: float, minutes: dict[str, Counted], nights: dict[int, dict[str, dict[str, Counted]]]
) -> list[str]:
    rows: dict[str, list[str]] = {
        "statements": [f"{each.statements / MINUTES:,.0f}" for each in minutes.values()],
        "buffers": [f"{each.buffers / MINUTES:,.0f}" for each in minutes.values()],
    }
    for kind in ("worker", "API", "PostgreSQL", "Valkey"):
        rows[f"CPU of {kind}, s"] = [f"{each.cpu[kind] / MINUTES:.2f}" for each in minutes.values()]
    lines = [
        f"{MERCHANTS:,} merchants, {gigabytes:.1f} GB; {MINUTES:g} minutes each.",
        f"Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        f"| a minute of merchants | {' | '.join(minutes)} |",
        "|---|" + "---:|" * len(minutes),
        *(f"| {name} | {' | '.join(each)} |" for name, each in rows.items()),
    ]
    for name, counted in list(minutes.items())[1:]:
        lines += ["", f"| most buffers in a minute of {name} | calls | buffers |", "|---|---:|---:|"]
        lines += [f"| {who} | {calls / MINUTES:,.1f} | {read / MINUTES:,.0f} |" for who, calls, read in counted.top]
    largest = max(nights)
    for kind in nights[largest]:
        lines += ["", *_report_night(kind, {size: night[kind] for size, night in nights.items()})]
    return lines


def _report_night(kind: str, nights: dict[int, dict[str, Counted]]) -> list[str]:
    largest = max(nights)
    heads = [*(f"{size:,}" for size in nights), "of these the worker's", "statements", "buffers"]
    lines = [f"| a night of merchants {kind}, CPU seconds | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for part, last in nights[largest].items():
        seconds = " | ".join(f"{sum(night[part].cpu.values()):.1f}" for night in nights.values())
        lines.append(
            f"| {part} | {seconds} | {last.cpu['this process']:.1f} | {last.statements:,} | {last.buffers:,} |"
        )
    totals = {size: sum(sum(each.cpu.values()) for each in night.values()) for size, night in nights.items()}
    return [
        *lines,
        f"| all | {' | '.join(f'{total:.1f}' for total in totals.values())} | | | |",
        "",
        f"That is {1000 * totals[largest] / largest:.1f} ms of CPU a merchant, {totals[largest] / 60:.1f} CPU-minutes.",
    ]
