"""Exports. Without these a file could lack rows, mix two moments, or be taken for whole when its making was cut off."""

import asyncio
import contextlib
import csv
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app import ids
from app.api.scalars import parse_date_time
from app.config import ConfigurationError, dsn
from app.operate import export as report_files
from app.operate.export import Format, Manifest, export
from app.reports.tables import REPORTS
from app.storage.database import database
from tests.conftest import run_api
from tests.factories import Shop
from tests.operate.processes import environment, flash, refusal
from tests.reports.documents import SECRETS, page_of, read_all, row_type, world
from tests.scratch import scratch_database
from tests.starts import FLASH, start

FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "ID": str,
    "String": str,
    "DateTime": str,
    "Float": float,
    "Boolean": {"true": True, "false": False}.__getitem__,
}
#: Something that the export must wait for, after it has written every other table.
LAST = "referral"
WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%referral%'
"""


def _below(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def _merchant(shop: Shop) -> str:
    return ids.encode("merchant", shop.merchant_id)


async def _export(shop: Shop, into: Path, *tables: str, file_format: Format = "csv") -> Manifest:
    return await export(
        os.environ["DATABASE_URL"], "DATABASE_URL", _merchant(shop), into, tables or tuple(REPORTS), file_format
    )


def _rows(directory: Path, name: str) -> list[dict[str, Any]]:
    """Return a CSV file's rows as the API answers them, but for times, which have all six digits."""
    text = (directory / f"{name}.csv").read_text(encoding="utf-8")
    quoted = csv.reader(text.splitlines(), strict=True)
    types = [str(column.type).removesuffix("!") for column in row_type(name).fields.values()]
    header, *lines = quoted
    assert header == list(row_type(name).fields)
    return [
        {
            title: None if value == "" else FROM_TEXT[kind](value)
            for title, kind, value in zip(header, types, line, strict=True)
        }
        for line in lines
    ]


def _exact(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return rows with their times as instants."""
    times = [title for title, column in row_type(name).fields.items() if str(column.type).startswith("DateTime")]
    return [row | {title: row[title] and parse_date_time(row[title]) for title in times} for row in rows]


async def test_a_whole_export_is_the_reports_row_by_row_oldest_first(
    shop: Shop, other_shop: Shop, worker_database: str, tmp_path: Path
) -> None:
    texts = await world(shop)
    await other_shop.claim(await other_shop.pool(), await other_shop.member())
    reports = await read_all(shop)
    into = tmp_path / "new" / "export"

    ended = await asyncio.to_thread(
        flash, "export", into, "--merchant", _merchant(shop), "--json", DATABASE_URL=worker_database,
        FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"], FLASH_DATA=tmp_path,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    manifest = json.loads((into / "manifest.json").read_text())
    assert manifest == json.loads(ended.stdout)
    assert {name: manifest[name] for name in ("merchantId", "currency", "readFrom", "format")} == {
        "merchantId": _merchant(shop), "currency": "USD", "readFrom": "primary", "format": "csv",
    }  # fmt: skip
    assert sorted(path.name for path in into.iterdir()) == sorted(
        [*(f"{name}.csv" for name in REPORTS), "manifest.json"]
    )
    for name, described in zip(REPORTS, manifest["files"], strict=True):
        content = (into / described["file"]).read_bytes()
        assert _exact(_rows(into, name), name) == _exact(reports[name][::-1], name), name
        assert described["rows"] == len(reports[name])
        assert (described["bytes"], described["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert {column["name"]: column["type"] for column in described["columns"]} == {
            title: str(column.type).removesuffix("!") for title, column in row_type(name).fields.items()
        }
    whole = b"".join(path.read_bytes() for path in into.iterdir()).decode()
    assert [secret for secret in (*SECRETS, *texts) if secret in whole] == []
    assert list(into.parent.iterdir()) == [into]


async def test_parquet_holds_the_same_rows_with_their_types(shop: Shop, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra `export`")
    await world(shop)
    reports = await read_all(shop)
    other = tmp_path / "empty"

    manifest = await _export(shop, tmp_path / "export", file_format="parquet")
    await _export(shop, other, "purchases")

    for name, described in zip(REPORTS, manifest.files, strict=True):
        path = tmp_path / "export" / f"{name}.parquet"
        found = parquet.read_table(path).to_pylist()
        assert found == _exact(reports[name][::-1], name), name
        assert (described.rows, described.sha256) == (len(found), hashlib.sha256(path.read_bytes()).hexdigest())
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == sorted(
        [*(f"{name}.parquet" for name in REPORTS), "manifest.json"]
    )


async def test_an_export_of_nothing_has_its_columns(shop: Shop, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra `export`")

    manifest = await _export(shop, tmp_path / "csv", "codes")
    await _export(shop, tmp_path / "parquet", "codes", file_format="parquet")

    assert [(each.file, each.rows) for each in manifest.files] == [("codes.csv", 0)]
    assert _rows(tmp_path / "csv", "codes") == []
    assert parquet.read_table(tmp_path / "parquet" / "codes.parquet").column_names == list(row_type("codes").fields)


async def test_every_table_is_of_one_moment_while_codes_are_claimed_and_spent(shop: Shop, tmp_path: Path) -> None:
    pool = await shop.pool(codes=300, claimsPerMember=300)
    member = await shop.member()
    more, over = asyncio.Event(), asyncio.Event()
    spent = 0

    async def spend(number: int) -> None:
        nonlocal spent
        turn = 0
        while not over.is_set() and turn < 100:
            turn += 1
            code = await shop.claim(pool, member, idempotencyKey=f"{number}-{turn}")
            answer = await shop.redeem([code["text"]], member)
            assert answer["__typename"] == "RedeemCodesSuccess"
            spent += 1
            more.set()

    spending = [asyncio.create_task(spend(number)) for number in range(3)]
    try:
        for number in range(5):
            more.clear()
            await asyncio.wait_for(more.wait(), 30)
            await _export(shop, tmp_path / f"{number}", "redemptions", "pools", "codes")
    finally:
        over.set()
        await asyncio.gather(*spending)

    counts = []
    for number in range(5):
        codes, (of_pool,) = _rows(tmp_path / f"{number}", "codes"), _rows(tmp_path / f"{number}", "pools")
        redeemed = {code["redemptionId"]: code["id"] for code in codes if code["state"] == "REDEEMED"}
        redemptions = {row["id"]: row["codeId"] for row in _rows(tmp_path / f"{number}", "redemptions")}
        states = [code["state"] for code in codes]
        assert redeemed == redemptions
        assert [of_pool[state.lower()] for state in ("AVAILABLE", "ALLOCATED", "REDEEMED")] == [
            states.count(state) for state in ("AVAILABLE", "ALLOCATED", "REDEEMED")
        ]
        assert of_pool["total"] == len(codes) == 300
        counts.append(len(redemptions))
    # What is answered after an export may be in it already, but only the last of each of three.
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1] <= spent


@contextlib.asynccontextmanager
async def _held_back(shop: Shop, into: Path) -> AsyncIterator[tuple["asyncio.Task[Manifest]", int]]:
    """Export while the last table is locked. Yields the export, and the database's process that waits for it."""
    holder = await asyncpg.connect(dsn(os.environ["DATABASE_URL"]))
    try:
        await holder.execute(f"BEGIN; LOCK TABLE {LAST} IN ACCESS EXCLUSIVE MODE")
        exporting = asyncio.create_task(_export(shop, into))
        yield exporting, await _waiting_process()
    finally:
        await holder.close()


async def _waiting_process() -> int:
    async with asyncio.timeout(30):
        while True:
            row = await database().row(WAITING)
            if row is not None:
                return int(row["pid"])
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["the connection ends", "nothing comes"])
async def test_an_export_whose_database_goes_away_leaves_nothing_and_says_so(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    await world(shop)
    if way == "nothing comes":
        monkeypatch.setattr(report_files, "SILENCE_SECONDS_MAX", 2.0)

    async with _held_back(shop, tmp_path / "export") as (exporting, process):
        (partial,) = _below(tmp_path)
        written = _names(partial)
        if way == "the connection ends":
            await database().row("SELECT pg_terminate_backend($1)", process)
        with pytest.raises(ConfigurationError, match=r"The database failed half-way \(\w+\); nothing was exported\."):
            await exporting

    assert written == {f"{name}.csv" for name in REPORTS}
    assert _below(tmp_path) == []
    assert (await _export(shop, tmp_path / "export")).files[0].rows == 3


async def test_a_killed_export_leaves_nothing_that_looks_whole(
    shop: Shop, worker_database: str, tmp_path: Path
) -> None:
    await world(shop)
    holder = await asyncpg.connect(dsn(os.environ["DATABASE_URL"]))
    try:
        await holder.execute(f"BEGIN; LOCK TABLE {LAST} IN ACCESS EXCLUSIVE MODE")
        variables = environment(DATABASE_REPLICA_URL=worker_database, FLASH_DATA=tmp_path / "data")
        process = start("export", tmp_path / "export", "--merchant", _merchant(shop), environment=variables)
        await _waiting_process()
        process.kill()
        process.wait()
    finally:
        await holder.close()

    (left,) = _below(tmp_path)
    assert left.name.startswith(".export.partial-")
    assert _names(left) == {f"{name}.csv" for name in REPORTS}
    assert (await _export(shop, tmp_path / "export")).files[0].rows == 3


async def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    before = _below(tmp_path)
    url, merchant = os.environ["DATABASE_URL"], _merchant(shop)
    nobody = ids.encode("merchant", ids.new())

    async def said(into: str, named: str = merchant, tables: tuple[str, ...] = ("pools",), at: str = url) -> str:
        with pytest.raises(ConfigurationError) as raised:
            await export(at, "DATABASE_REPLICA_URL", named, tmp_path / into, tables, "csv")
        return str(raised.value).replace(str(tmp_path), "HERE")

    assert await said("taken") == "HERE/taken exists already; choose a directory that doesn't, or that is empty."
    assert await said("file") == "HERE/file exists already; choose a directory that doesn't, or that is empty."
    assert await said("file/below") == "HERE/file/below can't be written: File exists."
    assert await said("empty", nobody) == f"There is no merchant {nobody}."
    assert await said("empty", "pool_x") == "There is no merchant pool_x."
    assert (await said("empty", tables=("pools", "pool; DROP TABLE pool"))).startswith(
        "There is no table 'pool; DROP TABLE pool'; choose from pools, codes, "
    )
    assert (await said("empty", at="mysql://u:verysecret@h/x")).startswith(
        "DATABASE_REPLICA_URL must look like postgres"
    )
    assert (await said("empty", at="postgresql://u:verysecret@127.0.0.1:1/x")).endswith("; check DATABASE_REPLICA_URL.")
    assert _below(tmp_path) == before
    assert (await _export(shop, tmp_path / "empty", "pools", "pools")).files[0].file == "pools.csv"


async def test_a_full_disk_leaves_nothing_and_says_so(shop: Shop, worker_database: str, tmp_path: Path) -> None:
    """A process that may write 4 KiB to a file."""
    await shop.pool(codes=200)
    limited = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *FLASH, "export", str(tmp_path / "export")]

    ended = await asyncio.to_thread(
        subprocess.run, [*limited, "--merchant", _merchant(shop)], capture_output=True, text=True,
        env=environment(DATABASE_REPLICA_URL=worker_database, FLASH_DATA=tmp_path / "data"), timeout=60,
    )  # fmt: skip

    assert ended.stderr == "flash: The files can't be written (File too large); nothing was exported.\n"
    assert ended.returncode == 1
    assert _below(tmp_path) == []


async def test_reports_and_exports_read_the_replica_where_there_is_one(
    shop: Shop, worker_database: str, tmp_path: Path
) -> None:
    """Another database stands for a replica that has yet to hear of this merchant."""
    await shop.pool()
    arguments = ("export", tmp_path / "export", "--merchant", _merchant(shop))
    async with scratch_database() as replica:
        starting = run_api(worker_database, DATABASE_REPLICA_URL=replica)
        api = await asyncio.to_thread(starting.__enter__)
        try:
            document = "{ pools { edges { cursor } } reportPools { edges { cursor } } }"
            answer = await shop.data(document, url=f"{api.url}/graphql")
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
        said = await asyncio.to_thread(
            lambda: refusal(*arguments, DATABASE_URL=worker_database, DATABASE_REPLICA_URL=replica, FLASH_DATA=tmp_path)
        )

    assert [len(answer[field]["edges"]) for field in ("pools", "reportPools")] == [1, 0]
    assert said == f"There is no merchant {_merchant(shop)}."
    assert len((await page_of(shop, "pools"))["edges"]) == 1
