"""/metrics. Without these operators could be shown numbers that are wrong, or strangers numbers at all."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.config import Settings
from app.telemetry.metrics import exposition
from app.web import metrics_page
from app.web.application import application
from app.web.metrics_page import Facts, MetricsPage
from tests.conftest import Api, run_api
from tests.factories import CLAIM_CODE, CREATE_POOL, Shop
from tests.guides import ROOT, blocks
from tests.operate.processes import eventually
from tests.telemetry.conftest import TOKEN
from tests.wallets.sockets import joined

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
SCHEMA = (ROOT / "schema.graphql").read_text()
NAME = re.compile(r"\bflash_\w+")


def scraped(api: Api, *, token: str = TOKEN) -> Series:
    """Return what Prometheus would read."""
    headers = {"authorization": f"Bearer {token}"}
    response = httpx.get(f"{api.url}/metrics", headers=headers, verify=False, timeout=30)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    """Return one number, 0 where it was never counted."""
    return series.get((name, frozenset(labels.items())), 0.0)


def grown(before: Series, after: Series, prefix: str) -> dict[str, float]:
    """Return by how much the series of a name have grown that have grown."""
    return {
        ",".join(value for _, value in sorted(labels)): after[name, labels] - before.get((name, labels), 0.0)
        for name, labels in after
        if name == prefix and after[name, labels] != before.get((name, labels), 0.0)
    }


async def test_operations_refusals_and_errors_are_counted_and_timed(shop: Shop, operated: Api) -> None:
    pool, member, other = await shop.pool(codes=1), await shop.member(), await shop.member()
    analyst = await shop.key("ANALYST")
    url = f"{operated.url}/graphql"
    before = scraped(operated)

    for claimant in (member, member, other):
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=claimant["id"], url=url)
    await shop.do(CREATE_POOL, name="", kind="PERCENT", url=url)
    await shop.post(CREATE_POOL, {"input": {"name": "no", "kind": "PERCENT"}}, key=analyst, url=url)
    await shop.post("{ viewer { role } pools { edges { cursor } } }", url=url)
    await shop.post("{ nonsense }", url=url)
    await shop.http.post(url, content=b"nonsense", headers={"content-type": "text/plain"})
    after = scraped(operated)

    assert grown(before, after, "flash_operations_total") == {
        "claimCode,mutation,answered": 2,
        "claimCode,mutation,refused": 1,
        "createPool,mutation,refused": 1,
        "createPool,mutation,mistaken": 1,
        "several,query,answered": 1,
        "none,none,mistaken": 2,
    }
    assert grown(before, after, "flash_refusals_total") == {"claimCode,PoolExhausted": 1, "createPool,InvalidInput": 1}
    assert grown(before, after, "flash_errors_total") == {
        "BAD_REQUEST": 1, "FORBIDDEN": 1, "GRAPHQL_VALIDATION_FAILED": 1,
    }  # fmt: skip
    assert grown(before, after, "flash_operation_seconds_count") == {
        "claimCode,mutation": 3, "createPool,mutation": 2, "several,query": 1,
    }  # fmt: skip
    claims = {"field": "claimCode", "kind": "mutation"}
    assert value(after, "flash_operation_seconds_bucket", le="+Inf", **claims) >= 3
    assert 0 < value(after, "flash_operation_seconds_sum", **claims) < 60


async def test_labels_are_words_of_the_schema_whatever_is_sent(shop: Shop, operated: Api) -> None:
    fields = set(re.findall(r"^  (\w+)[(:]", SCHEMA, re.MULTILINE))
    refusals = set(re.findall(r"^type (\w+) implements .*Refusal", SCHEMA, re.MULTILINE))
    url = f"{operated.url}/graphql"
    for number in range(20):
        await shop.post(f"query Name{number} {{ alias{number}: viewer {{ role }} }}", url=url)
        await shop.post(f"{{ unknown{number} }}", url=url)
        await shop.post("{ viewer { role } }", key=f"key{number}", url=url)
        await shop.do(CLAIM_CODE, poolId=f"pool_{number:032x}", memberId=f"member_{number}", url=url)
        await shop.http.get(f"{operated.url}/unknown{number}")

    series = scraped(operated)

    seen: dict[str, set[str]] = {}
    for _, labels in series:
        for name, label in labels:
            seen.setdefault(name, set()).add(label)
    assert seen["field"] <= fields | {"introspection", "none", "several"}
    assert seen["kind"] <= {"query", "mutation", "subscription", "none"}
    assert seen["outcome"] <= {"answered", "refused", "mistaken", "failed", "left"}
    assert seen["type"] <= refusals
    assert all(re.fullmatch(r"[A-Z_]+", code) for code in seen["code"])
    assert seen.keys() == {"field", "kind", "outcome", "type", "code", "le", "state", "stock", "job"}
    assert len(series) < 1_000


async def test_subscribers_and_sockets_are_counted_while_they_are_open(shop: Shop, operated: Api) -> None:
    token = await shop.token((await shop.member())["id"])

    def open_now() -> tuple[float, float]:
        series = scraped(operated)
        return (
            value(series, "flash_streams_open"),
            value(series, "flash_subscriptions_open", field="walletChanged"),
        )

    before = open_now()
    async with joined(operated.url.replace("http", "ws", 1) + "/graphql", token) as socket:
        await socket.follow()
        while_open = await asyncio.to_thread(
            eventually, lambda: now if (now := open_now()) != (before[0] + 1, before[1]) else None
        )
    await asyncio.to_thread(eventually, lambda: open_now() == before)

    assert while_open == (before[0] + 1, before[1] + 1)


async def test_what_the_servers_say_is_there(shop: Shop, operated: Api, database_pool: Settings) -> None:
    def whole() -> Series | None:
        # A look that took too long on a busy machine is repeated in a while.
        found = scraped(operated)
        return found if value(found, "flash_database_up") == value(found, "flash_valkey_up") == 1 else None

    series = await asyncio.to_thread(eventually, whole)

    assert {dict(labels)["stock"] for name, labels in series if name == "flash_pools"} == {"100", "50", "25", "10", "0"}
    waiting = {dict(labels)["job"] for name, labels in series if name == "flash_jobs_waiting"}
    assert waiting == {"advice", "bulk", "graph"}
    assert ("flash_queue_jobs", frozenset()) in series
    connections = [value(series, "flash_database_connections", state=state) for state in ("idle", "used")]
    assert 1 <= sum(connections) <= database_pool.database_connections_max
    assert value(series, "process_resident_memory_bytes") > 10_000_000


async def test_pools_are_counted_by_the_level_of_their_stock(shop: Shop, database_pool: Settings) -> None:
    before = (await metrics_page._look(None)).pools
    await shop.pool(codes=10)
    await shop.pool(codes=0, active=False)
    half = await shop.pool(codes=2)
    await shop.claim(half, await shop.member())
    empty = await shop.pool(codes=1)
    await shop.claim(empty, await shop.member())

    facts = await metrics_page._look(None)

    grown = {level: count - before.get(level, 0) for level, count in facts.pools.items()}
    assert {level: count for level, count in grown.items() if count} == {100: 1, 50: 1, 0: 1}
    assert facts.valkey_answers is None


async def test_however_often_it_is_asked_for_the_servers_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def look(_redis: Any) -> Facts:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.01)
        return Facts()

    monkeypatch.setattr(metrics_page, "_look", look)
    page = MetricsPage(Settings())

    await asyncio.gather(*(page._looked(None) for _ in range(50)))

    assert looks == 1


def test_what_does_not_answer_is_0_and_what_it_would_have_said_is_absent() -> None:
    page = exposition(Facts(valkey_answers=False)).decode()
    shown = {family.name: family.samples[0].value for family in text_string_to_metric_families(page) if family.samples}

    assert (shown["flash_database_up"], shown["flash_valkey_up"]) == (0, 0)
    assert shown.keys().isdisjoint({"flash_pools", "flash_jobs_waiting", "flash_queue_jobs"})


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"},
                                     {"authorization": f"Bearer {TOKEN}é"}])  # fmt: skip
def test_who_has_no_token_reads_nothing(operated: Api, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), text.encode()) for name, text in headers.items()]

    response = httpx.get(f"{operated.url}/metrics", headers=encoded, verify=False, timeout=30)

    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert "flash_" not in response.text


def test_without_a_token_development_shows_it_to_the_same_machine_only(api: Api) -> None:
    own = httpx.get(f"{api.url}/metrics", verify=False, timeout=30)
    passed_on = httpx.get(f"{api.url}/metrics", headers={"x-forwarded-for": "127.0.0.1"}, verify=False, timeout=30)

    assert (own.status_code, passed_on.status_code) == (200, 401)
    assert "flash_operations_total" in own.text


async def test_without_a_token_there_is_no_such_page_in_production() -> None:
    app = application(Settings(environment="production"))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://flash") as client:
        response = await client.get("/metrics")

    assert response.status_code == 404


@pytest.fixture
def siblings(worker_database: str, tmp_path: Path) -> Iterator[tuple[Api, Api]]:
    """Two processes that count together, as those of one `flash up` do."""
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "FLASH_METRICS_TOKEN": TOKEN}
    with run_api(worker_database, **shared) as first, run_api(worker_database, **shared) as second:
        yield first, second


async def test_processes_of_one_address_count_together_and_what_one_had_open_ends_with_it(
    shop: Shop, siblings: tuple[Api, Api]
) -> None:
    first, second = siblings
    token = await shop.token((await shop.member())["id"])
    counted = {"kind": "query", "field": "viewer", "outcome": "answered"}
    for api in (first, first, second):
        await shop.post("{ viewer { role } }", url=f"{api.url}/graphql")
    async with joined(first.url.replace("http", "ws", 1) + "/graphql", token) as socket:
        await socket.follow()
        one = await asyncio.to_thread(
            eventually, lambda: s if value(s := scraped(second), "flash_streams_open") else None
        )
        first.process.kill()
        first.process.wait(timeout=20)
    survivor = scraped(second)

    assert value(one, "flash_operations_total", **counted) == value(survivor, "flash_operations_total", **counted) == 3
    assert value(one, "flash_database_connections", state="idle") >= 1
    assert value(survivor, "flash_streams_open") == 0
    assert value(survivor, "flash_database_up") == 1


def test_the_guide_names_what_there_is_and_nothing_else(operated: Api) -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    table = set(re.findall(r"`(flash_\w+)`", guide))
    asked = {name for block in blocks("docs/operations.md", "Metrics", "yaml") for name in NAME.findall(block.text)}
    headers = {"authorization": f"Bearer {TOKEN}"}

    def whole() -> str | None:
        page = httpx.get(f"{operated.url}/metrics", headers=headers, verify=False, timeout=30).text
        # A look that took too long on a busy machine is repeated in a while.
        return page if "flash_pools{" in page else None

    page = eventually(whole)
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(page)
        if not family.name.endswith("_created")
    }

    # The only one that needs a router before many servers.
    assert table - {"flash_server_up"} == {name for name in families if not name.startswith("process_")}
    assert {name.removesuffix("_bucket") for name in asked} <= table
